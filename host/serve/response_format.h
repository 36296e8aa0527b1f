/* The form that an answer is to have: text, json_object or json_schema. */
#ifndef PL_SERVE_RESPONSE_FORMAT_H
#define PL_SERVE_RESPONSE_FORMAT_H

#include "host/serve/call.h"

/* Reads the object in field `name`: {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}; flat: these are
 * beside the type. */
void pl_response_format_read(pl_call *call, pl_fields *f, const char *name, bool flat, pl_call_spec *spec);

#endif
