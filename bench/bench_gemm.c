/* How fast the towers' matrix product is, for each instruction set of this machine.
 *
 *     bench_gemm [THREADS [TYPE [ISA]]]
 *
 * Shapes are those of Gemma 3n's towers: pixels or time steps by outputs by inputs, and convolutions. Prints CSV: the
 * best time, operations, two for each multiplication with addition, with AMX also those of all its products of parts,
 * their share of what as many threads do on operands in registers, and the rate of packing. TYPE and ISA are parts of
 * names. */
#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/peak.h"
#include "host/base/rng.h"
#include "host/cpu/gemm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    int64_t n, outputs, inputs;
    int size, stride; /* of a convolution's window; 0: a product */
} shape;

static const shape shapes[] = {
    {36864, 512, 1152, 3, 1}, {36864, 128, 64, 0, 0},  {36864, 64, 27, 3, 2},   {9216, 128, 1152, 3, 2},
    {9216, 512, 128, 0, 0},   {9216, 128, 512, 0, 0},  {2304, 1280, 256, 0, 0}, {2304, 640, 1280, 0, 0},
    {2304, 640, 3840, 0, 0},  {2304, 3840, 640, 0, 0}, {576, 2560, 1280, 0, 0}, {576, 1280, 2560, 0, 0},
    {256, 2048, 3840, 0, 0},  {188, 6144, 1536, 0, 0}, {188, 1536, 6144, 0, 0}, {16, 6144, 1536, 0, 0},
    {4, 6144, 1536, 0, 0},    {1, 6144, 1536, 0, 0},
};

static void fail(const char *message)
{
    fprintf(stderr, "bench_gemm: %s\n", message);
    exit(1);
}

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p)
        fail("not enough memory");
    return p;
}

static float *random_values(int64_t n)
{
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)n);
    float *x = take((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(2 * pl_rng_uniform(&rng) - 1);
    return x;
}

typedef struct bench {
    pl_pool *pool;
    const pl_gemm_kernels *kernels;
    pl_dtype type;
    float *scratch;
    double peak; /* of the kernels' instructions */
} bench;

static pl_tensor random_tensor(pl_dtype type, int64_t rows, int64_t cols)
{
    float *values = random_values(rows * cols);
    uint16_t *halves = (uint16_t *)values;
    for (int64_t i = 0; i < rows * cols && type != PL_F32; i++) {
        uint32_t u;
        memcpy(&u, values + i, sizeof u);
        halves[i] = type == PL_F16 ? pl_f32_to_f16(values[i]) : (uint16_t)(u >> 16);
    }
    return (pl_tensor){"random", values, rows, cols, type};
}

static double best_seconds(bench *b, float *out, const pl_gemm_rows *rows, const shape *s, const pl_tower_matrix *w)
{
    double best = 1e9, total = 0;
    for (int i = 0; i < 3 || (total < 0.4 && i < 200); i++) {
        double start = pl_clock_seconds();
        b->kernels->multiply(b->pool, b->scratch, out, s->outputs, rows, s->n, w);
        double seconds = pl_clock_seconds() - start;
        best = seconds < best ? seconds : best;
        total += seconds;
    }
    return best;
}

static void bench_shape(bench *b, const shape *s)
{
    int width = 1;
    while (s->size && (int64_t)width * width < s->n)
        width++;
    int64_t map_side = (int64_t)width * s->stride, channels = s->size ? s->inputs / s->size / s->size : s->inputs;
    pl_map map = {random_values(s->size ? map_side * map_side * channels : s->n * s->inputs), (int)map_side,
                  (int)map_side, channels};
    pl_gemm_rows rows = {.x = map.v, .ld = s->inputs};
    if (s->size)
        rows = (pl_gemm_rows){.map = &map, .window = {s->size, s->stride, 0, 0}, .out_width = width};
    pl_tensor t = random_tensor(b->type, s->outputs, s->inputs);
    float *out = take((size_t)(s->n * s->outputs) * sizeof *out);
    void *packed = take(b->kernels->bytes(t.rows, t.cols, t.type));
    pl_tower_matrix w;
    double start = pl_clock_seconds();
    b->kernels->pack(b->pool, &t, packed, &w);
    double pack = pl_clock_seconds() - start, seconds = best_seconds(b, out, &rows, s, &w);
    double ops = 2.0 * (double)s->n * (double)s->outputs * (double)s->inputs;
    double parts = strcmp(b->kernels->name, "amx-bf16") != 0 ? 1 : b->type == PL_BF16 ? 2 : b->type == PL_F16 ? 3 : 5;
    printf("%s,%s,%lldx%lldx%lld,%s,%.1f,%.1f,%.1f,%.2f,%.1f\n", b->kernels->name,
           pl_dtype_describe((int)b->type)->name, (long long)s->n, (long long)s->outputs, (long long)s->inputs,
           s->size ? "windows" : "rows", seconds * 1e6, ops / seconds * 1e-9, parts * ops / seconds * 1e-9,
           b->peak > 0 ? parts * ops / seconds / b->peak : 0, (double)w.bytes / pack * 1e-9);
    fflush(stdout);
    free(map.v);
    free((void *)(uintptr_t)t.data);
    free(out);
    free(packed);
}

typedef struct level {
    unsigned kernels;
    unsigned integers; /* the instructions on 8-bit integers of the same width; 0: there are none */
    double factor;     /* of their operations in a cycle to the kernels' */
} level;

/* 0: not known. */
static double measure_peak(const level *l, int threads)
{
    pl_peak peak;
    pl_error err;
    if (!l->integers || pl_peak_measure(threads, true, l->integers, &peak, &err) != PL_OK)
        return 0;
    return peak.ops_per_s / l->factor;
}

int main(int argc, char **argv)
{
    static const level levels[] = {
        {PL_CPU_ALL, PL_CPU_ALL, 2},
        {PL_CPU_ALL & ~(unsigned)PL_CPU_AMX_BF16, PL_CPU_AVX2 | PL_CPU_AVX512 | PL_CPU_AVX512_VNNI, 4},
        {PL_CPU_AVX2, PL_CPU_AVX2 | PL_CPU_AVX_VNNI, 4},
        {PL_CPU_NONE, PL_CPU_NONE, 1},
    };
    static const pl_dtype types[] = {PL_F32, PL_F16, PL_BF16};
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    const char *type = argc > 2 ? argv[2] : "", *isa = argc > 3 ? argv[3] : "";
    bench b = {.kernels = NULL};
    pl_error err;
    if (pl_pool_create(threads, NULL, &b.pool, &err) != PL_OK)
        fail(err.message);
    b.scratch = take((size_t)threads * PL_GEMM_SCRATCH_FLOATS * sizeof *b.scratch);
    printf("kernels,type,shape,from,us,GFLOP/s,of parts,of peak,pack GB/s\n");
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        const pl_gemm_kernels *k = pl_gemm_select(pl_cpu_features(levels[l].kernels));
        if (k == b.kernels || !strstr(k->name, isa))
            continue;
        b.kernels = k;
        b.peak = measure_peak(&levels[l], threads);
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
            b.type = types[i];
            for (size_t j = 0; j < sizeof shapes / sizeof shapes[0]; j++)
                if (strstr(pl_dtype_describe((int)b.type)->name, type))
                    bench_shape(&b, &shapes[j]);
        }
    }
    pl_pool_free(b.pool);
    free(b.scratch);
    return 0;
}
