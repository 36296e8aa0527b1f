/* A checkpoint's weights as the step reads them: matrices in the backend's layout, vectors in f32 in its memory. */
#ifndef PL_ENGINE_NET_H
#define PL_ENGINE_NET_H

#include "host/engine/memory.h"
#include "host/engine/shard.h"
#include "host/engine/share.h"
#include "host/ops/backend.h"

typedef struct pl_net_layer {
    const float *attn_norm, *post_attn_norm, *ffn_norm, *post_ffn_norm, *post_ple_norm;
    const float *q_norm, *k_norm; /* k_norm: layers with their own K/V */
    const float *laurel_norm;
    pl_altup altup;
    pl_weight q, k, v, o, gate, up, down, laurel_left, laurel_right, ple_gate, ple_proj;
} pl_net_layer;

typedef struct pl_net {
    const pl_config *config; /* the checkpoint's, or of the rank's part of it */
    const pl_shard *shard;   /* NULL: all of it */
    pl_backend *backend;
    pl_weight embed, head; /* head is embed where the file ties them */
    pl_weight ple_model_proj;
    pl_weight altup_proj[PL_ALTUP - 1], altup_unembed[PL_ALTUP - 1];
    const float *ple_norm, *out_norm;
    const float *rope_local, *rope_global; /* inverse frequencies, [head_dim / 2] */
    pl_net_layer *layer;
    float *hard; /* rows of ids [first_hard, first_hard + n_hard), in the backend's memory; NULL: there are none */
    int32_t first_hard, n_hard;
    size_t loaded_bytes, mapped_bytes; /* of matrices in memory of the backend, and used where they are in the file */

    void *matrices; /* all that was loaded, one piece of the backend's memory */
    size_t matrices_room;
    char *vectors; /* likewise */
    size_t vectors_room, vectors_used;
} pl_net;

/* Loads every weight but the PLE table, checking all values; drops the file's pages as they are copied. shard: what of
 * them; NULL: all. share: the matrices come from its first engine, whose progress it is; NULL: they are the engine's own.
 * Borrows checkpoint, shard and backend. */
pl_status pl_net_load(const pl_checkpoint *checkpoint, const pl_shard *shard, const pl_share *share,
                      pl_backend *backend, pl_progress_fn progress, void *user, pl_net **out, pl_error *err);
void pl_net_free(pl_net *net);

/* Takes the rows of ids of the towers' own, [n][hidden], copied. */
pl_status pl_net_take_hard(pl_net *net, const float *rows, int32_t first, int32_t n, pl_error *err);

static inline bool pl_net_is_hard(const pl_net *net, int32_t id)
{
    return id >= net->first_hard && id - net->first_hard < net->n_hard;
}

/* The loaded form of a matrix: index counts those of one role; layer is ignored for roles of the whole model. */
pl_weight *pl_net_weight(pl_net *net, int layer, pl_role role, int index);

#endif
