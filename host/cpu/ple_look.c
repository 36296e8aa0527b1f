#include "host/cpu/ple_look.h"

#include "host/cpu/stream.h"

#include <assert.h>
#include <string.h>

#define MAX_BLOCK 256

typedef struct look_job {
    float *ple;
    int64_t ld;
    const pl_ple_rows *from;
    const char *rows; /* of the table, or of the step */
    const int32_t *id, *layers;
    int p;
    int32_t *bad;
} look_job;

/* One pass without a branch: infinity times zero is NaN, and stays. */
static bool all_finite(const float *v, int64_t n)
{
    float zero = 0;
    for (int64_t i = 0; i < n; i++)
        zero += v[i] * 0.0f;
    return zero == 0;
}

/* The first n values of a row; its last block may be wanted in part. */
static void decode(pl_dtype type, const char *row, float *out, int64_t n)
{
    float last[MAX_BLOCK];
    int64_t block = pl_dtype_describe((int)type)->block_elems, whole = n / block * block;
    pl_decode(type, row, out, whole);
    if (whole == n)
        return;
    pl_decode(type, row + pl_dtype_bytes(type, whole), last, block);
    memcpy(out + whole, last, (size_t)(n - whole) * sizeof *out);
}

static void look_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const look_job *j = ctx;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = j->id[i] >= 0 && j->id[i] < j->from->vocab ? j->id[i] : 0, n = (int64_t)j->layers[i] * j->p;
        float *out = j->ple + i * j->ld;
        decode(j->from->type, j->rows + (size_t)(j->from->ready ? i : row) * j->from->row_bytes, out, n);
        if (!all_finite(out, n))
            __atomic_store_n(j->bad, (int32_t)i + 1, __ATOMIC_RELAXED);
    }
}

void pl_cpu_ple_look(pl_stream *s, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id,
                     const int32_t *layers, int n, int p, int32_t *bad)
{
    const char *rows = from->base;
    if (from->ready) {
        assert((int32_t)(*from->ready - *from->ticket) >= 0); /* brought before the step was queued */
        rows += *from->ticket % from->slots * from->slot_bytes;
    }
    look_job job = {ple, ld, from, rows, id, layers, p, bad};
    pl_pool_for(s->pool, n, row_grain(s, n), look_rows, &job);
}
