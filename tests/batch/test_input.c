#include "host/batch/input.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define LINE(id)                                                                                                       \
    "{\"custom_id\": \"" id "\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {\"prompt\": \"p\"}}"

uint64_t __real_pl_line_id_hash(const char *custom_id);
uint64_t __wrap_pl_line_id_hash(const char *custom_id);

static bool collide;

/* Four values only, where a test wants collisions. */
uint64_t __wrap_pl_line_id_hash(const char *custom_id)
{
    uint64_t hash = __real_pl_line_id_hash(custom_id);
    return collide ? 1 + hash % 4 : hash;
}

static scratch s;

static void open_scratch(void)
{
    scratch_open(&s);
    collide = false;
}

static void close_scratch(void)
{
    scratch_close(&s);
}

TestSuite(input, .init = open_scratch, .fini = close_scratch);

static pl_input *open_bytes(const char *text, size_t n, size_t most)
{
    const pl_input_params params = {.path = scratch_write(&s, "in.jsonl", text, n), .most_bytes = most};
    pl_input *input;
    pl_error err;
    cr_assert_eq(pl_input_open(&params, &input, &err), PL_OK, "%s", err.message);
    return input;
}

static pl_input *open_text(const char *text)
{
    return open_bytes(text, strlen(text), 0);
}

static void expect_line(const pl_input *input, int64_t line, int64_t number, const char *expected)
{
    char *text;
    size_t n;
    cr_assert_eq(pl_input_read(input, line, &text, &n, NULL), PL_OK);
    cr_assert_str_eq(text, expected);
    cr_assert_eq(n, strlen(expected));
    cr_assert_eq(pl_input_bytes(input, line), n);
    cr_assert_eq(pl_input_number(input, line), number);
    free(text);
}

static void expect_fault(const pl_input *input, int64_t line, const char *code, const char *id, const char *words)
{
    pl_line_fault fault;
    char *found;
    cr_assert(pl_input_is_faulty(input, line), "line %d", (int)line);
    cr_assert_eq(pl_input_fault(input, line, &fault, &found, NULL), PL_OK);
    cr_assert_str_eq(fault.code, code);
    cr_assert(id ? found && strcmp(found, id) == 0 : !found, "line %d: %s", (int)line, found ? found : "none");
    cr_assert_not_null(strstr(fault.message, words), "%s", fault.message);
    free(found);
}

Test(input, finds_lines)
{
    pl_input *input = open_text("\xef\xbb\xbf" LINE("a") "\r\n\n  \t\r\n" LINE("b") "\n\n\n " LINE("c") " ");
    cr_assert_eq(pl_input_lines(input), 3);
    expect_line(input, 0, 1, LINE("a"));
    expect_line(input, 1, 4, LINE("b"));
    expect_line(input, 2, 7, " " LINE("c") " ");
    for (int i = 0; i < 3; i++)
        cr_assert_not(pl_input_is_faulty(input, i));
    pl_input_free(input);
}

Test(input, files_without_lines)
{
    static const char *const texts[] = {"", "\n", "\xef\xbb\xbf", "\xef\xbb\xbf\r\n \n\t", "\r"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        uint32_t *order;
        size_t n;
        pl_input *input = open_text(texts[i]);
        cr_assert_eq(pl_input_lines(input), 0);
        cr_assert_eq(pl_input_order(input, &order, &n, NULL), PL_OK);
        cr_assert_eq(n, 0);
        free(order);
        pl_input_free(input);
    }
}

Test(input, fingerprint_is_of_every_byte)
{
    char text[] = LINE("a") "\n\n" LINE("b");
    pl_input *input = open_text(text);
    uint64_t first = pl_input_fingerprint(input);
    pl_input_free(input);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        text[i] ^= 1;
        input = open_text(text);
        cr_assert_neq(pl_input_fingerprint(input), first, "byte %zu", i);
        pl_input_free(input);
        text[i] ^= 1;
    }
    input = open_text(text);
    cr_assert_eq(pl_input_fingerprint(input), first);
    pl_input_free(input);
}

Test(input, faulty_lines_are_known)
{
    pl_input *input = open_text("nothing\n" LINE("a") "\n{\"custom_id\": \"b\"}\n\n" LINE("a") "\n" LINE("b") "\n");
    cr_assert_eq(pl_input_lines(input), 5);
    cr_assert_not(pl_input_is_faulty(input, 1));
    expect_fault(input, 0, "invalid_json_line", NULL, "byte 7");
    expect_fault(input, 2, "missing_required_parameter", "b", "'method'");
    expect_fault(input, 3, "duplicate_custom_id", NULL, "line 5 is that of line 2 already: 'a'");
    expect_fault(input, 4, "duplicate_custom_id", NULL, "line 6 is that of line 3 already: 'b'");
    pl_input_free(input);
}

Test(input, nul_bytes_make_a_line_faulty)
{
    static const char text[] = LINE("a") "\n{\"custom_id\": \"\0\"}\n\0\n" LINE("b") "\n";
    pl_input *input = open_bytes(text, sizeof text - 1, 0);
    cr_assert_eq(pl_input_lines(input), 4);
    expect_fault(input, 1, "invalid_json_line", NULL, "byte");
    expect_fault(input, 2, "invalid_json_line", NULL, "byte");
    cr_assert_not(pl_input_is_faulty(input, 3));
    pl_input_free(input);
}

Test(input, ids_whose_hashes_collide_are_no_duplicates)
{
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    for (int i = 0; i < 100; i++)
        fprintf(file, LINE("id-%d") "\n", i % 90);
    fclose(file);
    collide = true;
    pl_input *input = open_text(text);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(pl_input_is_faulty(input, i), i >= 90, "line %d", i);
    expect_fault(input, 95, "duplicate_custom_id", NULL, "line 96 is that of line 6 already: 'id-5'");
    pl_input_free(input);
    free(text);
}

Test(input, long_lines_are_walked_over)
{
    for (size_t over = 0; over < 2; over++)
        for (int crlf = 0; crlf < 2; crlf++) {
            pl_input *input;
            char text[1000];
            size_t most = strlen(LINE("b")) - over;
            snprintf(text, sizeof text, "%s\n%s%s\n%s", LINE("a"), LINE("b"), crlf ? "\r" : "", LINE("c"));
            input = open_bytes(text, strlen(text), most);
            cr_assert_eq(pl_input_lines(input), 3);
            for (int i = 0; i < 3; i++)
                cr_assert_eq(pl_input_is_faulty(input, i), over == 1);
            if (over)
                expect_fault(input, 1, "line_too_long", NULL, "at most");
            pl_input_free(input);
        }
}

static long peak_kb(void)
{
    struct rusage usage;
    cr_assert_eq(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

/* 100 MB, most of it a hole in the file, between two good lines. */
Test(input, a_line_of_100_MB_takes_no_memory)
{
    const char *path = scratch_path(&s, "long.jsonl");
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    ssize_t n = (ssize_t)strlen(LINE("a")) + 1;
    cr_assert_eq(write(fd, LINE("a") "\n", (size_t)n), n);
    cr_assert_eq(pwrite(fd, "\n" LINE("b"), (size_t)n, 100000000), n);
    close(fd);
    const pl_input_params params = {.path = path, .most_bytes = 1000000};
    pl_input *input;
    long before = peak_kb();
    cr_assert_eq(pl_input_open(&params, &input, NULL), PL_OK);
    cr_assert_lt(peak_kb() - before, 50000);
    cr_assert_eq(pl_input_lines(input), 3);
    expect_line(input, 0, 1, LINE("a"));
    expect_fault(input, 1, "line_too_long", NULL, "has 99999912 bytes, at most 1000000");
    expect_line(input, 2, 3, LINE("b"));
    pl_input_free(input);
}

Test(input, lines_longer_than_what_is_read_at_once_are_whole)
{
    size_t size = 3000000, n = 5;
    char *text = malloc(n * (size + 1)), *read;
    for (size_t i = 0; i < n; i++) {
        char *line = text + i * (size + 1);
        memset(line, 'a' + (int)i, size);
        int head = snprintf(
            line, size,
            "{\"custom_id\": \"%zu\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {\"prompt\": \"",
            i);
        line[head] = 'x';
        memcpy(line + size - 3, "\"}}\n", 4);
    }
    pl_input *input = open_bytes(text, n * (size + 1), 0);
    cr_assert_eq(pl_input_lines(input), (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        cr_assert_not(pl_input_is_faulty(input, (int64_t)i));
        cr_assert_eq(pl_input_read(input, (int64_t)i, &read, &bytes, NULL), PL_OK);
        cr_assert(bytes == size && memcmp(read, text + i * (size + 1), size) == 0);
        free(read);
    }
    pl_input_free(input);
    free(text);
}

Test(input, a_pool_finds_the_same)
{
    char *text = NULL;
    size_t size, n_alone, n_pool;
    uint32_t *alone, *pool_order;
    pl_pool *pool;
    FILE *file = open_memstream(&text, &size);
    for (int i = 0; i < 3000; i++)
        fprintf(file, i % 7 ? LINE("id-%d") "\n" : "bad %d\n", i % 2900);
    fclose(file);
    cr_assert_eq(pl_pool_create(3, NULL, &pool, NULL), PL_OK);
    pl_input *a = open_text(text), *b;
    const pl_input_params params = {.path = scratch_path(&s, "in.jsonl"), .pool = pool};
    cr_assert_eq(pl_input_open(&params, &b, NULL), PL_OK);
    cr_assert_eq(pl_input_fingerprint(a), pl_input_fingerprint(b));
    for (int i = 0; i < 3000; i++)
        cr_assert_eq(pl_input_is_faulty(a, i), pl_input_is_faulty(b, i));
    cr_assert_eq(pl_input_order(a, &alone, &n_alone, NULL), PL_OK);
    cr_assert_eq(pl_input_order(b, &pool_order, &n_pool, NULL), PL_OK);
    cr_assert_eq(n_alone, n_pool);
    cr_assert_arr_eq(alone, pool_order, n_alone * sizeof *alone);
    free(alone);
    free(pool_order);
    pl_input_free(a);
    pl_input_free(b);
    pl_pool_free(pool);
    free(text);
}

Test(input, order_leaves_faulty_lines_out)
{
    uint32_t *order;
    size_t n;
    pl_input *input = open_text(LINE("a") "\nbad\n" LINE("a") "\n" LINE("longer") "\n");
    cr_assert_eq(pl_input_order(input, &order, &n, NULL), PL_OK);
    cr_assert_eq(n, 2);
    cr_assert_eq(order[0], 3);
    cr_assert_eq(order[1], 0);
    free(order);
    pl_input_free(input);
}

Test(input, a_file_that_was_cut_is_an_error)
{
    char *text;
    size_t n;
    pl_error err;
    pl_line_fault fault;
    pl_input *input = open_text(LINE("a") "\n" LINE("b") "\nbad\n");
    cr_assert_eq(truncate(scratch_path(&s, "in.jsonl"), (off_t)strlen(LINE("a")) + 3), 0);
    cr_assert_eq(pl_input_read(input, 0, &text, &n, NULL), PL_OK);
    free(text);
    expect_failure(pl_input_read(input, 1, &text, &n, &err), PL_ERR_IO, &err, WORDS("in.jsonl", "ends at byte"));
    expect_failure(pl_input_fault(input, 2, &fault, &text, &err), PL_ERR_IO, &err, WORDS("in.jsonl"));
    pl_input_free(input);
}

Test(input, a_faulty_line_that_was_changed_is_an_error)
{
    char *id;
    pl_error err;
    pl_line_fault fault;
    char text[] = LINE("a") "\n" LINE("b") "\n";
    text[strlen(LINE("a")) + 1] = '[';
    pl_input *input = open_text(text);
    scratch_text(&s, "in.jsonl", LINE("a") "\n" LINE("b") "\n");
    expect_failure(pl_input_fault(input, 1, &fault, &id, &err), PL_ERR_IO, &err, WORDS("line 2 has changed"));
    pl_input_free(input);
}

Test(input, refuses_what_is_no_file)
{
    pl_error err;
    pl_input *input;
    pl_input_params params = {.path = scratch_path(&s, "nothing")};
    expect_failure(pl_input_open(&params, &input, &err), PL_ERR_IO, &err, WORDS("nothing", "No such file"));
    params.path = s.dir;
    expect_failure(pl_input_open(&params, &input, &err), PL_ERR_IO, &err, WORDS("is a folder"));
    params.most_bytes = (size_t)2 << 30;
    expect_failure(pl_input_open(&params, &input, &err), PL_ERR_ARGUMENT, &err, WORDS("2147483648"));
}

static pl_status open_and_order(void *ctx, pl_error *err)
{
    const pl_input_params params = {.path = ctx};
    pl_input *input;
    uint32_t *order;
    size_t n;
    PL_TRY(pl_input_open(&params, &input, err));
    pl_status status = pl_input_order(input, &order, &n, err);
    if (status == PL_OK)
        free(order);
    pl_line_fault fault;
    char *id = NULL;
    if (status == PL_OK)
        status = pl_input_fault(input, 1, &fault, &id, err);
    free(id);
    if (status == PL_OK)
        status = pl_input_fault(input, 2, &fault, &id, err);
    pl_input_free(input);
    return status;
}

Test(input, no_memory)
{
    char *path = strdup(scratch_text(&s, "in.jsonl", LINE("a") "\n{\"custom_id\": \"b\"}\n" LINE("a") "\n"));
    cr_assert_gt(fail_alloc_each(open_and_order, path), 10);
    free(path);
}
