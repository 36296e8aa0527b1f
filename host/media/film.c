#include "host/media/film.h"

#include <math.h>
#include <stdio.h>

#include "host/media/track.h"

#define AROUND 12 /* tokens of a frame beside its own: its time, what begins and ends it */
#define OTHERS 8  /* one part in so many of the context is for question and answer */
#define CLIP_S 30
#define MOST_S (1000 * 3600 - 1.0) /* that is told of times */

void pl_film_plan_make(size_t context, size_t taken, size_t image, size_t clip, int max_frames, pl_film_plan *out)
{
    size_t all = context - context / OTHERS, room = all > taken ? all - taken : 0;
    *out = (pl_film_plan){.frame = image + AROUND};
    out->fit = room / out->frame;
    size_t half = clip ? room / 2 / out->frame : out->fit;
    out->frames = max_frames ? max_frames : (int)(half ? half : out->fit);
    if (clip && (size_t)out->frames <= out->fit)
        out->most = (room - (size_t)out->frames * out->frame) / (clip + AROUND) * CLIP_S * PL_SOUND_RATE;
}

void pl_film_time(double at_s, char out[PL_FILM_TIME])
{
    unsigned s = (unsigned)fmin(at_s, MOST_S);
    if (s >= 3600)
        snprintf(out, PL_FILM_TIME, "%02u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, PL_FILM_TIME, "%02u:%02u", s / 60, s % 60);
}

typedef struct reading {
    pl_film_frame_fn frame;
    void *user;
    pl_track track;
} reading;

static pl_status take_frame(void *user, const pl_video_frame *frame, pl_error *err)
{
    const reading *r = user;
    char at[PL_FILM_TIME];
    pl_film_time(frame->at_s, at);
    return r->frame(r->user, at, frame, err);
}

static pl_status take_sound(void *user, const float *samples, size_t n, pl_error *err)
{
    reading *r = user;
    return pl_track_hear(&r->track, samples, n, err);
}

pl_status pl_film_read(const pl_film *film, const pl_film_plan *plan, pl_film_frame_fn frame, void *user,
                       pl_sound *sound, bool *longer, pl_error *err)
{
    reading r = {.frame = frame, .user = user, .track.most = plan->most};
    pl_video_params params = {.frames_per_s = film->frames_per_s,
                              .max_frames = plan->frames,
                              .stop = film->stop,
                              .stop_user = film->stop_user};
    pl_video_sink sink = {.frame = take_frame, .sound = plan->most ? take_sound : NULL, .user = &r};
    pl_status status = film->bytes ? pl_video_read_bytes(film->bytes, film->n, film->name, &params, &sink, err)
                                   : pl_video_read(film->name, &params, &sink, err);
    *longer = r.track.longer;
    *sound = r.track.sound;
    if (status != PL_OK)
        pl_sound_free(sound);
    return status;
}
