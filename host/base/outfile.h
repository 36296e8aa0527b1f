/* Files that appear whole or not at all: written beside their place, then renamed into it.
 *
 *     PL_TRY(pl_outfile_open(path, &out, err));
 *     fwrite(..., out.file);
 *     PL_TRY(pl_outfile_commit(&out, err));
 *
 * What exists there and is no regular file (/dev/null, a pipe) is written in place. */
#ifndef PL_BASE_OUTFILE_H
#define PL_BASE_OUTFILE_H

#include <stdio.h>

#include "host/base/status.h"

typedef struct pl_outfile {
    FILE *file;
    char *path;          /* where it will be, links followed */
    char *temp;          /* where it is written; NULL: in place */
    char *folder;        /* of both, likewise */
    bool nameless;       /* it gets that name when it is whole: whoever is killed before leaves nothing behind */
    uint64_t at, behind; /* of pl_outfile_write(): bytes so far; of them not yet on their way to the disk */
} pl_outfile;            /* all zero: nothing open */

/* Fails already here where the folder is missing or does not let us write. */
pl_status pl_outfile_open(const char *path, pl_outfile *out, pl_error *err);

/* For large files, instead of fwrite(): what is written starts on its way to the disk early, so that commit has
 * little to wait for. */
pl_status pl_outfile_write(pl_outfile *out, const void *data, size_t n, pl_error *err);

/* Fails at once where the disk has no room for `bytes`; where that cannot be told, writing will tell. */
pl_status pl_outfile_reserve(const pl_outfile *out, uint64_t bytes, pl_error *err);

/* Puts the file in place, once it is wholly on the disk. Closes it either way; on failure (also of any
 * write since opening) what was at `path` before is still there. */
pl_status pl_outfile_commit(pl_outfile *out, pl_error *err);

/* Whether both paths lead to one file or folder that is there. */
bool pl_same_file(const char *a, const char *b);

/* Removes what was written. For cleaning up: does nothing after commit. */
void pl_outfile_abort(pl_outfile *out);

#endif
