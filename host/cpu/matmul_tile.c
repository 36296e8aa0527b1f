/* The matrix product in plain C: the truth that the faster kernels are tested against. */
#include "host/cpu/matmul_tile.h"

#include <math.h>
#include <string.h>

static void unpack_row(pl_dtype type, const uint8_t *span, int group, int row, pl_span_codes *out)
{
    int halves = pl_has_halves(pl_panel_describe(type).kind);
    pl_group_values v;
    pl_panel_get(type, span, group, row, &v);
    for (int c = 0; c < 8; c++)
        memcpy(out->code[group] + c * PL_CHUNK_BYTES + 4 * row, v.code + 4 * c, 4);
    for (int h = 0; h <= halves; h++) {
        out->d[group * (1 + halves) + h][row] = v.d[h];
        out->m[group * (1 + halves) + h][row] = v.m[h];
    }
}

void pl_unpack_base(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    for (int g = 0; g < groups; g++)
        for (int r = 0; r < PL_PANEL_ROWS; r++)
            unpack_row(type, span, g, r, out);
}

/* start + the exact sum over chunks [begin, end) for panel row n. */
static int32_t code_sum(const uint8_t *code, const int8_t *hi_lo, int begin, int end, int n, int32_t start)
{
    int32_t hi = 0, lo = start;
    for (int c = begin; c < end; c++) {
        for (int t = 0; t < 4; t++) {
            int w = code[c * PL_CHUNK_BYTES + 4 * n + t];
            hi += w * hi_lo[4 * c + t];
            lo += w * hi_lo[PL_GROUP + 4 * c + t];
        }
    }
    return 128 * hi + lo;
}

/* Group g, or half-group g where halves have their own scales. */
static float add_part(pl_panel_kind kind, const pl_span_codes *w, int g, int n, const int8_t *hi_lo, float scale,
                      const pl_row_terms *terms, float acc)
{
    int halves = pl_has_halves(kind), group = halves ? g / 2 : g;
    int begin = halves ? 4 * (g & 1) : 0, end = halves ? begin + 4 : 8;
    int32_t start = pl_has_minimum(kind) ? 0 : terms->start[g];
    int32_t s = code_sum(w->code[group], hi_lo, begin, end, n, start);
    acc = fmaf((float)s, w->d[g][n] * scale, acc);
    return pl_has_minimum(kind) ? fmaf(w->m[g][n], terms->shift[g], acc) : acc;
}

static float add_group(pl_panel_kind kind, const pl_span_codes *w, int g, int n, const int8_t *hi_lo, float scale,
                       const pl_row_terms *terms, float acc)
{
    if (!pl_has_halves(kind))
        return add_part(kind, w, g, n, hi_lo, scale, terms, acc);
    acc = add_part(kind, w, 2 * g, n, hi_lo, scale, terms, acc);
    return add_part(kind, w, 2 * g + 1, n, hi_lo, scale, terms, acc);
}

void pl_tile_base(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows, float *acc,
                  int64_t acc_ld)
{
    pl_panel_kind kind = pl_panel_describe(type).kind;
    for (int p = 0; p < n_panels; p++) {
        for (int r = 0; r < rows->n; r++) {
            float *a = acc + (p * acc_ld + r) * PL_PANEL_ROWS;
            for (int g = 0; g < groups; g++) {
                int64_t at = r * rows->ld + g;
                for (int n = 0; n < PL_PANEL_ROWS; n++)
                    a[n] = add_group(kind, w + p, g, n, rows->hi_lo + 2 * PL_GROUP * at, rows->scale[at],
                                     rows->terms + r, a[n]);
            }
        }
    }
}

void pl_direct_base(pl_dtype type, const uint8_t *const *span, int n_panels, int groups, const pl_tile_rows *rows,
                    float *acc, int64_t acc_ld)
{
    for (int p = 0; p < n_panels; p++) {
        pl_span_codes codes;
        pl_unpack_base(type, span[p], groups, &codes);
        pl_tile_base(type, &codes, 1, groups, rows, acc + p * acc_ld * PL_PANEL_ROWS, acc_ld);
    }
}

/* ---- plain types ---- */

static float plain_at(pl_dtype type, const char *w, int64_t k)
{
    uint16_t h;
    float f;
    if (type == PL_F32) {
        memcpy(&f, w + 4 * k, sizeof f);
        return f;
    }
    memcpy(&h, w + 2 * k, sizeof h);
    return type == PL_F16 ? pl_f16_to_f32(h) : pl_bf16_to_f32(h);
}

static float dot_one(pl_dtype type, const char *w, const float *x, int64_t k)
{
    float lane[16] = {0};
    for (int64_t i = 0; i < (k + 15) / 16 * 16; i++)
        lane[i % 16] = i < k ? fmaf(plain_at(type, w, i), x[i], lane[i % 16]) : fmaf(0, 0, lane[i % 16]);
    for (int width = 8; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            lane[j] += lane[j + width];
    return lane[0];
}

void pl_dot_base(pl_dtype type, const char *w, size_t w_ld, int n_w, const float *x, int64_t x_ld, int n_x, int64_t k,
                 float *out, int64_t out_ld)
{
    for (int i = 0; i < n_x; i++)
        for (int n = 0; n < n_w; n++)
            out[i * out_ld + n] = dot_one(type, w + (size_t)n * w_ld, x + i * x_ld, k);
}
