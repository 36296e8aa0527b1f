/* What a file to be written holds: each tensor in order, which values of the source it takes, its type. Made from a
 * checkpoint as a whole or from the part that a path uses; quantising and slicing both start from it. */
#ifndef PL_CONVERT_EXPORT_H
#define PL_CONVERT_EXPORT_H

#include "host/base/arena.h"
#include "host/model/path.h"
#include "host/model/weight_table.h"

typedef struct pl_export_span {
    int64_t from, n;
} pl_export_span;

typedef struct pl_export_tensor {
    const char *name; /* in the file to be written */
    pl_role role;     /* PL_ROLES: a tensor that the text model does not use, kept as it is */
    int layer;        /* in the file; -1: of the whole model */
    int64_t dims[4];  /* in the file, row-major */
    int n_dims;
    const pl_tensor *source; /* n_parts views of equal shape, stacked; NULL: zeros */
    int n_parts;
    const pl_export_span *rows, *cols; /* what is taken of each part, ascending; NULL: all */
    int n_row_spans, n_col_spans;
    int64_t n_rows, n_cols; /* of the file's tensor, parts together: the product of dims is n_rows * n_cols; rows
                             * behind those of the parts hold zeros */
    pl_dtype type;          /* in the file; pl_export_plan() gives the source's; f32 for vectors in GGUF, and where
                             * parts differ or blocks would be cut */
} pl_export_tensor;

typedef struct pl_export {
    const pl_checkpoint *source;
    pl_checkpoint_format format;  /* to be written */
    pl_config config;             /* of what is written */
    int old_layer[PL_MAX_LAYERS]; /* the source's number of each layer */
    const pl_named_path *paths;   /* nested paths that it declares */
    size_t n_paths;
    pl_export_tensor *tensors;
    size_t n;
    pl_arena *arena; /* owns all of it but the source */
} pl_export;

/* path: NULL for everything. A tensor that the model needs in every layer for llama.cpp's sake (K/V matrices of
 * layers that share K/V) and that the source lacks is planned as zeros in GGUF. Borrows the checkpoint. */
pl_status pl_export_plan(const pl_checkpoint *source, const pl_path *path, pl_checkpoint_format format, pl_export **out,
                         pl_error *err);
void pl_export_free(pl_export *e);

/* Of the tensors' data in the file, but for types that we do not know. */
int64_t pl_export_bytes(const pl_export *e);

/* out[0 .. n * n_cols) = values of the file's rows [row, row + n). Any thread. */
void pl_export_read(const pl_export_tensor *t, int64_t row, int64_t n, float *out);

/* True where the file's bytes are the source's, row by row: the type is the source's and no block is cut. */
bool pl_export_is_copy(const pl_export_tensor *t);
void pl_export_copy(const pl_export_tensor *t, int64_t row, int64_t n, void *out);

#endif
