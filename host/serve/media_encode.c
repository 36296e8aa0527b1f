#include "host/serve/media_encode.h"

#include "host/media/sound.h"
#include "host/serve/media_fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FETCH_BYTES ((size_t)32 << 20)
#define FETCH_S 20.0
#define CLIP_S 30.0

/* ---- errors ------------------------------------------------------------------------------------ */

pl_api_error pl_media_error(pl_media_kind kind, const char *field, const pl_error *err)
{
    pl_api_error error = pl_api_error_of(err);
    if (err->status == PL_ERR_FORMAT || err->status == PL_ERR_IO) {
        error.status = 400;
        snprintf(error.code, sizeof error.code, "invalid_%s%s", pl_media_kind_name(kind),
                 err->status == PL_ERR_IO ? "_url" : "");
    }
    if (error.status == 400)
        snprintf(error.param, sizeof error.param, "%s", field);
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

static pl_status add_rows(pl_media_part *part, pl_media *media, pl_error *err)
{
    pl_media **grown = realloc(part->rows, (part->n_rows + 1) * sizeof(pl_media *));
    if (!grown) {
        pl_media_free(media);
        return pl_fail_memory(err, (part->n_rows + 1) * sizeof(pl_media *), "clips");
    }
    part->rows = grown;
    part->rows[part->n_rows++] = media;
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
    return status == PL_OK ? add_rows(part, media, err) : status;
}

pl_status pl_media_part_encode_clip(pl_service *s, pl_media_part *part, const float *samples, size_t n,
                                    const pl_media_stop *stop, pl_error *err)
{
    pl_media *media;
    pl_media_params params = params_of(part, stop);
    pl_service_lock_towers(s);
    pl_status status = pl_media_from_samples(pl_service_engine(s), samples, n, &params, &media, err);
    pl_service_unlock_towers(s);
    return status == PL_OK ? add_rows(part, media, err) : pl_fail_within(err, status, "%s", part->field);
}

/* Longer sound becomes several clips, cut where it is quiet. */
static pl_status encode_sound(pl_service *s, pl_media_part *part, const pl_media_stop *stop, pl_error *err)
{
    enum { CUTS = (int)(PL_MEDIA_SOUND_MOST_S / CLIP_S * 3 / 2) + 2 };
    size_t cut[CUTS], from = 0;
    pl_sound sound;
    PL_TRY(pl_sound_decode(part->bytes, part->n, PL_MEDIA_SOUND_MOST_S, part->field, &sound, err));
    size_t n = pl_sound_split(sound.samples, sound.n, CLIP_S, cut, CUTS);
    pl_status status = PL_OK;
    for (size_t i = 0; i < n && i < CUTS && status == PL_OK; i++) {
        status = pl_media_part_encode_clip(s, part, sound.samples + from, cut[i] - from, stop, err);
        from = cut[i];
    }
    pl_sound_free(&sound);
    return status;
}

static pl_status fetch(pl_media_part *part, const pl_media_stop *stop, pl_error *err)
{
    pl_status status = pl_media_fetch(part->url, FETCH_BYTES, FETCH_S, stop->stop, stop->user, &part->bytes, &part->n,
                                      err);
    return status == PL_OK ? PL_OK : pl_fail_within(err, status, "%s: cannot fetch it", part->field);
}

static pl_status encode(pl_service *s, pl_media_part *part, const pl_media_stop *stop, pl_error *err)
{
    if (part->url && !part->bytes)
        PL_TRY(fetch(part, stop, err));
    return part->kind == PL_MEDIA_IMAGE ? encode_image(s, part, stop, err) : encode_sound(s, part, stop, err);
}

bool pl_media_part_encode(pl_service *s, pl_media_part *part, const pl_media_stop *stop, pl_api_error *error)
{
    pl_error err = {.message = ""};
    pl_status status = encode(s, part, stop, &err);
    if (status != PL_OK)
        *error = pl_media_error(part->kind, part->field, &err);
    free(part->bytes);
    part->bytes = NULL;
    return status == PL_OK;
}
