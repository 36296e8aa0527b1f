#define _GNU_SOURCE
#include "host/base/bandwidth.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "host/base/clock.h"
#include "host/base/topology.h"

#define BLOCK_WORDS (64 * 1024)
#define BLOCKS 1024 /* of half a MiB */
#define STREAMS 4   /* a thread reads side by side: one alone does not use all that memory gives */
#define PASSES 5
#define HUGE_PAGE ((size_t)2 << 20)

typedef struct reading {
    uint64_t *words; /* [BLOCKS][BLOCK_WORDS] */
    uint64_t *sums;  /* [BLOCKS]: makes the reading count */
} reading;

/* Several streams, and sums so that no addition waits for the one before. */
static void read_blocks(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    reading *r = ctx;
    const size_t part = BLOCK_WORDS / STREAMS;
    for (int64_t block = begin; block < end; block++) {
        const uint64_t *w = r->words + block * BLOCK_WORDS;
        uint64_t sum[STREAMS][8] = {{0}};
        for (size_t i = 0; i < part; i += 8)
            for (size_t s = 0; s < STREAMS; s++)
                for (size_t j = 0; j < 8; j++)
                    sum[s][j] += w[s * part + i + j];
        for (size_t j = 0; j < 8; j++)
            r->sums[block] += sum[0][j] + sum[1][j] + sum[2][j] + sum[3][j];
    }
}

static void fill_blocks(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    reading *r = ctx;
    memset(r->words + begin * BLOCK_WORDS, 1, (size_t)(end - begin) * BLOCK_WORDS * sizeof *r->words);
}

pl_status pl_bandwidth_read(int n_threads, bool no_pin, double *bytes_per_s, pl_error *err)
{
    pl_pool *pool;
    const size_t bytes = (size_t)BLOCKS * BLOCK_WORDS * sizeof(uint64_t);
    PL_TRY(pl_topology_pool(n_threads, !no_pin, &pool, err));
    reading r = {.words = aligned_alloc(HUGE_PAGE, bytes), .sums = calloc(BLOCKS, sizeof *r.sums)};
    pl_status status = r.words && r.sums ? PL_OK : pl_fail_memory(err, bytes, "measuring memory bandwidth");
    if (status == PL_OK)
        madvise(r.words, bytes, MADV_HUGEPAGE); /* as the engine keeps its weights */
    double best = 0;
    if (status == PL_OK)
        pl_pool_for(pool, BLOCKS, 1, fill_blocks, &r);
    for (int pass = 0; pass < PASSES && status == PL_OK; pass++) {
        double start = pl_clock_seconds();
        pl_pool_for(pool, BLOCKS, 1, read_blocks, &r);
        double rate = (double)bytes / (pl_clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    free(r.words);
    free(r.sums);
    pl_pool_free(pool);
    if (status == PL_OK)
        *bytes_per_s = best;
    return status;
}
