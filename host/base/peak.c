#include "host/base/peak.h"

#include <stdatomic.h>

#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/topology.h"

#define PASSES 50 /* some 50 ms: threads that began on one processor have parted by then */
#define ITEMS 32  /* a thread and pass */
#define ITEM_ROUNDS 20000

/* Runs `rounds` times through a loop; what it returns depends on all of it. */
typedef int32_t (*spin_fn)(int rounds);

typedef struct instructions {
    unsigned feature; /* 0 ends the table */
    const char *name;
    spin_fn spin;
    double round_ops;
} instructions;

#if defined(__x86_64__)

#include <immintrin.h>

#define SUMS 12     /* side by side: none waits for the one before */
#define AVX2_SUMS 8 /* with their products they fit 16 registers */

/* A product of 16 bits does the work of two of 8, and counts as they do: with vpmaddubsw two take longer. */
__attribute__((target("avx2"))) static int32_t spin_avx2(int rounds)
{
    __m256i sum[AVX2_SUMS], a = _mm256_set1_epi16(3);
    for (int i = 0; i < AVX2_SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
#pragma GCC unroll 4
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < AVX2_SUMS; i++)
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(a, sum[i]));
    for (int i = 1; i < AVX2_SUMS; i++)
        sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    return _mm256_extract_epi32(sum[0], 0);
}

__attribute__((target("avx2,avxvnni"))) static int32_t spin_avxvnni(int rounds)
{
    __m256i sum[SUMS], a = _mm256_set1_epi8(3), w = _mm256_set1_epi8(5);
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm256_dpbusd_avx_epi32(sum[i], a, w);
    for (int i = 1; i < SUMS; i++)
        sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    return _mm256_extract_epi32(sum[0], 0);
}

__attribute__((target("avx512f,avx512vnni"))) static int32_t spin_avx512(int rounds)
{
    __m512i sum[SUMS], a = _mm512_set1_epi32(0x03030303), w = _mm512_set1_epi32(0x05050505);
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm512_dpbusd_epi32(sum[i], a, w);
    for (int i = 1; i < SUMS; i++)
        sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    return _mm512_reduce_add_epi32(sum[0]);
}

#define TILES 8
#define TILE_ROWS 16
#define TILE_ROW_BYTES 64

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Four tiles of sums, each the product of one of two and one of two others. */
__attribute__((target("amx-tile,amx-int8"))) static int32_t spin_amx(int rounds)
{
    volatile tile_config config = {.palette = 1}; /* gcc 12 believes that only its first 8 bytes are read */
    int32_t out[TILE_ROWS][TILE_ROW_BYTES / 4];
    for (int i = 0; i < TILES; i++) {
        config.row_bytes[i] = TILE_ROW_BYTES;
        config.rows[i] = TILE_ROWS;
    }
    _tile_loadconfig((const void *)(uintptr_t)&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(3, out, TILE_ROW_BYTES);
    _tile_release();
    return out[0][0];
}

static const instructions known[] = {
    {PL_CPU_AMX_INT8, "amx", spin_amx, 4.0 * TILE_ROWS *TILE_ROWS *TILE_ROW_BYTES * 2},
    {PL_CPU_AVX512_VNNI, "avx512-vnni", spin_avx512, SUMS * 64 * 2},
    {PL_CPU_AVX_VNNI, "avx-vnni", spin_avxvnni, SUMS * 32 * 2},
    {PL_CPU_AVX2, "avx2", spin_avx2, AVX2_SUMS * 32 * 2},
    {0},
};

#else

static const instructions known[] = {{0}};

#endif

static bool usable(const instructions *i, unsigned features)
{
    pl_error refused;
    return features & i->feature && (i->feature != PL_CPU_AMX_INT8 || pl_cpu_enable_amx(&refused) == PL_OK);
}

static const instructions *choose(unsigned features)
{
    const instructions *i = known;
    while (i->feature && !usable(i, features))
        i++;
    return i;
}

typedef struct spinning {
    spin_fn spin;
    _Atomic int32_t last; /* makes the results count */
} spinning;

static void spin_items(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    spinning *s = ctx;
    for (int64_t i = begin; i < end; i++)
        atomic_store_explicit(&s->last, s->spin(ITEM_ROUNDS), memory_order_relaxed);
}

pl_status pl_peak_measure(int n_threads, bool no_pin, unsigned features, pl_peak *out, pl_error *err)
{
    pl_pool *pool;
    const instructions *best = choose(pl_cpu_features(features));
    *out = (pl_peak){.name = best->feature ? best->name : "none"};
    if (!best->feature)
        return PL_OK;
    PL_TRY(pl_topology_pool(n_threads, !no_pin, &pool, err));
    spinning s = {.spin = best->spin};
    int64_t items = (int64_t)ITEMS * pl_pool_threads(pool);
    for (int pass = 0; pass < PASSES; pass++) {
        double start = pl_clock_seconds();
        pl_pool_for(pool, items, 1, spin_items, &s);
        double rate = (double)items * ITEM_ROUNDS * best->round_ops / (pl_clock_seconds() - start);
        out->ops_per_s = rate > out->ops_per_s ? rate : out->ops_per_s;
    }
    pl_pool_free(pool);
    return PL_OK;
}
