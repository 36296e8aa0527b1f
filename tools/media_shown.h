/* What the user shows or lets the model hear with a turn: it stands before the turn's text. */
#ifndef PL_TOOLS_MEDIA_SHOWN_H
#define PL_TOOLS_MEDIA_SHOWN_H

#include "host/base/json_out.h"
#include "tools/opened.h"

typedef struct pl_shown_part {
    char *text;      /* stands before it: the time of a frame; NULL: nothing */
    char *file;      /* where it is from */
    pl_media *media; /* a reference */
} pl_shown_part;

typedef struct pl_showing {
    pl_shown_part *parts;
    size_t n, room;
    size_t tokens; /* that they take in a prompt, about */
} pl_showing;      /* all zero: nothing */

void pl_showing_free(pl_showing *showing);

/* Whether the model has what it takes for all that the options show, and the files are there: to be asked before an engine is
 * made. */
pl_status pl_showing_check(const pl_options *options, const pl_model *model, pl_error *err);

/* Reads a file of that kind and adds its images and clips; on failure nothing is added. PL_ERR_CONTEXT: they alone would fill the
 * context. */
pl_status pl_showing_add(pl_showing *showing, const pl_options *options, const pl_opened *opened, const pl_shown *what,
                         pl_error *err);

/* Adds one; the media is taken, also on failure. text: as of pl_shown_part; copied. */
pl_status pl_showing_take(pl_showing *showing, const char *text, const char *file, pl_media *media, pl_error *err);

/* How the options want images. */
pl_media_params pl_showing_params(const pl_options *options);

/* All that the options show. */
pl_status pl_showing_add_all(pl_showing *showing, const pl_options *options, const pl_opened *opened, pl_error *err);

/* The parts as pl_tokenize_chat_media() takes them, into an array that is open; with files: their names, too. */
void pl_showing_put(const pl_showing *showing, bool files, pl_json *json);

/* The media in order, to media[n]. */
void pl_showing_list(const pl_showing *showing, pl_media **media);

/* The same for prompts without a chat: texts and placeholders. */
void pl_showing_print(const pl_showing *showing, pl_strbuf *out);

#endif
