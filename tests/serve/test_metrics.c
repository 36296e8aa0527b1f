#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/metrics.h"

static pl_strbuf text;

static void print(const pl_scheduler_stats *scheduler)
{
    pl_engine_info engine = {.backend = "cpu \"x\"\\y\n", .ple_rows = 10, .ple_hits = 7};
    pl_http_stats http = {.connections = 3, .requests = 12345678901};
    pl_tower_stats towers = {.vision_bytes = 99, .images = 3, .clips = 4, .hits = 5, .encode_s = 1.5};
    pl_strbuf_clear(&text);
    pl_metrics_print(&text, scheduler, &engine, &towers, &http);
    cr_assert_not(text.failed);
}

static void expect_line(const char *line)
{
    size_t n = strlen(line);
    for (const char *at = text.data; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
        if (strncmp(at, line, n) == 0 && at[n] == '\n')
            return;
    cr_assert_fail("no line '%s' in:\n%s", line, text.data);
}

Test(metrics, counts)
{
    pl_scheduler_stats s = {.waiting = 4, .running = 2, .submitted = 9, .kv_tokens = 4096, .n_paths = 2};
    strcpy(s.paths[0].path, "e4b");
    strcpy(s.paths[1].path, "mix:widths=8,\"4\"");
    s.paths[0].requests = 5;
    s.paths[1].rows = 6;
    print(&s);
    expect_line("pleiad_requests_waiting 4");
    expect_line("pleiad_requests_submitted_total 9");
    expect_line("# TYPE pleiad_requests_submitted_total counter");
    expect_line("# TYPE pleiad_kv_tokens gauge");
    expect_line("pleiad_kv_tokens 4096");
    expect_line("pleiad_path_requests_total{path=\"e4b\"} 5");
    expect_line("pleiad_path_rows_total{path=\"mix:widths=8,\\\"4\\\"\"} 6");
    expect_line("pleiad_info{version=\"" PL_VERSION "\",backend=\"cpu \\\"x\\\"\\\\y\\n\"} 1");
    expect_line("pleiad_ple_hits_total 7");
    expect_line("pleiad_http_requests_total 12345678901");
    expect_line("pleiad_tower_bytes{tower=\"vision\"} 99");
    expect_line("pleiad_tower_bytes{tower=\"audio\"} 0");
    expect_line("pleiad_media_encoded_total{kind=\"image\"} 3");
    expect_line("pleiad_media_encoded_total{kind=\"audio\"} 4");
    expect_line("pleiad_media_hits_total 5");
    expect_line("pleiad_media_encode_seconds_total 1.5");
    pl_strbuf_free(&text);
}

Test(metrics, histograms_are_cumulative)
{
    pl_scheduler_stats s = {.waiting = 0};
    s.first_token_s.count[0] = 1;
    s.first_token_s.count[1] = 2;
    s.first_token_s.count[PL_HISTOGRAM_BUCKETS] = 4;
    s.first_token_s.sum = 12.5;
    print(&s);
    expect_line("# TYPE pleiad_first_token_seconds histogram");
    expect_line("pleiad_first_token_seconds_bucket{le=\"0.0005\"} 1");
    expect_line("pleiad_first_token_seconds_bucket{le=\"0.001\"} 3");
    expect_line("pleiad_first_token_seconds_bucket{le=\"0.002\"} 3");
    expect_line("pleiad_first_token_seconds_bucket{le=\"+Inf\"} 7");
    expect_line("pleiad_first_token_seconds_sum 12.5");
    expect_line("pleiad_first_token_seconds_count 7");
    pl_strbuf_free(&text);
}

/* Every sample belongs to a metric that was described, once, right before. */
Test(metrics, every_sample_is_described)
{
    pl_scheduler_stats s = {.n_paths = 1};
    char *described[256], name[128];
    int n = 0;
    print(&s);
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            sscanf(line + 7, "%127s", name);
            for (int i = 0; i < n; i++)
                cr_assert_str_neq(described[i], name);
            described[n++] = strdup(name);
        } else if (*line != '#') {
            cr_assert_eq(strncmp(line, described[n - 1], strlen(described[n - 1])), 0, "%s", line);
        }
    }
    cr_assert_gt(n, 30);
    while (n > 0)
        free(described[--n]);
    pl_strbuf_free(&text);
}
