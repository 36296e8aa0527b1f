#define _GNU_SOURCE
#include "tests/unit/scratch.h"

#include <ftw.h>

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

void scratch_open(scratch *s)
{
    memset(s, 0, sizeof *s);
    cr_assert_geq(asprintf(&s->dir, "%s/pleiad-test-XXXXXX", P_tmpdir), 0);
    cr_assert_not_null(mkdtemp(s->dir));
}

void scratch_close(scratch *s)
{
    nftw(s->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    for (int i = 0; i < SCRATCH_PATHS; i++)
        free(s->path[i]);
    free(s->dir);
}

const char *scratch_path(scratch *s, const char *name)
{
    char **slot = &s->path[s->turn++ % SCRATCH_PATHS];
    free(*slot);
    cr_assert_geq(asprintf(slot, "%s/%s", s->dir, name), 0);
    return *slot;
}

const char *scratch_write(scratch *s, const char *name, const void *data, size_t n)
{
    const char *path = scratch_path(s, name);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fwrite(data, 1, n, file), n);
    cr_assert_eq(fclose(file), 0);
    return path;
}

const char *scratch_text(scratch *s, const char *name, const char *text)
{
    return scratch_write(s, name, text, strlen(text));
}

const char *scratch_copy(scratch *s, const char *name, const char *from)
{
    size_t n;
    char *data = read_file(from, &n);
    const char *path = scratch_write(s, name, data, n);
    free(data);
    return path;
}

char *read_file(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*n + 1);
    cr_assert_eq(fread(data, 1, *n, file), *n);
    data[*n] = '\0';
    fclose(file);
    return data;
}

unsigned char *exact_copy(const void *data, size_t n)
{
    unsigned char *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    return copy;
}

void expect_failure(pl_status got, pl_status expected, const pl_error *err, const char *const *words)
{
    cr_assert_neq(got, PL_OK, "succeeded, expected a failure that says '%s'", words[0] ? words[0] : "");
    cr_assert_eq(got, err->status, "returned '%s', the error holds '%s'", pl_status_name(got),
                 pl_status_name(err->status));
    cr_assert_eq(got, expected, "is '%s' (%s), expected '%s'", pl_status_name(got), err->message,
                 pl_status_name(expected));
    for (; *words; words++)
        cr_assert_not_null(strstr(err->message, *words), "message '%s' does not say '%s'", err->message, *words);
}
