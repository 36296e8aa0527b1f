/* The fields that all APIs share. */
#include "host/serve/call.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MOST 86400000.0 /* a day, in milliseconds */

static void fail_memory(pl_fields *f, const char *name, const char *what)
{
    pl_error err;
    pl_fail_memory(&err, 0, what);
    pl_field_fail_of(f, name, &err);
}

/* ---- model and path ---------------------------------------------------------------------------- */

static void fail_model(pl_fields *f, const char *asked)
{
    if (pl_fields_failed(f))
        return;
    pl_field_fail(f, "model", "model_not_found", "The model `%.200s` does not exist or you do not have access to it.",
                  asked);
    f->error->status = 404;
}

static const char *read_path(pl_call *call, pl_fields *f)
{
    pl_error err = {.message = ""};
    const char *path = pl_field_text(f, "path", NULL);
    if (!path || strcmp(path, "auto") == 0)
        return path;
    if (pl_model_check_path(pl_service_model(pl_call_service(call)), path, &err) != PL_OK)
        pl_field_fail(f, "path", "invalid_value", "%s", err.message);
    return path;
}

/* Wishes are for "auto": with one and no path, the choice is left to the server. */
static void read_model(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    static const char *const qualities[] = {"balanced", "quality", "speed", NULL};
    static const pl_wish wishes[] = {PL_WISH_BALANCED, PL_WISH_QUALITY, PL_WISH_SPEED};
    const pl_service *service = pl_call_service(call);
    const pl_service_params *params = pl_service_parameters(service);
    const char *named = NULL, *model = pl_field_text(f, "model", params->name);
    if (!pl_service_has_model(service, model, &named))
        fail_model(f, model);
    const char *path = read_path(call, f);
    bool wish = pl_field_given(f, "quality");
    spec->request.wish = wishes[pl_field_choice(f, "quality", 0, qualities)];
    if (path || named)
        spec->request.path = path ? path : named;
    else if (wish)
        spec->request.path = "auto";
    if (!pl_fields_failed(f) && !params->any_model)
        pl_call_set_model(call, model);
}

static void read_latency(pl_fields *f, pl_call_spec *spec)
{
    json_t *object = pl_field_object(f, "latency_ms");
    pl_fields latency = pl_fields_of(object, f->error, "latency_ms");
    spec->request.first_token_s = pl_field_number(&latency, "first_token", 0, 0, SECONDS_MOST) / 1e3;
    spec->request.token_s = pl_field_number(&latency, "per_token", 0, 0, SECONDS_MOST) / 1e3;
    pl_fields_done(&latency);
}

void pl_call_read_common(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    static const char *const moves[] = {"none", "exact", "fast", NULL};
    static const pl_moves values[] = {PL_MOVES_NONE, PL_MOVES_EXACT, PL_MOVES_FAST};
    read_model(call, f, spec);
    spec->request.moves = values[pl_field_choice(f, "moves", 0, moves)];
    spec->request.priority = (int32_t)pl_field_int(f, "priority", 0, -100, 100);
    read_latency(f, spec);
}

/* ---- sampling ---------------------------------------------------------------------------------- */

/* {"id": bias} */
static bool read_bias(const char *key, json_t *value, int32_t vocab, pl_fields *biases, pl_logit_bias *out)
{
    char *end;
    long id = strtol(key, &end, 10);
    if (end == key || *end || id < 0 || id >= vocab) {
        pl_field_fail(biases, "", "invalid_value",
                      "Invalid key in 'logit_bias': '%.40s'. Keys are token ids of this model, 0 to %d.", key,
                      vocab - 1);
        return false;
    }
    if (!json_is_number(value)) {
        pl_field_fail_type(biases, key, "a decimal", value);
        return false;
    }
    double bias = json_number_value(value);
    if (!(bias >= -100 && bias <= 100))
        pl_field_fail(biases, key, "invalid_value", "Invalid 'logit_bias.%.40s': expected -100 to 100, but got %g.",
                      key, bias);
    *out = (pl_logit_bias){(int32_t)id, (float)bias};
    return !pl_fields_failed(biases);
}

static void read_biases(pl_call *call, pl_fields *f, pl_sampling *sampling)
{
    json_t *object = pl_field_object(f, "logit_bias"), *value;
    size_t n = object ? json_object_size(object) : 0;
    if (n == 0)
        return;
    pl_fields biases = pl_fields_of(object, f->error, "logit_bias");
    pl_logit_bias *list = pl_call_keep(call, n * sizeof *list);
    int32_t vocab = pl_model_vocab_size(pl_service_model(pl_call_service(call)));
    const char *key;
    size_t i = 0;
    if (!list) {
        fail_memory(f, "logit_bias", "logit_bias");
        return;
    }
    json_object_foreach(object, key, value)
    {
        if (!read_bias(key, value, vocab, &biases, &list[i++]))
            return;
    }
    sampling->bias = list;
    sampling->n_bias = n;
}

static float number(pl_fields *f, const char *name, float preset, double min, double max)
{
    return (float)pl_field_number(f, name, (double)preset, min, max);
}

void pl_call_read_sampling(pl_call *call, pl_fields *f, double hottest, pl_call_spec *spec)
{
    pl_sampling *s = &spec->request.generation.sampling;
    s->temperature = number(f, "temperature", s->temperature, 0, hottest);
    s->top_p = number(f, "top_p", s->top_p, 0, 1);
    s->top_k = (int32_t)pl_field_int(f, "top_k", s->top_k, 0, INT32_MAX);
    s->min_p = number(f, "min_p", s->min_p, 0, 1);
    s->typical_p = number(f, "typical_p", s->typical_p, 0, 1);
    s->repeat_penalty = number(f, "repeat_penalty", s->repeat_penalty, 0.01, 100);
    s->presence_penalty = number(f, "presence_penalty", s->presence_penalty, -2, 2);
    s->frequency_penalty = number(f, "frequency_penalty", s->frequency_penalty, -2, 2);
    s->seed = (uint64_t)pl_field_int(f, "seed", (int64_t)s->seed, INT64_MIN, INT64_MAX);
    spec->request.generation.ignore_eos = pl_field_bool(f, "ignore_eos", false);
    read_biases(call, f, s);
}

void pl_call_read_max_tokens(pl_call *call, pl_fields *f, const char *name, pl_call_spec *spec)
{
    int32_t most = pl_service_parameters(pl_call_service(call))->max_tokens;
    int64_t asked = pl_field_int(f, name, -1, 1, INT32_MAX);
    if (asked < 0)
        return;
    if (most >= 0 && asked > most)
        pl_field_fail(f, name, "invalid_value",
                      "%s is too large: %lld. This model supports at most %d completion tokens, whereas you provided "
                      "%lld.",
                      name, (long long)asked, most, (long long)asked);
    spec->request.generation.max_tokens = (int32_t)asked;
}

void pl_call_read_stop(pl_call *call, pl_fields *f, const char *name, pl_call_spec *spec)
{
    json_t *value = pl_field_any(f, name);
    bool one = json_is_string(value);
    if (!value)
        return;
    if (!one && !json_is_array(value)) {
        pl_field_fail_type(f, name, "a string or an array of strings", value);
        return;
    }
    json_t *array = one ? NULL : pl_field_array(f, name, PL_CALL_STOPS);
    size_t n = one ? 1 : array ? json_array_size(array) : 0;
    const char **list = pl_call_keep(call, (n + 1) * sizeof *list);
    if (!list) {
        fail_memory(f, name, "stop strings");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const char *text = one ? pl_field_text(f, name, "") : pl_field_text_at(f, name, array, i);
        if (!text[0])
            pl_field_fail(f, name, "invalid_value", "Invalid '%s': an empty string cannot end an answer.", name);
        list[i] = pl_call_keep_text(call, text, strlen(text));
        if (!list[i])
            fail_memory(f, name, "stop strings");
    }
    spec->request.generation.stop = list;
    spec->request.generation.n_stop = n;
}

/* ---- grammars ---------------------------------------------------------------------------------- */

void pl_call_use_grammar(pl_call *call, pl_fields *f, const char *name, pl_grammar_kind kind, const char *text,
                         size_t n, pl_call_spec *spec)
{
    pl_error err = {.message = ""};
    if (pl_fields_failed(f))
        return;
    if (spec->grammar) {
        pl_field_fail(f, name, "invalid_value",
                      "Only one of response_format, grammar, regex and tools can say what an "
                      "answer may be.");
        return;
    }
    if (pl_service_grammar(pl_call_service(call), kind, text, n, &spec->grammar, &err) != PL_OK)
        pl_field_fail_of(f, name, &err);
}

void pl_call_read_grammar(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    static const struct {
        const char *name;
        pl_grammar_kind kind;
    } fields[] = {{"grammar", PL_GRAMMAR_GBNF}, {"regex", PL_GRAMMAR_REGEX}, {"guided_regex", PL_GRAMMAR_REGEX}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const char *text = pl_field_text(f, fields[i].name, NULL);
        if (text)
            pl_call_use_grammar(call, f, fields[i].name, fields[i].kind, text, strlen(text), spec);
    }
}
