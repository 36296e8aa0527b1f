#include "cuda/weights.h"

#include "cuda/range.h"
#include "host/cpu/pack.h"
#include "host/cpu/panel.h"

#include <string.h>

#define COPY_BYTES ((size_t)256 << 10) /* that a thread takes at once */

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

size_t pl_weights_bytes(const pl_tensor *t)
{
    size_t packed = pl_pack_bytes(t);
    return packed ? packed : (size_t)t->rows * pl_tensor_row_bytes(t);
}

static pl_status send_panels(pl_stream *s, pl_pool *pool, const pl_tensor *t, char *dst, pl_error *err)
{
    size_t panel = pl_panel_bytes(pl_panel_describe(t->type), t->cols);
    int64_t most = (int64_t)(pl_queue_piece(s) / panel) * PL_PANEL_ROWS;
    if (most == 0)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "tensor %s: rows of %lld values are too long for the card", t->name,
                       (long long)t->cols);
    for (int64_t row = 0, n; row < t->rows; row += n) {
        n = smaller(t->rows - row, most);
        size_t bytes = (size_t)pl_panel_count(n) * panel;
        void *room = pl_queue_room(s, bytes);
        if (!room)
            break;
        PL_TRY(pl_pack_rows(pool, t, row, n, room, err));
        pl_queue_send(s, dst, room, bytes);
        dst += bytes;
    }
    return pl_card_status(s->card, err);
}

typedef struct copy_job {
    char *to;
    const char *from;
    int64_t bytes;
} copy_job;

static void copy_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const copy_job *job = ctx;
    int64_t at = begin * (int64_t)COPY_BYTES;
    memcpy(job->to + at, job->from + at, (size_t)(smaller(job->bytes, end * (int64_t)COPY_BYTES) - at));
}

/* By all threads, since it is what reads the file. */
static pl_status send_plain(pl_stream *s, pl_pool *pool, const pl_tensor *t, char *dst, pl_error *err)
{
    int64_t bytes = (int64_t)pl_weights_bytes(t), most = (int64_t)pl_queue_piece(s);
    for (int64_t done = 0, n; done < bytes; done += n) {
        n = smaller(bytes - done, most);
        void *room = pl_queue_room(s, (size_t)n);
        if (!room)
            break;
        copy_job job = {room, (const char *)t->data + done, n};
        pl_pool_for(pool, (n + (int64_t)COPY_BYTES - 1) / (int64_t)COPY_BYTES, 1, copy_pieces, &job);
        pl_queue_send(s, dst + done, room, (size_t)n);
    }
    return pl_card_status(s->card, err);
}

void pl_weights_describe(const pl_tensor *t, void *dst, pl_weight *out)
{
    *out = (pl_weight){.name = t->name,
                       .data = dst,
                       .rows = t->rows,
                       .cols = t->cols,
                       .type = t->type,
                       .packed = pl_pack_bytes(t) > 0,
                       .bytes = pl_weights_bytes(t)};
}

pl_status pl_weights_load(pl_stream *s, pl_pool *pool, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err)
{
    pl_weights_describe(t, dst, out);
    pl_range_push(t->name);
    pl_status status = (out->packed ? send_panels : send_plain)(s, pool, t, dst, err);
    pl_range_pop();
    return status;
}
