/* The messages of a chat completion. */
#ifndef PL_SERVE_CHAT_MESSAGES_H
#define PL_SERVE_CHAT_MESSAGES_H

#include "host/serve/conversation.h"
#include "host/serve/fields.h"

#define PL_CHAT_MESSAGES 65536 /* most of one request */

/* Reads the field "messages". */
void pl_chat_messages_read(pl_fields *f, pl_conversation *c);

#endif
