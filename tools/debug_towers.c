#include "tools/debug_towers.h"

#include <stdlib.h>
#include <string.h>

#include "host/engine/model.h"
#include "host/engine/towers.h"
#include "host/media/image.h"
#include "host/media/sound.h"
#include "tools/debug_trace.h"
#include "tools/opened.h"
#include "tools/slurp.h"

typedef struct looking {
    const pl_options *options;
    pl_opened opened;
    pl_strbuf bytes; /* of the file */
    pl_debug_trace trace;
} looking;

static void take(void *user, const char *name, const float *v, int64_t rows, int64_t cols)
{
    looking *l = user;
    if (l->options->all_tensors || strcmp(name, "tower") == 0)
        pl_debug_trace_take(&l->trace,
                            &(pl_trace_tensor){.name = name, .v = v, .streams = 1, .rows = rows, .width = cols});
}

static pl_status open_looking(const pl_options *options, pl_media_kind kind, looking *l, pl_error *err)
{
    pl_engine_params params = pl_opened_params(options);
    l->options = options;
    PL_TRY(pl_slurp(options->in_file, &l->bytes, err));
    PL_TRY(pl_opened_model(options, &l->opened, err));
    if (!pl_model_takes(l->opened.model, kind))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: the model has no %s tower; --mmproj FILE gives it one",
                       options->model, kind == PL_MEDIA_IMAGE ? "vision" : "audio");
    return pl_opened_engine(options, &params, &l->opened, err);
}

static void close_looking(looking *l)
{
    pl_debug_trace_free(&l->trace);
    pl_strbuf_free(&l->bytes);
    pl_opened_free(&l->opened);
}

static pl_status write_file(looking *l, const pl_out_tensor *input, const float *rows, int64_t n, pl_error *err)
{
    int64_t hidden = pl_model_hidden_size(l->opened.model);
    if (l->trace.error.status != PL_OK)
        return pl_fail(err, l->trace.error.status, "%s", l->trace.error.message);
    pl_out_tensor *tensors = calloc(l->trace.n + 2, sizeof *tensors);
    if (!tensors)
        return pl_fail_memory(err, (l->trace.n + 2) * sizeof *tensors, "list of tensors");
    tensors[0] = *input;
    tensors[1] = (pl_out_tensor){.name = "soft", .dtype = PL_OUT_F32, .n_dims = 2, .dims = {n, hidden}, .data = rows};
    pl_status status = PL_OK;
    for (size_t i = 0; i < l->trace.n && status == PL_OK; i++)
        status = pl_debug_trace_finish(&l->trace, i, &tensors[i + 2], err);
    if (status == PL_OK)
        status = pl_safetensors_write(l->options->out_file, tensors, l->trace.n + 2, err);
    free(tensors);
    return status;
}

/* ---- images ------------------------------------------------------------------------------------- */

static pl_status see(looking *l, const uint8_t *rgb, int side, pl_error *err)
{
    pl_status status;
    pl_engine *engine = l->opened.engine;
    int grid = pl_tower_source_vision(engine->model->towers)->grid;
    size_t pixels = (size_t)side * (size_t)side, n = (size_t)grid * (size_t)grid;
    float *input = malloc(3 * pixels * sizeof *input);
    float *rows = malloc(n * (size_t)pl_model_hidden_size(l->opened.model) * sizeof *rows);
    if (!input || !rows)
        PL_TRY_GOTO(pl_fail_memory(err, 3 * pixels * sizeof *input, l->options->in_file));
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++)
            input[c * pixels + i] = (float)rgb[3 * i + c] / 255.0F;
    const pl_tower_show show = {take, l};
    PL_TRY_GOTO(pl_towers_see(engine->towers, rgb, side, &(pl_tower_asker){NULL, NULL}, &show, rows, err));
    const pl_out_tensor tensor = {
        .name = "input", .dtype = PL_OUT_F32, .n_dims = 3, .dims = {3, side, side}, .data = input};
    PL_TRY_GOTO(write_file(l, &tensor, rows, (int64_t)n, err));
fail:
    free(rows);
    free(input);
    return status;
}

pl_status pl_debug_image(const pl_options *options, pl_error *err)
{
    static const int sides[] = {0, 256, 512, 768};
    pl_status status;
    looking l = {.options = NULL};
    pl_image image = {.rgb = NULL};
    uint8_t *rgb = NULL;
    PL_TRY_GOTO(open_looking(options, PL_MEDIA_IMAGE, &l, err));
    PL_TRY_GOTO(pl_image_decode(l.bytes.data, l.bytes.n, 0, options->in_file, &image, err));
    int side = sides[options->image_size];
    if (!side)
        side = pl_tower_source_vision(l.opened.engine->model->towers)->side;
    rgb = malloc(3 * (size_t)side * (size_t)side);
    if (!rgb)
        PL_TRY_GOTO(pl_fail_memory(err, 3 * (size_t)side * (size_t)side, options->in_file));
    PL_TRY_GOTO(pl_image_resize(&image, side, side, rgb, err));
    PL_TRY_GOTO(see(&l, rgb, side, err));
fail:
    free(rgb);
    pl_image_free(&image);
    close_looking(&l);
    return status;
}

/* ---- sound -------------------------------------------------------------------------------------- */

static pl_status hear(looking *l, const pl_sound *sound, pl_error *err)
{
    pl_status status;
    pl_mel *mel = NULL;
    pl_ear *ear = NULL;
    const float *rows;
    int frames = pl_mel_frames(sound->n, false), n;
    float *input = malloc(((size_t)frames * PL_MEL_BINS + 1) * sizeof *input);
    if (!input)
        return pl_fail_memory(err, (size_t)frames * PL_MEL_BINS * sizeof *input, l->options->in_file);
    PL_TRY_GOTO(pl_mel_create(&mel, err));
    pl_mel_compute(mel, sound->samples, sound->n, 0, frames, input);
    const pl_tower_show show = {take, l};
    PL_TRY_GOTO(pl_ear_create(l->opened.engine->towers, &ear, err));
    PL_TRY_GOTO(pl_ear_hear(ear, sound->samples, sound->n, true, &(pl_tower_asker){NULL, NULL}, &show, &rows, &n, err));
    const pl_out_tensor tensor = {
        .name = "input", .dtype = PL_OUT_F32, .n_dims = 2, .dims = {frames, PL_MEL_BINS}, .data = input};
    PL_TRY_GOTO(write_file(l, &tensor, rows, n, err));
fail:
    pl_ear_free(ear);
    pl_mel_free(mel);
    free(input);
    return status;
}

pl_status pl_debug_audio(const pl_options *options, pl_error *err)
{
    pl_status status;
    looking l = {.options = NULL};
    pl_sound sound = {.samples = NULL};
    PL_TRY_GOTO(open_looking(options, PL_MEDIA_AUDIO, &l, err));
    PL_TRY_GOTO(pl_sound_decode(l.bytes.data, l.bytes.n, PL_MEL_CLIP / PL_SOUND_RATE, options->in_file, &sound, err));
    PL_TRY_GOTO(hear(&l, &sound, err));
fail:
    pl_sound_free(&sound);
    close_looking(&l);
    return status;
}
