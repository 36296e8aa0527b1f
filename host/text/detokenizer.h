/* Text from tokens as they come. Never gives out part of a character; what it gave out is never taken back,
 * and all of it together equals pl_tokenizer_decode() of all ids. */
#ifndef PL_TEXT_DETOKENIZER_H
#define PL_TEXT_DETOKENIZER_H

#include "host/text/tokenizer.h"

typedef struct pl_detokenizer {
    const pl_tokenizer *tokenizer;
    bool skip_special;
    unsigned char *held; /* bytes of a run of byte pieces that is not finished */
    size_t n_held, held_room;
    char *out; /* the last result */
    size_t out_room;
} pl_detokenizer;

void pl_detokenizer_init(pl_detokenizer *d, const pl_tokenizer *tokenizer, bool skip_special);
void pl_detokenizer_free(pl_detokenizer *d);

/* Takes the memory that any piece and any run of up to PL_DETOKENIZER_RUN byte pieces need, so that pushing them
 * allocates nothing. */
#define PL_DETOKENIZER_RUN 256
pl_status pl_detokenizer_reserve(pl_detokenizer *d, pl_error *err);

/* *text (valid until the next call): what can be shown after this token. Allocates only to grow. */
pl_status pl_detokenizer_push(pl_detokenizer *d, int32_t id, const char **text, size_t *n, pl_error *err);

/* Writes the bytes of one piece by itself to out[PL_MAX_PIECE_BYTES], returns how many: of a byte piece its byte, of an id
 * that is none 0. */
size_t pl_piece_bytes(const pl_tokenizer *tokenizer, int32_t id, char *out);

/* What is left at the end of the stream. */
pl_status pl_detokenizer_finish(pl_detokenizer *d, const char **text, size_t *n, pl_error *err);

#endif
