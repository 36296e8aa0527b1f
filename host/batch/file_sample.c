#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/batch/file_sample.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <xxhash.h>

#define HEAD_BYTES (1u << 20)
#define PAGE_BYTES 4096u
#define PAGES 256

bool pl_is_network_file_system(long type)
{
    static const unsigned types[] = {
        0x6969,     /* NFS */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB2 */
        0x517b,     /* SMB */
        0x0bd00bd0, /* Lustre */
        0x65735546, /* FUSE: sshfs, GlusterFS, s3fs and others */
        0x00c36400, /* Ceph */
        0x5346414f, /* AFS */
        0x6b414653, /* kAFS */
        0x47504653, /* GPFS */
        0x19830326, /* BeeGFS */
        0xaad7aaea, /* PanFS */
        0x01021997, /* 9P */
        0x7461636f, /* OCFS2 */
        0x01161970, /* GFS2 */
        0x20030528, /* OrangeFS */
        0x013111a8, /* IBRIX */
        0x786f4256, /* VirtualBox's shared folders */
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if ((unsigned)type == types[i])
            return true;
    return false;
}

static pl_status add_range(int fd, const char *path, XXH3_state_t *hash, unsigned char *buffer, uint64_t at, size_t n,
                           pl_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = pread(fd, buffer + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return pl_fail(err, PL_ERR_IO, "%s: %s", path, strerror(errno));
        if (k == 0)
            return pl_fail(err, PL_ERR_IO, "%s was cut while it was read", path);
        done += (size_t)k;
    }
    XXH3_64bits_update(hash, buffer, n);
    return PL_OK;
}

static pl_status add_file(int fd, const char *path, uint64_t size, XXH3_state_t *hash, pl_error *err)
{
    unsigned char *buffer = malloc(HEAD_BYTES);
    if (!buffer)
        return pl_fail_memory(err, HEAD_BYTES, "a look at a file");
    size_t head = size < HEAD_BYTES ? (size_t)size : HEAD_BYTES;
    pl_status status = add_range(fd, path, hash, buffer, 0, head, err);
    for (uint64_t i = 1; status == PL_OK && size > HEAD_BYTES && i <= PAGES; i++)
        status = add_range(fd, path, hash, buffer, (size - PAGE_BYTES) / PAGES * i, PAGE_BYTES, err);
    if (status == PL_OK && size > HEAD_BYTES)
        status = add_range(fd, path, hash, buffer, size - PAGE_BYTES, PAGE_BYTES, err);
    free(buffer);
    return status;
}

/* Of an entry of a folder, which need not be a file. */
static pl_status add_entry(int folder, const char *path, const char *name, pl_file_sample *out, XXH3_state_t *hash,
                           pl_error *err)
{
    struct stat info;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0) {
        pl_status status = pl_fail(err, PL_ERR_IO, "%s/%s: %s", path, name, strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    pl_status status = PL_OK;
    if (S_ISREG(info.st_mode)) {
        uint64_t size = (uint64_t)info.st_size;
        XXH3_64bits_update(hash, name, strlen(name) + 1);
        XXH3_64bits_update(hash, &size, sizeof size);
        out->size += size;
        status = add_file(fd, name, size, hash, err);
    }
    close(fd);
    return status;
}

static pl_status add_folder(int fd, const char *path, pl_file_sample *out, XXH3_state_t *hash, pl_error *err)
{
    struct dirent **entries;
    pl_status status = PL_OK;
    int n = scandirat(fd, ".", &entries, NULL, NULL);
    if (n < 0)
        return pl_fail(err, PL_ERR_IO, "%s: %s", path, strerror(errno));
    for (int i = 1; i < n; i++) /* by insertion: the order must not depend on the locale */
        for (int k = i; k > 0 && strcmp(entries[k - 1]->d_name, entries[k]->d_name) > 0; k--) {
            struct dirent *other = entries[k];
            entries[k] = entries[k - 1];
            entries[k - 1] = other;
        }
    for (int i = 0; i < n; i++) {
        if (status == PL_OK && entries[i]->d_name[0] != '.')
            status = add_entry(fd, path, entries[i]->d_name, out, hash, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static pl_status sample(int fd, const char *path, pl_file_sample *out, XXH3_state_t *hash, pl_error *err)
{
    struct stat info;
    struct statfs system;
    if (fstat(fd, &info) != 0 || fstatfs(fd, &system) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: %s", path, strerror(errno));
    *out = (pl_file_sample){.folder = S_ISDIR(info.st_mode), .network = pl_is_network_file_system((long)system.f_type)};
    if (!out->folder && !S_ISREG(info.st_mode))
        return pl_fail(err, PL_ERR_IO, "%s is neither a file nor a folder", path);
    if (out->folder) {
        PL_TRY(add_folder(fd, path, out, hash, err));
    } else {
        out->size = (uint64_t)info.st_size;
        PL_TRY(add_file(fd, path, out->size, hash, err));
    }
    out->hash = XXH3_64bits_digest(hash);
    return PL_OK;
}

pl_status pl_file_sample_take(const char *path, pl_file_sample *out, pl_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return pl_fail(err, PL_ERR_IO, "%s: %s", path, strerror(errno));
    XXH3_state_t *hash = XXH3_createState();
    pl_status status = PL_OK;
    if (!hash || XXH3_64bits_reset(hash) != XXH_OK)
        status = pl_fail(err, PL_ERR_MEMORY, "%s: no memory for a checksum", path);
    else
        status = sample(fd, path, out, hash, err);
    XXH3_freeState(hash);
    close(fd);
    return status;
}
