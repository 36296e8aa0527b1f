/* Plain types on AVX2: the sixteen lanes of a pair are two registers. Many rows: 2 of x by 3 of the weights, twelve
 * sums; one row: 4 of the weights. */
#include "host/cpu/matmul_tile.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MAX_W 4
#define MAX_X 2

typedef struct dot_args {
    const char *w;
    size_t w_ld;
    const float *x;
    int64_t x_ld, k;
    float *out;
    int64_t out_ld;
} dot_args;

typedef float unaligned_256 __attribute__((vector_size(32), aligned(4), may_alias));

/* Lanes 8 half and up of the 16 weights at p. Left alone, gcc reads f32 once for each product. */
INLINE __m256 load_weights(pl_dtype type, const char *p, int half)
{
    if (type == PL_F32)
        return *(const volatile unaligned_256 *)(const volatile void *)(p + 32 * half);
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * half));
    return type == PL_F16 ? _mm256_cvtph_ps(h) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE float add_lanes(__m256 low, __m256 high)
{
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* One column of 16 for all pairs; w and x: the 16 values of each row. */
INLINE void add_sixteen(pl_dtype type, int n_w, int n_x, const char *const *w, const float *const *x,
                        __m256 sum[MAX_W][MAX_X][2])
{
    for (int half = 0; half < 2; half++) {
        __m256 v[MAX_X];
        for (int i = 0; i < n_x; i++)
            v[i] = _mm256_loadu_ps(x[i] + 8 * half);
#pragma GCC unroll 4
        for (int n = 0; n < n_w; n++) {
            __m256 u = load_weights(type, w[n], half);
            for (int i = 0; i < n_x; i++)
                sum[n][i][half] = _mm256_fmadd_ps(u, v[i], sum[n][i][half]);
        }
    }
}

INLINE void dot_tile(pl_dtype type, int n_w, int n_x, dot_args a)
{
    const int size = type == PL_F32 ? 4 : 2;
    __m256 sum[MAX_W][MAX_X][2];
    const char *w[MAX_W];
    const float *x[MAX_X];
    for (int n = 0; n < n_w; n++)
        for (int i = 0; i < n_x; i++)
            sum[n][i][0] = sum[n][i][1] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 16 <= a.k; k += 16) {
        for (int n = 0; n < n_w; n++)
            w[n] = a.w + (size_t)n * a.w_ld + size * k;
        for (int i = 0; i < n_x; i++)
            x[i] = a.x + i * a.x_ld + k;
        add_sixteen(type, n_w, n_x, w, x, sum);
    }
    if (k < a.k) {
        char last_w[MAX_W][64] = {{0}};
        float last_x[MAX_X][16] = {{0}};
        for (int n = 0; n < n_w; n++)
            w[n] = memcpy(last_w[n], a.w + (size_t)n * a.w_ld + size * k, (size_t)(size * (a.k - k)));
        for (int i = 0; i < n_x; i++)
            x[i] = memcpy(last_x[i], a.x + i * a.x_ld + k, (size_t)(a.k - k) * sizeof(float));
        add_sixteen(type, n_w, n_x, w, x, sum);
    }
    for (int n = 0; n < n_w; n++)
        for (int i = 0; i < n_x; i++)
            a.out[i * a.out_ld + n] = add_lanes(sum[n][i][0], sum[n][i][1]);
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
    for (; n_x >= 2; n_x -= 2, a.x += 2 * a.x_ld, a.out += 2 * a.out_ld)
        dot_outputs(type, 3, 2, n_w, a);
    if (n_x == 1)
        dot_outputs(type, 4, 1, n_w, a);
}

void pl_dot_avx2(pl_dtype type, const char *w, size_t w_ld, int n_w, const float *x, int64_t x_ld, int n_x, int64_t k,
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
