/* The way of a line through a station. */
#include "host/batch/station.h"

#include <stdlib.h>
#include <string.h>

#include "host/batch/record.h"

struct pl_station_line {
    pl_station_line *next; /* of those refused */
    pl_station *station;
    pl_work work;
    char *custom_id; /* NULL: not known yet */
    int32_t room;    /* refused: it is tried again when so few others are under way */
    bool careful;
};

/* ---- its end ----------------------------------------------------------------------------------- */

static void leave(pl_station_line *line)
{
    pl_station *s = line->station;
    pthread_mutex_lock(&s->lock);
    s->lines--;
    s->careful -= line->careful;
    s->bytes -= line->work.n;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    free(line->custom_id);
    free(line->work.text);
    free(line);
}

static void give_back(pl_station_line *line)
{
    pl_station *s = line->station;
    pthread_mutex_lock(&s->lock);
    s->count.given_back++;
    pthread_mutex_unlock(&s->lock);
    pl_work work = line->work;
    line->work.text = NULL;
    s->params.source->give_back(s->params.source->user, &work);
    leave(line);
}

/* The worker cannot go on; the line may be answered another time. */
static void fail(pl_station_line *line, const pl_error *why)
{
    pl_station *s = line->station;
    give_back(line);
    s->params.fail(s->params.user, why);
}

static void give(pl_station_line *line, const pl_work_result *result)
{
    pl_station *s = line->station;
    pl_error err;
    pl_status status = s->params.source->give(s->params.source->user, result, &err);
    if (status == PL_OK) {
        pthread_mutex_lock(&s->lock);
        s->count.given++;
        s->count.failed += result->failed;
        pthread_mutex_unlock(&s->lock);
    }
    leave(line);
    if (status != PL_OK)
        s->params.fail(s->params.user, &err);
}

/* ---- its record -------------------------------------------------------------------------------- */

/* What the API of the response calls them. */
static int64_t tokens(const json_t *usage, const char *name, const char *other)
{
    const json_t *value = json_object_get(usage, name);
    return json_integer_value(value ? value : json_object_get(usage, other));
}

static void count_tokens(const char *body, size_t n, pl_work_result *result)
{
    json_t *root = json_loadb(body, n, 0, NULL);
    const json_t *usage = json_object_get(root, "usage");
    result->prompt_tokens = tokens(usage, "prompt_tokens", "input_tokens");
    result->answer_tokens = tokens(usage, "completion_tokens", "output_tokens");
    json_decref(root);
}

static void give_response(pl_station_line *line, int status, const char *request_id, const char *body, size_t n)
{
    char id[PL_RECORD_ID_BYTES], *record = NULL;
    pl_error err;
    pl_work_result result = {.line = line->work.line, .failed = status != 200};
    pl_record_id(line->station->params.seed, line->work.line, line->work.text, line->work.n, id);
    if (pl_record_response(id, line->custom_id, status, request_id, body, n, &record, &result.n, &err) != PL_OK) {
        fail(line, &err);
        return;
    }
    if (!result.failed)
        count_tokens(body, n, &result);
    result.record = record;
    give(line, &result);
    free(record);
}

/* Of a line that is no request. */
static void give_fault(pl_station_line *line, const pl_batch_line *parsed, const pl_line_fault *fault)
{
    char id[PL_RECORD_ID_BYTES], *record = NULL;
    pl_error err;
    pl_work_result result = {.line = line->work.line, .failed = true};
    pl_record_id(line->station->params.seed, line->work.line, line->work.text, line->work.n, id);
    if (pl_record_fault(id, parsed->custom_id, line->work.line + 1, fault, &record, &result.n, &err) != PL_OK) {
        fail(line, &err);
        return;
    }
    result.record = record;
    give(line, &result);
    free(record);
}

/* ---- its answer -------------------------------------------------------------------------------- */

/* A request without a prompt is never taken; what a scheduler says to it first is that its card is lost. */
static bool is_lost(pl_station *s)
{
    const pl_request nothing = pl_request_default();
    pl_error err = {.status = PL_OK};
    if (pl_scheduler_submit(s->scheduler, &nothing, NULL, &err) != PL_ERR_DEVICE)
        return false;
    pthread_mutex_lock(&s->lock);
    s->lost = err;
    s->ended = true;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    return true;
}

static bool has_ended(pl_station *s)
{
    pthread_mutex_lock(&s->lock);
    bool ended = s->ended;
    pthread_mutex_unlock(&s->lock);
    return ended;
}

static bool was_alone(pl_station_line *line)
{
    pl_station *s = line->station;
    pthread_mutex_lock(&s->lock);
    bool alone = line->careful && line->room == 0 && s->lines - s->waiting == 1;
    pthread_mutex_unlock(&s->lock);
    return alone;
}

static void wait_refused(pl_station_line *line)
{
    pl_station *s = line->station;
    pthread_mutex_lock(&s->lock);
    int32_t others = s->lines - s->waiting - 1;
    line->room = line->careful && line->room < others ? line->room / 2 : others / 2;
    s->careful += !line->careful;
    s->waiting++;
    s->count.tried_again++;
    pthread_mutex_unlock(&s->lock);
    line->careful = true;
    line->next = NULL;
    *s->refused_end = line;
    s->refused_end = &line->next;
}

/* Full queues, no memory; 529 is how Anthropic's API says 503. */
static bool is_refusal(int status)
{
    return status == 0 || status == 429 || status == 503 || status == 529;
}

static void answered(void *user, int status, const char *request_id, const char *body, size_t n)
{
    pl_station_line *line = user;
    pl_station *s = line->station;
    if ((status >= 500 && is_lost(s)) || (is_refusal(status) && has_ended(s))) {
        give_back(line);
    } else if (is_refusal(status) && !was_alone(line)) {
        wait_refused(line);
    } else if (status == 0) {
        pl_error err;
        pl_fail_memory(&err, 0, "a response");
        fail(line, &err);
    } else {
        give_response(line, status, request_id, body, n);
    }
}

/* ---- its request ------------------------------------------------------------------------------- */

static bool says(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return value && !json_is_null(value);
}

/* Whether the body leaves the path to others. */
static bool leaves_path(const pl_station *s, const json_t *body)
{
    const char *model = json_string_value(json_object_get(body, "model")), *path = NULL;
    if (model)
        pl_service_has_model(s->service, model, &path);
    return !path && !says(body, "path") && !says(body, "quality");
}

static pl_status post(pl_station_line *line, const pl_batch_line *parsed, pl_error *err)
{
    pl_station *s = line->station;
    const char *path = line->work.path;
    if (!line->custom_id)
        line->custom_id = strdup(parsed->custom_id);
    bool ok = line->custom_id;
    if (ok && *path && leaves_path(s, parsed->body))
        ok = json_object_set_new(parsed->body, "path", json_string(path)) == 0;
    char *body = ok ? json_dumps(parsed->body, JSON_COMPACT) : NULL;
    if (!body)
        return pl_fail_memory(err, line->work.n, "a line's body");
    pl_status status = pl_http_request_inside(s->http, "POST", parsed->url, body, strlen(body), answered, line, err);
    if (status != PL_OK)
        free(body);
    return status;
}

static void send_line(pl_station_line *line)
{
    pl_batch_line parsed;
    pl_line_fault fault;
    pl_error err;
    pl_status status = pl_batch_line_parse(line->work.text, line->work.n, &parsed, &fault, &err);
    if (status == PL_ERR_FORMAT) {
        give_fault(line, &parsed, &fault);
        pl_batch_line_free(&parsed);
        return;
    }
    if (status == PL_OK) {
        status = post(line, &parsed, &err);
        pl_batch_line_free(&parsed);
    }
    if (status != PL_OK)
        fail(line, &err);
}

void pl_station_take(pl_station *s, pl_work *work)
{
    pl_station_line *line = calloc(1, sizeof *line);
    if (!line) {
        pl_error err;
        pl_fail_memory(&err, sizeof *line, "a line");
        s->params.source->give_back(s->params.source->user, work);
        s->params.fail(s->params.user, &err);
        return;
    }
    *line = (pl_station_line){.station = s, .work = *work};
    pthread_mutex_lock(&s->lock);
    s->lines++;
    s->bytes += work->n;
    pthread_mutex_unlock(&s->lock);
    send_line(line);
}

/* ---- once more --------------------------------------------------------------------------------- */

/* Alone means alone: what was cancelled must have left the scheduler, too. */
static bool may_go(pl_station *s, const pl_station_line *line)
{
    pl_scheduler_stats stats;
    pthread_mutex_lock(&s->lock);
    int32_t under_way = s->lines - s->waiting;
    pthread_mutex_unlock(&s->lock);
    if (under_way > line->room)
        return false;
    pl_scheduler_count(s->scheduler, &stats);
    return line->room > 0 || stats.waiting + stats.running == 0;
}

static pl_station_line *take_refused(pl_station *s)
{
    pl_station_line *line = s->refused;
    s->refused = line->next;
    if (!s->refused)
        s->refused_end = &s->refused;
    pthread_mutex_lock(&s->lock);
    s->waiting--;
    pthread_mutex_unlock(&s->lock);
    return line;
}

void pl_station_try_again(void *station)
{
    pl_station *s = station;
    while (s->refused && may_go(s, s->refused))
        send_line(take_refused(s));
}

void pl_station_give_back_refused(pl_station *s)
{
    while (s->refused)
        give_back(take_refused(s));
}
