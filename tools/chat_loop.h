#ifndef PL_TOOLS_CHAT_LOOP_H
#define PL_TOOLS_CHAT_LOOP_H

#include "tools/opened.h"

/* Chats until the user leaves. first: a question to start with, or NULL. */
pl_status pl_chat_loop(const pl_options *options, const pl_opened *opened, const char *first, pl_error *err);

#endif
