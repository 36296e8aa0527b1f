/* Ranks that are threads: each line is answered once whatever happens to messages and ranks. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/base/rng.h"
#include "host/batch/crew_message.h"
#include "tests/batch/list_desk.h"
#include "tests/batch/local_ranks.h"

#define MOST_RANKS 5
#define SILENCE_S 1.0 /* of the ranks that the net does not vouch for */

typedef struct job job;

typedef struct crew_rank {
    job *job;
    int rank;
    pl_crew *crew;
    pthread_t thread;
    double line_s;     /* that a line takes, at most */
    int64_t works_for; /* lines; then it does what `then` says */
    enum { GO_ON, CUT_OFF, CANNOT, BLOCK, STAY, MEET, HAND_BACK } then;
    atomic_long taken;
    const struct crew_rank *after; /* begins when that one has done all that it works for, or ended; NULL: at once */
    atomic_bool stopped, ended;
    bool broken;
    pl_error outcome;
} crew_rank;

struct job {
    list_desk desk;
    local_net *net;
    crew_rank ranks[MOST_RANKS];
    int n;
    double lost_after_s;
    pthread_mutex_t lock;
    char said[2048];
};

static void say(void *user, const char *message)
{
    job *j = ((crew_rank *)user)->job;
    pthread_mutex_lock(&j->lock);
    size_t n = strlen(j->said);
    snprintf(j->said + n, sizeof j->said - n, "%s\n", message);
    pthread_mutex_unlock(&j->lock);
}

static void stop(void *user)
{
    atomic_store(&((crew_rank *)user)->stopped, true);
}

static void nap(double seconds)
{
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

/* Until all other lines are done. */
static void block(crew_rank *r)
{
    list_desk *d = &r->job->desk;
    for (bool waiting = true; waiting;) {
        nap(1e-3);
        pthread_mutex_lock(&d->lock);
        waiting = d->done < d->n - 1;
        pthread_mutex_unlock(&d->lock);
    }
}

/* Until the job ends before all is done. */
static void stay(const crew_rank *r)
{
    while (!atomic_load(&r->stopped))
        nap(1e-3);
}

/* Until that one has done all that it works for, but for its last line, or ended. */
static void wait_for(const crew_rank *r)
{
    while (r && atomic_load(&r->taken) < r->works_for && !atomic_load(&r->ended))
        nap(1e-3);
}

static void change(crew_rank *r, pl_work_source *source, pl_work *work)
{
    pl_error why;
    pl_fail(&why, PL_ERR_DEVICE, "the card is gone");
    if (r->then == CUT_OFF) {
        local_net_cut_off(r->job->net, r->rank);
        if (r->rank == 0) /* it has the lines, and could do all of them */
            stay(r);
    } else if (r->then == CANNOT)
        pl_crew_cannot_work(r->crew, &why);
    else if (r->then == BLOCK)
        block(r);
    else if (r->then == STAY)
        stay(r);
    else if (r->then == MEET)
        for (int i = 0; i < r->job->n; i++)
            wait_for(&r->job->ranks[i]);
    else if (r->then == HAND_BACK)
        source->give_back(source->user, work);
}

static void *work(void *arg)
{
    crew_rank *r = arg;
    pl_work_source source = pl_crew_source(r->crew);
    pl_rng rng;
    pl_work w;
    pl_rng_seed(&rng, (uint64_t)r->rank);
    wait_for(r->after);
    while (source.take(source.user, &w)) {
        atomic_fetch_add(&r->taken, 1);
        nap(r->line_s * pl_rng_uniform(&rng));
        if (r->then != GO_ON && atomic_load(&r->taken) == r->works_for) {
            change(r, &source, &w);
            if (r->then == HAND_BACK)
                continue;
        }
        pl_work_result result = {.line = w.line, .record = "{}\n", .n = 3, .prompt_tokens = 1};
        source.give(source.user, &result, NULL);
        free(w.text);
    }
    return NULL;
}

static void *live(void *arg)
{
    crew_rank *r = arg;
    work(r);
    atomic_store(&r->ended, true);
    r->outcome.status = pl_crew_end(r->crew, &r->broken, &r->outcome);
    if (r->broken)
        local_net_cut_off(r->job->net, r->rank);
    return NULL;
}

static void prepare(job *j, int n, int64_t lines, const local_params *params)
{
    local_params p = params ? *params : (local_params){.delay_s = 1e-3, .seed = (uint64_t)n};
    p.size = n;
    memset(j, 0, sizeof *j);
    j->n = n;
    j->lost_after_s = 300;
    list_desk_open(&j->desk, lines, 100);
    pthread_mutex_init(&j->lock, NULL);
    j->net = local_net_create(&p);
    for (int i = 0; i < n; i++)
        j->ranks[i] = (crew_rank){.job = j, .rank = i, .line_s = 1e-4};
}

/* Before begin(): who is cut off is soon lost, and nobody else. */
static void shorten_silence(job *j)
{
    j->lost_after_s = SILENCE_S;
    local_net_vouch(j->net);
}

/* Before begin(): only then do the others begin, so that they leave it enough lines. */
static void all_begin_after(job *j, const crew_rank *first)
{
    for (int i = 0; i < j->n; i++)
        if (&j->ranks[i] != first)
            j->ranks[i].after = first;
}

static void begin(job *j)
{
    pl_crew_desk desk = list_desk_of(&j->desk);
    for (int i = 0; i < j->n; i++) {
        crew_rank *r = &j->ranks[i];
        pl_crew_params params = {.ranks = local_net_rank(j->net, i),
                                 .desk = i == 0 ? &desk : NULL,
                                 .lost_after_s = j->lost_after_s,
                                 .say = say,
                                 .stop = stop,
                                 .user = r};
        cr_assert_eq(pl_crew_create(&params, &r->crew, NULL), PL_OK);
        cr_assert_eq(pthread_create(&r->thread, NULL, live, r), 0);
    }
}

static void finish(job *j)
{
    for (int i = 0; i < j->n; i++)
        pthread_join(j->ranks[i].thread, NULL);
}

static void clean(job *j)
{
    for (int i = 0; i < j->n; i++)
        pl_crew_free(j->ranks[i].crew);
    local_net_free(j->net);
    list_desk_close(&j->desk);
    pthread_mutex_destroy(&j->lock);
}

static void expect_all_done(const job *j)
{
    for (int64_t i = 0; i < j->desk.n; i++)
        cr_assert_eq(j->desk.lines[i].results, 1, "line %ld: %d results", (long)i, j->desk.lines[i].results);
}

static void expect_outcome(const crew_rank *r, pl_status status, const char *word, bool broken)
{
    cr_assert_eq(r->outcome.status, status, "rank %d: %s", r->rank, r->outcome.message);
    cr_assert(status == PL_OK || strstr(r->outcome.message, word), "rank %d: %s", r->rank, r->outcome.message);
    cr_assert_eq(r->broken, broken, "rank %d", r->rank);
}

static void expect_said(const job *j, const char *const *words)
{
    for (; *words; words++)
        cr_assert(strstr(j->said, *words), "said '%s', without '%s'", j->said, *words);
}
#define SAID(j, ...) expect_said(j, (const char *const[]){__VA_ARGS__, NULL})

/* Where something is missing, somebody waits for it for ever. */
TestSuite(crew, .timeout = 300);

Test(crew, every_line_is_answered_once)
{
    for (int n = 1; n <= MOST_RANKS; n++) {
        job j;
        prepare(&j, n, 400, NULL);
        j.ranks[n - 1].line_s = 2e-3;
        begin(&j);
        finish(&j);
        expect_all_done(&j);
        for (int i = 0; i < n; i++)
            expect_outcome(&j.ranks[i], PL_OK, NULL, false);
        clean(&j);
    }
}

Test(crew, all_ranks_work)
{
    job j;
    prepare(&j, 3, 600, NULL);
    for (int i = 0; i < 3; i++) {
        j.ranks[i].then = MEET; /* for ever, if one of them got no line */
        j.ranks[i].works_for = 1;
    }
    begin(&j);
    finish(&j);
    expect_all_done(&j);
    for (int i = 0; i < 3; i++)
        cr_assert_gt(atomic_load(&j.ranks[i].taken), 0, "rank %d", i);
    clean(&j);
}

Test(crew, a_job_without_lines_ends)
{
    job j;
    prepare(&j, 3, 0, NULL);
    begin(&j);
    finish(&j);
    for (int i = 0; i < 3; i++)
        expect_outcome(&j.ranks[i], PL_OK, NULL, false);
    clean(&j);
}

Test(crew, lines_of_a_silent_rank_go_to_others)
{
    for (int64_t after = 1; after <= 30; after += 29) {
        job j;
        prepare(&j, 4, 300, NULL);
        shorten_silence(&j);
        j.ranks[2].then = CUT_OFF;
        j.ranks[2].works_for = after;
        all_begin_after(&j, &j.ranks[2]);
        begin(&j);
        finish(&j);
        expect_all_done(&j);
        SAID(&j, "rank 2 on node0 is lost", "nothing was heard of it for 1 seconds", "to others");
        expect_outcome(&j.ranks[0], PL_OK, NULL, true);
        expect_outcome(&j.ranks[1], PL_OK, NULL, false);
        expect_outcome(&j.ranks[2], PL_ERR_IO, "rank 0 is lost", true);
        clean(&j);
    }
}

Test(crew, without_rank_0_the_others_end)
{
    job j;
    prepare(&j, 3, 100000, NULL);
    shorten_silence(&j);
    j.ranks[0].then = CUT_OFF;
    j.ranks[0].works_for = 20;
    j.ranks[0].after = &j.ranks[1]; /* who never heard of rank 0 waits for it */
    j.ranks[1].after = &j.ranks[2];
    j.ranks[1].then = j.ranks[2].then = MEET;
    j.ranks[1].works_for = j.ranks[2].works_for = 1;
    begin(&j);
    for (int i = 1; i < 3; i++) {
        pthread_join(j.ranks[i].thread, NULL);
        expect_outcome(&j.ranks[i], PL_ERR_IO, "rank 0 is lost", true);
    }
    list_desk_interrupt(&j.desk);
    pthread_join(j.ranks[0].thread, NULL);
    expect_outcome(&j.ranks[0], PL_ERR_CANCELLED, "interrupted", true);
    clean(&j);
}

/* Rank 1 has lines in stock (messages are slow) and then is busy with one line until all others are done, which would be
 * never if its stock were not called back. */
Test(crew, the_stock_of_a_slow_rank_is_called_back)
{
    for (int idle = 0; idle <= 2; idle += 2) {
        job j;
        local_params params = {.delay_s = 0.02, .seed = 5};
        prepare(&j, idle == 0 ? 2 : 3, 500, &params);
        j.ranks[1].then = BLOCK;
        j.ranks[1].works_for = 100;
        j.ranks[1].line_s = 1e-5;
        all_begin_after(&j, &j.ranks[1]);
        begin(&j);
        finish(&j);
        expect_all_done(&j);
        cr_assert_eq(atomic_load(&j.ranks[1].taken), 100);
        clean(&j);
    }
}

Test(crew, others_go_on_without_a_rank_that_cannot_work)
{
    for (int bad = 0; bad < 3; bad++) {
        char name[64];
        job j;
        prepare(&j, 3, 200, NULL);
        j.ranks[bad].then = CANNOT;
        j.ranks[bad].works_for = 5;
        all_begin_after(&j, &j.ranks[bad]);
        begin(&j);
        finish(&j);
        snprintf(name, sizeof name, "rank %d on node0 does not work: the card is gone", bad);
        SAID(&j, name);
        for (int64_t i = 0; i < j.desk.n; i++)
            cr_assert_geq(j.desk.lines[i].results, 1);
        for (int i = 0; i < 3; i++)
            expect_outcome(&j.ranks[i], PL_OK, NULL, false);
        cr_assert_eq(pl_crew_working(j.ranks[0].crew), 2);
        clean(&j);
    }
}

Test(crew, a_job_that_nobody_can_work_on_fails)
{
    job j;
    prepare(&j, 3, 100, NULL);
    for (int i = 0; i < 3; i++) {
        j.ranks[i].then = CANNOT;
        j.ranks[i].works_for = 1;
    }
    begin(&j);
    finish(&j);
    for (int i = 0; i < 3; i++)
        expect_outcome(&j.ranks[i], PL_ERR_DEVICE, "no rank is left to work", false);
    clean(&j);
}

Test(crew, lines_that_are_handed_back_go_to_others)
{
    for (int who = 0; who < 2; who++) {
        job j;
        prepare(&j, 3, 100, NULL);
        j.ranks[who].then = HAND_BACK;
        j.ranks[who].works_for = 2;
        all_begin_after(&j, &j.ranks[who]);
        begin(&j);
        finish(&j);
        expect_all_done(&j);
        clean(&j);
    }
}

Test(crew, a_full_disk_and_a_signal_end_all_ranks)
{
    job j;
    prepare(&j, 3, 100000, NULL);
    j.desk.fail_at = 50;
    begin(&j);
    finish(&j);
    for (int i = 0; i < 3; i++) {
        expect_outcome(&j.ranks[i], PL_ERR_IO, "no space left", false);
        cr_assert(atomic_load(&j.ranks[i].stopped));
    }
    clean(&j);
    prepare(&j, 3, 100000, NULL);
    j.ranks[1].then = STAY; /* so that not all is done before */
    j.ranks[1].works_for = 20;
    j.ranks[0].works_for = j.ranks[2].works_for = 1;
    all_begin_after(&j, &j.ranks[1]);
    begin(&j);
    for (int i = 0; i < 3; i++)
        wait_for(&j.ranks[i]);
    list_desk_interrupt(&j.desk);
    finish(&j);
    for (int i = 0; i < 3; i++)
        expect_outcome(&j.ranks[i], PL_ERR_CANCELLED, "interrupted", false);
    clean(&j);
}

/* ---- signs of life ---- */

static bool count_pulses(void *user, int from, int to, int kind, void *data, size_t *n)
{
    atomic_int *sent = user;
    (void)to;
    (void)data;
    (void)n;
    atomic_fetch_add(&sent[from], kind == PL_CREW_PULSE);
    return true;
}

Test(crew, ranks_show_that_they_are_alive_while_they_work)
{
    atomic_int sent[2] = {0};
    local_params params = {.tamper = count_pulses, .user = sent};
    job j;
    prepare(&j, 2, 100, &params);
    shorten_silence(&j);
    for (int i = 0; i < 2; i++) {
        j.ranks[i].then = STAY;
        j.ranks[i].works_for = 1;
    }
    begin(&j);
    wait_for(&j.ranks[0]);
    wait_for(&j.ranks[1]);
    int before[2] = {atomic_load(&sent[0]), atomic_load(&sent[1])};
    while (atomic_load(&sent[0]) < before[0] + 4 || atomic_load(&sent[1]) < before[1] + 4)
        nap(1e-3);
    list_desk_interrupt(&j.desk);
    finish(&j);
    for (int i = 0; i < 2; i++)
        expect_outcome(&j.ranks[i], PL_ERR_CANCELLED, "interrupted", false);
    clean(&j);
}

/* ---- damaged messages ---- */

typedef struct damage {
    int from, kind;
    bool cut;
    pl_rng rng;
    crew_rank *to; /* counts as having taken a line; NULL: nobody */
} damage;

static bool spoil(void *user, int from, int to, int kind, void *data, size_t *n)
{
    damage *d = user;
    (void)to;
    if (from != d->from || kind != d->kind)
        return true;
    if (d->to)
        atomic_fetch_add(&d->to->taken, 1);
    if (d->cut)
        *n -= 1;
    else
        ((unsigned char *)data)[pl_rng_next(&d->rng) % *n] ^= (unsigned char)(1u << pl_rng_next(&d->rng) % 8);
    return true;
}

Test(crew, who_sends_damaged_messages_is_given_up)
{
    for (int cut = 0; cut < 2; cut++) {
        damage d = {.from = 1, .kind = PL_CREW_RESULTS, .cut = cut};
        local_params params = {.tamper = spoil, .user = &d};
        job j;
        pl_rng_seed(&d.rng, 3);
        prepare(&j, 3, 200, &params);
        j.ranks[1].works_for = 1;
        all_begin_after(&j, &j.ranks[1]);
        begin(&j);
        finish(&j);
        expect_all_done(&j);
        SAID(&j, "rank 1 on node0 is lost: a message (results) between ranks is damaged");
        clean(&j);
    }
}

Test(crew, who_gets_damaged_messages_says_so)
{
    damage d = {.from = 0, .kind = PL_CREW_LINES};
    local_params params = {.tamper = spoil, .user = &d};
    job j;
    pl_rng_seed(&d.rng, 4);
    prepare(&j, 2, 200, &params);
    shorten_silence(&j);
    d.to = &j.ranks[1];
    j.ranks[1].works_for = 1;
    all_begin_after(&j, &j.ranks[1]); /* else rank 0 may be done before it sends any */
    begin(&j);
    finish(&j);
    expect_all_done(&j);
    expect_outcome(&j.ranks[1], PL_ERR_FORMAT, "(lines)", true);
    clean(&j);
}
