#include "host/cpu/kv_rows.h"
#include "host/base/isa.h"
#include "host/base/vec.h"
#include "host/cpu/prefetch.h"
#include "quant/blocks.h"

#include <math.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define MOST 127 /* of the codes */

/* ---- in ------------------------------------------------------------------------------------------------ */

/* NaN where some value is not finite. */
static float largest(const float *x, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++) {
        float size = fabsf(x[i]);
        most = size <= most ? most : size;
        if (!(size < INFINITY))
            return NAN;
    }
    return most;
}

/* The least f16 from x on; infinity and NaN stay. */
static uint16_t f16_from(float x)
{
    uint16_t h = pl_f32_to_f16(x);
    return pl_f16_to_f32(h) < x ? (uint16_t)(h + 1) : h;
}

static void put_group(int8_t *code, uint16_t *scale, const float *x, int n)
{
    uint16_t bits = f16_from(largest(x, n) / MOST);
    float step = pl_f16_to_f32(bits), inverse = step > 0 ? 1 / step : 0;
    if (!(step < INFINITY)) {
        bits = 0x7e00;
        inverse = 0;
    }
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    for (int i = 0; i < n; i++)
        code[i] = inverse > 0 ? (int8_t)(int)((x[i] * inverse + magic) - magic) : 0;
    *scale = bits;
}

static void put_q8(char *page, int row, const float *x, int dim)
{
    int8_t *code = (int8_t *)page + (int64_t)row * dim;
    uint16_t *scale = (uint16_t *)(void *)(page + (int64_t)PL_KV_PAGE * dim) + (int64_t)row * pl_kv_groups(dim);
    for (int i = 0; i < dim; i += PL_KV_GROUP)
        put_group(code + i, scale++, x + i, dim - i < PL_KV_GROUP ? dim - i : PL_KV_GROUP);
}

static void put_f16(uint16_t *to, const float *x, int dim)
{
    int i = 0;
#if defined(__AVX2__)
    for (; i + 8 <= dim; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(to + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < dim; i++)
        to[i] = pl_f32_to_f16(x[i]);
}

void PL_ISA_NAME(pl_kv_put)(pl_cache_type type, void *page, int row, const float *x, int dim)
{
    switch (type) {
    case PL_CACHE_F32: memcpy((float *)page + (int64_t)row * dim, x, (size_t)dim * sizeof *x); break;
    case PL_CACHE_F16: put_f16((uint16_t *)page + (int64_t)row * dim, x, dim); break;
    case PL_CACHE_Q8_0: put_q8(page, row, x, dim); break;
    }
}

/* ---- out ----------------------------------------------------------------------------------------------- */

static void get_f16(const uint16_t *from, int64_t n, float *out)
{
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(from + i))));
#elif defined(__AVX2__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + i))));
#endif
    for (; i < n; i++)
        out[i] = pl_f16_to_f32(from[i]);
}

/* A whole group. */
static inline __attribute__((always_inline)) void get_group(const int8_t *code, float scale, float *out)
{
#if defined(__AVX512F__)
    const __m512 s = _mm512_set1_ps(scale);
    for (int i = 0; i < PL_KV_GROUP; i += 16) {
        __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(code + i)));
        _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_cvtepi32_ps(q), s));
    }
#elif defined(__AVX2__)
    const __m256 s = _mm256_set1_ps(scale);
    for (int i = 0; i < PL_KV_GROUP; i += 8) {
        __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(code + i)));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_cvtepi32_ps(q), s));
    }
#else
    for (int i = 0; i < PL_KV_GROUP; i++)
        out[i] = (float)code[i] * scale;
#endif
}

#define SCALES 8 /* converted at once */

static inline __attribute__((always_inline)) void get_scales(const uint16_t *scale, int n, float out[SCALES])
{
#if defined(__AVX2__)
    if (n == SCALES) {
        _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)scale)));
        return;
    }
#endif
    for (int g = 0; g < n; g++)
        out[g] = pl_f16_to_f32(scale[g]);
}

/* Up to SCALES groups. */
static inline __attribute__((always_inline)) void get_groups(const int8_t *code, const uint16_t *scale, int n,
                                                             float *out)
{
    float scales[SCALES] = {0};
    int whole = n / PL_KV_GROUP;
    get_scales(scale, pl_kv_groups(n), scales);
    for (int g = 0; g < whole; g++)
        get_group(code + g * PL_KV_GROUP, scales[g], out + g * PL_KV_GROUP);
    for (int i = whole * PL_KV_GROUP; i < n; i++)
        out[i] = (float)code[i] * scales[whole];
}

static void get_q8_row(const int8_t *code, const uint16_t *scale, int dim, float *out)
{
    const int most = SCALES * PL_KV_GROUP;
    for (; dim >= most; dim -= most, code += most, scale += SCALES, out += most)
        get_groups(code, scale, most, out);
    if (dim > 0)
        get_groups(code, scale, dim, out);
}

static void get_q8(const char *page, int first, int n, int dim, float *out, const char *next)
{
    int64_t scale_bytes = pl_kv_groups(dim) * (int64_t)sizeof(uint16_t);
    for (int r = first; r < first + n; r++, out += dim) {
        int64_t code = (int64_t)r * dim, scale = (int64_t)PL_KV_PAGE * dim + r * scale_bytes;
        if (next) {
            pl_prefetch(next + code, (size_t)dim);
            pl_prefetch(next + scale, (size_t)scale_bytes);
        }
        get_q8_row((const int8_t *)page + code, (const uint16_t *)(const void *)(page + scale), dim, out);
    }
}

static void get_f16_rows(const uint16_t *page, int first, int n, int dim, float *out, const uint16_t *next)
{
    for (int r = first; r < first + n; r++, out += dim) {
        if (next)
            pl_prefetch(next + (int64_t)r * dim, (size_t)dim * sizeof *next);
        get_f16(page + (int64_t)r * dim, dim, out);
    }
}

void PL_ISA_NAME(pl_kv_get)(pl_cache_type type, const void *page, int first, int n, int dim, float *out,
                            const void *next)
{
    if (type == PL_CACHE_Q8_0)
        get_q8(page, first, n, dim, out, next);
    else
        get_f16_rows(page, first, n, dim, out, next);
}
