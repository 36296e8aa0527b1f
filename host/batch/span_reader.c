#include "host/batch/span_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/batch/file_io.h"

#define LEAST_BYTES ((size_t)64 << 10)

pl_status pl_span_reader_open(int fd, const char *path, pl_span_reader *out, pl_error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    *out = (pl_span_reader){.fd = fd, .path = path, .size = (uint64_t)info.st_size};
    return PL_OK;
}

void pl_span_reader_close(pl_span_reader *reader)
{
    free(reader->buf);
    *reader = (pl_span_reader){.fd = -1};
}

static pl_status make_room(pl_span_reader *r, size_t bytes, pl_error *err)
{
    if (bytes <= r->capacity)
        return PL_OK;
    size_t capacity = bytes < LEAST_BYTES ? LEAST_BYTES : bytes;
    free(r->buf);
    r->capacity = 0;
    r->buf = malloc(capacity);
    if (!r->buf)
        return pl_fail_memory(err, capacity, r->path);
    r->capacity = capacity;
    return PL_OK;
}

pl_status pl_span_get(pl_span_reader *reader, uint64_t offset, size_t n, const char **out, pl_error *err)
{
    *out = NULL;
    if (n == 0 || offset > reader->size || n > reader->size - offset)
        return PL_OK;
    PL_TRY(make_room(reader, n, err));
    PL_TRY(pl_file_read(reader->fd, reader->path, offset, reader->buf, n, err));
    *out = reader->buf;
    return PL_OK;
}
