/* Attention's inner loops: tiles of query heads by keys whose sums stay in registers.
 *
 * A tile reads tile_q + tile_k vectors for tile_q * tile_k products, so that the loads keep up. Vectors have the
 * instruction set's own width: compilers keep wider ones on the stack. */
#include "host/cpu/attention_fused.h"
#include "host/base/isa.h"
#include "host/base/vec.h"
#include "host/cpu/prefetch.h"

#if defined(__AVX2__)
#include "host/cpu/in_order.h"

#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#define TILE_Q 4
#define TILE_K 4
#define STRIP 4
#elif defined(__AVX2__)
#define WIDTH 8
#define TILE_Q 4
#define TILE_K 2
#define STRIP 2
#else
#define WIDTH 4
#define TILE_Q 1
#define TILE_K 2
#define STRIP 2
#endif
#define PIECES (PL_LANES / WIDTH)

typedef float piece __attribute__((vector_size(4 * WIDTH)));

static inline __attribute__((always_inline)) piece load(const float *p)
{
    piece v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) void store(float *p, piece v)
{
    memcpy(p, &v, sizeof v);
}

/* Not {0} + x, which is an addition: -0 has to become 0. */
static inline __attribute__((always_inline)) piece fill(float x)
{
#if WIDTH == 16
    return (piece)_mm512_set1_ps(x);
#elif WIDTH == 8
    return (piece)_mm256_set1_ps(x);
#else
    return (piece){x, x, x, x};
#endif
}

/* a * b + c, in one rounding where there is an instruction for it. */
static inline __attribute__((always_inline)) piece multiply_add(piece a, piece b, piece c)
{
#if WIDTH == 16
    return (piece)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif WIDTH == 8
    return (piece)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* ---- scores -------------------------------------------------------------------------------------------- */

/* Sums of TILE_Q query heads by TILE_K keys. */
typedef struct tile {
    piece sum[TILE_Q][TILE_K][PIECES];
} tile;

/* The same tree as vec_sum(). */
static inline __attribute__((always_inline)) float lanes_sum(const piece s[PIECES])
{
    typedef float four __attribute__((vector_size(16)));
#if WIDTH == 16
    typedef float eight __attribute__((vector_size(32)));
    eight e = __builtin_shufflevector(s[0], s[0], 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(s[0], s[0], 8, 9, 10, 11, 12, 13, 14, 15);
    four f = __builtin_shufflevector(e, e, 0, 1, 2, 3) + __builtin_shufflevector(e, e, 4, 5, 6, 7);
#elif WIDTH == 8
    piece e = s[0] + s[1];
    four f = __builtin_shufflevector(e, e, 0, 1, 2, 3) + __builtin_shufflevector(e, e, 4, 5, 6, 7);
#else
    four f = (s[0] + s[2]) + (s[1] + s[3]);
#endif
    f += __builtin_shufflevector(f, f, 2, 3, 0, 1);
    return f[0] + f[1];
}

/* One step of all sums of a tile, sixteen values of each row of q and of k. */
static inline __attribute__((always_inline)) void tile_step(tile *to, const float *const *q, const float *const *k,
                                                            int i, int tile_q, int tile_k)
{
    for (int p = 0; p < PIECES; p++) {
        piece key[TILE_K];
        for (int t = 0; t < tile_k; t++)
            key[t] = load(k[t] + i + p * WIDTH);
        for (int h = 0; h < tile_q; h++) {
            piece query = load(q[h] + i + p * WIDTH);
            for (int t = 0; t < tile_k; t++)
                to->sum[h][t][p] = multiply_add(query, key[t], to->sum[h][t][p]);
        }
    }
}

/* The last dim % 16 values of one query head and the keys, filled up with zeros. */
static inline __attribute__((always_inline)) void tile_rest(tile *to, const float *q, const float *const *k, int i,
                                                            int rest, int tile_k)
{
    float room[1 + TILE_K][PL_LANES] = {{0}};
    const float *from_q = memcpy(room[0], q + i, (size_t)rest * sizeof(float)), *from_k[TILE_K];
    for (int t = 0; t < tile_k; t++)
        from_k[t] = memcpy(room[1 + t], k[t] + i, (size_t)rest * sizeof(float));
    tile_step(to, &from_q, from_k, 0, 1, tile_k);
}

/* Of the first dim / 16 * 16 values. */
static inline __attribute__((always_inline)) tile tile_of(const float *const *q, const float *const *key, int dim,
                                                          int tile_q, int tile_k)
{
    tile to = {{{{{0}}}}};
    for (int i = 0; i + PL_LANES <= dim; i += PL_LANES)
        tile_step(&to, q, key, i, tile_q, tile_k);
    return to;
}

/* One query head by tile_k keys. */
static inline __attribute__((always_inline)) void score_tile(const float *q, const float *k, int dim, float *score,
                                                             int tile_k)
{
    const float *key[TILE_K];
    for (int t = 0; t < tile_k; t++)
        key[t] = k + (int64_t)t * dim;
    tile of = tile_of(&q, key, dim, 1, tile_k);
    if (dim % PL_LANES)
        tile_rest(&of, q, key, dim / PL_LANES * PL_LANES, dim % PL_LANES, tile_k);
    for (int t = 0; t < tile_k; t++)
        score[t] = lanes_sum(of.sum[0][t]);
}

#if WIDTH == 16

/* The trees of lanes_sum() of a tile, side by side: element h of 128-bit lane t. */
static inline __attribute__((always_inline)) __m512 tile_sums(const float *const *q, const float *k, int64_t stride,
                                                              int dim)
{
    const float *key[TILE_K] = {k, k + stride, k + 2 * stride, k + 3 * stride};
    const tile of = tile_of(q, key, dim, TILE_Q, TILE_K);
    __m512 quarter[TILE_Q];
    for (int h = 0; h < TILE_Q; h++) {
        __m512 a = (__m512)of.sum[h][0][0], b = (__m512)of.sum[h][1][0];
        __m512 c = (__m512)of.sum[h][2][0], d = (__m512)of.sum[h][3][0];
        __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
        __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
        quarter[h] = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    }
    __m512 low = _mm512_add_ps(_mm512_shuffle_ps(quarter[0], quarter[1], 0x44),
                               _mm512_shuffle_ps(quarter[0], quarter[1], 0xee));
    __m512 high = _mm512_add_ps(_mm512_shuffle_ps(quarter[2], quarter[3], 0x44),
                                _mm512_shuffle_ps(quarter[2], quarter[3], 0xee));
    return _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x88), _mm512_shuffle_ps(low, high, 0xdd));
}

#define BLOCK_K 16

/* Sixteen keys in four tiles. A tile takes every fourth, so that four parts of the memory are read at once and each
 * head's sums come out side by side. */
static inline __attribute__((always_inline)) void score_block(const float *const *q, const float *k, int dim,
                                                              float *const *score, int at)
{
    __m512 of[4];
    for (int i = 0; i < 4; i++)
        of[i] = tile_sums(q, k + i * dim, 4 * dim, dim);
    __m512 ab_low = _mm512_unpacklo_ps(of[0], of[1]), ab_high = _mm512_unpackhi_ps(of[0], of[1]);
    __m512 cd_low = _mm512_unpacklo_ps(of[2], of[3]), cd_high = _mm512_unpackhi_ps(of[2], of[3]);
    _mm512_storeu_ps(score[0] + at, _mm512_shuffle_ps(ab_low, cd_low, 0x44));
    _mm512_storeu_ps(score[1] + at, _mm512_shuffle_ps(ab_low, cd_low, 0xee));
    _mm512_storeu_ps(score[2] + at, _mm512_shuffle_ps(ab_high, cd_high, 0x44));
    _mm512_storeu_ps(score[3] + at, _mm512_shuffle_ps(ab_high, cd_high, 0xee));
}

#elif WIDTH == 8

#define BLOCK_K TILE_K

/* Sums of piece p alone: of both, they do not fit the registers. */
static inline __attribute__((always_inline)) void add_piece(const float *const *q, const float *k, int dim, int p,
                                                            __m256 sum[TILE_Q][TILE_K])
{
    for (int h = 0; h < TILE_Q; h++)
        for (int t = 0; t < TILE_K; t++)
            sum[h][t] = _mm256_setzero_ps();
    for (int i = p * WIDTH; i < dim; i += PL_LANES) {
        __m256 key[TILE_K];
        for (int t = 0; t < TILE_K; t++)
            key[t] = pl_in_register(_mm256_loadu_ps(k + t * dim + i));
        for (int h = 0; h < TILE_Q; h++) {
            __m256 query = pl_in_register(_mm256_loadu_ps(q[h] + i));
            for (int t = 0; t < TILE_K; t++)
                sum[h][t] = _mm256_fmadd_ps(query, key[t], sum[h][t]);
        }
    }
}

/* The trees of lanes_sum(), of the first key in the lower half. */
static inline __attribute__((always_inline)) void score_block(const float *const *q, const float *k, int dim,
                                                              float *const *score, int at)
{
    __m256 first[TILE_Q][TILE_K], second[TILE_Q][TILE_K], half[TILE_Q];
    add_piece(q, k, dim, 0, first);
    add_piece(q, k, dim, 1, second);
    for (int h = 0; h < TILE_Q; h++) {
        __m256 a = _mm256_add_ps(first[h][0], second[h][0]), b = _mm256_add_ps(first[h][1], second[h][1]);
        half[h] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    __m256 low = _mm256_add_ps(_mm256_shuffle_ps(half[0], half[1], 0x44), _mm256_shuffle_ps(half[0], half[1], 0xee));
    __m256 high = _mm256_add_ps(_mm256_shuffle_ps(half[2], half[3], 0x44), _mm256_shuffle_ps(half[2], half[3], 0xee));
    __m256 sums = _mm256_add_ps(_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd));
    __m128 key_0 = _mm256_castps256_ps128(sums), key_1 = _mm256_extractf128_ps(sums, 1);
    __m128 of_01 = _mm_unpacklo_ps(key_0, key_1), of_23 = _mm_unpackhi_ps(key_0, key_1);
    _mm_storel_pi((__m64 *)(void *)(score[0] + at), of_01);
    _mm_storeh_pi((__m64 *)(void *)(score[1] + at), of_01);
    _mm_storel_pi((__m64 *)(void *)(score[2] + at), of_23);
    _mm_storeh_pi((__m64 *)(void *)(score[3] + at), of_23);
}

#else

#define BLOCK_K TILE_K

static void score_block(const float *const *q, const float *k, int dim, float *const *score, int at)
{
    score_tile(q[0], k, dim, score[0] + at, TILE_K);
}

#endif

/* Keys stay in the first-level cache, the queries of many rows do not. What will be wanted soon is asked for a piece at a
 * time: the products wait for memory, too. */
void PL_ISA_NAME(pl_attention_scores)(const float *const *q, int n_q, const float *k, int n_k, int dim,
                                      float *const *score, const float *soon)
{
    for (int h = 0, n = TILE_Q; h < n_q; h += n) {
        int t = 0;
        if (h + n > n_q)
            n = 1;
        for (; n == TILE_Q && dim % PL_LANES == 0 && t + BLOCK_K <= n_k; t += BLOCK_K) {
            if (h == 0 && soon)
                pl_prefetch(soon + (int64_t)t * dim, (size_t)dim * BLOCK_K * sizeof *soon);
            score_block(q + h, k + (int64_t)t * dim, dim, score + h, t);
        }
        for (; t + TILE_K <= n_k; t += TILE_K)
            for (int i = h; i < h + n; i++)
                score_tile(q[i], k + (int64_t)t * dim, dim, score[i] + t, TILE_K);
        for (; t < n_k; t++)
            for (int i = h; i < h + n; i++)
                score_tile(q[i], k + (int64_t)t * dim, dim, score[i] + t, 1);
    }
}

/* ---- values -------------------------------------------------------------------------------------------- */

#define VALUE_Q 4

/* `strip` vectors of the result for tile_q heads. */
static inline __attribute__((always_inline)) void value_tile(const float *const *weight, const float *v, int n_v,
                                                             int dim, float *const *acc, int at, int tile_q, int strip)
{
    piece sum[VALUE_Q][STRIP];
    for (int h = 0; h < tile_q; h++)
        for (int s = 0; s < strip; s++)
            sum[h][s] = load(acc[h] + at + s * WIDTH);
    for (int t = 0; t < n_v; t++) {
        const float *value = v + (int64_t)t * dim + at;
        for (int s = 0; s < strip; s++) {
            piece part = load(value + s * WIDTH);
            for (int h = 0; h < tile_q; h++)
                sum[h][s] = multiply_add(fill(weight[h][t]), part, sum[h][s]);
        }
    }
    for (int h = 0; h < tile_q; h++)
        for (int s = 0; s < strip; s++)
            store(acc[h] + at + s * WIDTH, sum[h][s]);
}

/* Fewer values than a vector has. */
static void value_rest(const float *weight, const float *v, int n_v, int dim, float *acc, int at)
{
    size_t bytes = (size_t)(dim - at) * sizeof(float);
    piece sum = {0}, part = {0};
    memcpy(&sum, acc + at, bytes);
    for (int t = 0; t < n_v; t++) {
        memcpy(&part, v + (int64_t)t * dim + at, bytes);
        sum = multiply_add(fill(weight[t]), part, sum);
    }
    memcpy(acc + at, &sum, bytes);
}

void PL_ISA_NAME(pl_attention_values)(const float *const *weight, int n_q, const float *v, int n_v, int dim,
                                      float *const *acc, const float *soon)
{
    int i = 0;
    for (; i + STRIP * WIDTH <= dim; i += STRIP * WIDTH) {
        int h = 0;
        if (soon)
            pl_prefetch(soon + (int64_t)i * n_v, (size_t)n_v * STRIP * WIDTH * sizeof *soon);
        for (; h + VALUE_Q <= n_q; h += VALUE_Q)
            value_tile(weight + h, v, n_v, dim, acc + h, i, VALUE_Q, STRIP);
        for (; h < n_q; h++)
            value_tile(weight + h, v, n_v, dim, acc + h, i, 1, STRIP);
    }
    for (; i + WIDTH <= dim; i += WIDTH)
        for (int h = 0; h < n_q; h++)
            value_tile(weight + h, v, n_v, dim, acc + h, i, 1, 1);
    for (int h = 0; h < n_q && i < dim; h++)
        value_rest(weight[h], v, n_v, dim, acc[h], i);
}
