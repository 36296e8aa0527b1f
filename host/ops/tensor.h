/* Views of weights as a file holds them. */
#ifndef PL_OPS_TENSOR_H
#define PL_OPS_TENSOR_H

#include "quant/blocks.h"

/* A matrix, row-major, y = W x with x of `cols` and y of `rows` values; a vector has rows = 1. A row is a
 * whole number of blocks. data == NULL: the tensor is absent (only where a description allows it). Plain
 * types are aligned to their element size; blocks may stand anywhere. Borrowed from the checkpoint. */
typedef struct pl_tensor {
    const char *name;
    const void *data;
    int64_t rows, cols;
    pl_dtype type;
} pl_tensor;

static inline size_t pl_tensor_row_bytes(const pl_tensor *t)
{
    return pl_dtype_bytes(t->type, t->cols);
}

static inline const void *pl_tensor_row(const pl_tensor *t, int64_t row)
{
    return (const char *)t->data + (size_t)row * pl_tensor_row_bytes(t);
}

#endif
