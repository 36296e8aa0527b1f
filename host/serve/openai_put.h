/* What the answers of OpenAI's chat and text completions have in common. */
#ifndef PL_SERVE_OPENAI_PUT_H
#define PL_SERVE_OPENAI_PUT_H

#include "host/serve/call.h"

/* Names what answers could depend on: the program, the backend and the model. */
#define PL_OPENAI_FINGERPRINT 16
void pl_openai_fingerprint(const pl_call *call, char out[PL_OPENAI_FINGERPRINT]);

/* Begins an object with id (prefix and the call's), object, created, model, system_fingerprint. */
void pl_openai_begin(const pl_call *call, const char *prefix, const char *object, const char *fingerprint,
                     pl_json *json);

/* "usage", of all choices so far. */
void pl_openai_put_usage(const pl_call *call, pl_json *json);

/* {"stream_options": {"include_usage": ...}}, which only a streamed call may have. */
bool pl_openai_read_stream_options(pl_fields *f, bool stream);

/* An event with the error, and the end of the stream. */
void pl_openai_fail(pl_call *call, const pl_api_error *error, pl_strbuf *out);
void pl_openai_done(pl_strbuf *out);

/* The rest of a whole response: all choices, each with `index` and what `put` appends, usage, how it was served. */
typedef void (*pl_openai_choice_fn)(const pl_call *call, int32_t choice, pl_json *json);
void pl_openai_put_choices(const pl_call *call, pl_openai_choice_fn put, pl_json *json);

#endif
