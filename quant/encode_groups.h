/* The search for a scale, for as many groups of values as there are lanes at once. Codes stand for whole numbers
 * times the scale. Pure arithmetic.
 *
 * Groups are searched in units of a power of two near their largest value, weights in units near the largest weight:
 * no square or sum leaves the range of f32. */
#ifndef PL_QUANT_ENCODE_GROUPS_H
#define PL_QUANT_ENCODE_GROUPS_H

#include <float.h>

#include "quant/blocks.h"
#include "quant/lanes.h"

#define PL_GROUP_MAX 32

/* An array and the number of its elements, as arguments. */
#define PL_LIST(array) array, sizeof(array) / sizeof((array)[0])

/* The whole numbers: lo to hi (FLT_MAX: as if there were no end); pl_iq4_values; pl_e2m1_doubled. */
typedef enum pl_book { PL_BOOK_LINE, PL_BOOK_IQ4, PL_BOOK_E2M1 } pl_book;

/* What is known when a search is compiled. */
typedef struct pl_form {
    pl_book book;
    float lo, hi;
    int n; /* values a group */
    int weighted;
    int from_low; /* x counts from the lowest value */
} pl_form;

typedef struct pl_groups {
    pl_lanes x[PL_GROUP_MAX], w[PL_GROUP_MAX]; /* w: only of weighted groups */
    pl_lanes unit, per_unit, weight_unit;      /* x and scales, times unit, are those stored */
    pl_lanes high, low;                        /* of the x that have a weight */
    pl_lanes peak;                             /* high or low, which is farther from 0 */
    pl_lanes heavy;                            /* the x that costs most if it becomes 0 */
} pl_groups;

/* ---- loading --------------------------------------------------------------------------------------------- */

/* A group without weights gets equal ones, of next to nothing. */
PL_INLINE void groups_load_weights(pl_form f, pl_groups *g, const float *weight)
{
    pl_lanes most = {0};
    for (int i = 0; i < f.n; i += 4) {
        pl_lanes *w = g->w + i;
        lanes_transpose(weight + i, f.n, w);
        most = lanes_max(lanes_max(lanes_max(w[0], w[1]), lanes_max(w[2], w[3])), most);
    }
    pl_lanesi none = most == 0.0f;
    for (int i = 0; i < f.n; i++)
        g->w[i] = lanes_select(none, lanes_set(0x1p-120f), g->w[i]);
    g->weight_unit = lanes_power(lanes_select(none, lanes_set(0x1p-120f), most));
}

/* src, weight: f.n values of each of PL_WIDTH groups. Units are as for groups on their own. */
PL_INLINE void groups_load(pl_form f, pl_groups *g, const float *src, const float *weight)
{
    if (f.weighted)
        groups_load_weights(f, g, weight);
    pl_lanes most = lanes_set(-FLT_MAX), least = lanes_set(FLT_MAX);
    for (int i = 0; i < f.n; i += 4) {
        lanes_transpose(src + i, f.n, g->x + i);
        pl_lanes high[4], low[4];
        for (int k = 0; k < 4; k++) {
            high[k] = low[k] = g->x[i + k];
            if (f.weighted) {
                high[k] = lanes_select(g->w[i + k] > 0.0f, high[k], lanes_set(-FLT_MAX));
                low[k] = lanes_select(g->w[i + k] > 0.0f, low[k], lanes_set(FLT_MAX));
            }
        }
        most = lanes_max(lanes_max(lanes_max(high[0], high[1]), lanes_max(high[2], high[3])), most);
        least = lanes_min(lanes_min(lanes_min(low[0], low[1]), lanes_min(low[2], low[3])), least);
    }
    g->high = most;
    g->low = least;
    g->unit = lanes_power(lanes_max(most, -least));
}

/* Goes over to the units. */
PL_INLINE void groups_scale(pl_form f, pl_groups *g)
{
    pl_lanes per_unit = 1.0f / g->unit, per_weight = f.weighted ? 1.0f / g->weight_unit : lanes_set(1);
    g->per_unit = per_unit;
    g->high *= per_unit;
    g->low *= per_unit;
    g->peak = lanes_select(g->high < -g->low, g->low, g->high);
    g->heavy = g->peak;
    pl_lanes most = {0}, base = f.from_low ? g->low : lanes_set(0);
    for (int i = 0; i < f.n; i++) {
        pl_lanes x = g->x[i] * per_unit;
        if (f.weighted) /* what has no weight may lie far out */
            x = lanes_min(lanes_max(x, lanes_set(-4)), lanes_set(4));
        g->x[i] = x - base;
        if (!f.weighted)
            continue;
        g->w[i] *= per_weight;
        pl_lanes cost = g->w[i] * g->x[i] * g->x[i];
        g->heavy = lanes_select(cost > most, g->x[i], g->heavy);
        most = lanes_max(cost, most);
    }
}

/* ---- the nearest code ---------------------------------------------------------------------------------------- */

/* Between pl_iq4_values, and from each to the next. */
static const float iq4_middle[15] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                     7,       19,     31.5f, 45.5f, 61,  79,     101};
static const float iq4_step[15] = {23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24};

PL_INLINE pl_lanes nearest_iq4(pl_lanes y)
{
    pl_lanes value = lanes_set(-127);
    for (int i = 0; i < 15; i++)
        value += (pl_lanes)((y > iq4_middle[i]) & (pl_lanesi)lanes_set(iq4_step[i]));
    return value;
}

/* Whole numbers below 4, then two significant bits. */
PL_INLINE pl_lanes nearest_e2m1(pl_lanes y)
{
    pl_lanes size = lanes_min(lanes_abs(y), lanes_set(12));
    pl_lanes power = lanes_max((pl_lanes)((pl_lanesi)size & 0x7f800000), lanes_set(2));
    pl_lanes magic = power * (0.5f * PL_ROUND_MAGIC);
    size = (size + magic) - magic;
    return (pl_lanes)((pl_lanesi)size | ((pl_lanesi)y & INT32_MIN));
}

PL_INLINE pl_lanes clamped(pl_form f, pl_lanes y)
{
    if (f.lo > -FLT_MAX)
        y = lanes_max(y, lanes_set(f.lo));
    return f.hi < FLT_MAX ? lanes_min(y, lanes_set(f.hi)) : y;
}

/* The whole number nearest to y. */
PL_INLINE pl_lanes groups_nearest(pl_form f, pl_lanes y)
{
    switch (f.book) {
    case PL_BOOK_IQ4: return nearest_iq4(y);
    case PL_BOOK_E2M1: return nearest_e2m1(y);
    case PL_BOOK_LINE: break;
    }
    return lanes_round(clamped(f, y));
}

/* Its code: the number itself, or its place in the table. */
PL_INLINE pl_lanesi groups_code(pl_form f, pl_lanes y)
{
    pl_lanesi code = {0};
    if (f.book == PL_BOOK_IQ4) {
        for (int i = 0; i < 15; i++)
            code -= y > iq4_middle[i];
        return code;
    }
    if (f.book == PL_BOOK_LINE)
        return lanes_int(clamped(f, y));
    pl_lanes q = nearest_e2m1(y), size = lanes_abs(q);
    code = lanes_selecti(size < 2.0f, lanes_int(size), ((pl_lanesi)size >> 22) - 254);
    return code | ((q < 0.0f) & 8);
}

/* ---- scales -------------------------------------------------------------------------------------------------- */

/* 1 / d, 0 where d is, never infinite. */
PL_INLINE pl_lanes groups_inverse(pl_lanes d)
{
    pl_lanes inverse = lanes_ratio(lanes_set(1), d);
    return lanes_min(lanes_max(inverse, lanes_set(-FLT_MAX)), lanes_set(FLT_MAX));
}

typedef struct pl_fit {
    pl_lanes error;
    pl_lanes better; /* the best scale for the same codes; each step from it costs qq */
    pl_lanes qq;
} pl_fit;

PL_INLINE pl_fit groups_fit(pl_form f, const pl_groups *g, pl_lanes d)
{
    pl_lanes inverse = groups_inverse(d), error = {0}, rq = {0}, qq = {0};
    for (int i = 0; i < f.n; i++) {
        pl_lanes q = groups_nearest(f, g->x[i] * inverse), r = g->x[i] - d * q;
        pl_lanes wr = f.weighted ? g->w[i] * r : r, wq = f.weighted ? g->w[i] * q : q;
        error += wr * r;
        rq += wr * q;
        qq += wq * q;
    }
    return (pl_fit){error, d + lanes_ratio(rq, qq), qq};
}

/* Of the scales x / tries[k], each made the best for its codes, the best one. It compares what they explain: not for
 * errors below 1e-4 of the whole. n: even. */
PL_INLINE pl_lanes groups_search(pl_form f, const pl_groups *g, pl_lanes x, const float *tries, int n)
{
    pl_lanes best = {0}, best_gain = {0}, per_x = groups_inverse(x);
    for (int k = 0; k < n; k += 2) {
        pl_lanes inverse[2] = {per_x * tries[k], per_x * tries[k + 1]}, xq[2] = {{0}}, qq[2] = {{0}};
        for (int i = 0; i < f.n; i++) {
            for (int t = 0; t < 2; t++) {
                pl_lanes q = groups_nearest(f, g->x[i] * inverse[t]);
                pl_lanes wq = f.weighted ? g->w[i] * q : q;
                xq[t] += wq * g->x[i];
                qq[t] += wq * q;
            }
        }
        for (int t = 0; t < 2; t++) {
            pl_lanes d = lanes_ratio(xq[t], qq[t]), gain = d * xq[t];
            pl_lanesi better = gain > best_gain;
            best = lanes_select(better, d, best);
            best_gain = lanes_select(better, gain, best_gain);
        }
    }
    return best;
}

/* An f16 scale and its error; begin with an error of FLT_MAX. */
typedef struct pl_choice {
    pl_lanes error, d;
    pl_lanesi bits;
} pl_choice;

/* Takes d, rounded, if it is better than what was chosen; returns the best scale for its codes. */
PL_INLINE pl_lanes groups_consider(pl_form f, const pl_groups *g, pl_lanes d, pl_choice *best)
{
    pl_lanesi bits = lanes_to_f16(d * g->unit);
    d = lanes_from_f16(bits) * g->per_unit;
    pl_fit fit = groups_fit(f, g, d);
    pl_lanesi better = fit.error < best->error;
    best->error = lanes_select(better, fit.error, best->error);
    best->d = lanes_select(better, d, best->d);
    best->bits = lanes_selecti(better, bits, best->bits);
    return fit.better;
}

/* ---- storing ------------------------------------------------------------------------------------------------- */

/* Codes of f.n values, the first half in the low nibbles, the second in the high ones, four bytes a word. */
PL_INLINE void groups_nibbles(pl_form f, const pl_lanesi *code, pl_lanesi *words)
{
    for (int k = 0; k < f.n / 8; k++) {
        const pl_lanesi *low = code + 4 * k, *high = low + f.n / 2;
        words[k] = ((low[0] | low[1] << 8 | low[2] << 16 | low[3] << 24) & 0x0f0f0f0f) |
                   ((high[0] | high[1] << 8 | high[2] << 16 | high[3] << 24) & 0x0f0f0f0f) << 4;
    }
}

/* The first bytes of v's value in a lane; returns what is after them in dst. */
PL_INLINE unsigned char *groups_put(unsigned char *dst, const pl_lanesi *v, int lane, size_t bytes)
{
    memcpy(dst, (const char *)v + 4 * lane, bytes);
    return dst + bytes;
}

/* What one call encodes: as many blocks as PL_WIDTH groups make up, at least one. */
#define PL_SLAB_GROUPS_MAX (PL_WIDTH + (PL_WIDTH < 8) * (8 - PL_WIDTH)) /* at least 8 */
#define PL_SLAB_MAX (PL_GROUP_MAX * PL_SLAB_GROUPS_MAX)

/* src and weight hold a slab, of which the first n blocks are wanted. */
typedef void (*pl_slab_fn)(const float *src, const float *weight, unsigned char *dst, int n);

/* Runs fn over n values. */
static inline void slabs_encode(pl_slab_fn fn, int slab, const pl_dtype_info *type, const float *src,
                                const float *weight, unsigned char *dst, int64_t n)
{
    int blocks = slab / type->block_elems;
    int64_t i = 0;
    for (; i + slab <= n; i += slab, dst += blocks * type->block_bytes)
        fn(src + i, weight ? weight + i : NULL, dst, blocks);
    if (i == n)
        return;
    float last[PL_SLAB_MAX] = {0}, last_weight[PL_SLAB_MAX] = {0};
    memcpy(last, src + i, (size_t)(n - i) * sizeof *last);
    if (weight)
        memcpy(last_weight, weight + i, (size_t)(n - i) * sizeof *last);
    fn(last, weight ? last_weight : NULL, dst, (int)(n - i) / type->block_elems);
}

#endif
