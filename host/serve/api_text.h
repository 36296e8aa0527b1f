/* Text and tokens without an answer, in llama-server's forms:
 *   POST /tokenize        {"content" or "text", "add_special", "parse_special", "with_pieces"} -> {"tokens"}
 *   POST /detokenize      {"tokens"} -> {"content"}
 *   POST /apply-template  {"messages", "tools", "add_generation_prompt"} -> {"prompt"} */
#ifndef PL_SERVE_API_TEXT_H
#define PL_SERVE_API_TEXT_H

#include "host/serve/http.h"

/* user: the service. */
void pl_api_tokenize(void *user, pl_exchange *x);
void pl_api_detokenize(void *user, pl_exchange *x);
void pl_api_apply_template(void *user, pl_exchange *x);

#endif
