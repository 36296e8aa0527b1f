/* A chat as it was said: what the model is shown, and what is saved. */
#ifndef PL_TOOLS_CHAT_LOG_H
#define PL_TOOLS_CHAT_LOG_H

#include "tools/media_shown.h"

typedef struct pl_said {
    bool user;        /* else the model */
    char *content;    /* owned */
    pl_showing shown; /* owned; stands before the text */
} pl_said;

typedef struct pl_chat_log {
    char *system; /* NULL: none */
    pl_said *turns;
    size_t n, room;
} pl_chat_log; /* all zero: empty */

void pl_chat_log_free(pl_chat_log *log);

/* Copies. An empty text takes the system message away. shown, which may be NULL, is taken and left empty; on failure it is
 * untouched. */
pl_status pl_chat_log_set_system(pl_chat_log *log, const char *text, pl_error *err);
pl_status pl_chat_log_add(pl_chat_log *log, bool user, const char *content, pl_showing *shown, pl_error *err);

/* Keeps the first n turns. */
void pl_chat_log_cut(pl_chat_log *log, size_t n);

/* Takes away the first question and its answer; false where nothing would be left. */
bool pl_chat_log_drop_oldest(pl_chat_log *log);

/* True when the last turn is the user's. */
bool pl_chat_log_awaits_reply(const pl_chat_log *log);

/* The chat in the model's template, with the opening of a reply where it awaits one. */
pl_status pl_chat_log_tokenize(const pl_chat_log *log, const pl_model *model, pl_tokens *out, pl_error *err);

/* JSON; the file appears whole or not at all. Of what was shown it has the names of the files. */
pl_status pl_chat_log_save(const pl_chat_log *log, const char *file, const char *model, const char *path,
                           pl_error *err);

/* out must be empty. PL_ERR_FORMAT also where something was shown. */
pl_status pl_chat_log_load(const char *file, pl_chat_log *out, pl_error *err);

#endif
