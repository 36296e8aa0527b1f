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
    json_t *allowed;  /* an array of names: all are shown, only these may be called; owned; NULL: all */
    bool parallel;
} pl_tool_offer;

/* Reads the field "strict" of a tool: true keeps its arguments to its schema or is an error, false leaves them any object,
 * and NULL, where it is not given, keeps to the schema if that is in the subset. */
const json_t *pl_tool_read_strict(pl_fields *tool);

/* Appends one. The strings and parameters (a JSON schema, NULL: no arguments) are borrowed for the call; description may
 * be NULL. Errors name `where`, as "tools[0].function". */
void pl_tool_offer_add(pl_tool_offer *offer, pl_fields *f, const char *where, const char *name, const char *description,
                       json_t *parameters, const json_t *strict);

/* Reads OpenAI's {"mode", "tools"} of a choice of the type "allowed_tools". nested: each name is in a "function". */
void pl_tool_offer_allow(pl_tool_offer *offer, pl_fields *choice, bool nested);

/* Shows them to the model and makes the grammar of the answer, and releases them; NONE shows nothing. An answer that must
 * have a form (spec->form) has it where it is no call. `field`: "tools". */
void pl_tool_offer_use(pl_tool_offer *offer, pl_call *call, pl_fields *f, const char *field, pl_conversation *c,
                       pl_call_spec *spec);

#endif
