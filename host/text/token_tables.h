/* The tables that encoding and decoding read: one block of memory without pointers, the same whether just
 * built or mapped from a cache file.
 *
 *     header | piece slots | pair slots | nodes | offset | result | pages | flags | text      (each on 64 bytes)
 */
#ifndef PL_TEXT_TOKEN_TABLES_H
#define PL_TEXT_TOKEN_TABLES_H

#include "host/text/token_source.h"

#define PL_NO_ID UINT32_MAX
#define PL_NO_RANK UINT32_MAX
#define PL_PAGE_CHARS 256
#define PL_N_PAGES (0x110000 / PL_PAGE_CHARS)

/* A byte of an added token; those that share a beginning share nodes. Links lead to later nodes only. */
typedef struct pl_added_node {
    uint32_t child, next; /* first of the bytes that may follow, next alternative to this byte; 0: none */
    uint32_t id;          /* of the token that ends here, or PL_NO_ID */
    uint32_t byte;
} pl_added_node;

typedef struct pl_tables_header {
    char magic[8];
    uint64_t checksum; /* of everything after this field */
    uint64_t bytes;    /* of the whole block */
    uint32_t version, byte_order;
    uint64_t source[2]; /* hash of the file that this was made from */
    uint64_t text_bytes;
    uint32_t n_pieces, n_merges, n_pages, n_nodes;
    uint32_t piece_bits, pair_bits;
    uint32_t byte_id[256];   /* the piece of each byte */
    uint32_t root[256];      /* the node of an added token's first byte; 0: none */
    uint8_t join_after[256]; /* 1: some merge joins a piece that ends in this byte with one that starts with U+2581 */
    uint16_t page_of[PL_N_PAGES];
} pl_tables_header;

typedef struct pl_token_tables {
    const pl_tables_header *head;
    pl_piece_index index;
    const uint64_t *pair; /* [1 << pair_bits] left << 43 | right << 22 | rank, or PL_SLOT_EMPTY */
    const pl_added_node *node;
    const uint32_t *result; /* [n_merges] by rank */
    const uint32_t *page;   /* [n_pages][PL_PAGE_CHARS] ids of single characters; page 0 has none */
    const uint8_t *flags;   /* [n_pieces] */
} pl_token_tables;

/* *image: malloc'ed; out reads from it. */
pl_status pl_token_tables_build(const pl_token_source *src, void **image, pl_token_tables *out, pl_error *err);

/* Enters the checksum, for an image that will be written to a file. */
void pl_token_tables_seal(void *image);

/* Checks every number in an image before anything follows it; false when it is damaged or was made by
 * another version or from another source. */
bool pl_token_tables_bind(const void *image, size_t n_bytes, const uint64_t source[2], pl_token_tables *out);

static inline uint64_t pl_pair_hash(uint64_t pair, uint64_t seed)
{
    __extension__ unsigned __int128 product = (unsigned __int128)(pair ^ seed) * 0x9e3779b97f4a7c15u;
    return ((uint64_t)product ^ (uint64_t)(product >> 64)) * 0xd6e8feb86659fd93u;
}

/* The rank of the merge of two pieces, or PL_NO_RANK. */
static inline uint32_t pl_pair_rank(const pl_token_tables *t, uint32_t left, uint32_t right)
{
    uint64_t pair = (uint64_t)left << 21 | right;
    uint32_t bits = t->head->pair_bits;
    size_t mask = ((size_t)1 << bits) - 1;
    for (size_t at = (size_t)(pl_pair_hash(pair, t->index.seed) >> (64 - bits));; at = (at + 1) & mask) {
        uint64_t slot = t->pair[at];
        if (slot >> 22 == pair)
            return (uint32_t)slot & PL_MAX_MERGES;
        if (slot == PL_SLOT_EMPTY)
            return PL_NO_RANK;
    }
}

/* The piece of one character, or PL_NO_ID. */
static inline uint32_t pl_char_id(const pl_token_tables *t, uint32_t code)
{
    return t->page[(size_t)t->head->page_of[code / PL_PAGE_CHARS] * PL_PAGE_CHARS + code % PL_PAGE_CHARS];
}

/* The longest added token at the start of text[0..n): its length and id; 0 when there is none. */
size_t pl_added_match(const pl_token_tables *t, const char *text, size_t n, uint32_t *id);

#endif
