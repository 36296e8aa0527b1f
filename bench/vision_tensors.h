/* The tensors of MobileNet-V5-300M as Gemma 3n has it: names and shapes. */
#ifndef PL_BENCH_VISION_TENSORS_H
#define PL_BENCH_VISION_TENSORS_H

#include <stdint.h>

/* cols 0: a vector */
typedef void (*vision_tensor_fn)(void *user, const char *name, int64_t rows, int64_t cols);

/* All of tower and embedder, for rows of `text` values. */
void vision_tensors(vision_tensor_fn add, void *user, int64_t text);

#endif
