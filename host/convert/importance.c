#include "host/convert/importance.h"

#include <stdlib.h>

/* A column that the measured text never used has sum 0 but is used by other texts: without a floor its values would
 * come out as anything. A thousandth of the mean is enough to give it sane codes, and too little to cost the others. */
#define FLOOR 1e-3

static const pl_imatrix_entry *find(const pl_imatrix *imatrix, const pl_export_tensor *t)
{
    bool matrix = t->role < PL_ROLES && pl_weight_table[t->role].kind != PL_WEIGHT_VECTOR;
    return imatrix && matrix ? pl_imatrix_find(imatrix, t->name) : NULL;
}

static pl_status check(const pl_imatrix_entry *entry, const pl_export_tensor *t, pl_error *err)
{
    if (entry->cols != t->n_cols)
        return pl_fail(err, PL_ERR_FORMAT, "importance matrix: %s has %lld columns, the model's tensor %lld", t->name,
                       (long long)entry->cols, (long long)t->n_cols);
    if (entry->n_mat != 1 && entry->n_mat != t->n_parts)
        return pl_fail(err, PL_ERR_FORMAT, "importance matrix: %s has %d matrices, the model's tensor %d", t->name,
                       entry->n_mat, t->n_parts);
    return PL_OK;
}

/* Means over tokens; scaled so that their own mean is 1, to stay within what floats hold. */
static void fill(const double *sum2, int64_t cols, float *out)
{
    double total = 0;
    for (int64_t c = 0; c < cols; c++)
        total += sum2[c];
    double mean = total / (double)cols;
    for (int64_t c = 0; c < cols; c++) {
        double relative = mean > 0 ? sum2[c] / mean : 1;
        out[c] = (float)(relative > FLOOR ? relative : FLOOR);
    }
}

pl_status pl_importance_get(const pl_imatrix *imatrix, const pl_export_tensor *t, pl_importance *out, pl_error *err)
{
    const pl_imatrix_entry *entry = find(imatrix, t);
    *out = (pl_importance){.weight = NULL, .cols = t->n_cols, .rows_per_mat = t->n_rows};
    if (!entry)
        return PL_OK;
    PL_TRY(check(entry, t, err));
    size_t n = (size_t)entry->n_mat * (size_t)entry->cols;
    out->weight = calloc(n, sizeof *out->weight);
    if (!out->weight)
        return pl_fail_memory(err, n * sizeof *out->weight, t->name);
    out->rows_per_mat = t->n_rows / entry->n_mat;
    for (int m = 0; m < entry->n_mat; m++)
        fill(entry->sum2 + m * entry->cols, entry->cols, out->weight + m * entry->cols);
    return PL_OK;
}

void pl_importance_free(pl_importance *importance)
{
    free(importance->weight);
    importance->weight = NULL;
}

pl_status pl_importance_check(const pl_imatrix *imatrix, const pl_export *e, pl_error *err)
{
    for (size_t i = 0; i < e->n; i++) {
        const pl_imatrix_entry *entry = find(imatrix, &e->tensors[i]);
        if (entry)
            PL_TRY(check(entry, &e->tensors[i], err));
    }
    return PL_OK;
}

size_t pl_importance_covers(const pl_imatrix *imatrix, const pl_export *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->n; i++)
        n += find(imatrix, &e->tensors[i]) != NULL;
    return n;
}
