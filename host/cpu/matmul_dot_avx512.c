/* Plain types on AVX-512: a register of 16 lanes for every pair of a weight row and a row of x, so that the
 * result of a pair is the same in every tile. Many rows: 4 of x, which stay in the first-level cache, by 6 of
 * the weights, 24 sums. One row: 8 weight rows, eight streams from memory. */
#include "host/cpu/matmul_tile.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define MAX_W 8
#define MAX_X 4

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

INLINE void dot_type(pl_dtype type, int n_w, int n_x, dot_args a)
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
