/* pleiad run: one answer, or a chat. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/answer.h"
#include "tools/chat_log.h"
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

/* What is asked, held until it is answered: ids of images and sound live as long as these. */
typedef struct question {
    pl_showing shown; /* without a chat */
    pl_chat_log log;  /* else */
    pl_tokens tokens;
} question;

static void free_question(question *q)
{
    pl_tokens_free(&q->tokens);
    pl_showing_free(&q->shown);
    pl_chat_log_free(&q->log);
}

/* Continued as it is, behind what is shown. */
static pl_status tokenize_plain(const pl_model *model, const pl_strbuf *prompt, question *q, pl_error *err)
{
    size_t n = q->shown.n;
    if (!n)
        return pl_tokenize(model, pl_strbuf_string(prompt), prompt->n, PL_TOKENIZE_BOS, &q->tokens, err);
    pl_strbuf text = {.data = NULL};
    pl_media **media = malloc(n * sizeof *media);
    if (!media)
        return pl_fail_memory(err, n * sizeof *media, "prompt");
    pl_showing_list(&q->shown, media);
    pl_showing_print(&q->shown, &text);
    pl_strbuf_add(&text, prompt->data, prompt->n);
    pl_status status = pl_strbuf_check(&text, err);
    if (status == PL_OK)
        status = pl_tokenize_media(model, text.data, text.n, PL_TOKENIZE_BOS, media, n, &q->tokens, err);
    pl_strbuf_free(&text);
    free(media);
    return status;
}

static pl_status tokenize_chat(const pl_options *options, const pl_model *model, const pl_strbuf *prompt, question *q,
                               pl_error *err)
{
    if (prompt->n && memchr(prompt->data, '\0', prompt->n))
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt holds a zero byte at position %zu",
                       (size_t)((char *)memchr(prompt->data, '\0', prompt->n) - prompt->data));
    if (options->system)
        PL_TRY(pl_chat_log_set_system(&q->log, options->system, err));
    PL_TRY(pl_chat_log_add(&q->log, true, pl_strbuf_string(prompt), &q->shown, err));
    return pl_chat_log_tokenize(&q->log, model, &q->tokens, err);
}

static pl_status ask(const pl_options *options, const pl_opened *opened, const pl_strbuf *prompt, question *out,
                     pl_error *err)
{
    PL_TRY(pl_showing_add_all(&out->shown, options, opened, err));
    return options->no_chat ? tokenize_plain(opened->model, prompt, out, err)
                            : tokenize_chat(options, opened->model, prompt, out, err);
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
    question q = {.tokens = {.ids = NULL}};
    pl_answer answer = {.tokens = NULL};
    uint64_t seed = pl_answer_seed(options);
    pl_interrupt_catch();
    PL_TRY_GOTO(ask(options, opened, prompt, &q, err));
    PL_TRY_GOTO(check_length(opened->engine, &q.tokens, err));
    pl_console_detail(options, "seed %llu", (unsigned long long)seed);
    PL_TRY_GOTO(pl_answer_make(options, seed, !options->json, opened, &q.tokens, &answer, err));
    if (options->json)
        PL_TRY_GOTO(pl_answer_print_json(&answer, opened->model, opened->session, seed, err));
    pl_answer_report(options, &answer, opened->session);
    if (answer.made.finish == PL_FINISH_CANCEL)
        status = PL_ERR_CANCELLED;
fail:
    pl_answer_free(&answer);
    free_question(&q);
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
