/* Embeddings: of words, rows of the same matrix that the head multiplies; of images and sound, rows that are there already. */
#include "host/base/isa.h"
#include "host/cpu/head_screen.h"
#include "host/cpu/pack.h"
#include "host/cpu/stream.h"

#include <string.h>

typedef struct embed_job {
    float *out;
    const pl_embed_from *from;
    const int32_t *id;
} embed_job;

static void embed_row(const pl_embed_from *from, int32_t id, float *out)
{
    int64_t hidden = from->table->cols;
    const float *given = NULL;
    if (id < 0)
        given = from->soft + (-1 - (int64_t)id) * hidden;
    else if (id >= from->first_hard && id - from->first_hard < from->n_hard)
        given = from->hard + (int64_t)(id - from->first_hard) * hidden;
    if (given) {
        memcpy(out, given, (size_t)hidden * sizeof *out);
        return;
    }
    pl_weight_row(from->table, id, out);
    row_scale(out, out, NULL, from->scale, hidden);
}

static void embed_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const embed_job *j = ctx;
    for (int64_t r = begin; r < end; r++)
        embed_row(j->from, j->id[r], j->out + r * j->from->table->cols);
}

static void embed(pl_stream *s, float *out, const pl_embed_from *from, const int32_t *id, int n)
{
    embed_job job = {out, from, id};
    if (s->screen)
        pl_head_screen_see(s->screen, id, n);
    pl_pool_for(s->pool, n, row_grain(s, n), embed_rows, &job);
}

void PL_ISA_NAME(pl_embed_ops)(pl_ops *ops)
{
    ops->embed = embed;
}
