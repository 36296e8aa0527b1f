#include "host/engine/draft_plan.h"

#include <math.h>
#include <string.h>

/* ---- what steps cost ---------------------------------------------------------------------------- */

#define LEARNED 0.1 /* share of the news */
#define LEARNED_FIRST 0.7
#define LARGEST_NEWS 2.0 /* a step that was interrupted tells little */
#define GUESSED_ROW 0.06 /* of a step of one row: what another costs where nothing is known */

static int nearest(double rows)
{
    int r = (int)(rows + 0.5);
    return r < 1 ? 1 : r > PL_DRAFT_COST_ROWS ? PL_DRAFT_COST_ROWS : r;
}

/* Relative to a step of one row, as the first guess has it. */
static double guess(double rows)
{
    return 1 + GUESSED_ROW * (rows - 1);
}

static double shape_at(const pl_draft_cost *cost, double rows)
{
    int below = nearest(rows), above = below + 1;
    while (below > 0 && cost->shape[below] == 0)
        below--;
    while (above <= PL_DRAFT_COST_ROWS && cost->shape[above] == 0)
        above++;
    if (below > 0 && below == nearest(rows) && rows <= PL_DRAFT_COST_ROWS)
        return cost->shape[below];
    if (below > 0 && above <= PL_DRAFT_COST_ROWS) {
        double part = (rows - below) / (above - below);
        return (1 - part) * cost->shape[below] + part * cost->shape[above];
    }
    if (below > 0)
        return cost->shape[below] * guess(rows) / guess(below);
    if (above <= PL_DRAFT_COST_ROWS)
        return cost->shape[above] * guess(rows) / guess(above);
    return guess(rows);
}

void pl_draft_cost_learn(pl_draft_cost *cost, double rows, double seconds)
{
    if (!(rows > 0 && rows < PL_DRAFT_COST_ROWS + 0.5 && seconds > 0))
        return;
    int r = nearest(rows);
    if (cost->scale == 0)
        cost->scale = seconds / shape_at(cost, rows);
    bool known = cost->shape[r] > 0;
    double news = seconds / (cost->scale * shape_at(cost, rows));
    news = fmin(fmax(news, 1 / LARGEST_NEWS), LARGEST_NEWS);
    /* Of a step that is known, what is off may belong to all: a longer context, a busier machine. */
    cost->shape[r] = shape_at(cost, r) * pow(news, known ? LEARNED : LEARNED_FIRST);
    if (known)
        cost->scale *= pow(news, LEARNED);
}

double pl_draft_cost_expect(const pl_draft_cost *cost, double rows)
{
    return (cost->scale > 0 ? cost->scale : 1) * shape_at(cost, rows);
}

/* ---- what is accepted --------------------------------------------------------------------------- */

#define KEPT 0.95       /* of older experience, with each proposal of its kind */
#define SUPPORT 4       /* proposals' worth of others' experience */
#define FIRST_SUPPORT 2 /* proposals' worth of the guess before there is any */
#define GUESSED_CHANCE 0.6

int pl_draft_kind(int kind, int i)
{
    if (kind < PL_DRAFT_KIND_NGRAM)
        return kind;
    return kind + i < PL_DRAFT_KINDS ? kind + i : PL_DRAFT_KINDS - 1;
}

void pl_draft_chances_learn(pl_draft_chances *c, int kind, int n, int accepted)
{
    for (int i = 0; i < n && i <= accepted; i++) {
        int k = pl_draft_kind(kind, i);
        c->accepted[k] = KEPT * c->accepted[k] + (i < accepted);
        c->seen[k] = KEPT * c->seen[k] + 1;
    }
}

double pl_draft_chance(const pl_draft_chances *own, const pl_draft_chances *all, int kind)
{
    double of_all = (all->accepted[kind] + FIRST_SUPPORT * GUESSED_CHANCE) / (all->seen[kind] + FIRST_SUPPORT);
    return (own->accepted[kind] + SUPPORT * of_all) / (own->seen[kind] + SUPPORT);
}

/* ---- the plan ----------------------------------------------------------------------------------- */

#define LEAST_GAIN 1.02 /* less is not worth it */

void pl_draft_item_fill(pl_draft_item *item, const pl_draft_chances *own, const pl_draft_chances *all, int kind, int n)
{
    double reach = 1;
    item->most = n < PL_DRAFT_MOST ? n : PL_DRAFT_MOST;
    item->n = 0;
    for (int i = 0; i < item->most; i++) {
        reach *= pl_draft_chance(own, all, pl_draft_kind(kind, i));
        item->reach[i] = (float)reach;
    }
}

/* The item whose next proposal is likeliest to be accepted; NULL: all are given out. */
static pl_draft_item *likeliest(pl_draft_item *const *items, int n)
{
    pl_draft_item *best = NULL;
    for (int i = 0; i < n; i++)
        if (items[i]->n < items[i]->most && (!best || items[i]->reach[items[i]->n] > best->reach[best->n]))
            best = items[i];
    return best;
}

/* Takes proposals back, those least likely to be accepted first. */
static void take_back(pl_draft_item *const *items, int n, int proposals)
{
    for (; proposals > 0; proposals--) {
        pl_draft_item *least = NULL;
        for (int i = 0; i < n; i++)
            if (items[i]->n > 0 && (!least || items[i]->reach[items[i]->n - 1] <= least->reach[least->n - 1]))
                least = items[i];
        least->n--;
    }
}

pl_draft_yield pl_draft_plan(pl_draft_item *const *items, int n_items, double rows, int room, int answers,
                             const pl_draft_cost *cost)
{
    pl_draft_yield best = {answers, pl_draft_cost_expect(cost, rows)};
    double best_rate = LEAST_GAIN * best.tokens / best.seconds, tokens = answers, seconds = best.seconds;
    int best_n = 0, given = 0;
    for (int i = 0; i < n_items; i++)
        items[i]->n = 0;
    pl_draft_item *item;
    while (given < room && (item = likeliest(items, n_items)) != NULL) {
        tokens += item->reach[item->n++];
        seconds = fmax(seconds, pl_draft_cost_expect(cost, rows + ++given));
        if (tokens / seconds > best_rate) {
            best_rate = tokens / seconds;
            best = (pl_draft_yield){tokens, seconds};
            best_n = given;
        }
    }
    take_back(items, n_items, given - best_n);
    return best;
}

int pl_draft_plan_path(double chance, double draft_s, int answers, int most, double rows, pl_draft_yield present,
                       const pl_draft_cost *cost)
{
    double best_rate = LEAST_GAIN * present.tokens / present.seconds, tokens = present.tokens, reach = 1;
    double seconds = present.seconds; /* more rows never take less */
    int best = 0;
    for (int k = 1; k <= most; k++) {
        reach *= chance;
        tokens += answers * reach;
        seconds = fmax(seconds, pl_draft_cost_expect(cost, rows + k * answers));
        double rate = tokens / (seconds + k * draft_s);
        if (rate > best_rate) {
            best_rate = rate;
            best = k;
        }
    }
    return best;
}

/* ---- looking again ------------------------------------------------------------------------------ */

void pl_draft_probe_earn(pl_draft_probe *probe, double step_s)
{
    probe->saved_s += PL_DRAFT_PROBE_SHARE * step_s;
}

bool pl_draft_probe_take(pl_draft_probe *probe, double cost_s)
{
    if (probe->saved_s < cost_s)
        return false;
    probe->saved_s = 0;
    return true;
}
