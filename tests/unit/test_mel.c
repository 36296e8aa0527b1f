#include "host/media/mel.h"
#include "host/model/safetensors.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN PL_TEST_DATA "/golden/audio/"
#define BOUND 1e-4 /* of the logarithms */

/* What rounding the result to f32 may cost, and the magnitudes' last bits: far below BOUND. */
#define USUAL 2e-6

static pl_mel *create(void)
{
    pl_mel *mel = NULL;
    pl_error err;
    cr_assert_eq(pl_mel_create(&mel, &err), PL_OK);
    return mel;
}

static pl_safetensors open_golden(const char *path)
{
    pl_safetensors file;
    pl_error err;
    cr_assert_eq(pl_safetensors_open(path, &file, &err), PL_OK, "%s", err.message);
    return file;
}

static const pl_entry *find(const pl_safetensors *file, const char *sound, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "%s/%s", sound, what);
    const pl_entry *entry = pl_tensor_list_find(&file->tensors, name);
    cr_assert_not_null(entry, "%s", name);
    return entry;
}

/* The samples of a wav file with the usual head of 44 bytes. */
static float *read_wav(const char *name, size_t *n)
{
    char path[512];
    snprintf(path, sizeof path, GOLDEN "wav/%s.wav", name);
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f, "%s", path);
    static int16_t samples[100000];
    cr_assert_eq(fseek(f, 44, SEEK_SET), 0);
    *n = fread(samples, sizeof *samples, 100000, f);
    fclose(f);
    float *x = malloc(*n * sizeof *x);
    cr_assert_not_null(x);
    for (size_t i = 0; i < *n; i++)
        x[i] = (float)samples[i] / 32768.0f;
    return x;
}

static void check(const pl_mel *mel, const char *name, const float *samples, size_t n, const pl_entry *want)
{
    int frames = pl_mel_frames(n, false);
    cr_assert_eq(frames, want->dims[0], "%s: %d frames", name, frames);
    float *out = malloc((size_t)frames * PL_MEL_BINS * sizeof *out);
    cr_assert_not_null(out);
    pl_mel_compute(mel, samples, n, 0, frames, out);
    double largest = 0;
    for (int i = 0; i < frames * PL_MEL_BINS; i++) {
        float w;
        memcpy(&w, want->data + (size_t)i * sizeof w, sizeof w);
        double off = fabs((double)out[i] - w);
        cr_assert(off <= BOUND, "%s: frame %d, bin %d is %.7g, expected %.7g", name, i / PL_MEL_BINS, i % PL_MEL_BINS,
                  out[i], w);
        largest = off > largest ? off : largest;
    }
    cr_expect(largest <= USUAL, "%s: off by %.2e", name, largest);
    free(out);
}

Test(mel, features_are_those_of_the_reference)
{
    static const char *const names[] = {"mix_a", "speechy", "mix_b", "shortest",
                                        "zero",  "square",  "quiet", "tiny_quiet"};
    pl_mel *mel = create();
    pl_safetensors golden = open_golden(GOLDEN "features.safetensors");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n;
        float *samples = read_wav(names[i], &n);
        check(mel, names[i], samples, n, find(&golden, names[i], "features"));
        free(samples);
    }
    pl_safetensors_close(&golden);
    pl_mel_free(mel);
}

Test(mel, bins_below_a_loud_tone_too)
{
    static const char *const names[] = {"tone_100", "tone_997", "tone_7000", "two_tones", "too_loud",
                                        "constant", "noise",    "impulse",   "english",   "german"};
    pl_mel *mel = create();
    pl_safetensors golden = open_golden(GOLDEN "loud.safetensors");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const pl_entry *samples = find(&golden, names[i], "samples");
        float *x = malloc(samples->bytes);
        cr_assert_not_null(x);
        memcpy(x, samples->data, samples->bytes);
        check(mel, names[i], x, samples->bytes / sizeof *x, find(&golden, names[i], "features"));
        free(x);
    }
    pl_safetensors_close(&golden);
    pl_mel_free(mel);
}

Test(mel, frames_of_a_clip)
{
    static const struct {
        size_t samples;
        int whole, certain;
    } cases[] = {
        {0, 0, 0},   {1, 0, 0},   {512, 0, 0},     {513, 1, 1},          {640, 1, 1},          {672, 2, 1},
        {673, 2, 2}, {641, 2, 1}, {16000, 97, 97}, {480000, 2997, 2997}, {499201, 2997, 2997}, {11696, 71, 70}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_eq(pl_mel_frames(cases[i].samples, false), cases[i].whole, "%zu samples", cases[i].samples);
        cr_expect_eq(pl_mel_frames(cases[i].samples, true), cases[i].certain, "%zu samples and more", cases[i].samples);
    }
}

Test(mel, frames_are_the_same_wherever_a_clip_is_cut)
{
    enum { MOST = 400 };
    static float whole[MOST][PL_MEL_BINS], some[MOST][PL_MEL_BINS];
    pl_mel *mel = create();
    size_t n;
    float *samples = read_wav("mix_b", &n);
    int frames = pl_mel_frames(n, false), done = 0;
    pl_mel_compute(mel, samples, n, 0, frames, whole[0]);
    for (size_t heard = 0; done < frames; heard += 777) {
        bool more = heard < n;
        int now = pl_mel_frames(more ? heard : n, more);
        cr_assert_leq(now, frames);
        pl_mel_compute(mel, samples, more ? heard : n, done, now - done, some[done]);
        done = now;
    }
    cr_expect(memcmp(whole, some, sizeof(float) * PL_MEL_BINS * (size_t)frames) == 0);
    free(samples);
    pl_mel_free(mel);
}
