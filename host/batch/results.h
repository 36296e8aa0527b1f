/* The results of a batch on their way to the disk: exactly one a line, whatever happens.
 *
 *     OUT.part     results in the order in which they came
 *     OUT.journal  vouches for them (journal.h): added after the result itself, believed only where the checksum of its bytes holds
 *     OUT          all of them; there when none is missing
 *
 * Whoever opens them again goes on where the last process was stopped: by a signal, a full disk, a power cut. What the journal does
 * not vouch for is cut off; what is damaged is told, and done again. At the end OUT.part becomes OUT; the journal goes as the last.
 *
 * Writing to a file beyond the process's limit sends SIGXFSZ, which the program ignores. */
#ifndef PL_BATCH_RESULTS_H
#define PL_BATCH_RESULTS_H

#include "host/batch/work.h"

typedef struct pl_results pl_results;

typedef struct pl_results_params {
    const char *out;      /* the path of the output */
    uint64_t fingerprint; /* of the input */
    int64_t lines;
    const char *settings; /* whatever else results depend on, for people to read: "demo.gguf, path e4b, seed 0" */
    bool overwrite;       /* what there is of an earlier job goes */
    bool answered;        /* OUT is whole and its journal gone (answered.h): nothing is left to do */
    void (*note)(void *user, const char *text); /* what was found damaged; during the call; may be NULL */
    void *note_user;
    pl_progress_fn progress; /* what is there is read once; may be NULL */
    void *progress_user;
} pl_results_params;

/* Begins, or goes on. PL_ERR_ARGUMENT: OUT exists and there is no journal, or it is of another input, or other settings. PL_ERR_BUSY:
 * another process works on it. Makes, reads and locks the files. */
pl_status pl_results_open(const pl_results_params *params, pl_results **out, pl_error *err);
void pl_results_close(pl_results *results); /* NULL: nothing. The files stay as they are */

/* The rest from any thread, but finish and forget, which end all that. */

bool pl_results_has(const pl_results *results, int64_t line);

/* A line that is there already is not added again, which is no error. PL_ERR_IO: the disk is full, or worse; nothing was added.
 * PL_ERR_FORMAT: no such line, or no record of one line. added may be NULL. */
pl_status pl_results_add(pl_results *results, const pl_work_result *result, bool *added, pl_error *err);

/* What was added until now survives a power cut. To be called every few seconds; others may add meanwhile. */
pl_status pl_results_sync(pl_results *results, pl_error *err);

typedef struct pl_results_stats {
    int64_t lines, done, failed; /* failed: among those done */
    int64_t kept;                /* done by processes before this one */
    int64_t prompt_tokens, answer_tokens;
    uint64_t bytes; /* of results */
} pl_results_stats;

pl_results_stats pl_results_count(pl_results *results);

/* All lines are there: OUT is made, in the order of the input or as results came, and is on the disk when this returns. What was
 * there under that name is replaced. */
pl_status pl_results_finish(pl_results *results, bool ordered, pl_error *err);

/* The job's last act, after whatever else is made of it (a summary): removes the journal. */
pl_status pl_results_forget(pl_results *results, pl_error *err);

#endif
