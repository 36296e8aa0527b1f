/* The FFN of a layer with a cutoff, read neuron by neuron, beside the same with every weight read.
 *
 *     bench_ffn [THREADS [FFN]]
 *
 * E2B's shape, FFN 8192 over 2048 (E4B: 16384), weights and activations normal, so that one gate in twenty passes. Layers
 * lie in as many copies as leave no cache a chance; both ways run in turn. Prints CSV: medians of the times, their ratio,
 * the bytes that are read, the rate at which that is, and its share of what the same threads read from memory. */
#include "bench/median.h"
#include "host/base/bandwidth.h"
#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/ops/backend.h"
#include "quant/encode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HIDDEN 2048
#define COPIES 5
#define RUNS 31
#define Z 1.6448536f

typedef struct layer {
    pl_weight gate, up, down, up_rows, down_columns;
} layer;

typedef struct bench {
    pl_backend *b;
    int64_t ffn;
    double bandwidth;
    layer layers[COPIES];
    pl_act x, mid;
    float *gate_out, *up_out, *out;
    int32_t width[PL_SPARSE_ROWS];
} bench;

static void fail(const pl_error *err)
{
    fprintf(stderr, "bench_ffn: %s\n", err->message);
    exit(1);
}

static void *take(bench *s, size_t bytes)
{
    void *p = s->b->memory_take(s->b, bytes);
    if (!p) {
        fprintf(stderr, "bench_ffn: %zu bytes are not to be had\n", bytes);
        exit(1);
    }
    return p;
}

static float normal(pl_rng *rng)
{
    double u = pl_rng_uniform(rng), v = pl_rng_uniform(rng);
    return (float)(sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v));
}

/* ---- weights ---- */

typedef struct encode_job {
    const pl_encoder *encoder;
    pl_tensor t;
    uint64_t seed;
} encode_job;

static void encode_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const encode_job *job = ctx;
    float row[16384];
    for (int64_t r = begin; r < end; r++) {
        pl_rng rng;
        pl_rng_seed(&rng, job->seed + (uint64_t)r);
        for (int64_t i = 0; i < job->t.cols; i++)
            row[i] = normal(&rng);
        job->encoder->encode(job->t.type, row, NULL, (void *)(uintptr_t)pl_tensor_row(&job->t, r), job->t.cols);
    }
}

static pl_weight load(bench *s, const pl_tensor *t, pl_weight_layout layout)
{
    pl_weight w;
    pl_error err;
    void *dst = take(s, s->b->weight_bytes(s->b, t));
    if (s->b->weight_load_neurons(s->b, t, layout, dst, &w, &err) != PL_OK)
        fail(&err);
    return w;
}

static void make_layers(bench *s, pl_dtype type, pl_dtype down_type)
{
    const pl_tensor shapes[3] = {{"gate", NULL, s->ffn, HIDDEN, type},
                                 {"up", NULL, s->ffn, HIDDEN, type},
                                 {"down", NULL, HIDDEN, s->ffn, down_type}};
    pl_tensor t[3];
    for (int i = 0; i < 3; i++) {
        encode_job job = {pl_encoder_select(pl_cpu_features(PL_CPU_ALL)), shapes[i], (uint64_t)i << 32};
        t[i] = shapes[i];
        t[i].data = take(s, (size_t)t[i].rows * pl_tensor_row_bytes(&t[i]));
        job.t = t[i];
        pl_pool_for(s->b->pool, t[i].rows, 16, encode_rows, &job);
    }
    for (int i = 0; i < COPIES; i++)
        s->layers[i] = (layer){load(s, &t[0], PL_PANELS), load(s, &t[1], PL_PANELS), load(s, &t[2], PL_PANELS),
                               load(s, &t[1], PL_NEURON_ROWS), load(s, &t[2], PL_NEURON_COLUMNS)};
    for (int i = 0; i < 3; i++)
        s->b->memory_give(s->b, (void *)(uintptr_t)t[i].data, (size_t)t[i].rows * pl_tensor_row_bytes(&t[i]));
}

static void free_layers(bench *s)
{
    for (int i = 0; i < COPIES; i++) {
        pl_weight *w = &s->layers[i].gate;
        for (int j = 0; j < 5; j++)
            s->b->memory_give(s->b, (void *)(uintptr_t)w[j].data, w[j].bytes);
    }
}

/* ---- both ways ---- */

static double run_dense(bench *s, const layer *l, int n)
{
    const pl_ops *ops = s->b->ops;
    pl_matmul jobs[2] = {{.w = &l->gate, .x = &s->x, .out = s->gate_out, .out_ld = s->ffn, .n_rows = n},
                         {.w = &l->up, .x = &s->x, .out = s->up_out, .out_ld = s->ffn, .n_rows = n}};
    pl_matmul down = {.w = &l->down, .x = &s->mid, .out = s->out, .out_ld = HIDDEN, .n_rows = n};
    double start = pl_clock_seconds();
    ops->matmul(s->b->stream, jobs, 2);
    ops->ffn_act(s->b->stream, s->gate_out, s->up_out, s->ffn, n, s->width, Z);
    ops->quantize(s->b->stream, &s->mid, n);
    ops->matmul(s->b->stream, &down, 1);
    return pl_clock_seconds() - start;
}

static double run_sparse(bench *s, const layer *l, int n)
{
    pl_ffn f = {&l->gate, &l->up_rows, &l->down_columns, &s->x, s->gate_out, s->up_out,
                &s->mid,  s->ffn,      s->out,           n,     s->width,    Z};
    double start = pl_clock_seconds();
    s->b->ops->ffn_sparse(s->b->stream, &f);
    return pl_clock_seconds() - start;
}

static void report(bench *s, const char *name, int n)
{
    double dense[RUNS], sparse[RUNS], ratio[RUNS];
    const layer *first = &s->layers[0];
    double all = (double)(first->gate.bytes + first->up.bytes + first->down.bytes);
    uint64_t skipped = s->b->skipped(s->b).bytes;
    s->b->ops->quantize(s->b->stream, &s->x, n);
    for (int i = 0; i < RUNS; i++) {
        dense[i] = run_dense(s, &s->layers[i % COPIES], n);
        sparse[i] = run_sparse(s, &s->layers[i % COPIES], n);
        ratio[i] = dense[i] / sparse[i];
    }
    double few = all - (double)(s->b->skipped(s->b).bytes - skipped) / RUNS;
    double a = pl_median(dense, RUNS), b = pl_median(sparse, RUNS);
    printf("%s,%d,%d,%.0f,%.0f,%.2f,%.2f,%.2f,%.1f,%.1f,%.2f,%.2f\n", name, pl_pool_threads(s->b->pool), n, a * 1e6,
           b * 1e6, pl_median(ratio, RUNS), all * 1e-6, few * 1e-6, all / a * 1e-9, few / b * 1e-9,
           all / a / s->bandwidth, few / b / s->bandwidth);
    fflush(stdout);
}

/* ---- */

static pl_act make_act(bench *s, float *x, int64_t cols)
{
    size_t blocks = PL_SPARSE_ROWS * (size_t)(cols / PL_ACT_BLOCK);
    return (pl_act){.f32 = x,
                    .ld = cols,
                    .cols = cols,
                    .blocks = cols / PL_ACT_BLOCK,
                    .hi_lo = take(s, blocks * 2 * PL_ACT_BLOCK),
                    .scale = take(s, blocks * sizeof(float)),
                    .sum = take(s, blocks * 2 * sizeof(int32_t))};
}

static void make_work(bench *s)
{
    float *x = take(s, PL_SPARSE_ROWS * HIDDEN * sizeof *x);
    pl_rng rng;
    pl_rng_seed(&rng, 7);
    for (int i = 0; i < PL_SPARSE_ROWS * HIDDEN; i++)
        x[i] = normal(&rng);
    s->gate_out = take(s, PL_SPARSE_ROWS * (size_t)s->ffn * sizeof(float));
    s->up_out = take(s, PL_SPARSE_ROWS * (size_t)s->ffn * sizeof(float));
    s->out = take(s, PL_SPARSE_ROWS * HIDDEN * sizeof(float));
    s->x = make_act(s, x, HIDDEN);
    s->mid = make_act(s, s->gate_out, s->ffn);
    for (int i = 0; i < PL_SPARSE_ROWS; i++)
        s->width[i] = (int32_t)s->ffn;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        pl_dtype type, down;
    } files[] = {{"Q4_0", PL_Q4_0, PL_Q4_0}, {"Q4_K_M", PL_Q4_K, PL_Q6_K}, {"Q8_0", PL_Q8_0, PL_Q8_0}};
    static const int rows[] = {1, 2, 4, 8};
    bench s = {.ffn = argc > 2 ? strtol(argv[2], NULL, 10) : 8192};
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    pl_error err;
    if (s.ffn < PL_ACT_SPAN || s.ffn > 16384 || s.ffn % PL_ACT_SPAN) {
        fprintf(stderr, "bench_ffn: %lld neurons, expected a multiple of %d up to 16384\n", (long long)s.ffn,
                PL_ACT_SPAN);
        return 1;
    }
    if (pl_backend_cpu(&(pl_backend_shape){.max_rows = PL_SPARSE_ROWS, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}},
                       threads, NULL, PL_CPU_ALL, &s.b, &err) != PL_OK ||
        pl_bandwidth_read(threads, true, &s.bandwidth, &err) != PL_OK)
        fail(&err);
    make_work(&s);
    printf("# memory: %.1f GB/s\n", s.bandwidth * 1e-9);
    printf(
        "file,threads,rows,dense us,sparse us,ratio,dense MB,sparse MB,dense GB/s,sparse GB/s,dense share,sparse share\n");
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        make_layers(&s, files[f].type, files[f].down);
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            report(&s, files[f].name, rows[r]);
        free_layers(&s);
    }
    pl_backend_free(s.b);
    return 0;
}
