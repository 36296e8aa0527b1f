#include "host/engine/soft_rows.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct pl_soft_block {
    pl_soft_rows *store;
    bool keyed;
    pl_soft_key key;
    int32_t first, n;
    int32_t holders;
    uint64_t used; /* when the last holder left */
    float rows[];
};

struct pl_soft_rows {
    pthread_mutex_t lock; /* of all that follows */
    int32_t first_id, next_id;
    size_t row_bytes, remembered_bytes; /* the latter: at most */
    pl_soft_block **block;              /* [n] by id */
    size_t n, room;
    size_t bytes, unheld_bytes;
    uint64_t clock, laps;
};

pl_status pl_soft_rows_create(int32_t first_id, int hidden, size_t remembered_bytes, pl_soft_rows **out, pl_error *err)
{
    pl_soft_rows *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "rows of images and sound");
    pthread_mutex_init(&s->lock, NULL);
    s->first_id = s->next_id = first_id;
    s->row_bytes = (size_t)hidden * sizeof(float);
    s->remembered_bytes = remembered_bytes;
    *out = s;
    return PL_OK;
}

void pl_soft_rows_free(pl_soft_rows *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        assert(s->block[i]->holders == 0);
        free(s->block[i]);
    }
    pthread_mutex_destroy(&s->lock);
    free(s->block);
    free(s);
}

int32_t pl_soft_rows_first(const pl_soft_rows *s)
{
    return s->first_id;
}

uint64_t pl_soft_rows_laps(pl_soft_rows *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t laps = s->laps;
    pthread_mutex_unlock(&s->lock);
    return laps;
}

size_t pl_soft_rows_bytes(pl_soft_rows *s)
{
    pthread_mutex_lock(&s->lock);
    size_t bytes = s->bytes;
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

/* ---- the list; the lock is held ---------------------------------------------------------------- */

static size_t bytes_of(const pl_soft_block *b)
{
    return (size_t)b->n * b->store->row_bytes;
}

/* The first block that ends behind id. */
static size_t place_of(const pl_soft_rows *s, int32_t id)
{
    size_t from = 0, to = s->n;
    while (from < to) {
        size_t middle = (from + to) / 2;
        if (id - s->block[middle]->first < s->block[middle]->n)
            to = middle;
        else
            from = middle + 1;
    }
    return from;
}

static pl_soft_block *block_at(const pl_soft_rows *s, int32_t id)
{
    size_t i = place_of(s, id);
    return i < s->n && s->block[i]->first <= id ? s->block[i] : NULL;
}

static pl_soft_block *block_of(const pl_soft_rows *s, const pl_soft_key *key)
{
    for (size_t i = s->n; i-- > 0;)
        if (s->block[i]->keyed && memcmp(&s->block[i]->key, key, sizeof *key) == 0)
            return s->block[i];
    return NULL;
}

static void remove_block(pl_soft_rows *s, pl_soft_block *b)
{
    size_t i = place_of(s, b->first);
    memmove(&s->block[i], &s->block[i + 1], (s->n - i - 1) * sizeof *s->block);
    s->n--;
    s->bytes -= bytes_of(b);
    free(b);
}

static pl_soft_block *longest_unused(const pl_soft_rows *s)
{
    pl_soft_block *oldest = NULL;
    for (size_t i = 0; i < s->n; i++)
        if (s->block[i]->holders == 0 && (!oldest || s->block[i]->used < oldest->used))
            oldest = s->block[i];
    return oldest;
}

static void forget(pl_soft_rows *s)
{
    pl_soft_block *b;
    while (s->unheld_bytes > s->remembered_bytes && (b = longest_unused(s))) {
        s->unheld_bytes -= bytes_of(b);
        remove_block(s, b);
    }
}

static void hold(pl_soft_block *b)
{
    if (b->holders++ == 0 && b->keyed)
        b->store->unheld_bytes -= bytes_of(b);
}

static void drop(pl_soft_block *b)
{
    pl_soft_rows *s = b->store;
    assert(b->holders > 0);
    if (--b->holders > 0)
        return;
    if (!b->keyed) {
        remove_block(s, b);
        return;
    }
    b->used = ++s->clock;
    s->unheld_bytes += bytes_of(b);
    forget(s);
}

/* Where n ids are free, from next_id on and round. There are far more than rows that memory holds. */
static int32_t take_ids(pl_soft_rows *s, int32_t n)
{
    for (;;) {
        if (s->next_id > INT32_MAX - n) {
            s->next_id = s->first_id;
            s->laps++;
        }
        size_t i = place_of(s, s->next_id);
        if (i == s->n || s->block[i]->first - s->next_id >= n)
            break;
        s->next_id = s->block[i]->first + s->block[i]->n;
    }
    int32_t first = s->next_id;
    s->next_id += n;
    return first;
}

static pl_status make_room(pl_soft_rows *s, pl_error *err)
{
    if (s->n < s->room)
        return PL_OK;
    size_t room = 2 * s->room + 16;
    pl_soft_block **grown = realloc(s->block, room * sizeof *grown);
    if (!grown)
        return pl_fail_memory(err, room * sizeof *grown, "rows of images and sound");
    s->block = grown;
    s->room = room;
    return PL_OK;
}

static pl_status insert(pl_soft_rows *s, pl_soft_block *b, pl_error *err)
{
    PL_TRY(make_room(s, err));
    b->first = take_ids(s, b->n);
    size_t i = place_of(s, b->first);
    memmove(&s->block[i + 1], &s->block[i], (s->n - i) * sizeof *s->block);
    s->block[i] = b;
    s->n++;
    s->bytes += bytes_of(b);
    b->holders = 1;
    return PL_OK;
}

/* ---- blocks ------------------------------------------------------------------------------------ */

pl_soft_block *pl_soft_rows_find(pl_soft_rows *s, const pl_soft_key *key)
{
    pthread_mutex_lock(&s->lock);
    pl_soft_block *b = block_of(s, key);
    if (b)
        hold(b);
    pthread_mutex_unlock(&s->lock);
    return b;
}

pl_status pl_soft_rows_add(pl_soft_rows *s, const pl_soft_key *key, const float *rows, int32_t n, pl_soft_block **out,
                           pl_error *err)
{
    assert(n >= 1);
    size_t bytes = (size_t)n * s->row_bytes;
    pl_soft_block *b = malloc(sizeof *b + bytes);
    if (!b)
        return pl_fail_memory(err, bytes, "rows of images and sound");
    *b = (pl_soft_block){.store = s, .keyed = key != NULL, .n = n};
    if (key)
        b->key = *key;
    memcpy(b->rows, rows, bytes);
    pthread_mutex_lock(&s->lock);
    pl_soft_block *there = key ? block_of(s, key) : NULL;
    if (there)
        hold(there);
    pl_status status = there ? PL_OK : insert(s, b, err);
    pthread_mutex_unlock(&s->lock);
    if (there || status != PL_OK)
        free(b);
    if (status == PL_OK)
        *out = there ? there : b;
    return status;
}

void pl_soft_block_drop(pl_soft_block *block)
{
    if (!block)
        return;
    pl_soft_rows *s = block->store;
    pthread_mutex_lock(&s->lock);
    drop(block);
    pthread_mutex_unlock(&s->lock);
}

int32_t pl_soft_block_first(const pl_soft_block *block)
{
    return block->first;
}

int32_t pl_soft_block_size(const pl_soft_block *block)
{
    return block->n;
}

/* ---- by id ------------------------------------------------------------------------------------- */

static pl_status push(pl_soft_holds *holds, pl_soft_block *b, pl_error *err)
{
    if (holds->n == holds->room) {
        size_t room = 2 * holds->room + 4;
        pl_soft_block **grown = realloc(holds->block, room * sizeof *grown);
        if (!grown)
            return pl_fail_memory(err, room * sizeof *grown, "images and sound of a prompt");
        holds->block = grown;
        holds->room = room;
    }
    hold(b);
    holds->block[holds->n++] = b;
    return PL_OK;
}

static pl_status hold_all(pl_soft_rows *s, const int32_t *ids, size_t n, const char *what, pl_soft_holds *holds,
                          pl_error *err)
{
    pl_soft_block *last = NULL;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < s->first_id || (last && ids[i] >= last->first && ids[i] - last->first < last->n))
            continue;
        last = block_at(s, ids[i]);
        if (!last)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s %zu is %d, which stands for no image or sound that is still there",
                           what, i, ids[i]);
        PL_TRY(push(holds, last, err));
    }
    return PL_OK;
}

pl_status pl_soft_rows_hold(pl_soft_rows *s, const int32_t *ids, size_t n, const char *what, pl_soft_holds *holds,
                            pl_error *err)
{
    size_t before = holds->n;
    pthread_mutex_lock(&s->lock);
    pl_status status = hold_all(s, ids, n, what, holds, err);
    while (status != PL_OK && holds->n > before)
        drop(holds->block[--holds->n]);
    pthread_mutex_unlock(&s->lock);
    if (holds->n == 0)
        pl_soft_holds_free(holds);
    return status;
}

void pl_soft_holds_free(pl_soft_holds *holds)
{
    for (size_t i = 0; i < holds->n; i++)
        pl_soft_block_drop(holds->block[i]);
    free(holds->block);
    *holds = (pl_soft_holds){0};
}

const float *pl_soft_rows_at(pl_soft_rows *s, int32_t id, int32_t *n)
{
    pthread_mutex_lock(&s->lock);
    const pl_soft_block *b = block_at(s, id);
    pthread_mutex_unlock(&s->lock);
    assert(b);
    *n = b->n - (id - b->first);
    return b->rows + (size_t)(id - b->first) * (s->row_bytes / sizeof(float));
}
