/* The journal of a batch: which result lies where in a file that grows beside it. Little-endian:
 *
 *     "PLDBATCH" | uint32 version, settings_bytes | uint64 fingerprint, lines | settings | uint64 check
 *     entry[]: uint64 line, offset, sum | uint32 bytes, failed, prompt_tokens, answer_tokens | uint64 check
 *
 * An entry's check has the head's as its seed, so that it vouches for the head, too: where that is damaged it is written again.
 * Entries have one size, so that one that is damaged hides no other. Entries are only added; one that does not hold is voided in its
 * place. As long as it is open the file is locked: a second process is refused. */
#ifndef PL_BATCH_JOURNAL_H
#define PL_BATCH_JOURNAL_H

#include "host/base/status.h"

#define PL_JOURNAL_SETTINGS_BYTES 4096 /* most */

/* What a journal belongs to. */
typedef struct pl_journal_job {
    uint64_t fingerprint; /* of the input */
    int64_t lines;
    const char *settings; /* whatever else results depend on, one line of text for people, too; borrowed */
} pl_journal_job;

typedef struct pl_journal_entry {
    uint64_t line;        /* counted from 0, or one of those below */
    uint64_t offset, sum; /* of the result: where it begins, XXH3 of its bytes */
    uint32_t bytes, failed;
    uint32_t prompt_tokens, answer_tokens;
} pl_journal_entry;

#define PL_JOURNAL_VOID UINT64_MAX /* nothing */
#define PL_JOURNAL_FINISHED                                                                                            \
    (UINT64_MAX - 1) /* the output is whole: offset and sum are its size and that of all of it */

typedef struct pl_journal pl_journal;

/* PL_ERR_BUSY: another process has it. *out is NULL where there is no such file and `create` is false, and where there was one
 * already and it is true: PL_ERR_BUSY as well. */
pl_status pl_journal_open(const char *path, const pl_journal_job *job, bool create, pl_journal **out, pl_error *err);
void pl_journal_close(pl_journal *journal); /* NULL: nothing */

/* Starts it anew, empty, on the disk when this returns. */
pl_status pl_journal_begin(pl_journal *journal, pl_error *err);

/* What opening found. */
typedef enum pl_journal_state {
    PL_JOURNAL_WHOLE,
    PL_JOURNAL_REPAIRED, /* its head was damaged, and is whole again */
    PL_JOURNAL_UNBEGUN,  /* whoever wanted to begin it was killed: it holds nothing */
} pl_journal_state;

/* Checks that it is this job's. PL_ERR_ARGUMENT: it is another one's, PL_ERR_FORMAT: it is no journal, or has no head any more,
 * PL_ERR_UNSUPPORTED: of another version. A last entry that is not whole does not count, and is written over. */
pl_status pl_journal_check(pl_journal *journal, pl_journal_state *state, pl_error *err);

/* After check: each entry in turn, but void ones. `entry` is NULL for one that is damaged; *keep = false voids it. */
typedef pl_status (*pl_journal_fn)(void *user, uint64_t index, const pl_journal_entry *entry, bool *keep,
                                   pl_error *err);
pl_status pl_journal_each(pl_journal *journal, pl_journal_fn fn, void *user, pl_error *err);
uint64_t pl_journal_entries(const pl_journal *journal); /* void ones, too */

/* Behind all others. Where it fails nothing was added: what was half written does not count. */
pl_status pl_journal_add(pl_journal *journal, const pl_journal_entry *entry, pl_error *err);
pl_status pl_journal_sync(pl_journal *journal, pl_error *err); /* to the disk; beside the other calls, too */

/* The file goes; where it is there again after a power cut, the next job ends at once. It stays locked until it is closed. */
pl_status pl_journal_remove(pl_journal *journal, pl_error *err);

#endif
