#include "host/engine/prefix_file.h"

#include "host/base/mapfile.h"
#include "host/base/outfile.h"
#include "host/engine/prefix_tree.h"
#include "host/model/fingerprint.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static pl_prefix_file_head expected_head(const pl_prefixes *p, uint64_t model)
{
    pl_prefix_file_head head = {.version = PL_PREFIX_FILE_VERSION,
                                .page_tokens = PL_KV_PAGE,
                                .cache_type = (uint16_t)pl_kv_type(p->kv),
                                .model = model,
                                .page_bytes = {p->pool[PL_KV_GLOBAL]->page_bytes, p->pool[PL_KV_LOCAL]->page_bytes},
                                .window = (uint32_t)p->window,
                                .n_kv_layers = (uint32_t)p->n_kv_layers};
    memcpy(head.magic, PL_PREFIX_FILE_MAGIC, sizeof head.magic);
    return head;
}

static uint64_t head_sum(const pl_prefix_file_head *head)
{
    return pl_fingerprint(0, head, offsetof(pl_prefix_file_head, head_sum));
}

/* ---- writing ---- */

typedef struct ranked {
    uint64_t used; /* last, it or what hangs on it */
    int32_t node, depth;
} ranked;

static int by_use(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->used != y->used)
        return x->used < y->used ? 1 : -1;
    return (x->depth > y->depth) - (x->depth < y->depth);
}

/* Whether it and what it hangs on are of the vocabulary's tokens. */
static bool is_text(const pl_prefixes *p, int32_t node)
{
    for (; node >= 0; node = p->nodes[node].parent)
        for (int32_t i = 0; i < p->nodes[node].n; i++)
            if (p->nodes[node].ids[i] >= p->vocab)
                return false;
    return true;
}

/* All nodes that are written, in the order of the file; at[node] becomes a node's place in it. */
static uint32_t rank_nodes(const pl_prefixes *p, ranked *order, int32_t *at)
{
    int32_t pages = p->pool[PL_KV_GLOBAL]->n_pages;
    uint32_t n = 0;
    for (int32_t i = 0; i < pages; i++)
        order[i].used = 0;
    for (int32_t i = 0; i < pages; i++) {
        uint64_t used = p->nodes[i].used[PL_KV_GLOBAL];
        for (int32_t up = p->nodes[i].n > 0 ? i : -1; up >= 0 && order[up].used < used; up = p->nodes[up].parent)
            order[up].used = used;
    }
    for (int32_t i = 0; i < pages; i++) {
        if (p->nodes[i].n == 0 || !is_text(p, i))
            continue;
        order[n] = (ranked){.used = order[i].used, .node = i};
        for (int32_t up = p->nodes[i].parent; up >= 0; up = p->nodes[up].parent)
            order[n].depth++;
        n++;
    }
    qsort(order, n, sizeof *order, by_use);
    for (uint32_t i = 0; i < n; i++)
        at[order[i].node] = (int32_t)i;
    return n;
}

/* Classes and nodes as they are in the file. */
typedef struct tables {
    int32_t *classes;
    pl_prefix_file_node *nodes;
    size_t class_bytes, node_bytes;
} tables;

static void fill_node(const pl_prefixes *p, const ranked *from, const int32_t *at, pl_prefix_file_node *to)
{
    const pl_prefix_node *node = &p->nodes[from->node];
    *to = (pl_prefix_file_node){.parent = node->parent >= 0 ? at[node->parent] : node->parent,
                                .n = node->n,
                                .local = node->local >= 0,
                                .wanted = node->wanted};
    memcpy(to->ids, node->ids, (size_t)node->n * sizeof *to->ids);
}

static pl_status make_tables(const pl_prefixes *p, const ranked *order, uint32_t n, const int32_t *at, tables *out,
                             pl_error *err)
{
    size_t layers = (size_t)p->n_kv_layers;
    out->class_bytes = PL_PREFIX_CLASSES * layers * sizeof *out->classes;
    out->node_bytes = n * sizeof *out->nodes;
    out->classes = calloc(1, out->class_bytes);
    out->nodes = calloc(n + 1, sizeof *out->nodes);
    if (!out->classes || !out->nodes)
        return pl_fail_memory(err, out->node_bytes, "kept prefixes");
    for (size_t c = 0; c < PL_PREFIX_CLASSES; c++)
        memcpy(out->classes + c * layers, p->classes[c].ffn, layers * sizeof *out->classes);
    for (uint32_t i = 0; i < n; i++)
        fill_node(p, &order[i], at, &out->nodes[i]);
    return PL_OK;
}

/* work: room for a page. */
static pl_status write_page(pl_outfile *out, const pl_page_pool *pool, int32_t page, void *work, pl_error *err)
{
    if (pool->page_bytes == 0)
        return PL_OK;
    PL_TRY(pl_page_read(pool, page, work, err));
    uint64_t sum = pl_fingerprint(0, work, pool->page_bytes);
    PL_TRY(pl_outfile_write(out, work, pool->page_bytes, err));
    return pl_outfile_write(out, &sum, sizeof sum, err);
}

static pl_status write_pages(const pl_prefixes *p, const ranked *order, uint32_t n, pl_outfile *out, pl_error *err)
{
    size_t global = p->pool[PL_KV_GLOBAL]->page_bytes, local = p->pool[PL_KV_LOCAL]->page_bytes;
    pl_status status = PL_OK;
    void *work = malloc((global > local ? global : local) + 1);
    if (!work)
        return pl_fail_memory(err, global, "a page of K/V");
    for (uint32_t i = 0; i < n && status == PL_OK; i++) {
        const pl_prefix_node *node = &p->nodes[order[i].node];
        status = write_page(out, p->pool[PL_KV_GLOBAL], order[i].node, work, err);
        if (status == PL_OK && node->local >= 0)
            status = write_page(out, p->pool[PL_KV_LOCAL], node->local, work, err);
    }
    free(work);
    return status;
}

static pl_status write_all(const pl_prefixes *p, uint64_t model, const ranked *order, uint32_t n, const tables *t,
                           pl_outfile *out, pl_error *err)
{
    pl_prefix_file_head head = expected_head(p, model);
    head.n_classes = PL_PREFIX_CLASSES;
    head.n_nodes = n;
    head.table_sum = pl_fingerprint(pl_fingerprint(0, t->classes, t->class_bytes), t->nodes, t->node_bytes);
    head.head_sum = head_sum(&head);
    PL_TRY(pl_outfile_write(out, &head, sizeof head, err));
    PL_TRY(pl_outfile_write(out, t->classes, t->class_bytes, err));
    PL_TRY(pl_outfile_write(out, t->nodes, t->node_bytes, err));
    return write_pages(p, order, n, out, err);
}

pl_status pl_prefixes_save(const pl_prefixes *p, uint64_t model, const char *path, pl_error *err)
{
    size_t pages = (size_t)p->pool[PL_KV_GLOBAL]->n_pages;
    pl_status status = PL_OK;
    pl_outfile out = {0};
    tables t = {0};
    ranked *order = calloc(pages, sizeof *order);
    int32_t *at = calloc(pages, sizeof *at);
    if (!order || !at) {
        status = pl_fail_memory(err, pages * sizeof *order, "kept prefixes");
        goto fail;
    }
    uint32_t n = rank_nodes(p, order, at);
    PL_TRY_GOTO(make_tables(p, order, n, at, &t, err));
    PL_TRY_GOTO(pl_outfile_open(path, &out, err));
    PL_TRY_GOTO(write_all(p, model, order, n, &t, &out, err));
    status = pl_outfile_commit(&out, err);
fail:
    pl_outfile_abort(&out);
    free(t.nodes);
    free(t.classes);
    free(at);
    free(order);
    return status;
}

/* ---- checking ---- */

/* A file in memory, as far as it has been checked. */
typedef struct source {
    const char *where;
    const unsigned char *data;
    size_t size;
    size_t page_bytes[PL_KV_KINDS];
    pl_prefix_file_head head;
    size_t classes, nodes, pages; /* where they begin */
} source;

static pl_status damaged(const source *s, const char *what, pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "%s: %s", s->where, what);
}

static pl_status differs(const source *s, const char *what, uint64_t got, uint64_t expected, pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "%s: %s %llu, expected %llu", s->where, what, (unsigned long long)got,
                   (unsigned long long)expected);
}

static pl_status other_type(const source *s, uint16_t got, pl_cache_type expected, pl_error *err)
{
    const char *name = got <= PL_CACHE_Q8_0 ? pl_cache_type_name((pl_cache_type)got) : "a type that this program lacks";
    return pl_fail(err, PL_ERR_FORMAT, "%s: its keys and values are kept in %s, these in %s (--cache-type)", s->where,
                   name, pl_cache_type_name(expected));
}

static pl_status check_head(source *s, const pl_prefixes *p, uint64_t model, pl_error *err)
{
    const pl_prefix_file_head want = expected_head(p, model), *head = &s->head;
    if (s->size < sizeof s->head || memcmp(s->data, want.magic, sizeof want.magic) != 0)
        return damaged(s, "not a file of kept prefixes", err);
    memcpy(&s->head, s->data, sizeof s->head);
    if (head->version != want.version)
        return differs(s, "version", head->version, want.version, err);
    if (head->head_sum != head_sum(head))
        return damaged(s, "the header is damaged", err);
    if (head->model != want.model)
        return damaged(s, "these are prefixes of another model", err);
    if (head->page_tokens != want.page_tokens)
        return differs(s, "tokens of a page", head->page_tokens, want.page_tokens, err);
    if (head->cache_type != want.cache_type)
        return other_type(s, head->cache_type, (pl_cache_type)want.cache_type, err);
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        if (head->page_bytes[kind] != want.page_bytes[kind])
            return differs(s, "bytes of a page", head->page_bytes[kind], want.page_bytes[kind], err);
    if (head->window != want.window)
        return differs(s, "window", head->window, want.window, err);
    if (head->n_kv_layers != want.n_kv_layers)
        return differs(s, "layers with K/V", head->n_kv_layers, want.n_kv_layers, err);
    return PL_OK;
}

static pl_prefix_file_node node_at(const source *s, uint32_t i)
{
    pl_prefix_file_node node;
    memcpy(&node, s->data + s->nodes + i * sizeof node, sizeof node);
    return node;
}

static pl_status check_node(const source *s, uint32_t i, pl_error *err)
{
    pl_prefix_file_node node = node_at(s, i);
    bool root = node.parent < 0 && -1 - (int64_t)node.parent < (int64_t)s->head.n_classes;
    bool child = node.parent >= 0 && (uint32_t)node.parent < i && node_at(s, (uint32_t)node.parent).n == PL_KV_PAGE;
    if ((root || child) && node.n >= 1 && node.n <= PL_KV_PAGE && node.local <= 1 && node.wanted <= 1)
        return PL_OK;
    return pl_fail(err, PL_ERR_FORMAT, "%s: node %u is damaged", s->where, i);
}

static pl_status check_tables(source *s, pl_error *err)
{
    const pl_prefix_file_head *head = &s->head;
    size_t room = s->size - sizeof *head, class_bytes = (size_t)head->n_kv_layers * sizeof(int32_t);
    if (head->n_classes > PL_PREFIX_CLASSES || head->n_classes * class_bytes > room ||
        head->n_nodes > (room - head->n_classes * class_bytes) / sizeof(pl_prefix_file_node))
        return damaged(s, "the file ends too early", err);
    s->classes = sizeof *head;
    s->nodes = s->classes + head->n_classes * class_bytes;
    s->pages = s->nodes + head->n_nodes * sizeof(pl_prefix_file_node);
    uint64_t sum = pl_fingerprint(0, s->data + s->classes, s->nodes - s->classes);
    if (head->table_sum != pl_fingerprint(sum, s->data + s->nodes, s->pages - s->nodes))
        return damaged(s, "the tables are damaged", err);
    for (uint32_t i = 0; i < head->n_nodes; i++)
        PL_TRY(check_node(s, i, err));
    return PL_OK;
}

/* Steps over a page; PL_ERR_FORMAT where it is not there whole. */
static pl_status check_page(const source *s, pl_kv_kind kind, size_t *at, pl_error *err)
{
    size_t bytes = s->page_bytes[kind];
    uint64_t sum;
    if (bytes == 0)
        return PL_OK;
    if (s->size - *at < sizeof sum || s->size - *at - sizeof sum < bytes)
        return damaged(s, "the file ends too early", err);
    memcpy(&sum, s->data + *at + bytes, sizeof sum);
    if (sum != pl_fingerprint(0, s->data + *at, bytes))
        return pl_fail(err, PL_ERR_FORMAT, "%s: the page at byte %zu is damaged", s->where, *at);
    *at += bytes + sizeof sum;
    return PL_OK;
}

static pl_status check_pages(const source *s, pl_error *err)
{
    size_t at = s->pages;
    for (uint32_t i = 0; i < s->head.n_nodes; i++) {
        PL_TRY(check_page(s, PL_KV_GLOBAL, &at, err));
        if (node_at(s, i).local)
            PL_TRY(check_page(s, PL_KV_LOCAL, &at, err));
    }
    return at == s->size ? PL_OK : damaged(s, "bytes behind its end", err);
}

/* ---- reading ---- */

/* A free page with what stands at *at, which it steps over; -1: none is free. */
static int32_t take_page(const source *s, pl_page_pool *pool, pl_kv_kind kind, size_t *at)
{
    size_t bytes = s->page_bytes[kind], from = *at;
    *at += bytes ? bytes + sizeof(uint64_t) : 0;
    if (pool->n_free == 0)
        return -1;
    int32_t page = pl_page_take(pool);
    pl_page_write(pool, page, s->data + from);
    return page;
}

static bool is_kept(const pl_prefixes *p, int32_t parent, const pl_prefix_file_node *node, int32_t *kept)
{
    int32_t agree;
    *kept = node->n == PL_KV_PAGE ? pl_prefix_find(p, parent, node->ids)
                                  : pl_prefix_nearest(p, parent, node->ids, node->n, &agree);
    return *kept >= 0 && (node->n == PL_KV_PAGE || agree == node->n);
}

/* Where the node belongs; PL_PREFIX_NONE: nowhere, as there was no room for its parent or class. */
static int32_t parent_of(pl_prefixes *p, const source *s, const pl_prefix_file_node *node, const int32_t *node_of)
{
    if (node->parent >= 0)
        return node_of[node->parent];
    int ffn[PL_MAX_LAYERS];
    size_t bytes = (size_t)p->n_kv_layers * sizeof *ffn;
    memcpy(ffn, s->data + s->classes + (size_t)(-1 - node->parent) * bytes, bytes);
    int32_t class = pl_prefix_make_class(p, ffn);
    return class == PL_PREFIX_NONE ? PL_PREFIX_NONE : PL_PREFIX_ROOT(class);
}

/* Takes node i, whose pages begin at *at, and holds what it takes; returns where it is now. */
static int32_t take_node(pl_prefixes *p, const source *s, uint32_t i, const int32_t *node_of, bool *taken, size_t *at)
{
    pl_prefix_file_node node = node_at(s, i);
    size_t local_at = *at + (s->page_bytes[PL_KV_GLOBAL] ? s->page_bytes[PL_KV_GLOBAL] + sizeof(uint64_t) : 0);
    size_t from = *at;
    *at = local_at;
    if (node.local)
        *at += s->page_bytes[PL_KV_LOCAL] ? s->page_bytes[PL_KV_LOCAL] + sizeof(uint64_t) : 0;
    int32_t parent = parent_of(p, s, &node, node_of), kept;
    if (parent == PL_PREFIX_NONE)
        return PL_PREFIX_NONE;
    if (is_kept(p, parent, &node, &kept))
        return kept;
    int32_t page = take_page(s, p->pool[PL_KV_GLOBAL], PL_KV_GLOBAL, &from);
    if (page < 0)
        return PL_PREFIX_NONE;
    *taken = true;
    pl_prefix_insert(p, parent, node.ids, node.n, page);
    p->nodes[page].wanted = node.wanted;
    int32_t local = node.local ? take_page(s, p->pool[PL_KV_LOCAL], PL_KV_LOCAL, &local_at) : -1;
    if (local >= 0)
        pl_prefix_insert_local(p, page, local);
    return page;
}

static void release(pl_prefixes *p, pl_kv_kind kind, int32_t page)
{
    if (pl_page_drop(p->pool[kind], page))
        pl_prefix_keeper(p).left(p, kind, page);
}

/* Held until all are there, then let go of in the order of their use. */
static void take_nodes(pl_prefixes *p, const source *s, int32_t *node_of, bool *taken)
{
    size_t at = s->pages;
    for (uint32_t i = 0; i < s->head.n_nodes; i++)
        node_of[i] = take_node(p, s, i, node_of, &taken[i], &at);
    for (uint32_t i = s->head.n_nodes; i-- > 0;) {
        if (!taken[i])
            continue;
        if (p->nodes[node_of[i]].local >= 0)
            release(p, PL_KV_LOCAL, p->nodes[node_of[i]].local);
        release(p, PL_KV_GLOBAL, node_of[i]);
    }
}

pl_status pl_prefixes_parse(pl_prefixes *p, uint64_t model, const void *data, size_t n, const char *where,
                            pl_error *err)
{
    source s = {.where = where, .data = data, .size = n};
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        s.page_bytes[kind] = p->pool[kind]->page_bytes;
    PL_TRY(check_head(&s, p, model, err));
    PL_TRY(check_tables(&s, err));
    PL_TRY(check_pages(&s, err));
    pl_status status = PL_OK;
    int32_t *node_of = calloc((size_t)s.head.n_nodes + 1, sizeof *node_of);
    bool *taken = calloc((size_t)s.head.n_nodes + 1, sizeof *taken);
    if (node_of && taken)
        take_nodes(p, &s, node_of, taken);
    else
        status = pl_fail_memory(err, s.head.n_nodes * sizeof *node_of, "kept prefixes");
    free(taken);
    free(node_of);
    return status;
}

pl_status pl_prefixes_load(pl_prefixes *p, uint64_t model, const char *path, pl_error *err)
{
    pl_mapfile file;
    PL_TRY(pl_mapfile_open(path, &file, err));
    pl_status status = pl_prefixes_parse(p, model, file.data, file.size, path, err);
    pl_mapfile_close(&file);
    return status;
}
