#include "host/tower/audio_parts.h"

#include <stdlib.h>

static void lay_out_work(pl_audio *audio, pl_audio_cutter *cutter)
{
    const pl_audio_config *c = &audio->config;
    const int64_t steps = PL_AUDIO_MOST_STEPS, hidden = c->hidden;
    int64_t wide = audio->weights.inner > 2 * hidden ? audio->weights.inner : 2 * hidden;
    pl_audio_work *m = &audio->work;
    m->frames = pl_audio_cut_rows(cutter, PL_AUDIO_MOST_FRAMES, c->mel_bins);
    m->halves = pl_audio_cut_rows(cutter, PL_AUDIO_MOST_HALVES, (int64_t)audio->widths[0] * c->channels[0]);
    m->quarters = pl_audio_cut_rows(cutter, steps, (int64_t)audio->widths[1] * c->channels[1]);
    m->sums = pl_audio_cut(cutter, (PL_AUDIO_MOST_HALVES + 1) * sizeof *m->sums);
    m->x = pl_audio_cut_rows(cutter, steps, hidden);
    m->normed = pl_audio_cut_rows(cutter, steps, hidden);
    m->q = pl_audio_cut_rows(cutter, steps, hidden);
    m->k = pl_audio_cut_rows(cutter, steps + c->left - 1, hidden);
    m->v = pl_audio_cut_rows(cutter, steps + c->left - 1, hidden);
    m->attended = pl_audio_cut_rows(cutter, steps, hidden);
    m->gated = pl_audio_cut_rows(cutter, steps + c->kernel - 1, hidden);
    m->wide = pl_audio_cut_rows(cutter, steps, wide);
    m->kept = pl_audio_cut_rows(cutter, steps, hidden);
}

static pl_status take_work(pl_audio *audio, pl_error *err)
{
    pl_audio_cutter cutter = {0};
    lay_out_work(audio, &cutter);
    audio->work.bytes = cutter.used;
    audio->work.memory = audio->backend->memory_take(audio->backend, cutter.used);
    if (!audio->work.memory)
        return pl_backend_fail_memory(audio->backend, cutter.used, "the audio tower's work", err);
    cutter = (pl_audio_cutter){.memory = audio->work.memory};
    lay_out_work(audio, &cutter);
    return PL_OK;
}

pl_status pl_audio_create(const pl_tower_source *source, pl_backend *backend, const pl_tower_turn *turn, pl_audio **out,
                          pl_error *err)
{
    const pl_audio_config *config = pl_tower_source_audio(source);
    if (!config)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the model has no audio tower");
    if (config->left > PL_TOWER_MOST_REACH)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the audio tower looks back %d steps, at most %d are supported",
                       config->left, PL_TOWER_MOST_REACH);
    pl_status status = PL_OK;
    pl_audio *audio = calloc(1, sizeof *audio);
    if (!audio)
        return pl_fail_memory(err, sizeof *audio, "the audio tower");
    audio->config = *config;
    audio->backend = backend;
    audio->widths[0] = (config->mel_bins + 1) / 2;
    audio->widths[1] = (audio->widths[0] + 1) / 2;
    PL_TRY_GOTO(pl_audio_weights_load(audio, source, turn, err));
    PL_TRY_GOTO(take_work(audio, err));
    PL_TRY_GOTO(pl_embedder_create(source, PL_TOWER_AUDIO, backend, turn, &audio->embedder, err));
    *out = audio;
    return PL_OK;
fail:
    pl_audio_free(audio);
    return status;
}

void pl_audio_free(pl_audio *audio)
{
    if (!audio)
        return;
    pl_embedder_free(audio->embedder);
    audio->backend->memory_give(audio->backend, audio->work.memory, audio->work.bytes);
    pl_audio_weights_free(audio);
    free(audio);
}

size_t pl_audio_bytes(const pl_audio *audio)
{
    return sizeof *audio + audio->weights.bytes + audio->work.bytes +
           (size_t)audio->config.layers * sizeof *audio->weights.layer + pl_embedder_bytes(audio->embedder);
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

int pl_audio_rows(const pl_audio *audio, int frames)
{
    return (int)divide_up(divide_up(frames, 4), audio->config.reduction);
}

/* ---- streams ---- */

static void lay_out_stream(pl_audio_stream *stream, pl_audio_cutter *cutter)
{
    const pl_audio *audio = stream->audio;
    const pl_audio_config *c = &audio->config;
    stream->waiting[0] = pl_audio_cut_rows(cutter, PL_AUDIO_WAITING, c->mel_bins);
    stream->waiting[1] = pl_audio_cut_rows(cutter, PL_AUDIO_WAITING, (int64_t)audio->widths[0] * c->channels[0]);
    for (int i = 0; i < 2; i++)
        stream->sums[i] = pl_audio_cut(cutter, sizeof *stream->sums[i]);
    for (int i = 0; i < c->layers; i++)
        stream->past[i] = (pl_audio_past){pl_audio_cut_rows(cutter, c->left - 1, c->hidden),
                                          pl_audio_cut_rows(cutter, c->left - 1, c->hidden),
                                          pl_audio_cut_rows(cutter, c->kernel - 1, c->hidden)};
}

pl_status pl_audio_stream_create(pl_audio *audio, pl_audio_stream **out, pl_error *err)
{
    pl_status status = PL_OK;
    pl_audio_cutter cutter = {0};
    pl_audio_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return pl_fail_memory(err, sizeof *stream, "a stream of sound");
    stream->audio = audio;
    stream->past = calloc((size_t)audio->config.layers, sizeof *stream->past);
    if (!stream->past) {
        status = pl_fail_memory(err, (size_t)audio->config.layers * sizeof *stream->past, "a stream of sound");
        goto fail;
    }
    lay_out_stream(stream, &cutter);
    stream->bytes = cutter.used;
    stream->memory = audio->backend->memory_take(audio->backend, cutter.used);
    if (!stream->memory) {
        status = pl_backend_fail_memory(audio->backend, cutter.used, "a stream of sound", err);
        goto fail;
    }
    cutter = (pl_audio_cutter){.memory = stream->memory};
    lay_out_stream(stream, &cutter);
    *out = stream;
    return PL_OK;
fail:
    pl_audio_stream_free(stream);
    return status;
}

void pl_audio_stream_free(pl_audio_stream *stream)
{
    if (!stream)
        return;
    stream->audio->backend->memory_give(stream->audio->backend, stream->memory, stream->bytes);
    free(stream->past);
    free(stream);
}

/* ---- from frames to steps ---- */

typedef struct call {
    pl_audio_stream *stream;
    const pl_tower_turn *turn;
    const pl_tower_show *show;
    pl_error *err;
} call;

/* How many outputs a convolution has when `inputs` are known. */
static int64_t halved(int64_t inputs, bool end)
{
    return end ? (inputs + 1) / 2 : inputs < 3 ? 0 : (inputs - 1) / 2;
}

/* One of the two convolutions with its norm: inputs from the 2 * done'th on stand in `in`, outputs from `done` to
 * `next` are made. Inputs that the next ones need are kept. */
static pl_status halve(const call *c, int which, pl_map in, float *out, int64_t done, int64_t next)
{
    static const char *const conv_names[] = {"conv_0.conv", "conv_1.conv"}, *const names[] = {"conv_0", "conv_1"};
    const pl_audio *audio = c->stream->audio;
    const pl_backend *b = audio->backend;
    double(*sums)[2] = audio->work.sums, (*kept)[2] = c->stream->sums[which];
    int64_t n = next - done, channels = audio->config.channels[which], cols = audio->widths[which] * channels;
    int64_t used = 2 * n < in.height ? 2 * n : in.height, row = in.width * in.channels;
    pl_map to = {out, (int)n, audio->widths[which], channels};
    if (n > 0) {
        b->tower->convolve(b->stream, to, in, &audio->weights.conv[which], (pl_kernel_window){3, 2, 0, 1});
        PL_TRY(pl_audio_show(audio, c->show, -1, conv_names[which], out, n, cols, c->err));
        b->copy(b->stream, sums, kept, sizeof *sums);
        b->tower->running_norm(b->stream, out, n, cols, audio->weights.conv_norm[which], channels,
                               audio->config.group_eps, sums, done);
        b->copy(b->stream, kept, sums + n, sizeof *sums);
        PL_TRY(pl_audio_show(audio, c->show, -1, names[which], out, n, cols, c->err));
    }
    if (used < in.height)
        b->copy(b->stream, c->stream->waiting[which], in.v + used * row,
                (size_t)((in.height - used) * row) * sizeof(float));
    return PL_OK;
}

/* n frames more; the steps that they make final stand in work.x. */
static pl_status subsample(const call *c, const float *frames, int n, bool end, int64_t *n_steps)
{
    pl_audio_stream *stream = c->stream;
    const pl_audio *audio = stream->audio;
    const pl_backend *b = audio->backend;
    const pl_audio_config *config = &audio->config;
    const pl_audio_work *m = &audio->work;
    int64_t bins = config->mel_bins, half = (int64_t)audio->widths[0] * config->channels[0];
    int64_t old = stream->heard - 2 * stream->halves, old_halves = stream->halves - 2 * stream->steps;
    int64_t halves = halved(stream->heard + n, end), steps = halved(halves, end);
    b->copy(b->stream, m->frames, stream->waiting[0], (size_t)(old * bins) * sizeof(float));
    if (n > 0)
        b->upload(b->stream, m->frames + old * bins, frames, (size_t)(n * bins) * sizeof(float));
    b->copy(b->stream, m->halves, stream->waiting[1], (size_t)(old_halves * half) * sizeof(float));
    pl_map in = {m->frames, (int)(old + n), config->mel_bins, 1};
    PL_TRY(halve(c, 0, in, m->halves + old_halves * half, stream->halves, halves));
    in = (pl_map){m->halves, (int)(halves - 2 * stream->steps), audio->widths[0], config->channels[0]};
    PL_TRY(halve(c, 1, in, m->quarters, stream->steps, steps));
    *n_steps = steps - stream->steps;
    stream->heard += n;
    stream->halves = halves;
    if (*n_steps > 0)
        b->tower->product(b->stream, m->x, config->hidden, m->quarters, audio->weights.project.cols, *n_steps,
                          &audio->weights.project);
    return pl_audio_show(audio, c->show, -1, "input_proj", m->x, *n_steps, config->hidden, c->err);
}

/* ---- from steps to rows ---- */

static pl_status keep_rows(const call *c, int64_t n, float *rows, int *n_rows)
{
    pl_audio *audio = c->stream->audio;
    const pl_backend *b = audio->backend;
    int64_t hidden = audio->config.hidden, every = audio->config.reduction, kept = 0;
    for (int64_t i = (every - c->stream->steps % every) % every; i < n; i += every)
        b->copy(b->stream, audio->work.kept + kept++ * hidden, audio->work.x + i * hidden,
                (size_t)hidden * sizeof(float));
    const void *here = NULL;
    *n_rows = (int)kept;
    if (kept == 0)
        return PL_OK;
    PL_TRY(pl_audio_show(audio, c->show, -1, "tower", audio->work.kept, kept, hidden, c->err));
    PL_TRY(b->fetch(b->stream, audio->work.kept, (size_t)(kept * hidden) * sizeof(float), &here, c->err));
    return pl_embedder_soft(audio->embedder, here, kept, rows, c->err);
}

static pl_status hear_batch(const call *c, const float *frames, int n, bool end, float *rows, int *n_rows)
{
    pl_audio_stream *stream = c->stream;
    int64_t steps = 0;
    PL_TRY(pl_tower_turn_begin(c->turn, c->err));
    pl_status status = subsample(c, frames, n, end, &steps);
    pl_tower_turn_end(c->turn);
    *n_rows = 0;
    for (int i = 0; status == PL_OK && steps > 0 && i < stream->audio->config.layers; i++) {
        PL_TRY(pl_tower_turn_begin(c->turn, c->err));
        status = pl_audio_layer_run(stream, i, steps, c->show, c->err);
        pl_tower_turn_end(c->turn);
    }
    if (status != PL_OK || steps == 0)
        return status;
    PL_TRY(pl_tower_turn_begin(c->turn, c->err));
    status = keep_rows(c, steps, rows, n_rows);
    pl_tower_turn_end(c->turn);
    stream->steps += steps;
    return status;
}

pl_status pl_audio_hear(pl_audio_stream *stream, const float *frames, int n, bool last, const pl_tower_turn *turn,
                        const pl_tower_show *show, float *rows, int room, int *n_rows, pl_error *err)
{
    const pl_audio *audio = stream->audio;
    const call c = {stream, turn, show, err};
    *n_rows = 0;
    if (stream->ended)
        return pl_fail(err, PL_ERR_ARGUMENT, "sound goes on after its end");
    if (room < pl_audio_rows(audio, n + 32))
        return pl_fail(err, PL_ERR_ARGUMENT, "there is room for %d rows of sound, expected %d", room,
                       pl_audio_rows(audio, n + 32));
    do {
        int piece = n < PL_AUDIO_BATCH ? n : PL_AUDIO_BATCH, more = 0;
        stream->ended = last && piece == n;
        float *to = rows ? rows + (int64_t)*n_rows * pl_embedder_width(audio->embedder) : NULL;
        PL_TRY(hear_batch(&c, frames, piece, stream->ended, to, &more));
        *n_rows += more;
        n -= piece;
        if (n > 0)
            frames += (int64_t)piece * audio->config.mel_bins;
    } while (n > 0);
    return PL_OK;
}
