/* What a job's files may look like after a kill, a power cut or a bad disk: it goes on, and each line is there once. */
#include <sys/wait.h>

#include "host/base/rng.h"
#include "tests/batch/failing_calls.h"
#include "tests/batch/result_files.h"

#define ENTRY_BYTES 48

static result_files f;
static char *part, *journal; /* of a job whose results are all there, before its end */
static size_t n_part, n_journal, n_head;

static void make(void)
{
    pl_results *results;
    result_files_make(&f);
    failing_reset();
    cr_assert_eq(result_open(&f, &results, NULL), PL_OK);
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    pl_results_close(results);
    part = read_file(f.part, &n_part);
    journal = read_file(f.journal, &n_journal);
    n_head = n_journal - RESULT_LINES * ENTRY_BYTES;
    result_files_clear(&f);
}

static void remove_all(void)
{
    free(part);
    free(journal);
    result_files_remove(&f);
}

TestSuite(results_cut, .init = make, .fini = remove_all);

/* Puts both files there, goes on and ends the job. Returns what of it was kept. */
static int64_t go_on(const char *p, size_t p_bytes, const char *j, size_t j_bytes, bool ordered, const char *what,
                     size_t at)
{
    pl_results *results;
    pl_error err;
    result_files_clear(&f);
    scratch_write(&f.s, "out.jsonl.part", p, p_bytes);
    scratch_write(&f.s, "out.jsonl.journal", j, j_bytes);
    cr_assert_eq(result_open(&f, &results, &err), PL_OK, "%s %zu: %s", what, at, err.message);
    int64_t kept = pl_results_count(results).kept;
    cr_assert_eq(result_end(results, ordered, &err), PL_OK, "%s %zu: %s", what, at, err.message);
    result_expect_done(&f, ordered);
    return kept;
}

/* Results that lie wholly in the first p bytes of the part. */
static int64_t whole_in_part(size_t p)
{
    int64_t n = 0;
    for (size_t i = 0; i < p; i++)
        n += part[i] == '\n';
    return n;
}

static int64_t whole_in_journal(size_t j)
{
    return j < n_head ? 0 : (int64_t)((j - n_head) / ENTRY_BYTES);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

Test(results_cut, the_journal_at_every_byte)
{
    for (size_t j = 0; j <= n_journal; j++)
        cr_assert_eq(go_on(part, n_part, journal, j, j % 2, "journal cut at", j), whole_in_journal(j), "%zu", j);
    cr_assert_eq(f.notes, 0);
}

/* Also behind what the journal vouches for: not what a kill does, but a power cut may. */
Test(results_cut, the_part_at_every_byte)
{
    for (size_t p = 0; p <= n_part; p++) {
        f.notes = 0;
        int64_t kept = go_on(part, p, journal, n_journal, p % 2, "part cut at", p);
        cr_assert_eq(kept, whole_in_part(p));
        cr_assert(kept == RESULT_LINES ? f.notes == 0 : f.notes > 0, "part cut at %zu", p);
    }
}

Test(results_cut, both_anywhere)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (int i = 0; i < 600; i++) {
        size_t p = pl_rng_next(&rng) % (n_part + 1), j = pl_rng_next(&rng) % (n_journal + 1);
        int64_t kept = go_on(part, p, journal, j, i % 2, "both cut, case", (size_t)i);
        cr_assert_eq(kept, least(whole_in_part(p), whole_in_journal(j)), "part %zu, journal %zu", p, j);
    }
}

/* Files whose size is on the disk, but not what they hold. */
Test(results_cut, zeros_behind_any_byte)
{
    pl_rng rng;
    pl_rng_seed(&rng, 2);
    for (int i = 0; i < 300; i++) {
        size_t p = pl_rng_next(&rng) % (n_part + 1), j = pl_rng_next(&rng) % (n_journal + 1);
        char *zero_part = (char *)exact_copy(part, n_part), *zero_journal = (char *)exact_copy(journal, n_journal);
        memset(zero_part + p, 0, n_part - p);
        if (j >= n_head) /* the head was synced */
            memset(zero_journal + j, 0, n_journal - j);
        int64_t kept = go_on(zero_part, n_part, zero_journal, n_journal, i % 2, "zeros, case", (size_t)i);
        cr_assert_leq(kept, whole_in_part(p));
        cr_assert_geq(kept, least(whole_in_part(p), whole_in_journal(j < n_head ? n_journal : j)));
        free(zero_part);
        free(zero_journal);
    }
}

Test(results_cut, a_wrong_bit_anywhere_is_named)
{
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    for (size_t i = 0; i < n_part + n_journal; i += 1 + pl_rng_next(&rng) % 4) {
        char *byte = i < n_part ? &part[i] : &journal[i - n_part], was = *byte;
        *byte = (char)(was ^ 1 << pl_rng_next(&rng) % 8);
        f.notes = 0;
        int64_t kept = go_on(part, n_part, journal, n_journal, i % 2, "wrong bit in byte", i);
        cr_assert_eq(kept, i >= n_part && i < n_part + n_head ? RESULT_LINES : RESULT_LINES - 1, "byte %zu", i);
        cr_assert_eq(f.notes, 1, "byte %zu", i);
        *byte = was;
    }
}

Test(results_cut, damage_is_told_once)
{
    pl_results *results;
    for (size_t i = n_head; i < n_journal; i += ENTRY_BYTES)
        journal[i] ^= 1;
    part[3] ^= 1;
    scratch_write(&f.s, "out.jsonl.part", part, n_part);
    scratch_write(&f.s, "out.jsonl.journal", journal, n_journal);
    cr_assert_eq(result_open(&f, &results, NULL), PL_OK);
    cr_assert_eq(pl_results_count(results).done, 0);
    pl_results_close(results);
    cr_assert_eq(f.notes, 9);
    cr_assert_not_null(strstr(f.note, "20 entries or results are damaged"), "%s", f.note);
    cr_assert_eq(result_open(&f, &results, NULL), PL_OK);
    pl_results_close(results);
    cr_assert_eq(f.notes, 9);
}

/* A head that nothing vouches for. */
Test(results_cut, a_damaged_head_without_entries_is_refused)
{
    pl_results *results;
    pl_error err;
    for (size_t i = 0; i < n_head; i++) {
        journal[i] ^= 1;
        scratch_write(&f.s, "out.jsonl.part", part, n_part);
        scratch_write(&f.s, "out.jsonl.journal", journal, n_head);
        pl_status status = result_open(&f, &results, &err);
        if (status == PL_ERR_FORMAT)
            expect_failure(status, PL_ERR_FORMAT, &err,
                           WORDS("out.jsonl.journal", i < 8 ? "not the journal of a batch" : "damaged", "--overwrite"));
        else
            expect_failure(status, PL_ERR_UNSUPPORTED, &err, WORDS("of version", "expected 1"));
        cr_assert_eq(status == PL_ERR_UNSUPPORTED, i >= 8 && i < 12, "byte %zu", i);
        journal[i] ^= 1;
    }
}

/* A process that is killed before one of its calls that change files. */
static bool run_killed(int at, bool ordered)
{
    int status;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        failing_reset();
        failing.kill_at = at;
        failing.short_writes = at % 3 == 0;
        pl_error err;
        _exit(result_do_all(&f, ordered, &err) == PL_OK ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == FAILING_KILLED), "call %d", at);
    return WEXITSTATUS(status) == FAILING_KILLED;
}

static bool is_over(void)
{
    return access(f.out, F_OK) == 0 && access(f.journal, F_OK) != 0;
}

/* At some call, then at another one of the process that goes on, then never. */
static bool kill_at(int at, bool ordered)
{
    pl_error err;
    result_files_clear(&f);
    bool killed = run_killed(at, ordered);
    if (!is_over())
        run_killed(at % 17, ordered);
    if (!is_over())
        cr_assert_eq(result_do_all(&f, ordered, &err), PL_OK, "killed at %d: %s", at, err.message);
    result_expect_done(&f, ordered);
    return killed;
}

Test(results_cut, killed_before_any_call)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        int at = 0;
        while (kill_at(at, ordered))
            at++;
        cr_assert_gt(at, 45);
    }
    cr_assert_eq(f.notes, 0);
}
