#include "tests/batch/result_files.h"

void result_files_make(result_files *f)
{
    *f = (result_files){.notes = 0};
    scratch_open(&f->s);
    snprintf(f->out, sizeof f->out, "%s", scratch_path(&f->s, "out.jsonl"));
    snprintf(f->part, sizeof f->part, "%s.part", f->out);
    snprintf(f->journal, sizeof f->journal, "%s.journal", f->out);
}

void result_files_remove(result_files *f)
{
    scratch_close(&f->s);
}

void result_files_clear(const result_files *f)
{
    remove(f->out);
    remove(f->part);
    remove(f->journal);
}

static void take_note(void *user, const char *text)
{
    result_files *f = user;
    f->notes++;
    snprintf(f->note, sizeof f->note, "%s", text);
}

pl_results_params result_params(result_files *f)
{
    return (pl_results_params){.out = f->out,
                               .fingerprint = 0x1234567890abcdef,
                               .lines = RESULT_LINES,
                               .settings = RESULT_SETTINGS,
                               .note = take_note,
                               .note_user = f};
}

pl_status result_open(result_files *f, pl_results **out, pl_error *err)
{
    const pl_results_params params = result_params(f);
    return pl_results_open(&params, out, err);
}

size_t result_record(int64_t line, char out[RESULT_BYTES])
{
    static const char filler[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    return (size_t)snprintf(out, RESULT_BYTES, "{\"line\":%02d,\"text\":\"%.*s\"}\n", (int)line, (int)(line * 7 % 50),
                            filler);
}

pl_status result_add(pl_results *results, int64_t line, bool *added, pl_error *err)
{
    char record[RESULT_BYTES];
    size_t n = result_record(line, record);
    const pl_work_result result = {.line = line,
                                   .record = record,
                                   .n = n,
                                   .failed = line % 5 == 0,
                                   .prompt_tokens = line,
                                   .answer_tokens = 2 * line};
    return pl_results_add(results, &result, added, err);
}

pl_status result_add_missing(pl_results *results, pl_error *err)
{
    for (int64_t i = 0; i < RESULT_LINES; i++) {
        int64_t line = i * 7 % RESULT_LINES;
        if (!pl_results_has(results, line))
            PL_TRY(result_add(results, line, NULL, err));
    }
    return PL_OK;
}

pl_status result_end(pl_results *results, bool ordered, pl_error *err)
{
    pl_status status = result_add_missing(results, err);
    if (status == PL_OK)
        status = pl_results_finish(results, ordered, err);
    if (status == PL_OK)
        status = pl_results_forget(results, err);
    pl_results_close(results);
    return status;
}

pl_status result_do_all(result_files *f, bool ordered, pl_error *err)
{
    pl_results *results;
    PL_TRY(result_open(f, &results, err));
    return result_end(results, ordered, err);
}

void result_expect_done(const result_files *f, bool ordered)
{
    size_t n, at = 0;
    bool seen[RESULT_LINES] = {false};
    char record[RESULT_BYTES], *text = read_file(f->out, &n);
    for (int i = 0; i < RESULT_LINES; i++) {
        int line = -1;
        cr_assert_eq(sscanf(text + at, "{\"line\":%d", &line), 1, "record %d at byte %zu of %s", i, at, text);
        cr_assert(line >= 0 && line < RESULT_LINES && !seen[line], "line %d", line);
        cr_assert(!ordered || line == i);
        seen[line] = true;
        size_t bytes = result_record(line, record);
        cr_assert(at + bytes <= n && memcmp(text + at, record, bytes) == 0, "line %d", line);
        at += bytes;
    }
    cr_assert_eq(at, n);
    free(text);
    cr_assert_neq(access(f->part, F_OK), 0);
    cr_assert_neq(access(f->journal, F_OK), 0);
}
