/* The container: what pl_gguf_parse() takes and refuses. */
#include <math.h>

#include "tests/unit/gguf_builder.h"
#include "tests/unit/scratch.h"

static gguf_builder b;
static pl_arena *arena;
static pl_gguf file;
static pl_error err;

static void setup(void)
{
    gguf_builder_init(&b);
    cr_assert_eq(pl_arena_create(1 << 16, &arena, NULL), PL_OK);
}

static void teardown(void)
{
    gguf_builder_free(&b);
    pl_arena_free(arena);
}

TestSuite(gguf, .init = setup, .fini = teardown);

static unsigned char *parsed;

static pl_status parse_bytes(const unsigned char *data, size_t n)
{
    free(parsed);
    parsed = exact_copy(data, n);
    memset(&err, 0, sizeof err);
    pl_arena_reset(arena);
    return pl_gguf_parse(parsed, n, "m.gguf", arena, &file, &err);
}

static pl_status parse(void)
{
    size_t n;
    unsigned char *data = gguf_builder_bytes(&b, &n);
    pl_status status = parse_bytes(data, n);
    free(data);
    return status;
}

static void refuses(pl_status status, const char *const *words)
{
    expect_failure(parse(), status, &err, words);
    expect_failure(err.status, status, &err, WORDS("m.gguf"));
    free(parsed);
    parsed = NULL;
}

static void accepts(void)
{
    cr_assert_eq(parse(), PL_OK, "%s", err.message);
}

Test(gguf, every_value_type_is_read)
{
    int8_t i8 = -7;
    uint64_t u64 = UINT64_MAX;
    int64_t i64 = -5;
    double f64 = 2;
    gguf_builder_raw(&b, "a.i8", PL_GGUF_I8, &i8, 1);
    gguf_builder_raw(&b, "a.u64", PL_GGUF_U64, &u64, 8);
    gguf_builder_raw(&b, "a.i64", PL_GGUF_I64, &i64, 8);
    gguf_builder_raw(&b, "a.f64", PL_GGUF_F64, &f64, 8);
    gguf_builder_f32(&b, "a.f32", 0.5f);
    gguf_builder_bool(&b, "a.bool", true);
    gguf_builder_text(&b, "a.text", "hello");
    gguf_builder_texts(&b, "a.texts", WORDS("x", "", "yz"), 3);
    accepts();
    int n = 0;
    float f = 0;
    bool flag = false;
    const char *text;
    size_t bytes;
    cr_assert(pl_gguf_int(&file, "a.i8", -10, 10, &n, &err) == PL_OK && n == -7);
    cr_assert(pl_gguf_int(&file, "a.i64", -10, 10, &n, &err) == PL_OK && n == -5);
    expect_failure(pl_gguf_int(&file, "a.u64", 0, 10, &n, &err), PL_ERR_FORMAT, &err,
                   WORDS("a.u64", "expected 0 to 10"));
    expect_failure(pl_gguf_float(&file, "a.f64", &f, &err), PL_ERR_FORMAT, &err, WORDS("a.f64 is f64, expected f32"));
    cr_assert(pl_gguf_float(&file, "a.f32", &f, &err) == PL_OK && f == 0.5f);
    cr_assert(pl_gguf_bool(&file, "a.bool", &flag, &err) == PL_OK && flag);
    cr_assert(pl_gguf_text(&file, "a.text", &text, &bytes, &err) == PL_OK && bytes == 5 &&
              memcmp(text, "hello", 5) == 0);
    cr_assert(pl_gguf_text(&file, "a.none", &text, &bytes, &err) == PL_OK && !text);
    cr_assert_eq(pl_gguf_find(&file, "a.texts")->n, 3);
    expect_failure(pl_gguf_text(&file, "a.texts", &text, &bytes, &err), PL_ERR_FORMAT, &err,
                   WORDS("a.texts is an array of string, expected a string"));
}

Test(gguf, integers_of_every_width)
{
    static const struct {
        pl_gguf_type type;
        size_t bytes;
        int64_t low;
    } types[] = {{PL_GGUF_U8, 1, 200},        {PL_GGUF_I8, 1, -100},         {PL_GGUF_U16, 2, 60000},
                 {PL_GGUF_I16, 2, -30000},    {PL_GGUF_U32, 4, 4000000000},  {PL_GGUF_I32, 4, -2000000000},
                 {PL_GGUF_U64, 8, 1ll << 40}, {PL_GGUF_I64, 8, -(1ll << 40)}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        int64_t values[2] = {0, types[i].low};
        unsigned char raw[16];
        memcpy(raw, &values[0], types[i].bytes);
        memcpy(raw + types[i].bytes, &values[1], types[i].bytes);
        gguf_builder_array(&b, "a", types[i].type, raw, 2, 2 * types[i].bytes);
        accepts();
        cr_assert_eq(pl_gguf_integer_at(pl_gguf_find(&file, "a"), 1), types[i].low, "%s",
                     pl_gguf_type_name(types[i].type));
        cr_assert_eq(pl_gguf_integer_at(pl_gguf_find(&file, "a"), 0), 0);
    }
}

Test(gguf, tensors_lie_where_the_file_says)
{
    gguf_builder_tensor(&b, "one", PL_F32, 2, 3, 5, 1);
    gguf_builder_tensor(&b, "two", PL_Q4_K, 3, 256, 2, 3);
    gguf_builder_tensor(&b, "empty", PL_F16, 2, 0, 5, 1);
    gguf_builder_tensor(&b, "scalar", PL_F32, 0, 1, 1, 1);
    gguf_builder_place(&b);
    accepts();
    cr_assert_eq(file.tensors.n, 4);
    const pl_entry *two = &file.tensors.items[1];
    cr_assert_str_eq(two->name, "two");
    cr_assert(two->n_dims == 3 && two->dims[0] == 3 && two->dims[1] == 2 && two->dims[2] == 256);
    cr_assert_eq(two->bytes, 6 * 144);
    cr_assert_eq(memcmp(two->data, b.tensors[1].data, two->bytes), 0);
    cr_assert_null(file.tensors.items[2].data);
}

Test(gguf, header_that_is_not_one)
{
    b.version = 2;
    refuses(PL_ERR_UNSUPPORTED, WORDS("version 2", "only 3"));
    b.version = 0x03000000;
    refuses(PL_ERR_UNSUPPORTED, WORDS("big-endian"));
    b.version = 3;
    b.magic++;
    refuses(PL_ERR_FORMAT, WORDS("not a GGUF file"));
}

Test(gguf, counts_that_cannot_be_right)
{
    gguf_builder_u32(&b, "a", 1);
    static const uint64_t counts[] = {3, 1000, 65536, 1ull << 31, 1ull << 40, UINT64_MAX - 1};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        b.extra_tensors = counts[i];
        b.extra_keys = 0;
        refuses(PL_ERR_FORMAT, WORDS("tensors cannot be right"));
        b.extra_tensors = 0;
        b.extra_keys = counts[i];
        refuses(PL_ERR_FORMAT, WORDS("keys cannot be right"));
    }
}

Test(gguf, lengths_that_overflow)
{
    static const uint64_t lengths[] = {100, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        gguf_builder_raw(&b, "a.key", PL_GGUF_STRING, &lengths[i], 8);
        refuses(PL_ERR_FORMAT, WORDS("cut short", "a.key"));
        gguf_builder_array(&b, "a.key", PL_GGUF_F32, "", lengths[i], 0);
        refuses(PL_ERR_FORMAT, WORDS("cut short", "a.key"));
        gguf_builder_array(&b, "a.key", PL_GGUF_STRING, "", lengths[i], 0);
        refuses(PL_ERR_FORMAT, WORDS("cut short", "a.key"));
    }
}

Test(gguf, value_types_that_do_not_exist)
{
    gguf_builder_raw(&b, "a.key", 13, "1234", 4);
    refuses(PL_ERR_FORMAT, WORDS("a.key", "unknown value type 13"));
    gguf_builder_array(&b, "a.key", 77, "1234", 1, 4);
    refuses(PL_ERR_FORMAT, WORDS("a.key", "unknown value type 77"));
    gguf_builder_array(&b, "a.key", PL_GGUF_ARRAY, "1234", 1, 4);
    refuses(PL_ERR_UNSUPPORTED, WORDS("a.key", "array of arrays"));
}

Test(gguf, names_are_unique_and_sane)
{
    gguf_builder_u32(&b, "a.key", 1);
    gguf_builder_u32(&b, "b.key", 1);
    snprintf(b.keys[1].name, sizeof b.keys[1].name, "a.key");
    refuses(PL_ERR_FORMAT, WORDS("key a.key appears twice"));
    b.keys[1].name[0] = '\0';
    refuses(PL_ERR_FORMAT, WORDS("a key", "is not a name"));
    gguf_builder_drop_key(&b, "");
    gguf_builder_tensor(&b, "t", PL_F32, 1, 4, 1, 1);
    gguf_builder_tensor(&b, "t", PL_F32, 1, 4, 1, 1);
    gguf_builder_place(&b);
    accepts();
    expect_failure(pl_tensor_list_index(&file.tensors, arena, &err), PL_ERR_FORMAT, &err,
                   WORDS("m.gguf", "two tensors are named t"));
}

Test(gguf, shapes_that_overflow)
{
    built_tensor *t = gguf_builder_tensor(&b, "big", PL_F32, 2, 4, 4, 1);
    t->ne[0] = 1ull << 32;
    t->ne[1] = 1ull << 31;
    refuses(PL_ERR_FORMAT, WORDS("tensor big", "overflows"));
    t->ne[1] = 1ull << 29; /* the count fits, the bytes do not */
    refuses(PL_ERR_FORMAT, WORDS("tensor big", "overflows"));
    t->ne[1] = 1ull << 63;
    refuses(PL_ERR_FORMAT, WORDS("tensor big", "negative"));
    t->ne[1] = 1ull << 20;
    refuses(PL_ERR_FORMAT, WORDS("tensor big", "past the end"));
    t->n_dims = 5;
    refuses(PL_ERR_FORMAT, WORDS("tensor big", "5 dimensions"));
    t->n_dims = UINT32_MAX;
    refuses(PL_ERR_FORMAT, WORDS("tensor big", "dimensions"));
}

Test(gguf, rows_are_whole_blocks)
{
    built_tensor *t = gguf_builder_tensor(&b, "rows", PL_Q8_0, 2, 32, 2, 1);
    t->ne[0] = 48;
    refuses(PL_ERR_FORMAT, WORDS("tensor rows", "48", "Q8_0", "32"));
    t->type = PL_Q6_K;
    t->ne[0] = 32;
    refuses(PL_ERR_FORMAT, WORDS("tensor rows", "Q6_K", "256"));
}

Test(gguf, places_overlap_or_lie_outside)
{
    gguf_builder_tensor(&b, "one", PL_F32, 1, 32, 1, 1);
    gguf_builder_tensor(&b, "two", PL_F32, 1, 32, 1, 1);
    gguf_builder_place(&b);
    accepts();
    b.tensors[1].offset = 96;
    refuses(PL_ERR_FORMAT, WORDS("one", "two", "overlap"));
    b.tensors[1].offset = 0;
    refuses(PL_ERR_FORMAT, WORDS("one", "two", "overlap"));
    b.tensors[1].offset = 130;
    refuses(PL_ERR_FORMAT, WORDS("tensor two", "130", "multiple of 32"));
    b.tensors[1].offset = 1ull << 40;
    refuses(PL_ERR_FORMAT, WORDS("tensor two", "past the end"));
    b.tensors[1].offset = UINT64_MAX - 31;
    refuses(PL_ERR_FORMAT, WORDS("tensor two", "past the end"));
    b.tensors[1].offset = 256; /* a gap is no fault */
    accepts();
}

Test(gguf, alignment)
{
    gguf_builder_tensor(&b, "one", PL_F32, 1, 3, 1, 1);
    gguf_builder_tensor(&b, "two", PL_F32, 1, 3, 1, 1);
    static const uint32_t good[] = {1, 2, 64, 4096}, bad[] = {0, 3, 48, 1u << 31};
    for (size_t i = 0; i < 4; i++) {
        b.alignment = good[i];
        gguf_builder_u32(&b, "general.alignment", good[i]);
        gguf_builder_place(&b);
        accepts();
        cr_assert_eq(memcmp(file.tensors.items[1].data, b.tensors[1].data, 12), 0, "alignment %u", good[i]);
        b.alignment = 32;
        gguf_builder_u32(&b, "general.alignment", bad[i]);
        refuses(PL_ERR_FORMAT, WORDS("general.alignment"));
    }
    gguf_builder_text(&b, "general.alignment", "32");
    refuses(PL_ERR_FORMAT, WORDS("general.alignment", "expected an integer"));
}

Test(gguf, foreign_types_are_named)
{
    gguf_builder_tensor(&b, "known", 10, 1, 256, 1, 1);
    gguf_builder_tensor(&b, "unknown", 1000000, 1, 256, 1, 1);
    b.tensors[0].offset = 0;
    b.tensors[1].offset = 96;
    accepts();
    cr_assert_str_eq(file.tensors.items[0].type_name, "Q2_K");
    cr_assert_eq(file.tensors.items[0].bytes, 84);
    cr_assert_str_eq(file.tensors.items[1].type_name, "type 1000000");
    cr_assert_null(pl_dtype_describe(file.tensors.items[1].type));
}

/* Cut anywhere, a file is refused with a message, and nothing behind its end is read. */
Test(gguf, cut_at_every_offset)
{
    size_t n;
    gguf_builder tiny;
    gguf_builder_tiny(&tiny);
    unsigned char *data = gguf_builder_bytes(&tiny, &n);
    size_t header = gguf_builder_header_bytes(&tiny), last = tiny.tensors[tiny.n_tensors - 1].n;
    cr_assert_eq(parse_bytes(data, n), PL_OK, "%s", err.message);
    for (size_t cut = 0; cut < n; cut += cut < header ? 1 : 97) {
        pl_status status = parse_bytes(data, cut);
        cr_assert_eq(status, PL_ERR_FORMAT, "cut at %zu of %zu: %s", cut, n, err.message);
        cr_assert_not_null(strstr(err.message, "m.gguf"));
    }
    size_t end = n - (32 - last % 32) % 32;
    cr_assert_eq(parse_bytes(data, end), PL_OK, "only padding is missing: %s", err.message);
    cr_assert_eq(parse_bytes(data, end - 1), PL_ERR_FORMAT);
    free(data);
    gguf_builder_free(&tiny);
}

/* Any one byte of the header changed: an answer, right or wrong, without a crash. */
Test(gguf, every_byte_of_the_header_changed)
{
    size_t n;
    gguf_builder tiny;
    gguf_builder_tiny(&tiny);
    unsigned char *data = gguf_builder_bytes(&tiny, &n);
    size_t header = gguf_builder_header_bytes(&tiny);
    static const unsigned char masks[] = {0xff, 0x01, 0x80};
    for (size_t i = 0; i < header; i++)
        for (size_t m = 0; m < sizeof masks; m++) {
            data[i] ^= masks[m];
            if (parse_bytes(data, n) != PL_OK)
                cr_assert_neq(err.message[0], '\0');
            data[i] ^= masks[m];
        }
    free(data);
    gguf_builder_free(&tiny);
}
