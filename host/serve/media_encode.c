#include "host/serve/media_encode.h"

#include "host/media/track.h"
#include "host/serve/media_fetch.h"

#include <stdio.h>
#include <stdlib.h>

#define FETCH_BYTES ((size_t)32 << 20)
#define FETCH_S 20.0
#define CLIP_S 30.0

/* ---- errors ------------------------------------------------------------------------------------ */

pl_api_error pl_media_error(const pl_media_part *part, const pl_error *err)
{
    pl_api_error error = pl_api_error_of(err);
    if (err->status == PL_ERR_FORMAT || err->status == PL_ERR_IO) {
        error.status = 400;
        snprintf(error.code, sizeof error.code, "invalid_%s%s", pl_media_part_name(part),
                 err->status == PL_ERR_IO ? "_url" : "");
    }
    if (error.status == 400)
        snprintf(error.param, sizeof error.param, "%s", part->field);
    return error;
}

static bool fail(pl_api_error *error, const pl_media_part *part, const char *code, const char *message)
{
    *error = (pl_api_error){.status = 400};
    snprintf(error->param, sizeof error->param, "%s", part->field);
    snprintf(error->code, sizeof error->code, "%s", code);
    snprintf(error->message, sizeof error->message, "%s: %s", part->field, message);
    return false;
}

bool pl_media_part_check(pl_service *s, const pl_media_part *part, pl_api_error *error)
{
    if (!pl_model_takes(pl_service_model(s), part->kind))
        return fail(error, part, "unsupported_value",
                    part->kind == PL_MEDIA_IMAGE ? "images are not supported by this model: it has no tower for them"
                                                 : "audio is not supported by this model: it has no tower for it");
    if (part->url && !pl_service_parameters(s)->media_urls)
        return fail(error, part, "unsupported_value",
                    "this server fetches no addresses (it was started without --allow-media-urls): send a data URL");
    return true;
}

/* ---- work -------------------------------------------------------------------------------------- */

/* Of the next rows. */
static pl_status add_time(pl_media_part *part, const char *at, pl_error *err)
{
    char(*grown)[PL_FILM_TIME] = realloc(part->times, (part->n_rows + 1) * sizeof *grown);
    if (!grown)
        return pl_fail_memory(err, (part->n_rows + 1) * sizeof *grown, "frames");
    part->times = grown;
    snprintf(part->times[part->n_rows], sizeof *grown, "%s", at);
    return PL_OK;
}

static pl_media_params params_of(const pl_media_part *part, const pl_media_stop *stop)
{
    return (pl_media_params){.image_side = part->side, .stop = stop->stop, .stop_user = stop->user};
}

static pl_status encode_image(pl_service *s, pl_media_part *part, const pl_media_stop *stop, pl_error *err)
{
    pl_media *media;
    pl_media_params params = params_of(part, stop);
    pl_service_lock_towers(s);
    pl_status status = pl_media_create(pl_service_engine(s), part->kind, part->bytes, part->n, part->field, &params,
                                       &media, err);
    pl_service_unlock_towers(s);
    return status == PL_OK ? pl_media_part_add(part, media, err) : status;
}

pl_status pl_media_part_encode_clip(pl_service *s, pl_media_part *part, const float *samples, size_t n,
                                    const pl_media_stop *stop, pl_error *err)
{
    pl_media *media;
    pl_media_params params = params_of(part, stop);
    pl_service_lock_towers(s);
    pl_status status = pl_media_from_samples(pl_service_engine(s), samples, n, &params, &media, err);
    pl_service_unlock_towers(s);
    return status == PL_OK ? pl_media_part_add(part, media, err) : pl_fail_within(err, status, "%s", part->field);
}

/* Longer sound becomes several clips, cut where it is quiet. */
static pl_status encode_clips(pl_service *s, pl_media_part *part, const pl_sound *sound, const pl_media_stop *stop,
                              pl_error *err)
{
    enum { CUTS = (int)(PL_MEDIA_SOUND_MOST_S / CLIP_S * 3 / 2) + 2 };
    size_t cut[CUTS], from = 0, n = pl_sound_split(sound->samples, sound->n, CLIP_S, cut, CUTS);
    pl_status status = PL_OK;
    for (size_t i = 0; i < n && i < CUTS && status == PL_OK; i++) {
        if (part->film)
            PL_TRY(add_time(part, "", err));
        status = pl_media_part_encode_clip(s, part, sound->samples + from, cut[i] - from, stop, err);
        from = cut[i];
    }
    return status;
}

static pl_status encode_sound(pl_service *s, pl_media_part *part, const pl_media_stop *stop, pl_error *err)
{
    pl_sound sound;
    const pl_video_params params = {.stop = stop->stop, .stop_user = stop->user};
    PL_TRY(pl_track_decode(part->bytes, part->n, PL_MEDIA_SOUND_MOST_S, part->field, &params, &sound, err));
    pl_status status = encode_clips(s, part, &sound, stop, err);
    pl_sound_free(&sound);
    return status;
}

/* ---- video ------------------------------------------------------------------------------------- */

typedef struct shown_film {
    pl_service *service;
    pl_media_part *part;
    pl_media_params params;
} shown_film;

static pl_status encode_frame(void *user, const char *at, const pl_video_frame *frame, pl_error *err)
{
    shown_film *f = user;
    pl_media *media;
    PL_TRY(add_time(f->part, at, err));
    pl_service_lock_towers(f->service);
    pl_status status = pl_media_from_pixels(pl_service_engine(f->service), frame->rgb, frame->width, frame->height,
                                            &f->params, &media, err);
    pl_service_unlock_towers(f->service);
    return status == PL_OK ? pl_media_part_add(f->part, media, err) : pl_fail_within(err, status, "%s", f->part->field);
}

static pl_status make_plan(pl_service *s, const pl_media_part *part, size_t taken, pl_film_plan *out, pl_error *err)
{
    const size_t most = (size_t)(PL_MEDIA_SOUND_MOST_S * PL_SOUND_RATE);
    const pl_model *model = pl_service_model(s);
    pl_engine_info info;
    pl_engine_describe(pl_service_engine(s), &info);
    pl_film_plan_make((size_t)info.context, taken, pl_model_media_ids(model, PL_MEDIA_IMAGE),
                      pl_model_media_ids(model, PL_MEDIA_AUDIO), 0, out);
    if (!out->frames)
        return pl_fail(err, PL_ERR_CONTEXT,
                       "%s: a frame takes %zu tokens, and there is no room for one: the context holds %d, of which %zu "
                       "are taken",
                       part->field, out->frame, info.context, taken);
    out->most = out->most < most ? out->most : most;
    return PL_OK;
}

static pl_status encode_film(pl_service *s, pl_media_part *part, size_t taken, const pl_media_stop *stop, pl_error *err)
{
    pl_film_plan plan;
    pl_sound sound;
    bool longer;
    shown_film shown = {s, part, params_of(part, stop)};
    const pl_film film = {
        .name = part->field, .bytes = part->bytes, .n = part->n, .stop = stop->stop, .stop_user = stop->user};
    PL_TRY(make_plan(s, part, taken, &plan, err));
    PL_TRY(pl_film_read(&film, &plan, encode_frame, &shown, &sound, &longer, err));
    pl_status status = sound.n ? encode_clips(s, part, &sound, stop, err) : PL_OK;
    pl_sound_free(&sound);
    return status;
}

/* ---- all --------------------------------------------------------------------------------------- */

static pl_status fetch(pl_media_part *part, const pl_media_stop *stop, pl_error *err)
{
    pl_status status = pl_media_fetch(part->url, FETCH_BYTES, FETCH_S, stop->stop, stop->user, &part->bytes, &part->n,
                                      err);
    return status == PL_OK ? PL_OK : pl_fail_within(err, status, "%s: cannot fetch it", part->field);
}

static pl_status encode(pl_service *s, pl_media_part *part, size_t taken, const pl_media_stop *stop, pl_error *err)
{
    if (part->url && !part->bytes)
        PL_TRY(fetch(part, stop, err));
    if (part->film)
        return encode_film(s, part, taken, stop, err);
    return part->kind == PL_MEDIA_IMAGE ? encode_image(s, part, stop, err) : encode_sound(s, part, stop, err);
}

bool pl_media_part_encode(pl_service *s, pl_media_part *part, size_t taken, const pl_media_stop *stop,
                          pl_api_error *error)
{
    pl_error err = {.message = ""};
    pl_status status = encode(s, part, taken, stop, &err);
    if (status != PL_OK)
        *error = pl_media_error(part, &err);
    free(part->bytes);
    part->bytes = NULL;
    return status == PL_OK;
}
