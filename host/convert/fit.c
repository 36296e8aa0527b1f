#include "host/convert/fit.h"

#include <stdlib.h>

/* ---- the convex hull of each item ---------------------------------------------------------------- */

static int fewest_bytes(const pl_fit_item *item)
{
    int best = 0;
    for (int i = 1; i < item->n; i++) {
        const pl_fit_choice *c = &item->choice[i], *b = &item->choice[best];
        if (c->bytes < b->bytes || (c->bytes == b->bytes && c->loss < b->loss))
            best = i;
    }
    return best;
}

static double rate_of(const pl_fit_choice *from, const pl_fit_choice *to)
{
    return (from->loss - to->loss) / (double)(to->bytes - from->bytes);
}

/* The choice with more bytes that saves the most loss for each of them; -1: none saves any. */
static int steepest(const pl_fit_item *item, int from)
{
    int best = -1;
    for (int i = 0; i < item->n; i++) {
        const pl_fit_choice *f = &item->choice[from], *c = &item->choice[i];
        if (c->bytes <= f->bytes || !(c->loss < f->loss))
            continue;
        if (best < 0 || rate_of(f, c) > rate_of(f, &item->choice[best]))
            best = i;
    }
    return best;
}

static int by_falling_rate(const void *a, const void *b)
{
    const pl_fit_step *x = a, *y = b;
    if (x->rate != y->rate)
        return x->rate < y->rate ? 1 : -1;
    if (x->item != y->item)
        return x->item > y->item ? 1 : -1;
    return x->order - y->order;
}

/* Each item's steps along its hull, all of them, the best first. */
static size_t list_steps(const pl_fit_item *items, size_t n, pl_fit_step *steps)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        int to, order = 0;
        for (int from = fewest_bytes(&items[i]); (to = steepest(&items[i], from)) >= 0; from = to)
            steps[count++] = (pl_fit_step){.item = i,
                                           .from = from,
                                           .to = to,
                                           .order = order++,
                                           .rate = rate_of(&items[i].choice[from], &items[i].choice[to])};
    }
    qsort(steps, count, sizeof *steps, by_falling_rate);
    return count;
}

/* ---- spending ------------------------------------------------------------------------------------ */

static int64_t cost(const pl_fit_item *item, int to)
{
    return item->choice[to].bytes - item->choice[item->chosen].bytes;
}

/* The single change that saves the most loss for at most `left` bytes; false where none does. */
static bool fill_one(pl_fit_item *items, size_t n, int64_t *left)
{
    double best = 0;
    size_t item = 0;
    int to = -1;
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < items[i].n; c++) {
            double saved = items[i].choice[items[i].chosen].loss - items[i].choice[c].loss;
            if (saved > best && cost(&items[i], c) <= *left) {
                best = saved;
                item = i;
                to = c;
            }
        }
    if (to < 0)
        return false;
    *left -= cost(&items[item], to);
    items[item].chosen = to;
    return true;
}

bool pl_fit_choose(pl_fit_item *items, size_t n, int64_t budget, pl_fit_step *scratch, double *rate)
{
    int64_t left = budget;
    for (size_t i = 0; i < n; i++) {
        items[i].chosen = fewest_bytes(&items[i]);
        left -= items[i].choice[items[i].chosen].bytes;
    }
    *rate = 0;
    if (left < 0)
        return false;
    size_t n_steps = list_steps(items, n, scratch);
    for (size_t i = 0; i < n_steps; i++) {
        pl_fit_item *item = &items[scratch[i].item];
        if (item->chosen == scratch[i].from && cost(item, scratch[i].to) <= left) {
            left -= cost(item, scratch[i].to);
            item->chosen = scratch[i].to;
        } else if (*rate == 0) {
            *rate = scratch[i].rate;
        }
    }
    while (fill_one(items, n, &left))
        ;
    return true;
}
