/* A rank of a crew other than 0: keeps lines in stock for its workers, and sends what came of them. */
#include <stdlib.h>

#include "host/base/clock.h"
#include "host/batch/crew_parts.h"
#include "host/batch/portions.h"

#define STOCK_LINES 4096
#define STOCK_BYTES (64u << 20)
#define BUNDLE_BYTES (256u << 10) /* of results; then they leave at once */
#define BUNDLE_S 0.05             /* as does a result that has waited for so long */
#define RESULTS_BYTES (64u << 20) /* of results; then those who give more wait */
#define UNSENT_BYTES (16u << 20)  /* that the ranks may have from us */

typedef struct join {
    pl_work *stock; /* [STOCK_LINES], a ring */
    size_t first, n;
    size_t bytes; /* of the stock's texts */

    bool asked;    /* and nothing has come yet */
    int asked_for; /* takers that waited when we did */
    size_t wanted; /* lines in stock */
    int64_t taken, taken_at_ask;
    int64_t hands; /* lines that workers have */

    pl_strbuf results; /* a message that is being written */
    double oldest;     /* of them */
    pl_strbuf back;    /* another one */
    bool must_answer;  /* a recall, even if no line goes back */
    pl_strbuf out;
    bool greeted, told_unable, parted;
    double heard; /* 0: nothing yet: rank 0 may look through its lines for long */
    double pulsed;
} join;

static void join_free(void *state)
{
    join *j = state;
    if (!j)
        return;
    for (; j->n > 0; j->n--)
        free(j->stock[(j->first + j->n - 1) % STOCK_LINES].text);
    pl_strbuf_free(&j->out);
    pl_strbuf_free(&j->back);
    pl_strbuf_free(&j->results);
    free(j->stock);
    free(j);
}

pl_status pl_crew_join_create(pl_crew *c, pl_error *err)
{
    join *j = calloc(1, sizeof *j);
    if (!j)
        return pl_fail_memory(err, sizeof *j, "a stock of lines");
    c->state = j;
    j->wanted = 1;
    j->stock = calloc(STOCK_LINES, sizeof *j->stock);
    return j->stock ? PL_OK : pl_fail_memory(err, STOCK_LINES * sizeof *j->stock, "a stock of lines");
}

/* ---- workers ---- */

static bool join_take(pl_crew *c, pl_work *out)
{
    join *j = c->state;
    if (j->n == 0)
        return false;
    *out = j->stock[j->first];
    j->first = (j->first + 1) % STOCK_LINES;
    j->n--;
    j->bytes -= out->n;
    j->hands++;
    j->taken++;
    if (!j->asked && j->n <= j->wanted / 2)
        pl_crew_poke(c);
    return true;
}

static pl_status join_give(pl_crew *c, const pl_work_result *result, pl_error *err)
{
    join *j = c->state;
    pl_status status = PL_OK;
    pthread_mutex_lock(&c->lock);
    while (j->results.n > RESULTS_BYTES && !c->over)
        pthread_cond_wait(&c->changed, &c->lock);
    if (c->over) {
        status = pl_fail(err, PL_ERR_CANCELLED, "the job has ended");
    } else {
        if (j->results.n == 0) {
            j->oldest = pl_clock_seconds();
            pl_crew_begin(&j->results);
        }
        pl_crew_put_result(&j->results, result);
        j->hands--;
        if (j->hands == 0)
            pl_crew_poke(c);
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

static void put_back(join *j, int64_t line)
{
    if (j->back.n == 0)
        pl_crew_begin(&j->back);
    pl_crew_put_back(&j->back, line);
}

static void join_give_back(pl_crew *c, const pl_work *work)
{
    join *j = c->state;
    put_back(j, work->line);
    j->hands--;
}

/* ---- messages from rank 0 ---- */

static pl_status hear_lines(pl_crew *c, pl_crew_reader *r, pl_error *err)
{
    join *j = c->state;
    j->wanted = (size_t)pl_stock_wanted((int64_t)j->wanted, j->taken - j->taken_at_ask, c->waiting > 0);
    if (j->wanted > STOCK_LINES / 2)
        j->wanted = STOCK_LINES / 2;
    j->asked = false;
    while (pl_crew_more(r)) {
        pl_work work = {.text = NULL};
        pl_status status = pl_crew_get_line(r, &work, err);
        if (status == PL_OK && j->n == STOCK_LINES)
            status = pl_fail(err, PL_ERR_FORMAT, "rank 0 sent more lines than were asked for");
        if (status != PL_OK) {
            free(work.text);
            return status;
        }
        j->stock[(j->first + j->n++) % STOCK_LINES] = work;
        j->bytes += work.n;
    }
    pthread_cond_broadcast(&c->changed);
    return PL_OK;
}

/* Those that would be taken last. */
static void return_stock(join *j, uint32_t n)
{
    for (; n > 0 && j->n > 0; n--) {
        pl_work *work = &j->stock[(j->first + --j->n) % STOCK_LINES];
        j->bytes -= work->n;
        put_back(j, work->line);
        free(work->text);
    }
}

static pl_status hear_recall(join *j, pl_crew_reader *r, pl_error *err)
{
    uint32_t n;
    PL_TRY(pl_crew_get_count(r, &n, err));
    return_stock(j, n);
    j->must_answer = true;
    return PL_OK;
}

static pl_status hear_end(pl_crew *c, pl_crew_reader *r, pl_error *err)
{
    pl_error outcome;
    PL_TRY(pl_crew_get_text(r, &outcome, err));
    pl_crew_over(c, &outcome);
    return PL_OK;
}

/* With the lock. */
static pl_status hear_message(pl_crew *c, pl_crew_reader *r, pl_error *err)
{
    switch (r->kind) {
    case PL_CREW_LINES: return hear_lines(c, r, err);
    case PL_CREW_RECALL: return hear_recall(c->state, r, err);
    case PL_CREW_END: return hear_end(c, r, err);
    case PL_CREW_PULSE: return pl_crew_no_more(r, err);
    default:
        return pl_fail(err, PL_ERR_FORMAT, "rank 0 sent a message (%s) that it never sends",
                       pl_crew_kind_name(r->kind));
    }
}

static pl_status join_hear(pl_crew *c, int from, int kind, const void *data, size_t n, double now, pl_error *err)
{
    join *j = c->state;
    pl_crew_reader r;
    if (from != 0)
        return pl_fail(err, PL_ERR_FORMAT, "a message came from rank %d, which has nothing to say", from);
    PL_TRY(pl_crew_read(kind, data, n, &r, err));
    pthread_mutex_lock(&c->lock);
    j->heard = now;
    pl_status status = hear_message(c, &r, err);
    pthread_mutex_unlock(&c->lock);
    return status;
}

/* ---- messages to rank 0 ---- */

static pl_status tell(pl_crew *c, pl_crew_kind kind, int code, const char *text, pl_error *err)
{
    join *j = c->state;
    pl_crew_begin(&j->out);
    if (text)
        pl_crew_put_text(&j->out, code, text);
    return pl_crew_send(c, 0, kind, &j->out, err);
}

/* all: nothing waits for company any more. */
static pl_status send_results(pl_crew *c, bool all, double now, pl_error *err)
{
    join *j = c->state;
    bool due = j->results.n > BUNDLE_BYTES || now - j->oldest >= BUNDLE_S || j->hands == 0;
    if (j->results.n > 0 && (all || (due && c->params.ranks->unsent < UNSENT_BYTES))) {
        PL_TRY(pl_crew_send(c, 0, PL_CREW_RESULTS, &j->results, err));
        pthread_cond_broadcast(&c->changed);
    }
    return PL_OK;
}

static pl_status send_back(pl_crew *c, pl_error *err)
{
    join *j = c->state;
    if (j->must_answer && j->back.n == 0)
        pl_crew_begin(&j->back);
    j->must_answer = false;
    return j->back.n > 0 ? pl_crew_send(c, 0, PL_CREW_BACK, &j->back, err) : PL_OK;
}

static pl_status ask(pl_crew *c, pl_error *err)
{
    join *j = c->state;
    size_t wanted = j->wanted > (size_t)c->waiting ? j->wanted : (size_t)c->waiting;
    if (j->asked ? c->waiting <= j->asked_for : j->n > wanted / 2 || j->bytes >= STOCK_BYTES)
        return PL_OK;
    if (!j->asked)
        j->taken_at_ask = j->taken;
    j->asked = true;
    j->asked_for = c->waiting;
    pl_crew_ask a = {(uint32_t)(wanted > j->n ? wanted - j->n : 1), (uint32_t)c->waiting,
                     j->bytes < STOCK_BYTES ? STOCK_BYTES - j->bytes : 1};
    pl_crew_begin(&j->out);
    pl_crew_put_ask(&j->out, &a);
    return pl_crew_send(c, 0, PL_CREW_ASK, &j->out, err);
}

static pl_status give_up(pl_crew *c, double now, pl_error *err)
{
    join *j = c->state;
    if (j->told_unable)
        return PL_OK;
    j->told_unable = true;
    return_stock(j, STOCK_LINES);
    PL_TRY(send_results(c, true, now, err));
    return tell(c, PL_CREW_UNABLE, (int)c->why.status, c->why.message, err);
}

static pl_status part(pl_crew *c, double now, pl_error *err)
{
    join *j = c->state;
    if (!j->parted) {
        j->parted = true;
        PL_TRY(send_results(c, true, now, err));
        PL_TRY(tell(c, PL_CREW_BYE, 0, NULL, err));
    }
    if (c->params.ranks->unsent == 0)
        pl_crew_finish(c, false);
    return PL_OK;
}

static pl_status talk(pl_crew *c, double now, pl_error *err)
{
    join *j = c->state;
    if (j->heard > 0 && now - j->heard > c->params.lost_after_s)
        return pl_fail(err, PL_ERR_IO, "rank 0 is lost: nothing was heard of it for %g seconds",
                       c->params.lost_after_s);
    if (!j->greeted) {
        j->greeted = true;
        PL_TRY(tell(c, PL_CREW_HELLO, 0, c->params.ranks->name, err));
    }
    if (c->over)
        return part(c, now, err);
    if (c->unable)
        PL_TRY(give_up(c, now, err));
    PL_TRY(send_results(c, false, now, err));
    PL_TRY(send_back(c, err));
    if (!c->unable && (j->taken > 0 || c->waiting > 0))
        PL_TRY(ask(c, err));
    if (now - j->pulsed < pl_crew_pulse_s(c))
        return PL_OK;
    j->pulsed = now;
    return tell(c, PL_CREW_PULSE, 0, NULL, err);
}

static pl_status join_turn(pl_crew *c, double now, pl_error *err)
{
    pthread_mutex_lock(&c->lock);
    pl_status status = talk(c, now, err);
    pthread_mutex_unlock(&c->lock);
    return status;
}

const pl_crew_role pl_crew_join_role = {.hear = join_hear,
                                        .turn = join_turn,
                                        .take = join_take,
                                        .give_back = join_give_back,
                                        .give = join_give,
                                        .free = join_free};
