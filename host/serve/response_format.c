#include "host/serve/response_format.h"

#include <stdlib.h>
#include <string.h>

enum { FORM_TEXT, FORM_OBJECT, FORM_SCHEMA };

/* The schema and what is said about it. Strict or not makes no difference: every answer keeps to its schema. */
static void read_schema(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    pl_field_ignore(f, "description");
    pl_field_bool(f, "strict", false);
    pl_field_required_text(f, "name");
    pl_field_require(f, "schema");
    json_t *schema = pl_field_any(f, "schema");
    if (!schema || pl_fields_failed(f))
        return;
    if (!json_is_object(schema) && !json_is_boolean(schema)) {
        pl_field_fail_type(f, "schema", "an object", schema);
        return;
    }
    char *text = json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY);
    spec->form = text ? pl_call_keep_text(call, text, strlen(text)) : NULL;
    if (text && spec->form) {
        pl_call_use_grammar(call, f, "schema", PL_GRAMMAR_JSON_SCHEMA, text, strlen(text), spec);
    } else {
        pl_error err;
        pl_fail_memory(&err, 0, "a schema");
        pl_field_fail_of(f, "schema", &err);
    }
    free(text);
}

void pl_response_format_read(pl_call *call, pl_fields *f, const char *name, bool flat, pl_call_spec *spec)
{
    static const char *const types[] = {"text", "json_object", "json_schema", NULL};
    json_t *object = pl_field_object(f, name);
    if (!object)
        return;
    const char *dot = f->where[0] ? "." : "";
    pl_fields form = pl_fields_of(object, f->error, "%s%s%s", f->where, dot, name);
    pl_field_require(&form, "type");
    int type = pl_field_choice(&form, "type", FORM_TEXT, types);
    if (type == FORM_OBJECT) {
        pl_call_use_grammar(call, &form, "type", PL_GRAMMAR_JSON, "", 0, spec);
        spec->form = "{\"type\":\"object\"}";
    }
    if (type == FORM_SCHEMA && flat) {
        read_schema(call, &form, spec);
    } else if (type == FORM_SCHEMA) {
        pl_field_require(&form, "json_schema");
        pl_fields inner = pl_fields_of(pl_field_object(&form, "json_schema"), f->error, "%s.json_schema", form.where);
        read_schema(call, &inner, spec);
        pl_fields_done(&inner);
    }
    pl_fields_done(&form);
}
