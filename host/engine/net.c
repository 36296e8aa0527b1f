#include "host/engine/net.h"

#include "host/base/arena.h"
#include "host/model/weight_check.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_CHUNK_BYTES ((size_t)1 << 20)
#define CHECK_ROWS 64 /* of one piece of checking work */

/* A matrix of the checkpoint and where its loaded form goes. */
typedef struct matrix {
    const pl_tensor *from;
    pl_weight *to;
} matrix;

typedef struct loader {
    const pl_checkpoint *checkpoint;
    pl_net *net;
    matrix *matrices;
    size_t n_matrices, room;
    size_t used; /* of net->packed */
    pl_error *err;
} loader;

static size_t aligned(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static void add_matrix(loader *l, const pl_tensor *from, pl_weight *to)
{
    if (from->data)
        l->matrices[l->n_matrices++] = (matrix){from, to};
}

static void list_matrices(loader *l)
{
    const pl_weights *w = pl_checkpoint_weights(l->checkpoint);
    pl_net *net = l->net;
    for (int i = 0; i < net->config->n_layers; i++) {
        const pl_layer_weights *from = &w->layer[i];
        pl_net_layer *to = &net->layer[i];
        add_matrix(l, &from->q, &to->q);
        add_matrix(l, &from->k, &to->k);
        add_matrix(l, &from->v, &to->v);
        add_matrix(l, &from->o, &to->o);
        add_matrix(l, &from->gate, &to->gate);
        add_matrix(l, &from->up, &to->up);
        add_matrix(l, &from->down, &to->down);
        add_matrix(l, &from->laurel_left, &to->laurel_left);
        add_matrix(l, &from->laurel_right, &to->laurel_right);
        add_matrix(l, &from->ple_gate, &to->ple_gate);
        add_matrix(l, &from->ple_proj, &to->ple_proj);
    }
    add_matrix(l, &w->ple_model_proj, &net->ple_model_proj);
    for (int k = 0; k < PL_ALTUP - 1; k++) {
        add_matrix(l, &w->altup_proj[k], &net->altup_proj[k]);
        add_matrix(l, &w->altup_unembed[k], &net->altup_unembed[k]);
    }
    add_matrix(l, &w->embed, &net->embed);
    add_matrix(l, &w->head, &net->head);
}

typedef struct check_job {
    const pl_tensor *tensor;
    _Atomic int64_t bad_piece; /* the first piece that failed, or -1 */
} check_job;

static void check_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    check_job *j = ctx;
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t row = piece * CHECK_ROWS, n = j->tensor->rows - row;
        if (pl_tensor_check_finite(j->tensor, row, n < CHECK_ROWS ? n : CHECK_ROWS, NULL) != PL_OK)
            atomic_store(&j->bad_piece, piece);
    }
}

static pl_status check_finite(pl_backend *backend, const pl_tensor *t, pl_error *err)
{
    check_job job = {.tensor = t, .bad_piece = -1};
    pl_pool_for(backend->pool, (t->rows + CHECK_ROWS - 1) / CHECK_ROWS, 1, check_pieces, &job);
    if (job.bad_piece < 0)
        return PL_OK;
    return pl_tensor_check_finite(t, 0, t->rows, err);
}

static pl_status load_matrix(loader *l, const matrix *m)
{
    pl_net *net = l->net;
    size_t bytes = net->backend->weight_bytes(net->backend, m->from);
    if (bytes == 0) /* what is packed is checked as it is read */
        PL_TRY(check_finite(net->backend, m->from, l->err));
    pl_status status = net->backend->weight_load(net->backend, m->from, (char *)net->packed + l->used, m->to, l->err);
    if (status == PL_ERR_FORMAT) /* tells the column too */
        PL_TRY(pl_tensor_check_finite(m->from, 0, m->from->rows, l->err));
    PL_TRY(status);
    l->used += aligned(bytes);
    if (m->to->packed) {
        net->packed_bytes += m->to->bytes;
        pl_checkpoint_drop(l->checkpoint, m->from);
    } else {
        net->mapped_bytes += m->to->bytes;
    }
    return PL_OK;
}

static pl_status load_matrices(loader *l, pl_progress_fn progress, void *user)
{
    pl_net *net = l->net;
    size_t total = 0, done = 0;
    for (size_t i = 0; i < l->n_matrices; i++) {
        net->packed_room += aligned(net->backend->weight_bytes(net->backend, l->matrices[i].from));
        total += (size_t)l->matrices[i].from->rows * pl_tensor_row_bytes(l->matrices[i].from);
    }
    if (net->packed_room) {
        net->packed = net->backend->memory_take(net->backend, net->packed_room);
        if (!net->packed)
            return pl_fail_memory(l->err, net->packed_room, "weights");
    }
    for (size_t i = 0; i < l->n_matrices; i++) {
        PL_TRY(load_matrix(l, &l->matrices[i]));
        done += (size_t)l->matrices[i].from->rows * pl_tensor_row_bytes(l->matrices[i].from);
        if (progress)
            progress(user, "loading weights", (double)done / (double)total);
    }
    return PL_OK;
}

/* All of a small tensor as f32; absent tensors stay NULL. */
static pl_status load_vector(loader *l, const pl_tensor *t, const float **out)
{
    if (!t->data)
        return PL_OK;
    PL_TRY(pl_tensor_check_finite(t, 0, t->rows, l->err));
    float *v = pl_arena_take(l->net->small, (size_t)(t->rows * t->cols), sizeof *v);
    if (!v)
        return pl_fail_memory(l->err, (size_t)(t->rows * t->cols) * sizeof *v, t->name);
    for (int64_t r = 0; r < t->rows; r++)
        pl_decode(t->type, pl_tensor_row(t, r), v + r * t->cols, t->cols);
    *out = v;
    return PL_OK;
}

static pl_status load_layer_vectors(loader *l, const pl_layer_weights *from, pl_net_layer *to)
{
    PL_TRY(load_vector(l, &from->attn_norm, &to->attn_norm));
    PL_TRY(load_vector(l, &from->post_attn_norm, &to->post_attn_norm));
    PL_TRY(load_vector(l, &from->ffn_norm, &to->ffn_norm));
    PL_TRY(load_vector(l, &from->post_ffn_norm, &to->post_ffn_norm));
    PL_TRY(load_vector(l, &from->post_ple_norm, &to->post_ple_norm));
    PL_TRY(load_vector(l, &from->q_norm, &to->q_norm));
    PL_TRY(load_vector(l, &from->k_norm, &to->k_norm));
    PL_TRY(load_vector(l, &from->laurel_norm, &to->laurel_norm));
    PL_TRY(load_vector(l, &from->altup_router_norm, &to->altup.router_norm));
    PL_TRY(load_vector(l, &from->altup_router, &to->altup.router));
    PL_TRY(load_vector(l, &from->altup_predict, &to->altup.predict));
    PL_TRY(load_vector(l, &from->altup_correct, &to->altup.correct));
    if (l->net->config->altup_correct_scale)
        PL_TRY(load_vector(l, &from->altup_scale, &to->altup.scale));
    return PL_OK;
}

/* base^(-2i/dim), each rounded to f32 as transformers has it. */
static pl_status make_frequencies(loader *l, float base, const float **out)
{
    int half = l->net->config->head_dim / 2;
    float *f = pl_arena_take(l->net->small, (size_t)half, sizeof *f);
    if (!f)
        return pl_fail_memory(l->err, (size_t)half * sizeof *f, "rotary frequencies");
    for (int i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)(2 * half);
        f[i] = 1.0f / (float)pow((double)base, (double)exponent);
    }
    *out = f;
    return PL_OK;
}

static pl_status load_vectors(loader *l)
{
    const pl_weights *w = pl_checkpoint_weights(l->checkpoint);
    pl_net *net = l->net;
    for (int i = 0; i < net->config->n_layers; i++)
        PL_TRY(load_layer_vectors(l, &w->layer[i], &net->layer[i]));
    PL_TRY(load_vector(l, &w->ple_norm, &net->ple_norm));
    PL_TRY(load_vector(l, &w->out_norm, &net->out_norm));
    PL_TRY(make_frequencies(l, net->config->rope_base_local, &net->rope_local));
    return make_frequencies(l, net->config->rope_base_global, &net->rope_global);
}

static pl_status load(loader *l, pl_progress_fn progress, void *user)
{
    pl_net *net = l->net;
    PL_TRY(pl_arena_create(SMALL_CHUNK_BYTES, &net->small, l->err));
    size_t n_layers = (size_t)net->config->n_layers;
    net->layer = pl_arena_take(net->small, n_layers, sizeof *net->layer);
    l->room = n_layers * 11 + 16;
    l->matrices = calloc(l->room, sizeof *l->matrices);
    if (!net->layer || !l->matrices)
        return pl_fail_memory(l->err, n_layers * sizeof *net->layer, "layer table");
    list_matrices(l);
    PL_TRY(load_vectors(l));
    PL_TRY(load_matrices(l, progress, user));
    if (!pl_checkpoint_weights(l->checkpoint)->head.data)
        net->head = net->embed;
    return PL_OK;
}

pl_status pl_net_load(const pl_checkpoint *checkpoint, pl_backend *backend, pl_progress_fn progress, void *user,
                      pl_net **out, pl_error *err)
{
    pl_net *net = calloc(1, sizeof *net);
    if (!net)
        return pl_fail_memory(err, sizeof *net, "engine");
    net->config = pl_checkpoint_config(checkpoint);
    net->backend = backend;
    loader l = {.checkpoint = checkpoint, .net = net, .err = err};
    pl_status status = load(&l, progress, user);
    free(l.matrices);
    if (status != PL_OK) {
        pl_net_free(net);
        return status;
    }
    *out = net;
    return PL_OK;
}

void pl_net_free(pl_net *net)
{
    if (!net)
        return;
    net->backend->memory_give(net->backend, net->packed, net->packed_room);
    pl_arena_free(net->small);
    free(net);
}
