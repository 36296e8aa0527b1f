/* The inside of pl_step: step_memory.c makes it, step.c runs it, walk.c is the model. */
#ifndef PL_ENGINE_STEP_PARTS_H
#define PL_ENGINE_STEP_PARTS_H

#include "host/engine/step_input.h"
#include "host/engine/step_show.h"
#include "host/engine/team.h"

/* What ops found out, as they write it. */
enum { PL_REPORT_PLE, PL_REPORT_OUTPUT, PL_STEP_REPORTS };

struct pl_step_result {
    pl_step *step;
    uint64_t mark;
    int32_t *report;           /* [PL_STEP_REPORTS] shared memory: a copy, there once the mark is reached */
    int32_t *drawn;            /* [max_rows] likewise, by wanted row */
    int32_t *token, *position; /* [max_rows] of the step, by slot */
};

struct pl_step {
    const pl_net *net;
    const pl_config *config;
    pl_backend *backend;
    const pl_ops *ops;
    pl_stream *stream;
    int rank;      /* whose part of the K/V is ours */
    pl_comm *comm; /* NULL: there is one rank */
    pl_team *team; /* of the first of several */
    pl_step *const *others;
    uint64_t marked; /* of another than the first: behind its last step */
    pl_kv *kv;
    pl_ple *ple_source;
    pl_draws *samplers;
    pl_soft_rows *soft_source;
    const pl_ple_rows *ple_rows;
    pl_heads heads;
    int max_rows;
    int64_t ffn_ld; /* widest FFN */
    int64_t ple_ld; /* layers * P */

    void *memory;
    size_t memory_bytes;
    pl_streams streams, pred;
    float *soft; /* rows of images and sound of the present step */
    float *x, *laurel_mid, *laurel, *q, *k, *v, *att, *o, *y, *f, *gate, *up, *ffn_out, *gate_in, *ple_mid;
    float *ple, *ple_proj;
    float *rope_local, *rope_global;
    float *mean, *hidden, *logits;
    double *stats; /* of gates that ranks share */
    pl_act act;    /* room for any of the above as integers */
    pl_act mid;    /* of the fused ops: likewise, for PL_FUSED_ROWS rows */

    pl_step_input *input;
    pl_ple_want *wants;   /* [max_rows] */
    pl_step_slots slots;  /* of the present step, as the ops see them */
    int n, wanted, draws; /* draws: the first of the wanted rows */
    int logits_rows;      /* wanted rows whose logits are all there after the step */
    bool only_top;        /* of each wanted row only top[i] logits matter */
    int32_t top[PL_HEAD_ROWS];
    const pl_fused *fused; /* of the present step, or NULL */
    bool takes;            /* rows of the present step take draws */
    bool distinct;         /* no two of its rows are of one sequence */
    uint64_t chained[2];   /* by layer: its rows are those of the layer that ran before it */
    int pending;           /* the layer whose ple_add is yet to come, or -1 */

    pl_step_result *own; /* of pl_step_run */
    pl_step_show show;
};

/* Queues the ops of the present step: fields from `input` to `chained` say which. */
void pl_step_walk(pl_step *t);

/* Queues the ops that make logits of n wanted rows from `first` on; they begin at t->logits. */
void pl_step_walk_head(pl_step *t, int first, int n);

#endif
