/* How fast the quantisers work on one core, for each instruction set of this machine.
 *
 *     bench_encode [TYPE [ISA]]
 *
 * Prints CSV: the median of values a second, with weights and without, the bytes that are read and written for them,
 * their rate and its share of what one thread reads from memory. TYPE and ISA are parts of names. */
#include "bench/median.h"
#include "host/base/bandwidth.h"
#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "quant/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUES (1 << 23)
#define PIECE (1 << 20) /* at a time, as far as time allows */
#define MAX_SECONDS 0.3

typedef struct bench {
    const pl_encoder *encoder;
    double read_bytes_per_s;
    float *x, *weight;
    unsigned char *blocks;
} bench;

static double values_per_second(bench *b, pl_dtype type, const float *weight)
{
    double rate[VALUES / PIECE], total = 0;
    size_t n = 0;
    for (; n < VALUES / PIECE && total < MAX_SECONDS; n++) {
        size_t at = n * PIECE;
        double start = pl_clock_seconds();
        b->encoder->encode(type, b->x + at, weight ? weight + at : NULL, b->blocks + 4 * at, PIECE);
        double s = pl_clock_seconds() - start;
        rate[n] = PIECE / s;
        total += s;
    }
    return pl_median(rate, n);
}

static void report(bench *b, pl_dtype type, const float *weight)
{
    double rate = values_per_second(b, type, weight);
    double bytes = (weight ? 8.0 : 4.0) + (double)pl_dtype_bytes(type, PIECE) / PIECE;
    printf("%s,%s,%s,%.1f,%.3f,%.2f,%.2f\n", pl_dtype_describe((int)type)->name, b->encoder->name,
           weight ? "yes" : "no", 1e-6 * rate, bytes, 1e-9 * rate * bytes, rate * bytes / b->read_bytes_per_s);
    fflush(stdout);
}

static void bench_types(bench *b, const char *only)
{
    for (int type = 0; type <= PL_NVFP4; type++) {
        const pl_dtype_info *info = pl_dtype_describe(type);
        if (info && strstr(info->name, only)) {
            report(b, (pl_dtype)type, NULL);
            if (info->block_elems > 1) /* others have nothing to choose */
                report(b, (pl_dtype)type, b->weight);
        }
    }
}

static void fill(bench *b)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (int i = 0; i < VALUES; i++) {
        double sum = pl_rng_uniform(&rng) + pl_rng_uniform(&rng) + pl_rng_uniform(&rng) + pl_rng_uniform(&rng);
        b->x[i] = (float)(0.03 * (sum - 2));
        b->weight[i] = (float)pl_rng_uniform(&rng);
    }
    memset(b->blocks, 1, VALUES * sizeof(float)); /* so that no page is new */
}

int main(int argc, char **argv)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    const char *only = argc > 1 ? argv[1] : "", *isa = argc > 2 ? argv[2] : "", *last = "";
    pl_error err;
    bench b = {.x = malloc(VALUES * sizeof(float)), .weight = malloc(VALUES * sizeof(float))};
    b.blocks = malloc((size_t)VALUES * 4); /* as large as the values, the largest form */
    int failed = !b.x || !b.weight || !b.blocks;
    if (failed)
        fprintf(stderr, "bench_encode: out of memory\n");
    else if ((failed = pl_bandwidth_read(1, true, &b.read_bytes_per_s, &err) != PL_OK))
        fprintf(stderr, "bench_encode: %s\n", err.message);
    if (!failed) {
        fill(&b);
        printf("type,isa,weights,Mvalues/s,bytes a value,GB/s,share\n");
    }
    for (size_t i = 0; !failed && i < sizeof levels / sizeof *levels; i++) {
        b.encoder = pl_encoder_select(pl_cpu_features(levels[i]));
        if (strcmp(b.encoder->name, last) != 0 && strstr(b.encoder->name, isa))
            bench_types(&b, only);
        last = b.encoder->name;
    }
    free(b.x);
    free(b.weight);
    free(b.blocks);
    return failed;
}
