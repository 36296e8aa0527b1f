/* Convolutions of each channel by itself. */
#include "host/base/isa.h"
#include "host/cpu/tower.h"

#define INLINE static inline __attribute__((always_inline))

/* Vectors of channels that are summed side by side. */
enum { MOST = 4 };

typedef struct depthwise_job {
    pl_map out, in;
    const float *w;
    pl_kernel_window window;
} depthwise_job;

/* The part of a window that lies on the map. */
typedef struct tap_range {
    int begin, end, at; /* taps; where tap 0 stands in the map */
} tap_range;

static tap_range taps_within(int at, int size, int limit)
{
    int begin = at < 0 ? -at : 0, end = limit - at < size ? limit - at : size;
    return (tap_range){begin, end, at};
}

/* n vectors of channels from c on, the last of `lanes` values. */
INLINE void depthwise_channels(const depthwise_job *j, float *out, tap_range rows, tap_range cols, int64_t c, int n,
                               int64_t lanes)
{
    int64_t channels = j->in.channels;
    pl_vec sum[MOST] = {{0}};
    for (int ky = rows.begin; ky < rows.end; ky++)
        for (int kx = cols.begin; kx < cols.end; kx++) {
            const float *x = j->in.v + ((int64_t)(rows.at + ky) * j->in.width + cols.at + kx) * channels + c;
            const float *w = j->w + (int64_t)(ky * j->window.size + kx) * channels + c;
            for (int i = 0; i < n; i++)
                sum[i] += lanes_load(x + i * PL_LANES, lanes) * lanes_load(w + i * PL_LANES, lanes);
        }
    for (int i = 0; i < n; i++)
        lanes_store(out + c + i * PL_LANES, sum[i], lanes);
}

static void depthwise_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const depthwise_job *j = ctx;
    const pl_kernel_window *w = &j->window;
    int64_t channels = j->in.channels;
    for (int64_t y = begin; y < end; y++) {
        tap_range rows = taps_within((int)y * w->stride - w->top, w->size, j->in.height);
        for (int64_t c = 0; c < channels;) {
            int64_t left = channels - c;
            int64_t step = left >= MOST * PL_LANES ? MOST * PL_LANES : left >= PL_LANES ? PL_LANES : left;
            for (int x = 0; x < j->out.width; x++) {
                float *out = j->out.v + (y * j->out.width + x) * channels;
                tap_range cols = taps_within(x * w->stride - w->left, w->size, j->in.width);
                if (step == MOST * PL_LANES)
                    depthwise_channels(j, out, rows, cols, c, MOST, PL_LANES);
                else
                    depthwise_channels(j, out, rows, cols, c, 1, step);
            }
            c += step;
        }
    }
}

static void depthwise_op(pl_stream *s, pl_map out, pl_map in, const float *w, pl_kernel_window window)
{
    depthwise_job job = {out, in, w, window};
    pl_pool_for(s->pool, out.height, 1, depthwise_rows, &job);
}

void PL_ISA_NAME(pl_tower_depthwise_ops)(pl_tower_ops *ops)
{
    ops->depthwise = depthwise_op;
}
