#include "host/engine/session.h"

#include "host/base/timeline.h"

#include <stdlib.h>
#include <string.h>

pl_status pl_session_create(pl_engine *engine, pl_session **out, pl_error *err)
{
    pl_session *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "session");
    s->engine = engine;
    s->sequence = -1;
    pl_status status = PL_OK;
    s->tokens = calloc((size_t)engine->context + 1, sizeof *s->tokens);
    s->rows = calloc((size_t)engine->batch_rows, sizeof *s->rows);
    if (!s->tokens || !s->rows) {
        status = pl_fail_memory(err, (size_t)engine->context * sizeof *s->tokens, "session");
        goto fail;
    }
    for (int i = 0; engine->draws && i < 2; i++)
        PL_TRY_GOTO(pl_step_result_create(engine->step, &s->result[i], err));
    PL_TRY_GOTO(pl_path_parse(engine->model->checkpoint, pl_path_default(engine->model->checkpoint), &s->path, err));
    pl_engine_lock(engine);
    status = pl_kv_open(engine->kv, &s->sequence, err);
    pl_engine_unlock(engine);
    if (status != PL_OK)
        goto fail;
    *out = s;
    return PL_OK;
fail:
    pl_session_free(s);
    return status;
}

void pl_session_free(pl_session *s)
{
    if (!s)
        return;
    if (s->sequence >= 0) {
        pl_engine_lock(s->engine);
        pl_kv_close(s->engine->kv, s->sequence);
        pl_engine_unlock(s->engine);
    }
    for (int i = 0; i < 2; i++)
        pl_step_result_free(s->result[i]);
    pl_soft_holds_free(&s->holds);
    free(s->tokens);
    free(s->rows);
    free(s);
}

static int32_t truncate_kv(pl_session *s, int32_t n)
{
    pl_engine_lock(s->engine);
    int32_t left = pl_kv_truncate(s->engine->kv, s->sequence, n);
    pl_engine_unlock(s->engine);
    return left;
}

pl_status pl_session_set_path(pl_session *s, const char *path, pl_switch how, pl_error *err)
{
    pl_path next;
    PL_TRY(pl_path_parse(s->engine->model->checkpoint, path, &next, err));
    if (how == PL_SWITCH_EXACT && !pl_path_same_kv(s->engine->config, &s->path, &next))
        truncate_kv(s, 0);
    s->path = next;
    return PL_OK;
}

const char *pl_session_path(const pl_session *s)
{
    return s->path.name;
}

pl_status pl_session_truncate(pl_session *s, size_t n, pl_error *err)
{
    if (n > (size_t)s->n_tokens)
        return pl_fail(err, PL_ERR_ARGUMENT, "cannot keep %zu tokens of %d", n, s->n_tokens);
    truncate_kv(s, (int32_t)n);
    s->n_tokens = (int32_t)n;
    return PL_OK;
}

size_t pl_session_length(const pl_session *s)
{
    return (size_t)s->n_tokens;
}

void pl_session_cancel(pl_session *s)
{
    atomic_store(&s->cancelled, true);
}

void pl_session_trace(pl_session *s, pl_trace_fn fn, void *user)
{
    s->trace = fn;
    s->trace_user = user;
}

void pl_session_watch(pl_session *s, pl_watch_fn fn, void *user)
{
    s->watch = fn;
    s->watch_user = user;
}

size_t pl_session_token_bytes(const pl_session *s)
{
    return (size_t)pl_path_bytes(s->engine->model->checkpoint, &s->path);
}

int32_t pl_session_adopt(pl_session *s, const int32_t *ids, int32_t n, const pl_soft_holds *holds)
{
    int32_t same = 0;
    while (same < n - 1 && same < s->n_tokens && s->tokens[same] == ids[same])
        same++;
    int32_t kept = truncate_kv(s, same);
    memcpy(s->tokens, ids, (size_t)n * sizeof *ids);
    s->n_tokens = n;
    pl_soft_holds_free(&s->holds);
    s->holds = *holds;
    return kept;
}

/* ---- reading tokens ---- */

/* Logits of the tokens [first, to) of a chunk whose wanted rows begin with token `wanted`. */
static pl_status drain_logits(pl_session *s, int32_t wanted, int32_t first, int32_t to, pl_logits_sink sink, void *user,
                              pl_error *err)
{
    for (; first < to; first += PL_STEP_LOGITS) {
        int32_t part = to - first < PL_STEP_LOGITS ? to - first : PL_STEP_LOGITS;
        const float *logits = NULL;
        PL_TRY(pl_step_logits(s->engine->step, first - wanted, part, &logits, err));
        PL_TRY(sink(user, first, part, logits, err));
    }
    return PL_OK;
}

static bool observed(const pl_session *s)
{
    return s->trace || s->watch;
}

static void fill_rows(pl_session *s, int32_t from, int32_t n, int32_t wanted_from)
{
    for (int32_t i = 0; i < n; i++)
        s->rows[i] = (pl_step_row){.token = s->tokens[from + i],
                                   .position = from + i,
                                   .sequence = s->sequence,
                                   .path = &s->path,
                                   .prompt = true,
                                   .wanted = from + i >= wanted_from || observed(s),
                                   .top = s->top};
}

/* One step over tokens [from, from + n); the lock is held. */
static pl_status run_chunk(pl_session *s, int32_t from, int32_t n, int32_t wanted_from, pl_logits_sink sink, void *user,
                           pl_error *err)
{
    pl_engine *e = s->engine;
    fill_rows(s, from, n, wanted_from);
    PL_TRY(pl_kv_extend(e->kv, s->sequence, n, err));
    pl_step_watch(e->step, s->watch, s->watch_user);
    double begin = pl_timeline_now(e->timeline);
    pl_status status = pl_step_run(e->step, s->rows, n, s->trace, s->trace_user, err);
    pl_timeline_end(e->timeline, PL_TIMELINE_MAIN, n > 1 ? "read a chunk" : "read a token", begin);
    if (status != PL_OK) {
        pl_kv_truncate(e->kv, s->sequence, from);
        return status;
    }
    int32_t first = wanted_from > from ? wanted_from : from;
    return sink ? drain_logits(s, observed(s) ? from : first, first, from + n, sink, user, err) : PL_OK;
}

/* Reads tokens up to `to` in chunks, the logits of those from wanted_from on. */
static pl_status read_chunks(pl_session *s, int32_t to, int32_t wanted_from, pl_logits_sink sink, void *user,
                             pl_error *err)
{
    pl_engine *e = s->engine;
    int32_t from = pl_kv_length(e->kv, s->sequence);
    while (from < to) {
        if (atomic_load(&s->cancelled))
            return pl_fail(err, PL_ERR_CANCELLED, "cancelled at token %d of %d", from, s->n_tokens);
        int32_t part = to - from < e->batch_rows ? to - from : e->batch_rows, ahead = s->n_tokens - from - part;
        if (ahead > 0)
            pl_ple_will_need(e->ple, s->tokens + from + part, (size_t)(ahead < e->batch_rows ? ahead : e->batch_rows));
        pl_engine_lock(e);
        pl_status status = run_chunk(s, from, part, wanted_from, sink, user, err);
        pl_engine_unlock(e);
        PL_TRY(status);
        from += part;
    }
    return PL_OK;
}

pl_status pl_session_read(pl_session *s, int32_t n, bool all, pl_logits_sink sink, void *user, pl_error *err)
{
    return read_chunks(s, n, all ? 0 : n - 1, sink, user, err);
}

pl_status pl_session_prepare(pl_session *s, const int32_t *prompt, size_t n, pl_error *err)
{
    pl_engine *e = s->engine;
    pl_soft_holds holds = {0};
    if (n == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt is empty");
    if (n > (size_t)e->context)
        return pl_fail(err, PL_ERR_CONTEXT, "the prompt has %zu tokens, the context holds %d", n, e->context);
    PL_TRY(pl_engine_hold_ids(e, prompt, n, "prompt token", &holds, err));
    atomic_store(&s->cancelled, false);
    pl_session_adopt(s, prompt, (int32_t)n, &holds);
    return read_chunks(s, s->n_tokens, s->n_tokens, NULL, NULL, err);
}

/* ---- drawing where the ops are ---- */

/* The step of s->rows[0..n), the last of which draws. */
static pl_status queue_draw(pl_session *s, int32_t n, pl_step_result *result, pl_error *err)
{
    pl_engine *e = s->engine;
    s->rows[n - 1].wanted = s->rows[n - 1].draw = true;
    pl_engine_lock(e);
    double begin = pl_timeline_now(e->timeline);
    pl_status status = pl_kv_extend(e->kv, s->sequence, n, err);
    if (status == PL_OK)
        status = pl_step_queue(e->step, s->rows, n, result, err);
    pl_timeline_end(e->timeline, PL_TIMELINE_MAIN, "queue a step", begin);
    pl_engine_unlock(e);
    return status;
}

pl_status pl_session_queue_read(pl_session *s, int32_t n, pl_step_result *result, pl_error *err)
{
    int32_t rows = s->engine->batch_rows, from = pl_kv_length(s->engine->kv, s->sequence);
    int32_t whole = from + (n - 1 - from) / rows * rows;
    PL_TRY(read_chunks(s, whole, n, NULL, NULL, err));
    fill_rows(s, whole, n - whole, n);
    return queue_draw(s, n - whole, result, err);
}

pl_status pl_session_queue_drawn(pl_session *s, pl_step_result *result, pl_error *err)
{
    s->rows[0] = (pl_step_row){
        .position = pl_kv_length(s->engine->kv, s->sequence), .sequence = s->sequence, .path = &s->path, .drawn = true};
    return queue_draw(s, 1, result, err);
}

pl_status pl_session_wait_drawn(pl_session *s, pl_step_result *result, int32_t *token, pl_error *err)
{
    pl_engine_lock(s->engine);
    double begin = pl_timeline_now(s->engine->timeline);
    pl_status status = pl_step_wait(result, err);
    pl_timeline_end(s->engine->timeline, PL_TIMELINE_MAIN, "wait for a token", begin);
    pl_engine_unlock(s->engine);
    PL_TRY(status);
    *token = pl_step_drawn(result, 0);
    return PL_OK;
}

typedef struct copy_target {
    float *logits;
    size_t vocab;
    int32_t base;
} copy_target;

static pl_status copy_logits(void *user, int32_t first, int32_t n, const float *logits, pl_error *err)
{
    (void)err;
    copy_target *t = user;
    memcpy(t->logits + (size_t)(first - t->base) * t->vocab, logits, (size_t)n * t->vocab * sizeof *logits);
    return PL_OK;
}

pl_status pl_logits(pl_session *s, const int32_t *ids, size_t n, bool keep, float *logits, pl_error *err)
{
    pl_engine *e = s->engine;
    int32_t base = keep ? pl_kv_length(e->kv, s->sequence) : truncate_kv(s, 0);
    if (n > (size_t)(e->context - base))
        return pl_fail(err, PL_ERR_CONTEXT, "%zu tokens after %d do not fit the context of %d", n, base, e->context);
    pl_soft_holds fresh = {0};
    PL_TRY(pl_engine_hold_ids(e, ids, n, "token", base > 0 ? &s->holds : &fresh, err));
    if (base == 0) {
        pl_soft_holds_free(&s->holds);
        s->holds = fresh;
    }
    memcpy(s->tokens + base, ids, n * sizeof *ids);
    s->n_tokens = base + (int32_t)n;
    atomic_store(&s->cancelled, false);
    copy_target target = {logits, (size_t)e->config->vocab, base};
    return pl_session_read(s, s->n_tokens, true, copy_logits, &target, err);
}
