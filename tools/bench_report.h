/* The results of `pleiad bench`, in its formats. */
#ifndef PL_TOOLS_BENCH_REPORT_H
#define PL_TOOLS_BENCH_REPORT_H

#include "host/base/json_out.h"
#include "host/base/options.h"
#include "host/base/peak.h"
#include "host/measure/op_timer.h"
#include "tools/bench_run.h"

typedef struct pl_bench_result {
    const char *model;
    const char *backend;
    const char *ple; /* placement of the per-layer table; NULL: of no matter */
    const char *path;
    int32_t threads, batch_rows;
    size_t model_bytes; /* of weights */
    pl_bench_case test;
    const double *rates; /* tokens a second, one a repetition, in rising order */
    size_t n;
    double token_bytes; /* weights and K/V read for a token */
    double token_ops;   /* 8-bit operations for a token; 0: not counted */
    double bandwidth;   /* measured bytes a second that the threads can read; 0: not measured */
    pl_peak peak;       /* likewise of 8-bit operations */
    pl_op_times times;  /* of all repetitions; counts NULL: not asked for */
} pl_bench_result;

typedef struct pl_bench_report {
    pl_bench_output format;
    bool ops; /* shows what results say about ops, and of the rest what is not told by that */
    pl_json json;
    int backend_width; /* of the table's column */
    bool begun;
} pl_bench_report; /* all zero but for the first two: nothing reported yet */

void pl_bench_report_add(pl_bench_report *report, const pl_bench_result *result);
pl_status pl_bench_report_end(pl_bench_report *report, pl_error *err);

#define PL_BENCH_TEST_NAME 64

/* "pp512", "tg32", "tg32 x4 @4096" */
void pl_bench_test_name(const pl_bench_case *c, char out[PL_BENCH_TEST_NAME]);

double pl_bench_mean(const double *v, size_t n);
double pl_bench_deviation(const double *v, size_t n); /* of the sample; 0 where n < 2 */
double pl_bench_median(const double *sorted, size_t n);

/* For CSV: a field that may hold anything. */
void pl_bench_put_quoted(const char *text);

/* 8-bit operations: a 15-bit activation takes two products. */
double pl_bench_int8_ops(const pl_counted *op);

#endif
