/* Read-only file mappings. */
#ifndef PL_BASE_MAPFILE_H
#define PL_BASE_MAPFILE_H

#include "host/base/status.h"

typedef struct pl_mapfile {
    const unsigned char *data; /* NULL when the file is empty */
    size_t size;
    int fd; /* for pl_mapfile_read(); open as long as data is not NULL */
} pl_mapfile;

/* Refuses directories and anything else that is not a regular file. */
pl_status pl_mapfile_open(const char *path, pl_mapfile *out, pl_error *err);
void pl_mapfile_close(pl_mapfile *file);

/* Copies a range of the file by reading it, which takes no part of the mapping into memory, and where the file has been
 * cut since it was opened is PL_ERR_IO instead of a signal. `what` is being read, for messages. */
pl_status pl_mapfile_read(const pl_mapfile *file, const char *what, size_t offset, void *out, size_t bytes,
                          pl_error *err);

/* The range will be read soon and in order. */
void pl_mapfile_will_need(const pl_mapfile *file, size_t offset, size_t bytes);

/* The pages that lie wholly in the range may leave memory now; reading them again brings them back. */
void pl_mapfile_drop(const pl_mapfile *file, size_t offset, size_t bytes);

#endif
