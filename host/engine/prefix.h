/* Prompts and answers that are done, kept as pages of K/V so that a prompt which begins alike need not be read again.
 *
 * A tree over tokens: a node is one page's tokens behind those of its parent. It holds a page of the global layers and,
 * as long as nobody needed the room, one of the local layers. A prefix of n tokens can be taken over when all its global
 * pages are there and the local ones of the window that token n sees. Where a prompt leaves a kept page in its middle, the
 * part that agrees is copied into a page of the sequence's own.
 *
 * Of local pages, those go first that no prompt is known to need: those behind which something ended or branched, or
 * which were taken over before, go after all others. So a chat that comes back finds the window of its last answer, and
 * the window at the end of a system prompt stays as soon as a second prompt has left it there.
 *
 * Paths that write the same K/V share a tree, others have one each: entries are keyed by the FFN widths of the layers
 * that own K/V. What the tree alone holds is given up, the longest unused first and never a parent before its children, as
 * sequences need pages. Found by xxHash, then compared token by token: no entry is ever taken for another. */
#ifndef PL_ENGINE_PREFIX_H
#define PL_ENGINE_PREFIX_H

#include "host/engine/kv.h"
#include "host/model/path.h"

typedef struct pl_prefixes pl_prefixes;

/* The tree of a K/V memory, which it gives pages back to when asked. Not thread-safe, as kv. Borrows both, and must be
 * freed before kv. */
pl_status pl_prefixes_create(const pl_config *config, pl_kv *kv, pl_prefixes **out, pl_error *err);
void pl_prefixes_free(pl_prefixes *prefixes);

/* How many of ids[0..n) are kept for this path and could be taken over now, at most n - 1; takes nothing. */
int32_t pl_prefixes_match(const pl_prefixes *prefixes, const pl_path *path, const int32_t *ids, int32_t n);

/* Makes an empty sequence hold the longest kept beginning of ids[0..n), at most n - 1 tokens; returns how many. */
int32_t pl_prefixes_adopt(pl_prefixes *prefixes, int32_t sequence, const pl_path *path, const int32_t *ids, int32_t n);

/* The sequence's K/V are those of ids[0..pl_kv_length) on this path throughout, all of them written by steps that have not
 * failed: keeps its whole pages from now on, and with `all` (the sequence is about to be closed) the begun one as well.
 * To be called after each step that fills a page, so that others find its beginning early and windows are kept before
 * the sequence gives them up; costs nothing where nothing is new. */
void pl_prefixes_keep(pl_prefixes *prefixes, int32_t sequence, const pl_path *path, const int32_t *ids, bool all);

/* Forgets all that is kept. */
void pl_prefixes_forget(pl_prefixes *prefixes);

/* Tokens whose pages are kept and held by no sequence: pl_kv_count().kept. */
int64_t pl_prefixes_tokens(const pl_prefixes *prefixes);

/* Writes all of them, beside `path` and renamed, but what hangs on images or sound, whose ids mean nothing later; reads them
 * back. `model` is the checkpoint's fingerprint. A file that is
 * damaged or of another model, format or size of page is PL_ERR_FORMAT naming what differs, and nothing is taken from
 * it; from one with more than there is room for the pages used last are taken. */
pl_status pl_prefixes_save(const pl_prefixes *prefixes, uint64_t model, const char *path, pl_error *err);
pl_status pl_prefixes_load(pl_prefixes *prefixes, uint64_t model, const char *path, pl_error *err);

#endif
