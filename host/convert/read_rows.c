#include "host/convert/read_rows.h"

#include <math.h>

/* Infinities and NANs times zero are NANs, and NANs stay in a sum. */
static bool all_finite(const float *x, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * 0;
    return sum == 0;
}

bool pl_read_rows(const pl_export_tensor *t, int64_t row, int64_t n, float *out, int64_t *bad)
{
    pl_export_read(t, row, n, out);
    if (all_finite(out, n * t->n_cols))
        return true;
    int64_t i = 0;
    while (isfinite(out[i]))
        i++;
    *bad = row * t->n_cols + i;
    return false;
}

pl_status pl_fail_not_finite(const pl_export *e, const pl_export_tensor *t, int64_t bad, pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s: row %lld, column %lld is not a finite number",
                   pl_checkpoint_path(e->source), t->name, (long long)(bad / t->n_cols), (long long)(bad % t->n_cols));
}
