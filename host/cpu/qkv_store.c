/* From projections to attention's operands: norms per head, rotation, and the store of K and V. */
#include "host/base/isa.h"
#include "host/cpu/kv_rows.h"
#include "host/cpu/stream.h"

#include <math.h>

typedef struct rope_job {
    float *out;
    const int32_t *position;
    const float *inv_freq;
    int half;
} rope_job;

/* The angle is rounded to f32 as transformers does, then taken in double: at position 32768 a float sine
 * would be noise. */
static void rope_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const rope_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        float *cosine = j->out + r * 2 * j->half, *sine = cosine + j->half;
        for (int i = 0; i < j->half; i++) {
            double angle = (double)((float)j->position[r] * j->inv_freq[i]);
            cosine[i] = (float)cos(angle);
            sine[i] = (float)sin(angle);
        }
    }
}

static void rope_table(pl_stream *s, float *out, const int32_t *position, int n, const float *inv_freq, int half)
{
    rope_job job = {out, position, inv_freq, half};
    pl_pool_for(s->pool, n, row_grain(s, n), rope_rows, &job);
}

typedef struct store_job {
    float *q, *k, *v;
    const pl_kv_layer *kv;
    const pl_rows *rows;
    pl_heads heads;
    const float *q_norm, *k_norm, *rope;
    float eps;
} store_job;

/* Pairs (i, i + half). */
static void rotate(float *x, const float *rope, int half)
{
    const float *cosine = rope, *sine = rope + half;
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

static void store_head(const store_job *j, int64_t r, int head, float *k, float *v)
{
    int dim = j->heads.dim;
    int32_t position = j->rows->position[r];
    int32_t page = j->kv->table[j->rows->sequence[r] * j->kv->table_ld + position / PL_KV_PAGE];
    size_t at = (size_t)head * pl_kv_head_bytes(j->kv->type, dim);
    char *keys = (char *)(j->kv->k + page * j->kv->page_stride),
         *values = (char *)(j->kv->v + page * j->kv->page_stride);
    PL_ISA_NAME(pl_kv_put)(j->kv->type, keys + at, position % PL_KV_PAGE, k, dim);
    PL_ISA_NAME(pl_kv_put)(j->kv->type, values + at, position % PL_KV_PAGE, v, dim);
}

static void store_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const store_job *j = ctx;
    int dim = j->heads.dim;
    for (int64_t r = begin; r < end; r++) {
        const float *rope = j->rope + j->rows->slot[r] * (int64_t)dim;
        for (int h = 0; h < j->heads.heads; h++) {
            float *q = j->q + (r * j->heads.heads + h) * dim;
            row_norm(q, q, j->q_norm, dim, j->eps);
            rotate(q, rope, dim / 2);
        }
        for (int h = 0; j->k && h < j->heads.kv_heads; h++) {
            float *k = j->k + (r * j->heads.kv_heads + h) * dim, *v = j->v + (r * j->heads.kv_heads + h) * dim;
            row_norm(k, k, j->k_norm, dim, j->eps);
            rotate(k, rope, dim / 2);
            row_norm(v, v, NULL, dim, j->eps);
            store_head(j, r, h, k, v);
        }
    }
}

static void qkv_store(pl_stream *s, float *q, float *k, float *v, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, const float *q_norm, const float *k_norm, const float *rope, float eps)
{
    store_job job = {q, k, v, kv, rows, heads, q_norm, k_norm, rope, eps};
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), store_rows, &job);
}

void PL_ISA_NAME(pl_qkv_ops)(pl_ops *ops)
{
    ops->rope_table = rope_table;
    ops->qkv_store = qkv_store;
}
