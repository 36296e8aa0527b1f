#include "host/tower/embedder.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows that are projected at once. */
#define PIECE 256

struct pl_embedder {
    pl_backend *backend;
    const pl_tower_source *source;
    const char *name;     /* "embed_vision" */
    int64_t hidden, text; /* width of the tower's rows, of the text model's */
    int64_t vocab;        /* rows of the table */
    float eps;
    void *memory; /* of the backend: everything below */
    size_t bytes;
    float *soft_norm, *hard_norm; /* [hidden] */
    pl_tower_matrix projection;   /* [text][hidden] */
    float *rows, *out;            /* [PIECE][hidden], [PIECE][text] */
};

static void name_of(const pl_embedder *e, const char *part, char name[64])
{
    snprintf(name, 64, "%s.%s.weight", e->name, part);
}

static void describe(pl_embedder *e, pl_tower_kind kind)
{
    if (kind == PL_TOWER_VISION) {
        const pl_vision_config *c = pl_tower_source_vision(e->source);
        e->name = "embed_vision";
        e->hidden = c->hidden;
        e->vocab = c->vocab;
        e->eps = c->eps;
        return;
    }
    const pl_audio_config *c = pl_tower_source_audio(e->source);
    e->name = "embed_audio";
    e->hidden = c->hidden;
    e->vocab = c->vocab;
    e->eps = c->eps;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static pl_status take_memory(pl_embedder *e, size_t matrix, pl_error *err)
{
    size_t norm = aligned((size_t)e->hidden * sizeof(float)),
           row = aligned((size_t)(e->hidden + e->text) * sizeof(float));
    e->bytes = aligned(matrix) + 2 * norm + PIECE * row;
    e->memory = e->backend->memory_take(e->backend, e->bytes);
    if (!e->memory)
        return pl_backend_fail_memory(e->backend, e->bytes, e->name, err);
    char *at = (char *)e->memory + aligned(matrix);
    e->soft_norm = (float *)at;
    e->hard_norm = (float *)(at + norm);
    e->rows = (float *)(at + 2 * norm);
    e->out = e->rows + PIECE * e->hidden;
    return PL_OK;
}

static pl_status load_vector(pl_embedder *e, const char *part, float *dst, pl_error *err)
{
    char name[64];
    name_of(e, part, name);
    float *values = malloc((size_t)e->hidden * sizeof *values);
    if (!values)
        return pl_fail_memory(err, (size_t)e->hidden * sizeof *values, name);
    pl_status status = pl_tower_source_vector(e->source, name, e->hidden, values, err);
    if (status == PL_OK)
        e->backend->upload(e->backend->stream, dst, values, (size_t)e->hidden * sizeof *values);
    free(values);
    return status;
}

static pl_status load(pl_embedder *e, const pl_tower_turn *turn, pl_error *err)
{
    char name[64];
    pl_tensor t;
    const pl_tower_ops *ops = e->backend->tower;
    name_of(e, "embedding_projection", name);
    PL_TRY(pl_tower_source_matrix(e->source, name, 0, e->hidden, &t, err));
    e->text = t.rows;
    PL_TRY(take_memory(e, ops->ready_bytes(t.rows, t.cols, t.type), err));
    PL_TRY(pl_tower_turn_begin(turn, err));
    pl_status status = ops->ready(e->backend->stream, &t, e->memory, &e->projection, err);
    pl_tower_turn_end(turn);
    PL_TRY(status);
    pl_tower_source_drop(e->source, &t);
    PL_TRY(load_vector(e, "soft_embedding_norm", e->soft_norm, err));
    return load_vector(e, "hard_embedding_norm", e->hard_norm, err);
}

pl_status pl_embedder_create(const pl_tower_source *source, pl_tower_kind kind, pl_backend *backend,
                             const pl_tower_turn *turn, pl_embedder **out, pl_error *err)
{
    pl_embedder *e = calloc(1, sizeof *e);
    if (!e)
        return pl_fail_memory(err, sizeof *e, "an embedder");
    e->source = source;
    e->backend = backend;
    describe(e, kind);
    pl_status status = load(e, turn, err);
    if (status != PL_OK) {
        pl_embedder_free(e);
        return status;
    }
    *out = e;
    return PL_OK;
}

void pl_embedder_free(pl_embedder *e)
{
    if (!e)
        return;
    e->backend->memory_give(e->backend, e->memory, e->bytes);
    free(e);
}

size_t pl_embedder_bytes(const pl_embedder *e)
{
    return e->bytes;
}

int64_t pl_embedder_width(const pl_embedder *e)
{
    return e->text;
}

/* n rows of e->rows, at most PIECE; first: of all, for messages. */
static pl_status embed_piece(pl_embedder *e, const float *norm, int64_t first, int64_t n, float *out, pl_error *err)
{
    const pl_tower_ops *ops = e->backend->tower;
    pl_stream *s = e->backend->stream;
    pl_tower_norm before = {.weight = norm, .eps = e->eps, .factor = 1}, after = {.eps = e->eps, .factor = 1};
    const void *values = NULL;
    ops->norm(s, e->rows, e->rows, n, e->hidden, &before);
    ops->product(s, e->out, e->text, e->rows, e->hidden, n, &e->projection);
    ops->norm(s, e->out, e->out, n, e->text, &after);
    PL_TRY(e->backend->fetch(s, e->out, (size_t)(n * e->text) * sizeof(float), &values, err));
    memcpy(out, values, (size_t)(n * e->text) * sizeof *out);
    for (int64_t i = 0; i < n * e->text; i++)
        if (!isfinite(out[i]))
            return pl_fail(err, PL_ERR_NUMERIC, "%s: row %" PRId64 " is not finite", e->name, first + i / e->text);
    return PL_OK;
}

pl_status pl_embedder_soft(pl_embedder *e, const float *x, int64_t n, float *out, pl_error *err)
{
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        e->backend->upload(e->backend->stream, e->rows, x + i * e->hidden, (size_t)(m * e->hidden) * sizeof *x);
        PL_TRY(embed_piece(e, e->soft_norm, i, m, out + i * e->text, err));
    }
    return PL_OK;
}

pl_status pl_embedder_hard(pl_embedder *e, float *out, pl_error *err)
{
    char name[64];
    pl_tensor t;
    name_of(e, "embedding", name);
    PL_TRY(pl_tower_source_matrix(e->source, name, e->vocab, e->hidden, &t, err));
    float *row = malloc((size_t)e->hidden * sizeof *row);
    if (!row)
        return pl_fail_memory(err, (size_t)e->hidden * sizeof *row, name);
    pl_status status = PL_OK;
    for (int64_t i = 0; i < e->vocab && status == PL_OK; i += PIECE) {
        int64_t m = e->vocab - i < PIECE ? e->vocab - i : PIECE;
        for (int64_t k = 0; k < m; k++) {
            pl_decode(t.type, pl_tensor_row(&t, i + k), row, e->hidden);
            e->backend->upload(e->backend->stream, e->rows + k * e->hidden, row, (size_t)e->hidden * sizeof *row);
        }
        status = embed_piece(e, e->hard_norm, i, m, out + i * e->text, err);
    }
    free(row);
    return status;
}
