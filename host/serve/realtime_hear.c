#include "host/serve/realtime_hear.h"

#include <stdlib.h>

#define CLIP_SAMPLES ((size_t)30 * PL_SOUND_RATE)
#define PIECE_SAMPLES ((size_t)PL_SOUND_RATE) /* between others' turns at the towers */
#define LEAST_SAMPLES ((size_t)PL_SOUND_RATE / 10)
#define BLOCK 4096

void pl_hearing_clear(pl_hearing *h)
{
    pl_resampler_free(h->resampler);
    pl_listener_free(h->listener);
    pl_media_part_free(&h->part);
    *h = (pl_hearing){.service = h->service, .stop = h->stop};
}

/* What is too short for a row, behind other clips, is left out. */
static pl_status end_clip(pl_hearing *h, pl_error *err)
{
    const int32_t *ids;
    pl_media *media = NULL;
    if (!h->listener)
        return PL_OK;
    pl_service_lock_towers(h->service);
    pl_status status = pl_listener_finish(h->listener, err);
    pl_service_unlock_towers(h->service);
    if (status == PL_OK && (pl_listener_ids(h->listener, &ids) > 0 || h->part.n_rows == 0))
        status = pl_listener_media(h->listener, &media, err);
    pl_listener_free(h->listener);
    h->listener = NULL;
    h->n_clip = 0;
    return status == PL_OK && media ? pl_media_part_add(&h->part, media, err) : status;
}

static pl_status hear(pl_hearing *h, const float *samples, size_t n, pl_error *err)
{
    if (h->stop.stop(h->stop.user))
        return pl_fail(err, PL_ERR_CANCELLED, "nobody listens any more");
    if (!h->listener)
        PL_TRY(pl_listener_create(pl_service_engine(h->service), &h->listener, err));
    pl_service_lock_towers(h->service);
    pl_status status = pl_listener_hear(h->listener, samples, n, err);
    pl_service_unlock_towers(h->service);
    h->n_clip += n;
    h->n += n;
    return status;
}

static pl_status hear_all(pl_hearing *h, const float *samples, size_t n, pl_error *err)
{
    if ((double)(h->n + n) > PL_MEDIA_SOUND_MOST_S * PL_SOUND_RATE)
        return pl_fail(err, PL_ERR_CONTEXT, "more than %g seconds of sound", PL_MEDIA_SOUND_MOST_S);
    for (size_t some; n > 0; samples += some, n -= some) {
        if (h->n_clip == CLIP_SAMPLES)
            PL_TRY(end_clip(h, err));
        some = n < PIECE_SAMPLES ? n : PIECE_SAMPLES;
        if (some > CLIP_SAMPLES - h->n_clip)
            some = CLIP_SAMPLES - h->n_clip;
        PL_TRY(hear(h, samples, some, err));
    }
    return PL_OK;
}

/* Samples of the client's rate; none: the end. What is made of them all goes to the tower in one. */
static pl_status resample(pl_hearing *h, const float *samples, size_t n, pl_error *err)
{
    size_t room = n + BLOCK, used = n, made = 0;
    float *out = malloc(room * sizeof *out);
    if (!out)
        return pl_fail_memory(err, room * sizeof *out, "sound");
    pl_status status;
    do {
        used = n;
        status = pl_resampler_run(h->resampler, samples, &used, out, room, &made, err);
        n -= used;
        if (n > 0)
            samples += used;
        if (status == PL_OK)
            status = hear_all(h, out, made, err);
    } while (status == PL_OK && (n > 0 || made == room));
    free(out);
    return status;
}

pl_status pl_hearing_add(pl_hearing *h, double rate, const unsigned char *bytes, size_t n, pl_error *err)
{
    size_t count = n / 2;
    if (n % 2)
        return pl_fail(err, PL_ERR_ARGUMENT, "%zu bytes are no samples of 16 bits", n);
    if (!h->resampler)
        PL_TRY(pl_resampler_create(rate, &h->resampler, err));
    if (count == 0)
        return PL_OK;
    float *samples = malloc(count * sizeof *samples);
    if (!samples)
        return pl_fail_memory(err, count * sizeof *samples, "sound");
    for (size_t i = 0; i < count; i++)
        samples[i] = (float)(int16_t)(uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8) / 32768;
    pl_status status = resample(h, samples, count, err);
    free(samples);
    return status;
}

static pl_status finish(pl_hearing *h, pl_error *err)
{
    if (h->resampler)
        PL_TRY(resample(h, NULL, 0, err));
    if (h->n < LEAST_SAMPLES)
        return pl_fail(err, PL_ERR_ARGUMENT, "%zu ms of sound, expected at least 100 ms", h->n * 1000 / PL_SOUND_RATE);
    return end_clip(h, err);
}

pl_status pl_hearing_end(pl_hearing *h, pl_media_part *out, pl_error *err)
{
    pl_status status = finish(h, err);
    if (status == PL_OK) {
        *out = h->part;
        out->kind = PL_MEDIA_AUDIO;
        h->part = (pl_media_part){0};
    }
    pl_hearing_clear(h);
    return status;
}
