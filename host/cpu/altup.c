/* AltUp: four residual streams, of which each layer computes one and predicts the others. */
#include "host/base/isa.h"
#include "host/cpu/stream.h"

typedef struct predict_job {
    pl_streams pred, streams;
    float *x;
    const pl_rows *rows;
    const pl_altup *altup;
    const float *norm;
    float eps;
} predict_job;

/* tanh(router . (norm(v) / H)); `normed` is room for H values. */
static void route(float out[PL_STREAMS], const float *v, float *normed, const pl_altup *altup, int64_t hidden,
                  float eps)
{
    row_scale(normed, v, altup->router_norm, row_inverse_rms(v, hidden, eps), hidden);
    pl_vec logits = {0};
    for (int k = 0; k < PL_STREAMS; k++)
        logits[k] = row_dot(altup->router + k * hidden, normed, hidden) / (float)hidden;
    pl_vec m = vec_tanh(logits);
    for (int k = 0; k < PL_STREAMS; k++)
        out[k] = m[k];
}

/* out[k] = S[k] + sum_j c[k][j] S[j] */
static void mix(float *const out[PL_STREAMS], const float *const in[PL_STREAMS], float c[PL_STREAMS][PL_STREAMS],
                int64_t hidden)
{
    int64_t i = 0;
    for (; i + PL_LANES <= hidden; i += PL_LANES) {
        pl_vec s[PL_STREAMS];
        for (int k = 0; k < PL_STREAMS; k++)
            s[k] = vec_load(in[k] + i);
        for (int k = 0; k < PL_STREAMS; k++)
            vec_store(out[k] + i, s[k] + (c[k][0] * s[0] + c[k][1] * s[1] + c[k][2] * s[2] + c[k][3] * s[3]));
    }
    for (; i < hidden; i++) {
        float s[PL_STREAMS];
        for (int k = 0; k < PL_STREAMS; k++)
            s[k] = in[k][i];
        for (int k = 0; k < PL_STREAMS; k++)
            out[k][i] = s[k] + (c[k][0] * s[0] + c[k][1] * s[1] + c[k][2] * s[2] + c[k][3] * s[3]);
    }
}

static void predict_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const predict_job *j = ctx;
    int64_t hidden = j->streams.hidden;
    for (int64_t r = begin; r < end; r++) {
        const float *in[PL_STREAMS];
        float *out[PL_STREAMS];
        for (int k = 0; k < PL_STREAMS; k++) {
            in[k] = stream_row(j->streams, k, j->rows->slot[r]);
            out[k] = stream_row(j->pred, k, r);
        }
        float m[PL_STREAMS], c[PL_STREAMS][PL_STREAMS];
        float *x = j->x + r * hidden;
        route(m, in[0], x, j->altup, hidden, j->eps);
        for (int k = 0; k < PL_STREAMS; k++)
            for (int i = 0; i < PL_STREAMS; i++) {
                const float *w = j->altup->predict + (PL_STREAMS * k + i) * PL_STREAMS;
                c[k][i] = w[0] * m[0] + w[1] * m[1] + w[2] * m[2] + w[3] * m[3];
            }
        mix(out, in, c, hidden);
        row_norm(x, out[0], j->norm, hidden, j->eps);
    }
}

static void altup_predict(pl_stream *s, pl_streams pred, float *x, pl_streams streams, const pl_rows *rows,
                          const pl_altup *altup, const float *norm, float eps)
{
    predict_job job = {pred, streams, x, rows, altup, norm, eps};
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), predict_rows, &job);
}

typedef struct correct_job {
    pl_streams streams, pred;
    float *y, *gate_in;
    const float *ffn;
    const pl_rows *rows;
    const pl_altup *altup;
    const float *norm;
    float eps;
} correct_job;

static void correct_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const correct_job *j = ctx;
    int64_t hidden = j->streams.hidden;
    for (int64_t r = begin; r < end; r++) {
        float *y = j->y + r * hidden, *gate_in = j->gate_in + r * hidden;
        const float *ffn = j->ffn + r * hidden;
        float factor = row_inverse_rms(ffn, hidden, j->eps);
        for (int64_t i = 0; i < hidden; i++)
            y[i] += ffn[i] * factor * j->norm[i];
        float m[PL_STREAMS];
        route(m, y, gate_in, j->altup, hidden, j->eps);
        const float *p0 = stream_row(j->pred, 0, r);
        for (int k = 0; k < PL_STREAMS; k++) {
            const float *w = j->altup->correct + k * PL_STREAMS;
            float c = 1.0f + (w[0] * m[0] + w[1] * m[1] + w[2] * m[2] + w[3] * m[3]);
            const float *p = stream_row(j->pred, k, r);
            float *out = stream_row(j->streams, k, j->rows->slot[r]);
            for (int64_t i = 0; i < hidden; i++)
                out[i] = p[i] + c * (y[i] - p0[i]);
        }
        row_scale(gate_in, stream_row(j->streams, 0, j->rows->slot[r]), j->altup->scale, 1.0f, hidden);
    }
}

static void altup_correct(pl_stream *s, pl_streams streams, float *y, float *gate_in, const float *ffn, pl_streams pred,
                          const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    correct_job job = {streams, pred, y, gate_in, ffn, rows, altup, norm, eps};
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), correct_rows, &job);
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
