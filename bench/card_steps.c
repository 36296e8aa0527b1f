#include "bench/card_steps.h"

#include "bench/median.h"
#include "host/base/clock.h"
#include "host/engine/card_draw.h"
#include "host/engine/session.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMPT 512
#define WARM_UP 8
#define STEPS 64 /* timed together, behind each other as in an answer */
#define REPEATS 5
#define CONTEXT 1024
#define ALONE_CONTEXT 4096
#define SESSIONS PL_STEP_LOGITS

typedef struct stepping {
    pl_model *model;
    pl_engine *engine;
    pl_session *session[SESSIONS];
    pl_draw *sampler;
    pl_step_row rows[PROMPT];
    const char *path, *ple;
    int sessions, context;
    size_t free_before; /* bytes of the card */
    int turn;           /* of the two results */
} stepping;

static pl_status find_placement(const char *name, pl_ple_placement *out, pl_error *err)
{
    for (int p = PL_PLE_AUTO; p <= PL_PLE_DISK; p++)
        if (strcmp(pl_ple_placement_name((pl_ple_placement)p), name) == 0) {
            *out = (pl_ple_placement)p;
            return PL_OK;
        }
    return pl_fail(err, PL_ERR_ARGUMENT, "placement '%s', expected auto, vram, pinned, host or disk", name);
}

static pl_status open_all(stepping *s, const char *model, pl_error *err)
{
    pl_engine_params params = {
        .backend = PL_BACKEND_CUDA, .sessions = s->sessions, .context = s->context, .batch_rows = PROMPT};
    PL_TRY(find_placement(s->ple, &params.ple, err));
    PL_TRY(pl_model_open(model, &s->model, err));
    PL_TRY(pl_engine_create(s->model, &params, &s->engine, err));
    if (!s->engine->draws)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the backend does not draw");
    s->sampler = malloc(sizeof *s->sampler);
    if (!s->sampler)
        return pl_fail_memory(err, sizeof *s->sampler, "sampler");
    for (int i = 0; i < s->sessions; i++) {
        PL_TRY(pl_session_create(s->engine, &s->session[i], err));
        PL_TRY(pl_session_set_path(s->session[i], s->path, PL_SWITCH_EXACT, err));
    }
    return PL_OK;
}

/* A sequence anew: its prompt, and the first draw. */
static pl_status read_prompt(stepping *s, int which, pl_error *err)
{
    pl_session *session = s->session[which];
    pl_sampling greedy = pl_generation_default().sampling;
    greedy.temperature = 0;
    pl_kv_truncate(s->engine->kv, session->sequence, 0);
    PL_TRY(pl_kv_extend(s->engine->kv, session->sequence, PROMPT, err));
    PL_TRY(pl_card_draw_start(&greedy, s->engine->config->vocab, s->context, NULL, 0, s->sampler, err));
    pl_draws_start(s->engine->draws, session->sequence, s->sampler);
    for (int i = 0; i < PROMPT; i++) {
        bool last = i == PROMPT - 1;
        s->rows[i] = (pl_step_row){.token = 3 + (i * 911 + which * 37) % (s->engine->config->vocab - 3),
                                   .position = i,
                                   .sequence = session->sequence,
                                   .path = &session->path,
                                   .wanted = last,
                                   .draw = last};
    }
    PL_TRY(pl_step_queue(s->engine->step, s->rows, PROMPT, session->result[0], err));
    return pl_step_wait(session->result[0], err);
}

/* Queues a step behind the last one and waits for that. */
static pl_status step(stepping *s, int n, bool first, pl_error *err)
{
    for (int i = 0; i < n; i++) {
        pl_session *session = s->session[i];
        int32_t at = pl_kv_length(s->engine->kv, session->sequence);
        PL_TRY(pl_kv_extend(s->engine->kv, session->sequence, 1, err));
        s->rows[i] = (pl_step_row){.position = at,
                                   .sequence = session->sequence,
                                   .path = &session->path,
                                   .wanted = true,
                                   .drawn = true,
                                   .draw = true};
    }
    pl_step_result **results = s->session[0]->result;
    s->turn ^= 1;
    PL_TRY(pl_step_queue(s->engine->step, s->rows, n, results[s->turn], err));
    return first ? PL_OK : pl_step_wait(results[s->turn ^ 1], err);
}

static pl_status run(stepping *s, int n, int steps, double *us, pl_error *err)
{
    double begin = pl_clock_seconds();
    for (int i = 0; i < steps; i++)
        PL_TRY(step(s, n, i == 0, err));
    PL_TRY(pl_step_wait(s->session[0]->result[s->turn], err));
    *us = (pl_clock_seconds() - begin) * 1e6 / steps;
    return PL_OK;
}

static pl_status bench_rows(stepping *s, int n, pl_error *err)
{
    double us[REPEATS], warm;
    char detail[64];
    for (int i = 0; i < n; i++)
        PL_TRY(read_prompt(s, i, err));
    PL_TRY(run(s, n, WARM_UP, &warm, err));
    for (int i = 0; i < REPEATS; i++)
        PL_TRY(run(s, n, STEPS, &us[i], err));
    double time = pl_median(us, REPEATS), bytes = (double)pl_session_token_bytes(s->session[0]);
    snprintf(detail, sizeof detail, "decode, table %s", s->ple);
    printf("step,%s,\"%s\",%d,%.2f,%.2f,,,%.1f\n", s->path, detail, n, time, bytes / time * 1e-3, n / time * 1e6);
    fflush(stdout);
    return PL_OK;
}

static pl_status look_at_card(stepping *s, pl_error *err)
{
    size_t all;
    cudaError_t error = cudaFree(NULL); /* so that the context is there */
    if (error == cudaSuccess)
        error = cudaMemGetInfo(&s->free_before, &all);
    if (error != cudaSuccess)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "no card to measure: %s", cudaGetErrorString(error));
    return PL_OK;
}

static void print_memory(const stepping *s)
{
    size_t now, all;
    if (cudaMemGetInfo(&now, &all) == cudaSuccess)
        printf("memory,%s,\"GB in use, %d sessions of %d tokens, table %s\",0,0,%.3f,,,\n", s->path, s->sessions,
               s->context, s->ple, s->free_before > now ? (double)(s->free_before - now) * 1e-9 : 0);
}

static pl_status bench_all(stepping *s, const char *model, const int *rows, int n, pl_error *err)
{
    PL_TRY(look_at_card(s, err));
    PL_TRY(open_all(s, model, err));
    puts(BENCH_CARD_HEAD);
    for (int i = 0; i < n; i++)
        PL_TRY(bench_rows(s, rows[i], err));
    if (n == 0)
        PL_TRY(bench_rows(s, 1, err)); /* so that all is in use */
    print_memory(s);
    return PL_OK;
}

static pl_status close_all(stepping *s, pl_status status)
{
    for (int i = 0; i < s->sessions; i++)
        pl_session_free(s->session[i]);
    pl_engine_free(s->engine);
    pl_model_close(s->model);
    free(s->sampler);
    return status;
}

pl_status pl_bench_steps(const char *model, const char *path, const char *ple, const int *rows, int n, pl_error *err)
{
    static stepping s;
    s.path = path;
    s.ple = ple;
    s.sessions = n > 0 ? SESSIONS : 1;
    s.context = n > 0 ? CONTEXT : ALONE_CONTEXT;
    return close_all(&s, bench_all(&s, model, rows, n, err));
}
