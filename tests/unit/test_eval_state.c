/* The state of an evaluation: read back to the bit, and refused where it is of something else. */
#include "host/measure/eval_state.h"
#include "tests/unit/scratch.h"

#define LENGTH 8
#define SCORED 3

static int32_t ids[4 * LENGTH];
static const pl_passages passages = {.ids = ids, .n = 4, .length = LENGTH, .fingerprint = 0xfedcba9876543210};
static pl_eval_input a = {.file = "/m/a.gguf", .bytes = 10, .modified = 1234567890123456789};
static pl_eval_input b = {.file = "/m/b", .bytes = 20, .modified = 5};
static pl_eval_input reference = {.file = "/m/f16.gguf", .bytes = 30, .modified = 7};

static pl_quality sums_of(int32_t done)
{
    pl_quality q = {.n = done * SCORED, .n_compared = done * SCORED, .same_top = done};
    double third = done / 3.0;
    q.nll = 1e5 * third;
    q.nll2 = 1e300 * third;
    q.ref_nll = third;
    q.ref_nll2 = 1e-300 * third;
    q.nll_ref_nll = 5e-324 * done;
    q.kl = 0.1 * done;
    q.kl2 = 9007199254740993.0 * done;
    q.kl_max = 17;
    q.dp = -third;
    q.dp2 = 1e22;
    return q;
}

static pl_eval_state state_of(pl_eval_result results[3])
{
    results[0] = (pl_eval_result){.model = &a, .path = "e4b"};
    results[1] = (pl_eval_result){.model = &a, .path = "mix:widths=1,2;skip=3-4"};
    results[2] = (pl_eval_result){.model = &b, .path = "e4b"};
    return (pl_eval_state){.passages = &passages, .reference = &reference, .results = results, .n = 3};
}

static const char *saved(scratch *s)
{
    pl_eval_result results[3];
    pl_eval_state state = state_of(results);
    pl_error err;
    const char *path = scratch_path(s, "state.json");
    results[0].done = 4;
    results[0].sums = sums_of(4);
    results[1].done = 3;
    results[1].sums = sums_of(3);
    cr_assert_eq(pl_eval_state_save(path, &state, &err), PL_OK, "%s", err.message);
    return path;
}

Test(eval_state, reads_back_equal)
{
    scratch s;
    scratch_open(&s);
    pl_eval_result results[3];
    pl_eval_state state = state_of(results);
    pl_error err;
    cr_assert_eq(pl_eval_state_resume(scratch_path(&s, "none"), &state, &err), PL_OK, "%s", err.message);
    cr_assert_eq(results[0].done, 0);
    cr_assert_eq(pl_eval_state_resume(saved(&s), &state, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < 3; i++) {
        static const int32_t done[] = {4, 3, 0};
        pl_quality want = done[i] ? sums_of(done[i]) : (pl_quality){0};
        cr_expect_eq(results[i].done, done[i]);
        cr_expect_eq(memcmp(&results[i].sums, &want, sizeof want), 0, "sums of result %d", i);
    }
    scratch_close(&s);
}

Test(eval_state, more_may_be_asked_for_but_not_less)
{
    scratch s;
    scratch_open(&s);
    pl_eval_result results[3];
    pl_eval_state state = state_of(results);
    pl_error err;
    const char *path = scratch_path(&s, "state.json");
    state.n = 1;
    results[0].done = 2;
    results[0].sums = sums_of(2);
    cr_assert_eq(pl_eval_state_save(path, &state, &err), PL_OK, "%s", err.message);
    state = state_of(results);
    cr_expect_eq(pl_eval_state_resume(path, &state, &err), PL_OK, "%s", err.message);
    cr_expect_eq(results[0].done, 2);
    state = state_of(results);
    state.n = 2;
    expect_failure(pl_eval_state_resume(saved(&s), &state, &err), PL_ERR_ARGUMENT, &err, WORDS("/m/b", "e4b"));
    scratch_close(&s);
}

static void expect_refusal(scratch *s, const pl_eval_state *state, const char *word)
{
    pl_eval_state copy = *state;
    pl_error err;
    expect_failure(pl_eval_state_resume(saved(s), &copy, &err), PL_ERR_ARGUMENT, &err, WORDS("state.json", word));
}

Test(eval_state, of_something_else)
{
    scratch s;
    scratch_open(&s);
    pl_eval_result results[3];
    pl_eval_state state = state_of(results);
    pl_passages other = passages;
    state.passages = &other;
    other.fingerprint++;
    expect_refusal(&s, &state, "another text");
    other.n = 5;
    expect_refusal(&s, &state, "of 4 pieces of a text, this run of 5");
    other.length = 9;
    expect_refusal(&s, &state, "of 8 tokens, this run of 9");
    state.passages = &passages;

    pl_eval_input changed = reference;
    state.reference = &changed;
    changed.bytes++;
    expect_refusal(&s, &state, "reference /m/f16.gguf has changed");
    changed.file = "/m/q8.gguf";
    expect_refusal(&s, &state, "/m/f16.gguf, of this run /m/q8.gguf");
    state.reference = NULL;
    expect_refusal(&s, &state, "/m/f16.gguf, of this run none");
    state.reference = &reference;

    changed = a;
    results[0].model = &changed;
    changed.modified++;
    expect_refusal(&s, &state, "/m/a.gguf has changed");
    changed.file = "/m/c.gguf";
    expect_refusal(&s, &state, "/m/a.gguf on path e4b");
    scratch_close(&s);
}

/* The saved text with one piece of it replaced. */
static void expect_damage(scratch *s, const char *old, const char *new, const char *word)
{
    size_t n;
    char *text = read_file(saved(s), &n), damaged[8192];
    char *at = strstr(text, old);
    cr_assert_not_null(at, "no '%s' in %s", old, text);
    snprintf(damaged, sizeof damaged, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    free(text);
    pl_eval_result results[3];
    pl_eval_state state = state_of(results);
    pl_error err;
    pl_status got = pl_eval_state_resume(scratch_text(s, "damaged.json", damaged), &state, &err);
    expect_failure(got, PL_ERR_FORMAT, &err, WORDS("damaged.json", word));
}

Test(eval_state, damaged)
{
    scratch s;
    scratch_open(&s);
    expect_damage(&s, "\"pleiad_eval\":1", "\"x\":1", "is not the state");
    expect_damage(&s, "{\"pleiad_eval\"", "[\"pleiad_eval\"", "line 1");
    expect_damage(&s, "\"fedcba9876543210\"", "1", "text");
    expect_damage(&s, "\"text\"", "\"txt\"", "fingerprint");
    expect_damage(&s, "\"length\":8", "\"length\":\"8\"", "length");
    expect_damage(&s, "\"results\"", "\"result\"", "results");
    expect_damage(&s, "\"pieces\":3", "\"pieces\":5", "pieces");
    expect_damage(&s, "\"pieces\":3", "\"pieces\":2", "not of 2 pieces");
    expect_damage(&s, "\"positions\":9", "\"positions\":9.5", "positions");
    expect_damage(&s, "\"positions\":9", "\"positions\":8", "not of 3 pieces");
    expect_damage(&s, "\"kl_max\":17", "\"kl_max\":null", "kl_max is missing");
    expect_damage(&s, "\"same_top\":3", "\"same_top\":10", "not of 3 pieces");
    expect_damage(&s, "\"path\":\"e4b\"", "\"pth\":\"e4b\"", "path");
    expect_damage(&s, "\"model\":{", "\"model\":[{", "line 1");
    expect_damage(&s, "\"file\":\"/m/a.gguf\"", "\"fil\":\"\"", "file");
    pl_eval_result results[3];
    pl_eval_state state = state_of(results);
    pl_error err;
    expect_failure(pl_eval_state_resume(scratch_text(&s, "empty", ""), &state, &err), PL_ERR_FORMAT, &err,
                   WORDS("empty"));
    expect_failure(pl_eval_state_resume(scratch_text(&s, "new", "{\"pleiad_eval\":2}"), &state, &err),
                   PL_ERR_UNSUPPORTED, &err, WORDS("version 2"));
    expect_failure(pl_eval_state_save("/dev/null/x", &state, &err), PL_ERR_IO, &err, WORDS("/dev/null/x"));
    scratch_close(&s);
}

Test(eval_state, inputs)
{
    scratch s;
    scratch_open(&s);
    pl_eval_input file, again, folder;
    pl_error err;
    scratch_text(&s, "x", "12345");
    scratch_text(&s, "y", "123");
    cr_assert_eq(pl_eval_input_look(scratch_path(&s, "x"), &file, &err), PL_OK, "%s", err.message);
    cr_expect(file.bytes == 5 && file.file[0] == '/' && file.modified > 0);
    cr_assert_eq(pl_eval_input_look(s.dir, &folder, &err), PL_OK, "%s", err.message);
    cr_expect_eq(folder.bytes, 8);
    cr_expect_geq(folder.modified, file.modified);
    scratch_text(&s, "x", "123456");
    cr_assert_eq(pl_eval_input_look(scratch_path(&s, "x"), &again, &err), PL_OK);
    cr_expect(again.bytes == 6 && strcmp(again.file, file.file) == 0);
    pl_eval_input_free(&file);
    pl_eval_input_free(&again);
    pl_eval_input_free(&folder);
    expect_failure(pl_eval_input_look("/nowhere/at/all", &file, &err), PL_ERR_IO, &err, WORDS("/nowhere/at/all"));
    scratch_close(&s);
}
