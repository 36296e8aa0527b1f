/* How fast the matrix product is, for each type and instruction set of this machine.
 *
 *     bench_matmul [THREADS [TYPE [ISA [ROWS [rounded]]]]]
 *
 * Shapes are those of Gemma 3n: an FFN of 16384 over 2048 each way, and the head. Weights lie in as many copies as
 * it takes to leave no cache a chance. Prints CSV: the best time, the rate at which weights are read and its
 * share of what the same threads read from memory in one and in four streams each, and operations, two for
 * each multiplication with addition. TYPE and ISA are parts of names, ROWS the only
 * number of rows, 0: all; rounded: where kernels can, operands are rounded. */
#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/cpu/matmul.h"
#include "host/cpu/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define POOL_BYTES ((size_t)768 << 20)
#define MAX_ROWS 512
#define MAX_COLS 16384
#define HEAD_ROWS 65600 /* a quarter of it: the rate is the same */

static void *take(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "bench_matmul: %zu bytes are not to be had\n", bytes);
        exit(1);
    }
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

/* ---- what memory gives ---- */

typedef struct reading {
    const uint64_t *words;
    uint64_t *sums;
    int64_t part_words;
    int streams;
} reading;

/* Part `i` of the buffer, as `streams` streams side by side. */
static void read_parts(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    reading *r = ctx;
    int64_t length = r->part_words / r->streams;
    for (int64_t i = begin; i < end; i++) {
        uint64_t sum[8] = {0};
        for (int64_t k = 0; k < length; k += 8)
            for (int s = 0; s < r->streams; s++)
                for (int j = 0; j < 8; j++)
                    sum[j] += r->words[i * r->part_words + s * length + k + j];
        for (int j = 0; j < 8; j++)
            r->sums[i] += sum[j];
    }
}

static double read_rate(pl_pool *pool, const void *buffer, int streams)
{
    enum { PARTS = 768 };
    static uint64_t sums[PARTS];
    reading r = {buffer, sums, (int64_t)(POOL_BYTES / PARTS / sizeof(uint64_t)), streams};
    double best = 0;
    for (int pass = 0; pass < 5; pass++) {
        double start = pl_clock_seconds();
        pl_pool_for(pool, PARTS, 1, read_parts, &r);
        double rate = (double)POOL_BYTES / (pl_clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* ---- products ---- */

typedef struct bench {
    pl_pool *pool;
    uint8_t *buffer; /* POOL_BYTES of copies of the packed weights */
    pl_act x;
    float *out;
    double read_one, read_four;
    const char *type, *isa;
    int rows; /* 0: all of the list */
} bench;

/* One matrix of random blocks, packed to the start of the buffer and copied through it. */
static pl_weight make_weight(bench *b, pl_dtype type, int64_t rows, int64_t cols, int64_t *copies)
{
    pl_tensor t = {"random", NULL, rows, cols, type};
    size_t bytes = (size_t)rows * pl_tensor_row_bytes(&t), packed = pl_pack_bytes(&t);
    uint8_t *data = take(bytes);
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t v = pl_rng_next(&rng) & 0x3fff3fff3fff3fffu; /* no infinities, and no subnormal plain values */
        v |= packed ? 0 : 0x3c003c003c003c00u;
        memcpy(data + i, &v, sizeof v);
    }
    for (size_t i = 0; i < bytes && type == PL_MXFP4; i += sizeof(pl_block_mxfp4))
        data[i] = 120;
    t.data = data;
    pl_weight w = {0};
    pl_error err;
    if (pl_pack(b->pool, &t, b->buffer, &w, &err) != PL_OK) {
        fprintf(stderr, "bench_matmul: %s\n", err.message);
        exit(1);
    }
    if (!packed)
        memcpy(b->buffer, data, bytes);
    munmap(data, bytes);
    *copies = (int64_t)(POOL_BYTES / w.bytes);
    for (int64_t i = 1; i < *copies; i++)
        memcpy(b->buffer + (size_t)i * w.bytes, b->buffer, w.bytes);
    return w;
}

static void bench_rows(bench *b, const pl_matmul_kernels *k, pl_weight w, int64_t copies, int n)
{
    double best = 1e9, total = 0;
    b->x.cols = b->x.ld = w.cols;
    b->x.blocks = w.cols / PL_ACT_BLOCK;
    for (int i = 0; i < 3 || (total < 0.6 && i < 60); i++) {
        w.data = b->buffer + (size_t)(i % copies) * w.bytes;
        pl_matmul job = {.w = &w, .x = &b->x, .out = b->out, .out_ld = w.rows, .n_rows = n};
        double start = pl_clock_seconds();
        if (w.packed)
            k->quantize(b->pool, &b->x, n);
        k->matmul(b->pool, &job, 1);
        double s = pl_clock_seconds() - start;
        best = s < best ? s : best;
        total += s;
    }
    double rate = (double)w.bytes / best;
    printf("%s,%s,%lldx%lld,%d,%.1f,%.2f,%.2f,%.2f,%.1f\n", k->name, pl_dtype_describe((int)w.type)->name,
           (long long)w.rows, (long long)w.cols, n, best * 1e6, rate * 1e-9, rate / b->read_one, rate / b->read_four,
           2.0 * (double)w.rows * (double)w.cols * n / best * 1e-9);
    fflush(stdout);
}

static void bench_shape(bench *b, pl_dtype type, int64_t rows, int64_t cols)
{
    static const unsigned levels[] = {0, PL_CPU_AVX2, PL_CPU_AVX2 | PL_CPU_AVX_VNNI,
                                      PL_CPU_ALL & ~(unsigned)PL_CPU_AMX_BF16, PL_CPU_ALL};
    static const int n_rows[] = {1, 2, 3, 4, 5, 6, 8, 12, 16, 64, 512};
    int64_t copies;
    pl_weight w = make_weight(b, type, rows, cols, &copies);
    const pl_matmul_kernels *last = NULL;
    read_rate(b->pool, b->buffer, 1); /* no copy is younger than others in a cache */
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        const pl_matmul_kernels *k = pl_matmul_select(pl_cpu_features(levels[l]));
        if (k == last || !strstr(k->name, b->isa))
            continue;
        last = k;
        for (size_t i = 0; i < sizeof n_rows / sizeof n_rows[0]; i++)
            if ((rows < HEAD_ROWS || n_rows[i] < 16) && (b->rows == 0 || b->rows == n_rows[i]))
                bench_rows(b, k, w, copies, n_rows[i]);
    }
}

int main(int argc, char **argv)
{
    static const pl_dtype types[] = {PL_Q4_0, PL_Q8_0,   PL_Q2_K,   PL_Q3_K,  PL_Q4_K, PL_Q5_K,
                                     PL_Q6_K, PL_Q4_1,   PL_Q5_0,   PL_Q5_1,  PL_F16,  PL_BF16,
                                     PL_F32,  PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};
    bench b = {.type = argc > 2 ? argv[2] : "",
               .isa = argc > 3 ? argv[3] : "",
               .rows = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 0};
    pl_error err;
    if (pl_pool_create(argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1, NULL, &b.pool, &err) != PL_OK) {
        fprintf(stderr, "bench_matmul: %s\n", err.message);
        return 1;
    }
    b.buffer = take(POOL_BYTES);
    memset(b.buffer, 1, POOL_BYTES);
    float *x = take((size_t)MAX_ROWS * MAX_COLS * sizeof *x);
    for (int64_t i = 0; i < (int64_t)MAX_ROWS * MAX_COLS; i++)
        x[i] = (float)(i % 977) - 488;
    size_t blocks = (size_t)MAX_ROWS * MAX_COLS / PL_ACT_BLOCK;
    b.x = (pl_act){.f32 = x,
                   .hi_lo = take(blocks * 2 * PL_ACT_BLOCK),
                   .scale = take(blocks * sizeof(float)),
                   .sum = take(blocks * 2 * sizeof(int32_t)),
                   .wide = take(pl_act_wide_bytes(MAX_ROWS, MAX_COLS / PL_ACT_BLOCK))};
    b.x.rounded = argc > 5 && strcmp(argv[5], "rounded") == 0;
    b.out = take((size_t)MAX_ROWS * HEAD_ROWS * sizeof *b.out);
    b.read_one = read_rate(b.pool, b.buffer, 1);
    b.read_four = read_rate(b.pool, b.buffer, 4);
    printf("# memory: %.1f GB/s in one stream a thread, %.1f in four\n", b.read_one * 1e-9, b.read_four * 1e-9);
    printf("kernels,type,shape,rows,us,GB/s,of one stream,of four,GOP/s\n");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (!strstr(pl_dtype_describe((int)types[i])->name, b.type))
            continue;
        bench_shape(&b, types[i], 16384, 2048);
        bench_shape(&b, types[i], 2048, 16384);
        if (types[i] == PL_Q6_K || types[i] == PL_Q8_0)
            bench_shape(&b, types[i], HEAD_ROWS, 2048);
    }
    pl_pool_free(b.pool);
    return 0;
}
