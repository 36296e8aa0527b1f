#define _GNU_SOURCE
#include "host/base/bandwidth.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/topology.h"

#define BLOCK_BYTES ((size_t)2 << 20)
#define BLOCKS 256
#define PASSES 2 /* for each number of streams */
#define MAX_STREAMS 8

typedef uint64_t words __attribute__((vector_size(64)));

#define BLOCK_WORDS (BLOCK_BYTES / sizeof(words))

typedef uint64_t (*read_fn)(const words *block, int streams);

struct pl_bandwidth {
    pl_pool *pool;
    words *buffer;  /* [BLOCKS][BLOCK_WORDS] */
    uint64_t *sums; /* [BLOCKS]: makes the reading count */
    read_fn read;
    int streams;
};

/* Two sums a stream, so that no addition waits for the one before. */
static inline __attribute__((always_inline)) uint64_t read_streams(const words *block, size_t streams)
{
    words sum[2 * MAX_STREAMS] = {{0}};
    const size_t part = BLOCK_WORDS / streams;
    for (size_t i = 0; i < part; i += 2)
        for (size_t s = 0; s < streams; s++) {
            sum[2 * s] += block[s * part + i];
            sum[2 * s + 1] += block[s * part + i + 1];
        }
    for (size_t i = 1; i < 2 * streams; i++)
        sum[0] += sum[i];
    uint64_t all = 0;
    for (int i = 0; i < 8; i++)
        all += sum[0][i];
    return all;
}

/* Each compiled for its instruction set and number of streams. */
#define READ_BLOCK(isa, target)                                                                                        \
    target static uint64_t read_##isa(const words *block, int streams)                                                 \
    {                                                                                                                  \
        switch (streams) {                                                                                             \
        case 1: return read_streams(block, 1);                                                                         \
        case 2: return read_streams(block, 2);                                                                         \
        case 4: return read_streams(block, 4);                                                                         \
        default: return read_streams(block, MAX_STREAMS);                                                              \
        }                                                                                                              \
    }

READ_BLOCK(base, )
#if defined(__x86_64__)
READ_BLOCK(avx2, __attribute__((target("avx2"))))
READ_BLOCK(avx512, __attribute__((target("avx512f"))))
#endif

static read_fn choose_read(unsigned features)
{
#if defined(__x86_64__)
    if (features & PL_CPU_AVX512)
        return read_avx512;
    if (features & PL_CPU_AVX2)
        return read_avx2;
#endif
    (void)features;
    return read_base;
}

static void read_blocks(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    pl_bandwidth *b = ctx;
    for (int64_t i = begin; i < end; i++)
        b->sums[i] += b->read(b->buffer + (size_t)i * BLOCK_WORDS, b->streams);
}

static void fill_blocks(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    pl_bandwidth *b = ctx;
    memset(b->buffer + (size_t)begin * BLOCK_WORDS, 1, (size_t)(end - begin) * BLOCK_BYTES);
}

pl_status pl_bandwidth_create(int n_threads, bool no_pin, pl_bandwidth **out, pl_error *err)
{
    const size_t bytes = BLOCKS * BLOCK_BYTES;
    pl_bandwidth *b = calloc(1, sizeof *b);
    if (!b)
        return pl_fail_memory(err, sizeof *b, "measuring memory bandwidth");
    pl_status status = PL_OK;
    PL_TRY_GOTO(pl_topology_pool(n_threads, !no_pin, &b->pool, err));
    b->read = choose_read(pl_cpu_features(PL_CPU_ALL));
    b->buffer = aligned_alloc(BLOCK_BYTES, bytes);
    b->sums = calloc(BLOCKS, sizeof *b->sums);
    if (!b->buffer || !b->sums) {
        status = pl_fail_memory(err, bytes, "measuring memory bandwidth");
        goto fail;
    }
    madvise(b->buffer, bytes, MADV_HUGEPAGE); /* as the engine keeps its weights */
    pl_pool_for(b->pool, BLOCKS, 1, fill_blocks, b);
    *out = b;
    return PL_OK;
fail:
    pl_bandwidth_free(b);
    return status;
}

void pl_bandwidth_free(pl_bandwidth *b)
{
    if (!b)
        return;
    free(b->buffer);
    free(b->sums);
    pl_pool_free(b->pool);
    free(b);
}

double pl_bandwidth_measure(pl_bandwidth *b)
{
    double best = 0;
    for (b->streams = 1; b->streams <= MAX_STREAMS; b->streams *= 2)
        for (int pass = 0; pass < PASSES; pass++) {
            double start = pl_clock_seconds();
            pl_pool_for(b->pool, BLOCKS, 1, read_blocks, b);
            double rate = (double)(BLOCKS * BLOCK_BYTES) / (pl_clock_seconds() - start);
            best = rate > best ? rate : best;
        }
    return best;
}

pl_status pl_bandwidth_read(int n_threads, bool no_pin, double *bytes_per_s, pl_error *err)
{
    pl_bandwidth *b;
    PL_TRY(pl_bandwidth_create(n_threads, no_pin, &b, err));
    *bytes_per_s = pl_bandwidth_measure(b);
    pl_bandwidth_free(b);
    return PL_OK;
}
