#include "tools/bench_report.h"

#include <math.h>
#include <string.h>

#include "tools/bench_ops_report.h"
#include "tools/console.h"

#define LEAST_BACKEND_WIDTH 14

double pl_bench_mean(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    return n ? sum / (double)n : 0;
}

double pl_bench_deviation(const double *v, size_t n)
{
    double mean = pl_bench_mean(v, n), sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (v[i] - mean) * (v[i] - mean);
    return n > 1 ? sqrt(sum / (double)(n - 1)) : 0;
}

double pl_bench_median(const double *sorted, size_t n)
{
    return n == 0 ? 0 : n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double pl_bench_int8_ops(const pl_counted *op)
{
    return 2 * op->int_ops;
}

/* Share of the bandwidth that generating used; 0 for prompts, whose weights serve many tokens. */
static double bandwidth_share(const pl_bench_result *r)
{
    return r->test.n_gen && r->bandwidth > 0 ? pl_bench_mean(r->rates, r->n) * r->token_bytes / r->bandwidth : 0;
}

static double peak_share(const pl_bench_result *r)
{
    return r->peak.ops_per_s > 0 ? pl_bench_mean(r->rates, r->n) * r->token_ops / r->peak.ops_per_s : 0;
}

void pl_bench_test_name(const pl_bench_case *c, char out[PL_BENCH_TEST_NAME])
{
    char parallel[16] = "", depth[16] = "";
    if (c->parallel > 1)
        snprintf(parallel, sizeof parallel, " x%d", c->parallel);
    if (c->depth > 0)
        snprintf(depth, sizeof depth, " @%d", c->depth);
    snprintf(out, PL_BENCH_TEST_NAME, "%s%d%s%s", c->n_prompt ? "pp" : "tg", c->n_prompt ? c->n_prompt : c->n_gen,
             parallel, depth);
}

/* ---- formats ------------------------------------------------------------------------------------ */

static void percent(char out[32], double share)
{
    if (share > 0)
        snprintf(out, 32, "%.0f %%", 100 * share);
    else
        *out = '\0';
}

static void write_row(const pl_bench_result *r, bool markdown, int backend_width)
{
    char test[PL_BENCH_TEST_NAME], rate[48], bytes[32] = "", memory[32], ops[32] = "", peak[32];
    const char *bar = markdown ? " | " : "  ";
    double mean = pl_bench_mean(r->rates, r->n);
    pl_bench_test_name(&r->test, test);
    snprintf(rate, sizeof rate, "%.2f ± %.2f", mean, pl_bench_deviation(r->rates, r->n));
    if (r->test.n_gen)
        snprintf(bytes, sizeof bytes, "%.1f", r->token_bytes / 1e6);
    if (r->token_ops > 0)
        snprintf(ops, sizeof ops, "%.0f", mean * r->token_ops / 1e9);
    percent(memory, bandwidth_share(r));
    percent(peak, peak_share(r));
    /* printf counts bytes; the sign of the deviation is two */
    printf("%s%-24s%s%9.1f%s%-*s%s%-6s%s%7d%s%-16s%s%16s%s%21s%s%9s%s%9s%s%7s%s%6s%s\n", markdown ? "| " : "", r->model,
           bar, (double)r->model_bytes / 1e6, bar, backend_width, r->backend, bar, r->ple ? r->ple : "-", bar,
           r->threads, bar, r->path, bar, test, bar, rate, bar, bytes, bar, memory, bar, ops, bar, peak,
           markdown ? " |" : "");
}

static void write_heading(bool markdown, int backend_width)
{
    const char *bar = markdown ? " | " : "  ";
    printf("%s%-24s%s%9s%s%-*s%s%-6s%s%7s%s%-16s%s%16s%s%20s%s%9s%s%9s%s%7s%s%6s%s\n", markdown ? "| " : "", "model",
           bar, "MB", bar, backend_width, "backend", bar, "ple", bar, "threads", bar, "path", bar, "test", bar,
           "tokens/s", bar, "MB/token", bar, "bandwidth", bar, "Gop/s", bar, "peak", markdown ? " |" : "");
    if (markdown)
        puts("| --- | ---: | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
}

void pl_bench_put_quoted(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static void write_csv(const pl_bench_result *r)
{
    pl_bench_put_quoted(r->model);
    printf(",%zu,", r->model_bytes);
    pl_bench_put_quoted(r->backend);
    printf(",%s,%d,%d,", r->ple ? r->ple : "", r->threads, r->batch_rows);
    pl_bench_put_quoted(r->path);
    printf(",%d,%d,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%.0f,%.6g,%.6g,%d,%d,%.6g,%s,%.6g,%.6g\n", r->test.n_prompt,
           r->test.n_gen, r->n, pl_bench_mean(r->rates, r->n), pl_bench_deviation(r->rates, r->n),
           pl_bench_median(r->rates, r->n), r->rates[0], r->rates[r->n - 1], r->token_bytes, r->bandwidth,
           bandwidth_share(r), r->test.depth, r->test.parallel, r->token_ops, r->peak.name ? r->peak.name : "",
           r->peak.ops_per_s, peak_share(r));
}

static void write_json(pl_json *json, const pl_bench_result *r, bool ops)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "model", r->model);
    pl_json_put_size(json, "model_bytes", r->model_bytes);
    pl_json_put_string(json, "backend", r->backend);
    pl_json_put_string(json, "ple", r->ple);
    pl_json_put_int(json, "threads", r->threads);
    pl_json_put_int(json, "batch_rows", r->batch_rows);
    pl_json_put_string(json, "path", r->path);
    pl_json_put_int(json, "n_prompt", r->test.n_prompt);
    pl_json_put_int(json, "n_gen", r->test.n_gen);
    pl_json_put_double(json, "mean", pl_bench_mean(r->rates, r->n));
    pl_json_put_double(json, "stddev", pl_bench_deviation(r->rates, r->n));
    pl_json_put_double(json, "median", pl_bench_median(r->rates, r->n));
    pl_json_put_double(json, "min", r->rates[0]);
    pl_json_put_double(json, "max", r->rates[r->n - 1]);
    pl_json_key_array(json, "samples");
    for (size_t i = 0; i < r->n; i++)
        pl_json_double(json, r->rates[i]);
    pl_json_end_array(json);
    pl_json_put_size(json, "token_bytes", (size_t)r->token_bytes);
    pl_json_put_double(json, "bandwidth_bytes_per_s", r->bandwidth);
    pl_json_put_double(json, "bandwidth_share", bandwidth_share(r));
    pl_json_put_int(json, "depth", r->test.depth);
    pl_json_put_int(json, "parallel", r->test.parallel);
    pl_json_put_double(json, "token_ops", r->token_ops);
    pl_json_put_string(json, "peak", r->peak.name);
    pl_json_put_double(json, "peak_ops_per_s", r->peak.ops_per_s);
    pl_json_put_double(json, "peak_share", peak_share(r));
    if (ops)
        pl_bench_ops_json(json, r);
    pl_json_end_object(json);
}

/* ---- the report --------------------------------------------------------------------------------- */

/* Before the first result, so that what fails before it prints nothing. */
static void begin(pl_bench_report *report, const pl_bench_result *first)
{
    int width = (int)strlen(first->backend);
    if (report->begun)
        return;
    report->begun = true;
    report->backend_width = width > LEAST_BACKEND_WIDTH ? width : LEAST_BACKEND_WIDTH;
    report->json = pl_json_to_file(stdout);
    switch (report->format) {
    case PL_BENCH_JSON: pl_json_begin_array(&report->json); break;
    case PL_BENCH_CSV:
        if (report->ops)
            pl_bench_ops_csv_heading();
        else
            puts("model,model_bytes,backend,ple,threads,batch_rows,path,n_prompt,n_gen,repetitions,mean,stddev,median,"
                 "min,max,token_bytes,bandwidth_bytes_per_s,bandwidth_share,depth,parallel,token_ops,peak,"
                 "peak_ops_per_s,peak_share");
        break;
    case PL_BENCH_TABLE:
    case PL_BENCH_MD:
        if (!report->ops)
            write_heading(report->format == PL_BENCH_MD, report->backend_width);
        break;
    }
}

void pl_bench_report_add(pl_bench_report *report, const pl_bench_result *result)
{
    begin(report, result);
    switch (report->format) {
    case PL_BENCH_JSON: write_json(&report->json, result, report->ops); break;
    case PL_BENCH_CSV:
        if (report->ops)
            pl_bench_ops_csv(result);
        else
            write_csv(result);
        break;
    case PL_BENCH_TABLE:
    case PL_BENCH_MD:
        if (report->ops)
            pl_bench_ops_table(result, report->format == PL_BENCH_MD);
        else
            write_row(result, report->format == PL_BENCH_MD, report->backend_width);
        break;
    }
    fflush(stdout);
}

pl_status pl_bench_report_end(pl_bench_report *report, pl_error *err)
{
    if (report->format != PL_BENCH_JSON)
        return pl_console_flush(err);
    pl_json_end_array(&report->json);
    pl_json_newline(&report->json);
    return pl_json_flush(&report->json, "standard output", err);
}
