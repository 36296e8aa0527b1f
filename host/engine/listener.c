/* Sound as it comes. Rows get their ids as soon as they are final, a block for each call. */
#include "host/engine/media.h"

#include <stdlib.h>
#include <string.h>

struct pl_listener {
    pl_engine *engine;
    pl_ear *ear;
    float *samples; /* [PL_MEL_CLIP] */
    size_t n_samples;
    pl_soft_holds holds;
    int32_t *ids; /* [most_ids] */
    size_t n_ids, most_ids;
    bool finished;
};

pl_status pl_listener_create(pl_engine *engine, pl_listener **out, pl_error *err)
{
    if (!pl_model_takes(engine->model, PL_MEDIA_AUDIO))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the model takes no sounds: it has no tower for them");
    pl_listener *l = calloc(1, sizeof *l);
    if (!l)
        return pl_fail_memory(err, sizeof *l, "a listener");
    l->engine = engine;
    l->samples = malloc(PL_MEL_CLIP * sizeof *l->samples);
    pl_status status = l->samples ? PL_OK : pl_fail_memory(err, PL_MEL_CLIP * sizeof *l->samples, "a listener");
    if (status == PL_OK)
        status = pl_ear_create(engine->towers, NULL, &l->ear, err);
    if (status != PL_OK) {
        pl_listener_free(l);
        return status;
    }
    *out = l;
    return PL_OK;
}

void pl_listener_free(pl_listener *l)
{
    if (!l)
        return;
    pl_ear_free(l->ear);
    pl_soft_holds_free(&l->holds);
    free(l->samples);
    free(l->ids);
    free(l);
}

static pl_status make_room(pl_listener *l, size_t n, pl_error *err)
{
    if (l->n_ids + n <= l->most_ids)
        return PL_OK;
    size_t room = 2 * l->most_ids + n;
    int32_t *grown = realloc(l->ids, room * sizeof *grown);
    if (!grown)
        return pl_fail_memory(err, room * sizeof *grown, "a listener's ids");
    l->ids = grown;
    l->most_ids = room;
    return PL_OK;
}

static pl_status keep(pl_listener *l, const float *rows, int32_t n, pl_error *err)
{
    pl_soft_block *block = NULL;
    PL_TRY(make_room(l, (size_t)n, err));
    PL_TRY(pl_soft_rows_add(l->engine->soft, NULL, rows, n, &block, err));
    int32_t first = pl_soft_block_first(block);
    pl_status status = pl_soft_rows_hold(l->engine->soft, &first, 1, "row", &l->holds, err);
    pl_soft_block_drop(block);
    PL_TRY(status);
    for (int32_t i = 0; i < n; i++)
        l->ids[l->n_ids++] = first + i;
    return PL_OK;
}

static pl_status listen(pl_listener *l, bool last, pl_error *err)
{
    const float *rows = NULL;
    int n = 0;
    PL_TRY(pl_ear_hear(l->ear, l->samples, l->n_samples, last, NULL, &rows, &n, err));
    return n > 0 ? keep(l, rows, n, err) : PL_OK;
}

pl_status pl_listener_hear(pl_listener *l, const float *samples, size_t n, pl_error *err)
{
    if (l->finished)
        return pl_fail(err, PL_ERR_ARGUMENT, "the listener was told that no more would come");
    if (n > PL_MEL_CLIP - l->n_samples)
        return pl_fail(err, PL_ERR_CONTEXT, "%zu samples after %zu do not fit a clip of %d", n, l->n_samples,
                       PL_MEL_CLIP);
    PL_TRY(pl_samples_check(samples, n, err));
    memcpy(l->samples + l->n_samples, samples, n * sizeof *samples);
    l->n_samples += n;
    return listen(l, false, err);
}

pl_status pl_listener_finish(pl_listener *l, pl_error *err)
{
    if (l->finished)
        return PL_OK;
    l->finished = true;
    return l->n_samples > 0 ? listen(l, true, err) : PL_OK;
}

size_t pl_listener_ids(const pl_listener *l, const int32_t **ids)
{
    *ids = l->ids;
    return l->n_ids;
}

pl_status pl_listener_media(const pl_listener *l, pl_media **out, pl_error *err)
{
    if (!l->finished || l->n_ids == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the sound is too short: %zu samples", l->n_samples);
    return pl_media_of_ids(l->engine, PL_MEDIA_AUDIO, l->ids, l->n_ids, out, err);
}
