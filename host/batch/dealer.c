#include "host/batch/dealer.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/batch/record.h"

#define MOST_RANKS (UINT16_MAX - 1)

struct pl_dealer {
    pl_dealer_params params;
    pthread_mutex_t lock;
    pthread_cond_t change;
    uint32_t *order;  /* lines from order[next] on are handed out; one that is put back takes the place before */
    size_t n, next;   /* which is free: it was in one of those places */
    uint16_t *holder; /* of each line: its rank + 1; 0: nobody */
    int64_t under_way, left;
    uint64_t bytes_left;
    bool ended;
    pl_error why; /* then */
};

/* ---- creation ------------------------------------------------------------------------------------- */

static pl_status give_fault(const pl_dealer_params *p, int64_t line, pl_error *err)
{
    pl_line_fault fault;
    char id[PL_RECORD_ID_BYTES], *custom_id, *record = NULL;
    size_t n = 0;
    bool added = false;
    uint64_t job = pl_input_fingerprint(p->input);
    PL_TRY(pl_input_fault(p->input, line, &fault, &custom_id, err));
    pl_record_id(p->seed, line, (const char *)&job, sizeof job, id);
    pl_status status = pl_record_fault(id, custom_id, pl_input_number(p->input, line), &fault, &record, &n, err);
    if (status == PL_OK) {
        const pl_work_result result = {.line = line, .record = record, .n = n, .failed = true};
        status = pl_results_add(p->results, &result, &added, err);
    }
    if (added && p->done)
        p->done(p->user, line);
    free(record);
    free(custom_id);
    return status;
}

static pl_status give_faults(const pl_dealer_params *p, pl_error *err)
{
    for (int64_t i = 0; i < pl_input_lines(p->input); i++)
        if (pl_input_is_faulty(p->input, i) && !pl_results_has(p->results, i))
            PL_TRY(give_fault(p, i, err));
    return PL_OK;
}

/* Leaves what is not done. */
static void keep_open(pl_dealer *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        if (!pl_results_has(d->params.results, d->order[i])) {
            d->bytes_left += pl_input_bytes(d->params.input, d->order[i]);
            d->order[n++] = d->order[i];
        }
    d->n = n;
    d->left = (int64_t)n;
}

pl_status pl_dealer_create(const pl_dealer_params *params, pl_dealer **out, pl_error *err)
{
    assert(params->ranks <= MOST_RANKS);
    size_t lines = (size_t)pl_input_lines(params->input);
    pl_status status = PL_OK;
    pl_dealer *d = calloc(1, sizeof *d);
    if (!d)
        return pl_fail_memory(err, sizeof *d, "the dealer");
    d->params = *params;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->change, NULL);
    d->holder = calloc(lines + 1, sizeof *d->holder);
    if (!d->holder) {
        status = pl_fail_memory(err, lines * sizeof *d->holder, "the dealer");
        goto fail;
    }
    PL_TRY_GOTO(give_faults(params, err));
    PL_TRY_GOTO(pl_input_order(params->input, &d->order, &d->n, err));
    keep_open(d);
    *out = d;
    return PL_OK;
fail:
    pl_dealer_free(d);
    return status;
}

void pl_dealer_free(pl_dealer *dealer)
{
    if (!dealer)
        return;
    pthread_cond_destroy(&dealer->change);
    pthread_mutex_destroy(&dealer->lock);
    free(dealer->holder);
    free(dealer->order);
    free(dealer);
}

/* ---- with the lock held --------------------------------------------------------------------------- */

static bool is_over(const pl_dealer *d)
{
    return d->ended || d->left + d->under_way == 0;
}

/* The next line, if there is one that nobody has. */
static bool next_line(pl_dealer *d, int64_t *line)
{
    while (d->next < d->n) {
        *line = d->order[d->next++];
        if (!pl_results_has(d->params.results, *line))
            return true;
    }
    return false;
}

static void hand_out(pl_dealer *d, int rank, int64_t line, pl_work *out)
{
    const char *path = d->params.choose ? d->params.choose(d->params.user, line) : "";
    *out = (pl_work){.line = line};
    snprintf(out->path, sizeof out->path, "%s", path);
    d->holder[line] = (uint16_t)(rank + 1);
    d->under_way++;
    d->left--;
}

static void put_back(pl_dealer *d, int64_t line)
{
    d->holder[line] = 0;
    d->under_way--;
    d->left++;
    d->order[--d->next] = (uint32_t)line;
}

/* A result was added: of a line that somebody has, or that was put back before it came. */
static void settle(pl_dealer *d, int64_t line)
{
    if (d->holder[line])
        d->under_way--;
    else
        d->left--;
    d->holder[line] = 0;
    d->bytes_left -= pl_input_bytes(d->params.input, line);
    if (d->params.done)
        d->params.done(d->params.user, line);
    if (is_over(d))
        pthread_cond_broadcast(&d->change);
}

/* ---- for workers and crews ------------------------------------------------------------------------ */

static pl_deal take_line(pl_dealer *d, int rank, bool wait, pl_work *out)
{
    int64_t line;
    pthread_mutex_lock(&d->lock);
    pl_deal deal;
    for (;;) {
        deal = is_over(d) ? PL_DEAL_OVER : next_line(d, &line) ? PL_DEAL_LINE : PL_DEAL_NONE;
        if (deal != PL_DEAL_NONE || !wait)
            break;
        pthread_cond_wait(&d->change, &d->lock);
    }
    if (deal == PL_DEAL_LINE)
        hand_out(d, rank, line, out);
    pthread_mutex_unlock(&d->lock);
    return deal;
}

pl_deal pl_dealer_take(pl_dealer *dealer, int rank, bool wait, pl_work *out)
{
    pl_error err;
    pl_deal deal = take_line(dealer, rank, wait, out);
    if (deal != PL_DEAL_LINE)
        return deal;
    if (pl_input_read(dealer->params.input, out->line, &out->text, &out->n, &err) == PL_OK)
        return PL_DEAL_LINE;
    pl_dealer_put_back(dealer, rank, out->line);
    pl_dealer_stop(dealer, &err);
    return PL_DEAL_OVER;
}

pl_status pl_dealer_give(pl_dealer *dealer, int rank, const pl_work_result *result, pl_error *err)
{
    (void)rank;
    bool added;
    pl_error why;
    pl_status status = pl_results_add(dealer->params.results, result, &added, &why);
    if (status != PL_OK && err)
        *err = why;
    if (status != PL_OK && status != PL_ERR_FORMAT)
        pl_dealer_stop(dealer, &why);
    if (!added)
        return status;
    pthread_mutex_lock(&dealer->lock);
    settle(dealer, result->line);
    pthread_mutex_unlock(&dealer->lock);
    return PL_OK;
}

void pl_dealer_put_back(pl_dealer *dealer, int rank, int64_t line)
{
    if (line < 0 || line >= pl_input_lines(dealer->params.input))
        return;
    pthread_mutex_lock(&dealer->lock);
    if (dealer->holder[line] == rank + 1) {
        put_back(dealer, line);
        pthread_cond_signal(&dealer->change);
    }
    pthread_mutex_unlock(&dealer->lock);
}

int64_t pl_dealer_lost(pl_dealer *dealer, int rank)
{
    int64_t n = 0;
    pthread_mutex_lock(&dealer->lock);
    for (int64_t i = pl_input_lines(dealer->params.input) - 1; i >= 0; i--)
        if (dealer->holder[i] == rank + 1) {
            put_back(dealer, i);
            n++;
        }
    pthread_cond_broadcast(&dealer->change);
    pthread_mutex_unlock(&dealer->lock);
    return n;
}

void pl_dealer_stop(pl_dealer *dealer, const pl_error *why)
{
    pthread_mutex_lock(&dealer->lock);
    if (!dealer->ended && (why || !is_over(dealer))) {
        if (why)
            dealer->why = *why;
        else
            pl_fail(&dealer->why, PL_ERR_CANCELLED, "the job was stopped");
        dealer->ended = true;
        pthread_cond_broadcast(&dealer->change);
    }
    pthread_mutex_unlock(&dealer->lock);
}

pl_status pl_dealer_error(pl_dealer *dealer, pl_error *err)
{
    pthread_mutex_lock(&dealer->lock);
    pl_status status = dealer->ended ? dealer->why.status : PL_OK;
    if (dealer->ended && err)
        *err = dealer->why;
    pthread_mutex_unlock(&dealer->lock);
    return status;
}

pl_dealer_stats pl_dealer_count(pl_dealer *dealer)
{
    pthread_mutex_lock(&dealer->lock);
    pl_dealer_stats stats = {.under_way = dealer->under_way, .left = dealer->left, .bytes_left = dealer->bytes_left};
    pthread_mutex_unlock(&dealer->lock);
    stats.results = pl_results_count(dealer->params.results);
    return stats;
}

/* ---- as a source and a desk ----------------------------------------------------------------------- */

static bool source_take(void *user, pl_work *out)
{
    return pl_dealer_take(user, 0, true, out) == PL_DEAL_LINE;
}

static pl_status source_give(void *user, const pl_work_result *result, pl_error *err)
{
    return pl_dealer_give(user, 0, result, err);
}

static void source_give_back(void *user, pl_work *work)
{
    pl_dealer_put_back(user, 0, work->line);
    free(work->text);
}

pl_work_source pl_dealer_source(pl_dealer *dealer)
{
    return (pl_work_source){.take = source_take, .give = source_give, .give_back = source_give_back, .user = dealer};
}

static pl_deal desk_take(void *user, int rank, pl_work *out)
{
    return pl_dealer_take(user, rank, false, out);
}

static pl_status desk_give(void *user, int rank, const pl_work_result *result, pl_error *err)
{
    return pl_dealer_give(user, rank, result, err);
}

static void desk_put_back(void *user, int rank, int64_t line)
{
    pl_dealer_put_back(user, rank, line);
}

static int64_t desk_lost(void *user, int rank)
{
    return pl_dealer_lost(user, rank);
}

static int64_t desk_left(void *user)
{
    return pl_dealer_count(user).left;
}

static void desk_fail(void *user, const pl_error *why)
{
    pl_dealer_stop(user, why);
}

static bool desk_over(void *user)
{
    pl_dealer *d = user;
    pthread_mutex_lock(&d->lock);
    bool over = is_over(d);
    pthread_mutex_unlock(&d->lock);
    return over;
}

static pl_status desk_outcome(void *user, pl_error *err)
{
    return pl_dealer_error(user, err);
}

pl_crew_desk pl_dealer_desk(pl_dealer *dealer)
{
    return (pl_crew_desk){.take = desk_take,
                          .give = desk_give,
                          .put_back = desk_put_back,
                          .lost = desk_lost,
                          .left = desk_left,
                          .fail = desk_fail,
                          .over = desk_over,
                          .outcome = desk_outcome,
                          .user = dealer};
}
