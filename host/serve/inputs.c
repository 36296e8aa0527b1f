#include "host/serve/inputs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool pl_read_ids(pl_fields *f, const char *name, const json_t *array, int32_t limit, pl_tokens *out)
{
    if (pl_fields_failed(f))
        return false;
    size_t n = json_array_size(array);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (!ids) {
        pl_error err;
        pl_fail_memory(&err, n * sizeof *ids, "token ids");
        pl_field_fail_of(f, name, &err);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char element[128];
        const json_t *id = json_array_get(array, i);
        int64_t value = json_integer_value(id);
        snprintf(element, sizeof element, "%s[%zu]", name, i);
        if (!json_is_integer(id))
            pl_field_fail_type(f, element, "an integer", id);
        else if (value < 0 || value >= limit)
            pl_field_fail(f, element, "invalid_value",
                          "Invalid '%s': token ids are from 0 to %" PRId32 ", but got %" PRId64 ".", element, limit - 1,
                          value);
        if (pl_fields_failed(f)) {
            free(ids);
            return false;
        }
        ids[i] = (int32_t)value;
    }
    *out = (pl_tokens){ids, n};
    return true;
}

static void read_text(const pl_model *model, pl_fields *f, const char *name, const char *text, unsigned flags,
                      pl_call_spec *spec)
{
    pl_error err;
    if (pl_fields_failed(f))
        return;
    if (pl_tokenize(model, text, strlen(text), flags, &spec->prompts[spec->n_prompts], &err) == PL_OK)
        spec->n_prompts++;
    else
        pl_field_fail_of(f, name, &err);
}

static void read_id_list(const pl_model *model, pl_fields *f, const char *name, const json_t *ids, pl_call_spec *spec)
{
    if (pl_read_ids(f, name, ids, pl_model_vocab_size(model), &spec->prompts[spec->n_prompts]))
        spec->n_prompts++;
}

static void read_list(const pl_model *model, pl_fields *f, const char *name, json_t *array, unsigned flags,
                      pl_call_spec *spec)
{
    for (size_t i = 0; i < json_array_size(array) && !pl_fields_failed(f); i++) {
        char element[64];
        const json_t *item = json_array_get(array, i);
        snprintf(element, sizeof element, "%.32s[%zu]", name, i);
        if (json_is_array(item))
            read_id_list(model, f, element, item, spec);
        else
            read_text(model, f, element, pl_field_text_at(f, name, array, i), flags, spec);
    }
}

void pl_read_inputs(pl_call *call, pl_fields *f, const char *name, size_t max, unsigned flags, pl_call_spec *spec)
{
    const pl_model *model = pl_service_model(pl_call_service(call));
    json_t *value = pl_field_any(f, name);
    bool text = json_is_string(value), ids = json_is_integer(json_array_get(value, 0));
    if (value && !text && !json_is_array(value))
        pl_field_fail_type(f, name, "a string or an array", value);
    if (json_is_array(value) && json_array_size(value) == 0)
        pl_field_fail(f, name, "invalid_value", "Invalid '%s': it is empty.", name);
    if (!text && !ids)
        pl_field_array(f, name, max);
    if (pl_fields_failed(f) || !value)
        return;
    spec->prompts = pl_call_keep(call, (text || ids ? 1 : json_array_size(value)) * sizeof *spec->prompts);
    if (!spec->prompts)
        pl_field_fail_of(f, name, &(pl_error){PL_ERR_MEMORY, "out of memory"});
    else if (text)
        read_text(model, f, name, pl_field_text(f, name, ""), flags, spec);
    else if (ids)
        read_id_list(model, f, name, value, spec);
    else
        read_list(model, f, name, value, flags, spec);
}
