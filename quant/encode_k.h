/* What the encoders of the K types share: the 256 values of a block, laid out so that lane l has values 16 l to
 * 16 l + 15, and what least squares and the judging of codes need of them.
 *
 * A group is the values that share a scale: 16 of them, one lane, or 32, two neighbouring lanes, which then hold the
 * same of whatever belongs to groups. A register takes some of the lanes, whole groups, and sums run down the lanes:
 * its width changes no result. Pure arithmetic. */
#ifndef PL_QUANT_ENCODE_K_H
#define PL_QUANT_ENCODE_K_H

#include <math.h>
#include <stdbool.h>

#include "quant/blocks.h"
#include "quant/lanes.h"

#define PL_K_VALUES 256
#define PL_K_LANES 16
#define PL_K_STEPS 16 /* values of a lane */
#define PL_K_F16_MOST 65504.0f
#define PL_K_NOISE 1e-6f /* relative, of sums in f32: what is better by less may be no better */

/* One value of each lane. */
typedef float pl_k_row[PL_K_LANES] __attribute__((aligned(64)));

/* Codes run from bottom to top; a value is step * code - low. */
typedef struct pl_k_codes {
    float bottom, top;
    bool has_low;
    bool paired; /* two lanes a group */
} pl_k_codes;

/* Where starts of a search put the values furthest out: count times so many codes beyond the last one. Small steps come
 * first: of steps that do equally well for a lone large value, the smallest leaves the finest d to the other groups. */
typedef struct pl_k_starts {
    float first, stride;
    int count;
} pl_k_starts;

/* Values and weights are divided by powers of two: that keeps sums within range and changes no rounding. */
typedef struct pl_k_block {
    pl_k_row x[PL_K_STEPS], w[PL_K_STEPS];
    pl_k_row weight, mean; /* of groups: sum of w, weighted mean of x */
    float unit;            /* what the values were divided by */
} pl_k_block;

PL_INLINE void k_store(float *p, pl_lanes v)
{
    memcpy(p, &v, sizeof v);
}

/* The nearest integer from low to high; 2^22 is the limit. No NaN comes here. */
PL_INLINE pl_lanes k_round(pl_lanes v, float low, float high)
{
    return lanes_round(lanes_min(lanes_max(v, lanes_set(low)), lanes_set(high)));
}

/* Lanes 1, 0, 3, 2, ...: the other half of a group of 32 */
PL_INLINE pl_lanes k_swap(pl_lanes v)
{
#if PL_WIDTH == 16
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif PL_WIDTH == 8
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#else
    return __builtin_shufflevector(v, v, 1, 0, 3, 2);
#endif
}

/* Sums of lanes to sums of groups. */
PL_INLINE pl_lanes k_fold(pl_lanes v, pl_k_codes codes)
{
    return codes.paired ? v + k_swap(v) : v;
}

/* Sum over groups. */
PL_INLINE float k_total(const pl_k_row lanes, pl_k_codes codes)
{
    pl_k_row t;
    memcpy(t, lanes, sizeof t);
    for (int width = PL_K_LANES / 2; width >= (codes.paired ? 2 : 1); width /= 2)
        for (int l = 0; l < width; l++)
            t[l] += t[l + width];
    return t[0];
}

/* The codes nearest to x, given x + low and 1 / step (0 for a step of 0). */
PL_INLINE pl_lanes k_codes(pl_lanes raised, pl_lanes inverse, pl_k_codes codes)
{
    return k_round(raised * inverse, codes.bottom, codes.top);
}

PL_INLINE pl_lanes k_raise(const pl_k_block *block, int t, int at, pl_lanes low, pl_k_codes codes)
{
    pl_lanes x = lanes_load(block->x[t] + at);
    return codes.has_low ? x + low : x;
}

/* Of groups, with the nearest codes: sums of w q, w q q, w q (x + low). */
typedef struct pl_k_moments {
    pl_lanes q, qq, qy;
} pl_k_moments;

PL_INLINE pl_k_moments k_moments(const pl_k_block *block, int at, pl_lanes step, pl_lanes low, pl_k_codes codes)
{
    pl_lanes inverse = lanes_ratio(lanes_set(1), step), sq = {0}, sqq = {0}, sqy = {0};
    for (int t = 0; t < PL_K_STEPS; t++) {
        pl_lanes y = k_raise(block, t, at, low, codes), q = k_codes(y, inverse, codes);
        pl_lanes wq = lanes_load(block->w[t] + at) * q;
        if (codes.has_low)
            sq += wq;
        sqq += wq * q;
        sqy += wq * y;
    }
    return (pl_k_moments){k_fold(sq, codes), k_fold(sqq, codes), k_fold(sqy, codes)};
}

/* Of groups, with the nearest codes and r = x - (step * q - low), which is precise where sums of x would cancel: sums
 * of w r, w q r, w q, w q q. */
typedef struct pl_k_rest {
    pl_lanes r, qr, q, qq;
} pl_k_rest;

PL_INLINE pl_k_rest k_rest(const pl_k_block *block, int at, pl_lanes step, pl_lanes low, pl_k_codes codes)
{
    pl_lanes inverse = lanes_ratio(lanes_set(1), step), sr = {0}, sqr = {0}, sq = {0}, sqq = {0};
    for (int t = 0; t < PL_K_STEPS; t++) {
        pl_lanes y = k_raise(block, t, at, low, codes), q = k_codes(y, inverse, codes), r = y - step * q;
        pl_lanes w = lanes_load(block->w[t] + at), wq = w * q;
        if (codes.has_low) {
            sr += w * r;
            sq += wq;
        }
        sqr += wq * r;
        sqq += wq * q;
    }
    return (pl_k_rest){k_fold(sr, codes), k_fold(sqr, codes), k_fold(sq, codes), k_fold(sqq, codes)};
}

/* Of groups, with the nearest codes: sums of w r r. */
PL_INLINE pl_lanes k_judge(const pl_k_block *block, int at, pl_lanes step, pl_lanes low, pl_k_codes codes)
{
    pl_lanes inverse = lanes_ratio(lanes_set(1), step), error = {0};
    for (int t = 0; t < PL_K_STEPS; t++) {
        pl_lanes y = k_raise(block, t, at, low, codes), r = y - step * k_codes(y, inverse, codes);
        error += lanes_load(block->w[t] + at) * r * r;
    }
    return k_fold(error, codes);
}

/* v as a block stores it in f16, but for overflow: 11 bits, a multiple of the smallest f16, and not 0. */
PL_INLINE pl_lanes k_as_f16(const pl_k_block *block, pl_lanes v)
{
    float smallest = 0x1p-24f / block->unit, magic = PL_ROUND_MAGIC * smallest;
    pl_lanes size = lanes_max(lanes_abs(v), lanes_set(smallest)), shifted = size * 8193.0f;
    size = shifted - (shifted - size) + magic - magic;
    return lanes_select(v < 0, -size, size);
}

/* Of 16 units, extreme / most, extreme / (most - stride), ...: the one whose multiples by bottom to top come nearest to
 * the values of the groups, by sum weight (value - multiple)^2. */
PL_INLINE float k_best_unit(const pl_k_block *block, const pl_k_row value, const pl_k_row weight, float extreme,
                            float most, float stride, float bottom, float top, pl_k_codes codes)
{
    pl_k_row units, costs;
    for (int i = 0; i < PL_K_LANES; i++)
        units[i] = most - stride * (float)i;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        pl_lanes unit = k_as_f16(block, extreme / lanes_load(units + at));
        pl_lanes inverse = lanes_ratio(lanes_set(1), unit), cost = {0};
        for (int l = 0; l < PL_K_LANES; l += codes.paired ? 2 : 1) {
            pl_lanes off = value[l] - unit * k_round(value[l] * inverse, bottom, top);
            cost += weight[l] * off * off;
        }
        k_store(units + at, unit);
        k_store(costs + at, cost);
    }
    int best = 0;
    for (int i = 1; i < PL_K_LANES; i++)
        best = costs[i] < costs[best] ? i : best;
    return units[best];
}

/* out[i] = code of value i less bottom */
PL_INLINE void k_final_codes(const pl_k_block *block, const pl_k_row step, const pl_k_row low, pl_k_codes codes,
                             uint8_t out[PL_K_VALUES])
{
    pl_k_row q[PL_K_STEPS];
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        pl_lanes inverse = lanes_ratio(lanes_set(1), lanes_load(step + at)), base = lanes_load(low + at);
        for (int t = 0; t < PL_K_STEPS; t++)
            k_store(q[t] + at, k_codes(k_raise(block, t, at, base, codes), inverse, codes) - codes.bottom);
    }
    for (int lane = 0; lane < PL_K_LANES; lane += 4)
        for (int t = 0; t < PL_K_STEPS; t += PL_WIDTH) {
            pl_lanes values[4];
            lanes_transpose(q[t] + lane, PL_K_LANES, values);
            for (int i = 0; i < 4; i++)
                for (int l = 0; l < PL_WIDTH; l++)
                    out[PL_K_STEPS * (lane + i) + t + l] = (uint8_t)(int)values[i][l];
        }
}

/* The largest of the absolute values. */
PL_INLINE float k_largest(const float v[PL_K_VALUES])
{
    pl_lanes most = {0};
    for (int i = 0; i < PL_K_VALUES; i += PL_WIDTH)
        most = lanes_max(most, lanes_abs(lanes_load(v + i)));
    float largest = 0;
    for (int l = 0; l < PL_WIDTH; l++)
        largest = largest > most[l] ? largest : most[l];
    return largest;
}

/* 2^floor(log2(v)) for normal v */
PL_INLINE float k_power_below(float v)
{
    union {
        float f;
        uint32_t u;
    } bits = {v};
    bits.u &= 0x7f800000;
    return bits.f;
}

/* Weights of 0 still count a little, so that every group has a solution. */
PL_INLINE void k_load_weights(pl_k_block *block, const float *weight)
{
    float most = weight ? k_largest(weight) : 0, unit = most > 0x1p-100f ? k_power_below(most) : 0x1p-100f;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH)
        for (int t = 0; t < PL_K_STEPS; t += 4) {
            pl_lanes w[4] = {lanes_set(1), lanes_set(1), lanes_set(1), lanes_set(1)};
            if (most > 0)
                lanes_transpose(weight + PL_K_STEPS * at + t, PL_K_STEPS, w);
            for (int i = 0; i < 4; i++)
                k_store(block->w[t + i] + at, most > 0 ? w[i] * (1 / unit) + 0x1p-40f : w[i]);
        }
}

PL_INLINE void k_sum_groups(pl_k_block *block, pl_k_codes codes)
{
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        pl_lanes weight = {0}, sum = {0};
        for (int t = 0; t < PL_K_STEPS; t++) {
            pl_lanes w = lanes_load(block->w[t] + at);
            weight += w;
            sum += w * lanes_load(block->x[t] + at);
        }
        weight = k_fold(weight, codes);
        k_store(block->weight + at, weight);
        k_store(block->mean + at, k_fold(sum, codes) / weight);
    }
}

/* Values beyond lowest and highest become these. False, and nothing loaded, for zeros alone. */
PL_INLINE bool k_load_block(pl_k_block *block, const float *src, const float *weight, float lowest, float highest,
                            pl_k_codes codes)
{
    float most = k_largest(src), widest = -lowest > highest ? -lowest : highest;
    if (most == 0)
        return false;
    most = most < widest ? most : widest;
    block->unit = most > 0x1p-60f ? k_power_below(most) : 0x1p-60f;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH)
        for (int t = 0; t < PL_K_STEPS; t += 4) {
            pl_lanes x[4];
            lanes_transpose(src + PL_K_STEPS * at + t, PL_K_STEPS, x);
            for (int i = 0; i < 4; i++) {
                pl_lanes within = lanes_min(lanes_max(x[i], lanes_set(lowest)), lanes_set(highest));
                k_store(block->x[t + i] + at, within * (1 / block->unit));
            }
        }
    k_load_weights(block, weight);
    k_sum_groups(block, codes);
    return true;
}

/* v as a block stores it in f16: finite, and not 0 unless v is. */
PL_INLINE uint16_t k_stored_bits(const pl_k_block *block, float v)
{
    float real = v * block->unit, size = fabsf(real);
    if (v == 0)
        return 0;
    size = size < PL_K_F16_MOST ? size : PL_K_F16_MOST;
    size = size > 0x1p-24f ? size : 0x1p-24f;
    return pl_f32_to_f16(real < 0 ? -size : size);
}

PL_INLINE float k_stored(const pl_k_block *block, float v)
{
    return pl_f16_to_f32(k_stored_bits(block, v)) / block->unit;
}

#endif
