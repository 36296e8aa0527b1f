/* Paged K/V memory of all sequences of an engine.
 *
 * Only layers below n_kv_layers own K/V. Global layers keep every token, local layers a window; so pages
 * are of two kinds, each holding PL_KV_PAGE tokens of all layers of its kind:
 *
 *     page    [ layer a: K heads | V heads ][ layer b: ... ] ...
 *
 * Sequences share a budget of tokens. It counts pages of global layers. Of local layers there are as many as all
 * sequences can hold at once: a window, slack and batch for each, but never more than global ones, since whoever holds a
 * local page holds the global page of the same tokens. A budget that was asked for adds one local page for every four
 * global ones, for the windows of kept prefixes (prefix.h): 512 tokens behind each 2048.
 *
 * Pages may be shared, by sequences and with kept prefixes, and are never written then: a sequence that grows inside
 * such a page gets a copy first.
 *
 * Memory is set aside at creation and touched only as pages come into use, so reserving allocates
 * nothing. Not thread-safe: the engine's steps take turns. */
#ifndef PL_ENGINE_KV_H
#define PL_ENGINE_KV_H

#include "host/engine/page_pool.h"
#include "host/model/config.h"

#define PL_KV_SLACK 256 /* tokens behind the window that local layers keep, so that a few can be taken back */

typedef struct pl_kv pl_kv;

typedef struct pl_kv_size {
    int sequences;  /* at once */
    int context;    /* tokens in each, at most */
    int batch_rows; /* most tokens of a step */
    int64_t tokens; /* the budget; at least one context's count, at most those of all sequences; 0: these */
    pl_cache_type type;
} pl_kv_size;

pl_status pl_kv_create(const pl_config *config, pl_backend *backend, const pl_kv_size *size, pl_kv **out,
                       pl_error *err);
void pl_kv_free(pl_kv *kv);

/* A rank's part of it: heads [first_head, first_head + heads) of each layer, and the page tables, in its own memory. */
typedef struct pl_kv_part {
    pl_backend *backend;
    int first_head, heads;
} pl_kv_part;

/* The same for 1 to PL_COMM_MOST ranks. config: of the whole model. All of their backends are used by whoever calls. */
pl_status pl_kv_create_parts(const pl_config *config, const pl_kv_part *parts, int n_parts, const pl_kv_size *size,
                             pl_kv **out, pl_error *err);

/* Bytes that pl_kv_create() sets aside of the ops' memory, page tables among them. */
size_t pl_kv_bytes(const pl_config *config, const pl_kv_size *size);

/* Bytes of pages for one sequence, and those of one token in the layers that keep all. */
size_t pl_kv_sequence_bytes(const pl_config *config, int context, int batch_rows, pl_cache_type type);
size_t pl_kv_token_bytes(const pl_config *config, pl_cache_type type);

/* A sequence of its own, empty. PL_ERR_UNSUPPORTED names the limit when all are taken. */
pl_status pl_kv_open(pl_kv *kv, int32_t *sequence, pl_error *err);
void pl_kv_close(pl_kv *kv, int32_t sequence);

int32_t pl_kv_length(const pl_kv *kv, int32_t sequence);

/* Whether pages for n more tokens are free, or can be got by giving up kept ones. */
bool pl_kv_fits(const pl_kv *kv, int32_t sequence, int32_t n);

/* Makes room for n more tokens, at most the batch's rows; they count as held from now on. Gives up
 * pages of local layers that no later token sees, and kept pages where it needs them. PL_ERR_CONTEXT when they do not
 * fit the context, PL_ERR_BUSY when other sequences hold the pages; the sequence is as long as before then. */
pl_status pl_kv_extend(pl_kv *kv, int32_t sequence, int32_t n, pl_error *err);

/* Forgets the tokens from n on. Returns how many are left: n, or 0 where the window behind n is gone already
 * and all must be read again. */
int32_t pl_kv_truncate(pl_kv *kv, int32_t sequence, int32_t n);

/* Queues what has changed in the page tables since the last call; to be called before the ops of a step. */
void pl_kv_upload(pl_kv *kv);

/* The memory of a layer that owns K/V; part: the rank's. */
pl_kv_layer pl_kv_view(const pl_kv *kv, int part, int layer);

/* Room in tokens, by whole pages of the global layers. */
typedef struct pl_kv_room {
    int64_t tokens; /* of all pages */
    int64_t used;   /* held by sequences, shared ones counted once */
    int64_t kept;   /* kept for later ones only */
} pl_kv_room;

pl_kv_room pl_kv_count(const pl_kv *kv);

/* ---- pages shared with kept prefixes (prefix.c) ---- */

typedef enum pl_kv_kind { PL_KV_GLOBAL, PL_KV_LOCAL, PL_KV_KINDS } pl_kv_kind;

/* Who keeps pages. */
typedef struct pl_kv_keeper {
    void *user;

    /* The last sequence has dropped this page, it is only kept from now on. */
    void (*left)(void *user, pl_kv_kind kind, int32_t page);

    /* Forgets one page, at least, that is only kept; there is one. */
    void (*give_up)(void *user, pl_kv_kind kind);

    /* Forgets this page, which a sequence holds. Called where no page is only kept. */
    void (*let_go)(void *user, pl_kv_kind kind, int32_t page);
} pl_kv_keeper;

/* NULL: nobody; nothing may be kept then. */
void pl_kv_set_keeper(pl_kv *kv, const pl_kv_keeper *keeper);

pl_page_pool *pl_kv_pool(pl_kv *kv, pl_kv_kind kind);
int pl_kv_context(const pl_kv *kv);
pl_cache_type pl_kv_type(const pl_kv *kv);
int pl_kv_sequences(const pl_kv *kv);

/* The index-th page of a sequence; -1: none. */
int32_t pl_kv_page(const pl_kv *kv, int32_t sequence, pl_kv_kind kind, int32_t index);

/* Makes the sequence hold `page` as its index-th, instead of what it holds there. */
void pl_kv_put(pl_kv *kv, int32_t sequence, pl_kv_kind kind, int32_t index, int32_t page);

/* An empty sequence has n tokens now: all its global pages have been put, and the local ones from `local_from` on. */
void pl_kv_begin(pl_kv *kv, int32_t sequence, int32_t n, int32_t local_from);

/* A number that goes with the sequence: whole pages from its beginning; less when it is truncated into them. */
int32_t pl_kv_marked(const pl_kv *kv, int32_t sequence);
void pl_kv_set_marked(pl_kv *kv, int32_t sequence, int32_t pages);

#endif
