#include "host/batch/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "host/batch/file_io.h"

#define VERSION 1
#define SLOTS 4096 /* read at once */

static const char magic[8] = "PLDBATCH";

typedef struct head {
    char magic[8];
    uint32_t version, settings_bytes;
    uint64_t fingerprint, lines;
} head;

typedef struct slot {
    pl_journal_entry entry;
    uint64_t check;
} slot;

_Static_assert(sizeof(head) == 32 && sizeof(slot) == 48, "the file's layout has no gaps");

#define MOST_HEAD_BYTES (sizeof(head) + PL_JOURNAL_SETTINGS_BYTES + sizeof(uint64_t))

struct pl_journal {
    char *path;
    int fd;
    unsigned char *head; /* [head_bytes] as it should be */
    size_t head_bytes;
    uint64_t seed;    /* of entries */
    uint64_t entries; /* there, whole or not */
};

/* ---- opening and locking -------------------------------------------------------------------------- */

static pl_status make_head(pl_journal *j, const pl_journal_job *job, pl_error *err)
{
    size_t n = strlen(job->settings);
    if (n > PL_JOURNAL_SETTINGS_BYTES)
        return pl_fail(err, PL_ERR_ARGUMENT, "settings of %zu bytes are too long, at most %d are kept", n,
                       PL_JOURNAL_SETTINGS_BYTES);
    head h = {.version = VERSION,
              .settings_bytes = (uint32_t)n,
              .fingerprint = job->fingerprint,
              .lines = (uint64_t)job->lines};
    memcpy(h.magic, magic, sizeof magic);
    j->head_bytes = sizeof h + n + sizeof j->seed;
    j->head = malloc(j->head_bytes);
    if (!j->head)
        return pl_fail_memory(err, j->head_bytes, "the journal's head");
    memcpy(j->head, &h, sizeof h);
    memcpy(j->head + sizeof h, job->settings, n);
    j->seed = XXH3_64bits(j->head, sizeof h + n);
    memcpy(j->head + sizeof h + n, &j->seed, sizeof j->seed);
    return PL_OK;
}

/* Whether the path leads to the file that is open: whoever had it locked before may have removed it. */
static bool is_there(const pl_journal *j)
{
    struct stat open_file, named;
    return fstat(j->fd, &open_file) == 0 && stat(j->path, &named) == 0 && open_file.st_dev == named.st_dev &&
           open_file.st_ino == named.st_ino;
}

static pl_status fail_busy(const pl_journal *j, pl_error *err)
{
    return pl_fail(err, PL_ERR_BUSY, "%s: another process works on this output", j->path);
}

/* File systems that know no locks are used without. */
static pl_status lock(pl_journal *j, pl_error *err)
{
    struct stat info;
    if (fstat(j->fd, &info) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot read: %s", j->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is not a regular file", j->path);
    int got;
    while ((got = flock(j->fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR)
        ;
    if ((got != 0 && errno == EWOULDBLOCK) || !is_there(j))
        return fail_busy(j, err);
    return PL_OK;
}

static pl_status open_file(pl_journal *j, bool create, pl_error *err)
{
    int how = create ? O_CREAT | O_EXCL : 0;
    j->fd = open(j->path, O_RDWR | O_CLOEXEC | O_NONBLOCK | how, 0666);
    if (j->fd >= 0)
        return lock(j, err);
    if (create && errno == EEXIST)
        return fail_busy(j, err);
    if (!create && errno == ENOENT)
        return PL_OK;
    return pl_fail(err, PL_ERR_IO, "%s: cannot %s: %s", j->path, create ? "write" : "open", strerror(errno));
}

pl_status pl_journal_open(const char *path, const pl_journal_job *job, bool create, pl_journal **out, pl_error *err)
{
    *out = NULL;
    pl_journal *j = calloc(1, sizeof *j);
    if (!j)
        return pl_fail_memory(err, sizeof *j, "the journal");
    j->fd = -1;
    j->path = strdup(path);
    pl_status status = j->path ? make_head(j, job, err) : pl_fail_memory(err, strlen(path), "the journal's path");
    if (status == PL_OK)
        status = open_file(j, create, err);
    if (status == PL_OK && j->fd >= 0)
        *out = j;
    else
        pl_journal_close(j);
    return status;
}

void pl_journal_close(pl_journal *journal)
{
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd);
    free(journal->head);
    free(journal->path);
    free(journal);
}

/* ---- the head ------------------------------------------------------------------------------------- */

static uint64_t slot_offset(const pl_journal *j, uint64_t index)
{
    return j->head_bytes + index * sizeof(slot);
}

static bool slot_holds(const pl_journal *j, const slot *s)
{
    return XXH3_64bits_withSeed(&s->entry, sizeof s->entry, j->seed) == s->check;
}

static pl_status write_head(const pl_journal *j, pl_error *err)
{
    PL_TRY(pl_file_write(j->fd, j->path, 0, j->head, j->head_bytes, err));
    return pl_file_sync(j->fd, j->path, err);
}

pl_status pl_journal_begin(pl_journal *journal, pl_error *err)
{
    journal->entries = 0;
    if (ftruncate(journal->fd, 0) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", journal->path, strerror(errno));
    PL_TRY(write_head(journal, err));
    return pl_folder_sync(journal->path, err);
}

/* Whether somebody was stopped while he wrote this head: its beginning, then nothing or zeros. */
static bool is_unbegun(const pl_journal *j, const unsigned char *bytes, size_t n)
{
    if (n > j->head_bytes)
        return false;
    size_t same = 0;
    while (same < n && bytes[same] == j->head[same])
        same++;
    while (same < n && bytes[same] == 0)
        same++;
    return same == n;
}

static pl_status tell_difference(const pl_journal *j, const head *h, const char *settings, pl_error *err)
{
    head mine;
    memcpy(&mine, j->head, sizeof mine);
    if (h->fingerprint != mine.fingerprint || h->lines != mine.lines)
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "%s: is of another input, of %" PRIu64 " lines, or the input has changed since; it has %" PRIu64
                       " lines now. Finish the job with that input, or start anew with --overwrite",
                       j->path, h->lines, mine.lines);
    return pl_fail(err, PL_ERR_ARGUMENT,
                   "%s: was begun with \"%.*s\", this is \"%.*s\". Finish the job as it was begun, or start anew with "
                   "--overwrite",
                   j->path, (int)h->settings_bytes, settings, (int)mine.settings_bytes,
                   (const char *)j->head + sizeof mine);
}

/* bytes: what there is of a head that is not the one we would write. */
static pl_status refuse_head(const pl_journal *j, const unsigned char *bytes, size_t n, pl_error *err)
{
    head h;
    uint64_t check;
    if (n < sizeof h || memcmp(bytes, magic, sizeof magic) != 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: is not the journal of a batch; --overwrite replaces it", j->path);
    memcpy(&h, bytes, sizeof h);
    if (h.version != VERSION)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s: is a journal of version %u, expected %d. Finish the job with the program that began it, or "
                       "start anew with --overwrite",
                       j->path, h.version, VERSION);
    size_t covered = sizeof h + (size_t)h.settings_bytes;
    if (covered + sizeof check <= n) {
        memcpy(&check, bytes + covered, sizeof check);
        if (check == XXH3_64bits(bytes, covered))
            return tell_difference(j, &h, (const char *)bytes + sizeof h, err);
    }
    return pl_fail(err, PL_ERR_FORMAT, "%s: its head is damaged, and no entry vouches for it; --overwrite starts anew",
                   j->path);
}

static pl_status find_entry(void *user, uint64_t index, const pl_journal_entry *entry, bool *keep, pl_error *err)
{
    (void)index;
    (void)keep;
    (void)err;
    *(bool *)user |= entry != NULL;
    return PL_OK;
}

static pl_status check_head(pl_journal *j, size_t size, pl_journal_state *state, pl_error *err)
{
    unsigned char found[MOST_HEAD_BYTES];
    size_t n = size < sizeof found ? size : sizeof found;
    bool vouched = false;
    PL_TRY(pl_file_read(j->fd, j->path, 0, found, n, err));
    if (n >= j->head_bytes && memcmp(found, j->head, j->head_bytes) == 0)
        return PL_OK;
    *state = PL_JOURNAL_UNBEGUN;
    if (is_unbegun(j, found, size))
        return PL_OK;
    PL_TRY(pl_journal_each(j, find_entry, &vouched, err));
    if (!vouched)
        return refuse_head(j, found, n, err);
    *state = PL_JOURNAL_REPAIRED;
    return write_head(j, err);
}

pl_status pl_journal_check(pl_journal *journal, pl_journal_state *state, pl_error *err)
{
    struct stat info;
    if (fstat(journal->fd, &info) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot read: %s", journal->path, strerror(errno));
    size_t size = (size_t)info.st_size, behind = size > journal->head_bytes ? size - journal->head_bytes : 0;
    journal->entries = behind / sizeof(slot);
    *state = PL_JOURNAL_WHOLE;
    return check_head(journal, size, state, err);
}

/* ---- entries -------------------------------------------------------------------------------------- */

static pl_status put_slot(const pl_journal *j, uint64_t index, const pl_journal_entry *entry, pl_error *err)
{
    slot s = {.entry = *entry};
    s.check = XXH3_64bits_withSeed(&s.entry, sizeof s.entry, j->seed);
    return pl_file_write(j->fd, j->path, slot_offset(j, index), &s, sizeof s, err);
}

static pl_status show_slot(pl_journal *j, uint64_t index, const slot *s, pl_journal_fn fn, void *user, pl_error *err)
{
    static const pl_journal_entry nothing = {.line = PL_JOURNAL_VOID};
    bool keep = true;
    bool holds = slot_holds(j, s);
    if (holds && s->entry.line == PL_JOURNAL_VOID)
        return PL_OK;
    PL_TRY(fn(user, index, holds ? &s->entry : NULL, &keep, err));
    return keep ? PL_OK : put_slot(j, index, &nothing, err);
}

pl_status pl_journal_each(pl_journal *journal, pl_journal_fn fn, void *user, pl_error *err)
{
    slot *slots = malloc(SLOTS * sizeof *slots);
    if (!slots)
        return pl_fail_memory(err, SLOTS * sizeof *slots, "reading the journal");
    pl_status status = PL_OK;
    for (uint64_t at = 0; at < journal->entries && status == PL_OK; at += SLOTS) {
        uint64_t left = journal->entries - at;
        size_t n = left < SLOTS ? (size_t)left : SLOTS;
        status = pl_file_read(journal->fd, journal->path, slot_offset(journal, at), slots, n * sizeof *slots, err);
        for (size_t i = 0; i < n && status == PL_OK; i++)
            status = show_slot(journal, at + i, &slots[i], fn, user, err);
    }
    free(slots);
    return status;
}

uint64_t pl_journal_entries(const pl_journal *journal)
{
    return journal->entries;
}

pl_status pl_journal_add(pl_journal *journal, const pl_journal_entry *entry, pl_error *err)
{
    PL_TRY(put_slot(journal, journal->entries, entry, err));
    journal->entries++;
    return PL_OK;
}

pl_status pl_journal_sync(pl_journal *journal, pl_error *err)
{
    return pl_file_sync(journal->fd, journal->path, err);
}

pl_status pl_journal_remove(pl_journal *journal, pl_error *err)
{
    if (unlink(journal->path) != 0 && errno != ENOENT)
        return pl_fail(err, PL_ERR_IO, "%s: cannot remove: %s", journal->path, strerror(errno));
    return PL_OK;
}
