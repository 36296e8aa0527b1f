#include <errno.h>
#include <math.h>

#include "host/model/safetensors.h"
#include "host/model/safetensors_writer.h"
#include "tests/unit/scratch.h"

static pl_arena *arena;
static pl_tensor_list list;
static pl_error err;
static unsigned char *parsed;

static void setup(void)
{
    cr_assert_eq(pl_arena_create(1 << 16, &arena, NULL), PL_OK);
}

static void teardown(void)
{
    pl_arena_free(arena);
    free(parsed);
}

TestSuite(safetensors, .init = setup, .fini = teardown);

static pl_status parse_bytes(const unsigned char *data, size_t n)
{
    free(parsed);
    parsed = exact_copy(data, n);
    memset(&err, 0, sizeof err);
    pl_arena_reset(arena);
    return pl_safetensors_parse(parsed, n, "m.safetensors", arena, &list, &err);
}

/* A file with this header and so many bytes of data. */
static pl_status parse(const char *header, size_t data_bytes)
{
    uint64_t n = strlen(header);
    unsigned char *file = calloc(1, 8 + n + data_bytes);
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++)
        file[8 + n + i] = (unsigned char)i;
    pl_status status = parse_bytes(file, 8 + n + data_bytes);
    free(file);
    return status;
}

static void refuses(const char *header, size_t data_bytes, const char *const *words)
{
    expect_failure(parse(header, data_bytes), PL_ERR_FORMAT, &err, words);
    expect_failure(err.status, PL_ERR_FORMAT, &err, WORDS("m.safetensors"));
}

Test(safetensors, tensors_of_all_kinds)
{
    cr_assert_eq(parse("{\"__metadata__\":{\"format\":\"pt\"},"
                       "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                       "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
                       "\"none\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[20,20]}}   ",
                       20),
                 PL_OK, "%s", err.message);
    cr_assert_eq(list.n, 3);
    const pl_entry *a = pl_tensor_list_find(&list, "a"), *b = pl_tensor_list_find(&list, "b");
    cr_assert(a->type == -1 && a->n_dims == 0 && a->bytes == 8 && strcmp(a->type_name, "I64") == 0);
    cr_assert(b->type == PL_BF16 && b->n_dims == 2 && b->dims[0] == 2 && b->dims[1] == 3 && b->data[0] == 8);
    cr_assert_null(pl_tensor_list_find(&list, "none")->data);
    cr_assert_null(pl_tensor_list_find(&list, "c"));
    cr_assert_eq(parse("{}", 0), PL_OK);
    cr_assert_eq(list.n, 0);
}

#define ONE(dtype, shape, offsets) "{\"w\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

Test(safetensors, members_that_are_wrong)
{
    refuses(ONE("\"F32\"", "[4]", "[0,12]"), 16, WORDS("tensor w", "12 bytes", "need 16"));
    refuses(ONE("\"F32\"", "[4]", "[0,16]"), 12, WORDS("tensor w", "16", "12"));
    refuses(ONE("\"F32\"", "[4]", "[16,0]"), 16, WORDS("tensor w", "backwards"));
    refuses(ONE("\"F32\"", "[4]", "[-16,0]"), 16, WORDS("tensor w", "backwards"));
    refuses(ONE("\"F32\"", "[4]", "[0]"), 16, WORDS("tensor w", "data_offsets"));
    refuses(ONE("\"F32\"", "[4]", "[0,16,20]"), 16, WORDS("tensor w", "data_offsets"));
    refuses(ONE("\"F32\"", "[4]", "[0,16.0]"), 16, WORDS("tensor w", "data_offsets"));
    refuses(ONE("\"F32\"", "[4]", "7"), 16, WORDS("tensor w", "data_offsets"));
    refuses(ONE("\"F32\"", "[-4]", "[0,16]"), 16, WORDS("tensor w", "shape"));
    refuses(ONE("\"F32\"", "[\"4\"]", "[0,16]"), 16, WORDS("tensor w", "shape"));
    refuses(ONE("\"F32\"", "4", "[0,16]"), 16, WORDS("tensor w", "shape is not a list"));
    refuses(ONE("\"F32\"", "[1,1,1,1,1,1,1,1,4]", "[0,16]"), 16, WORDS("tensor w", "dimensions"));
    refuses(ONE("7", "[4]", "[0,16]"), 16, WORDS("tensor w", "dtype"));
    refuses("{\"w\":[1,2]}", 0, WORDS("tensor w", "not an object"));
    refuses("{\"w\":{}}", 0, WORDS("tensor w", "dtype is missing"));
    expect_failure(parse(ONE("\"F4\"", "[4]", "[0,16]"), 16), PL_ERR_UNSUPPORTED, &err,
                   WORDS("tensor w", "unknown dtype F4"));
}

Test(safetensors, shapes_that_overflow)
{
    refuses(ONE("\"F32\"", "[4294967296,4294967296]", "[0,16]"), 16, WORDS("tensor w", "overflows"));
    refuses(ONE("\"F32\"", "[4611686018427387904]", "[0,16]"), 16, WORDS("tensor w", "overflows"));
    refuses(ONE("\"F32\"", "[9223372036854775808]", "[0,16]"), 16, WORDS("header"));
}

Test(safetensors, places_overlap_or_leave_holes)
{
#define TWO(a, b)                                                                                                      \
    "{\"one\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" a                                                     \
    "},\"two\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" b "}}"
    cr_assert_eq(parse(TWO("[4,8]", "[0,4]"), 8), PL_OK, "%s", err.message);
    refuses(TWO("[0,4]", "[2,6]"), 6, WORDS("one", "two", "overlap"));
    refuses(TWO("[0,4]", "[0,4]"), 4, WORDS("one", "two", "overlap"));
    refuses(TWO("[0,4]", "[5,9]"), 9, WORDS("tensor two", "1 bytes", "no tensor"));
    refuses(TWO("[1,5]", "[5,9]"), 9, WORDS("tensor one", "1 bytes", "no tensor"));
    refuses(TWO("[0,4]", "[4,8]"), 11, WORDS("last 3 bytes"));
}

Test(safetensors, headers_that_are_wrong)
{
    refuses("[]", 0, WORDS("header", "expected an object"));
    refuses("{\"w\":", 0, WORDS("header", "line 1"));
    refuses("", 0, WORDS("header"));
    refuses(
        "{\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        0, WORDS("header", "duplicate"));
    char deep[6000];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    memcpy(deep, "{\"w\":", 5);
    refuses(deep, 0, WORDS("header", "depth"));
    static const uint64_t lengths[] = {20, 1ull << 26, 1ull << 32, 1ull << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        unsigned char file[16] = {0};
        memcpy(file, &lengths[i], 8);
        cr_assert_eq(parse_bytes(file, sizeof file), PL_ERR_FORMAT);
        cr_assert(strstr(err.message, "cut short") || strstr(err.message, "not a safetensors file"), "%s", err.message);
    }
}

Test(safetensors, cut_at_every_offset)
{
    size_t n;
    char *data = read_file(PL_TEST_DATA "/golden/text/golden/e4b.p1.safetensors", &n);
    cr_assert_eq(parse_bytes((unsigned char *)data, n), PL_OK, "%s", err.message);
    for (size_t cut = 0; cut < n; cut += cut < 1000 ? 1 : 61)
        cr_assert_eq(parse_bytes((unsigned char *)data, cut), PL_ERR_FORMAT, "cut at %zu: %s", cut, err.message);
    cr_assert_eq(parse_bytes((unsigned char *)data, n - 1), PL_ERR_FORMAT);
    free(data);
}

Test(safetensors, what_was_written_is_read)
{
    scratch s;
    scratch_open(&s);
    const float logits[6] = {1, -2.5f, 0, NAN, INFINITY, 1e-40f};
    const int32_t ids[3] = {5, -1, 7};
    const pl_out_tensor out[] = {{"logits", PL_OUT_F32, 2, {2, 3}, logits},
                                 {"odd \"name\"\n", PL_OUT_I32, 1, {3}, ids},
                                 {"scalar", PL_OUT_F32, 0, {0}, logits + 1}};
    const char *path = scratch_path(&s, "out.safetensors");
    cr_assert_eq(pl_safetensors_write(path, out, 3, &err), PL_OK, "%s", err.message);
    pl_safetensors file;
    cr_assert_eq(pl_safetensors_open(path, &file, &err), PL_OK, "%s", err.message);
    cr_assert_eq(file.tensors.n, 3);
    const pl_entry *a = pl_tensor_list_find(&file.tensors, "logits"),
                   *b = pl_tensor_list_find(&file.tensors, "odd \"name\"\n");
    cr_assert(a->type == PL_F32 && a->dims[0] == 2 && a->dims[1] == 3 && memcmp(a->data, logits, sizeof logits) == 0);
    cr_assert_eq((uintptr_t)a->data % 8, 0);
    cr_assert(strcmp(b->type_name, "I32") == 0 && memcmp(b->data, ids, sizeof ids) == 0);
    cr_assert(memcmp(pl_tensor_list_find(&file.tensors, "scalar")->data, logits + 1, 4) == 0);
    pl_safetensors_close(&file);
    scratch_close(&s);
}

Test(safetensors, writing_that_cannot_work)
{
    const float x = 1;
    const pl_out_tensor twice[] = {{"a", PL_OUT_F32, 0, {0}, &x}, {"a", PL_OUT_F32, 0, {0}, &x}};
    const pl_out_tensor huge[] = {{"a", PL_OUT_F32, 2, {1ll << 40, 1ll << 40}, &x}};
    scratch s;
    scratch_open(&s);
    expect_failure(pl_safetensors_write(scratch_path(&s, "no/such/folder/f"), twice, 1, &err), PL_ERR_IO, &err,
                   WORDS("no/such/folder"));
    expect_failure(pl_safetensors_write(scratch_path(&s, "f"), twice, 2, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("two tensors are named a"));
    expect_failure(pl_safetensors_write(scratch_path(&s, "f"), huge, 1, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("tensor a", "overflows"));
    cr_assert_neq(access(scratch_path(&s, "f"), F_OK), 0);
    scratch_close(&s);
}

/* Three tensors in the order of their width, the last one empty. */
static pl_safetensors_writer *start(const char *path, const char *format)
{
    pl_safetensors_writer *w = NULL;
    cr_assert_eq(pl_safetensors_writer_create(&w, &err), PL_OK);
    pl_safetensors_declare(w, "wide", "F32", (int64_t[]){2, 3}, 2, 24);
    pl_safetensors_declare(w, "narrow", "BF16", (int64_t[]){5}, 1, 10);
    pl_safetensors_declare(w, "empty", "F16", (int64_t[]){0, 7}, 2, 0);
    cr_assert_eq(pl_safetensors_writer_begin(w, path, format, &err), PL_OK, "%s", err.message);
    return w;
}

Test(safetensors, what_was_streamed_is_read)
{
    static const char data[] = "0123456789abcdefghijklmnopqrstuvwx";
    scratch s;
    pl_safetensors file;
    scratch_open(&s);
    const char *path = scratch_path(&s, "out.safetensors");
    pl_safetensors_writer *w = start(path, "pt");
    for (size_t at = 0; at < 34; at += 17)
        cr_assert_eq(pl_safetensors_writer_append(w, data + at, 17, &err), PL_OK);
    cr_assert_neq(access(path, F_OK), 0, "the file is there before it is whole");
    cr_assert_eq(pl_safetensors_writer_commit(w, &err), PL_OK, "%s", err.message);
    pl_safetensors_writer_free(w);
    cr_assert_eq(pl_safetensors_open(path, &file, &err), PL_OK, "%s", err.message);
    cr_assert_eq(file.tensors.n, 3);
    const pl_entry *wide = pl_tensor_list_find(&file.tensors, "wide");
    const pl_entry *narrow = pl_tensor_list_find(&file.tensors, "narrow");
    cr_assert(wide->type == PL_F32 && wide->n_dims == 2 && wide->dims[1] == 3 && memcmp(wide->data, data, 24) == 0);
    cr_assert_eq((uintptr_t)wide->data % 8, 0);
    cr_assert(narrow->type == PL_BF16 && narrow->dims[0] == 5 && memcmp(narrow->data, data + 24, 10) == 0);
    cr_assert_eq(pl_tensor_list_find(&file.tensors, "empty")->bytes, 0);
    cr_assert_not_null(strstr((const char *)file.file.data + 8, "\"__metadata__\":{\"format\":\"pt\"}"));
    pl_safetensors_close(&file);
    scratch_close(&s);
}

Test(safetensors, giving_up_a_stream_leaves_nothing)
{
    scratch s;
    scratch_open(&s);
    const char *path = scratch_path(&s, "out.safetensors");
    pl_safetensors_writer *w = start(path, NULL);
    cr_assert_eq(pl_safetensors_writer_append(w, "12345678", 8, &err), PL_OK);
    pl_safetensors_writer_free(w);
    cr_assert_neq(access(path, F_OK), 0);
    w = NULL;
    cr_assert_eq(pl_safetensors_writer_create(&w, &err), PL_OK);
    pl_safetensors_declare(w, "a", "F32", NULL, 0, 4);
    pl_safetensors_declare(w, "b", "F32", (int64_t[]){2}, 1, INT64_MAX);
    expect_failure(pl_safetensors_writer_begin(w, path, NULL, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("tensor b", "overflows"));
    pl_safetensors_writer_free(w);
    cr_assert_eq(rmdir(s.dir), 0, "the folder is not empty");
    scratch_close(&s);
}

Test(safetensors, golden_file)
{
    pl_safetensors file;
    cr_assert_eq(pl_safetensors_open(PL_TEST_DATA "/golden/text/golden/e4b.p1.safetensors", &file, &err), PL_OK, "%s",
                 err.message);
    const pl_entry *logits = pl_tensor_list_find(&file.tensors, "logits");
    cr_assert(logits && logits->type == PL_F32 && logits->n_dims == 2 && logits->dims[1] == 1088);
    pl_safetensors_close(&file);
    expect_failure(pl_safetensors_open("/no/such.safetensors", &file, &err), PL_ERR_IO, &err,
                   WORDS("/no/such.safetensors"));
}
