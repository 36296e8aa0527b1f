/* A call on the service's threads: its body is read, its prompts are made and submitted. */
#include "host/serve/call_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD 4 /* prompts that may wait for answers, where they are made one by one */

static bool is_gone(void *user)
{
    pl_call *call = user;
    pthread_mutex_lock(&call->lock);
    bool gone = call->gone;
    pthread_mutex_unlock(&call->lock);
    return gone;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static void preset(pl_call *call)
{
    const pl_service_params *params = pl_service_parameters(call->service);
    pl_call_spec *spec = &call->spec;
    spec->n = 1;
    spec->prompt_field = "";
    spec->request.path = params->path;
    spec->request.generation = pl_generation_default();
    spec->request.generation.max_tokens = params->max_tokens;
    spec->request.generation.sampling = params->sampling;
    spec->request.generation.draft = params->draft;
    spec->request.generation.sampling.seed = call->random;
    call->model = params->name;
}

static bool make_choices(pl_call *call, pl_api_error *error)
{
    size_t n = call->spec.n_prompts * (size_t)call->spec.n;
    choice *choices = calloc(n, sizeof *choices);
    if (!choices) {
        pl_error err;
        pl_fail_memory(&err, n * sizeof *choices, "a call's choices");
        *error = pl_api_error_of(&err);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        choices[i].call = call;
        choices[i].index = (int32_t)i;
        choices[i].parser.names = call->spec.tool_names;
    }
    pthread_mutex_lock(&call->lock);
    call->choices = choices;
    call->n_choices = call->n_open = (int32_t)n;
    pthread_mutex_unlock(&call->lock);
    return true;
}

static bool check_media(pl_call *call, pl_api_error *error)
{
    const pl_media_part *part;
    for (size_t i = 0; call->spec.conversation && (part = pl_conversation_shown(call->spec.conversation, i)); i++)
        if (!pl_media_part_check(call->service, part, error))
            return false;
    return true;
}

static bool read_body(pl_call *call, pl_api_error *error)
{
    if (call->format->parse) {
        call->root = call->format->parse(call, call->body, call->n_body, error);
    } else {
        call->root = pl_fields_parse(call->body, call->n_body, error);
        free(call->body);
        call->body = NULL;
    }
    return call->root && call->format->read(call, call->root, &call->spec, error) && check_media(call, error) &&
           make_choices(call, error);
}

bool pl_call_converse(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    pl_error err = {PL_ERR_MEMORY, "out of memory"};
    spec->prompts = pl_call_keep(call, sizeof *spec->prompts);
    if (!spec->prompts || pl_conversation_create(&spec->conversation, &err) != PL_OK) {
        pl_field_fail_of(f, "", &err);
        return false;
    }
    spec->n_prompts = 1;
    return !pl_fields_failed(f);
}

/* ---- submitting -------------------------------------------------------------------------------- */

static void blame_prompt(const pl_call *call, pl_api_error *error)
{
    if (error->status == 400 && !error->param[0])
        snprintf(error->param, sizeof error->param, "%s", call->spec.prompt_field);
}

/* Instead of an answer: what is known of the prompt. */
static void count(choice *c, const pl_tokens *prompt)
{
    const pl_outcome outcome = {.message = "", .answer = {.n_prompt = prompt->n}};
    call_hold(c->call);
    call_done(c, &outcome);
}

/* A request that was refused holds nothing: its on_done never comes. */
static bool submit(pl_call *call, choice *c, pl_api_error *error)
{
    const pl_call_spec *spec = &call->spec;
    const pl_tokens *prompt = &spec->prompts[c->index / spec->n];
    pl_request r = spec->request;
    uint64_t id = 0;
    pl_error err = {.message = ""};
    r.prompt = prompt->ids;
    r.n_prompt = prompt->n;
    r.generation.grammar = spec->grammar;
    r.generation.sampling.seed += (uint64_t)c->index;
    r.generation.on_token = call_token;
    r.generation.user = r.user = c;
    r.on_done = call_done;
    call_hold(call);
    if (pl_scheduler_submit(pl_service_scheduler(call->service), &r, &id, &err) != PL_OK) {
        *error = pl_api_error_of(&err);
        blame_prompt(call, error);
        call_release(call);
        return false;
    }
    pthread_mutex_lock(&call->lock);
    c->request = id;
    bool gone = call->gone;
    pthread_mutex_unlock(&call->lock);
    if (gone)
        pl_scheduler_cancel(pl_service_scheduler(call->service), id);
    return true;
}

/* The choices of one prompt. */
static bool submit_prompt(pl_call *call, size_t prompt, pl_api_error *error)
{
    for (int32_t i = 0; i < call->spec.n; i++) {
        choice *c = &call->choices[(int32_t)prompt * call->spec.n + i];
        if (call->spec.count)
            count(c, &call->spec.prompts[prompt]);
        else if (!submit(call, c, error))
            return false;
    }
    return true;
}

static bool submit_all(pl_call *call, pl_api_error *error)
{
    for (size_t i = 0; i < call->spec.n_prompts; i++)
        if (!submit_prompt(call, i, error))
            return false;
    return true;
}

/* ---- prompts ----------------------------------------------------------------------------------- */

static void count_audio(pl_call *call)
{
    const pl_media_part *part;
    const int32_t *ids;
    for (size_t i = 0; (part = pl_conversation_shown(call->spec.conversation, i)); i++)
        for (size_t k = 0; k < part->n_rows; k++)
            if (pl_media_kind_of(part->rows[k]) == PL_MEDIA_AUDIO)
                call->spec.audio_tokens += (int64_t)pl_media_ids(part->rows[k], &ids);
}

/* What is shown is encoded already. */
static bool tell_conversation(pl_call *call, pl_api_error *error)
{
    pl_error err = {.message = ""};
    pl_call_spec *spec = &call->spec;
    count_audio(call);
    if (pl_conversation_tokens(spec->conversation, pl_service_model(call->service), &spec->prompts[0], &err) == PL_OK)
        return true;
    *error = pl_api_error_of(&err);
    blame_prompt(call, error);
    return false;
}

static size_t count_rows(const pl_media_part *part)
{
    size_t n = 0;
    const int32_t *ids;
    for (size_t i = 0; i < part->n_rows; i++)
        n += pl_media_ids(part->rows[i], &ids);
    return n;
}

static bool make_prompt(pl_call *call, size_t i, pl_api_error *error)
{
    const pl_media_stop stop = {is_gone, call};
    pl_call_spec *spec = &call->spec;
    pl_media_part *part;
    size_t taken = 0;
    if (call->format->prompt)
        return call->format->prompt(call, i, &stop, &spec->prompts[i], error);
    for (size_t k = 0; (part = pl_conversation_shown(spec->conversation, k)); k++) {
        if (!pl_media_part_encode(call->service, part, taken, &stop, error))
            return false;
        taken += count_rows(part);
    }
    return tell_conversation(call, error);
}

/* ---- the work ---------------------------------------------------------------------------------- */

/* The work's last act. error: what it ends with; the loop responds, and ends what was submitted. */
static void end_work(pl_call *call, const pl_api_error *error)
{
    if (error->status)
        call_fail(call, error);
    if (call->format->release)
        call->format->release(call);
    pl_conversation_free(call->spec.conversation);
    call->spec.conversation = NULL;
    json_decref(call->root);
    call->root = NULL;
    pthread_mutex_lock(&call->lock);
    call->submitted = true;
    pthread_mutex_unlock(&call->lock);
    call_tell(call); /* of answers that were there before */
    call_release(call);
}

/* How many prompts, of n_prepared, have no answer yet; under the lock. */
static size_t under_way(const pl_call *call)
{
    return call->n_prepared - (size_t)(call->n_choices - call->n_open) / (size_t)call->spec.n;
}

bool call_may_go_on(pl_call *call)
{
    bool may = call->paused && under_way(call) < AHEAD;
    call->paused = call->paused && !may;
    return may;
}

void call_go_on(pl_call *call)
{
    pl_error err;
    if (pl_service_work_media(call->service, call_prepare, call, &err) != PL_OK) {
        pl_api_error error = pl_api_error_of(&err);
        end_work(call, &error);
    }
}

void call_prepare(void *user)
{
    pl_call *call = user;
    pl_api_error error = {0};
    size_t i = call->n_prepared;
    if (is_gone(call) || !make_prompt(call, i, &error) || !submit_prompt(call, i, &error) ||
        i + 1 == call->spec.n_prompts) {
        end_work(call, &error);
        return;
    }
    pthread_mutex_lock(&call->lock);
    call->n_prepared++;
    call->submitted = call->spec.stream;
    call->paused = true;
    bool on = call_may_go_on(call);
    pthread_mutex_unlock(&call->lock);
    call_tell(call);
    if (on)
        call_go_on(call);
}

void call_work(void *user)
{
    pl_call *call = user;
    pl_api_error error = {0};
    bool gone = is_gone(call), read = false;
    if (!gone) {
        preset(call);
        read = read_body(call, &error);
    }
    const pl_call_spec *spec = &call->spec;
    if (read && (call->format->prompt || (spec->conversation && pl_conversation_shown(spec->conversation, 0)))) {
        call_go_on(call);
        return;
    }
    if (read && (!spec->conversation || tell_conversation(call, &error)))
        submit_all(call, &error);
    end_work(call, &error);
}
