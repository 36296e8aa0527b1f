#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/media/mel.h"
#include "tests/tower/audio_fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HIDDEN 64 /* of the tower and of the text model that it goes with */

/* Relative, of a whole tensor. The recordings are f32; sums in another order leave about 1e-6. With AMX values are
 * sums of two bf16. */
#define BOUND_F32 5e-5
#define BOUND_AMX 1e-4

static const char *const clips[] = {"mix_a", "speechy", "mix_b", "shortest", "tiny_quiet", "zero", "square", "quiet"};
#define CLIPS (sizeof clips / sizeof *clips)

typedef struct level {
    unsigned allowed;
    double bound;
} level;

static const level levels[] = {{PL_CPU_NONE, BOUND_F32},
                               {PL_CPU_AVX2, BOUND_F32},
                               {PL_CPU_ALL & ~(unsigned)(PL_CPU_AMX_BF16 | PL_CPU_AMX_INT8), BOUND_F32},
                               {PL_CPU_ALL, BOUND_AMX}};
#define LEVELS (sizeof levels / sizeof *levels)

static audio_fixture open_small(int threads, unsigned allowed)
{
    audio_fixture f = audio_fixture_open(AUDIO_GOLDEN "tiny.safetensors", audio_config_small());
    audio_fixture_start(&f, threads, allowed);
    return f;
}

/* ---- against the recordings ---- */

typedef struct kept {
    const char *name;
    float *v;
    int64_t rows, cols;
} kept;

static void keep(void *user, const char *name, const float *v, int64_t rows, int64_t cols)
{
    kept *k = user;
    if (strcmp(name, k->name) != 0)
        return;
    cr_assert_null(k->v, "%s is shown twice", name);
    k->v = malloc((size_t)(rows * cols) * sizeof *v);
    cr_assert_not_null(k->v);
    memcpy(k->v, v, (size_t)(rows * cols) * sizeof *v);
    k->rows = rows;
    k->cols = cols;
}

static void check_clip(audio_fixture *f, const level *l, const pl_safetensors *features, const pl_safetensors *towers,
                       const char *clip)
{
    int64_t frames, bins, rows, cols;
    int n = 0;
    kept tower = {.name = "tower"};
    pl_tower_show show = {keep, &tower};
    const float *x = audio_golden_find(features, clip, "/features", &frames, &bins);
    const float *want = audio_golden_find(towers, clip, "/tower", &rows, &cols);
    float *out = audio_fixture_rows(f, x, (int)frames, &show, &n);
    cr_assert_eq(n, rows, "%s: %d rows", clip, n);
    cr_assert_eq(pl_audio_rows(f->audio, (int)frames), n);
    cr_assert(tower.v && tower.rows == rows && tower.cols == cols);
    double off = relative_l2(tower.v, want, rows * cols);
    cr_expect(off <= l->bound, "%s, %s: the tower is off by %.2e", f->backend->name, clip, off);
    off = relative_l2(out, audio_golden_find(towers, clip, "/embed", &rows, &cols), rows * cols);
    cr_expect(off <= l->bound, "%s, %s: rows are off by %.2e", f->backend->name, clip, off);
    free(tower.v);
    free(out);
}

Test(audio, rows_are_those_of_the_reference)
{
    pl_safetensors features = audio_golden_open(AUDIO_GOLDEN "features.safetensors");
    pl_safetensors towers = audio_golden_open(AUDIO_GOLDEN "towers.safetensors");
    for (size_t i = 0; i < LEVELS; i++) {
        audio_fixture f = open_small(2, levels[i].allowed);
        for (size_t c = 0; c < CLIPS; c++)
            check_clip(&f, &levels[i], &features, &towers, clips[c]);
        audio_fixture_close(&f);
    }
    pl_safetensors_close(&towers);
    pl_safetensors_close(&features);
}

/* Recorded convolutions are [channel][time][frequency], ours [time][frequency][channel]; the light one is
 * [channel][time]. */
static float *in_our_order(const pl_entry *e, bool light)
{
    const float *v = (const float *)(const void *)e->data;
    int64_t channels = e->dims[0], times = e->dims[1], widths = light ? 1 : e->dims[2];
    float *out = malloc(e->bytes);
    cr_assert_not_null(out);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t t = 0; t < times; t++)
            for (int64_t w = 0; w < widths; w++)
                out[(t * widths + w) * channels + c] = v[(c * times + t) * widths + w];
    return out;
}

static void check_step(audio_fixture *f, const pl_safetensors *features, const pl_entry *want)
{
    int64_t frames, bins;
    int n;
    kept shown = {.name = want->name};
    pl_tower_show show = {keep, &shown};
    const float *x = audio_golden_find(features, "mix_a", "/features", &frames, &bins);
    free(audio_fixture_rows(f, x, (int)frames, &show, &n));
    cr_assert_not_null(shown.v, "%s is not shown", want->name);
    cr_assert_eq((uint64_t)(shown.rows * shown.cols) * sizeof(float), want->bytes, "%s: %lld x %lld", want->name,
                 (long long)shown.rows, (long long)shown.cols);
    bool light = strstr(want->name, "depthwise") != NULL, turned = light || strncmp(want->name, "conv_", 5) == 0;
    float *v = turned ? in_our_order(want, light) : NULL;
    double off = relative_l2(shown.v, turned ? v : (const float *)(const void *)want->data, shown.rows * shown.cols);
    cr_expect(off <= BOUND_F32, "%s is off by %.2e", want->name, off);
    free(v);
    free(shown.v);
}

Test(audio, each_step_is_that_of_the_reference)
{
    pl_safetensors features = audio_golden_open(AUDIO_GOLDEN "features.safetensors");
    pl_safetensors steps = audio_golden_open(AUDIO_GOLDEN "case_mix_a.safetensors");
    audio_fixture f = open_small(1, PL_CPU_AVX2);
    int checked = 0;
    for (size_t i = 0; i < steps.tensors.n; i++) {
        const char *name = steps.tensors.items[i].name;
        /* Rows, raw scores and positions are no steps of ours: the first are returned, the others made within. */
        if (strcmp(name, "embed") == 0 || strstr(name, "logits_raw") || strstr(name, "pos_proj"))
            continue;
        check_step(&f, &features, &steps.tensors.items[i]);
        checked++;
    }
    cr_expect_eq(checked, 27, "%d", checked);
    audio_fixture_close(&f);
    pl_safetensors_close(&steps);
    pl_safetensors_close(&features);
}

Test(audio, values_are_clipped_where_the_reference_clips_them)
{
    int64_t frames, bins, rows, cols;
    int n;
    pl_audio_config config = audio_config_small();
    config.clip = 1.5f;
    kept tower = {.name = "tower"};
    pl_tower_show show = {keep, &tower};
    pl_safetensors features = audio_golden_open(AUDIO_GOLDEN "features.safetensors");
    pl_safetensors towers = audio_golden_open(AUDIO_GOLDEN "towers.safetensors");
    audio_fixture f = audio_fixture_open(AUDIO_GOLDEN "tiny.safetensors", config);
    audio_fixture_start(&f, 2, PL_CPU_AVX2);
    const float *x = audio_golden_find(&features, "mix_a", "/features", &frames, &bins);
    free(audio_fixture_rows(&f, x, (int)frames, &show, &n));
    const float *want = audio_golden_find(&towers, "clip1.5/mix_a", "/tower", &rows, &cols);
    double off = relative_l2(tower.v, want, rows * cols);
    cr_expect(off <= BOUND_F32, "off by %.2e", off);
    free(tower.v);
    audio_fixture_close(&f);
    pl_safetensors_close(&towers);
    pl_safetensors_close(&features);
}

Test(audio, rows_of_its_vocabulary)
{
    int64_t rows, cols;
    float out[16 * HIDDEN];
    pl_error err;
    pl_embedder *embedder = NULL;
    pl_safetensors towers = audio_golden_open(AUDIO_GOLDEN "towers.safetensors");
    audio_fixture f = open_small(1, PL_CPU_AVX2);
    const float *want = audio_golden_find(&towers, "embed.hard", "", &rows, &cols);
    cr_assert(rows == 16 && cols == HIDDEN);
    cr_assert_eq(pl_embedder_create(&f.source, PL_TOWER_AUDIO, f.backend, NULL, &embedder, &err), PL_OK);
    cr_assert_eq(pl_embedder_hard(embedder, out, &err), PL_OK);
    cr_expect_lt(relative_l2(out, want, rows * cols), BOUND_F32);
    want = audio_golden_find(&towers, "pad_embed", "", &rows, &cols);
    cr_expect_lt(relative_l2(out + 15 * HIDDEN, want, HIDDEN), BOUND_F32);
    pl_embedder_free(embedder);
    audio_fixture_close(&f);
    pl_safetensors_close(&towers);
}

/* ---- in pieces ---- */

/* Half a minute that changes in level and pitch, all made up. */
static float *made_up_frames(int n)
{
    pl_rng rng;
    pl_rng_seed(&rng, 5);
    float *x = malloc((size_t)n * PL_MEL_BINS * sizeof *x);
    cr_assert_not_null(x);
    for (int t = 0; t < n; t++)
        for (int b = 0; b < PL_MEL_BINS; b++)
            x[t * PL_MEL_BINS + b] = (float)(-6 + 3 * ((t / 37 + b / 9) % 3) + 2 * pl_rng_uniform(&rng));
    return x;
}

/* Pieces of up to `most` frames, some of none; the end alone or with the last frames. */
static void hear_in_pieces(audio_fixture *f, const float *frames, int n, int most, uint64_t seed, const float *want,
                           int n_want)
{
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    pl_audio_stream *stream = NULL;
    pl_error err;
    int done = 0, rows = 0, room = n / 16 + 4;
    float *out = malloc((size_t)room * HIDDEN * sizeof *out);
    cr_assert_not_null(out);
    cr_assert_eq(pl_audio_stream_create(f->audio, &stream, &err), PL_OK);
    for (bool last = false; !last;) {
        int piece = (int)(pl_rng_uniform(&rng) * (most + 1)), more = 0;
        piece = piece < n - done ? piece : n - done;
        last = done + piece == n && (piece == 0 || seed % 2 == 0);
        cr_assert_eq(pl_audio_hear(stream, frames + (int64_t)done * PL_MEL_BINS, piece, last, NULL, NULL,
                                   out + (int64_t)rows * HIDDEN, room - rows, &more, &err),
                     PL_OK, "%s", err.message);
        done += piece;
        rows += more;
        cr_assert(last || rows == (done < 7 ? 0 : (done - 7) / 16 + 1), "%d rows of %d frames", rows, done);
    }
    cr_assert_eq(rows, n_want);
    cr_expect(memcmp(out, want, (size_t)rows * HIDDEN * sizeof *out) == 0, "%s, pieces of up to %d frames",
              f->backend->name, most);
    pl_audio_stream_free(stream);
    free(out);
}

Test(audio, pieces_of_any_length_give_the_bits_of_the_whole)
{
    enum { FRAMES = 400 };
    static const int most[] = {1, 3, 16, 40, 399};
    float *frames = made_up_frames(FRAMES);
    for (size_t l = 0; l < LEVELS; l++) {
        int n;
        audio_fixture f = open_small(1, levels[l].allowed);
        float *want = audio_fixture_rows(&f, frames, FRAMES, NULL, &n);
        audio_fixture_close(&f);
        f = open_small(3, levels[l].allowed);
        for (size_t m = 0; m < sizeof most / sizeof *most; m++)
            hear_in_pieces(&f, frames, FRAMES, most[m], 10 * l + m, want, n);
        audio_fixture_close(&f);
        free(want);
    }
    free(frames);
}

Test(audio, half_a_minute)
{
    enum { FRAMES = 2997 };
    int n;
    float *frames = made_up_frames(FRAMES);
    audio_fixture f = open_small(2, PL_CPU_ALL);
    float *want = audio_fixture_rows(&f, frames, FRAMES, NULL, &n);
    cr_expect_eq(n, 188);
    hear_in_pieces(&f, frames, FRAMES, 1500, 1, want, n);
    hear_in_pieces(&f, frames, FRAMES, 90, 2, want, n);
    audio_fixture_close(&f);
    free(want);
    free(frames);
}

Test(audio, streams_do_not_disturb_each_other)
{
    enum { FRAMES = 96 };
    pl_audio_stream *stream[2] = {0};
    pl_error err;
    int n, rows[2] = {0};
    float *frames = made_up_frames(2 * FRAMES), out[2][16 * HIDDEN];
    audio_fixture f = open_small(2, PL_CPU_ALL);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pl_audio_stream_create(f.audio, &stream[i], &err), PL_OK);
    for (int done = 0; done < FRAMES; done += 24)
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(pl_audio_hear(stream[i], frames + (i * FRAMES + done) * PL_MEL_BINS, 24, done + 24 == FRAMES,
                                       NULL, NULL, out[i] + rows[i] * HIDDEN, 16 - rows[i], &n, &err),
                         PL_OK);
            rows[i] += n;
        }
    for (int i = 0; i < 2; i++) {
        float *want = audio_fixture_rows(&f, frames + i * FRAMES * PL_MEL_BINS, FRAMES, NULL, &n);
        cr_expect_eq(rows[i], n);
        cr_expect(memcmp(out[i], want, (size_t)n * HIDDEN * sizeof *want) == 0, "stream %d", i);
        free(want);
        pl_audio_stream_free(stream[i]);
    }
    free(frames);
    audio_fixture_close(&f);
}

/* ---- what goes wrong ---- */

typedef struct counted {
    int begun, ended, most;
} counted;

static pl_status count_begin(void *user, pl_error *err)
{
    counted *c = user;
    cr_expect_eq(c->begun, c->ended, "turns overlap");
    if (c->begun == c->most)
        return pl_fail(err, PL_ERR_CANCELLED, "enough");
    c->begun++;
    return PL_OK;
}

static void count_end(void *user)
{
    ((counted *)user)->ended++;
}

Test(audio, works_in_turns_and_stops_when_it_gets_none)
{
    int n;
    float *frames = made_up_frames(64), out[16 * HIDDEN];
    audio_fixture f = open_small(1, PL_CPU_ALL);
    for (int most = 0; most <= 5; most++) {
        counted c = {.most = most};
        pl_tower_turn turn = {count_begin, count_end, &c};
        pl_audio_stream *stream = NULL;
        pl_error err;
        cr_assert_eq(pl_audio_stream_create(f.audio, &stream, &err), PL_OK);
        pl_status status = pl_audio_hear(stream, frames, 64, true, &turn, NULL, out, 16, &n, &err);
        /* convolutions, three layers, rows */
        cr_expect_eq(status, most < 5 ? PL_ERR_CANCELLED : PL_OK, "%d turns", most);
        cr_expect(c.begun == most && c.ended == most, "%d turns begun, %d ended", c.begun, c.ended);
        pl_audio_stream_free(stream);
    }
    audio_fixture_close(&f);
    free(frames);
}

Test(audio, calls_that_cannot_be_right)
{
    int n;
    float *frames = made_up_frames(64), out[16 * HIDDEN];
    pl_error err;
    pl_audio_stream *stream = NULL;
    audio_fixture f = open_small(1, PL_CPU_ALL);
    cr_assert_eq(pl_audio_stream_create(f.audio, &stream, &err), PL_OK);
    cr_expect_eq(pl_audio_hear(stream, frames, 64, true, NULL, NULL, out, 5, &n, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "there is room for 5 rows of sound, expected 6");
    cr_expect_eq(pl_audio_hear(stream, NULL, 0, true, NULL, NULL, out, 16, &n, &err), PL_OK);
    cr_expect_eq(n, 0);
    cr_expect_eq(pl_audio_hear(stream, frames, 64, true, NULL, NULL, out, 16, &n, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "sound goes on after its end");
    pl_audio_stream_free(stream);
    audio_fixture_close(&f);
    free(frames);
}

static void expect_refused(audio_fixture *f, pl_status status, const char *message)
{
    pl_audio *audio = NULL;
    pl_error err = {0};
    pl_status now = pl_audio_create(&f->source, f->backend, NULL, &audio, &err);
    cr_expect_eq(now, status, "%d", now);
    cr_expect(strstr(err.message, message), "'%s' for '%s'", err.message, message);
    pl_audio_free(audio);
}

static pl_entry *entry_of(audio_fixture *f, const char *name)
{
    size_t i = 0;
    while (i < f->source.tensors.n && strcmp(f->source.tensors.items[i].name, name) != 0)
        i++;
    cr_assert_lt(i, f->source.tensors.n, "%s", name);
    return &f->source.tensors.items[i];
}

Test(audio, weights_that_do_not_fit_are_refused)
{
    static const char *const post = "audio_tower.conformer.1.attention.post.weight",
                             *const pos =
                                 "audio_tower.conformer.2.attention.attn.relative_position_embedding.pos_proj.weight",
                             *const norm = "audio_tower.subsample_conv_projection.conv_1.norm.weight";
    audio_fixture f = open_small(1, PL_CPU_AVX2);
    pl_entry *e = entry_of(&f, post), before = *e;
    e->dims[1] = 32;
    expect_refused(&f, PL_ERR_FORMAT, "attention.post.weight is of 64 times 32 values, expected 64 times 64");
    *e = before;
    static float not_finite[64 * 64];
    not_finite[5 * 64 + 3] = 1.0f / 0.0f;
    e->data = (const unsigned char *)not_finite;
    expect_refused(&f, PL_ERR_FORMAT, "attention.post.weight: row 5 has a value that is not finite");
    *e = before;
    e = entry_of(&f, pos);
    before = *e;
    e->data = (const unsigned char *)not_finite;
    expect_refused(&f, PL_ERR_FORMAT, "pos_proj.weight: row 5 has a value that is not finite");
    *e = before;
    e = entry_of(&f, norm);
    before = *e;
    e->data = (const unsigned char *)(not_finite + 5 * 64);
    expect_refused(&f, PL_ERR_FORMAT, "conv_1.norm.weight: value 3 is not finite");
    *e = before;
    f.source.audio.layers = 4;
    expect_refused(&f, PL_ERR_FORMAT, "audio_tower.conformer.3.ffw_layer_start.ffw_layer_1.weight is missing");
    f.source.audio.layers = 3;
    f.source.audio.left = 100;
    expect_refused(&f, PL_ERR_UNSUPPORTED, "looks back 100 steps, at most 32");
    f.source.has_audio = false;
    expect_refused(&f, PL_ERR_UNSUPPORTED, "no audio tower");
    audio_fixture_close(&f);
}
