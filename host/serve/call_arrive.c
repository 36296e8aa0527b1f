/* What the scheduler says of a call's requests, put where the loop will find it. */
#include "host/serve/call_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void arrivals_free(arrivals *a)
{
    free(a->list);
    free(a->top);
    pl_strbuf_free(&a->text);
    *a = (arrivals){0};
}

/* Room for n more of `size` bytes behind those that are there. */
static bool reserve(void **list, size_t *room, size_t used, size_t n, size_t size)
{
    if (used + n <= *room)
        return true;
    size_t wanted = *room * 2 > used + n ? *room * 2 : used + n + 8;
    void *grown = realloc(*list, wanted * size);
    if (!grown)
        return false;
    *list = grown;
    *room = wanted;
    return true;
}

static bool append(arrivals *a, arrival one, const char *text, const pl_logprob *top)
{
    void *list = a->list, *tops = a->top;
    bool there = reserve(&list, &a->room, a->n, 1, sizeof *a->list);
    a->list = list;
    there = there && reserve(&tops, &a->top_room, a->n_top, one.n_top, sizeof *a->top);
    a->top = tops;
    if (!there)
        return false;
    one.text = a->text.n;
    one.top = a->n_top;
    pl_strbuf_add(&a->text, text, one.n_bytes);
    if (one.n_top)
        memcpy(a->top + a->n_top, top, one.n_top * sizeof *top);
    a->n_top += one.n_top;
    a->list[a->n++] = one;
    return !a->text.failed;
}

static pl_api_error no_memory(void)
{
    pl_error err;
    pl_fail_memory(&err, 0, "an answer");
    return pl_api_error_of(&err);
}

bool call_token(void *user, const pl_token_event *event)
{
    choice *c = user;
    pl_call *call = c->call;
    arrival one = {.choice = c->index,
                   .id = event->id,
                   .logprob = event->logprob,
                   .n_bytes = event->n_bytes,
                   .n_top = event->n_top};
    pthread_mutex_lock(&call->lock);
    bool wanted = !call->gone;
    bool kept = wanted && append(&call->arrived, one, event->text, event->top);
    pthread_mutex_unlock(&call->lock);
    if (wanted && !kept) {
        pl_api_error error = no_memory();
        call_fail(call, &error);
    } else if (kept && call->spec.stream) {
        call_tell(call);
    }
    return kept;
}

static void copy_outcome(pl_call_choice *c, const pl_outcome *o)
{
    c->status = o->status;
    c->finish = o->answer.finish;
    c->answer = o->answer;
    c->queued_s = o->queued_s;
    c->preempted = o->preempted;
    c->moved = o->moved;
    snprintf(c->path, sizeof c->path, "%s", o->path ? o->path : "");
    snprintf(c->reason, sizeof c->reason, "%s", o->reason ? o->reason : "");
}

static bool copy_state(pl_call_choice *c, const pl_outcome *o)
{
    if (o->n_state == 0)
        return true;
    c->state = malloc(o->n_state * sizeof *c->state);
    if (!c->state)
        return false;
    memcpy(c->state, o->state, o->n_state * sizeof *c->state);
    c->n_state = o->n_state;
    return true;
}

void call_done(void *user, const pl_outcome *outcome)
{
    choice *c = user;
    pl_call *call = c->call;
    copy_outcome(&c->shown, outcome);
    bool good = outcome->status == PL_OK, kept = good && copy_state(&c->shown, outcome);
    pthread_mutex_lock(&call->lock);
    bool wanted = !call->gone;
    kept = kept && append(&call->arrived, (arrival){.choice = c->index, .id = -1, .done = true}, "", NULL);
    bool last = --call->n_open == 0;
    bool on = call_may_go_on(call);
    pthread_mutex_unlock(&call->lock);
    if (wanted && !kept) {
        pl_error err = {.status = outcome->status};
        snprintf(err.message, sizeof err.message, "%s", outcome->message ? outcome->message : "");
        pl_api_error error = good ? no_memory() : pl_api_error_of(&err);
        call_fail(call, &error);
    } else if (wanted && (last || call->spec.stream)) {
        call_tell(call);
    }
    if (on)
        call_go_on(call);
    call_release(call);
}
