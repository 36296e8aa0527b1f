#include "host/engine/draft.h"

#include <stdlib.h>

const char *pl_draft_source_name(pl_draft_source source)
{
    static const char *const names[PL_DRAFT_SOURCES] = {"given", "ngram", "path"};
    return names[source];
}

pl_status pl_drafting_check(const pl_drafting *asked, pl_error *err)
{
    if (asked->most < -1 || asked->most > PL_DRAFT_MOST)
        return pl_fail(err, PL_ERR_ARGUMENT, "draft: most is %d, expected -1 to %d", asked->most, PL_DRAFT_MOST);
    return PL_OK;
}

pl_status pl_draft_create(const pl_drafting *asked, int32_t room, int32_t vocab, pl_draft **out, pl_error *err)
{
    *out = NULL;
    if (asked->most == 0)
        return PL_OK;
    pl_draft *d = calloc(1, sizeof *d);
    if (!d)
        return pl_fail_memory(err, sizeof *d, "drafts");
    d->asked = *asked;
    d->vocab = vocab;
    d->asked.path = NULL;
    d->by_path = asked->path != NULL;
    pl_status status = pl_ngrams_create(room, &d->ngrams, err);
    if (status != PL_OK) {
        pl_draft_free(d);
        return status;
    }
    *out = d;
    return PL_OK;
}

void pl_draft_free(pl_draft *d)
{
    if (!d)
        return;
    pl_ngrams_free(d->ngrams);
    free(d);
}

/* ---- proposals ---------------------------------------------------------------------------------- */

static int most_of(const pl_draft *d, int32_t most)
{
    int own = d->asked.most < 0 ? PL_DRAFT_AUTO : d->asked.most;
    return most < 0 ? 0 : most < own ? most : own;
}

/* How many of the first `found` are tokens. */
static int count_tokens(const pl_draft *d, int found)
{
    int n = 0;
    while (n < found && d->token[n] >= 0 && d->token[n] < d->vocab)
        n++;
    return n;
}

void pl_draft_find(pl_draft *d, const pl_draft_sense *sense, const int32_t *tokens, int32_t n, int32_t most)
{
    most = most_of(d, most);
    int found = 0;
    d->kind = PL_DRAFT_KIND_GIVEN;
    if (most > 0 && d->asked.propose)
        found = d->asked.propose(d->asked.user, tokens, (size_t)n, most, d->token);
    if (most > 0 && found <= 0) {
        int32_t same = pl_ngrams_find(d->ngrams, tokens, n, most, d->token);
        found = same > 0 ? most : 0;
        d->kind = PL_DRAFT_KIND_NGRAM + same - PL_NGRAM_LEAST;
    }
    found = count_tokens(d, found < most ? found : most);
    pl_draft_item_fill(&d->item, &d->chances, &sense->chances, d->kind, found);
}

/* ---- how many ----------------------------------------------------------------------------------- */

#define GROUP 32 /* answers that are planned for together; behind them, none verifies anything */
#define PROBED 2 /* proposals verified where it does not pay, to see */

static bool fixed(const pl_draft *d)
{
    return d->asked.most > 0;
}

/* Those who take what they get. Returns how many that is. */
static int give_fixed(pl_draft *const *drafts, int n, int room)
{
    int given = 0;
    for (int i = 0; i < n; i++) {
        pl_draft_item *item = &drafts[i]->item;
        int left = room > given ? room - given : 0;
        item->n = !fixed(drafts[i]) ? 0 : item->most < left ? item->most : left;
        given += item->n;
    }
    return given;
}

/* Seconds of the path's step for so many rows. */
static double path_seconds(const pl_draft_sense *sense, int rows, double share)
{
    if (sense->path_cost.scale == 0)
        return share * pl_draft_cost_expect(&sense->cost, rows);
    return pl_draft_cost_expect(&sense->path_cost, rows);
}

/* What a path could propose to: those that have nothing else. */
typedef struct by_path {
    int n, fixed;
    double chance; /* mean */
} by_path;

static by_path count_by_path(const pl_draft_sense *sense, pl_draft *const *drafts, int n)
{
    by_path p = {0};
    for (int i = 0; i < n; i++) {
        const pl_draft *d = drafts[i];
        if (!d->by_path || d->item.n > 0)
            continue;
        p.n++;
        p.chance += pl_draft_chance(&d->chances, &sense->chances, PL_DRAFT_KIND_PATH);
        p.fixed = d->asked.most > p.fixed ? d->asked.most : p.fixed;
    }
    p.chance /= p.n > 0 ? p.n : 1;
    return p;
}

/* Tries what does not pay, where enough time has been saved up for that. */
static int probe(pl_draft_sense *sense, pl_draft_item *const *items, int n, double rows, int room, const by_path *p,
                 double path_s)
{
    int most = room < PROBED ? room : PROBED;
    double step = pl_draft_cost_expect(&sense->cost, rows);
    for (int i = 0; i < n; i++) {
        int tried = items[i]->most < most ? items[i]->most : most;
        double cost = pl_draft_cost_expect(&sense->cost, rows + tried) - step;
        if (tried > 0 && pl_draft_probe_take(&sense->probe, cost)) {
            items[i]->n = tried;
            return 0;
        }
    }
    double cost = pl_draft_cost_expect(&sense->cost, rows + p->n) - step + path_s;
    return p->n > 0 && pl_draft_probe_take(&sense->probe, cost);
}

int pl_drafts_choose(pl_draft_sense *sense, pl_draft *const *drafts, int n, double rows, int answers, int room,
                     int by_path_most, double path_share)
{
    pl_draft_item *items[GROUP] = {NULL};
    int n_items = 0, given = give_fixed(drafts, n, room);
    for (int i = 0; i < n && n_items < GROUP; i++)
        if (!fixed(drafts[i]) && drafts[i]->item.most > 0)
            items[n_items++] = &drafts[i]->item;
    pl_draft_yield y = pl_draft_plan(items, n_items, rows + given, room - given, answers, &sense->cost);
    for (int i = 0; i < n_items; i++)
        given += items[i]->n;
    by_path p = count_by_path(sense, drafts, n);
    by_path_most = p.n > 0 && (room - given) / p.n < by_path_most ? (room - given) / p.n : by_path_most;
    if (p.n > 0 && p.fixed > 0)
        return p.fixed < by_path_most ? p.fixed : by_path_most;
    double path_s = path_seconds(sense, p.n, path_share);
    int k = p.n > 0 ? pl_draft_plan_path(p.chance, path_s, p.n, by_path_most, rows + given, y, &sense->cost) : 0;
    if (k > 0 || given > 0)
        return k;
    k = probe(sense, items, n_items, rows, room, &p, path_s);
    pl_draft_probe_earn(&sense->probe, y.seconds);
    return k < by_path_most ? k : by_path_most;
}

void pl_draft_settle(pl_draft *d, pl_draft_sense *sense, int accepted)
{
    static const pl_draft_source source[2] = {PL_DRAFT_GIVEN, PL_DRAFT_PATH};
    pl_draft_source from = d->kind < PL_DRAFT_KIND_NGRAM ? source[d->kind] : PL_DRAFT_NGRAM;
    d->counts.drafted[from] += (uint64_t)d->item.n;
    d->counts.accepted[from] += (uint64_t)accepted;
    pl_draft_chances_learn(&d->chances, d->kind, d->item.n, accepted);
    pl_draft_chances_learn(&sense->chances, d->kind, d->item.n, accepted);
    d->item.n = 0;
}
