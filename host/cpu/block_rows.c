#include "host/cpu/block_rows.h"

#include "host/cpu/quad.h"

#include <string.h>

/* ---- one group of one row ---- */

typedef void (*read_fn)(const uint8_t *block, int group, int row, pl_panel_group *g);

static inline uint16_t half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

#define AT(type, field) (block + offsetof(pl_block_##type, field))

/* The same byte sixteen times. */
#define EACH(mask) ((mask)*0x01010101u)

static inline void split_nibbles(const uint8_t *q, uint8_t *code)
{
    pl_quad both = pl_quad_at(q);
    pl_quad_put(code, both & EACH(15));
    pl_quad_put(code + 16, both >> 4 & EACH(15));
}

/* Eight at a time: byte i of a word keeps bit i of the eight, is made 128 where that is set, and 16 from that. */
static inline void add_fifth_bits(const uint8_t *h, uint8_t *code)
{
    for (int i = 0; i < 4; i++) {
        uint64_t eight, bits = h[i] * 0x0101010101010101u & 0x8040201008040201u;
        memcpy(&eight, code + 8 * i, sizeof eight);
        eight |= (bits + 0x00406070787c7e7fu) >> 3 & 0x1010101010101010u;
        memcpy(code + 8 * i, &eight, sizeof eight);
    }
}

static inline void read_q4_0(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    (void)group;
    g->d[row] = half_at(AT(q4_0, d));
    split_nibbles(AT(q4_0, q), g->code[row]);
}

static inline void read_q4_1(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    (void)group;
    g->d[row] = half_at(AT(q4_1, d));
    g->m[row] = half_at(AT(q4_1, m));
    split_nibbles(AT(q4_1, q), g->code[row]);
}

static inline void read_q5_0(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    (void)group;
    g->d[row] = half_at(AT(q5_0, d));
    split_nibbles(AT(q5_0, q), g->code[row]);
    add_fifth_bits(AT(q5_0, h), g->code[row]);
}

static inline void read_q5_1(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    (void)group;
    g->d[row] = half_at(AT(q5_1, d));
    g->m[row] = half_at(AT(q5_1, m));
    split_nibbles(AT(q5_1, q), g->code[row]);
    add_fifth_bits(AT(q5_1, h), g->code[row]);
}

static inline void read_q8_0(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    (void)group;
    g->d[row] = half_at(AT(q8_0, d));
    for (int i = 0; i < PL_GROUP; i += 16)
        pl_quad_put(g->code[row] + i, pl_quad_at(AT(q8_0, q) + i) ^ EACH(0x80));
}

static inline void k_nibbles(const uint8_t *q, int group, uint8_t *code)
{
    int shift = 4 * (group & 1);
    q += 32 * (group / 2);
    for (int i = 0; i < PL_GROUP; i += 16)
        pl_quad_put(code + i, pl_quad_at(q + i) >> shift & EACH(15));
}

/* code[i] |= bit `bit` of h[i], as bit `to` */
static inline void add_bits(const uint8_t *h, int bit, int to, uint8_t *code)
{
    for (int i = 0; i < PL_GROUP; i += 16)
        pl_quad_put(code + i, pl_quad_at(code + i) | (pl_quad_at(h + i) >> bit & EACH(1)) << to);
}

static inline void k_scales(const uint8_t *s, int group, int row, pl_panel_group *g)
{
    int scale, minimum;
    pl_k_scale(s, group, &scale, &minimum);
    g->scale[0][row] = (uint8_t)scale;
    g->minimum[0][row] = (uint8_t)minimum;
}

static inline void read_q4_k(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    g->d[row] = half_at(AT(q4_k, d));
    g->m[row] = half_at(AT(q4_k, dmin));
    k_scales(AT(q4_k, s), group, row, g);
    k_nibbles(AT(q4_k, q), group, g->code[row]);
}

static inline void read_q5_k(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    g->d[row] = half_at(AT(q5_k, d));
    g->m[row] = half_at(AT(q5_k, dmin));
    k_scales(AT(q5_k, s), group, row, g);
    k_nibbles(AT(q5_k, q), group, g->code[row]);
    add_bits(AT(q5_k, h), group, 4, g->code[row]);
}

static inline void read_q6_k(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    int half = group / 4, quarter = group % 4, low = quarter < 2 ? 0 : 4, high = 2 * quarter;
    const uint8_t *ql = AT(q6_k, ql) + 64 * half + 32 * (quarter & 1), *qh = AT(q6_k, qh) + 32 * half;
    g->d[row] = half_at(AT(q6_k, d));
    for (int h = 0; h < 2; h++)
        g->scale[h][row] = AT(q6_k, s)[2 * group + h];
    for (int i = 0; i < PL_GROUP; i += 16)
        pl_quad_put(g->code[row] + i, (pl_quad_at(ql + i) >> low & EACH(15)) | (pl_quad_at(qh + i) >> high & EACH(3))
                                                                                   << 4);
}

static inline void k_pairs(const uint8_t *q, int group, uint8_t *code)
{
    int shift = 2 * (group % 4);
    q += 32 * (group / 4);
    for (int i = 0; i < PL_GROUP; i += 16)
        pl_quad_put(code + i, pl_quad_at(q + i) >> shift & EACH(3));
}

static inline void read_q2_k(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    g->d[row] = half_at(AT(q2_k, d));
    g->m[row] = half_at(AT(q2_k, dmin));
    for (int h = 0; h < 2; h++) {
        g->scale[h][row] = AT(q2_k, s)[2 * group + h] & 15;
        g->minimum[h][row] = AT(q2_k, s)[2 * group + h] >> 4;
    }
    k_pairs(AT(q2_k, q), group, g->code[row]);
}

static inline void read_q3_k(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    g->d[row] = half_at(AT(q3_k, d));
    for (int h = 0; h < 2; h++)
        g->scale[h][row] = (uint8_t)pl_q3_k_scale(AT(q3_k, s), 2 * group + h);
    k_pairs(AT(q3_k, q), group, g->code[row]);
    add_bits(AT(q3_k, h), group, 2, g->code[row]);
}

static inline void read_iq4_xs(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    int low = AT(iq4_xs, sl)[group / 2] >> 4 * (group & 1) & 15, high = half_at(AT(iq4_xs, sh)) >> 2 * group & 3;
    g->d[row] = half_at(AT(iq4_xs, d));
    g->scale[0][row] = (uint8_t)((low | high << 4) - 32);
    split_nibbles(AT(iq4_xs, q) + 16 * group, g->code[row]);
}

static inline void read_mxfp4(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    (void)group;
    g->scale[0][row] = *AT(mxfp4, e);
    split_nibbles(AT(mxfp4, q), g->code[row]);
}

static inline void read_nvfp4(const uint8_t *block, int group, int row, pl_panel_group *g)
{
    for (int h = 0; h < 2; h++) {
        uint8_t d = AT(nvfp4, d)[2 * group + h], *code = g->code[row] + 16 * h;
        uint64_t both;
        memcpy(&both, AT(nvfp4, q) + 16 * group + 8 * h, sizeof both);
        g->scale[h][row] = d == 127 ? 0 : d & 127;
        uint64_t low = both & 0x0f0f0f0f0f0f0f0fu, high = both >> 4 & 0x0f0f0f0f0f0f0f0fu;
        memcpy(code, &low, sizeof low);
        memcpy(code + 8, &high, sizeof high);
    }
}

/* ---- of all rows ---- */

/* Inlined together with `read`, so that a row costs no call. */
static inline __attribute__((always_inline)) void read_rows(pl_dtype type, read_fn read, const pl_block_rows *from,
                                                            int n_groups, pl_panel_group *out)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    int groups_a_block = info->block_elems / PL_GROUP;
    for (int i = 0; i < n_groups; i++) {
        const uint8_t *block = from->first + (size_t)(i / groups_a_block) * (size_t)info->block_bytes;
        for (int row = 0; row < from->rows; row++, block += from->stride)
            read(block, i % groups_a_block, row, &out[i]);
    }
}

void pl_block_rows_read(pl_dtype type, const pl_block_rows *from, int n_groups, pl_panel_group *out)
{
    switch (type) {
    case PL_Q4_0:
    case PL_IQ4_NL: read_rows(type, read_q4_0, from, n_groups, out); break; /* the same blocks */
    case PL_Q4_1: read_rows(type, read_q4_1, from, n_groups, out); break;
    case PL_Q5_0: read_rows(type, read_q5_0, from, n_groups, out); break;
    case PL_Q5_1: read_rows(type, read_q5_1, from, n_groups, out); break;
    case PL_Q8_0: read_rows(type, read_q8_0, from, n_groups, out); break;
    case PL_Q2_K: read_rows(type, read_q2_k, from, n_groups, out); break;
    case PL_Q3_K: read_rows(type, read_q3_k, from, n_groups, out); break;
    case PL_Q4_K: read_rows(type, read_q4_k, from, n_groups, out); break;
    case PL_Q5_K: read_rows(type, read_q5_k, from, n_groups, out); break;
    case PL_Q6_K: read_rows(type, read_q6_k, from, n_groups, out); break;
    case PL_IQ4_XS: read_rows(type, read_iq4_xs, from, n_groups, out); break;
    case PL_MXFP4: read_rows(type, read_mxfp4, from, n_groups, out); break;
    case PL_NVFP4: read_rows(type, read_nvfp4, from, n_groups, out); break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}
