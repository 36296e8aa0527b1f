#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/batch/failing_calls.h"
#include "tests/batch/result_files.h"

static result_files f;

static void make(void)
{
    result_files_make(&f);
    failing_reset();
}

static void remove_all(void)
{
    result_files_remove(&f);
}

TestSuite(results, .init = make, .fini = remove_all);

static pl_results *open_results(void)
{
    pl_results *results;
    pl_error err;
    cr_assert_eq(result_open(&f, &results, &err), PL_OK, "%s", err.message);
    return results;
}

static void do_all(bool ordered)
{
    pl_error err;
    cr_assert_eq(result_do_all(&f, ordered, &err), PL_OK, "%s", err.message);
    result_expect_done(&f, ordered);
}

static long size_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (long)info.st_size : -1;
}

Test(results, a_job_from_beginning_to_end)
{
    do_all(false);
    result_files_clear(&f);
    do_all(true);
    cr_assert_eq(f.notes, 0);
}

Test(results, a_job_without_lines)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        pl_results_params params = result_params(&f);
        pl_results *results;
        params.lines = 0;
        cr_assert_eq(pl_results_open(&params, &results, NULL), PL_OK);
        cr_assert_eq(pl_results_finish(results, ordered, NULL), PL_OK);
        cr_assert_eq(pl_results_forget(results, NULL), PL_OK);
        pl_results_close(results);
        cr_assert_eq(size_of(f.out), 0);
        cr_assert_eq(size_of(f.part), -1);
        cr_assert_eq(size_of(f.journal), -1);
        remove(f.out);
    }
}

Test(results, goes_on_where_it_was)
{
    pl_results *results = open_results();
    bool added;
    for (int64_t i = 0; i < 12; i++)
        cr_assert_eq(result_add(results, 19 - i, &added, NULL), PL_OK);
    cr_assert(added);
    pl_results_close(results);
    results = open_results();
    pl_results_stats stats = pl_results_count(results);
    cr_assert_eq(stats.lines, 20);
    cr_assert_eq(stats.done, 12);
    cr_assert_eq(stats.kept, 12);
    cr_assert_eq(stats.failed, 2);
    cr_assert_eq(stats.prompt_tokens, 8 * 12 + 11 * 12 / 2);
    cr_assert_eq(stats.answer_tokens, 2 * stats.prompt_tokens);
    cr_assert_eq((long)stats.bytes, size_of(f.part));
    for (int64_t i = 0; i < RESULT_LINES; i++)
        cr_assert_eq(pl_results_has(results, i), i >= 8);
    pl_results_close(results);
    do_all(false);
    cr_assert_eq(f.notes, 0);
}

Test(results, a_line_is_never_added_twice)
{
    pl_results *results = open_results();
    bool added;
    cr_assert_eq(result_add(results, 3, &added, NULL), PL_OK);
    cr_assert(added);
    long size = size_of(f.part);
    cr_assert_eq(result_add(results, 3, &added, NULL), PL_OK);
    cr_assert_not(added);
    cr_assert_eq(size_of(f.part), size);
    pl_results_close(results);
    do_all(true);
}

Test(results, refuses_what_is_no_result)
{
    static const char *const records[] = {"", "{}", "{}\n{}\n", "{}\n{}"};
    pl_results *results = open_results();
    pl_error err;
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        const pl_work_result result = {.line = 2, .record = records[i], .n = strlen(records[i])};
        expect_failure(pl_results_add(results, &result, NULL, &err), PL_ERR_FORMAT, &err, WORDS("line 2", "one line"));
    }
    expect_failure(result_add(results, RESULT_LINES, NULL, &err), PL_ERR_FORMAT, &err, WORDS("line 20"));
    expect_failure(result_add(results, -1, NULL, &err), PL_ERR_FORMAT, &err, WORDS("line -1"));
    expect_failure(pl_results_finish(results, false, &err), PL_ERR_ARGUMENT, &err, WORDS("20 of 20 lines"));
    pl_results_close(results);
}

#define MANY 3000

static void *add_many(void *results)
{
    for (int64_t i = 0; i < MANY; i++) {
        const pl_work_result result = {.line = i, .record = "{}\n", .n = 3};
        if (pl_results_add(results, &result, NULL, NULL) != PL_OK || pl_results_sync(results, NULL) != PL_OK)
            return results;
    }
    return NULL;
}

Test(results, threads_add_each_line_once)
{
    pl_results_params params = result_params(&f);
    pl_results *results;
    pthread_t threads[4];
    void *failed;
    params.lines = MANY;
    cr_assert_eq(pl_results_open(&params, &results, NULL), PL_OK);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, add_many, results), 0);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i], &failed), 0);
        cr_assert_null(failed);
    }
    cr_assert_eq(pl_results_count(results).done, MANY);
    cr_assert_eq(size_of(f.part), 3 * MANY);
    pl_results_close(results);
    cr_assert_eq(pl_results_open(&params, &results, NULL), PL_OK);
    cr_assert_eq(pl_results_count(results).done, MANY);
    cr_assert_eq(f.notes, 0);
    pl_results_close(results);
}

/* ---- what is there already ------------------------------------------------------------------------ */

Test(results, only_one_process_at_a_time)
{
    pl_results *results = open_results(), *other;
    pl_results_params params = result_params(&f);
    pl_error err;
    expect_failure(pl_results_open(&params, &other, &err), PL_ERR_BUSY, &err,
                   WORDS("out.jsonl.journal", "another process"));
    params.overwrite = true;
    expect_failure(pl_results_open(&params, &other, &err), PL_ERR_BUSY, &err, WORDS("another process"));
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    pl_results_close(results);
    do_all(false);
}

Test(results, files_of_others_stay)
{
    pl_results *results;
    pl_error err;
    scratch_text(&f.s, "out.jsonl", "old\n");
    expect_failure(result_open(&f, &results, &err), PL_ERR_ARGUMENT, &err, WORDS("out.jsonl: exists", "--overwrite"));
    cr_assert_eq(size_of(f.journal), -1);
    cr_assert_eq(size_of(f.out), 4);
    result_files_clear(&f);
    scratch_text(&f.s, "out.jsonl.part", "old\n");
    expect_failure(result_open(&f, &results, &err), PL_ERR_ARGUMENT, &err, WORDS("out.jsonl.part: exists"));
    cr_assert_eq(size_of(f.part), 4);
}

Test(results, overwrite_begins_anew)
{
    pl_results_params params = result_params(&f);
    pl_results *results = open_results();
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    pl_results_close(results);
    scratch_text(&f.s, "out.jsonl", "old\n");
    params.overwrite = true;
    params.settings = "others";
    cr_assert_eq(pl_results_open(&params, &results, NULL), PL_OK);
    cr_assert_eq(pl_results_count(results).done, 0);
    cr_assert_eq(size_of(f.out), 4);
    cr_assert_eq(result_add(results, 1, NULL, NULL), PL_OK);
    pl_results_close(results);
    params.overwrite = false;
    cr_assert_eq(pl_results_open(&params, &results, NULL), PL_OK);
    cr_assert_eq(pl_results_count(results).done, 1);
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    cr_assert_eq(pl_results_finish(results, false, NULL), PL_OK);
    cr_assert_eq(pl_results_forget(results, NULL), PL_OK);
    pl_results_close(results);
    result_expect_done(&f, false);
}

Test(results, a_journal_is_of_one_job)
{
    pl_results_params params = result_params(&f);
    pl_results *results = open_results();
    pl_error err;
    cr_assert_eq(result_add(results, 1, NULL, NULL), PL_OK);
    pl_results_close(results);
    params.settings = "other.gguf";
    expect_failure(pl_results_open(&params, &results, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("out.jsonl.journal", RESULT_SETTINGS, "other.gguf", "--overwrite"));
    params = result_params(&f);
    params.fingerprint++;
    expect_failure(pl_results_open(&params, &results, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("another input", "--overwrite"));
    params = result_params(&f);
    params.lines++;
    expect_failure(pl_results_open(&params, &results, &err), PL_ERR_ARGUMENT, &err, WORDS("20 lines", "21 lines now"));
    do_all(false);
}

Test(results, only_files)
{
    pl_results *results;
    pl_error err;
    pl_results_params params = result_params(&f);
    params.out = "/dev/null";
    expect_failure(pl_results_open(&params, &results, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("/dev/null", "not a regular file"));
    params.out = f.s.dir;
    expect_failure(pl_results_open(&params, &results, &err), PL_ERR_ARGUMENT, &err, WORDS("a folder"));
    params.out = "/nowhere/out";
    expect_failure(pl_results_open(&params, &results, &err), PL_ERR_IO, &err,
                   WORDS("/nowhere/out.journal", "No such file"));
    cr_assert_eq(mkfifo(f.part, 0600), 0);
    params = result_params(&f);
    params.overwrite = true;
    expect_failure(pl_results_open(&params, &results, &err), PL_ERR_ARGUMENT, &err,
                   WORDS(".part: is not a regular file"));
}

Test(results, a_link_stays_one)
{
    pl_results_params params = result_params(&f);
    pl_results *results;
    char *link = strdup(scratch_path(&f.s, "link"));
    scratch_text(&f.s, "out.jsonl", "old\n");
    cr_assert_eq(symlink("out.jsonl", link), 0);
    params.out = link;
    params.overwrite = true;
    cr_assert_eq(pl_results_open(&params, &results, NULL), PL_OK);
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    cr_assert_eq(pl_results_finish(results, true, NULL), PL_OK);
    cr_assert_eq(pl_results_forget(results, NULL), PL_OK);
    pl_results_close(results);
    result_expect_done(&f, true);
    free(link);
}

/* A job that was killed when OUT was there and only the journal was left to remove. */
static void leave_finished(bool ordered)
{
    pl_results *results;
    result_files_clear(&f);
    cr_assert_eq(result_open(&f, &results, NULL), PL_OK);
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    cr_assert_eq(pl_results_finish(results, ordered, NULL), PL_OK);
    pl_results_close(results);
    cr_assert_eq(size_of(f.part), -1);
    cr_assert_geq(size_of(f.journal), 0);
}

Test(results, a_finished_output_is_known_again)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        pl_results *results;
        leave_finished(ordered);
        cr_assert_eq(result_open(&f, &results, NULL), PL_OK);
        pl_results_stats stats = pl_results_count(results);
        cr_assert_eq(stats.kept, RESULT_LINES);
        cr_assert_eq(stats.failed, 4);
        cr_assert_eq(stats.prompt_tokens, 190);
        bool added;
        cr_assert_eq(result_add(results, 3, &added, NULL), PL_OK);
        cr_assert_not(added);
        cr_assert_eq(result_end(results, ordered, NULL), PL_OK);
        result_expect_done(&f, ordered);
    }
    leave_finished(false);
    do_all(true);
    cr_assert_eq(f.notes, 0);
}

/* OUT itself was checked as a whole. */
Test(results, a_finished_output_needs_no_entries)
{
    leave_finished(true);
    size_t n;
    char *journal = read_file(f.journal, &n);
    journal[n - 100] ^= 1;
    scratch_write(&f.s, "out.jsonl.journal", journal, n);
    free(journal);
    do_all(true);
}

Test(results, an_output_that_nothing_vouches_for_is_not_touched)
{
    for (int i = 0; i < 4; i++) {
        pl_results *results;
        pl_error err;
        size_t n;
        leave_finished(i % 2);
        char *text = read_file(f.out, &n);
        text[n / 2] ^= 1;
        scratch_write(&f.s, "out.jsonl", text, i < 2 ? n : n / 2);
        free(text);
        expect_failure(result_open(&f, &results, &err), PL_ERR_ARGUMENT, &err,
                       WORDS("out.jsonl: exists", ".part is gone"));
        cr_assert_eq(size_of(f.out), (long)(i < 2 ? n : n / 2));
        remove(f.out);
        f.notes = 0;
        do_all(i % 2);
        cr_assert_gt(f.notes, 0);
    }
}

Test(results, what_nobody_vouches_for_is_cut_off)
{
    pl_results *results = open_results();
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    pl_results_close(results);
    FILE *file = fopen(f.part, "a");
    fputs("{\"line\":1}\n{\"li", file);
    fclose(file);
    do_all(false);
    cr_assert_eq(f.notes, 0);
}

/* ---- trouble -------------------------------------------------------------------------------------- */

Test(results, short_writes_are_gone_on_with)
{
    failing.short_writes = true;
    do_all(false);
    cr_assert_gt(failing.calls, 20 * 10);
}

/* The limit is the system's own: half a result was written when it says so. */
Test(results, a_full_disk_is_named_and_survived)
{
    struct rlimit old, small = {.rlim_cur = 500};
    pl_error err;
    pl_status status = PL_OK;
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    pl_results *results = open_results();
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int64_t i = 0; i < RESULT_LINES && status == PL_OK; i++)
        status = result_add(results, i, NULL, &err);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    expect_failure(status, PL_ERR_IO, &err, WORDS("out.jsonl", "File too large"));
    pl_results_stats stats = pl_results_count(results);
    cr_assert_gt(stats.done, 3);
    cr_assert_eq(size_of(f.part), (long)stats.bytes);
    cr_assert_eq(result_add(results, 19, NULL, NULL), PL_OK);
    pl_results_close(results);
    results = open_results();
    cr_assert_eq(pl_results_count(results).done, stats.done + 1);
    pl_results_close(results);
    do_all(true);
    cr_assert_eq(f.notes, 0);
}

/* Any call that writes fails, once or from then on, with half of its bytes written. */
static int fail_each(int error, bool on, bool ordered)
{
    int failures = 0;
    for (int at = 0;; at++) {
        pl_error err;
        result_files_clear(&f);
        failing_reset();
        failing.fail_at = at;
        failing.error = error;
        failing.on = on;
        failing.short_writes = at % 2;
        pl_status status = result_do_all(&f, ordered, &err);
        bool reached = failing.calls > at;
        failing_reset();
        failures += status != PL_OK;
        if (status != PL_OK)
            expect_failure(status, PL_ERR_IO, &err, WORDS(f.s.dir, strerror(error)));
        if (access(f.out, F_OK) != 0 || access(f.journal, F_OK) == 0)
            cr_assert_eq(result_do_all(&f, ordered, &err), PL_OK, "call %d: %s", at, err.message);
        result_expect_done(&f, ordered);
        if (!reached)
            return failures;
    }
}

Test(results, any_call_may_fail)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        cr_assert_gt(fail_each(ENOSPC, true, ordered), 45);
        cr_assert_gt(fail_each(EIO, false, ordered), 45);
    }
    cr_assert_eq(f.notes, 0);
}

Test(results, a_sync_that_fails_is_told)
{
    pl_error err;
    pl_results *results = open_results();
    cr_assert_eq(result_add(results, 1, NULL, NULL), PL_OK);
    for (int i = 0; i < 2; i++) {
        failing_reset();
        failing.fail_at = i;
        failing.error = EIO;
        expect_failure(pl_results_sync(results, &err), PL_ERR_IO, &err,
                       WORDS(i ? "out.jsonl.journal" : "out.jsonl.part", "Input/output error"));
    }
    pl_results_close(results);
}

Test(results, no_output_without_a_sync)
{
    pl_error err;
    for (int ordered = 0; ordered < 2; ordered++)
        for (int i = 0; i < 2; i++) {
            pl_results *results = open_results();
            cr_assert_eq(result_add_missing(results, NULL), PL_OK);
            failing_reset();
            failing.fail_at = i;
            failing.error = EIO;
            expect_failure(pl_results_finish(results, ordered, &err), PL_ERR_IO, &err,
                           WORDS(i ? "out.jsonl.journal" : "out.jsonl.part", "Input/output error"));
            cr_assert_eq(size_of(f.out), -1);
            pl_results_close(results);
        }
}

Test(results, damage_after_the_start_is_no_output)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        pl_error err;
        result_files_clear(&f);
        pl_results *results = open_results();
        cr_assert_eq(result_add_missing(results, NULL), PL_OK);
        pl_results_close(results);
        FILE *file = fopen(f.part, "r+");
        fputc('?', file);
        fclose(file);
        results = open_results(); /* a hole, so that what is there is copied */
        cr_assert_eq(pl_results_count(results).done, RESULT_LINES - 1);
        cr_assert_eq(result_add_missing(results, NULL), PL_OK);
        cr_assert_eq(truncate(f.part, 300), 0);
        expect_failure(pl_results_finish(results, ordered, &err), PL_ERR_IO, &err,
                       WORDS("out.jsonl.part", "start again"));
        cr_assert_eq(size_of(f.out), -1);
        pl_results_close(results);
        do_all(ordered);
    }
}
