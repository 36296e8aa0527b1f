/* What a tokenizer file says, in one form for every format: pieces by id, then merges by rank. */
#ifndef PL_TEXT_TOKEN_SOURCE_H
#define PL_TEXT_TOKEN_SOURCE_H

#include "host/base/status.h"
#include "host/text/piece_index.h"
#include "host/text/tokenizer.h"

#define PL_MAX_PIECES ((1 << 21) - 1) /* ids and ranks share one word in the pair table */
#define PL_MAX_MERGES ((1 << 22) - 1)
#define PL_MAX_PIECE_BYTES 1024 /* bounds the work at each byte of a text; the longest known has 93 */

enum {
    PL_PIECE_SPECIAL = 1, /* control token: matched only where asked for, left out by skip_special */
    PL_PIECE_ADDED = 2,   /* matched in the text before BPE */
    PL_PIECE_BYTE = 4,    /* "<0xHH>": decodes to that byte */
    PL_PIECE_MODEL = 8,   /* known to BPE */
    PL_PIECE_HIDDEN = 16, /* a slot that no text stands for */
};

typedef struct pl_merge {
    uint32_t left, right, result;
} pl_merge;

typedef struct pl_token_source {
    const char *where;  /* borrowed; names the file in messages */
    uint64_t source[2]; /* hash of the content, which also seeds the tables */
    uint32_t n;
    char *text;
    size_t text_bytes, text_room;
    uint32_t *offset; /* [n + 1] */
    uint8_t *flags;   /* [n] */
    size_t piece_room;
    uint64_t *slot;
    pl_piece_index index;
    pl_merge *merge; /* the lower the place, the earlier */
    size_t n_merges, merge_room;
} pl_token_source;

void pl_token_source_init(pl_token_source *src, const char *where, const uint64_t source[2]);
void pl_token_source_free(pl_token_source *src);

/* The next id's piece; PL_PIECE_BYTE is added where the text says so. Refuses text that is
 * empty, too long or not UTF-8. */
pl_status pl_token_source_piece(pl_token_source *src, const char *text, size_t n, unsigned flags, pl_error *err);

/* After the last piece: makes pl_token_source_find() work; refuses two pieces with one text. */
pl_status pl_token_source_index(pl_token_source *src, pl_error *err);

/* The id of the model's piece text[0..n), or -1. */
int32_t pl_token_source_find(const pl_token_source *src, const char *text, size_t n);

pl_status pl_token_source_merge(pl_token_source *src, uint32_t left, uint32_t right, uint32_t result, pl_error *err);

/* The two readers; src has been initialised. On failure it holds what was read so far. */
pl_status pl_token_source_from_json(const char *json, size_t n, pl_token_source *src, pl_error *err);
pl_status pl_token_source_from_vocabulary(const pl_vocabulary *vocabulary, pl_token_source *src, pl_error *err);

/* The byte that a piece "<0xHH>" stands for, or -1. */
int pl_piece_byte(const char *text, size_t n);

#endif
