/* What was said so far to a request of the scheduler, and what this one says of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/realtime_parts.h"

/* ---- on the scheduler's thread ----------------------------------------------------------------- */

static bool on_token(void *user, const pl_token_event *event)
{
    realtime *rt = user;
    pthread_mutex_lock(&rt->lock);
    bool wanted = !rt->gone;
    if (wanted)
        pl_strbuf_add(&rt->delta, event->text, event->n_bytes);
    bool tell = wanted && rt->submitted && event->n_bytes;
    pthread_mutex_unlock(&rt->lock);
    if (tell)
        realtime_tell(rt);
    return wanted;
}

static void on_done(void *user, const pl_outcome *outcome)
{
    realtime *rt = user;
    pthread_mutex_lock(&rt->lock);
    rt->response.outcome = *outcome;
    rt->response.error = (pl_error){.status = outcome->status};
    snprintf(rt->response.error.message, sizeof rt->response.error.message, "%s",
             outcome->message ? outcome->message : "");
    rt->done = true;
    bool tell = rt->submitted;
    pthread_mutex_unlock(&rt->lock);
    if (tell)
        realtime_tell(rt);
    realtime_release(rt);
}

/* ---- the prompt -------------------------------------------------------------------------------- */

static pl_status share(const pl_media_part *part, pl_media_part *out, pl_error *err)
{
    *out = (pl_media_part){.kind = part->kind, .rows = malloc(part->n_rows * sizeof(pl_media *))};
    if (!out->rows)
        return pl_fail_memory(err, part->n_rows * sizeof(pl_media *), "clips");
    for (size_t i = 0; i < part->n_rows; i++)
        out->rows[out->n_rows++] = pl_media_share(part->rows[i]);
    return PL_OK;
}

static int64_t count_ids(const pl_media_part *part)
{
    const int32_t *ids;
    int64_t n = 0;
    for (size_t i = 0; i < part->n_rows; i++)
        n += (int64_t)pl_media_ids(part->rows[i], &ids);
    return n;
}

static pl_status tell(realtime *rt, const char *instructions, pl_conversation *c, pl_error *err)
{
    if (instructions)
        pl_conversation_say(c, PL_SPEAKER_SYSTEM, instructions, strlen(instructions));
    for (size_t i = 0; i < rt->n_entries; i++) {
        const realtime_entry *e = &rt->entries[i];
        pl_media_part part;
        if (e->part.n_rows) {
            PL_TRY(share(&e->part, &part, err));
            pl_conversation_show(c, &part);
            rt->response.audio_tokens += count_ids(&e->part);
        } else {
            pl_conversation_say(c, e->speaker, e->text.data ? e->text.data : "", e->text.n);
        }
    }
    return PL_OK;
}

static pl_status make_prompt(realtime *rt, const char *instructions, pl_tokens *out, pl_error *err)
{
    pl_conversation *c;
    PL_TRY(pl_conversation_create(&c, err));
    pl_status status = tell(rt, instructions, c, err);
    if (status == PL_OK)
        status = pl_conversation_tokens(c, pl_service_model(rt->service), out, err);
    pl_conversation_free(c);
    return status;
}

/* ---- the request ------------------------------------------------------------------------------- */

static pl_request request_of(realtime *rt, const realtime_settings *settings, const pl_tokens *prompt)
{
    const pl_service_params *params = pl_service_parameters(rt->service);
    pl_request r = pl_request_default();
    r.path = rt->path;
    r.client = rt->client;
    r.prompt = prompt->ids;
    r.n_prompt = prompt->n;
    r.generation = pl_generation_default();
    r.generation.max_tokens = settings->max_tokens ? settings->max_tokens : params->max_tokens;
    r.generation.sampling = params->sampling;
    r.generation.sampling.temperature = settings->temperature;
    r.generation.sampling.seed = rt->random + atomic_load(&rt->n_ids);
    r.generation.draft = params->draft;
    r.generation.on_token = on_token;
    r.generation.user = r.user = rt;
    r.on_done = on_done;
    return r;
}

/* Its first token may be there before this knows: the loop begins when `submitted` is set. */
static pl_status submit(realtime *rt, const realtime_settings *settings, const pl_tokens *prompt, pl_error *err)
{
    pl_request r = request_of(rt, settings, prompt);
    uint64_t id = 0;
    pthread_mutex_lock(&rt->lock);
    rt->refs++;
    rt->active = true;
    rt->request = 0;
    pthread_mutex_unlock(&rt->lock);
    pl_status status = pl_scheduler_submit(pl_service_scheduler(rt->service), &r, &id, err);
    pthread_mutex_lock(&rt->lock);
    if (status == PL_OK) {
        rt->request = id;
        rt->submitted = true;
    } else {
        rt->active = false;
        rt->refs--; /* the work's is left */
    }
    bool gone = rt->gone;
    pthread_mutex_unlock(&rt->lock);
    if (status == PL_OK && gone)
        pl_scheduler_cancel(pl_service_scheduler(rt->service), id);
    if (status == PL_OK)
        realtime_tell(rt);
    return status;
}

static bool is_active(realtime *rt)
{
    pthread_mutex_lock(&rt->lock);
    bool active = rt->active;
    pthread_mutex_unlock(&rt->lock);
    return active;
}

bool realtime_respond(realtime *rt, pl_fields *f, pl_api_error *error)
{
    realtime_settings settings = rt->settings;
    pl_tokens prompt;
    pl_error err = {.message = ""};
    if (is_active(rt)) {
        pl_field_fail(f, "", "conversation_already_has_active_response",
                      "A response is being made already: wait until it is done, or cancel it.");
        return false;
    }
    const char *instructions = settings.instructions;
    if (!realtime_read_response(rt, f, &settings, &instructions))
        return false;
    rt->response = (realtime_response){.audio_tokens = 0};
    realtime_name(rt, "resp", rt->response.id);
    realtime_name(rt, "item", rt->response.item);
    snprintf(rt->response.previous, REALTIME_ID, "%s", rt->n_entries ? rt->entries[rt->n_entries - 1].id : "");
    pl_status status = make_prompt(rt, instructions, &prompt, &err);
    if (status == PL_OK) {
        status = submit(rt, &settings, &prompt, &err);
        pl_tokens_free(&prompt);
    }
    if (status != PL_OK)
        *error = pl_api_error_of(&err);
    return status == PL_OK;
}
