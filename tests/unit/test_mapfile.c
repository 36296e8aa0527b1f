#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/base/mapfile.h"

static char folder[] = "/tmp/pleiad-mapfile-XXXXXX";
static char path[64];

static void make_folder(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
}

static void remove_folder(void)
{
    unlink(path);
    rmdir(folder);
}

TestSuite(mapfile, .init = make_folder, .fini = remove_folder);

static void write_file(size_t n)
{
    FILE *f = fopen(path, "wb");
    for (size_t i = 0; i < n; i++)
        fputc((int)(i * 31 % 251), f);
    cr_assert_eq(fclose(f), 0);
}

Test(mapfile, holds_the_file)
{
    size_t n = 100001;
    write_file(n);
    pl_mapfile file;
    cr_assert_eq(pl_mapfile_open(path, &file, NULL), PL_OK);
    cr_assert_eq(file.size, n);
    pl_mapfile_will_need(&file, 5000, 20000);
    pl_mapfile_will_need(&file, 5000, SIZE_MAX);
    pl_mapfile_drop(&file, 1, SIZE_MAX - 1);
    pl_mapfile_drop(&file, n + 1, 10);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(file.data[i], i * 31 % 251);
    pl_mapfile_close(&file);
    cr_assert_null(file.data);
    pl_mapfile_close(&file);
    pl_mapfile_close(NULL);
}

/* Whether the page of an address is in this process's memory; -1: the system does not say. */
static int present(const unsigned char *address)
{
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    off_t at = (off_t)((uintptr_t)address / (uintptr_t)sysconf(_SC_PAGESIZE) * sizeof entry);
    bool ok = fd >= 0 && pread(fd, &entry, sizeof entry, at) == (ssize_t)sizeof entry;
    if (fd >= 0)
        close(fd);
    return ok ? (int)(entry >> 63) : -1;
}

Test(mapfile, drops_whole_pages_only)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned sum = 0;
    write_file(6 * page);
    pl_mapfile file;
    cr_assert_eq(pl_mapfile_open(path, &file, NULL), PL_OK);
    for (size_t i = 0; i < 6; i++)
        sum += file.data[i * page];
    cr_assert_gt(sum, 0);
    if (present(file.data) == 1) {
        pl_mapfile_drop(&file, page - 1, 3 * page);
        for (size_t i = 0; i < 6; i++)
            cr_assert_eq(present(file.data + i * page), !(i == 1 || i == 2), "page %zu", i);
    }
    pl_mapfile_close(&file);
}

Test(mapfile, reads_what_is_mapped_and_sees_a_cut)
{
    unsigned char got[5000];
    pl_mapfile file;
    pl_error err;
    write_file(20000);
    cr_assert_eq(pl_mapfile_open(path, &file, NULL), PL_OK);
    cr_assert_eq(pl_mapfile_read(&file, "rows", 12345, got, sizeof got, &err), PL_OK);
    cr_assert_arr_eq(got, file.data + 12345, sizeof got);
    cr_assert_eq(pl_mapfile_read(&file, "rows", 15001, got, sizeof got, &err), PL_ERR_IO);
    cr_assert_str_eq(err.message, "rows: the file ends at byte 20000, it had 20000 when it was opened");
    cr_assert_eq(truncate(path, 14000), 0);
    cr_assert_eq(pl_mapfile_read(&file, "rows", 12345, got, sizeof got, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "ends at byte 14000"), "%s", err.message);
    pl_mapfile_close(&file);
}

static int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 64; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

Test(mapfile, leaves_no_file_open)
{
    int before = open_files();
    for (size_t n = 0; n < 3; n++) {
        pl_mapfile file;
        write_file(n);
        cr_assert_eq(pl_mapfile_open(path, &file, NULL), PL_OK);
        pl_mapfile_close(&file);
        pl_mapfile_close(&file);
    }
    cr_assert_eq(open_files(), before);
}

Test(mapfile, empty_file)
{
    write_file(0);
    pl_mapfile file;
    cr_assert_eq(pl_mapfile_open(path, &file, NULL), PL_OK);
    cr_assert_null(file.data);
    cr_assert_eq(file.size, 0);
    pl_mapfile_will_need(&file, 0, 1);
    pl_mapfile_drop(&file, 0, 1);
    pl_mapfile_close(&file);
}

static void refused(const char *name, const char *reason)
{
    pl_mapfile file = {.size = 77};
    pl_error err;
    cr_assert_eq(pl_mapfile_open(name, &file, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, name), "%s", err.message);
    cr_assert_not_null(strstr(err.message, reason), "%s", err.message);
    cr_assert_eq(file.size, 77);
}

Test(mapfile, refuses_what_is_no_file)
{
    refused(path, "No such file or directory");
    refused(folder, "is a folder");
    refused("/dev/null", "is not a regular file");
    cr_assert_eq(mkfifo(path, 0600), 0);
    refused(path, "is not a regular file");
}
