#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create() */
#endif
#include "host/batch/model_share.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/base/free_memory.h"
#include "host/batch/file_sample.h"

#define PIECE_BYTES ((size_t)8 << 20)
#define ALIVE_S 1.0
#define PAUSE_NS 1000000

/* What ranks tell each other, in this order. Rank 0 says OFFER, VERDICT and PLACE, the others ANSWER and HOLD. */
enum { OFFER = 128, ANSWER, VERDICT, HOLD, PLACE, ALIVE };

typedef struct note {
    pl_file_sample sample; /* OFFER: rank 0's file */
    int32_t status;        /* pl_status; where it is not PL_OK, text is why */
    int32_t host;          /* the sender's */
    bool needs;            /* ANSWER: the machine must be sent the file; VERDICT: some machine must */
    char text[PATH_MAX];   /* PLACE, HOLD: the path to open on the machine */
} note;

typedef struct sharing {
    pl_ranks *ranks;
    const char *path;
    pl_share_how how;
    pl_file_sample sample;
    note *notes;   /* rank 0: [size], the last of each rank */
    note note;     /* the last of rank 0's */
    double spoken; /* rank 0: when it last said something */
    pl_progress_fn progress;
    void *user;
    pl_shared_file *out;
} sharing;

/* ---- messages ---- */

static pl_status say(sharing *s, int to, int kind, const note *what, pl_error *err)
{
    return s->ranks->send(s->ranks, to, kind, what, sizeof *what, err);
}

static pl_status say_to_all(sharing *s, int kind, const note *what, pl_error *err)
{
    s->spoken = pl_clock_seconds();
    for (int i = 1; i < s->ranks->size; i++)
        PL_TRY(say(s, i, kind, what, err));
    return PL_OK;
}

static pl_status accept(sharing *s, int from, int kind, int expected, const note *data, size_t n, note *out,
                        pl_error *err)
{
    if (kind != expected || n != sizeof *data || (s->ranks->rank == 0) == (from == 0) ||
        !memchr(data->text, '\0', sizeof data->text))
        return pl_fail(err, PL_ERR_FORMAT, "rank %d sent something else than was expected of it (%d, %d)", from, kind,
                       expected);
    *out = *data;
    return PL_OK;
}

/* The next message, of rank 0 from any other. Signs of life are not messages. */
static pl_status hear(sharing *s, int expected, int *from, note *out, pl_error *err)
{
    pl_ranks *r = s->ranks;
    for (double begun = pl_clock_seconds();;) {
        int kind;
        void *data;
        size_t n;
        PL_TRY(r->poll(r, from, &kind, &data, &n, err));
        if (*from < 0) {
            if (pl_clock_seconds() - begun > r->patience_s)
                return pl_fail(err, PL_ERR_IO, "sharing %s: not all ranks were heard of within %g seconds", s->path,
                               r->patience_s);
            nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
            continue;
        }
        pl_status status = PL_OK;
        if (kind != ALIVE)
            status = accept(s, *from, kind, expected, data, n, out, err);
        free(data);
        if (kind != ALIVE)
            return status;
        begun = pl_clock_seconds();
    }
}

/* One of each other rank. */
static pl_status hear_all(sharing *s, int expected, pl_error *err)
{
    for (int i = 1; i < s->ranks->size; i++) {
        int from;
        note n;
        PL_TRY(hear(s, expected, &from, &n, err));
        s->notes[from] = n;
    }
    return PL_OK;
}

static note note_of(const sharing *s, pl_status status, const pl_error *why)
{
    note n = {.status = (int32_t)status, .host = s->ranks->host};
    if (status != PL_OK)
        snprintf(n.text, sizeof n.text, "%s", why->message);
    return n;
}

/* ---- on another machine ---- */

/* Whether this machine's ranks can open the path themselves. */
static pl_status look(const sharing *s, bool *needs, pl_error *err)
{
    pl_file_sample here = {0};
    pl_error why = {0};
    pl_status status = pl_file_sample_take(s->path, &here, &why);
    bool same = status == PL_OK && here.size == s->sample.size && here.hash == s->sample.hash &&
                here.folder == s->sample.folder;
    *needs = false;
    if (same && (s->how == PL_SHARE_NEVER || here.folder || (s->how == PL_SHARE_AUTO && !here.network)))
        return PL_OK;
    if (s->how == PL_SHARE_NEVER || s->sample.folder)
        return pl_fail(err, PL_ERR_IO, "%s on %s: %s; %s", s->path, s->ranks->name,
                       status != PL_OK ? why.message : "differs from rank 0's",
                       s->sample.folder ? "a folder must be reachable on each machine, only a GGUF file is sent"
                                        : "it should be there on each machine (--share never)");
    *needs = true;
    return PL_OK;
}

static pl_status make_copy(const sharing *s, pl_error *err)
{
    size_t free_bytes = pl_free_memory();
    if (free_bytes && free_bytes < s->sample.size)
        return pl_fail(err, PL_ERR_MEMORY, "%s has %zu MB of free memory; a copy of %s needs %zu MB", s->ranks->name,
                       free_bytes / 1000000, s->path, (size_t)s->sample.size / 1000000);
    s->out->fd = memfd_create("model", MFD_CLOEXEC);
    if (s->out->fd < 0)
        return pl_fail(err, PL_ERR_IO, "%s: a file in memory: %s", s->ranks->name, strerror(errno));
    return PL_OK;
}

static pl_status answer(sharing *s, pl_error *err)
{
    int from;
    pl_error why = {0};
    bool needs = false;
    PL_TRY(hear(s, OFFER, &from, &s->note, err));
    s->sample = s->note.sample;
    pl_status status = PL_OK;
    if (s->note.status == PL_OK && s->ranks->first_of_host)
        status = look(s, &needs, &why);
    if (status == PL_OK && needs)
        status = make_copy(s, &why);
    note n = note_of(s, status, &why);
    n.needs = needs;
    return say(s, 0, ANSWER, &n, err);
}

/* What rank 0 says of all: a failure of any is everybody's. */
static pl_status obey(sharing *s, int kind, pl_error *err)
{
    int from;
    PL_TRY(hear(s, kind, &from, &s->note, err));
    if (s->note.status != PL_OK)
        return pl_fail(err, (pl_status)s->note.status, "%s", s->note.text);
    return PL_OK;
}

static pl_status hold(sharing *s, pl_status received, pl_error *why, pl_error *err)
{
    note n = note_of(s, received, why);
    if (received == PL_OK && s->out->fd >= 0)
        snprintf(n.text, sizeof n.text, "/proc/%ld/fd/%d", (long)getpid(), s->out->fd);
    else if (received == PL_OK)
        snprintf(n.text, sizeof n.text, "%s", s->path);
    return say(s, 0, HOLD, &n, err);
}

/* ---- the bytes ---- */

static pl_status read_piece(const sharing *s, int fd, uint64_t at, void *out, size_t n, pl_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = pread(fd, (char *)out + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return pl_fail(err, PL_ERR_IO, "%s: %s", s->path, k < 0 ? strerror(errno) : "it was cut while it was read");
        done += (size_t)k;
    }
    return PL_OK;
}

static pl_status write_piece(const sharing *s, const void *data, size_t n, pl_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = write(s->out->fd, (const char *)data + done, n - done);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return pl_fail(err, PL_ERR_IO, "%s on %s: a copy in memory: %s", s->path, s->ranks->name, strerror(errno));
        done += (size_t)k;
    }
    return PL_OK;
}

static pl_status stay_alive(sharing *s, uint64_t done, pl_error *err)
{
    if (s->progress)
        s->progress(s->user, "sending the model", (double)done / (double)s->sample.size);
    return pl_clock_seconds() - s->spoken < ALIVE_S ? PL_OK : say_to_all(s, ALIVE, &(note){0}, err);
}

/* *mine: what went wrong with the file; the broadcast goes on to its end, as the others count on it. */
static pl_status transfer(sharing *s, int fd, void *piece, pl_status *mine, pl_error *why, pl_error *err)
{
    pl_ranks *r = s->ranks;
    for (uint64_t at = 0; at < s->sample.size; at += PIECE_BYTES) {
        size_t n = s->sample.size - at < PIECE_BYTES ? (size_t)(s->sample.size - at) : PIECE_BYTES;
        if (r->rank == 0 && *mine == PL_OK)
            *mine = read_piece(s, fd, at, piece, n, why);
        PL_TRY(r->broadcast_to_hosts(r, piece, n, err));
        if (r->rank == 0)
            PL_TRY(stay_alive(s, at + n, err));
        else if (s->out->fd >= 0 && *mine == PL_OK)
            *mine = write_piece(s, piece, n, why);
    }
    return PL_OK;
}

static pl_status check_copy(const sharing *s, pl_error *err)
{
    char path[64];
    pl_file_sample copy;
    snprintf(path, sizeof path, "/proc/self/fd/%d", s->out->fd);
    PL_TRY(pl_file_sample_take(path, &copy, err));
    if (copy.size != s->sample.size || copy.hash != s->sample.hash)
        return pl_fail(err, PL_ERR_IO, "%s on %s: the copy that came differs from the file", s->path, s->ranks->name);
    return PL_OK;
}

static pl_status send_file(sharing *s, pl_status *mine, pl_error *why, pl_error *err)
{
    int fd = -1;
    void *piece = malloc(PIECE_BYTES);
    if (!piece)
        return pl_fail_memory(err, PIECE_BYTES, "pieces of the model");
    if (s->ranks->rank == 0) {
        fd = open(s->path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            *mine = pl_fail(why, PL_ERR_IO, "%s: %s", s->path, strerror(errno));
    }
    pl_status status = transfer(s, fd, piece, mine, why, err);
    if (status == PL_OK && *mine == PL_OK && s->out->fd >= 0)
        *mine = check_copy(s, why);
    if (fd >= 0)
        close(fd);
    free(piece);
    return status;
}

/* ---- both sides ---- */

/* The first failure among rank 0's own and what the others said. */
static pl_status judge(const sharing *s, pl_status mine, pl_error *err)
{
    for (int i = 1; mine == PL_OK && i < s->ranks->size; i++)
        if (s->notes[i].status != PL_OK)
            return pl_fail(err, (pl_status)s->notes[i].status, "%s", s->notes[i].text);
    return mine;
}

static pl_status announce(sharing *s, int kind, pl_status status, bool needs, pl_error *err)
{
    note n = note_of(s, status, err);
    n.needs = needs;
    PL_TRY(say_to_all(s, kind, &n, err));
    return status;
}

/* Each rank is told what its machine's first rank has. */
static pl_status tell_places(sharing *s, pl_error *err)
{
    for (int i = 1; i < s->ranks->size; i++) {
        note n = {.status = PL_OK};
        for (int k = s->ranks->size - 1; k > 0; k--)
            if (s->notes[k].host == s->notes[i].host && s->notes[k].text[0])
                snprintf(n.text, sizeof n.text, "%s", s->notes[k].text);
        if (s->notes[i].host == s->ranks->host)
            snprintf(n.text, sizeof n.text, "%s", s->path);
        PL_TRY(say(s, i, PLACE, &n, err));
    }
    return PL_OK;
}

static pl_status lead(sharing *s, pl_error *err)
{
    note offer = note_of(s, pl_file_sample_take(s->path, &s->sample, err), err);
    bool needs = false;
    offer.sample = s->sample;
    PL_TRY(say_to_all(s, OFFER, &offer, err));
    PL_TRY(hear_all(s, ANSWER, err));
    for (int i = 1; i < s->ranks->size; i++)
        needs = needs || s->notes[i].needs;
    PL_TRY(announce(s, VERDICT, judge(s, (pl_status)offer.status, err), needs, err));
    pl_status mine = PL_OK;
    pl_error why;
    if (needs)
        PL_TRY(send_file(s, &mine, &why, err));
    PL_TRY(hear_all(s, HOLD, err));
    if (mine != PL_OK && err)
        *err = why;
    mine = judge(s, mine, err);
    return mine == PL_OK ? tell_places(s, err) : announce(s, PLACE, mine, false, err);
}

static pl_status follow(sharing *s, pl_error *err)
{
    pl_status mine = PL_OK;
    pl_error why;
    PL_TRY(answer(s, err));
    PL_TRY(obey(s, VERDICT, err));
    if (s->note.needs && s->ranks->first_of_host)
        PL_TRY(send_file(s, &mine, &why, err));
    PL_TRY(hold(s, mine, &why, err));
    return obey(s, PLACE, err);
}

pl_status pl_share_file(pl_ranks *ranks, const char *path, pl_share_how how, pl_progress_fn progress, void *user,
                        pl_shared_file *out, pl_error *err)
{
    pl_error own;
    *out = (pl_shared_file){.fd = -1};
    sharing *s = calloc(1, sizeof *s);
    note *notes = calloc((size_t)ranks->size, sizeof *notes);
    pl_status status = PL_OK;
    if (!s || !notes) {
        status = pl_fail_memory(err, (size_t)ranks->size * sizeof *notes, "sharing the model");
    } else {
        *s = (sharing){
            .ranks = ranks, .path = path, .how = how, .notes = notes, .progress = progress, .user = user, .out = out};
        status = ranks->rank == 0 ? lead(s, err ? err : &own) : follow(s, err ? err : &own);
    }
    if (status == PL_OK) {
        out->path = strdup(ranks->rank == 0 ? path : s->note.text);
        if (!out->path)
            status = pl_fail_memory(err, PATH_MAX, "the model's path");
    }
    if (status != PL_OK)
        pl_shared_file_close(out);
    free(notes);
    free(s);
    return status;
}

void pl_shared_file_close(pl_shared_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    *file = (pl_shared_file){.fd = -1};
}
