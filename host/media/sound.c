#include "host/media/sound.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <sndfile.h>
#include <soxr.h>

#define MAX_SECONDS (4 * 3600.0)
#define MIN_RATE 1000
#define MAX_RATE 1000000
#define MAX_VALUE 1e10f /* the largest integers, unscaled, are 2e9 */
#define RAW_VALUES ((size_t)1 << 15)

struct pl_sound_reader {
    const uint8_t *bytes;
    sf_count_t n, at; /* of the bytes */
    char *what;
    SNDFILE *file;
    SF_INFO info;
    soxr_t soxr; /* NULL: it is at 16 kHz already */
    double max_s;
    int64_t frames, samples; /* read, given out */
    bool ended;              /* all frames are read */
    float *raw, *mono;
    size_t mono_at, mono_n;
};

static sf_count_t memory_length(void *user)
{
    return ((const pl_sound_reader *)user)->n;
}

static sf_count_t memory_tell(void *user)
{
    return ((const pl_sound_reader *)user)->at;
}

static sf_count_t memory_seek(sf_count_t offset, int whence, void *user)
{
    pl_sound_reader *r = user;
    sf_count_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? r->at : r->n;
    if (offset < -from || offset > r->n - from)
        return -1;
    return r->at = from + offset;
}

static sf_count_t memory_read(void *to, sf_count_t count, void *user)
{
    pl_sound_reader *r = user;
    sf_count_t left = r->n - r->at;
    count = count < 0 ? 0 : count < left ? count : left;
    memcpy(to, r->bytes + r->at, (size_t)count);
    r->at += count;
    return count;
}

typedef struct sound_kind {
    const char *name, *magic;
    uint8_t offset, length;
    bool read;
} sound_kind;

static const sound_kind kinds[] = {
    {"WAV", "WAVE", 8, 4, true},         {"Wave64", "riff\x2e\x91\xcf\x11", 0, 8, true},
    {"FLAC", "fLaC", 0, 4, true},        {"Ogg", "OggS", 0, 4, true},
    {"MP3", "ID3", 0, 3, true},          {"AIFF", "FORM", 0, 4, true},
    {"AU", ".snd", 0, 4, true},          {"CAF", "caff", 0, 4, true},
    {"MP4 or M4A", "ftyp", 4, 4, false}, {"WebM or Matroska", "\x1a\x45\xdf\xa3", 0, 4, false},
    {"AMR", "#!AMR", 0, 5, false},       {"MIDI", "MThd", 0, 4, false},
};

static const sound_kind *find_kind(const uint8_t *bytes, size_t n)
{
    static const sound_kind mpeg = {"MP3", "", 0, 0, true};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const sound_kind *kind = &kinds[i];
        if (n >= (size_t)kind->offset + kind->length && memcmp(bytes + kind->offset, kind->magic, kind->length) == 0)
            return kind;
    }
    return n >= 2 && bytes[0] == 0xff && (bytes[1] & 0xe0) == 0xe0 ? &mpeg : NULL;
}

static pl_status check_kind(const void *bytes, size_t n, const char *what, pl_error *err)
{
    const sound_kind *kind = find_kind(bytes, n);
    if (n == 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s is empty", what);
    if (!kind)
        return pl_fail(err, PL_ERR_FORMAT, "%s is not sound: wav, mp3, flac and ogg are read", what);
    if (!kind->read)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s is %s: sound is read as wav, mp3, flac and ogg", what, kind->name);
    return PL_OK;
}

bool pl_sound_is_elsewhere(const void *bytes, size_t n)
{
    const sound_kind *kind = find_kind(bytes, n);
    return kind && !kind->read;
}

static pl_status too_long(const pl_sound_reader *r, pl_error *err)
{
    return pl_fail(err, PL_ERR_UNSUPPORTED, "%s is too long: the limit is %g seconds", r->what, r->max_s);
}

static pl_status open_file(pl_sound_reader *r, pl_error *err)
{
    SF_VIRTUAL_IO memory_io = {memory_length, memory_seek, memory_read, NULL, memory_tell};
    r->file = sf_open_virtual(&memory_io, SFM_READ, &r->info, r);
    if (!r->file)
        return pl_fail(err, PL_ERR_FORMAT, "%s: damaged or of a kind that is not read: %s", r->what,
                       sf_error_number(sf_error(NULL)));
    if (r->info.channels < 1 || (size_t)r->info.channels > RAW_VALUES)
        return pl_fail(err, PL_ERR_FORMAT, "%s has %d channels", r->what, r->info.channels);
    if (r->info.samplerate < MIN_RATE || r->info.samplerate > MAX_RATE)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s has %d samples a second, expected %d to %d", r->what,
                       r->info.samplerate, MIN_RATE, MAX_RATE);
    if (pl_sound_seconds(r) > r->max_s)
        return too_long(r, err);
    return PL_OK;
}

/* NULL where it is at 16 kHz already. */
static pl_status open_soxr(double rate, const char *what, soxr_t *out, pl_error *err)
{
    if (rate == PL_SOUND_RATE)
        return PL_OK;
    soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    soxr_error_t failed = NULL;
    *out = soxr_create(rate, PL_SOUND_RATE, 1, &failed, NULL, &quality, NULL);
    if (!*out || failed)
        return pl_fail(err, PL_ERR_MEMORY, "%s: resampling from %g Hz: %s", what, rate,
                       failed ? failed : "out of memory");
    return PL_OK;
}

pl_status pl_sound_open(const void *bytes, size_t n, double max_s, const char *what, pl_sound_reader **out,
                        pl_error *err)
{
    *out = NULL;
    PL_TRY(check_kind(bytes, n, what, err));
    pl_sound_reader *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, what);
    r->bytes = bytes;
    r->n = (sf_count_t)n;
    r->max_s = max_s > 0 ? max_s : MAX_SECONDS;
    r->what = strdup(what);
    r->raw = malloc(RAW_VALUES * sizeof *r->raw);
    r->mono = malloc(RAW_VALUES * sizeof *r->mono);
    pl_status status = PL_OK;
    if (!r->what || !r->raw || !r->mono)
        status = pl_fail_memory(err, RAW_VALUES * sizeof *r->raw, what);
    if (status == PL_OK)
        status = open_file(r, err);
    if (status == PL_OK)
        status = open_soxr(r->info.samplerate, r->what, &r->soxr, err);
    if (status == PL_OK)
        *out = r;
    else
        pl_sound_close(r);
    return status;
}

void pl_sound_close(pl_sound_reader *reader)
{
    if (!reader)
        return;
    if (reader->file)
        sf_close(reader->file);
    if (reader->soxr)
        soxr_delete(reader->soxr);
    free(reader->raw);
    free(reader->mono);
    free(reader->what);
    free(reader);
}

double pl_sound_seconds(const pl_sound_reader *reader)
{
    const SF_INFO *info = &reader->info;
    return info->frames <= 0 || info->frames == SF_COUNT_MAX ? 0 : (double)info->frames / info->samplerate;
}

static pl_status mix(pl_sound_reader *r, size_t frames, pl_error *err)
{
    int channels = r->info.channels;
    const float *raw = r->raw;
    for (size_t i = 0; i < frames; i++, raw += channels) {
        float sum = 0;
        for (int c = 0; c < channels; c++) {
            if (!(fabsf(raw[c]) <= MAX_VALUE))
                return pl_fail(err, PL_ERR_FORMAT, "%s: sample %" PRId64 " of channel %d is %g", r->what,
                               r->frames + (int64_t)i, c + 1, (double)raw[c]);
            sum += raw[c];
        }
        r->mono[i] = sum / (float)channels;
    }
    return PL_OK;
}

/* Reads and mixes the next frames. */
static pl_status refill(pl_sound_reader *r, pl_error *err)
{
    sf_count_t frames = sf_readf_float(r->file, r->raw, (sf_count_t)RAW_VALUES / r->info.channels);
    r->mono_at = r->mono_n = 0;
    if (frames <= 0) {
        r->ended = true;
        if (r->frames == 0)
            return pl_fail(err, PL_ERR_FORMAT, "%s holds no sound", r->what);
        return PL_OK;
    }
    PL_TRY(mix(r, (size_t)frames, err));
    r->mono_n = (size_t)frames;
    r->frames += frames;
    if ((double)r->frames > r->max_s * r->info.samplerate)
        return too_long(r, err);
    return PL_OK;
}

/* Samples that all frames together become, rounded up. */
static int64_t all_samples(const pl_sound_reader *r)
{
    return (r->frames * PL_SOUND_RATE + r->info.samplerate - 1) / r->info.samplerate;
}

/* What there is of up to `room` samples without reading more. */
static pl_status convert(pl_sound_reader *r, float *samples, size_t room, size_t *n, pl_error *err)
{
    size_t left = r->mono_n - r->mono_at, used = left < room ? left : room;
    *n = used;
    if (!r->soxr) {
        memcpy(samples, r->mono + r->mono_at, used * sizeof *samples);
    } else {
        soxr_error_t failed = soxr_process(r->soxr, r->ended ? NULL : r->mono + r->mono_at, left, &used, samples, room,
                                           n);
        if (failed)
            return pl_fail(err, PL_ERR_MEMORY, "%s: resampling: %s", r->what, failed);
    }
    r->mono_at += used;
    r->samples += (int64_t)*n;
    return PL_OK;
}

pl_status pl_sound_read(pl_sound_reader *reader, float *samples, size_t room, size_t *n, pl_error *err)
{
    pl_sound_reader *r = reader;
    *n = 0;
    while (*n < room) {
        if (r->mono_at == r->mono_n && !r->ended)
            PL_TRY(refill(r, err));
        size_t wanted = room - *n, got = 0;
        if (r->ended) {
            int64_t left = all_samples(r) - r->samples;
            if (left <= 0)
                break;
            wanted = (uint64_t)left < wanted ? (size_t)left : wanted;
        }
        PL_TRY(convert(r, samples + *n, wanted, &got, err));
        if (r->ended && got == 0) { /* rounded up where soxr rounds down */
            memset(samples + *n, 0, wanted * sizeof *samples);
            r->samples += (int64_t)(got = wanted);
        }
        *n += got;
    }
    return PL_OK;
}

/* Room for at least one more sample. What the header says is believed only for a start. */
static pl_status grow(pl_sound *sound, size_t *room, pl_error *err)
{
    size_t more = *room ? *room * 2 : (size_t)PL_SOUND_RATE * 60;
    float *samples = realloc(sound->samples, more * sizeof *samples);
    if (!samples)
        return pl_fail_memory(err, more * sizeof *samples, "sound");
    sound->samples = samples;
    *room = more;
    return PL_OK;
}

static pl_status read_all(pl_sound_reader *reader, pl_sound *out, pl_error *err)
{
    size_t room = 0, got = 0;
    do {
        PL_TRY(grow(out, &room, err));
        PL_TRY(pl_sound_read(reader, out->samples + out->n, room - out->n, &got, err));
        out->n += got;
    } while (out->n == room);
    float *smaller = realloc(out->samples, out->n * sizeof *smaller);
    if (!smaller)
        return pl_fail_memory(err, out->n * sizeof *smaller, "sound");
    out->samples = smaller;
    return PL_OK;
}

pl_status pl_sound_decode(const void *bytes, size_t n, double max_s, const char *what, pl_sound *out, pl_error *err)
{
    pl_sound_reader *reader;
    memset(out, 0, sizeof *out);
    PL_TRY(pl_sound_open(bytes, n, max_s, what, &reader, err));
    pl_status status = read_all(reader, out, err);
    pl_sound_close(reader);
    if (status != PL_OK)
        pl_sound_free(out);
    return status;
}

void pl_sound_free(pl_sound *sound)
{
    if (!sound)
        return;
    free(sound->samples);
    memset(sound, 0, sizeof *sound);
}

/* ---- as it comes ------------------------------------------------------------------------------- */

struct pl_resampler {
    soxr_t soxr;
};

pl_status pl_resampler_create(double rate, pl_resampler **out, pl_error *err)
{
    pl_resampler *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, "a resampler");
    pl_status status = open_soxr(rate, "sound", &r->soxr, err);
    if (status == PL_OK)
        *out = r;
    else
        pl_resampler_free(r);
    return status;
}

void pl_resampler_free(pl_resampler *r)
{
    if (!r)
        return;
    if (r->soxr)
        soxr_delete(r->soxr);
    free(r);
}

pl_status pl_resampler_run(pl_resampler *r, const float *in, size_t *n, float *out, size_t room, size_t *made,
                           pl_error *err)
{
    if (!r->soxr) {
        *n = *made = *n < room ? *n : room;
        if (*n)
            memcpy(out, in, *n * sizeof *out);
        return PL_OK;
    }
    soxr_error_t failed = soxr_process(r->soxr, *n ? in : NULL, *n, n, out, room, made);
    return failed ? pl_fail(err, PL_ERR_MEMORY, "resampling: %s", failed) : PL_OK;
}
