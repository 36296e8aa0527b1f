/* Files that are written: that they hold what was planned, and that nothing appears where something failed. */
#include <math.h>

#include "host/convert/recipe.h"
#include "host/convert/write_gguf.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/plans.h"
#include "tests/unit/scratch.h"

#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"
#define FOLDER PL_TEST_DATA "/golden/text/e2b"
#define THREADS 3

static scratch s;
static pl_checkpoint *checkpoint;
static pl_export *plan;
static pl_pool *pool;
static pl_imatrix *imatrix;
static pl_encode_error *errors;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    cr_assert_eq(pl_pool_create(THREADS, NULL, &pool, &err), PL_OK);
}

static void close_plan(void)
{
    pl_export_free(plan);
    pl_checkpoint_close(checkpoint);
    plan = NULL;
    checkpoint = NULL;
}

static void teardown(void)
{
    free(errors);
    pl_imatrix_free(imatrix);
    pl_pool_free(pool);
    errors = NULL;
    imatrix = NULL;
    close_plan();
    scratch_close(&s);
}

TestSuite(write_gguf, .init = setup, .fini = teardown);

static void open_plan(const char *path, const char *type)
{
    uint32_t file_type;
    checkpoint = must_open(path);
    plan = must_plan(checkpoint, NULL, PL_CHECKPOINT_GGUF);
    pl_recipe_params params = {.type = type};
    cr_assert_eq(pl_recipe_apply(plan, &params, &file_type, &err), PL_OK, "%s", err.message);
}

static pl_status write_with(const char *path, pl_write_options options)
{
    options.pool = pool;
    options.imatrix = imatrix;
    return pl_write_gguf(plan, path, &options, &err);
}

static void writes(const char *path)
{
    free(errors);
    errors = calloc(plan->n, sizeof *errors);
    cr_assert_eq(write_with(path, (pl_write_options){.errors = errors}), PL_OK, "%s", err.message);
}

static const pl_tensor *tensor_in(const pl_checkpoint *in, const char *name)
{
    const pl_tensor *all;
    size_t n = pl_checkpoint_tensors(in, &all);
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    cr_assert_fail("no tensor %s", name);
    return NULL;
}

static float *values_of(const pl_tensor *t)
{
    float *out = malloc((size_t)(t->rows * t->cols) * sizeof *out);
    cr_assert_not_null(out);
    for (int64_t r = 0; r < t->rows; r++)
        pl_decode(t->type, pl_tensor_row(t, r), out + r * t->cols, t->cols);
    return out;
}

static float *planned_values(const pl_export_tensor *t)
{
    float *out = malloc((size_t)(t->n_rows * t->n_cols) * sizeof *out);
    cr_assert_not_null(out);
    pl_export_read(t, 0, t->n_rows, out);
    return out;
}

static void *bytes_of(const char *path, size_t *n)
{
    char *bytes = read_file(path, n);
    cr_assert_not_null(bytes);
    return bytes;
}

static size_t files_in_scratch(void)
{
    char command[1200], line[16] = "";
    snprintf(command, sizeof command, "ls '%s' | wc -l", s.dir);
    FILE *pipe = popen(command, "r");
    cr_assert_not_null(pipe);
    cr_assert_not_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    return (size_t)atoi(line);
}

/* ---- what is written ------------------------------------------------------------------------------ */

/* Largest relative error that each type may have on weights, root of the squares. */
static double bound(pl_dtype type)
{
    switch (type) {
    case PL_F32: return 0;
    case PL_F16:
    case PL_BF16: return 0.003;
    case PL_Q8_0: return 0.008;
    case PL_Q6_K: return 0.03;
    case PL_Q5_0:
    case PL_Q5_1:
    case PL_Q5_K: return 0.06;
    default: return 0.14;
    }
}

static void check_tensor(const pl_checkpoint *written, size_t i)
{
    const pl_export_tensor *t = &plan->tensors[i];
    const pl_tensor *got = tensor_in(written, t->name);
    cr_assert(got->type == t->type && got->cols == t->n_cols && got->rows == t->n_rows, "%s", t->name);
    float *want = planned_values(t), *have = values_of(got);
    double error = 0, energy = 0;
    for (int64_t k = 0; k < t->n_rows * t->n_cols; k++) {
        error += ((double)want[k] - have[k]) * ((double)want[k] - have[k]);
        energy += (double)want[k] * want[k];
    }
    cr_expect_leq(sqrt(error), bound(t->type) * sqrt(energy), "%s: error %g", t->name, sqrt(error / energy));
    cr_expect_float_eq(errors[i].error, error, 1e-4 * energy + 1e-30, "%s", t->name);
    cr_expect_float_eq(errors[i].energy, energy, 1e-4 * energy + 1e-30, "%s", t->name);
    free(want);
    free(have);
}

static void check_file(const char *source, const char *type)
{
    pl_checkpoint *written = NULL;
    open_plan(source, type);
    const char *path = scratch_path(&s, "out.gguf");
    writes(path);
    cr_assert_eq(pl_checkpoint_open(path, &written, &err), PL_OK, "%s: %s", type, err.message);
    for (size_t i = 0; i < plan->n; i++)
        check_tensor(written, i);
    pl_checkpoint_close(written);
    close_plan();
}

Test(write_gguf, holds_the_values_of_the_plan)
{
    check_file(FOLDER, "q4");
    check_file(FOLDER, "bf16");
    check_file(FOLDER, "f32");
    check_file(DEMO, "q5");
    check_file(DEMO, "q4_k_m");
    check_file(DEMO, "q8_0");
}

Test(write_gguf, the_same_bytes_for_any_number_of_threads)
{
    size_t n, m;
    open_plan(DEMO, "q4_k_s");
    writes(scratch_path(&s, "three.gguf"));
    pl_pool_free(pool);
    cr_assert_eq(pl_pool_create(1, NULL, &pool, &err), PL_OK);
    writes(scratch_path(&s, "one.gguf"));
    void *a = bytes_of(scratch_path(&s, "three.gguf"), &n), *b = bytes_of(scratch_path(&s, "one.gguf"), &m);
    cr_assert(n == m && memcmp(a, b, n) == 0);
    free(a);
    free(b);
}

Test(write_gguf, what_needs_no_change_is_copied)
{
    open_plan(DEMO, "q8_0");
    writes(scratch_path(&s, "out.gguf"));
    pl_checkpoint *written = must_open(scratch_path(&s, "out.gguf"));
    for (size_t i = 0; i < plan->n; i++) {
        if (!plan->tensors[i].source)
            continue;
        const pl_tensor *a = tensor_in(checkpoint, plan->tensors[i].name), *b = tensor_in(written, a->name);
        cr_expect(memcmp(a->data, b->data, (size_t)a->rows * pl_tensor_row_bytes(a)) == 0, "%s", a->name);
        cr_expect_eq(errors[i].error, 0);
    }
    pl_checkpoint_close(written);
}

typedef struct seen {
    double last;
    int calls;
} seen;

static void see(void *user, const char *what, double fraction)
{
    seen *p = user;
    cr_assert_not_null(what);
    cr_assert(fraction >= p->last && fraction <= 1 + 1e-9);
    p->last = fraction;
    p->calls++;
}

Test(write_gguf, progress_runs_to_the_end)
{
    seen p = {0, 0};
    open_plan(DEMO, "q4");
    cr_assert_eq(write_with(scratch_path(&s, "out.gguf"), (pl_write_options){.progress = see, .progress_user = &p}),
                 PL_OK);
    cr_assert_float_eq(p.last, 1, 1e-9);
    cr_assert_geq(p.calls, (int)plan->n);
}

/* ---- importance ----------------------------------------------------------------------------------- */

#define TARGET "blk.2.ffn_up.weight"

static size_t index_of(const char *name)
{
    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->tensors[i].name, name) == 0)
            return i;
    cr_assert_fail("no tensor %s", name);
    return 0;
}

/* Squared errors of the named tensor's columns, in the file; [cols], to be freed. */
static double *column_errors(const char *path, const char *name)
{
    const pl_export_tensor *t = &plan->tensors[index_of(name)];
    pl_checkpoint *written = must_open(path);
    float *want = planned_values(t), *have = values_of(tensor_in(written, name));
    double *out = calloc((size_t)t->n_cols, sizeof *out);
    for (int64_t k = 0; k < t->n_rows * t->n_cols; k++)
        out[k % t->n_cols] += ((double)want[k] - have[k]) * ((double)want[k] - have[k]);
    free(want);
    free(have);
    pl_checkpoint_close(written);
    return out;
}

static double sum_where(const double *x, int64_t n, bool early)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if ((i % 32 < 4) == early)
            sum += x[i];
    return sum;
}

/* The first four columns of every block count, the others not at all. */
static void make_imatrix(int64_t cols)
{
    pl_imatrix_entry *entry;
    cr_assert_eq(pl_imatrix_create(&imatrix, &err), PL_OK);
    cr_assert_eq(pl_imatrix_entry_at(imatrix, TARGET, cols, 1, &entry, &err), PL_OK);
    entry->count[0] = 100;
    for (int64_t c = 0; c < cols; c++)
        entry->sum2[c] = c % 32 < 4 ? 1e6 : 0;
}

Test(write_gguf, columns_that_matter_are_kept_better_and_others_stay_sane)
{
    open_plan(DEMO, "q4_0");
    int64_t cols = plan->tensors[index_of(TARGET)].n_cols;
    writes(scratch_path(&s, "plain.gguf"));
    double *plain = column_errors(scratch_path(&s, "plain.gguf"), TARGET);
    double energy = errors[index_of(TARGET)].energy;
    make_imatrix(cols);
    writes(scratch_path(&s, "weighted.gguf"));
    double *weighted = column_errors(scratch_path(&s, "weighted.gguf"), TARGET);
    cr_expect_lt(sum_where(weighted, cols, true), 0.5 * sum_where(plain, cols, true));
    cr_expect_lt(sum_where(weighted, cols, false), 0.25 * energy, "columns that no text used came out as anything");
    free(plain);
    free(weighted);
}

Test(write_gguf, blocks_that_no_text_used_stay_sane)
{
    pl_imatrix_entry *entry;
    static const char *const types[] = {"q4_0", "q4_1", "q5_0", "iq4_nl", "nvfp4", "q8_0"};
    open_plan(FOLDER, "f32");
    int64_t cols = plan->tensors[index_of(TARGET)].n_cols;
    cr_assert_eq(pl_imatrix_create(&imatrix, &err), PL_OK);
    cr_assert_eq(pl_imatrix_entry_at(imatrix, TARGET, cols, 1, &entry, &err), PL_OK);
    entry->count[0] = 100;
    entry->sum2[0] = 1e6; /* of column 0 alone */
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char text[64];
        snprintf(text, sizeof text, TARGET "=%s", types[i]);
        const char *override = text;
        cr_assert_eq(pl_recipe_override(plan, &override, 1, NULL, &err), PL_OK, "%s", err.message);
        writes(scratch_path(&s, "out.gguf"));
        double *lost = column_errors(scratch_path(&s, "out.gguf"), TARGET), sum = 0, energy = 0;
        float *want = planned_values(&plan->tensors[index_of(TARGET)]);
        for (int64_t k = 0; k < cols * plan->tensors[index_of(TARGET)].n_rows; k++)
            energy += (double)want[k] * want[k];
        for (int64_t c = 0; c < cols; c++)
            sum += lost[c];
        cr_expect_lt(sum, 0.04 * energy, "%s: %g of %g", types[i], sum, energy);
        free(want);
        free(lost);
    }
}

/* Squared errors of the three AltUp projections in a file, in their early columns and in the others. */
static void altup_errors(const char *path, double out[3][2])
{
    const pl_export_tensor *t = &plan->tensors[index_of("altup_proj.weight")];
    pl_checkpoint *written = must_open(path);
    float *want = planned_values(t), *have = values_of(tensor_in(written, t->name));
    memset(out, 0, 6 * sizeof(double));
    for (int64_t k = 0; k < t->n_rows * t->n_cols; k++)
        out[k / (t->n_cols * t->n_cols)][k % t->n_cols % 32 >= 4] += ((double)want[k] - have[k]) *
                                                                     ((double)want[k] - have[k]);
    free(want);
    free(have);
    pl_checkpoint_close(written);
}

Test(write_gguf, matrices_of_one_tensor_have_their_own_importance)
{
    pl_imatrix_entry *entry;
    double plain[3][2], weighted[3][2];
    open_plan(DEMO, "q4_0"); /* more than a thread does at a time */
    pl_export_tensor *t = &plan->tensors[index_of("altup_proj.weight")];
    t->type = PL_Q4_0;
    writes(scratch_path(&s, "plain.gguf"));
    altup_errors(scratch_path(&s, "plain.gguf"), plain);
    cr_assert_eq(pl_imatrix_create(&imatrix, &err), PL_OK);
    cr_assert_eq(pl_imatrix_entry_at(imatrix, t->name, t->n_cols, 3, &entry, &err), PL_OK);
    for (int64_t c = 0; c < t->n_cols; c++) {
        entry->sum2[c] = 7; /* all alike */
        entry->sum2[t->n_cols + c] = c % 32 < 4 ? 1e6 : 0;
        entry->sum2[2 * t->n_cols + c] = 0; /* never used: all alike, too */
    }
    writes(scratch_path(&s, "weighted.gguf"));
    altup_errors(scratch_path(&s, "weighted.gguf"), weighted);
    for (int m = 0; m < 3; m += 2)
        for (int part = 0; part < 2; part++)
            cr_expect_float_eq(weighted[m][part], plain[m][part], 0.03 * plain[m][part], "%d: %g %g", m,
                               weighted[m][part], plain[m][part]);
    cr_expect_lt(weighted[1][0], 0.5 * plain[1][0]);
    cr_expect_gt(weighted[1][1], plain[1][1]);
}

Test(write_gguf, importance_of_another_shape_is_refused)
{
    open_plan(DEMO, "q4");
    make_imatrix(128);
    expect_failure(write_with(scratch_path(&s, "out.gguf"), (pl_write_options){.pool = NULL}), PL_ERR_FORMAT, &err,
                   WORDS(TARGET, "128", "192"));
    cr_expect_eq(files_in_scratch(), 0);
    pl_imatrix_entry *entry;
    pl_imatrix_free(imatrix);
    cr_assert_eq(pl_imatrix_create(&imatrix, &err), PL_OK);
    cr_assert_eq(pl_imatrix_entry_at(imatrix, "altup_proj.weight", 192, 2, &entry, &err), PL_OK);
    expect_failure(write_with(scratch_path(&s, "out.gguf"), (pl_write_options){.pool = NULL}), PL_ERR_FORMAT, &err,
                   WORDS("altup_proj.weight", "2 matrices", "3"));
}

/* ---- what fails ----------------------------------------------------------------------------------- */

static void open_tiny_with(const char *name, float bad, size_t at)
{
    gguf_builder b;
    gguf_builder_tiny(&b);
    memcpy(gguf_builder_find(&b, name)->data + at * sizeof bad, &bad, sizeof bad);
    open_plan(gguf_builder_write(&b, &s, "bad.gguf"), "q4_0");
    gguf_builder_free(&b);
}

Test(write_gguf, values_that_are_not_finite_are_named)
{
    open_tiny_with("blk.1.attn_q.weight", NAN, 2 * 32 + 7);
    expect_failure(write_with(scratch_path(&s, "out.gguf"), (pl_write_options){.pool = NULL}), PL_ERR_FORMAT, &err,
                   WORDS("bad.gguf", "blk.1.attn_q.weight", "row 2, column 7"));
    cr_expect_eq(files_in_scratch(), 1);
    close_plan();
    open_tiny_with("blk.3.ffn_norm.weight", -INFINITY, 31); /* copied as it is, and still looked at */
    expect_failure(write_with(scratch_path(&s, "out.gguf"), (pl_write_options){.pool = NULL}), PL_ERR_FORMAT, &err,
                   WORDS("blk.3.ffn_norm.weight", "row 0, column 31"));
    cr_expect_eq(files_in_scratch(), 1);
}

static bool after_a_few(void *user)
{
    int *left = user;
    return (*left)-- == 0;
}

Test(write_gguf, cancelling_leaves_what_was_there)
{
    int left = 20;
    size_t n;
    open_plan(DEMO, "q4");
    const char *path = scratch_text(&s, "out.gguf", "older");
    cr_assert_eq(write_with(path, (pl_write_options){.cancelled = after_a_few, .cancelled_user = &left}),
                 PL_ERR_CANCELLED);
    char *old = bytes_of(path, &n);
    cr_expect_str_eq(old, "older");
    cr_expect_eq(files_in_scratch(), 1);
    free(old);
}

Test(write_gguf, a_full_disk_is_told)
{
    open_plan(DEMO, "q4");
    expect_failure(write_with("/dev/full", (pl_write_options){.pool = NULL}), PL_ERR_IO, &err, WORDS("/dev/full"));
    expect_failure(write_with(scratch_path(&s, "no/such/folder"), (pl_write_options){.pool = NULL}), PL_ERR_IO, &err,
                   WORDS("no/such/folder"));
}

/* Up to the last tensor: what follows may do without the one allocation that it makes. */
static pl_status write_most(void *ctx, pl_error *e)
{
    int left = (int)plan->n - 1;
    pl_write_options options = {
        .pool = pool, .imatrix = imatrix, .errors = errors, .cancelled = after_a_few, .cancelled_user = &left};
    pl_status status = pl_write_gguf(plan, ctx, &options, e);
    return status == PL_ERR_CANCELLED ? PL_OK : status;
}

Test(write_gguf, reports_missing_memory)
{
    open_plan(DEMO, "q4");
    make_imatrix(plan->tensors[index_of(TARGET)].n_cols);
    errors = calloc(plan->n, sizeof *errors);
    char path[1024];
    snprintf(path, sizeof path, "%s", scratch_path(&s, "out.gguf"));
    cr_assert_gt(fail_alloc_each(write_most, path), 10);
}
