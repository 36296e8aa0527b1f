/* The Gemma tokenizer: BPE over whole pieces of text, byte fallback, added tokens.
 * Source: tokenizer.json of Gemma 3 / 3n as Hugging Face tokenizers 0.23 reads it. */
#ifndef PL_TEXT_TOKENIZER_H
#define PL_TEXT_TOKENIZER_H

#include "host/base/status.h"

typedef struct pl_tokenizer pl_tokenizer;

/* Same facts as pl_pieces of host/model/checkpoint.h, passed apart since text/ does not see model/. */
typedef struct pl_vocabulary {
    int32_t n;
    const char *text;
    const uint64_t *offset;
    const float *score;
    const int32_t *kind;
} pl_vocabulary;

/* json: path of a tokenizer.json. What is derived from it is kept in cache_dir (NULL: no cache) under a
 * name made of the file's content, and mapped at the next start; a damaged, foreign or unwritable cache is
 * ignored. */
pl_status pl_tokenizer_from_json(const char *path, const char *cache_dir, pl_tokenizer **out, pl_error *err);

/* From a GGUF vocabulary; `where` names the file, cache_dir as above. Nothing is borrowed after return. */
pl_status pl_tokenizer_from_vocabulary(const pl_vocabulary *vocabulary, const char *where, const char *cache_dir,
                                       pl_tokenizer **out, pl_error *err);
void pl_tokenizer_free(pl_tokenizer *tokenizer);

/* One more than the largest id. */
int32_t pl_tokenizer_size(const pl_tokenizer *tokenizer);

/* The id of a piece or added token written exactly so, or -1. */
int32_t pl_tokenizer_id(const pl_tokenizer *tokenizer, const char *text, size_t n);

/* True for control tokens (<bos>, <start_of_turn>, media markers ...). */
bool pl_tokenizer_is_special(const pl_tokenizer *tokenizer, int32_t id);

/* Appends the ids of text to out (see pl_ids). special: control tokens written in the text are recognised.
 * Any bytes are accepted. <bos> is never added. */
typedef struct pl_ids {
    int32_t *v; /* malloc'ed; pl_ids_free */
    size_t n, room;
} pl_ids;
void pl_ids_free(pl_ids *ids);
pl_status pl_ids_reserve(pl_ids *ids, size_t more, pl_error *err);
pl_status pl_ids_push(pl_ids *ids, int32_t id, pl_error *err);

pl_status pl_tokenizer_encode(const pl_tokenizer *tokenizer, const char *text, size_t n, bool special, pl_ids *out,
                              pl_error *err);

/* The text of ids, as Hugging Face's decode gives it; PL_ERR_ARGUMENT names the first id out of range. */
pl_status pl_tokenizer_decode(const pl_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                              char **text, size_t *n_bytes, pl_error *err);

#endif
