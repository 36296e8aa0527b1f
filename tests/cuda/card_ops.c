#include "tests/cuda/card_ops.h"

#include "cuda/kernels.h"
#include "tests/cuda/card.h"

#include <criterion/criterion.h>
#include <stdlib.h>

struct pl_stream {
    cudaStream_t queue;
};

typedef struct card_backend {
    pl_backend base;
    pl_stream stream;
    pl_ops ops;
} card_backend;

/* ---- operands of one call */

#define MAX_COPIES 16

typedef struct copy {
    void *host, *card;
    size_t bytes;
    bool back;
} copy;

typedef struct call {
    copy copies[MAX_COPIES];
    int n;
} call;

static void expect_done(cudaError_t error, const char *what)
{
    cr_assert(error == cudaSuccess, "%s: %s", what, cudaGetErrorString(error));
}

static void *to_card(call *c, void *host, size_t bytes, bool back)
{
    if (!host)
        return NULL;
    cr_assert_lt(c->n, MAX_COPIES);
    copy *k = &c->copies[c->n++];
    *k = (copy){host, NULL, bytes, back};
    expect_done(cudaMalloc(&k->card, bytes), "cudaMalloc");
    expect_done(cudaMemcpy(k->card, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the card");
    return k->card;
}

static const float *floats_in(call *c, const float *host, int64_t n)
{
    return to_card(c, (void *)(uintptr_t)host, (size_t)n * sizeof *host, false);
}

static float *floats(call *c, float *host, int64_t n)
{
    return to_card(c, host, (size_t)n * sizeof *host, true);
}

static const int32_t *ints_in(call *c, const int32_t *host, int64_t n)
{
    return to_card(c, (void *)(uintptr_t)host, (size_t)n * sizeof *host, false);
}

/* The first `rows` rows of each stream, and what lies between. */
static pl_streams streams(call *c, pl_streams s, int64_t rows, bool back)
{
    s.v = to_card(c, s.v, (size_t)(((PL_STREAMS - 1) * s.rows + rows) * s.hidden) * sizeof *s.v, back);
    return s;
}

static pl_rows rows_in(call *c, const pl_rows *rows)
{
    return (pl_rows){rows->n, ints_in(c, rows->slot, rows->n), ints_in(c, rows->position, rows->n),
                     ints_in(c, rows->sequence, rows->n)};
}

static pl_altup altup_in(call *c, const pl_altup *a, int64_t hidden)
{
    return (pl_altup){floats_in(c, a->router_norm, hidden), floats_in(c, a->router, PL_STREAMS * hidden),
                      floats_in(c, a->predict, PL_STREAMS * PL_STREAMS * PL_STREAMS),
                      floats_in(c, a->correct, PL_STREAMS * PL_STREAMS), floats_in(c, a->scale, hidden)};
}

static void finish(call *c, pl_stream *s, cudaError_t launched, const char *what)
{
    expect_done(launched, what);
    expect_done(cudaStreamSynchronize(s->queue), what);
    for (int i = 0; i < c->n; i++) {
        copy *k = &c->copies[i];
        if (k->back)
            expect_done(cudaMemcpy(k->host, k->card, k->bytes, cudaMemcpyDeviceToHost), "cudaMemcpy from the card");
        expect_done(cudaFree(k->card), "cudaFree");
    }
}

static int64_t count_to_largest(const int32_t *v, int n)
{
    int64_t largest = 0;
    for (int i = 0; i < n; i++)
        largest = v[i] > largest ? v[i] : largest;
    return largest + 1;
}

/* ---- ops */

static int64_t count_soft(const int32_t *id, int n)
{
    int64_t rows = 0;
    for (int i = 0; i < n; i++)
        rows = -(int64_t)id[i] > rows ? -(int64_t)id[i] : rows;
    return rows;
}

static void embed(pl_stream *s, float *out, const pl_embed_from *from, const int32_t *id, int n)
{
    call c = {.n = 0};
    pl_weight w = *from->table;
    pl_embed_from there = *from;
    there.table = &w;
    there.hard = from->hard ? floats_in(&c, from->hard, from->n_hard * w.cols) : NULL;
    there.soft = from->soft ? floats_in(&c, from->soft, count_soft(id, n) * w.cols) : NULL;
    size_t bytes = w.packed ? w.bytes : pl_dtype_bytes(w.type, w.rows * w.cols);
    w.data = to_card(&c, (void *)(uintptr_t)w.data, bytes, false);
    float *to = floats(&c, out, n * w.cols);
    finish(&c, s, pl_cuda_embed(s->queue, to, &there, ints_in(&c, id, n), n), "embed");
}

/* The whole table, which is read in pieces of 16 bytes. */
static void ple_look(pl_stream *s, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id,
                     const int32_t *layers, int n, int p, int32_t *bad)
{
    call c = {.n = 0};
    pl_ple_rows there = *from;
    float *to = floats(&c, ple, n * ld);
    const int32_t *ids = ints_in(&c, id, n), *depth = ints_in(&c, layers, n);
    int32_t *report = to_card(&c, bad, sizeof *bad, true);
    void *table;
    size_t bytes = (size_t)from->vocab * from->row_bytes;
    expect_done(cudaMalloc(&table, (bytes + 15) / 16 * 16), "cudaMalloc");
    expect_done(cudaMemcpy(table, from->base, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the card");
    there.base = table;
    finish(&c, s, pl_cuda_ple_look(s->queue, to, ld, &there, ids, depth, n, p, report), "ple_look");
    expect_done(cudaFree(table), "cudaFree");
}

static void ple_combine(pl_stream *s, float *ple, const float *proj, int64_t ld, const float *w, int n,
                        const int32_t *layers, int p, float proj_scale, float look_scale, float eps)
{
    call c = {.n = 0};
    float *to = floats(&c, ple, n * ld);
    const float *from = floats_in(&c, proj, n * ld), *norm = floats_in(&c, w, p);
    cudaError_t launched = pl_cuda_ple_combine(s->queue, to, from, ld, norm, n, ints_in(&c, layers, n), p, proj_scale,
                                               look_scale, eps);
    finish(&c, s, launched, "ple_combine");
}

static void match_rms(pl_stream *s, float *u, const float *ref, int n, int64_t hidden)
{
    call c = {.n = 0};
    float *to = floats(&c, u, n * hidden);
    finish(&c, s, pl_cuda_match_rms(s->queue, to, floats_in(&c, ref, n * hidden), n, hidden), "match_rms");
}

static void altup_predict(pl_stream *s, pl_streams pred, float *x, pl_streams from, const pl_rows *rows,
                          const pl_altup *altup, const float *norm, float eps)
{
    call c = {.n = 0};
    int64_t h = from.hidden;
    pl_streams to = streams(&c, pred, rows->n, true);
    from = streams(&c, from, count_to_largest(rows->slot, rows->n), false);
    float *to_x = floats(&c, x, rows->n * h);
    pl_rows r = rows_in(&c, rows);
    pl_altup a = altup_in(&c, altup, h);
    cudaError_t launched = pl_cuda_altup_predict(s->queue, to, to_x, from, &r, &a, floats_in(&c, norm, h), eps);
    finish(&c, s, launched, "altup_predict");
}

static void altup_correct(pl_stream *s, pl_streams to, float *y, float *gate_in, const float *ffn, pl_streams pred,
                          const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    call c = {.n = 0};
    int64_t h = to.hidden, all = rows->n * h;
    to = streams(&c, to, count_to_largest(rows->slot, rows->n), true);
    pred = streams(&c, pred, rows->n, false);
    float *to_y = floats(&c, y, all), *to_gate = floats(&c, gate_in, all);
    const float *from = floats_in(&c, ffn, all), *w = floats_in(&c, norm, h);
    pl_rows r = rows_in(&c, rows);
    pl_altup a = altup_in(&c, altup, h);
    finish(&c, s, pl_cuda_altup_correct(s->queue, to, to_y, to_gate, from, pred, &r, &a, w, eps), "altup_correct");
}

static void rope_table(pl_stream *s, float *out, const int32_t *position, int n, const float *inv_freq, int half)
{
    call c = {.n = 0};
    float *to = floats(&c, out, (int64_t)n * 2 * half);
    const int32_t *at = ints_in(&c, position, n);
    finish(&c, s, pl_cuda_rope_table(s->queue, to, at, n, floats_in(&c, inv_freq, half), half), "rope_table");
}

/* As far as the rows reach. */
static pl_kv_layer kv_of_rows(call *c, const pl_kv_layer *kv, const pl_rows *rows, pl_heads heads)
{
    int64_t entries = 0, pages = 0;
    for (int i = 0; i < rows->n; i++) {
        int64_t entry = rows->sequence[i] * kv->table_ld + rows->position[i] / PL_KV_PAGE;
        entries = entry >= entries ? entry + 1 : entries;
        pages = kv->table[entry] >= pages ? kv->table[entry] + 1 : pages;
    }
    int64_t n = (pages - 1) * kv->page_stride + (int64_t)heads.kv_heads * PL_KV_PAGE * heads.dim;
    return (pl_kv_layer){floats(c, kv->k, n), floats(c, kv->v, n),
                         kv->page_stride,     ints_in(c, kv->table, entries),
                         kv->table_ld,        kv->type};
}

static void qkv_store(pl_stream *s, float *q, float *k, float *v, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, const float *q_norm, const float *k_norm, const float *rope, float eps)
{
    call c = {.n = 0};
    int64_t row = (int64_t)rows->n * heads.dim;
    float *to_q = floats(&c, q, row * heads.heads), *to_k = floats(&c, k, row * heads.kv_heads);
    float *to_v = floats(&c, v, row * heads.kv_heads);
    pl_kv_layer cache = kv_of_rows(&c, kv, rows, heads);
    pl_rows r = rows_in(&c, rows);
    const float *wq = floats_in(&c, q_norm, heads.dim), *wk = floats_in(&c, k_norm, heads.dim);
    const float *turns = floats_in(&c, rope, count_to_largest(rows->slot, rows->n) * heads.dim);
    finish(&c, s, pl_cuda_qkv_store(s->queue, to_q, to_k, to_v, &cache, &r, heads, wq, wk, turns, eps), "qkv_store");
}

static void attn_residual(pl_stream *s, float *y, float *f, float *laurel, const float *a, const float *x,
                          const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                          int n, int64_t h, float eps)
{
    call c = {.n = 0};
    float *to_y = floats(&c, y, n * h), *to_f = floats(&c, f, n * h), *to_laurel = floats(&c, laurel, n * h);
    const float *from_att = att == y ? to_y : floats_in(&c, att, n * h);
    const float *from_a = floats_in(&c, a, n * h), *from_x = floats_in(&c, x, n * h);
    const float *wl = floats_in(&c, laurel_norm, h), *wa = floats_in(&c, att_norm, h), *wf = floats_in(&c, ffn_norm, h);
    cudaError_t launched = pl_cuda_attn_residual(s->queue, to_y, to_f, to_laurel, from_a, from_x, from_att, wl, wa, wf,
                                                 n, h, eps);
    finish(&c, s, launched, "attn_residual");
}

static void ffn_act(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z)
{
    call c = {.n = 0};
    float *to = floats(&c, gate, n * ld);
    const float *by = floats_in(&c, up, n * ld);
    finish(&c, s, pl_cuda_ffn_act(s->queue, to, by, ld, n, ints_in(&c, width, n), z), "ffn_act");
}

static void ffn_stats(pl_stream *s, double *stats, const float *gate, int64_t ld, int n, const int32_t *width)
{
    call c = {.n = 0};
    double *to = to_card(&c, stats, (size_t)n * PL_FFN_STATS * sizeof *stats, true);
    const float *from = floats_in(&c, gate, n * ld);
    finish(&c, s, pl_cuda_ffn_stats(s->queue, to, from, ld, n, ints_in(&c, width, n)), "ffn_stats");
}

static void ffn_act_part(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                         const double *stats, float z)
{
    call c = {.n = 0};
    float *to = floats(&c, gate, n * ld);
    const float *by = floats_in(&c, up, n * ld);
    const double *sums = to_card(&c, (double *)(uintptr_t)stats, (size_t)n * PL_FFN_STATS * sizeof *stats, false);
    finish(&c, s, pl_cuda_ffn_act_part(s->queue, to, by, ld, n, ints_in(&c, width, n), sums, z), "ffn_act_part");
}

static void ple_gate(pl_stream *s, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p)
{
    call c = {.n = 0};
    float *to = floats(&c, gate, (int64_t)rows->n * p);
    const float *by = floats_in(&c, ple, (count_to_largest(rows->slot, rows->n) - 1) * ld + p);
    pl_rows r = rows_in(&c, rows);
    finish(&c, s, pl_cuda_ple_gate(s->queue, to, by, ld, &r, p), "ple_gate");
}

static void ple_add(pl_stream *s, pl_streams to, float *v, const pl_rows *rows, const float *w, float eps)
{
    call c = {.n = 0};
    int64_t h = to.hidden;
    to = streams(&c, to, count_to_largest(rows->slot, rows->n), true);
    float *to_v = floats(&c, v, rows->n * h);
    pl_rows r = rows_in(&c, rows);
    finish(&c, s, pl_cuda_ple_add(s->queue, to, to_v, &r, floats_in(&c, w, h), eps), "ple_add");
}

static void output_norm(pl_stream *s, float *mean, float *out, const float *first, pl_streams rest, int n,
                        const float *w, float eps)
{
    call c = {.n = 0};
    int64_t h = rest.hidden;
    float *to_mean = floats(&c, mean, n * h), *to = floats(&c, out, n * h);
    const float *from = floats_in(&c, first, n * h), *norm = floats_in(&c, w, h);
    rest = streams(&c, rest, n, false);
    finish(&c, s, pl_cuda_output_norm(s->queue, to_mean, to, from, rest, n, norm, eps), "output_norm");
}

static void check_finite(pl_stream *s, const float *x, int n, int64_t cols, int32_t *bad)
{
    call c = {.n = 0};
    const float *from = floats_in(&c, x, n * cols);
    int32_t *to = to_card(&c, bad, sizeof *bad, true);
    finish(&c, s, pl_cuda_check_finite(s->queue, from, n, cols, to), "check_finite");
}

static void softcap(pl_stream *s, float *x, int n, int64_t cols, float cap)
{
    call c = {.n = 0};
    float *to = floats(&c, x, n * cols);
    finish(&c, s, pl_cuda_softcap(s->queue, to, n, cols, cap), "softcap");
}

/* ---- the backend */

static void destroy(pl_backend *b)
{
    card_backend *card = (card_backend *)b;
    expect_done(cudaStreamDestroy(card->stream.queue), "cudaStreamDestroy");
    free(card);
}

pl_status __wrap_pl_backend_cpu(const pl_backend_shape *shape, int threads, const int *cpus, unsigned allowed,
                                pl_backend **out, pl_error *err)
{
    static uint64_t seed;
    (void)shape, (void)threads, (void)cpus, (void)allowed, (void)err;
    card_insert(CARD_ASKED, seed++);
    card_backend *card = calloc(1, sizeof *card);
    cr_assert_not_null(card);
    expect_done(cudaStreamCreateWithFlags(&card->stream.queue, cudaStreamNonBlocking), "cudaStreamCreate");
    card->ops = (pl_ops){
        .embed = embed,
        .ple_look = ple_look,
        .ple_combine = ple_combine,
        .match_rms = match_rms,
        .altup_predict = altup_predict,
        .rope_table = rope_table,
        .qkv_store = qkv_store,
        .attn_residual = attn_residual,
        .ffn_act = ffn_act,
        .ffn_stats = ffn_stats,
        .ffn_act_part = ffn_act_part,
        .altup_correct = altup_correct,
        .ple_gate = ple_gate,
        .ple_add = ple_add,
        .output_norm = output_norm,
        .check_finite = check_finite,
        .softcap = softcap,
    };
    card->base = (pl_backend){.name = "card", .ops = &card->ops, .stream = &card->stream, .destroy = destroy};
    *out = &card->base;
    return PL_OK;
}
