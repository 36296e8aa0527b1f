#include "host/measure/passages.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/status.h"
#include "host/model/fingerprint.h"

static uint64_t fingerprint(const pl_passages *p)
{
    int32_t shape[2] = {p->n, p->length};
    size_t n = (size_t)p->n * (size_t)p->length;
    uint64_t hash = pl_fingerprint(pl_fingerprint(0, shape, sizeof shape), p->ids, n * sizeof *p->ids);
    return p->scored ? pl_fingerprint(hash, p->scored, n * sizeof *p->scored) : hash;
}

static pl_status cut(const pl_model *model, const char *text, size_t n_bytes, unsigned flags, int32_t length,
                     int32_t limit, const char *where, pl_passages *out, pl_error *err)
{
    pl_tokens tokens;
    if (length < 1 || limit == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: asked for %d pieces of %d tokens", where, limit, length);
    PL_TRY(pl_tokenize(model, text, n_bytes, flags, &tokens, err));
    size_t n = tokens.n / (size_t)length;
    if (n == 0) {
        pl_status status = pl_fail(err, PL_ERR_ARGUMENT, "%s: %zu tokens are too few for a piece of %d", where,
                                   tokens.n, length);
        pl_tokens_free(&tokens);
        return status;
    }
    if (limit > 0 && n > (size_t)limit)
        n = (size_t)limit;
    if (n > INT32_MAX)
        n = INT32_MAX;
    *out = (pl_passages){.ids = tokens.ids, .n = (int32_t)n, .length = length};
    for (size_t i = 1; i < n; i++)
        out->ids[i * (size_t)length] = out->ids[0];
    return PL_OK;
}

pl_status pl_passages_cut(const pl_model *model, const char *text, size_t n_bytes, int32_t length, int32_t limit,
                          const char *where, pl_passages *out, pl_error *err)
{
    pl_passages made;
    PL_TRY(cut(model, text, n_bytes, PL_TOKENIZE_BOS | PL_TOKENIZE_NO_SPECIAL, length, limit, where, &made, err));
    made.fingerprint = fingerprint(&made);
    *out = made;
    return PL_OK;
}

/* ---- chats ---------------------------------------------------------------------------------------- */

/* What a turn begins and ends with. */
typedef struct marks {
    pl_tokens turn, model_turn, end;
} marks;

static pl_status find_marks(const pl_model *model, marks *out, pl_error *err)
{
    PL_TRY(pl_tokenize(model, "<start_of_turn>", 15, 0, &out->turn, err));
    PL_TRY(pl_tokenize(model, "<start_of_turn>model\n", 21, 0, &out->model_turn, err));
    return pl_tokenize(model, "<end_of_turn>", 13, 0, &out->end, err);
}

static void free_marks(marks *m)
{
    pl_tokens_free(&m->turn);
    pl_tokens_free(&m->model_turn);
    pl_tokens_free(&m->end);
}

/* ids[.. at] end with the mark. */
static bool ends_with(const int32_t *ids, int32_t at, const pl_tokens *mark)
{
    size_t n = mark->n;
    return (size_t)at + 1 >= n && memcmp(ids + at + 1 - n, mark->ids, n * sizeof *ids) == 0;
}

/* Positions from the last of the opening's to the one before the end mark; returns how many. */
static int64_t mark_answers(const int32_t *ids, int32_t length, const marks *m, bool *scored)
{
    int64_t n = 0;
    int turns = 0;
    bool answering = false;
    for (int32_t i = 0; i + 1 < length; i++) {
        turns += ends_with(ids, i, &m->turn);
        if (ends_with(ids, i, &m->end))
            answering = false;
        else if (ends_with(ids, i, &m->model_turn))
            answering = turns > 1;
        scored[i] = answering;
        n += answering;
    }
    return n;
}

static pl_status mark_all(pl_passages *p, const pl_model *model, const char *where, pl_error *err)
{
    marks m = {.turn = {.ids = NULL}};
    size_t length = (size_t)p->length;
    int64_t n = 0;
    p->scored = calloc((size_t)p->n * length, sizeof *p->scored);
    if (!p->scored)
        return pl_fail_memory(err, (size_t)p->n * length * sizeof *p->scored, "positions");
    pl_status status = find_marks(model, &m, err);
    for (int32_t i = 0; i < p->n && status == PL_OK; i++)
        n += mark_answers(p->ids + (size_t)i * length, p->length, &m, p->scored + (size_t)i * length);
    free_marks(&m);
    PL_TRY(status);
    return n > 0 ? PL_OK : pl_fail(err, PL_ERR_ARGUMENT, "%s: no answer of a model's turn is in it", where);
}

pl_status pl_passages_cut_chats(const pl_model *model, const char *text, size_t n_bytes, int32_t length, int32_t limit,
                                const char *where, pl_passages *out, pl_error *err)
{
    pl_passages made;
    PL_TRY(cut(model, text, n_bytes, PL_TOKENIZE_BOS, length, limit, where, &made, err));
    pl_status status = mark_all(&made, model, where, err);
    if (status != PL_OK) {
        pl_passages_free(&made);
        return status;
    }
    made.fingerprint = fingerprint(&made);
    *out = made;
    return PL_OK;
}

void pl_passages_free(pl_passages *passages)
{
    if (!passages)
        return;
    free(passages->ids);
    free(passages->scored);
    *passages = (pl_passages){.ids = NULL};
}

bool pl_passages_scores(const pl_passages *p, int32_t passage, int32_t at)
{
    if (p->scored)
        return p->scored[(size_t)passage * (size_t)p->length + (size_t)at];
    int32_t first = pl_passage_first(p->length);
    return at >= first && at < first + pl_passage_scored(p->length);
}

int64_t pl_passages_scored(const pl_passages *p, int32_t n)
{
    if (!p->scored)
        return (int64_t)n * pl_passage_scored(p->length);
    int64_t sum = 0;
    for (size_t i = 0; i < (size_t)n * (size_t)p->length; i++)
        sum += p->scored[i];
    return sum;
}
