/* Any bytes as what an earlier process left of a job: a byte that says how long the part is and whether the journal's entries follow
 * as they are, or without their checks, which are made here; the part; the journal. The job goes on, or is refused. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/batch/journal.h"
#include "host/batch/results.h"

#define LINES 4
#define RECORD "{\"line\":%d}\n"
#define RECORD_BYTES 11

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Nothing here needs the disk. */
int fsync(int fd)
{
    (void)fd;
    return 0;
}

int fdatasync(int fd)
{
    (void)fd;
    return 0;
}

static char folder[] = "/tmp/pleiad-fuzz-XXXXXX", out[64], part[80], journal[80];

static void remove_all(void)
{
    remove(out);
    remove(part);
    remove(journal);
    remove(folder);
}

static void write_file(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    close(fd);
}

static const pl_results_params params = {.out = out, .fingerprint = 1, .lines = LINES, .settings = "fuzz"};

/* A journal with the entries of n bytes. */
static void write_entries(const uint8_t *data, size_t n)
{
    const pl_journal_job job = {.fingerprint = 1, .lines = LINES, .settings = "fuzz"};
    pl_journal *j;
    pl_journal_entry entry;
    remove(journal);
    if (pl_journal_open(journal, &job, true, &j, NULL) != PL_OK || pl_journal_begin(j, NULL) != PL_OK)
        abort();
    for (; n >= sizeof entry; data += sizeof entry, n -= sizeof entry) {
        memcpy(&entry, data, sizeof entry);
        if (pl_journal_add(j, &entry, NULL) != PL_OK)
            abort();
    }
    pl_journal_close(j);
}

/* What a checksum that holds vouches for need not be a record of ours; all others are. */
static void end_job(pl_results *results)
{
    for (int i = 0; i < LINES; i++) {
        char record[RECORD_BYTES + 1];
        snprintf(record, sizeof record, RECORD, i);
        const pl_work_result result = {.line = i, .record = record, .n = RECORD_BYTES};
        if (pl_results_add(results, &result, NULL, NULL) != PL_OK)
            abort();
    }
    uint64_t bytes = pl_results_count(results).bytes;
    if (pl_results_finish(results, bytes % 2, NULL) != PL_OK || pl_results_forget(results, NULL) != PL_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_results *results;
    if (size < 1)
        return 0;
    if (!*out) {
        if (!mkdtemp(folder))
            abort();
        snprintf(out, sizeof out, "%s/out", folder);
        snprintf(part, sizeof part, "%s.part", out);
        snprintf(journal, sizeof journal, "%s.journal", out);
        atexit(remove_all);
    }
    size_t n_part = data[0] >> 1, left = size - 1;
    n_part = n_part < left ? n_part : left;
    remove(out);
    write_file(part, data + 1, n_part);
    if (data[0] & 1)
        write_entries(data + 1 + n_part, left - n_part);
    else
        write_file(journal, data + 1 + n_part, left - n_part);
    if (pl_results_open(&params, &results, NULL) == PL_OK) {
        end_job(results);
        pl_results_close(results);
    }
    return 0;
}
