/* A queue of work on the card: copies both ways, and waiting. */
#include "cuda/queue.h"

#include "cuda/comm_nccl.h"
#include "cuda/recordings.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#define STAGING_ALIGN 256 /* what copies like best */
#define SPINS 10000
#define SLEEP_NS 20000
#define LOOK_TURNS 64

/* ---- errors ---- */

void pl_card_note(pl_card *card, cudaError_t error, const char *what)
{
    if (error == cudaSuccess || card->error != cudaSuccess)
        return;
    card->error = error;
    card->failed = what;
}

void pl_card_fail(pl_card *card, const char *what, const char *reason)
{
    if (card->error == cudaSuccess)
        card->reason = reason;
    pl_card_note(card, cudaErrorUnknown, what);
}

pl_status pl_card_status(const pl_card *card, pl_error *err)
{
    if (card->error == cudaSuccess)
        return PL_OK;
    pl_status status = card->error == cudaErrorMemoryAllocation ? PL_ERR_MEMORY : PL_ERR_DEVICE;
    return pl_fail(err, status, "card %d (%s): %s: %s", card->index, card->name, card->failed,
                   card->reason ? card->reason : cudaGetErrorString(card->error));
}

bool pl_card_ready(pl_card *card)
{
    if (card->error == cudaSuccess)
        pl_card_note(card, cudaSetDevice(card->index), "cudaSetDevice");
    return card->error == cudaSuccess;
}

/* ---- opening and closing ---- */

/* Events of which only the order counts. */
static void create_events(pl_card *card, cudaEvent_t *events, int n)
{
    for (int i = 0; i < n; i++)
        pl_card_note(card, cudaEventCreateWithFlags(&events[i], cudaEventDisableTiming), "cudaEventCreate");
}

static void destroy_events(cudaEvent_t *events, int n)
{
    for (int i = 0; i < n; i++)
        if (events[i])
            cudaEventDestroy(events[i]);
}

pl_status pl_queue_open(pl_stream *s, pl_card *card, size_t staging_bytes, bool records, pl_error *err)
{
    s->card = card;
    s->staging.slot_bytes = staging_bytes / PL_STAGING_SLOTS;
    pl_card_note(card, cudaStreamCreateWithFlags(&s->queue, cudaStreamNonBlocking), "cudaStreamCreate");
    pl_card_note(card, cudaHostAlloc((void **)&s->staging.memory, staging_bytes, cudaHostAllocPortable),
                 "pinned memory for copies");
    create_events(card, s->staging.sent, PL_STAGING_SLOTS);
    create_events(card, s->mark, PL_QUEUE_MARKS);
    PL_TRY(pl_card_status(card, err));
    return records ? pl_recordings_create(&s->recordings, err) : PL_OK;
}

void pl_queue_close(pl_stream *s)
{
    if (!s->queue)
        return;
    pl_recordings_stop(s);
    cudaStreamSynchronize(s->queue);
    pl_recordings_free(s->recordings);
    cudaFreeHost(s->fetched);
    cudaFreeHost(s->staging.memory);
    destroy_events(s->mark, PL_QUEUE_MARKS);
    destroy_events(s->staging.sent, PL_STAGING_SLOTS);
    cudaStreamDestroy(s->queue);
}

/* ---- waiting ---- */

/* Work that waits for other cards never ends by itself where one of them is lost. */
static void wait_watching(pl_stream *s, cudaEvent_t event, const char *what)
{
    cudaError_t error;
    for (unsigned turn = 1;; turn++) {
        error = event ? cudaEventQuery(event) : cudaStreamQuery(s->queue);
        if (error != cudaErrorNotReady)
            break;
        if (turn % LOOK_TURNS == 0)
            pl_cuda_comm_look(s);
        if (turn >= SPINS)
            nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    }
    pl_card_note(s->card, error, what);
    pl_cuda_comm_look(s);
}

/* For the event, or without one for all that is queued. */
static void wait_until(pl_stream *s, cudaEvent_t event, const char *what)
{
    if (s->comm)
        wait_watching(s, event, what);
    else
        pl_card_note(s->card, event ? cudaEventSynchronize(event) : cudaStreamSynchronize(s->queue), what);
}

/* ---- to the card ---- */

void *pl_queue_room(pl_stream *s, size_t bytes)
{
    pl_staging *staging = &s->staging;
    assert(bytes <= staging->slot_bytes && !s->capturing);
    if (!pl_card_ready(s->card))
        return NULL;
    if (staging->slot_bytes - staging->used < bytes) {
        pl_card_note(s->card, cudaEventRecord(staging->sent[staging->slot], s->queue), "cudaEventRecord");
        staging->slot = (staging->slot + 1) % PL_STAGING_SLOTS;
        staging->used = 0;
        wait_until(s, staging->sent[staging->slot], "copies to the card");
        if (s->card->error != cudaSuccess)
            return NULL;
    }
    char *room = staging->memory + (size_t)staging->slot * staging->slot_bytes + staging->used;
    size_t taken = (bytes + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    staging->used = taken < staging->slot_bytes - staging->used ? staging->used + taken : staging->slot_bytes;
    return room;
}

size_t pl_queue_piece(const pl_stream *s)
{
    return s->staging.slot_bytes;
}

void pl_queue_send(pl_stream *s, void *dst, const void *room, size_t bytes)
{
    pl_card_note(s->card, cudaMemcpyAsync(dst, room, bytes, cudaMemcpyHostToDevice, s->queue), "copy to the card");
}

void pl_queue_upload(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    size_t most = pl_queue_piece(s);
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < most ? bytes - done : most;
        void *room = pl_queue_room(s, n);
        if (!room)
            return;
        memcpy(room, (const char *)src + done, n);
        pl_queue_send(s, (char *)dst + done, room, n);
    }
}

void pl_queue_copy(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    assert(!s->capturing);
    if (bytes && pl_card_ready(s->card))
        pl_card_note(s->card, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, s->queue), "copy on the card");
}

/* ---- from the card ---- */

void pl_queue_download(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    assert(!s->capturing);
    if (bytes && pl_card_ready(s->card))
        pl_card_note(s->card, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, s->queue), "copy from the card");
}

static pl_status grow_fetched(pl_stream *s, size_t bytes, pl_error *err)
{
    if (bytes <= s->fetched_bytes)
        return PL_OK;
    cudaFreeHost(s->fetched);
    s->fetched = NULL;
    s->fetched_bytes = 0;
    cudaError_t error = cudaHostAlloc(&s->fetched, bytes, cudaHostAllocPortable);
    if (error == cudaErrorMemoryAllocation) {
        s->fetched = NULL;
        cudaGetLastError(); /* a request that was refused; nothing else failed */
        return pl_fail_memory(err, bytes, "results of the card");
    }
    pl_card_note(s->card, error, "cudaHostAlloc");
    PL_TRY(pl_card_status(s->card, err));
    s->fetched_bytes = bytes;
    return PL_OK;
}

pl_status pl_queue_fetch(pl_stream *s, const void *src, size_t bytes, const void **out, pl_error *err)
{
    assert(!s->capturing);
    if (!pl_card_ready(s->card))
        return pl_card_status(s->card, err);
    if (out) {
        PL_TRY(grow_fetched(s, bytes, err));
        pl_queue_download(s, s->fetched, src, bytes);
        *out = s->fetched;
    }
    wait_until(s, NULL, "work");
    s->reached = s->marked;
    return pl_card_status(s->card, err);
}

/* ---- marks ---- */

/* A mark's event serves a later mark only when the mark is behind: so none waits for more than it asked for. */
static void reach(pl_stream *s, uint64_t mark)
{
    if (mark <= s->reached)
        return;
    wait_until(s, s->mark[mark % PL_QUEUE_MARKS], "work");
    s->reached = mark;
}

uint64_t pl_queue_mark(pl_stream *s)
{
    assert(!s->capturing);
    uint64_t mark = ++s->marked;
    if (!pl_card_ready(s->card))
        return mark;
    if (mark > PL_QUEUE_MARKS)
        reach(s, mark - PL_QUEUE_MARKS);
    pl_card_note(s->card, cudaEventRecord(s->mark[mark % PL_QUEUE_MARKS], s->queue), "cudaEventRecord");
    return mark;
}

pl_status pl_queue_wait_for(pl_stream *s, uint64_t mark, pl_error *err)
{
    assert(mark <= s->marked);
    if (pl_card_ready(s->card))
        reach(s, mark);
    return pl_card_status(s->card, err);
}
