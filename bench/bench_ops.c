/* How fast the ops move memory, for each instruction set of this machine.
 *
 *     bench_ops [THREADS [OP [ISA]]]
 *
 * Sizes are those of Gemma 3n E4B. Prints CSV: the median time, the bytes that the op's contract says it moves,
 * their rate and its share of what the same threads read from memory (above 1: a cache served it); for attention
 * the arithmetic too, two operations for each multiplication with addition, for K/V of each type. OP and ISA are parts of
 * names. */
#include "bench/median.h"
#include "host/base/bandwidth.h"
#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/cpu/kv_rows.h"
#include "host/ops/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS 31
#define MAX_SECONDS 0.3 /* of one op's runs; at least one is made */
#define HIDDEN 2048
#define PLE 256
#define LAYERS 35
#define FFN 16384
#define VOCAB 262400
#define MAX_ROWS 512
#define CONTEXT 32768
#define EPS 1e-6f

static const pl_heads heads = {8, 2, 256};

typedef struct bench {
    pl_backend *backend;
    const char *isa;
    double read_bytes_per_s;
    float
        *data[8]; /* each MAX_ROWS * FFN values; 0 is filled from 6 for each run, in-place ops would drive it to zero */
    float *k, *v; /* CONTEXT tokens, for which there is room in f32 */
    pl_cache_type cache;
    int32_t *table;
    int32_t slot[MAX_ROWS], position[MAX_ROWS], sequence[MAX_ROWS], width[MAX_ROWS], layers[MAX_ROWS];
    pl_rows rows;
    int context, window, run;
    float z; /* ffn_act's */
    pl_act act;
} bench;

typedef void (*bench_fn)(bench *b);

static double median_seconds(bench *b, bench_fn fn)
{
    double s[MAX_RUNS], total = 0;
    int n = 0;
    while (n < MAX_RUNS && total < MAX_SECONDS) {
        memcpy(b->data[0], b->data[6], (size_t)b->rows.n * FFN * sizeof(float));
        double start = pl_clock_seconds();
        fn(b);
        s[n] = pl_clock_seconds() - start;
        total += s[n++];
        b->run++;
    }
    return pl_median(s, (size_t)n);
}

static void report(bench *b, const char *op, bench_fn fn, double bytes, double flops)
{
    double s = median_seconds(b, fn);
    printf("%s,%s,%d,%d,%.1f,%.3f,%.1f,%.2f,", op, b->isa, b->rows.n, b->context, 1e6 * s, 1e-6 * bytes,
           1e-9 * bytes / s, bytes / s / b->read_bytes_per_s);
    if (flops > 0)
        printf("%.1f", 1e-9 * flops / s);
    printf("\n");
    fflush(stdout);
}

/* ---- the ops ------------------------------------------------------------------------------------------- */

static pl_streams streams(float *v)
{
    return (pl_streams){v, MAX_ROWS, HIDDEN};
}

static pl_altup altup(const bench *b)
{
    const float *w = b->data[7];
    return (pl_altup){w, w + HIDDEN, w + 5 * HIDDEN, w + 6 * HIDDEN, w + 7 * HIDDEN};
}

static pl_kv_layer kv(const bench *b)
{
    return (pl_kv_layer){.k = b->k,
                         .v = b->v,
                         .page_stride = heads.kv_heads *
                                        (int64_t)(pl_kv_head_bytes(b->cache, heads.dim) / sizeof *b->k),
                         .table = b->table,
                         .table_ld = b->context / PL_KV_PAGE,
                         .type = b->cache};
}

/* The integers of rows of `cols` values. */
static pl_act *integers(bench *b, const float *x, int64_t cols)
{
    b->act.f32 = x;
    b->act.ld = b->act.cols = cols;
    b->act.blocks = cols / PL_ACT_BLOCK;
    b->act.integers_only = true;
    return &b->act;
}

static void run_quantize(bench *b)
{
    b->backend->ops->quantize(b->backend->stream, integers(b, b->data[0], FFN), b->rows.n);
}

static void run_fused_predict(bench *b)
{
    pl_altup a = altup(b);
    b->backend->fused->predict(b->backend->stream, streams(b->data[0]), b->data[1], integers(b, b->data[1], HIDDEN),
                               streams(b->data[2]), b->data[3], b->data[7], &b->rows, &a, b->data[7], EPS);
}

static void run_fused_correct(bench *b)
{
    pl_altup a = altup(b);
    b->backend->fused->altup_correct(b->backend->stream, streams(b->data[2]), b->data[1], b->data[3],
                                     integers(b, b->data[3], HIDDEN), b->data[4], streams(b->data[0]), &b->rows, &a,
                                     b->data[7], EPS);
}

static void run_fused_residual(bench *b)
{
    const float *w = b->data[7];
    b->backend->fused->attn_residual(b->backend->stream, b->data[0], b->data[1], integers(b, b->data[1], HIDDEN),
                                     b->data[2], b->data[3], b->data[4], b->data[5], w, w + HIDDEN, w + 2 * HIDDEN,
                                     b->rows.n, HIDDEN, EPS);
}

static void run_fused_ffn_act(bench *b)
{
    b->backend->fused->ffn_act(b->backend->stream, integers(b, b->data[0], FFN), b->data[0], b->data[1], FFN, b->rows.n,
                               b->width, b->z);
}

static void run_match_rms(bench *b)
{
    b->backend->ops->match_rms(b->backend->stream, b->data[0], b->data[1], b->rows.n, HIDDEN);
}

static void run_altup_predict(bench *b)
{
    pl_altup a = altup(b);
    b->backend->ops->altup_predict(b->backend->stream, streams(b->data[0]), b->data[1], streams(b->data[2]), &b->rows,
                                   &a, b->data[7], EPS);
}

static void run_altup_correct(bench *b)
{
    pl_altup a = altup(b);
    b->backend->ops->altup_correct(b->backend->stream, streams(b->data[2]), b->data[1], b->data[3], b->data[4],
                                   streams(b->data[0]), &b->rows, &a, b->data[7], EPS);
}

static void run_attn_residual(bench *b)
{
    const float *w = b->data[7];
    b->backend->ops->attn_residual(b->backend->stream, b->data[0], b->data[1], b->data[2], b->data[3], b->data[4],
                                   b->data[5], w, w + HIDDEN, w + 2 * HIDDEN, b->rows.n, HIDDEN, EPS);
}

static void run_ffn_act(bench *b)
{
    b->backend->ops->ffn_act(b->backend->stream, b->data[0], b->data[1], FFN, b->rows.n, b->width, b->z);
}

static void run_ple_combine(bench *b)
{
    b->backend->ops->ple_combine(b->backend->stream, b->data[0], b->data[1], LAYERS * PLE, b->data[7], b->rows.n,
                                 b->layers, PLE, 0.0220970869f, 16.0f, EPS);
}

static void run_ple_gate(bench *b)
{
    b->backend->ops->ple_gate(b->backend->stream, b->data[0], b->data[1], LAYERS * PLE, &b->rows, PLE);
}

static void run_ple_add(bench *b)
{
    b->backend->ops->ple_add(b->backend->stream, streams(b->data[0]), b->data[1], &b->rows, b->data[7], EPS);
}

static void run_output_norm(bench *b)
{
    b->backend->ops->output_norm(b->backend->stream, b->data[0], b->data[1], b->data[2], streams(b->data[3]), b->rows.n,
                                 b->data[7], EPS);
}

static void run_softcap(bench *b)
{
    b->backend->ops->softcap(b->backend->stream, b->data[0], b->rows.n, VOCAB, 30.0f);
}

static void run_rope_table(bench *b)
{
    b->backend->ops->rope_table(b->backend->stream, b->data[0], b->position, b->rows.n, b->data[7], heads.dim / 2);
}

static void run_qkv_store(bench *b)
{
    pl_kv_layer layer = kv(b);
    b->backend->ops->qkv_store(b->backend->stream, b->data[0], b->data[1], b->data[2], &layer, &b->rows, heads,
                               b->data[7], b->data[7], b->data[3], EPS);
}

/* Each run reads another sequence, so that short ones do not stay in the cache. */
static void run_attention(bench *b)
{
    for (int i = 0; i < b->rows.n; i++)
        b->sequence[i] = b->run % (CONTEXT / b->context);
    pl_kv_layer layer = kv(b);
    b->backend->ops->attention(b->backend->stream, b->data[0], b->data[1], &layer, &b->rows, heads, b->window);
}

/* ---- sizes --------------------------------------------------------------------------------------------- */

static void fill(bench *b)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (int d = 0; d < 8; d++)
        for (int64_t i = 0; i < (int64_t)MAX_ROWS * FFN; i++)
            b->data[d][i] = (float)(2 * pl_rng_uniform(&rng) - 1);
}

static void fill_kv(bench *b)
{
    pl_rng rng;
    pl_rng_seed(&rng, 2);
    size_t head_bytes = pl_kv_head_bytes(b->cache, heads.dim);
    for (int64_t i = 0; i < (int64_t)CONTEXT * heads.kv_heads; i++) {
        size_t at = (size_t)(i / PL_KV_PAGE) * head_bytes;
        float k[256], v[256];
        for (int d = 0; d < heads.dim; d++) {
            k[d] = (float)(0.2 * pl_rng_uniform(&rng) - 0.1);
            v[d] = (float)(2 * pl_rng_uniform(&rng) - 1);
        }
        pl_kv_put_base(b->cache, (char *)b->k + at, (int)(i % PL_KV_PAGE), k, heads.dim);
        pl_kv_put_base(b->cache, (char *)b->v + at, (int)(i % PL_KV_PAGE), v, heads.dim);
    }
    for (int i = 0; i < CONTEXT / PL_KV_PAGE; i++)
        b->table[i] = i;
}

static void set_rows(bench *b, int n, int context)
{
    b->context = context;
    b->rows = (pl_rows){n, b->slot, b->position, b->sequence};
    for (int i = 0; i < n; i++) {
        b->slot[i] = i;
        b->position[i] = context - n + i;
        b->sequence[i] = 0;
        b->width[i] = FFN;
        b->layers[i] = LAYERS;
    }
}

static double keys_seen(const bench *b)
{
    double sum = 0;
    for (int i = 0; i < b->rows.n; i++) {
        int seen = b->position[i] + 1;
        sum += b->window && seen > b->window ? b->window : seen;
    }
    return sum;
}

/* Keys and values count once for all rows. */
static void bench_attention(bench *b, int rows, int context, int window)
{
    set_rows(b, rows, context);
    b->window = window;
    double keys = window && window + rows < context ? window + rows - 1 : context;
    double key_bytes = (double)pl_kv_head_bytes(b->cache, heads.dim) / PL_KV_PAGE;
    double bytes = 2 * key_bytes * heads.kv_heads * keys + 8.0 * rows * heads.heads * heads.dim;
    char op[48];
    snprintf(op, sizeof op, "attention%s-%s", window ? "-window" : "", pl_cache_type_name(b->cache));
    report(b, op, run_attention, bytes, 4.0 * heads.heads * heads.dim * keys_seen(b));
}

typedef struct bench_case {
    const char *op;
    bench_fn fn;
    double bytes_per_row;
    int most_rows;
    float z;
} bench_case;

static const bench_case cases[] = {
    {"quantize", run_quantize, 6.4 * FFN, MAX_ROWS, 0},
    {"match_rms", run_match_rms, 12.0 * HIDDEN, MAX_ROWS, 0},
    {"altup_predict", run_altup_predict, 36.0 * HIDDEN, MAX_ROWS, 0},
    {"altup_correct", run_altup_correct, 48.0 * HIDDEN, MAX_ROWS, 0},
    {"attn_residual", run_attn_residual, 32.0 * HIDDEN, MAX_ROWS, 0},
    {"ffn_act-dense", run_ffn_act, 12.0 * FFN, MAX_ROWS, -__builtin_inff()},
    {"ffn_act-sparse", run_ffn_act, 12.0 * FFN, MAX_ROWS, 0.5f}, /* of uniform values a third passes */
    {"fused-predict", run_fused_predict, 58.4 * HIDDEN, MAX_ROWS, 0},
    {"fused-correct", run_fused_correct, 50.4 * HIDDEN, MAX_ROWS, 0},
    {"fused-residual", run_fused_residual, 22.4 * HIDDEN, MAX_ROWS, 0},
    {"fused-ffn_act-dense", run_fused_ffn_act, 10.4 * FFN, MAX_ROWS, -__builtin_inff()},
    {"fused-ffn_act-sparse", run_fused_ffn_act, 10.4 * FFN, MAX_ROWS, 1.6448f}, /* a fortieth passes */
    {"ple_combine", run_ple_combine, 12.0 * LAYERS *PLE, MAX_ROWS, 0},
    {"ple_gate", run_ple_gate, 12.0 * PLE, MAX_ROWS, 0},
    {"ple_add", run_ple_add, 32.0 * HIDDEN, MAX_ROWS, 0},
    {"output_norm", run_output_norm, 24.0 * HIDDEN, MAX_ROWS, 0},
    {"softcap", run_softcap, 8.0 * VOCAB, 1, 0},
    {"rope_table", run_rope_table, 4.0 * 256, MAX_ROWS, 0},
    {"qkv_store", run_qkv_store, 8.0 * 2048 + 16.0 * 512 + 8.0 * 512, MAX_ROWS, 0},
};

static void bench_isa(bench *b, const char *only)
{
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        if (!strstr(cases[c].op, only))
            continue;
        for (int rows = 1; rows <= cases[c].most_rows; rows += MAX_ROWS - 1) {
            fill(b);
            set_rows(b, rows, 4096);
            b->z = cases[c].z;
            report(b, cases[c].op, cases[c].fn, rows * cases[c].bytes_per_row, 0);
        }
    }
    if (!strstr("attention-window", only))
        return;
    fill(b);
    for (b->cache = PL_CACHE_F32; b->cache <= PL_CACHE_Q8_0; b->cache++) {
        fill_kv(b);
        for (int rows = 1; rows <= MAX_ROWS; rows += MAX_ROWS - 1) {
            for (int context = 512; context <= CONTEXT; context *= 8)
                bench_attention(b, rows, context, 0);
            bench_attention(b, rows, 4096, 512);
        }
    }
    b->cache = PL_CACHE_F32;
}

static int take(bench *b)
{
    for (int i = 0; i < 8; i++)
        if (!(b->data[i] = malloc((size_t)MAX_ROWS * FFN * sizeof(float))))
            return 0;
    size_t kv_bytes = (size_t)CONTEXT * (size_t)(heads.kv_heads * heads.dim) * sizeof(float);
    b->k = malloc(kv_bytes);
    b->v = malloc(kv_bytes);
    b->table = malloc(CONTEXT / PL_KV_PAGE * sizeof *b->table);
    size_t blocks = (size_t)MAX_ROWS * FFN / PL_ACT_BLOCK;
    b->act.hi_lo = malloc(2 * PL_ACT_BLOCK * blocks);
    b->act.scale = malloc(blocks * sizeof *b->act.scale);
    b->act.sum = malloc(2 * blocks * sizeof *b->act.sum);
    return b->k && b->v && b->table && b->act.hi_lo && b->act.scale && b->act.sum;
}

static void give(bench *b)
{
    for (int i = 0; i < 8; i++)
        free(b->data[i]);
    free(b->k);
    free(b->v);
    free(b->table);
    free(b->act.hi_lo);
    free(b->act.scale);
    free(b->act.sum);
}

int main(int argc, char **argv)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    static const pl_backend_shape shape = {.max_rows = MAX_ROWS, .max_context = CONTEXT, .heads = {8, 2, 256}};
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    const char *only = argc > 2 ? argv[2] : "", *isa = argc > 3 ? argv[3] : "", *last = "";
    pl_status status = PL_OK;
    pl_error error, *err = &error;
    bench b = {.isa = NULL};
    if (threads < 1 || !take(&b)) {
        fprintf(stderr, "usage: bench_ops [THREADS [OP [ISA]]]\n");
        give(&b);
        return 1;
    }
    PL_TRY_GOTO(pl_bandwidth_read(threads, true, &b.read_bytes_per_s, err));
    printf("op,isa,rows,context,us,MB,GB/s,share,GFLOP/s\n");
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        PL_TRY_GOTO(pl_backend_cpu(&shape, threads, NULL, levels[i], &b.backend, err));
        b.isa = b.backend->name;
        if (strcmp(b.isa, last) != 0 && strstr(b.isa, isa))
            bench_isa(&b, only);
        last = b.isa;
        pl_backend_free(b.backend);
    }
fail:
    if (status != PL_OK)
        fprintf(stderr, "bench_ops: %s\n", error.message);
    give(&b);
    return status != PL_OK;
}
