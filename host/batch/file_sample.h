/* Whether a file or folder on one machine is the same as on another, without reading all of it. */
#ifndef PL_BATCH_FILE_SAMPLE_H
#define PL_BATCH_FILE_SAMPLE_H

#include "host/base/status.h"

typedef struct pl_file_sample {
    uint64_t size; /* of a folder: of all its files */
    uint64_t hash; /* of the beginning, the end, and pages in between; of a folder: of its files and their names */
    bool folder;
    bool network; /* lies on a file system that is read over a network */
} pl_file_sample;

/* A regular file, or a folder with its regular files. */
pl_status pl_file_sample_take(const char *path, pl_file_sample *out, pl_error *err);

/* Whether a file system of this type (statfs' f_type) is read over a network. */
bool pl_is_network_file_system(long type);

#endif
