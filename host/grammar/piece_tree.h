/* The inside of the index of pieces: trees of them byte by byte, in order of depth first. */
#ifndef PL_GRAMMAR_PIECE_TREE_H
#define PL_GRAMMAR_PIECE_TREE_H

#include "host/grammar/grammar.h"

/* A byte behind those of the nodes it is below. */
typedef struct pl_piece_node {
    uint32_t skip;  /* the next node that is not below this one */
    uint32_t below; /* sorts of bytes in the nodes below, a bit each: pl_byte_sort() */
    uint32_t id;    /* in ids: the first piece that ends here; the next node's are behind the last */
    uint16_t depth; /* from 1 */
    uint8_t height; /* of what is below; 255: that or more */
    uint8_t byte;
} pl_piece_node;

typedef struct pl_pieces_by_byte {
    pl_piece_node *node; /* one more than n, for its id */
    uint32_t n;
} pl_pieces_by_byte;

/* Bytes that grammars mostly treat alike are of one sort, 0 to 31. */
static inline unsigned pl_byte_sort(uint8_t b)
{
    if (b >= 0x80)
        return b < 0xc0 ? 0 : b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3;
    if (b >= '0' && b <= '9')
        return 4;
    if ((b | 0x20) >= 'a' && (b | 0x20) <= 'z')
        return ((b | 0x20) <= 'f' ? 5 : 6) + (b & 0x20 ? 2 : 0);
    switch (b) {
    case ' ': return 9;
    case '\n': return 10;
    case '\t': return 11;
    case '_': return 12;
    case '-': return 13;
    case '"': return 14;
    case '\\': return 15;
    case '.': return 16;
    case ',': return 17;
    case '\'': return 18;
    case '<':
    case '>': return 19;
    case '/':
    case '*': return 20;
    default: return b < 0x20 || b == 0x7f ? 21 : b < '0' ? 22 : 23;
    }
}

#define PL_BYTE_SORTS 24

/* A plain piece is of whole characters, none of them a control character, a quote or a backslash, and not too many: they
 * are most of a vocabulary, and inside strings all alike but for their length. */
#define PL_PLAIN_CHARS 32

struct pl_piece_tree {
    const pl_tokenizer *tokenizer;
    int32_t vocab, n_pieces;
    size_t n_words; /* of a mask */
    pl_pieces_by_byte all;
    pl_pieces_by_byte odd; /* those that are not plain */
    uint32_t *ids;
    uint32_t longest; /* bytes of a piece */
    uint32_t *plain;  /* [PL_PLAIN_CHARS + 1][n_words] masks of the plain pieces of at most so many characters */
    int32_t *eos;
    int n_eos;
};

static inline const uint32_t *pl_piece_tree_plain(const pl_piece_tree *tree, uint32_t chars)
{
    return tree->plain + chars * tree->n_words;
}

#endif
