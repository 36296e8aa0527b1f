#include "host/engine/net.h"

#include "host/model/weight_check.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_ROWS 64 /* of one piece of checking or copying work */

/* A matrix of the checkpoint and where its loaded form goes. */
typedef struct matrix {
    const pl_tensor *from;
    pl_tensor part; /* of it, that is loaded; without data where it has to be gathered */
    pl_weight *to;
    pl_weight_layout layout;
    pl_role role;
    int layer;
} matrix;

typedef struct loader {
    const pl_checkpoint *checkpoint;
    pl_net *net;
    matrix *matrices;
    size_t n_matrices;
    size_t used;           /* of net->matrices */
    const pl_share *share; /* may be NULL */
    size_t shared;         /* of net->matrices, too */
    bool copies;           /* see room_of() */
    pl_error *err;
} loader;

static size_t aligned(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Where the loaded form of a role is: a pl_weight of a matrix, a pointer of a vector. The table of per-layer
 * embeddings has none, it stays in the file. */
#define LAYER(field) offsetof(pl_net_layer, field)
#define WHOLE(field) offsetof(pl_net, field)

static const size_t places[PL_ROLES] = {
    [PL_ROLE_ATTN_NORM] = LAYER(attn_norm),
    [PL_ROLE_POST_ATTN_NORM] = LAYER(post_attn_norm),
    [PL_ROLE_FFN_NORM] = LAYER(ffn_norm),
    [PL_ROLE_POST_FFN_NORM] = LAYER(post_ffn_norm),
    [PL_ROLE_POST_PLE_NORM] = LAYER(post_ple_norm),
    [PL_ROLE_Q] = LAYER(q),
    [PL_ROLE_K] = LAYER(k),
    [PL_ROLE_V] = LAYER(v),
    [PL_ROLE_O] = LAYER(o),
    [PL_ROLE_Q_NORM] = LAYER(q_norm),
    [PL_ROLE_K_NORM] = LAYER(k_norm),
    [PL_ROLE_GATE] = LAYER(gate),
    [PL_ROLE_UP] = LAYER(up),
    [PL_ROLE_DOWN] = LAYER(down),
    [PL_ROLE_LAUREL_LEFT] = LAYER(laurel_left),
    [PL_ROLE_LAUREL_RIGHT] = LAYER(laurel_right),
    [PL_ROLE_LAUREL_NORM] = LAYER(laurel_norm),
    [PL_ROLE_ALTUP_ROUTER] = LAYER(altup.router),
    [PL_ROLE_ALTUP_ROUTER_NORM] = LAYER(altup.router_norm),
    [PL_ROLE_ALTUP_PREDICT] = LAYER(altup.predict),
    [PL_ROLE_ALTUP_CORRECT] = LAYER(altup.correct),
    [PL_ROLE_ALTUP_SCALE] = LAYER(altup.scale),
    [PL_ROLE_PLE_GATE] = LAYER(ple_gate),
    [PL_ROLE_PLE_PROJ] = LAYER(ple_proj),
    [PL_ROLE_EMBED] = WHOLE(embed),
    [PL_ROLE_HEAD] = WHOLE(head),
    [PL_ROLE_PLE_MODEL_PROJ] = WHOLE(ple_model_proj),
    [PL_ROLE_PLE_NORM] = WHOLE(ple_norm),
    [PL_ROLE_ALTUP_PROJ] = WHOLE(altup_proj),
    [PL_ROLE_ALTUP_UNEMBED] = WHOLE(altup_unembed),
    [PL_ROLE_OUT_NORM] = WHOLE(out_norm),
};

static void *place_of(pl_net *net, int layer, pl_role role)
{
    return (pl_role_in_layer(role) ? (char *)&net->layer[layer] : (char *)net) + places[role];
}

pl_weight *pl_net_weight(pl_net *net, int layer, pl_role role, int index)
{
    return (pl_weight *)place_of(net, layer, role) + index;
}

/* Where most of the neurons are zero they can be had one by one. Which ones, a rank cannot tell alone. */
static pl_weight_layout layout_of(const pl_net *net, int layer, pl_role role)
{
    if ((role != PL_ROLE_UP && role != PL_ROLE_DOWN) || !net->backend->weight_load_neurons || net->shard ||
        !isfinite(net->config->sparsity_z[layer]))
        return PL_PANELS;
    return role == PL_ROLE_UP ? PL_NEURON_ROWS : PL_NEURON_COLUMNS;
}

static void list_matrices_of(loader *l, bool layers)
{
    const pl_weights *weights = pl_checkpoint_weights(l->checkpoint);
    const pl_shard *shard = l->net->shard;
    for (pl_weight_cursor at = {0}; pl_weight_next(weights, l->net->config, &at);)
        if (pl_weight_table[at.role].kind == PL_WEIGHT_MATRIX && pl_role_in_layer(at.role) == layers)
            l->matrices[l->n_matrices++] = (matrix){.from = at.tensor,
                                                    .part = shard ? pl_shard_part(shard, at.layer, at.role, at.tensor)
                                                                  : *at.tensor,
                                                    .to = pl_net_weight(l->net, at.layer, at.role, at.index),
                                                    .layout = layout_of(l->net, at.layer, at.role),
                                                    .role = at.role,
                                                    .layer = at.layer};
}

/* While a matrix is loaded it is in memory twice. The embedding is by far the largest: it comes when there is little
 * else. */
static void list_matrices(loader *l)
{
    list_matrices_of(l, false);
    list_matrices_of(l, true);
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

static size_t packed_bytes(const loader *l, const matrix *m)
{
    return l->net->backend->weight_bytes(l->net->backend, &m->part);
}

static size_t part_bytes(const matrix *m)
{
    return (size_t)m->part.rows * pl_tensor_row_bytes(&m->part);
}

/* Plain matrices of a quantised file are few, and read at half of the memory's rate from a mapping's small pages: they are
 * copied to the others. Of a plain file it would be all of them. */
static size_t room_of(const loader *l, const matrix *m)
{
    size_t bytes = packed_bytes(l, m);
    return bytes || (!l->copies && m->part.data) ? bytes : part_bytes(m);
}

typedef struct copy_job {
    const matrix *m;
    const pl_shard *shard;
    char *to;
} copy_job;

static void copy_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const copy_job *j = ctx;
    const pl_tensor *part = &j->m->part;
    size_t row = pl_tensor_row_bytes(part);
    if (part->data)
        memcpy(j->to + (size_t)begin * row, pl_tensor_row(part, begin), (size_t)(end - begin) * row);
    else
        pl_shard_gather(j->shard, j->m->layer, j->m->role, j->m->from, begin, end, j->to);
}

static void copy_part(const loader *l, const matrix *m, void *to)
{
    pl_pool_for(l->net->backend->pool, m->part.rows, CHECK_ROWS, copy_rows, &(copy_job){m, l->net->shard, to});
}

/* Brings the part, in the file's layout at `from`, to where it is used. */
static pl_status bring(loader *l, const matrix *m, const void *from, void *place)
{
    pl_backend *b = l->net->backend;
    pl_tensor part = m->part;
    part.data = from;
    pl_status status = m->layout == PL_PANELS ? b->weight_load(b, &part, place, m->to, l->err)
                                              : b->weight_load_neurons(b, &part, m->layout, place, m->to, l->err);
    if (status == PL_ERR_FORMAT) /* tells the column too */
        PL_TRY(pl_tensor_check_finite(m->from, 0, m->from->rows, l->err));
    return status;
}

/* The same of a part that is scattered in the file. */
static pl_status bring_gathered(loader *l, const matrix *m, void *place)
{
    void *work = malloc(part_bytes(m));
    if (!work)
        return pl_fail_memory(l->err, part_bytes(m), m->from->name);
    copy_part(l, m, work);
    pl_status status = bring(l, m, work, place);
    free(work);
    return status;
}

static pl_status load_matrix(loader *l, const matrix *m)
{
    pl_net *net = l->net;
    size_t bytes = room_of(l, m);
    bool plain = pl_dtype_describe((int)m->from->type)->block_elems == 1;
    if (plain && (!net->shard || net->shard->rank == 0)) /* others are checked as they are packed */
        PL_TRY(check_finite(net->backend, m->from, l->err));
    void *place = bytes ? (char *)net->matrices + l->used : NULL;
    if (bytes && packed_bytes(l, m) == 0) {
        copy_part(l, m, place);
        PL_TRY(bring(l, m, place, place));
    } else if (m->part.data) {
        PL_TRY(bring(l, m, m->part.data, place));
    } else {
        PL_TRY(bring_gathered(l, m, place));
    }
    l->used += aligned(bytes);
    if (bytes) {
        net->loaded_bytes += m->to->bytes;
        pl_checkpoint_drop(l->checkpoint, m->from);
    } else {
        net->mapped_bytes += m->to->bytes;
    }
    return PL_OK;
}

/* Says where the matrix will be when it has come from the first engine. */
static void expect_matrix(loader *l, const matrix *m)
{
    pl_net *net = l->net;
    net->backend->weight_describe(net->backend, &m->part, (char *)net->matrices + l->used, m->to);
    net->loaded_bytes += m->to->bytes;
    l->used += aligned(room_of(l, m));
}

static void share_loaded(loader *l)
{
    pl_net *net = l->net;
    if (l->share)
        pl_share_pieces(l->share, net->backend->stream, net->matrices, net->matrices_room, l->used, &l->shared);
}

static pl_status load_matrices(loader *l, pl_progress_fn progress, void *user)
{
    pl_net *net = l->net;
    size_t total = 0, done = 0;
    for (size_t i = 0; i < l->n_matrices; i++)
        l->copies |= packed_bytes(l, &l->matrices[i]) > 0;
    for (size_t i = 0; i < l->n_matrices; i++) {
        net->matrices_room += aligned(room_of(l, &l->matrices[i]));
        total += part_bytes(&l->matrices[i]);
    }
    if (net->matrices_room) {
        net->matrices = net->backend->memory_take(net->backend, net->matrices_room);
        if (!net->matrices)
            return pl_backend_fail_memory(net->backend, net->matrices_room, "weights", l->err);
    }
    if (l->share)
        PL_TRY(l->share->meet(l->share->user, l->err));
    for (size_t i = 0; i < l->n_matrices; i++) {
        if (pl_share_gets(l->share))
            expect_matrix(l, &l->matrices[i]);
        else
            PL_TRY(load_matrix(l, &l->matrices[i]));
        share_loaded(l);
        done += part_bytes(&l->matrices[i]);
        if (progress)
            progress(user, "loading weights", (double)done / (double)total);
    }
    return PL_OK;
}

static float *next_vector(pl_net *net, int64_t n)
{
    float *v = (float *)(net->vectors + net->vectors_used);
    net->vectors_used += aligned((size_t)n * sizeof *v);
    return v;
}

/* All of a small tensor as f32; work: room for its values. */
static pl_status load_vector(loader *l, const pl_tensor *t, float *work, const float **out)
{
    PL_TRY(pl_tensor_check_finite(t, 0, t->rows, l->err));
    for (int64_t r = 0; r < t->rows; r++)
        pl_decode(t->type, pl_tensor_row(t, r), work + r * t->cols, t->cols);
    float *v = next_vector(l->net, t->rows * t->cols);
    l->net->backend->upload(l->net->backend->stream, v, work, (size_t)(t->rows * t->cols) * sizeof *v);
    *out = v;
    return PL_OK;
}

/* base^(-2i/dim), each rounded to f32 as transformers has it. */
static const float *load_frequencies(loader *l, float base, float *work)
{
    int half = l->net->config->head_dim / 2;
    for (int i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)(2 * half);
        work[i] = 1.0f / (float)pow((double)base, (double)exponent);
    }
    float *v = next_vector(l->net, half);
    l->net->backend->upload(l->net->backend->stream, v, work, (size_t)half * sizeof *v);
    return v;
}

static bool next_vector_tensor(const pl_net *net, const pl_weights *weights, pl_weight_cursor *at)
{
    while (pl_weight_next(weights, net->config, at))
        if (pl_weight_table[at->role].kind == PL_WEIGHT_VECTOR)
            return true;
    return false;
}

static pl_status fill_vectors(loader *l, float *work)
{
    const pl_weights *weights = pl_checkpoint_weights(l->checkpoint);
    pl_net *net = l->net;
    for (pl_weight_cursor at = {0}; next_vector_tensor(net, weights, &at);)
        PL_TRY(load_vector(l, at.tensor, work, place_of(net, at.layer, at.role)));
    net->rope_local = load_frequencies(l, net->config->rope_base_local, work);
    net->rope_global = load_frequencies(l, net->config->rope_base_global, work);
    return PL_OK;
}

static pl_status load_vectors(loader *l)
{
    const pl_weights *weights = pl_checkpoint_weights(l->checkpoint);
    pl_net *net = l->net;
    size_t largest = (size_t)net->config->head_dim * sizeof(float);
    net->vectors_room = 2 * aligned(largest);
    for (pl_weight_cursor at = {0}; next_vector_tensor(net, weights, &at);) {
        size_t bytes = (size_t)(at.tensor->rows * at.tensor->cols) * sizeof(float);
        net->vectors_room += aligned(bytes);
        largest = bytes > largest ? bytes : largest;
    }
    net->vectors = net->backend->memory_take(net->backend, net->vectors_room);
    float *work = malloc(largest);
    pl_status status = net->vectors && work ? fill_vectors(l, work)
                                            : pl_fail_memory(l->err, net->vectors_room, "small weights");
    free(work);
    return status;
}

static pl_status load(loader *l, pl_progress_fn progress, void *user)
{
    pl_net *net = l->net;
    size_t n_layers = (size_t)net->config->n_layers;
    net->layer = calloc(n_layers, sizeof *net->layer);
    l->matrices = calloc(n_layers * PL_LAYER_ROLES + PL_ALTUP * PL_ROLES, sizeof *l->matrices);
    if (!net->layer || !l->matrices)
        return pl_fail_memory(l->err, n_layers * sizeof *net->layer, "layer table");
    list_matrices(l);
    PL_TRY(load_vectors(l));
    PL_TRY(load_matrices(l, progress, user));
    if (!pl_checkpoint_weights(l->checkpoint)->head.data)
        net->head = net->embed;
    PL_TRY(net->backend->fetch(net->backend->stream, NULL, 0, NULL, l->err));
    return l->share ? l->share->meet(l->share->user, l->err) : PL_OK;
}

pl_status pl_net_load(const pl_checkpoint *checkpoint, const pl_shard *shard, const pl_share *share,
                      pl_backend *backend, pl_progress_fn progress, void *user, pl_net **out, pl_error *err)
{
    pl_net *net = calloc(1, sizeof *net);
    if (!net)
        return pl_fail_memory(err, sizeof *net, "engine");
    net->config = shard ? &shard->config : pl_checkpoint_config(checkpoint);
    net->shard = shard;
    net->backend = backend;
    loader l = {.checkpoint = checkpoint, .net = net, .share = share, .err = err};
    pl_status status = load(&l, progress, user);
    free(l.matrices);
    if (status != PL_OK) {
        pl_net_free(net);
        return status;
    }
    *out = net;
    return PL_OK;
}

static size_t hard_bytes(const pl_net *net)
{
    return (size_t)net->n_hard * (size_t)net->config->hidden * sizeof *net->hard;
}

pl_status pl_net_take_hard(pl_net *net, const float *rows, int32_t first, int32_t n, pl_error *err)
{
    net->first_hard = first;
    net->n_hard = n;
    net->hard = net->backend->memory_take(net->backend, hard_bytes(net));
    if (!net->hard)
        return pl_backend_fail_memory(net->backend, hard_bytes(net), "embeddings of the towers' ids", err);
    net->backend->upload(net->backend->stream, net->hard, rows, hard_bytes(net));
    return net->backend->fetch(net->backend->stream, NULL, 0, NULL, err);
}

void pl_net_free(pl_net *net)
{
    if (!net)
        return;
    net->backend->memory_give(net->backend, net->hard, hard_bytes(net));
    net->backend->memory_give(net->backend, net->matrices, net->matrices_room);
    net->backend->memory_give(net->backend, net->vectors, net->vectors_room);
    free(net->layer);
    free(net);
}
