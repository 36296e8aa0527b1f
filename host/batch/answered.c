#include "host/batch/answered.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/batch/file_io.h"
#include "host/batch/record.h"

typedef char record_id[PL_RECORD_ID_BYTES];

static bool is_regular(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static pl_status has_journal(const char *out, bool *has, pl_error *err)
{
    char *path = pl_file_beside(out, ".journal");
    if (!path)
        return pl_fail(err, errno == ENOMEM ? PL_ERR_MEMORY : PL_ERR_IO, "%s: %s", out, strerror(errno));
    *has = is_regular(path);
    free(path);
    return PL_OK;
}

/* ---- ids that should be there, and that are ---- */

static pl_status expect_id(const pl_input *input, int64_t line, uint64_t seed, record_id id, pl_error *err)
{
    if (pl_input_is_faulty(input, line)) {
        uint64_t job = pl_input_fingerprint(input);
        pl_record_id(seed, line, (const char *)&job, sizeof job, id);
        return PL_OK;
    }
    char *text;
    size_t n;
    PL_TRY(pl_input_read(input, line, &text, &n, err));
    pl_record_id(seed, line, text, n, id);
    free(text);
    return PL_OK;
}

/* {"id":"batch_req_...", as record.c begins all lines, and an end of line. */
static bool find_id(const char *text, size_t n, record_id id)
{
    static const char head[] = "{\"id\":\"";
    size_t begin = sizeof head - 1, end = begin + sizeof(record_id) - 1;
    if (n <= end || memcmp(text, head, begin) != 0 || text[end] != '"' || text[n - 1] != '\n')
        return false;
    memcpy(id, text + begin, sizeof(record_id) - 1);
    id[sizeof(record_id) - 1] = '\0';
    return true;
}

/* *found: the lines of the file where there are `most` of them and each has an id, else -1. */
static pl_status read_ids(FILE *file, const char *path, record_id *ids, int64_t most, int64_t *found, pl_error *err)
{
    char *text = NULL;
    size_t room = 0;
    ssize_t n;
    int64_t at = 0;
    bool good = true;
    errno = 0;
    while (good && (n = getline(&text, &room, file)) >= 0) {
        good = at < most && find_id(text, (size_t)n, ids[at]);
        at++;
    }
    pl_status status = ferror(file) || errno == ENOMEM
                           ? pl_fail(err, PL_ERR_IO, "%s: cannot read: %s", path, strerror(errno))
                           : PL_OK;
    *found = good ? at : -1;
    free(text);
    return status;
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(record_id));
}

/* ids: room for twice as many as there are lines. */
static pl_status compare(FILE *file, const char *path, const pl_input *input, uint64_t seed, record_id *ids, bool *same,
                         pl_error *err)
{
    int64_t lines = pl_input_lines(input), found;
    record_id *expected = ids + lines;
    PL_TRY(read_ids(file, path, ids, lines, &found, err));
    if (found != lines)
        return PL_OK;
    for (int64_t i = 0; i < lines; i++)
        PL_TRY(expect_id(input, i, seed, expected[i], err));
    qsort(ids, (size_t)lines, sizeof *ids, compare_ids);
    qsort(expected, (size_t)lines, sizeof *expected, compare_ids);
    *same = memcmp(ids, expected, (size_t)lines * sizeof *ids) == 0;
    return PL_OK;
}

pl_status pl_batch_is_answered(const char *out, const pl_input *input, uint64_t seed, bool *is, pl_error *err)
{
    bool goes_on = false;
    *is = false;
    PL_TRY(has_journal(out, &goes_on, err));
    if (goes_on || !is_regular(out))
        return PL_OK;
    size_t bytes = (2 * (size_t)pl_input_lines(input) + 1) * sizeof(record_id);
    record_id *ids = malloc(bytes);
    FILE *file = fopen(out, "re");
    pl_status status = PL_OK;
    if (!ids)
        status = pl_fail_memory(err, bytes, "the ids of results");
    else if (!file)
        status = pl_fail(err, PL_ERR_IO, "%s: cannot open: %s", out, strerror(errno));
    else
        status = compare(file, out, input, seed, ids, is, err);
    if (file)
        fclose(file);
    free(ids);
    return status;
}
