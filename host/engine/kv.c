#include "host/engine/kv.h"

#include <stdlib.h>

/* The pages of one kind of layer. */
typedef struct page_pool {
    float *memory;
    size_t bytes;
    int64_t block;       /* floats of K (or V) of one layer in a page */
    int64_t page_stride; /* floats of a page */
    int32_t *free_pages; /* stack */
    int32_t n_free;
    int32_t *table;     /* [sequences][table_ld]; -1: no page */
    int32_t *ops_table; /* the same in the backend's memory, as of the last upload */
    size_t entries;
    size_t changed_from, changed_to; /* entries that it lacks */
} page_pool;

typedef struct sequence {
    bool open;
    int32_t length;
    int32_t local_from; /* local pages before this position are gone */
} sequence;

struct pl_kv {
    pl_backend *backend;
    page_pool global, local;
    int layer_index[PL_MAX_LAYERS]; /* among the layers of its kind */
    bool layer_local[PL_MAX_LAYERS];
    int n_sequences, context, batch_rows, window;
    int64_t table_ld;
    sequence *sequences;
};

static int layers_of_kind(const pl_config *c, bool local)
{
    int n = 0;
    for (int l = 0; l < c->n_kv_layers; l++)
        n += c->local[l] == local;
    return n;
}

static int32_t pages_for(int64_t tokens)
{
    return (int32_t)((tokens + PL_KV_PAGE - 1) / PL_KV_PAGE);
}

/* Pages of local layers that a sequence can hold: window, slack and batch, and a page cut at each end. */
static int32_t local_pages(const pl_config *c, int context, int batch_rows)
{
    int32_t all = pages_for(context), window = pages_for((int64_t)c->window + PL_KV_SLACK + batch_rows) + 2;
    return window < all ? window : all;
}

static int64_t block_floats(const pl_config *c)
{
    return (int64_t)c->n_kv_heads * PL_KV_PAGE * c->head_dim;
}

static size_t page_bytes(const pl_config *c, bool local)
{
    return (size_t)(block_floats(c) * 2 * layers_of_kind(c, local)) * sizeof(float);
}

size_t pl_kv_sequence_bytes(const pl_config *config, int context, int batch_rows)
{
    return (size_t)pages_for(context) * page_bytes(config, false) +
           (size_t)local_pages(config, context, batch_rows) * page_bytes(config, true);
}

size_t pl_kv_token_bytes(const pl_config *config)
{
    return page_bytes(config, false) / PL_KV_PAGE;
}

static pl_status create_pool(pl_kv *kv, page_pool *pool, const pl_config *config, bool local, int32_t pages,
                             pl_error *err)
{
    pool->block = block_floats(config);
    pool->page_stride = pool->block * 2 * layers_of_kind(config, local);
    pool->bytes = (size_t)pages * page_bytes(config, local);
    size_t entries = (size_t)kv->n_sequences * (size_t)kv->table_ld;
    pool->entries = pool->changed_to = entries;
    pool->free_pages = calloc((size_t)pages, sizeof *pool->free_pages);
    pool->table = calloc(entries, sizeof *pool->table);
    pool->ops_table = kv->backend->memory_take(kv->backend, entries * sizeof *pool->table);
    if (!pool->free_pages || !pool->table || !pool->ops_table)
        return pl_backend_fail_memory(kv->backend, entries * sizeof *pool->table, "page tables", err);
    for (size_t i = 0; i < entries; i++)
        pool->table[i] = -1;
    for (int32_t p = 0; p < pages; p++)
        pool->free_pages[p] = pages - 1 - p;
    pool->n_free = pages;
    if (pool->bytes == 0)
        return PL_OK;
    pool->memory = kv->backend->memory_take(kv->backend, pool->bytes);
    return pool->memory ? PL_OK : pl_backend_fail_memory(kv->backend, pool->bytes, "K/V", err);
}

static pl_status create(pl_kv *kv, const pl_config *config, pl_error *err)
{
    int n[2] = {0, 0};
    for (int l = 0; l < config->n_kv_layers; l++) {
        kv->layer_local[l] = config->local[l];
        kv->layer_index[l] = n[config->local[l]]++;
    }
    kv->sequences = calloc((size_t)kv->n_sequences, sizeof *kv->sequences);
    if (!kv->sequences)
        return pl_fail_memory(err, (size_t)kv->n_sequences * sizeof *kv->sequences, "sequences");
    PL_TRY(create_pool(kv, &kv->global, config, false, kv->n_sequences * pages_for(kv->context), err));
    return create_pool(kv, &kv->local, config, true, kv->n_sequences * local_pages(config, kv->context, kv->batch_rows),
                       err);
}

pl_status pl_kv_create(const pl_config *config, pl_backend *backend, int sequences, int context, int batch_rows,
                       pl_kv **out, pl_error *err)
{
    pl_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return pl_fail_memory(err, sizeof *kv, "K/V");
    kv->backend = backend;
    kv->n_sequences = sequences;
    kv->context = context;
    kv->batch_rows = batch_rows;
    kv->window = config->window;
    kv->table_ld = pages_for(context);
    pl_status status = create(kv, config, err);
    if (status != PL_OK) {
        pl_kv_free(kv);
        return status;
    }
    *out = kv;
    return PL_OK;
}

static void free_pool(pl_kv *kv, page_pool *pool)
{
    kv->backend->memory_give(kv->backend, pool->memory, pool->bytes);
    kv->backend->memory_give(kv->backend, pool->ops_table, pool->entries * sizeof *pool->ops_table);
    free(pool->free_pages);
    free(pool->table);
}

void pl_kv_free(pl_kv *kv)
{
    if (!kv)
        return;
    free_pool(kv, &kv->global);
    free_pool(kv, &kv->local);
    free(kv->sequences);
    free(kv);
}

pl_status pl_kv_open(pl_kv *kv, int32_t *sequence_out, pl_error *err)
{
    for (int32_t i = 0; i < kv->n_sequences; i++)
        if (!kv->sequences[i].open) {
            kv->sequences[i] = (sequence){.open = true};
            *sequence_out = i;
            return PL_OK;
        }
    return pl_fail(err, PL_ERR_UNSUPPORTED, "this engine holds at most %d sessions at once", kv->n_sequences);
}

static void set_page(page_pool *pool, size_t entry, int32_t page)
{
    pool->table[entry] = page;
    if (pool->changed_from == pool->changed_to)
        pool->changed_from = pool->changed_to = entry;
    if (entry < pool->changed_from)
        pool->changed_from = entry;
    if (entry >= pool->changed_to)
        pool->changed_to = entry + 1;
}

/* Gives back the pages [from, to) of the table. */
static void release_pages(const pl_kv *kv, page_pool *pool, int32_t sequence_id, int32_t from, int32_t to)
{
    size_t row = (size_t)sequence_id * (size_t)kv->table_ld;
    for (size_t p = row + (size_t)from; p < row + (size_t)to; p++)
        if (pool->table[p] >= 0) {
            pool->free_pages[pool->n_free++] = pool->table[p];
            set_page(pool, p, -1);
        }
}

void pl_kv_close(pl_kv *kv, int32_t sequence_id)
{
    pl_kv_truncate(kv, sequence_id, 0);
    kv->sequences[sequence_id].open = false;
}

int32_t pl_kv_length(const pl_kv *kv, int32_t sequence_id)
{
    return kv->sequences[sequence_id].length;
}

/* Takes pages so that positions [from, to) have one each. */
static void take_pages(const pl_kv *kv, page_pool *pool, int32_t sequence_id, int32_t from, int32_t to)
{
    size_t row = (size_t)sequence_id * (size_t)kv->table_ld;
    for (size_t p = row + (size_t)(from / PL_KV_PAGE); p < row + (size_t)pages_for(to); p++)
        if (pool->table[p] < 0)
            set_page(pool, p, pool->free_pages[--pool->n_free]);
}

pl_status pl_kv_extend(pl_kv *kv, int32_t sequence_id, int32_t n, pl_error *err)
{
    sequence *s = &kv->sequences[sequence_id];
    if (n > kv->context - s->length)
        return pl_fail(err, PL_ERR_CONTEXT, "%lld tokens do not fit the context of %d", (long long)s->length + n,
                       kv->context);
    int32_t keep_from = s->length + 1 - kv->window - PL_KV_SLACK;
    if (keep_from > s->local_from) {
        release_pages(kv, &kv->local, sequence_id, s->local_from / PL_KV_PAGE, keep_from / PL_KV_PAGE);
        s->local_from = keep_from / PL_KV_PAGE * PL_KV_PAGE;
    }
    take_pages(kv, &kv->global, sequence_id, s->length, s->length + n);
    take_pages(kv, &kv->local, sequence_id, s->length, s->length + n);
    s->length += n;
    return PL_OK;
}

int32_t pl_kv_truncate(pl_kv *kv, int32_t sequence_id, int32_t n)
{
    sequence *s = &kv->sequences[sequence_id];
    if (n >= s->length)
        return s->length;
    if (s->local_from > 0 && n + 1 - kv->window < s->local_from)
        n = 0;
    release_pages(kv, &kv->global, sequence_id, pages_for(n), pages_for(s->length));
    release_pages(kv, &kv->local, sequence_id, pages_for(n), pages_for(s->length));
    s->length = n;
    if (n == 0)
        s->local_from = 0;
    return n;
}

static void upload_pool(pl_backend *backend, page_pool *pool)
{
    size_t n = pool->changed_to - pool->changed_from;
    if (n > 0)
        backend->upload(backend->stream, pool->ops_table + pool->changed_from, pool->table + pool->changed_from,
                        n * sizeof *pool->table);
    pool->changed_from = pool->changed_to = 0;
}

void pl_kv_upload(pl_kv *kv)
{
    upload_pool(kv->backend, &kv->global);
    upload_pool(kv->backend, &kv->local);
}

pl_kv_layer pl_kv_view(const pl_kv *kv, int layer)
{
    const page_pool *pool = kv->layer_local[layer] ? &kv->local : &kv->global;
    float *k = pool->memory + kv->layer_index[layer] * 2 * pool->block;
    return (pl_kv_layer){k, k + pool->block, pool->page_stride, pool->ops_table, kv->table_ld};
}
