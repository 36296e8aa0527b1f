#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2(), environ */
#endif

#include "host/serve/media_fetch.h"

#include "host/base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_MS 100 /* between two questions whether to go on */

static pl_status start(const char *url, size_t most, double max_s, int out, pid_t *child, pl_error *err)
{
    char bytes[32], seconds[32];
    snprintf(bytes, sizeof bytes, "%zu", most);
    snprintf(seconds, sizeof seconds, "%.3f", max_s);
    char *const args[] = {"curl",
                          "--disable", /* no file of settings */
                          "--silent",
                          "--fail",
                          "--globoff",
                          "--location",
                          "--max-redirs",
                          "5",
                          "--proto",
                          "=http,https",
                          "--proto-redir",
                          "=http,https",
                          "--max-filesize",
                          bytes,
                          "--max-time",
                          seconds,
                          "--url",
                          (char *)(uintptr_t)url,
                          NULL};
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return pl_fail_memory(err, sizeof actions, "a process");
    int failed = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&actions, out, 1);
    failed = failed ? failed : posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    failed = failed ? failed : posix_spawnp(child, "curl", &actions, NULL, args, environ);
    posix_spawn_file_actions_destroy(&actions);
    return failed ? pl_fail(err, PL_ERR_IO, "the program curl does not start: %s", strerror(failed)) : PL_OK;
}

/* What the program writes, to its end. curl knows the size of a file only if it is told, so it is watched here too. */
static pl_status read_all(int fd, size_t most, bool (*stop)(void *user), void *user, pl_strbuf *text, pl_error *err)
{
    char piece[65536];
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (stop && stop(user))
            return pl_fail(err, PL_ERR_CANCELLED, "stopped");
        if (poll(&ready, 1, LOOK_MS) <= 0)
            continue;
        ssize_t got = read(fd, piece, sizeof piece);
        if (got == 0)
            return PL_OK;
        if (got < 0 && errno != EINTR)
            return pl_fail(err, PL_ERR_IO, "cannot read from curl: %s", strerror(errno));
        if (got > 0)
            pl_strbuf_add(text, piece, (size_t)got);
        if (text->n > most)
            return pl_fail(err, PL_ERR_IO, "it has more than %zu bytes", most);
        if (text->failed)
            return pl_fail_memory(err, text->n, "a file");
    }
}

static pl_status judge(int how, size_t most, double max_s, pl_error *err)
{
    int code = WIFEXITED(how) ? WEXITSTATUS(how) : -1;
    switch (code) {
    case 0: return PL_OK;
    case 6: return pl_fail(err, PL_ERR_IO, "its host is not known");
    case 7: return pl_fail(err, PL_ERR_IO, "its host does not take connections");
    case 22: return pl_fail(err, PL_ERR_IO, "its server answers with an error");
    case 28: return pl_fail(err, PL_ERR_IO, "it did not come within %g seconds", max_s);
    case 63: return pl_fail(err, PL_ERR_IO, "it has more than %zu bytes", most);
    case 127: return pl_fail(err, PL_ERR_IO, "the program curl is not installed");
    default: return pl_fail(err, PL_ERR_IO, "curl failed with code %d", code);
    }
}

pl_status pl_media_fetch(const char *url, size_t most, double max_s, bool (*stop)(void *user), void *user,
                         unsigned char **out, size_t *n, pl_error *err)
{
    int ends[2], how = 0;
    pid_t child;
    pl_strbuf text = {0};
    char *bytes;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return pl_fail(err, PL_ERR_IO, "no pipe: %s", strerror(errno));
    pl_status status = start(url, most, max_s, ends[1], &child, err);
    close(ends[1]);
    if (status == PL_OK) {
        status = read_all(ends[0], most, stop, user, &text, err);
        if (status != PL_OK)
            kill(child, SIGKILL);
        while (waitpid(child, &how, 0) < 0 && errno == EINTR)
            continue;
        if (status == PL_OK)
            status = judge(how, most, max_s, err);
    }
    close(ends[0]);
    if (status == PL_OK)
        status = text.n ? pl_strbuf_take(&text, &bytes, n, err) : pl_fail(err, PL_ERR_IO, "it is empty");
    if (status == PL_OK)
        *out = (unsigned char *)bytes;
    pl_strbuf_free(&text);
    return status;
}
