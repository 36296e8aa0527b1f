#define _GNU_SOURCE
#include "host/engine/ple.h"

#include "host/engine/finite.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct gather_job {
    const pl_ple *ple;
    const int32_t *id, *layers;
    float *out;
    int64_t ld;
    _Atomic int32_t bad; /* a row with a value that is not finite, or -1 */
} gather_job;

pl_ple pl_ple_of(const pl_checkpoint *checkpoint)
{
    const pl_config *config = pl_checkpoint_config(checkpoint);
    return (pl_ple){&pl_checkpoint_weights(checkpoint)->ple_table, config->ple_vocab, config->ple_dim};
}

static int32_t row_of(const pl_ple *ple, int32_t id)
{
    return id >= 0 && id < ple->vocab ? id : 0;
}

/* Whole blocks that cover n values. */
static int64_t whole_blocks(const pl_tensor *table, int64_t n)
{
    int64_t block = pl_dtype_describe((int)table->type)->block_elems;
    int64_t up = (n + block - 1) / block * block;
    return up < table->cols ? up : table->cols;
}

static void gather_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    gather_job *j = ctx;
    const pl_tensor *table = j->ple->table;
    for (int64_t i = begin; i < end; i++) {
        int32_t row = row_of(j->ple, j->id[i]);
        int64_t n = whole_blocks(table, (int64_t)j->layers[i] * j->ple->dim);
        float *out = j->out + i * j->ld;
        pl_decode(table->type, pl_tensor_row(table, row), out, n);
        if (!pl_all_finite(out, n))
            atomic_store(&j->bad, row);
    }
}

pl_status pl_ple_gather(const pl_ple *ple, pl_pool *pool, const int32_t *id, const int32_t *layers, int n, float *out,
                        int64_t ld, pl_error *err)
{
    gather_job job = {.ple = ple, .id = id, .layers = layers, .out = out, .ld = ld, .bad = -1};
    pl_pool_for(pool, n, 1, gather_rows, &job);
    if (job.bad >= 0)
        return pl_fail(err, PL_ERR_NUMERIC, "tensor %s, row %d: a value is not finite", ple->table->name, job.bad);
    return PL_OK;
}

void pl_ple_will_need(const pl_ple *ple, const int32_t *id, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    size_t bytes = pl_tensor_row_bytes(ple->table);
    for (size_t i = 0; i < n; i++) {
        uintptr_t from = (uintptr_t)pl_tensor_row(ple->table, row_of(ple, id[i]));
        uintptr_t start = from & ~(page - 1);
        madvise((void *)start, from + bytes - start, MADV_WILLNEED);
    }
}
