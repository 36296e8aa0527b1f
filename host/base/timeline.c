#include "host/base/timeline.h"

#include "host/base/json_out.h"
#include "host/base/outfile.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_EVENTS 262144
#define MOST_EVENTS (1u << 28)
#define CHUNK_EVENTS 4096
#define PROCESS 1 /* a trace may be of several; ours is of one */

typedef struct event {
    double begin, end; /* end < begin: an instant */
    int32_t track;
    char name[PL_TIMELINE_NAME_BYTES];
} event;

struct pl_timeline {
    pthread_mutex_t lock;
    double start;
    event **chunks; /* of CHUNK_EVENTS; they never move, so what was recorded can be read without the lock */
    size_t max_events, n, dropped;
    char tracks[PL_TIMELINE_TRACKS][PL_TIMELINE_NAME_BYTES];
    int n_tracks;
};

pl_status pl_timeline_create(size_t max_events, pl_timeline **out, pl_error *err)
{
    if (max_events > MOST_EVENTS)
        return pl_fail(err, PL_ERR_ARGUMENT, "timeline: %zu events, expected at most %u", max_events, MOST_EVENTS);
    pl_timeline *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "timeline");
    t->max_events = max_events ? max_events : DEFAULT_EVENTS;
    size_t n_chunks = (t->max_events + CHUNK_EVENTS - 1) / CHUNK_EVENTS;
    t->chunks = calloc(n_chunks, sizeof *t->chunks);
    if (!t->chunks) {
        free(t);
        return pl_fail_memory(err, n_chunks * sizeof *t->chunks, "timeline");
    }
    pthread_mutex_init(&t->lock, NULL);
    t->start = pl_clock_seconds();
    snprintf(t->tracks[PL_TIMELINE_MAIN], sizeof t->tracks[0], "main");
    t->n_tracks = 1;
    *out = t;
    return PL_OK;
}

void pl_timeline_free(pl_timeline *t)
{
    if (!t)
        return;
    for (size_t i = 0; i * CHUNK_EVENTS < t->n; i++)
        free(t->chunks[i]);
    free(t->chunks);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* ---- recording ---- */

int pl_timeline_track(pl_timeline *t, const char *name)
{
    if (!t)
        return PL_TIMELINE_MAIN;
    char cut[PL_TIMELINE_NAME_BYTES];
    snprintf(cut, sizeof cut, "%s", name);
    pthread_mutex_lock(&t->lock);
    int track = 0;
    while (track < t->n_tracks && strcmp(t->tracks[track], cut) != 0)
        track++;
    if (track == PL_TIMELINE_TRACKS)
        track = PL_TIMELINE_MAIN;
    else if (track == t->n_tracks)
        memcpy(t->tracks[t->n_tracks++], cut, sizeof cut);
    pthread_mutex_unlock(&t->lock);
    return track;
}

/* Where the next event goes; NULL: nowhere. */
static event *next_event(pl_timeline *t)
{
    if (t->n == t->max_events)
        return NULL;
    event **chunk = &t->chunks[t->n / CHUNK_EVENTS];
    if (!*chunk)
        *chunk = malloc(CHUNK_EVENTS * sizeof **chunk);
    return *chunk ? *chunk + t->n % CHUNK_EVENTS : NULL;
}

static void record(pl_timeline *t, int track, const char *name, double begin, double end)
{
    pthread_mutex_lock(&t->lock);
    event *e = next_event(t);
    if (e) {
        e->begin = begin;
        e->end = end;
        e->track = track;
        snprintf(e->name, sizeof e->name, "%s", name);
        t->n++;
    } else {
        t->dropped++;
    }
    pthread_mutex_unlock(&t->lock);
}

void pl_timeline_span(pl_timeline *t, int track, const char *name, double begin_s, double end_s)
{
    if (t)
        record(t, track, name, begin_s, end_s > begin_s ? end_s : begin_s);
}

void pl_timeline_instant(pl_timeline *t, int track, const char *name, double at_s)
{
    if (t)
        record(t, track, name, at_s, -INFINITY);
}

/* ---- writing ---- */

/* Whole nanoseconds, so that what lies within something still does when it is written. */
static int64_t nanoseconds(const pl_timeline *t, double at)
{
    return llround((at - t->start) * 1e9);
}

static void put_microseconds(pl_json *json, const char *key, int64_t ns)
{
    pl_json_put_double(json, key, (double)ns / 1e3);
}

/* By track, by beginning, and the longer first: what holds another comes before it. */
static int in_order(const void *a, const void *b)
{
    const event *x = *(event *const *)a, *y = *(event *const *)b;
    if (x->track != y->track)
        return x->track < y->track ? -1 : 1;
    if (x->begin < y->begin || x->begin > y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end < y->end) - (x->end > y->end);
}

static void begin_entry(pl_json *json, const char *name, const char *phase, int track)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "name", name);
    pl_json_put_string(json, "ph", phase);
    pl_json_put_int(json, "pid", PROCESS);
    pl_json_put_int(json, "tid", track);
}

/* What a process or a track is called, or where it stands. */
static void write_about(pl_json *json, const char *what, int track, const char *name)
{
    begin_entry(json, what, "M", track);
    pl_json_key_object(json, "args");
    if (name)
        pl_json_put_string(json, "name", name);
    else
        pl_json_put_int(json, "sort_index", track);
    pl_json_end_object(json);
    pl_json_end_object(json);
}

static void write_event(pl_json *json, const pl_timeline *t, const event *e)
{
    bool span = e->end >= e->begin;
    int64_t begin = nanoseconds(t, e->begin);
    begin_entry(json, e->name, span ? "X" : "i", e->track);
    put_microseconds(json, "ts", begin);
    if (span)
        put_microseconds(json, "dur", nanoseconds(t, e->end) - begin);
    else
        pl_json_put_string(json, "s", "t");
    pl_json_end_object(json);
}

static void write_all(pl_json *json, const pl_timeline *t, event *const *events, size_t n, int n_tracks, size_t dropped)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "displayTimeUnit", "ms");
    pl_json_key_object(json, "otherData");
    pl_json_put_string(json, "program", "pleiad " PL_VERSION);
    pl_json_put_size(json, "dropped_events", dropped);
    pl_json_end_object(json);
    pl_json_key_array(json, "traceEvents");
    write_about(json, "process_name", 0, "pleiad");
    for (int track = 0; track < n_tracks; track++) {
        write_about(json, "thread_name", track, t->tracks[track]);
        write_about(json, "thread_sort_index", track, NULL);
    }
    double last = t->start;
    for (size_t i = 0; i < n; i++) {
        write_event(json, t, events[i]);
        last = fmax(last, fmax(events[i]->begin, events[i]->end));
    }
    if (dropped) {
        event note = {.begin = last, .end = -INFINITY, .track = PL_TIMELINE_MAIN};
        snprintf(note.name, sizeof note.name, "full: %zu events dropped", dropped);
        write_event(json, t, &note);
    }
    pl_json_end_array(json);
    pl_json_end_object(json);
    pl_json_newline(json);
}

pl_status pl_timeline_print(pl_timeline *t, FILE *file, const char *path, pl_error *err)
{
    pthread_mutex_lock(&t->lock);
    size_t n = t->n, dropped = t->dropped;
    int n_tracks = t->n_tracks;
    pthread_mutex_unlock(&t->lock);
    event **events = malloc((n + 1) * sizeof *events);
    if (!events)
        return pl_fail_memory(err, (n + 1) * sizeof *events, "timeline");
    for (size_t i = 0; i < n; i++)
        events[i] = &t->chunks[i / CHUNK_EVENTS][i % CHUNK_EVENTS];
    qsort(events, n, sizeof *events, in_order);
    pl_json json = pl_json_to_file(file);
    write_all(&json, t, events, n, n_tracks, dropped);
    free(events);
    return pl_json_flush(&json, path, err);
}

pl_status pl_timeline_write(pl_timeline *t, const char *path, pl_error *err)
{
    pl_outfile out = {.file = NULL};
    PL_TRY(pl_outfile_open(path, &out, err));
    pl_status status = pl_timeline_print(t, out.file, path, err);
    if (status == PL_OK)
        return pl_outfile_commit(&out, err);
    pl_outfile_abort(&out);
    return status;
}
