#include "host/engine/kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Entries of a sequence's row that the ops' table lacks. */
typedef struct range {
    int32_t from, to;
} range;

/* The pages of one kind of layer, and which of them the sequences hold. */
typedef struct kind_memory {
    pl_page_pool pool;
    int32_t *table; /* [sequences][table_ld]; -1: no page */
    /* The same in memory of each part's backend, as of the last upload; what has no page is not looked at. */
    int32_t *ops_table[PL_COMM_MOST];
    range *changed; /* [sequences] */
} kind_memory;

typedef struct sequence {
    bool open, changed; /* changed: it is in the list */
    int32_t length;
    int32_t local_from; /* local pages before this position are gone */
    int32_t marked;
} sequence;

struct pl_kv {
    pl_kv_part part[PL_COMM_MOST];
    int n_parts;
    kind_memory of[PL_KV_KINDS];
    int layer_index[PL_MAX_LAYERS]; /* among the layers of its kind */
    bool layer_local[PL_MAX_LAYERS];
    pl_kv_size size;
    int window;
    int64_t table_ld;
    sequence *sequences;
    int32_t *changed; /* sequences whose tables have */
    int32_t n_changed;
    pl_kv_keeper keeper;
};

const char *pl_cache_type_name(pl_cache_type type)
{
    static const char *const names[] = {"f32", "f16", "q8_0"};
    return names[type];
}

/* ---- sizes ---- */

static int layers_of_kind(const pl_config *c, pl_kv_kind kind)
{
    int n = 0;
    for (int l = 0; l < c->n_kv_layers; l++)
        n += c->local[l] == (kind == PL_KV_LOCAL);
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

static size_t block_bytes(const pl_config *c, pl_cache_type type)
{
    return (size_t)c->n_kv_heads * pl_kv_head_bytes(type, c->head_dim);
}

static size_t page_bytes(const pl_config *c, pl_kv_kind kind, pl_cache_type type)
{
    return block_bytes(c, type) * 2 * (size_t)layers_of_kind(c, kind);
}

static void count_pages(const pl_config *c, const pl_kv_size *size, int32_t pages[PL_KV_KINDS])
{
    int64_t one = pages_for(size->context), all = size->sequences * one;
    int64_t windows = (int64_t)size->sequences * local_pages(c, size->context, size->batch_rows);
    if (size->tokens > 0) {
        int64_t budget = size->tokens / PL_KV_PAGE + (size->tokens % PL_KV_PAGE > 0);
        budget = budget > one ? budget : one;
        all = budget < all ? budget : all;
        windows += all / 4;
    }
    pages[PL_KV_GLOBAL] = (int32_t)all;
    pages[PL_KV_LOCAL] = (int32_t)(windows < all ? windows : all);
}

size_t pl_kv_bytes(const pl_config *config, const pl_kv_size *size)
{
    int32_t pages[PL_KV_KINDS];
    count_pages(config, size, pages);
    size_t table = (size_t)size->sequences * (size_t)pages_for(size->context) * sizeof(int32_t), bytes = 0;
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        bytes += (size_t)pages[kind] * page_bytes(config, kind, size->type) + table;
    return bytes;
}

size_t pl_kv_sequence_bytes(const pl_config *config, int context, int batch_rows, pl_cache_type type)
{
    return (size_t)pages_for(context) * page_bytes(config, PL_KV_GLOBAL, type) +
           (size_t)local_pages(config, context, batch_rows) * page_bytes(config, PL_KV_LOCAL, type);
}

size_t pl_kv_token_bytes(const pl_config *config, pl_cache_type type)
{
    return page_bytes(config, PL_KV_GLOBAL, type) / PL_KV_PAGE;
}

/* ---- creation ---- */

static pl_status open_pool(pl_kv *kv, const pl_config *config, pl_kv_kind kind, int32_t pages, pl_error *err)
{
    pl_page_part parts[PL_COMM_MOST];
    pl_page_shape shape = {.blocks = 2 * layers_of_kind(config, kind),
                           .heads = config->n_kv_heads,
                           .head_bytes = pl_kv_head_bytes(kv->size.type, config->head_dim)};
    for (int i = 0; i < kv->n_parts; i++)
        parts[i] = (pl_page_part){
            .backend = kv->part[i].backend, .first_head = kv->part[i].first_head, .heads = kv->part[i].heads};
    return pl_page_pool_open(&kv->of[kind].pool, parts, kv->n_parts, pages, shape, err);
}

static size_t table_bytes(const pl_kv *kv)
{
    return (size_t)kv->size.sequences * (size_t)kv->table_ld * sizeof(int32_t);
}

static pl_status create_kind(pl_kv *kv, const pl_config *config, pl_kv_kind kind, int32_t pages, pl_error *err)
{
    kind_memory *m = &kv->of[kind];
    size_t entries = (size_t)kv->size.sequences * (size_t)kv->table_ld;
    PL_TRY(open_pool(kv, config, kind, pages, err));
    m->table = malloc(entries * sizeof *m->table);
    m->changed = calloc((size_t)kv->size.sequences, sizeof *m->changed);
    if (!m->table || !m->changed)
        return pl_fail_memory(err, entries * sizeof *m->table, "page tables");
    for (size_t i = 0; i < entries; i++)
        m->table[i] = -1;
    for (int i = 0; i < kv->n_parts; i++) {
        pl_backend *b = kv->part[i].backend;
        m->ops_table[i] = b->memory_take(b, table_bytes(kv));
        if (!m->ops_table[i])
            return pl_backend_fail_memory(b, table_bytes(kv), "page tables", err);
    }
    return PL_OK;
}

static pl_status create(pl_kv *kv, const pl_config *config, pl_error *err)
{
    int n[2] = {0, 0};
    for (int l = 0; l < config->n_kv_layers; l++) {
        kv->layer_local[l] = config->local[l];
        kv->layer_index[l] = n[config->local[l]]++;
    }
    size_t sequences = (size_t)kv->size.sequences;
    kv->sequences = calloc(sequences, sizeof *kv->sequences);
    kv->changed = calloc(sequences, sizeof *kv->changed);
    if (!kv->sequences || !kv->changed)
        return pl_fail_memory(err, sequences * sizeof *kv->sequences, "sequences");
    int32_t pages[PL_KV_KINDS];
    count_pages(config, &kv->size, pages);
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        PL_TRY(create_kind(kv, config, kind, pages[kind], err));
    return PL_OK;
}

pl_status pl_kv_create(const pl_config *config, pl_backend *backend, const pl_kv_size *size, pl_kv **out, pl_error *err)
{
    pl_kv_part all = {.backend = backend, .heads = config->n_kv_heads};
    return pl_kv_create_parts(config, &all, 1, size, out, err);
}

pl_status pl_kv_create_parts(const pl_config *config, const pl_kv_part *parts, int n_parts, const pl_kv_size *size,
                             pl_kv **out, pl_error *err)
{
    pl_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return pl_fail_memory(err, sizeof *kv, "K/V");
    memcpy(kv->part, parts, (size_t)n_parts * sizeof *parts);
    kv->n_parts = n_parts;
    kv->size = *size;
    kv->window = config->window;
    kv->table_ld = pages_for(size->context);
    pl_status status = create(kv, config, err);
    if (status != PL_OK) {
        pl_kv_free(kv);
        return status;
    }
    *out = kv;
    return PL_OK;
}

void pl_kv_free(pl_kv *kv)
{
    if (!kv)
        return;
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++) {
        kind_memory *m = &kv->of[kind];
        for (int i = 0; i < kv->n_parts; i++)
            kv->part[i].backend->memory_give(kv->part[i].backend, m->ops_table[i], table_bytes(kv));
        pl_page_pool_close(&m->pool);
        free(m->table);
        free(m->changed);
    }
    free(kv->sequences);
    free(kv->changed);
    free(kv);
}

/* ---- page tables ---- */

static int32_t *entry_of(const pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t index)
{
    return &kv->of[kind].table[sequence_id * kv->table_ld + index];
}

static void note_change(pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t index)
{
    range *r = &kv->of[kind].changed[sequence_id];
    if (r->from == r->to)
        *r = (range){index, index + 1};
    r->from = index < r->from ? index : r->from;
    r->to = index >= r->to ? index + 1 : r->to;
    if (!kv->sequences[sequence_id].changed)
        kv->changed[kv->n_changed++] = sequence_id;
    kv->sequences[sequence_id].changed = true;
}

static void set_page(pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t index, int32_t page)
{
    *entry_of(kv, sequence_id, kind, index) = page;
    note_change(kv, sequence_id, kind, index);
}

static void drop_page(pl_kv *kv, pl_kv_kind kind, int32_t page)
{
    if (pl_page_drop(&kv->of[kind].pool, page))
        kv->keeper.left(kv->keeper.user, kind, page);
}

/* Gives back the pages [from, to). The ops need not be told: no row looks there. */
static void drop_pages(pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t from, int32_t to)
{
    for (int32_t i = from; i < to; i++) {
        int32_t *entry = entry_of(kv, sequence_id, kind, i), page = *entry;
        *entry = -1;
        if (page >= 0)
            drop_page(kv, kind, page);
    }
}

void pl_kv_upload(pl_kv *kv)
{
    for (int32_t i = 0; i < kv->n_changed; i++) {
        int32_t id = kv->changed[i];
        kv->sequences[id].changed = false;
        for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++) {
            kind_memory *m = &kv->of[kind];
            range r = m->changed[id];
            int64_t at = id * kv->table_ld + r.from;
            for (int part = 0; part < kv->n_parts && r.to > r.from; part++) {
                pl_backend *b = kv->part[part].backend;
                b->upload(b->stream, m->ops_table[part] + at, m->table + at,
                          (size_t)(r.to - r.from) * sizeof *m->table);
            }
            m->changed[id] = (range){0, 0};
        }
    }
    kv->n_changed = 0;
}

pl_kv_layer pl_kv_view(const pl_kv *kv, int part, int layer)
{
    const kind_memory *m = &kv->of[kv->layer_local[layer] ? PL_KV_LOCAL : PL_KV_GLOBAL];
    const pl_page_part *pages = &m->pool.part[part];
    size_t block = (size_t)pages->heads * m->pool.shape.head_bytes;
    char *k = pages->memory + (size_t)kv->layer_index[layer] * 2 * block;
    return (pl_kv_layer){.k = (float *)(void *)k,
                         .v = (float *)(void *)(k + block),
                         .page_stride = (int64_t)(pages->bytes / sizeof(float)),
                         .table = m->ops_table[part],
                         .table_ld = kv->table_ld,
                         .type = kv->size.type};
}

/* ---- sequences ---- */

pl_status pl_kv_open(pl_kv *kv, int32_t *sequence_out, pl_error *err)
{
    for (int32_t i = 0; i < kv->size.sequences; i++)
        if (!kv->sequences[i].open) {
            kv->sequences[i].open = true;
            *sequence_out = i;
            return PL_OK;
        }
    return pl_fail(err, PL_ERR_UNSUPPORTED, "this engine holds at most %d sessions at once", kv->size.sequences);
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

/* The first local page that a sequence still needs when it grows. */
static int32_t first_local(const pl_kv *kv, const sequence *s)
{
    int32_t from = s->length + 1 - kv->window - PL_KV_SLACK;
    return (from > s->local_from ? from : s->local_from) / PL_KV_PAGE;
}

/* The page that a sequence is in the middle of, where others hold it too; -1: none. */
static int32_t begun_shared(const pl_kv *kv, int32_t sequence_id, pl_kv_kind kind)
{
    int32_t length = kv->sequences[sequence_id].length;
    if (length % PL_KV_PAGE == 0)
        return -1;
    int32_t page = *entry_of(kv, sequence_id, kind, length / PL_KV_PAGE);
    return pl_page_shared(&kv->of[kind].pool, page) ? page : -1;
}

/* Free pages that n more tokens need. Where the begun one is only kept besides, it is taken over if need be. */
static int32_t pages_needed(const pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t n)
{
    const sequence *s = &kv->sequences[sequence_id];
    int32_t shared = n > 0 ? begun_shared(kv, sequence_id, kind) : -1;
    bool copied = shared >= 0 && kv->of[kind].pool.holders[shared] > 1;
    return pages_for((int64_t)s->length + n) - pages_for(s->length) + copied;
}

static int32_t pages_available(const pl_kv *kv, pl_kv_kind kind)
{
    const pl_page_pool *pool = &kv->of[kind].pool;
    return pool->n_free + pool->n_spare;
}

/* Local pages that growing gives back. */
static int32_t pages_left_behind(const pl_kv *kv, int32_t sequence_id)
{
    const sequence *s = &kv->sequences[sequence_id];
    int32_t n = 0, to = first_local(kv, s);
    for (int32_t i = s->local_from / PL_KV_PAGE; i < to; i++)
        n += kv->of[PL_KV_LOCAL].pool.holders[*entry_of(kv, sequence_id, PL_KV_LOCAL, i)] == 1;
    return n;
}

bool pl_kv_fits(const pl_kv *kv, int32_t sequence_id, int32_t n)
{
    if (n > kv->size.context - kv->sequences[sequence_id].length)
        return false;
    return pages_needed(kv, sequence_id, PL_KV_GLOBAL, n) <= pages_available(kv, PL_KV_GLOBAL) &&
           pages_needed(kv, sequence_id, PL_KV_LOCAL, n) <=
               pages_available(kv, PL_KV_LOCAL) + pages_left_behind(kv, sequence_id);
}

static int32_t take_page(pl_kv *kv, pl_kv_kind kind)
{
    pl_page_pool *pool = &kv->of[kind].pool;
    if (pool->n_free == 0)
        kv->keeper.give_up(kv->keeper.user, kind);
    return pl_page_take(pool);
}

/* Makes the begun page the sequence's own. */
static void own_begun(pl_kv *kv, int32_t sequence_id, pl_kv_kind kind)
{
    pl_page_pool *pool = &kv->of[kind].pool;
    int32_t shared = begun_shared(kv, sequence_id, kind);
    if (shared < 0)
        return;
    if (pages_available(kv, kind) == 0) {
        kv->keeper.let_go(kv->keeper.user, kind, shared);
        return;
    }
    int32_t own = take_page(kv, kind);
    pl_page_copy(pool, own, shared);
    drop_page(kv, kind, shared);
    set_page(kv, sequence_id, kind, kv->sequences[sequence_id].length / PL_KV_PAGE, own);
}

static void grow(pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t n)
{
    int32_t length = kv->sequences[sequence_id].length;
    for (int32_t i = pages_for(length); i < pages_for((int64_t)length + n); i++)
        set_page(kv, sequence_id, kind, i, take_page(kv, kind));
    own_begun(kv, sequence_id, kind);
}

static void leave_behind(pl_kv *kv, int32_t sequence_id)
{
    sequence *s = &kv->sequences[sequence_id];
    int32_t from = s->local_from / PL_KV_PAGE, to = first_local(kv, s);
    drop_pages(kv, sequence_id, PL_KV_LOCAL, from, to);
    s->local_from = to * PL_KV_PAGE;
}

pl_status pl_kv_extend(pl_kv *kv, int32_t sequence_id, int32_t n, pl_error *err)
{
    sequence *s = &kv->sequences[sequence_id];
    if (n > kv->size.context - s->length)
        return pl_fail(err, PL_ERR_CONTEXT, "%lld tokens do not fit the context of %d", (long long)s->length + n,
                       kv->size.context);
    if (!pl_kv_fits(kv, sequence_id, n)) {
        pl_kv_room room = pl_kv_count(kv);
        return pl_fail(err, PL_ERR_BUSY, "no room for %d more tokens: of the K/V memory's %lld, %lld are in use", n,
                       (long long)room.tokens, (long long)room.used);
    }
    leave_behind(kv, sequence_id);
    for (pl_kv_kind kind = 0; n > 0 && kind < PL_KV_KINDS; kind++)
        grow(kv, sequence_id, kind, n);
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
    for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
        drop_pages(kv, sequence_id, kind, pages_for(n), pages_for(s->length));
    s->length = n;
    if (n == 0)
        s->local_from = 0;
    if (s->marked > n / PL_KV_PAGE)
        s->marked = n / PL_KV_PAGE;
    return n;
}

pl_kv_room pl_kv_count(const pl_kv *kv)
{
    const pl_page_pool *pool = &kv->of[PL_KV_GLOBAL].pool;
    return (pl_kv_room){.tokens = (int64_t)pool->n_pages * PL_KV_PAGE,
                        .used = (int64_t)(pool->n_pages - pool->n_free - pool->n_spare) * PL_KV_PAGE,
                        .kept = (int64_t)pool->n_spare * PL_KV_PAGE};
}

/* ---- pages shared with kept prefixes ---- */

void pl_kv_set_keeper(pl_kv *kv, const pl_kv_keeper *keeper)
{
    kv->keeper = keeper ? *keeper : (pl_kv_keeper){0};
}

pl_page_pool *pl_kv_pool(pl_kv *kv, pl_kv_kind kind)
{
    return &kv->of[kind].pool;
}

int pl_kv_context(const pl_kv *kv)
{
    return kv->size.context;
}

pl_cache_type pl_kv_type(const pl_kv *kv)
{
    return kv->size.type;
}

int pl_kv_sequences(const pl_kv *kv)
{
    return kv->size.sequences;
}

int32_t pl_kv_page(const pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t index)
{
    return *entry_of(kv, sequence_id, kind, index);
}

void pl_kv_put(pl_kv *kv, int32_t sequence_id, pl_kv_kind kind, int32_t index, int32_t page)
{
    int32_t before = *entry_of(kv, sequence_id, kind, index);
    if (before == page)
        return;
    pl_page_hold(&kv->of[kind].pool, page);
    set_page(kv, sequence_id, kind, index, page);
    if (before >= 0)
        drop_page(kv, kind, before);
}

void pl_kv_begin(pl_kv *kv, int32_t sequence_id, int32_t n, int32_t local_from)
{
    sequence *s = &kv->sequences[sequence_id];
    assert(s->length == 0);
    s->length = n;
    s->local_from = local_from / PL_KV_PAGE * PL_KV_PAGE;
}

int32_t pl_kv_marked(const pl_kv *kv, int32_t sequence_id)
{
    return kv->sequences[sequence_id].marked;
}

void pl_kv_set_marked(pl_kv *kv, int32_t sequence_id, int32_t pages)
{
    kv->sequences[sequence_id].marked = pages;
}
