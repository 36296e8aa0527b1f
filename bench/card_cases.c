#include "bench/card_cases.h"

#include <math.h>

#define HEADS ((pl_heads){8, 2, 256})
#define PLE_DIM 256
#define EPS 1e-6f
#define Z 1.6448536f
#define MANY CASE_ROWS
#define FEW PL_FUSED_ROWS

static pl_rows rows_of(const case_operands *o, int n, int turn)
{
    int first = n > FEW ? 0 : turn * n % CASE_SEQUENCES;
    return (pl_rows){n, o->plan->slot, o->plan->position, o->plan->sequence + first};
}

static pl_streams streams(float *v)
{
    return (pl_streams){v, CASE_ROWS, CASE_HIDDEN};
}

static pl_altup altup(const case_operands *o)
{
    const float *v = o->vector;
    return (pl_altup){v, v, v, v, v};
}

/* The same buffers for another number of columns. */
static pl_act act(const pl_act *a, int64_t cols)
{
    pl_act of = *a;
    of.cols = of.ld = cols;
    of.blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    return of;
}

/* ---- single ops ---- */

static void quantize(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    pl_act x = act(&o->x, CASE_HIDDEN);
    b->ops->quantize(b->stream, &x, n);
}

/* Products of one operand. */
static void matmul(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)turn;
    pl_act x = act(&o->x, c->weight[0].cols);
    x.rows = n;
    pl_matmul jobs[CASE_WEIGHTS];
    for (int i = 0; i < c->n_weights; i++) {
        float *out = o->weight[i].rows > CASE_FFN ? o->logits : o->wide[i];
        jobs[i] = (pl_matmul){.w = &o->weight[i], .x = &x, .out = out, .out_ld = o->weight[i].rows, .n_rows = n};
    }
    b->ops->matmul(b->stream, jobs, c->n_weights);
}

static void embed(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    pl_embed_from from = {.table = &o->weight[0], .scale = 45};
    b->ops->embed(b->stream, o->rows[1], &from, o->plan->id, n);
}

static void ple_look(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->ple_look(b->stream, o->wide[0], CASE_PLE_COLS, &o->table, o->plan->id, o->plan->layers, n, PLE_DIM, o->bad);
}

static void ple_combine(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->ple_combine(b->stream, o->wide[0], o->wide[1], CASE_PLE_COLS, o->vector, n, o->plan->layers, PLE_DIM, 0.02f,
                        16, EPS);
}

static void match_rms(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->match_rms(b->stream, o->rows[1], o->rows[2], n, CASE_HIDDEN);
}

static void altup_predict(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    pl_altup a = altup(o);
    b->ops->altup_predict(b->stream, streams(o->predicted), o->rows[1], streams(o->streams), &rows, &a, o->vector, EPS);
}

static void rope_table(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->rope_table(b->stream, o->rows[1], o->plan->position, n, o->vector, HEADS.dim / 2);
}

static void qkv_store(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    b->ops->qkv_store(b->stream, o->rows[1], o->rows[2], o->rows[3], &o->kv, &rows, HEADS, o->vector, o->vector,
                      o->rows[4], EPS);
}

static void attention(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    pl_rows rows = rows_of(o, n, turn);
    b->ops->attention(b->stream, o->rows[2], o->rows[1], &o->kv, &rows, HEADS, c->window);
}

static void attn_residual(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    float **r = o->rows;
    b->ops->attn_residual(b->stream, r[1], r[2], r[3], r[4], r[5], r[1], o->vector, o->vector, o->vector, n,
                          CASE_HIDDEN, EPS);
}

static void ffn_act(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)turn;
    b->ops->ffn_act(b->stream, o->wide[0], o->wide[1], CASE_FFN, n, o->plan->width, c->z > 0 ? c->z : -INFINITY);
}

static void altup_correct(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    pl_altup a = altup(o);
    b->ops->altup_correct(b->stream, streams(o->streams), o->rows[1], o->rows[2], o->rows[3], streams(o->predicted),
                          &rows, &a, o->vector, EPS);
}

static void ple_gate(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    b->ops->ple_gate(b->stream, o->rows[1], o->wide[0], CASE_PLE_COLS, &rows, PLE_DIM);
}

static void ple_add(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    b->ops->ple_add(b->stream, streams(o->streams), o->rows[1], &rows, o->vector, EPS);
}

static void output_norm(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->output_norm(b->stream, o->rows[1], o->rows[2], o->rows[3], streams(o->streams), n, o->vector, EPS);
}

static void check_finite(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->check_finite(b->stream, o->logits, n, CASE_VOCAB, o->bad);
}

static void softcap(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->softcap(b->stream, o->logits, n, CASE_VOCAB, 30);
}

static void draw(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    b->ops->draw(b->stream, o->logits, CASE_VOCAB, n, o->draws, o->drawn);
}

/* ---- fused ones ---- */

static void predict(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    pl_altup a = altup(o);
    pl_act x = act(&o->x, CASE_HIDDEN);
    b->fused->predict(b->stream, streams(o->predicted), o->rows[0], &x, streams(o->streams), o->rows[2], o->vector,
                      &rows, &a, o->vector, EPS);
}

static void attend(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    pl_rows rows = rows_of(o, n, turn);
    pl_act out = act(&o->x, CASE_HIDDEN);
    b->fused->attend(b->stream, o->rows[0], &out, o->rows[1], o->rows[2], o->rows[3], &o->kv, &rows, HEADS, c->window,
                     o->vector, o->vector, o->rows[4], EPS, true);
}

static void attn_out(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)turn;
    pl_act x = act(&o->x, c->weight[0].cols), left = act(&o->mid, c->weight[1].cols);
    x.rows = n;
    pl_matmul product = {.w = &o->weight[0], .x = &x, .out = o->wide[0], .out_ld = o->weight[0].rows, .n_rows = n};
    pl_matmul laurel = {.w = &o->weight[1], .x = &left, .out = o->wide[1], .out_ld = o->weight[1].rows, .n_rows = n};
    b->fused->attn_out(b->stream, &product, &laurel);
}

static void fused_residual(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c, (void)turn;
    float **r = o->rows;
    pl_act f = act(&o->x, CASE_HIDDEN);
    b->fused->attn_residual(b->stream, r[1], r[0], &f, r[3], r[4], r[5], r[1], o->vector, o->vector, o->vector, n,
                            CASE_HIDDEN, EPS);
}

static void ffn(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)turn;
    pl_act x = act(&o->x, CASE_HIDDEN), mid = act(&o->mid, CASE_FFN);
    x.rows = n;
    pl_ffn block = {.gate = &o->weight[0],
                    .up = &o->weight[1],
                    .down = &o->weight[2],
                    .x = &x,
                    .gate_out = o->wide[0],
                    .up_out = o->wide[1],
                    .mid = &mid,
                    .ld = CASE_FFN,
                    .out = o->rows[1],
                    .n = n,
                    .width = o->plan->width,
                    .z = c->z > 0 ? c->z : -INFINITY};
    b->fused->ffn(b->stream, &block);
}

static void fused_correct(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    pl_altup a = altup(o);
    pl_act gate_in = act(&o->x, CASE_HIDDEN);
    b->fused->altup_correct(b->stream, streams(o->streams), o->rows[1], o->rows[0], &gate_in, o->rows[3],
                            streams(o->predicted), &rows, &a, o->vector, EPS);
}

static void ple(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn)
{
    (void)c;
    pl_rows rows = rows_of(o, n, turn);
    pl_act x = act(&o->x, CASE_HIDDEN), mid = act(&o->mid, PLE_DIM);
    x.rows = n;
    pl_ple_block block = {.gate = &o->weight[0],
                          .proj = &o->weight[1],
                          .x = &x,
                          .gate_out = o->wide[0],
                          .mid = &mid,
                          .ple = o->wide[1],
                          .ple_ld = CASE_PLE_COLS,
                          .out = o->rows[1],
                          .p = PLE_DIM};
    b->fused->ple(b->stream, &block, &rows);
}

/* ---- the list ---- */

#define LAST (CASE_CONTEXT - 1)
#define SINGLE(fn, ...)                                                                                                \
    {                                                                                                                  \
        .op = #fn, .what = "", .run = (fn), .most_rows = MANY, __VA_ARGS__                                             \
    }
#define GATE_UP(t, name)                                                                                               \
    {                                                                                                                  \
        "matmul", "gate and up " name, matmul, MANY, .weight = {{16384, 2048, t}, {16384, 2048, t}}, .n_weights = 2    \
    }
#define DOWN(t, name)                                                                                                  \
    {                                                                                                                  \
        "matmul", "down " name, matmul, MANY, .weight = {{2048, 16384, t}}, .n_weights = 1                             \
    }
#define HEAD(t, name)                                                                                                  \
    {                                                                                                                  \
        "matmul", "head " name, matmul, FEW, .weight = {{CASE_VOCAB, 2048, t}}, .n_weights = 1                         \
    }
#define FFN(t, name, cut)                                                                                              \
    {                                                                                                                  \
        "ffn", name, ffn, FEW, .fused = true, .z = (cut),                                                              \
                               .weight = {{16384, 2048, t}, {16384, 2048, t}, {2048, 16384, t}}, .n_weights = 3        \
    }

/* clang-format off */
const card_case card_cases[] = {
    {"matmul", "q, k, v Q4_0", matmul, MANY,
     .weight = {{2048, 2048, PL_Q4_0}, {512, 2048, PL_Q4_0}, {512, 2048, PL_Q4_0}}, .n_weights = 3},
    {"matmul", "o Q4_0", matmul, MANY, .weight = {{2048, 2048, PL_Q4_0}}, .n_weights = 1},
    GATE_UP(PL_Q4_0, "Q4_0"), GATE_UP(PL_Q4_K, "Q4_K"), GATE_UP(PL_Q8_0, "Q8_0"),
    DOWN(PL_Q4_0, "Q4_0"), DOWN(PL_Q4_K, "Q4_K"), DOWN(PL_Q6_K, "Q6_K"), DOWN(PL_Q8_0, "Q8_0"),
    {"matmul", "per-layer gate Q4_0", matmul, MANY, .weight = {{256, 2048, PL_Q4_0}}, .n_weights = 1},
    {"matmul", "per-layer projection Q4_0", matmul, MANY, .weight = {{2048, 256, PL_Q4_0}}, .n_weights = 1},
    {"matmul", "per-layer model projection F16", matmul, MANY, .weight = {{8960, 2048, PL_F16}}, .n_weights = 1},
    {"matmul", "AltUp projection F16", matmul, MANY, .weight = {{2048, 2048, PL_F16}}, .n_weights = 1},
    HEAD(PL_Q6_K, "Q6_K"), HEAD(PL_Q8_0, "Q8_0"),
    {"embed", "Q6_K", embed, MANY, .weight = {{CASE_VOCAB, 2048, PL_Q6_K}}, .n_weights = 1},
    SINGLE(quantize), SINGLE(ple_look), SINGLE(ple_combine), SINGLE(match_rms), SINGLE(altup_predict),
    SINGLE(rope_table), SINGLE(qkv_store, .position = LAST),
    {"attention", "all of 512", attention, MANY, .position = 511},
    {"attention", "all of 4096", attention, MANY, .position = LAST},
    {"attention", "512 of 4096", attention, MANY, .position = LAST, .window = 512},
    SINGLE(attn_residual),
    {.op = "ffn_act", .what = "dense", .run = ffn_act, .most_rows = MANY},
    {"ffn_act", "sparse", ffn_act, MANY, .z = Z},
    SINGLE(altup_correct), SINGLE(ple_gate), SINGLE(ple_add), SINGLE(output_norm),
    {.op = "check_finite", .what = "", .run = check_finite, .most_rows = FEW},
    {.op = "softcap", .what = "", .run = softcap, .most_rows = FEW},
    {.op = "draw", .what = "default", .run = draw, .most_rows = FEW},

    {"predict", "", predict, FEW, .fused = true},
    {"attend", "all of 512", attend, FEW, .fused = true, .position = 511},
    {"attend", "all of 4096", attend, FEW, .fused = true, .position = LAST},
    {"attend", "512 of 4096", attend, FEW, .fused = true, .position = LAST, .window = 512},
    {"attn_out", "Q4_0, F16", attn_out, FEW, .fused = true,
     .weight = {{2048, 2048, PL_Q4_0}, {2048, 64, PL_F16}}, .n_weights = 2},
    {"attn_residual", "", fused_residual, FEW, .fused = true},
    FFN(PL_Q4_0, "dense Q4_0", 0), FFN(PL_Q4_K, "dense Q4_K", 0), FFN(PL_Q8_0, "dense Q8_0", 0),
    FFN(PL_Q4_0, "sparse Q4_0", Z), FFN(PL_Q4_K, "sparse Q4_K", Z), FFN(PL_Q8_0, "sparse Q8_0", Z),
    {"altup_correct", "", fused_correct, FEW, .fused = true},
    {"ple", "Q4_0", ple, FEW, .fused = true,
     .weight = {{256, 2048, PL_Q4_0}, {2048, 256, PL_Q4_0}}, .n_weights = 2},
};
/* clang-format on */

const int n_card_cases = (int)(sizeof card_cases / sizeof *card_cases);
