/* Byte pair encoding of plain text: always join the two neighbours whose merge has the lowest rank, the
 * leftmost first.
 *
 * The reference does this on all text between added tokens at once. Here the text is cut before a U+2581 (a
 * space, that is) that follows something else, and each word is done alone. That gives the same pieces: what
 * happens in a word depends on its own pieces only, unless some merge joins a piece that ends before such a
 * place with one that starts at it. Which bytes such left pieces end in is known from the merges
 * (join_after); after those bytes nothing is cut. In the published Gemma 3 file there is one such merge,
 * after '>'. */
#ifndef PL_TEXT_BPE_H
#define PL_TEXT_BPE_H

#include "host/text/token_tables.h"
#include "host/text/tokenizer.h"

/* Memory for words, kept between calls; start from zeros. */
typedef struct pl_bpe_work {
    uint32_t *id; /* the pieces of the word */
    size_t room;
    uint32_t *links; /* long words: previous, next, rank */
    uint64_t *heap;
    size_t long_room;
} pl_bpe_work;

void pl_bpe_work_free(pl_bpe_work *work);

/* Appends the ids of text[0..n), n < 2^32, to out. Added tokens are not looked for. A byte that is not part of
 * a UTF-8 character, and each byte of a character without a piece, becomes the piece of that byte. */
pl_status pl_bpe_encode(const pl_token_tables *t, const char *text, size_t n, pl_bpe_work *work, pl_ids *out,
                        pl_error *err);

#endif
