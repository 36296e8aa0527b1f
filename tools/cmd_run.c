/* pleiad run: one answer, or a chat. */
#include <string.h>
#include <unistd.h>

#include "tools/answer.h"
#include "tools/chat_loop.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/opened.h"
#include "tools/prompt.h"
#include "tools/slurp.h"

static pl_status check_options(const pl_options *options, bool chat, pl_error *err)
{
    if (chat && options->no_chat)
        return pl_fail(err, PL_ERR_ARGUMENT, "--no-chat continues one text: give it with --prompt, --file or a pipe%s",
                       options->interactive ? ", without --interactive" : "");
    if (chat && options->json)
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "--json reports one answer: give a prompt with --prompt, --file or a pipe%s",
                       options->interactive ? ", without --interactive" : "");
    if (options->no_chat && options->system)
        return pl_fail(err, PL_ERR_ARGUMENT, "--sys is part of the chat template, which --no-chat leaves out");
    if (options->n_logprobs && !options->json)
        return pl_fail(err, PL_ERR_ARGUMENT, "--logprobs needs --json to show them");
    return PL_OK;
}

static pl_status tokenize(const pl_options *options, const pl_model *model, const pl_strbuf *prompt, pl_tokens *out,
                          pl_error *err)
{
    if (options->no_chat)
        return pl_tokenize(model, pl_strbuf_string(prompt), prompt->n, PL_TOKENIZE_BOS, out, err);
    if (prompt->n && memchr(prompt->data, '\0', prompt->n))
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt holds a zero byte at position %zu",
                       (size_t)((char *)memchr(prompt->data, '\0', prompt->n) - prompt->data));
    pl_message messages[] = {{"system", options->system}, {"user", pl_strbuf_string(prompt)}};
    size_t first = options->system ? 0 : 1;
    return pl_tokenize_chat(model, messages + first, 2 - first, true, out, err);
}

static pl_status check_length(const pl_engine *engine, const pl_tokens *prompt, pl_error *err)
{
    pl_engine_info info;
    pl_engine_describe(engine, &info);
    if (prompt->n < (size_t)info.context)
        return PL_OK;
    return pl_fail(err, PL_ERR_CONTEXT,
                   "the prompt is %zu tokens long; the context holds %d, the answer included "
                   "(--ctx-size)",
                   prompt->n, info.context);
}

static pl_status answer_once(const pl_options *options, const pl_opened *opened, const pl_strbuf *prompt, pl_error *err)
{
    pl_status status;
    pl_tokens tokens = {.ids = NULL};
    pl_answer answer = {.tokens = NULL};
    uint64_t seed = pl_answer_seed(options);
    PL_TRY_GOTO(tokenize(options, opened->model, prompt, &tokens, err));
    PL_TRY_GOTO(check_length(opened->engine, &tokens, err));
    pl_console_detail(options, "seed %llu", (unsigned long long)seed);
    pl_interrupt_catch();
    PL_TRY_GOTO(pl_answer_make(options, seed, !options->json, opened, &tokens, &answer, err));
    if (options->json)
        PL_TRY_GOTO(pl_answer_print_json(&answer, opened->model, opened->session, seed, err));
    pl_answer_report(options, &answer, opened->session);
    if (answer.made.finish == PL_FINISH_CANCEL)
        status = PL_ERR_CANCELLED;
fail:
    pl_answer_free(&answer);
    pl_tokens_free(&tokens);
    return status;
}

pl_status pl_cmd_run(const pl_options *options, pl_error *err)
{
    pl_status status;
    bool given = false;
    pl_strbuf prompt = {.data = NULL};
    pl_opened opened = {.model = NULL};
    pl_engine_params params = pl_opened_params(options);
    PL_TRY_GOTO(pl_prompt_read(options, &prompt, &given, err));
    bool chat = options->interactive || !given;
    PL_TRY_GOTO(check_options(options, chat, err));
    PL_TRY_GOTO(pl_opened_trace(options, &opened, err));
    PL_TRY_GOTO(pl_opened_start(options, &params, &opened, err));
    if (chat)
        status = pl_chat_loop(options, &opened, given ? pl_strbuf_string(&prompt) : NULL, err);
    else
        status = answer_once(options, &opened, &prompt, err);
    pl_opened_tell_rows(options, opened.engine);
    if (status == PL_OK || status == PL_ERR_CANCELLED) {
        pl_status written = pl_opened_write_trace(options, &opened, err);
        status = written == PL_OK ? status : written;
    }
fail:
    pl_opened_free(&opened);
    pl_strbuf_free(&prompt);
    return status;
}
