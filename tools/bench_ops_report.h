/* `pleiad bench --ops`: what each kind of op of a step takes, and how near it is to the machine's limits. */
#ifndef PL_TOOLS_BENCH_OPS_REPORT_H
#define PL_TOOLS_BENCH_OPS_REPORT_H

#include "tools/bench_report.h"

/* Of a step, the slowest first; then what lies between the ops, and the sum. Shares: of the step's time, of the
 * measured bandwidth (stored bytes: weights and K/V), of the measured peak (8-bit operations). */
void pl_bench_ops_table(const pl_bench_result *r, bool markdown);
void pl_bench_ops_csv_heading(void);
void pl_bench_ops_csv(const pl_bench_result *r);
void pl_bench_ops_json(pl_json *json, const pl_bench_result *r); /* "steps", "rows" and "ops" of an open object */

#endif
