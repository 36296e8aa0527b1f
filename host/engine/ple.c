#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "host/engine/ple.h"

#include "host/engine/ple_gather.h"
#include "host/engine/ple_service.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PIECE ((size_t)64 << 20) /* of a table on its way */
#define LINE 64

struct pl_ple {
    pl_backend *backend;
    pl_tensor table; /* its rows that serve */
    pl_ple_params params;
    bool in_place; /* the ops read the host's memory, and so the mapped file */
    size_t row_bytes;

    void *copy; /* VRAM, PINNED */
    size_t copy_bytes;

    void *shared; /* HOST, DISK: the flag, in a cache line of its own, and the ring */
    size_t shared_bytes;
    pl_row_cache *cache;
    pl_ple_service *service;

    pl_ple_gather *gather; /* DISK, for the CPU's ops */
    char *rows;            /* [max_rows] of a step */
    size_t rows_bytes;
    uint32_t brought; /* the ticket of that step */

    uint32_t ticket;              /* the last one */
    uint64_t after[PL_PLE_SLOTS]; /* a mark behind the last step that read the slot; 0: none */
};

/* ---- sizes ---- */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* What the CPU's ops read they read where it is; others have weights of every type in memory of their own. */
static bool ops_read_the_file(const pl_backend *backend)
{
    pl_tensor plain = {.name = "", .rows = 1, .cols = 1, .type = PL_F32};
    return backend->weight_bytes(backend, &plain) == 0;
}

static pl_tensor rows_that_serve(const pl_checkpoint *checkpoint)
{
    pl_tensor table = pl_checkpoint_weights(checkpoint)->ple_table;
    table.rows = pl_checkpoint_config(checkpoint)->ple_vocab;
    return table;
}

static size_t row_stride(const pl_tensor *table)
{
    return round_up(pl_tensor_row_bytes(table), 16);
}

pl_ple_bytes pl_ple_memory(const pl_checkpoint *checkpoint, const pl_backend *backend, const pl_ple_params *params)
{
    pl_tensor table = rows_that_serve(checkpoint);
    /* Kernels read in pieces of 16 bytes. */
    size_t whole = round_up((size_t)table.rows * pl_tensor_row_bytes(&table), 16);
    size_t ring = LINE + PL_PLE_SLOTS * (size_t)params->max_rows * row_stride(&table);
    if (ops_read_the_file(backend) && params->placement != PL_PLE_DISK)
        return (pl_ple_bytes){0};
    if (ops_read_the_file(backend))
        return (pl_ple_bytes){.shared = (size_t)params->max_rows * pl_tensor_row_bytes(&table),
                              .cache = params->cache_bytes};
    switch (params->placement) {
    case PL_PLE_VRAM: return (pl_ple_bytes){.memory = whole};
    case PL_PLE_PINNED: return (pl_ple_bytes){.shared = whole};
    case PL_PLE_HOST: return (pl_ple_bytes){.shared = ring};
    case PL_PLE_DISK: return (pl_ple_bytes){.shared = ring, .cache = params->cache_bytes};
    case PL_PLE_AUTO: break;
    }
    return (pl_ple_bytes){0};
}

/* ---- placements ---- */

/* A piece's worth of the table from `row` on. */
static pl_tensor piece_at(const pl_ple *ple, int64_t row)
{
    pl_tensor part = ple->table;
    int64_t rows = PIECE > ple->row_bytes ? (int64_t)(PIECE / ple->row_bytes) : 1, left = ple->table.rows - row;
    part.rows = left < rows ? left : rows;
    part.data = pl_tensor_row(&ple->table, row);
    return part;
}

static void copy_rows(pl_ple *ple, const pl_checkpoint *checkpoint)
{
    pl_backend *b = ple->backend;
    const pl_share *share = ple->params.share;
    bool vram = ple->params.placement == PL_PLE_VRAM;
    size_t shared = 0;
    pl_tensor part = piece_at(ple, 0);
    for (int64_t row = 0; row < ple->table.rows; row += part.rows) {
        part = piece_at(ple, row);
        pl_tensor next = piece_at(ple, row + part.rows);
        if (next.rows > 0)
            pl_checkpoint_will_need(checkpoint, &next);
        char *to = (char *)ple->copy + (size_t)row * ple->row_bytes;
        size_t bytes = (size_t)part.rows * ple->row_bytes;
        if (vram)
            b->upload(b->stream, to, part.data, bytes);
        else
            memcpy(to, part.data, bytes);
        pl_checkpoint_drop(checkpoint, &part);
        if (share)
            pl_share_pieces(share, b->stream, ple->copy, ple->copy_bytes,
                            next.rows > 0 ? (size_t)(to - (char *)ple->copy) + bytes : ple->copy_bytes, &shared);
    }
}

static pl_status copy_table(pl_ple *ple, const pl_checkpoint *checkpoint, pl_error *err)
{
    pl_backend *b = ple->backend;
    const pl_share *share = ple->params.share;
    bool vram = ple->params.placement == PL_PLE_VRAM;
    ple->copy = vram ? b->memory_take(b, ple->copy_bytes) : b->shared_take(b, ple->copy_bytes);
    if (!ple->copy)
        return pl_fail_memory(err, ple->copy_bytes, vram ? "per-layer embeddings on the card" : "per-layer embeddings");
    if (share)
        PL_TRY(share->meet(share->user, err));
    if (pl_share_gets(share))
        pl_share_pieces(share, b->stream, ple->copy, ple->copy_bytes, ple->copy_bytes, &(size_t){0});
    else
        copy_rows(ple, checkpoint);
    PL_TRY(b->fetch(b->stream, NULL, 0, NULL, err));
    return share ? share->meet(share->user, err) : PL_OK;
}

/* Before Linux 5.14 the pages are only asked for. */
static pl_status bring_in(const pl_tensor *table, pl_error *err)
{
    const char *data = table->data;
    size_t bytes = (size_t)table->rows * pl_tensor_row_bytes(table);
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        int error = pl_ple_advise(data + at, n, MADV_POPULATE_READ);
        if (error == EINVAL)
            error = pl_ple_advise(data + at, n, MADV_WILLNEED);
        if (error)
            return pl_fail(err, error == ENOMEM ? PL_ERR_MEMORY : PL_ERR_IO, "tensor %s: cannot read: %s", table->name,
                           strerror(error));
    }
    return PL_OK;
}

static pl_status start_service(pl_ple *ple, pl_error *err)
{
    const pl_ple_params *p = &ple->params;
    pl_backend *b = ple->backend;
    bool disk = p->placement == PL_PLE_DISK;
    if (disk)
        pl_ple_advise(ple->table.data, (size_t)ple->table.rows * ple->row_bytes, MADV_RANDOM);
    else
        PL_TRY(bring_in(&ple->table, err));
    if (disk && p->cache_bytes >= ple->row_bytes)
        PL_TRY(pl_row_cache_create((int32_t)ple->table.rows, ple->row_bytes, p->cache_bytes, &ple->cache, err));
    ple->shared = b->shared_take(b, ple->shared_bytes);
    if (!ple->shared)
        return pl_fail_memory(err, ple->shared_bytes, "rows of per-layer embeddings");
    pl_ple_service_params params = {
        .rows = ple->table.data,
        .row_bytes = ple->row_bytes,
        .vocab = (int32_t)ple->table.rows,
        .cache = ple->cache,
        .read_ahead = disk,
        .ring = (char *)ple->shared + LINE,
        .row_stride = row_stride(&ple->table),
        .max_rows = p->max_rows,
        .ready = ple->shared,
        .cpus = p->cpus,
        .n_cpus = p->n_cpus,
        .timeline = p->timeline,
    };
    return pl_ple_service_start(&params, &ple->service, err);
}

static pl_status start_gathering(pl_ple *ple, const pl_checkpoint *checkpoint, pl_error *err)
{
    ple->rows = ple->backend->shared_take(ple->backend, ple->rows_bytes);
    if (!ple->rows)
        return pl_fail_memory(err, ple->rows_bytes, "rows of per-layer embeddings");
    return pl_ple_gather_open(checkpoint, &ple->table, ple->params.cache_bytes, &ple->gather, err);
}

pl_status pl_ple_open(const pl_checkpoint *checkpoint, pl_backend *backend, const pl_ple_params *params, pl_ple **out,
                      pl_error *err)
{
    pl_ple *ple = calloc(1, sizeof *ple);
    if (!ple)
        return pl_fail_memory(err, sizeof *ple, "per-layer embeddings");
    pl_ple_bytes bytes = pl_ple_memory(checkpoint, backend, params);
    ple->backend = backend;
    ple->table = rows_that_serve(checkpoint);
    ple->params = *params;
    ple->in_place = ops_read_the_file(backend);
    ple->row_bytes = pl_tensor_row_bytes(&ple->table);
    pl_status status = PL_OK;
    assert(ple->in_place || params->placement != PL_PLE_AUTO);
    if (ple->in_place && params->placement == PL_PLE_DISK) {
        ple->rows_bytes = bytes.shared;
        PL_TRY_GOTO(start_gathering(ple, checkpoint, err));
    } else if (!ple->in_place && (params->placement == PL_PLE_VRAM || params->placement == PL_PLE_PINNED)) {
        ple->copy_bytes = bytes.memory + bytes.shared;
        PL_TRY_GOTO(copy_table(ple, checkpoint, err));
    } else if (!ple->in_place) {
        ple->shared_bytes = bytes.shared;
        PL_TRY_GOTO(start_service(ple, err));
    }
    *out = ple;
    return PL_OK;
fail:
    pl_ple_free(ple);
    return status;
}

void pl_ple_free(pl_ple *ple)
{
    if (!ple)
        return;
    pl_backend *b = ple->backend;
    pl_ple_service_stop(ple->service);
    if (!ple->in_place)
        b->fetch(b->stream, NULL, 0, NULL, NULL); /* steps may be reading still */
    if (ple->copy && ple->params.placement == PL_PLE_VRAM)
        b->memory_give(b, ple->copy, ple->copy_bytes);
    else if (ple->copy)
        b->shared_give(b, ple->copy, ple->copy_bytes);
    if (ple->shared)
        b->shared_give(b, ple->shared, ple->shared_bytes);
    if (ple->rows)
        b->shared_give(b, ple->rows, ple->rows_bytes);
    pl_ple_gather_free(ple->gather);
    if (ple->params.placement == PL_PLE_DISK && !ple->in_place)
        pl_ple_advise(ple->table.data, (size_t)ple->table.rows * ple->row_bytes, MADV_NORMAL);
    pl_row_cache_free(ple->cache);
    free(ple);
}

/* ---- steps ---- */

pl_ple_rows pl_ple_view(const pl_ple *ple)
{
    pl_ple_rows view = {
        .name = ple->table.name,
        .base = ple->copy ? ple->copy : ple->table.data,
        .type = ple->table.type,
        .row_bytes = ple->row_bytes,
        .vocab = (int32_t)ple->table.rows,
    };
    if (ple->service) {
        view.base = (char *)ple->shared + LINE;
        view.row_bytes = row_stride(&ple->table);
        view.ready = ple->shared;
        view.slots = PL_PLE_SLOTS;
        view.slot_bytes = (size_t)ple->params.max_rows * view.row_bytes;
    }
    if (ple->gather) {
        view.base = ple->rows;
        view.ready = &ple->brought;
        view.slots = 1;
        view.slot_bytes = ple->rows_bytes;
    }
    return view;
}

pl_status pl_ple_request(pl_ple *ple, const pl_ple_want *rows, int n, uint32_t *ticket, pl_error *err)
{
    pl_backend *b = ple->backend;
    *ticket = 0;
    if (ple->gather) {
        PL_TRY(pl_ple_gather_rows(ple->gather, rows, n, ple->rows, err));
        *ticket = ++ple->brought;
    }
    if (!ple->service)
        return PL_OK;
    if (ple->ticket)
        ple->after[ple->ticket % PL_PLE_SLOTS] = b->mark(b->stream);
    uint64_t last_use = ple->after[(ple->ticket + 1) % PL_PLE_SLOTS];
    if (last_use)
        PL_TRY(b->wait_for(b->stream, last_use, err));
    *ticket = ple->ticket = pl_ple_service_ask(ple->service, rows, n);
    return PL_OK;
}

void pl_ple_will_need(const pl_ple *ple, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n && !ple->copy; i++) {
        int32_t row = ids[i] >= 0 && ids[i] < ple->table.rows ? ids[i] : 0;
        if (ple->gather)
            pl_ple_gather_ask(ple->gather, row);
        else
            pl_ple_advise(pl_tensor_row(&ple->table, row), ple->row_bytes, MADV_WILLNEED);
    }
}

pl_ple_stats pl_ple_statistics(pl_ple *ple)
{
    if (ple->gather)
        return pl_ple_gather_stats(ple->gather);
    return ple->service ? pl_ple_service_stats(ple->service) : (pl_ple_stats){0};
}
