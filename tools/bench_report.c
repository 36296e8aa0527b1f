#include "tools/bench_report.h"

#include <math.h>
#include <string.h>

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

/* Share of the bandwidth that a generated token's weights used; 0 for prompts, whose weights serve many tokens. */
static double share(const pl_bench_result *r)
{
    return r->n_gen && r->bandwidth > 0 ? pl_bench_mean(r->rates, r->n) * (double)r->token_bytes / r->bandwidth : 0;
}

static void test_name(const pl_bench_result *r, char out[32])
{
    snprintf(out, 32, "%s%d", r->n_prompt ? "pp" : "tg", r->n_prompt ? r->n_prompt : r->n_gen);
}

/* ---- formats ------------------------------------------------------------------------------------ */

static void write_row(const pl_bench_result *r, bool markdown, int backend_width)
{
    char test[32], rate[48], bytes[32] = "", used[32] = "";
    const char *bar = markdown ? " | " : "  ";
    test_name(r, test);
    snprintf(rate, sizeof rate, "%.2f ± %.2f", pl_bench_mean(r->rates, r->n), pl_bench_deviation(r->rates, r->n));
    if (r->n_gen)
        snprintf(bytes, sizeof bytes, "%.1f", (double)r->token_bytes / 1e6);
    if (share(r) > 0)
        snprintf(used, sizeof used, "%.0f %%", 100 * share(r));
    /* printf counts bytes; the sign of the deviation is two */
    printf("%s%-24s%s%9.1f%s%-*s%s%-6s%s%7d%s%-16s%s%8s%s%21s%s%9s%s%9s%s\n", markdown ? "| " : "", r->model, bar,
           (double)r->model_bytes / 1e6, bar, backend_width, r->backend, bar, r->ple ? r->ple : "-", bar, r->threads,
           bar, r->path, bar, test, bar, rate, bar, bytes, bar, used, markdown ? " |" : "");
}

static void write_heading(bool markdown, int backend_width)
{
    const char *bar = markdown ? " | " : "  ";
    printf("%s%-24s%s%9s%s%-*s%s%-6s%s%7s%s%-16s%s%8s%s%20s%s%9s%s%9s%s\n", markdown ? "| " : "", "model", bar, "MB",
           bar, backend_width, "backend", bar, "ple", bar, "threads", bar, "path", bar, "test", bar, "tokens/s", bar,
           "MB/token", bar, "bandwidth", markdown ? " |" : "");
    if (markdown)
        puts("| --- | ---: | --- | --- | ---: | --- | ---: | ---: | ---: | ---: |");
}

/* A field that may hold anything. */
static void write_quoted(const char *text)
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
    write_quoted(r->model);
    printf(",%zu,", r->model_bytes);
    write_quoted(r->backend);
    printf(",%s,%d,%d,", r->ple ? r->ple : "", r->threads, r->batch_rows);
    write_quoted(r->path);
    printf(",%d,%d,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%zu,%.6g,%.6g\n", r->n_prompt, r->n_gen, r->n,
           pl_bench_mean(r->rates, r->n), pl_bench_deviation(r->rates, r->n), pl_bench_median(r->rates, r->n),
           r->rates[0], r->rates[r->n - 1], r->token_bytes, r->bandwidth, share(r));
}

static void write_json(pl_json *json, const pl_bench_result *r)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "model", r->model);
    pl_json_put_size(json, "model_bytes", r->model_bytes);
    pl_json_put_string(json, "backend", r->backend);
    pl_json_put_string(json, "ple", r->ple);
    pl_json_put_int(json, "threads", r->threads);
    pl_json_put_int(json, "batch_rows", r->batch_rows);
    pl_json_put_string(json, "path", r->path);
    pl_json_put_int(json, "n_prompt", r->n_prompt);
    pl_json_put_int(json, "n_gen", r->n_gen);
    pl_json_put_double(json, "mean", pl_bench_mean(r->rates, r->n));
    pl_json_put_double(json, "stddev", pl_bench_deviation(r->rates, r->n));
    pl_json_put_double(json, "median", pl_bench_median(r->rates, r->n));
    pl_json_put_double(json, "min", r->rates[0]);
    pl_json_put_double(json, "max", r->rates[r->n - 1]);
    pl_json_key_array(json, "samples");
    for (size_t i = 0; i < r->n; i++)
        pl_json_double(json, r->rates[i]);
    pl_json_end_array(json);
    pl_json_put_size(json, "token_bytes", r->token_bytes);
    pl_json_put_double(json, "bandwidth_bytes_per_s", r->bandwidth);
    pl_json_put_double(json, "bandwidth_share", share(r));
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
        puts(
            "model,model_bytes,backend,ple,threads,batch_rows,path,n_prompt,n_gen,repetitions,mean,stddev,median,min,max,"
            "token_bytes,bandwidth_bytes_per_s,bandwidth_share");
        break;
    case PL_BENCH_TABLE:
    case PL_BENCH_MD: write_heading(report->format == PL_BENCH_MD, report->backend_width); break;
    }
}

void pl_bench_report_add(pl_bench_report *report, const pl_bench_result *result)
{
    begin(report, result);
    switch (report->format) {
    case PL_BENCH_JSON: write_json(&report->json, result); break;
    case PL_BENCH_CSV: write_csv(result); break;
    case PL_BENCH_TABLE:
    case PL_BENCH_MD: write_row(result, report->format == PL_BENCH_MD, report->backend_width); break;
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
