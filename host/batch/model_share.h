/* The model's file for the ranks of a job: read once from where it lies, and sent to machines that do not have it.
 *
 * Ranks on rank 0's machine open the file that rank 0 was given. On another machine ranks open the same path where the same file
 * lies there (file_sample.h), and not on a file system of the network, which all would read at once; else the bytes come from rank 0
 * into memory, once a machine. A folder must be reachable on each machine. */
#ifndef PL_BATCH_MODEL_SHARE_H
#define PL_BATCH_MODEL_SHARE_H

#include "host/batch/ranks.h"

typedef enum pl_share_how {
    PL_SHARE_AUTO,   /* as above */
    PL_SHARE_ALWAYS, /* sent to each other machine */
    PL_SHARE_NEVER,  /* each machine must have the same file at this path; on any file system */
} pl_share_how;

typedef struct pl_shared_file {
    char *path; /* to be opened by this rank; of a copy in memory while the machine's first rank has it open */
    int fd;     /* of the copy that this rank has for its machine, or -1 */
} pl_shared_file;

/* Collective, and fails on all ranks or none. path: the same on all ranks. progress of rank 0's sending; may be NULL. */
pl_status pl_share_file(pl_ranks *ranks, const char *path, pl_share_how how, pl_progress_fn progress, void *user,
                        pl_shared_file *out, pl_error *err);
void pl_shared_file_close(pl_shared_file *file);

#endif
