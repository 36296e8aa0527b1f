#include "tools/media_clips.h"

#include <stdlib.h>
#include <string.h>

#include "host/media/track.h"
#include "tools/interrupt.h"

#define CLIP ((size_t)PL_CLIP_SECONDS * PL_SOUND_RATE)
#define ROOM (2 * CLIP) /* more than a clip, so that its end can be told from the sound's */

/* ---- opening ------------------------------------------------------------------------------------ */

static pl_status make_room(pl_clips *c, double max_s, pl_error *err)
{
    c->max_s = max_s;
    c->samples = malloc(ROOM * sizeof *c->samples);
    return c->samples ? PL_OK : pl_fail_memory(err, ROOM * sizeof *c->samples, "sound");
}

static pl_status read_track(const char *path, pl_sound *out, pl_error *err)
{
    pl_track track = {.most = SIZE_MAX};
    pl_video_params params = {.stop = pl_interrupt_poll};
    pl_video_sink sink = {.sound = pl_track_hear, .user = &track};
    pl_status status = pl_video_read(path, &params, &sink, err);
    if (status == PL_OK)
        *out = track.sound;
    else
        pl_sound_free(&track.sound);
    return status;
}

/* What the sound decoder says counts where the other finds nothing either. */
static pl_status open_sound(const void *bytes, size_t n, const char *path, pl_clips *c, pl_error *err)
{
    pl_error other = {.status = PL_OK};
    pl_status status = pl_sound_open(bytes, n, 0, path ? path : "standard input", &c->reader, err);
    if (status == PL_OK)
        c->seconds = pl_sound_seconds(c->reader);
    if (!path || (status != PL_ERR_FORMAT && status != PL_ERR_UNSUPPORTED))
        return status;
    pl_status found = read_track(path, &c->track, &other);
    if (found == PL_OK)
        c->seconds = (double)c->track.n / PL_SOUND_RATE;
    return found == PL_OK || found == PL_ERR_CANCELLED ? found : status;
}

pl_status pl_clips_open(const void *bytes, size_t n, const char *path, double max_s, pl_clips *out, pl_error *err)
{
    *out = (pl_clips){.reader = NULL};
    pl_status status = make_room(out, max_s, err);
    if (status == PL_OK)
        status = open_sound(bytes, n, path, out, err);
    if (status != PL_OK)
        pl_clips_close(out);
    return status;
}

pl_status pl_clips_of(pl_sound *sound, double max_s, pl_clips *out, pl_error *err)
{
    *out = (pl_clips){.seconds = (double)sound->n / PL_SOUND_RATE};
    PL_TRY(make_room(out, max_s, err));
    out->track = *sound;
    *sound = (pl_sound){.samples = NULL};
    return PL_OK;
}

void pl_clips_close(pl_clips *clips)
{
    pl_sound_close(clips->reader);
    pl_sound_free(&clips->track);
    free(clips->samples);
    *clips = (pl_clips){.reader = NULL};
}

/* ---- clips -------------------------------------------------------------------------------------- */

static pl_status read_more(pl_clips *c, size_t *got, pl_error *err)
{
    float *to = c->samples + c->n;
    if (c->reader)
        return pl_sound_read(c->reader, to, ROOM - c->n, got, err);
    size_t left = c->track.n - c->taken;
    *got = left < ROOM - c->n ? left : ROOM - c->n;
    if (*got)
        memcpy(to, c->track.samples + c->taken, *got * sizeof *to);
    c->taken += *got;
    return PL_OK;
}

static pl_status fill(pl_clips *c, pl_error *err)
{
    size_t got;
    c->n -= c->given;
    c->start += (double)c->given / PL_SOUND_RATE;
    memmove(c->samples, c->samples + c->given, c->n * sizeof *c->samples);
    c->given = 0;
    if (c->ended || c->n > CLIP)
        return PL_OK;
    PL_TRY(read_more(c, &got, err));
    c->n += got;
    c->ended = c->n < ROOM;
    return PL_OK;
}

pl_status pl_clips_next(pl_clips *c, pl_clip *out, pl_error *err)
{
    PL_TRY(fill(c, err));
    size_t cut = 0;
    if (c->n)
        pl_sound_split(c->samples, c->n, c->max_s, &cut, 1);
    c->given = cut;
    *out = (pl_clip){.samples = c->samples, .n = cut, .start = c->start, .end = c->start + (double)cut / PL_SOUND_RATE};
    return PL_OK;
}
