#include "tests/batch/failing_calls.h"

#include <errno.h>
#include <unistd.h>

failing_calls failing = {.fail_at = -1, .kill_at = -1};

int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_linkat(int from, const char *old, int to, const char *name, int flags);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at);
int __wrap_rename(const char *old, const char *name);
int __wrap_unlink(const char *name);
int __real_ftruncate(int fd, off_t size);
int __real_linkat(int from, const char *old, int to, const char *name, int flags);
ssize_t __real_pwrite(int fd, const void *data, size_t n, off_t at);
int __real_rename(const char *old, const char *name);
int __real_unlink(const char *name);

void failing_reset(void)
{
    failing = (failing_calls){.fail_at = -1, .kill_at = -1};
}

static bool fails(void)
{
    int call = __atomic_fetch_add(&failing.calls, 1, __ATOMIC_RELAXED);
    if (call == failing.kill_at)
        _exit(FAILING_KILLED);
    bool now = failing.fail_at >= 0 && (call == failing.fail_at || (failing.on && call > failing.fail_at));
    if (now)
        errno = failing.error;
    return now;
}

int __wrap_fdatasync(int fd)
{
    (void)fd;
    return fails() ? -1 : 0;
}

int __wrap_fsync(int fd)
{
    (void)fd;
    return fails() ? -1 : 0;
}

int __wrap_ftruncate(int fd, off_t size)
{
    return fails() ? -1 : __real_ftruncate(fd, size);
}

int __wrap_linkat(int from, const char *old, int to, const char *name, int flags)
{
    return fails() ? -1 : __real_linkat(from, old, to, name, flags);
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at)
{
    size_t half = failing.short_writes && n > 1 ? n / 2 : n;
    if (!fails())
        return __real_pwrite(fd, data, half, at);
    if (failing.short_writes && n > 1)
        (void)!__real_pwrite(fd, data, half, at);
    errno = failing.error;
    return -1;
}

int __wrap_rename(const char *old, const char *name)
{
    return fails() ? -1 : __real_rename(old, name);
}

int __wrap_unlink(const char *name)
{
    return fails() ? -1 : __real_unlink(name);
}
