/* Files of kept prefixes, with checksums made right where there is room for them, so that what they guard is reached:
 * read into a tree, which then serves prompts, gives up pages and is written again. */
#include "host/base/cpu.h"
#include "host/engine/prefix_file.h"
#include "host/engine/prefix_tree.h"
#include "host/model/fingerprint.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend_page(uint8_t *data, size_t size, size_t bytes, size_t *at)
{
    uint64_t sum;
    if (bytes == 0 || size - *at < sizeof sum || size - *at - sizeof sum < bytes)
        return;
    sum = pl_fingerprint(0, data + *at, bytes);
    memcpy(data + *at + bytes, &sum, sizeof sum);
    *at += bytes + sizeof sum;
}

static void mend(uint8_t *data, size_t size, const pl_prefixes *p)
{
    pl_prefix_file_head head;
    if (size < sizeof head)
        return;
    memcpy(&head, data, sizeof head);
    size_t classes = (size_t)head.n_classes * (size_t)p->n_kv_layers * sizeof(int32_t), at = sizeof head;
    size_t nodes = (size_t)head.n_nodes * sizeof(pl_prefix_file_node);
    if (classes <= size - at && nodes <= size - at - classes) {
        uint64_t sum = pl_fingerprint(0, data + at, classes);
        head.table_sum = pl_fingerprint(sum, data + at + classes, nodes);
        at += classes + nodes;
        for (uint32_t i = 0; i < head.n_nodes; i++) {
            pl_prefix_file_node node;
            memcpy(&node, data + sizeof head + classes + i * sizeof node, sizeof node);
            mend_page(data, size, p->pool[PL_KV_GLOBAL]->page_bytes, &at);
            if (node.local)
                mend_page(data, size, p->pool[PL_KV_LOCAL]->page_bytes, &at);
        }
    }
    head.head_sum = pl_fingerprint(0, &head, offsetof(pl_prefix_file_head, head_sum));
    memcpy(data, &head, sizeof head);
}

/* Takes over what is there for these ids, needs more than is free, and keeps the result. */
static void use(pl_prefixes *p, pl_kv *kv, const int *ffn, const int32_t *ids)
{
    pl_path path = {.n_layers = p->n_kv_layers};
    int32_t id, text[CONTEXT] = {0};
    memcpy(path.ffn, ffn, (size_t)p->n_kv_layers * sizeof *ffn);
    memcpy(text, ids, PL_KV_PAGE * sizeof *ids);
    if (pl_kv_open(kv, &id, NULL) != PL_OK)
        __builtin_trap();
    int32_t match = pl_prefixes_match(p, &path, text, CONTEXT);
    if (pl_prefixes_adopt(p, id, &path, text, CONTEXT) != match)
        __builtin_trap();
    while (pl_kv_length(kv, id) < CONTEXT)
        if (pl_kv_extend(kv, id, 1, NULL) != PL_OK)
            __builtin_trap();
    pl_prefixes_keep(p, id, &path, text, true);
    pl_kv_close(kv, id);
}

static void check(pl_prefixes *p, pl_kv *kv, uint8_t *data, size_t size)
{
    pl_error err;
    int32_t all = p->pool[PL_KV_GLOBAL]->n_pages;
    mend(data, size, p);
    if (pl_prefixes_parse(p, 0, data, size, "fuzz", &err) != PL_OK) {
        if (p->pool[PL_KV_GLOBAL]->n_free != all)
            __builtin_trap();
        return;
    }
    for (int32_t i = 0; i < all; i++)
        if (p->nodes[i].n > 0)
            use(p, kv, p->classes[p->nodes[i].class].ffn, p->nodes[i].ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_config config = {
        .n_layers = 2, .n_kv_layers = 2, .n_heads = 1, .n_kv_heads = 1, .head_dim = 1, .window = 80, .local = {true}};
    pl_backend_shape shape = {.max_rows = 1, .max_context = CONTEXT, .vocab = 8, .heads = {1, 1, 1}};
    pl_kv_size kv_size = {.sequences = 2, .context = CONTEXT, .batch_rows = 1};
    pl_backend *backend = NULL;
    pl_kv *kv = NULL;
    pl_prefixes *p = NULL;
    pl_error err;
    uint8_t *copy = malloc(size + 1);
    if (copy && pl_backend_cpu(&shape, 1, NULL, PL_CPU_ALL, &backend, &err) == PL_OK &&
        pl_kv_create(&config, backend, &kv_size, &kv, &err) == PL_OK &&
        pl_prefixes_create(&config, kv, &p, &err) == PL_OK) {
        if (size > 0)
            memcpy(copy, data, size);
        check(p, kv, copy, size);
    }
    pl_prefixes_free(p);
    pl_kv_free(kv);
    pl_backend_free(backend);
    free(copy);
    return 0;
}
