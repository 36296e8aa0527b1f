/* The FFN's activation: Gaussian top-k in the sparse layers, then gelu(gate) * up. */
#include "host/base/isa.h"
#include "host/cpu/act_rows.h"
#include "host/cpu/ffn_sparse.h"

#define COLUMNS 2048 /* of one piece of work; a multiple of PL_ACT_SPAN */
#define STAT_LANES 8

typedef struct act_job {
    float *gate;
    const float *up;
    int64_t ld, pieces; /* pieces of COLUMNS a row */
    const int32_t *width;
    float z;
    const pl_act *act;   /* NULL, or the gates as integers too */
    const double *stats; /* [n][PL_FFN_STATS] of the whole rows; NULL: these are whole */
} act_job;

/* Of parts, which stay in registers where gcc 12 sends vectors of sixteen lanes through memory. */
static inline float sum_of(const pl_part *parts)
{
    pl_vec v;
    memcpy(&v, parts, sizeof v);
    return vec_sum(v);
}

static float mean_of(const float *x, int64_t n)
{
    pl_part sum[PL_PARTS] = {{0}};
    float last[PL_LANES] = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        for (int k = 0; k < PL_PARTS; k++)
            sum[k] += part_load(x + i + k * PL_PART_LANES);
    memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
    for (int k = 0; k < PL_PARTS; k++)
        sum[k] += part_load(last + k * PL_PART_LANES);
    return sum_of(sum) / (float)n;
}

/* mean + z * std over n values, std biased; two passes, so that a large mean does not eat the variance. */
float PL_ISA_NAME(pl_ffn_cutoff)(const float *x, int64_t n, float z)
{
    const float mean = mean_of(x, n);
    pl_part square[PL_PARTS] = {{0}};
    float rest = 0;
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES) {
        for (int k = 0; k < PL_PARTS; k++) {
            pl_part d = part_load(x + i + k * PL_PART_LANES) - mean;
            square[k] += d * d;
        }
    }
    for (; i < n; i++)
        rest += (x[i] - mean) * (x[i] - mean);
    return mean + z * __builtin_sqrtf((sum_of(square) + rest) / (float)n);
}

static void row_stats(double *stats, const float *x, int64_t n)
{
    double sum[STAT_LANES] = {0}, square[STAT_LANES] = {0};
    for (int64_t i = 0; i < n; i += STAT_LANES)
        for (int64_t k = 0; k < STAT_LANES && i + k < n; k++) {
            double v = x[i + k];
            sum[k] += v;
            square[k] += v * v;
        }
    for (int half = STAT_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            sum[k] += sum[k + half];
            square[k] += square[k + half];
        }
    stats[0] = (double)n;
    stats[1] = sum[0];
    stats[2] = square[0];
}

/* In f64 squares keep the variance beside any mean that gates have. */
static float cutoff_of(const double *stats, float z)
{
    double mean = stats[1] / stats[0], variance = stats[2] / stats[0] - mean * mean;
    return (float)(mean + (double)z * __builtin_sqrt(variance > 0 ? variance : 0));
}

/* Those of gates [at, at + n) that pass the cut; live: room for PL_LANES. No branches: nobody foresees which ones. */
static inline int find_lanes(int32_t *live, const float *gate, int64_t at, int64_t n, float cut)
{
#if defined(__AVX512F__)
    if (n == PL_LANES) {
        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(gate + at), _mm512_set1_ps(cut), _CMP_NLE_UQ);
        __m512i places = _mm512_add_epi32(lane, _mm512_set1_epi32((int32_t)at));
        _mm512_storeu_si512(live, _mm512_maskz_compress_epi32(mask, places));
        return __builtin_popcount(mask);
    }
#endif
    int found = 0;
    for (int64_t i = at; i < at + n; i++) {
        live[found] = (int32_t)i;
        found += !(gate[i] <= cut);
    }
    return found;
}

/* Few gates pass the cut: their places. live: room for n + PL_LANES. Asks on the way for n values at `soon`. */
static int find_live(int32_t *live, const float *gate, int64_t n, float cut, const float *soon)
{
    int found = 0;
    for (int64_t i = 0; i < n; i += PL_LANES) {
        __builtin_prefetch(soon + i);
        found += find_lanes(live + found, gate, i, n - i < PL_LANES ? n - i : PL_LANES, cut);
    }
    return found;
}

/* The gates of one piece that pass the cut: where they are, and what they become. */
typedef struct live_gates {
    int32_t at[COLUMNS + PL_LANES];
    float value[COLUMNS + GELU_STEP], up[COLUMNS + GELU_STEP];
    int n;
} live_gates;

/* gelu(gate - cut) * up of the live ones. */
static void activate_live(live_gates *live, const float *gate, const float *up, int64_t n, float cut)
{
    memset(live->at, 0, PL_LANES * sizeof live->at[0]);
    live->n = find_live(live->at, gate, n, cut, up + COLUMNS);
    for (int i = 0; i < live->n; i++) {
        live->value[i] = gate[live->at[i]] - cut;
        live->up[i] = up[live->at[i]];
    }
    memset(live->value + live->n, 0, GELU_STEP * sizeof(float));
    memset(live->up + live->n, 0, GELU_STEP * sizeof(float));
    row_gelu_times(live->value, live->value, live->up, (live->n + GELU_STEP - 1) / GELU_STEP * GELU_STEP);
}

/* Columns [begin, end) of row r, at most COLUMNS; gelu(0) is 0. */
static void sparse_columns(const act_job *j, int64_t r, int64_t begin, int64_t end, float cut)
{
    int64_t n = end - begin;
    float *gate = j->gate + r * j->ld + begin, room[COLUMNS];
    float *out = !j->act || !j->act->integers_only ? gate : room;
    live_gates live;
    activate_live(&live, gate, j->up + r * j->ld + begin, n, cut);
    memset(out, 0, (size_t)n * sizeof *out);
    for (int i = 0; i < live.n; i++)
        out[live.at[i]] = live.value[i];
    if (j->act)
        for (int64_t at = 0; at < n; at += PL_ACT_SPAN)
            span_quantize(j->act, r, begin + at, out + at, n - at < PL_ACT_SPAN ? n - at : PL_ACT_SPAN);
}

/* Columns [begin, end) of row r, from a multiple of PL_ACT_SPAN on. */
static void dense_columns(const act_job *j, int64_t r, int64_t begin, int64_t end)
{
    const float *up = j->up + r * j->ld;
    float *gate = j->gate + r * j->ld, span[PL_ACT_SPAN];
    bool stays = !j->act || !j->act->integers_only;
    for (int64_t at = begin; at < end; at += PL_ACT_SPAN) {
        int64_t n = end - at < PL_ACT_SPAN ? end - at : PL_ACT_SPAN;
        float *out = stays ? gate + at : span;
        row_gelu_times(out, gate + at, up + at, n);
        if (j->act)
            span_quantize(j->act, r, at, out, n);
    }
}

static void dense_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const act_job *j = ctx;
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t r = piece / j->pieces, from = piece % j->pieces * COLUMNS, to = from + COLUMNS;
        dense_columns(j, r, from, to < j->width[r] ? to : j->width[r]);
    }
}

static void sparse_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const act_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        float cut = j->stats ? cutoff_of(j->stats + r * PL_FFN_STATS, j->z)
                             : PL_ISA_NAME(pl_ffn_cutoff)(j->gate + r * j->ld, j->width[r], j->z);
        for (int64_t at = 0; at < j->width[r]; at += COLUMNS)
            sparse_columns(j, r, at, at + COLUMNS < j->width[r] ? at + COLUMNS : j->width[r], cut);
    }
}

static void run_job(pl_stream *s, const act_job *job, int n)
{
    act_job j = *job;
    if (j.z == -__builtin_inff())
        pl_pool_for(s->pool, n * j.pieces, 1, dense_pieces, &j);
    else
        pl_pool_for(s->pool, n, 1, sparse_rows, &j);
}

static void ffn_act(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z)
{
    act_job job = {gate, up, ld, (ld + COLUMNS - 1) / COLUMNS, width, z, NULL, NULL};
    run_job(s, &job, n);
}

static void ffn_act_part(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                         const double *stats, float z)
{
    act_job job = {gate, up, ld, (ld + COLUMNS - 1) / COLUMNS, width, z, NULL, stats};
    run_job(s, &job, n);
}

typedef struct stats_job {
    double *stats;
    const float *gate;
    int64_t ld;
    const int32_t *width;
} stats_job;

static void stats_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const stats_job *j = ctx;
    for (int64_t r = begin; r < end; r++)
        row_stats(j->stats + r * PL_FFN_STATS, j->gate + r * j->ld, j->width[r]);
}

static void ffn_stats(pl_stream *s, double *stats, const float *gate, int64_t ld, int n, const int32_t *width)
{
    stats_job job = {stats, gate, ld, width};
    pl_pool_for(s->pool, n, 1, stats_rows, &job);
}

static void fused_ffn_act(pl_stream *s, pl_act *act, float *gate, const float *up, int64_t ld, int n,
                          const int32_t *width, float z)
{
    act_job job = {gate, up, ld, (ld + COLUMNS - 1) / COLUMNS, width, z, act, NULL};
    act->rows = n;
    run_job(s, &job, n);
}

void PL_ISA_NAME(pl_ffn_ops)(pl_ops *ops)
{
    ops->ffn_act = ffn_act;
    ops->ffn_act_part = ffn_act_part;
    ops->ffn_stats = ffn_stats;
}

void PL_ISA_NAME(pl_ffn_fused)(pl_fused *fused)
{
    fused->ffn_act = fused_ffn_act;
}
