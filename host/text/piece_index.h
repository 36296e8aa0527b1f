/* From a piece's text to its id: an open-addressed table of ids with part of the hash beside each, so that a
 * miss rarely touches the text. The seed comes from the content of the tokenizer's file, so that no
 * file can be written whose pieces all fall on one slot. */
#ifndef PL_TEXT_PIECE_INDEX_H
#define PL_TEXT_PIECE_INDEX_H

#include <stddef.h>
#include <stdint.h>

#define PL_SLOT_EMPTY UINT64_MAX

typedef struct pl_piece_index {
    const char *text; /* piece i is text[offset[i] .. offset[i + 1]) */
    const uint32_t *offset;
    const uint64_t *slot; /* [1 << bits] low bits of the hash << 32 | id, or PL_SLOT_EMPTY */
    uint32_t bits;
    uint64_t seed;
} pl_piece_index;

/* The number of bits that keeps a table of n entries at most two thirds full. */
uint32_t pl_index_bits(size_t n);

/* The id of the piece written text[0..n), or -1. */
int32_t pl_piece_find(const pl_piece_index *index, const char *text, size_t n);

/* Enters piece id into slot, the table that index reads. Returns the piece that already has this text, or -1. */
int32_t pl_piece_enter(const pl_piece_index *index, uint64_t *slot, uint32_t id);

#endif
