#include "host/batch/journal.h"
#include "tests/batch/result_files.h"
#include "tests/unit/fail_alloc.h"

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);

static result_files f;
static bool slow; /* between opening and locking the one before removes its journal */

int __wrap_flock(int fd, int operation)
{
    if (slow)
        remove(f.journal);
    return __real_flock(fd, operation);
}

static void make(void)
{
    result_files_make(&f);
    slow = false;
}

static void remove_all(void)
{
    result_files_remove(&f);
}

TestSuite(journal, .init = make, .fini = remove_all);

static const pl_journal_job job = {.fingerprint = 7, .lines = 100, .settings = "demo"};

static pl_journal *begin(void)
{
    pl_journal *journal;
    pl_error err;
    cr_assert_eq(pl_journal_open(f.journal, &job, true, &journal, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_journal_begin(journal, &err), PL_OK, "%s", err.message);
    return journal;
}

static pl_journal *reopen(pl_journal_state expected)
{
    pl_journal *journal;
    pl_journal_state state;
    pl_error err;
    cr_assert_eq(pl_journal_open(f.journal, &job, false, &journal, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_journal_check(journal, &state, &err), PL_OK, "%s", err.message);
    cr_assert_eq(state, expected);
    return journal;
}

static pl_journal_entry entry_of(uint64_t i)
{
    return (pl_journal_entry){.line = i,
                              .offset = i * 1000,
                              .sum = ~i,
                              .bytes = (uint32_t)i + 5,
                              .failed = i % 2,
                              .prompt_tokens = (uint32_t)i * 3,
                              .answer_tokens = (uint32_t)i * 4};
}

typedef struct seen {
    int n, damaged;
    uint64_t drop; /* the entry with this index */
} seen;

static pl_status see(void *user, uint64_t index, const pl_journal_entry *entry, bool *keep, pl_error *err)
{
    (void)err;
    seen *all = user;
    all->n++;
    all->damaged += !entry;
    *keep = index != all->drop;
    if (entry) {
        const pl_journal_entry expected = entry_of(index);
        cr_assert_eq(memcmp(entry, &expected, sizeof expected), 0, "entry %d", (int)index);
    }
    return PL_OK;
}

static seen see_all(pl_journal *journal, uint64_t drop)
{
    seen all = {.drop = drop};
    cr_assert_eq(pl_journal_each(journal, see, &all, NULL), PL_OK);
    return all;
}

/* More than are read at once. */
Test(journal, gives_back_what_was_added)
{
    pl_journal *journal = begin();
    for (uint64_t i = 0; i < 5000; i++) {
        const pl_journal_entry entry = entry_of(i);
        cr_assert_eq(pl_journal_add(journal, &entry, NULL), PL_OK);
    }
    cr_assert_eq(see_all(journal, UINT64_MAX).n, 5000);
    pl_journal_close(journal);
    journal = reopen(PL_JOURNAL_WHOLE);
    cr_assert_eq(pl_journal_entries(journal), 5000);
    cr_assert_eq(see_all(journal, UINT64_MAX).n, 5000);
    pl_journal_close(journal);
}

Test(journal, voided_entries_are_not_seen_again)
{
    pl_journal *journal = begin();
    for (uint64_t i = 0; i < 10; i++) {
        const pl_journal_entry entry = entry_of(i);
        cr_assert_eq(pl_journal_add(journal, &entry, NULL), PL_OK);
    }
    cr_assert_eq(see_all(journal, 4).n, 10);
    cr_assert_eq(see_all(journal, UINT64_MAX).n, 9);
    const pl_journal_entry entry = entry_of(10);
    cr_assert_eq(pl_journal_add(journal, &entry, NULL), PL_OK);
    pl_journal_close(journal);
    journal = reopen(PL_JOURNAL_WHOLE);
    cr_assert_eq(see_all(journal, UINT64_MAX).n, 10);
    cr_assert_eq(pl_journal_entries(journal), 11);
    pl_journal_close(journal);
}

Test(journal, a_head_that_entries_vouch_for_is_repaired)
{
    pl_journal *journal = begin();
    const pl_journal_entry entry = entry_of(0);
    cr_assert_eq(pl_journal_add(journal, &entry, NULL), PL_OK);
    pl_journal_close(journal);
    size_t n;
    char *good = read_file(f.journal, &n);
    for (size_t i = 0; i < n - 48; i++) {
        size_t n_now;
        good[i] ^= 16;
        scratch_write(&f.s, "out.jsonl.journal", good, n);
        good[i] ^= 16;
        journal = reopen(PL_JOURNAL_REPAIRED);
        pl_journal_close(journal);
        char *now = read_file(f.journal, &n_now);
        cr_assert(n == n_now && memcmp(now, good, n) == 0, "byte %zu", i);
        free(now);
    }
    free(good);
}

static void refused(const char *text, size_t n, pl_status expected, const char *words)
{
    pl_journal *journal;
    pl_journal_state state;
    pl_error err;
    scratch_write(&f.s, "out.jsonl.journal", text, n);
    cr_assert_eq(pl_journal_open(f.journal, &job, false, &journal, NULL), PL_OK);
    expect_failure(pl_journal_check(journal, &state, &err), expected, &err, WORDS("out.jsonl.journal", words));
    pl_journal_close(journal);
}

Test(journal, files_of_others_are_refused)
{
    char later[40] = "PLDBATCH\2";
    char endless[] = "PLDBATCH\1\0\0\0\377\377\377\377--------________settings";
    refused("hello", 5, PL_ERR_FORMAT, "not the journal of a batch");
    refused("a longer text that has no head at all, and goes on and on", 50, PL_ERR_FORMAT,
            "not the journal of a batch");
    refused(later, sizeof later, PL_ERR_UNSUPPORTED, "of version 2, expected 1");
    refused(endless, sizeof endless, PL_ERR_FORMAT, "damaged");
}

Test(journal, what_was_never_begun_is_known)
{
    pl_journal_close(begin());
    size_t n;
    char *head = read_file(f.journal, &n);
    for (size_t i = 0; i < n; i++) {
        char zeros[200] = "";
        scratch_write(&f.s, "out.jsonl.journal", head, i);
        pl_journal_close(reopen(PL_JOURNAL_UNBEGUN));
        memcpy(zeros, head, i);
        scratch_write(&f.s, "out.jsonl.journal", zeros, n);
        pl_journal_close(reopen(PL_JOURNAL_UNBEGUN));
    }
    free(head);
}

Test(journal, is_locked_until_it_is_closed)
{
    pl_journal *journal = begin(), *other;
    pl_error err;
    for (int create = 0; create < 2; create++) {
        expect_failure(pl_journal_open(f.journal, &job, create, &other, &err), PL_ERR_BUSY, &err,
                       WORDS("out.jsonl.journal", "another process"));
        cr_assert_null(other);
    }
    cr_assert_eq(pl_journal_remove(journal, NULL), PL_OK);
    cr_assert_eq(pl_journal_open(f.journal, &job, false, &other, NULL), PL_OK);
    cr_assert_null(other);
    pl_journal_close(journal);
}

Test(journal, a_lock_on_what_is_gone_is_none)
{
    pl_journal *other;
    pl_error err;
    pl_journal_close(begin());
    slow = true;
    expect_failure(pl_journal_open(f.journal, &job, false, &other, &err), PL_ERR_BUSY, &err, WORDS("another process"));
}

Test(journal, settings_have_an_end)
{
    char *settings = malloc(PL_JOURNAL_SETTINGS_BYTES + 2);
    pl_journal_job mine = job;
    pl_journal *journal;
    pl_error err;
    memset(settings, 's', PL_JOURNAL_SETTINGS_BYTES + 1);
    settings[PL_JOURNAL_SETTINGS_BYTES + 1] = '\0';
    mine.settings = settings;
    expect_failure(pl_journal_open(f.journal, &mine, true, &journal, &err), PL_ERR_ARGUMENT, &err, WORDS("4097 bytes"));
    settings[PL_JOURNAL_SETTINGS_BYTES] = '\0';
    cr_assert_eq(pl_journal_open(f.journal, &mine, true, &journal, NULL), PL_OK);
    cr_assert_eq(pl_journal_begin(journal, NULL), PL_OK);
    pl_journal_close(journal);
    pl_journal_state state;
    cr_assert_eq(pl_journal_open(f.journal, &mine, false, &journal, NULL), PL_OK);
    cr_assert_eq(pl_journal_check(journal, &state, NULL), PL_OK);
    cr_assert_eq(state, PL_JOURNAL_WHOLE);
    pl_journal_close(journal);
    free(settings);
}

static pl_status job_without_memory(void *ordered, pl_error *err)
{
    result_files_clear(&f);
    return result_do_all(&f, *(bool *)ordered, err);
}

/* Where it fails, the job goes on to its end all the same. */
static pl_status resume_without_memory(void *ctx, pl_error *err)
{
    (void)ctx;
    return result_do_all(&f, true, err);
}

Test(journal, no_memory)
{
    bool ordered = true;
    pl_results *results;
    cr_assert_gt(fail_alloc_each(job_without_memory, &ordered), 10);
    ordered = false;
    cr_assert_gt(fail_alloc_each(job_without_memory, &ordered), 8);
    result_expect_done(&f, false);
    result_files_clear(&f);
    cr_assert_eq(result_open(&f, &results, NULL), PL_OK);
    cr_assert_eq(result_add_missing(results, NULL), PL_OK);
    pl_results_close(results);
    cr_assert_gt(fail_alloc_each(resume_without_memory, NULL), 10);
    result_expect_done(&f, true);
}
