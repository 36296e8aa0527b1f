/* pleiad eval: what models cost in quality, path by path. First everything that can be wrong is looked at, then
 * models are loaded, one beside the reference. */
#include <stdlib.h>
#include <string.h>

#include "host/base/progress.h"
#include "host/measure/eval_state.h"
#include "host/measure/evaluate.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/eval_report.h"
#include "tools/interrupt.h"
#include "tools/measured_text.h"
#include "tools/opened.h"
#include "tools/slurp.h"

typedef struct eval {
    const pl_options *options;
    size_t n_models;       /* --model and what --compare names */
    pl_eval_input *inputs; /* [n_models] */
    pl_passages passages;
    int32_t vocab;
    pl_eval_state state; /* results: model by model, path by path */
    pl_eval_input reference_input;
    pl_opened reference;           /* a model, */
    pl_logits_file reference_file; /* or a file of logits */
    pl_evaluator *evaluator;
    pl_logits_writer save;
    pl_progress progress;
    double tokens_before; /* in passages that are done; for progress */
} eval;

static const char *model_name(const eval *v, size_t model)
{
    return model == 0 ? v->options->model : v->options->compare.items[model - 1];
}

static size_t n_paths(const eval *v)
{
    return v->options->paths.n ? v->options->paths.n : 1;
}

static bool has_reference_model(const eval *v)
{
    return v->options->reference && !v->reference_file.where;
}

/* ---- what is asked for ---------------------------------------------------------------------------- */

static pl_status check_options(const pl_options *o, pl_error *err)
{
    if (o->resume_file && o->cache_type != PL_CACHE_F32)
        return pl_fail(err, PL_ERR_ARGUMENT, "--resume does not tell results of one --cache-type from another's");
    if (o->resume_file && o->fast_prompts)
        return pl_fail(err, PL_ERR_ARGUMENT, "--resume does not tell results with --fast-prompts from others");
    for (size_t i = 0; i < o->paths.n; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(o->paths.items[i], o->paths.items[j]) == 0)
                return pl_fail(err, PL_ERR_ARGUMENT, "--path %s is given twice", o->paths.items[i]);
    if (!o->chats && pl_passage_scored(o->n_context) < 1)
        return pl_fail(err, PL_ERR_ARGUMENT, "--ctx-size %d leaves nothing to score, expected 3 or more", o->n_context);
    if (o->save_logits && o->paths.n > 1)
        return pl_fail(err, PL_ERR_ARGUMENT, "--save-logits writes the logits of one path, %zu are given", o->paths.n);
    if (o->save_logits && o->chats)
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "--save-logits writes the second half of each piece, --chat scores others");
    if (o->save_logits && o->resume_file)
        return pl_fail(err, PL_ERR_ARGUMENT, "--save-logits writes a file in one go, which --resume cannot take up");
    return PL_OK;
}

/* The first model says what the text is; others must see the same in it. */
static pl_status check_text(eval *v, const pl_model *model, const char *name, const pl_strbuf *text, pl_error *err)
{
    int32_t vocab = pl_model_vocab_size(model);
    if (v->options->n_context > pl_model_context(model))
        return pl_fail(err, PL_ERR_ARGUMENT, "--ctx-size %d, but %s was made for %d tokens", v->options->n_context,
                       name, pl_model_context(model));
    if (!v->passages.ids) {
        v->vocab = vocab;
        return pl_measured_text_cut(v->options, model, text, &v->passages, err);
    }
    if (vocab != v->vocab)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: has a vocabulary of %d tokens, %s one of %d", name, vocab,
                       v->options->model, v->vocab);
    pl_passages passages;
    PL_TRY(pl_measured_text_cut(v->options, model, text, &passages, err));
    bool same = passages.fingerprint == v->passages.fingerprint;
    pl_passages_free(&passages);
    return same ? PL_OK
                : pl_fail(err, PL_ERR_ARGUMENT, "%s: reads the text as other tokens than %s", name, v->options->model);
}

static pl_status check_path(const pl_model *model, const char *name, const char *path, pl_error *err)
{
    pl_status status = pl_evaluate_check_path(model, path, err);
    return status == PL_OK ? PL_OK : pl_fail_within(err, status, "%s", name);
}

static pl_status survey_opened(eval *v, size_t index, const pl_model *model, const pl_strbuf *text, pl_error *err)
{
    const pl_options *o = v->options;
    const char *name = model_name(v, index);
    PL_TRY(check_text(v, model, name, text, err));
    for (size_t i = 0; i < n_paths(v); i++) {
        const char *path = o->paths.n ? o->paths.items[i] : pl_evaluate_default_path(model);
        PL_TRY(check_path(model, name, path, err));
        if (v->reference.model)
            PL_TRY(check_path(v->reference.model, o->reference, path, err));
        v->state.results[v->state.n++] = (pl_eval_result){.model = &v->inputs[index], .path = path};
    }
    return PL_OK;
}

static pl_status survey_model(eval *v, size_t index, const pl_strbuf *text, pl_error *err)
{
    pl_model *model = NULL;
    const char *name = model_name(v, index);
    PL_TRY(pl_eval_input_look(name, &v->inputs[index], err));
    for (size_t i = 0; i < index; i++)
        if (strcmp(v->inputs[i].file, v->inputs[index].file) == 0)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s: is given twice", name);
    PL_TRY(pl_model_open(name, &model, err));
    pl_status status = survey_opened(v, index, model, text, err);
    pl_model_close(model);
    return status;
}

static pl_status open_reference(eval *v, pl_error *err)
{
    const char *name = v->options->reference;
    if (!name)
        return PL_OK;
    PL_TRY(pl_eval_input_look(name, &v->reference_input, err));
    v->state.reference = &v->reference_input;
    if (pl_logits_file_is(name))
        return pl_logits_file_open(name, &v->reference_file, err);
    return pl_model_open(name, &v->reference.model, err);
}

static pl_status survey(eval *v, const pl_strbuf *text, pl_error *err)
{
    v->n_models = 1 + v->options->compare.n;
    v->inputs = calloc(v->n_models, sizeof *v->inputs);
    v->state.results = calloc(v->n_models * n_paths(v), sizeof *v->state.results);
    if (!v->inputs || !v->state.results)
        return pl_fail_memory(err, v->n_models * n_paths(v) * sizeof *v->state.results, "list of models");
    v->state.passages = &v->passages;
    PL_TRY(open_reference(v, err));
    for (size_t i = 0; i < v->n_models; i++)
        PL_TRY(survey_model(v, i, text, err));
    if (v->reference.model)
        PL_TRY(check_text(v, v->reference.model, v->options->reference, text, err));
    if (v->reference_file.where && v->options->chats)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s holds the second half of each piece, --chat scores others",
                       v->options->reference);
    if (v->reference_file.where)
        PL_TRY(pl_logits_file_check(&v->reference_file, &v->passages, v->vocab, err));
    if (!v->options->resume_file)
        return PL_OK;
    PL_TRY(pl_eval_state_resume(v->options->resume_file, &v->state, err));
    return pl_eval_state_save(v->options->resume_file, &v->state, err);
}

/* ---- measuring ------------------------------------------------------------------------------------ */

static bool on_tokens(void *user, int32_t tokens)
{
    eval *v = user;
    pl_progress_update(&v->progress, v->tokens_before + tokens);
    return !pl_interrupt_pending();
}

static pl_status on_passage(void *user, pl_error *err)
{
    eval *v = user;
    v->tokens_before += v->passages.length;
    return v->options->resume_file ? pl_eval_state_save(v->options->resume_file, &v->state, err) : PL_OK;
}

static pl_status measure_path(eval *v, const pl_opened *opened, pl_eval_result *r, pl_error *err)
{
    pl_evaluation what = {
        .session = opened->session,
        .reference = v->reference.session,
        .reference_file = v->reference_file.where ? &v->reference_file : NULL,
        .passages = &v->passages,
        .save = v->save.out.file && r == v->state.results ? &v->save : NULL,
        .on_tokens = on_tokens,
        .on_passage = on_passage,
        .user = v,
    };
    PL_TRY(pl_session_set_path(opened->session, r->path, PL_SWITCH_EXACT, err));
    if (what.reference)
        PL_TRY(pl_session_set_path(what.reference, r->path, PL_SWITCH_EXACT, err));
    PL_TRY(pl_evaluate(v->evaluator, &what, &r->done, &r->sums, err));
    return what.save ? pl_logits_writer_commit(&v->save, err) : PL_OK;
}

/* The reference is always exact, so that one file shows what narrower K/V and fast prompts cost. */
static pl_status load(eval *v, pl_opened *opened, bool exact, pl_error *err)
{
    pl_engine_info info;
    pl_engine_params params = pl_opened_params(v->options);
    params.cache = exact ? PL_CACHE_F32 : params.cache;
    params.fast_prompts &= !exact;
    PL_TRY(pl_opened_engine(v->options, &params, opened, err));
    pl_engine_describe(opened->engine, &info);
    if (!v->evaluator)
        PL_TRY(pl_evaluator_create(v->vocab, info.threads, &v->evaluator, err));
    return pl_interrupt_pending() ? PL_ERR_CANCELLED : PL_OK;
}

static pl_status measure_model(eval *v, size_t index, pl_error *err)
{
    pl_status status;
    pl_opened opened = {.model = NULL};
    PL_TRY_GOTO(pl_model_open(model_name(v, index), &opened.model, err));
    PL_TRY_GOTO(load(v, &opened, false, err));
    pl_interrupt_watch(opened.session);
    for (size_t i = 0; i < n_paths(v); i++)
        PL_TRY_GOTO(measure_path(v, &opened, &v->state.results[index * n_paths(v) + i], err));
fail:
    pl_interrupt_watch(NULL);
    pl_opened_free(&opened);
    if (status != PL_OK && status != PL_ERR_CANCELLED)
        pl_fail_within(err, status, "%s", model_name(v, index));
    return status;
}

static int64_t passages_left(const eval *v, size_t first, size_t n)
{
    int64_t left = 0;
    for (size_t i = first; i < first + n; i++)
        left += v->passages.n - v->state.results[i].done;
    return left;
}

static pl_status measure(eval *v, pl_error *err)
{
    double left = (double)passages_left(v, 0, v->state.n) * v->passages.length;
    if (v->options->save_logits)
        PL_TRY(pl_logits_writer_open(v->options->save_logits, &v->passages, v->vocab, &v->save, err));
    if (left > 0 && has_reference_model(v))
        PL_TRY(load(v, &v->reference, true, err));
    pl_progress_start(&v->progress, "measuring", "tokens", left, !v->options->quiet);
    for (size_t i = 0; i < v->n_models; i++)
        if (passages_left(v, i * n_paths(v), n_paths(v)) > 0)
            PL_TRY(measure_model(v, i, err));
    return PL_OK;
}

static void tell_what_is_kept(const eval *v)
{
    const char *file = v->options->resume_file;
    int64_t all = (int64_t)v->state.n * v->passages.n, done = all - passages_left(v, 0, v->state.n);
    if (file)
        pl_console_note(v->options, "stopped after %lld of %lld pieces; %s keeps them: the same command goes on",
                        (long long)done, (long long)all, file);
    else
        pl_console_note(v->options, "stopped after %lld of %lld pieces; with --resume FILE they would be kept",
                        (long long)done, (long long)all);
}

static void close_eval(eval *v)
{
    pl_logits_writer_abort(&v->save);
    pl_evaluator_free(v->evaluator);
    pl_opened_free(&v->reference);
    pl_logits_file_close(&v->reference_file);
    pl_eval_input_free(&v->reference_input);
    for (size_t i = 0; v->inputs && i < v->n_models; i++)
        pl_eval_input_free(&v->inputs[i]);
    free(v->inputs);
    free(v->state.results);
    pl_passages_free(&v->passages);
}

pl_status pl_cmd_eval(const pl_options *options, pl_error *err)
{
    pl_status status;
    eval v = {.options = options};
    pl_strbuf text = {.data = NULL};
    PL_TRY(check_options(options, err));
    PL_TRY_GOTO(pl_slurp(options->file, &text, err));
    PL_TRY_GOTO(survey(&v, &text, err));
    pl_interrupt_catch();
    status = measure(&v, err);
    pl_progress_finish(&v.progress);
    if (status == PL_ERR_CANCELLED)
        tell_what_is_kept(&v);
    if (status == PL_OK)
        status = options->json ? pl_eval_report_json(options, &v.state, err) : pl_eval_report_table(&v.state, err);
fail:
    close_eval(&v);
    pl_strbuf_free(&text);
    return status;
}
