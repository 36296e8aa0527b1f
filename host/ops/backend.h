/* A backend: where weights and work live, and the ops that run there. */
#ifndef PL_OPS_BACKEND_H
#define PL_OPS_BACKEND_H

#include "host/base/status.h"
#include "host/base/threads.h"
#include "host/ops/ops.h"
#include "host/ops/tower_ops.h"

typedef struct pl_backend pl_backend;

/* What whole products would have taken and was left out, by ffn_sparse, head_top or rounding. Wraps around; less than nothing
 * where they took more. */
typedef struct pl_skipped {
    uint64_t bytes;    /* of weights */
    uint64_t products; /* of a code and one of the two bytes of an activation */
} pl_skipped;
struct pl_comm; /* host/ops/comm.h */

struct pl_backend {
    const char *name; /* with the instruction set or the card: "cpu avx512-vnni", "cuda NVIDIA GeForce RTX 4090" */
    const pl_ops *ops;
    const pl_fused *fused;     /* NULL: none */
    const pl_tower_ops *tower; /* NULL: none; a backend on the CPU has them */
    pl_stream *stream;
    pl_stream *side;    /* for work that may run beside that of `stream`: see fork; may be `stream` itself */
    pl_pool *pool;      /* host threads, for work beside the ops */
    bool wide_acts;     /* pl_act.wide serves products of many rows */
    const char *rounds; /* whose way of rounding makes them faster when pl_act.rounded is set; NULL: nobody's */

    /* Bytes that weight_load will take for t; 0 where the file's own bytes serve. */
    size_t (*weight_bytes)(const pl_backend *b, const pl_tensor *t);

    /* Puts t into the backend's layout at dst (weight_bytes() bytes, from memory_take). A scale that is not finite
     * is PL_ERR_FORMAT naming tensor and row; plain types are not looked at. What it queues is done after fetch. */
    pl_status (*weight_load)(pl_backend *b, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err);

    /* What weight_load makes of t, whose data is not looked at: dst is filled by a broadcast from a backend of the same kind.
     * NULL: its layouts are not the same everywhere. */
    void (*weight_describe)(const pl_backend *b, const pl_tensor *t, void *dst, pl_weight *out);

    /* Says that w is the head, which serves head_top from now on, if that pays. NULL: there is no head_top. */
    pl_status (*take_head)(pl_backend *b, const pl_weight *w, pl_error *err);

    /* weight_load for `up` or `down` of a layer with a cutoff, in the layout that ffn_sparse reads; in the usual one where
     * that does not fit into weight_bytes(). NULL: there is no such layout. */
    pl_status (*weight_load_neurons)(pl_backend *b, const pl_tensor *t, pl_weight_layout layout, void *dst,
                                     pl_weight *out, pl_error *err);

    /* Since the beginning; NULL: nothing. */
    pl_skipped (*skipped)(const pl_backend *b);

    /* Zeroed memory of the ops for weights and work; NULL: none left. Taken in large pieces, for the engine's life.
     * The host may look at it only by upload and fetch. */
    void *(*memory_take)(pl_backend *b, size_t bytes);
    void (*memory_give)(pl_backend *b, void *memory, size_t bytes);

    /* Zeroed memory of the host that the ops can read as well, at the same address and, on a card, over the bus; NULL:
     * none left. */
    void *(*shared_take)(pl_backend *b, size_t bytes);
    void (*shared_give)(pl_backend *b, void *memory, size_t bytes);

    /* Queues a copy into the ops' memory. src is free again when it returns. */
    void (*upload)(pl_stream *s, void *dst, const void *src, size_t bytes);

    /* Queues a copy within the ops' memory; the two do not overlap. */
    void (*copy)(pl_stream *s, void *dst, const void *src, size_t bytes);

    /* Queues a copy of the ops' memory into shared memory; it is there after wait_for a later mark. */
    void (*download)(pl_stream *s, void *dst, const void *src, size_t bytes);

    /* Waits until all that was queued is done. *out (may be NULL): the bytes at src in the host's memory, valid until the
     * next fetch. Errors of the work itself come out here or at wait_for; after one every call fails: PL_ERR_DEVICE. */
    pl_status (*fetch)(pl_stream *s, const void *src, size_t bytes, const void **out, pl_error *err);

    /* A point in the queue, counted from 1; wait_for returns when the work before it is done. */
    uint64_t (*mark)(pl_stream *s);
    pl_status (*wait_for)(pl_stream *s, uint64_t mark, pl_error *err);

    /* Between begin and end stand ops (and fork, join), the same ones with the same arguments whenever the key is the
     * same, called by one thread. begin returns false where it has queued them all from a recording: then they must not be called. A key is at
     * most PL_KEY_BYTES. */
    bool (*begin)(pl_stream *s, const void *key, size_t key_bytes);
    void (*end)(pl_stream *s);

    /* What `side` is given after fork runs after what `stream` was given before it; after join the other way round.
     * Whatever was given to `side` is joined before the next begin. */
    void (*fork)(pl_backend *b);
    void (*join)(pl_backend *b);

    /* Behind pl_comm_create(), for backends that share this function; NULL: they cannot work together. */
    pl_status (*comm_create)(pl_backend *const *backends, int n, struct pl_comm **out, pl_error *err);

    void (*destroy)(pl_backend *b);
};

#define PL_KEY_BYTES 1024

/* What the ops need to know beforehand. */
typedef struct pl_backend_shape {
    int max_rows;    /* rows a step */
    int max_context; /* keys a row can see */
    pl_heads heads;
    int64_t vocab;     /* logits of a row */
    bool fast_prompts; /* rows of prompts may be rounded where that is faster */
    bool no_graphs;    /* begin finds no recordings: for measuring what they save */
} pl_backend_shape;

/* threads >= 1; cpus as for pl_pool_create(). allowed: the processor features that may be used (host/base/cpu.h),
 * PL_CPU_ALL for all that the machine has. */
pl_status pl_backend_cpu(const pl_backend_shape *shape, int threads, const int *cpus, unsigned allowed,
                         pl_backend **out, pl_error *err);

/* The card `device`, counted as in pl_devices_list(); threads, cpus: of the host's pool beside it. PL_ERR_UNSUPPORTED
 * says why there is none such: this build has no CUDA part, no driver, no card, one that is too old. */
pl_status pl_backend_cuda(const pl_backend_shape *shape, int device, int threads, const int *cpus, pl_backend **out,
                          pl_error *err);

/* Bytes that t takes in the CPU backend's layout; 0: none, it is used where it is. */
size_t pl_backend_cpu_weight_bytes(const pl_tensor *t);

/* Bytes that it takes beside this head for head_top; 0: nothing. */
size_t pl_backend_cpu_head_bytes(const pl_tensor *head);

void pl_backend_free(pl_backend *b);

/* Where memory_take or shared_take gave nothing: PL_ERR_MEMORY, or what has made an end of the backend. */
static inline pl_status pl_backend_fail_memory(pl_backend *b, size_t bytes, const char *what, pl_error *err)
{
    PL_TRY(b->fetch(b->stream, NULL, 0, NULL, err));
    return pl_fail_memory(err, bytes, what);
}

#endif
