#include "host/engine/prefix_tree.h"

#include <stdlib.h>
#include <string.h>

/* ---- creation ---- */

static pl_status create(pl_prefixes *p, pl_error *err)
{
    size_t globals = (size_t)p->pool[PL_KV_GLOBAL]->n_pages, locals = (size_t)p->pool[PL_KV_LOCAL]->n_pages;
    size_t buckets = 1, sequences = (size_t)pl_kv_sequences(p->kv);
    while (buckets < globals)
        buckets *= 2;
    p->bucket_mask = buckets - 1;
    p->nodes = calloc(globals, sizeof *p->nodes);
    p->owner = calloc(locals, sizeof *p->owner);
    p->buckets = calloc(buckets, sizeof *p->buckets);
    p->progress = calloc(sequences, sizeof *p->progress);
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        p->queue[kind].heap = calloc(globals, sizeof *p->queue[kind].heap);
    if (!p->nodes || !p->owner || !p->buckets || !p->progress || !p->queue[PL_KV_GLOBAL].heap ||
        !p->queue[PL_KV_LOCAL].heap)
        return pl_fail_memory(err, globals * sizeof *p->nodes, "kept prefixes");
    for (size_t i = 0; i < sequences; i++)
        p->progress[i].class = PL_PREFIX_NONE;
    pl_kv_keeper keeper = pl_prefix_keeper(p);
    pl_kv_set_keeper(p->kv, &keeper);
    return PL_OK;
}

pl_status pl_prefixes_create(const pl_config *config, pl_kv *kv, pl_prefixes **out, pl_error *err)
{
    pl_prefixes *p = calloc(1, sizeof *p);
    if (!p)
        return pl_fail_memory(err, sizeof *p, "kept prefixes");
    p->kv = kv;
    p->n_kv_layers = config->n_kv_layers;
    p->window = config->window;
    p->vocab = config->vocab;
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        p->pool[kind] = pl_kv_pool(kv, kind);
    pl_status status = create(p, err);
    if (status != PL_OK) {
        pl_prefixes_free(p);
        return status;
    }
    *out = p;
    return PL_OK;
}

static void forget_all(pl_prefixes *p)
{
    for (int32_t i = 0; i < p->pool[PL_KV_GLOBAL]->n_pages; i++)
        if (p->nodes[i].n > 0) {
            pl_page_forget(p->pool[PL_KV_GLOBAL], i);
            if (p->nodes[i].local >= 0)
                pl_page_forget(p->pool[PL_KV_LOCAL], p->nodes[i].local);
        }
    pl_kv_set_keeper(p->kv, NULL);
}

void pl_prefixes_free(pl_prefixes *p)
{
    if (!p)
        return;
    if (p->nodes)
        forget_all(p);
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        free(p->queue[kind].heap);
    free(p->progress);
    free(p->buckets);
    free(p->owner);
    free(p->nodes);
    free(p);
}

int64_t pl_prefixes_tokens(const pl_prefixes *p)
{
    return pl_kv_count(p->kv).kept;
}

/* Removes a node without children, then its parent where that has none left ... */
static void remove_upwards(pl_prefixes *p, int32_t node)
{
    while (node >= 0 && p->nodes[node].child < 0) {
        int32_t parent = p->nodes[node].parent;
        pl_prefix_remove(p, node);
        node = parent;
    }
}

void pl_prefixes_forget(pl_prefixes *p)
{
    for (int32_t i = 0; i < p->pool[PL_KV_GLOBAL]->n_pages; i++)
        if (p->nodes[i].n > 0)
            remove_upwards(p, i);
    for (int32_t i = 0; i < pl_kv_sequences(p->kv); i++)
        p->progress[i].class = PL_PREFIX_NONE;
}

/* ---- taking over ---- */

/* The first n tokens of a prompt, the last of them in `node`. */
typedef struct prefix {
    int32_t node, n;
} prefix;

/* The longest that agrees with ids[0..n), whether or not its window is there. */
static prefix longest(const pl_prefixes *p, int32_t class, const int32_t *ids, int32_t n)
{
    prefix at = {PL_PREFIX_ROOT(class), 0};
    for (int32_t child; n - at.n >= PL_KV_PAGE; at = (prefix){child, at.n + PL_KV_PAGE}) {
        child = pl_prefix_find(p, at.node, ids + at.n);
        if (child == PL_PREFIX_NONE)
            break;
    }
    int32_t rest = n - at.n < PL_KV_PAGE ? n - at.n : PL_KV_PAGE, agree;
    int32_t child = pl_prefix_nearest(p, at.node, ids + at.n, rest, &agree);
    return agree > 0 ? (prefix){child, at.n + agree} : at;
}

/* The longest beginning of it whose window is there. */
static prefix usable(const pl_prefixes *p, prefix at)
{
    int32_t node = at.node;
    while (at.n > 0) {
        int32_t i = (at.n - 1) / PL_KV_PAGE, from = pl_prefix_window_page(p, at.n);
        for (; i >= from && p->nodes[node].local >= 0; i--)
            node = p->nodes[node].parent;
        if (i < from)
            break;
        node = p->nodes[node].parent;
        at = (prefix){node, i * PL_KV_PAGE};
    }
    return at;
}

static prefix find(const pl_prefixes *p, const pl_path *path, const int32_t *ids, int32_t n)
{
    int32_t class = pl_prefix_find_class(p, path->ffn), most = pl_kv_context(p->kv);
    if (class == PL_PREFIX_NONE || n < 2)
        return (prefix){PL_PREFIX_NONE, 0};
    return usable(p, longest(p, class, ids, n - 1 < most ? n - 1 : most));
}

int32_t pl_prefixes_match(const pl_prefixes *p, const pl_path *path, const int32_t *ids, int32_t n)
{
    return find(p, path, ids, n).n;
}

/* The window's local pages, and those behind it that are there, as far as a sequence holds them; returns from which
 * position on. */
static int32_t share_locals(pl_prefixes *p, int32_t sequence, prefix at)
{
    int32_t slack = at.n + 1 - p->window - PL_KV_SLACK, from = slack > 0 ? slack / PL_KV_PAGE : 0;
    int32_t i = (at.n - 1) / PL_KV_PAGE, node = at.node;
    for (; i >= from && node >= 0 && p->nodes[node].local >= 0; i--, node = p->nodes[node].parent)
        pl_prefix_share(p, node, PL_KV_LOCAL, sequence, i);
    return (i + 1) * PL_KV_PAGE;
}

int32_t pl_prefixes_adopt(pl_prefixes *p, int32_t sequence, const pl_path *path, const int32_t *ids, int32_t n)
{
    prefix at = find(p, path, ids, n);
    if (at.n == 0)
        return 0;
    pl_prefix_want_window(p, at.node, at.n);
    int32_t local_from = share_locals(p, sequence, at);
    int32_t i = (at.n - 1) / PL_KV_PAGE;
    for (int32_t node = at.node; node >= 0; node = p->nodes[node].parent, i--)
        pl_prefix_share(p, node, PL_KV_GLOBAL, sequence, i);
    pl_kv_begin(p->kv, sequence, at.n, local_from);
    const pl_prefix_node *last = &p->nodes[at.node];
    p->progress[sequence] = (pl_prefix_progress){
        .class = last->class, .node = at.n % PL_KV_PAGE ? last->parent : at.node, .pages = at.n / PL_KV_PAGE};
    pl_kv_set_marked(p->kv, sequence, at.n / PL_KV_PAGE);
    return at.n;
}

/* ---- keeping ---- */

/* Where keeping goes on: behind what the sequence has shared since it was last looked at. */
static pl_prefix_progress resume(const pl_prefixes *p, int32_t sequence, int32_t class)
{
    pl_prefix_progress at = p->progress[sequence];
    if (at.class == class && at.pages == pl_kv_marked(p->kv, sequence))
        return at;
    return (pl_prefix_progress){.class = class, .node = PL_PREFIX_ROOT(class)};
}

/* The sequence's page is what the node is already: one of the two is enough. */
static void unite(pl_prefixes *p, int32_t node, int32_t sequence, int32_t index)
{
    pl_prefix_share(p, node, PL_KV_GLOBAL, sequence, index);
    int32_t local = pl_kv_page(p->kv, sequence, PL_KV_LOCAL, index);
    if (local < 0)
        return;
    if (p->nodes[node].local >= 0)
        pl_prefix_share(p, node, PL_KV_LOCAL, sequence, index);
    else if (!p->pool[PL_KV_LOCAL]->kept[local])
        pl_prefix_insert_local(p, node, local);
}

/* Keeps a page that the tree has not, of n tokens behind `parent`; returns its node, or PL_PREFIX_NONE. */
static int32_t keep_new(pl_prefixes *p, int32_t parent, int32_t sequence, int32_t index, const int32_t *ids, int32_t n)
{
    int32_t page = pl_kv_page(p->kv, sequence, PL_KV_GLOBAL, index), agree;
    int32_t local = pl_kv_page(p->kv, sequence, PL_KV_LOCAL, index);
    if (p->pool[PL_KV_GLOBAL]->kept[page])
        return PL_PREFIX_NONE;
    int32_t nearest = pl_prefix_nearest(p, parent, ids, n, &agree);
    bool replaced = nearest >= 0 && agree == p->nodes[nearest].n && p->pool[PL_KV_GLOBAL]->holders[nearest] == 0;
    pl_prefix_insert(p, parent, ids, n, page);
    if (local >= 0 && !p->pool[PL_KV_LOCAL]->kept[local])
        pl_prefix_insert_local(p, page, local);
    if (replaced)
        pl_prefix_remove(p, nearest);
    else if (agree > 0)
        pl_prefix_want_window(p, p->nodes[nearest].local < 0 ? page : nearest, index * PL_KV_PAGE + agree);
    else if (p->nodes[page].next >= 0 && index > 0)
        pl_prefix_want_window(p, parent, index * PL_KV_PAGE);
    return page;
}

/* The begun page: as a node of its own unless one begins like it, with all that it has. */
static int32_t keep_begun(pl_prefixes *p, int32_t parent, int32_t sequence, int32_t index, const int32_t *ids,
                          int32_t n)
{
    int32_t agree, nearest = pl_prefix_nearest(p, parent, ids, n, &agree);
    if (agree == n && p->nodes[nearest].n == n)
        unite(p, nearest, sequence, index);
    else if (agree < n || p->nodes[nearest].local < 0)
        return keep_new(p, parent, sequence, index, ids, n);
    return nearest;
}

static void keep_end(pl_prefixes *p, int32_t sequence, const pl_prefix_progress *at, const int32_t *ids, int32_t n)
{
    int32_t node = at->node, begun = n - at->pages * PL_KV_PAGE;
    if (begun > 0)
        node = keep_begun(p, node, sequence, at->pages, ids + n - begun, begun);
    if (node >= 0)
        pl_prefix_want_window(p, node, n);
}

void pl_prefixes_keep(pl_prefixes *p, int32_t sequence, const pl_path *path, const int32_t *ids, bool all)
{
    int32_t n = pl_kv_length(p->kv, sequence), class = pl_prefix_make_class(p, path->ffn);
    if (class == PL_PREFIX_NONE || n == 0)
        return;
    pl_prefix_progress at = resume(p, sequence, class);
    while (at.pages < n / PL_KV_PAGE) {
        const int32_t *here = ids + at.pages * PL_KV_PAGE;
        int32_t node = pl_prefix_find(p, at.node, here);
        if (node >= 0)
            unite(p, node, sequence, at.pages);
        else if ((node = keep_new(p, at.node, sequence, at.pages, here, PL_KV_PAGE)) < 0)
            break;
        at.node = node;
        at.pages++;
    }
    p->progress[sequence] = at;
    pl_kv_set_marked(p->kv, sequence, at.pages);
    if (all && at.pages == n / PL_KV_PAGE)
        keep_end(p, sequence, &at, ids, n);
}
