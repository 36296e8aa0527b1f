/* The CUDA backend: memory of one card, two queues on it, and the ops. */
#include "cuda/comm_nccl.h"
#include "cuda/draw.h"
#include "cuda/kernels.h"
#include "cuda/ops_cuda.h"
#include "cuda/queue.h"
#include "cuda/recordings.h"
#include "cuda/weights.h"
#include "host/ops/backend.h"
#include "host/ops/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES ((size_t)16 << 20)
#define SIDE_STAGING_BYTES ((size_t)1 << 20)

typedef struct cuda_backend {
    pl_backend base;
    pl_card card;
    pl_stream stream, side;
    cudaEvent_t forked, joined;
    char name[sizeof "cuda " + sizeof((pl_card *)0)->name];
} cuda_backend;

static cuda_backend *inside(pl_backend *b)
{
    return (cuda_backend *)b;
}

/* ---- memory ---- */

/* What the card has no room for is the caller's affair; anything else is the card's end. */
static bool given(pl_card *card, cudaError_t error, const char *what)
{
    if (error == cudaErrorMemoryAllocation)
        cudaGetLastError();
    else
        pl_card_note(card, error, what);
    return error == cudaSuccess;
}

/* Zeroed for both queues, so not by queueing alone. */
static void *memory_take(pl_backend *b, size_t bytes)
{
    pl_card *card = &inside(b)->card;
    cudaStream_t queue = inside(b)->stream.queue;
    void *memory = NULL;
    if (bytes == 0 || !pl_card_ready(card) || !given(card, cudaMalloc(&memory, bytes), "cudaMalloc"))
        return NULL;
    pl_card_note(card, cudaMemsetAsync(memory, 0, bytes, queue), "cudaMemsetAsync");
    pl_card_note(card, cudaStreamSynchronize(queue), "work");
    if (card->error == cudaSuccess)
        return memory;
    cudaFree(memory);
    return NULL;
}

static void memory_give(pl_backend *b, void *memory, size_t bytes)
{
    (void)bytes;
    cudaSetDevice(inside(b)->card.index);
    cudaFree(memory);
}

static void *shared_take(pl_backend *b, size_t bytes)
{
    pl_card *card = &inside(b)->card;
    void *memory = NULL;
    if (bytes == 0 || !pl_card_ready(card) ||
        !given(card, cudaHostAlloc(&memory, bytes, cudaHostAllocMapped | cudaHostAllocPortable), "cudaHostAlloc"))
        return NULL;
    return memset(memory, 0, bytes);
}

static void shared_give(pl_backend *b, void *memory, size_t bytes)
{
    (void)bytes;
    cudaSetDevice(inside(b)->card.index);
    cudaFreeHost(memory);
}

static size_t weight_bytes(const pl_backend *b, const pl_tensor *t)
{
    (void)b;
    return pl_weights_bytes(t);
}

static pl_status weight_load(pl_backend *b, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err)
{
    return pl_weights_load(b->stream, b->pool, t, dst, out, err);
}

static void weight_describe(const pl_backend *b, const pl_tensor *t, void *dst, pl_weight *out)
{
    (void)b;
    pl_weights_describe(t, dst, out);
}

/* ---- two queues ---- */

static void let_follow(pl_stream *first, pl_stream *then, cudaEvent_t event)
{
    if (!pl_card_ready(first->card))
        return;
    pl_card_note(first->card, cudaEventRecord(event, first->queue), "cudaEventRecord");
    pl_card_note(first->card, cudaStreamWaitEvent(then->queue, event, 0), "cudaStreamWaitEvent");
}

static void fork_side(pl_backend *b)
{
    let_follow(b->stream, b->side, inside(b)->forked);
}

static void join_side(pl_backend *b)
{
    let_follow(b->side, b->stream, inside(b)->joined);
}

/* ---- from create to destroy ---- */

static void destroy(pl_backend *b)
{
    cuda_backend *cuda = inside(b);
    cudaSetDevice(cuda->card.index);
    pl_queue_close(&cuda->stream);
    pl_queue_close(&cuda->side);
    cudaFree(cuda->stream.scratch);
    cudaFree(cuda->stream.draw_scratch);
    cudaFree(cuda->stream.barrier);
    if (cuda->forked)
        cudaEventDestroy(cuda->forked);
    if (cuda->joined)
        cudaEventDestroy(cuda->joined);
    pl_pool_free(b->pool);
    free(cuda);
}

static pl_status find_card(int device, pl_card *card, pl_error *err)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        pl_device_list list;
        pl_devices_list(&list);
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s", list.reason);
    }
    if (device < 0 || device >= n)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "there is no card %d, cards are counted from 0 to %d", device, n - 1);
    struct cudaDeviceProp prop;
    card->index = device;
    pl_card_note(card, cudaGetDeviceProperties(&prop, device), "cudaGetDeviceProperties");
    PL_TRY(pl_card_status(card, err));
    snprintf(card->name, sizeof card->name, "%s", prop.name);
    if (10 * prop.major + prop.minor < PL_LEAST_CAPABILITY)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "card %d (%s) has compute capability %d.%d, at least %d.%d is needed",
                       device, card->name, prop.major, prop.minor, PL_LEAST_CAPABILITY / 10, PL_LEAST_CAPABILITY % 10);
    return PL_OK;
}

static pl_status take_work(cuda_backend *cuda, size_t bytes, const char *what, void **out, pl_error *err)
{
    *out = memory_take(&cuda->base, bytes);
    return *out ? PL_OK : pl_backend_fail_memory(&cuda->base, bytes, what, err);
}

/* vocab is 0 where nothing is drawn. */
static pl_status take_scratch(cuda_backend *cuda, const pl_backend_shape *shape, pl_error *err)
{
    pl_stream *s = &cuda->stream;
    s->max_context = shape->max_context;
    PL_TRY(take_work(cuda, pl_cuda_attention_scratch(shape->max_rows, shape->heads, shape->max_context),
                     "attention on the card", &s->scratch, err));
    PL_TRY(take_work(cuda, PL_CUDA_BARRIER_BYTES, "a barrier on the card", &s->barrier, err));
    if (shape->vocab == 0)
        return PL_OK;
    return take_work(cuda, pl_cuda_draw_scratch(shape->vocab, PL_FUSED_ROWS), "draws on the card", &s->draw_scratch,
                     err);
}

static pl_status open_card(cuda_backend *cuda, const pl_backend_shape *shape, pl_error *err)
{
    pl_card *card = &cuda->card;
    if (!pl_card_ready(card))
        return pl_card_status(card, err);
    PL_TRY(pl_queue_open(&cuda->stream, card, STAGING_BYTES, !shape->no_graphs, err));
    PL_TRY(pl_queue_open(&cuda->side, card, SIDE_STAGING_BYTES, !shape->no_graphs, err));
    pl_card_note(card, cudaEventCreateWithFlags(&cuda->forked, cudaEventDisableTiming), "cudaEventCreate");
    pl_card_note(card, cudaEventCreateWithFlags(&cuda->joined, cudaEventDisableTiming), "cudaEventCreate");
    PL_TRY(pl_card_status(card, err));
    return take_scratch(cuda, shape, err);
}

pl_status pl_backend_cuda(const pl_backend_shape *shape, int device, int threads, const int *cpus, pl_backend **out,
                          pl_error *err)
{
    pl_card card = {0};
    PL_TRY(find_card(device, &card, err));
    cuda_backend *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return pl_fail_memory(err, sizeof *cuda, "CUDA backend");
    cuda->card = card;
    snprintf(cuda->name, sizeof cuda->name, "cuda %s", card.name);
    cuda->base = (pl_backend){
        .name = cuda->name,
        .ops = &pl_cuda_ops,
        .fused = &pl_cuda_fused,
        .stream = &cuda->stream,
        .side = &cuda->side,
        .weight_bytes = weight_bytes,
        .weight_load = weight_load,
        .weight_describe = weight_describe,
        .memory_take = memory_take,
        .memory_give = memory_give,
        .shared_take = shared_take,
        .shared_give = shared_give,
        .upload = pl_queue_upload,
        .copy = pl_queue_copy,
        .download = pl_queue_download,
        .fetch = pl_queue_fetch,
        .mark = pl_queue_mark,
        .wait_for = pl_queue_wait_for,
        .begin = pl_recordings_begin,
        .end = pl_recordings_end,
        .fork = fork_side,
        .join = join_side,
        .comm_create = pl_cuda_comm_create,
        .destroy = destroy,
    };
    pl_status status = PL_OK;
    PL_TRY_GOTO(pl_pool_create(threads, cpus, &cuda->base.pool, err));
    PL_TRY_GOTO(open_card(cuda, shape, err));
    *out = &cuda->base;
    return PL_OK;
fail:
    destroy(&cuda->base);
    return status;
}
