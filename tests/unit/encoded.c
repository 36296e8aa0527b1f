#include "tests/unit/encoded.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

void encode_decode(encode_fn encode, pl_dtype type, const float *x, const float *w, float *y, int n)
{
    unsigned char *blocks = malloc(pl_dtype_bytes(type, n));
    cr_assert_not_null(blocks);
    encode(type, x, w, blocks, n);
    pl_decode(type, blocks, y, n);
    for (int i = 0; i < n; i++)
        cr_assert(isfinite(y[i]), "%s: value %d is %g", pl_dtype_describe((int)type)->name, i, (double)y[i]);
    free(blocks);
}

double error_of(const float *x, const float *y, const float *w, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (w ? (double)w[i] : 1.0) * ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}
