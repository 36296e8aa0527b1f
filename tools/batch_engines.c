#include "tools/batch_engines.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/topology.h"
#include "tools/console.h"
#include "tools/loading.h"
#include "tools/opened.h"

/* ---- which cards ---- */

typedef struct cards {
    int items[PL_DEVICES_MAX];
    int n;
} cards;

static bool is_usable(const pl_device *d)
{
    return d->capability_major * 10 + d->capability_minor >= PL_LEAST_CAPABILITY;
}

static pl_status read_cards(const char *text, const pl_device_list *there, cards *out, pl_error *err)
{
    for (const char *p = text;; p++) {
        char *end;
        long card = strtol(p, &end, 10);
        if (end == p || *p < '0' || *p > '9' || (*end && *end != ','))
            return pl_fail(err, PL_ERR_ARGUMENT,
                           "--device takes all, or numbers of cards joined by commas, not '%.80s'", text);
        if (card >= there->n)
            return pl_fail(err, PL_ERR_ARGUMENT, "--device %.80s: there is no card %ld (%s)", text, card,
                           there->n ? "see pleiad inspect --list-devices" : there->reason);
        for (int i = 0; i < out->n; i++)
            if (out->items[i] == card)
                return pl_fail(err, PL_ERR_ARGUMENT, "--device %.80s: card %ld is there twice", text, card);
        out->items[out->n++] = (int)card;
        p = end;
        if (!*p)
            return PL_OK;
    }
}

static pl_status find_cards(const pl_options *options, pl_backend_kind backend, cards *out, pl_error *err)
{
    pl_device_list there = {.n = 0};
    if (backend == PL_BACKEND_CPU)
        return PL_OK;
    pl_devices_list(&there);
    if (strcmp(options->devices, "all") != 0)
        return read_cards(options->devices, &there, out, err);
    for (int i = 0; i < there.n; i++)
        if (is_usable(&there.devices[i]))
            out->items[out->n++] = i;
    if (out->n == 0 && backend == PL_BACKEND_CUDA)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "there is no card to compute on: %s",
                       there.n ? "all are too old" : there.reason);
    return PL_OK;
}

/* An engine takes `tp` cards that follow each other; ranks of one machine take turns. What is left are the first cards of
 * this rank's engines. */
static pl_status deal_cards(cards *c, int tp, const pl_ranks *ranks, pl_error *err)
{
    int kept = 0, engines = c->n / tp;
    if (c->n > 0 && engines == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "--tp %d: only %d cards", tp, c->n);
    for (int i = 0; i < engines; i++) {
        for (int k = 1; k < tp; k++)
            if (c->items[i * tp + k] != c->items[i * tp] + k)
                return pl_fail(err, PL_ERR_ARGUMENT, "--tp %d: cards %d and %d do not follow each other", tp,
                               c->items[i * tp], c->items[i * tp + k]);
        if (!ranks || i % ranks->n_local == ranks->local)
            c->items[kept++] = c->items[i * tp];
    }
    c->n = kept;
    return PL_OK;
}

/* ---- engines ---- */

/* Ranks of one machine that mpirun has not bound to cores of their own share what there is. */
static pl_status share_threads(const pl_ranks *ranks, pl_engine_params *params, pl_error *err)
{
    pl_topology *topology;
    if (!ranks || ranks->n_local == 1)
        return PL_OK;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    int cores = pl_topology_cores(topology), processors = pl_topology_processors(topology);
    pl_topology_close(topology);
    if (processors < sysconf(_SC_NPROCESSORS_ONLN))
        return PL_OK;
    params->no_pin = true; /* each would take the same cores first */
    if (params->threads == 0)
        params->threads = cores > ranks->n_local ? cores / ranks->n_local : 1;
    return PL_OK;
}

/* One a NUMA node, where all of the machine is ours. */
static pl_status count_nodes(const pl_ranks *ranks, const pl_engine_params *params, int *out, pl_error *err)
{
    pl_topology *topology;
    *out = 1;
    if ((ranks && ranks->n_local > 1) || params->threads > 0 || params->tp > 1)
        return PL_OK;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    int nodes = pl_topology_numa_nodes(topology);
    pl_topology_close(topology);
    *out = nodes > PL_DEVICES_MAX ? PL_DEVICES_MAX : nodes > 1 ? nodes : 1;
    return PL_OK;
}

static pl_status make_on_cpu(const pl_model *model, const pl_ranks *ranks, pl_engine_params *params,
                             pl_batch_engines *out, pl_error *err)
{
    int n;
    params->backend = PL_BACKEND_CPU;
    PL_TRY(count_nodes(ranks, params, &n, err));
    PL_TRY(share_threads(ranks, params, err));
    PL_TRY(pl_engines_create(model, params, NULL, n, out->items, err));
    out->n = n;
    return PL_OK;
}

static pl_status make_on_cards(const pl_model *model, const cards *c, pl_engine_params *params, pl_batch_engines *out,
                               pl_error *err)
{
    params->backend = PL_BACKEND_CUDA;
    PL_TRY(pl_engines_create(model, params, c->items, c->n, out->items, err));
    out->n = c->n;
    return PL_OK;
}

static void describe(const pl_options *options, const pl_batch_engines *engines)
{
    for (int i = 0; i < engines->n; i++) {
        pl_engine_info info;
        pl_engine_describe(engines->items[i], &info);
        pl_console_detail(options, "engine %d: %s, %d threads, %d requests at once, context %d; loaded in %.2f s", i,
                          info.backend, info.threads, info.sessions, info.context, info.load_s);
    }
}

pl_status pl_batch_engines_make(const pl_options *options, const pl_model *model, const pl_ranks *ranks,
                                pl_batch_engines *out, pl_error *err)
{
    pl_loading loading = {.wanted = !options->quiet};
    pl_engine_params params = pl_opened_params(options);
    pl_backend_kind wish = params.backend;
    cards c = {.n = 0};
    pl_error why = {.message = ""};
    params.sessions = options->n_parallel;
    params.kv_tokens = options->kv_tokens;
    params.kv_bytes = (size_t)options->kv_memory;
    params.progress = pl_loading_show;
    params.progress_user = &loading;
    PL_TRY(find_cards(options, wish, &c, err));
    PL_TRY(deal_cards(&c, options->tp, ranks, err));
    pl_status status = c.n ? make_on_cards(model, &c, &params, out, &why) : PL_ERR_UNSUPPORTED;
    if (c.n && status != PL_OK && wish == PL_BACKEND_AUTO)
        pl_console_note(options, "on the CPU: %s", why.message);
    if (status != PL_OK && wish != PL_BACKEND_CUDA)
        status = make_on_cpu(model, ranks, &params, out, &why);
    else if (c.n == 0)
        pl_fail(&why, status, "machine %s has fewer cards than ranks", ranks->name);
    pl_loading_end(&loading);
    if (status != PL_OK && err)
        *err = why;
    describe(options, out);
    return status;
}

void pl_batch_engines_free(pl_batch_engines *engines)
{
    while (engines->n > 0)
        pl_engine_free(engines->items[--engines->n]);
}
