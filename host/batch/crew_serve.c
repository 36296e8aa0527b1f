/* Rank 0 of a crew: hands out lines, takes results, and sees who is there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/base/clock.h"
#include "host/batch/crew_parts.h"
#include "host/batch/portions.h"

#define MESSAGE_BYTES (16u << 20) /* of lines, but for one that alone is larger */

typedef struct member {
    char name[128]; /* of its machine */
    double heard;
    bool gone; /* lost, or it has said goodbye */
    bool lost;
    bool able;       /* to work, for all that is known */
    bool ended;      /* END was sent */
    pl_crew_ask ask; /* lines: 0 where none is open */
    bool recalled;   /* its answer is not there yet */
    bool dry;        /* when last asked it had no line to give back, and has got none since */
} member;

typedef struct serve {
    int n;
    member *members;      /* [n]; 0: this rank */
    pl_portion *portions; /* [n] */
    int64_t *rooms;       /* [n] */
    int first;            /* whose turn it is */
    double pulsed;
    pl_strbuf out;
} serve;

static void serve_free(void *state)
{
    serve *s = state;
    if (!s)
        return;
    pl_strbuf_free(&s->out);
    free(s->rooms);
    free(s->portions);
    free(s->members);
    free(s);
}

pl_status pl_crew_serve_create(pl_crew *c, pl_error *err)
{
    int n = c->params.ranks->size;
    serve *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "the list of ranks");
    c->state = s;
    s->n = n;
    s->members = calloc((size_t)n, sizeof *s->members);
    s->portions = calloc((size_t)n, sizeof *s->portions);
    s->rooms = calloc((size_t)n, sizeof *s->rooms);
    if (!s->members || !s->portions || !s->rooms)
        return pl_fail_memory(err, (size_t)n * (sizeof *s->members + sizeof *s->portions), "the list of ranks");
    for (int i = 0; i < n; i++)
        s->members[i] = (member){.heard = pl_clock_seconds(), .able = true};
    snprintf(s->members[0].name, sizeof s->members[0].name, "%s", c->params.ranks->name);
    c->working = n;
    return PL_OK;
}

/* ---- who is there ---- */

static void say(pl_crew *c, int rank, const char *what, const char *why, int64_t lines)
{
    const serve *s = c->state;
    char text[PL_ERROR_BYTES + 256], back[64] = "";
    const char *name = s->members[rank].name;
    if (!c->params.say)
        return;
    if (lines > 0)
        snprintf(back, sizeof back, "; its %" PRId64 " line%s to others", lines, lines == 1 ? " goes" : "s go");
    snprintf(text, sizeof text, "rank %d%s%s %s: %s%s", rank, *name ? " on " : "", name, what, why, back);
    c->params.say(c->params.user, text);
}

/* It does not work, or no longer. */
static void drop(pl_crew *c, int rank, const char *what, const pl_error *why)
{
    serve *s = c->state;
    if (!s->members[rank].able)
        return;
    s->members[rank].able = false;
    s->members[rank].ask.lines = 0;
    s->portions[rank].works = false;
    s->portions[rank].held = 0;
    say(c, rank, what, why->message, c->desk.lost(c->desk.user, rank));
    pthread_cond_broadcast(&c->changed);
    if (--c->working == 0 && !c->over) {
        pl_error none = *why;
        pl_fail_within(&none, why->status, "no rank is left to work; the last one, %d", rank);
        c->desk.fail(c->desk.user, &none);
    }
}

static void lose(pl_crew *c, int rank, const pl_error *why)
{
    serve *s = c->state;
    s->members[rank].lost = s->members[rank].gone = true;
    drop(c, rank, "is lost", why);
}

static void look_for_lost(pl_crew *c, double now)
{
    serve *s = c->state;
    for (int i = 1; i < s->n; i++) {
        if (s->members[i].gone || now - s->members[i].heard <= c->params.lost_after_s)
            continue;
        pl_error why;
        pl_fail(&why, PL_ERR_IO, "nothing was heard of it for %g seconds", c->params.lost_after_s);
        lose(c, i, &why);
    }
}

static void send_to(pl_crew *c, int rank, pl_crew_kind kind)
{
    serve *s = c->state;
    pl_error err;
    if (pl_crew_send(c, rank, kind, &s->out, &err) != PL_OK)
        lose(c, rank, &err);
}

/* ---- handing out ---- */

static void deal_to(pl_crew *c, int rank, double now)
{
    serve *s = c->state;
    member *m = &s->members[rank];
    int64_t n = 0, most = s->rooms[rank] < m->ask.lines ? s->rooms[rank] : m->ask.lines;
    size_t bytes = m->ask.bytes < MESSAGE_BYTES ? m->ask.bytes : MESSAGE_BYTES;
    pl_work work;
    pl_crew_begin(&s->out);
    while (n < most && (n == 0 || s->out.n < bytes) && c->desk.take(c->desk.user, rank, &work) == PL_DEAL_LINE) {
        pl_crew_put_line(&s->out, &work);
        free(work.text);
        n++;
    }
    if (n == 0) {
        pl_strbuf_clear(&s->out);
        return;
    }
    pl_portion_took(&s->portions[rank], n, now);
    m->ask.lines = 0;
    m->dry = false;
    send_to(c, rank, PL_CREW_LINES);
}

/* Lines in the stock of who has most beyond its share go back, for a rank that could begin now: up to its share. */
static void recall_for(pl_crew *c, int rank)
{
    serve *s = c->state;
    int from = 0;
    for (int i = 1; i < s->n; i++) {
        const member *m = &s->members[i];
        if (i != rank && m->able && !m->recalled && !m->dry && s->rooms[i] < (from ? s->rooms[from] : 0))
            from = i;
    }
    if (from == 0)
        return;
    int64_t n = -s->rooms[from] < s->rooms[rank] ? -s->rooms[from] : s->rooms[rank];
    s->members[from].recalled = true;
    pl_crew_begin(&s->out);
    pl_crew_put_count(&s->out, (uint32_t)(n < UINT32_MAX ? n : UINT32_MAX));
    send_to(c, from, PL_CREW_RECALL);
}

static void deal(pl_crew *c, double now)
{
    serve *s = c->state;
    pl_portion_rooms(s->portions, s->n, c->desk.left(c->desk.user), now, s->rooms);
    s->first = (s->first + 1) % s->n;
    for (int k = 0; k < s->n; k++) {
        int i = (s->first + k) % s->n;
        if (i != 0 && s->members[i].ask.lines > 0 && s->rooms[i] > 0)
            deal_to(c, i, now);
    }
    if (c->desk.left(c->desk.user) > 0)
        return;
    for (int i = 0; i < s->n; i++) {
        bool idle = i == 0 ? c->waiting > 0 : s->members[i].ask.lines > 0 && s->members[i].ask.waiting > 0;
        if (idle && s->portions[i].works && s->rooms[i] > 0)
            recall_for(c, i);
    }
}

static bool serve_take(pl_crew *c, pl_work *out)
{
    serve *s = c->state;
    double now = pl_clock_seconds();
    s->portions[0].works = s->members[0].able;
    pl_portion_rooms(s->portions, s->n, c->desk.left(c->desk.user), now, s->rooms);
    if (s->rooms[0] <= 0 || c->desk.take(c->desk.user, 0, out) != PL_DEAL_LINE)
        return false;
    pl_portion_took(&s->portions[0], 1, now);
    return true;
}

/* ---- what comes back ---- */

static void gave(pl_crew *c, int rank, int64_t lines, double now)
{
    serve *s = c->state;
    pthread_mutex_lock(&c->lock);
    pl_portion_gave(&s->portions[rank], lines, now);
    if (c->waiting)
        pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static pl_status serve_give(pl_crew *c, const pl_work_result *result, pl_error *err)
{
    pl_status status = c->desk.give(c->desk.user, 0, result, err);
    gave(c, 0, 1, pl_clock_seconds());
    return status;
}

static void serve_give_back(pl_crew *c, const pl_work *work)
{
    serve *s = c->state;
    c->desk.put_back(c->desk.user, 0, work->line);
    s->portions[0].held -= s->portions[0].held > 0;
}

/* A failure of the desk's is the job's, and the desk says so itself. */
static pl_status hear_results(pl_crew *c, int from, pl_crew_reader *r, double now, pl_error *err)
{
    int64_t n = 0;
    pl_status status = PL_OK;
    while (status == PL_OK && pl_crew_more(r)) {
        pl_work_result result;
        status = pl_crew_get_result(r, &result, err);
        if (status != PL_OK)
            break;
        n++;
        status = c->desk.give(c->desk.user, from, &result, err);
        if (status != PL_ERR_FORMAT)
            status = PL_OK;
    }
    gave(c, from, n, now);
    return status;
}

static pl_status hear_back(pl_crew *c, int from, pl_crew_reader *r, pl_error *err)
{
    serve *s = c->state;
    s->members[from].recalled = false;
    s->members[from].dry = !pl_crew_more(r);
    while (pl_crew_more(r)) {
        int64_t line;
        PL_TRY(pl_crew_get_back(r, &line, err));
        c->desk.put_back(c->desk.user, from, line);
        s->portions[from].held -= s->portions[from].held > 0;
    }
    pthread_cond_broadcast(&c->changed);
    return PL_OK;
}

static pl_status hear_unable(pl_crew *c, int from, pl_crew_reader *r, pl_error *err)
{
    pl_error why;
    PL_TRY(pl_crew_get_text(r, &why, err));
    drop(c, from, why.status == PL_ERR_CANCELLED ? "leaves" : "does not work", &why);
    return PL_OK;
}

static pl_status hear_hello(pl_crew *c, int from, pl_crew_reader *r, pl_error *err)
{
    serve *s = c->state;
    pl_error name;
    PL_TRY(pl_crew_get_text(r, &name, err));
    snprintf(s->members[from].name, sizeof s->members[from].name, "%.127s", name.message);
    return PL_OK;
}

/* With the lock. */
static pl_status hear_other(pl_crew *c, int from, pl_crew_reader *r, pl_error *err)
{
    serve *s = c->state;
    member *m = &s->members[from];
    switch (r->kind) {
    case PL_CREW_HELLO: return hear_hello(c, from, r, err);
    case PL_CREW_ASK:
        PL_TRY(pl_crew_get_ask(r, &m->ask, err));
        s->portions[from].works = m->able;
        return PL_OK;
    case PL_CREW_BACK: return hear_back(c, from, r, err);
    case PL_CREW_UNABLE: return hear_unable(c, from, r, err);
    case PL_CREW_BYE: m->gone = true; return pl_crew_no_more(r, err);
    case PL_CREW_PULSE: return pl_crew_no_more(r, err);
    default:
        return pl_fail(err, PL_ERR_FORMAT, "it sent a message (%s) that only rank 0 sends", pl_crew_kind_name(r->kind));
    }
}

/* Of a rank that was taken for lost only results count. */
static pl_status serve_hear(pl_crew *c, int from, int kind, const void *data, size_t n, double now, pl_error *err)
{
    serve *s = c->state;
    pl_crew_reader r;
    pl_error why;
    if (from <= 0 || from >= s->n)
        return pl_fail(err, PL_ERR_FORMAT, "a message came from rank %d, which there is not", from);
    member *m = &s->members[from];
    m->heard = now;
    pl_status status = pl_crew_read(kind, data, n, &r, &why);
    if (status == PL_OK && kind == PL_CREW_RESULTS)
        status = hear_results(c, from, &r, now, &why);
    pthread_mutex_lock(&c->lock);
    if (status == PL_OK && kind != PL_CREW_RESULTS && !m->lost)
        status = hear_other(c, from, &r, &why);
    if (status != PL_OK)
        lose(c, from, &why);
    pthread_mutex_unlock(&c->lock);
    return PL_OK;
}

/* ---- the end ---- */

static void end(pl_crew *c)
{
    serve *s = c->state;
    pl_error outcome = {0};
    outcome.status = c->desk.outcome(c->desk.user, &outcome);
    pl_crew_over(c, &outcome);
    bool left = false, broken = false;
    for (int i = 1; i < s->n; i++) {
        member *m = &s->members[i];
        if (!m->ended) {
            m->ended = true;
            pl_crew_begin(&s->out);
            pl_crew_put_text(&s->out, (int)c->outcome.status, c->outcome.message);
            send_to(c, i, PL_CREW_END);
        }
        left = left || !m->gone;
        broken = broken || m->lost;
    }
    if (!left)
        pl_crew_finish(c, broken);
}

static void pulse(pl_crew *c, double now)
{
    serve *s = c->state;
    if (now - s->pulsed < pl_crew_pulse_s(c))
        return;
    s->pulsed = now;
    for (int i = 1; i < s->n; i++)
        if (!s->members[i].gone) {
            pl_crew_begin(&s->out);
            send_to(c, i, PL_CREW_PULSE);
        }
}

static pl_status serve_turn(pl_crew *c, double now, pl_error *err)
{
    (void)err;
    pthread_mutex_lock(&c->lock);
    if (c->unable)
        drop(c, 0, "does not work", &c->why);
    look_for_lost(c, now);
    pulse(c, now);
    if (c->desk.over(c->desk.user))
        end(c);
    else
        deal(c, now);
    pthread_mutex_unlock(&c->lock);
    return PL_OK;
}

const pl_crew_role pl_crew_serve_role = {.hear = serve_hear,
                                         .turn = serve_turn,
                                         .take = serve_take,
                                         .give_back = serve_give_back,
                                         .give = serve_give,
                                         .free = serve_free};
