#include "tools/media_film.h"

#include <stdio.h>

#include "host/base/progress.h"
#include "host/media/video.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/media_clips.h"
#include "tools/media_track.h"

#define AROUND 12 /* tokens of a frame beside its own: its time, what begins and ends it */
#define OTHERS 8  /* one part in so many of the context is for question and answer */

typedef struct film {
    pl_showing *showing;
    const pl_options *options;
    const pl_opened *opened;
    const char *file;
    pl_media_params params;
    pl_progress progress;
    int frames, most;
    pl_track track;
} film;

/* Tokens that are left, but for question and answer. */
static size_t room_left(const film *f)
{
    pl_engine_info info;
    pl_engine_describe(f->opened->engine, &info);
    size_t all = (size_t)info.context - (size_t)info.context / OTHERS;
    return all > f->showing->tokens ? all - f->showing->tokens : 0;
}

/* How many frames, and how much sound at most. */
static pl_status divide(film *f, pl_error *err)
{
    const pl_model *model = f->opened->model;
    size_t each = pl_model_media_ids(model, PL_MEDIA_IMAGE) + AROUND, room = room_left(f);
    size_t clip = pl_model_media_ids(model, PL_MEDIA_AUDIO);
    size_t fit = room / each, most = clip ? room / 2 / each : fit;
    f->most = f->options->max_frames ? f->options->max_frames : (int)(most ? most : fit);
    if (!f->most || (size_t)f->most > fit)
        return pl_fail(
            err, PL_ERR_CONTEXT,
            "%s: a frame takes %zu tokens, and there is room for %zu of them, not %d: --max-frames or --fps make "
            "them fewer, --ctx-size makes room",
            f->file, each, fit, f->most ? f->most : 1);
    if (clip)
        f->track.most = (room - (size_t)f->most * each) / (clip + AROUND) * PL_CLIP_SECONDS * PL_SOUND_RATE;
    return PL_OK;
}

static pl_status take_frame(void *user, const pl_video_frame *frame, pl_error *err)
{
    film *f = user;
    char at[32];
    pl_media *media;
    int s = (int)frame->at_s;
    if (s >= 3600)
        snprintf(at, sizeof at, "%02d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(at, sizeof at, "%02d:%02d", s / 60, s % 60);
    PL_TRY(pl_media_from_pixels(f->opened->engine, frame->rgb, frame->width, frame->height, &f->params, &media, err));
    PL_TRY(pl_showing_take(f->showing, at, f->file, media, err));
    f->frames++;
    pl_progress_update(&f->progress, f->frames);
    return PL_OK;
}

static pl_status take_sound(void *user, const float *samples, size_t n, pl_error *err)
{
    film *f = user;
    return pl_track_hear(&f->track, samples, n, err);
}

static pl_status read_film(film *f, pl_error *err)
{
    bool hears = f->track.most > 0;
    pl_video_params params = {.frames_per_s = f->options->fps, .max_frames = f->most, .stop = pl_interrupt_poll};
    pl_video_sink sink = {.frame = take_frame, .sound = hears ? take_sound : NULL, .user = f};
    pl_progress_start(&f->progress, f->file, " frames", f->most, !f->options->quiet);
    pl_status status = pl_video_read(f->file, &params, &sink, err);
    pl_progress_finish(&f->progress);
    return status;
}

static pl_status add_sound(film *f, pl_error *err)
{
    pl_clips clips;
    pl_clip clip;
    PL_TRY(pl_clips_of(&f->track.sound, PL_CLIP_SECONDS, &clips, err));
    pl_status status = pl_clips_next(&clips, &clip, err);
    while (status == PL_OK && clip.n) {
        pl_media *media;
        PL_TRY_GOTO(pl_media_from_samples(f->opened->engine, clip.samples, clip.n, &f->params, &media, err));
        PL_TRY_GOTO(pl_showing_take(f->showing, NULL, f->file, media, err));
        PL_TRY_GOTO(pl_clips_next(&clips, &clip, err));
    }
fail:
    pl_clips_close(&clips);
    return status;
}

pl_status pl_showing_add_film(pl_showing *showing, const pl_options *options, const pl_opened *opened, const char *file,
                              pl_error *err)
{
    film f = {.showing = showing, .options = options, .opened = opened, .file = file};
    f.params = pl_showing_params(options);
    PL_TRY(divide(&f, err));
    pl_status status = read_film(&f, err);
    double seconds = (double)f.track.sound.n / PL_SOUND_RATE;
    if (status == PL_OK && f.track.longer)
        pl_console_note(
            options, "%s: the context has no room for its sound, which is left out (--max-frames, --ctx-size)", file);
    if (status == PL_OK && f.track.sound.n)
        status = add_sound(&f, err);
    pl_sound_free(&f.track.sound);
    if (status == PL_OK)
        pl_console_detail(options, "%s: %d frames, %.1f s of sound", file, f.frames, seconds);
    return status;
}
