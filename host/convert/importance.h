/* How much each column of a tensor counts, from an importance matrix. */
#ifndef PL_CONVERT_IMPORTANCE_H
#define PL_CONVERT_IMPORTANCE_H

#include "host/convert/export.h"
#include "host/model/imatrix.h"

typedef struct pl_importance {
    float *weight; /* [n_mat][cols], all positive; NULL: all columns count the same */
    int64_t cols, rows_per_mat;
} pl_importance;

/* Of the entry under the tensor's name in the file; imatrix may be NULL. An entry of another shape is PL_ERR_FORMAT.
 * weight is taken with malloc: pl_importance_free(). */
pl_status pl_importance_get(const pl_imatrix *imatrix, const pl_export_tensor *t, pl_importance *out, pl_error *err);
void pl_importance_free(pl_importance *importance);

/* The shapes of all entries that e's tensors would take. */
pl_status pl_importance_check(const pl_imatrix *imatrix, const pl_export *e, pl_error *err);

/* How many of e's matrices have an entry. */
size_t pl_importance_covers(const pl_imatrix *imatrix, const pl_export *e);

/* Weights of the columns of a row, or NULL. */
static inline const float *pl_importance_row(const pl_importance *importance, int64_t row)
{
    return importance->weight ? importance->weight + row / importance->rows_per_mat * importance->cols : NULL;
}

#endif
