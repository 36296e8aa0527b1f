/* Prompts in which images and sound stand. In the text a placeholder stands for each, "<image_soft_token>" or
 * "<audio_soft_token>"; it becomes two newlines, the ids of what it stands for, two newlines, before the text is cut into
 * tokens: newlines beside it merge into one token.
 * Source: Gemma3nProcessor of Hugging Face transformers 5.23. */
#ifndef PL_TEXT_INSERT_H
#define PL_TEXT_INSERT_H

#include "host/text/chat.h"

typedef struct pl_insert {
    pl_part_kind kind;  /* PL_PART_IMAGE, PL_PART_AUDIO */
    int32_t begin, end; /* ids around it */
    const int32_t *ids;
    size_t n;
} pl_insert;

/* pl_tokenizer_encode() of such a text; those of one kind are taken in order. PL_ERR_ARGUMENT: there are not as many of a
 * kind as placeholders. */
pl_status pl_tokenizer_encode_with(const pl_tokenizer *tokenizer, const char *text, size_t n, bool special,
                                   const pl_insert *inserts, size_t n_inserts, pl_ids *out, pl_error *err);

#endif
