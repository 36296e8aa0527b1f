#include "host/engine/prefix_tree.h"

#include "host/model/fingerprint.h"

#include <assert.h>
#include <string.h>

/* ---- the order of giving up ---- */

static bool goes_before(const pl_prefixes *p, pl_kv_kind kind, int32_t a, int32_t b)
{
    const pl_prefix_node *x = &p->nodes[a], *y = &p->nodes[b];
    if (kind == PL_KV_LOCAL && x->wanted != y->wanted)
        return y->wanted;
    return x->used[kind] < y->used[kind];
}

static void set_place(pl_prefixes *p, pl_kv_kind kind, int32_t at, int32_t node)
{
    p->queue[kind].heap[at] = node;
    p->nodes[node].place[kind] = at + 1;
}

static void sift(pl_prefixes *p, pl_kv_kind kind, int32_t at)
{
    pl_prefix_queue *q = &p->queue[kind];
    int32_t node = q->heap[at];
    for (; at > 0 && goes_before(p, kind, node, q->heap[(at - 1) / 2]); at = (at - 1) / 2)
        set_place(p, kind, at, q->heap[(at - 1) / 2]);
    for (int32_t down = 2 * at + 1; down < q->n; at = down, down = 2 * at + 1) {
        if (down + 1 < q->n && goes_before(p, kind, q->heap[down + 1], q->heap[down]))
            down++;
        if (!goes_before(p, kind, q->heap[down], node))
            break;
        set_place(p, kind, at, q->heap[down]);
    }
    set_place(p, kind, at, node);
}

static void enqueue(pl_prefixes *p, pl_kv_kind kind, int32_t node)
{
    assert(p->nodes[node].place[kind] == 0);
    pl_prefix_queue *q = &p->queue[kind];
    q->heap[q->n] = node;
    sift(p, kind, q->n++);
}

static void dequeue(pl_prefixes *p, pl_kv_kind kind, int32_t node)
{
    pl_prefix_queue *q = &p->queue[kind];
    int32_t at = p->nodes[node].place[kind] - 1;
    if (at < 0)
        return;
    p->nodes[node].place[kind] = 0;
    int32_t last = q->heap[--q->n];
    if (last == node)
        return;
    q->heap[at] = last;
    sift(p, kind, at);
}

/* ---- classes ---- */

int32_t pl_prefix_find_class(const pl_prefixes *p, const int *ffn)
{
    for (int32_t c = 0; c < PL_PREFIX_CLASSES; c++)
        if (p->classes[c].n_nodes > 0 && memcmp(p->classes[c].ffn, ffn, (size_t)p->n_kv_layers * sizeof *ffn) == 0)
            return c;
    return PL_PREFIX_NONE;
}

int32_t pl_prefix_make_class(pl_prefixes *p, const int *ffn)
{
    int32_t found = pl_prefix_find_class(p, ffn);
    for (int32_t c = 0; found == PL_PREFIX_NONE && c < PL_PREFIX_CLASSES; c++)
        if (p->classes[c].n_nodes == 0) {
            p->classes[c].child = PL_PREFIX_NONE;
            memcpy(p->classes[c].ffn, ffn, (size_t)p->n_kv_layers * sizeof *ffn);
            found = c;
        }
    return found;
}

/* ---- finding ---- */

static int32_t *first_child(pl_prefixes *p, int32_t parent)
{
    return parent >= 0 ? &p->nodes[parent].child : &p->classes[-1 - parent].child;
}

static int32_t *bucket_of(const pl_prefixes *p, int32_t parent, const int32_t *ids)
{
    uint64_t hash = pl_fingerprint((uint64_t)(uint32_t)parent, ids, PL_KV_PAGE * sizeof *ids);
    return &p->buckets[hash & p->bucket_mask];
}

int32_t pl_prefix_find(const pl_prefixes *p, int32_t parent, const int32_t *ids)
{
    for (int32_t i = *bucket_of(p, parent, ids); i > 0; i = p->nodes[i - 1].chain) {
        const pl_prefix_node *node = &p->nodes[i - 1];
        if (node->parent == parent && memcmp(node->ids, ids, sizeof node->ids) == 0)
            return i - 1;
    }
    return PL_PREFIX_NONE;
}

static int32_t agreement(const pl_prefix_node *node, const int32_t *ids, int32_t n)
{
    int32_t same = 0;
    while (same < n && same < node->n && node->ids[same] == ids[same])
        same++;
    return same;
}

int32_t pl_prefix_nearest(const pl_prefixes *p, int32_t parent, const int32_t *ids, int32_t n, int32_t *agree)
{
    int32_t best = PL_PREFIX_NONE, looked_at = 0;
    int32_t child = parent >= 0 ? p->nodes[parent].child : p->classes[-1 - parent].child;
    *agree = 0;
    for (; child >= 0 && looked_at < PL_PREFIX_LOOKED_AT; child = p->nodes[child].next, looked_at++) {
        int32_t same = agreement(&p->nodes[child], ids, n);
        bool with_local = best >= 0 && p->nodes[best].local < 0 && p->nodes[child].local >= 0;
        if (same > *agree || (same == *agree && with_local)) {
            *agree = same;
            best = child;
        }
    }
    return best;
}

/* ---- coming and going ---- */

static void link_child(pl_prefixes *p, int32_t node)
{
    int32_t *first = first_child(p, p->nodes[node].parent);
    p->nodes[node].before = PL_PREFIX_NONE;
    p->nodes[node].next = *first;
    if (*first >= 0)
        p->nodes[*first].before = node;
    *first = node;
}

static void unlink_child(pl_prefixes *p, int32_t node)
{
    const pl_prefix_node *x = &p->nodes[node];
    if (x->before >= 0)
        p->nodes[x->before].next = x->next;
    else
        *first_child(p, x->parent) = x->next;
    if (x->next >= 0)
        p->nodes[x->next].before = x->before;
}

void pl_prefix_insert(pl_prefixes *p, int32_t parent, const int32_t *ids, int32_t n, int32_t page)
{
    pl_prefix_node *node = &p->nodes[page];
    assert(node->n == 0 && n > 0 && n <= PL_KV_PAGE);
    int32_t class = parent >= 0 ? p->nodes[parent].class : -1 - parent;
    *node = (pl_prefix_node){.n = n, .class = class, .parent = parent, .child = PL_PREFIX_NONE, .local = -1};
    memcpy(node->ids, ids, (size_t)n * sizeof *ids);
    link_child(p, page);
    if (n == PL_KV_PAGE) {
        int32_t *bucket = bucket_of(p, parent, ids);
        node->chain = *bucket;
        *bucket = page + 1;
    }
    if (parent >= 0)
        dequeue(p, PL_KV_GLOBAL, parent);
    p->classes[class].n_nodes++;
    node->used[PL_KV_GLOBAL] = ++p->clock;
    pl_page_keep(p->pool[PL_KV_GLOBAL], page);
}

void pl_prefix_insert_local(pl_prefixes *p, int32_t node, int32_t page)
{
    assert(p->nodes[node].local < 0);
    p->nodes[node].local = page;
    p->nodes[node].used[PL_KV_LOCAL] = ++p->clock;
    p->owner[page] = node;
    pl_page_keep(p->pool[PL_KV_LOCAL], page);
}

void pl_prefix_remove_local(pl_prefixes *p, int32_t node)
{
    int32_t page = p->nodes[node].local;
    dequeue(p, PL_KV_LOCAL, node);
    p->nodes[node].local = -1;
    pl_page_forget(p->pool[PL_KV_LOCAL], page);
}

static void leave_bucket(pl_prefixes *p, int32_t node)
{
    int32_t *at = bucket_of(p, p->nodes[node].parent, p->nodes[node].ids);
    while (*at != node + 1)
        at = &p->nodes[*at - 1].chain;
    *at = p->nodes[node].chain;
}

void pl_prefix_remove(pl_prefixes *p, int32_t node)
{
    pl_prefix_node *x = &p->nodes[node];
    int32_t parent = x->parent;
    assert(x->child < 0);
    if (x->local >= 0)
        pl_prefix_remove_local(p, node);
    if (x->n == PL_KV_PAGE)
        leave_bucket(p, node);
    p->classes[x->class].n_nodes--;
    dequeue(p, PL_KV_GLOBAL, node);
    unlink_child(p, node);
    x->n = 0;
    pl_page_forget(p->pool[PL_KV_GLOBAL], node);
    if (parent >= 0 && p->nodes[parent].child < 0 && p->pool[PL_KV_GLOBAL]->holders[parent] == 0)
        enqueue(p, PL_KV_GLOBAL, parent);
}

/* ---- use ---- */

void pl_prefix_share(pl_prefixes *p, int32_t node, pl_kv_kind kind, int32_t sequence, int32_t index)
{
    dequeue(p, kind, node);
    pl_kv_put(p->kv, sequence, kind, index, kind == PL_KV_GLOBAL ? node : p->nodes[node].local);
    if (kind == PL_KV_GLOBAL) {
        unlink_child(p, node);
        link_child(p, node);
    }
}

int32_t pl_prefix_window_page(const pl_prefixes *p, int32_t n)
{
    int32_t from = p->window > 1 ? n + 1 - p->window : n - 1;
    return from > 0 ? from / PL_KV_PAGE : 0;
}

void pl_prefix_want_window(pl_prefixes *p, int32_t node, int32_t n)
{
    int32_t from = pl_prefix_window_page(p, n);
    for (int32_t i = (n - 1) / PL_KV_PAGE; i >= from && node >= 0; i--, node = p->nodes[node].parent) {
        p->nodes[node].wanted = true;
        if (p->nodes[node].place[PL_KV_LOCAL])
            sift(p, PL_KV_LOCAL, p->nodes[node].place[PL_KV_LOCAL] - 1);
    }
}

/* ---- what kv asks of us ---- */

static int32_t node_of(const pl_prefixes *p, pl_kv_kind kind, int32_t page)
{
    return kind == PL_KV_GLOBAL ? page : p->owner[page];
}

static void left(void *user, pl_kv_kind kind, int32_t page)
{
    pl_prefixes *p = user;
    int32_t node = node_of(p, kind, page);
    p->nodes[node].used[kind] = ++p->clock;
    if (kind == PL_KV_LOCAL || p->nodes[node].child < 0)
        enqueue(p, kind, node);
}

static void let_go(void *user, pl_kv_kind kind, int32_t page)
{
    pl_prefixes *p = user;
    if (kind == PL_KV_GLOBAL)
        pl_prefix_remove(p, page);
    else
        pl_prefix_remove_local(p, p->owner[page]);
}

static void give_up(void *user, pl_kv_kind kind)
{
    pl_prefixes *p = user;
    assert(p->queue[kind].n > 0);
    int32_t node = p->queue[kind].heap[0];
    let_go(p, kind, kind == PL_KV_GLOBAL ? node : p->nodes[node].local);
}

pl_kv_keeper pl_prefix_keeper(pl_prefixes *p)
{
    return (pl_kv_keeper){.user = p, .left = left, .give_up = give_up, .let_go = let_go};
}
