/* Rows of prompts that are no word embeddings, what towers make of images and sound: each has an id of its own beyond all
 * that the model knows, so that whatever compares prompts compares ids.
 *
 * A block of rows lives as long as somebody holds it. One with a key is found again by it, and is remembered for a while
 * when nobody holds it any more: the blocks used last, up to a number of bytes.
 * Thread-safe. A holder may read its block's rows without further ado. */
#ifndef PL_ENGINE_SOFT_ROWS_H
#define PL_ENGINE_SOFT_ROWS_H

#include "host/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pl_soft_rows pl_soft_rows;

/* first_id: ids begin here. They ascend, and begin again where int32_t ends. */
pl_status pl_soft_rows_create(int32_t first_id, int hidden, size_t remembered_bytes, pl_soft_rows **out, pl_error *err);
void pl_soft_rows_free(pl_soft_rows *s); /* nobody holds any */

int32_t pl_soft_rows_first(const pl_soft_rows *s);

/* How often the ids have begun again: what was kept by id before means nothing any more, unless it is held. */
uint64_t pl_soft_rows_laps(pl_soft_rows *s);

/* Bytes of all rows that are there. */
size_t pl_soft_rows_bytes(pl_soft_rows *s);

/* ---- blocks ---- */

typedef struct pl_soft_key {
    uint64_t v[2]; /* a hash of all that the rows follow from */
} pl_soft_key;

typedef struct pl_soft_block pl_soft_block;

/* A reference to the block of this key; NULL: there is none. */
pl_soft_block *pl_soft_rows_find(pl_soft_rows *s, const pl_soft_key *key);

/* A new block of copies of rows [n][hidden], n >= 1, and a reference to it. Where another has come with the same key meanwhile,
 * that one. key NULL: it will not be found. */
pl_status pl_soft_rows_add(pl_soft_rows *s, const pl_soft_key *key, const float *rows, int32_t n, pl_soft_block **out,
                           pl_error *err);

void pl_soft_block_drop(pl_soft_block *block); /* gives up a reference; NULL is left alone */

/* Its ids are first, first + 1 ... */
int32_t pl_soft_block_first(const pl_soft_block *block);
int32_t pl_soft_block_size(const pl_soft_block *block);

/* ---- by id ---- */

/* References to blocks that some tokens stand for. Zeroed: none. */
typedef struct pl_soft_holds {
    pl_soft_block **block;
    size_t n, room;
} pl_soft_holds;

/* Takes a reference to each block that ids[0..n) name, behind those that *holds has; ids below the first are passed over.
 * PL_ERR_ARGUMENT names the first id that stands for nothing; `what` is what the ids are: "prompt token". On failure
 * *holds is as before. */
pl_status pl_soft_rows_hold(pl_soft_rows *s, const int32_t *ids, size_t n, const char *what, pl_soft_holds *holds,
                            pl_error *err);
void pl_soft_holds_free(pl_soft_holds *holds);

/* The rows of id, which somebody holds, and of those behind it: *n of them stand in one piece. */
const float *pl_soft_rows_at(pl_soft_rows *s, int32_t id, int32_t *n);

#endif
