/* Numbers that tell one thing from another. */
#ifndef PL_MODEL_FINGERPRINT_H
#define PL_MODEL_FINGERPRINT_H

#include "host/model/checkpoint.h"

/* Of what `hash` is of, 0 for nothing, and of n bytes behind it. */
uint64_t pl_fingerprint(uint64_t hash, const void *data, size_t n);

/* Of the tensors' names, shapes and types and of the first and last bytes of each: another model, another type or
 * another training makes another number; so does the same model in another format. Reads a few pages a tensor. */
uint64_t pl_checkpoint_fingerprint(const pl_checkpoint *checkpoint);

#endif
