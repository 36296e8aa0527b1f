/* Repacking of block-typed weights into panels (see panel.h), and a row back out of them. */
#include "host/cpu/pack.h"

#include "host/cpu/panel.h"

#include <stdatomic.h>
#include <string.h>

/* What a block says about one group of 32 columns. */
typedef struct group_codes {
    uint8_t code[PL_GROUP];
    uint16_t d, m; /* f16 bits; m: minimum's scale, where the type has one */
    int scale[2];  /* K-quants: of the group, or of its halves */
    int minimum;
} group_codes;

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

static void read_q4_0(const void *src, int group, group_codes *g)
{
    (void)group;
    pl_block_q4_0 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    split_nibbles(b.q, g->code);
}

static void read_q4_1(const void *src, int group, group_codes *g)
{
    (void)group;
    pl_block_q4_1 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.m;
    split_nibbles(b.q, g->code);
}

static void read_q5_0(const void *src, int group, group_codes *g)
{
    (void)group;
    pl_block_q5_0 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    split_nibbles(b.q, g->code);
    add_fifth_bits(b.h, g->code);
}

static void read_q5_1(const void *src, int group, group_codes *g)
{
    (void)group;
    pl_block_q5_1 b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.m;
    split_nibbles(b.q, g->code);
    add_fifth_bits(b.h, g->code);
}

static void read_q8_0(const void *src, int group, group_codes *g)
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

static void read_q4_k(const void *src, int group, group_codes *g)
{
    pl_block_q4_k b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.dmin;
    pl_k_scale(b.s, group, &g->scale[0], &g->minimum);
    k_nibbles(b.q, group, g->code);
}

static void read_q5_k(const void *src, int group, group_codes *g)
{
    pl_block_q5_k b;
    memcpy(&b, src, sizeof b);
    g->d = b.d;
    g->m = b.dmin;
    pl_k_scale(b.s, group, &g->scale[0], &g->minimum);
    k_nibbles(b.q, group, g->code);
    for (int i = 0; i < PL_GROUP; i++)
        g->code[i] |= (uint8_t)((b.h[i] >> group & 1) << 4);
}

static void read_q6_k(const void *src, int group, group_codes *g)
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

typedef void (*read_fn)(const void *block, int group, group_codes *g);

static read_fn block_reader(pl_dtype type)
{
    switch (type) {
    case PL_Q4_0: return read_q4_0;
    case PL_Q4_1: return read_q4_1;
    case PL_Q5_0: return read_q5_0;
    case PL_Q5_1: return read_q5_1;
    case PL_Q8_0: return read_q8_0;
    case PL_Q4_K: return read_q4_k;
    case PL_Q5_K: return read_q5_k;
    case PL_Q6_K: return read_q6_k;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return NULL;
}

/* ---- codes in a group's body ---- */

static uint32_t word_at(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The operations work on four codes at once: none carries into the next byte. */
static void put_codes(pl_dtype type, uint8_t *body, int row, const uint8_t *code)
{
    uint32_t chunk[8], fifth = 0, upper[2] = {0, 0};
    for (int c = 0; c < 8; c++)
        chunk[c] = word_at(code + 4 * c);
    body += 4 * row;
    if (type == PL_Q8_0) {
        for (int c = 0; c < 8; c++)
            memcpy(body + c * PL_CHUNK_BYTES, &chunk[c], 4);
        return;
    }
    for (int j = 0; j < 4; j++) {
        uint32_t low = (chunk[j] & 0x0f0f0f0f) | (chunk[j + 4] & 0x0f0f0f0f) << 4;
        memcpy(body + j * PL_CHUNK_BYTES, &low, 4);
    }
    for (int c = 0; c < 8; c++) {
        fifth |= (chunk[c] >> 4 & 0x01010101) << c;
        upper[c / 4] |= (chunk[c] >> 4 & 0x03030303) << 2 * (c % 4);
    }
    if (type == PL_Q5_0 || type == PL_Q5_1 || type == PL_Q5_K)
        memcpy(body + 4 * PL_CHUNK_BYTES, &fifth, 4);
    if (type == PL_Q6_K) {
        memcpy(body + 4 * PL_CHUNK_BYTES, &upper[0], 4);
        memcpy(body + 5 * PL_CHUNK_BYTES, &upper[1], 4);
    }
}

static void get_codes(pl_dtype type, const uint8_t *body, int row, uint8_t *code)
{
    body += 4 * row;
    for (int c = 0; c < 8; c++) {
        uint32_t v;
        if (type == PL_Q8_0) {
            v = word_at(body + c * PL_CHUNK_BYTES);
        } else {
            v = word_at(body + (c & 3) * PL_CHUNK_BYTES) >> 4 * (c / 4) & 0x0f0f0f0f;
            if (type == PL_Q5_0 || type == PL_Q5_1 || type == PL_Q5_K)
                v |= (word_at(body + 4 * PL_CHUNK_BYTES) >> c & 0x01010101) << 4;
            if (type == PL_Q6_K)
                v |= (word_at(body + (4 + c / 4) * PL_CHUNK_BYTES) >> 2 * (c % 4) & 0x03030303) << 4;
        }
        memcpy(code + 4 * c, &v, 4);
    }
}

/* ---- scales in a span's head ---- */

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

static void put_scales(pl_dtype type, uint8_t *head, int group, int row, const group_codes *g)
{
    int at = 16 * group + row;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: put_half(head, 128 + at, g->m); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0: put_half(head, at, g->d); break;
    case PL_Q4_K:
    case PL_Q5_K:
        put_half(head, row, g->d);
        put_half(head, 16 + row, g->m);
        head[64 + at] = (uint8_t)g->scale[0];
        head[192 + at] = (uint8_t)g->minimum;
        break;
    case PL_Q6_K:
        put_half(head, row, g->d);
        head[32 + 32 * group + row] = (uint8_t)g->scale[0];
        head[48 + 32 * group + row] = (uint8_t)g->scale[1];
        break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

/* step[h], low: value of code q in half h is step[h] * (q - offset) + low. */
static void get_scales(pl_dtype type, const uint8_t *head, int group, int row, float *step, float *low)
{
    int at = 16 * group + row;
    *low = 0;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: *low = pl_f16_to_f32(get_half(head, 128 + at)); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0: step[0] = step[1] = pl_f16_to_f32(get_half(head, at)); break;
    case PL_Q4_K:
    case PL_Q5_K:
        step[0] = step[1] = pl_f16_to_f32(get_half(head, row)) * (float)head[64 + at];
        *low = -(pl_f16_to_f32(get_half(head, 16 + row)) * (float)head[192 + at]);
        break;
    case PL_Q6_K:
        step[0] = pl_f16_to_f32(get_half(head, row)) * (float)(int8_t)head[32 + 32 * group + row];
        step[1] = pl_f16_to_f32(get_half(head, row)) * (float)(int8_t)head[48 + 32 * group + row];
        break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

/* ---- whole panels ---- */

typedef struct pack_job {
    const pl_tensor *t;
    uint8_t *dst;
    pl_panel_type panel;
    _Atomic int64_t bad_row; /* the first row with a scale that is not finite, or rows */
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

static void pack_row(pack_job *job, int64_t row)
{
    const pl_tensor *t = job->t;
    const pl_dtype_info *info = pl_dtype_describe((int)t->type);
    read_fn read = block_reader(t->type);
    int lane = (int)(row % PL_PANEL_ROWS), groups_a_block = info->block_elems / PL_GROUP;
    uint8_t *panel = job->dst + (size_t)(row / PL_PANEL_ROWS) * pl_panel_bytes(job->panel, t->cols);
    const uint8_t *block = pl_tensor_row(t, row);
    for (int64_t i = 0; i < t->cols / PL_GROUP; i++) {
        group_codes g = {0};
        int in_span = (int)(i % PL_SPAN_GROUPS);
        uint8_t *head = panel + (size_t)(i / PL_SPAN_GROUPS) * pl_span_bytes(job->panel);
        read(block + (size_t)(i / groups_a_block) * (size_t)info->block_bytes, (int)(i % groups_a_block), &g);
        if (!half_is_finite(g.d) || !half_is_finite(g.m))
            note_bad_row(job, row);
        put_codes(t->type, head + job->panel.head_bytes + in_span * job->panel.group_bytes, lane, g.code);
        put_scales(t->type, head, in_span, lane, &g);
    }
}

static void pack_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    pack_job *job = ctx;
    size_t bytes = pl_panel_bytes(job->panel, job->t->cols);
    for (int64_t p = begin; p < end; p++) {
        int64_t row = p * PL_PANEL_ROWS, stop = row + PL_PANEL_ROWS;
        memset(job->dst + (size_t)p * bytes, 0, bytes);
        for (; row < stop && row < job->t->rows; row++)
            pack_row(job, row);
    }
}

size_t pl_pack_bytes(const pl_tensor *t)
{
    pl_panel_type panel = pl_panel_describe(t->type);
    return panel.group_bytes ? (size_t)pl_panel_count(t->rows) * pl_panel_bytes(panel, t->cols) : 0;
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
    pack_job job = {.t = t, .dst = dst, .panel = pl_panel_describe(t->type)};
    atomic_init(&job.bad_row, t->rows);
    pl_pool_for(pool, pl_panel_count(t->rows), 4, pack_panels, &job);
    int64_t bad = atomic_load(&job.bad_row);
    if (bad < t->rows)
        return pl_fail(err, PL_ERR_FORMAT, "tensor %s, row %lld: a block's scale is not finite", t->name,
                       (long long)bad);
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
        const uint8_t *head = panel + (size_t)(i / PL_SPAN_GROUPS) * pl_span_bytes(t);
        int in_span = (int)(i % PL_SPAN_GROUPS);
        uint8_t code[PL_GROUP];
        float step[2] = {0}, low;
        get_codes(w->type, head + t.head_bytes + in_span * t.group_bytes, lane, code);
        get_scales(w->type, head, in_span, lane, step, &low);
        for (int l = 0; l < PL_GROUP; l++) {
            float value = step[l / 16] * (float)(code[l] - t.offset);
            out[PL_GROUP * i + l] = t.kind == PL_PANEL_MIN ? value + low : value;
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
