/* What an engine needs, before anything is allocated: for `pleiad inspect` and for loading. */
#ifndef PL_ENGINE_MEMORY_H
#define PL_ENGINE_MEMORY_H

#include "host/model/checkpoint.h"

/* Bytes, by part. Packed sizes are those of the CPU backend. */
typedef struct pl_memory_plan {
    size_t core_packed;              /* weights repacked into memory */
    size_t core_mapped;              /* weights used where they are in the file */
    size_t head_packed, head_mapped; /* embedding and head */
    size_t ple_table;                /* in the file; a token reads one row */
    size_t ple_row;                  /* bytes of that row */
    size_t kv;                       /* at the given context, one session */
    size_t kv_per_token;             /* of the layers that keep all tokens */
    size_t work;                     /* activations of a step */
    size_t unused;                   /* tensors in the file that the text model never reads */
} pl_memory_plan;

void pl_memory_plan_compute(const pl_checkpoint *checkpoint, int context, int batch_rows, pl_memory_plan *out);

#endif
