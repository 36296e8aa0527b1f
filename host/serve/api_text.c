#include "host/serve/api_text.h"

#include "host/base/strbuf.h"
#include "host/serve/chat_messages.h"
#include "host/serve/inputs.h"
#include "host/serve/job.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS (1 << 24)
#define MAX_TOOLS 1024

/* ---- /tokenize --------------------------------------------------------------------------------- */

/* {"id", "piece"}: a text, or bytes where they are no whole characters. */
static void put_piece(const pl_model *model, int32_t id, pl_json *json)
{
    char bytes[PL_TOKEN_BYTES];
    size_t n = pl_token_bytes(model, id, bytes);
    pl_json_begin_object(json);
    pl_json_put_int(json, "id", id);
    pl_json_key(json, "piece");
    if (n == 1 && (unsigned char)bytes[0] >= 0x80) {
        pl_json_begin_array(json);
        pl_json_int(json, (unsigned char)bytes[0]);
        pl_json_end_array(json);
    } else {
        pl_json_text(json, bytes, n);
    }
    pl_json_end_object(json);
}

static void put_tokens(const pl_model *model, const pl_tokens *tokens, bool pieces, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_key_array(json, "tokens");
    for (size_t i = 0; i < tokens->n; i++) {
        if (pieces)
            put_piece(model, tokens->ids[i], json);
        else
            pl_json_int(json, tokens->ids[i]);
    }
    pl_json_end_array(json);
    pl_json_end_object(json);
}

static void tokenize(pl_service *service, json_t *body, pl_json *json, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    const pl_model *model = pl_service_model(service);
    pl_error err;
    pl_tokens tokens;
    const char *name = pl_field_given(&f, "text") ? "text" : "content";
    const char *text = pl_field_required_text(&f, name);
    pl_field_ignore(&f, "content");
    unsigned flags = pl_field_bool(&f, "add_special", false) ? PL_TOKENIZE_BOS : 0;
    flags |= pl_field_bool(&f, "parse_special", true) ? 0 : PL_TOKENIZE_NO_SPECIAL;
    bool pieces = pl_field_bool(&f, "with_pieces", false);
    pl_field_ignore(&f, "model");
    if (!pl_fields_done(&f))
        return;
    if (pl_tokenize(model, text, strlen(text), flags, &tokens, &err) != PL_OK) {
        pl_field_fail_of(&f, name, &err);
        return;
    }
    put_tokens(model, &tokens, pieces, json);
    pl_tokens_free(&tokens);
}

void pl_api_tokenize(void *user, pl_exchange *x)
{
    pl_job_start(user, x, tokenize);
}

/* ---- /detokenize ------------------------------------------------------------------------------- */

static void put_content(pl_json *json, const char *key, const char *text, size_t n)
{
    pl_json_begin_object(json);
    pl_json_key(json, key);
    pl_json_text(json, text, n);
    pl_json_end_object(json);
}

static void detokenize(pl_service *service, json_t *body, pl_json *json, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    pl_error err;
    pl_tokens tokens = {0};
    char *text;
    size_t n;
    pl_field_require(&f, "tokens");
    json_t *array = pl_field_array(&f, "tokens", MAX_TOKENS);
    pl_field_ignore(&f, "model");
    pl_read_ids(&f, "tokens", array, pl_model_vocab_size(pl_service_model(service)), &tokens);
    bool good = pl_fields_done(&f);
    if (good && pl_detokenize(pl_service_model(service), tokens.ids, tokens.n, false, &text, &n, &err) == PL_OK) {
        put_content(json, "content", text, n);
        pl_text_free(text);
    } else if (good) {
        pl_field_fail_of(&f, "tokens", &err);
    }
    pl_tokens_free(&tokens);
}

void pl_api_detokenize(void *user, pl_exchange *x)
{
    pl_job_start(user, x, detokenize);
}

/* ---- /apply-template --------------------------------------------------------------------------- */

/* The functions out of OpenAI's [{"type": "function", "function": {...}}]. */
static void offer_tools(pl_fields *f, pl_conversation *c)
{
    json_t *tools = pl_field_array(f, "tools", MAX_TOOLS), *item, *functions = json_array();
    size_t i;
    json_array_foreach(tools, i, item)
    {
        pl_fields tool = pl_fields_of(item, f->error, "tools[%zu]", i);
        pl_field_ignore(&tool, "type");
        pl_field_require(&tool, "function");
        json_t *function = pl_field_object(&tool, "function");
        if (function && json_array_append(functions, function) != 0)
            pl_field_fail_of(f, "tools", &(pl_error){PL_ERR_MEMORY, "out of memory"});
        pl_fields_done(&tool);
    }
    if (json_array_size(functions) > 0 && !pl_fields_failed(f))
        pl_conversation_offer(c, functions, true);
    json_decref(functions);
}

static void apply_template(pl_service *service, json_t *body, pl_json *json, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    pl_error err;
    pl_conversation *c;
    char *text;
    size_t n;
    if (pl_conversation_create(&c, &err) != PL_OK) {
        pl_field_fail_of(&f, "", &err);
        return;
    }
    pl_chat_messages_read(&f, c);
    offer_tools(&f, c);
    bool reply = pl_field_bool(&f, "add_generation_prompt", true);
    pl_field_ignore(&f, "model");
    if (!pl_fields_done(&f)) {
        pl_conversation_free(c);
        return;
    }
    if (pl_conversation_text(c, pl_service_model(service), reply, &text, &n, &err) == PL_OK) {
        put_content(json, "prompt", text, n);
        free(text);
    } else {
        pl_field_fail_of(&f, "messages", &err);
    }
    pl_conversation_free(c);
}

void pl_api_apply_template(void *user, pl_exchange *x)
{
    pl_job_start(user, x, apply_template);
}
