#include "tools/bench_run.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/base/clock.h"
#include "host/ops/kv_page.h"

int32_t pl_bench_tokens(const pl_bench_case *c)
{
    return c->depth + c->n_prompt + c->parallel;
}

/* Sequences that are ready early go on generating while others still read, a token a step, each of which leaves prompts
 * what answers do not take, at least a quarter. One that begins must find a free page for each of those under way: else it
 * waits until one of them has ended. */
static int32_t context_beside(const pl_bench_case *c, int32_t batch_rows)
{
    int32_t least = (batch_rows + 3) / 4, left = batch_rows - c->parallel;
    return c->parallel * (c->depth / (left > least ? left : least) + 2) + PL_KV_PAGE;
}

int32_t pl_bench_context(const pl_bench_case *c, int32_t batch_rows)
{
    return c->depth + c->n_prompt + c->n_gen + 2 + (c->parallel > 1 ? context_beside(c, batch_rows) : 0);
}

static pl_generation greedy(int32_t max_tokens)
{
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.ignore_eos = true;
    params.max_tokens = max_tokens;
    params.draft.most = 0;
    return params;
}

static void count(const pl_bench_machine *m, bool on)
{
    if (!m->timer)
        return;
    if (on)
        pl_op_timer_start(m->timer);
    else
        pl_op_timer_stop(m->timer);
}

/* ---- one sequence ---- */

static pl_status run_alone(const pl_bench_machine *m, const pl_bench_case *c, double *rate, pl_error *err)
{
    pl_generated made;
    pl_generation nothing = greedy(0), params = greedy(c->n_gen ? c->n_gen + 1 : 0);
    size_t depth = (size_t)c->depth, n = depth + (size_t)(c->n_gen ? 1 : c->n_prompt);
    if (depth > 0)
        PL_TRY(pl_generate(m->session, m->tokens, depth, &nothing, NULL, err));
    PL_TRY(pl_session_truncate(m->session, depth, err));
    count(m, true);
    pl_status status = pl_generate(m->session, m->tokens, n, &params, &made, err);
    count(m, false);
    PL_TRY(status);
    *rate = c->n_gen ? (double)(made.n_tokens - 1) / made.generate_s : (double)c->n_prompt / made.prompt_s;
    return PL_OK;
}

/* ---- several ---- */

typedef struct flow flow;

typedef struct flow_request {
    flow *flow;
    int32_t tokens; /* so far */
} flow_request;

/* Everything but what `lock` is for belongs to the scheduler's thread. The clock runs between two tokens of the request
 * that began last, when all are under way. */
struct flow {
    const pl_bench_machine *machine;
    const pl_bench_case *test;
    flow_request *requests;
    const flow_request *last; /* to begin; NULL: not all have begun */
    int32_t begun, tokens;    /* of all, while the clock runs */
    bool alone;               /* one had ended before */
    double start, seconds;
    pthread_mutex_t lock;
    pthread_cond_t all_done;
    int32_t waiting; /* requests that are not done */
    pl_status status;
    char message[256];
};

static bool take_token(void *user, const pl_token_event *event)
{
    (void)event;
    flow_request *r = user;
    flow *f = r->flow;
    if (f->seconds > 0)
        return false;
    f->tokens += f->last != NULL;
    f->begun += ++r->tokens == 1;
    if (!f->last && f->begun == f->test->parallel) {
        f->last = r;
        r->tokens = 0;
        f->start = pl_clock_seconds();
        count(f->machine, true);
    } else if (r == f->last && r->tokens == f->test->n_gen) {
        f->seconds = pl_clock_seconds() - f->start;
        count(f->machine, false);
        return false;
    }
    return true;
}

static void take_outcome(void *user, const pl_outcome *outcome)
{
    flow *f = ((flow_request *)user)->flow;
    f->alone |= f->seconds <= 0;
    pthread_mutex_lock(&f->lock);
    if (outcome->status != PL_OK && outcome->status != PL_ERR_CANCELLED && f->status == PL_OK) {
        f->status = outcome->status;
        snprintf(f->message, sizeof f->message, "%s", outcome->message);
    }
    if (--f->waiting == 0)
        pthread_cond_signal(&f->all_done);
    pthread_mutex_unlock(&f->lock);
}

/* Prompts differ, so that none is kept for another. */
static pl_status submit(flow *f, pl_scheduler *scheduler, int32_t i, pl_error *err)
{
    pl_request request = pl_request_default();
    flow_request *r = &f->requests[i];
    *r = (flow_request){.flow = f};
    request.prompt = f->machine->tokens + i;
    request.n_prompt = (size_t)f->test->depth + 1;
    request.path = pl_session_path(f->machine->session);
    request.generation = greedy(-1);
    request.generation.on_token = take_token;
    request.generation.user = r;
    request.on_done = take_outcome;
    request.user = r;
    pthread_mutex_lock(&f->lock);
    f->waiting++;
    pthread_mutex_unlock(&f->lock);
    pl_status status = pl_scheduler_submit(scheduler, &request, NULL, err);
    if (status != PL_OK) {
        pthread_mutex_lock(&f->lock);
        f->waiting--;
        pthread_mutex_unlock(&f->lock);
    }
    return status;
}

static void wait_for_all(flow *f)
{
    pthread_mutex_lock(&f->lock);
    while (f->waiting > 0)
        pthread_cond_wait(&f->all_done, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

static pl_status run_flow(flow *f, double *rate, pl_error *err)
{
    pl_scheduler_params params = {.no_prefixes = true, .max_running = f->test->parallel, .step_s = 60};
    pl_scheduler *scheduler = NULL;
    pl_status status = PL_OK;
    PL_TRY(pl_scheduler_create(f->machine->engine, &params, &scheduler, err));
    for (int32_t i = 0; i < f->test->parallel; i++)
        PL_TRY_GOTO(submit(f, scheduler, i, err));
    wait_for_all(f);
    if (f->status != PL_OK)
        status = pl_fail(err, f->status, "%s", f->message);
    else if (f->alone)
        status = pl_fail(err, PL_ERR_CONTEXT, "%d sequences did not run side by side for %d tokens", f->test->parallel,
                         f->test->n_gen);
    else
        *rate = (double)f->tokens / f->seconds;
fail:
    pl_scheduler_free(scheduler); /* ends what is left, and so uses f */
    return status;
}

static pl_status run_parallel(const pl_bench_machine *m, const pl_bench_case *c, double *rate, pl_error *err)
{
    flow f = {.machine = m, .test = c, .requests = calloc((size_t)c->parallel, sizeof *f.requests)};
    if (!f.requests)
        return pl_fail_memory(err, (size_t)c->parallel * sizeof *f.requests, "requests");
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.all_done, NULL);
    PL_TRY(pl_session_truncate(m->session, 0, err));
    pl_status status = run_flow(&f, rate, err);
    pthread_cond_destroy(&f.all_done);
    pthread_mutex_destroy(&f.lock);
    free(f.requests);
    return status;
}

pl_status pl_bench_run(const pl_bench_machine *m, const pl_bench_case *c, double *rate, pl_error *err)
{
    return c->parallel > 1 ? run_parallel(m, c, rate, err) : run_alone(m, c, rate, err);
}
