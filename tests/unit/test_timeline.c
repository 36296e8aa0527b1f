#include <jansson.h>
#include <math.h>
#include <pthread.h>

#include "host/base/timeline.h"
#include "tests/unit/scratch.h"

static scratch s;

static void set_up(void)
{
    scratch_open(&s);
}

static void tear_down(void)
{
    scratch_close(&s);
}

TestSuite(timeline, .init = set_up, .fini = tear_down);

static pl_timeline *created(size_t max_events)
{
    pl_timeline *t = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_timeline_create(max_events, &t, &err), PL_OK, "%s", err.message);
    return t;
}

static json_t *written(pl_timeline *t)
{
    json_error_t error;
    pl_error err = {0};
    const char *path = scratch_path(&s, "trace.json");
    cr_assert_eq(pl_timeline_write(t, path, &err), PL_OK, "%s", err.message);
    json_t *root = json_load_file(path, 0, &error);
    cr_assert_not_null(root, "%d: %s", error.line, error.text);
    cr_assert(json_is_array(json_object_get(root, "traceEvents")));
    return root;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    cr_assert(json_is_number(value), "no number %s", key);
    return json_number_value(value);
}

static bool is(const json_t *e, const char *phase, const char *name)
{
    return strcmp(text_of(e, "ph"), phase) == 0 && (!name || strcmp(text_of(e, "name"), name) == 0);
}

/* The n-th event of this phase and name (NULL: any). */
static const json_t *event_of(const json_t *root, const char *phase, const char *name, size_t n)
{
    const json_t *events = json_object_get(root, "traceEvents");
    for (size_t i = 0; i < json_array_size(events); i++)
        if (is(json_array_get(events, i), phase, name) && n-- == 0)
            return json_array_get(events, i);
    return NULL;
}

static size_t count(const json_t *root, const char *phase, const char *name)
{
    const json_t *events = json_object_get(root, "traceEvents");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(events); i++)
        n += is(json_array_get(events, i), phase, name);
    return n;
}

/* The name that the trace gives to the track of e. */
static const char *track_of(const json_t *root, const json_t *e)
{
    const json_t *about = NULL;
    for (size_t i = 0; (about = event_of(root, "M", "thread_name", i)) != NULL; i++)
        if (number_of(about, "tid") == number_of(e, "tid"))
            return text_of(json_object_get(about, "args"), "name");
    return "";
}

Test(timeline, spans_and_instants)
{
    pl_timeline *t = created(0);
    double now = pl_clock_seconds();
    int card = pl_timeline_track(t, "card \"0\"\n");
    cr_assert_neq(card, PL_TIMELINE_MAIN);
    cr_assert_eq(pl_timeline_track(t, "card \"0\"\n"), card);
    cr_assert_eq(pl_timeline_track(t, "main"), PL_TIMELINE_MAIN);
    pl_timeline_span(t, card, "step", now + 1, now + 1.5);
    pl_timeline_instant(t, PL_TIMELINE_MAIN, "first token", now + 2);
    pl_timeline_span(t, PL_TIMELINE_MAIN, "backwards", now + 3, now + 2);
    json_t *root = written(t);

    const json_t *step = event_of(root, "X", "step", 0), *first = event_of(root, "i", "first token", 0);
    cr_assert(step && first);
    cr_assert_float_eq(number_of(step, "dur"), 5e5, 0.01, "%.17g", number_of(step, "dur"));
    cr_assert_float_eq(number_of(first, "ts") - number_of(step, "ts"), 1e6, 0.01);
    cr_assert_geq(number_of(step, "ts"), 1e6);
    cr_assert_str_eq(track_of(root, step), "card \"0\"\n");
    cr_assert_str_eq(track_of(root, first), "main");
    cr_assert_str_eq(text_of(first, "s"), "t");
    cr_assert_eq(number_of(event_of(root, "X", "backwards", 0), "dur"), 0);
    cr_assert_eq(number_of(step, "pid"), number_of(first, "pid"));
    cr_assert_eq(number_of(json_object_get(root, "otherData"), "dropped_events"), 0);
    json_decref(root);
    pl_timeline_free(t);
}

/* Recorded inner ones first, as they end, and written outer ones first; each within what holds it. */
Test(timeline, spans_nest)
{
    pl_timeline *t = created(0);
    double at = pl_clock_seconds() + 1.0 / 3;
    for (int i = 0; i < 100; i++, at += 1e-3) {
        pl_timeline_span(t, 0, "inner", at, at + 1e-4 / 3);
        pl_timeline_span(t, 0, "inner", at + 1e-4 / 3, at + 1e-3 / 7);
        pl_timeline_span(t, 0, "outer", at, at + 1e-3 / 7);
    }
    json_t *root = written(t);
    cr_assert_eq(count(root, "X", NULL), 300);
    for (size_t i = 0; i < 100; i++) {
        const json_t *outer = event_of(root, "X", NULL, 3 * i);
        long long begin = llround(number_of(outer, "ts") * 1e3), end = begin + llround(number_of(outer, "dur") * 1e3);
        cr_assert_str_eq(text_of(outer, "name"), "outer");
        cr_assert_float_eq(number_of(outer, "dur"), 1e3 / 7, 0.01);
        for (size_t j = 1; j <= 2; j++) {
            const json_t *inner = event_of(root, "X", NULL, 3 * i + j);
            long long from = llround(number_of(inner, "ts") * 1e3), to = from + llround(number_of(inner, "dur") * 1e3);
            cr_assert_str_eq(text_of(inner, "name"), "inner");
            cr_assert(from >= begin && to <= end, "[%lld, %lld] in [%lld, %lld]", from, to, begin, end);
        }
    }
    json_decref(root);
    pl_timeline_free(t);
}

Test(timeline, full_says_what_it_dropped)
{
    pl_timeline *t = created(5000);
    double now = pl_clock_seconds();
    for (int i = 0; i < 5003; i++)
        pl_timeline_span(t, 0, i < 5000 ? "kept" : "dropped", now + i, now + i + 1);
    json_t *root = written(t);
    cr_assert_eq(count(root, "X", "kept"), 5000);
    cr_assert_eq(count(root, "X", NULL), 5000);
    cr_assert_not_null(event_of(root, "i", "full: 3 events dropped", 0));
    cr_assert_eq(number_of(json_object_get(root, "otherData"), "dropped_events"), 3);
    json_decref(root);
    pl_timeline_free(t);
}

Test(timeline, names_and_tracks_are_bounded)
{
    pl_timeline *t = created(0);
    char name[16], longest[256];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    for (int i = 1; i < PL_TIMELINE_TRACKS; i++) {
        snprintf(name, sizeof name, "track %d", i);
        cr_assert_eq(pl_timeline_track(t, name), i);
    }
    cr_assert_eq(pl_timeline_track(t, "one more"), PL_TIMELINE_MAIN);
    cr_assert_eq(pl_timeline_track(t, "track 63"), 63);
    pl_timeline_instant(t, 0, longest, pl_clock_seconds());
    json_t *root = written(t);
    cr_assert_eq(strlen(text_of(event_of(root, "i", NULL, 0), "name")), PL_TIMELINE_NAME_BYTES - 1);
    cr_assert_eq(count(root, "M", "thread_name"), PL_TIMELINE_TRACKS);
    json_decref(root);
    pl_timeline_free(t);
}

Test(timeline, nothing_is_recorded_without_one)
{
    cr_assert_eq(pl_timeline_now(NULL), 0);
    cr_assert_eq(pl_timeline_track(NULL, "track"), PL_TIMELINE_MAIN);
    pl_timeline_span(NULL, 0, "span", 0, 1);
    pl_timeline_instant(NULL, 0, "instant", 0);
    pl_timeline_end(NULL, 0, "span", 0);
    pl_timeline_free(NULL);
}

#define THREADS 4
#define EACH 3000

typedef struct recorder {
    pthread_t thread;
    pl_timeline *t;
    int number;
} recorder;

static void *record(void *arg)
{
    recorder *r = arg;
    char name[16];
    snprintf(name, sizeof name, "thread %d", r->number);
    for (int i = 0; i < EACH; i++) {
        double begin = pl_timeline_now(r->t);
        pl_timeline_end(r->t, pl_timeline_track(r->t, name), name, begin);
    }
    return NULL;
}

/* Written while others record: what is there is whole. */
Test(timeline, threads)
{
    pl_timeline *t = created(0);
    recorder recorders[THREADS];
    for (int i = 0; i < THREADS; i++) {
        recorders[i] = (recorder){.t = t, .number = i};
        cr_assert_eq(pthread_create(&recorders[i].thread, NULL, record, &recorders[i]), 0);
    }
    json_decref(written(t));
    for (int i = 0; i < THREADS; i++)
        pthread_join(recorders[i].thread, NULL);
    json_t *root = written(t);
    const json_t *events = json_object_get(root, "traceEvents");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *e = json_array_get(events, i);
        if (strcmp(text_of(e, "ph"), "X") == 0 && ++n)
            cr_assert_str_eq(text_of(e, "name"), track_of(root, e));
    }
    cr_assert_eq(n, THREADS * EACH);
    json_decref(root);
    pl_timeline_free(t);
}

Test(timeline, errors)
{
    pl_timeline *t = NULL;
    pl_error err;
    expect_failure(pl_timeline_create(SIZE_MAX, &t, &err), PL_ERR_ARGUMENT, &err, WORDS("timeline"));
    t = created(0);
    expect_failure(pl_timeline_write(t, scratch_path(&s, "no/such"), &err), PL_ERR_IO, &err, WORDS("no/such"));
    expect_failure(pl_timeline_write(t, "/dev/full", &err), PL_ERR_IO, &err, WORDS("/dev/full"));
    pl_timeline_free(t);
}
