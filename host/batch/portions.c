#include "host/batch/portions.h"

#include <math.h>

#define REMEMBERED 128 /* lines; then half of what was counted is forgotten */

int64_t pl_stock_wanted(int64_t wanted, int64_t taken, bool starved)
{
    int64_t demand = 2 * (starved && wanted > taken ? wanted : taken), less = wanted - (wanted + 7) / 8;
    return demand > less ? demand : less > 1 ? less : 1;
}

void pl_portion_took(pl_portion *p, int64_t lines, double now)
{
    if (p->since == 0)
        p->since = now;
    p->held += lines;
}

void pl_portion_gave(pl_portion *p, int64_t lines, double now)
{
    p->held = p->held > lines ? p->held - lines : 0;
    p->done += (double)lines;
    if (p->done >= REMEMBERED) {
        p->done /= 2;
        p->since = now - (now - p->since) / 2;
    }
}

double pl_portion_rate(const pl_portion *p, double now)
{
    return p->done > 0 ? p->done / fmax(now - p->since, 1e-6) : 0;
}

/* A rank that has done nothing yet counts like the others on average, as long as it could be that fast. */
static double weight(const pl_portion *p, double mean, double now)
{
    double rate = pl_portion_rate(p, now);
    if (!p->works || rate > 0 || mean == 0)
        return p->works ? rate > 0 ? rate : 1 : 0;
    return p->since == 0 ? mean : fmin(mean, fmax((double)p->held, 1) / fmax(now - p->since, 1e-6));
}

void pl_portion_rooms(const pl_portion *ranks, int n, int64_t left, double now, int64_t *out)
{
    double mean = 0, sum = 0;
    int known = 0;
    int64_t open = left;
    for (int i = 0; i < n; i++) {
        double rate = ranks[i].works ? pl_portion_rate(&ranks[i], now) : 0;
        open += ranks[i].held;
        mean += rate;
        known += rate > 0;
    }
    mean = known ? mean / known : 0;
    for (int i = 0; i < n; i++)
        sum += weight(&ranks[i], mean, now);
    for (int i = 0; i < n; i++) {
        double share = sum > 0 ? (double)open * weight(&ranks[i], mean, now) / sum : 0;
        out[i] = (int64_t)ceil(share - 1e-9 * share) - ranks[i].held;
        if (ranks[i].works && ranks[i].held == 0 && out[i] < 1)
            out[i] = 1;
    }
}
