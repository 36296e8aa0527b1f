#include "host/base/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static pl_status map(int fd, const char *path, pl_mapfile *out, pl_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return pl_fail(err, PL_ERR_IO, "%s: %s, a file was expected", path,
                       S_ISDIR(st.st_mode) ? "is a folder" : "is not a regular file");
    if ((uintmax_t)st.st_size > SIZE_MAX)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: too large for this machine's addresses", path);
    pl_mapfile file = {.size = (size_t)st.st_size};
    if (file.size) {
        void *data = mmap(NULL, file.size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            return pl_fail(err, errno == ENOMEM ? PL_ERR_MEMORY : PL_ERR_IO, "%s: cannot map %zu bytes: %s", path,
                           file.size, strerror(errno));
        file.data = data;
        file.fd = fd;
    }
    *out = file;
    return PL_OK;
}

pl_status pl_mapfile_open(const char *path, pl_mapfile *out, pl_error *err)
{
    /* O_NONBLOCK: opening a pipe must not wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    pl_status status = map(fd, path, out, err);
    if (status != PL_OK || !out->data)
        close(fd);
    return status;
}

/* munmap() and madvise() take what is only read by us as writable. */
static void *pages_at(const pl_mapfile *file, size_t offset)
{
    return (void *)((uintptr_t)file->data + offset);
}

void pl_mapfile_close(pl_mapfile *file)
{
    if (!file)
        return;
    if (file->data) {
        munmap(pages_at(file, 0), file->size);
        close(file->fd);
    }
    *file = (pl_mapfile){0};
}

pl_status pl_mapfile_read(const pl_mapfile *file, const char *what, size_t offset, void *out, size_t bytes,
                          pl_error *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(file->fd, (char *)out + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pl_fail(err, PL_ERR_IO, "%s: cannot read: %s", what, strerror(errno));
        if (n == 0)
            return pl_fail(err, PL_ERR_IO, "%s: the file ends at byte %zu, it had %zu when it was opened", what,
                           offset + done, file->size);
        done += (size_t)n;
    }
    return PL_OK;
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void pl_mapfile_will_need(const pl_mapfile *file, size_t offset, size_t bytes)
{
    if (offset >= file->size)
        return;
    size_t lead = offset % page_bytes();
    size_t n = bytes < file->size - offset ? bytes : file->size - offset;
    madvise(pages_at(file, offset - lead), n + lead, MADV_WILLNEED);
}

void pl_mapfile_drop(const pl_mapfile *file, size_t offset, size_t bytes)
{
    if (offset >= file->size)
        return;
    size_t page = page_bytes();
    size_t n = bytes < file->size - offset ? bytes : file->size - offset;
    size_t begin = offset + (page - offset % page) % page;
    size_t end = (offset + n) / page * page;
    if (begin < end)
        madvise(pages_at(file, begin), end - begin, MADV_DONTNEED);
}
