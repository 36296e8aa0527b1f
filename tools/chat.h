/* A chat at the terminal; shared by its loop and its commands. */
#ifndef PL_TOOLS_CHAT_H
#define PL_TOOLS_CHAT_H

#include "tools/chat_log.h"
#include "tools/line_reader.h"
#include "tools/opened.h"

typedef struct pl_chat {
    const pl_options *options;
    const pl_opened *opened;
    pl_line_reader *reader;
    pl_chat_log log;
    pl_showing pending;            /* goes with the next question */
    int32_t context;               /* tokens that fit, answers included */
    pl_switch how;                 /* a change of path treats what was said */
    uint64_t seed;                 /* of the next answer */
    pl_generated last;             /* the last answer */
    size_t answers, answer_tokens; /* of the whole chat */
    bool ended;
} pl_chat;

/* Answers the last turn, which is the user's, and adds the answer to the log. The oldest turns go when
 * the chat does not fit any more. On failure the turn is taken back. */
pl_status pl_chat_answer(pl_chat *chat, pl_error *err);

/* Does what a line that starts with "/" says. */
pl_status pl_chat_command(pl_chat *chat, const char *line, pl_error *err);

/* The commands' names, NULL-terminated. */
const char *const *pl_chat_command_names(void);

#endif
