/* Rows of a planned tensor as floats, checked: quantisers take finite values only. */
#ifndef PL_CONVERT_READ_ROWS_H
#define PL_CONVERT_READ_ROWS_H

#include "host/convert/export.h"

/* out[0 .. n * n_cols) = rows [row, row + n). False where a value is not finite; *bad is then its place in the tensor,
 * counted from 0. Any thread. */
bool pl_read_rows(const pl_export_tensor *t, int64_t row, int64_t n, float *out, int64_t *bad);

/* The message for it, naming tensor, row and column. */
pl_status pl_fail_not_finite(const pl_export *e, const pl_export_tensor *t, int64_t bad, pl_error *err);

#endif
