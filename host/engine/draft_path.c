#include "host/engine/draft_path.h"

#include "host/base/clock.h"

/* Room for the tokens of a step; false where it is lacking. */
static bool extend_all(pl_kv *kv, const pl_draft_by_path *answers, int n, int step)
{
    for (int i = 0; i < n; i++) {
        int32_t sequence = answers[i].sequence;
        if (pl_kv_length(kv, sequence) == answers[i].held + step && pl_kv_extend(kv, sequence, 1, NULL) != PL_OK)
            return false;
    }
    return true;
}

static pl_status guess(pl_engine *e, pl_candidates *room, const pl_draft_by_path *answers, int n, int step)
{
    for (int first = 0; first < n; first += PL_STEP_LOGITS) {
        int part = n - first < PL_STEP_LOGITS ? n - first : PL_STEP_LOGITS;
        const float *logits = NULL;
        PL_TRY(pl_step_logits(e->step, first, part, &logits, NULL));
        for (int i = 0; i < part; i++) {
            const pl_draft_by_path *a = &answers[first + i];
            PL_TRY(pl_reply_guess(a->reply, room, logits + (int64_t)i * e->config->vocab, step, &a->draft->token[step],
                                  NULL));
        }
    }
    return PL_OK;
}

static pl_status run_step(pl_engine *e, pl_candidates *room, const pl_draft_by_path *answers, int n, int step,
                          pl_step_row *rows)
{
    for (int i = 0; i < n; i++) {
        const pl_draft_by_path *a = &answers[i];
        rows[i] = (pl_step_row){.token = step > 0 ? a->draft->token[step - 1] : a->last,
                                .position = a->held + step,
                                .sequence = a->sequence,
                                .path = a->path,
                                .wanted = true,
                                .top = PL_HEAD_GUESS};
    }
    PL_TRY(pl_step_run(e->step, rows, n, NULL, NULL, NULL));
    return guess(e, room, answers, n, step);
}

void pl_draft_by_path_run(pl_engine *e, pl_draft_sense *sense, pl_candidates *room, pl_draft_by_path *answers, int n,
                          int steps, pl_step_row *rows)
{
    int done = 0;
    for (int i = 0; i < n; i++)
        answers[i].length = pl_kv_length(e->kv, answers[i].sequence);
    pl_step_watch(e->step, NULL, NULL);
    while (done < steps && extend_all(e->kv, answers, n, done)) {
        double begin = pl_clock_seconds();
        if (run_step(e, room, answers, n, done, rows) != PL_OK)
            break;
        pl_draft_cost_learn(&sense->path_cost, n, pl_clock_seconds() - begin);
        done++;
    }
    for (int i = 0; i < n; i++) {
        pl_draft *d = answers[i].draft;
        pl_kv_truncate(e->kv, answers[i].sequence, answers[i].length);
        d->kind = PL_DRAFT_KIND_PATH;
        pl_draft_item_fill(&d->item, &d->chances, &sense->chances, d->kind, done);
        d->item.n = done;
    }
}
