/* Decode steps of several sequences at once on a card. */
#ifndef PL_BENCH_CARD_STEPS_H
#define PL_BENCH_CARD_STEPS_H

#include "host/base/status.h"

#define BENCH_ROWS_MAX 16
#define BENCH_CARD_HEAD "kind,name,detail,rows,us,GB/s,share,TOP/s,per_s"

/* Prints CSV: for each of rows[0 .. n) the median time of a step of that many sequences, which stand between 512 and
 * 900 tokens; then the card's memory in use. ple: a placement's name. n = 0: of one session of 4096 tokens. */
pl_status pl_bench_steps(const char *model, const char *path, const char *ple, const int *rows, int n, pl_error *err);

#endif
