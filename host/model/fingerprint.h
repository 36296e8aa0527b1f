/* What tells one checkpoint from another, without reading all of it. */
#ifndef PL_MODEL_FINGERPRINT_H
#define PL_MODEL_FINGERPRINT_H

#include "host/model/checkpoint.h"

/* Of the tensors' names, shapes and types and of the first and last bytes of each: another model, another type or
 * another training makes another number; so does the same model in another format. Reads a few pages a tensor. */
uint64_t pl_checkpoint_fingerprint(const pl_checkpoint *checkpoint);

#endif
