#include "tests/batch/list_desk.h"

#include <stdlib.h>
#include <string.h>

static pl_deal take(void *user, int rank, pl_work *out)
{
    list_desk *d = user;
    pthread_mutex_lock(&d->lock);
    pl_deal deal = d->stopped || d->done == d->n ? PL_DEAL_OVER : d->left == 0 ? PL_DEAL_NONE : PL_DEAL_LINE;
    if (deal == PL_DEAL_LINE) {
        while (d->lines[d->next].owner >= 0 || d->lines[d->next].results > 0)
            d->next++;
        *out = (pl_work){.line = d->next, .text = malloc(d->text_bytes + 1), .n = d->text_bytes};
        memset(out->text, 'x', d->text_bytes);
        out->text[d->text_bytes] = '\0';
        d->lines[d->next].owner = rank;
        d->left--;
    }
    pthread_mutex_unlock(&d->lock);
    return deal;
}

static pl_status give(void *user, int rank, const pl_work_result *result, pl_error *err)
{
    list_desk *d = user;
    pl_status status = PL_OK;
    (void)rank;
    pthread_mutex_lock(&d->lock);
    list_line *l = &d->lines[result->line];
    if (d->fail_at > 0 && d->done + 1 >= d->fail_at) {
        status = pl_fail(err, PL_ERR_IO, "no space left");
        if (!d->stopped)
            pl_fail(&d->why, PL_ERR_IO, "no space left");
        d->stopped = true;
    } else {
        if (l->results == 0) {
            d->done++;
            d->left -= l->owner < 0;
        }
        l->results++;
        l->owner = -1;
    }
    pthread_mutex_unlock(&d->lock);
    return status;
}

static bool free_line(list_desk *d, int rank, int64_t line)
{
    if (d->lines[line].owner != rank)
        return false;
    d->lines[line].owner = -1;
    d->left++;
    d->next = line < d->next ? line : d->next;
    return true;
}

static void put_back(void *user, int rank, int64_t line)
{
    list_desk *d = user;
    pthread_mutex_lock(&d->lock);
    free_line(d, rank, line);
    pthread_mutex_unlock(&d->lock);
}

static int64_t lost(void *user, int rank)
{
    list_desk *d = user;
    int64_t n = 0;
    pthread_mutex_lock(&d->lock);
    for (int64_t i = 0; i < d->n; i++)
        n += free_line(d, rank, i);
    pthread_mutex_unlock(&d->lock);
    return n;
}

static int64_t left(void *user)
{
    list_desk *d = user;
    pthread_mutex_lock(&d->lock);
    int64_t n = d->left;
    pthread_mutex_unlock(&d->lock);
    return n;
}

static void stop(void *user, const pl_error *why)
{
    list_desk *d = user;
    pthread_mutex_lock(&d->lock);
    if (!d->stopped)
        d->why = *why;
    d->stopped = true;
    pthread_mutex_unlock(&d->lock);
}

static bool over(void *user)
{
    list_desk *d = user;
    pthread_mutex_lock(&d->lock);
    bool is = d->stopped || d->done == d->n;
    pthread_mutex_unlock(&d->lock);
    return is;
}

static pl_status outcome(void *user, pl_error *err)
{
    list_desk *d = user;
    pthread_mutex_lock(&d->lock);
    pl_status status = d->stopped ? pl_fail(err, d->why.status, "%s", d->why.message) : PL_OK;
    pthread_mutex_unlock(&d->lock);
    return status;
}

void list_desk_open(list_desk *d, int64_t n, size_t text_bytes)
{
    *d = (list_desk){.n = n, .left = n, .text_bytes = text_bytes, .lines = calloc((size_t)n, sizeof *d->lines)};
    for (int64_t i = 0; i < n; i++)
        d->lines[i].owner = -1;
    pthread_mutex_init(&d->lock, NULL);
}

void list_desk_close(list_desk *d)
{
    pthread_mutex_destroy(&d->lock);
    free(d->lines);
}

pl_crew_desk list_desk_of(list_desk *d)
{
    return (pl_crew_desk){.take = take,
                          .give = give,
                          .put_back = put_back,
                          .lost = lost,
                          .left = left,
                          .fail = stop,
                          .over = over,
                          .outcome = outcome,
                          .user = d};
}

void list_desk_interrupt(list_desk *d)
{
    pl_error why;
    pl_fail(&why, PL_ERR_CANCELLED, "interrupted");
    stop(d, &why);
}
