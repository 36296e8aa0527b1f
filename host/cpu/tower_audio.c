/* The ops that only the audio tower has: steps in time that look back. */
#include "host/base/isa.h"
#include "host/cpu/tower.h"

#define INLINE static inline __attribute__((always_inline))

INLINE pl_vec sigmoid(pl_vec x)
{
    return 1.0f / (1.0f + vec_exp(-x));
}

typedef struct pair_job {
    float *out;
    const float *x;
    int64_t cols;
} pair_job;

typedef struct clip_job {
    float *out;
    const float *x;
    int64_t cols;
    float limit;
} clip_job;

static void clip_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const clip_job *j = ctx;
    for (int64_t i = begin * j->cols; i < end * j->cols; i++) {
        float v = j->x[i] > j->limit ? j->limit : j->x[i];
        j->out[i] = v < -j->limit ? -j->limit : v;
    }
}

static void clip(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols, float limit)
{
    clip_job job = {out, x, cols, limit};
    pl_pool_for(s->pool, n, row_grain(s, n), clip_rows, &job);
}

static void silu_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const pair_job *j = ctx;
    for (int64_t r = begin; r < end; r++)
        for (int64_t i = 0; i < j->cols; i += PL_LANES) {
            int64_t n = j->cols - i < PL_LANES ? j->cols - i : PL_LANES;
            pl_vec v = lanes_load(j->x + r * j->cols + i, n);
            lanes_store(j->out + r * j->cols + i, v * sigmoid(v), n);
        }
}

static void silu(pl_stream *s, float *x, int64_t n, int64_t cols)
{
    pair_job job = {x, x, cols};
    pl_pool_for(s->pool, n, row_grain(s, n), silu_rows, &job);
}

static void add_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const pair_job *j = ctx;
    for (int64_t i = begin * j->cols; i < end * j->cols; i++)
        j->out[i] += j->x[i];
}

static void add(pl_stream *s, float *x, const float *y, int64_t n, int64_t cols)
{
    pair_job job = {x, y, cols};
    pl_pool_for(s->pool, n, row_grain(s, n), add_rows, &job);
}

static void gate_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const pair_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        const float *x = j->x + r * 2 * j->cols, *by = x + j->cols;
        for (int64_t i = 0; i < j->cols; i += PL_LANES) {
            int64_t n = j->cols - i < PL_LANES ? j->cols - i : PL_LANES;
            lanes_store(j->out + r * j->cols + i, lanes_load(x + i, n) * sigmoid(lanes_load(by + i, n)), n);
        }
    }
}

static void gate(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols)
{
    pair_job job = {out, x, cols};
    pl_pool_for(s->pool, n, row_grain(s, n), gate_rows, &job);
}

typedef struct convolve_job {
    float *out;
    const float *x, *w;
    int64_t cols;
    int size;
} convolve_job;

static void convolve_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const convolve_job *j = ctx;
    for (int64_t r = begin; r < end; r++)
        for (int64_t i = 0; i < j->cols; i += PL_LANES) {
            int64_t n = j->cols - i < PL_LANES ? j->cols - i : PL_LANES;
            pl_vec sum = {0};
            for (int t = 0; t < j->size; t++)
                sum += lanes_load(j->w + t * j->cols + i, n) * lanes_load(j->x + (r + t) * j->cols + i, n);
            lanes_store(j->out + r * j->cols + i, sum, n);
        }
}

static void convolve_back(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols, const float *w, int size)
{
    convolve_job job = {out, x, w, cols, size};
    pl_pool_for(s->pool, n, row_grain(s, n), convolve_rows, &job);
}

/* ---- attention ---- */

typedef struct attend_job {
    float *out;
    const pl_tower_look_back *a;
} attend_job;

INLINE float score(const float *q, const float *scale, const float *k, const float *position, int64_t dim)
{
    pl_vec sum = {0};
    for (int64_t i = 0; i < dim; i += PL_LANES) {
        int64_t n = dim - i < PL_LANES ? dim - i : PL_LANES;
        sum += lanes_load(q + i, n) * lanes_load(scale + i, n) * (lanes_load(k + i, n) + lanes_load(position + i, n));
    }
    return vec_sum(sum);
}

/* Capped scores of n keys to their shares. */
static void shares(float *score_of, int n, float cap)
{
    float largest = -__builtin_inff(), sum = 0;
    for (int i = 0; i < n; i += PL_LANES) {
        pl_vec v = cap * vec_tanh(vec_load(score_of + i) / cap);
        vec_store(score_of + i, v);
    }
    for (int i = 0; i < n; i++)
        largest = score_of[i] > largest ? score_of[i] : largest;
    for (int i = 0; i < n; i += PL_LANES)
        vec_store(score_of + i, vec_exp(vec_load(score_of + i) - largest));
    for (int i = 0; i < n; i++)
        sum += score_of[i];
    for (int i = 0; i < n; i++)
        score_of[i] /= sum;
}

/* Step r, head h. */
static void attend(const attend_job *j, int64_t r, int h)
{
    const pl_tower_look_back *a = j->a;
    int64_t dim = a->cols / a->heads, at = h * dim;
    int missing = (int)(r < a->reach - 1 - a->before ? a->reach - 1 - a->before - r : 0), n = a->reach - missing;
    const float *k = a->k + (r + missing) * a->cols + at, *v = a->v + (r + missing) * a->cols + at;
    float share[PL_TOWER_MOST_REACH] = {0};
    for (int i = 0; i < n; i++)
        share[i] = score(a->q + r * a->cols + at, a->scale, k + i * a->cols, a->position + (n - 1 - i) * a->cols + at,
                         dim);
    shares(share, n, a->cap);
    for (int64_t c = 0; c < dim; c += PL_LANES) {
        int64_t m = dim - c < PL_LANES ? dim - c : PL_LANES;
        pl_vec sum = {0};
        for (int i = 0; i < n; i++)
            sum += share[i] * lanes_load(v + i * a->cols + c, m);
        lanes_store(j->out + r * a->cols + at + c, sum, m);
    }
}

static void attend_items(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const attend_job *j = ctx;
    for (int64_t i = begin; i < end; i++)
        attend(j, i / j->a->heads, (int)(i % j->a->heads));
}

static void attend_back(pl_stream *s, float *out, int64_t n, const pl_tower_look_back *a)
{
    attend_job job = {out, a};
    pl_pool_for(s->pool, n * a->heads, row_grain(s, n * a->heads), attend_items, &job);
}

/* ---- the running norm ---- */

typedef struct running_job {
    float *x;
    int64_t cols, channels, before;
    const float *weight;
    float eps;
    double (*sums)[2];
} running_job;

static double count_of(const running_job *j, int64_t step)
{
    return (double)j->cols * (double)(j->before + step + 1);
}

static float mean_of(const running_job *j, int64_t step)
{
    return (float)(j->sums[step + 1][0] / count_of(j, step));
}

static void sum_steps(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const running_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        pl_vec sum = {0};
        for (int64_t i = 0; i < j->cols; i += PL_LANES)
            sum += lanes_load(j->x + r * j->cols + i, j->cols - i < PL_LANES ? j->cols - i : PL_LANES);
        j->sums[r + 1][0] = vec_sum(sum);
    }
}

static void sum_squares(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const running_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        const float *x = j->x + r * j->cols;
        float mean = mean_of(j, r), tail = 0;
        pl_vec sum = {0};
        int64_t i = 0;
        for (; i + PL_LANES <= j->cols; i += PL_LANES) {
            pl_vec v = vec_load(x + i) - mean;
            sum += v * v;
        }
        for (; i < j->cols; i++)
            tail += (x[i] - mean) * (x[i] - mean);
        j->sums[r + 1][1] = vec_sum(sum) + tail;
    }
}

static void normalize_steps(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const running_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        float *x = j->x + r * j->cols, mean = mean_of(j, r);
        float factor = 1.0f / __builtin_sqrtf((float)(j->sums[r + 1][1] / count_of(j, r)) + j->eps);
        for (int64_t i = 0; i < j->cols; i += j->channels)
            for (int64_t c = 0; c < j->channels; c++) {
                float v = (x[i + c] - mean) * factor * j->weight[c];
                x[i + c] = v < 0 ? 0 : v; /* NaN stays */
            }
    }
}

static void accumulate(double (*sums)[2], int64_t n, int which)
{
    for (int64_t i = 1; i <= n; i++)
        sums[i][which] += sums[i - 1][which];
}

static void running_norm(pl_stream *s, float *x, int64_t n, int64_t cols, const float *weight, int64_t channels,
                         float eps, double (*sums)[2], int64_t before)
{
    running_job job = {x, cols, channels, before, weight, eps, sums};
    pl_pool_for(s->pool, n, row_grain(s, n), sum_steps, &job);
    accumulate(sums, n, 0);
    pl_pool_for(s->pool, n, row_grain(s, n), sum_squares, &job);
    accumulate(sums, n, 1);
    pl_pool_for(s->pool, n, row_grain(s, n), normalize_steps, &job);
}

void PL_ISA_NAME(pl_tower_audio_ops)(pl_tower_ops *ops)
{
    ops->clip = clip;
    ops->silu = silu;
    ops->add = add;
    ops->gate = gate;
    ops->convolve_back = convolve_back;
    ops->attend_back = attend_back;
    ops->running_norm = running_norm;
}
