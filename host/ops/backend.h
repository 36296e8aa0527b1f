/* A backend: where weights and work live, and the ops that run there. */
#ifndef PL_OPS_BACKEND_H
#define PL_OPS_BACKEND_H

#include "host/base/status.h"
#include "host/base/threads.h"
#include "host/ops/ops.h"

typedef struct pl_backend pl_backend;

struct pl_backend {
    const char *name; /* with the instruction set: "cpu avx512-vnni" */
    const pl_ops *ops;
    pl_stream *stream;
    pl_pool *pool; /* host threads, for work beside the ops */

    /* Bytes that weight_load will take for t; 0 where the file's own bytes serve. */
    size_t (*weight_bytes)(const pl_backend *b, const pl_tensor *t);

    /* Puts t into the backend's layout at dst (weight_bytes() bytes, from memory_take). A scale that is not finite
     * is PL_ERR_FORMAT naming tensor and row. */
    pl_status (*weight_load)(pl_backend *b, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err);

    /* Zeroed memory for weights and work; NULL: none left. Taken in large pieces, for the engine's life. */
    void *(*memory_take)(pl_backend *b, size_t bytes);
    void (*memory_give)(pl_backend *b, void *memory, size_t bytes);

    void (*destroy)(pl_backend *b);
};

/* What the ops need to know beforehand. */
typedef struct pl_backend_shape {
    int max_rows;    /* rows a step */
    int max_context; /* keys a row can see */
    pl_heads heads;
} pl_backend_shape;

/* threads >= 1; cpus as for pl_pool_create(). allowed: the processor features that may be used (host/base/cpu.h),
 * PL_CPU_ALL for all that the machine has. */
pl_status pl_backend_cpu(const pl_backend_shape *shape, int threads, const int *cpus, unsigned allowed,
                         pl_backend **out, pl_error *err);

/* Bytes that t takes in the CPU backend's layout; 0: none, it is used where it is. */
size_t pl_backend_cpu_weight_bytes(const pl_tensor *t);

void pl_backend_free(pl_backend *b);

#endif
