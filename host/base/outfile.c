#define _GNU_SOURCE
#include "host/base/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMP_SUFFIX_BYTES 32
#define TEMP_NAMES 100
#define WRITEBACK_BYTES (32u << 20) /* started every so often */

static pl_status fail_write(const char *path, int error, pl_error *err)
{
    return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", path, error ? strerror(error) : "write failed");
}

/* A new file beside out->path, with the permissions of the file that it replaces. */
static int open_temp(pl_outfile *out, const struct stat *old)
{
    size_t bytes = strlen(out->path) + TEMP_SUFFIX_BYTES;
    out->temp = malloc(bytes);
    if (!out->temp) {
        errno = ENOMEM;
        return -1;
    }
    int fd = -1;
    for (int i = 0; i < TEMP_NAMES && fd < 0; i++) {
        snprintf(out->temp, bytes, "%s.%ld-%d.tmp", out->path, (long)getpid(), i);
        fd = open(out->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0) {
        int error = errno;
        free(out->temp);
        out->temp = NULL;
        errno = error;
    } else if (old && fchmod(fd, old->st_mode & 0777) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int open_descriptor(const char *path, pl_outfile *out)
{
    struct stat st;
    bool exists = stat(path, &st) == 0;
    if (!exists && !*path)
        return -1;
    if (exists && S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        return -1;
    }
    out->path = exists ? realpath(path, NULL) : strdup(path);
    if (!out->path)
        return -1;
    if (exists && !S_ISREG(st.st_mode))
        return open(out->path, O_WRONLY | O_CLOEXEC);
    return open_temp(out, exists ? &st : NULL);
}

pl_status pl_outfile_open(const char *path, pl_outfile *out, pl_error *err)
{
    pl_outfile made = {0};
    int fd = open_descriptor(path, &made);
    if (fd >= 0)
        made.file = fdopen(fd, "wb");
    if (made.file) {
        *out = made;
        return PL_OK;
    }
    int error = errno;
    if (fd >= 0)
        close(fd);
    pl_outfile_abort(&made);
    if (error == ENOMEM)
        return pl_fail_memory(err, sizeof(FILE), path);
    return fail_write(path, error, err);
}

pl_status pl_outfile_write(pl_outfile *out, const void *data, size_t n, pl_error *err)
{
    if (n == 0)
        return PL_OK;
    errno = 0;
    if (fwrite(data, 1, n, out->file) != n)
        return fail_write(out->path, errno, err);
    out->at += n;
    out->behind += n;
    if (out->behind < WRITEBACK_BYTES || !out->temp)
        return PL_OK;
    if (fflush(out->file) != 0)
        return fail_write(out->path, errno, err);
    /* Only a head start for commit, which is told what goes wrong. */
    (void)!sync_file_range(fileno(out->file), (off64_t)(out->at - out->behind), (off64_t)out->behind,
                           SYNC_FILE_RANGE_WRITE);
    out->behind = 0;
    return PL_OK;
}

pl_status pl_outfile_reserve(const pl_outfile *out, uint64_t bytes, pl_error *err)
{
    if (!out->temp || bytes == 0 || fallocate(fileno(out->file), FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) == 0)
        return PL_OK;
    if (errno != ENOSPC && errno != EFBIG && errno != EDQUOT)
        return PL_OK;
    return pl_fail(err, PL_ERR_IO, "%s: cannot write %" PRIu64 " bytes: %s", out->path, bytes, strerror(errno));
}

/* Through the buffers of the C library and of the system, to the disk. */
static bool finish_writing(FILE *file, bool regular)
{
    errno = 0;
    bool ok = fflush(file) == 0 && !ferror(file);
    if (ok && regular)
        ok = fsync(fileno(file)) == 0;
    int error = errno;
    if (fclose(file) != 0 && ok)
        return false;
    errno = error;
    return ok;
}

/* So that the new name survives a power cut; not every file system can do it, and the file is there. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    char *folder = n ? strndup(path, n) : strdup(".");
    if (!folder)
        return;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!fsync(fd);
        close(fd);
    }
    free(folder);
}

pl_status pl_outfile_commit(pl_outfile *out, pl_error *err)
{
    bool ok = finish_writing(out->file, out->temp != NULL);
    out->file = NULL;
    if (ok && out->temp)
        ok = rename(out->temp, out->path) == 0;
    pl_status status = ok ? PL_OK : fail_write(out->path, errno, err);
    if (ok && out->temp) {
        sync_folder(out->path);
        free(out->temp);
        out->temp = NULL;
    }
    pl_outfile_abort(out);
    return status;
}

void pl_outfile_abort(pl_outfile *out)
{
    if (!out)
        return;
    if (out->file)
        fclose(out->file);
    if (out->temp)
        unlink(out->temp);
    free(out->temp);
    free(out->path);
    *out = (pl_outfile){0};
}

bool pl_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
