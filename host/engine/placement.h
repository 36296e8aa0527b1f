/* Where an engine computes, and how much of everything it has there: chosen from sizes alone, before anything is
 * allocated.
 *
 * Sessions share K/V memory: that of all their contexts, or of a number of tokens, which is on a card cut to what fits,
 * but not below one context. As much as is sensible (-1) means on a card all that is left behind everything else, 1 GiB
 * kept free; on the CPU, where memory is touched only as it is used, a cap: a quarter of what is free behind the weights.
 *
 * On a card, what does not fit is made smaller in this order: rows a step, down to 64 (prompts are read in smaller
 * pieces); the context, down to 2048, unless it was asked for; the sessions, unless they were asked for. A model that
 * even so does not fit is computed on the CPU, or refused where a card was asked for. So are K/V of other types than f32.
 *
 * The per-layer table, unless asked for elsewhere, goes
 *   to the card, where 1 GiB stays free behind everything else: it is fastest there, but not by as much as other
 *     programs, or a longer context of the next run, would miss that memory;
 *   else to pinned memory of the host, where it takes at most half of what is free: pinned memory cannot be swapped, so
 *     as much is left to everyone else;
 *   else it stays in the file, in page cache where three quarters of what is free hold it, as other files want some,
 *   and on disk where they do not.
 * The CPU uses the mapped file, which may fill memory as far as others leave it free. Asked for `disk` it reads rows from
 * the file instead, and takes fewer rows a step. */
#ifndef PL_ENGINE_PLACEMENT_H
#define PL_ENGINE_PLACEMENT_H

#include "host/engine/memory.h"
#include "host/ops/devices.h"

#define PL_DEFAULT_SESSIONS 4
#define PL_DEFAULT_CONTEXT 32768 /* at most: the model's own */
#define PL_DEFAULT_BATCH_ROWS 512

/* All zero: as good as there is room for, up to the defaults. */
typedef struct pl_placement_wish {
    pl_backend_kind backend;
    int device;
    int ranks;   /* that share the model, on as many cards from `device` on; 0, 1: one */
    int engines; /* of this process, that have as much of the host's memory each; 0, 1: one */
    pl_ple_placement ple;
    int sessions, context, batch_rows;
    int64_t kv_tokens; /* 0: sessions x context; -1: as much as is sensible */
    size_t kv_bytes;   /* most that they may take, but for one context's; 0: any */
    pl_cache_type cache;
} pl_placement_wish;

typedef struct pl_machine {
    const pl_device_list *cards; /* may be NULL with PL_BACKEND_CPU */
    size_t free_memory;          /* of the host; 0: unknown */
} pl_machine;

typedef struct pl_placement {
    pl_backend_kind backend; /* PL_BACKEND_CPU or PL_BACKEND_CUDA */
    int device;
    char pci_id[sizeof((pl_device *)0)->pci_id]; /* of the card */
    pl_ple_placement ple;                        /* on the CPU PL_PLE_AUTO, the mapped file, or PL_PLE_DISK */
    int sessions, context, batch_rows;
    int64_t kv_tokens;           /* shared by the sessions; 0: sessions x context */
    pl_cache_type cache;         /* as wished */
    pl_card_memory memory;       /* zero on the CPU */
    char reason[PL_ERROR_BYTES]; /* what was chosen and why, in a line; empty where the CPU was asked for */
} pl_placement;

/* The most tokens whose K/V take at most `bytes`, but at least one context's, and no more than all sessions can hold. */
int64_t pl_placement_kv_tokens(const pl_config *config, int sessions, int context, int batch_rows, pl_cache_type cache,
                               size_t bytes);

/* A pure function. PL_ERR_ARGUMENT: there are cards, but not the one asked for. With PL_BACKEND_CUDA also
 * PL_ERR_UNSUPPORTED (no card, one that is too old) and PL_ERR_MEMORY, whose message says what would fit. */
pl_status pl_placement_choose(const pl_config *config, const pl_memory_plan *plan, const pl_placement_wish *wish,
                              const pl_machine *machine, pl_placement *out, pl_error *err);

/* The same for this machine as it is now. */
pl_status pl_placement_here(const pl_checkpoint *checkpoint, const pl_placement_wish *wish, pl_placement *out,
                            pl_error *err);

#endif
