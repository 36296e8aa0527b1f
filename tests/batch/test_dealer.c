#include "host/batch/dealer.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "host/base/rng.h"
#include "tests/batch/failing_calls.h"
#include "tests/unit/scratch.h"

#define LINES 40 /* of them each tenth is faulty */
#define GOOD 36

typedef struct job {
    scratch s;
    char in[200], out[200];
    pl_input *input;
    pl_results *results;
    pl_dealer *dealer;
    int chosen, done; /* calls */
} job;

static job j;

static const char *choose(void *user, int64_t line)
{
    job *mine = user;
    mine->chosen++;
    return line % 2 ? "e2b" : "e4b";
}

static void count_done(void *user, int64_t line)
{
    (void)line;
    job *mine = user;
    mine->done++;
}

static void open_files(void)
{
    const pl_input_params in = {.path = j.in};
    pl_error err;
    cr_assert_eq(pl_input_open(&in, &j.input, &err), PL_OK, "%s", err.message);
    const pl_results_params out = {.out = j.out,
                                   .fingerprint = pl_input_fingerprint(j.input),
                                   .lines = pl_input_lines(j.input),
                                   .settings = "demo"};
    cr_assert_eq(pl_results_open(&out, &j.results, &err), PL_OK, "%s", err.message);
}

static void open_job(void)
{
    pl_error err;
    open_files();
    const pl_dealer_params params = {
        .input = j.input, .results = j.results, .ranks = 5, .choose = choose, .done = count_done, .user = &j};
    cr_assert_eq(pl_dealer_create(&params, &j.dealer, &err), PL_OK, "%s", err.message);
}

static void close_job(void)
{
    pl_dealer_free(j.dealer);
    pl_results_close(j.results);
    pl_input_free(j.input);
    j.dealer = NULL;
}

static void make(void)
{
    j = (job){.chosen = 0};
    scratch_open(&j.s);
    snprintf(j.in, sizeof j.in, "%s", scratch_path(&j.s, "in.jsonl"));
    snprintf(j.out, sizeof j.out, "%s", scratch_path(&j.s, "out.jsonl"));
    FILE *file = fopen(j.in, "w");
    for (int i = 0; i < LINES; i++)
        fprintf(
            file,
            "{\"custom_id\": \"id-%d\", \"method\": \"%s\", \"url\": \"/v1/completions\", \"body\": {\"prompt\": \"%d\"}}\n",
            i, i % 10 == 3 ? "GET" : "POST", i);
    fclose(file);
    failing_reset();
    open_job();
}

static void remove_all(void)
{
    close_job();
    scratch_close(&j.s);
}

TestSuite(dealer, .init = make, .fini = remove_all);

static int64_t take(int rank)
{
    pl_work work;
    pl_deal deal = pl_dealer_take(j.dealer, rank, false, &work);
    if (deal != PL_DEAL_LINE)
        return deal == PL_DEAL_NONE ? -1 : -2;
    free(work.text);
    return work.line;
}

static pl_status give(int rank, int64_t line, pl_error *err)
{
    char record[64];
    int n = snprintf(record, sizeof record, "{\"line\":%d,\"rank\":%d}\n", (int)line, rank);
    const pl_work_result result = {.line = line, .record = record, .n = (size_t)n, .answer_tokens = 1};
    return pl_dealer_give(j.dealer, rank, &result, err);
}

static void expect_counts(int64_t done, int64_t under_way, int64_t left)
{
    pl_dealer_stats stats = pl_dealer_count(j.dealer);
    cr_assert_eq(stats.results.done, done, "done %d", (int)stats.results.done);
    cr_assert_eq(stats.under_way, under_way, "under way %d", (int)stats.under_way);
    cr_assert_eq(stats.left, left, "left %d", (int)stats.left);
    cr_assert_eq(stats.bytes_left == 0, under_way + left == 0);
}

/* Ends the job: each line has one record, faulty ones with their error. */
static void expect_finished(void)
{
    size_t n;
    cr_assert_eq(pl_dealer_error(j.dealer, NULL), PL_OK);
    cr_assert_eq(pl_results_finish(j.results, true, NULL), PL_OK);
    char *text = read_file(j.out, &n), *at = text, expected[64];
    for (int i = 0; i < LINES; i++, at = strchr(at, '\n') + 1) {
        snprintf(expected, sizeof expected, i % 10 == 3 ? "\"custom_id\":\"id-%d\",\"response\":null" : "{\"line\":%d,",
                 i);
        char *end = strchr(at, '\n'), *found = strstr(at, expected);
        cr_assert(found && found < end, "line %d: %.*s", i, (int)(end - at), at);
    }
    cr_assert_eq(at, text + n);
    free(text);
}

Test(dealer, hands_out_each_line_once)
{
    cr_assert_eq(j.done, LINES - GOOD);
    expect_counts(LINES - GOOD, 0, GOOD);
    cr_assert_eq(pl_results_count(j.results).failed, LINES - GOOD);
    bool seen[LINES] = {false};
    for (int i = 0; i < GOOD; i++) {
        int64_t line = take(i % 5);
        cr_assert(line >= 0 && line % 10 != 3 && !seen[line], "line %d", (int)line);
        seen[line] = true;
    }
    cr_assert_eq(j.chosen, GOOD);
    cr_assert_eq(take(0), -1);
    expect_counts(LINES - GOOD, GOOD, 0);
    for (int64_t i = 0; i < LINES; i++)
        if (i % 10 != 3)
            cr_assert_eq(give((int)i % 5, i, NULL), PL_OK);
    cr_assert_eq(take(0), -2);
    expect_counts(LINES, 0, 0);
    cr_assert_eq(j.done, LINES);
    expect_finished();
}

Test(dealer, a_line_comes_with_its_text_and_path)
{
    pl_work work;
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pl_dealer_take(j.dealer, 0, true, &work), PL_DEAL_LINE);
        cr_assert_str_eq(work.path, work.line % 2 ? "e2b" : "e4b");
        cr_assert_eq(strlen(work.text), work.n);
        char expected[64];
        snprintf(expected, sizeof expected, "\"prompt\": \"%d\"}}", (int)work.line);
        cr_assert_not_null(strstr(work.text, expected), "%s", work.text);
        free(work.text);
    }
}

Test(dealer, goes_on_with_what_is_not_done)
{
    for (int i = 0; i < 20; i++) {
        int64_t line = take(0);
        if (i % 2)
            cr_assert_eq(give(0, line, NULL), PL_OK);
    }
    close_job();
    j.done = 0;
    open_job();
    cr_assert_eq(j.done, 0);
    expect_counts(14, 0, 26);
    for (int64_t line; (line = take(1)) >= 0;)
        cr_assert_eq(give(1, line, NULL), PL_OK);
    cr_assert_eq(take(1), -2);
    expect_finished();
}

Test(dealer, lines_that_come_back_go_to_others)
{
    int64_t a = take(1), b = take(1), c = take(2), d = take(1);
    pl_dealer_put_back(j.dealer, 2, a); /* not his */
    pl_dealer_put_back(j.dealer, 2, 3); /* faulty */
    pl_dealer_put_back(j.dealer, 2, -1);
    pl_dealer_put_back(j.dealer, 2, LINES);
    expect_counts(4, 4, GOOD - 4);
    pl_dealer_put_back(j.dealer, 1, d);
    expect_counts(4, 3, GOOD - 3);
    cr_assert_eq(take(3), d);
    cr_assert_eq(pl_dealer_lost(j.dealer, 1), 2);
    expect_counts(4, 2, GOOD - 2);
    cr_assert_eq(take(3), a);
    cr_assert_eq(take(4), b);
    cr_assert_eq(pl_dealer_lost(j.dealer, 1), 0);
    cr_assert_eq(give(2, c, NULL), PL_OK);
    pl_dealer_put_back(j.dealer, 2, c); /* done */
    expect_counts(5, 3, GOOD - 4);
}

Test(dealer, results_of_the_lost_count)
{
    int64_t a = take(1), b = take(1);
    cr_assert_eq(pl_dealer_lost(j.dealer, 1), 2);
    cr_assert_eq(give(1, a, NULL), PL_OK); /* in nobody's hands */
    expect_counts(5, 0, GOOD - 1);
    cr_assert_eq(take(2), b);
    cr_assert_eq(give(1, b, NULL), PL_OK); /* in those of 2 */
    expect_counts(6, 0, GOOD - 2);
    cr_assert_eq(give(2, b, NULL), PL_OK);
    expect_counts(6, 0, GOOD - 2);
    cr_assert_eq(j.done, 6);
    for (int64_t line; (line = take(2)) >= 0;) {
        cr_assert(line != a && line != b);
        cr_assert_eq(give(2, line, NULL), PL_OK);
    }
    expect_finished();
}

/* ---- waiting -------------------------------------------------------------------------------------- */

static atomic_bool waits;

int __real_pthread_cond_wait(pthread_cond_t *change, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *change, pthread_mutex_t *lock);

/* Whoever takes the lock after this comes when the wait has begun. */
int __wrap_pthread_cond_wait(pthread_cond_t *change, pthread_mutex_t *lock)
{
    atomic_store(&waits, true);
    return __real_pthread_cond_wait(change, lock);
}

static void *wait_for_line(void *line)
{
    pl_work work;
    pl_work_source source = pl_dealer_source(j.dealer);
    bool got = source.take(source.user, &work);
    *(int64_t *)line = got ? work.line : -1;
    if (got)
        source.give_back(source.user, &work);
    return NULL;
}

static void take_all(void)
{
    while (take(1) >= 0)
        ;
}

/* The line that a thread gets which waits for one when `act` is called. */
static int64_t meanwhile(void (*act)(void))
{
    pthread_t thread;
    int64_t line = -2;
    atomic_store(&waits, false);
    cr_assert_eq(pthread_create(&thread, NULL, wait_for_line, &line), 0);
    while (!atomic_load(&waits))
        sched_yield();
    act();
    cr_assert_eq(pthread_join(thread, NULL), 0);
    return line;
}

static void put_back_7(void)
{
    pl_dealer_put_back(j.dealer, 1, 7);
}

static void lose_1(void)
{
    pl_dealer_lost(j.dealer, 1);
}

static void give_all(void)
{
    for (int64_t i = 0; i < LINES; i++)
        cr_assert_eq(give(1, i, NULL), PL_OK);
}

static void stop(void)
{
    pl_dealer_stop(j.dealer, NULL);
}

Test(dealer, whoever_waits_hears_of_it)
{
    take_all();
    cr_assert_eq(meanwhile(put_back_7), 7);
    cr_assert_eq(take(1), 7);
    cr_assert_geq(meanwhile(lose_1), 0);
    take_all();
    cr_assert_eq(meanwhile(give_all), -1);
    expect_finished();
}

Test(dealer, stopping_keeps_what_comes)
{
    pl_error err;
    take_all();
    cr_assert_eq(meanwhile(stop), -1);
    cr_assert_eq(take(0), -2);
    cr_assert_eq(give(1, 5, NULL), PL_OK);
    expect_failure(pl_dealer_error(j.dealer, &err), PL_ERR_CANCELLED, &err, WORDS("stopped"));
    expect_counts(5, GOOD - 1, 0);
    pl_fail(&err, PL_ERR_DEVICE, "later");
    pl_dealer_stop(j.dealer, &err);
    cr_assert_eq(pl_dealer_error(j.dealer, NULL), PL_ERR_CANCELLED);
}

Test(dealer, stopping_what_is_done_changes_nothing)
{
    give_all();
    pl_dealer_stop(j.dealer, NULL);
    expect_finished();
}

/* ---- trouble -------------------------------------------------------------------------------------- */

Test(dealer, a_full_disk_ends_the_job)
{
    pl_error err;
    int64_t a = take(0), b = take(0);
    failing_reset();
    failing.fail_at = 0;
    failing.error = ENOSPC;
    expect_failure(give(0, a, &err), PL_ERR_IO, &err, WORDS("out.jsonl.part", "No space left"));
    cr_assert_eq(take(0), -2);
    cr_assert_eq(give(0, b, NULL), PL_OK);
    expect_failure(pl_dealer_error(j.dealer, &err), PL_ERR_IO, &err, WORDS("No space left"));
    expect_counts(5, 1, GOOD - 2);
    close_job();
    open_job();
    expect_counts(5, 0, GOOD - 1);
}

Test(dealer, no_such_line_ends_nothing)
{
    pl_error err;
    expect_failure(give(0, LINES, &err), PL_ERR_FORMAT, &err, WORDS("line 40"));
    cr_assert_geq(take(0), 0);
    cr_assert_eq(pl_dealer_error(j.dealer, NULL), PL_OK);
}

Test(dealer, an_input_that_was_cut_ends_the_job)
{
    pl_error err;
    cr_assert_eq(truncate(j.in, 10), 0);
    cr_assert_eq(take(0), -2);
    expect_failure(pl_dealer_error(j.dealer, &err), PL_ERR_IO, &err, WORDS("in.jsonl", "ends at byte 10"));
    expect_counts(4, 0, GOOD);
}

Test(dealer, results_of_faulty_lines_may_fail)
{
    pl_error err;
    pl_dealer *dealer;
    close_job();
    remove(j.out);
    cr_assert_eq(unlink(strcat(strcpy((char[256]){""}, j.out), ".journal")), 0);
    cr_assert_eq(unlink(strcat(strcpy((char[256]){""}, j.out), ".part")), 0);
    open_files();
    const pl_dealer_params params = {.input = j.input, .results = j.results};
    failing_reset();
    failing.fail_at = 2;
    failing.error = ENOSPC;
    expect_failure(pl_dealer_create(&params, &dealer, &err), PL_ERR_IO, &err, WORDS("No space left"));
    cr_assert_eq(pl_results_count(j.results).done, 1);
}

/* ---- threads -------------------------------------------------------------------------------------- */

/* A rank that gives, puts back, is taken for lost, and gives all the same. */
static void *be_a_rank(void *number)
{
    int rank = *(int *)number;
    pl_crew_desk desk = pl_dealer_desk(j.dealer);
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)rank);
    while (!desk.over(desk.user)) {
        pl_work work;
        if (desk.take(desk.user, rank, &work) != PL_DEAL_LINE)
            continue;
        free(work.text);
        switch (pl_rng_next(&rng) % 4) {
        case 0: desk.put_back(desk.user, rank, work.line); break;
        case 1: desk.lost(desk.user, rank); /* fall through */
        default: give(rank, work.line, NULL);
        }
    }
    return NULL;
}

Test(dealer, ranks_side_by_side)
{
    pthread_t threads[4];
    int ranks[4];
    for (int i = 0; i < 4; i++) {
        ranks[i] = i;
        cr_assert_eq(pthread_create(&threads[i], NULL, be_a_rank, &ranks[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    expect_counts(LINES, 0, 0);
    cr_assert_eq(j.done, LINES);
    pl_crew_desk desk = pl_dealer_desk(j.dealer);
    cr_assert_eq(desk.outcome(desk.user, NULL), PL_OK);
    cr_assert_eq(desk.left(desk.user), 0);
    expect_finished();
}
