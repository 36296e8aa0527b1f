#include "host/measure/evaluate.h"

#include <math.h>
#include <stdlib.h>

#include "host/base/threads.h"
#include "host/engine/model.h"
#include "host/model/path.h"

struct pl_evaluator {
    pl_pool *pool;
    int32_t vocab;
    float *logits, *reference; /* [PL_EVALUATE_ROWS][vocab] */
    unsigned char *rows;       /* [PL_EVALUATE_ROWS] as a file of logits has them; NULL until one is written */
};

pl_status pl_evaluator_create(int32_t vocab, int threads, pl_evaluator **out, pl_error *err)
{
    pl_status status;
    size_t bytes = (size_t)vocab * PL_EVALUATE_ROWS * sizeof(float);
    pl_evaluator *e = calloc(1, sizeof *e);
    if (!e)
        return pl_fail_memory(err, sizeof *e, "evaluator");
    e->vocab = vocab;
    e->logits = malloc(bytes);
    e->reference = malloc(bytes);
    if (!e->logits || !e->reference) {
        status = pl_fail_memory(err, 2 * bytes, "logits");
        goto fail;
    }
    PL_TRY_GOTO(pl_pool_create(threads, NULL, &e->pool, err));
    *out = e;
    return PL_OK;
fail:
    pl_evaluator_free(e);
    return status;
}

void pl_evaluator_free(pl_evaluator *evaluator)
{
    if (!evaluator)
        return;
    pl_pool_free(evaluator->pool);
    free(evaluator->logits);
    free(evaluator->reference);
    free(evaluator->rows);
    free(evaluator);
}

/* ---- some positions of a passage ------------------------------------------------------------------ */

typedef struct piece {
    pl_evaluator *e;
    const pl_evaluation *what;
    int32_t passage, at, n; /* positions [at, at + n), scored by the tokens after them */
    pl_position position[PL_EVALUATE_ROWS];
    pl_error error[PL_EVALUATE_ROWS]; /* of reading the reference's rows */
} piece;

static const int32_t *ids_of(const pl_passages *passages, int32_t passage)
{
    return passages->ids + (size_t)passage * (size_t)passages->length;
}

static bool is_scored(const piece *p, int64_t i)
{
    return pl_passages_scores(p->what->passages, p->passage, p->at + (int32_t)i);
}

/* On the pool: row i of the piece, from logits to numbers. */
static void measure_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    piece *p = ctx;
    pl_evaluator *e = p->e;
    const pl_evaluation *what = p->what;
    const int32_t *next = ids_of(what->passages, p->passage) + p->at + 1;
    for (int64_t i = begin; i < end; i++) {
        float *logits = e->logits + i * e->vocab, *reference = e->reference + i * e->vocab, floor = -INFINITY;
        p->error[i].status = PL_OK;
        if (!is_scored(p, i))
            continue;
        if (what->reference_file)
            pl_logits_file_row(what->reference_file, p->passage,
                               p->at + (int32_t)i - pl_passage_first(what->passages->length), reference, &floor,
                               &p->error[i]);
        else if (!what->reference)
            reference = NULL;
        if (p->error[i].status == PL_OK)
            p->position[i] = pl_position_measure(logits, reference, floor, e->vocab, next[i]);
        if (what->save)
            pl_logits_encode(logits, e->vocab, e->rows + (size_t)i * pl_logits_row_bytes(e->vocab));
    }
}

static pl_status count_rows(const piece *p, pl_quality *q, pl_error *err)
{
    for (int32_t i = 0; i < p->n; i++) {
        if (!is_scored(p, i))
            continue;
        if (p->error[i].status != PL_OK)
            return pl_fail(err, p->error[i].status, "%s", p->error[i].message);
        if (!isfinite(p->position[i].nll) || (p->position[i].compared && !isfinite(p->position[i].kl)))
            return pl_fail(err, PL_ERR_NUMERIC, "the %s at position %d are not finite",
                           isfinite(p->position[i].nll) ? "reference's logits" : "logits", p->at + i);
        pl_quality_count(q, &p->position[i]);
    }
    return PL_OK;
}

static pl_status score_piece(piece *p, pl_quality *q, pl_error *err)
{
    const pl_evaluation *what = p->what;
    const int32_t *ids = ids_of(what->passages, p->passage) + p->at;
    PL_TRY(pl_logits(what->session, ids, (size_t)p->n, true, p->e->logits, err));
    if (what->reference) {
        pl_status status = pl_logits(what->reference, ids, (size_t)p->n, true, p->e->reference, err);
        if (status != PL_OK)
            return pl_fail_within(err, status, "reference");
    }
    pl_pool_for(p->e->pool, p->n, 1, measure_rows, p);
    PL_TRY(count_rows(p, q, err));
    return what->save ? pl_logits_writer_add(what->save, p->e->rows, p->n, err) : PL_OK;
}

/* ---- passages ------------------------------------------------------------------------------------- */

static pl_status report(const pl_evaluation *what, int32_t tokens, pl_error *err)
{
    if (what->on_tokens && !what->on_tokens(what->user, tokens))
        return pl_fail(err, PL_ERR_CANCELLED, "stopped");
    return PL_OK;
}

/* K/V of the tokens before those that are scored: as a prompt, whose logits nobody asks for. */
static pl_status read_prompt(pl_session *session, const int32_t *ids, int32_t n, pl_error *err)
{
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.max_tokens = 0;
    PL_TRY(pl_session_truncate(session, 0, err));
    return n ? pl_generate(session, ids, (size_t)n, &params, NULL, err) : PL_OK;
}

/* All scored positions are in [*first, *end); false where there are none. */
static bool scored_range(const pl_passages *passages, int32_t passage, int32_t *first, int32_t *end)
{
    *first = 0;
    *end = passages->length - 1;
    while (*first < *end && !pl_passages_scores(passages, passage, *first))
        ++*first;
    while (*first < *end && !pl_passages_scores(passages, passage, *end - 1))
        --*end;
    return *first < *end;
}

static pl_status evaluate_passage(const pl_evaluation *what, piece *p, pl_quality *q, pl_error *err)
{
    const int32_t *ids = ids_of(what->passages, p->passage);
    int32_t first, end;
    if (!scored_range(what->passages, p->passage, &first, &end))
        return PL_OK;
    PL_TRY(read_prompt(what->session, ids, first, err));
    if (what->reference) {
        pl_status status = read_prompt(what->reference, ids, first, err);
        if (status != PL_OK)
            return pl_fail_within(err, status, "reference");
    }
    PL_TRY(report(what, first, err));
    for (p->at = first; p->at < end; p->at += p->n) {
        p->n = end - p->at < PL_EVALUATE_ROWS ? end - p->at : PL_EVALUATE_ROWS;
        PL_TRY(score_piece(p, q, err));
        PL_TRY(report(what, p->at + p->n, err));
    }
    return PL_OK;
}

static pl_status make_rows(pl_evaluator *e, pl_error *err)
{
    size_t bytes = pl_logits_row_bytes(e->vocab) * PL_EVALUATE_ROWS;
    if (!e->rows)
        e->rows = malloc(bytes);
    return e->rows ? PL_OK : pl_fail_memory(err, bytes, "logits to write");
}

pl_status pl_evaluate(pl_evaluator *evaluator, const pl_evaluation *what, int32_t *done, pl_quality *q, pl_error *err)
{
    pl_status status;
    if (pl_passages_scored(what->passages, what->passages->n) < 1)
        return pl_fail(err, PL_ERR_ARGUMENT, "pieces of %d tokens leave nothing to score", what->passages->length);
    piece *p = malloc(sizeof *p);
    if (!p)
        return pl_fail_memory(err, sizeof *p, "positions");
    p->e = evaluator;
    p->what = what;
    if (what->save)
        PL_TRY_GOTO(make_rows(evaluator, err));
    for (status = PL_OK; *done < what->passages->n;) {
        pl_quality sums = *q;
        p->passage = *done;
        status = evaluate_passage(what, p, &sums, err);
        if (status != PL_OK) {
            pl_fail_within(err, status, "piece %d of the text", p->passage);
            break;
        }
        *q = sums;
        ++*done;
        if (what->reference_file)
            pl_logits_file_drop(what->reference_file, p->passage);
        if (what->on_passage)
            PL_TRY_GOTO(what->on_passage(what->user, err));
    }
fail:
    free(p);
    return status;
}

/* ---- paths ---------------------------------------------------------------------------------------- */

pl_status pl_evaluate_check_path(const pl_model *model, const char *path, pl_error *err)
{
    pl_path parsed;
    return pl_path_parse(model->checkpoint, path, &parsed, err);
}

const char *pl_evaluate_default_path(const pl_model *model)
{
    return pl_path_default(model->checkpoint);
}
