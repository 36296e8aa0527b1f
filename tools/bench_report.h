/* The results of `pleiad bench`, in its formats. */
#ifndef PL_TOOLS_BENCH_REPORT_H
#define PL_TOOLS_BENCH_REPORT_H

#include "host/base/json_out.h"
#include "host/base/options.h"

typedef struct pl_bench_result {
    const char *model;
    const char *backend;
    const char *ple; /* placement of the per-layer table; NULL: of no matter */
    const char *path;
    int32_t threads, batch_rows;
    size_t model_bytes;      /* of weights */
    int32_t n_prompt, n_gen; /* one of them is 0 */
    const double *rates;     /* tokens a second, one a repetition, in rising order */
    size_t n;
    size_t token_bytes; /* weights read for a generated token */
    double bandwidth;   /* measured bytes a second that the threads can read; 0: not measured */
} pl_bench_result;

typedef struct pl_bench_report {
    pl_bench_output format;
    pl_json json;
    int backend_width; /* of the table's column */
    bool begun;
} pl_bench_report; /* all zero but for the format: nothing reported yet */

void pl_bench_report_add(pl_bench_report *report, const pl_bench_result *result);
pl_status pl_bench_report_end(pl_bench_report *report, pl_error *err);

double pl_bench_mean(const double *v, size_t n);
double pl_bench_deviation(const double *v, size_t n); /* of the sample; 0 where n < 2 */
double pl_bench_median(const double *sorted, size_t n);

#endif
