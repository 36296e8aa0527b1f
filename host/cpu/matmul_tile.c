/* The matrix product in plain C: the truth that the faster kernels are tested against. */
#include "host/cpu/matmul_tile.h"

#include <math.h>
#include <string.h>

static float half_at(const uint8_t *head, int at)
{
    uint16_t h;
    memcpy(&h, head + 2 * at, sizeof h);
    return pl_f16_to_f32(h);
}

static void unpack_scales(pl_dtype type, const uint8_t *head, int group, pl_span_codes *out)
{
    for (int r = 0; r < PL_PANEL_ROWS; r++) {
        int at = PL_PANEL_ROWS * group + r;
        switch (type) {
        case PL_Q4_1:
        case PL_Q5_1: out->m[group][r] = half_at(head, 128 + at); /* fall through */
        case PL_Q4_0:
        case PL_Q5_0:
        case PL_Q8_0: out->d[group][r] = half_at(head, at); break;
        case PL_Q4_K:
        case PL_Q5_K:
            out->d[group][r] = half_at(head, r) * (float)head[64 + at];
            out->m[group][r] = -(half_at(head, 16 + r) * (float)head[192 + at]);
            break;
        case PL_Q6_K:
            out->d[2 * group][r] = half_at(head, r) * (float)(int8_t)head[32 + 32 * group + r];
            out->d[2 * group + 1][r] = half_at(head, r) * (float)(int8_t)head[48 + 32 * group + r];
            break;
        case PL_F32:
        case PL_F16:
        case PL_BF16: break;
        }
    }
}

/* Byte i of chunk c. */
static int code_at(pl_dtype type, const uint8_t *body, int c, int i)
{
    if (type == PL_Q8_0)
        return body[c * PL_CHUNK_BYTES + i];
    int code = body[(c & 3) * PL_CHUNK_BYTES + i] >> 4 * (c / 4) & 15;
    if (type == PL_Q5_0 || type == PL_Q5_1 || type == PL_Q5_K)
        code |= (body[4 * PL_CHUNK_BYTES + i] >> c & 1) << 4;
    if (type == PL_Q6_K)
        code |= (body[(4 + c / 4) * PL_CHUNK_BYTES + i] >> 2 * (c % 4) & 3) << 4;
    return code;
}

void pl_unpack_base(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    pl_panel_type t = pl_panel_describe(type);
    for (int g = 0; g < groups; g++) {
        const uint8_t *body = span + t.head_bytes + g * t.group_bytes;
        unpack_scales(type, span, g, out);
        for (int c = 0; c < 8; c++)
            for (int i = 0; i < PL_CHUNK_BYTES; i++)
                out->code[g][c * PL_CHUNK_BYTES + i] = (uint8_t)code_at(type, body, c, i);
    }
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

static float add_group(pl_panel_kind kind, const pl_span_codes *w, int g, int n, const int8_t *hi_lo, float scale,
                       const pl_row_terms *terms, float acc)
{
    const uint8_t *code = w->code[g];
    if (kind == PL_PANEL_HALVES) {
        for (int h = 0; h < 2; h++) {
            int32_t s = code_sum(code, hi_lo, 4 * h, 4 * h + 4, n, terms->start[2 * g + h]);
            acc = fmaf((float)s, w->d[2 * g + h][n] * scale, acc);
        }
        return acc;
    }
    int32_t s = code_sum(code, hi_lo, 0, 8, n, kind == PL_PANEL_OFFSET ? terms->start[g] : 0);
    acc = fmaf((float)s, w->d[g][n] * scale, acc);
    return kind == PL_PANEL_MIN ? fmaf(w->m[g][n], terms->shift[g], acc) : acc;
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
                    float *acc)
{
    for (int p = 0; p < n_panels; p++) {
        pl_span_codes codes;
        pl_unpack_base(type, span[p], groups, &codes);
        pl_tile_base(type, &codes, 1, groups, rows, acc + p * PL_PANEL_ROWS, 1);
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
