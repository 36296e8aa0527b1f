/* Sound from bytes: wav, mp3, flac, ogg (Vorbis, Opus), aiff, au, caf, told by their contents; mixed to one channel (the mean) and
 * resampled to 16 kHz by soxr's HQ, as librosa and the reference's loader do.
 *
 * Sound that is cut short, or whose header promises more than there is, is read as far as it goes, as ffmpeg does: what is written
 * into a pipe has no true length. Sound without a single sample is an error, and so are samples that are not numbers. */
#ifndef PL_MEDIA_SOUND_H
#define PL_MEDIA_SOUND_H

#include "host/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_SOUND_RATE 16000

typedef struct pl_sound {
    float *samples; /* [n] at 16 kHz, full scale is 1; pl_sound_free() */
    size_t n;
} pl_sound;

/* max_s: longer sound is refused; 0: 4 hours. `what` names it in messages. PL_ERR_FORMAT: not sound, damaged, empty;
 * PL_ERR_UNSUPPORTED: a kind that is not read, too long. */
pl_status pl_sound_decode(const void *bytes, size_t n, double max_s, const char *what, pl_sound *out, pl_error *err);
void pl_sound_free(pl_sound *sound);

/* Whether it is of a kind that is known and not read here, like MP4 and WebM. track.h reads these as well. */
bool pl_sound_is_elsewhere(const void *bytes, size_t n);

/* The same piece by piece, in bounded memory. */
typedef struct pl_sound_reader pl_sound_reader;

/* bytes are borrowed until pl_sound_close(). */
pl_status pl_sound_open(const void *bytes, size_t n, double max_s, const char *what, pl_sound_reader **out,
                        pl_error *err);
void pl_sound_close(pl_sound_reader *reader);

/* The next samples, at most `room`; *n is less than room only at the end. A sound that turns out to be empty or too long fails
 * here. */
pl_status pl_sound_read(pl_sound_reader *reader, float *samples, size_t room, size_t *n, pl_error *err);

/* How long the file says it is; 0: it does not. */
double pl_sound_seconds(const pl_sound_reader *reader);

/* Samples of another rate, as they come, to 16 kHz; at 16 kHz they pass. */
typedef struct pl_resampler pl_resampler;

pl_status pl_resampler_create(double rate, pl_resampler **out, pl_error *err);
void pl_resampler_free(pl_resampler *r);

/* Takes *n samples, and says in *n how many it took; gives at most `room`, *made. To be called until all are taken and less than
 * room is given: then more must come. *n of 0 says that none will. */
pl_status pl_resampler_run(pl_resampler *r, const float *in, size_t *n, float *out, size_t room, size_t *made,
                           pl_error *err);

/* Where to cut sound so that no piece is longer than max_s (at most 30): in the quietest moment of the last third of each
 * piece, at its end where nothing is quiet. cut: the ends of the pieces in samples, the last is n; of them the first `room` are
 * given. Returns how many there are. */
size_t pl_sound_split(const float *samples, size_t n, double max_s, size_t *cut, size_t room);

#endif
