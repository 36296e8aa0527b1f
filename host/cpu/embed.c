/* Word embeddings: rows of the same matrix that the head multiplies. */
#include "host/base/isa.h"
#include "host/cpu/pack.h"
#include "host/cpu/stream.h"

typedef struct embed_job {
    float *out;
    const pl_weight *table;
    const int32_t *id;
    float scale;
} embed_job;

static void embed_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const embed_job *j = ctx;
    int64_t hidden = j->table->cols;
    for (int64_t r = begin; r < end; r++) {
        float *out = j->out + r * hidden;
        pl_weight_row(j->table, j->id[r], out);
        row_scale(out, out, NULL, j->scale, hidden);
    }
}

static void embed(pl_stream *s, float *out, const pl_weight *table, const int32_t *id, int n, float scale)
{
    embed_job job = {out, table, id, scale};
    pl_pool_for(s->pool, n, row_grain(s, n), embed_rows, &job);
}

void PL_ISA_NAME(pl_embed_ops)(pl_ops *ops)
{
    ops->embed = embed;
}
