#include "tests/batch/local_ranks.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/base/rng.h"
#include "host/batch/crew_message.h"

#define VOUCH_S 0.1 /* after which the net says again that a rank is alive */

typedef struct message {
    struct message *next;
    int from, kind;
    double due;
    size_t n;
    unsigned char data[];
} message;

typedef struct rank {
    pl_ranks ranks; /* first */
    local_net *net;
    message *first, **last;
    double *due;     /* [size] of the last message from each */
    double *vouched; /* [size] when the net last said of each that it is alive */
    bool cut_off;
} rank;

struct local_net {
    local_params p;
    bool vouches;
    pthread_mutex_t lock;
    pthread_barrier_t barrier, firsts; /* of all; of the first ranks of machines */
    pl_rng rng;
    void *sent; /* what is being broadcast */
    rank *rank; /* [size] */
};

static pl_status send_message(pl_ranks *r, int to, int kind, const void *data, size_t n, pl_error *err)
{
    rank *self = (rank *)r;
    local_net *net = self->net;
    message *m = malloc(sizeof *m + n);
    if (!m)
        return pl_fail_memory(err, sizeof *m + n, "a message");
    *m = (message){.from = r->rank, .kind = kind, .n = n};
    memcpy(m->data, data, n);
    bool arrives = !net->p.tamper || net->p.tamper(net->p.user, r->rank, to, kind, m->data, &m->n);
    pthread_mutex_lock(&net->lock);
    rank *other = &net->rank[to];
    if (!arrives || self->cut_off || other->cut_off) {
        free(m);
    } else {
        m->due = pl_clock_seconds() + net->p.delay_s * pl_rng_uniform(&net->rng);
        if (m->due < other->due[r->rank])
            m->due = other->due[r->rank];
        other->due[r->rank] = m->due;
        *other->last = m;
        other->last = &m->next;
    }
    pthread_mutex_unlock(&net->lock);
    return PL_OK;
}

/* A message from a rank that is not cut off, or has messages underway; NULL: nothing is to be said now. With the lock. */
static message *sign_of_life(rank *self, double now)
{
    local_net *net = self->net;
    int from = -1;
    for (int i = 0; i < net->p.size && net->vouches && !self->cut_off; i++) {
        bool alive = !net->rank[i].cut_off;
        for (const message *m = self->first; m && !alive; m = m->next)
            alive = m->from == i;
        if (alive && (i == 0) != (self->ranks.rank == 0) && now - self->vouched[i] >= VOUCH_S)
            from = i;
    }
    if (from < 0)
        return NULL;
    self->vouched[from] = now;
    pl_strbuf text = {.data = NULL};
    pl_crew_begin(&text);
    pl_crew_seal(&text, PL_CREW_PULSE);
    message *m = text.failed ? NULL : malloc(sizeof *m + text.n);
    if (m) {
        *m = (message){.from = from, .kind = PL_CREW_PULSE, .n = text.n};
        memcpy(m->data, text.data, text.n);
    }
    pl_strbuf_free(&text);
    return m;
}

static pl_status poll_messages(pl_ranks *r, int *from, int *kind, void **data, size_t *n, pl_error *err)
{
    rank *self = (rank *)r;
    double now = pl_clock_seconds();
    *from = -1;
    pthread_mutex_lock(&self->net->lock);
    message **at = &self->first;
    while (*at && (*at)->due > now)
        at = &(*at)->next;
    message *m = *at;
    if (m) {
        *at = m->next;
        if (!m->next)
            self->last = at;
    } else {
        m = sign_of_life(self, now);
    }
    pthread_mutex_unlock(&self->net->lock);
    if (!m)
        return PL_OK;
    *data = malloc(m->n + 1);
    if (!*data) {
        free(m);
        return pl_fail_memory(err, 1, "a message");
    }
    memcpy(*data, m->data, m->n);
    *n = m->n;
    *from = m->from;
    *kind = m->kind;
    free(m);
    return PL_OK;
}

static pl_status wait_for_all(pl_ranks *r, pl_error *err)
{
    (void)err;
    pthread_barrier_wait(&((rank *)r)->net->barrier);
    return PL_OK;
}

static pl_status broadcast(pl_ranks *r, void *data, size_t n, pl_error *err)
{
    local_net *net = ((rank *)r)->net;
    (void)err;
    if (!r->first_of_host)
        return PL_OK;
    if (r->rank == 0)
        net->sent = data;
    pthread_barrier_wait(&net->firsts);
    if (r->rank != 0)
        memcpy(data, net->sent, n);
    pthread_barrier_wait(&net->firsts);
    return PL_OK;
}

static void end_all(pl_ranks *r, int code)
{
    (void)r;
    _exit(code);
}

static void nothing(pl_ranks *r)
{
    (void)r;
}

local_net *local_net_create(const local_params *params)
{
    local_net *net = calloc(1, sizeof *net);
    size_t n = (size_t)params->size;
    net->p = *params;
    net->rank = calloc(n, sizeof *net->rank);
    pthread_mutex_init(&net->lock, NULL);
    pthread_barrier_init(&net->barrier, NULL, (unsigned)n);
    unsigned firsts = 0;
    pl_rng_seed(&net->rng, params->seed);
    for (int i = 0; i < params->size; i++) {
        rank *r = &net->rank[i];
        r->net = net;
        r->last = &r->first;
        r->due = calloc(n, sizeof *r->due);
        r->vouched = calloc(n, sizeof *r->vouched);
        r->ranks = (pl_ranks){.rank = i,
                              .size = params->size,
                              .host = params->hosts ? params->hosts[i] : 0,
                              .first_of_host = true,
                              .patience_s = 100,
                              .send = send_message,
                              .poll = poll_messages,
                              .broadcast_to_hosts = broadcast,
                              .barrier = wait_for_all,
                              .abort = end_all,
                              .close = nothing};
        for (int k = 0; k < i; k++)
            if (net->rank[k].ranks.host == r->ranks.host)
                r->ranks.first_of_host = false;
        firsts += r->ranks.first_of_host;
        snprintf(r->ranks.name, sizeof r->ranks.name, "node%d", r->ranks.host);
    }
    pthread_barrier_init(&net->firsts, NULL, firsts);
    return net;
}

pl_ranks *local_net_rank(local_net *net, int i)
{
    return &net->rank[i].ranks;
}

void local_net_cut_off(local_net *net, int i)
{
    pthread_mutex_lock(&net->lock);
    net->rank[i].cut_off = true;
    pthread_mutex_unlock(&net->lock);
}

void local_net_vouch(local_net *net)
{
    net->vouches = true;
}

void local_net_free(local_net *net)
{
    for (int i = 0; i < net->p.size; i++) {
        for (message *m = net->rank[i].first, *next; m; m = next) {
            next = m->next;
            free(m);
        }
        free(net->rank[i].due);
        free(net->rank[i].vouched);
    }
    pthread_barrier_destroy(&net->firsts);
    pthread_barrier_destroy(&net->barrier);
    pthread_mutex_destroy(&net->lock);
    free(net->rank);
    free(net);
}
