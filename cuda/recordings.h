/* Runs of ops as graphs, by the key they are given under: seen once they run as they are, seen twice they are
 * captured, from then on replayed. The least recently used make room. */
#ifndef PL_CUDA_RECORDINGS_H
#define PL_CUDA_RECORDINGS_H

#include "cuda/queue.h"

#define PL_RECORDINGS_MAX 64

pl_status pl_recordings_create(pl_recordings **out, pl_error *err);
void pl_recordings_free(pl_recordings *r);

/* As in pl_backend; end may be left out after a begin that returned false. */
bool pl_recordings_begin(pl_stream *s, const void *key, size_t key_bytes);
void pl_recordings_end(pl_stream *s);

/* Forgets them all. */
void pl_recordings_drop(pl_stream *s);

/* Gives up a capture that has no end. */
void pl_recordings_stop(pl_stream *s);

#endif
