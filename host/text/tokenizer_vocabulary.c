/* A tokenizer from a GGUF vocabulary. The file lists no merges; they follow from the pieces: two neighbours can
 * merge when their joined text is a piece. In the order that the published merges have, which these are then
 * equal to: runs of one white space character first, those with the longest left part before others; then by the
 * score of the result, the higher the earlier (of equal scores the lower id), and for one result
 * the longest left part first. */
#include "host/text/token_source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define META "\xe2\x96\x81" /* U+2581, which stands for a space */

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

typedef struct piece_rank {
    float score;
    uint32_t id;
} piece_rank;

/* The character that text is a run of, "\n", "\t" or U+2581; NULL when it is something else. */
static const char *run_of(const char *text, size_t n)
{
    static const char *const blank[] = {"\n", "\t", META};
    for (size_t k = 0; k < 3; k++) {
        size_t width = strlen(blank[k]), i = 0;
        while (i + width <= n && memcmp(text + i, blank[k], width) == 0)
            i += width;
        if (n > 0 && i == n)
            return blank[k];
    }
    return NULL;
}

static bool starts_with(const char *text, size_t n, const char *prefix)
{
    return n >= strlen(prefix) && memcmp(text, prefix, strlen(prefix)) == 0;
}

/* The converter makes <mask> and the <unusedN> control tokens; in tokenizer.json, which decides what
 * skip_special leaves out, they are not. */
static bool is_special(const char *text, size_t n, int32_t kind)
{
    return (kind == CONTROL || kind == UNKNOWN) && !starts_with(text, n, "<unused") &&
           !(n == 6 && starts_with(text, n, "<mask>"));
}

static pl_status add_spaces(pl_token_source *src, size_t n, pl_error *err)
{
    char run[PL_MAX_PIECE_BYTES + 3];
    size_t bytes = 0;
    for (size_t i = 0; i < n && bytes <= PL_MAX_PIECE_BYTES; i++, bytes += 3)
        memcpy(run + bytes, META, 3);
    return pl_token_source_piece(src, run, bytes, PL_PIECE_ADDED | PL_PIECE_MODEL, err);
}

static pl_status add_piece(pl_token_source *src, const char *text, size_t n, int32_t kind, pl_error *err)
{
    switch (kind) {
    case NORMAL: return pl_token_source_piece(src, text, n, PL_PIECE_MODEL, err);
    case UNKNOWN:
    case CONTROL:
        return pl_token_source_piece(
            src, text, n, PL_PIECE_ADDED | PL_PIECE_MODEL | (is_special(text, n, kind) ? PL_PIECE_SPECIAL : 0u), err);
    case USER_DEFINED: {
        /* the converter writes U+2581 as a space here, but it is runs of U+2581 that are matched in the text */
        size_t spaces = 0;
        while (spaces < n && text[spaces] == ' ')
            spaces++;
        if (n > 0 && spaces == n)
            return add_spaces(src, n, err);
        return pl_token_source_piece(src, text, n, PL_PIECE_ADDED | PL_PIECE_MODEL, err);
    }
    case UNUSED: return pl_token_source_piece(src, text, n, PL_PIECE_HIDDEN, err);
    case BYTE:
        if (pl_piece_byte(text, n) < 0)
            return pl_fail(err, PL_ERR_FORMAT, "%s: piece %u is of kind byte and not written <0xHH>", src->where,
                           src->n);
        return pl_token_source_piece(src, text, n, PL_PIECE_MODEL, err);
    default:
        return pl_fail(err, PL_ERR_FORMAT, "%s: piece %u is of kind %d; kinds are 1 to 6", src->where, src->n, kind);
    }
}

static pl_status add_pieces(const pl_vocabulary *v, pl_token_source *src, pl_error *err)
{
    for (int32_t i = 0; i < v->n; i++) {
        if (v->offset[i] > v->offset[i + 1])
            return pl_fail(err, PL_ERR_FORMAT, "%s: piece %d ends before it starts", src->where, i);
        if (!isfinite(v->score[i]))
            return pl_fail(err, PL_ERR_FORMAT, "%s: the score of piece %d is not a finite number", src->where, i);
        PL_TRY(add_piece(src, v->text + v->offset[i], (size_t)(v->offset[i + 1] - v->offset[i]), v->kind[i], err));
    }
    return pl_token_source_index(src, err);
}

/* Whether BPE can make piece id or start from it. */
static bool mergeable(const pl_vocabulary *v, const pl_token_source *src, int32_t id)
{
    if (id < 0)
        return false;
    return v->kind[id] == NORMAL ||
           (v->kind[id] == USER_DEFINED && run_of(src->text + src->offset[id], src->offset[id + 1] - src->offset[id]));
}

static pl_status add_cut(const pl_vocabulary *v, pl_token_source *src, uint32_t id, size_t n_left, pl_error *err)
{
    const char *text = src->text + src->offset[id];
    size_t n = src->offset[id + 1] - src->offset[id];
    int32_t left = pl_token_source_find(src, text, n_left);
    if (!mergeable(v, src, left))
        return PL_OK;
    int32_t right = pl_token_source_find(src, text + n_left, n - n_left);
    if (!mergeable(v, src, right))
        return PL_OK;
    return pl_token_source_merge(src, (uint32_t)left, (uint32_t)right, id, err);
}

/* All cuts of one piece, the longest left part first. */
static pl_status add_cuts(const pl_vocabulary *v, pl_token_source *src, uint32_t id, pl_error *err)
{
    size_t n = src->offset[id + 1] - src->offset[id];
    for (size_t cut = n; cut-- > 1;)
        if (((unsigned char)src->text[src->offset[id] + cut] & 0xc0) != 0x80)
            PL_TRY(add_cut(v, src, id, cut, err));
    return PL_OK;
}

/* The cuts of the runs of white space. */
static pl_status add_blanks(const pl_vocabulary *v, pl_token_source *src, const uint32_t *blank, size_t n,
                            pl_error *err)
{
    size_t longest = 0;
    for (size_t i = 0; i < n; i++)
        if (src->offset[blank[i] + 1] - src->offset[blank[i]] > longest)
            longest = src->offset[blank[i] + 1] - src->offset[blank[i]];
    for (size_t cut = longest; cut-- > 1;)
        for (size_t i = 0; i < n; i++) {
            size_t bytes = src->offset[blank[i] + 1] - src->offset[blank[i]];
            if (cut < bytes && ((unsigned char)src->text[src->offset[blank[i]] + cut] & 0xc0) != 0x80)
                PL_TRY(add_cut(v, src, blank[i], cut, err));
        }
    return PL_OK;
}

static int by_score(const void *a, const void *b)
{
    const piece_rank *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static pl_status add_merges(const pl_vocabulary *v, pl_token_source *src, pl_error *err)
{
    pl_status status = PL_OK;
    size_t n = 0, n_blank = 0;
    piece_rank *order = malloc(src->n * sizeof *order);
    uint32_t *blank = malloc(src->n * sizeof *blank);
    if (!order || !blank) {
        status = pl_fail_memory(err, src->n * sizeof *order, "the order of the pieces");
        goto fail;
    }
    for (uint32_t i = 0; i < src->n; i++) {
        if (!mergeable(v, src, (int32_t)i))
            continue;
        if (run_of(src->text + src->offset[i], src->offset[i + 1] - src->offset[i]))
            blank[n_blank++] = i;
        else
            order[n++] = (piece_rank){v->score[i], i};
    }
    qsort(order, n, sizeof *order, by_score);
    PL_TRY_GOTO(add_blanks(v, src, blank, n_blank, err));
    for (size_t i = 0; i < n; i++)
        PL_TRY_GOTO(add_cuts(v, src, order[i].id, err));
fail:
    free(order);
    free(blank);
    return status;
}

pl_status pl_token_source_from_vocabulary(const pl_vocabulary *vocabulary, pl_token_source *src, pl_error *err)
{
    if (vocabulary->n <= 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: the vocabulary is empty", src->where);
    PL_TRY(add_pieces(vocabulary, src, err));
    return add_merges(vocabulary, src, err);
}
