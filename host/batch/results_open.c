#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "host/batch/file_io.h"
#include "host/batch/results_parts.h"
#include "host/batch/span_reader.h"

#define NOTES 8 /* damaged ones that are named one by one */
#define PROGRESS_EVERY 4096
#define PIECE_BYTES 65536

typedef struct opening {
    pl_results *r;
    const pl_results_params *params;
    pl_span_reader reader;
    uint64_t damaged;
    pl_journal_entry finished; /* bytes: 1 where there is such an entry */
} opening;

static void note(const opening *o, const char *fmt, ...) PL_PRINTF(2, 3);

static void note(const opening *o, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (o->params->note)
        o->params->note(o->params->note_user, text);
}

/* ---- names ---------------------------------------------------------------------------------------- */

static bool exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* Of what is there, links followed, so that it is replaced and not the link. */
static pl_status make_names(pl_results *r, const char *out, pl_error *err)
{
    struct stat info;
    if (stat(out, &info) == 0 && !S_ISREG(info.st_mode))
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "%s: is %s; the results of a batch need a file, which is kept with a journal "
                       "beside it until it is whole",
                       out, S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    r->out = pl_file_beside(out, "");
    if (!r->out && errno != ENOMEM)
        return pl_fail(err, PL_ERR_IO, "%s: %s", out, strerror(errno));
    r->part = r->out ? pl_file_beside(r->out, ".part") : NULL;
    r->journal_path = r->part ? pl_file_beside(r->out, ".journal") : NULL;
    return r->journal_path ? PL_OK : pl_fail_memory(err, strlen(out), "the names of the output");
}

static pl_status refuse_existing(const char *path, pl_error *err)
{
    if (!exists(path))
        return PL_OK;
    return pl_fail(err, PL_ERR_ARGUMENT, "%s: exists, and no journal of a job to go on with; --overwrite replaces it",
                   path);
}

/* ---- beginning ------------------------------------------------------------------------------------ */

static pl_status open_part(pl_results *r, int how, pl_error *err)
{
    struct stat info;
    r->fd = open(r->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | how, 0666);
    if (r->fd < 0 || fstat(r->fd, &info) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", r->part, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is not a regular file", r->part);
    return PL_OK;
}

/* The part goes before the journal does, so that no journal ever has another job's part. */
static pl_status begin(pl_results *r, pl_error *err)
{
    pl_status status = open_part(r, O_TRUNC, err);
    if (status == PL_OK)
        status = pl_journal_begin(r->journal, err);
    if (status != PL_OK) {
        (void)pl_journal_remove(r->journal, NULL);
        if (r->fd >= 0)
            (void)unlink(r->part);
    }
    return status;
}

/* ---- going on ------------------------------------------------------------------------------------- */

static pl_status note_damaged(opening *o, const char *what, uint64_t number)
{
    if (o->damaged++ < NOTES)
        note(o, "%s %" PRIu64 " is damaged; its line is done again", what, number);
    return PL_OK;
}

static pl_status find_finished(void *user, uint64_t index, const pl_journal_entry *entry, bool *keep, pl_error *err)
{
    (void)index;
    (void)keep;
    (void)err;
    opening *o = user;
    if (entry && entry->line == PL_JOURNAL_FINISHED) {
        o->finished = *entry;
        o->finished.bytes = 1;
    }
    return PL_OK;
}

static pl_status hash_file(pl_span_reader *reader, uint64_t *sum, pl_error *err)
{
    pl_status status = PL_OK;
    XXH3_state_t *hash = XXH3_createState();
    if (!hash)
        return pl_fail_memory(err, PIECE_BYTES, "checking the output");
    XXH3_64bits_reset(hash);
    for (uint64_t at = 0; at < reader->size && status == PL_OK; at += PIECE_BYTES) {
        const char *bytes;
        size_t n = reader->size - at < PIECE_BYTES ? (size_t)(reader->size - at) : PIECE_BYTES;
        status = pl_span_get(reader, at, n, &bytes, err);
        if (status == PL_OK)
            XXH3_64bits_update(hash, bytes, n);
    }
    *sum = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return status;
}

/* Whether OUT is what the journal says that it is. */
static pl_status check_finished(opening *o, bool *is, pl_error *err)
{
    *is = false;
    int fd = open(o->r->out, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return PL_OK;
    uint64_t sum = 0;
    pl_span_reader reader;
    pl_status status = pl_span_reader_open(fd, o->r->out, &reader, err);
    if (status == PL_OK) {
        bool right_size = reader.size == o->finished.offset;
        if (right_size)
            status = hash_file(&reader, &sum, err);
        *is = right_size && sum == o->finished.sum;
        pl_span_reader_close(&reader);
    }
    close(fd);
    return status;
}

static size_t done_bytes(const pl_results *r)
{
    return ((size_t)r->stats.lines / 64 + 1) * sizeof *r->done;
}

/* One entry of a job whose OUT is finished. */
static pl_status count_entry(void *user, uint64_t index, const pl_journal_entry *entry, bool *keep, pl_error *err)
{
    (void)index;
    (void)keep;
    (void)err;
    pl_results *r = user;
    if (entry && entry->line < (uint64_t)r->stats.lines && !pl_results_has(r, (int64_t)entry->line))
        pl_results_mark(r, entry);
    return PL_OK;
}

static void count_all(pl_results *r)
{
    memset(r->done, 0xff, done_bytes(r));
    r->stats.done = r->stats.lines;
}

/* Of a finished job nothing is missing, whatever became of the journal since. */
static pl_status count_entries(pl_results *r, pl_error *err)
{
    PL_TRY(pl_journal_each(r->journal, count_entry, r, err));
    count_all(r);
    return PL_OK;
}

/* Believes an entry where the bytes that it vouches for are there. */
static pl_status take_entry(void *user, uint64_t index, const pl_journal_entry *entry, bool *keep, pl_error *err)
{
    opening *o = user;
    pl_results *r = o->r;
    if (o->params->progress && index % PROGRESS_EVERY == 0)
        o->params->progress(o->params->progress_user, "checking what is done",
                            (double)index / (double)pl_journal_entries(r->journal));
    *keep = r->renamed;
    if (!entry)
        return note_damaged(o, "the journal's entry", index + 1);
    if (entry->line >= (uint64_t)r->stats.lines || pl_results_has(r, (int64_t)entry->line))
        return PL_OK;
    const char *bytes;
    PL_TRY(pl_span_get(&o->reader, entry->offset, entry->bytes, &bytes, err));
    if (!bytes || XXH3_64bits(bytes, entry->bytes) != entry->sum)
        return note_damaged(o, "the result of request", entry->line + 1);
    *keep = true;
    pl_results_mark(r, entry);
    if (entry->offset + entry->bytes > r->tail)
        r->tail = entry->offset + entry->bytes;
    return PL_OK;
}

/* Where it was killed when the part was OUT already, and only the journal was left to remove. */
static pl_status check_renamed(const opening *o, pl_error *err)
{
    const pl_results *r = o->r;
    if (r->stats.done == r->stats.lines && o->damaged == 0 && r->tail == o->reader.size)
        return PL_OK;
    return pl_fail(
        err, PL_ERR_ARGUMENT,
        "%s: exists, but is not what %s vouches for, and %s is gone; move it away to go on, or start anew with "
        "--overwrite",
        r->out, r->journal_path, r->part);
}

static pl_status open_what_is_there(opening *o, pl_error *err)
{
    pl_results *r = o->r;
    r->renamed = !exists(r->part) && exists(r->out);
    if (!r->renamed)
        PL_TRY(open_part(r, 0, err));
    else if ((r->fd = open(r->out, O_RDONLY | O_CLOEXEC)) < 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot open: %s", r->out, strerror(errno));
    return pl_span_reader_open(r->fd, r->renamed ? r->out : r->part, &o->reader, err);
}

static pl_status take_entries(opening *o, pl_error *err)
{
    pl_results *r = o->r;
    PL_TRY(open_what_is_there(o, err));
    PL_TRY(pl_journal_each(r->journal, take_entry, o, err));
    if (o->damaged > NOTES)
        note(o, "%s: %" PRIu64 " entries or results are damaged in all", r->journal_path, o->damaged);
    if (r->renamed)
        return check_renamed(o, err);
    if (o->reader.size > r->tail && ftruncate(r->fd, (off_t)r->tail) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", r->part, strerror(errno));
    return PL_OK;
}

static pl_status go_on(opening *o, pl_error *err)
{
    pl_results *r = o->r;
    PL_TRY(pl_journal_each(r->journal, find_finished, o, err));
    if (o->finished.bytes)
        PL_TRY(check_finished(o, &r->finished, err));
    if (r->finished)
        PL_TRY(count_entries(r, err));
    else
        PL_TRY(take_entries(o, err));
    r->stats.kept = r->stats.done;
    return PL_OK;
}

static pl_status open_files(opening *o, pl_error *err)
{
    pl_results *r = o->r;
    const pl_results_params *p = o->params;
    const pl_journal_job job = {.fingerprint = p->fingerprint, .lines = p->lines, .settings = p->settings};
    PL_TRY(make_names(r, p->out, err));
    if (p->answered) {
        count_all(r);
        r->stats.kept = r->stats.done;
        r->finished = true;
        return PL_OK;
    }
    PL_TRY(pl_journal_open(r->journal_path, &job, false, &r->journal, err));
    pl_journal_state state = PL_JOURNAL_UNBEGUN;
    if (r->journal && !p->overwrite)
        PL_TRY(pl_journal_check(r->journal, &state, err));
    if (state == PL_JOURNAL_REPAIRED)
        note(o, "%s: its head was damaged and is whole again", r->journal_path);
    if (state != PL_JOURNAL_UNBEGUN)
        return go_on(o, err);
    if (!p->overwrite)
        PL_TRY(refuse_existing(r->out, err));
    if (!p->overwrite && !r->journal)
        PL_TRY(refuse_existing(r->part, err));
    if (!r->journal)
        PL_TRY(pl_journal_open(r->journal_path, &job, true, &r->journal, err));
    return begin(r, err);
}

pl_status pl_results_open(const pl_results_params *params, pl_results **out, pl_error *err)
{
    pl_results *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, "the results");
    pthread_mutex_init(&r->lock, NULL);
    r->fd = -1;
    r->stats.lines = params->lines;
    r->done = calloc(1, done_bytes(r));
    opening o = {.r = r, .params = params};
    pl_status status = r->done ? open_files(&o, err) : pl_fail_memory(err, done_bytes(r), "the results");
    pl_span_reader_close(&o.reader);
    if (status == PL_OK)
        *out = r;
    else
        pl_results_close(r);
    return status;
}
