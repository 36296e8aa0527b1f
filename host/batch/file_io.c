#include "host/batch/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pl_status fail_write(const char *path, int error, pl_error *err)
{
    return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", path, strerror(error));
}

pl_status pl_file_read(int fd, const char *path, uint64_t offset, void *out, size_t n, pl_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return pl_fail(err, PL_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (got == 0)
            return pl_fail(err, PL_ERR_IO, "%s: ends at byte %zu, more was expected", path, (size_t)offset + done);
        done += (size_t)got;
    }
    return PL_OK;
}

pl_status pl_file_write(int fd, const char *path, uint64_t offset, const void *data, size_t n, pl_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, (const char *)data + done, n - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return fail_write(path, put < 0 ? errno : ENOSPC, err);
        done += (size_t)put;
    }
    return PL_OK;
}

pl_status pl_file_sync(int fd, const char *path, pl_error *err)
{
    return fdatasync(fd) == 0 ? PL_OK : fail_write(path, errno, err);
}

pl_status pl_folder_sync(const char *path, pl_error *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Not every file system can do it. */
    bool ok = fd < 0 || fsync(fd) == 0 || errno == EINVAL || errno == EBADF;
    int error = errno;
    if (fd >= 0)
        close(fd);
    return ok ? PL_OK : fail_write(folder, error, err);
}

char *pl_file_beside(const char *path, const char *suffix)
{
    struct stat info;
    char *own = stat(path, &info) == 0 ? realpath(path, NULL) : strdup(path);
    size_t n = own ? strlen(own) + strlen(suffix) + 1 : 0;
    char *made = own ? malloc(n) : NULL;
    if (made)
        snprintf(made, n, "%s%s", own, suffix);
    free(own);
    return made;
}
