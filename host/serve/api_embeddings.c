#include "host/serve/api_embeddings.h"

#include "host/serve/inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INPUTS 1024

enum { FORM_FLOAT, FORM_BASE64 };

static bool read_body(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    static const char *const forms[] = {"float", "base64", NULL};
    pl_fields f = pl_fields_of(body, error, "%s", "");
    int32_t size = pl_model_hidden_size(pl_service_model(pl_call_service(call)));
    int form = pl_field_choice(&f, "encoding_format", FORM_FLOAT, forms);
    if (pl_field_int(&f, "dimensions", size, 1, INT32_MAX) != size)
        pl_field_fail(&f, "dimensions", "unsupported_value",
                      "Unsupported 'dimensions': this model's embeddings have %d values and cannot be cut.", size);
    pl_call_read_common(call, &f, spec);
    pl_field_ignore(&f, "user");
    pl_field_require(&f, "input");
    pl_read_inputs(call, &f, "input", MAX_INPUTS, PL_TOKENIZE_BOS | PL_TOKENIZE_NO_SPECIAL, spec);
    spec->request.embed = true;
    spec->request.generation.max_tokens = 0;
    spec->format_data = pl_call_keep(call, sizeof form);
    if (spec->format_data)
        memcpy(spec->format_data, &form, sizeof form);
    else
        pl_field_fail_of(&f, "", &(pl_error){PL_ERR_MEMORY, "out of memory"});
    spec->prompt_field = "input";
    return pl_fields_done(&f);
}

/* ---- the response ------------------------------------------------------------------------------ */

/* By what the values are divided; 1 for a state of zeros. */
static double length_of(const float *state, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)state[i] * (double)state[i];
    return sum > 0 ? sqrt(sum) : 1;
}

/* f32, little-endian. */
static void put_base64(const float *values, size_t n, double length, pl_json *json)
{
    float *scaled = malloc((n + 1) * sizeof *scaled);
    if (!scaled) {
        json->buf.failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++)
        scaled[i] = (float)(values[i] / length);
    pl_json_base64(json, scaled, n * sizeof *scaled);
    free(scaled);
}

/* Values of a vector of length 1, to nine places: as exact as an f32 of the usual size, and quick. */
static void put_floats(const float *values, size_t n, double length, pl_json *json)
{
    pl_json_begin_array(json);
    for (size_t i = 0; i < n; i++) {
        char text[16];
        int64_t digits = llround(values[i] / length * 1e9);
        char *at = text + sizeof text;
        bool minus = digits < 0;
        digits = minus ? -digits : digits;
        for (int place = 0; place < 9; place++, digits /= 10)
            *--at = (char)('0' + digits % 10);
        *--at = '.';
        *--at = (char)('0' + digits);
        if (minus)
            *--at = '-';
        pl_json_raw(json, at, (size_t)(text + sizeof text - at));
    }
    pl_json_end_array(json);
}

static void put_embedding(const pl_call_choice *choice, int32_t index, int form, pl_json *json)
{
    double length = length_of(choice->state, choice->n_state);
    pl_json_begin_object(json);
    pl_json_put_string(json, "object", "embedding");
    pl_json_put_int(json, "index", index);
    pl_json_key(json, "embedding");
    if (form == FORM_BASE64)
        put_base64(choice->state, choice->n_state, length, json);
    else
        put_floats(choice->state, choice->n_state, length, json);
    pl_json_end_object(json);
}

static void whole(pl_call *call, pl_json *json)
{
    const int *form = pl_call_asked(call)->format_data;
    const pl_call_usage usage = pl_call_count(call);
    pl_json_begin_object(json);
    pl_json_put_string(json, "object", "list");
    pl_json_key_array(json, "data");
    for (int32_t i = 0; i < pl_call_choices(call); i++)
        put_embedding(pl_call_choice_at(call, i), i, *form, json);
    pl_json_end_array(json);
    pl_json_put_string(json, "model", pl_call_model(call));
    pl_json_key_object(json, "usage");
    pl_json_put_int(json, "prompt_tokens", usage.prompt);
    pl_json_put_int(json, "total_tokens", usage.prompt);
    pl_json_end_object(json);
    pl_call_put_served(call, 0, json);
    pl_json_end_object(json);
}

void pl_api_embeddings(void *user, pl_exchange *x)
{
    static const pl_call_format format = {.read = read_body, .whole = whole};
    pl_call_start(user, x, &format);
}
