/* How large the maps of an image are, and where they stand. */
#include "host/tower/vision_parts.h"

pl_kernel_window pl_vision_window(int side, int size, int stride)
{
    int missing = (pl_vision_side(side, stride) - 1) * stride + size - side;
    int before = missing > 0 ? missing / 2 : 0;
    return (pl_kernel_window){size, stride, before, before};
}

static void grow(size_t *most, int64_t side, int64_t channels)
{
    size_t floats = (size_t)(side * side * channels);
    if (floats > *most)
        *most = floats;
}

static void grow_convolutions(pl_vision_plan *p, const pl_vision_block *b, int side, int out_side)
{
    int inner = b->mid.size ? side : out_side; /* the side between first and mid or last */
    grow(&p->other, inner, b->in);
    grow(&p->wide, inner, b->hidden);
    grow(&p->other, out_side, b->hidden > b->out ? b->hidden : b->out);
    grow(&p->wide, out_side, b->out);
}

static void grow_attention(pl_vision_plan *p, const pl_vision_block *b, pl_backend *backend, int side)
{
    const pl_vision_attention *a = &b->attention;
    int keys_side = a->key_down.size ? pl_vision_side(side, a->key_down.stride) : side;
    size_t bytes = backend->tower->attend_bytes(backend->stream, (int64_t)keys_side * keys_side, a->key_dim,
                                                a->value_dim);
    grow(&p->other, side, b->in);
    grow(&p->other, side, (int64_t)a->heads * a->value_dim);
    grow(&p->wide, side, (int64_t)a->heads * a->key_dim);
    grow(&p->wide, side, b->in);
    grow(&p->small, keys_side, b->in + a->key_dim + a->value_dim);
    if (bytes / sizeof(float) + 1 > p->scratch)
        p->scratch = bytes / sizeof(float) + 1;
}

static size_t put(size_t *at, size_t floats)
{
    size_t here = *at;
    *at += (floats + 15) / 16 * 16;
    return here;
}

void pl_vision_plan_make(const pl_vision_weights *w, pl_backend *backend, int side, int grid, pl_vision_plan *out)
{
    pl_vision_plan p = {.side = side};
    int fine = 0, now = pl_vision_side(side, 2);
    grow(&p.wide, side, 4);
    grow(&p.stream[0], now, w->stem_channels);
    for (int i = 0; i < w->n_blocks; i++) {
        const pl_vision_block *b = &w->blocks[i];
        bool last = b->stage == w->n_stages - 1;
        if (last && b->index == 0)
            fine = now;
        int next = pl_vision_side(now, b->stride);
        if (b->attends)
            grow_attention(&p, b, backend, now);
        else
            grow_convolutions(&p, b, now, next);
        now = next;
        grow(&p.stream[last], now, b->out);
    }
    grow(&p.wide, fine, w->fine + w->coarse > w->hidden ? w->fine + w->coarse : w->hidden);
    grow(&p.other, fine, w->joined);
    grow(&p.other, grid, w->hidden);
    *out = (pl_vision_plan){.side = side};
    out->stream[0] = put(&out->total, p.stream[0]);
    out->stream[1] = put(&out->total, p.stream[1]);
    out->wide = put(&out->total, p.wide);
    out->other = put(&out->total, p.other);
    out->small = put(&out->total, p.small + 64); /* its three parts begin on 16 floats */
    out->scratch = put(&out->total, p.scratch);
}
