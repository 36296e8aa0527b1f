/* Gemma 3n's chat template.
 *
 * The template text that a file carries is recognised, not interpreted: a file whose template is one of the
 * known equivalents renders here; any other is refused by name, so that a chat is never rendered
 * wrongly in silence.
 * Source: the published chat templates of Gemma 3 and 3n as Hugging Face transformers 5.23 runs them. */
#ifndef PL_TEXT_CHAT_H
#define PL_TEXT_CHAT_H

#include "host/text/tokenizer.h"

/* One part of a message. */
typedef enum pl_part_kind { PL_PART_TEXT, PL_PART_IMAGE, PL_PART_AUDIO } pl_part_kind;
typedef struct pl_part {
    pl_part_kind kind;
    const char *text; /* PL_PART_TEXT: n bytes */
    size_t n;
} pl_part;

typedef struct pl_turn {
    const char *role; /* system (first only), user, assistant or model */
    const pl_part *parts;
    size_t n_parts;
} pl_turn;

/* PL_OK for the templates that this file renders: Gemma 3's, Gemma 3n's and rewordings of them; else
 * PL_ERR_UNSUPPORTED with the first thing that they do not have, or have and this one lacks. */
pl_status pl_chat_template_check(const char *text, pl_error *err);

/* Renders turns: <bos>, then <start_of_turn>ROLE\n, the parts and <end_of_turn>\n for each; with reply the
 * opening of a model turn. White space (Python's) around each text part goes; assistant is written model; the
 * first part of a system message stands before the first turn's parts, untouched, and its other parts are
 * ignored. As in the template any role but user is taken where the model's turn is.
 * *text is malloc'ed, NUL-terminated. Errors name the turn: roles that do not alternate starting with
 * user, a system message that does not start with text. */
pl_status pl_chat_render(const pl_turn *turns, size_t n, bool reply, char **text, size_t *n_bytes, pl_error *err);

/* The same from JSON: an array of {"role", "content": string or [{"type":"text","text":...}, {"type":"image"} ...]},
 * or an object {"messages": [...], "add_generation_prompt": bool}. reply is used where the JSON does not say.
 * As in the template, parts of other types than text, image and audio stand for nothing. */
pl_status pl_chat_render_json(const char *json, size_t n, bool reply, char **text, size_t *n_bytes, pl_error *err);

#endif
