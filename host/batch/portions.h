/* Who may hold how many lines of a batch, so that all ranks end together: pure functions.
 *
 * A rank's share of the lines that are open (with somebody or nobody) is as its rate to the rates of all. Far from the end that is
 * more than anybody asks for; near the end it keeps a rank from taking what others would have done sooner. */
#ifndef PL_BATCH_PORTIONS_H
#define PL_BATCH_PORTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* How many lines a rank should have in stock: twice what it took while it waited for the last ones; twice as many as it had when
 * they came too late (`starved`); less, but only by and by, when that was more than enough. */
int64_t pl_stock_wanted(int64_t wanted, int64_t taken, bool starved);

typedef struct pl_portion {
    bool works;
    int64_t held; /* lines in its hands */
    double done;  /* lines since `since`, the old ones forgotten by and by */
    double since; /* seconds; 0: it has had no line yet */
} pl_portion;

void pl_portion_took(pl_portion *p, int64_t lines, double now);
void pl_portion_gave(pl_portion *p, int64_t lines, double now);

/* Lines a second; 0: nothing is known yet. */
double pl_portion_rate(const pl_portion *p, double now);

/* Sets out[i] to how many lines more than it has a rank may get (less than 0: it holds more than its share), left lines being in
 * nobody's hands. A rank that works and has none may always get one. */
void pl_portion_rooms(const pl_portion *ranks, int n, int64_t left, double now, int64_t *out);

#endif
