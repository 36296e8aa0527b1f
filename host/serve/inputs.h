/* Texts and token ids as completions and embeddings take them. */
#ifndef PL_SERVE_INPUTS_H
#define PL_SERVE_INPUTS_H

#include "host/serve/call.h"

/* An array of token ids below `limit`; name is for messages. False: told to f. pl_tokens_free() */
bool pl_read_ids(pl_fields *f, const char *name, const json_t *array, int32_t limit, pl_tokens *out);

/* The field `name`: a text, an array of texts, of ids or of arrays of ids, at most `max` inputs; they become the spec's
 * prompts. flags: pl_tokenize()'s, for texts; ids are taken as they are. */
void pl_read_inputs(pl_call *call, pl_fields *f, const char *name, size_t max, unsigned flags, pl_call_spec *spec);

#endif
