/* Norms of the towers' rows, with what follows them, and the softmax of their attention. */
#include "host/base/isa.h"
#include "host/cpu/tower.h"

#define INLINE static inline __attribute__((always_inline))

/* Values that are done step by step side by side. */
enum { STEP = PL_MOST_PARTS * PL_PART_LANES };

typedef struct norm_job {
    float *out;
    const float *x;
    int64_t cols;
    pl_tower_norm norm;
} norm_job;

INLINE void act_parts(pl_part *x, pl_tower_act act)
{
    pl_part e[PL_MOST_PARTS];
    switch (act) {
    case PL_TOWER_LINEAR: return;
    case PL_TOWER_RELU:
        for (int p = 0; p < PL_MOST_PARTS; p++)
            x[p] = part_max(part_set(0), x[p]); /* NaN stays */
        return;
    case PL_TOWER_SILU:
        for (int p = 0; p < PL_MOST_PARTS; p++)
            e[p] = -x[p];
        part_exp(e, PL_MOST_PARTS);
        for (int p = 0; p < PL_MOST_PARTS; p++)
            x[p] = x[p] / (1.0f + e[p]);
        return;
    case PL_TOWER_GELU: part_gelu(x, PL_MOST_PARTS);
    }
}

/* STEP values; weight, gamma: where they begin for these. */
INLINE void norm_step(float *out, const float *x, const float *residual, const pl_tower_norm *norm, float inverse,
                      const float *weight, const float *gamma)
{
    pl_part v[PL_MOST_PARTS];
    for (int p = 0; p < PL_MOST_PARTS; p++) {
        v[p] = part_load(x + p * PL_PART_LANES) * inverse;
        if (weight)
            v[p] *= part_load(weight + p * PL_PART_LANES);
    }
    act_parts(v, norm->act);
    for (int p = 0; p < PL_MOST_PARTS; p++) {
        if (gamma)
            v[p] *= part_load(gamma + p * PL_PART_LANES);
        v[p] *= norm->factor;
        if (residual)
            v[p] += part_load(residual + p * PL_PART_LANES);
        part_store(out + p * PL_PART_LANES, v[p]);
    }
}

static const float *padded(float *to, const float *from, int64_t n)
{
    if (!from)
        return NULL;
    memset(to, 0, STEP * sizeof *to);
    return memcpy(to, from, (size_t)n * sizeof *to);
}

static void norm_tail(float *out, const float *x, const float *residual, const pl_tower_norm *norm, float inverse,
                      int64_t at, int64_t n)
{
    float y[STEP], from[STEP], r[STEP], w[STEP], g[STEP];
    norm_step(y, padded(from, x, n), padded(r, residual, n), norm, inverse,
              padded(w, norm->weight ? norm->weight + at : NULL, n),
              padded(g, norm->gamma ? norm->gamma + at : NULL, n));
    memcpy(out, y, (size_t)n * sizeof *out);
}

static void norm_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const norm_job *j = ctx;
    const pl_tower_norm *norm = &j->norm;
    for (int64_t r = begin; r < end; r++) {
        const float *x = j->x + r * j->cols, *residual = norm->residual ? norm->residual + r * j->cols : NULL;
        float *out = j->out + r * j->cols;
        float inverse = norm->plain ? 1.0f : row_inverse_rms(x, j->cols, norm->eps);
        int64_t i = 0;
        for (; i + STEP <= j->cols; i += STEP)
            norm_step(out + i, x + i, residual ? residual + i : NULL, norm, inverse,
                      norm->weight ? norm->weight + i : NULL, norm->gamma ? norm->gamma + i : NULL);
        if (i < j->cols)
            norm_tail(out + i, x + i, residual ? residual + i : NULL, norm, inverse, i, j->cols - i);
    }
}

static void norm_op(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols, const pl_tower_norm *norm)
{
    norm_job job = {out, x, cols, *norm};
    pl_pool_for(s->pool, n, row_grain(s, n), norm_rows, &job);
}

void PL_ISA_NAME(pl_tower_norm_ops)(pl_tower_ops *ops)
{
    ops->norm = norm_op;
}

/* ---- softmax ---- */

typedef struct softmax_job {
    float *x;
    int64_t cols;
    float scale;
} softmax_job;

/* poison: 0, or NaN where some value is not finite, which exp would not show. */
static float row_largest(const float *x, int64_t n, float *poison)
{
    pl_vec most = vec_set(x[0]), none = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES) {
        pl_vec v = vec_load(x + i);
        most = vec_max(most, v);
        none += v * 0.0f;
    }
    float largest = vec_largest(most);
    *poison = vec_sum(none);
    for (; i < n; i++) {
        largest = x[i] > largest ? x[i] : largest;
        *poison += x[i] * 0.0f;
    }
    return largest;
}

/* x = exp((x - largest) * scale) for STEP values, added to sum in groups of sixteen. */
INLINE void exp_step(float *x, float largest, float scale, pl_vec *sum)
{
    pl_part v[PL_MOST_PARTS];
    for (int p = 0; p < PL_MOST_PARTS; p++)
        v[p] = (part_load(x + p * PL_PART_LANES) - largest) * scale;
    part_exp(v, PL_MOST_PARTS);
    for (int p = 0; p < PL_MOST_PARTS; p++)
        part_store(x + p * PL_PART_LANES, v[p]);
    for (int i = 0; i < STEP; i += PL_LANES)
        *sum += vec_load(x + i);
}

static void softmax_row(float *x, int64_t n, float scale)
{
    float poison, largest = row_largest(x, n, &poison), tail[STEP] = {0};
    pl_vec sum = {0};
    int64_t i = 0, rest;
    for (; i + STEP <= n; i += STEP)
        exp_step(x + i, largest, scale, &sum);
    rest = n - i;
    if (rest > 0) {
        pl_vec unused = {0};
        memcpy(tail, x + i, (size_t)rest * sizeof *x);
        exp_step(tail, largest, scale, &unused);
        memset(tail + rest, 0, (size_t)(STEP - rest) * sizeof *x);
        for (int k = 0; k < STEP; k += PL_LANES)
            sum += vec_load(tail + k);
        memcpy(x + i, tail, (size_t)rest * sizeof *x);
    }
    float inverse = 1.0f / vec_sum(sum) + poison;
    for (i = 0; i < n; i++)
        x[i] *= inverse;
}

static void softmax_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const softmax_job *j = ctx;
    for (int64_t r = begin; r < end; r++)
        softmax_row(j->x + r * j->cols, j->cols, j->scale);
}

void PL_ISA_NAME(pl_tower_softmax)(pl_pool *pool, float *x, int64_t n, int64_t cols, float scale)
{
    softmax_job job = {x, cols, scale};
    pl_pool_for(pool, n, 16, softmax_rows, &job);
}
