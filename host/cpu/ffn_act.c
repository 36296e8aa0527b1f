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

/* mean + z * std over n values, std biased; two passes, so that a large mean does not eat the variance. */
float PL_ISA_NAME(pl_ffn_cutoff)(const float *x, int64_t n, float z)
{
    pl_vec sum = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        sum += vec_load(x + i);
    if (i < n)
        sum += vec_load_part(x + i, n - i);
    float mean = vec_sum(sum) / (float)n;
    pl_vec square = {0};
    for (i = 0; i + PL_LANES <= n; i += PL_LANES) {
        pl_vec d = vec_load(x + i) - mean;
        square += d * d;
    }
    float rest = 0;
    for (; i < n; i++)
        rest += (x[i] - mean) * (x[i] - mean);
    return mean + z * __builtin_sqrtf((vec_sum(square) + rest) / (float)n);
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

/* Few gates pass the cut: their places. live: room for n. No branches: nobody foresees which ones. */
static int find_live(int32_t *live, const float *gate, int64_t n, float cut)
{
    int found = 0;
    int64_t i = 0;
#if defined(__AVX512F__)
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + 16 <= n; i += 16, at = _mm512_add_epi32(at, _mm512_set1_epi32(16))) {
        __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(gate + i), _mm512_set1_ps(cut), _CMP_NLE_UQ);
        _mm512_mask_compressstoreu_epi32(live + found, mask, at);
        found += __builtin_popcount(mask);
    }
#endif
    for (; i < n; i++) {
        live[found] = (int32_t)i;
        found += !(gate[i] <= cut);
    }
    return found;
}

/* out = gelu(max(0, gate - cut)) * up for up to PL_ACT_SPAN columns; gelu(0) is 0. */
static void sparse_columns(float *out, const float *gate, const float *up, int64_t n, float cut)
{
    int32_t live[PL_ACT_SPAN] = {0};
    float value[PL_ACT_SPAN], factor[PL_ACT_SPAN];
    int found = find_live(live, gate, n, cut);
    for (int i = 0; i < found; i++) {
        value[i] = gate[live[i]] - cut;
        factor[i] = up[live[i]];
    }
    row_gelu_times(value, value, factor, found);
    memset(out, 0, (size_t)n * sizeof *out);
    for (int i = 0; i < found; i++)
        out[live[i]] = value[i];
}

/* Columns [begin, end) of row r, from a multiple of PL_ACT_SPAN on; cut NULL: none. */
static void act_columns(const act_job *j, int64_t r, int64_t begin, int64_t end, const float *cut)
{
    const float *up = j->up + r * j->ld;
    float *gate = j->gate + r * j->ld, span[PL_ACT_SPAN];
    bool stays = !j->act || !j->act->integers_only;
    for (int64_t at = begin; at < end; at += PL_ACT_SPAN) {
        int64_t n = end - at < PL_ACT_SPAN ? end - at : PL_ACT_SPAN;
        float *out = stays ? gate + at : span;
        if (cut)
            sparse_columns(out, gate + at, up + at, n, *cut);
        else
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
        act_columns(j, r, from, to < j->width[r] ? to : j->width[r], NULL);
    }
}

static void sparse_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const act_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        float cut = j->stats ? cutoff_of(j->stats + r * PL_FFN_STATS, j->z)
                             : PL_ISA_NAME(pl_ffn_cutoff)(j->gate + r * j->ld, j->width[r], j->z);
        act_columns(j, r, 0, j->width[r], &cut);
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
