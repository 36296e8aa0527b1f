/* Panels: block-typed weights as the matrix kernels read them.
 *
 * A panel holds 16 rows of the matrix, the last one of a matrix filled up with rows of zeros. Along k it is
 * a sequence of spans of 256 columns, each a head with the scales of 16 rows and a body; the last span of a
 * row that is not a multiple of 256 has a full head and a shorter body. A body is a sequence of groups of 32
 * columns, in which 64 bytes (or what unpacks to them) are 16 rows times 4 columns: chunk c of a group holds
 * at byte 4 * row + t the code of column 4 * c + t. That is the operand of vpdpbusd: one 32-bit lane a row.
 *
 *     codes of a group   low   [4][64]  byte: chunk j in the low nibble, chunk j + 4 in the high one
 *                        fifth [64]     Q5_*: bit c is the fifth bit of chunk c
 *                        upper [2][64]  Q6_K: byte j / 4, bits 2 (j mod 4) and up: bits 4 and 5 of chunk j
 *                        bytes [8][64]  Q8_0: q + 128
 *     heads   Q4_0 Q5_0 Q8_0   f16 d [8][16]
 *             Q4_1 Q5_1        f16 d [8][16], m [8][16]
 *             Q4_K Q5_K        f16 d [16], dmin [16]; u8 scale [8][16], minimum [8][16]
 *             Q6_K             f16 d [16]; i8 scale [16][16]; 32 bytes unused
 *
 * Codes are unsigned: a value is d * (code - offset), or d * code + m. A panel is at most 3 % larger than its rows in the file. */
#ifndef PL_CPU_PANEL_H
#define PL_CPU_PANEL_H

#include "quant/blocks.h"

#define PL_PANEL_ROWS 16
#define PL_GROUP 32 /* columns */
#define PL_SPAN 256 /* columns */
#define PL_SPAN_GROUPS (PL_SPAN / PL_GROUP)
#define PL_CHUNK_BYTES 64

/* How the codes of a group become values. */
typedef enum pl_panel_kind {
    PL_PANEL_OFFSET, /* d * (code - offset), one d for 32 columns */
    PL_PANEL_HALVES, /* the same, one d for 16 columns */
    PL_PANEL_MIN,    /* d * code + m */
} pl_panel_kind;

typedef struct pl_panel_type {
    pl_panel_kind kind;
    int offset;
    int head_bytes;
    int group_bytes;
} pl_panel_type;

static inline pl_panel_type pl_panel_describe(pl_dtype type)
{
    switch (type) {
    case PL_Q4_0: return (pl_panel_type){PL_PANEL_OFFSET, 8, 256, 256};
    case PL_Q4_1: return (pl_panel_type){PL_PANEL_MIN, 0, 512, 256};
    case PL_Q5_0: return (pl_panel_type){PL_PANEL_OFFSET, 16, 256, 320};
    case PL_Q5_1: return (pl_panel_type){PL_PANEL_MIN, 0, 512, 320};
    case PL_Q8_0: return (pl_panel_type){PL_PANEL_OFFSET, 128, 256, 512};
    case PL_Q4_K: return (pl_panel_type){PL_PANEL_MIN, 0, 320, 256};
    case PL_Q5_K: return (pl_panel_type){PL_PANEL_MIN, 0, 320, 320};
    case PL_Q6_K: return (pl_panel_type){PL_PANEL_HALVES, 32, 320, 384};
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return (pl_panel_type){0};
}

static inline size_t pl_span_bytes(pl_panel_type t)
{
    return (size_t)t.head_bytes + PL_SPAN_GROUPS * (size_t)t.group_bytes;
}

/* Bytes of one panel of `cols` columns, a multiple of 64. */
static inline size_t pl_panel_bytes(pl_panel_type t, int64_t cols)
{
    size_t spans = (size_t)(cols / PL_SPAN), rest = (size_t)(cols % PL_SPAN) / PL_GROUP;
    return spans * pl_span_bytes(t) + (rest ? (size_t)t.head_bytes + rest * (size_t)t.group_bytes : 0);
}

static inline int64_t pl_panel_count(int64_t rows)
{
    return (rows + PL_PANEL_ROWS - 1) / PL_PANEL_ROWS;
}

#endif
