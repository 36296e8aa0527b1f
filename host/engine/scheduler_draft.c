#include "host/engine/scheduler_parts.h"

#include <stdlib.h>
#include <string.h>

pl_status pl_proposals_start(pl_scheduler *s, pl_error *err)
{
    size_t n = (size_t)s->capacity;
    s->proposing = calloc(n, sizeof *s->proposing);
    s->draft = calloc(n, sizeof *s->draft);
    s->by_path = calloc(n, sizeof *s->by_path);
    return s->proposing && s->draft && s->by_path ? PL_OK
                                                  : pl_fail_memory(err, n * sizeof *s->by_path, "a scheduler's drafts");
}

void pl_proposals_stop(pl_scheduler *s)
{
    free(s->proposing);
    free(s->draft);
    free(s->by_path);
}

/* ---- proposals ---------------------------------------------------------------------------------- */

/* Tokens that may be of use to it behind the next one. */
static int32_t most_of(const pl_scheduler *s, const pl_task *t)
{
    int32_t room = s->engine->context - t->n_tokens, max = t->asked.generation.max_tokens;
    int32_t left = max < 0 ? room : max - (int32_t)pl_reply_tokens(t->reply) - 1;
    return left < room ? left : room;
}

/* What the step has without proposals, and who could verify some: into proposing[] and draft[]. */
typedef struct present {
    int32_t rows, answers, n;
} present;

static present look(pl_scheduler *s)
{
    present p = {0};
    s->equal_rows = 0;
    for (int32_t i = 0; i < s->n_picked; i++) {
        pl_task *t = s->picked[i];
        int32_t wanted = t->sum ? t->rows : pl_task_chooses(t);
        s->equal_rows += wanted + (t->rows - wanted) * s->prompt_weight;
        p.rows += t->rows;
        p.answers += pl_task_chooses(t);
        if (!t->draft || t->rows != 1 || !pl_task_chooses(t) || most_of(s, t) <= 0)
            continue;
        pl_draft_find(t->draft, &s->sense, t->tokens, t->n_tokens, most_of(s, t));
        t->draft->by_path = t->draft_lane && t->draft_lane->weight < pl_task_last_lane(t)->weight;
        s->draft[p.n] = t->draft;
        s->proposing[p.n++] = t;
    }
    return p;
}

/* Those whom a path can propose something, into by_path[]; returns how many. *most: tokens that are of use to all;
 * *share: what a row of the path costs on average, as a share of one of theirs. */
static int32_t find_by_path(pl_scheduler *s, int32_t n, int32_t *most, double *share)
{
    int32_t found = 0;
    *most = PL_DRAFT_AUTO;
    *share = 0;
    for (int32_t i = 0; i < n; i++) {
        pl_task *t = s->proposing[i];
        if (!t->draft->by_path || t->draft->item.n > 0)
            continue;
        *most = most_of(s, t) < *most ? most_of(s, t) : *most;
        *share += t->draft_lane->weight / pl_task_last_lane(t)->weight;
        s->by_path[found++] = (pl_draft_by_path){.draft = t->draft,
                                                 .reply = t->reply,
                                                 .path = &t->draft_lane->path,
                                                 .sequence = t->sequence,
                                                 .held = t->held,
                                                 .last = t->tokens[t->held]};
    }
    *share /= found > 0 ? found : 1;
    return found;
}

static void choose(pl_scheduler *s, const present *p)
{
    int32_t most, room = s->engine->batch_rows - p->rows;
    double share;
    find_by_path(s, p->n, &most, &share);
    int steps = pl_drafts_choose(&s->sense, s->draft, p->n, s->equal_rows, p->answers, room, most, share);
    if (steps == 0)
        return;
    int32_t n = find_by_path(s, p->n, &most, &share);
    pl_draft_by_path_run(s->engine, &s->sense, s->room, s->by_path, n, steps, s->row);
}

void pl_proposals_add(pl_scheduler *s)
{
    present p = look(s);
    if (p.n == 0)
        return;
    choose(s, &p);
    for (int32_t i = 0; i < p.n; i++) {
        pl_task *t = s->proposing[i];
        int32_t n = t->draft->item.n;
        if (n > 0 && pl_kv_fits(s->engine->kv, t->sequence, n) &&
            pl_kv_extend(s->engine->kv, t->sequence, n, NULL) == PL_OK) {
            memcpy(t->tokens + t->n_tokens, t->draft->token, (size_t)n * sizeof *t->tokens);
            t->proposed = n;
            t->rows += n;
            s->equal_rows += n;
        }
        t->draft->item.n = t->proposed;
    }
}

void pl_proposals_drop(pl_task *t)
{
    t->rows -= t->proposed;
    t->proposed = 0;
}

/* ---- what came of them -------------------------------------------------------------------------- */

void pl_proposals_settle(pl_scheduler *s, pl_task *t)
{
    if (t->proposed == 0)
        return;
    int32_t accepted = t->status == PL_OK ? pl_reply_chosen(t->reply) - 1 : 0;
    pl_draft_counts before = t->draft->counts;
    t->held -= t->proposed - accepted;
    pl_kv_truncate(s->engine->kv, t->sequence, t->held);
    pl_draft_settle(t->draft, &s->sense, accepted);
    for (int i = 0; i < PL_DRAFT_SOURCES; i++) {
        s->count.drafts.drafted[i] += t->draft->counts.drafted[i] - before.drafted[i];
        s->count.drafts.accepted[i] += t->draft->counts.accepted[i] - before.accepted[i];
    }
    t->proposed = 0;
}
