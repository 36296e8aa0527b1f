/* Reads records of a file. */
#ifndef PL_BATCH_SPAN_READER_H
#define PL_BATCH_SPAN_READER_H

#include "host/base/status.h"

typedef struct pl_span_reader {
    int fd;           /* borrowed, as is path */
    const char *path; /* for messages */
    uint64_t size;    /* of the file, when reading began */
    char *buf;
    size_t capacity;
} pl_span_reader;

pl_status pl_span_reader_open(int fd, const char *path, pl_span_reader *out, pl_error *err);
void pl_span_reader_close(pl_span_reader *reader);

/* *out: until the next call; NULL where the file ends before, or n is 0. */
pl_status pl_span_get(pl_span_reader *reader, uint64_t offset, size_t n, const char **out, pl_error *err);

#endif
