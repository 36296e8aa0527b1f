/* Engines on several cards, or on parts of the machine, made side by side: a thread for each.
 *
 * Where their backends can work together the first one loads the weights, and the others get them from it; the result is
 * the same bits. They meet before and after each phase of that, so that none waits for one that has failed. */
#include "host/base/topology.h"
#include "host/engine/engine.h"
#include "host/ops/devices.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENGINES_MOST PL_COMM_MOST
#define MAX_CPUS 4096

typedef struct crew crew;

/* One engine, and who makes it. */
typedef struct member {
    crew *of;
    int index;
    pl_engine_params params;
    pl_seat seat;
    pl_share share;
    pthread_t thread;
    pl_engine *engine;
    int *cpus;
} member;

struct crew {
    const pl_model *model;
    int n;
    bool on_cards;
    member *members;
    pl_comm *comm[PL_COMM_MOST]; /* NULL: each loads for itself */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    int here; /* that wait for the others */
    unsigned round;
    pl_status status; /* PL_OK, or of the first that failed */
    pl_error failure;
};

/* ---- meeting ---- */

static pl_status meet(void *user, pl_error *err)
{
    crew *c = ((member *)user)->of;
    pthread_mutex_lock(&c->lock);
    unsigned round = c->round;
    if (++c->here == c->n) {
        c->here = 0;
        c->round++;
        pthread_cond_broadcast(&c->changed);
    }
    while (round == c->round && c->status == PL_OK)
        pthread_cond_wait(&c->changed, &c->lock);
    bool met = round != c->round;
    pthread_mutex_unlock(&c->lock);
    return met ? PL_OK : pl_fail(err, PL_ERR_CANCELLED, "another engine has failed");
}

static void give_up(member *m, pl_status status, const pl_error *why)
{
    crew *c = m->of;
    pthread_mutex_lock(&c->lock);
    bool first = c->status == PL_OK;
    if (first && c->n == 1) {
        c->status = status;
        c->failure = *why;
    } else if (first && c->on_cards) {
        c->status = pl_fail(&c->failure, status, "engine on card %d: %.480s", m->params.device, why->message);
    } else if (first) {
        c->status = pl_fail(&c->failure, status, "engine %d of %d: %.480s", m->index + 1, c->n, why->message);
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (first && c->comm[m->index])
        c->comm[m->index]->abort(c->comm[m->index]);
}

/* ---- sharing ---- */

static void PL_PRINTF(2, 3) add_reason(member *m, const char *fmt, ...)
{
    char *reason = m->engine->placement.reason;
    size_t n = strlen(reason);
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason + n, sizeof m->engine->placement.reason - n, fmt, args);
    va_end(args);
}

/* Where they cannot work together, whatever the reason, each loads for itself. */
static void connect(crew *c)
{
    pl_backend *backends[PL_COMM_MOST];
    pl_error why;
    bool tables = true;
    if (c->n < 2 || c->members[0].params.tp > 1)
        return;
    for (int i = 0; i < c->n; i++) {
        backends[i] = c->members[i].engine->backend;
        tables &= c->members[i].engine->placement.ple == PL_PLE_VRAM;
        if (!backends[i]->weight_describe)
            return;
    }
    bool together = pl_comm_create(backends, c->n, c->comm, &why) == PL_OK;
    if (!together)
        memset(c->comm, 0, sizeof c->comm);
    for (int i = 1; i < c->n; i++)
        if (together)
            add_reason(&c->members[i], "; weights from card %d", c->members[0].params.device);
        else
            add_reason(&c->members[i], "; weights from the file: %s", why.message);
    for (int i = 0; together && i < c->n; i++)
        c->members[i].share = (pl_share){.comm = c->comm[i], .meet = meet, .user = &c->members[i], .table = tables};
}

static pl_status opened(void *user, pl_engine *engine, const pl_share **share, pl_error *err)
{
    member *m = user;
    m->engine = engine;
    PL_TRY(meet(m, err));
    if (m->index == 0)
        connect(m->of);
    PL_TRY(meet(m, err));
    *share = m->of->comm[0] ? &m->share : NULL;
    return PL_OK;
}

/* ---- where they are ---- */

/* The NUMA node that each is to be on. */
static void choose_nodes(const crew *c, const pl_topology *topology, int *node)
{
    pl_device_list cards = {.n = 0};
    int cpus[MAX_CPUS];
    if (c->on_cards)
        pl_devices_list(&cards);
    for (int i = 0; i < c->n; i++) {
        int device = c->members[i].params.device;
        node[i] = -1;
        if (c->on_cards && device >= 0 && device < cards.n)
            node[i] = pl_topology_node_of(topology, cpus,
                                          pl_topology_near(PL_SYSFS, cards.devices[device].pci_id, MAX_CPUS, cpus));
        else if (c->n > 1)
            node[i] = pl_topology_node_at(topology, i);
    }
}

static pl_status seat_all(crew *c, pl_error *err)
{
    pl_topology *topology = NULL;
    int node[ENGINES_MOST];
    pl_status status = PL_OK;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    choose_nodes(c, topology, node);
    size_t processors = (size_t)pl_topology_processors(topology);
    for (int i = 0; i < c->n && status == PL_OK; i++) {
        member *m = &c->members[i];
        m->seat = (pl_seat){.engines = c->n, .opened = opened, .user = m};
        m->seat.cpus = m->cpus = calloc(processors, sizeof *m->cpus);
        if (m->cpus)
            m->seat.n_cpus = pl_topology_part(topology, node, c->n, i, m->cpus, &m->seat.cores);
        else
            status = pl_fail_memory(err, processors * sizeof *m->cpus, "threads");
    }
    pl_topology_close(topology);
    return status;
}

/* ---- making ---- */

/* Memory is taken on the node of the thread that asks for it, or first writes to it. */
static void *make(void *arg)
{
    member *m = arg;
    pl_error err = {0};
    pl_status status = PL_OK;
    if (!m->params.no_pin)
        status = pl_thread_bind(m->seat.cpus, m->seat.n_cpus, &err);
    if (status == PL_OK)
        status = pl_engine_create_at(m->of->model, &m->params, &m->seat, &m->engine, &err);
    if (status != PL_OK)
        give_up(m, status, &err);
    return NULL;
}

static void make_all(crew *c)
{
    int started = 0;
    for (; started < c->n; started++) {
        member *m = &c->members[started];
        int error = pthread_create(&m->thread, NULL, make, m);
        if (error) {
            pl_error err;
            give_up(m, pl_fail(&err, PL_ERR_IO, "cannot start a thread: %s", strerror(error)), &err);
            break;
        }
    }
    for (int i = 0; i < started; i++)
        pthread_join(c->members[i].thread, NULL);
}

static pl_status check_devices(const int *devices, int n, int cards, pl_error *err)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (abs(devices[i] - devices[j]) < cards)
                return pl_fail(err, PL_ERR_ARGUMENT, "card %d is to have two engines",
                               devices[i] > devices[j] ? devices[i] : devices[j]);
    return PL_OK;
}

/* Several are on cards where the machine has any, unless the CPU was asked for. */
static bool are_on_cards(const pl_engine_params *params, int n)
{
    pl_device_list cards = {.n = 0};
    if (params->backend == PL_BACKEND_AUTO && n > 1)
        pl_devices_list(&cards);
    return params->backend == PL_BACKEND_CUDA || cards.n > 0;
}

static pl_status fill(crew *c, const pl_engine_params *params, const int *devices, pl_error *err)
{
    c->members = calloc((size_t)c->n, sizeof *c->members);
    if (!c->members)
        return pl_fail_memory(err, (size_t)c->n * sizeof *c->members, "engines");
    for (int i = 0; i < c->n; i++) {
        member *m = &c->members[i];
        *m = (member){.of = c, .index = i, .params = *params};
        m->params.device = devices ? devices[i] : i;
        if (c->n > 1)
            m->params.backend = c->on_cards ? PL_BACKEND_CUDA : PL_BACKEND_CPU;
        if (i > 0)
            m->params.progress = NULL;
    }
    if (c->on_cards && devices)
        PL_TRY(check_devices(devices, c->n, params->tp > 1 ? params->tp : 1, err));
    return seat_all(c, err);
}

static void release(crew *c)
{
    for (int i = 0; c->members && i < c->n; i++)
        free(c->members[i].cpus);
    free(c->members);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
}

pl_status pl_engines_create(const pl_model *model, const pl_engine_params *params, const int *devices, int n,
                            pl_engine **out, pl_error *err)
{
    static const pl_engine_params defaults = {0};
    if (n < 1 || n > ENGINES_MOST)
        return pl_fail(err, PL_ERR_ARGUMENT, "%d engines, expected 1 to %d", n, ENGINES_MOST);
    params = params ? params : &defaults;
    crew c = {.model = model, .n = n, .on_cards = are_on_cards(params, n)};
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.changed, NULL);
    pl_status status = fill(&c, params, devices, err);
    if (status != PL_OK) {
        release(&c);
        return status;
    }
    make_all(&c);
    for (int i = 0; i < PL_COMM_MOST; i++)
        pl_comm_free(c.comm[i]);
    for (int i = 0; i < n; i++)
        if (c.status != PL_OK)
            pl_engine_free(c.members[i].engine);
        else
            out[i] = c.members[i].engine;
    status = c.status;
    if (status != PL_OK && err)
        *err = c.failure;
    release(&c);
    return status;
}
