#include "host/engine/engine.h"

#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/topology.h"

#include <stdlib.h>
#include <sys/resource.h>

#define MAX_SESSIONS 4
#define DEFAULT_CONTEXT 32768
#define DEFAULT_BATCH_ROWS 512
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
    if (params->context < 0 || params->context > config->context)
        return pl_fail(err, PL_ERR_ARGUMENT, "context: %d, expected 0 to the model's %d", params->context,
                       config->context);
    return PL_OK;
}

static pl_status open_backend(pl_engine *e, const pl_engine_params *params, pl_error *err)
{
    pl_topology *topology = NULL;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    int threads = chosen(params->threads, pl_topology_cores(topology));
    int *cpus = params->no_pin ? NULL : calloc((size_t)threads, sizeof *cpus);
    if (cpus)
        pl_topology_place(topology, threads, cpus);
    pl_topology_close(topology);
    pl_backend_shape shape = {
        e->batch_rows, e->context, {e->config->n_heads, e->config->n_kv_heads, e->config->head_dim}};
    pl_status status = pl_backend_cpu(&shape, threads, cpus, PL_CPU_ALL, &e->backend, err);
    free(cpus);
    return status;
}

static pl_status build(pl_engine *e, const pl_engine_params *params, pl_error *err)
{
    const pl_checkpoint *checkpoint = e->model->checkpoint;
    PL_TRY(check_params(e->config, params, err));
    int most = e->config->context < DEFAULT_CONTEXT ? e->config->context : DEFAULT_CONTEXT;
    e->context = chosen(params->context, most);
    e->batch_rows = chosen(params->batch_rows, DEFAULT_BATCH_ROWS);
    if (e->batch_rows > e->context)
        e->batch_rows = e->context;
    PL_TRY(open_backend(e, params, err));
    PL_TRY(pl_net_load(checkpoint, e->backend, params->progress, params->progress_user, &e->net, err));
    e->ple = pl_ple_of(checkpoint);
    PL_TRY(pl_kv_create(e->config, e->backend, MAX_SESSIONS, e->context, e->batch_rows, &e->kv, err));
    return pl_step_create(e->net, e->kv, &e->ple, e->batch_rows, &e->step, err);
}

pl_status pl_engine_create(const pl_model *model, const pl_engine_params *params, pl_engine **out, pl_error *err)
{
    static const pl_engine_params defaults = {0};
    double start = pl_clock_seconds();
    if (!model->checkpoint)
        return pl_fail(err, PL_ERR_ARGUMENT, "the model was opened for its text tools only");
    pl_engine *e = calloc(1, sizeof *e);
    if (!e)
        return pl_fail_memory(err, sizeof *e, "engine");
    pthread_mutex_init(&e->lock, NULL);
    e->model = model;
    e->config = pl_checkpoint_config(model->checkpoint);
    pl_status status = build(e, params ? params : &defaults, err);
    if (status != PL_OK) {
        pl_engine_free(e);
        return status;
    }
    e->load_s = pl_clock_seconds() - start;
    *out = e;
    return PL_OK;
}

void pl_engine_free(pl_engine *e)
{
    if (!e)
        return;
    pl_step_free(e->step);
    pl_kv_free(e->kv);
    pl_net_free(e->net);
    pl_backend_free(e->backend);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

void pl_engine_describe(const pl_engine *e, pl_engine_info *out)
{
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    *out = (pl_engine_info){
        .backend = e->backend->name,
        .threads = pl_pool_threads(e->backend->pool),
        .context = e->context,
        .batch_rows = e->batch_rows,
        .load_s = e->load_s,
        .weight_bytes = e->net->packed_bytes,
        .mapped_bytes = e->net->mapped_bytes,
        .peak_bytes = (size_t)usage.ru_maxrss * 1024,
    };
}
