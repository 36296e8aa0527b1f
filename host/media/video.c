#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create(), pipe2(), posix_spawn_file_actions_addclosefrom_np() */
#endif
#include "host/media/video.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/media/sound.h"
#include "host/media/video_pipe.h"

#define HELPER "pleiad-frames"
#define TURN_MS 100
#define EXIT_S 0.5 /* for a helper that has closed its output to end */

typedef struct helper {
    const char *path; /* of the video */
    const pl_video_params *params;
    bool sound; /* is wanted */
    pid_t pid;
    int out, errors;           /* its stdout and stderr; -1: closed */
    bool ended;                /* its stdout is at its end */
    char line[256], last[256]; /* of stderr: the line that comes, the last whole one */
    size_t n_line;
} helper;

static pl_status find_helper(char *out, pl_error *err)
{
    char self[PATH_MAX];
    static const char *const places[] = {"/" HELPER, "/../libexec/pleiad/" HELPER};
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (snprintf(out, PATH_MAX, "%s%s", self, places[i]) < PATH_MAX && access(out, X_OK) == 0)
            return PL_OK;
    return pl_fail(err, PL_ERR_UNSUPPORTED,
                   "video needs the program " HELPER
                   ", which is neither in %s nor in %s/../libexec/pleiad: it is built "
                   "where libavformat-dev, libavcodec-dev, libswscale-dev and libswresample-dev are installed",
                   self, self);
}

static pl_status open_video(const char *path, int *fd, pl_error *err)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return pl_fail(err, PL_ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode))
        return PL_OK;
    close(*fd);
    return pl_fail(err, PL_ERR_IO, "%s is not a regular file", path);
}

/* A file in memory, for the helper to seek in. */
static pl_status store_video(const void *bytes, size_t n, const char *name, int *fd, pl_error *err)
{
    *fd = memfd_create("video", MFD_CLOEXEC);
    if (*fd < 0)
        return pl_fail(err, PL_ERR_IO, "%s: a file in memory: %s", name, strerror(errno));
    for (size_t done = 0; done < n;) {
        ssize_t k = write(*fd, (const char *)bytes + done, n - done);
        if (k < 0 && errno != EINTR) {
            close(*fd);
            return pl_fail(err, PL_ERR_IO, "%s: a file in memory: %s", name, strerror(errno));
        }
        done += k > 0 ? (size_t)k : 0;
    }
    lseek(*fd, 0, SEEK_SET);
    return PL_OK;
}

/* The file is its stdin; it inherits no other. */
static int spawn(helper *h, const char *program, int video, const int out[2], const int errors[2])
{
    const pl_video_params *p = h->params;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    char numbers[4][32];
    snprintf(numbers[0], sizeof numbers[0], "%.17g", p->frames_per_s);
    snprintf(numbers[1], sizeof numbers[1], "%d", p->max_frames);
    snprintf(numbers[2], sizeof numbers[2], "%d", p->max_side);
    snprintf(numbers[3], sizeof numbers[3], "%.17g", p->max_s);
    char name[] = HELPER;
    char sound[] = "sound";
    char *args[] = {name, numbers[0], numbers[1], numbers[2], numbers[3], h->sound ? sound : NULL, NULL};
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed == 0) {
        failed = posix_spawn_file_actions_adddup2(&actions, video, 0);
        failed = failed ? failed : posix_spawn_file_actions_adddup2(&actions, out[1], 1);
        failed = failed ? failed : posix_spawn_file_actions_adddup2(&actions, errors[1], 2);
        failed = failed ? failed : posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        failed = failed ? failed : posix_spawn(&h->pid, program, &actions, &attributes, args, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static pl_status start(helper *h, const char *program, int video, pl_error *err)
{
    int out[2], errors[2];
    if (pipe2(out, O_CLOEXEC) != 0)
        return pl_fail(err, PL_ERR_IO, "a pipe to %s: %s", program, strerror(errno));
    if (pipe2(errors, O_CLOEXEC) != 0) {
        close(out[0]);
        close(out[1]);
        return pl_fail(err, PL_ERR_IO, "a pipe to %s: %s", program, strerror(errno));
    }
    int failed = spawn(h, program, video, out, errors);
    close(out[1]);
    close(errors[1]);
    h->out = out[0];
    h->errors = errors[0];
    return failed ? pl_fail(err, PL_ERR_IO, "%s cannot be started: %s", program, strerror(failed)) : PL_OK;
}

static void end_line(helper *h)
{
    if (h->n_line > 0) {
        memcpy(h->last, h->line, h->n_line);
        h->last[h->n_line] = '\0';
    }
    h->n_line = 0;
}

static void hear_errors(helper *h)
{
    char piece[512];
    ssize_t n = read(h->errors, piece, sizeof piece);
    if (n <= 0) {
        end_line(h);
        close(h->errors);
        h->errors = -1;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (piece[i] == '\n')
            end_line(h);
        else if (h->n_line + 1 < sizeof h->line)
            h->line[h->n_line++] = piece[i];
    }
}

/* Waits a turn for bytes of its output; *ready: there are some, or the end. */
static pl_status wait_turn(helper *h, bool *ready, pl_error *err)
{
    const pl_video_params *p = h->params;
    struct pollfd fds[2] = {{.fd = h->out, .events = POLLIN}, {.fd = h->errors, .events = POLLIN}};
    if (p->stop && p->stop(p->stop_user))
        return pl_fail(err, PL_ERR_CANCELLED, "%s: stopped", h->path);
    if (poll(fds, 2, TURN_MS) < 0 && errno != EINTR)
        return pl_fail(err, PL_ERR_IO, "%s: waiting for %s: %s", h->path, HELPER, strerror(errno));
    if (fds[1].revents)
        hear_errors(h);
    *ready = fds[0].revents != 0;
    return PL_OK;
}

/* pl_pipe_read_fn */
static pl_status read_output(void *user, void *to, size_t n, pl_error *err)
{
    helper *h = user;
    double heard = pl_clock_seconds();
    for (size_t got = 0; got < n;) {
        bool ready = false;
        PL_TRY(wait_turn(h, &ready, err));
        if (!ready) {
            if (pl_clock_seconds() - heard > h->params->silence_s)
                return pl_fail(err, PL_ERR_IO, "%s: " HELPER " has said nothing for %g seconds", h->path,
                               h->params->silence_s);
            continue;
        }
        ssize_t k = read(h->out, (char *)to + got, n - got);
        if (k < 0 && errno != EINTR)
            return pl_fail(err, PL_ERR_IO, "%s: reading from " HELPER ": %s", h->path, strerror(errno));
        if (k == 0) {
            h->ended = true;
            return pl_fail(err, PL_ERR_FORMAT, "%s: " HELPER " ended too early", h->path);
        }
        got += k > 0 ? (size_t)k : 0;
        heard = pl_clock_seconds();
    }
    return PL_OK;
}

/* Its exit status as of waitpid(). One that has closed its output has some time to end by itself. */
static int finish(helper *h)
{
    int status = 0;
    double until = pl_clock_seconds() + (h->ended ? EXIT_S : 0);
    pid_t gone = waitpid(h->pid, &status, WNOHANG);
    while (gone == 0 && pl_clock_seconds() < until) {
        if (h->errors >= 0) {
            struct pollfd fd = {.fd = h->errors, .events = POLLIN};
            if (poll(&fd, 1, 10) > 0)
                hear_errors(h);
        } else {
            poll(NULL, 0, 1);
        }
        gone = waitpid(h->pid, &status, WNOHANG);
    }
    if (gone == 0) {
        kill(h->pid, SIGKILL);
        while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR)
            continue;
    }
    while (h->ended && h->errors >= 0) {
        struct pollfd fd = {.fd = h->errors, .events = POLLIN};
        if (poll(&fd, 1, 0) <= 0)
            break;
        hear_errors(h);
    }
    return status;
}

/* Why a helper ended that had not said all. */
static pl_status explain(const helper *h, int exited, pl_error *err)
{
    const char *colon = h->last[0] ? ": " : "";
    if (WIFSIGNALED(exited))
        return pl_fail(err, PL_ERR_FORMAT, "%s: " HELPER " was ended by signal %d (%s)%s%s", h->path, WTERMSIG(exited),
                       strsignal(WTERMSIG(exited)), colon, h->last);
    int code = WEXITSTATUS(exited);
    if ((code == PL_FRAMES_DAMAGED || code == PL_FRAMES_UNSUPPORTED) && h->last[0])
        return pl_fail(err, code == PL_FRAMES_DAMAGED ? PL_ERR_FORMAT : PL_ERR_UNSUPPORTED, "%s: %s", h->path, h->last);
    return pl_fail(err, PL_ERR_FORMAT, "%s: " HELPER " ended too early, with status %d%s%s", h->path, code, colon,
                   h->last);
}

static pl_status listen_to(helper *h, const pl_video_sink *sink, pl_error *err)
{
    const pl_video_params *p = h->params;
    pl_pipe_limits limits = {(uint64_t)p->max_frames, (uint64_t)(p->max_s * PL_SOUND_RATE), (uint32_t)p->max_side};
    pl_status status = pl_video_pipe(read_output, h, &limits, sink, h->path, err);
    int exited = finish(h);
    if (h->ended)
        status = explain(h, exited, err);
    return status;
}

static pl_status complete(const pl_video_params *given, const pl_video_sink *sink, pl_video_params *p, pl_error *err)
{
    *p = given ? *given : (pl_video_params){0};
    p->frames_per_s = p->frames_per_s > 0 ? p->frames_per_s : 1;
    p->max_side = p->max_side > 0 ? p->max_side : 1024;
    p->max_s = p->max_s > 0 ? p->max_s : 4 * 3600;
    p->silence_s = p->silence_s > 0 ? p->silence_s : 60;
    p->max_frames = !sink->frame ? 0 : p->max_frames > 0 ? p->max_frames : 64;
    if (p->frames_per_s > 1000 || p->max_side > 4096 || p->max_s > 1e6)
        return pl_fail(err, PL_ERR_ARGUMENT, "video with %g frames a second, %d pixels wide, %g seconds long",
                       p->frames_per_s, p->max_side, p->max_s);
    return PL_OK;
}

/* Reads the open file, and closes it. */
static pl_status read_video(int video, const char *name, const pl_video_params *given, const pl_video_sink *sink,
                            pl_error *err)
{
    pl_video_params p;
    char program[PATH_MAX];
    helper h = {.path = name, .params = &p, .sound = sink->sound != NULL, .out = -1, .errors = -1};
    pl_status status = complete(given, sink, &p, err);
    if (status == PL_OK && !p.helper) {
        status = find_helper(program, err);
        p.helper = program;
    }
    if (status == PL_OK)
        status = start(&h, p.helper, video, err);
    close(video);
    if (status == PL_OK)
        status = listen_to(&h, sink, err);
    if (h.out >= 0)
        close(h.out);
    if (h.errors >= 0)
        close(h.errors);
    return status;
}

pl_status pl_video_read(const char *path, const pl_video_params *params, const pl_video_sink *sink, pl_error *err)
{
    int video;
    PL_TRY(open_video(path, &video, err));
    return read_video(video, path, params, sink, err);
}

pl_status pl_video_read_bytes(const void *bytes, size_t n, const char *name, const pl_video_params *params,
                              const pl_video_sink *sink, pl_error *err)
{
    int video;
    PL_TRY(store_video(bytes, n, name, &video, err));
    return read_video(video, name, params, sink, err);
}
