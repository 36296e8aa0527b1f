#include "host/text/bpe.h"

#include "host/text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define META 0x2581u
#define SHORT_WORD 40 /* up to here a scan for the lowest rank beats a heap */

void pl_bpe_work_free(pl_bpe_work *work)
{
    free(work->id);
    free(work->links);
    free(work->heap);
    *work = (pl_bpe_work){0};
}

static pl_status append(pl_ids *out, const uint32_t *id, size_t n, pl_error *err)
{
    PL_TRY(pl_ids_reserve(out, n, err));
    for (size_t i = 0; i < n; i++)
        out->v[out->n + i] = (int32_t)id[i];
    out->n += n;
    return PL_OK;
}

/* ---- short words: arrays that close up after each merge --------------------------------------------- */

/* Merges id[0..n) in place; returns how many are left. */
static size_t merge_short(const pl_token_tables *t, uint32_t *id, size_t n)
{
    uint32_t rank[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = pl_pair_rank(t, id[i], id[i + 1]);
    while (n > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[at])
                at = i;
        if (rank[at] == PL_NO_RANK)
            break;
        id[at] = t->result[rank[at]];
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
        memmove(rank + at, rank + at + 1, (n - at - 1) * sizeof *rank);
        if (at > 0)
            rank[at - 1] = pl_pair_rank(t, id[at - 1], id[at]);
        if (at + 1 < n)
            rank[at] = pl_pair_rank(t, id[at], id[at + 1]);
    }
    return n;
}

/* ---- long words: a list and a heap, O(n log n) ------------------------------------------------------ */

#define END UINT32_MAX

/* A heap of rank << 32 | place: the lowest rank first, of equal ranks the leftmost. */
typedef struct heap {
    uint64_t *v;
    size_t n;
} heap;

static void heap_push(heap *h, uint64_t key)
{
    size_t i = h->n++;
    for (; i > 0 && h->v[(i - 1) / 2] > key; i = (i - 1) / 2)
        h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = key;
}

static uint64_t heap_pop(heap *h)
{
    uint64_t top = h->v[0], key = h->v[--h->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->v[child + 1] < h->v[child])
            child++;
        if (h->v[child] >= key)
            break;
        h->v[i] = h->v[child];
        i = child;
    }
    h->v[i] = key;
    return top;
}

static pl_status reserve_long(pl_bpe_work *work, size_t n, pl_error *err)
{
    if (n <= work->long_room)
        return PL_OK;
    /* each merge takes one place away and enters at most two pairs: 3 n entries in all */
    if (n > SIZE_MAX / (3 * sizeof *work->heap))
        return pl_fail_memory(err, SIZE_MAX, "a long word");
    free(work->links);
    free(work->heap);
    work->long_room = 0;
    work->links = malloc(3 * n * sizeof *work->links);
    work->heap = malloc(3 * n * sizeof *work->heap);
    if (!work->links || !work->heap)
        return pl_fail_memory(err, 3 * n * sizeof *work->heap, "a long word");
    work->long_room = n;
    return PL_OK;
}

static pl_status merge_long(const pl_token_tables *t, pl_bpe_work *work, size_t n, size_t *left, pl_error *err)
{
    PL_TRY(reserve_long(work, n, err));
    uint32_t *id = work->id, *prev = work->links, *next = prev + n, *rank = next + n;
    heap h = {.v = work->heap};
    for (size_t i = 0; i < n; i++) {
        prev[i] = i ? (uint32_t)i - 1 : END;
        next[i] = i + 1 < n ? (uint32_t)i + 1 : END;
        rank[i] = i + 1 < n ? pl_pair_rank(t, id[i], id[i + 1]) : PL_NO_RANK;
        if (rank[i] != PL_NO_RANK)
            heap_push(&h, (uint64_t)rank[i] << 32 | i);
    }
    while (h.n) {
        uint64_t top = heap_pop(&h);
        uint32_t at = (uint32_t)top;
        if (rank[at] != (uint32_t)(top >> 32))
            continue; /* one of the two has been merged with another since */
        uint32_t gone = next[at], before = prev[at];
        id[at] = t->result[rank[at]];
        rank[gone] = PL_NO_RANK;
        next[at] = next[gone];
        rank[at] = PL_NO_RANK;
        if (next[at] != END) {
            prev[next[at]] = at;
            rank[at] = pl_pair_rank(t, id[at], id[next[at]]);
            if (rank[at] != PL_NO_RANK)
                heap_push(&h, (uint64_t)rank[at] << 32 | at);
        }
        if (before != END) {
            rank[before] = pl_pair_rank(t, id[before], id[at]);
            if (rank[before] != PL_NO_RANK)
                heap_push(&h, (uint64_t)rank[before] << 32 | before);
        }
    }
    size_t k = 0;
    for (uint32_t i = 0; i != END; i = next[i])
        id[k++] = id[i];
    *left = k;
    return PL_OK;
}

/* ---- words ------------------------------------------------------------------------------------------ */

static pl_status finish_word(const pl_token_tables *t, pl_bpe_work *work, size_t n, pl_ids *out, pl_error *err)
{
    if (n <= SHORT_WORD)
        n = merge_short(t, work->id, n);
    else
        PL_TRY(merge_long(t, work, n, &n, err));
    return append(out, work->id, n, err);
}

/* Room for the pieces of one more character and, at the start, always for a short word. */
static pl_status reserve(pl_bpe_work *work, size_t n, pl_error *err)
{
    if (n + 4 <= work->room)
        return PL_OK;
    size_t room = 2 * n + 4 * SHORT_WORD;
    uint32_t *grown = realloc(work->id, room * sizeof *grown);
    if (!grown)
        return pl_fail_memory(err, room * sizeof *grown, "a word's pieces");
    work->id = grown;
    work->room = room;
    return PL_OK;
}

pl_status pl_bpe_encode(const pl_token_tables *t, const char *text, size_t n, pl_bpe_work *work, pl_ids *out,
                        pl_error *err)
{
    size_t k = 0;     /* pieces of the word so far */
    bool cut = false; /* a U+2581 here would start a word */
    for (size_t at = 0; at < n;) {
        PL_TRY(reserve(work, k, err));
        uint32_t code = 0;
        size_t length = pl_utf8_next(text + at, n - at, &code);
        bool meta = code == ' ' || code == META;
        if (meta && cut) {
            PL_TRY(finish_word(t, work, k, out, err));
            k = 0;
        }
        uint32_t id = length ? pl_char_id(t, meta ? META : code) : PL_NO_ID;
        if (length == 0)
            length = 1;
        if (id != PL_NO_ID)
            work->id[k++] = id;
        else if (meta)
            for (size_t i = 0; i < 3; i++)
                work->id[k++] = t->head->byte_id[(unsigned char)("\xe2\x96\x81"[i])];
        else
            for (size_t i = 0; i < length; i++)
                work->id[k++] = t->head->byte_id[(unsigned char)text[at + i]];
        at += length;
        cut = !meta && !t->head->join_after[(unsigned char)text[at - 1]];
    }
    return finish_word(t, work, k, out, err);
}
