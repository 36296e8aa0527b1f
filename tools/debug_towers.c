#include "tools/debug_towers.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/cpu.h"
#include "host/base/topology.h"
#include "host/media/image.h"
#include "host/media/mel.h"
#include "host/media/sound.h"
#include "host/ops/backend.h"
#include "host/tower/audio.h"
#include "host/tower/vision.h"
#include "tools/debug_trace.h"
#include "tools/media_shown.h"
#include "tools/slurp.h"

/* A tower by itself: the text model's weights need not be there. */
typedef struct looking {
    const pl_options *options;
    pl_checkpoint *checkpoint;
    pl_tower_source *source;
    pl_backend *backend;
    int64_t hidden;  /* of the text model */
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

static pl_status open_looking(const pl_options *options, pl_tower_kind kind, looking *l, pl_error *err)
{
    bool image = kind == PL_TOWER_VISION;
    l->options = options;
    PL_TRY(pl_slurp(options->in_file, &l->bytes, err));
    PL_TRY(pl_checkpoint_open_parts(options->model, &l->checkpoint, err));
    PL_TRY(pl_tower_source_open(l->checkpoint, options->mmproj, &l->source, err));
    if (image ? !pl_tower_source_vision(l->source) : !pl_tower_source_audio(l->source))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: the model has no %s tower; --mmproj FILE gives it one",
                       options->model, image ? "vision" : "audio");
    const pl_config *c = pl_checkpoint_config(l->checkpoint);
    const pl_backend_shape shape = {
        .max_rows = 1, .max_context = 1, .vocab = c->vocab, .heads = {c->n_heads, c->n_kv_heads, c->head_dim}};
    l->hidden = c->hidden;
    pl_topology *topology = NULL;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    int threads = options->n_threads > 0 ? options->n_threads : pl_topology_cores(topology);
    pl_topology_close(topology);
    return pl_backend_cpu(&shape, threads, NULL, PL_CPU_ALL, &l->backend, err);
}

static void close_looking(looking *l)
{
    pl_debug_trace_free(&l->trace);
    pl_strbuf_free(&l->bytes);
    pl_backend_free(l->backend);
    pl_tower_source_close(l->source);
    pl_checkpoint_close(l->checkpoint);
}

static pl_status write_file(looking *l, const pl_out_tensor *input, const float *rows, int64_t n, pl_error *err)
{
    if (l->trace.error.status != PL_OK)
        return pl_fail(err, l->trace.error.status, "%s", l->trace.error.message);
    pl_out_tensor *tensors = calloc(l->trace.n + 2, sizeof *tensors);
    if (!tensors)
        return pl_fail_memory(err, (l->trace.n + 2) * sizeof *tensors, "list of tensors");
    tensors[0] = *input;
    tensors[1] = (pl_out_tensor){
        .name = "soft", .dtype = PL_OUT_F32, .n_dims = 2, .dims = {n, l->hidden}, .data = rows};
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
    pl_vision *vision = NULL;
    int grid = pl_tower_source_vision(l->source)->grid;
    size_t pixels = (size_t)side * (size_t)side, n = (size_t)grid * (size_t)grid;
    float *input = malloc(3 * pixels * sizeof *input);
    float *rows = malloc(n * (size_t)l->hidden * sizeof *rows);
    if (!input || !rows)
        PL_TRY_GOTO(pl_fail_memory(err, 3 * pixels * sizeof *input, l->options->in_file));
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++)
            input[c * pixels + i] = (float)rgb[3 * i + c] / 255.0F;
    const pl_tower_show show = {take, l};
    PL_TRY_GOTO(pl_vision_create(l->source, l->backend, NULL, &vision, err));
    PL_TRY_GOTO(pl_vision_encode(vision, rgb, side, NULL, &show, rows, err));
    const pl_out_tensor tensor = {
        .name = "input", .dtype = PL_OUT_F32, .n_dims = 3, .dims = {3, side, side}, .data = input};
    PL_TRY_GOTO(write_file(l, &tensor, rows, (int64_t)n, err));
fail:
    pl_vision_free(vision);
    free(rows);
    free(input);
    return status;
}

pl_status pl_debug_image(const pl_options *options, pl_error *err)
{
    pl_status status;
    looking l = {.options = NULL};
    pl_image image = {.rgb = NULL};
    uint8_t *rgb = NULL;
    PL_TRY_GOTO(open_looking(options, PL_TOWER_VISION, &l, err));
    PL_TRY_GOTO(pl_image_decode(l.bytes.data, l.bytes.n, 0, options->in_file, &image, err));
    int side = pl_showing_params(options).image_side;
    if (!side)
        side = pl_tower_source_vision(l.source)->side;
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
    pl_audio *audio = NULL;
    pl_audio_stream *stream = NULL;
    float *rows = NULL;
    int frames = pl_mel_frames(sound->n, false), n, room;
    float *input = malloc(((size_t)frames * PL_MEL_BINS + 1) * sizeof *input);
    if (!input)
        return pl_fail_memory(err, (size_t)frames * PL_MEL_BINS * sizeof *input, l->options->in_file);
    PL_TRY_GOTO(pl_mel_create(&mel, err));
    pl_mel_compute(mel, sound->samples, sound->n, 0, frames, input);
    const pl_tower_show show = {take, l};
    PL_TRY_GOTO(pl_audio_create(l->source, l->backend, NULL, &audio, err));
    PL_TRY_GOTO(pl_audio_stream_create(audio, &stream, err));
    room = pl_audio_rows(audio, frames + 32);
    rows = malloc((size_t)room * (size_t)l->hidden * sizeof *rows);
    if (!rows)
        PL_TRY_GOTO(pl_fail_memory(err, (size_t)room * (size_t)l->hidden * sizeof *rows, l->options->in_file));
    PL_TRY_GOTO(pl_audio_hear(stream, input, frames, true, NULL, &show, rows, room, &n, err));
    const pl_out_tensor tensor = {
        .name = "input", .dtype = PL_OUT_F32, .n_dims = 2, .dims = {frames, PL_MEL_BINS}, .data = input};
    PL_TRY_GOTO(write_file(l, &tensor, rows, n, err));
fail:
    pl_audio_stream_free(stream);
    pl_audio_free(audio);
    pl_mel_free(mel);
    free(rows);
    free(input);
    return status;
}

pl_status pl_debug_audio(const pl_options *options, pl_error *err)
{
    pl_status status;
    looking l = {.options = NULL};
    pl_sound sound = {.samples = NULL};
    PL_TRY_GOTO(open_looking(options, PL_TOWER_AUDIO, &l, err));
    PL_TRY_GOTO(pl_sound_decode(l.bytes.data, l.bytes.n, 0, options->in_file, &sound, err));
    if (sound.n > PL_MEL_CLIP) /* as the reference does */
        sound.n = PL_MEL_CLIP;
    PL_TRY_GOTO(hear(&l, &sound, err));
fail:
    pl_sound_free(&sound);
    close_looking(&l);
    return status;
}
