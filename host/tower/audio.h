/* The audio tower: the conformer of Gemma 3n, from log-mel features to rows of a prompt.
 *
 * It looks back only, but for the two features steps that its convolutions look ahead, so that sound is encoded as it
 * comes: a stream gives each row as soon as nothing to come can change it, with the bits that the whole clip would give.
 * Source: transformers' Gemma3nAudioEncoder. */
#ifndef PL_TOWER_AUDIO_H
#define PL_TOWER_AUDIO_H

#include "host/tower/embedder.h"
#include "host/tower/turn.h"

typedef struct pl_audio pl_audio;
typedef struct pl_audio_stream pl_audio_stream; /* what is kept between the pieces of one clip */

/* As pl_vision_create(). */
pl_status pl_audio_create(const pl_tower_source *source, pl_backend *backend, const pl_tower_turn *turn, pl_audio **out,
                          pl_error *err);
void pl_audio_free(pl_audio *audio);
size_t pl_audio_bytes(const pl_audio *audio);

/* Rows that a clip of so many feature frames gives. */
int pl_audio_rows(const pl_audio *audio, int frames);

pl_status pl_audio_stream_create(pl_audio *audio, pl_audio_stream **out, pl_error *err);
void pl_audio_stream_free(pl_audio_stream *stream);

/* n more frames, [n][mel_bins]; last: no more will come. Writes the rows that are now final to rows [room][text
 * hidden]; *n_rows: how many. room: at least pl_audio_rows() of n + 32 frames. turn, show may be NULL; show: only for
 * a whole clip in one call; what a clip of more than 512 frames shows comes in batches of these. After an error the
 * stream is only good to be freed. One call at a time for all streams of a tower. */
pl_status pl_audio_hear(pl_audio_stream *stream, const float *frames, int n, bool last, const pl_tower_turn *turn,
                        const pl_tower_show *show, float *rows, int room, int *n_rows, pl_error *err);

#endif
