/* What the files of the CPU's tower ops share. */
#ifndef PL_CPU_TOWER_H
#define PL_CPU_TOWER_H

#include "host/cpu/gemm.h"
#include "host/cpu/stream.h"

/* Each compiled for every instruction set; fills its part of the table. */
#define PL_ISA_TOWER_OPS(isa)                                                                                          \
    void pl_tower_audio_ops_##isa(pl_tower_ops *ops);                                                                  \
    void pl_tower_audio_ops_##isa(pl_tower_ops *ops);                                                                  \
    void pl_tower_depthwise_ops_##isa(pl_tower_ops *ops);                                                              \
    void pl_tower_norm_ops_##isa(pl_tower_ops *ops);                                                                   \
    void pl_tower_softmax_##isa(pl_pool *pool, float *x, int64_t n, int64_t cols, float scale);

PL_ISA_TOWER_OPS(base)
PL_ISA_TOWER_OPS(avx2)
PL_ISA_TOWER_OPS(avx512)

/* What is written once: products over s->gemm, attention, maps. */
void pl_tower_gemm_ops(pl_tower_ops *ops);
void pl_tower_map_ops(pl_tower_ops *ops);

#endif
