#include "tests/engine/served.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

crowd crowd_open(void)
{
    crowd c = {.done = 0};
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.change, NULL);
    return c;
}

void crowd_wait(crowd *c, int done)
{
    pthread_mutex_lock(&c->lock);
    while (c->done < done)
        pthread_cond_wait(&c->change, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static bool hear(heard *h, const pl_token_event *event)
{
    cr_assert_leq(h->n_text + event->n_bytes, sizeof h->text);
    memcpy(h->text + h->n_text, event->text, event->n_bytes);
    h->n_text += event->n_bytes;
    if (event->id < 0)
        return true;
    cr_assert_lt(h->n, SERVED_TOKENS);
    cr_assert_leq(event->n_top, SERVED_TOP);
    h->logprob[h->n] = event->logprob;
    if (event->n_top > 0)
        memcpy(h->top[h->n], event->top, event->n_top * sizeof *event->top);
    h->ids[h->n++] = event->id;
    return h->stop_after == 0 || h->n < h->stop_after;
}

static bool hear_served(void *user, const pl_token_event *event)
{
    served *s = user;
    s->after_done += atomic_load(&s->n_done);
    bool more = hear(&s->heard, event);
    if (s->hold_from && event->id >= 0 && s->heard.n >= s->hold_from) {
        sem_post(&s->held);
        sem_wait(&s->go);
    }
    return more;
}

bool hear_alone(void *user, const pl_token_event *event)
{
    return hear(user, event);
}

static void keep_outcome(void *user, const pl_outcome *outcome)
{
    served *s = user;
    s->status = outcome->status;
    s->outcome = *outcome;
    strncpy(s->message, outcome->message, sizeof s->message - 1);
    strncpy(s->path, outcome->path, sizeof s->path - 1);
    strncpy(s->reason, outcome->reason, sizeof s->reason - 1);
    if (outcome->state) {
        s->state = malloc(outcome->n_state * sizeof *s->state);
        cr_assert_not_null(s->state);
        memcpy(s->state, outcome->state, outcome->n_state * sizeof *s->state);
    }
    pthread_mutex_lock(&s->crowd->lock);
    atomic_fetch_add(&s->n_done, 1);
    s->order = s->crowd->done++;
    pthread_cond_broadcast(&s->crowd->change);
    pthread_mutex_unlock(&s->crowd->lock);
}

void served_init(served *s, crowd *c, const int32_t *prompt, size_t n, int max_tokens)
{
    memset(s, 0, sizeof *s);
    sem_init(&s->held, 0, 0);
    sem_init(&s->go, 0, 0);
    s->crowd = c;
    s->request = pl_request_default();
    s->request.prompt = prompt;
    s->request.n_prompt = n;
    s->request.generation.sampling.temperature = 0;
    s->request.generation.max_tokens = max_tokens;
    s->request.generation.ignore_eos = true;
}

void served_be_first(served *s)
{
    pl_generation *g = &s->request.generation;
    g->max_tokens = 20;
    g->grammar = NULL;
    g->n_stop = 0;
    g->ignore_eos = true;
    s->request.priority = -1;
    s->heard.stop_after = 0;
    s->hold_from = 1;
}

void served_submit(served *s, pl_scheduler *scheduler)
{
    pl_error err = {0};
    s->request.generation.on_token = hear_served;
    s->request.generation.user = s;
    s->request.on_done = keep_outcome;
    s->request.user = s;
    cr_assert_eq(pl_scheduler_submit(scheduler, &s->request, &s->id, &err), PL_OK, "%s", err.message);
}

void served_wait_held(served *s)
{
    sem_wait(&s->held);
}

void served_go_on(served *s, bool to_next)
{
    if (!to_next)
        s->hold_from = 0;
    sem_post(&s->go);
}

void served_free(served *s)
{
    free(s->state);
    s->state = NULL;
}

void answer_alone(pl_session *session, const served *s, const char *path, heard *out)
{
    pl_error err = {0};
    pl_generation params = s->request.generation;
    memset(out, 0, sizeof *out);
    out->stop_after = s->heard.stop_after;
    params.on_token = hear_alone;
    params.user = out;
    if (!path)
        path = s->request.path ? s->request.path : "e4b";
    cr_assert_eq(pl_session_truncate(session, 0, &err), PL_OK);
    cr_assert_eq(pl_session_set_path(session, path, PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
    pl_status status = pl_generate(session, s->request.prompt, s->request.n_prompt, &params, NULL, &err);
    cr_assert(status == PL_OK || status == PL_ERR_CANCELLED, "%s", err.message);
}

static bool same_logprobs(const heard *a, const heard *b, int n, int n_top)
{
    for (int i = 0; i < n; i++)
        if (memcmp(&a->logprob[i], &b->logprob[i], sizeof *a->logprob) != 0 && !isnan(a->logprob[i]))
            return false;
    return n_top <= 0 || memcmp(a->top, b->top, (size_t)n * sizeof *a->top) == 0;
}

void expect_same(const served *s, const heard *alone, const char *what)
{
    const heard *h = &s->heard;
    int n_top = s->request.generation.n_logprobs;
    cr_assert_eq(s->n_done, 1, "%s: on_done was called %d times", what, s->n_done);
    cr_assert_eq(s->after_done, 0, "%s: events after on_done", what);
    cr_assert(s->status == PL_OK || s->status == PL_ERR_CANCELLED, "%s: %s", what, s->message);
    cr_assert(s->status == PL_ERR_CANCELLED ? h->n <= alone->n : h->n == alone->n, "%s: %d tokens, %d alone", what,
              h->n, alone->n);
    for (int i = 0; i < h->n; i++)
        cr_assert_eq(h->ids[i], alone->ids[i], "%s: token %d is %d, alone %d", what, i, h->ids[i], alone->ids[i]);
    cr_assert(same_logprobs(h, alone, h->n, n_top), "%s: logprobs differ", what);
    cr_assert(s->status == PL_ERR_CANCELLED ? h->n_text <= alone->n_text : h->n_text == alone->n_text, "%s", what);
    cr_assert_eq(memcmp(h->text, alone->text, h->n_text), 0, "%s: text differs", what);
}

bench bench_open(const pl_engine_params *engine, const pl_scheduler_params *params)
{
    bench b = {.crowd = crowd_open()};
    pl_engine_params of = *engine;
    pl_error err = {0};
    of.backend = PL_BACKEND_CPU;
    of.threads = 2;
    of.no_pin = true;
    b.served = fixture_open_with(DEMO_MODEL, &of);
    pl_session_free(b.served.session);
    b.served.session = NULL;
    b.alone = fixture_open(DEMO_MODEL, 2, 0);
    cr_assert_eq(pl_scheduler_create(b.served.engine, params, &b.scheduler, &err), PL_OK, "%s", err.message);
    return b;
}

void bench_close(bench *b)
{
    pl_scheduler_free(b->scheduler);
    cr_assert_eq(pl_kv_count(b->served.engine->kv).used, 0, "pages are lost");
    fixture_close(&b->served);
    fixture_close(&b->alone);
}

void fill_ids(int32_t *ids, int n, int salt)
{
    for (int i = 0; i < n; i++)
        ids[i] = 10 + (i * 37 + i / 11 + salt * 101) % 1900;
}
