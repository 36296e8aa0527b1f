#include "host/engine/draws.h"

#include <stdlib.h>

struct pl_draws {
    pl_backend *backend;
    int n;
    pl_draw *samplers; /* [n] in the ops' memory, with the table behind them */
    pl_draw **table;   /* [n] likewise: where each is */
    pl_drawn *drawn;   /* [n] in shared memory */
    uint32_t *queued;  /* [n] */
};

size_t pl_draws_bytes(int sequences)
{
    return (size_t)sequences * (sizeof(pl_draw) + sizeof(pl_draw *));
}

static pl_status create(pl_draws *d, pl_error *err)
{
    size_t n = (size_t)d->n;
    pl_draw **table = calloc(n, sizeof *table);
    d->queued = calloc(n, sizeof *d->queued);
    d->samplers = d->backend->memory_take(d->backend, pl_draws_bytes(d->n));
    d->drawn = d->backend->shared_take(d->backend, n * sizeof *d->drawn);
    if (!table || !d->queued || !d->samplers || !d->drawn) {
        free(table);
        return pl_backend_fail_memory(d->backend, pl_draws_bytes(d->n), "samplers", err);
    }
    d->table = (pl_draw **)(d->samplers + n);
    for (size_t i = 0; i < n; i++)
        table[i] = d->samplers + i;
    d->backend->upload(d->backend->stream, d->table, table, n * sizeof *table);
    free(table);
    return PL_OK;
}

pl_status pl_draws_create(pl_backend *backend, int sequences, pl_draws **out, pl_error *err)
{
    *out = NULL;
    if (!backend->ops->draw)
        return PL_OK;
    pl_draws *d = calloc(1, sizeof *d);
    if (!d)
        return pl_fail_memory(err, sizeof *d, "samplers");
    d->backend = backend;
    d->n = sequences;
    pl_status status = create(d, err);
    if (status != PL_OK) {
        pl_draws_free(d);
        return status;
    }
    *out = d;
    return PL_OK;
}

void pl_draws_free(pl_draws *d)
{
    if (!d)
        return;
    d->backend->memory_give(d->backend, d->samplers, pl_draws_bytes(d->n));
    d->backend->shared_give(d->backend, d->drawn, (size_t)d->n * sizeof *d->drawn);
    free(d->queued);
    free(d);
}

void pl_draws_start(pl_draws *d, int32_t sequence, const pl_draw *sampler)
{
    d->queued[sequence] = sampler->count;
    d->drawn[sequence].both = (pl_drawn){.token = sampler->token, .count = sampler->count}.both;
    d->backend->upload(d->backend->stream, d->samplers + sequence, sampler, sizeof *sampler);
}

pl_draw *pl_draws_sampler(const pl_draws *d, int32_t sequence)
{
    return d->samplers + sequence;
}

pl_drawn *pl_draws_drawn(const pl_draws *d, int32_t sequence)
{
    return d->drawn + sequence;
}

pl_draw *const *pl_draws_all(const pl_draws *d)
{
    return d->table;
}

uint32_t pl_draws_queue(pl_draws *d, int32_t sequence)
{
    return ++d->queued[sequence];
}

uint32_t pl_draws_queued(const pl_draws *d, int32_t sequence)
{
    return d->queued[sequence];
}
