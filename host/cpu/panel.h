/* Panels: block-typed weights as the matrix kernels read them.
 *
 * A panel holds 16 rows of the matrix, the last one of a matrix filled up with rows of zeros. Along k it is
 * a sequence of spans of 256 columns, each a head with the scales of 16 rows and a body; the last span of a
 * row that is not a multiple of 256 has a full head and a shorter body. A body is a sequence of groups of 32
 * columns, in which 64 bytes (or what unpacks to them) are 16 rows times 4 columns: chunk c of a group holds
 * at byte 4 * row + t the code of column 4 * c + t. That is the operand of vpdpbusd: one 32-bit lane a row.
 *
 *     codes of a group, by their bits in store: a code's low bits first
 *         2      pairs [2][64]  byte c / 4, bits 2 (c mod 4) and up: chunk c
 *         3      pairs, top [64]  bit c is the highest bit of chunk c
 *         4      nibbles [4][64]  byte: chunk j in the low nibble, chunk j + 4 in the high one
 *         5      nibbles, top
 *         6      nibbles, pairs
 *         8      bytes [8][64]
 *     heads   Q4_0 Q5_0 Q8_0 IQ4_NL  f16 d [8][16]
 *             Q4_1 Q5_1              f16 d [8][16], m [8][16]
 *             Q2_K                   f16 d [16], dmin [16]; u8 [16][16]: scale in the low nibble, minimum in the high
 *             Q4_K Q5_K              f16 d [16], dmin [16]; u8 scale [8][16], minimum [8][16]
 *             Q3_K Q6_K              f16 d [16]; i8 scale [16][16]; 32 bytes unused
 *             IQ4_XS                 f16 d [16]; i8 scale [8][16]; 32 bytes unused
 *             MXFP4                  u8 e [8][16], as in the file
 *             NVFP4                  u8 d [16][16]: the file's E4M3 without the unused bit, 0 in place of 127
 *
 * Codes are unsigned: a value is d * (code - offset), or d * code + m. Types with a table of values store the
 * place in the table; its code is the value there plus the offset. A panel is at most 3 % larger than its rows in
 * the file, of Q3_K 6 %. */
#ifndef PL_CPU_PANEL_H
#define PL_CPU_PANEL_H

#include "quant/blocks.h"

#define PL_PANEL_ROWS 16
#define PL_GROUP 32 /* columns */
#define PL_SPAN 256 /* columns */
#define PL_SPAN_GROUPS (PL_SPAN / PL_GROUP)
#define PL_CHUNK_BYTES 64

/* All types that are packed into panels, for code that is compiled for each. */
#define PL_EACH_PANEL_TYPE(of)                                                                                         \
    of(PL_Q4_0) of(PL_Q4_1) of(PL_Q5_0) of(PL_Q5_1) of(PL_Q8_0) of(PL_Q2_K) of(PL_Q3_K) of(PL_Q4_K) of(PL_Q5_K)        \
        of(PL_Q6_K) of(PL_IQ4_NL) of(PL_IQ4_XS) of(PL_MXFP4) of(PL_NVFP4)

/* How the codes of a group become values. */
typedef enum pl_panel_kind {
    PL_PANEL_OFFSET,     /* d * (code - offset), one d for 32 columns */
    PL_PANEL_HALVES,     /* the same, one d for 16 columns */
    PL_PANEL_MIN,        /* d * code + m, one of each for 32 columns */
    PL_PANEL_MIN_HALVES, /* the same, one of each for 16 columns */
} pl_panel_kind;

typedef struct pl_panel_type {
    pl_panel_kind kind;
    int bits; /* of a code in store; 0: the type has no panels */
    int offset;
    int head_bytes;
    const int8_t *values; /* the table of 16, or NULL */
} pl_panel_type;

static inline pl_panel_type pl_panel_describe(pl_dtype type)
{
    switch (type) {
    case PL_Q4_0: return (pl_panel_type){PL_PANEL_OFFSET, 4, 8, 256, NULL};
    case PL_Q4_1: return (pl_panel_type){PL_PANEL_MIN, 4, 0, 512, NULL};
    case PL_Q5_0: return (pl_panel_type){PL_PANEL_OFFSET, 5, 16, 256, NULL};
    case PL_Q5_1: return (pl_panel_type){PL_PANEL_MIN, 5, 0, 512, NULL};
    case PL_Q8_0: return (pl_panel_type){PL_PANEL_OFFSET, 8, 128, 256, NULL};
    case PL_Q2_K: return (pl_panel_type){PL_PANEL_MIN_HALVES, 2, 0, 320, NULL};
    case PL_Q3_K: return (pl_panel_type){PL_PANEL_HALVES, 3, 4, 320, NULL};
    case PL_Q4_K: return (pl_panel_type){PL_PANEL_MIN, 4, 0, 320, NULL};
    case PL_Q5_K: return (pl_panel_type){PL_PANEL_MIN, 5, 0, 320, NULL};
    case PL_Q6_K: return (pl_panel_type){PL_PANEL_HALVES, 6, 32, 320, NULL};
    case PL_IQ4_NL: return (pl_panel_type){PL_PANEL_OFFSET, 4, 128, 256, pl_iq4_values};
    case PL_IQ4_XS: return (pl_panel_type){PL_PANEL_OFFSET, 4, 128, 192, pl_iq4_values};
    case PL_MXFP4: return (pl_panel_type){PL_PANEL_OFFSET, 4, 12, 128, pl_e2m1_doubled};
    case PL_NVFP4: return (pl_panel_type){PL_PANEL_HALVES, 4, 12, 256, pl_e2m1_doubled};
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return (pl_panel_type){PL_PANEL_OFFSET, 0, 0, 0, NULL};
}

static inline int pl_has_halves(pl_panel_kind kind)
{
    return kind == PL_PANEL_HALVES || kind == PL_PANEL_MIN_HALVES;
}

static inline int pl_has_minimum(pl_panel_kind kind)
{
    return kind == PL_PANEL_MIN || kind == PL_PANEL_MIN_HALVES;
}

/* Of a code when it is unpacked: values of a table may take more than their place in it. */
static inline int pl_code_bits(pl_panel_type t)
{
    return !t.values ? t.bits : t.offset < 16 ? 5 : 8;
}

/* What a group consists of, by the bits of a code. Nibbles: how many of the bits, and so many times 64 bytes. */
static inline int pl_nibble_bits(int bits)
{
    return bits < 4 ? 0 : 4;
}

static inline int pl_has_pairs(int bits)
{
    return bits == 2 || bits == 3 || bits == 6;
}

static inline int pl_has_top(int bits)
{
    return bits == 3 || bits == 5;
}

static inline int pl_group_bytes(pl_panel_type t)
{
    return t.bits * PL_CHUNK_BYTES;
}

static inline size_t pl_span_bytes(pl_panel_type t)
{
    return (size_t)t.head_bytes + PL_SPAN_GROUPS * (size_t)pl_group_bytes(t);
}

/* Bytes of one panel of `cols` columns, a multiple of 64. */
static inline size_t pl_panel_bytes(pl_panel_type t, int64_t cols)
{
    size_t spans = (size_t)(cols / PL_SPAN), rest = (size_t)(cols % PL_SPAN) / PL_GROUP;
    return spans * pl_span_bytes(t) + (rest ? (size_t)t.head_bytes + rest * (size_t)pl_group_bytes(t) : 0);
}

static inline int64_t pl_panel_count(int64_t rows)
{
    return (rows + PL_PANEL_ROWS - 1) / PL_PANEL_ROWS;
}

/* What blocks say about one group of 32 columns, of the 16 rows of a panel. */
typedef struct pl_panel_group {
    uint8_t code[PL_PANEL_ROWS][PL_GROUP]; /* as they are in store */
    uint16_t d[PL_PANEL_ROWS];             /* f16 bits */
    uint16_t m[PL_PANEL_ROWS];             /* likewise: the minimum's scale, where the type has one */
    uint8_t scale[2][PL_PANEL_ROWS];       /* of the group, or of its halves */
    uint8_t minimum[2][PL_PANEL_ROWS];
} pl_panel_group;

/* The value of column i is d[i / 16] * (code[i] - offset) + m[i / 16]. */
typedef struct pl_group_values {
    uint8_t code[PL_GROUP];
    float d[2], m[2];
} pl_group_values;

/* A span of n_groups groups. */
void pl_panel_put(pl_dtype type, uint8_t *span, const pl_panel_group *groups, int n_groups);

/* Group `group` and row `row` of a span. */
void pl_panel_get(pl_dtype type, const uint8_t *span, int group, int row, pl_group_values *g);

#endif
