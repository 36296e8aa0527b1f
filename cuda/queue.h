/* Inside the CUDA backend: the card, and a queue of work on it. One caller at a time, of any thread. */
#ifndef PL_CUDA_QUEUE_H
#define PL_CUDA_QUEUE_H

#include "host/base/status.h"
#include "host/ops/ops.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

/* What the queues of a backend share. */
typedef struct pl_card {
    int index;
    char name[128];
    cudaError_t error;  /* the first of any call; after it nothing is queued any more */
    const char *failed; /* what it came from */
    const char *reason; /* where it is not the runtime's; NULL: what the runtime says of `error` */
} pl_card;

#define PL_STAGING_SLOTS 4
#define PL_QUEUE_MARKS 64 /* that can be open; a later mark waits for the oldest */

typedef struct pl_recordings pl_recordings; /* cuda/recordings.h */
typedef struct pl_recording pl_recording;
typedef struct pl_cuda_end pl_cuda_end; /* cuda/comm_nccl.h */

/* Pinned memory that copies to the card leave from. A slot is used again when all of it has left. */
typedef struct pl_staging {
    char *memory;
    size_t slot_bytes;
    size_t used; /* of the slot */
    int slot;
    cudaEvent_t sent[PL_STAGING_SLOTS];
} pl_staging;

struct pl_stream {
    pl_card *card;
    cudaStream_t queue;
    pl_staging staging;
    void *fetched; /* pinned */
    size_t fetched_bytes;
    cudaEvent_t mark[PL_QUEUE_MARKS];
    uint64_t marked, reached;  /* the last mark, and the last that is known to be behind */
    pl_recordings *recordings; /* NULL: none are made */
    pl_recording *capturing;
    bool in_range;
    pl_cuda_end *comm; /* NULL: its work waits for no other card */
    void *scratch;     /* of attention, for max_context; only where attention runs */
    int max_context;
    void *draw_scratch; /* of draws of PL_FUSED_ROWS rows; likewise */
    void *barrier;      /* of blocks of a launch; where layers run */
};

/* Keeps an error of `what`, a literal. */
void pl_card_note(pl_card *card, cudaError_t error, const char *what);

/* The same of an error that is not the runtime's; reason stays valid. */
void pl_card_fail(pl_card *card, const char *what, const char *reason);

/* PL_OK, or the error that was kept: PL_ERR_MEMORY when memory ran out, else PL_ERR_DEVICE. */
pl_status pl_card_status(const pl_card *card, pl_error *err);

/* Makes the card the calling thread's; false: a call has failed, there is nothing to be done any more. */
bool pl_card_ready(pl_card *card);

/* s: zeroed. On failure too pl_queue_close() is called for it. */
pl_status pl_queue_open(pl_stream *s, pl_card *card, size_t staging_bytes, bool records, pl_error *err);

/* Waits for what is queued. */
void pl_queue_close(pl_stream *s);

/* Room to write `bytes` to, at most pl_queue_piece(), for one pl_queue_send(); NULL after an error. May wait. */
void *pl_queue_room(pl_stream *s, size_t bytes);
size_t pl_queue_piece(const pl_stream *s);
void pl_queue_send(pl_stream *s, void *dst, const void *room, size_t bytes);

/* As in pl_backend. */
void pl_queue_upload(pl_stream *s, void *dst, const void *src, size_t bytes);
void pl_queue_copy(pl_stream *s, void *dst, const void *src, size_t bytes);
void pl_queue_download(pl_stream *s, void *dst, const void *src, size_t bytes);
pl_status pl_queue_fetch(pl_stream *s, const void *src, size_t bytes, const void **out, pl_error *err);
uint64_t pl_queue_mark(pl_stream *s);
pl_status pl_queue_wait_for(pl_stream *s, uint64_t mark, pl_error *err);

#endif
