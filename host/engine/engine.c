#include "host/engine/media.h"

#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/timeline.h"
#include "host/base/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define MAX_SESSIONS 1024
#define MAX_BATCH_ROWS 8192
#define MAX_THREADS 1024

static int chosen(int wish, int otherwise)
{
    return wish > 0 ? wish : otherwise;
}

static pl_status check_params(const pl_config *config, const pl_engine_params *params, pl_error *err)
{
    if (params->threads < 0 || params->threads > MAX_THREADS)
        return pl_fail(err, PL_ERR_ARGUMENT, "threads: %d, expected 0 to %d", params->threads, MAX_THREADS);
    if (params->batch_rows < 0 || params->batch_rows > MAX_BATCH_ROWS)
        return pl_fail(err, PL_ERR_ARGUMENT, "batch rows: %d, expected 0 to %d", params->batch_rows, MAX_BATCH_ROWS);
    if (params->sessions < 0 || params->sessions > MAX_SESSIONS)
        return pl_fail(err, PL_ERR_ARGUMENT, "sessions: %d, expected 0 to %d", params->sessions, MAX_SESSIONS);
    if (params->kv_tokens < -1)
        return pl_fail(err, PL_ERR_ARGUMENT, "K/V tokens: %lld, expected -1, 0 or more", (long long)params->kv_tokens);
    if (params->tp < 0 || params->tp > PL_COMM_MOST)
        return pl_fail(err, PL_ERR_ARGUMENT, "ranks that share the model: %d, expected 0 to %d", params->tp,
                       PL_COMM_MOST);
    if ((unsigned)params->cache > PL_CACHE_Q8_0)
        return pl_fail(err, PL_ERR_ARGUMENT, "cache: %d, expected 0 to %d", (int)params->cache, PL_CACHE_Q8_0);
    if (params->context < 0 || params->context > config->context)
        return pl_fail(err, PL_ERR_ARGUMENT, "context: %d, expected 0 to the model's %d", params->context,
                       config->context);
    return PL_OK;
}

/* Threads are the rank's. */
static pl_status open_backend(pl_engine *e, int rank, int threads, const int *cpus, pl_error *err)
{
    const pl_config *c = e->ranks ? &e->ranks->rank[rank].shard.config : e->config;
    pl_backend **out = rank == 0 ? &e->backend : &e->ranks->rank[rank].backend;
    pl_backend_shape shape = {.max_rows = e->batch_rows,
                              .max_context = e->context,
                              .vocab = c->vocab,
                              .fast_prompts = e->fast_prompts,
                              .heads = {c->n_heads, c->n_kv_heads, c->head_dim}};
    if (e->placement.backend == PL_BACKEND_CUDA)
        return pl_backend_cuda(&shape, e->placement.device + rank, threads, cpus, out, err);
    return pl_backend_cpu(&shape, threads, cpus, PL_CPU_ALL, out, err);
}

/* How many threads each rank has, and the processors of all; *cpus NULL: they are left to the operating system. */
static pl_status place_threads(const pl_engine_params *params, const pl_seat *seat, int *threads, int **cpus,
                               pl_error *err)
{
    int ranks = chosen(params->tp, 1);
    pl_topology *topology = NULL;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    *threads = chosen(params->threads, seat ? seat->cores : pl_topology_cores(topology)) / ranks;
    *threads = *threads > 0 ? *threads : 1;
    int all = *threads * ranks;
    *cpus = params->no_pin ? NULL : calloc((size_t)all, sizeof **cpus);
    if (*cpus && !seat)
        pl_topology_place(topology, all, *cpus);
    for (int i = 0; *cpus && seat && i < all; i++)
        (*cpus)[i] = seat->cpus[i % seat->n_cpus];
    pl_topology_close(topology);
    return *cpus || params->no_pin ? PL_OK : pl_fail_memory(err, (size_t)all * sizeof **cpus, "threads");
}

static pl_status open_backends(pl_engine *e, const pl_engine_params *params, const pl_seat *seat, pl_error *err)
{
    int ranks = chosen(params->tp, 1), threads, *cpus;
    PL_TRY(place_threads(params, seat, &threads, &cpus, err));
    pl_status status = PL_OK;
    if (ranks > 1)
        status = pl_tp_create(e->model->checkpoint, ranks, &e->ranks, err);
    for (int i = 0; i < ranks && status == PL_OK; i++)
        status = open_backend(e, i, threads, cpus ? cpus + i * threads : NULL, err);
    free(cpus);
    PL_TRY(status);
    return e->ranks ? pl_tp_connect(e->ranks, e->backend, threads * ranks, err) : PL_OK;
}

/* The thread that brings rows runs beside the card, wherever there is room. */
static pl_status open_ple(pl_engine *e, const pl_share *share, pl_error *err)
{
    int cpus[MAX_THREADS];
    pl_ple_params ple = {.placement = e->placement.ple,
                         .max_rows = e->batch_rows,
                         .cache_bytes = PL_PLE_CACHE_BYTES,
                         .share = share && share->table ? share : NULL,
                         .cpus = cpus,
                         .timeline = e->timeline};
    if (e->placement.backend == PL_BACKEND_CUDA)
        ple.n_cpus = pl_topology_near(PL_SYSFS, e->placement.pci_id, MAX_THREADS, cpus);
    PL_TRY(pl_ple_open(e->model->checkpoint, e->backend, &ple, &e->ple, err));
    for (int i = 1; e->ranks && e->placement.ple == PL_PLE_VRAM && i < e->ranks->n; i++)
        PL_TRY(pl_ple_open(e->model->checkpoint, e->ranks->rank[i].backend, &ple, &e->ranks->rank[i].ple, err));
    e->ple_rows = pl_ple_view(e->ple);
    return PL_OK;
}

static pl_status place(pl_engine *e, const pl_engine_params *params, const pl_seat *seat, pl_error *err)
{
    pl_placement_wish wish = {.backend = params->backend,
                              .device = params->device,
                              .ranks = chosen(params->tp, 1),
                              .engines = seat ? seat->engines : 1,
                              .ple = params->ple,
                              .sessions = params->sessions,
                              .context = params->context,
                              .batch_rows = params->batch_rows,
                              .kv_tokens = params->kv_tokens,
                              .kv_bytes = params->kv_bytes,
                              .cache = params->cache};
    PL_TRY(pl_placement_here(e->model->checkpoint, &wish, &e->placement, err));
    e->timeline = params->timeline;
    e->context = e->placement.context;
    e->batch_rows = e->placement.batch_rows;
    e->fast_prompts = params->fast_prompts;
    return PL_OK;
}

/* What prompts with images and sound need, but the towers themselves. */
static pl_status prepare_media(pl_engine *e, double keep_s, pl_error *err)
{
    float *rows = NULL;
    int32_t first = 0, n = 0;
    if (!pl_model_takes(e->model, PL_MEDIA_IMAGE) && !pl_model_takes(e->model, PL_MEDIA_AUDIO))
        return PL_OK;
    PL_TRY(pl_towers_create(e, keep_s, &e->towers, err));
    PL_TRY(pl_towers_hard_rows(e->towers, &rows, &first, &n, err));
    int32_t beyond = first + n > e->config->vocab ? first + n : e->config->vocab;
    pl_status status = pl_net_take_hard(e->net, rows, first, n, err);
    for (int i = 1; e->ranks && i < e->ranks->n && status == PL_OK; i++)
        status = pl_net_take_hard(e->ranks->rank[i].net, rows, first, n, err);
    free(rows);
    PL_TRY(status);
    return pl_soft_rows_create(beyond, e->config->hidden, PL_MEDIA_REMEMBERED_BYTES, &e->soft, err);
}

static pl_status load(pl_engine *e, const pl_engine_params *params, const pl_share *share, pl_error *err)
{
    const pl_checkpoint *from = e->model->checkpoint;
    if (e->ranks)
        return pl_tp_load(e->ranks, from, e->backend, params->progress, params->progress_user, &e->net, err);
    return pl_net_load(from, NULL, share, e->backend, params->progress, params->progress_user, &e->net, err);
}

static pl_status create_kv(pl_engine *e, pl_error *err)
{
    pl_kv_size kv = {.sequences = e->placement.sessions,
                     .context = e->context,
                     .batch_rows = e->batch_rows,
                     .tokens = e->placement.kv_tokens,
                     .type = e->placement.cache};
    if (e->ranks)
        return pl_tp_create_kv(e->ranks, e->config, e->backend, &kv, &e->kv, err);
    return pl_kv_create(e->config, e->backend, &kv, &e->kv, err);
}

/* Ranks leave it to the host to draw: a token drawn on one card would have to come to the others. */
static pl_status create_step(pl_engine *e, pl_error *err)
{
    if (!e->ranks)
        PL_TRY(pl_draws_create(e->backend, e->placement.sessions, &e->draws, err));
    PL_TRY(pl_step_create(e->net, e->kv, e->ple, &e->ple_rows, e->draws, e->soft, e->batch_rows, &e->step, err));
    return e->ranks ? pl_tp_create_steps(e->ranks, e->kv, &e->ple_rows, e->soft, e->batch_rows, e->step, err) : PL_OK;
}

/* All parts, where the placement says. */
static pl_status build(pl_engine *e, const pl_engine_params *params, const pl_seat *seat, pl_error *err)
{
    double begin = pl_timeline_now(e->timeline);
    const pl_share *share = NULL;
    PL_TRY(open_backends(e, params, seat, err));
    if (seat && seat->opened)
        PL_TRY(seat->opened(seat->user, e, &share, err));
    PL_TRY(load(e, params, share, err));
    if (e->backend->take_head && e->placement.ple != PL_PLE_DISK) /* there memory is short */
        PL_TRY(e->backend->take_head(e->backend, &e->net->head, err));
    PL_TRY(prepare_media(e, params->keep_towers_s, err));
    PL_TRY(open_ple(e, share, err));
    PL_TRY(create_kv(e, err));
    PL_TRY(create_step(e, err));
    pl_timeline_end(e->timeline, PL_TIMELINE_MAIN, "load", begin);
    return PL_OK;
}

static void tear_down(pl_engine *e)
{
    pl_towers_free(e->towers);
    pl_tp_free_parts(e->ranks);
    pl_step_free(e->step);
    pl_soft_rows_free(e->soft);
    pl_ple_free(e->ple); /* its thread looks at the draws */
    pl_draws_free(e->draws);
    pl_kv_free(e->kv);
    pl_net_free(e->net);
    pl_tp_free(e->ranks);
    pl_backend_free(e->backend);
    e->ranks = NULL;
    e->towers = NULL;
    e->soft = NULL;
    e->step = NULL;
    e->draws = NULL;
    e->kv = NULL;
    e->ple = NULL;
    e->net = NULL;
    e->backend = NULL;
}

/* Where a card that was only chosen for being there does not do what it promised, the CPU does. */
static pl_status place_and_build(pl_engine *e, const pl_engine_params *params, const pl_seat *seat, pl_error *err)
{
    PL_TRY(check_params(e->config, params, err));
    PL_TRY(place(e, params, seat, err));
    pl_error failure = {0};
    pl_status status = build(e, params, seat, &failure);
    bool of_the_card = status == PL_ERR_MEMORY || status == PL_ERR_DEVICE || status == PL_ERR_UNSUPPORTED;
    if (!of_the_card || params->backend != PL_BACKEND_AUTO || e->placement.backend != PL_BACKEND_CUDA) {
        if (status != PL_OK && err)
            *err = failure;
        return status;
    }
    tear_down(e);
    pl_engine_params on_cpu = *params;
    on_cpu.backend = PL_BACKEND_CPU;
    PL_TRY(place(e, &on_cpu, seat, err));
    snprintf(e->placement.reason, sizeof e->placement.reason, "on the CPU: %.480s", failure.message);
    return build(e, &on_cpu, seat, err);
}

pl_status pl_engine_create_at(const pl_model *model, const pl_engine_params *params, const pl_seat *seat,
                              pl_engine **out, pl_error *err)
{
    double start = pl_clock_seconds();
    *out = NULL;
    if (!model->checkpoint)
        return pl_fail(err, PL_ERR_ARGUMENT, "the model was opened for its text tools only");
    pl_engine *e = calloc(1, sizeof *e);
    if (!e)
        return pl_fail_memory(err, sizeof *e, "engine");
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->turn, NULL);
    e->model = model;
    e->config = pl_checkpoint_config(model->checkpoint);
    *out = e;
    PL_TRY(place_and_build(e, params, seat, err));
    e->load_s = pl_clock_seconds() - start;
    return PL_OK;
}

pl_status pl_engine_create(const pl_model *model, const pl_engine_params *params, pl_engine **out, pl_error *err)
{
    static const pl_engine_params defaults = {0};
    pl_engine *e;
    pl_status status = pl_engine_create_at(model, params ? params : &defaults, NULL, &e, err);
    if (status == PL_OK)
        *out = e;
    else
        pl_engine_free(e);
    return status;
}

void pl_engine_free(pl_engine *e)
{
    if (!e)
        return;
    tear_down(e);
    pthread_mutex_destroy(&e->turn);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

/* Of the vocabulary, of the towers', or beyond both, where it may stand for something. */
static bool may_be(const pl_engine *e, int32_t id)
{
    if (id < 0 || id < e->config->vocab)
        return id >= 0;
    return pl_net_is_hard(e->net, id) || (e->soft && id >= pl_soft_rows_first(e->soft));
}

pl_status pl_engine_hold_ids(pl_engine *e, const int32_t *ids, size_t n, const char *what, pl_soft_holds *holds,
                             pl_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!may_be(e, ids[i]))
            return pl_fail(err, PL_ERR_ARGUMENT, "%s %zu is %d, expected 0 to %d", what, i, ids[i],
                           e->config->vocab - 1);
    return e->soft ? pl_soft_rows_hold(e->soft, ids, n, what, holds, err) : PL_OK;
}

void pl_engine_describe(const pl_engine *e, pl_engine_info *out)
{
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    pl_ple_stats ple = pl_ple_statistics(e->ple);
    *out = (pl_engine_info){
        .backend = e->backend->name,
        .kind = e->placement.backend,
        .ple = e->placement.ple,
        .cache = e->placement.cache,
        .placement = e->placement.reason,
        .ple_rows = ple.rows,
        .ple_hits = ple.hits,
        .sessions = e->placement.sessions,
        .threads = pl_pool_threads(e->backend->pool) * (e->ranks ? e->ranks->n : 1),
        .context = e->context,
        .batch_rows = e->batch_rows,
        .load_s = e->load_s,
        .weight_bytes = e->net->loaded_bytes + pl_tp_loaded_bytes(e->ranks, false),
        .mapped_bytes = e->net->mapped_bytes + pl_tp_loaded_bytes(e->ranks, true),
        .peak_bytes = (size_t)usage.ru_maxrss * 1024,
    };
}
