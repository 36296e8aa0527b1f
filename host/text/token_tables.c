#include "host/text/token_tables.h"

#include "host/text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define VERSION 1
#define BYTE_ORDER_MARK 0x01020304u
static const char magic[8] = {'P', 'L', 'T', 'O', 'K', 'E', 'N', 'S'};

#define META "\xe2\x96\x81" /* U+2581, which stands for a space */

typedef struct layout {
    size_t slot, pair, node, offset, result, page, flags, text, end;
} layout;

static size_t place(size_t *at, size_t bytes)
{
    size_t start = (*at + 63) & ~(size_t)63;
    *at = start + bytes;
    return start;
}

/* The counts must be within their bounds: then no sum comes near 2^64. */
static layout lay_out(const pl_tables_header *head)
{
    layout l;
    size_t at = sizeof *head;
    l.slot = place(&at, sizeof(uint64_t) << head->piece_bits);
    l.pair = place(&at, sizeof(uint64_t) << head->pair_bits);
    l.node = place(&at, sizeof(pl_added_node) * (size_t)head->n_nodes);
    l.offset = place(&at, sizeof(uint32_t) * ((size_t)head->n_pieces + 1));
    l.result = place(&at, sizeof(uint32_t) * (size_t)head->n_merges);
    l.page = place(&at, sizeof(uint32_t) * PL_PAGE_CHARS * (size_t)head->n_pages);
    l.flags = place(&at, head->n_pieces);
    l.text = place(&at, head->text_bytes);
    l.end = at;
    return l;
}

static void attach(const void *image, pl_token_tables *t)
{
    const char *base = image;
    const pl_tables_header *head = image;
    layout l = lay_out(head);
    *t = (pl_token_tables){
        .head = head,
        .index = {.text = base + l.text,
                  .offset = (const void *)(base + l.offset),
                  .slot = (const void *)(base + l.slot),
                  .bits = head->piece_bits,
                  .seed = head->source[0]},
        .pair = (const void *)(base + l.pair),
        .node = (const void *)(base + l.node),
        .result = (const void *)(base + l.result),
        .page = (const void *)(base + l.page),
        .flags = (const void *)(base + l.flags),
    };
}

static uint64_t checksum(const pl_tables_header *head)
{
    size_t skip = offsetof(pl_tables_header, bytes);
    return XXH3_64bits((const char *)head + skip, head->bytes - skip);
}

/* ---- building ---------------------------------------------------------------------------------- */

static const char *piece(const pl_token_source *src, uint32_t id, size_t *n)
{
    *n = src->offset[id + 1] - src->offset[id];
    return src->text + src->offset[id];
}

/* The code point of a piece that is one character, or PL_NO_ID. */
static uint32_t single_char(const pl_token_source *src, uint32_t id)
{
    size_t n;
    const char *text = piece(src, id, &n);
    uint32_t code;
    if (!(src->flags[id] & PL_PIECE_MODEL) || pl_utf8_next(text, n, &code) != n)
        return PL_NO_ID;
    return code;
}

static void count_pages(const pl_token_source *src, pl_tables_header *head)
{
    head->n_pages = 1;
    for (uint32_t i = 0; i < src->n; i++) {
        uint32_t code = single_char(src, i);
        if (code != PL_NO_ID && head->page_of[code / PL_PAGE_CHARS] == 0)
            head->page_of[code / PL_PAGE_CHARS] = (uint16_t)head->n_pages++;
    }
}

static pl_status find_bytes(const pl_token_source *src, pl_tables_header *head, pl_error *err)
{
    static const char digits[] = "0123456789ABCDEF";
    for (int b = 0; b < 256; b++) {
        char name[] = {'<', '0', 'x', digits[b / 16], digits[b % 16], '>'};
        int32_t id = pl_token_source_find(src, name, sizeof name);
        if (id < 0)
            return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: no piece for the byte %.6s", src->where, name);
        head->byte_id[b] = (uint32_t)id;
    }
    return PL_OK;
}

/* Which places before a U+2581 no merge can cross (see bpe.h). A piece made of byte pieces does not end
 * in the byte that its text ends in, so a merge of those rules out every place. */
static void find_joins(const pl_token_source *src, pl_tables_header *head)
{
    for (size_t i = 0; i < src->n_merges; i++) {
        const pl_merge *m = &src->merge[i];
        if ((src->flags[m->left] | src->flags[m->right]) & PL_PIECE_BYTE) {
            memset(head->join_after, 1, sizeof head->join_after);
            return;
        }
        size_t n_left, n_right;
        const char *left = piece(src, m->left, &n_left), *right = piece(src, m->right, &n_right);
        if (n_right >= 3 && memcmp(right, META, 3) == 0)
            head->join_after[(unsigned char)left[n_left - 1]] = 1;
    }
}

typedef struct node_list {
    pl_added_node *v;
    size_t n, room;
} node_list;

static pl_status add_node(node_list *list, unsigned char byte, uint32_t *link, pl_error *err)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 1024;
        pl_added_node *grown = realloc(list->v, room * sizeof *grown);
        if (!grown)
            return pl_fail_memory(err, room * sizeof *grown, "the tokenizer's added tokens");
        list->v = grown;
        list->room = room;
    }
    list->v[list->n] = (pl_added_node){.id = PL_NO_ID, .byte = byte};
    *link = (uint32_t)list->n++;
    return PL_OK;
}

static pl_status add_token(node_list *list, pl_tables_header *head, const char *text, size_t n, uint32_t id,
                           pl_error *err)
{
    uint32_t at = head->root[(unsigned char)text[0]];
    if (at == 0) {
        PL_TRY(add_node(list, (unsigned char)text[0], &at, err));
        head->root[(unsigned char)text[0]] = at;
    }
    for (size_t i = 1; i < n; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t last = 0, child = list->v[at].child;
        while (child && list->v[child].byte != byte) {
            last = child;
            child = list->v[child].next;
        }
        if (!child) {
            PL_TRY(add_node(list, byte, &child, err));
            if (last)
                list->v[last].next = child;
            else
                list->v[at].child = child;
        }
        at = child;
    }
    list->v[at].id = id;
    return PL_OK;
}

static pl_status build_nodes(const pl_token_source *src, pl_tables_header *head, node_list *list, pl_error *err)
{
    uint32_t unused;
    PL_TRY(add_node(list, 0, &unused, err)); /* link 0 means none */
    for (uint32_t i = 0; i < src->n; i++) {
        if (!(src->flags[i] & PL_PIECE_ADDED))
            continue;
        size_t n;
        const char *text = piece(src, i, &n);
        PL_TRY(add_token(list, head, text, n, i, err));
    }
    if (list->n > UINT32_MAX)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: too many added tokens", src->where);
    head->n_nodes = (uint32_t)list->n;
    return PL_OK;
}

static pl_status fill_pairs(const pl_token_source *src, const pl_token_tables *t, uint64_t *pair, uint32_t *result,
                            pl_error *err)
{
    size_t mask = ((size_t)1 << t->head->pair_bits) - 1;
    for (size_t i = 0; i < src->n_merges; i++) {
        const pl_merge *m = &src->merge[i];
        if (pl_pair_rank(t, m->left, m->right) != PL_NO_RANK) {
            size_t n_left, n_right;
            const char *left = piece(src, m->left, &n_left), *right = piece(src, m->right, &n_right);
            return pl_fail(err, PL_ERR_FORMAT, "%s: merge %zu (\"%.*s\" and \"%.*s\") is listed twice", src->where, i,
                           (int)n_left, left, (int)n_right, right);
        }
        uint64_t key = (uint64_t)m->left << 21 | m->right;
        size_t at = (size_t)(pl_pair_hash(key, t->index.seed) >> (64 - t->head->pair_bits));
        while (pair[at] != PL_SLOT_EMPTY)
            at = (at + 1) & mask;
        pair[at] = key << 22 | i;
        result[i] = m->result;
    }
    return PL_OK;
}

static pl_status fill(const pl_token_source *src, const pl_tables_header *head, const node_list *list, char *base,
                      pl_token_tables *out, pl_error *err)
{
    layout l = lay_out(head);
    memcpy(base, head, sizeof *head);
    memset(base + l.pair, 0xff, sizeof(uint64_t) << head->pair_bits);
    memcpy(base + l.slot, src->slot, sizeof(uint64_t) << head->piece_bits);
    memcpy(base + l.node, list->v, list->n * sizeof *list->v);
    memcpy(base + l.offset, src->offset, ((size_t)src->n + 1) * sizeof *src->offset);
    memcpy(base + l.flags, src->flags, src->n);
    memcpy(base + l.text, src->text, src->text_bytes);

    uint32_t *page = (void *)(base + l.page);
    memset(page, 0xff, sizeof *page * PL_PAGE_CHARS * head->n_pages);
    for (uint32_t i = 0; i < src->n; i++) {
        uint32_t code = single_char(src, i);
        if (code != PL_NO_ID)
            page[(size_t)head->page_of[code / PL_PAGE_CHARS] * PL_PAGE_CHARS + code % PL_PAGE_CHARS] = i;
    }
    attach(base, out);
    return fill_pairs(src, out, (void *)(base + l.pair), (void *)(base + l.result), err);
}

void pl_token_tables_seal(void *image)
{
    pl_tables_header *head = image;
    head->checksum = checksum(head);
}

pl_status pl_token_tables_build(const pl_token_source *src, void **image, pl_token_tables *out, pl_error *err)
{
    pl_status status;
    node_list list = {0};
    char *base = NULL;
    pl_tables_header *head = calloc(1, sizeof *head);
    if (!head)
        return pl_fail_memory(err, sizeof *head, "the tokenizer's tables");
    memcpy(head->magic, magic, sizeof magic);
    head->version = VERSION;
    head->byte_order = BYTE_ORDER_MARK;
    head->source[0] = src->source[0];
    head->source[1] = src->source[1];
    head->text_bytes = src->text_bytes;
    head->n_pieces = src->n;
    head->n_merges = (uint32_t)src->n_merges;
    head->piece_bits = src->index.bits;
    head->pair_bits = pl_index_bits(src->n_merges);
    count_pages(src, head);
    PL_TRY_GOTO(find_bytes(src, head, err));
    find_joins(src, head);
    PL_TRY_GOTO(build_nodes(src, head, &list, err));

    head->bytes = lay_out(head).end;
    base = calloc(1, head->bytes);
    if (!base) {
        status = pl_fail_memory(err, head->bytes, "the tokenizer's tables");
        goto fail;
    }
    PL_TRY_GOTO(fill(src, head, &list, base, out, err));
    *image = base;
    base = NULL;
fail:
    free(base);
    free(list.v);
    free(head);
    return status;
}

/* ---- checking ---------------------------------------------------------------------------------- */

static bool header_valid(const pl_tables_header *head, size_t n_bytes, const uint64_t source[2])
{
    return memcmp(head->magic, magic, sizeof magic) == 0 && head->version == VERSION &&
           head->byte_order == BYTE_ORDER_MARK && head->source[0] == source[0] && head->source[1] == source[1] &&
           head->n_pieces > 0 && head->n_pieces <= PL_MAX_PIECES && head->n_merges <= PL_MAX_MERGES &&
           head->n_nodes > 0 && head->n_pages > 0 && head->n_pages <= PL_N_PAGES + 1 &&
           head->text_bytes <= UINT32_MAX && head->piece_bits == pl_index_bits(head->n_pieces) &&
           head->pair_bits == pl_index_bits(head->n_merges) && head->bytes == n_bytes && lay_out(head).end == n_bytes;
}

static bool pieces_valid(const pl_token_tables *t)
{
    uint32_t n = t->head->n_pieces, held = 0;
    const uint32_t *offset = t->index.offset;
    if (offset[0] != 0 || offset[n] != t->head->text_bytes)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (offset[i] > offset[i + 1])
            return false;
        if ((t->flags[i] & PL_PIECE_BYTE) &&
            (offset[n] < offset[i + 1] || pl_piece_byte(t->index.text + offset[i], offset[i + 1] - offset[i]) < 0))
            return false;
    }
    for (size_t i = 0; i < (size_t)1 << t->head->piece_bits; i++) {
        if (t->index.slot[i] == PL_SLOT_EMPTY)
            continue;
        held++;
        if ((uint32_t)t->index.slot[i] >= n)
            return false;
    }
    return held <= n;
}

static bool merges_valid(const pl_token_tables *t)
{
    uint32_t n = t->head->n_pieces, n_merges = t->head->n_merges, held = 0;
    for (uint32_t i = 0; i < n_merges; i++)
        if (t->result[i] >= n)
            return false;
    for (size_t i = 0; i < (size_t)1 << t->head->pair_bits; i++) {
        if (t->pair[i] == PL_SLOT_EMPTY)
            continue;
        held++;
        if (((uint32_t)t->pair[i] & PL_MAX_MERGES) >= n_merges)
            return false;
    }
    return held == n_merges;
}

static bool chars_valid(const pl_token_tables *t)
{
    const pl_tables_header *head = t->head;
    for (size_t i = 0; i < 256; i++)
        if (head->byte_id[i] >= head->n_pieces)
            return false;
    for (size_t i = 0; i < PL_N_PAGES; i++)
        if (head->page_of[i] >= head->n_pages)
            return false;
    for (size_t i = 0; i < (size_t)head->n_pages * PL_PAGE_CHARS; i++)
        if (t->page[i] != PL_NO_ID && t->page[i] >= head->n_pieces)
            return false;
    return true;
}

static bool added_valid(const pl_token_tables *t)
{
    uint32_t n = t->head->n_nodes;
    for (size_t i = 0; i < 256; i++)
        if (t->head->root[i] >= n)
            return false;
    for (uint32_t i = 0; i < n; i++) {
        const pl_added_node *node = &t->node[i];
        if ((node->child && (node->child <= i || node->child >= n)) ||
            (node->next && (node->next <= i || node->next >= n)) ||
            (node->id != PL_NO_ID && node->id >= t->head->n_pieces))
            return false;
    }
    return true;
}

bool pl_token_tables_bind(const void *image, size_t n_bytes, const uint64_t source[2], pl_token_tables *out)
{
    const pl_tables_header *head = image;
    if (n_bytes < sizeof *head || !header_valid(head, n_bytes, source) || head->checksum != checksum(head))
        return false;
    attach(image, out);
    return pieces_valid(out) && merges_valid(out) && chars_valid(out) && added_valid(out);
}

/* ---- reading ----------------------------------------------------------------------------------- */

size_t pl_added_match(const pl_token_tables *t, const char *text, size_t n, uint32_t *id)
{
    size_t best = 0;
    uint32_t at = n ? t->head->root[(unsigned char)text[0]] : 0;
    for (size_t i = 1; at; i++) {
        if (t->node[at].id != PL_NO_ID) {
            best = i;
            *id = t->node[at].id;
        }
        if (i == n)
            break;
        at = t->node[at].child;
        while (at && t->node[at].byte != (unsigned char)text[i])
            at = t->node[at].next;
    }
    return best;
}
