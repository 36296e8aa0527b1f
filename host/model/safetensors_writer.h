/* Writes small safetensors files: results for other tools to read. */
#ifndef PL_MODEL_SAFETENSORS_WRITER_H
#define PL_MODEL_SAFETENSORS_WRITER_H

#include "host/base/status.h"

typedef enum pl_out_dtype { PL_OUT_F32, PL_OUT_I32 } pl_out_dtype;

typedef struct pl_out_tensor {
    const char *name; /* any text that is not empty */
    pl_out_dtype dtype;
    int n_dims;       /* 0 to 8 */
    int64_t dims[8];  /* row-major, outermost first */
    const void *data; /* borrowed; the product of dims values */
} pl_out_tensor;

/* The file appears whole or not at all. Names must differ. */
pl_status pl_safetensors_write(const char *path, const pl_out_tensor *tensors, size_t n, pl_error *err);

#endif
