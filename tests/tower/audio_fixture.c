#include "tests/tower/audio_fixture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pl_audio_config audio_config_small(void)
{
    return (pl_audio_config){.hidden = 64,
                             .heads = 4,
                             .layers = 3,
                             .mel_bins = 128,
                             .chunk = 12,
                             .left = 13,
                             .kernel = 5,
                             .reduction = 4,
                             .channels = {16, 8},
                             .rows = 188,
                             .vocab = 16,
                             .first_id = 262272,
                             .residual_weight = 0.5f,
                             .logit_cap = 50,
                             .group_eps = 1e-3f,
                             .clip = 1e10f,
                             .eps = 1e-6f};
}

pl_safetensors audio_golden_open(const char *path)
{
    pl_safetensors file;
    pl_error err;
    cr_assert_eq(pl_safetensors_open(path, &file, &err), PL_OK, "%s", err.message);
    return file;
}

const float *audio_golden_find(const pl_safetensors *golden, const char *clip, const char *what, int64_t *rows,
                               int64_t *cols)
{
    char name[96];
    snprintf(name, sizeof name, "%s%s", clip, what);
    const pl_entry *entry = pl_tensor_list_find(&golden->tensors, name);
    cr_assert_not_null(entry, "%s", name);
    cr_assert((uintptr_t)entry->data % sizeof(float) == 0, "%s", name);
    *rows = entry->n_dims > 1 ? entry->dims[0] : 1;
    *cols = entry->dims[entry->n_dims > 1 ? 1 : 0];
    return (const float *)(const void *)entry->data;
}

double relative_l2(const float *a, const float *b, int64_t n)
{
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    return sqrt(off / all);
}

audio_fixture audio_fixture_open(const char *weights, pl_audio_config config)
{
    audio_fixture f = {.weights = audio_golden_open(weights)};
    pl_error err;
    cr_assert_eq(pl_arena_create(1 << 16, &f.source.arena, &err), PL_OK);
    f.source.where = weights;
    f.source.file = f.weights.file;
    f.source.has_audio = true;
    f.source.audio = config;
    f.source.tensors.n = f.weights.tensors.n;
    f.source.tensors.items = pl_arena_take(f.source.arena, f.weights.tensors.n, sizeof(pl_entry));
    cr_assert_not_null(f.source.tensors.items);
    for (size_t i = 0; i < f.weights.tensors.n; i++) {
        pl_entry *entry = &f.source.tensors.items[i];
        *entry = f.weights.tensors.items[i];
        cr_assert_eq(strncmp(entry->name, "model.", 6), 0);
        entry->name += 6;
    }
    cr_assert_eq(pl_tensor_list_index(&f.source.tensors, f.source.arena, &err), PL_OK);
    return f;
}

void audio_fixture_start(audio_fixture *f, int threads, unsigned allowed)
{
    static const pl_backend_shape shape = {
        .max_rows = 1, .max_context = 16, .heads = {.heads = 1, .kv_heads = 1, .dim = 16}, .vocab = 16};
    pl_error err;
    cr_assert_eq(pl_backend_cpu(&shape, threads, NULL, allowed, &f->backend, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_audio_create(&f->source, f->backend, NULL, &f->audio, &err), PL_OK, "%s", err.message);
}

void audio_fixture_close(audio_fixture *f)
{
    pl_audio_free(f->audio);
    pl_backend_free(f->backend);
    pl_arena_free(f->source.arena);
    pl_safetensors_close(&f->weights);
}

float *audio_fixture_rows(audio_fixture *f, const float *frames, int n, const pl_tower_show *show, int *n_rows)
{
    pl_audio_stream *stream = NULL;
    pl_error err;
    const pl_entry *projection = pl_tower_source_find(&f->source, "embed_audio.embedding_projection.weight");
    int room = pl_audio_rows(f->audio, n + 32);
    float *rows = malloc((size_t)room * (size_t)projection->dims[0] * sizeof *rows);
    cr_assert_not_null(rows);
    cr_assert_eq(pl_audio_stream_create(f->audio, &stream, &err), PL_OK);
    cr_assert_eq(pl_audio_hear(stream, frames, n, true, NULL, show, rows, room, n_rows, &err), PL_OK, "%s",
                 err.message);
    pl_audio_stream_free(stream);
    return rows;
}
