/* The functions that a request offers, the same for all APIs once each has brought them to one form. */
#ifndef PL_SERVE_TOOL_OFFER_H
#define PL_SERVE_TOOL_OFFER_H

#include "host/serve/call.h"
#include "host/serve/conversation.h"

typedef enum pl_tool_choice { PL_TOOLS_NONE, PL_TOOLS_AUTO, PL_TOOLS_REQUIRED, PL_TOOLS_NAMED } pl_tool_choice;

typedef struct pl_tool_offer {
    json_t *tools; /* an array of {"name", "description", "parameters", "strict"}, owned; NULL: none */
    pl_tool_choice choice;
    const char *name; /* PL_TOOLS_NAMED; borrowed */
    bool parallel;
} pl_tool_offer;

/* Appends one. The strings and parameters (a JSON schema, NULL: no arguments) are borrowed for the call; description may
 * be NULL. Errors name `where`, as "tools[0].function". */
void pl_tool_offer_add(pl_tool_offer *offer, pl_fields *f, const char *where, const char *name, const char *description,
                       json_t *parameters, bool strict);

/* Shows them to the model and makes the grammar of the answer, and releases them; NONE shows nothing. `field`: "tools". */
void pl_tool_offer_use(pl_tool_offer *offer, pl_call *call, pl_fields *f, const char *field, pl_conversation *c,
                       pl_call_spec *spec);

#endif
