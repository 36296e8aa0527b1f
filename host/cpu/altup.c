/* AltUp: four residual streams, of which each layer computes one and predicts the others. */
#include "host/base/isa.h"
#include "host/cpu/act_rows.h"
#include "host/cpu/stream.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Each layer's two ops come in two forms. Alone, the prediction writes all four streams and the correction reads them.
 * Fused (see pl_fused), a row is walked through as few times as its norms allow: the prediction writes only the
 * stream that the layer computes and what the router said, and the correction makes the others again. */

typedef struct predict_job {
    pl_streams pred, streams;
    float *x;
    const pl_rows *rows;
    const pl_altup *altup;
    const float *norm;
    float eps;

    /* fused */
    const pl_act *act;
    const float *v, *v_norm; /* NULL: nothing to add first */
    float *routed;           /* [rows][PL_STREAMS] */
} predict_job;

INLINE void route_lanes(pl_vec sum[PL_STREAMS], const pl_altup *altup, const float *v, float factor, int64_t hidden,
                        int64_t i, int64_t n)
{
    pl_vec normed = lanes_load(v + i, n) * factor * lanes_load(altup->router_norm + i, n);
    for (int k = 0; k < PL_STREAMS; k++)
        sum[k] += lanes_load(altup->router + k * hidden + i, n) * normed;
}

/* tanh(router . (norm(v) / H)) */
static void route(float out[PL_STREAMS], const float *v, float factor, const pl_altup *altup, int64_t hidden)
{
    pl_vec sum[PL_STREAMS] = {{0}}, logits = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= hidden; i += PL_LANES)
        route_lanes(sum, altup, v, factor, hidden, i, PL_LANES);
    if (i < hidden)
        route_lanes(sum, altup, v, factor, hidden, i, hidden - i);
    for (int k = 0; k < PL_STREAMS; k++)
        logits[k] = vec_sum(sum[k]) / (float)hidden;
    pl_vec m = vec_tanh(logits);
    for (int k = 0; k < PL_STREAMS; k++)
        out[k] = m[k];
}

/* c[k][j] of stream j in prediction k */
static void coefficients(float c[PL_STREAMS][PL_STREAMS], const pl_altup *altup, const float m[PL_STREAMS])
{
    for (int k = 0; k < PL_STREAMS; k++)
        for (int j = 0; j < PL_STREAMS; j++) {
            const float *w = altup->predict + (PL_STREAMS * k + j) * PL_STREAMS;
            c[k][j] = w[0] * m[0] + w[1] * m[1] + w[2] * m[2] + w[3] * m[3];
        }
}

/* S[k] + sum_j c[k][j] S[j] */
INLINE pl_vec mixed(const float c[PL_STREAMS][PL_STREAMS], int k, const pl_vec s[PL_STREAMS])
{
    return s[k] + (c[k][0] * s[0] + c[k][1] * s[1] + c[k][2] * s[2] + c[k][3] * s[3]);
}

/* All predictions, or the first; the first one's squares are added to square. In front of it, a fused row's streams
 * get what the last layer has left to add. */
INLINE void mix_lanes(const predict_job *j, int64_t r, bool fused, float v_factor,
                      const float c[PL_STREAMS][PL_STREAMS], pl_vec *square, int64_t i, int64_t n)
{
    int64_t hidden = j->streams.hidden;
    pl_vec s[PL_STREAMS], add = {0};
    if (fused && j->v)
        add = lanes_load(j->v + r * hidden + i, n) * v_factor * lanes_load(j->v_norm + i, n);
    for (int k = 0; k < PL_STREAMS; k++) {
        float *at = stream_row(j->streams, k, j->rows->slot[r]) + i;
        s[k] = lanes_load(at, n);
        if (fused && j->v && k > 0) {
            s[k] += add;
            lanes_store(at, s[k], n);
        }
    }
    for (int k = 0; k < (fused ? 1 : PL_STREAMS); k++) {
        pl_vec p = mixed(c, k, s);
        lanes_store(stream_row(j->pred, k, r) + i, p, n);
        if (k == 0)
            *square += p * p;
    }
}

INLINE void predict_row(const predict_job *j, int64_t r, bool fused)
{
    int64_t hidden = j->streams.hidden, i = 0;
    const float *active = stream_row(j->streams, 0, j->rows->slot[r]);
    float m[PL_STREAMS], c[PL_STREAMS][PL_STREAMS];
    route(m, active, row_inverse_rms(active, hidden, j->eps), j->altup, hidden);
    coefficients(c, j->altup, m);
    float v_factor = fused && j->v ? row_inverse_rms(j->v + r * hidden, hidden, j->eps) : 0;
    pl_vec square = {0};
    for (; i + PL_LANES <= hidden; i += PL_LANES)
        mix_lanes(j, r, fused, v_factor, c, &square, i, PL_LANES);
    if (i < hidden)
        mix_lanes(j, r, fused, v_factor, c, &square, i, hidden - i);
    float *x = j->x + r * hidden, factor = inverse_rms(vec_sum(square), hidden, j->eps);
    row_scale(x, stream_row(j->pred, 0, r), j->norm, factor, hidden);
    if (fused) {
        memcpy(j->routed + r * PL_STREAMS, m, sizeof m);
        row_quantize(j->act, r, x, hidden);
    }
}

static void predict_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        predict_row(ctx, r, false);
}

static void predict_fused_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        predict_row(ctx, r, true);
}

static void altup_predict(pl_stream *s, pl_streams pred, float *x, pl_streams streams, const pl_rows *rows,
                          const pl_altup *altup, const float *norm, float eps)
{
    predict_job job = {
        .pred = pred, .streams = streams, .x = x, .rows = rows, .altup = altup, .norm = norm, .eps = eps};
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), predict_rows, &job);
}

static void fused_predict(pl_stream *s, pl_streams pred, float *x, pl_act *act, pl_streams streams, float *v,
                          const float *v_norm, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    predict_job job = {pred, streams, x, rows, altup, norm, eps, act, v, v_norm, s->routed};
    act->rows = rows->n;
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), predict_fused_rows, &job);
}

typedef struct correct_job {
    pl_streams streams, pred;
    float *y, *gate_in;
    const float *ffn;
    const pl_rows *rows;
    const pl_altup *altup;
    const float *norm;
    float eps;

    /* fused */
    const pl_act *act;
    const float *routed;
} correct_job;

/* Asks for what lies a row further on: the processor's own prefetching begins anew with every page, and a row has only
 * two or three. */
INLINE void fetch_row_behind(const float *at, int64_t hidden)
{
    __builtin_prefetch(at + hidden, 0, 2);
}

/* y += norm(ffn), whose factor is given; its squares are added to square. */
INLINE void add_ffn_lanes(const correct_job *j, float *y, const float *ffn, float factor, pl_vec *square, int64_t i,
                          int64_t n)
{
    fetch_row_behind(y + i, j->streams.hidden);
    fetch_row_behind(ffn + i, j->streams.hidden);
    pl_vec sum = lanes_load(y + i, n) + lanes_load(ffn + i, n) * factor * lanes_load(j->norm + i, n);
    lanes_store(y + i, sum, n);
    *square += sum * sum;
}

/* predict: the coefficients of a fused row; correct: those of the step from prediction to stream. */
typedef struct row_mix {
    float predict[PL_STREAMS][PL_STREAMS], correct[PL_STREAMS];
} row_mix;

/* The streams, and at `gate` what the per-layer gate reads. */
INLINE void correct_lanes(const correct_job *j, int64_t r, bool fused, const row_mix *c, float *gate, int64_t i,
                          int64_t n)
{
    const float *scale = j->altup->scale;
    pl_vec s[PL_STREAMS], p[PL_STREAMS];
    for (int k = 0; k < PL_STREAMS; k++) {
        const float *at = fused ? stream_row(j->streams, k, j->rows->slot[r]) + i : stream_row(j->pred, k, r) + i;
        fetch_row_behind(at, j->streams.hidden);
        s[k] = lanes_load(at, n);
    }
    for (int k = 0; k < PL_STREAMS; k++)
        p[k] = fused ? mixed(c->predict, k, s) : s[k];
    pl_vec step = lanes_load(j->y + r * j->streams.hidden + i, n) - p[0];
    for (int k = 0; k < PL_STREAMS; k++) {
        pl_vec out = p[k] + c->correct[k] * step;
        lanes_store(stream_row(j->streams, k, j->rows->slot[r]) + i, out, n);
        if (k == 0)
            lanes_store(gate, scale ? out * lanes_load(scale + i, n) : out, n);
    }
}

INLINE void correct_columns(const correct_job *j, int64_t r, bool fused, const row_mix *c, float *gate, int64_t begin,
                            int64_t end)
{
    int64_t i = begin;
    for (; i + PL_LANES <= end; i += PL_LANES)
        correct_lanes(j, r, fused, c, gate + i - begin, i, PL_LANES);
    if (i < end)
        correct_lanes(j, r, fused, c, gate + i - begin, i, end - i);
}

INLINE void correct_row(const correct_job *j, int64_t r, bool fused)
{
    int64_t hidden = j->streams.hidden, i = 0;
    float *y = j->y + r * hidden, *gate_in = j->gate_in + r * hidden, m[PL_STREAMS];
    const float *ffn = j->ffn + r * hidden;
    float factor = row_inverse_rms(ffn, hidden, j->eps);
    pl_vec square = {0};
    for (; i + PL_LANES <= hidden; i += PL_LANES)
        add_ffn_lanes(j, y, ffn, factor, &square, i, PL_LANES);
    if (i < hidden)
        add_ffn_lanes(j, y, ffn, factor, &square, i, hidden - i);
    route(m, y, inverse_rms(vec_sum(square), hidden, j->eps), j->altup, hidden);
    row_mix c;
    for (int k = 0; k < PL_STREAMS; k++) {
        const float *w = j->altup->correct + k * PL_STREAMS;
        c.correct[k] = 1.0f + (w[0] * m[0] + w[1] * m[1] + w[2] * m[2] + w[3] * m[3]);
    }
    if (!fused) {
        correct_columns(j, r, false, &c, gate_in, 0, hidden);
        return;
    }
    coefficients(c.predict, j->altup, j->routed + r * PL_STREAMS);
    for (int64_t at = 0; at < hidden; at += PL_ACT_SPAN) {
        float span[PL_ACT_SPAN], *gate = j->act->integers_only ? span : gate_in + at;
        int64_t end = hidden - at < PL_ACT_SPAN ? hidden : at + PL_ACT_SPAN;
        correct_columns(j, r, true, &c, gate, at, end);
        span_quantize(j->act, r, at, gate, end - at);
    }
}

static void correct_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        correct_row(ctx, r, false);
}

static void correct_fused_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        correct_row(ctx, r, true);
}

static void altup_correct(pl_stream *s, pl_streams streams, float *y, float *gate_in, const float *ffn, pl_streams pred,
                          const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    correct_job job = {streams, pred, y, gate_in, ffn, rows, altup, norm, eps, NULL, NULL};
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), correct_rows, &job);
}

static void fused_correct(pl_stream *s, pl_streams streams, float *y, float *gate_in, pl_act *act, const float *ffn,
                          pl_streams pred, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    correct_job job = {streams, pred, y, gate_in, ffn, rows, altup, norm, eps, act, s->routed};
    act->rows = rows->n;
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), correct_fused_rows, &job);
}

typedef struct match_job {
    float *u;
    const float *ref;
    int64_t hidden;
} match_job;

static void match_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const match_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        float *u = j->u + r * j->hidden;
        float want = row_square_sum(j->ref + r * j->hidden, j->hidden) / (float)j->hidden;
        float have = row_square_sum(u, j->hidden) / (float)j->hidden;
        float factor = __builtin_sqrtf(want) / __builtin_sqrtf(have > 1e-5f ? have : 1e-5f);
        row_scale(u, u, NULL, factor, j->hidden);
    }
}

static void match_rms(pl_stream *s, float *u, const float *ref, int n, int64_t hidden)
{
    match_job job = {u, ref, hidden};
    pl_pool_for(s->pool, n, row_grain(s, n), match_rows, &job);
}

void PL_ISA_NAME(pl_altup_ops)(pl_ops *ops)
{
    ops->altup_predict = altup_predict;
    ops->altup_correct = altup_correct;
    ops->match_rms = match_rms;
}

void PL_ISA_NAME(pl_altup_fused)(pl_fused *fused)
{
    fused->predict = fused_predict;
    fused->altup_correct = fused_correct;
}
