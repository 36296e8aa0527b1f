/* pleiad debug: parts of the engine on their own. What it reads and writes is an interface for outside checks. */
#include <stdlib.h>
#include <string.h>

#include "host/base/json_in.h"
#include "host/base/json_out.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/debug_towers.h"
#include "tools/debug_trace.h"
#include "tools/opened.h"
#include "tools/slurp.h"

#define STDIN_NAME "standard input"

/* ---- text --------------------------------------------------------------------------------------- */

static pl_status print_ids(const pl_tokens *tokens, pl_error *err)
{
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_array(&json);
    for (size_t i = 0; i < tokens->n; i++)
        pl_json_int(&json, tokens->ids[i]);
    pl_json_end_array(&json);
    pl_json_newline(&json);
    return pl_json_flush(&json, "standard output", err);
}

static pl_status tokenize(const pl_options *options, const pl_model *model, const pl_strbuf *text, pl_error *err)
{
    pl_tokens tokens = {.ids = NULL};
    pl_status status;
    if (options->debug_chat) {
        /* A chat that ends with the user's turn is one to be answered. */
        bool reply = pl_json_awaits_reply(pl_strbuf_string(text), text->n);
        status = pl_tokenize_chat_json(model, pl_strbuf_string(text), text->n, reply, &tokens, err);
        if (status == PL_ERR_ARGUMENT || status == PL_ERR_FORMAT)
            return pl_fail_within(err, PL_ERR_FORMAT, STDIN_NAME);
    } else {
        unsigned flags = (options->debug_bos ? PL_TOKENIZE_BOS : 0) |
                         (options->debug_no_special ? PL_TOKENIZE_NO_SPECIAL : 0);
        status = pl_tokenize(model, pl_strbuf_string(text), text->n, flags, &tokens, err);
    }
    if (status == PL_OK)
        status = print_ids(&tokens, err);
    pl_tokens_free(&tokens);
    return status;
}

static pl_status detokenize(const pl_model *model, const pl_strbuf *json, pl_error *err)
{
    pl_status status;
    pl_tokens tokens = {.ids = NULL};
    char *text = NULL;
    size_t n = 0;
    PL_TRY_GOTO(
        pl_json_read_ids(pl_strbuf_string(json), json->n, STDIN_NAME, pl_model_vocab_size(model), &tokens, err));
    PL_TRY_GOTO(pl_detokenize(model, tokens.ids, tokens.n, false, &text, &n, err));
    fwrite(text, 1, n, stdout);
    status = pl_console_flush(err);
fail:
    pl_text_free(text);
    pl_tokens_free(&tokens);
    return status;
}

static pl_status debug_text(const pl_options *options, pl_error *err)
{
    pl_status status;
    pl_model *model = NULL;
    pl_strbuf input = {.data = NULL};
    PL_TRY_GOTO(pl_model_open_text(options->model, &model, err));
    PL_TRY_GOTO(pl_slurp("-", &input, err));
    if (options->command == PL_COMMAND_DEBUG_TOKENIZE)
        PL_TRY_GOTO(tokenize(options, model, &input, err));
    else
        PL_TRY_GOTO(detokenize(model, &input, err));
fail:
    pl_strbuf_free(&input);
    pl_model_close(model);
    return status;
}

/* ---- logits ------------------------------------------------------------------------------------- */

static pl_status read_ids(const pl_options *options, const pl_model *model, pl_tokens *out, pl_error *err)
{
    pl_strbuf text = {.data = NULL};
    pl_status status = pl_slurp(options->ids_file, &text, err);
    if (status == PL_OK)
        status = pl_json_read_ids(pl_strbuf_string(&text), text.n, options->ids_file, pl_model_vocab_size(model), out,
                                  err);
    pl_strbuf_free(&text);
    PL_TRY(status);
    return out->n ? PL_OK : pl_fail(err, PL_ERR_FORMAT, "%s: the array is empty", options->ids_file);
}

static pl_status check_fit(const pl_options *options, const pl_opened *opened, size_t n, pl_error *err)
{
    pl_engine_info info;
    pl_engine_describe(opened->engine, &info);
    if (n > (size_t)info.context)
        return pl_fail(err, PL_ERR_CONTEXT, "%s: %zu token ids; the context holds %d", options->ids_file, n,
                       info.context);
    return PL_OK;
}

/* Fills logits [n][vocab], changing the path where --switch says so. */
static pl_status run_pieces(const pl_options *options, pl_session *session, const pl_tokens *ids, size_t vocab,
                            float *logits, pl_error *err)
{
    size_t at = 0;
    for (size_t i = 0; i <= options->switches.n; i++) {
        bool last = i == options->switches.n;
        size_t next = last ? ids->n : (size_t)options->switches.items[i].at;
        if (next > ids->n || (next == ids->n && !last))
            return pl_fail(err, PL_ERR_ARGUMENT, "--switch at %zu, but there are only %zu token ids", next, ids->n);
        if (next > at)
            PL_TRY(pl_logits(session, ids->ids + at, next - at, at > 0, logits + at * vocab, err));
        at = next;
        if (!last)
            PL_TRY(pl_session_set_path(session, options->switches.items[i].path, PL_SWITCH_FAST, err));
    }
    return PL_OK;
}

static pl_status write_tensors(const pl_options *options, pl_debug_trace *trace, const float *logits, size_t n,
                               size_t vocab, pl_error *err)
{
    pl_out_tensor *tensors = calloc(trace->n + 1, sizeof *tensors);
    if (!tensors)
        return pl_fail_memory(err, (trace->n + 1) * sizeof *tensors, "list of tensors");
    pl_status status = PL_OK;
    tensors[0] = (pl_out_tensor){
        .name = "logits", .dtype = PL_OUT_F32, .n_dims = 2, .dims = {(int64_t)n, (int64_t)vocab}, .data = logits};
    for (size_t i = 0; i < trace->n && status == PL_OK; i++)
        status = pl_debug_trace_finish(trace, i, &tensors[i + 1], err);
    if (status == PL_OK)
        status = pl_safetensors_write(options->out_file, tensors, trace->n + 1, err);
    free(tensors);
    return status;
}

static pl_status compute_logits(const pl_options *options, const pl_opened *opened, const pl_tokens *ids, pl_error *err)
{
    pl_status status;
    pl_debug_trace trace = {.tensors = NULL};
    size_t vocab = (size_t)pl_model_vocab_size(opened->model);
    size_t room = ids->n > SIZE_MAX / sizeof(float) / vocab ? 0 : ids->n * vocab;
    float *logits = room ? malloc(room * sizeof *logits) : NULL;
    if (!logits)
        return pl_fail_memory(err, room * sizeof *logits, "logits");
    if (options->all_tensors)
        pl_session_trace(opened->session, pl_debug_trace_take, &trace);
    PL_TRY_GOTO(run_pieces(options, opened->session, ids, vocab, logits, err));
    if (trace.error.status != PL_OK)
        PL_TRY_GOTO(pl_fail(err, trace.error.status, "%s", trace.error.message));
    PL_TRY_GOTO(write_tensors(options, &trace, logits, ids->n, vocab, err));
fail:
    pl_debug_trace_free(&trace);
    free(logits);
    return status;
}

static pl_status debug_logits(const pl_options *options, pl_error *err)
{
    pl_status status;
    pl_opened opened = {.model = NULL};
    pl_tokens ids = {.ids = NULL};
    pl_engine_params params = pl_opened_params(options);
    params.batch_rows = options->chunk;
    PL_TRY_GOTO(pl_model_open(options->model, &opened.model, err));
    PL_TRY_GOTO(read_ids(options, opened.model, &ids, err));
    PL_TRY_GOTO(pl_opened_engine(options, &params, &opened, err));
    PL_TRY_GOTO(check_fit(options, &opened, ids.n, err));
    PL_TRY_GOTO(compute_logits(options, &opened, &ids, err));
fail:
    pl_tokens_free(&ids);
    pl_opened_free(&opened);
    return status;
}

pl_status pl_cmd_debug(const pl_options *options, pl_error *err)
{
    switch (options->command) {
    case PL_COMMAND_DEBUG_LOGITS: return debug_logits(options, err);
    case PL_COMMAND_DEBUG_IMAGE: return pl_debug_image(options, err);
    case PL_COMMAND_DEBUG_AUDIO: return pl_debug_audio(options, err);
    default: return debug_text(options, err);
    }
}
