#include "host/grammar/piece_tree.h"
#include "host/text/detokenizer.h"
#include "host/text/token_source.h"
#include "host/text/utf8.h"

#include <stdlib.h>
#include <string.h>

typedef struct piece {
    uint64_t beginning; /* of its text, to compare by */
    const char *text;
    uint32_t n, id;
} piece;

typedef struct builder {
    char *text; /* of all pieces */
    piece *piece;
    size_t n_pieces;
    uint8_t *odd; /* by id */
} builder;

static pl_status no_memory(pl_error *err)
{
    return pl_fail(err, PL_ERR_MEMORY, "no memory for the index of pieces");
}

/* Characters of a plain piece, or 0. */
static uint32_t plain_chars(const char *text, size_t n)
{
    uint32_t chars = 0, code;
    for (size_t i = 0; i < n; chars++) {
        size_t k = pl_utf8_next(text + i, n - i, &code);
        if (k == 0 || code < 0x20 || code == 0x7f || code == '"' || code == '\\')
            return 0;
        i += k;
    }
    return chars <= PL_PLAIN_CHARS ? chars : 0;
}

/* A piece's text, which is put to out[PL_MAX_PIECE_BYTES]; 0 for none and for control tokens. */
static size_t text_of(const pl_piece_tree *tree, int32_t id, char *out)
{
    return pl_tokenizer_is_special(tree->tokenizer, id) ? 0 : pl_piece_bytes(tree->tokenizer, id, out);
}

static pl_status reserve_text(builder *b, const pl_piece_tree *tree, pl_error *err)
{
    char text[PL_MAX_PIECE_BYTES];
    size_t bytes = PL_MAX_PIECE_BYTES;
    for (int32_t id = 0; id < tree->n_pieces; id++)
        bytes += text_of(tree, id, text);
    b->text = malloc(bytes);
    b->piece = malloc(((size_t)tree->n_pieces + 1) * sizeof *b->piece);
    b->odd = calloc((size_t)tree->n_pieces + 1, 1);
    return b->text && b->piece && b->odd ? PL_OK : no_memory(err);
}

static uint64_t beginning(const char *text, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++)
        value = value << 8 | (i < n ? (unsigned char)text[i] : 0);
    return value;
}

static void enter_plain(pl_piece_tree *tree, uint32_t chars, uint32_t id)
{
    tree->plain[chars * tree->n_words + id / 32] |= (uint32_t)1 << id % 32;
}

static pl_status collect(builder *b, pl_piece_tree *tree, pl_error *err)
{
    PL_TRY(reserve_text(b, tree, err));
    char *text = b->text;
    for (int32_t id = 0; id < tree->n_pieces; id++) {
        size_t n = text_of(tree, id, text);
        if (n == 0)
            continue;
        uint32_t chars = plain_chars(text, n);
        b->odd[id] = chars == 0;
        if (chars)
            enter_plain(tree, chars, (uint32_t)id);
        b->piece[b->n_pieces++] = (piece){beginning(text, n), text, (uint32_t)n, (uint32_t)id};
        text += n;
        if (n > tree->longest)
            tree->longest = (uint32_t)n;
    }
    for (uint32_t c = 1; c <= PL_PLAIN_CHARS; c++)
        for (size_t w = 0; w < tree->n_words; w++)
            tree->plain[c * tree->n_words + w] |= tree->plain[(c - 1) * tree->n_words + w];
    return PL_OK;
}

static int by_text(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    if (x->beginning != y->beginning)
        return x->beginning < y->beginning ? -1 : 1;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    if (order)
        return order;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t common(const piece *x, const piece *y)
{
    uint32_t n = 0, most = x->n < y->n ? x->n : y->n;
    while (n < most && x->text[n] == y->text[n])
        n++;
    return n;
}

typedef struct growing {
    pl_pieces_by_byte *out;
    uint32_t *path; /* [longest] the open nodes */
    uint32_t depth;
} growing;

static void close_to(growing *g, uint32_t depth)
{
    while (g->depth > depth) {
        pl_piece_node *node = &g->out->node[g->path[--g->depth]];
        node->skip = g->out->n;
        if (g->depth == 0)
            continue;
        pl_piece_node *above = &g->out->node[g->path[g->depth - 1]];
        above->below |= node->below | (uint32_t)1 << pl_byte_sort(node->byte);
        if (above->height <= node->height)
            above->height = node->height < 255 ? (uint8_t)(node->height + 1) : 255;
    }
}

/* Nodes of the sorted pieces, their ids from ids[*n_ids] on. The first pass, with out->node NULL, counts. */
static void lay_out(const builder *b, bool odd_only, growing *g, uint32_t *ids, uint32_t *n_ids)
{
    const piece *last = NULL;
    pl_pieces_by_byte *out = g->out;
    out->n = 0;
    for (size_t i = 0; i < b->n_pieces; i++) {
        const piece *p = &b->piece[i];
        if (odd_only && !b->odd[p->id])
            continue;
        uint32_t shared = last ? common(last, p) : 0;
        last = p;
        if (!out->node) {
            out->n += p->n - shared;
            continue;
        }
        close_to(g, shared);
        for (; g->depth < p->n; g->depth++) {
            /* nodes on the way have no pieces of their own: only the last one's are those from here on */
            out->node[out->n] = (pl_piece_node){
                .id = *n_ids, .depth = (uint16_t)(g->depth + 1), .byte = (uint8_t)p->text[g->depth]};
            g->path[g->depth] = out->n++;
        }
        ids[(*n_ids)++] = p->id;
    }
    if (out->node) {
        close_to(g, 0);
        out->node[out->n].id = *n_ids;
    }
}

static pl_status make_tree(const builder *b, const pl_piece_tree *tree, bool odd_only, pl_pieces_by_byte *out,
                           uint32_t *n_ids, pl_error *err)
{
    growing g = {out, malloc((tree->longest + 1) * sizeof *g.path), 0};
    uint32_t counted = 0;
    out->node = NULL;
    lay_out(b, odd_only, &g, NULL, &counted);
    out->node = calloc((size_t)out->n + 1, sizeof *out->node);
    if (g.path && out->node)
        lay_out(b, odd_only, &g, tree->ids, n_ids);
    bool made = g.path && out->node;
    free(g.path);
    return made ? PL_OK : no_memory(err);
}

static pl_status build(builder *b, pl_piece_tree *tree, const int32_t *eos, pl_error *err)
{
    uint32_t n_ids = 0;
    int32_t size = pl_tokenizer_size(tree->tokenizer);
    tree->n_pieces = size < tree->vocab ? size : tree->vocab;
    tree->n_words = ((size_t)tree->vocab + 31) / 32;
    tree->plain = calloc((PL_PLAIN_CHARS + 1) * tree->n_words + 1, sizeof *tree->plain);
    tree->eos = malloc(((size_t)tree->n_eos + 1) * sizeof *tree->eos);
    if (!tree->plain || !tree->eos)
        return no_memory(err);
    for (int i = 0; i < tree->n_eos; i++)
        tree->eos[i] = eos[i];
    PL_TRY(collect(b, tree, err));
    qsort(b->piece, b->n_pieces, sizeof *b->piece, by_text);
    tree->ids = malloc((2 * b->n_pieces + 1) * sizeof *tree->ids);
    if (!tree->ids)
        return no_memory(err);
    PL_TRY(make_tree(b, tree, false, &tree->all, &n_ids, err));
    return make_tree(b, tree, true, &tree->odd, &n_ids, err);
}

pl_status pl_piece_tree_create(const pl_tokenizer *tokenizer, int32_t vocab, const int32_t *eos, int n_eos,
                               pl_piece_tree **out, pl_error *err)
{
    builder b = {0};
    for (int i = 0; i < n_eos; i++)
        if (eos[i] < 0 || eos[i] >= vocab)
            return pl_fail(err, PL_ERR_ARGUMENT, "%d ends answers but is no token: there are %d", eos[i], vocab);
    pl_piece_tree *tree = calloc(1, sizeof *tree);
    if (!tree)
        return no_memory(err);
    *tree = (pl_piece_tree){.tokenizer = tokenizer, .vocab = vocab, .n_eos = n_eos};
    pl_status status = build(&b, tree, eos, err);
    free(b.text);
    free(b.piece);
    free(b.odd);
    if (status != PL_OK) {
        pl_piece_tree_free(tree);
        return status;
    }
    *out = tree;
    return PL_OK;
}

void pl_piece_tree_free(pl_piece_tree *tree)
{
    if (!tree)
        return;
    free(tree->all.node);
    free(tree->odd.node);
    free(tree->ids);
    free(tree->plain);
    free(tree->eos);
    free(tree);
}
