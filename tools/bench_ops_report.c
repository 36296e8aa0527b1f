#include "tools/bench_ops_report.h"

#include <stdlib.h>
#include <string.h>

/* An op of one step. */
typedef struct line {
    const char *op;
    double calls, seconds;
    double bytes, int8_ops, ops; /* ops: all, also those in floating point */
    double time_share, bandwidth_share, peak_share;
} line;

typedef struct lines {
    line at[PL_COUNTED_OPS + 2]; /* the ops, what lies between them, the sum */
    int n;
    double rows; /* a step */
} lines;

static int slower_first(const void *a, const void *b)
{
    double x = ((const line *)a)->seconds, y = ((const line *)b)->seconds;
    return (x < y) - (x > y);
}

static void add_shares(line *l, const pl_bench_result *r, double step_seconds)
{
    l->time_share = step_seconds > 0 ? l->seconds / step_seconds : 0;
    if (l->seconds <= 0)
        return;
    l->bandwidth_share = r->bandwidth > 0 ? l->bytes / l->seconds / r->bandwidth : 0;
    l->peak_share = r->peak.ops_per_s > 0 ? l->int8_ops / l->seconds / r->peak.ops_per_s : 0;
}

static void gather(lines *out, const pl_bench_result *r)
{
    const pl_op_times *t = &r->times;
    double steps = t->steps > 0 ? (double)t->steps : 1, seconds = t->seconds / steps;
    line all = {.op = "all"}, between = {.op = "between ops", .seconds = seconds};
    out->n = 0;
    out->rows = (double)t->rows / steps;
    for (const pl_counted *c = t->counts->op; c < t->counts->op + t->counts->n; c++) {
        line l = {.op = c->op,
                  .calls = c->calls / steps,
                  .seconds = c->seconds / steps,
                  .bytes = c->stored_bytes / steps,
                  .int8_ops = pl_bench_int8_ops(c) / steps,
                  .ops = (pl_bench_int8_ops(c) + c->f32_ops) / steps};
        all.calls += l.calls;
        all.bytes += l.bytes;
        all.int8_ops += l.int8_ops;
        all.ops += l.ops;
        between.seconds -= l.seconds;
        out->at[out->n++] = l;
    }
    qsort(out->at, (size_t)out->n, sizeof *out->at, slower_first);
    all.seconds = seconds;
    out->at[out->n++] = between;
    out->at[out->n++] = all;
    for (int i = 0; i < out->n; i++)
        add_shares(&out->at[i], r, seconds);
}

/* A share in percent, or nothing. */
static const char *percent(char out[32], double share)
{
    out[0] = '\0';
    if (share >= 0.0005)
        snprintf(out, 32, "%.1f", 100 * share);
    return out;
}

static const char *per_second(char out[32], double amount, double seconds)
{
    out[0] = '\0';
    if (amount > 0 && seconds > 0)
        snprintf(out, 32, "%.1f", amount / seconds / 1e9);
    return out;
}

void pl_bench_ops_table(const pl_bench_result *r, bool markdown)
{
    char test[PL_BENCH_TEST_NAME], time[32], rate[32], share[32], ops[32], peak[32];
    const char *begin = markdown ? "| " : "", *bar = markdown ? " | " : "  ", *end = markdown ? " |\n" : "\n";
    lines l;
    gather(&l, r);
    pl_bench_test_name(&r->test, test);
    printf("%s%s, %s, %d threads, %s: steps of %.4g rows; the threads read %.1f GB/s and do %.0f Gop/s (%s)\n\n",
           markdown ? "\n" : "", r->model, r->path, r->threads, test, l.rows, r->bandwidth / 1e9,
           r->peak.ops_per_s / 1e9, r->peak.name ? r->peak.name : "none");
    printf("%s%-32s%s%7s%s%10s%s%6s%s%9s%s%7s%s%6s%s%9s%s%9s%s%6s%s", begin, "op", bar, "calls", bar, "us", bar, "%",
           bar, "MB", bar, "GB/s", bar, "% mem", bar, "Mop", bar, "Gop/s", bar, "% peak", end);
    if (markdown)
        puts("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (int i = 0; i < l.n; i++) {
        const line *o = &l.at[i];
        printf("%s%-32s%s%7.4g%s%10.1f%s%6s%s%9.2f%s%7s%s%6s%s%9.1f%s%9s%s%6s%s", begin, o->op, bar, o->calls, bar,
               1e6 * o->seconds, bar, percent(time, o->time_share), bar, o->bytes / 1e6, bar,
               per_second(rate, o->bytes, o->seconds), bar, percent(share, o->bandwidth_share), bar, o->ops / 1e6, bar,
               per_second(ops, o->ops, o->seconds), bar, percent(peak, o->peak_share), end);
    }
    putchar('\n');
}

void pl_bench_ops_csv_heading(void)
{
    puts("model,backend,threads,path,n_prompt,n_gen,depth,parallel,rows,op,calls,us,time_share,bytes,bandwidth_share,"
         "ops,int8_ops,peak_share,bandwidth_bytes_per_s,peak,peak_ops_per_s");
}

void pl_bench_ops_csv(const pl_bench_result *r)
{
    lines l;
    gather(&l, r);
    for (int i = 0; i < l.n; i++) {
        const line *o = &l.at[i];
        pl_bench_put_quoted(r->model);
        printf(",%s,%d,", r->backend, r->threads);
        pl_bench_put_quoted(r->path);
        printf(",%d,%d,%d,%d,%.4g,", r->test.n_prompt, r->test.n_gen, r->test.depth, r->test.parallel, l.rows);
        pl_bench_put_quoted(o->op);
        printf(",%.4g,%.2f,%.4f,%.0f,%.4f,%.0f,%.0f,%.4f,%.6g,%s,%.6g\n", o->calls, 1e6 * o->seconds, o->time_share,
               o->bytes, o->bandwidth_share, o->ops, o->int8_ops, o->peak_share, r->bandwidth,
               r->peak.name ? r->peak.name : "", r->peak.ops_per_s);
    }
}

void pl_bench_ops_json(pl_json *json, const pl_bench_result *r)
{
    lines l;
    gather(&l, r);
    pl_json_put_int(json, "steps", r->times.steps);
    pl_json_put_int(json, "rows", r->times.rows);
    pl_json_key_array(json, "ops");
    for (int i = 0; i < l.n; i++) {
        const line *o = &l.at[i];
        pl_json_begin_object(json);
        pl_json_put_string(json, "op", o->op);
        pl_json_put_double(json, "calls", o->calls);
        pl_json_put_double(json, "us", 1e6 * o->seconds);
        pl_json_put_double(json, "time_share", o->time_share);
        pl_json_put_double(json, "bytes", o->bytes);
        pl_json_put_double(json, "bandwidth_share", o->bandwidth_share);
        pl_json_put_double(json, "ops", o->ops);
        pl_json_put_double(json, "int8_ops", o->int8_ops);
        pl_json_put_double(json, "peak_share", o->peak_share);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}
