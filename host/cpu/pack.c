/* Repacking of block-typed weights into panels (see panel.h), and a row back out of them. */
#include "host/cpu/pack.h"

#include "host/cpu/panel.h"

#include <stdatomic.h>
#include <string.h>

/* ---- from the file's blocks ---- */

static void split_nibbles(const uint8_t *q, uint8_t *code)
{
    for (int i = 0; i < 16; i++) {
        code[i] = q[i] & 15;
        code[i + 16] = q[i] >> 4;
    }
}

static void add_fifth_bits(const uint8_t *h, uint8_t *code)
{
    for (int i = 0; i < PL_GROUP; i++)
        code[i] |= (uint8_t)((h[i / 8] >> (i % 8) & 1) << 4);
}

static void read_q4_0(const void *src, int group, pl_group_codes *g)
{
    (void)group;
    pl_block_q4_0 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    split_nibbles(b.q, g->code);
}

static void read_q4_1(const void *src, int group, pl_group_codes *g)
{
    (void)group;
    pl_block_q4_1 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.m;
    split_nibbles(b.q, g->code);
}

static void read_q5_0(const void *src, int group, pl_group_codes *g)
{
    (void)group;
    pl_block_q5_0 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    split_nibbles(b.q, g->code);
    add_fifth_bits(b.h, g->code);
}

static void read_q5_1(const void *src, int group, pl_group_codes *g)
{
    (void)group;
    pl_block_q5_1 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.m;
    split_nibbles(b.q, g->code);
    add_fifth_bits(b.h, g->code);
}

static void read_q8_0(const void *src, int group, pl_group_codes *g)
{
    (void)group;
    pl_block_q8_0 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    for (int i = 0; i < PL_GROUP; i++)
        g->code[i] = (uint8_t)(b.q[i] + 128);
}

static void k_nibbles(const uint8_t *q, int group, uint8_t *code)
{
    q += 32 * (group / 2);
    for (int i = 0; i < PL_GROUP; i++)
        code[i] = group & 1 ? q[i] >> 4 : q[i] & 15;
}

static void read_q4_k(const void *src, int group, pl_group_codes *g)
{
    pl_block_q4_k b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.dmin;
    pl_k_scale(b.s, group, &g->scale[0], &g->minimum[0]);
    k_nibbles(b.q, group, g->code);
}

static void read_q5_k(const void *src, int group, pl_group_codes *g)
{
    pl_block_q5_k b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.dmin;
    pl_k_scale(b.s, group, &g->scale[0], &g->minimum[0]);
    k_nibbles(b.q, group, g->code);
    for (int i = 0; i < PL_GROUP; i++)
        g->code[i] |= (uint8_t)((b.h[i] >> group & 1) << 4);
}

static void read_q6_k(const void *src, int group, pl_group_codes *g)
{
    pl_block_q6_k b;
    memcpy(&b, src, sizeof b);
    int half = group / 4, quarter = group % 4;
    const uint8_t *ql = b.ql + 64 * half + 32 * (quarter & 1), *qh = b.qh + 32 * half;
    g->d = b.d;
    g->scale[0] = b.s[2 * group];
    g->scale[1] = b.s[2 * group + 1];
    for (int i = 0; i < PL_GROUP; i++) {
        int low = quarter < 2 ? ql[i] & 15 : ql[i] >> 4;
        g->code[i] = (uint8_t)(low | (qh[i] >> 2 * quarter & 3) << 4);
    }
}

static void k_pairs(const uint8_t *q, int group, uint8_t *code)
{
    q += 32 * (group / 4);
    for (int i = 0; i < PL_GROUP; i++)
        code[i] = q[i] >> 2 * (group % 4) & 3;
}

static void read_q2_k(const void *src, int group, pl_group_codes *g)
{
    pl_block_q2_k b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.dmin;
    for (int h = 0; h < 2; h++) {
        g->scale[h] = b.s[2 * group + h] & 15;
        g->minimum[h] = b.s[2 * group + h] >> 4;
    }
    k_pairs(b.q, group, g->code);
}

static void read_q3_k(const void *src, int group, pl_group_codes *g)
{
    pl_block_q3_k b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->scale[0] = pl_q3_k_scale(b.s, 2 * group);
    g->scale[1] = pl_q3_k_scale(b.s, 2 * group + 1);
    k_pairs(b.q, group, g->code);
    for (int i = 0; i < PL_GROUP; i++)
        g->code[i] |= (uint8_t)((b.h[i] >> group & 1) << 2);
}

static void read_iq4_nl(const void *src, int group, pl_group_codes *g)
{
    (void)group;
    pl_block_iq4_nl b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    split_nibbles(b.q, g->code);
}

static void read_iq4_xs(const void *src, int group, pl_group_codes *g)
{
    pl_block_iq4_xs b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->scale[0] = ((b.sl[group / 2] >> 4 * (group & 1) & 15) | (b.sh >> 2 * group & 3) << 4) - 32;
    split_nibbles(b.q + 16 * group, g->code);
}

static void read_mxfp4(const void *src, int group, pl_group_codes *g)
{
    (void)group;
    pl_block_mxfp4 b;
    memcpy(&b, src, sizeof b);
    g->scale[0] = b.e;
    split_nibbles(b.q, g->code);
}

static void read_nvfp4(const void *src, int group, pl_group_codes *g)
{
    pl_block_nvfp4 b;
    memcpy(&b, src, sizeof b);
    for (int h = 0; h < 2; h++) {
        uint8_t d = b.d[2 * group + h];
        const uint8_t *q = b.q + 16 * group + 8 * h;
        g->scale[h] = d == 127 ? 0 : d & 127;
        for (int i = 0; i < 8; i++) {
            g->code[16 * h + i] = q[i] & 15;
            g->code[16 * h + 8 + i] = q[i] >> 4;
        }
    }
}

typedef void (*read_fn)(const void *block, int group, pl_group_codes *g);

static read_fn block_reader(pl_dtype type)
{
    switch (type) {
    case PL_Q4_0: return read_q4_0;
    case PL_Q4_1: return read_q4_1;
    case PL_Q5_0: return read_q5_0;
    case PL_Q5_1: return read_q5_1;
    case PL_Q8_0: return read_q8_0;
    case PL_Q2_K: return read_q2_k;
    case PL_Q3_K: return read_q3_k;
    case PL_Q4_K: return read_q4_k;
    case PL_Q5_K: return read_q5_k;
    case PL_Q6_K: return read_q6_k;
    case PL_IQ4_NL: return read_iq4_nl;
    case PL_IQ4_XS: return read_iq4_xs;
    case PL_MXFP4: return read_mxfp4;
    case PL_NVFP4: return read_nvfp4;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return NULL;
}

/* ---- whole panels ---- */

typedef struct pack_job {
    const pl_tensor *t;
    int64_t first, end; /* rows */
    uint8_t *dst;
    pl_panel_type panel;
    _Atomic int64_t bad_row; /* the first row with a scale that is not finite, or end */
} pack_job;

static int half_is_finite(uint16_t h)
{
    return (h & 0x7c00) != 0x7c00;
}

static void note_bad_row(pack_job *job, int64_t row)
{
    int64_t seen = atomic_load(&job->bad_row);
    while (row < seen && !atomic_compare_exchange_weak(&job->bad_row, &seen, row))
        ;
}

static void pack_row(pack_job *job, uint8_t *panel, int64_t row)
{
    const pl_tensor *t = job->t;
    const pl_dtype_info *info = pl_dtype_describe((int)t->type);
    read_fn read = block_reader(t->type);
    int lane = (int)(row % PL_PANEL_ROWS), groups_a_block = info->block_elems / PL_GROUP;
    const uint8_t *block = pl_tensor_row(t, row);
    for (int64_t i = 0; i < t->cols / PL_GROUP; i++) {
        pl_group_codes g = {0};
        uint8_t *span = panel + (size_t)(i / PL_SPAN_GROUPS) * pl_span_bytes(job->panel);
        read(block + (size_t)(i / groups_a_block) * (size_t)info->block_bytes, (int)(i % groups_a_block), &g);
        if (!half_is_finite(g.d) || !half_is_finite(g.m))
            note_bad_row(job, row);
        pl_panel_put(t->type, span, (int)(i % PL_SPAN_GROUPS), lane, &g);
    }
}

static void pack_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    pack_job *job = ctx;
    size_t bytes = pl_panel_bytes(job->panel, job->t->cols);
    for (int64_t p = begin; p < end; p++) {
        int64_t row = job->first + p * PL_PANEL_ROWS, stop = row + PL_PANEL_ROWS;
        uint8_t *panel = job->dst + (size_t)p * bytes;
        memset(panel, 0, bytes);
        for (; row < stop && row < job->end; row++)
            pack_row(job, panel, row);
    }
}

size_t pl_pack_bytes(const pl_tensor *t)
{
    pl_panel_type panel = pl_panel_describe(t->type);
    return panel.bits ? (size_t)pl_panel_count(t->rows) * pl_panel_bytes(panel, t->cols) : 0;
}

pl_status pl_pack_rows(pl_pool *pool, const pl_tensor *t, int64_t row, int64_t n, void *dst, pl_error *err)
{
    pack_job job = {.t = t, .first = row, .end = row + n, .dst = dst, .panel = pl_panel_describe(t->type)};
    atomic_init(&job.bad_row, job.end);
    pl_pool_for(pool, pl_panel_count(n), 1, pack_panels, &job);
    int64_t bad = atomic_load(&job.bad_row);
    if (bad < job.end)
        return pl_fail(err, PL_ERR_FORMAT, "tensor %s, row %lld: a block's scale is not finite", t->name,
                       (long long)bad);
    return PL_OK;
}

pl_status pl_pack(pl_pool *pool, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err)
{
    *out = (pl_weight){.name = t->name,
                       .data = t->data,
                       .rows = t->rows,
                       .cols = t->cols,
                       .type = t->type,
                       .bytes = (size_t)t->rows * pl_tensor_row_bytes(t)};
    size_t bytes = pl_pack_bytes(t);
    if (bytes == 0)
        return PL_OK;
    PL_TRY(pl_pack_rows(pool, t, 0, t->rows, dst, err));
    out->data = dst;
    out->packed = true;
    out->bytes = bytes;
    return PL_OK;
}

/* ---- a row back ---- */

static void panel_row(const pl_weight *w, int64_t row, float *out)
{
    pl_panel_type t = pl_panel_describe(w->type);
    int lane = (int)(row % PL_PANEL_ROWS);
    const uint8_t *panel = (const uint8_t *)w->data + (size_t)(row / PL_PANEL_ROWS) * pl_panel_bytes(t, w->cols);
    for (int64_t i = 0; i < w->cols / PL_GROUP; i++) {
        const uint8_t *span = panel + (size_t)(i / PL_SPAN_GROUPS) * pl_span_bytes(t);
        pl_group_values g;
        pl_panel_get(w->type, span, (int)(i % PL_SPAN_GROUPS), lane, &g);
        for (int l = 0; l < PL_GROUP; l++) {
            float value = g.d[l / 16] * (float)(g.code[l] - t.offset);
            out[PL_GROUP * i + l] = pl_has_minimum(t.kind) ? value + g.m[l / 16] : value;
        }
    }
}

void pl_weight_row(const pl_weight *w, int64_t row, float *out)
{
    if (w->packed)
        panel_row(w, row, out);
    else
        pl_decode(w->type, (const char *)w->data + (size_t)row * pl_dtype_bytes(w->type, w->cols), out, w->cols);
}
