/* Replays arrivals of requests through the scheduler's decisions (step_plan.h, elastic.h), with steps that take as long as a
 * simple machine's, and shows what "auto" buys: waiting times and quality beside those of always taking one path.
 *
 *     simulate_elastic [--arrivals FILE | --rate R --bursts B --requests N --seed S] [--base MS] [--row MS]
 *                      [--running N] [--wish balanced|quality|speed] [--csv]
 *
 * FILE has lines ARRIVAL_S,PROMPT_TOKENS,ANSWER_TOKENS. Without one, N requests arrive at random at R a second, B times as
 * fast for 20 s of every minute. A step on the widest path takes base + row x rows; narrower paths have their share of
 * both, a mixed step the base of its widest. Quality is the share of questions that the demo model answers exactly on
 * each path (tools/demo_model/README.md). The figures are a simulation's, of no machine in particular. */
#include "host/base/rng.h"
#include "host/engine/elastic.h"
#include "host/engine/step_plan.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATHS 3
#define BATCH_ROWS 512
#define STEP_S 0.1
#define PROMPT_WEIGHT 0.57 /* layers 0 to 19 of E4B's 35 */

static const char *const path_names[PATHS] = {"e4b", "mix", "e2b"};
static const double path_cost[PATHS] = {1, 0.78, 0.54};
static const double path_quality[PATHS] = {0.934, 0.933, 0.926};

enum { ALWAYS_E4B, ALWAYS_E2B, AUTO, POLICIES };
static const char *const policy_names[POLICIES] = {"always e4b", "always e2b", "auto"};

typedef struct request {
    double arrival_s, first_s, end_s;
    int32_t prompt, answer, path;
    int32_t read, told; /* tokens so far */
    double served;      /* rows it has had: each request is a client */
} request;

typedef struct world {
    request *requests;
    size_t n;
    pl_wish wish;
    double base_s, row_s;
    int32_t running;
} world;

typedef struct run {
    const world *w;
    int policy;
    double now;
    size_t arrived, gone; /* requests before `gone` are over */
    pl_elastic_state state;
    pl_step_cost cost;
    pl_plan_item *items;
    int32_t *which, *order;
} run;

/* ---- arrivals ---- */

static double exponential(pl_rng *rng, double mean)
{
    return -log(1 - pl_rng_uniform(rng)) * mean;
}

static void make_arrivals(world *w, double rate, double bursts, uint64_t seed)
{
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    double now = 0;
    for (size_t i = 0; i < w->n; i++) {
        now += exponential(&rng, 1 / (fmod(now, 60) < 20 ? rate * bursts : rate));
        w->requests[i] = (request){.arrival_s = now,
                                   .prompt = 1 + (int32_t)exponential(&rng, 300),
                                   .answer = 1 + (int32_t)exponential(&rng, 120)};
    }
}

static bool read_arrivals(world *w, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "simulate_elastic: %s: %s\n", path, strerror(errno));
        return false;
    }
    size_t room = 0, line = 0;
    bool good = true;
    char text[256];
    for (w->n = 0; good && fgets(text, sizeof text, file); w->n++) {
        if (w->n == room) {
            room = room ? 2 * room : 1024;
            request *grown = realloc(w->requests, room * sizeof *grown);
            good = grown != NULL;
            w->requests = good ? grown : w->requests;
        }
        request r = {0};
        line++;
        good = good && sscanf(text, "%lf,%d,%d", &r.arrival_s, &r.prompt, &r.answer) == 3 && r.prompt > 0 &&
               r.answer > 0 && (w->n == 0 || r.arrival_s >= w->requests[w->n - 1].arrival_s);
        if (good)
            w->requests[w->n] = r;
        else
            fprintf(stderr, "simulate_elastic: %s:%zu: expected ARRIVAL_S,PROMPT_TOKENS,ANSWER_TOKENS in order\n", path,
                    line);
    }
    fclose(file);
    return good;
}

/* ---- a run ---- */

static void fill_paths(const run *r, double rows, pl_elastic_path *paths)
{
    for (int i = 0; i < PATHS; i++) {
        double row = r->cost.row_s * path_cost[i];
        paths[i] = (pl_elastic_path){path_cost[i], row * PROMPT_WEIGHT,
                                     path_cost[i] * pl_step_cost_expect(&r->cost, rows + 1), 0};
    }
}

static pl_elastic_load load_of(const run *r, int32_t n)
{
    pl_elastic_load load = {.max_running = r->w->running, .now_s = r->now};
    for (int32_t i = 0; i < n; i++) {
        const request *q = &r->w->requests[r->which[i]];
        load.running += r->items[i].running;
        load.waiting += !r->items[i].running;
        if (q->told == 0 && r->now - q->arrival_s > load.longest_wait_s)
            load.longest_wait_s = r->now - q->arrival_s;
        load.waiting_tokens += q->prompt - (q->read < q->prompt ? q->read : q->prompt);
    }
    return load;
}

static int32_t gather(run *r)
{
    int32_t n = 0;
    while (r->gone < r->arrived && r->w->requests[r->gone].end_s > 0)
        r->gone++;
    for (size_t i = r->gone; i < r->arrived; i++) {
        const request *q = &r->w->requests[i];
        if (q->end_s > 0)
            continue;
        r->which[n] = (int32_t)i;
        r->items[n++] = (pl_plan_item){.to_read = q->told > 0 ? 1 : q->prompt - q->read,
                                       .answering = q->told > 0,
                                       .running = q->read > 0,
                                       .ready = true,
                                       .weight = path_cost[q->read > 0 ? q->path : 0],
                                       .client_served = q->served,
                                       .arrived_s = q->arrival_s};
    }
    return n;
}

static int32_t choose_path(run *r, const request *q, const pl_elastic_load *load)
{
    pl_elastic_path paths[PATHS];
    fill_paths(r, load->running, paths);
    pl_elastic_ask ask = {
        .wish = r->w->wish, .waited_s = r->now - q->arrival_s, .prompt_tokens = q->prompt, .answer_tokens = q->answer};
    return r->policy == ALWAYS_E4B   ? 0
           : r->policy == ALWAYS_E2B ? PATHS - 1
                                     : pl_elastic_choose(&r->state, paths, PATHS, &ask).path;
}

static void take_rows(const run *r, request *q, int32_t rows)
{
    bool last = q->told > 0 || q->read + rows == q->prompt;
    q->read += q->told > 0 ? 0 : rows;
    q->served += rows;
    if (!last)
        return;
    if (q->told++ == 0)
        q->first_s = r->now;
    if (q->told == q->answer)
        q->end_s = r->now;
}

static void step(run *r)
{
    int32_t n = gather(r);
    pl_elastic_load load = load_of(r, n);
    pl_elastic_path paths[PATHS];
    fill_paths(r, load.running, paths);
    pl_elastic_follow(&r->state, paths, PATHS, &load);
    pl_plan_limits limits = {BATCH_ROWS, BATCH_ROWS, r->w->running - load.running, STEP_S, r->now};
    pl_plan plan;
    pl_plan_step(r->items, n, r->order, &r->cost, PROMPT_WEIGHT, &limits, &plan);
    double widest = 0, weighted = 0;
    for (int32_t i = 0; i < n; i++) {
        request *q = &r->w->requests[r->which[i]];
        if (r->items[i].rows == 0)
            continue;
        if (!r->items[i].running)
            q->path = choose_path(r, q, &load);
        double share = path_cost[q->path];
        weighted += share * r->items[i].rows * (q->told > 0 ? 1 : PROMPT_WEIGHT);
        widest = share > widest ? share : widest;
    }
    double seconds = r->w->base_s * widest + r->w->row_s * weighted;
    r->now += seconds;
    pl_step_cost_learn(&r->cost, weighted, seconds);
    for (int32_t i = 0; i < n; i++)
        if (r->items[i].rows > 0)
            take_rows(r, &r->w->requests[r->which[i]], r->items[i].rows);
}

static void replay(run *r)
{
    const world *w = r->w;
    for (size_t i = 0; i < w->n; i++) {
        request *q = &w->requests[i];
        *q = (request){.arrival_s = q->arrival_s, .prompt = q->prompt, .answer = q->answer};
    }
    for (;;) {
        while (r->gone < r->arrived && w->requests[r->gone].end_s > 0)
            r->gone++;
        if (r->gone == r->arrived && r->arrived < w->n && w->requests[r->arrived].arrival_s > r->now)
            r->now = w->requests[r->arrived].arrival_s;
        while (r->arrived < w->n && w->requests[r->arrived].arrival_s <= r->now)
            r->arrived++;
        if (r->gone == w->n)
            return;
        step(r);
    }
}

/* ---- what came of it ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, size_t n, double q)
{
    qsort(values, n, sizeof *values, ascending);
    return values[(size_t)(q * (double)(n - 1))];
}

static void report(const run *r, double *values, bool csv)
{
    const world *w = r->w;
    double figures[4], tokens[PATHS] = {0}, all = 0, quality = 0;
    for (size_t i = 0; i < w->n; i++)
        values[i] = w->requests[i].first_s - w->requests[i].arrival_s;
    figures[0] = quantile(values, w->n, 0.5);
    figures[1] = quantile(values, w->n, 0.95);
    for (size_t i = 0; i < w->n; i++)
        values[i] = (w->requests[i].end_s - w->requests[i].first_s) / w->requests[i].answer;
    figures[2] = 1e3 * quantile(values, w->n, 0.5);
    figures[3] = 1e3 * quantile(values, w->n, 0.95);
    for (size_t i = 0; i < w->n; i++) {
        tokens[w->requests[i].path] += w->requests[i].answer;
        all += w->requests[i].answer;
        quality += path_quality[w->requests[i].path] / (double)w->n;
    }
    printf(csv ? "%s,%.3f,%.3f,%.1f,%.1f,%.4f" : "%-11s %9.2f %9.2f %9.0f %9.0f %8.2f %%", policy_names[r->policy],
           figures[0], figures[1], figures[2], figures[3], csv ? quality : 100 * quality);
    for (int i = 0; i < PATHS; i++)
        printf(csv ? ",%.4f" : " %5.0f %%", (csv ? 1 : 100) * tokens[i] / all);
    putchar('\n');
}

static bool simulate(world *w, bool csv)
{
    double *values = calloc(w->n, sizeof *values);
    pl_plan_item *items = calloc(w->n, sizeof *items);
    int32_t *which = calloc(w->n, sizeof *which), *order = calloc(w->n, sizeof *order);
    bool good = values && items && which && order;
    if (csv)
        printf("policy,first_s_median,first_s_p95,token_ms_median,token_ms_p95,quality,%s,%s,%s\n", path_names[0],
               path_names[1], path_names[2]);
    else
        printf("            first token s         token ms                  tokens on\n"
               "            %9s %9s %9s %9s %10s %7s %7s %7s\n",
               "median", "95 %", "median", "95 %", "quality", path_names[0], path_names[1], path_names[2]);
    for (int policy = 0; good && policy < POLICIES; policy++) {
        run r = {.w = w, .policy = policy, .items = items, .which = which, .order = order};
        r.cost = (pl_step_cost){.base_s = w->base_s, .row_s = w->row_s};
        replay(&r);
        report(&r, values, csv);
    }
    if (!good)
        fprintf(stderr, "simulate_elastic: out of memory\n");
    free(values);
    free(items);
    free(which);
    free(order);
    return good;
}

static const struct option long_options[] = {
    {"arrivals", required_argument, NULL, 'a'},
    {"rate", required_argument, NULL, 'r'},
    {"bursts", required_argument, NULL, 'b'},
    {"requests", required_argument, NULL, 'n'},
    {"seed", required_argument, NULL, 's'},
    {"base", required_argument, NULL, 'B'},
    {"row", required_argument, NULL, 'R'},
    {"running", required_argument, NULL, 'm'},
    {"wish", required_argument, NULL, 'w'},
    {"csv", no_argument, NULL, 'c'},
    {0},
};

/* A number, or one that no option takes. */
static double number(const char *text)
{
    char *end = NULL;
    double v = strtod(text, &end);
    return end != text && *end == '\0' ? v : -1;
}

static pl_wish wish_of(const char *text)
{
    return strcmp(text, "quality") == 0 ? PL_WISH_QUALITY
           : strcmp(text, "speed") == 0 ? PL_WISH_SPEED
                                        : PL_WISH_BALANCED;
}

int main(int argc, char **argv)
{
    world w = {.n = 2000, .base_s = 0.06, .row_s = 0.004, .running = 64};
    double rate = 0.8, bursts = 3;
    uint64_t seed = 1;
    const char *arrivals = NULL;
    bool csv = false;
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        switch (c) {
        case 'a': arrivals = optarg; break;
        case 'r': rate = number(optarg); break;
        case 'b': bursts = number(optarg); break;
        case 'n': w.n = (size_t)fmax(0, number(optarg)); break;
        case 's': seed = (uint64_t)fmax(0, number(optarg)); break;
        case 'B': w.base_s = number(optarg) / 1e3; break;
        case 'R': w.row_s = number(optarg) / 1e3; break;
        case 'm': w.running = (int32_t)number(optarg); break;
        case 'w': w.wish = wish_of(optarg); break;
        case 'c': csv = true; break;
        default: return 2;
        }
    if (rate <= 0 || bursts <= 0 || w.base_s <= 0 || w.row_s <= 0 || w.running < 1 || w.n < 1) {
        fprintf(stderr, "simulate_elastic: rates, times and numbers must be above 0\n");
        return 2;
    }
    bool good = true;
    if (arrivals)
        good = read_arrivals(&w, arrivals);
    else if ((w.requests = calloc(w.n, sizeof *w.requests)))
        make_arrivals(&w, rate, bursts, seed);
    good = good && w.requests && w.n > 0 && simulate(&w, csv);
    free(w.requests);
    return good ? 0 : 1;
}
