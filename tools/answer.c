#include "tools/answer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "host/base/json_out.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/slurp.h"

typedef struct taking {
    pl_answer *answer;
    bool stream;
    pl_status status; /* what went wrong in a callback */
    pl_error *err;
} taking;

void pl_answer_free(pl_answer *answer)
{
    if (!answer)
        return;
    pl_strbuf_free(&answer->text);
    free(answer->tokens);
    free(answer->top);
    *answer = (pl_answer){.tokens = NULL};
}

static pl_status grow(pl_answer *a, pl_error *err)
{
    size_t room = 2 * a->room + 64;
    pl_answer_token *tokens = room > SIZE_MAX / sizeof *tokens ? NULL : realloc(a->tokens, room * sizeof *tokens);
    if (tokens)
        a->tokens = tokens;
    pl_logprob *top = NULL;
    size_t top_bytes = sizeof *top * (a->n_top ? a->n_top : 1);
    if (tokens && room <= SIZE_MAX / top_bytes)
        top = realloc(a->top, room * top_bytes);
    if (!top)
        return pl_fail_memory(err, room * sizeof *tokens, "tokens of the answer");
    a->top = top;
    a->room = room;
    return PL_OK;
}

static pl_status keep_token(pl_answer *a, const pl_token_event *event, pl_error *err)
{
    if (event->id < 0)
        return PL_OK;
    if (a->n_tokens == a->room)
        PL_TRY(grow(a, err));
    if (a->n_top)
        memcpy(a->top + a->n_tokens * a->n_top, event->top, a->n_top * sizeof *a->top);
    a->tokens[a->n_tokens++] = (pl_answer_token){.id = event->id, .logprob = event->logprob};
    return PL_OK;
}

static pl_status take(taking *t, const pl_token_event *event)
{
    PL_TRY(keep_token(t->answer, event, t->err));
    pl_strbuf_add(&t->answer->text, event->text, event->n_bytes);
    PL_TRY(pl_strbuf_check(&t->answer->text, t->err));
    if (!t->stream || !event->n_bytes)
        return PL_OK;
    fwrite(event->text, 1, event->n_bytes, stdout);
    return pl_console_flush(t->err);
}

static bool on_token(void *user, const pl_token_event *event)
{
    taking *t = user;
    t->status = take(t, event);
    return t->status == PL_OK && !pl_interrupt_pending();
}

pl_status pl_answer_make(const pl_options *options, uint64_t seed, bool stream, const pl_opened *opened,
                         const pl_tokens *prompt, pl_answer *out, pl_error *err)
{
    taking t = {.answer = out, .stream = stream, .status = PL_OK, .err = err};
    pl_generation params = pl_generation_default();
    params.max_tokens = options->n_predict;
    params.sampling = options->sampling;
    params.sampling.seed = seed;
    params.stop = options->stop.items;
    params.n_stop = options->stop.n;
    params.n_logprobs = options->n_logprobs ? options->n_logprobs : -1;
    params.ignore_eos = options->ignore_eos;
    params.grammar = opened->grammar;
    params.draft = (pl_drafting){.most = options->draft, .path = options->draft_path};
    params.on_token = on_token;
    params.user = &t;

    out->n_top = (size_t)options->n_logprobs;
    pl_error inner = {.status = PL_OK};
    pl_interrupt_watch(opened->session);
    pl_status status = pl_generate(opened->session, prompt->ids, prompt->n, &params, &out->made, &inner);
    pl_interrupt_watch(NULL);
    PL_TRY(t.status);
    if (status == PL_ERR_CANCELLED) {
        out->made.finish = PL_FINISH_CANCEL;
        status = PL_OK;
    }
    if (status != PL_OK)
        return pl_fail(err, status, "%s", inner.message);
    if (stream && !(out->text.n && out->text.data[out->text.n - 1] == '\n')) {
        fputc('\n', stdout);
        return pl_console_flush(err);
    }
    return PL_OK;
}

uint64_t pl_answer_seed(const pl_options *options)
{
    if (options->seed >= 0)
        return (uint64_t)options->seed;
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)time(NULL);
    return seed >> 1; /* so that --seed can ask for it again */
}

double pl_answer_prompt_rate(const pl_generated *made)
{
    size_t n = made->n_prompt - made->n_prompt_reused;
    return n && made->prompt_s > 0 ? (double)n / made->prompt_s : 0;
}

double pl_answer_rate(const pl_generated *made)
{
    return made->n_tokens > 1 && made->generate_s > 0 ? (double)(made->n_tokens - 1) / made->generate_s : 0;
}

static const char *finish_name(pl_finish finish)
{
    switch (finish) {
    case PL_FINISH_EOS: return "eos";
    case PL_FINISH_STOP: return "stop";
    case PL_FINISH_LENGTH: return "length";
    case PL_FINISH_CANCEL: break;
    }
    return "cancel";
}

/* ", 12 of 20 drafts accepted (ngram)"; empty where there were none. */
static void describe_drafts(const pl_draft_counts *counts, char *out, size_t room)
{
    uint64_t drafted = 0, accepted = 0;
    char each[64] = "";
    for (int i = 0; i < PL_DRAFT_SOURCES; i++) {
        size_t used = strlen(each);
        drafted += counts->drafted[i];
        accepted += counts->accepted[i];
        if (counts->drafted[i] > 0)
            snprintf(each + used, sizeof each - used, "%s%s", used ? ", " : "", pl_draft_source_name(i));
    }
    if (drafted > 0)
        snprintf(out, room, ", %llu of %llu drafts accepted (%s)", (unsigned long long)accepted,
                 (unsigned long long)drafted, each);
}

void pl_answer_report(const pl_options *options, const pl_answer *answer, const pl_session *session)
{
    const pl_generated *made = &answer->made;
    char reused[48] = "", rate[48] = "", drafts[96] = "", end[32] = "";
    if (made->n_prompt_reused)
        snprintf(reused, sizeof reused, " (%zu kept)", made->n_prompt_reused);
    if (made->n_tokens > 1)
        snprintf(rate, sizeof rate, ", %.1f tokens/s", pl_answer_rate(made));
    describe_drafts(&made->drafts, drafts, sizeof drafts);
    if (made->finish == PL_FINISH_LENGTH || made->finish == PL_FINISH_CANCEL)
        snprintf(end, sizeof end, ", %s", made->finish == PL_FINISH_LENGTH ? "cut at the limit" : "stopped");
    pl_console_note(options,
                    "prompt %zu tokens%s, %.1f tokens/s; first token after %.2f s; answer %zu tokens%s%s%s; path %s",
                    made->n_prompt, reused, pl_answer_prompt_rate(made), made->prompt_s, made->n_tokens, rate, drafts,
                    end, pl_session_path(session));
}

/* ---- JSON --------------------------------------------------------------------------------------- */

static pl_status write_token(pl_json *json, const pl_model *model, int32_t id, float logprob, pl_error *err)
{
    char *text;
    size_t n;
    PL_TRY(pl_detokenize(model, &id, 1, false, &text, &n, err));
    pl_json_put_int(json, "id", id);
    pl_json_key(json, "text");
    pl_json_text(json, text, n);
    pl_json_key(json, "logprob");
    pl_json_float(json, logprob);
    pl_text_free(text);
    return PL_OK;
}

static pl_status write_logprobs(pl_json *json, const pl_answer *a, const pl_model *model, pl_error *err)
{
    pl_json_key_array(json, "logprobs");
    for (size_t i = 0; i < a->n_tokens; i++) {
        pl_json_begin_object(json);
        PL_TRY(write_token(json, model, a->tokens[i].id, a->tokens[i].logprob, err));
        pl_json_key_array(json, "top");
        for (size_t j = 0; j < a->n_top; j++) {
            const pl_logprob *top = &a->top[i * a->n_top + j];
            pl_json_begin_object(json);
            PL_TRY(write_token(json, model, top->id, top->logprob, err));
            pl_json_end_object(json);
        }
        pl_json_end_array(json);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
    return PL_OK;
}

static void write_drafts(pl_json *json, const pl_draft_counts *counts)
{
    pl_json_key_object(json, "drafts");
    for (int i = 0; i < PL_DRAFT_SOURCES; i++) {
        pl_json_key_object(json, pl_draft_source_name(i));
        pl_json_put_size(json, "proposed", counts->drafted[i]);
        pl_json_put_size(json, "accepted", counts->accepted[i]);
        pl_json_end_object(json);
    }
    pl_json_end_object(json);
}

static void write_timings(pl_json *json, const pl_generated *made)
{
    pl_json_key_object(json, "timings");
    pl_json_put_size(json, "prompt_tokens", made->n_prompt);
    pl_json_put_size(json, "prompt_tokens_reused", made->n_prompt_reused);
    pl_json_put_size(json, "answer_tokens", made->n_tokens);
    pl_json_put_double(json, "first_token_s", made->prompt_s);
    pl_json_put_double(json, "generate_s", made->generate_s);
    pl_json_put_double(json, "prompt_tokens_per_s", pl_answer_prompt_rate(made));
    pl_json_put_double(json, "answer_tokens_per_s", pl_answer_rate(made));
    pl_json_end_object(json);
}

static pl_status write_answer(pl_json *json, const pl_answer *answer, const pl_model *model, const pl_session *session,
                              uint64_t seed, pl_error *err)
{
    pl_json_begin_object(json);
    pl_json_key(json, "text");
    pl_json_text(json, pl_strbuf_string(&answer->text), answer->text.n);
    pl_json_key_array(json, "tokens");
    for (size_t i = 0; i < answer->n_tokens; i++)
        pl_json_int(json, answer->tokens[i].id);
    pl_json_end_array(json);
    pl_json_put_string(json, "finish", finish_name(answer->made.finish));
    pl_json_put_string(json, "path", pl_session_path(session));
    pl_json_put_int(json, "seed", (int64_t)seed);
    write_timings(json, &answer->made);
    write_drafts(json, &answer->made.drafts);
    if (answer->n_top)
        PL_TRY(write_logprobs(json, answer, model, err));
    pl_json_end_object(json);
    pl_json_newline(json);
    return PL_OK;
}

pl_status pl_answer_print_json(const pl_answer *answer, const pl_model *model, const pl_session *session, uint64_t seed,
                               pl_error *err)
{
    pl_json json = pl_json_to_file(stdout);
    PL_TRY(write_answer(&json, answer, model, session, seed, err));
    return pl_json_flush(&json, "standard output", err);
}
