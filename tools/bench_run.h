/* One run of a measurement of `pleiad bench`. */
#ifndef PL_TOOLS_BENCH_RUN_H
#define PL_TOOLS_BENCH_RUN_H

#include "host/base/status.h"
#include "host/measure/op_timer.h"

/* Reads n_prompt tokens, or generates n_gen tokens for each of `parallel` sequences, behind `depth` tokens. */
typedef struct pl_bench_case {
    int32_t n_prompt, n_gen; /* one of them is 0 */
    int32_t depth, parallel;
} pl_bench_case;

typedef struct pl_bench_machine {
    pl_engine *engine;   /* with room for `parallel` sessions beside this one */
    pl_session *session; /* whose path counts */
    const int32_t *tokens;
    pl_op_timer *timer; /* counts what is measured; may be NULL */
} pl_bench_machine;

/* Tokens that a case needs, and the context. */
int32_t pl_bench_tokens(const pl_bench_case *c);
int32_t pl_bench_context(const pl_bench_case *c, int32_t batch_rows);

/* *rate: tokens a second, of all sequences together; of generated ones, those after each one's first. */
pl_status pl_bench_run(const pl_bench_machine *m, const pl_bench_case *c, double *rate, pl_error *err);

#endif
