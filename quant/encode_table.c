/* Codes that look up a table of values. */
#include <math.h>

#include "host/base/isa.h"
#include "quant/encode_groups.h"
#include "quant/encode_parts.h"

PL_INLINE void encode_nibbles(pl_form f, const pl_groups *g, pl_lanes d, pl_lanesi *words)
{
    pl_lanesi code[PL_GROUP_MAX];
    pl_lanes inverse = groups_inverse(d);
    for (int i = 0; i < f.n; i++)
        code[i] = groups_code(f, g->x[i] * inverse);
    groups_nibbles(f, code, words);
}

/* ---- IQ4_NL -------------------------------------------------------------------------------------------------- */

static const float iq4_tries[] = {-127, -135, 114, -121, -108, 121, -131, 109, -140, -103, -124, 125};
static const float iq4_weighted_tries[] = {-127, -142, 114, 132, -108, -168, -120, -134,
                                           -194, -152, 122, 148, 108,  196,  92,   -100};

PL_INLINE pl_lanes iq4_search(pl_form f, const pl_groups *g)
{
    if (f.weighted)
        return groups_search(f, g, g->peak, PL_LIST(iq4_weighted_tries));
    return groups_search(f, g, g->peak, PL_LIST(iq4_tries));
}

PL_INLINE void iq4_nl(pl_form f, const float *src, const float *weight, unsigned char *dst, int n)
{
    pl_groups g;
    groups_load(f, &g, src, weight);
    groups_scale(f, &g);
    pl_choice best = {lanes_set(FLT_MAX), {0}, {0}};
    pl_lanes d = iq4_search(f, &g);
    d = groups_consider(f, &g, d, &best);
    groups_consider(f, &g, d, &best);
    pl_lanesi words[4];
    encode_nibbles(f, &g, best.d, words);
    for (int j = 0; j < n; j++) {
        dst = groups_put(dst, &best.bits, j, 2);
        for (int k = 0; k < 4; k++)
            dst = groups_put(dst, &words[k], j, 4);
    }
}

/* ---- IQ4_XS -------------------------------------------------------------------------------------------------- */

#define XS_GROUPS PL_SLAB_GROUPS_MAX
#define XS_PARTS (XS_GROUPS / PL_WIDTH)
#define XS_BLOCKS (XS_GROUPS / 8)

/* Something of each group of a slab. */
typedef union xs_each {
    pl_lanes part[XS_PARTS];
    float group[XS_BLOCKS][8];
} xs_each;

typedef struct xs_choice {
    float error[XS_BLOCKS];
    xs_each d, step; /* each group's scale is d * step; d: of its block */
} xs_choice;

/* Each group gets the value of its block that is farthest from 0. */
PL_INLINE void xs_share_farthest(xs_each *v)
{
    for (int b = 0; b < XS_BLOCKS; b++) {
        float most = v->group[b][0];
        for (int j = 1; j < 8; j++)
            most = fabsf(v->group[b][j]) > fabsf(most) ? v->group[b][j] : most;
        for (int j = 0; j < 8; j++)
            v->group[b][j] = most;
    }
}

/* Groups of one block in one unit, so that their errors add up. */
PL_INLINE void xs_load(pl_form f, pl_groups g[XS_PARTS], const float *src, const float *weight)
{
    xs_each unit, weight_unit;
    for (int k = 0; k < XS_PARTS; k++) {
        groups_load(f, &g[k], src + 32 * PL_WIDTH * k, f.weighted ? weight + 32 * PL_WIDTH * k : NULL);
        unit.part[k] = g[k].unit;
        weight_unit.part[k] = f.weighted ? g[k].weight_unit : lanes_set(1);
    }
    xs_share_farthest(&unit);
    xs_share_farthest(&weight_unit);
    for (int k = 0; k < XS_PARTS; k++) {
        g[k].unit = unit.part[k];
        g[k].weight_unit = weight_unit.part[k];
        groups_scale(f, &g[k]);
    }
}

typedef struct xs_fit {
    xs_each step, error, better, qq;
} xs_fit;

/* The best of the three steps of d about each group's ideal scale. */
PL_INLINE void xs_fit_steps(pl_form f, const pl_groups *g, pl_lanes ideal, pl_lanes d, int k, xs_fit *out)
{
    pl_lanes inverse = groups_inverse(d), low = lanes_set(-32), high = lanes_set(31);
    pl_lanes middle = lanes_round(lanes_min(lanes_max(ideal * inverse, low), high));
    out->error.part[k] = lanes_set(FLT_MAX);
    for (int change = -1; change <= 1; change++) {
        pl_lanes step = lanes_min(lanes_max(middle + (float)change, low), high);
        pl_fit fit = groups_fit(f, g, d * step);
        pl_lanesi better = fit.error < out->error.part[k];
        out->step.part[k] = lanes_select(better, step, out->step.part[k]);
        out->error.part[k] = lanes_select(better, fit.error, out->error.part[k]);
        out->better.part[k] = lanes_select(better, fit.better, out->better.part[k]);
        out->qq.part[k] = lanes_select(better, fit.qq, out->qq.part[k]);
    }
}

/* Takes d, rounded, for the blocks where it is better than what was chosen; turns it into the best d for its steps
 * and codes. */
PL_INLINE void xs_consider(pl_form f, const pl_groups g[XS_PARTS], const xs_each *ideal, xs_each *d, xs_choice *best)
{
    xs_fit fit = {0};
    for (int k = 0; k < XS_PARTS; k++) {
        d->part[k] = lanes_from_f16(lanes_to_f16(d->part[k] * g[k].unit)) * g[k].per_unit;
        xs_fit_steps(f, &g[k], ideal->part[k], d->part[k], k, &fit);
    }
    for (int b = 0; b < XS_BLOCKS; b++) {
        float error = 0, along = 0, square = 0;
        for (int j = 0; j < 8; j++) {
            float step = fit.step.group[b][j], weight = fit.qq.group[b][j] * step;
            error += fit.error.group[b][j];
            along += weight * fit.better.group[b][j];
            square += weight * step;
        }
        if (error < best->error[b]) {
            best->error[b] = error;
            memcpy(best->d.group[b], d->group[b], sizeof d->group[b]);
            memcpy(best->step.group[b], fit.step.group[b], sizeof fit.step.group[b]);
        }
        for (int j = 0; j < 8; j++)
            d->group[b][j] = square > 0 ? along / square : 0;
    }
}

static const float xs_tries[] = {-32, -30.5f, 31, -29, 29.5f};

PL_INLINE void xs_search(pl_form f, const pl_groups g[XS_PARTS], xs_choice *best)
{
    xs_each ideal, far, d;
    for (int k = 0; k < XS_PARTS; k++)
        far.part[k] = ideal.part[k] = iq4_search(f, &g[k]);
    xs_share_farthest(&far);
    memset(best, 0, sizeof *best);
    for (int b = 0; b < XS_BLOCKS; b++)
        best->error[b] = FLT_MAX;
    for (size_t t = 0; t < sizeof xs_tries / sizeof xs_tries[0]; t++) {
        for (int k = 0; k < XS_PARTS; k++)
            d.part[k] = far.part[k] / xs_tries[t];
        xs_consider(f, g, &ideal, &d, best);
        xs_consider(f, g, &ideal, &d, best);
    }
}

PL_INLINE void iq4_xs(pl_form f, const float *src, const float *weight, unsigned char *dst, int n)
{
    pl_groups g[XS_PARTS];
    xs_choice best;
    xs_load(f, g, src, weight);
    xs_search(f, g, &best);
    pl_block_iq4_xs block[XS_BLOCKS] = {0};
    for (int k = 0; k < XS_PARTS; k++) {
        pl_lanesi words[4], bits = lanes_to_f16(best.d.part[k] * g[k].unit);
        pl_lanesi step = lanes_int(best.step.part[k]) + 32;
        encode_nibbles(f, &g[k], best.d.part[k] * best.step.part[k], words);
        for (int lane = 0; lane < PL_WIDTH; lane++) {
            int group = PL_WIDTH * k + lane, j = group % 8;
            pl_block_iq4_xs *b = &block[group / 8];
            b->d = (uint16_t)bits[lane];
            b->sl[j / 2] |= (uint8_t)((step[lane] & 15) << 4 * (j & 1));
            b->sh |= (uint16_t)(step[lane] >> 4 << 2 * j);
            for (int i = 0; i < 4; i++)
                groups_put(b->q + 16 * j + 4 * i, &words[i], lane, 4);
        }
    }
    memcpy(dst, block, (size_t)n * sizeof *block);
}

/* ---- scales without a sign, of few bits ---------------------------------------------------------------------- */

/* Of the scales first .. last steps from a natural one, 0 to `most`, the one with the least error; *d is its value. */
PL_INLINE pl_lanesi best_scale(pl_form f, const pl_groups *g, pl_lanesi natural, int first, int last, int most,
                               pl_lanes (*half_scale)(pl_lanesi), pl_lanes *d)
{
    pl_lanes least = lanes_set(FLT_MAX);
    pl_lanesi best = {0};
    for (int change = first; change <= last; change++) {
        pl_lanesi e = natural + change;
        e = lanes_selecti(e < 0, lanes_seti(0), lanes_selecti(e > most, lanes_seti(most), e));
        pl_lanes scale = half_scale(e) * g->per_unit, error = groups_fit(f, g, scale).error;
        pl_lanesi better = error < least;
        least = lanes_select(better, error, least);
        best = lanes_selecti(better, e, best);
        *d = lanes_select(better, scale, *d);
    }
    return best;
}

/* ---- MXFP4 --------------------------------------------------------------------------------------------------- */

/* pl_mxfp4_half_scale() */
PL_INLINE pl_lanes mxfp4_half_scale(pl_lanesi e)
{
    pl_lanesi subnormal = lanes_selecti(e == 0, lanes_seti(0x200000), lanes_seti(0x400000));
    return (pl_lanes)lanes_selecti(e < 2, subnormal, (e - 1) << 23);
}

/* The scale that puts the peak between 4 and 8, or one nearby: at most 252, units end at 2^126. Above that the largest
 * code is infinite. */
PL_INLINE pl_lanesi mxfp4_search(pl_form f, const pl_groups *g, pl_lanes *d)
{
    pl_lanesi natural = ((pl_lanesi)g->unit >> 23) - 2;
    return best_scale(f, g, natural, f.weighted ? -3 : 0, 1, INT32_MAX, mxfp4_half_scale, d);
}

PL_INLINE void mxfp4(pl_form f, const float *src, const float *weight, unsigned char *dst, int n)
{
    pl_groups g;
    groups_load(f, &g, src, weight);
    groups_scale(f, &g);
    pl_lanes d = {0};
    pl_lanesi words[4], e = mxfp4_search(f, &g, &d);
    encode_nibbles(f, &g, d, words);
    for (int j = 0; j < n; j++) {
        dst = groups_put(dst, &e, j, 1);
        for (int k = 0; k < 4; k++)
            dst = groups_put(dst, &words[k], j, 4);
    }
}

/* ---- NVFP4 --------------------------------------------------------------------------------------------------- */

/* pl_nvfp4_half_scale() of 0 to 126 */
PL_INLINE pl_lanes nvfp4_half_scale(pl_lanesi e)
{
    pl_lanes subnormal = ((pl_lanes)(e + (pl_lanesi)lanes_set(0x1p13f)) - 0x1p13f); /* whose last place is 2^-10 */
    return lanes_select(e < 8, subnormal, (pl_lanes)((e << 20) + (119 << 23)));
}

/* The largest scale that is not above s, which is not negative. */
PL_INLINE pl_lanesi nvfp4_below(pl_lanes half)
{
    pl_lanes subnormal = half + 0x1p13f;
    pl_lanesi small = (pl_lanesi)subnormal - (pl_lanesi)lanes_set(0x1p13f);
    return lanes_selecti(half < 0x1p-7f, small, ((pl_lanesi)half - (119 << 23)) >> 20);
}

PL_INLINE pl_lanesi nvfp4_search(pl_form f, const pl_groups *g, pl_lanes *d)
{
    pl_lanes size = lanes_abs(g->peak) * g->unit;
    pl_lanesi natural = nvfp4_below(lanes_min(size, lanes_set(5376)) / 12);
    return best_scale(f, g, natural, f.weighted ? -8 : -1, 5, 126, nvfp4_half_scale, d);
}

PL_INLINE void nvfp4(pl_form f, const float *src, const float *weight, unsigned char *dst, int n)
{
    pl_groups g;
    groups_load(f, &g, src, weight);
    groups_scale(f, &g);
    pl_lanes d = {0};
    pl_lanesi words[2], e = nvfp4_search(f, &g, &d);
    encode_nibbles(f, &g, d, words);
    for (int j = 0; j < n; j++) {
        for (int k = 0; k < 4; k++)
            groups_put(dst + k, &e, 4 * j + k, 1);
        dst += 4;
        for (int k = 0; k < 8; k++)
            dst = groups_put(dst, &words[k % 2], 4 * j + k / 2, 4);
    }
}

/* ---- all ----------------------------------------------------------------------------------------------------- */

#define ENCODER(name, book, n_values)                                                                                  \
    static void encode_##name(const float *src, const float *weight, unsigned char *dst, int n)                        \
    {                                                                                                                  \
        if (weight)                                                                                                    \
            name((pl_form){book, 0, 0, n_values, 1, 0}, src, weight, dst, n);                                          \
        else                                                                                                           \
            name((pl_form){book, 0, 0, n_values, 0, 0}, src, NULL, dst, n);                                            \
    }

ENCODER(iq4_nl, PL_BOOK_IQ4, 32)
ENCODER(iq4_xs, PL_BOOK_IQ4, 32)
ENCODER(mxfp4, PL_BOOK_E2M1, 32)
ENCODER(nvfp4, PL_BOOK_E2M1, 16)

void PL_ISA_NAME(pl_encode_table)(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    switch (type) {
    case PL_IQ4_NL: slabs_encode(encode_iq4_nl, 32 * PL_WIDTH, info, src, weight, dst, n); return;
    case PL_IQ4_XS: slabs_encode(encode_iq4_xs, 32 * XS_GROUPS, info, src, weight, dst, n); return;
    case PL_MXFP4: slabs_encode(encode_mxfp4, 32 * PL_WIDTH, info, src, weight, dst, n); return;
    default: slabs_encode(encode_nvfp4, 16 * PL_WIDTH, info, src, weight, dst, n); return;
    }
}
