/* One row of one group, into a panel and out of it. */
#include "host/cpu/panel.h"

#include <string.h>

/* ---- codes: body points to the row's first bytes ---- */

static uint32_t word_at(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void put_word(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

/* The operations work on four codes at once: none carries into the next byte. */
static void put_codes(int bits, uint8_t *body, const uint8_t *code)
{
    uint32_t chunk[8], pairs[2] = {0, 0}, top = 0;
    for (int c = 0; c < 8; c++)
        chunk[c] = word_at(code + 4 * c);
    if (bits == 8) {
        for (int c = 0; c < 8; c++)
            put_word(body + c * PL_CHUNK_BYTES, chunk[c]);
        return;
    }
    int low = pl_nibble_bits(bits);
    for (int j = 0; j < low; j++)
        put_word(body + j * PL_CHUNK_BYTES, (chunk[j] & 0x0f0f0f0f) | (chunk[j + 4] & 0x0f0f0f0f) << 4);
    for (int c = 0; c < 8; c++) {
        pairs[c / 4] |= (chunk[c] >> low & 0x03030303) << 2 * (c % 4);
        top |= (chunk[c] >> (bits - 1) & 0x01010101) << c;
    }
    for (int i = 0; i < 2 && pl_has_pairs(bits); i++)
        put_word(body + (low + i) * PL_CHUNK_BYTES, pairs[i]);
    if (pl_has_top(bits))
        put_word(body + (bits - 1) * PL_CHUNK_BYTES, top);
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
        put_word(code + 4 * c, v);
    }
}

/* ---- scales ---- */

static void put_half(uint8_t *head, int at, uint16_t h)
{
    memcpy(head + 2 * at, &h, sizeof h);
}

static uint16_t get_half(const uint8_t *head, int at)
{
    uint16_t h;
    memcpy(&h, head + 2 * at, sizeof h);
    return h;
}

static void put_scales(pl_dtype type, uint8_t *head, int group, int row, const pl_group_codes *g)
{
    int at = 16 * group + row, half_at = 32 * group + row;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: put_half(head, 128 + at, g->m); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: put_half(head, at, g->d); break;
    case PL_Q2_K:
        put_half(head, row, g->d);
        put_half(head, 16 + row, g->m);
        for (int h = 0; h < 2; h++)
            head[64 + half_at + 16 * h] = (uint8_t)(g->scale[h] | g->minimum[h] << 4);
        break;
    case PL_Q4_K:
    case PL_Q5_K:
        put_half(head, row, g->d);
        put_half(head, 16 + row, g->m);
        head[64 + at] = (uint8_t)g->scale[0];
        head[192 + at] = (uint8_t)g->minimum[0];
        break;
    case PL_Q3_K:
    case PL_Q6_K:
        put_half(head, row, g->d);
        head[32 + half_at] = (uint8_t)g->scale[0];
        head[48 + half_at] = (uint8_t)g->scale[1];
        break;
    case PL_IQ4_XS:
        put_half(head, row, g->d);
        head[32 + at] = (uint8_t)g->scale[0];
        break;
    case PL_MXFP4: head[at] = (uint8_t)g->scale[0]; break;
    case PL_NVFP4:
        head[half_at] = (uint8_t)g->scale[0];
        head[16 + half_at] = (uint8_t)g->scale[1];
        break;
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

void pl_panel_put(pl_dtype type, uint8_t *span, int group, int row, const pl_group_codes *g)
{
    pl_panel_type t = pl_panel_describe(type);
    put_codes(t.bits, span + t.head_bytes + group * pl_group_bytes(t) + 4 * row, g->code);
    put_scales(type, span, group, row, g);
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
