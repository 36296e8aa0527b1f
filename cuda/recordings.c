#include "cuda/recordings.h"

#include "cuda/range.h"
#include "host/ops/backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct pl_recording {
    uint64_t used; /* when last; 0: free */
    cudaGraphExec_t graph;
    size_t key_bytes;
    unsigned char key[PL_KEY_BYTES];
};

struct pl_recordings {
    uint64_t clock;
    pl_recording all[PL_RECORDINGS_MAX];
};

pl_status pl_recordings_create(pl_recordings **out, pl_error *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? PL_OK : pl_fail_memory(err, sizeof **out, "recordings");
}

static void drop(pl_recording *r)
{
    if (r->graph)
        cudaGraphExecDestroy(r->graph);
    r->graph = NULL;
    r->used = 0;
}

static void drop_all(pl_recordings *r)
{
    for (int i = 0; r && i < PL_RECORDINGS_MAX; i++)
        drop(&r->all[i]);
}

void pl_recordings_free(pl_recordings *r)
{
    drop_all(r);
    free(r);
}

void pl_recordings_drop(pl_stream *s)
{
    pl_recordings_stop(s);
    drop_all(s->recordings);
}

static pl_recording *find(pl_recordings *r, const void *key, size_t key_bytes)
{
    for (int i = 0; i < PL_RECORDINGS_MAX; i++)
        if (r->all[i].used && r->all[i].key_bytes == key_bytes && memcmp(r->all[i].key, key, key_bytes) == 0)
            return &r->all[i];
    return NULL;
}

static void add(pl_recordings *r, const void *key, size_t key_bytes)
{
    pl_recording *to = &r->all[0];
    for (int i = 1; i < PL_RECORDINGS_MAX; i++)
        if (r->all[i].used < to->used)
            to = &r->all[i];
    drop(to);
    memcpy(to->key, key, key_bytes);
    to->key_bytes = key_bytes;
    to->used = ++r->clock;
}

/* false: it has no other graph than that of `but`. */
static bool drop_oldest_graph(pl_recordings *r, const pl_recording *but)
{
    pl_recording *oldest = NULL;
    for (int i = 0; i < PL_RECORDINGS_MAX; i++)
        if (r->all[i].graph && &r->all[i] != but && (!oldest || r->all[i].used < oldest->used))
            oldest = &r->all[i];
    if (oldest)
        drop(oldest);
    return oldest != NULL;
}

static void leave_range(pl_stream *s)
{
    if (s->in_range)
        pl_range_pop();
    s->in_range = false;
}

bool pl_recordings_begin(pl_stream *s, const void *key, size_t key_bytes)
{
    assert(key_bytes <= PL_KEY_BYTES && !s->capturing);
    leave_range(s);
    pl_range_push("step");
    s->in_range = true;
    if (!s->recordings || !pl_card_ready(s->card))
        return true;
    pl_recording *r = find(s->recordings, key, key_bytes);
    if (!r) {
        add(s->recordings, key, key_bytes);
        return true;
    }
    r->used = ++s->recordings->clock;
    if (r->graph) {
        pl_card_note(s->card, cudaGraphLaunch(r->graph, s->queue), "recorded step");
        leave_range(s);
        return false;
    }
    cudaError_t error = cudaStreamBeginCapture(s->queue, cudaStreamCaptureModeThreadLocal);
    pl_card_note(s->card, error, "cudaStreamBeginCapture");
    if (error == cudaSuccess)
        s->capturing = r;
    return true;
}

/* A graph takes memory of the card: rather fewer of them than none. */
static void instantiate(pl_stream *s, cudaGraph_t graph)
{
    cudaGraphExec_t made = NULL;
    cudaError_t error;
    while ((error = cudaGraphInstantiate(&made, graph, 0)) == cudaErrorMemoryAllocation) {
        if (!drop_oldest_graph(s->recordings, s->capturing))
            break;
        cudaGetLastError();
    }
    pl_card_note(s->card, error, "cudaGraphInstantiate");
    if (error == cudaSuccess) {
        s->capturing->graph = made;
        pl_card_note(s->card, cudaGraphLaunch(made, s->queue), "recorded step");
    }
}

static void finish_capture(pl_stream *s)
{
    cudaGraph_t graph = NULL;
    pl_card_note(s->card, cudaStreamEndCapture(s->queue, &graph), "cudaStreamEndCapture");
    if (graph && pl_card_ready(s->card))
        instantiate(s, graph);
    if (graph)
        cudaGraphDestroy(graph);
    s->capturing = NULL;
}

void pl_recordings_end(pl_stream *s)
{
    if (s->capturing)
        finish_capture(s);
    leave_range(s);
}

void pl_recordings_stop(pl_stream *s)
{
    cudaGraph_t graph = NULL;
    if (s->capturing)
        cudaStreamEndCapture(s->queue, &graph);
    if (graph)
        cudaGraphDestroy(graph);
    s->capturing = NULL;
    leave_range(s);
}
