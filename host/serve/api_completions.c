#include "host/serve/api_completions.h"

#include "host/serve/inputs.h"
#include "host/serve/openai_put.h"

#include <stdio.h>
#include <string.h>

#define MAX_TOKENS 16 /* where nothing is said, as OpenAI has it */

typedef struct completion {
    bool usage;
    bool echo;
    char fingerprint[PL_OPENAI_FINGERPRINT];
    const char **prompts; /* [n_prompts] to be repeated */
    int64_t *offsets;     /* [choices] characters of each choice so far, in a stream */
} completion;

static const completion *completion_of(const pl_call *call)
{
    return pl_call_asked(call)->format_data;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static void read_amount(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    spec->n = (int32_t)pl_field_int(f, "n", 1, 1, PL_CALL_CHOICES);
    if (pl_field_int(f, "best_of", spec->n, 1, PL_CALL_CHOICES) != spec->n)
        pl_field_fail(f, "best_of", "unsupported_value",
                      "Unsupported value: 'best_of' must be equal to 'n': all choices made are returned.");
    if (!pl_fields_failed(f) && (size_t)spec->n * spec->n_prompts > PL_CALL_CHOICES)
        pl_field_fail(f, "n", "integer_above_max_value", "Invalid 'n': %d choices of %zu prompts are more than %d.",
                      spec->n, spec->n_prompts, PL_CALL_CHOICES);
    int32_t *max = &spec->request.generation.max_tokens;
    if (json_is_integer(pl_field_any(f, "max_tokens")) && pl_field_int(f, "max_tokens", 0, 0, INT32_MAX) == 0)
        *max = 0;
    else if (pl_field_given(f, "max_tokens"))
        pl_call_read_max_tokens(call, f, "max_tokens", spec);
    else if (*max < 0 || *max > MAX_TOKENS)
        *max = MAX_TOKENS;
}

static void read_logprobs(pl_fields *f, bool echo, pl_call_spec *spec)
{
    spec->request.generation.n_logprobs = (int32_t)pl_field_int(f, "logprobs", -1, 0, 5);
    if (echo && spec->request.generation.n_logprobs >= 0)
        pl_field_fail(f, "logprobs", "unsupported_value",
                      "Unsupported value: 'logprobs' together with 'echo': the prompt's are not computed.");
}

static void read_fields(pl_call *call, pl_fields *f, completion *data, pl_call_spec *spec)
{
    pl_call_read_common(call, f, spec);
    pl_field_require(f, "prompt");
    pl_read_inputs(call, f, "prompt", PL_CALL_CHOICES, PL_TOKENIZE_BOS, spec);
    read_amount(call, f, spec);
    pl_call_read_sampling(call, f, 2, spec);
    pl_call_read_stop(call, f, "stop", spec);
    data->echo = pl_field_bool(f, "echo", false);
    read_logprobs(f, data->echo, spec);
    spec->stream = pl_field_bool(f, "stream", false);
    data->usage = pl_openai_read_stream_options(f, spec->stream);
    pl_call_read_grammar(call, f, spec);
    if (pl_field_text(f, "suffix", "")[0])
        pl_field_fail(f, "suffix", "unsupported_parameter",
                      "Unsupported parameter: 'suffix' is not supported by this model.");
    pl_field_ignore(f, "user");
}

static pl_status keep_prompts(pl_call *call, completion *data, const pl_call_spec *spec, pl_error *err)
{
    size_t choices = spec->n_prompts * (size_t)spec->n;
    data->offsets = pl_call_keep(call, choices * sizeof *data->offsets);
    data->prompts = pl_call_keep(call, spec->n_prompts * sizeof *data->prompts);
    if (!data->offsets || !data->prompts)
        return pl_fail_memory(err, choices * sizeof *data->offsets, "a completion");
    for (size_t i = 0; data->echo && i < spec->n_prompts; i++) {
        char *text;
        size_t n;
        PL_TRY(pl_detokenize(pl_service_model(pl_call_service(call)), spec->prompts[i].ids, spec->prompts[i].n, true,
                             &text, &n, err));
        data->prompts[i] = pl_call_keep_text(call, text, n);
        pl_text_free(text);
        if (!data->prompts[i])
            return pl_fail_memory(err, n, "a prompt");
    }
    return PL_OK;
}

static bool read_completion(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    pl_error err = {.message = ""};
    completion *data = pl_call_keep(call, sizeof *data);
    if (!data) {
        pl_fail_memory(&err, sizeof *data, "a completion");
        pl_field_fail_of(&f, "", &err);
        return false;
    }
    spec->format_data = data;
    spec->prompt_field = "prompt";
    pl_openai_fingerprint(call, data->fingerprint);
    read_fields(call, &f, data, spec);
    if (pl_fields_done(&f) && keep_prompts(call, data, spec, &err) != PL_OK)
        pl_field_fail_of(&f, "prompt", &err);
    return !pl_fields_failed(&f);
}

/* ---- log probabilities, in the form of old: lists side by side ---------------------------------- */

static int64_t count_characters(const char *bytes, size_t n)
{
    int64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += (bytes[i] & 0xc0) != 0x80;
    return count;
}

/* Pieces that are bytes above 127 are no text of their own: "bytes:\xe2". */
static void put_token(const pl_model *model, int32_t id, bool key, pl_json *json)
{
    char bytes[PL_TOKEN_BYTES + 1], name[16];
    size_t n = pl_token_bytes(model, id, bytes);
    const char *text = bytes;
    bytes[n] = '\0';
    if (n == 1 && (bytes[0] & 0x80)) {
        snprintf(name, sizeof name, "bytes:\\x%02x", (unsigned char)bytes[0]);
        text = name;
    }
    if (key)
        pl_json_key(json, text);
    else
        pl_json_string(json, text);
}

static void put_top(const pl_model *model, const pl_call_piece *piece, pl_json *json)
{
    pl_json_begin_object(json);
    for (size_t i = 0; i < piece->n_top; i++) {
        put_token(model, piece->top[i].id, true, json);
        pl_json_float(json, piece->top[i].logprob);
    }
    pl_json_end_object(json);
}

static void put_lists(const pl_model *model, const pl_call_piece *pieces, size_t n, bool top, pl_json *json)
{
    pl_json_key_array(json, "tokens");
    for (size_t i = 0; i < n; i++)
        put_token(model, pieces[i].id, false, json);
    pl_json_end_array(json);
    pl_json_key_array(json, "token_logprobs");
    for (size_t i = 0; i < n; i++)
        pl_json_float(json, pieces[i].logprob);
    pl_json_end_array(json);
    if (!top) {
        pl_json_put_string(json, "top_logprobs", NULL);
        return;
    }
    pl_json_key_array(json, "top_logprobs");
    for (size_t i = 0; i < n; i++)
        put_top(model, &pieces[i], json);
    pl_json_end_array(json);
}

/* n pieces that are tokens; *offset moves on over them. */
static void put_logprobs(const pl_call *call, const pl_call_piece *pieces, size_t n, int64_t *offset, pl_json *json)
{
    const pl_model *model = pl_service_model(pl_call_service(call));
    int32_t asked = pl_call_asked(call)->request.generation.n_logprobs;
    if (asked < 0) {
        pl_json_put_string(json, "logprobs", NULL);
        return;
    }
    pl_json_key_object(json, "logprobs");
    put_lists(model, pieces, n, asked > 0, json);
    pl_json_key_array(json, "text_offset");
    for (size_t i = 0; i < n; i++) {
        char bytes[PL_TOKEN_BYTES];
        pl_json_int(json, *offset);
        *offset += count_characters(bytes, pl_token_bytes(model, pieces[i].id, bytes));
    }
    pl_json_end_array(json);
    pl_json_end_object(json);
}

/* ---- writing ----------------------------------------------------------------------------------- */

static const char *echo_of(const pl_call *call, int32_t choice)
{
    const completion *data = completion_of(call);
    return data->echo ? data->prompts[choice / pl_call_asked(call)->n] : "";
}

/* An event with one choice; pieces: of the text, those that are tokens. finish may be NULL. */
static void put_event(pl_call *call, int32_t choice, const char *text, size_t n, const pl_call_piece *piece,
                      const char *finish, pl_strbuf *out)
{
    pl_json json = pl_json_to_buffer();
    pl_openai_begin(call, "cmpl-", "text_completion", completion_of(call)->fingerprint, &json);
    pl_json_key_array(&json, "choices");
    pl_json_begin_object(&json);
    pl_json_put_int(&json, "index", choice);
    pl_json_key(&json, "text");
    pl_json_text(&json, text, n);
    if (piece && piece->id >= 0)
        put_logprobs(call, piece, 1, &completion_of(call)->offsets[choice], &json);
    else
        pl_json_put_string(&json, "logprobs", NULL);
    pl_json_put_string(&json, "finish_reason", finish);
    pl_json_end_object(&json);
    pl_json_end_array(&json);
    if (completion_of(call)->usage)
        pl_json_put_string(&json, "usage", NULL);
    if (finish)
        pl_call_put_served(call, choice, &json);
    pl_json_end_object(&json);
    pl_call_event(out, NULL, &json);
}

static void stream_begin(pl_call *call, pl_strbuf *out)
{
    for (int32_t i = 0; completion_of(call)->echo && i < pl_call_choices(call); i++)
        put_event(call, i, echo_of(call, i), strlen(echo_of(call, i)), NULL, NULL, out);
}

static void stream_piece(pl_call *call, int32_t choice, const pl_call_piece *piece, pl_strbuf *out)
{
    put_event(call, choice, piece->text, piece->n_bytes, piece, NULL, out);
}

static void stream_choice_done(pl_call *call, int32_t choice, pl_strbuf *out)
{
    put_event(call, choice, "", 0, NULL, pl_call_finish_name(pl_call_choice_at(call, choice)), out);
}

static void stream_end(pl_call *call, pl_strbuf *out)
{
    if (completion_of(call)->usage) {
        pl_json json = pl_json_to_buffer();
        pl_openai_begin(call, "cmpl-", "text_completion", completion_of(call)->fingerprint, &json);
        pl_json_key_array(&json, "choices");
        pl_json_end_array(&json);
        pl_openai_put_usage(call, &json);
        pl_json_end_object(&json);
        pl_call_event(out, NULL, &json);
    }
    pl_openai_done(out);
}

static void put_text(const pl_call *call, int32_t choice, pl_json *json)
{
    const pl_call_choice *c = pl_call_choice_at(call, choice);
    const char *echo = echo_of(call, choice);
    pl_strbuf text = {0};
    pl_strbuf_add_text(&text, echo);
    pl_strbuf_add(&text, c->text.data, c->text.n);
    json->buf.failed = json->buf.failed || text.failed;
    pl_json_key(json, "text");
    pl_json_text(json, text.failed ? "" : text.data, text.n);
    pl_strbuf_free(&text);
}

static void put_choice(const pl_call *call, int32_t i, pl_json *json)
{
    const pl_call_choice *c = pl_call_choice_at(call, i);
    int64_t offset = 0;
    put_text(call, i, json);
    put_logprobs(call, c->pieces, c->n_pieces, &offset, json);
    pl_json_put_string(json, "finish_reason", pl_call_finish_name(c));
}

static void whole(pl_call *call, pl_json *json)
{
    pl_openai_begin(call, "cmpl-", "text_completion", completion_of(call)->fingerprint, json);
    pl_openai_put_choices(call, put_choice, json);
}

static const pl_call_format format = {
    .read = read_completion,
    .begin = stream_begin,
    .piece = stream_piece,
    .choice_done = stream_choice_done,
    .end = stream_end,
    .fail = pl_openai_fail,
    .whole = whole,
};

void pl_api_completions(void *user, pl_exchange *x)
{
    pl_call_start(user, x, &format);
}
