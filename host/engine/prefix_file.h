/* Kept prefixes on disk, numbers as the processor has them:
 *
 *     pl_prefix_file_head
 *     n_classes x n_kv_layers FFN widths, int32
 *     n_nodes x pl_prefix_file_node, those used last first and no child before its parent
 *     for each node its global page and, where it has one, its local page, each with its checksum (uint64) behind it; a page
 *     without bytes has none
 *
 * Checksums are pl_fingerprint(0, ...). */
#ifndef PL_ENGINE_PREFIX_FILE_H
#define PL_ENGINE_PREFIX_FILE_H

#include "host/engine/prefix.h"

#define PL_PREFIX_FILE_MAGIC "PLPREFIX"
#define PL_PREFIX_FILE_VERSION 1

typedef struct pl_prefix_file_head {
    char magic[8];
    uint32_t version;
    uint16_t page_tokens;
    uint16_t cache_type; /* pl_cache_type */
    uint64_t model;
    uint64_t page_bytes[PL_KV_KINDS];
    uint32_t window, n_kv_layers;
    uint32_t n_classes, n_nodes;
    uint64_t table_sum; /* of classes and nodes */
    uint64_t head_sum;  /* of what stands before it */
} pl_prefix_file_head;

typedef struct pl_prefix_file_node {
    int32_t parent; /* an earlier node; -1 - c: the root of class c */
    int32_t n;      /* tokens, 1 to PL_KV_PAGE, all of them where it is a parent */
    uint8_t local;  /* 1: it has a local page */
    uint8_t wanted;
    uint8_t zero[6];
    int32_t ids[PL_KV_PAGE];
} pl_prefix_file_node;

/* pl_prefixes_load() from memory; `where` stands for the file in messages. */
pl_status pl_prefixes_parse(pl_prefixes *prefixes, uint64_t model, const void *data, size_t n, const char *where,
                            pl_error *err);

#endif
