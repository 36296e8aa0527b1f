/* From a tower's output, or ids of its vocabulary, to rows that stand in the prompt beside word embeddings (but are not
 * scaled as these).
 *
 *   soft rows: norm(x; soft_norm), projection, norm without weight
 *   hard rows: norm(embedding[id]; hard_norm), the same projection, norm without weight
 * Source: transformers, Gemma3nMultimodalEmbedder. */
#ifndef PL_TOWER_EMBEDDER_H
#define PL_TOWER_EMBEDDER_H

#include "host/ops/backend.h"
#include "host/tower/source.h"
#include "host/tower/turn.h"

typedef enum pl_tower_kind { PL_TOWER_VISION, PL_TOWER_AUDIO } pl_tower_kind;

typedef struct pl_embedder pl_embedder;

/* Borrows both. The backend has tower ops. turn: around the use of these; may be NULL. */
pl_status pl_embedder_create(const pl_tower_source *source, pl_tower_kind kind, pl_backend *backend,
                             const pl_tower_turn *turn, pl_embedder **out, pl_error *err);
void pl_embedder_free(pl_embedder *e);
size_t pl_embedder_bytes(const pl_embedder *e);
int64_t pl_embedder_width(const pl_embedder *e); /* values of an embedded row: text hidden */

/* n rows of the tower's width, in the host's memory, to n rows of the text model's: out [n][text hidden]. PL_ERR_NUMERIC where one is not finite. */
pl_status pl_embedder_soft(pl_embedder *e, const float *x, int64_t n, float *out, pl_error *err);

/* The rows of all ids of its vocabulary: out [vocab][text hidden]. */
pl_status pl_embedder_hard(pl_embedder *e, float *out, pl_error *err);

#endif
