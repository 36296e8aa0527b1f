/* A chat as it was said: what the model is shown, and what is saved. */
#ifndef PL_TOOLS_TRANSCRIPT_H
#define PL_TOOLS_TRANSCRIPT_H

#include "host/base/status.h"

typedef struct pl_said {
    bool user;     /* else the model */
    char *content; /* owned */
} pl_said;

typedef struct pl_transcript {
    char *system; /* NULL: none */
    pl_said *turns;
    size_t n, room;
} pl_transcript; /* all zero: empty */

void pl_transcript_free(pl_transcript *transcript);

/* Copies. An empty text takes the system message away. */
pl_status pl_transcript_set_system(pl_transcript *transcript, const char *text, pl_error *err);
pl_status pl_transcript_add(pl_transcript *transcript, bool user, const char *content, pl_error *err);

/* Keeps the first n turns. */
void pl_transcript_cut(pl_transcript *transcript, size_t n);

/* Takes away the first question and its answer; false where nothing would be left. */
bool pl_transcript_drop_oldest(pl_transcript *transcript);

/* True when the last turn is the user's. */
bool pl_transcript_awaits_reply(const pl_transcript *transcript);

/* The chat in the model's template, with the opening of a reply where it awaits one. */
pl_status pl_transcript_tokenize(const pl_transcript *transcript, const pl_model *model, pl_tokens *out, pl_error *err);

/* JSON; the file appears whole or not at all. */
pl_status pl_transcript_save(const pl_transcript *transcript, const char *file, const char *model, const char *path,
                             pl_error *err);

/* out must be empty. */
pl_status pl_transcript_load(const char *file, pl_transcript *out, pl_error *err);

#endif
