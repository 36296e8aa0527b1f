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
#define DESCRIPTORS "/proc/self/fd/"
#define WRITEBACK_BYTES (32u << 20) /* started every so often */

static pl_status fail_write(const char *path, int error, pl_error *err)
{
    return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", path, error ? strerror(error) : "write failed");
}

/* free(); NULL: no memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 1;
    char *folder = calloc(n + 1, 1);
    if (folder)
        memcpy(folder, slash ? path : ".", n);
    return folder;
}

static size_t temp_bytes(const pl_outfile *out)
{
    return strlen(out->path) + TEMP_SUFFIX_BYTES;
}

static void name_temp(const pl_outfile *out, int i)
{
    snprintf(out->temp, temp_bytes(out), "%s.%ld-%d.tmp", out->path, (long)getpid(), i);
}

/* Not every file system can do it. */
static int open_nameless(const pl_outfile *out)
{
    return access(DESCRIPTORS, X_OK) == 0 ? open(out->folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
}

static int open_named(const pl_outfile *out)
{
    int fd = -1;
    for (int i = 0; i < TEMP_NAMES && fd < 0; i++) {
        name_temp(out, i);
        fd = open(out->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    return fd;
}

static bool give_name(pl_outfile *out)
{
    char from[64];
    snprintf(from, sizeof from, DESCRIPTORS "%d", fileno(out->file));
    for (int i = 0; i < TEMP_NAMES && out->temp && out->nameless; i++) {
        name_temp(out, i);
        out->nameless = linkat(AT_FDCWD, from, AT_FDCWD, out->temp, AT_SYMLINK_FOLLOW) != 0;
        if (out->nameless && errno != EEXIST)
            break;
    }
    return !out->nameless;
}

/* A new file beside out->path, with the permissions of the file that it replaces. */
static int open_temp(pl_outfile *out, const struct stat *old)
{
    out->temp = malloc(temp_bytes(out));
    out->folder = folder_of(out->path);
    if (!out->temp || !out->folder) {
        free(out->temp);
        out->temp = NULL;
        errno = ENOMEM;
        return -1;
    }
    int fd = open_nameless(out);
    out->nameless = fd >= 0;
    if (fd < 0)
        fd = open_named(out);
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

/* Through the buffers of the C library and of the system, to the disk; then it may have a name. */
static bool finish_writing(pl_outfile *out)
{
    errno = 0;
    bool ok = fflush(out->file) == 0 && !ferror(out->file);
    if (ok && out->temp)
        ok = fsync(fileno(out->file)) == 0;
    if (ok && out->nameless)
        ok = give_name(out);
    int error = errno;
    bool closed = fclose(out->file) == 0;
    out->file = NULL;
    if (ok && !closed)
        return false;
    errno = error;
    return ok;
}

/* So that the new name survives a power cut; not every file system can do it, and the file is there. */
static void sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!fsync(fd);
        close(fd);
    }
}

pl_status pl_outfile_commit(pl_outfile *out, pl_error *err)
{
    bool ok = finish_writing(out);
    if (ok && out->temp)
        ok = rename(out->temp, out->path) == 0;
    pl_status status = ok ? PL_OK : fail_write(out->path, errno, err);
    if (ok && out->temp) {
        sync_folder(out->folder);
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
    if (out->temp && !out->nameless)
        unlink(out->temp);
    free(out->temp);
    free(out->folder);
    free(out->path);
    *out = (pl_outfile){0};
}

bool pl_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
