/* The towers' products, and attention as two of them. */
#include <assert.h>
#include <string.h>

#include "host/cpu/tower.h"

/* Scores of so many queries are made at once: they stay in a core's second-level cache. */
#define QUERY_BLOCK 1024

/* Values looked at at once. */
#define CHECKED 256

typedef struct finite_job {
    const pl_tensor *t;
    int64_t bad; /* the first row that is not finite; rows: none */
} finite_job;

static bool finite_row(const pl_tensor *t, int64_t row)
{
    const unsigned char *data = pl_tensor_row(t, row);
    const pl_dtype_info *info = pl_dtype_describe(t->type);
    float values[CHECKED];
    for (int64_t i = 0; i < t->cols; i += CHECKED) {
        int64_t n = t->cols - i < CHECKED ? t->cols - i : CHECKED;
        pl_decode(t->type, data + i / info->block_elems * info->block_bytes, values, n);
        uint32_t largest = 0;
        for (int64_t k = 0; k < n; k++) {
            uint32_t bits;
            memcpy(&bits, values + k, sizeof bits);
            bits &= 0x7fffffff;
            largest = bits > largest ? bits : largest;
        }
        if (largest >= 0x7f800000)
            return false;
    }
    return true;
}

static void finite_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    finite_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        int64_t known = __atomic_load_n(&j->bad, __ATOMIC_RELAXED);
        if (r >= known)
            return;
        if (finite_row(j->t, r))
            continue;
        while (r < known && !__atomic_compare_exchange_n(&j->bad, &known, r, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        return;
    }
}

static pl_status ready_op(pl_stream *s, const pl_tensor *t, void *dst, pl_tower_matrix *out, pl_error *err)
{
    finite_job job = {t, t->rows};
    pl_pool_for(s->pool, t->rows, 16, finite_rows, &job);
    if (job.bad < t->rows)
        return pl_fail(err, PL_ERR_FORMAT, "tensor %s: row %lld has a value that is not finite", t->name,
                       (long long)job.bad);
    s->gemm->pack(s->pool, t, dst, out);
    return PL_OK;
}

static void product_op(pl_stream *s, float *out, int64_t ld_out, const float *x, int64_t ld_x, int64_t n,
                       const pl_tower_matrix *w)
{
    pl_gemm_rows rows = {.x = x, .ld = ld_x};
    s->gemm->multiply(s->pool, s->gemm_scratch, out, ld_out, &rows, n, w);
}

static void convolve_op(pl_stream *s, pl_map out, pl_map in, const pl_tower_matrix *w, pl_kernel_window window)
{
    assert(w->rows == out.channels && w->cols == in.channels * window.size * window.size);
    pl_gemm_rows rows = {.map = &in, .window = window, .out_width = out.width};
    s->gemm->multiply(s->pool, s->gemm_scratch, out.v, out.channels, &rows, (int64_t)out.height * out.width, w);
}

/* ---- attention ---- */

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Where in its scratch attention has what, in bytes. */
typedef struct attend_places {
    size_t keys, values; /* made ready */
    size_t turned;       /* values, [value_dim][n_keys] */
    size_t scores;       /* [QUERY_BLOCK][n_keys] */
    size_t total;
} attend_places;

static attend_places lay_out(const pl_gemm_kernels *gemm, int64_t n_keys, int key_dim, int value_dim)
{
    attend_places p = {0};
    p.values = p.keys + aligned(gemm->bytes(n_keys, key_dim, PL_F32));
    p.turned = p.values + aligned(gemm->bytes(value_dim, n_keys, PL_F32));
    p.scores = p.turned + aligned((size_t)value_dim * (size_t)n_keys * sizeof(float));
    p.total = p.scores + aligned((size_t)QUERY_BLOCK * (size_t)n_keys * sizeof(float));
    return p;
}

static void attend_op(pl_stream *s, float *out, const pl_pixel_attention *a, void *scratch)
{
    attend_places at = lay_out(s->gemm, a->n_keys, a->key_dim, a->value_dim);
    char *room = scratch;
    float *turned = (float *)(room + at.turned), *scores = (float *)(room + at.scores);
    pl_tower_matrix keys, values;
    for (int64_t i = 0; i < a->n_keys; i++)
        for (int64_t d = 0; d < a->value_dim; d++)
            turned[d * a->n_keys + i] = a->v[i * a->value_dim + d];
    pl_tensor k = {"keys", a->k, a->n_keys, a->key_dim, PL_F32};
    pl_tensor v = {"values", turned, a->value_dim, a->n_keys, PL_F32};
    s->gemm->pack(s->pool, &k, room + at.keys, &keys);
    s->gemm->pack(s->pool, &v, room + at.values, &values);
    for (int64_t i = 0; i < a->n; i += QUERY_BLOCK) {
        int64_t n = a->n - i < QUERY_BLOCK ? a->n - i : QUERY_BLOCK;
        product_op(s, scores, a->n_keys, a->q + i * a->key_dim, a->key_dim, n, &keys);
        s->softmax(s->pool, scores, n, a->n_keys, a->scale);
        product_op(s, out + i * a->value_dim, a->value_dim, scores, a->n_keys, n, &values);
    }
}

static size_t attend_bytes_op(pl_stream *s, int64_t n_keys, int key_dim, int value_dim)
{
    return lay_out(s->gemm, n_keys, key_dim, value_dim).total;
}

void pl_tower_gemm_ops(pl_tower_ops *ops)
{
    ops->attend_bytes = attend_bytes_op;
    ops->ready = ready_op;
    ops->product = product_op;
    ops->convolve = convolve_op;
    ops->attend = attend_op;
}
