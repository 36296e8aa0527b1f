/* Writes safetensors files: small results at once, models as a stream. They appear whole or not at all. */
#ifndef PL_MODEL_SAFETENSORS_WRITER_H
#define PL_MODEL_SAFETENSORS_WRITER_H

#include "host/base/status.h"

/* ---- a model: first what it holds, then the tensors' bytes in that order --------------------------- */

typedef struct pl_safetensors_writer pl_safetensors_writer;

pl_status pl_safetensors_writer_create(pl_safetensors_writer **out, pl_error *err);

/* Also removes what was written and not committed. */
void pl_safetensors_writer_free(pl_safetensors_writer *w);

/* dtype: as the format writes it, "BF16"; bytes: of all its values. Readers want values on multiples of their size:
 * declare the wider ones first. Cannot fail: trouble is told by begin. */
void pl_safetensors_declare(pl_safetensors_writer *w, const char *name, const char *dtype, const int64_t *dims,
                            int n_dims, uint64_t bytes);

/* format: what the file's metadata says under that name ("pt"), or NULL. */
pl_status pl_safetensors_writer_begin(pl_safetensors_writer *w, const char *path, const char *format, pl_error *err);
pl_status pl_safetensors_writer_append(pl_safetensors_writer *w, const void *data, size_t bytes, pl_error *err);

/* Puts the file in place. Bytes missing are a bug of the caller. */
pl_status pl_safetensors_writer_commit(pl_safetensors_writer *w, pl_error *err);

/* ---- results for other tools to read --------------------------------------------------------------- */

typedef enum pl_out_dtype { PL_OUT_F32, PL_OUT_I32 } pl_out_dtype;

typedef struct pl_out_tensor {
    const char *name; /* any text that is not empty */
    pl_out_dtype dtype;
    int n_dims;       /* 0 to 8 */
    int64_t dims[8];  /* row-major, outermost first */
    const void *data; /* borrowed; the product of dims values */
} pl_out_tensor;

/* Names must differ. */
pl_status pl_safetensors_write(const char *path, const pl_out_tensor *tensors, size_t n, pl_error *err);

#endif
