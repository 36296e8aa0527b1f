/* An output is known again by the ids of its records: of this input, in any order, with these settings. */
#include "host/batch/answered.h"

#include "host/batch/record.h"
#include "tests/unit/scratch.h"

#define REQUEST(id) "{\"custom_id\":\"" id "\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}"
#define SEED 7

static const char *const lines[] = {REQUEST("a"), REQUEST("b"), "no request"};

typedef struct fixture {
    scratch s;
    pl_input *input;
    char record[3][256];
} fixture;

static fixture f;

static void open_input(void)
{
    char text[512];
    pl_error err;
    scratch_open(&f.s);
    snprintf(text, sizeof text, "%s\n%s\n%s\n", lines[0], lines[1], lines[2]);
    const pl_input_params params = {.path = scratch_text(&f.s, "in", text)};
    cr_assert_eq(pl_input_open(&params, &f.input, &err), PL_OK, "%s", err.message);
    for (int64_t i = 0; i < 3; i++) {
        char id[PL_RECORD_ID_BYTES];
        uint64_t job = pl_input_fingerprint(f.input);
        if (i < 2)
            pl_record_id(SEED, i, lines[i], strlen(lines[i]), id);
        else
            pl_record_id(SEED, i, (const char *)&job, sizeof job, id);
        snprintf(f.record[i], sizeof f.record[i], "{\"id\":\"%s\",\"custom_id\":null}\n", id);
    }
}

static void close_input(void)
{
    pl_input_free(f.input);
    scratch_close(&f.s);
}

static bool is_answered(const char *text, uint64_t seed)
{
    bool is = true;
    pl_error err;
    const char *out = text ? scratch_text(&f.s, "out", text) : scratch_path(&f.s, "none");
    cr_assert_eq(pl_batch_is_answered(out, f.input, seed, &is, &err), PL_OK, "%s", err.message);
    return is;
}

static bool holds(int a, int b, int c, const char *behind)
{
    char text[1024];
    snprintf(text, sizeof text, "%s%s%s%s", f.record[a], f.record[b], f.record[c], behind);
    return is_answered(text, SEED);
}

TestSuite(answered, .init = open_input, .fini = close_input);

Test(answered, in_any_order)
{
    cr_assert(holds(0, 1, 2, ""));
    cr_assert(holds(2, 0, 1, ""));
}

Test(answered, each_once_and_nothing_else)
{
    cr_assert(!holds(0, 1, 1, ""));
    cr_assert(!holds(0, 1, 2, f.record[0]));
    cr_assert(!holds(0, 1, 2, "more"));
    cr_assert(!holds(0, 1, 2, "\n"));
    cr_assert(!is_answered(f.record[0], SEED));
    cr_assert(!is_answered("", SEED));
    cr_assert(!is_answered(NULL, SEED));
    char cut[1024];
    snprintf(cut, sizeof cut, "%s%s%s", f.record[0], f.record[1], f.record[2]);
    cut[strlen(cut) - 1] = '\0';
    cr_assert(!is_answered(cut, SEED));
}

Test(answered, with_these_settings)
{
    char text[1024];
    snprintf(text, sizeof text, "%s%s%s", f.record[0], f.record[1], f.record[2]);
    cr_assert(is_answered(text, SEED));
    cr_assert(!is_answered(text, SEED + 1));
}

Test(answered, not_beside_a_journal)
{
    scratch_text(&f.s, "out.journal", "");
    cr_assert(!holds(0, 1, 2, ""));
}

/* The journal lies beside the file itself. */
Test(answered, not_through_a_link_to_a_file_with_a_journal)
{
    char link[200];
    bool is = true;
    pl_error err;
    cr_assert(holds(0, 1, 2, ""));
    snprintf(link, sizeof link, "%s", scratch_path(&f.s, "link"));
    cr_assert_eq(symlink(scratch_path(&f.s, "out"), link), 0);
    cr_assert_eq(pl_batch_is_answered(link, f.input, SEED, &is, &err), PL_OK, "%s", err.message);
    cr_assert(is);
    scratch_text(&f.s, "out.journal", "");
    cr_assert_eq(pl_batch_is_answered(link, f.input, SEED, &is, &err), PL_OK, "%s", err.message);
    cr_assert(!is);
}
