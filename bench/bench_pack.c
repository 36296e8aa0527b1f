/* How fast weights are repacked at load.
 *
 *     bench_pack [THREADS [TYPE]]
 *
 * Prints CSV: the median of the bytes that are read from a file in memory a second, into memory that has been used before;
 * what is read and written; and the share that this is of what as many threads read from memory. TYPE is a part of a
 * name. */
#include "bench/median.h"
#include "host/base/bandwidth.h"
#include "host/base/clock.h"
#include "host/base/rng.h"
#include "host/cpu/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 16384
#define COLS 8192
#define RUNS 5

typedef struct bench {
    pl_pool *pool;
    double read_bytes_per_s;
    unsigned char *blocks;
    void *panels;
} bench;

static int report(bench *b, pl_dtype type)
{
    pl_tensor t = {"weights", b->blocks, ROWS, COLS, type};
    double rate[RUNS], bytes = (double)ROWS * (double)pl_tensor_row_bytes(&t), all = bytes + (double)pl_pack_bytes(&t);
    for (int i = 0; i < RUNS; i++) {
        pl_weight w;
        pl_error err;
        double start = pl_clock_seconds();
        if (pl_pack(b->pool, &t, b->panels, &w, &err) != PL_OK) {
            fprintf(stderr, "bench_pack: %s\n", err.message);
            return 1;
        }
        rate[i] = bytes / (pl_clock_seconds() - start);
    }
    double median = pl_median(rate, RUNS), moved = median * all / bytes;
    printf("%s,%d,%.2f,%.2f,%.2f\n", pl_dtype_describe((int)type)->name, pl_pool_threads(b->pool), 1e-9 * median,
           1e-9 * moved, moved / b->read_bytes_per_s);
    return 0;
}

/* Bytes that are no f16 which is infinite or not a number. */
static void fill(unsigned char *p, size_t n)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t eight = pl_rng_next(&rng) & 0xbbbbbbbbbbbbbbbb;
        memcpy(p + i, &eight, sizeof eight);
    }
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1, failed = 1;
    const char *only = argc > 2 ? argv[2] : "";
    size_t most = (size_t)ROWS * COLS / 8 * 10; /* ten bits a weight */
    pl_error err = {.message = "out of memory"};
    bench b = {.blocks = malloc(most), .panels = aligned_alloc(64, most)};
    if (b.blocks && b.panels && threads > 0 && pl_bandwidth_read(threads, true, &b.read_bytes_per_s, &err) == PL_OK &&
        pl_pool_create(threads, NULL, &b.pool, &err) == PL_OK) {
        fill(b.blocks, most);
        memset(b.panels, 1, most);
        printf("type,threads,GB/s of the file,GB/s read and written,share of the read bandwidth\n");
        failed = 0;
        for (int type = 0; type <= PL_NVFP4 && !failed; type++) {
            const pl_dtype_info *info = pl_dtype_describe(type);
            if (info && info->block_elems > 1 && strstr(info->name, only))
                failed = report(&b, (pl_dtype)type);
        }
    } else {
        fprintf(stderr, "bench_pack: %s\n", err.message);
    }
    pl_pool_free(b.pool);
    free(b.blocks);
    free(b.panels);
    return failed;
}
