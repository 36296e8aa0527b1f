#include "host/cpu/neuron.h"

#include "host/cpu/quad.h"

#include <string.h>

/* Vectors of 16 rows; as words, of four rows. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t halves8 __attribute__((vector_size(16)));

static inline bytes16 load16(const uint8_t *p)
{
    return (bytes16)pl_quad_at(p);
}

static inline void store16(uint8_t *p, bytes16 v)
{
    pl_quad_put(p, (pl_quad)v);
}

/* Bits may move from one byte to the next: masked off by those who call it. */
static inline bytes16 shift_down(bytes16 v, int by)
{
    return (bytes16)((halves8)v >> (uint16_t)by);
}

static inline bytes16 shift_up(bytes16 v, int by)
{
    return (bytes16)((halves8)v << (uint16_t)by);
}

static inline bytes16 low_bytes(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

static inline bytes16 high_bytes(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

static inline bytes16 low_halves(bytes16 a, bytes16 b)
{
    return (bytes16)__builtin_shufflevector((halves8)a, (halves8)b, 0, 8, 1, 9, 2, 10, 3, 11);
}

static inline bytes16 high_halves(bytes16 a, bytes16 b)
{
    return (bytes16)__builtin_shufflevector((halves8)a, (halves8)b, 4, 12, 5, 13, 6, 14, 7, 15);
}

static void transpose_bytes(bytes16 v[16])
{
    for (int round = 0; round < 4; round++) {
        bytes16 next[16];
        for (int i = 0; i < 8; i++) {
            next[2 * i] = low_bytes(v[i], v[i + 8]);
            next[2 * i + 1] = high_bytes(v[i], v[i + 8]);
        }
        memcpy(v, next, sizeof next);
    }
}

/* ---- rows ---- */

/* A head is halves, then bytes: so many of each for a row. */
static int head_halves(pl_dtype type)
{
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: return 16;
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: return 8;
    case PL_Q2_K:
    case PL_Q4_K:
    case PL_Q5_K: return 2;
    case PL_Q3_K:
    case PL_Q6_K:
    case PL_IQ4_XS: return 1;
    case PL_MXFP4:
    case PL_NVFP4:
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return 0;
}

/* Sixteen rows' heads, of `bytes` each, to a panel's. Sixteen bytes are there for each begun sixteen. */
static void gather_head(pl_dtype type, const uint8_t *const row[16], int bytes, uint8_t *head)
{
    int halves = head_halves(type);
    for (int at = 0; at < bytes; at += 16) {
        bytes16 v[16];
        for (int r = 0; r < 16; r++)
            v[r] = load16(row[r] + at);
        transpose_bytes(v);
        for (int i = 0; i < 16 && at + i < bytes; i++) {
            int half = (at + i) / 2;
            if (half >= halves) {
                store16(head + 16 * (at + i), v[i]);
            } else if (i % 2 == 0) {
                store16(head + 32 * half, low_bytes(v[i], v[i + 1]));
                store16(head + 32 * half + 16, high_bytes(v[i], v[i + 1]));
            }
        }
    }
}

static void scatter_head(pl_dtype type, const uint8_t *head, int bytes, int r, uint8_t *row)
{
    int halves = head_halves(type);
    for (int i = 0; i < halves; i++)
        memcpy(row + 2 * i, head + 32 * i + 2 * r, 2);
    for (int i = 2 * halves; i < bytes; i++)
        row[i] = head[16 * i + r];
}

/* Words [0, n) of four rows, to or from every 64th byte of a panel's body. */
static void gather_words(const uint8_t *const row[4], int n, uint8_t *body)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        pl_quad a = pl_quad_at(row[0] + 4 * i), b = pl_quad_at(row[1] + 4 * i);
        pl_quad c = pl_quad_at(row[2] + 4 * i), d = pl_quad_at(row[3] + 4 * i);
        pl_quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        uint8_t *to = body + i * PL_CHUNK_BYTES;
        store16(to, (bytes16)__builtin_shufflevector(ab, cd, 0, 1, 4, 5));
        store16(to + PL_CHUNK_BYTES, (bytes16)__builtin_shufflevector(ab, cd, 2, 3, 6, 7));
        ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        store16(to + 2 * PL_CHUNK_BYTES, (bytes16)__builtin_shufflevector(ab, cd, 0, 1, 4, 5));
        store16(to + 3 * PL_CHUNK_BYTES, (bytes16)__builtin_shufflevector(ab, cd, 2, 3, 6, 7));
    }
    for (; i < n; i++)
        for (int r = 0; r < 4; r++)
            memcpy(body + i * PL_CHUNK_BYTES + 4 * r, row[r] + 4 * i, 4);
}

static void put_rows(const pl_weight *w, int64_t panel, int64_t span, int n_groups, const uint8_t *from)
{
    pl_panel_type t = pl_panel_describe(w->type);
    size_t row_bytes = pl_neuron_row_bytes(t, w->cols), span_bytes = pl_span_bytes(t) / PL_PANEL_ROWS;
    int head = t.head_bytes / PL_PANEL_ROWS;
    uint8_t *at = (uint8_t *)(uintptr_t)w->data + (size_t)span * span_bytes;
    for (int r = 0; r < PL_PANEL_ROWS && panel * PL_PANEL_ROWS + r < w->rows; r++) {
        uint8_t *row = at + (size_t)(panel * PL_PANEL_ROWS + r) * row_bytes;
        scatter_head(w->type, from, head, r, row);
        for (int i = 0; i < n_groups * t.bits; i++)
            memcpy(row + head + 4 * i, from + t.head_bytes + i * PL_CHUNK_BYTES + 4 * r, 4);
    }
}

static void gather_rows(pl_dtype type, const uint8_t *const row[16], int groups, uint8_t *work)
{
    pl_panel_type t = pl_panel_describe(type);
    int head = t.head_bytes / PL_PANEL_ROWS;
    gather_head(type, row, head, work);
    for (int r = 0; r < PL_PANEL_ROWS; r += 4) {
        const uint8_t *const four[4] = {row[r] + head, row[r + 1] + head, row[r + 2] + head, row[r + 3] + head};
        gather_words(four, groups * t.bits, work + t.head_bytes + 4 * r);
    }
}

void pl_neuron_gather(const pl_weight *w, const int32_t *row, int64_t span, int groups, uint8_t *work)
{
    pl_panel_type t = pl_panel_describe(w->type);
    size_t row_bytes = pl_neuron_row_bytes(t, w->cols);
    const uint8_t *base = (const uint8_t *)w->data + (size_t)span * (pl_span_bytes(t) / PL_PANEL_ROWS), *at[16];
    for (int r = 0; r < PL_PANEL_ROWS; r++)
        at[r] = base + (size_t)row[r] * row_bytes;
    gather_rows(w->type, at, groups, work);
}

/* ---- columns ---- */

/* Part `bits` wide of a column's codes for 16 rows of a panel: in which bytes, from which bit on. */
typedef struct part_place {
    size_t at;
    int shift;
} part_place;

static part_place place_of(int64_t panel, int bits)
{
    int64_t slab = panel / 4;
    return (part_place){(size_t)(slab * bits / 8 * PL_NEURON_LINE + panel % 4 * 16), (int)(slab * bits % 8)};
}

static inline bytes16 get_part(const uint8_t *column, part_place p, int bits)
{
    return shift_down(load16(column + p.at), p.shift) & (uint8_t)((1 << bits) - 1);
}

static inline void put_part(uint8_t *column, part_place p, int bits, bytes16 v)
{
    uint8_t mask = (uint8_t)((1 << bits) - 1);
    bytes16 old = load16(column + p.at) & (uint8_t) ~(mask << p.shift);
    store16(column + p.at, old | shift_up(v & mask, p.shift));
}

static void put_column(pl_panel_type t, pl_neuron_columns c, uint8_t *column, int64_t panel, bytes16 code)
{
    int low = t.bits == 8 ? 8 : pl_nibble_bits(t.bits);
    if (low)
        put_part(column, place_of(panel, low), low, code);
    if (pl_has_pairs(t.bits))
        put_part(column + c.pairs, place_of(panel, 2), 2, shift_down(code, low));
    if (pl_has_top(t.bits))
        put_part(column + c.top, place_of(panel, 1), 1, shift_down(code, t.bits - 1));
}

static inline bytes16 get_column(pl_panel_type t, pl_neuron_columns c, const uint8_t *column, int64_t panel)
{
    int low = t.bits == 8 ? 8 : pl_nibble_bits(t.bits);
    bytes16 code = low ? get_part(column, place_of(panel, low), low) : (bytes16){0};
    if (pl_has_pairs(t.bits))
        code |= shift_up(get_part(column + c.pairs, place_of(panel, 2), 2), low);
    if (pl_has_top(t.bits))
        code |= shift_up(get_part(column + c.top, place_of(panel, 1), 1), t.bits - 1);
    return code;
}

static const uint8_t *columns_at(const pl_weight *w, int64_t span)
{
    pl_neuron_columns c = pl_neuron_columns_of(pl_panel_describe(w->type), w->rows);
    return (const uint8_t *)w->data + (size_t)span * (c.heads + PL_SPAN * c.column);
}

static void put_columns(const pl_weight *w, int64_t panel, int64_t span, const pl_panel_group *groups, int n_groups,
                        const uint8_t *from)
{
    pl_panel_type t = pl_panel_describe(w->type);
    pl_neuron_columns c = pl_neuron_columns_of(t, w->rows);
    uint8_t *at = (uint8_t *)(uintptr_t)columns_at(w, span);
    memcpy(at + (size_t)panel * (size_t)t.head_bytes, from, (size_t)t.head_bytes);
    at += c.heads;
    for (int g = 0; g < 2 * n_groups; g++) {
        bytes16 v[16];
        for (int r = 0; r < 16; r++)
            v[r] = load16(groups[g / 2].code[r] + g % 2 * 16);
        transpose_bytes(v);
        for (int i = 0; i < 16; i++, at += c.column)
            put_column(t, c, at, panel, v[i]);
    }
}

/* Four rows of a lane become one word: 64 bytes of a panel's body. */
static void store_four(uint8_t *body, const bytes16 v[4])
{
    bytes16 low_a = low_bytes(v[0], v[1]), low_b = low_bytes(v[2], v[3]);
    bytes16 high_a = high_bytes(v[0], v[1]), high_b = high_bytes(v[2], v[3]);
    store16(body, low_halves(low_a, low_b));
    store16(body + 16, high_halves(low_a, low_b));
    store16(body + 32, low_halves(high_a, high_b));
    store16(body + 48, high_halves(high_a, high_b));
}

/* The body of a group as panel.h has it, from the codes of its columns. */
static void put_group(int bits, const bytes16 code[PL_GROUP], uint8_t *body)
{
    int low = pl_nibble_bits(bits);
    bytes16 v[4];
    for (int j = 0; j < 8 && bits == 8; j++, body += PL_CHUNK_BYTES)
        store_four(body, code + 4 * j);
    for (int j = 0; j < low && bits < 8; j++, body += PL_CHUNK_BYTES) {
        for (int i = 0; i < 4; i++)
            v[i] = (code[4 * j + i] & 15) | (shift_up(code[16 + 4 * j + i] & 15, 4));
        store_four(body, v);
    }
    for (int j = 0; j < 2 && pl_has_pairs(bits); j++, body += PL_CHUNK_BYTES) {
        for (int i = 0; i < 4; i++) {
            v[i] = (bytes16){0};
            for (int c = 0; c < 4; c++)
                v[i] |= shift_up(shift_down(code[16 * j + 4 * c + i], low) & 3, 2 * c);
        }
        store_four(body, v);
    }
    if (pl_has_top(bits)) {
        for (int i = 0; i < 4; i++) {
            v[i] = (bytes16){0};
            for (int c = 0; c < 8; c++)
                v[i] |= shift_up(shift_down(code[4 * c + i], bits - 1) & 1, c);
        }
        store_four(body, v);
    }
}

static inline __attribute__((always_inline)) void read_columns(pl_panel_type t, const pl_weight *w, int64_t panel,
                                                               int64_t span, int groups, uint8_t *work)
{
    pl_neuron_columns c = pl_neuron_columns_of(t, w->rows);
    const uint8_t *at = columns_at(w, span);
    memcpy(work, at + (size_t)panel * (size_t)t.head_bytes, (size_t)t.head_bytes);
    at += c.heads;
    for (int g = 0; g < groups; g++) {
        bytes16 code[PL_GROUP];
        for (int i = 0; i < PL_GROUP; i++, at += c.column)
            code[i] = get_column(t, c, at, panel);
        put_group(t.bits, code, work + t.head_bytes + g * pl_group_bytes(t));
    }
}

static void gather_columns(const pl_weight *w, int64_t panel, int64_t span, int groups, uint8_t *work)
{
    pl_panel_type t = pl_panel_describe(w->type);
    switch (t.bits) {
#define BITS_CASE(n)                                                                                                   \
    case n:                                                                                                            \
        t.bits = n;                                                                                                    \
        read_columns(t, w, panel, span, groups, work);                                                                 \
        break
        BITS_CASE(2);
        BITS_CASE(3);
        BITS_CASE(4);
        BITS_CASE(5);
        BITS_CASE(6);
        BITS_CASE(8);
#undef BITS_CASE
    default: break;
    }
}

/* ---- both ---- */

bool pl_neuron_fits(pl_dtype type, int64_t rows, int64_t cols, pl_weight_layout layout)
{
    pl_panel_type t = pl_panel_describe(type);
    if (t.bits == 0)
        return false;
    if (layout != PL_NEURON_COLUMNS)
        return true;
    if (cols > PL_NEURON_MAX_COLUMNS)
        return false;
    pl_neuron_columns c = pl_neuron_columns_of(t, rows);
    size_t spans = (size_t)((cols + PL_SPAN - 1) / PL_SPAN);
    return spans * c.heads + (size_t)cols * c.column <= (size_t)pl_panel_count(rows) * pl_panel_bytes(t, cols);
}

int pl_neuron_shared_panels(pl_dtype type, pl_weight_layout layout)
{
    int bits = pl_panel_describe(type).bits;
    if (layout != PL_NEURON_COLUMNS || bits == 8)
        return 1;
    return 4 * (pl_has_top(bits) ? 8 : pl_has_pairs(bits) ? 4 : 2);
}

void pl_neuron_put(const pl_weight *w, int64_t panel, int64_t span, const pl_panel_group *groups, int n_groups)
{
    uint8_t work[PL_NEURON_SPAN_BYTES] __attribute__((aligned(64)));
    pl_panel_put(w->type, work, groups, n_groups);
    if (w->layout == PL_NEURON_ROWS)
        put_rows(w, panel, span, n_groups, work);
    else
        put_columns(w, panel, span, groups, n_groups, work);
}

void pl_neuron_span(const pl_weight *w, int64_t panel, int64_t span, int groups, uint8_t *work)
{
    if (w->layout == PL_NEURON_COLUMNS) {
        gather_columns(w, panel, span, groups, work);
        return;
    }
    int32_t row[PL_PANEL_ROWS];
    for (int r = 0; r < PL_PANEL_ROWS; r++) {
        int64_t at = panel * PL_PANEL_ROWS + r;
        row[r] = (int32_t)(at < w->rows ? at : w->rows - 1);
    }
    pl_neuron_gather(w, row, span, groups, work);
}
