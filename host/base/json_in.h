/* The JSON that people hand to the program: token ids and chats. */
#ifndef PL_BASE_JSON_IN_H
#define PL_BASE_JSON_IN_H

#include "host/base/status.h"

/* An array of whole numbers in [0, limit). `where` names the source in messages, which name the first
 * element that is wrong. out: pl_tokens_free(), or free(out->ids). */
pl_status pl_json_read_ids(const char *json, size_t n, const char *where, int32_t limit, pl_tokens *out, pl_error *err);

/* Called for each message in turn; the strings live for the call. */
typedef pl_status (*pl_json_message_fn)(void *user, const char *role, const char *content, pl_error *err);

/* An array of {"role", "content"} with text contents, or an object that holds one as "messages". */
pl_status pl_json_read_messages(const char *json, size_t n, const char *where, pl_json_message_fn fn, void *user,
                                pl_error *err);

/* Whether the last message of such a chat is the user's; false for anything else. */
bool pl_json_awaits_reply(const char *json, size_t n);

#endif
