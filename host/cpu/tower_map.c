/* What moves pixels of maps about. */
#include <string.h>

#include "host/cpu/tower.h"

typedef struct pixels_job {
    pl_map out;
    const uint8_t *rgb;
} pixels_job;

static void pixels_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const pixels_job *j = ctx;
    const float part = (float)(1.0 / 255);
    for (int64_t i = begin * j->out.width; i < end * j->out.width; i++) {
        for (int c = 0; c < 3; c++)
            j->out.v[4 * i + c] = (float)j->rgb[3 * i + c] * part;
        j->out.v[4 * i + 3] = 1;
    }
}

static void pixels_op(pl_stream *s, pl_map out, const uint8_t *rgb)
{
    pixels_job job = {out, rgb};
    pl_pool_for(s->pool, out.height, row_grain(s, out.height), pixels_rows, &job);
}

typedef struct join_job {
    pl_map out, a, b;
} join_job;

static void join_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const join_job *j = ctx;
    size_t a_bytes = (size_t)j->a.channels * sizeof(float), b_bytes = (size_t)j->b.channels * sizeof(float);
    for (int64_t y = begin; y < end; y++)
        for (int64_t x = 0; x < j->out.width; x++) {
            int64_t at = y * j->out.width + x;
            int64_t from = y * j->b.height / j->out.height * j->b.width + x * j->b.width / j->out.width;
            float *out = j->out.v + at * j->out.channels;
            memcpy(out, j->a.v + at * j->a.channels, a_bytes);
            memcpy(out + j->a.channels, j->b.v + from * j->b.channels, b_bytes);
        }
}

static void join_op(pl_stream *s, pl_map out, pl_map a, pl_map b)
{
    join_job job = {out, a, b};
    pl_pool_for(s->pool, out.height, row_grain(s, out.height), join_rows, &job);
}

typedef struct pool_job {
    pl_map out, in;
} pool_job;

static const float *pixel(const pl_map *m, int64_t y, int64_t x)
{
    return m->v + (y * m->width + x) * m->channels;
}

static void mean_pixel(const pool_job *j, float *out, int64_t y, int64_t x)
{
    int64_t high = j->in.height / j->out.height, wide = j->in.width / j->out.width;
    float part = 1.0f / (float)(high * wide);
    memset(out, 0, (size_t)j->in.channels * sizeof *out);
    for (int64_t i = 0; i < high * wide; i++) {
        const float *in = pixel(&j->in, y * high + i / wide, x * wide + i % wide);
        for (int64_t c = 0; c < j->in.channels; c++)
            out[c] += in[c];
    }
    for (int64_t c = 0; c < j->in.channels; c++)
        out[c] *= part;
}

/* Two neighbours and the second one's part. */
typedef struct between {
    int64_t low, high;
    float part;
} between;

static between place(int64_t i, int n_out, int n_in)
{
    float at = ((float)i + 0.5f) * ((float)n_in / (float)n_out) - 0.5f;
    at = at > 0 ? at : 0;
    int64_t low = (int64_t)at;
    low = low < n_in ? low : n_in - 1;
    return (between){low, low + 1 < n_in ? low + 1 : low, at - (float)low};
}

static void bilinear_pixel(const pool_job *j, float *out, int64_t y, int64_t x)
{
    between v = place(y, j->out.height, j->in.height), h = place(x, j->out.width, j->in.width);
    const float *a = pixel(&j->in, v.low, h.low), *b = pixel(&j->in, v.low, h.high);
    const float *c = pixel(&j->in, v.high, h.low), *d = pixel(&j->in, v.high, h.high);
    for (int64_t i = 0; i < j->in.channels; i++) {
        float above = a[i] * (1 - h.part) + b[i] * h.part, below = c[i] * (1 - h.part) + d[i] * h.part;
        out[i] = above * (1 - v.part) + below * v.part;
    }
}

static void pool_pixels(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const pool_job *j = ctx;
    bool whole = j->in.height % j->out.height == 0 && j->in.width % j->out.width == 0;
    for (int64_t i = begin; i < end; i++) {
        float *out = j->out.v + i * j->out.channels;
        if (whole)
            mean_pixel(j, out, i / j->out.width, i % j->out.width);
        else
            bilinear_pixel(j, out, i / j->out.width, i % j->out.width);
    }
}

static void pool_op(pl_stream *s, pl_map out, pl_map in)
{
    pool_job job = {out, in};
    int64_t n = (int64_t)out.height * out.width;
    pl_pool_for(s->pool, n, row_grain(s, n), pool_pixels, &job);
}

void pl_tower_map_ops(pl_tower_ops *ops)
{
    ops->pixels = pixels_op;
    ops->join = join_op;
    ops->pool = pool_op;
}
