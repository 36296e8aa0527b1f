/* Log-mel features of sound, as Gemma 3n's audio tower takes them: 128 values every 10 ms.
 * Source: transformers' Gemma3nAudioFeatureExtractor. */
#ifndef PL_MEDIA_MEL_H
#define PL_MEDIA_MEL_H

#include "host/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_MEL_BINS 128
#define PL_MEL_HOP 160
#define PL_MEL_FRAME 513   /* samples that a frame needs */
#define PL_MEL_CLIP 480000 /* samples of the longest clip: 30 s */

typedef struct pl_mel pl_mel; /* window, filters, transform; immutable */

pl_status pl_mel_create(pl_mel **out, pl_error *err);
void pl_mel_free(pl_mel *mel);

/* Frames of a clip of n samples at 16 kHz, whole or, with `more` to come, as far as they are certain. */
int pl_mel_frames(size_t n, bool more);

/* Frames [first, first + n) of samples[0..n_samples), zeros behind: out [n][PL_MEL_BINS]. */
void pl_mel_compute(const pl_mel *mel, const float *samples, size_t n_samples, int first, int n, float *out);

#endif
