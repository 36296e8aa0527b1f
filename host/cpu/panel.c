/* Groups into a panel, and one row of one group out of it. */
#include "host/cpu/panel.h"

#include "host/cpu/quad.h"

#include <string.h>

/* ---- codes: body points to the row's first bytes ---- */

static uint32_t word_at(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* From four words of each of four rows to each word of the four rows. */
static inline void transpose(const pl_quad row[4], pl_quad *word)
{
    pl_quad a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5),
            b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
    pl_quad c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7),
            d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
    word[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    word[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    word[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    word[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* chunk: c of four rows; body points to the first of the rows. */
static inline void put_chunks(int bits, uint8_t *body, const pl_quad chunk[8])
{
    int low = pl_nibble_bits(bits);
    for (int c = 0; c < 8 && bits == 8; c++)
        pl_quad_put(body + c * PL_CHUNK_BYTES, chunk[c]);
    if (bits == 8)
        return;
    for (int j = 0; j < low; j++)
        pl_quad_put(body + j * PL_CHUNK_BYTES, (chunk[j] & 0x0f0f0f0f) | (chunk[j + 4] & 0x0f0f0f0f) << 4);
    for (int i = 0; i < 2 && pl_has_pairs(bits); i++) {
        pl_quad pairs = {0};
        for (int c = 0; c < 4; c++)
            pairs |= (chunk[4 * i + c] >> low & 0x03030303) << 2 * c;
        pl_quad_put(body + (low + i) * PL_CHUNK_BYTES, pairs);
    }
    if (pl_has_top(bits)) {
        pl_quad top = {0};
        for (int c = 0; c < 8; c++)
            top |= (chunk[c] >> (bits - 1) & 0x01010101) << c;
        pl_quad_put(body + (bits - 1) * PL_CHUNK_BYTES, top);
    }
}

static inline __attribute__((always_inline)) void put_codes(int bits, uint8_t *body, const pl_panel_group *g)
{
    for (int row = 0; row < PL_PANEL_ROWS; row += 4, body += sizeof(pl_quad)) {
        pl_quad first[4], second[4], chunk[8];
        for (int r = 0; r < 4; r++) {
            first[r] = pl_quad_at(g->code[row + r]);
            second[r] = pl_quad_at(g->code[row + r] + 16);
        }
        transpose(first, chunk);
        transpose(second, chunk + 4);
        put_chunks(bits, body, chunk);
    }
}

static void get_codes(int bits, const uint8_t *body, uint8_t *code)
{
    int low = pl_nibble_bits(bits);
    for (int c = 0; c < 8; c++) {
        uint32_t v = 0;
        if (bits == 8)
            v = word_at(body + c * PL_CHUNK_BYTES);
        else if (low)
            v = word_at(body + (c & 3) * PL_CHUNK_BYTES) >> 4 * (c / 4) & 0x0f0f0f0f;
        if (pl_has_pairs(bits))
            v |= (word_at(body + (low + c / 4) * PL_CHUNK_BYTES) >> 2 * (c % 4) & 0x03030303) << low;
        if (pl_has_top(bits))
            v |= (word_at(body + (bits - 1) * PL_CHUNK_BYTES) >> c & 0x01010101) << (bits - 1);
        memcpy(code + 4 * c, &v, sizeof v);
    }
}

/* ---- scales ---- */

static uint16_t get_half(const uint8_t *head, int at)
{
    uint16_t h;
    memcpy(&h, head + 2 * at, sizeof h);
    return h;
}

static void put_scales(pl_dtype type, uint8_t *head, int group, const pl_panel_group *g)
{
    int at = PL_PANEL_ROWS * group;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: memcpy(head + 256 + 2 * at, g->m, sizeof g->m); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: memcpy(head + 2 * at, g->d, sizeof g->d); break;
    case PL_Q2_K:
        memcpy(head, g->d, sizeof g->d);
        memcpy(head + 32, g->m, sizeof g->m);
        for (int i = 0; i < 2 * PL_PANEL_ROWS; i++)
            head[64 + 2 * at + i] = (uint8_t)(g->scale[i / PL_PANEL_ROWS][i % PL_PANEL_ROWS] |
                                              g->minimum[i / PL_PANEL_ROWS][i % PL_PANEL_ROWS] << 4);
        break;
    case PL_Q4_K:
    case PL_Q5_K:
        memcpy(head, g->d, sizeof g->d);
        memcpy(head + 32, g->m, sizeof g->m);
        memcpy(head + 64 + at, g->scale[0], sizeof g->scale[0]);
        memcpy(head + 192 + at, g->minimum[0], sizeof g->minimum[0]);
        break;
    case PL_Q3_K:
    case PL_Q6_K:
        memcpy(head, g->d, sizeof g->d);
        memcpy(head + 32 + 2 * at, g->scale, sizeof g->scale);
        break;
    case PL_IQ4_XS:
        memcpy(head, g->d, sizeof g->d);
        memcpy(head + 32 + at, g->scale[0], sizeof g->scale[0]);
        break;
    case PL_MXFP4: memcpy(head + at, g->scale[0], sizeof g->scale[0]); break;
    case PL_NVFP4: memcpy(head + 2 * at, g->scale, sizeof g->scale); break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

static void get_half_scales(pl_dtype type, const uint8_t *head, int half, int row, float *d, float *m)
{
    int at = 16 * half + row;
    switch (type) {
    case PL_Q2_K:
        *d = pl_f16_to_f32(get_half(head, row)) * (float)(head[64 + at] & 15);
        *m = -(pl_f16_to_f32(get_half(head, 16 + row)) * (float)(head[64 + at] >> 4));
        break;
    case PL_Q3_K:
    case PL_Q6_K: *d = pl_f16_to_f32(get_half(head, row)) * (float)(int8_t)head[32 + at]; break;
    case PL_NVFP4: *d = pl_nvfp4_half_scale(head[at] | 0x80); break; /* 127 counts here */
    default: break;
    }
}

static void get_scales(pl_dtype type, const uint8_t *head, int group, int row, float *d, float *m)
{
    int at = 16 * group + row;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: m[0] = m[1] = pl_f16_to_f32(get_half(head, 128 + at)); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: d[0] = d[1] = pl_f16_to_f32(get_half(head, at)); break;
    case PL_Q4_K:
    case PL_Q5_K:
        d[0] = d[1] = pl_f16_to_f32(get_half(head, row)) * (float)head[64 + at];
        m[0] = m[1] = -(pl_f16_to_f32(get_half(head, 16 + row)) * (float)head[192 + at]);
        break;
    case PL_IQ4_XS: d[0] = d[1] = pl_f16_to_f32(get_half(head, row)) * (float)(int8_t)head[32 + at]; break;
    case PL_MXFP4: d[0] = d[1] = pl_mxfp4_half_scale(head[at]); break;
    case PL_Q2_K:
    case PL_Q3_K:
    case PL_Q6_K:
    case PL_NVFP4:
        for (int h = 0; h < 2; h++)
            get_half_scales(type, head, 2 * group + h, row, &d[h], &m[h]);
        break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

/* ---- both ---- */

void pl_panel_put(pl_dtype type, uint8_t *span, const pl_panel_group *groups, int n_groups)
{
    pl_panel_type t = pl_panel_describe(type);
    memset(span, 0, (size_t)t.head_bytes);
    for (int i = 0; i < n_groups; i++) {
        uint8_t *body = span + t.head_bytes + i * pl_group_bytes(t);
        put_scales(type, span, i, &groups[i]);
        switch (t.bits) { /* constants, so that the branches on them go */
        case 2: put_codes(2, body, &groups[i]); break;
        case 3: put_codes(3, body, &groups[i]); break;
        case 4: put_codes(4, body, &groups[i]); break;
        case 5: put_codes(5, body, &groups[i]); break;
        case 6: put_codes(6, body, &groups[i]); break;
        case 8: put_codes(8, body, &groups[i]); break;
        }
    }
}

void pl_panel_get(pl_dtype type, const uint8_t *span, int group, int row, pl_group_values *g)
{
    pl_panel_type t = pl_panel_describe(type);
    get_codes(t.bits, span + t.head_bytes + group * pl_group_bytes(t) + 4 * row, g->code);
    for (int i = 0; i < PL_GROUP && t.values; i++)
        g->code[i] = (uint8_t)(t.values[g->code[i]] + t.offset);
    g->m[0] = g->m[1] = 0;
    get_scales(type, span, group, row, g->d, g->m);
}
