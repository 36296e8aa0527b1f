/* Plain types on AVX-512: a register of 16 lanes for every pair of a weight row and a row of x, so that the
 * result of a pair is the same in every tile. Few rows: 8 weight rows, eight streams from memory. Many: 8 of the
 * weights, as f32 in the first-level cache, by 3 of x, 24 sums; sums of a block of x wait in a local array between
 * chunks of columns. */
#include "host/cpu/matmul_tile.h"

#include <immintrin.h>
#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))
#define MAX_W 8
#define MAX_X 4

#define MANY_X 24 /* rows of x that pay for weights as f32 */
#define TILE_W 8
#define TILE_X 3
#define CHUNK 1024   /* columns */
#define OUT_AHEAD 12 /* rows whose lines of the result are asked for: a store that waits holds up all behind it */
#define BLOCK_X 96   /* rows of x that stay in the second-level cache */

typedef struct dot_args {
    const char *w;
    size_t w_ld;
    const float *x;
    int64_t x_ld, k;
    float *out;
    int64_t out_ld;
} dot_args;

INLINE __m512 load_weights(pl_dtype type, const char *row, int64_t k)
{
    if (type == PL_F32)
        return _mm512_loadu_ps((const float *)(const void *)row + k);
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)(row + 2 * k));
    return type == PL_F16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE __m512 load_last_weights(pl_dtype type, const char *row, int64_t k, __mmask16 mask)
{
    if (type == PL_F32)
        return _mm512_maskz_loadu_ps(mask, (const float *)(const void *)row + k);
    __m256i h = _mm256_maskz_loadu_epi16(mask, row + 2 * k);
    return type == PL_F16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE float add_lanes(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

INLINE void dot_tile(pl_dtype type, int n_w, int n_x, dot_args a)
{
    __m512 sum[MAX_W][MAX_X];
#pragma GCC unroll 8
    for (int n = 0; n < n_w; n++)
        for (int i = 0; i < n_x; i++)
            sum[n][i] = _mm512_setzero_ps();
    int64_t k = 0;
    for (; k + 16 <= a.k; k += 16) {
        __m512 x[MAX_X];
        for (int i = 0; i < n_x; i++)
            x[i] = _mm512_loadu_ps(a.x + i * a.x_ld + k);
#pragma GCC unroll 8
        for (int n = 0; n < n_w; n++) {
            __m512 w = load_weights(type, a.w + (size_t)n * a.w_ld, k);
            if (type == PL_F32 || k % 32 == 0) /* a row may be a page, where the processor's own prefetching ends */
                _mm_prefetch(a.w + (size_t)(n_w + n) * a.w_ld + (type == PL_F32 ? 4 : 2) * k, _MM_HINT_T0);
            for (int i = 0; i < n_x; i++)
                sum[n][i] = _mm512_fmadd_ps(w, x[i], sum[n][i]);
        }
    }
    if (k < a.k) {
        __mmask16 mask = (__mmask16)((1u << (a.k - k)) - 1);
        __m512 x[MAX_X];
        for (int i = 0; i < n_x; i++)
            x[i] = _mm512_maskz_loadu_ps(mask, a.x + i * a.x_ld + k);
#pragma GCC unroll 8
        for (int n = 0; n < n_w; n++) {
            __m512 w = load_last_weights(type, a.w + (size_t)n * a.w_ld, k, mask);
            for (int i = 0; i < n_x; i++)
                sum[n][i] = _mm512_fmadd_ps(w, x[i], sum[n][i]);
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < n_w; n++)
        for (int i = 0; i < n_x; i++)
            a.out[i * a.out_ld + n] = add_lanes(sum[n][i]);
}

INLINE void dot_outputs(pl_dtype type, int step, int n_x, int n_w, dot_args a)
{
    int n = 0;
    for (; n + step <= n_w; n += step, a.w += (size_t)step * a.w_ld, a.out += step)
        dot_tile(type, step, n_x, a);
    for (; n < n_w; n++, a.w += a.w_ld, a.out++)
        dot_tile(type, 1, n_x, a);
}

INLINE void dot_few(pl_dtype type, int n_w, int n_x, dot_args a)
{
    for (; n_x >= 4; n_x -= 4, a.x += 4 * a.x_ld, a.out += 4 * a.out_ld)
        dot_outputs(type, 6, 4, n_w, a);
    switch (n_x) {
    case 3: dot_outputs(type, 6, 3, n_w, a); break;
    case 2: dot_outputs(type, 8, 2, n_w, a); break;
    case 1: dot_outputs(type, 8, 1, n_w, a); break;
    default: break;
    }
}

/* ---- many rows ---- */

typedef struct dot_block {
    float w[CHUNK / 16][TILE_W][16];
    float sum[BLOCK_X][TILE_W][16];
} __attribute__((aligned(64))) dot_block;

/* A chunk of a block: `groups` groups of 16 columns, of which the last one has the lanes of `mask`. */
typedef struct dot_chunk {
    const float *x; /* of the block's first row */
    int64_t x_ld;
    int groups;
    __mmask16 mask;
    bool first, last;
    float *out; /* of the block's first row and the tile's first output */
    int64_t out_ld;
    __mmask8 outputs;
} dot_chunk;

/* n_w rows, then zeros. */
INLINE void expand_weights(pl_dtype type, dot_block *b, const dot_chunk *c, const char *w, size_t w_ld, int n_w,
                           int64_t col)
{
    for (int n = 0; n < TILE_W; n++) {
        const char *row = w + (size_t)(n < n_w ? n : 0) * w_ld;
        for (int g = 0; g < c->groups; g++) {
            __mmask16 mask = n >= n_w ? 0 : g + 1 < c->groups ? 0xffff : c->mask;
            _mm512_store_ps(b->w[g][n], load_last_weights(type, row, col + 16 * g, mask));
        }
    }
}

/* The sums of eight registers' lanes: halves, their halves and so on, of all at once. */
INLINE __m256 add_lanes_of_8(const __m512 v[8])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512 half[4], quarter[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                                _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        quarter[i] = _mm512_add_ps(_mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0x88),
                                   _mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0xdd));
    __m512 pair = _mm512_add_ps(_mm512_shuffle_ps(quarter[0], quarter[1], 0x44),
                                _mm512_shuffle_ps(quarter[0], quarter[1], 0xee));
    return _mm512_castps512_ps256(_mm512_permutexvar_ps(order, _mm512_add_ps(pair, _mm512_movehdup_ps(pair))));
}

INLINE void add_group(__m512 sum[TILE_X][TILE_W], const float (*w)[16], const __m512 *x, int n_x)
{
#pragma GCC unroll 8
    for (int n = 0; n < TILE_W; n++) {
        /* Left alone, gcc reads weights once for each product. */
        __m512 weights = *(const volatile __m512 *)(const volatile void *)w[n];
#pragma GCC unroll 3
        for (int i = 0; i < n_x; i++)
            sum[i][n] = _mm512_fmadd_ps(weights, x[i], sum[i][n]);
    }
}

/* Rows [row, row + n_x) of the block. */
INLINE void dot_rows_of(dot_block *b, const dot_chunk *c, int row, int n_x)
{
    __m512 sum[TILE_X][TILE_W], x[TILE_X];
    const float *from = c->x + row * c->x_ld;
    for (int i = 0; c->last && i < n_x; i++)
        __builtin_prefetch(c->out + (row + OUT_AHEAD + i) * c->out_ld, 1);
#pragma GCC unroll 3
    for (int i = 0; i < n_x; i++)
#pragma GCC unroll 8
        for (int n = 0; n < TILE_W; n++)
            sum[i][n] = c->first ? _mm512_setzero_ps() : _mm512_load_ps(b->sum[row + i][n]);
    int g = 0;
    for (; g < c->groups - 1; g++) {
#pragma GCC unroll 3
        for (int i = 0; i < n_x; i++)
            x[i] = _mm512_loadu_ps(from + i * c->x_ld + 16 * g);
        add_group(sum, b->w[g], x, n_x);
    }
#pragma GCC unroll 3
    for (int i = 0; i < n_x; i++)
        x[i] = _mm512_maskz_loadu_ps(c->mask, from + i * c->x_ld + 16 * g);
    add_group(sum, b->w[g], x, n_x);
#pragma GCC unroll 3
    for (int i = 0; i < n_x; i++) {
        if (c->last)
            _mm256_mask_storeu_ps(c->out + (row + i) * c->out_ld, c->outputs, add_lanes_of_8(sum[i]));
        else
#pragma GCC unroll 8
            for (int n = 0; n < TILE_W; n++)
                _mm512_store_ps(b->sum[row + i][n], sum[i][n]);
    }
}

/* Apart from what comes before and behind it gcc keeps all sums in registers. */
static __attribute__((noinline)) void dot_three_rows(dot_block *b, const dot_chunk *c, int row)
{
    dot_rows_of(b, c, row, TILE_X);
}

/* Up to TILE_W weight rows for up to BLOCK_X rows of x. */
INLINE void dot_weights(pl_dtype type, dot_block *b, int n_w, int n_x, dot_args a)
{
    for (int64_t col = 0; col < a.k; col += CHUNK) {
        int64_t left = a.k - col, n = left < CHUNK ? left : CHUNK;
        dot_chunk c = {.x = a.x + col,
                       .x_ld = a.x_ld,
                       .groups = (int)((n + 15) / 16),
                       .first = col == 0,
                       .last = left <= CHUNK,
                       .out = a.out,
                       .out_ld = a.out_ld,
                       .outputs = (__mmask8)((1 << n_w) - 1)};
        c.mask = n % 16 ? (__mmask16)((1u << n % 16) - 1) : 0xffff;
        expand_weights(type, b, &c, a.w, a.w_ld, n_w, col);
        int row = 0;
        for (; row + TILE_X <= n_x; row += TILE_X)
            dot_three_rows(b, &c, row);
        if (n_x - row == 2)
            dot_rows_of(b, &c, row, 2);
        else if (n_x - row == 1)
            dot_rows_of(b, &c, row, 1);
    }
}

INLINE void dot_many(pl_dtype type, int n_w, int n_x, dot_args a)
{
    dot_block block;
    for (int row = 0; row < n_x; row += BLOCK_X) {
        dot_args of = {a.w, a.w_ld, a.x + row * a.x_ld, a.x_ld, a.k, a.out + row * a.out_ld, a.out_ld};
        int rows = n_x - row < BLOCK_X ? n_x - row : BLOCK_X;
        for (int n = 0; n < n_w; n += TILE_W, of.w += TILE_W * of.w_ld, of.out += TILE_W)
            dot_weights(type, &block, n_w - n < TILE_W ? n_w - n : TILE_W, rows, of);
    }
}

INLINE void dot_type(pl_dtype type, int n_w, int n_x, dot_args a)
{
    if (n_x < MANY_X || a.k == 0)
        dot_few(type, n_w, n_x, a);
    else
        dot_many(type, n_w, n_x, a);
}

void pl_dot_avx512(pl_dtype type, const char *w, size_t w_ld, int n_w, const float *x, int64_t x_ld, int n_x, int64_t k,
                   float *out, int64_t out_ld)
{
    dot_args a = {w, w_ld, x, x_ld, k, out, out_ld};
    if (type == PL_F32)
        dot_type(PL_F32, n_w, n_x, a);
    else if (type == PL_F16)
        dot_type(PL_F16, n_w, n_x, a);
    else
        dot_type(PL_BF16, n_w, n_x, a);
}
