/* Importance matrices: files that llama.cpp wrote, files of ours read back, adding up, files that are wrong. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

#include "host/model/imatrix.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/scratch.h"

#define LLAMA_GGUF PL_TEST_DATA "/golden/imatrix/llama.gguf"
#define LLAMA_DAT PL_TEST_DATA "/golden/imatrix/llama.dat"

static scratch s;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    memset(&err, 0, sizeof err);
}

static void teardown(void)
{
    scratch_close(&s);
}

TestSuite(imatrix, .init = setup, .fini = teardown);

static pl_imatrix *read_good(const char *path)
{
    pl_imatrix *m = NULL;
    cr_assert_eq(pl_imatrix_read(path, &m, &err), PL_OK, "%s", err.message);
    return m;
}

static pl_imatrix *make(void)
{
    pl_imatrix *m = NULL;
    cr_assert_eq(pl_imatrix_create(&m, NULL), PL_OK);
    return m;
}

/* Every column's sum is `sum`, each matrix counted `count` times. */
static pl_imatrix_entry *put(pl_imatrix *m, const char *name, int64_t cols, int n_mat, double sum, double count)
{
    pl_imatrix_entry *entry = NULL;
    cr_assert_eq(pl_imatrix_entry_at(m, name, cols, n_mat, &entry, &err), PL_OK, "%s", err.message);
    for (int64_t i = 0; i < n_mat * cols; i++)
        entry->sum2[i] = sum;
    for (int i = 0; i < n_mat; i++)
        entry->count[i] = count;
    return entry;
}

static const pl_imatrix_entry *find(const pl_imatrix *m, const char *name, int64_t cols, int n_mat)
{
    const pl_imatrix_entry *entry = pl_imatrix_find(m, name);
    cr_assert_not_null(entry, "%s", name);
    cr_assert(entry->cols == cols && entry->n_mat == n_mat, "%s is %d x %d", name, entry->n_mat, (int)entry->cols);
    return entry;
}

static bool same_bytes(const char *a, const char *b)
{
    size_t n, k;
    char *x = read_file(a, &n), *y = read_file(b, &k);
    bool same = n == k && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

Test(imatrix, what_llama_wrote)
{
    pl_imatrix *m = read_good(LLAMA_GGUF);
    cr_assert(m->n == 3 && m->chunks == 2 && m->chunk_size == 512 && m->n_datasets == 2 && !m->run);
    cr_assert_str_eq(m->datasets[0], "first.txt");
    cr_assert_str_eq(m->datasets[1], "second.txt");
    const pl_imatrix_entry *down = find(m, "blk.0.ffn_down.weight", 8, 1);
    cr_assert(down->sum2[0] == 256 && down->sum2[7] == 2048 && down->count[0] == 1024);
    const pl_imatrix_entry *altup = find(m, "altup_proj.weight", 4, 3);
    cr_assert(altup->sum2[0] == 1024 && altup->sum2[11] == 12 * 1024 && altup->count[2] == 1024);
    const pl_imatrix_entry *experts = find(m, "blk.3.ffn_gate_exps.weight", 3, 2);
    cr_assert(experts->count[0] == 512 && experts->count[1] == 0 && experts->sum2[1] == 1024 && experts->sum2[3] == 0);
    pl_imatrix_free(m);
}

/* Means times chunks; how many matrices a tensor is, the file does not say. */
Test(imatrix, what_llama_wrote_as_dat)
{
    pl_imatrix *m = read_good(LLAMA_DAT);
    cr_assert(m->n == 3 && m->chunks == 2 && m->chunk_size == 0 && m->n_datasets == 1);
    cr_assert_str_eq(m->datasets[0], "second.txt");
    const pl_imatrix_entry *down = find(m, "blk.0.ffn_down.weight", 8, 1);
    cr_assert(down->sum2[0] == 0.5 && down->sum2[7] == 4 && down->count[0] == 2);
    const pl_imatrix_entry *altup = find(m, "altup_proj.weight", 4, 3);
    cr_assert(altup->sum2[11] == 24 && altup->count[0] == 2 && altup->count[2] == 2);
    find(m, "blk.3.ffn_gate_exps.weight", 6, 1);
    pl_imatrix_free(m);
}

Test(imatrix, what_we_write_is_what_llama_writes)
{
    pl_imatrix *m = read_good(LLAMA_GGUF);
    const char *path = scratch_path(&s, "ours");
    cr_assert_eq(pl_imatrix_write_gguf(m, path, &err), PL_OK, "%s", err.message);
    cr_assert(same_bytes(path, LLAMA_GGUF));
    cr_assert_eq(pl_imatrix_write_dat(m, path, &err), PL_OK, "%s", err.message);
    cr_assert(same_bytes(path, LLAMA_DAT));
    pl_imatrix_free(m);
    m = read_good(LLAMA_DAT);
    cr_assert_eq(pl_imatrix_write_dat(m, path, &err), PL_OK, "%s", err.message);
    cr_assert(same_bytes(path, LLAMA_DAT));
    pl_imatrix_free(m);
}

Test(imatrix, entries_are_sorted_and_keep_their_shape)
{
    static const char *const names[] = {"m", "c", "x", "a", "d", "b"};
    pl_imatrix *m = make();
    pl_imatrix_entry *entry = put(m, "k", 2, 1, 7, 1);
    double *kept = entry->sum2;
    for (int round = 0; round < 40; round++)
        for (size_t i = 0; i < 6; i++) {
            char name[16];
            snprintf(name, sizeof name, "%s%d", names[i], round);
            put(m, name, 1, 1, round, 1);
        }
    cr_assert_eq(m->n, 241);
    for (size_t i = 1; i < m->n; i++)
        cr_assert_lt(strcmp(m->entries[i - 1].name, m->entries[i].name), 0);
    cr_assert(find(m, "k", 2, 1)->sum2 == kept && kept[1] == 7 && find(m, "b39", 1, 1)->sum2[0] == 39);
    cr_assert_null(pl_imatrix_find(m, "nothing"));
    cr_assert_eq(put(m, "k", 2, 1, 8, 1)->sum2, kept, "the entry that was there");
    expect_failure(pl_imatrix_entry_at(m, "k", 3, 1, &entry, &err), PL_ERR_FORMAT, &err, WORDS("k", "1 x 3", "1 x 2"));
    expect_failure(pl_imatrix_entry_at(m, "z", 0, 1, &entry, &err), PL_ERR_FORMAT, &err, WORDS("z"));
    expect_failure(pl_imatrix_entry_at(m, "z", INT64_MAX, 2, &entry, &err), PL_ERR_FORMAT, &err, WORDS("z"));
    pl_imatrix_free(m);
    pl_imatrix_free(NULL);
}

Test(imatrix, adding)
{
    pl_imatrix *m = read_good(LLAMA_GGUF), *other = make();
    put(other, "blk.0.ffn_down.weight", 8, 1, 0.25, 100);
    put(other, "a.weight", 2, 1, 3, 256);
    other->chunk_size = 256;
    other->chunks = 5;
    static const char *datasets[] = {"second.txt", "third.txt"};
    other->datasets = datasets;
    other->n_datasets = 2;
    cr_assert_eq(pl_imatrix_add(m, other, "other", &err), PL_OK, "%s", err.message);
    cr_assert(m->n == 4 && m->chunk_size == 512 && m->chunks == 5, "2 of 512 and 5 of 256");
    cr_assert(m->n_datasets == 3 && strcmp(m->datasets[2], "third.txt") == 0);
    cr_assert_str_eq(m->entries[0].name, "a.weight");
    cr_assert_eq(find(m, "a.weight", 2, 1)->count[0], 256);
    const pl_imatrix_entry *down = find(m, "blk.0.ffn_down.weight", 8, 1);
    cr_assert(down->sum2[0] == 256.25 && down->count[0] == 1124);
    pl_imatrix_free(other);

    other = make();
    put(other, "altup_proj.weight", 5, 3, 0, 1);
    expect_failure(pl_imatrix_add(m, other, "bad.gguf", &err), PL_ERR_FORMAT, &err,
                   WORDS("bad.gguf", "altup_proj.weight", "3 x 5", "3 x 4"));
    pl_imatrix_free(other);
    pl_imatrix_free(m);
}

/* A .dat counts chunks: where the other knows their size, it is taken for theirs. */
Test(imatrix, adding_a_dat_either_way)
{
    for (int dat_first = 0; dat_first < 2; dat_first++) {
        pl_imatrix *m = read_good(dat_first ? LLAMA_DAT : LLAMA_GGUF);
        pl_imatrix *other = read_good(dat_first ? LLAMA_GGUF : LLAMA_DAT);
        const char *fresh = "blk.3.ffn_gate_exps.weight";
        other->entries[2].name = "blk.3.other"; /* of another shape in the .dat */
        cr_assert_eq(pl_imatrix_add(m, other, "other", &err), PL_OK, "%s", err.message);
        cr_assert(m->chunk_size == 512 && m->chunks == 4);
        const pl_imatrix_entry *down = find(m, "blk.0.ffn_down.weight", 8, 1);
        cr_assert(down->count[0] == 2048 && down->sum2[7] == 4096);
        cr_assert_eq(find(m, "altup_proj.weight", 4, 3)->sum2[11], 2 * 12 * 1024);
        cr_assert_not_null(pl_imatrix_find(m, fresh));
        pl_imatrix_free(other);
        pl_imatrix_free(m);
    }
}

Test(imatrix, a_collection_underway_is_read_back_exactly)
{
    static const char *const paths[] = {"e4b", "mix:widths=64"};
    static const double sums[] = {0, 1.0 / 3, 1e300, DBL_MIN};
    pl_imatrix *m = make();
    put(m, "w", 3, 1, 1.0 / 3, 512);
    pl_imatrix_run run = {.model = "A model",
                          .model_print = UINT64_C(0x0123456789abcdef),
                          .text_print = UINT64_MAX,
                          .passages = 10,
                          .done = 13,
                          .paths = paths,
                          .n_paths = 2,
                          .sums = sums,
                          .n_sums = 4};
    m->run = &run;
    m->chunk_size = 512;
    m->chunks = 13;
    const char *path = scratch_path(&s, "run.gguf");
    cr_assert_eq(pl_imatrix_write_gguf(m, path, &err), PL_OK, "%s", err.message);
    pl_imatrix *back = read_good(path);
    const pl_imatrix_run *got = back->run;
    cr_assert_not_null(got);
    cr_assert_str_eq(got->model, "A model");
    cr_assert(got->model_print == run.model_print && got->text_print == UINT64_MAX);
    cr_assert(got->passages == 10 && got->done == 13 && got->n_paths == 2 && got->n_sums == 4);
    cr_assert_str_eq(got->paths[1], "mix:widths=64");
    cr_assert_eq(memcmp(got->sums, sums, sizeof sums), 0);
    cr_assert_eq(back->entries[0].sum2[0], (double)(float)(1.0 / 3));
    pl_imatrix_free(back);

    run.done = 20;
    run.sums = NULL;
    cr_assert_eq(pl_imatrix_write_gguf(m, path, &err), PL_OK, "%s", err.message);
    back = read_good(path);
    cr_assert(back->run->done == 20 && !back->run->sums);
    pl_imatrix_free(back);
    pl_imatrix_free(m);
}

/* ---- what cannot be written ---- */

Test(imatrix, what_was_not_counted_is_left_out)
{
    pl_imatrix *m = make();
    const char *path = scratch_path(&s, "m");
    expect_failure(pl_imatrix_write_gguf(m, path, &err), PL_ERR_ARGUMENT, &err, WORDS("m", "nothing"));
    put(m, "never", 2, 1, 0, 0);
    expect_failure(pl_imatrix_write_gguf(m, path, &err), PL_ERR_ARGUMENT, &err, WORDS("m", "nothing"));
    expect_failure(pl_imatrix_write_dat(m, path, &err), PL_ERR_ARGUMENT, &err, WORDS("m", "nothing"));
    cr_assert_neq(access(path, F_OK), 0, "no file");
    put(m, "once", 2, 1, 5, 1);
    for (int as_dat = 0; as_dat < 2; as_dat++) {
        cr_assert_eq(as_dat ? pl_imatrix_write_dat(m, path, &err) : pl_imatrix_write_gguf(m, path, &err), PL_OK);
        pl_imatrix *back = read_good(path);
        cr_assert(back->n == 1 && find(back, "once", 2, 1)->sum2[1] == 5);
        pl_imatrix_free(back);
    }
    put(m, "huge", 2, 1, 1e39, 1);
    expect_failure(pl_imatrix_write_gguf(m, path, &err), PL_ERR_NUMERIC, &err, WORDS("huge", "1e+39"));
    expect_failure(pl_imatrix_write_dat(m, path, &err), PL_ERR_NUMERIC, &err, WORDS("huge"));
    pl_imatrix_free(m);
}

Test(imatrix, files_that_cannot_be_made)
{
    pl_imatrix *m = read_good(LLAMA_GGUF);
    expect_failure(pl_imatrix_write_gguf(m, "/no/such/folder/m.gguf", &err), PL_ERR_IO, &err, WORDS("/no/such"));
    expect_failure(pl_imatrix_write_dat(m, "/no/such/folder/m.dat", &err), PL_ERR_IO, &err, WORDS("/no/such"));
    expect_failure(pl_imatrix_write_dat(m, "/dev/full", &err), PL_ERR_IO, &err, WORDS("/dev/full"));
    char name[300];
    memset(name, 'n', sizeof name);
    name[299] = '\0';
    put(m, name, 1, 1, 1, 1);
    const char *path = scratch_path(&s, "m");
    expect_failure(pl_imatrix_write_gguf(m, path, &err), PL_ERR_UNSUPPORTED, &err, WORDS("too long"));
    expect_failure(pl_imatrix_write_dat(m, path, &err), PL_ERR_UNSUPPORTED, &err, WORDS("nnn"));
    pl_imatrix_free(m);
}

/* ---- GGUF files that are wrong ---- */

static void set_values(gguf_builder *b, const char *name, const float *values)
{
    built_tensor *t = gguf_builder_find(b, name);
    memcpy(t->data, values, t->n);
}

/* One tensor of two matrices of three columns. */
static void build(gguf_builder *b)
{
    static const char *const texts[] = {"a.txt"};
    gguf_builder_init(b);
    gguf_builder_text(b, "general.type", "imatrix");
    gguf_builder_texts(b, "imatrix.datasets", texts, 1);
    gguf_builder_u32(b, "imatrix.chunk_count", 1);
    gguf_builder_u32(b, "imatrix.chunk_size", 16);
    gguf_builder_tensor(b, "w.in_sum2", PL_F32, 2, 3, 2, 1);
    gguf_builder_tensor(b, "w.counts", PL_F32, 2, 1, 2, 1);
    set_values(b, "w.in_sum2", (const float[]){1, 2, 3, 4, 5, 6});
    set_values(b, "w.counts", (const float[]){16, 16});
}

static void build_run(gguf_builder *b)
{
    static const char *const paths[] = {"e4b", "e2b"};
    static const double sums[] = {1, 2};
    build(b);
    gguf_builder_text(b, "pleiad.imatrix.model", "m");
    gguf_builder_text(b, "pleiad.imatrix.model_fingerprint", "0123456789abcdef");
    gguf_builder_text(b, "pleiad.imatrix.text_fingerprint", "0000000000000000");
    gguf_builder_texts(b, "pleiad.imatrix.paths", paths, 2);
    gguf_builder_u32(b, "pleiad.imatrix.passages", 4);
    gguf_builder_u32(b, "pleiad.imatrix.passages_done", 7);
    gguf_builder_array(b, "pleiad.imatrix.sums", PL_GGUF_F64, sums, 2, sizeof sums);
}

static pl_status parse(gguf_builder *b)
{
    size_t n;
    gguf_builder_place(b);
    unsigned char *bytes = gguf_builder_bytes(b, &n), *exact = exact_copy(bytes, n);
    pl_imatrix *m = NULL;
    pl_status status = pl_imatrix_parse(exact, n, "m.gguf", &m, &err);
    if (status == PL_OK)
        pl_imatrix_free(m);
    free(exact);
    free(bytes);
    gguf_builder_free(b);
    return status;
}

static void refuses(gguf_builder *b, const char *const *words)
{
    expect_failure(parse(b), PL_ERR_FORMAT, &err, words);
    expect_failure(err.status, PL_ERR_FORMAT, &err, WORDS("m.gguf"));
}

/* llama.cpp counts once for all matrices of a tensor that all tokens pass. */
Test(imatrix, one_count_for_several_matrices)
{
    gguf_builder b;
    size_t n;
    build(&b);
    gguf_builder_tensor(&b, "altup_proj.weight.in_sum2", PL_F32, 1, 6, 1, 1);
    gguf_builder_tensor(&b, "altup_proj.weight.counts", PL_F32, 1, 1, 1, 1);
    set_values(&b, "altup_proj.weight.in_sum2", (const float[]){1, 2, 3, 4, 5, 6});
    set_values(&b, "altup_proj.weight.counts", (const float[]){9});
    gguf_builder_place(&b);
    unsigned char *bytes = gguf_builder_bytes(&b, &n);
    pl_imatrix *m = NULL;
    cr_assert_eq(pl_imatrix_parse(bytes, n, "m.gguf", &m, &err), PL_OK, "%s", err.message);
    const pl_imatrix_entry *altup = find(m, "altup_proj.weight", 2, 3);
    cr_assert(altup->count[0] == 9 && altup->count[2] == 9 && altup->sum2[5] == 6);
    pl_imatrix_free(m);
    free(bytes);
    gguf_builder_free(&b);
}

Test(imatrix, gguf_tensors_that_are_wrong)
{
    gguf_builder b;
    build(&b);
    cr_assert_eq(parse(&b), PL_OK, "%s", err.message);

    build(&b);
    gguf_builder_drop_tensor(&b, "w.counts");
    refuses(&b, WORDS("w.in_sum2", "no w.counts"));
    build(&b);
    gguf_builder_drop_tensor(&b, "w.in_sum2");
    refuses(&b, WORDS("w.counts", "no w.in_sum2"));
    build(&b);
    gguf_builder_drop_tensor(&b, "w.in_sum2");
    gguf_builder_drop_tensor(&b, "w.counts");
    gguf_builder_tensor(&b, "w", PL_F32, 1, 4, 1, 1);
    refuses(&b, WORDS("no importance matrix", "in_sum2"));
    build(&b);
    gguf_builder_retype(gguf_builder_find(&b, "w.in_sum2"), PL_F16);
    refuses(&b, WORDS("w.in_sum2", "F16", "F32"));
    build(&b);
    gguf_builder_retype(gguf_builder_find(&b, "w.counts"), 26);
    refuses(&b, WORDS("w.counts", "I32", "F32"));
    build(&b);
    gguf_builder_reshape(gguf_builder_find(&b, "w.counts"), 1, 4, 1, 1);
    refuses(&b, WORDS("tensor w", "6 sums", "4 counts"));
    build(&b);
    gguf_builder_reshape(gguf_builder_find(&b, "w.counts"), 1, 0, 1, 1);
    refuses(&b, WORDS("tensor w", "0 counts"));
    build(&b);
    gguf_builder_reshape(gguf_builder_find(&b, "w.in_sum2"), 2, 0, 2, 1);
    refuses(&b, WORDS("tensor w", "2 x 0"));
}

Test(imatrix, gguf_values_that_are_wrong)
{
    static const struct {
        float sum, count;
        const char *words[3];
    } cases[] = {
        {-1, 16, {"tensor w", "column 2", "-1"}},        {NAN, 16, {"tensor w", "column 2", "nan"}},
        {INFINITY, 16, {"tensor w", "column 2", "inf"}}, {1, -1, {"tensor w", "count 1", "-1"}},
        {1, NAN, {"tensor w", "count 1", "nan"}},        {1, INFINITY, {"tensor w", "count 1", "inf"}},
        {1, 0, {"tensor w", "column 0", "no token"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_builder b;
        build(&b);
        set_values(&b, "w.in_sum2", (const float[]){1, 2, 3, 4, 5, cases[i].sum});
        set_values(&b, "w.counts", (const float[]){16, cases[i].count});
        refuses(&b, WORDS(cases[i].words[0], cases[i].words[1]));
        cr_assert_not_null(strstr(err.message, cases[i].words[2]), "%s", err.message);
    }
}

Test(imatrix, gguf_keys_that_are_wrong)
{
    gguf_builder b;
    build(&b);
    gguf_builder_drop_key(&b, "imatrix.chunk_size");
    refuses(&b, WORDS("imatrix.chunk_size", "missing"));
    build(&b);
    gguf_builder_drop_key(&b, "imatrix.chunk_count");
    refuses(&b, WORDS("imatrix.chunk_count", "missing"));
    build(&b);
    gguf_builder_text(&b, "imatrix.chunk_count", "many");
    refuses(&b, WORDS("imatrix.chunk_count", "string"));
    build(&b);
    gguf_builder_u32(&b, "imatrix.datasets", 1);
    refuses(&b, WORDS("imatrix.datasets", "u32"));
    build(&b);
    gguf_builder_drop_key(&b, "imatrix.datasets");
    cr_assert_eq(parse(&b), PL_OK, "names of texts may be missing: %s", err.message);
}

Test(imatrix, runs_that_are_wrong)
{
    static const double bad[] = {1, -1};
    gguf_builder b;
    build_run(&b);
    cr_assert_eq(parse(&b), PL_OK, "%s", err.message);

    build_run(&b);
    gguf_builder_text(&b, "pleiad.imatrix.text_fingerprint", "000000000000000g");
    refuses(&b, WORDS("text_fingerprint", "hexadecimal"));
    build_run(&b);
    gguf_builder_text(&b, "pleiad.imatrix.text_fingerprint", "0x00000000000000");
    refuses(&b, WORDS("text_fingerprint", "hexadecimal"));
    build_run(&b);
    gguf_builder_drop_key(&b, "pleiad.imatrix.model_fingerprint");
    refuses(&b, WORDS("model_fingerprint"));
    build_run(&b);
    gguf_builder_u32(&b, "pleiad.imatrix.passages_done", 9);
    refuses(&b, WORDS("passages_done", "9", "4", "2 paths"));
    build_run(&b);
    gguf_builder_u32(&b, "pleiad.imatrix.passages_done", 8);
    refuses(&b, WORDS("pleiad.imatrix.sums", "there", "8"));
    build_run(&b);
    gguf_builder_drop_key(&b, "pleiad.imatrix.sums");
    refuses(&b, WORDS("pleiad.imatrix.sums", "missing", "7"));
    build_run(&b);
    gguf_builder_array(&b, "pleiad.imatrix.sums", PL_GGUF_F64, bad, 2, sizeof bad);
    refuses(&b, WORDS("pleiad.imatrix.sums", "value 1", "-1"));
    build_run(&b);
    gguf_builder_drop_key(&b, "pleiad.imatrix.passages");
    refuses(&b, WORDS("pleiad.imatrix.passages", "missing"));
    build_run(&b);
    gguf_builder_u32(&b, "pleiad.imatrix.passages", 0);
    refuses(&b, WORDS("passages_done"));
    build_run(&b);
    gguf_builder_drop_key(&b, "pleiad.imatrix.paths");
    refuses(&b, WORDS("passages_done", "0 paths"));
}

/* ---- .dat files that are wrong ---- */

typedef struct dat {
    unsigned char bytes[512];
    size_t n;
} dat;

static void add(dat *d, const void *data, size_t n)
{
    memcpy(d->bytes + d->n, data, n);
    d->n += n;
}

static void add_i32(dat *d, int32_t value)
{
    add(d, &value, sizeof value);
}

static void add_entry(dat *d, const char *name, size_t name_bytes, int32_t calls, int32_t n, float value)
{
    add_i32(d, (int32_t)name_bytes);
    add(d, name, name_bytes);
    add_i32(d, calls);
    add_i32(d, n);
    for (int32_t i = 0; i < n; i++)
        add(d, &value, sizeof value);
}

static pl_status parse_dat(const dat *d, pl_imatrix **m)
{
    unsigned char *exact = exact_copy(d->bytes, d->n);
    pl_status status = pl_imatrix_parse(exact, d->n, "m.dat", m, &err);
    free(exact);
    return status;
}

static void refuses_dat(const dat *d, const char *const *words)
{
    pl_imatrix *m = NULL;
    expect_failure(parse_dat(d, &m), PL_ERR_FORMAT, &err, words);
    expect_failure(err.status, PL_ERR_FORMAT, &err, WORDS("m.dat"));
}

Test(imatrix, dat_entries_that_are_wrong)
{
    dat d = {.n = 0};
    add_i32(&d, 1);
    dat start = d;
    add_entry(&d, "w", 1, -1, 2, 1);
    refuses_dat(&d, WORDS("calls", "-1"));
    d = start;
    add_entry(&d, "w", 1, 1, 2, -3);
    refuses_dat(&d, WORDS("tensor w", "column 0", "-3"));
    d = start;
    add_entry(&d, "w", 1, 1, 2, NAN);
    refuses_dat(&d, WORDS("tensor w", "nan"));
    d = start;
    add_entry(&d, "w\0x", 3, 1, 2, 1);
    refuses_dat(&d, WORDS("name", "NUL"));
    d = start;
    add_entry(&d, "", 0, 1, 2, 1);
    refuses_dat(&d, WORDS("name", "0"));
    d = start;
    add_i32(&d, 257);
    add_entry(&d, "w", 1, 1, 2, 1);
    refuses_dat(&d, WORDS("name", "257"));
    d = start;
    add_entry(&d, "w", 1, 1, 0, 1);
    add_i32(&d, 0);
    refuses_dat(&d, WORDS("values", "0"));
    d = start;
    d.bytes[0] = 2;
    add_entry(&d, "w", 1, 1, 2, 1);
    add_entry(&d, "w", 1, 1, 2, 1);
    refuses_dat(&d, WORDS("tensor w", "twice"));
}

Test(imatrix, dat_ends_that_are_wrong)
{
    dat d = {.n = 0};
    add_i32(&d, 1);
    add_entry(&d, "w", 1, 0, 2, 5);
    dat whole = d;
    add_i32(&d, -1);
    refuses_dat(&d, WORDS("chunks", "-1"));
    d = whole;
    add_i32(&d, 1);
    add_i32(&d, 1);
    add(&d, "texts", 5);
    refuses_dat(&d, WORDS("4 bytes after the end"));

    pl_imatrix *m = NULL;
    cr_assert_eq(parse_dat(&whole, &m), PL_OK, "%s", err.message);
    const pl_imatrix_entry *w = find(m, "w", 2, 1);
    cr_assert(w->sum2[0] == 5 && w->count[0] == 1 && m->chunks == 0, "no calls: the values are means");
    pl_imatrix_free(m);
}

/* Cut anywhere: only after the last tensor and after the number of chunks is it still a file. */
Test(imatrix, cut_files)
{
    static const char *const files[] = {LLAMA_GGUF, LLAMA_DAT};
    for (int f = 0; f < 2; f++) {
        size_t n;
        char *whole = read_file(files[f], &n);
        int good = 0;
        for (size_t cut = 0; cut < n; cut++) {
            unsigned char *part = exact_copy(whole, cut);
            pl_imatrix *m = NULL;
            pl_status status = pl_imatrix_parse(part, cut, "cut", &m, &err);
            if (status == PL_OK)
                pl_imatrix_free(m);
            else
                expect_failure(status, PL_ERR_FORMAT, &err, WORDS("cut"));
            good += status == PL_OK;
            free(part);
        }
        cr_assert_leq(good, f == 0 ? 32 : 2, "%d cuts of %s passed", good, files[f]);
        free(whole);
    }
}

Test(imatrix, what_is_no_such_file)
{
    pl_imatrix *m = NULL;
    const char *text = scratch_text(&s, "text", "Once upon a time there was an importance matrix.");
    expect_failure(pl_imatrix_read(text, &m, &err), PL_ERR_FORMAT, &err, WORDS("text", "neither GGUF nor .dat"));
    const char *empty = scratch_text(&s, "empty", "");
    expect_failure(pl_imatrix_read(empty, &m, &err), PL_ERR_FORMAT, &err, WORDS("empty", "neither"));
    expect_failure(pl_imatrix_read("/no/such/file", &m, &err), PL_ERR_IO, &err, WORDS("/no/such/file"));
    expect_failure(pl_imatrix_read(s.dir, &m, &err), PL_ERR_IO, &err, WORDS(s.dir));
}

/* ---- without memory ---- */

static pl_status read_and_add(void *ctx, pl_error *e)
{
    (void)ctx;
    pl_imatrix *m = NULL, *dat_file = NULL;
    pl_status status = PL_OK;
    PL_TRY_GOTO(pl_imatrix_read(LLAMA_GGUF, &m, e));
    PL_TRY_GOTO(pl_imatrix_read(LLAMA_DAT, &dat_file, e));
    dat_file->entries[2].name = "blk.9.other";
    PL_TRY_GOTO(pl_imatrix_add(m, dat_file, "dat", e));
fail:
    pl_imatrix_free(m);
    pl_imatrix_free(dat_file);
    return status;
}

Test(imatrix, no_memory)
{
    cr_assert_geq(fail_alloc_each(read_and_add, NULL), 4);
}
