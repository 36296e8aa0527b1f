/* The inside of pl_prefixes: nodes, how they are found, and the order in which they are given up.
 *
 * A node has the number of its global page, so there is room for all that can ever be and nothing is allocated after
 * creation. Whole nodes are found by hash; begun ones, and those that agree in part, among their parent's children. */
#ifndef PL_ENGINE_PREFIX_TREE_H
#define PL_ENGINE_PREFIX_TREE_H

#include "host/engine/prefix.h"

#define PL_PREFIX_CLASSES 16   /* kinds of K/V at once */
#define PL_PREFIX_LOOKED_AT 64 /* children, the last used ones, where one that agrees in part is looked for */

#define PL_PREFIX_NONE INT32_MIN

/* Where nodes hang: a node's number, or the root of class c. */
#define PL_PREFIX_ROOT(c) (-1 - (c))

typedef struct pl_prefix_node {
    int32_t ids[PL_KV_PAGE];
    int32_t n; /* tokens; 0: there is no such node */
    int32_t class, parent;
    int32_t child, next, before; /* children, the last used first; PL_PREFIX_NONE: none */
    int32_t chain;               /* the next one of the same bucket */
    int32_t local;               /* page; -1: given up */
    bool wanted;                 /* its local page goes after those that are not */
    int32_t place[PL_KV_KINDS];  /* in the queue, counted from 1; 0: not there */
    uint64_t used[PL_KV_KINDS];  /* when the last sequence left the page, or it was kept */
} pl_prefix_node;

typedef struct pl_prefix_class {
    int32_t child;
    int32_t n_nodes; /* 0: this class is free */
    int ffn[PL_MAX_LAYERS];
} pl_prefix_class;

/* A heap of nodes whose page of this kind could be given up now, the first to go on top. Of the global ones only nodes
 * without children. */
typedef struct pl_prefix_queue {
    int32_t *heap;
    int32_t n;
} pl_prefix_queue;

/* How far a sequence is known to share the tree's pages; true while pl_kv_marked() says the same number. */
typedef struct pl_prefix_progress {
    int32_t class, node, pages;
} pl_prefix_progress;

struct pl_prefixes {
    pl_kv *kv;
    pl_page_pool *pool[PL_KV_KINDS];
    int n_kv_layers, window;
    int32_t vocab;
    pl_prefix_node *nodes; /* [global pages] */
    int32_t *owner;        /* [local pages]: the node of a kept one */
    int32_t *buckets;      /* of whole nodes: number + 1; 0: empty */
    uint64_t bucket_mask;
    pl_prefix_queue queue[PL_KV_KINDS];
    pl_prefix_class classes[PL_PREFIX_CLASSES];
    pl_prefix_progress *progress; /* [sequences] */
    uint64_t clock;
};

/* PL_PREFIX_NONE: nothing is kept for such paths. The second makes a class, unless there are too many. */
int32_t pl_prefix_find_class(const pl_prefixes *p, const int *ffn);
int32_t pl_prefix_make_class(pl_prefixes *p, const int *ffn);

/* The child that is these PL_KV_PAGE tokens. */
int32_t pl_prefix_find(const pl_prefixes *p, int32_t parent, const int32_t *ids);

/* The child that agrees longest with the first of ids[0..n), in *agree tokens, if possible one with a local page;
 * PL_PREFIX_NONE: none in any. */
int32_t pl_prefix_nearest(const pl_prefixes *p, int32_t parent, const int32_t *ids, int32_t n, int32_t *agree);

/* Keeps `page`, which a sequence holds, as a node of these 1 to PL_KV_PAGE tokens. */
void pl_prefix_insert(pl_prefixes *p, int32_t parent, const int32_t *ids, int32_t n, int32_t page);

/* Keeps a local page, which a sequence holds, with a node that has none. */
void pl_prefix_insert_local(pl_prefixes *p, int32_t node, int32_t page);

/* Forgets a node that has no children; a node's local page. */
void pl_prefix_remove(pl_prefixes *p, int32_t node);
void pl_prefix_remove_local(pl_prefixes *p, int32_t node);

/* Makes a sequence hold the node's page of this kind, there must be one, as its index-th. */
void pl_prefix_share(pl_prefixes *p, int32_t node, pl_kv_kind kind, int32_t sequence, int32_t index);

/* The window that the token behind the first n sees is worth keeping; `node` holds the last of them. */
void pl_prefix_want_window(pl_prefixes *p, int32_t node, int32_t n);

/* The first page of the window that the token behind the first n >= 1 sees. */
int32_t pl_prefix_window_page(const pl_prefixes *p, int32_t n);

/* What the K/V memory asks of the tree. */
pl_kv_keeper pl_prefix_keeper(pl_prefixes *p);

#endif
