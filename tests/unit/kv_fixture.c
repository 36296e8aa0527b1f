#include "tests/unit/kv_fixture.h"

#include "host/base/cpu.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS 4
#define DIM 4

void kv_fixture_open(kv_fixture *f, int64_t tokens, bool with_prefixes)
{
    pl_error err = {0};
    *f = (kv_fixture){.config = {.n_layers = LAYERS + 1,
                                 .vocab = KV_VOCAB,
                                 .n_kv_layers = LAYERS,
                                 .n_heads = 2,
                                 .n_kv_heads = 1,
                                 .head_dim = DIM,
                                 .window = KV_WINDOW,
                                 .local = {true, true, false, true}}};
    pl_backend_shape shape = {.max_rows = 1, .max_context = KV_CONTEXT, .vocab = 8, .heads = {2, 1, DIM}};
    pl_kv_size size = {.sequences = KV_SEQUENCES, .context = KV_CONTEXT, .batch_rows = KV_BATCH, .tokens = tokens};
    cr_assert_eq(pl_backend_cpu(&shape, 1, NULL, PL_CPU_ALL, &f->backend, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_kv_create(&f->config, f->backend, &size, &f->kv, &err), PL_OK, "%s", err.message);
    if (with_prefixes)
        cr_assert_eq(pl_prefixes_create(&f->config, f->kv, &f->prefixes, &err), PL_OK, "%s", err.message);
}

/* Nothing may be left. */
void kv_fixture_close(kv_fixture *f)
{
    pl_prefixes_free(f->prefixes);
    f->prefixes = NULL;
    kv_check_pages(f);
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        cr_assert_eq(pl_kv_pool(f->kv, kind)->n_free, pl_kv_pool(f->kv, kind)->n_pages);
    pl_kv_free(f->kv);
    pl_backend_free(f->backend);
}

pl_path kv_path(const kv_fixture *f, int class)
{
    pl_path path = {.n_layers = f->config.n_layers};
    for (int l = 0; l < f->config.n_kv_layers; l++)
        path.ffn[l] = 64 << (class % 2) << (l == class);
    path.ffn[LAYERS] = (int)(pl_kv_count(f->kv).used % 97); /* has no K/V and makes no difference */
    return path;
}

void kv_open(kv_fixture *f, kv_story *s, int class)
{
    pl_error err = {0};
    s->n = 0;
    s->path = kv_path(f, class);
    cr_assert_eq(pl_kv_open(f->kv, &s->id, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_kv_length(f->kv, s->id), 0);
}

void kv_close(kv_fixture *f, kv_story *s)
{
    pl_kv_close(f->kv, s->id);
    s->id = -1;
}

static uint32_t mix(uint32_t hash, int32_t value)
{
    return (hash ^ (uint32_t)value) * 2654435761u + (hash >> 15);
}

/* The number for the state behind the tokens so far; f32 holds 24 bits. */
static float number(uint32_t hash, int layer)
{
    return (float)(mix(hash, layer + 1000) >> 8);
}

static uint32_t start(const kv_fixture *f, const kv_story *s)
{
    uint32_t hash = 1;
    for (int l = 0; l < f->config.n_kv_layers; l++)
        hash = mix(hash, s->path.ffn[l]);
    return hash;
}

static float *value_at(const kv_fixture *f, const kv_story *s, int layer, int32_t t)
{
    pl_kv_layer view = pl_kv_view(f->kv, 0, layer);
    int32_t page = view.table[s->id * view.table_ld + t / PL_KV_PAGE];
    cr_assert_geq(page, 0, "sequence %d, layer %d, position %d has no page", s->id, layer, t);
    return view.v + page * view.page_stride + (t % PL_KV_PAGE) * DIM + t % DIM;
}

pl_status kv_extend(kv_fixture *f, kv_story *s, int32_t n, pl_error *err)
{
    bool fits = pl_kv_fits(f->kv, s->id, n);
    pl_status status = pl_kv_extend(f->kv, s->id, n, err);
    cr_assert_eq(fits, status == PL_OK, "fits %d, %s", fits, err->message);
    cr_assert_eq(pl_kv_length(f->kv, s->id), s->n + (status == PL_OK ? n : 0));
    if (status != PL_OK)
        return status;
    pl_kv_upload(f->kv);
    uint32_t hash = start(f, s);
    for (int32_t t = 0; t < s->n + n; t++) {
        hash = mix(hash, s->ids[t]);
        for (int l = 0; t >= s->n && l < f->config.n_kv_layers; l++)
            *value_at(f, s, l, t) = number(hash, l);
    }
    s->n += n;
    return PL_OK;
}

int32_t kv_truncate(kv_fixture *f, kv_story *s, int32_t n)
{
    int32_t left = pl_kv_truncate(f->kv, s->id, n);
    cr_assert_eq(left, pl_kv_length(f->kv, s->id));
    cr_assert(left == n || left == 0);
    return s->n = left;
}

void kv_check_story(const kv_fixture *f, const kv_story *s)
{
    uint32_t hash = start(f, s);
    for (int32_t t = 0; t < s->n; t++) {
        hash = mix(hash, s->ids[t]);
        for (int l = 0; l < f->config.n_kv_layers; l++)
            if (!f->config.local[l] || t > s->n - KV_WINDOW)
                cr_assert_eq(*value_at(f, s, l, t), number(hash, l), "sequence %d of %d, layer %d, position %d", s->id,
                             s->n, l, t);
    }
}

void kv_check_pages(const kv_fixture *f)
{
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++) {
        const pl_page_pool *pool = pl_kv_pool(f->kv, kind);
        int32_t *held = calloc((size_t)pool->n_pages, sizeof *held), spare = 0, unused = 0;
        cr_assert_not_null(held);
        for (int32_t i = 0; i < KV_SEQUENCES * KV_CONTEXT / PL_KV_PAGE; i++) {
            int32_t page = pl_kv_page(f->kv, i / (KV_CONTEXT / PL_KV_PAGE), kind, i % (KV_CONTEXT / PL_KV_PAGE));
            if (page >= 0)
                held[page]++;
        }
        for (int32_t i = 0; i < pool->n_free; i++)
            held[pool->free_pages[i]] -= 1000;
        for (int32_t page = 0; page < pool->n_pages; page++) {
            bool is_free = held[page] < 0;
            cr_assert_eq(held[page], is_free ? -1000 : pool->holders[page]);
            cr_assert(!is_free || (pool->holders[page] == 0 && !pool->kept[page]));
            spare += pool->holders[page] == 0 && pool->kept[page];
            unused += pool->holders[page] == 0 && !pool->kept[page];
        }
        cr_assert_eq(spare, pool->n_spare);
        cr_assert_eq(unused, pool->n_free);
        free(held);
    }
}

static void check_queue(const pl_prefixes *p, pl_kv_kind kind)
{
    const pl_prefix_queue *q = &p->queue[kind];
    for (int32_t i = 0; i < q->n; i++) {
        const pl_prefix_node *node = &p->nodes[q->heap[i]], *up = &p->nodes[q->heap[i > 0 ? (i - 1) / 2 : 0]];
        cr_assert_eq(node->place[kind], i + 1);
        cr_assert(kind == PL_KV_LOCAL && up->wanted != node->wanted ? node->wanted
                                                                    : up->used[kind] <= node->used[kind]);
    }
}

void kv_check_tree(const kv_fixture *f)
{
    const pl_prefixes *p = f->prefixes;
    const pl_page_pool *global = p->pool[PL_KV_GLOBAL], *local = p->pool[PL_KV_LOCAL];
    int32_t locals = 0;
    for (int32_t i = 0; i < global->n_pages; i++) {
        const pl_prefix_node *node = &p->nodes[i];
        cr_assert_eq(global->kept[i], node->n > 0);
        if (node->n == 0)
            continue;
        bool spare = global->holders[i] == 0;
        cr_assert_eq(node->place[PL_KV_GLOBAL] > 0, spare && node->child < 0);
        cr_assert(node->parent < 0 || p->nodes[node->parent].n == PL_KV_PAGE);
        cr_assert(spare || node->parent < 0 || global->holders[node->parent] > 0, "held, but not its parent");
        locals += node->local >= 0;
        if (node->local < 0)
            continue;
        cr_assert(local->kept[node->local] && p->owner[node->local] == i);
        cr_assert_eq(node->place[PL_KV_LOCAL] > 0, local->holders[node->local] == 0);
    }
    for (int32_t i = 0; i < local->n_pages; i++)
        locals -= local->kept[i];
    cr_assert_eq(locals, 0);
    check_queue(p, PL_KV_GLOBAL);
    check_queue(p, PL_KV_LOCAL);
}
