/* A conversation of any API as the turns that Gemma knows: user and model in turn, user first, what the system says in
 * front of the first.
 *
 * System texts are joined in the order they come; consecutive turns of one side become one, with a blank line between.
 * Functions stand in the system's text with the sentences of Gemma's documentation, calls of them are written as the
 * model writes them, and results are the user's: {"name": ..., "response": ...}. Images and sound stand where they were shown,
 * with nothing between them and the text around them. A text that says "<image_soft_token>" shows none: it gets a space
 * of no width.
 * Source: https://ai.google.dev/gemma/docs/capabilities/function-calling */
#ifndef PL_SERVE_CONVERSATION_H
#define PL_SERVE_CONVERSATION_H

#include "host/base/strbuf.h"
#include "host/serve/media_part.h"

typedef struct pl_conversation pl_conversation;

typedef enum pl_speaker { PL_SPEAKER_SYSTEM, PL_SPEAKER_USER, PL_SPEAKER_MODEL } pl_speaker;

pl_status pl_conversation_create(pl_conversation **out, pl_error *err);
void pl_conversation_free(pl_conversation *c);

/* ---- what was said, in order; failures (memory) are kept and told by pl_conversation_tokens() ---- */

void pl_conversation_say(pl_conversation *c, pl_speaker speaker, const char *text, size_t n);

/* The user shows an image or lets hear a sound; takes the part. */
void pl_conversation_show(pl_conversation *c, pl_media_part *part);

/* The model called a function; id may be NULL. Calls that follow one another are one array. arguments: a JSON object,
 * "" for none. */
void pl_conversation_call(pl_conversation *c, const char *id, const char *name, const char *arguments, size_t n);

/* What the function gave back. name: NULL for that of the call with this id. False: there is no such call. */
bool pl_conversation_result(pl_conversation *c, const char *id, const char *name, const char *text, size_t n);

/* An array of {"name", "description", "parameters"}; may be called at any time, once. */
void pl_conversation_offer(pl_conversation *c, const json_t *tools, bool parallel);

/* ---- */

/* What was shown, in order: the i-th, or NULL; to be encoded before pl_conversation_tokens(). */
pl_media_part *pl_conversation_shown(pl_conversation *c, size_t i);

/* The prompt for what the model says next. Where the last thing said is text of the model, it is continued. */
pl_status pl_conversation_tokens(pl_conversation *c, const pl_model *model, pl_tokens *out, pl_error *err);

/* The same as text; without reply, the last turn is ended. What was shown is a placeholder. free() */
pl_status pl_conversation_text(pl_conversation *c, const pl_model *model, bool reply, char **out, size_t *n_bytes,
                               pl_error *err);

#endif
