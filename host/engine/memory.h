/* What an engine needs, before anything is allocated: for `pleiad inspect` and for loading. */
#ifndef PL_ENGINE_MEMORY_H
#define PL_ENGINE_MEMORY_H

#include "host/engine/kv.h"
#include "host/engine/shard.h"
#include "host/model/checkpoint.h"

/* Bytes, by part. Packed sizes are those of the CPU backend; a card has the same panels, and what the CPU uses in the
 * file as a copy. */
typedef struct pl_memory_plan {
    size_t core_packed;              /* weights repacked into memory */
    size_t core_mapped;              /* weights used where they are in the file */
    size_t head_packed, head_mapped; /* embedding and head */
    size_t head_copy;                /* coarse, of the head; on a CPU */
    size_t ple_table;                /* in the file; a token reads one row */
    size_t ple_row;                  /* bytes of that row */
    size_t kv;                       /* at the given context, one session */
    size_t kv_per_token;             /* of the layers that keep all tokens */
    size_t work;                     /* activations of a step */
    size_t unused;                   /* tensors in the file that the text model never reads */
    int64_t card_weights;            /* elements of what a card holds */
    size_t card_slice;               /* bytes that it would hold of E2B alone; 0: this is no larger model */
} pl_memory_plan;

/* cache: of the K/V that are counted; on a card they are f32. */
void pl_memory_plan_compute(const pl_checkpoint *checkpoint, int context, int batch_rows, pl_cache_type cache,
                            pl_memory_plan *out);

/* The same of a rank's part of the model: what its card needs. unused, card_slice: not said. */
void pl_memory_plan_rank(const pl_checkpoint *checkpoint, const pl_shard *shard, int context, int batch_rows,
                         pl_cache_type cache, pl_memory_plan *out);

/* ---- cards ---- */

/* Of a card's memory, for what nobody counts: the kernels' code, which is loaded at their first use, captured graphs,
 * the rounding of large pieces to 2 MiB, and what else is drawn on the screen while we run. */
#define PL_CARD_RESERVE ((size_t)192 << 20)

/* What CUDA's own context takes of a card. What a card calls free comes after it; of a card that is not there, only the
 * size is known. */
#define PL_CARD_CONTEXT ((size_t)512 << 20)

#define PL_PLE_CACHE_BYTES ((size_t)64 << 20) /* for rows used lately, with PL_PLE_DISK */

/* Bytes that an engine on a card takes. */
typedef struct pl_card_memory {
    size_t weights, kv, work, reserve; /* on the card; kv: of all sessions */
    size_t table;                      /* on the card */
    size_t pinned;                     /* of the host, for the table or the rows of coming steps */
    size_t host;                       /* of the host besides: page cache that holds the table, or rows used most */
} pl_card_memory;

/* ple: not PL_PLE_AUTO. */
void pl_card_memory_compute(const pl_config *config, const pl_memory_plan *plan, pl_ple_placement ple,
                            const pl_kv_size *size, pl_card_memory *out);

/* All that is on the card. */
size_t pl_card_memory_total(const pl_card_memory *memory);

#endif
