#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/base/outfile.h"

static char folder[] = "/tmp/pleiad-outfile-XXXXXX";
static char path[64];

static int files_in_folder(void)
{
    int n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void make_folder(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/out", folder);
}

static void remove_folder(void)
{
    char name[80];
    unlink(path);
    snprintf(name, sizeof name, "%s/link", folder);
    unlink(name);
    rmdir(folder);
}

TestSuite(outfile, .init = make_folder, .fini = remove_folder);

static void holds(const char *name, const char *expected)
{
    char text[64] = "";
    FILE *f = fopen(name, "r");
    cr_assert_not_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    cr_assert_str_eq(text, expected);
}

static void write_out(const char *name, const char *text)
{
    pl_outfile out;
    pl_error err = {0};
    cr_assert_eq(pl_outfile_open(name, &out, &err), PL_OK, "%s", err.message);
    fputs(text, out.file);
    cr_assert_eq(pl_outfile_commit(&out, &err), PL_OK, "%s", err.message);
}

Test(outfile, appears_on_commit)
{
    pl_outfile out;
    cr_assert_eq(pl_outfile_open(path, &out, NULL), PL_OK);
    fputs("hello", out.file);
    fflush(out.file);
    cr_assert_neq(access(path, F_OK), 0);
    cr_assert_eq(files_in_folder(), out.nameless ? 0 : 1);
    cr_assert_eq(pl_outfile_commit(&out, NULL), PL_OK);
    holds(path, "hello");
    cr_assert_eq(files_in_folder(), 1);
    pl_outfile_abort(&out);
    holds(path, "hello");
}

Test(outfile, abort_keeps_the_old_file)
{
    write_out(path, "old");
    pl_outfile out;
    cr_assert_eq(pl_outfile_open(path, &out, NULL), PL_OK);
    fputs("new", out.file);
    pl_outfile_abort(&out);
    holds(path, "old");
    cr_assert_eq(files_in_folder(), 1);
    pl_outfile_abort(&out);
    pl_outfile_abort(NULL);
}

Test(outfile, failed_write_keeps_the_old_file)
{
    write_out(path, "old");
    pl_outfile out;
    pl_error err;
    cr_assert_eq(pl_outfile_open(path, &out, NULL), PL_OK);
    cr_assert_not_null(freopen("/dev/full", "w", out.file));
    fputs("new", out.file);
    cr_assert_eq(pl_outfile_commit(&out, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, path), "%s", err.message);
    cr_assert_not_null(strstr(err.message, "No space left on device"), "%s", err.message);
    holds(path, "old");
    cr_assert_eq(files_in_folder(), 1);
}

Test(outfile, keeps_permissions_and_links)
{
    char link[80];
    struct stat st;
    write_out(path, "old");
    cr_assert_eq(chmod(path, 0640), 0);
    snprintf(link, sizeof link, "%s/link", folder);
    cr_assert_eq(symlink("out", link), 0);
    write_out(link, "new");
    holds(path, "new");
    cr_assert_eq(lstat(link, &st), 0);
    cr_assert(S_ISLNK(st.st_mode));
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0640);
}

Test(outfile, devices_are_written_in_place)
{
    struct stat st;
    write_out("/dev/null", "gone");
    cr_assert_eq(stat("/dev/null", &st), 0);
    cr_assert(S_ISCHR(st.st_mode));
}

static void refused(const char *name, const char *reason)
{
    pl_outfile out = {0};
    pl_error err;
    cr_assert_eq(pl_outfile_open(name, &out, &err), PL_ERR_IO);
    cr_assert_null(out.file);
    cr_assert_not_null(strstr(err.message, name), "%s", err.message);
    cr_assert_not_null(strstr(err.message, reason), "%s", err.message);
}

/* Past the point where writing back starts. */
Test(outfile, large_files)
{
    static unsigned char piece[3 << 20];
    pl_outfile out = {0};
    pl_error err = {0};
    struct stat st;
    cr_assert_eq(pl_outfile_open(path, &out, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_outfile_reserve(&out, 12 * sizeof piece, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < 12; i++) {
        memset(piece, i, sizeof piece);
        cr_assert_eq(pl_outfile_write(&out, piece, sizeof piece, &err), PL_OK, "%s", err.message);
    }
    cr_assert_eq(pl_outfile_write(&out, NULL, 0, &err), PL_OK);
    cr_assert_eq(out.at, 12 * sizeof piece);
    cr_assert_eq(pl_outfile_commit(&out, &err), PL_OK, "%s", err.message);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_size, 12 * sizeof piece);
    FILE *f = fopen(path, "rb");
    for (int i = 0; i < 12; i++) {
        cr_assert_eq(fread(piece, 1, sizeof piece, f), sizeof piece);
        cr_assert(piece[0] == i && piece[sizeof piece - 1] == i);
    }
    fclose(f);
}

Test(outfile, large_files_on_a_full_disk)
{
    static const unsigned char piece[1 << 20];
    pl_outfile out = {0};
    pl_error err = {0};
    cr_assert_eq(pl_outfile_open("/dev/full", &out, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_outfile_write(&out, piece, sizeof piece, &err), PL_ERR_IO);
    cr_assert(strstr(err.message, "/dev/full") && strstr(err.message, "No space left"), "%s", err.message);
    pl_outfile_abort(&out);
}

Test(outfile, two_names_of_one_file)
{
    char other[80];
    snprintf(other, sizeof other, "%s/link", folder);
    cr_assert_not(pl_same_file(path, path), "not there yet");
    FILE *f = fopen(path, "w");
    fclose(f);
    cr_assert(pl_same_file(path, path));
    cr_assert_not(pl_same_file(path, other) || pl_same_file(path, folder));
    cr_assert_eq(symlink(path, other), 0);
    cr_assert(pl_same_file(path, other) && pl_same_file(folder, folder));
}

Test(outfile, errors_name_path_and_reason)
{
    char missing[80];
    snprintf(missing, sizeof missing, "%s/no/out", folder);
    refused(missing, "No such file or directory");
    refused(folder, "Is a directory");
    refused("", "No such file or directory");
}
