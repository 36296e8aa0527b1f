/* Sound: every kind against the reference's loader, piece by piece, cut at pauses, files that are wrong. */
#include <criterion/criterion.h>
#include <math.h>

#include "host/media/sound.h"
#include "host/model/safetensors.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

#define MEDIA PL_TEST_DATA "/golden/media/"

/* libsndfile 1.2 forgets some where the headers of an Ogg are cut. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:vorbis_info_init\n";
}

static pl_error err;

static void setup(void)
{
    memset(&err, 0, sizeof err);
}

TestSuite(sound, .init = setup);

static unsigned char *read_media(const char *name, size_t *n)
{
    char path[512];
    snprintf(path, sizeof path, MEDIA "%s", name);
    char *bytes = read_file(path, n);
    unsigned char *exact = exact_copy(bytes, *n);
    free(bytes);
    return exact;
}

static pl_sound decode_good(const void *bytes, size_t n, const char *what)
{
    pl_sound sound;
    cr_assert_eq(pl_sound_decode(bytes, n, 0, what, &sound, &err), PL_OK, "%s", err.message);
    return sound;
}

/* Both use libsndfile and soxr, perhaps of other versions: lossless kinds may differ by the rounding of a sum of some
 * hundred products below 1 (2^-24 each), lossy ones by their decoders' own rounding as well. */
static void expect_samples(const pl_sound *sound, const pl_entry *expected)
{
    const float *samples = (const float *)(const void *)expected->data;
    bool lossy = strstr(expected->name, ".mp3") || strstr(expected->name, ".ogg") || strstr(expected->name, ".opus");
    double bound = lossy ? 1e-4 : 1e-5;
    cr_assert_eq(sound->n, (size_t)expected->dims[0], "%s: %zu samples", expected->name, sound->n);
    for (size_t i = 0; i < sound->n; i++) {
        float wanted;
        memcpy(&wanted, samples + i, sizeof wanted);
        cr_assert(fabs(sound->samples[i] - (double)wanted) <= bound, "%s: sample %zu is %g, expected %g",
                  expected->name, i, (double)sound->samples[i], (double)wanted);
    }
}

/* 8 to 192 kHz, one to eight channels, whole numbers and floats, compressed or not. */
Test(sound, as_the_reference_loads)
{
    pl_safetensors goldens;
    int sounds = 0;
    cr_assert_eq(pl_safetensors_open(MEDIA "media.safetensors", &goldens, &err), PL_OK, "%s", err.message);
    for (size_t i = 0; i < goldens.tensors.n; i++) {
        const pl_entry *expected = &goldens.tensors.items[i];
        if (strcmp(expected->type_name, "F32") != 0)
            continue;
        size_t n;
        unsigned char *bytes = read_media(expected->name, &n);
        pl_sound sound = decode_good(bytes, n, expected->name);
        expect_samples(&sound, expected);
        pl_sound_free(&sound);
        free(bytes);
        sounds++;
    }
    cr_assert_eq(sounds, 10);
    pl_safetensors_close(&goldens);
}

/* Pieces of any size are the whole. */
Test(sound, piece_by_piece)
{
    static const char *const names[] = {"stereo44k.wav", "mono16k.wav", "u8_8k.wav", "mono44k.mp3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n, got, at = 0, room = 1;
        unsigned char *bytes = read_media(names[i], &n);
        pl_sound whole = decode_good(bytes, n, names[i]);
        float *pieces = calloc(whole.n + 1000, sizeof *pieces);
        pl_sound_reader *reader;
        cr_assert_eq(pl_sound_open(bytes, n, 0, names[i], &reader, &err), PL_OK, "%s", err.message);
        cr_assert_float_eq(pl_sound_seconds(reader), (double)whole.n / PL_SOUND_RATE, 0.001);
        do {
            room = room % 701 + 37;
            cr_assert_eq(pl_sound_read(reader, pieces + at, room, &got, &err), PL_OK, "%s", err.message);
            at += got;
        } while (got == room);
        cr_assert_eq(at, whole.n);
        cr_assert_arr_eq(pieces, whole.samples, whole.n * sizeof *pieces);
        cr_assert_eq(pl_sound_read(reader, pieces, room, &got, &err), PL_OK);
        cr_assert_eq(got, 0);
        pl_sound_close(reader);
        free(pieces);
        pl_sound_free(&whole);
        free(bytes);
    }
}

/* ---- what is wrong ------------------------------------------------------------------------------ */

static pl_status decode_bytes(const void *bytes, size_t n, double max_s)
{
    pl_sound sound;
    unsigned char *exact = exact_copy(bytes, n);
    pl_status status = pl_sound_decode(exact, n, max_s, "talk", &sound, &err);
    cr_assert(status == PL_OK ? sound.n > 0 : !sound.samples && sound.n == 0);
    free(exact);
    pl_sound_free(&sound);
    return status;
}

static void put_le(unsigned char *to, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (unsigned char)(value >> (8 * i));
}

typedef struct wave {
    unsigned char bytes[44 + 4096];
    size_t n;
} wave;

/* A file of `format` (1: whole numbers, 3: floats) that claims to hold `claimed` bytes of sound and holds n. */
static wave make_wave(unsigned format, unsigned channels, unsigned rate, unsigned bits, uint32_t claimed,
                      const void *sound, size_t n)
{
    wave w = {.n = 44 + n};
    memcpy(w.bytes, "RIFF....WAVEfmt ", 16);
    put_le(w.bytes + 4, 36 + claimed, 4);
    put_le(w.bytes + 16, 16, 4);
    put_le(w.bytes + 20, format, 2);
    put_le(w.bytes + 22, channels, 2);
    put_le(w.bytes + 24, rate, 4);
    put_le(w.bytes + 28, rate * channels * bits / 8, 4);
    put_le(w.bytes + 32, channels * bits / 8, 2);
    put_le(w.bytes + 34, bits, 2);
    memcpy(w.bytes + 36, "data", 4);
    put_le(w.bytes + 40, claimed, 4);
    if (n > 0)
        memcpy(w.bytes + 44, sound, n);
    return w;
}

Test(sound, other_kinds_are_named)
{
    static const struct {
        const char *bytes, *name;
        size_t n;
    } others[] = {{"\0\0\0\x20"
                   "ftypM4A ........",
                   "M4A", 20},
                  {"\x1a\x45\xdf\xa3........", "WebM", 12},
                  {"#!AMR\n......", "AMR", 12}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        expect_failure(decode_bytes(others[i].bytes, others[i].n, 0), PL_ERR_UNSUPPORTED, &err,
                       WORDS("talk", others[i].name));
    expect_failure(decode_bytes("", 0, 0), PL_ERR_FORMAT, &err, WORDS("talk", "empty"));
    expect_failure(decode_bytes("a text, named .wav", 18, 0), PL_ERR_FORMAT, &err, WORDS("talk", "not sound"));
    expect_failure(decode_bytes("RIFF\4\0\0\0WAVE", 12, 0), PL_ERR_FORMAT, &err, WORDS("talk"));
    expect_failure(decode_bytes("fLaC", 4, 0), PL_ERR_FORMAT, &err, WORDS("talk"));
    expect_failure(decode_bytes("OggS", 4, 0), PL_ERR_FORMAT, &err, WORDS("talk"));
    expect_failure(decode_bytes("ID3", 3, 0), PL_ERR_FORMAT, &err, WORDS("talk"));
}

Test(sound, no_samples)
{
    wave w = make_wave(1, 1, 16000, 16, 0, NULL, 0);
    expect_failure(decode_bytes(w.bytes, w.n, 0), PL_ERR_FORMAT, &err, WORDS("talk", "no sound"));
}

Test(sound, samples_that_are_no_numbers)
{
    float stereo[60] = {0};
    stereo[31] = NAN;
    wave w = make_wave(3, 2, 16000, 32, sizeof stereo, stereo, sizeof stereo);
    expect_failure(decode_bytes(w.bytes, w.n, 0), PL_ERR_FORMAT, &err, WORDS("talk", "sample 15 of channel 2", "nan"));
    stereo[31] = -INFINITY;
    w = make_wave(3, 2, 44100, 32, sizeof stereo, stereo, sizeof stereo);
    expect_failure(decode_bytes(w.bytes, w.n, 0), PL_ERR_FORMAT, &err, WORDS("talk", "sample 15 of channel 2", "-inf"));
    stereo[31] = 3e38f;
    w = make_wave(3, 2, 44100, 32, sizeof stereo, stereo, sizeof stereo);
    expect_failure(decode_bytes(w.bytes, w.n, 0), PL_ERR_FORMAT, &err,
                   WORDS("talk", "sample 15 of channel 2", "3e+38"));
    stereo[31] = 0.5f;
    w = make_wave(3, 2, 44100, 32, sizeof stereo, stereo, sizeof stereo);
    cr_assert_eq(decode_bytes(w.bytes, w.n, 0), PL_OK, "%s", err.message);
}

Test(sound, rates_beyond_reason)
{
    int16_t sound[100] = {0};
    wave w = make_wave(1, 1, 1, 16, sizeof sound, sound, sizeof sound);
    expect_failure(decode_bytes(w.bytes, w.n, 0), PL_ERR_UNSUPPORTED, &err, WORDS("talk", "1 samples a second"));
    w = make_wave(1, 1, 2000000000, 16, sizeof sound, sound, sizeof sound);
    expect_failure(decode_bytes(w.bytes, w.n, 0), PL_ERR_UNSUPPORTED, &err, WORDS("talk", "2000000000"));
}

Test(sound, limit_of_seconds)
{
    size_t n;
    static const char *const names[] = {"stereo44k.wav", "stereo48k.flac", "mono44k.mp3", "mono22k.ogg",
                                        "mono48k.opus"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsigned char *bytes = read_media(names[i], &n);
        expect_failure(decode_bytes(bytes, n, 0.15), PL_ERR_UNSUPPORTED, &err,
                       WORDS("talk", "too long", "0.15 seconds"));
        cr_assert_eq(decode_bytes(bytes, n, 2.3), PL_OK, "%s: %s", names[i], err.message);
        free(bytes);
    }
}

/* Lengths in headers are not believed: too much is what there is, too little does not hide more than the limit. */
Test(sound, lengths_that_are_wrong)
{
    int16_t sound[1600];
    for (int i = 0; i < 1600; i++)
        sound[i] = (int16_t)(i * 13);
    static const uint32_t claims[] = {3200, 3204, 1u << 20, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        wave w = make_wave(1, 1, 16000, 16, claims[i], sound, sizeof sound);
        pl_sound got = decode_good(w.bytes, w.n, "piped");
        cr_assert_eq(got.n, 1600, "%u claimed: %zu", claims[i], got.n);
        cr_assert_float_eq(got.samples[1599], sound[1599] / 32768.0, 1e-7);
        pl_sound_free(&got);
    }

    size_t n;
    unsigned char *bytes = read_media("stereo48k.flac", &n);
    bytes[21] &= 0xf0; /* the number of samples: 36 bits */
    put_le(bytes + 22, 0, 4);
    cr_assert_eq(decode_bytes(bytes, n, 0.25), PL_OK, "%s", err.message);
    expect_failure(decode_bytes(bytes, n, 0.15), PL_ERR_UNSUPPORTED, &err, WORDS("talk", "too long"));
    bytes[21] |= 0x0f;
    put_le(bytes + 22, 0xffffffff, 4);
    expect_failure(decode_bytes(bytes, n, 0), PL_ERR_UNSUPPORTED, &err, WORDS("talk", "too long"));
    free(bytes);
}

/* What is cut is read as far as it goes, or is an error where nothing is left. */
Test(sound, cut_files)
{
    static const struct {
        const char *name;
        int part; /* a cut loses less than 1 of so many; 1: all, as all of it is one page */
    } files[] = {
        {"stereo44k.wav", 10}, {"stereo48k.flac", 2}, {"mono44k.mp3", 3}, {"mono22k.ogg", 1}, {"mono48k.opus", 2}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *name = files[i].name;
        size_t n, longest = 0;
        unsigned char *bytes = read_media(name, &n);
        pl_sound whole = decode_good(bytes, n, name), part;
        for (size_t keep = 0; keep < n; keep += 1 + n / 40) {
            unsigned char *exact = exact_copy(bytes, keep);
            if (pl_sound_decode(exact, keep, 0, name, &part, &err) == PL_OK) {
                cr_assert_leq(part.n, whole.n, "%s", name);
                cr_assert_geq(part.n, longest, "%s: %zu bytes", name, keep);
                longest = part.n;
            } else {
                cr_assert_eq(longest, 0, "%s: %zu bytes: %s", name, keep, err.message);
            }
            pl_sound_free(&part);
            free(exact);
        }
        cr_assert_geq(longest, whole.n - whole.n / (size_t)files[i].part, "%s: %zu of %zu", name, longest, whole.n);
        pl_sound_free(&whole);
        free(bytes);
    }
}

/* ---- cutting ------------------------------------------------------------------------------------ */

/* Noise with pauses of 0.12 s. */
static float *make_talk(size_t n, const double *pauses, size_t n_pauses)
{
    float *samples = malloc(n * sizeof *samples);
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525 + 1013904223;
        samples[i] = (float)(state >> 8) / (1 << 24) - 0.5f;
        for (size_t p = 0; p < n_pauses; p++)
            if (i >= (size_t)(pauses[p] * PL_SOUND_RATE) && i < (size_t)((pauses[p] + 0.12) * PL_SOUND_RATE))
                samples[i] *= 0.01f;
    }
    return samples;
}

/* In the middle of the pause, as well as steps of 10 ms allow. */
static void expect_cut(size_t got, double pause_s)
{
    cr_assert_float_eq((double)got / PL_SOUND_RATE, pause_s + 0.06, 0.0151);
}

Test(sound, split_at_pauses)
{
    const double pauses[] = {2, 8, 9, 17};
    size_t n = 25 * PL_SOUND_RATE, cut[8];
    float *talk = make_talk(n, pauses, 4);
    cr_assert_eq(pl_sound_split(talk, n, 10, cut, 8), 3);
    expect_cut(cut[0], cut[0] < 144000 ? 8 : 9); /* either; 17 is in the last third of the next ten seconds */
    expect_cut(cut[1], 17);
    cr_assert_eq(cut[2], n);
    cut[1] = 7;
    cr_assert_eq(pl_sound_split(talk, n, 10, cut, 1), 3);
    cr_assert_eq(cut[1], 7, "written behind its room");
    free(talk);
}

Test(sound, split_without_pauses)
{
    size_t n = 65 * PL_SOUND_RATE, cut[8];
    float *talk = make_talk(n, NULL, 0);
    cr_assert_eq(pl_sound_split(talk, n, 0, cut, 8), 3);
    cr_assert(cut[0] == 30 * PL_SOUND_RATE && cut[1] == 60 * PL_SOUND_RATE && cut[2] == n);
    cr_assert_eq(pl_sound_split(talk, n, 99, cut, 8), 3);
    cr_assert_eq(pl_sound_split(talk, 30 * PL_SOUND_RATE, 30, cut, 8), 1);
    cr_assert_eq(cut[0], 30 * PL_SOUND_RATE);
    cr_assert_eq(pl_sound_split(talk, 0, 30, cut, 8), 0);
    free(talk);
}

Test(sound, split_silence)
{
    size_t n = 50 * PL_SOUND_RATE, cut[8], from = 0;
    float *silence = calloc(n, sizeof *silence);
    size_t pieces = pl_sound_split(silence, n, 20, cut, 8);
    cr_assert_eq(pieces, 3);
    for (size_t i = 0; i < pieces; from = cut[i++])
        cr_assert(cut[i] > from && cut[i] - from <= 20 * PL_SOUND_RATE);
    cr_assert_eq(cut[2], n);
    free(silence);
}

static pl_status decode_for_memory(void *ctx, pl_error *e)
{
    const pl_sound *file = ctx;
    pl_sound sound;
    pl_status status = pl_sound_decode(file->samples, file->n, 0, "talk", &sound, e);
    pl_sound_free(&sound);
    return status;
}

Test(sound, no_memory)
{
    size_t n;
    unsigned char *bytes = read_media("stereo44k.wav", &n);
    pl_sound file = {(float *)(void *)bytes, n};
    cr_assert_geq(fail_alloc_each(decode_for_memory, &file), 6);
    free(bytes);
}

/* ---- as it comes ---- */

/* All of it, given in pieces of `piece`, taken in rooms of `room`; free(). */
static float *resample(double rate, const float *samples, size_t n, size_t piece, size_t room, size_t *n_out)
{
    pl_resampler *r;
    float *out = calloc(n + 2 * room, sizeof *out);
    size_t made, used, total = 0, at = 0;
    cr_assert(out);
    cr_assert_eq(pl_resampler_create(rate, &r, &err), PL_OK, "%s", err.message);
    do {
        size_t given = n - at < piece ? n - at : piece;
        used = given;
        cr_assert_leq(total, n + room);
        cr_assert_eq(pl_resampler_run(r, samples + at, &used, out + total, room, &made, &err), PL_OK, "%s",
                     err.message);
        cr_assert(used <= given && made <= room);
        at += used;
        total += made;
    } while (at < n || made == room || used > 0);
    pl_resampler_free(r);
    *n_out = total;
    return out;
}

/* A tone of 440 Hz is one at 16 kHz as well, however it is cut; only its ends are not known. HQ keeps 20 bits. */
Test(sound, resamples_as_it_comes)
{
    enum { N = 24000, EDGE = 400 };
    static float tone[N];
    size_t n_whole, n_pieces;
    for (size_t i = 0; i < N; i++)
        tone[i] = (float)(0.5 * sin(2 * M_PI * 440 * (double)i / 24000));
    float *whole = resample(24000, tone, N, N, N, &n_whole), *pieces = resample(24000, tone, N, 240, 100, &n_pieces);
    cr_assert(n_whole >= 15999 && n_whole <= 16001, "%zu", n_whole);
    cr_assert_eq(n_pieces, n_whole);
    for (size_t i = 0; i < n_whole; i++)
        cr_assert(fabs((double)whole[i] - (double)pieces[i]) <= 1e-6, "%zu", i);
    for (size_t i = EDGE; i + EDGE < n_whole; i++) {
        double wanted = 0.5 * sin(2 * M_PI * 440 * (double)i / 16000);
        cr_assert(fabs((double)whole[i] - wanted) <= 1e-5, "%zu: %g, expected %g", i, (double)whole[i], wanted);
    }
    free(whole);
    free(pieces);
    float *same = resample(16000, tone, N, 777, 500, &n_whole);
    cr_assert_eq(n_whole, N);
    cr_assert_eq(memcmp(same, tone, sizeof tone), 0);
    free(same);
}
