/* The body of /v1/messages and /v1/messages/count_tokens: what they have in common. */
#ifndef PL_SERVE_API_MESSAGES_READ_H
#define PL_SERVE_API_MESSAGES_READ_H

#include "host/serve/tool_offer.h"

/* Reads system, messages, tools, tool_choice and thinking; offer->tools is to be released whatever comes of it. */
void pl_messages_read(pl_fields *f, pl_conversation *c, pl_tool_offer *offer);

#endif
