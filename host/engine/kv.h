/* Paged K/V memory of all sequences of an engine.
 *
 * Only layers below n_kv_layers own K/V. Global layers keep every token, local layers a window; so pages
 * are of two kinds, each holding PL_KV_PAGE tokens of all layers of its kind:
 *
 *     page    [ layer a: K heads | V heads ][ layer b: ... ] ...
 *
 * Memory is set aside at creation and touched only as pages come into use, so reserving allocates
 * nothing. Not thread-safe: the engine's steps take turns. */
#ifndef PL_ENGINE_KV_H
#define PL_ENGINE_KV_H

#include "host/model/config.h"
#include "host/ops/backend.h"

#define PL_KV_SLACK 256 /* tokens behind the window that local layers keep, so that a few can be taken back */

typedef struct pl_kv pl_kv;

/* sequences: how many at once; context: tokens in each; batch_rows: most tokens of a step. */
pl_status pl_kv_create(const pl_config *config, pl_backend *backend, int sequences, int context, int batch_rows,
                       pl_kv **out, pl_error *err);
void pl_kv_free(pl_kv *kv);

/* Bytes that pl_kv_create() sets aside for one sequence, and those of one token in the layers that keep all. */
size_t pl_kv_sequence_bytes(const pl_config *config, int context, int batch_rows);
size_t pl_kv_token_bytes(const pl_config *config);

/* A sequence of its own, empty. PL_ERR_UNSUPPORTED names the limit when all are taken. */
pl_status pl_kv_open(pl_kv *kv, int32_t *sequence, pl_error *err);
void pl_kv_close(pl_kv *kv, int32_t sequence);

int32_t pl_kv_length(const pl_kv *kv, int32_t sequence);

/* Makes room for n more tokens, at most the batch's rows; they count as held from now on. Gives up
 * pages of local layers that no later token sees. PL_ERR_CONTEXT when they do not fit. */
pl_status pl_kv_extend(pl_kv *kv, int32_t sequence, int32_t n, pl_error *err);

/* Forgets the tokens from n on. Returns how many are left: n, or 0 where the window behind n is gone already
 * and all must be read again. */
int32_t pl_kv_truncate(pl_kv *kv, int32_t sequence, int32_t n);

/* Queues what has changed in the page tables since the last call; to be called before the ops of a step. */
void pl_kv_upload(pl_kv *kv);

/* The memory of a layer that owns K/V. */
pl_kv_layer pl_kv_view(const pl_kv *kv, int layer);

#endif
