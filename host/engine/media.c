/* Images and sound as rows of a prompt: decoded, brought to the towers' form, looked up by content, encoded. */
#include "host/engine/media.h"

#include "host/media/image.h"
#include "host/media/sound.h"
#include "host/model/fingerprint.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PIXELS 100000000

struct pl_media {
    atomic_int references;
    pl_media_kind kind;
    pl_soft_block *block; /* NULL: they are held by `holds` */
    pl_soft_holds holds;
    size_t n;
    int32_t ids[];
};

const char *pl_media_kind_name(pl_media_kind kind)
{
    return kind == PL_MEDIA_IMAGE ? "image" : "audio";
}

/* ---- objects ----------------------------------------------------------------------------------- */

/* Ids that a clip has at least: behind its rows comes padding. */
static size_t least_ids(const pl_engine *e, pl_media_kind kind)
{
    const pl_audio_config *audio = pl_tower_source_audio(e->model->towers);
    return kind == PL_MEDIA_AUDIO && audio ? (size_t)audio->rows : 0;
}

static int32_t padding_id(const pl_engine *e)
{
    const pl_audio_config *audio = pl_tower_source_audio(e->model->towers);
    return audio ? audio->first_id + audio->vocab - 1 : 0;
}

/* Takes over the reference to the block, whatever comes of it. */
static pl_status create(pl_engine *e, pl_media_kind kind, pl_soft_block *block, pl_media **out, pl_error *err)
{
    size_t rows = (size_t)pl_soft_block_size(block), least = least_ids(e, kind), n = rows > least ? rows : least;
    pl_media *m = malloc(sizeof *m + n * sizeof *m->ids);
    if (!m) {
        pl_soft_block_drop(block);
        return pl_fail_memory(err, n * sizeof *m->ids, "an image or sound");
    }
    *m = (pl_media){.kind = kind, .block = block, .n = n};
    atomic_init(&m->references, 1);
    for (size_t i = 0; i < n; i++)
        m->ids[i] = i < rows ? pl_soft_block_first(block) + (int32_t)i : padding_id(e);
    *out = m;
    return PL_OK;
}

pl_status pl_media_of_ids(pl_engine *e, pl_media_kind kind, const int32_t *ids, size_t rows, pl_media **out,
                          pl_error *err)
{
    size_t least = least_ids(e, kind), n = rows > least ? rows : least;
    pl_media *m = malloc(sizeof *m + n * sizeof *m->ids);
    if (!m)
        return pl_fail_memory(err, n * sizeof *m->ids, "an image or sound");
    *m = (pl_media){.kind = kind, .n = n};
    atomic_init(&m->references, 1);
    pl_status status = pl_soft_rows_hold(e->soft, ids, rows, "row", &m->holds, err);
    if (status != PL_OK) {
        free(m);
        return status;
    }
    for (size_t i = 0; i < n; i++)
        m->ids[i] = i < rows ? ids[i] : padding_id(e);
    *out = m;
    return PL_OK;
}

pl_media *pl_media_share(pl_media *media)
{
    if (media)
        atomic_fetch_add(&media->references, 1);
    return media;
}

void pl_media_free(pl_media *media)
{
    if (!media || atomic_fetch_sub(&media->references, 1) > 1)
        return;
    pl_soft_block_drop(media->block);
    pl_soft_holds_free(&media->holds);
    free(media);
}

pl_media_kind pl_media_kind_of(const pl_media *media)
{
    return media->kind;
}

size_t pl_media_ids(const pl_media *media, const int32_t **ids)
{
    *ids = media->ids;
    return media->n;
}

pl_status pl_media_of_rows(pl_engine *e, pl_media_kind kind, const pl_soft_key *key, const float *rows, int32_t n,
                           pl_media **out, pl_error *err)
{
    pl_soft_block *block = NULL;
    PL_TRY(pl_soft_rows_add(e->soft, key, rows, n, &block, err));
    return create(e, kind, block, out, err);
}

/* ---- what is remembered ------------------------------------------------------------------------ */

static pl_soft_key key_of(pl_media_kind kind, int32_t side, const void *data, size_t bytes)
{
    const int32_t head[2] = {(int32_t)kind, side};
    pl_soft_key key;
    for (uint64_t i = 0; i < 2; i++)
        key.v[i] = pl_fingerprint(pl_fingerprint(i, head, sizeof head), data, bytes);
    return key;
}

/* *out stays NULL where it is not remembered. */
static pl_status recall(pl_engine *e, pl_media_kind kind, const pl_soft_key *key, pl_media **out, pl_error *err)
{
    pl_soft_block *block = pl_soft_rows_find(e->soft, key);
    if (!block)
        return PL_OK;
    pl_towers_count_hit(e->towers);
    return create(e, kind, block, out, err);
}

static const pl_media_params *params_or_default(const pl_media_params *params)
{
    static const pl_media_params defaults = {0};
    return params ? params : &defaults;
}

static pl_status check(const pl_engine *e, pl_media_kind kind, pl_error *err)
{
    if (pl_model_takes(e->model, kind))
        return PL_OK;
    return pl_fail(err, PL_ERR_UNSUPPORTED, "the model takes no %s: it has no tower for them",
                   kind == PL_MEDIA_IMAGE ? "images" : "sounds");
}

/* ---- images ------------------------------------------------------------------------------------ */

/* pixels: [side][side][3], as the tower takes them */
static pl_status see(pl_engine *e, const uint8_t *pixels, int32_t side, const pl_media_params *params, pl_media **out,
                     pl_error *err)
{
    pl_soft_key key = key_of(PL_MEDIA_IMAGE, side, pixels, (size_t)side * (size_t)side * 3);
    PL_TRY(recall(e, PL_MEDIA_IMAGE, &key, out, err));
    if (*out)
        return PL_OK;
    int grid = pl_tower_source_vision(e->model->towers)->grid;
    size_t values = (size_t)grid * (size_t)grid * (size_t)e->config->hidden;
    float *rows = malloc(values * sizeof *rows);
    if (!rows)
        return pl_fail_memory(err, values * sizeof *rows, "an image's rows");
    pl_tower_asker asker = {params->stop, params->stop_user};
    pl_status status = pl_towers_see(e->towers, pixels, side, &asker, rows, err);
    if (status == PL_OK)
        status = pl_media_of_rows(e, PL_MEDIA_IMAGE, &key, rows, grid * grid, out, err);
    free(rows);
    return status;
}

static pl_status choose_side(const pl_engine *e, const pl_media_params *params, int32_t *side, pl_error *err)
{
    int32_t own = pl_tower_source_vision(e->model->towers)->side, asked = params->image_side;
    if (asked != 0 && asked != 256 && asked != 512 && asked != 768 && asked != own)
        return pl_fail(err, PL_ERR_ARGUMENT, "image side: %d, expected 256, 512 or 768", asked);
    *side = asked && asked < own ? asked : own;
    return PL_OK;
}

static pl_status from_image(pl_engine *e, const pl_image *image, const pl_media_params *params, pl_media **out,
                            pl_error *err)
{
    int32_t side = 0;
    PL_TRY(choose_side(e, params, &side, err));
    size_t bytes = (size_t)side * (size_t)side * 3;
    uint8_t *pixels = malloc(bytes);
    if (!pixels)
        return pl_fail_memory(err, bytes, "an image");
    pl_media *made = NULL;
    pl_status status = pl_image_resize(image, side, side, pixels, err);
    if (status == PL_OK)
        status = see(e, pixels, side, params, &made, err);
    free(pixels);
    if (status == PL_OK)
        *out = made;
    return status;
}

pl_status pl_media_from_pixels(pl_engine *engine, const uint8_t *rgb, int32_t width, int32_t height,
                               const pl_media_params *params, pl_media **out, pl_error *err)
{
    params = params_or_default(params);
    PL_TRY(check(engine, PL_MEDIA_IMAGE, err));
    if (width < 1 || height < 1)
        return pl_fail(err, PL_ERR_ARGUMENT, "an image of %d x %d pixels", width, height);
    int64_t most = params->max_pixels > 0 ? params->max_pixels : MOST_PIXELS;
    if ((int64_t)width * height > most)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "an image of %d x %d pixels, at most %lld are taken", width, height,
                       (long long)most);
    pl_image image = {.width = width, .height = height};
    memcpy(&image.rgb, &rgb, sizeof rgb); /* it is only read */
    return from_image(engine, &image, params, out, err);
}

static pl_status create_image(pl_engine *e, const void *bytes, size_t n, const char *name,
                              const pl_media_params *params, pl_media **out, pl_error *err)
{
    pl_image image = {0};
    PL_TRY(pl_image_decode(bytes, n, params->max_pixels, name, &image, err));
    pl_status status = from_image(e, &image, params, out, err);
    pl_image_free(&image);
    return status;
}

/* ---- sound ------------------------------------------------------------------------------------- */

static double most_seconds(const pl_media_params *params)
{
    double clip = (double)PL_MEL_CLIP / PL_SOUND_RATE;
    return params->max_s > 0 && params->max_s < clip ? params->max_s : clip;
}

pl_status pl_samples_check(const float *samples, size_t n, pl_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(samples[i]))
            return pl_fail(err, PL_ERR_ARGUMENT, "sample %zu is %g, expected a number", i, (double)samples[i]);
    return PL_OK;
}

static pl_status hear(pl_engine *e, const float *samples, size_t n, const pl_media_params *params, pl_media **out,
                      pl_error *err)
{
    pl_soft_key key = key_of(PL_MEDIA_AUDIO, 0, samples, n * sizeof *samples);
    PL_TRY(recall(e, PL_MEDIA_AUDIO, &key, out, err));
    if (*out)
        return PL_OK;
    pl_ear *ear = NULL;
    pl_tower_asker asker = {params->stop, params->stop_user};
    PL_TRY(pl_ear_create(e->towers, &asker, &ear, err));
    const float *rows = NULL;
    int n_rows = 0;
    pl_status status = pl_ear_hear(ear, samples, n, true, &asker, &rows, &n_rows, err);
    if (status == PL_OK && n_rows == 0)
        status = pl_fail(err, PL_ERR_ARGUMENT, "the sound is too short: %zu samples", n);
    if (status == PL_OK)
        status = pl_media_of_rows(e, PL_MEDIA_AUDIO, &key, rows, n_rows, out, err);
    pl_ear_free(ear);
    return status;
}

pl_status pl_media_from_samples(pl_engine *engine, const float *samples, size_t n, const pl_media_params *params,
                                pl_media **out, pl_error *err)
{
    params = params_or_default(params);
    PL_TRY(check(engine, PL_MEDIA_AUDIO, err));
    double seconds = (double)n / PL_SOUND_RATE, most = most_seconds(params);
    if (n == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the sound has no samples");
    if (seconds > most)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the sound takes %.1f s, at most %g s are taken at once", seconds,
                       most);
    PL_TRY(pl_samples_check(samples, n, err));
    pl_media *made = NULL;
    PL_TRY(hear(engine, samples, n, params, &made, err));
    *out = made;
    return PL_OK;
}

static pl_status create_sound(pl_engine *e, const void *bytes, size_t n, const char *name,
                              const pl_media_params *params, pl_media **out, pl_error *err)
{
    pl_sound sound = {0};
    PL_TRY(pl_sound_decode(bytes, n, most_seconds(params), name, &sound, err));
    pl_status status = pl_media_from_samples(e, sound.samples, sound.n, params, out, err);
    pl_sound_free(&sound);
    return status;
}

pl_status pl_media_create(pl_engine *engine, pl_media_kind kind, const void *bytes, size_t n, const char *name,
                          const pl_media_params *params, pl_media **out, pl_error *err)
{
    params = params_or_default(params);
    PL_TRY(check(engine, kind, err));
    return kind == PL_MEDIA_IMAGE ? create_image(engine, bytes, n, name, params, out, err)
                                  : create_sound(engine, bytes, n, name, params, out, err);
}

/* ---- the towers -------------------------------------------------------------------------------- */

void pl_engine_towers(const pl_engine *engine, pl_tower_stats *out)
{
    *out = (pl_tower_stats){0};
    if (engine->towers)
        pl_towers_describe(engine->towers, out);
}

void pl_engine_drop_towers(pl_engine *engine, double idle_s)
{
    if (engine->towers)
        pl_towers_drop(engine->towers, idle_s > 0 ? idle_s : 0);
}
