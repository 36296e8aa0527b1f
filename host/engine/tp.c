#include "host/engine/tp.h"

#include <stdlib.h>

pl_status pl_tp_create(const pl_checkpoint *checkpoint, int n, pl_tp **out, pl_error *err)
{
    pl_tp *ranks = calloc(1, sizeof *ranks);
    if (!ranks)
        return pl_fail_memory(err, sizeof *ranks, "ranks");
    ranks->n = n;
    for (int i = 0; i < n; i++) {
        pl_status status = pl_shard_make(checkpoint, i, n, &ranks->rank[i].shard, err);
        if (status != PL_OK) {
            free(ranks);
            return status;
        }
    }
    *out = ranks;
    return PL_OK;
}

void pl_tp_free_parts(pl_tp *ranks)
{
    for (int i = 1; ranks && i < ranks->n; i++) {
        pl_tp_rank *r = &ranks->rank[i];
        pl_step_free(r->step);
        pl_ple_free(r->ple);
        pl_net_free(r->net);
        r->step = NULL;
        r->ple = NULL;
        r->net = NULL;
    }
}

void pl_tp_free(pl_tp *ranks)
{
    if (!ranks)
        return;
    pl_tp_free_parts(ranks);
    pl_team_free(ranks->team);
    for (int i = 0; i < ranks->n; i++)
        pl_comm_free(ranks->comm[i]);
    for (int i = 1; i < ranks->n; i++)
        pl_backend_free(ranks->rank[i].backend);
    free(ranks);
}

pl_status pl_tp_connect(pl_tp *ranks, pl_backend *first, int threads, pl_error *err)
{
    pl_backend *backends[PL_COMM_MOST] = {first};
    for (int i = 1; i < ranks->n; i++)
        backends[i] = ranks->rank[i].backend;
    PL_TRY(pl_team_create(ranks->n, pl_threads_have_room(threads), &ranks->team, err));
    pl_comm *comm[PL_COMM_MOST];
    PL_TRY(pl_comm_create(backends, ranks->n, comm, err));
    for (int i = 0; i < ranks->n; i++)
        ranks->comm[i] = comm[i];
    pl_team_set_comm(ranks->team, comm[0]);
    return PL_OK;
}

/* ---- weights ---- */

typedef struct load_job {
    pl_tp *ranks;
    const pl_checkpoint *checkpoint;
} load_job;

static pl_status load_other(void *ctx, int rank, pl_error *err)
{
    load_job *j = ctx;
    pl_tp_rank *r = &j->ranks->rank[rank];
    return pl_net_load(j->checkpoint, &r->shard, NULL, r->backend, NULL, NULL, &r->net, err);
}

pl_status pl_tp_load(pl_tp *ranks, const pl_checkpoint *checkpoint, pl_backend *first, pl_progress_fn progress,
                     void *user, pl_net **net, pl_error *err)
{
    load_job job = {ranks, checkpoint};
    pl_error failure;
    pl_team_begin(ranks->team, load_other, &job);
    if (pl_net_load(checkpoint, &ranks->rank[0].shard, NULL, first, progress, user, net, &failure) != PL_OK)
        pl_team_fail(ranks->team, &failure);
    return pl_team_end(ranks->team, err);
}

size_t pl_tp_loaded_bytes(const pl_tp *ranks, bool mapped)
{
    size_t bytes = 0;
    for (int i = 1; ranks && i < ranks->n; i++)
        bytes += mapped ? ranks->rank[i].net->mapped_bytes : ranks->rank[i].net->loaded_bytes;
    return bytes;
}

/* ---- work ---- */

pl_status pl_tp_create_kv(const pl_tp *ranks, const pl_config *config, pl_backend *first, const pl_kv_size *size,
                          pl_kv **out, pl_error *err)
{
    pl_kv_part parts[PL_COMM_MOST];
    for (int i = 0; i < ranks->n; i++) {
        const pl_tp_rank *r = &ranks->rank[i];
        parts[i] = (pl_kv_part){i == 0 ? first : r->backend, r->shard.first_kv_head, r->shard.config.n_kv_heads};
    }
    return pl_kv_create_parts(config, parts, ranks->n, size, out, err);
}

pl_status pl_tp_create_steps(pl_tp *ranks, pl_kv *kv, const pl_ple_rows *rows, pl_soft_rows *soft, int max_rows,
                             pl_step *first, pl_error *err)
{
    for (int i = 1; i < ranks->n; i++) {
        pl_tp_rank *r = &ranks->rank[i];
        r->ple_rows = r->ple ? pl_ple_view(r->ple) : *rows;
        PL_TRY(pl_step_create(r->net, kv, NULL, &r->ple_rows, NULL, soft, max_rows, &r->step, err));
        pl_step_share(r->step, ranks->comm[i], NULL, NULL);
        ranks->others[i - 1] = r->step;
    }
    pl_step_share(first, ranks->comm[0], ranks->team, ranks->others);
    return PL_OK;
}
