/* Sound from bytes: wav, mp3, flac, ogg and whatever else libsndfile reads, told by its contents; mixed to one channel and
 * resampled to 16 kHz. */
#ifndef PL_MEDIA_SOUND_H
#define PL_MEDIA_SOUND_H

#include "host/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_SOUND_RATE 16000

typedef struct pl_sound {
    float *samples; /* [n] at 16 kHz, full scale is 1; pl_sound_free() */
    size_t n;
} pl_sound;

/* max_s: longer sound is refused; 0: 4 hours. `what` names it in messages. */
pl_status pl_sound_decode(const void *bytes, size_t n, double max_s, const char *what, pl_sound *out, pl_error *err);
void pl_sound_free(pl_sound *sound);

/* Where to cut sound so that no piece is longer than max_s (at most 30): in the quietest moment of the last third of each
 * piece, at its end where nothing is quiet. cut: the ends of the pieces in samples, the last is n; at most room. Returns how
 * many there are. */
size_t pl_sound_split(const float *samples, size_t n, double max_s, size_t *cut, size_t room);

#endif
