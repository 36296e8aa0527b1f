#include "tools/media_film.h"

#include "host/base/progress.h"
#include "host/media/film.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/media_clips.h"

typedef struct showing_film {
    pl_showing *showing;
    const pl_options *options;
    const pl_opened *opened;
    const char *file;
    pl_media_params params;
    pl_film_plan plan;
    pl_progress progress;
    int frames;
} showing_film;

/* How many frames, and how much sound at most. */
static pl_status make_plan(showing_film *f, pl_error *err)
{
    const pl_model *model = f->opened->model;
    pl_engine_info info;
    pl_engine_describe(f->opened->engine, &info);
    pl_film_plan_make((size_t)info.context, f->showing->tokens, pl_model_media_ids(model, PL_MEDIA_IMAGE),
                      pl_model_media_ids(model, PL_MEDIA_AUDIO), f->options->max_frames, &f->plan);
    const pl_film_plan *p = &f->plan;
    if (!p->frames || (size_t)p->frames > p->fit)
        return pl_fail(
            err, PL_ERR_CONTEXT,
            "%s: a frame takes %zu tokens, and there is room for %zu of them, not %d: --max-frames or --fps make "
            "them fewer, --ctx-size makes room",
            f->file, p->frame, p->fit, p->frames ? p->frames : 1);
    return PL_OK;
}

static pl_status take_frame(void *user, const char *at, const pl_video_frame *frame, pl_error *err)
{
    showing_film *f = user;
    pl_media *media;
    PL_TRY(pl_media_from_pixels(f->opened->engine, frame->rgb, frame->width, frame->height, &f->params, &media, err));
    PL_TRY(pl_showing_take(f->showing, at, f->file, media, err));
    f->frames++;
    pl_progress_update(&f->progress, f->frames);
    return PL_OK;
}

static pl_status read_film(showing_film *f, pl_sound *sound, pl_error *err)
{
    bool longer;
    const pl_film film = {.name = f->file, .frames_per_s = f->options->fps, .stop = pl_interrupt_poll};
    pl_progress_start(&f->progress, f->file, " frames", f->plan.frames, !f->options->quiet);
    pl_status status = pl_film_read(&film, &f->plan, take_frame, f, sound, &longer, err);
    pl_progress_finish(&f->progress);
    if (status == PL_OK && longer)
        pl_console_note(f->options,
                        "%s: the context has no room for its sound, which is left out (--max-frames, --ctx-size)",
                        f->file);
    return status;
}

static pl_status add_sound(showing_film *f, pl_sound *sound, pl_error *err)
{
    pl_clips clips;
    pl_clip clip;
    PL_TRY(pl_clips_of(sound, PL_CLIP_SECONDS, &clips, err));
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
    pl_sound sound = {.samples = NULL};
    showing_film f = {.showing = showing, .options = options, .opened = opened, .file = file};
    f.params = pl_showing_params(options);
    PL_TRY(make_plan(&f, err));
    pl_status status = read_film(&f, &sound, err);
    double seconds = (double)sound.n / PL_SOUND_RATE;
    if (status == PL_OK && sound.n)
        status = add_sound(&f, &sound, err);
    pl_sound_free(&sound);
    if (status == PL_OK)
        pl_console_detail(options, "%s: %d frames, %.1f s of sound", file, f.frames, seconds);
    return status;
}
