/* What pl_gguf_writer writes, pl_gguf_parse() reads back. */
#define _GNU_SOURCE
#include "host/model/gguf_writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "host/base/mapfile.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

static scratch s;
static pl_gguf_writer *w;
static pl_arena *arena;
static pl_error err;
static const char *path;

static void setup(void)
{
    scratch_open(&s);
    path = strdup(scratch_path(&s, "m.gguf"));
    cr_assert_eq(pl_gguf_writer_create(&w, &err), PL_OK);
    cr_assert_eq(pl_arena_create(1 << 16, &arena, NULL), PL_OK);
}

static void teardown(void)
{
    pl_gguf_writer_free(w);
    pl_arena_free(arena);
    unlink(path);
    free((char *)(uintptr_t)path);
    scratch_close(&s);
}

TestSuite(gguf_writer, .init = setup, .fini = teardown);

/* Files in the folder. */
static int n_files(void)
{
    DIR *dir = opendir(s.dir);
    int n = 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static void declare(pl_gguf_writer *writer, const char *name, pl_dtype type, int64_t rows, int64_t cols)
{
    int64_t dims[] = {rows, cols};
    pl_gguf_declare(writer, name, type, rows == 1 ? dims + 1 : dims, rows == 1 ? 1 : 2);
}

static void begin(void)
{
    cr_assert_eq(pl_gguf_writer_begin(w, path, &err), PL_OK, "%s", err.message);
}

static void append(const void *data, size_t n)
{
    cr_assert_eq(pl_gguf_writer_append(w, data, n, &err), PL_OK, "%s", err.message);
}

static void commit(void)
{
    cr_assert_eq(pl_gguf_writer_commit(w, &err), PL_OK, "%s", err.message);
}

static pl_gguf parse(pl_mapfile *file)
{
    pl_gguf out;
    cr_assert_eq(pl_mapfile_open(path, file, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_gguf_parse(file->data, file->size, path, arena, &out, &err), PL_OK, "%s", err.message);
    cr_assert_eq(file->size, pl_gguf_writer_bytes(w));
    return out;
}

static void put_one_of_each(pl_gguf_writer *writer)
{
    static const char *const texts[] = {"one", "", "three\n"};
    static const size_t bytes[] = {3, 0, 6};
    static const int16_t numbers[] = {-1, 2, 300};
    pl_gguf_put_u32(writer, "a.u32", 4000000000u);
    pl_gguf_put_i32(writer, "a.i32", -7);
    pl_gguf_put_f32(writer, "a.f32", 0.1f);
    pl_gguf_put_bool(writer, "a.bool", true);
    pl_gguf_put_text(writer, "a.text", "gemma3n");
    pl_gguf_put_bytes(writer, "a.bytes", "a\0b", 3);
    pl_gguf_put_array(writer, "a.array", PL_GGUF_I16, numbers, 3);
    pl_gguf_put_array(writer, "a.empty", PL_GGUF_F32, NULL, 0);
    pl_gguf_put_texts(writer, "a.texts", texts, bytes, 3);
}

static const pl_gguf_value *find(const pl_gguf *file, const char *key)
{
    const pl_gguf_value *value = pl_gguf_find(file, key);
    cr_assert_not_null(value, "%s", key);
    return value;
}

static void check_one_of_each(const pl_gguf *file)
{
    int number = 0;
    float f = 0;
    bool b = false;
    cr_assert_eq(file->n_values, 9);
    cr_assert_eq(pl_gguf_integer_at(find(file, "a.u32"), 0), 4000000000);
    cr_assert_eq(find(file, "a.u32")->type, PL_GGUF_U32);
    cr_assert_eq(pl_gguf_int(file, "a.i32", -10, 10, &number, &err), PL_OK);
    cr_assert_eq(number, -7);
    cr_assert_eq(find(file, "a.i32")->type, PL_GGUF_I32);
    cr_assert_eq(pl_gguf_float(file, "a.f32", &f, &err), PL_OK);
    cr_assert_eq(f, 0.1f);
    cr_assert_eq(pl_gguf_bool(file, "a.bool", &b, &err), PL_OK);
    cr_assert(b);
    cr_assert_eq(find(file, "a.text")->n, 7);
    cr_assert_arr_eq(find(file, "a.text")->data, "gemma3n", 7);
    cr_assert_eq(find(file, "a.bytes")->n, 3);
    cr_assert_arr_eq(find(file, "a.bytes")->data, "a\0b", 3);
    cr_assert_eq(find(file, "a.array")->n, 3);
    cr_assert_eq(pl_gguf_integer_at(find(file, "a.array"), 2), 300);
    cr_assert(find(file, "a.empty")->is_array);
    cr_assert_eq(find(file, "a.empty")->n, 0);
    cr_assert_eq(find(file, "a.texts")->n, 3);
    cr_assert_arr_eq(find(file, "a.texts")->data, "\3\0\0\0\0\0\0\0one\0\0\0\0\0\0\0\0\6\0\0\0\0\0\0\0three\n", 33);
}

Test(gguf_writer, keys_read_back)
{
    pl_mapfile file;
    put_one_of_each(w);
    begin();
    commit();
    pl_gguf out = parse(&file);
    check_one_of_each(&out);
    cr_assert_eq(out.tensors.n, 0);
    pl_mapfile_close(&file);
}

Test(gguf_writer, values_of_a_read_file_are_put_as_they_are)
{
    pl_mapfile file, again;
    put_one_of_each(w);
    begin();
    commit();
    pl_gguf out = parse(&file);
    pl_gguf_writer *second = NULL;
    cr_assert_eq(pl_gguf_writer_create(&second, &err), PL_OK);
    for (size_t i = 0; i < out.n_values; i++)
        pl_gguf_put_value(second, &out.values[i]);
    cr_assert_eq(pl_gguf_writer_begin(second, path, &err), PL_OK);
    cr_assert_eq(pl_gguf_writer_commit(second, &err), PL_OK);
    pl_gguf copy = parse(&again);
    check_one_of_each(&copy);
    pl_gguf_writer_free(second);
    pl_mapfile_close(&again);
    pl_mapfile_close(&file);
}

static void fill(unsigned char *data, size_t n, int seed)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (unsigned char)(i * 31 + (size_t)seed);
}

Test(gguf_writer, tensors_read_back)
{
    static const int64_t stacked[] = {3, 2, 5};
    unsigned char vector[7 * 4], matrix[3 * 36], cube[30 * 2];
    pl_mapfile file;
    fill(vector, sizeof vector, 1);
    fill(matrix, sizeof matrix, 2);
    fill(cube, sizeof cube, 3);
    pl_gguf_put_u32(w, "k", 1);
    declare(w, "vector", PL_F32, 1, 7);
    declare(w, "none", PL_F32, 0, 5);
    declare(w, "matrix", PL_Q4_0, 3, 64);
    pl_gguf_declare(w, "cube", PL_F16, stacked, 3);
    begin();
    append(vector, sizeof vector);
    for (size_t i = 0; i < 3; i++)
        append(matrix + 36 * i, 36);
    append(cube, 1);
    append(cube + 1, sizeof cube - 1);
    cr_assert_eq(access(path, F_OK), -1, "the file is there before it is whole");
    commit();
    pl_gguf out = parse(&file);
    cr_assert_eq(out.tensors.n, 4);
    const pl_entry *t = out.tensors.items;
    cr_assert_str_eq(t[0].name, "vector");
    cr_assert_eq(t[0].n_dims, 1);
    cr_assert_arr_eq(t[0].data, vector, sizeof vector);
    cr_assert_eq(t[1].bytes, 0);
    cr_assert_eq(t[2].type, PL_Q4_0);
    cr_assert_eq(t[2].dims[0], 3);
    cr_assert_eq(t[2].dims[1], 64);
    cr_assert_arr_eq(t[2].data, matrix, sizeof matrix);
    cr_assert_eq(t[3].n_dims, 3);
    cr_assert_eq(t[3].dims[0], 3);
    cr_assert_eq(t[3].dims[2], 5);
    cr_assert_arr_eq(t[3].data, cube, sizeof cube);
    for (int i = 0; i < 4; i++)
        cr_assert(!t[i].data || (size_t)(t[i].data - file.data) % 32 == 0);
    cr_assert_eq(file.size % 32, 0);
    pl_mapfile_close(&file);
}

Test(gguf_writer, many_keys_and_tensors)
{
    pl_mapfile file;
    char name[32];
    float one = 1;
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "k%u", (i * 7919) % 1000);
        pl_gguf_put_u32(w, name, i);
        declare(w, name, PL_F32, 1, 1);
    }
    begin();
    for (int i = 0; i < 1000; i++)
        append(&one, sizeof one);
    commit();
    pl_gguf out = parse(&file);
    cr_assert_eq(out.n_values, 1000);
    cr_assert_eq(out.tensors.n, 1000);
    cr_assert_str_eq(out.tensors.items[1].name, "k919");
    pl_mapfile_close(&file);
}

static void refuses(const char *const *words)
{
    expect_failure(pl_gguf_writer_begin(w, path, &err), PL_ERR_ARGUMENT, &err, words);
    cr_assert_not_null(strstr(err.message, path));
    cr_assert_eq(n_files(), 0);
}

Test(gguf_writer, duplicate_keys_are_refused)
{
    pl_gguf_put_u32(w, "b", 1);
    pl_gguf_put_u32(w, "a", 1);
    pl_gguf_put_text(w, "b", "again");
    refuses(WORDS("key b", "twice"));
}

Test(gguf_writer, duplicate_tensors_are_refused)
{
    declare(w, "x", PL_F32, 1, 4);
    declare(w, "x", PL_F16, 2, 4);
    refuses(WORDS("tensor x", "twice"));
}

Test(gguf_writer, impossible_names_are_refused)
{
    pl_gguf_put_u32(w, "", 1);
    refuses(WORDS("name of a key"));
}

Test(gguf_writer, half_blocks_are_refused)
{
    declare(w, "x", PL_Q4_K, 2, 128);
    pl_gguf_put_u32(w, "", 1); /* the first trouble counts */
    refuses(WORDS("tensor x", "shape"));
}

Test(gguf_writer, shapes_that_overflow_are_refused)
{
    declare(w, "x", PL_F32, (int64_t)1 << 40, (int64_t)1 << 40);
    refuses(WORDS("tensor x", "shape"));
}

Test(gguf_writer, foreign_alignment_is_refused)
{
    pl_gguf_put_u32(w, "general.alignment", 64);
    refuses(WORDS("general.alignment"));
}

Test(gguf_writer, a_missing_folder_is_told)
{
    const char *nowhere = scratch_path(&s, "none/m.gguf");
    expect_failure(pl_gguf_writer_begin(w, nowhere, &err), PL_ERR_IO, &err, WORDS(nowhere, "No such file"));
}

Test(gguf_writer, a_full_disk_is_told)
{
    static const unsigned char zeros[1 << 16];
    pl_status status;
    declare(w, "x", PL_F32, 1024, 1024);
    status = pl_gguf_writer_begin(w, "/dev/full", &err);
    for (int i = 0; status == PL_OK && i < 64; i++)
        status = pl_gguf_writer_append(w, zeros, sizeof zeros, &err);
    if (status == PL_OK)
        status = pl_gguf_writer_commit(w, &err);
    expect_failure(status, PL_ERR_IO, &err, WORDS("/dev/full", "No space left"));
}

Test(gguf_writer, giving_up_leaves_the_old_file)
{
    size_t n;
    scratch_text(&s, "m.gguf", "old");
    declare(w, "x", PL_F32, 1, 4);
    begin();
    append("12345678", 8);
    pl_gguf_writer_free(w);
    w = NULL;
    cr_assert_eq(n_files(), 1);
    char *text = read_file(path, &n);
    cr_assert_str_eq(text, "old");
    free(text);
}

Test(gguf_writer, a_killed_program_leaves_no_file_of_that_name)
{
    pid_t child = fork();
    if (child == 0) {
        declare(w, "x", PL_F32, 1, 4);
        if (pl_gguf_writer_begin(w, path, NULL) != PL_OK || pl_gguf_writer_append(w, "12345678", 8, NULL) != PL_OK)
            _exit(1);
        raise(SIGKILL);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    cr_assert_eq(access(path, F_OK), -1);
    char command[600];
    snprintf(command, sizeof command, "rm -f '%s'.*.tmp", path);
    cr_assert_eq(system(command), 0);
}

/* Without commit, which may do without the one allocation that it makes. */
static pl_status write_small(void *ctx, pl_error *e)
{
    pl_gguf_writer *writer = NULL;
    float x[4] = {0};
    pl_status status = pl_gguf_writer_create(&writer, e);
    if (status != PL_OK)
        return status;
    put_one_of_each(writer);
    declare(writer, "x", PL_F32, 1, 4);
    PL_TRY_GOTO(pl_gguf_writer_begin(writer, ctx, e));
    status = pl_gguf_writer_append(writer, x, sizeof x, e);
fail:
    pl_gguf_writer_free(writer);
    return status;
}

Test(gguf_writer, every_allocation_may_fail)
{
    static char name[512];
    snprintf(name, sizeof name, "%s", path);
    cr_assert_geq(fail_alloc_each(write_small, name), 8);
    cr_assert_eq(n_files(), 0);
}
