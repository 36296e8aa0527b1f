/* Jobs with a deadline, simulated: an engine with a row of places, lines whose times vary, a clock of its own. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/rng.h"
#include "host/batch/deadline.h"

/* ---- the choice -------------------------------------------------------------------------------- */

Test(deadline, the_widest_that_ends_in_time)
{
    const double line_s[] = {4, 3, 2};
    static const struct {
        double seconds;
        int32_t present, expected;
    } cases[] = {
        {500, -1, 0}, {445, -1, 0}, {444, -1, 1}, {345, -1, 1}, {344, -1, 2}, {100, -1, 2}, {-5, -1, 2}, {444, 0, 1},
        {445, 0, 0},  {445, 1, 1},  {499, 1, 1},  {500, 1, 0},  {387, 2, 2},  {388, 2, 1},  {499, 2, 1}, {1000, 2, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const pl_deadline_left left = {.lines = 90, .under_way_s = 40, .seconds = cases[i].seconds};
        cr_assert_eq(pl_deadline_plan(line_s, 3, cases[i].present, &left), cases[i].expected, "case %zu", i);
    }
    const pl_deadline_left none = {.seconds = 1};
    cr_assert_eq(pl_deadline_plan(line_s, 3, -1, &none), 0);
    cr_assert_eq(pl_deadline_plan(line_s, 1, -1, &none), 0);
}

/* ---- simulation -------------------------------------------------------------------------------- */

static const pl_deadline_path paths[] = {{"wide", 1}, {"middle", 0.8}, {"narrow", 0.6}};
#define PATHS 3
#define PLACES_MOST 256

typedef struct job {
    int64_t lines;
    int places;         /* lines under way at once */
    double line_s;      /* of the whole job, on the widest path, in the mean */
    double cost[PATHS]; /* what is true of the paths */
    double spread;      /* of a line's work: 0.5: half to one and a half */
    double drift;       /* the last lines take so much more than the first */
    double deadline_s;  /* from the beginning */
    uint64_t seed;
} job;

typedef struct ending {
    double end_s;
    int64_t on[PATHS]; /* lines */
    int changes;
} ending;

typedef struct under_way {
    int64_t line;
    double left; /* work, in seconds of the whole engine */
} under_way;

static int path_index(const char *name)
{
    for (int i = 0; i < PATHS; i++)
        if (strcmp(paths[i].name, name) == 0)
            return i;
    cr_assert(false, "%s", name);
    return -1;
}

static double work_of(const job *j, int64_t line, int path, pl_rng *rng)
{
    double drift = 1 + j->drift * ((double)line / (double)j->lines - 0.5);
    return j->line_s * j->cost[path] * drift * (1 + j->spread * (2 * pl_rng_uniform(rng) - 1));
}

/* The engine is shared evenly by the lines in its places. path: always this one; -1: as the deadline has it. */
static ending simulate(const job *j, int fixed)
{
    under_way place[PLACES_MOST];
    ending e = {0};
    pl_rng rng;
    pl_deadline *d;
    pl_deadline_params params = {.paths = paths,
                                 .n_paths = PATHS,
                                 .lines = j->lines,
                                 .left = j->lines,
                                 .now_s = 1000,
                                 .end_s = 1000 + j->deadline_s,
                                 .line_s = 3 * j->line_s};
    double now = 1000;
    int64_t next = 0;
    int n = 0, last = -1;
    pl_rng_seed(&rng, j->seed);
    cr_assert_eq(pl_deadline_create(&params, &d, NULL), PL_OK);
    while (next < j->lines || n > 0) {
        while (next < j->lines && n < j->places) {
            int path = fixed >= 0 ? fixed : path_index(pl_deadline_choose(d, next, now));
            e.on[path]++;
            e.changes += last >= 0 && path != last;
            last = path;
            place[n++] = (under_way){next, work_of(j, next, path, &rng)};
            next++;
        }
        int first = 0;
        for (int i = 1; i < n; i++)
            if (place[i].left < place[first].left)
                first = i;
        double step = place[first].left;
        now += step * n;
        for (int i = 0; i < n; i++)
            place[i].left -= step;
        pl_deadline_done(d, place[first].line, now);
        place[first] = place[--n];
    }
    pl_deadline_free(d);
    e.end_s = now - 1000;
    return e;
}

/* Lines of the widest path in the best job that ends in time, were all known before. */
static double most_wide(const job *j)
{
    double wide = j->cost[0] * j->line_s, narrow = j->cost[PATHS - 1] * j->line_s;
    double n = (j->deadline_s - (double)j->lines * narrow) / (wide - narrow);
    return fmin(fmax(n, 0), (double)j->lines);
}

static job usual(double share, uint64_t seed)
{
    job j = {.lines = 3000, .places = 32, .line_s = 0.5, .cost = {1, 0.8, 0.6}, .spread = 0.8, .seed = seed};
    j.deadline_s = share * (double)j.lines * j.line_s;
    return j;
}

Test(deadline, is_met_whenever_the_narrowest_path_meets_it)
{
    for (uint64_t seed = 0; seed < 20; seed++)
        for (double share = 0.5; share < 1.4; share += 0.05) {
            job j = usual(share, seed);
            j.places = seed % 2 ? 8 : 200;
            double narrow = simulate(&j, PATHS - 1).end_s;
            ending e = simulate(&j, -1);
            if (narrow < 0.98 * j.deadline_s)
                cr_assert_leq(e.end_s, j.deadline_s, "share %g: %g of %g, narrow %g", share, e.end_s, j.deadline_s,
                              narrow);
            else
                cr_assert_leq(e.end_s, 1.03 * fmax(narrow, j.deadline_s), "share %g", share);
        }
}

/* A tenth of the time stays to spare, a fifth before the path is widened; at the beginning nothing is known. A line on the
 * path between counts half. */
Test(deadline, the_widest_path_is_used_as_time_allows)
{
    for (uint64_t seed = 0; seed < 10; seed++)
        for (double share = 0.65; share < 1.5; share += 0.05) {
            job j = usual(share, seed);
            ending e = simulate(&j, -1);
            double best = most_wide(&j), used = (double)e.on[0] + 0.5 * (double)e.on[1];
            cr_assert_geq(used, 0.4 * best, "share %g: %g of %g", share, used, best);
            if (share > 1.28)
                cr_assert_geq(e.on[0], 9 * j.lines / 10, "share %g", share);
            cr_assert_leq(e.changes, 10, "share %g: %d", share, e.changes);
        }
}

Test(deadline, wrong_guesses_are_corrected)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        job j = usual(0.9, seed);
        j.cost[1] = 0.95; /* hardly faster than the widest */
        j.cost[2] = 0.75;
        ending e = simulate(&j, -1);
        cr_assert_leq(e.end_s, j.deadline_s);
        j = usual(1.0, seed);
        j.cost[2] = 0.3; /* much faster than thought */
        e = simulate(&j, -1);
        cr_assert_leq(e.end_s, j.deadline_s);
        cr_assert_gt(e.on[0] + e.on[1], j.lines / 3);
    }
}

Test(deadline, lines_that_grow_are_followed)
{
    for (uint64_t seed = 0; seed < 10; seed++)
        for (double drift = -0.6; drift < 0.7; drift += 0.2) {
            job j = usual(0.95, seed);
            j.drift = drift;
            double narrow = simulate(&j, PATHS - 1).end_s;
            cr_assert_lt(narrow, 0.8 * j.deadline_s);
            cr_assert_leq(simulate(&j, -1).end_s, j.deadline_s, "drift %g", drift);
        }
}

/* ---- a job ------------------------------------------------------------------------------------- */

static pl_deadline *open_job(int64_t lines, double seconds)
{
    pl_deadline *d;
    const pl_deadline_params params = {
        .paths = paths, .n_paths = PATHS, .lines = lines, .left = lines, .end_s = seconds, .line_s = 1};
    cr_assert_eq(pl_deadline_create(&params, &d, NULL), PL_OK);
    return d;
}

Test(deadline, a_small_job_with_much_time_is_wide_from_the_first_line_on)
{
    pl_deadline *d = open_job(100, 200);
    for (int i = 0; i < 100; i++)
        cr_assert_str_eq(pl_deadline_choose(d, i, 0), "wide");
    cr_assert_float_eq(pl_deadline_expect(d), 100, 1e-9);
    pl_deadline_free(d);
    d = open_job(100, 20);
    cr_assert_str_eq(pl_deadline_choose(d, 0, 0), "narrow");
    cr_assert_float_eq(pl_deadline_expect(d), 60, 1e-9);
    pl_deadline_free(d);
}

/* Lines that are handed out again, done twice, or done without having been handed out. */
Test(deadline, counts_each_line_once)
{
    pl_deadline *d = open_job(20, 1e6);
    for (int i = 0; i < 10; i++)
        pl_deadline_choose(d, i, 0);
    for (int i = 0; i < 5; i++)
        pl_deadline_choose(d, i, 0);
    for (int i = 0; i < 10; i++) {
        pl_deadline_done(d, i, 2.0 * (i + 1));
        pl_deadline_done(d, i, 2.0 * (i + 1));
    }
    cr_assert_float_eq(pl_deadline_expect(d), 20, 1e-6);
    pl_deadline_done(d, 15, 20);
    pl_deadline_done(d, 15, 20);
    cr_assert_float_eq(pl_deadline_expect(d), 18, 1e-6);
    pl_deadline_free(d);
}

/* A hundred lines on the widest path, then as many on the narrowest, which is hardly faster. */
Test(deadline, learns_what_each_path_takes)
{
    pl_deadline *d;
    const pl_deadline_params params = {
        .paths = paths, .n_paths = PATHS, .lines = 1000, .left = 1000, .end_s = 300, .line_s = 0.1};
    cr_assert_eq(pl_deadline_create(&params, &d, NULL), PL_OK);
    for (int i = 0; i < 100; i++)
        cr_assert_str_eq(pl_deadline_choose(d, i, 0), "wide");
    for (int i = 0; i < 100; i++)
        pl_deadline_done(d, i, i + 1);
    for (int i = 100; i < 200; i++)
        cr_assert_str_eq(pl_deadline_choose(d, i, 100), "narrow");
    for (int i = 0; i < 100; i++)
        pl_deadline_done(d, 100 + i, 100 + 0.9 * (i + 1));
    cr_assert_float_eq(pl_deadline_expect(d), 0.9 * 800, 0.05 * 800);
    pl_deadline_free(d);
}

Test(deadline, paths_of_a_model)
{
    pl_deadline_path found[PL_DEADLINE_PATHS];
    int32_t n;
    pl_model *model;
    pl_engine *engine;
    pl_error err = {.message = ""};
    const pl_engine_params params = {
        .backend = PL_BACKEND_CPU, .sessions = 1, .threads = 1, .context = 128, .no_pin = true};
    cr_assert_eq(pl_model_open(PL_TEST_DATA "/../tools/demo_model/demo.gguf", &model, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_engine_create(model, &params, &engine, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_deadline_find_paths(model, engine, found, &n, &err), PL_OK, "%s", err.message);
    cr_assert_geq(n, 2);
    cr_assert_str_eq(found[0].name, "e4b");
    cr_assert_str_eq(found[n - 1].name, "e2b");
    cr_assert_eq(found[0].cost, 1);
    for (int32_t i = 1; i < n; i++)
        cr_assert(found[i].cost < found[i - 1].cost && found[i].cost > 0);
    pl_session *session;
    cr_assert_eq(pl_session_create(engine, &session, NULL), PL_OK);
    cr_assert_neq(pl_deadline_find_paths(model, engine, found, &n, &err), PL_OK); /* no session is free */
    pl_session_free(session);
    pl_engine_free(engine);
    pl_model_close(model);
}

Test(deadline, refuses_what_it_cannot_choose_from)
{
    pl_deadline *d;
    pl_error err;
    const pl_deadline_params none = {.paths = paths, .n_paths = 0}, many = {.paths = paths, .n_paths = 9};
    cr_assert_eq(pl_deadline_create(&none, &d, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_deadline_create(&many, &d, &err), PL_ERR_ARGUMENT);
}
