/* Codes evenly spaced: times a scale, or times a scale and from a minimum. */
#include "host/base/isa.h"
#include "quant/encode_groups.h"
#include "quant/encode_parts.h"

/* ---- storing ------------------------------------------------------------------------------------------------- */

PL_INLINE pl_lanesi fifth_bits(const pl_lanesi *code)
{
    pl_lanesi bits = {0};
    for (int i = 0; i < 32; i++)
        bits |= i < 4 ? (code[i] & 16) >> (4 - i) : (code[i] & 16) << (i - 4);
    return bits;
}

/* Codes from 128 on to signed bytes. */
PL_INLINE void signed_bytes(const pl_lanesi *code, pl_lanesi *words)
{
    for (int k = 0; k < 8; k++, code += 4)
        words[k] = (code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24) ^ (int32_t)0x80808080;
}

/* n blocks: the scale and perhaps the minimum, in head; the fifth bits of codes that have them; the codes of x, in
 * steps of d from m on. */
PL_INLINE void finish(pl_form f, const pl_groups *g, pl_lanes d, pl_lanes m, pl_lanesi head, size_t head_bytes,
                      unsigned char *dst, int n)
{
    const int fifth = f.hi - f.lo == 31, words = fifth ? 5 : f.hi > 100 ? 8 : 4;
    pl_lanesi code[32], word[8];
    pl_lanes inverse = groups_inverse(d);
    for (int i = 0; i < 32; i++)
        code[i] = groups_code(f, (g->x[i] - m) * inverse) - (int)f.lo;
    if (fifth)
        word[0] = fifth_bits(code);
    if (words == 8)
        signed_bytes(code, word);
    else
        groups_nibbles(f, code, word + fifth);
    for (int j = 0; j < n; j++) {
        dst = groups_put(dst, &head, j, head_bytes);
        for (int k = 0; k < words; k++)
            dst = groups_put(dst, &word[k], j, 4);
    }
}

/* ---- a scale ------------------------------------------------------------------------------------------------- */

/* For a heavy value near zero. */
static const float heavy_tries[] = {1, 2, 3, -4, 5, -6};

/* natural: what the peak becomes where the scale is chosen by it alone. */
PL_INLINE void encode_scale(pl_form f, float natural, const float *tries, int n_tries, const float *src,
                            const float *weight, unsigned char *dst, int n)
{
    pl_groups g;
    groups_load(f, &g, src, weight);
    groups_scale(f, &g);
    pl_choice best = {lanes_set(FLT_MAX), {0}, {0}};
    groups_consider(f, &g, g.peak / natural, &best);
    if (f.hi > 100) { /* errors too small for groups_search() */
        for (int k = 0; k < n_tries; k++)
            groups_consider(f, &g, g.peak / tries[k], &best);
        groups_consider(f, &g, groups_fit(f, &g, best.d).better, &best);
    } else {
        pl_form search = f;
        search.lo = f.weighted ? f.lo : -FLT_MAX; /* no value is farther out than the peak, no try below lo - 1/2 */
        groups_consider(f, &g, groups_search(search, &g, g.peak, tries, n_tries), &best);
        if (f.weighted)
            groups_consider(f, &g, groups_search(f, &g, g.heavy, PL_LIST(heavy_tries)), &best);
    }
    finish(f, &g, best.d, (pl_lanes){0}, best.bits, 2, dst, n);
}

#define SCALE_ENCODER(name, lo, hi, natural)                                                                           \
    static void encode_##name(const float *src, const float *weight, unsigned char *dst, int n)                        \
    {                                                                                                                  \
        const pl_form plain = {PL_BOOK_LINE, lo, hi, 32, 0, 0}, weighted = {PL_BOOK_LINE, lo, hi, 32, 1, 0};           \
        if (weight)                                                                                                    \
            encode_scale(weighted, natural, PL_LIST(name##_weighted_tries), src, weight, dst, n);                      \
        else                                                                                                           \
            encode_scale(plain, natural, PL_LIST(name##_tries), src, NULL, dst, n);                                    \
    }

/* Found by choosing, one after the other, what lowers the error most over values of many distributions. */
static const float q4_0_tries[] = {-8.5f, 7.2f, -7.7f, -8.2f};
static const float q4_0_weighted_tries[] = {-9.1f, -10.9f, 7.2f, -8.5f, -9.9f, -11.9f, 8.7f,  6.2f,
                                            10.3f, -7.7f,  6.8f, -8.2f, 8.2f,  11.9f,  -8.8f, 9.4f};
static const float q5_0_tries[] = {15.1f, -16.5f, 14.1f, -15.7f, 14.8f, -16.2f, 13.1f, -14.5f};
static const float q5_0_weighted_tries[] = {-17.1f, 15, -19.3f, 14,    -16.5f, -21.7f, -18,   13.1f,
                                            -15.7f, 12, -20.1f, 14.6f, 15.3f,  -18.7f, 16.7f, -17.5f};
static const float q8_0_tries[] = {-128, 125, 126, 123, 124, 122, 120, 121};
static const float q8_0_weighted_tries[] = {-128, 125, 126, 123, 124, 121, 119, 116};

SCALE_ENCODER(q4_0, -8, 7, -8)
SCALE_ENCODER(q5_0, -16, 15, -16)
SCALE_ENCODER(q8_0, -128, 127, 127)

/* ---- a scale and a minimum ----------------------------------------------------------------------------------- */

typedef struct line {
    pl_lanes d, m; /* d q + m */
} line;

typedef struct line_choice {
    pl_lanes error;
    line at;
    pl_lanesi d, m; /* f16 */
} line_choice;

typedef struct line_groups {
    pl_groups g;
    pl_lanes sum_w, sum_x; /* of the weights, of x times its weight */
} line_groups;

/* Sums over codes and values, each times its weight. */
typedef struct line_sums {
    pl_lanes q, qq, x, xq;
} line_sums;

/* The line that is best for codes and values of these sums; level where all codes are one. gain: by how much it is
 * better than 0 is. */
PL_INLINE line line_solve(const line_sums *s, pl_lanes sum_w, pl_lanes *gain)
{
    pl_lanes mean = s->q / sum_w, along = s->xq - mean * s->x;
    pl_lanes d = lanes_ratio(along, lanes_max(s->qq - mean * s->q, lanes_set(0)));
    *gain = d * along;
    return (line){d, s->x / sum_w - d * mean};
}

PL_INLINE void line_load(pl_form f, line_groups *l, const float *src, const float *weight)
{
    groups_load(f, &l->g, src, weight);
    groups_scale(f, &l->g);
    pl_lanes sum_w = lanes_set(f.weighted ? 0 : 32), sum_x = {0};
    for (int i = 0; i < 32; i += 4) {
        const pl_lanes *x = l->g.x + i, *w = l->g.w + i;
        if (f.weighted) {
            sum_w += (w[0] + w[1]) + (w[2] + w[3]);
            sum_x += (w[0] * x[0] + w[1] * x[1]) + (w[2] * x[2] + w[3] * x[3]);
        } else {
            sum_x += (x[0] + x[1]) + (x[2] + x[3]);
        }
    }
    l->sum_w = sum_w;
    l->sum_x = sum_x;
}

/* Takes `at`, rounded, if it is better than what was chosen; returns the best line for its codes. */
PL_INLINE line line_consider(pl_form f, const line_groups *l, line at, line_choice *best)
{
    const pl_groups *g = &l->g;
    pl_lanesi d = lanes_to_f16(at.d * g->unit), m = lanes_to_f16((at.m + g->low) * g->unit);
    at.d = lanes_from_f16(d) * g->per_unit;
    at.m = lanes_from_f16(m) * g->per_unit - g->low;
    pl_lanes inverse = groups_inverse(at.d), error = {0}, gain;
    line_sums s = {{0}, {0}, {0}, {0}}; /* of what is left of x */
    for (int i = 0; i < 32; i++) {
        pl_lanes q = groups_nearest(f, (g->x[i] - at.m) * inverse), r = g->x[i] - (at.d * q + at.m);
        pl_lanes wr = f.weighted ? g->w[i] * r : r, wq = f.weighted ? g->w[i] * q : q;
        error += wr * r;
        s.x += wr;
        s.xq += wr * q;
        s.q += wq;
        s.qq += wq * q;
    }
    pl_lanesi better = error < best->error;
    best->error = lanes_select(better, error, best->error);
    best->at.d = lanes_select(better, at.d, best->at.d);
    best->at.m = lanes_select(better, at.m, best->at.m);
    best->d = lanes_selecti(better, d, best->d);
    best->m = lanes_selecti(better, m, best->m);
    line change = line_solve(&s, l->sum_w, &gain);
    return (line){at.d + change.d, at.m + change.m};
}

/* The codes of low and high before they are rounded and clamped. */
typedef struct line_try {
    float low, high;
} line_try;

/* As groups_search(). */
PL_INLINE line line_search(pl_form f, const line_groups *l, const line_try *tries, int n)
{
    const pl_groups *g = &l->g;
    line best = {{0}, {0}};
    pl_lanes best_gain = lanes_set(-1), per_range = groups_inverse(g->high - g->low);
    for (int k = 0; k < n; k += 2) {
        line_sums s[2] = {{{0}, {0}, l->sum_x, {0}}, {{0}, {0}, l->sum_x, {0}}};
        pl_lanes inverse[2], gain;
        for (int t = 0; t < 2; t++)
            inverse[t] = per_range * (tries[k + t].high - tries[k + t].low);
        for (int i = 0; i < 32; i++) {
            for (int t = 0; t < 2; t++) {
                pl_lanes q = groups_nearest(f, g->x[i] * inverse[t] + tries[k + t].low);
                pl_lanes wq = f.weighted ? g->w[i] * q : q;
                s[t].q += wq;
                s[t].qq += wq * q;
                s[t].xq += wq * g->x[i];
            }
        }
        for (int t = 0; t < 2; t++) {
            line at = line_solve(&s[t], l->sum_w, &gain);
            pl_lanesi better = gain > best_gain;
            best.d = lanes_select(better, at.d, best.d);
            best.m = lanes_select(better, at.m, best.m);
            best_gain = lanes_select(better, gain, best_gain);
        }
    }
    return best;
}

PL_INLINE void encode_line(pl_form f, const line_try *tries, int n_tries, const float *src, const float *weight,
                           unsigned char *dst, int n)
{
    line_groups l;
    line_load(f, &l, src, weight);
    line_choice best = {lanes_set(FLT_MAX), {{0}, {0}}, {0}, {0}};
    line_consider(f, &l, (line){(l.g.high - l.g.low) / f.hi, (pl_lanes){0}}, &best);
    pl_form search = f;
    search.lo = f.weighted ? f.lo : -FLT_MAX; /* no try goes beyond -1/2 and hi + 1/2 */
    search.hi = f.weighted ? f.hi : FLT_MAX;
    line at = line_consider(f, &l, line_search(search, &l, tries, n_tries), &best);
    if (f.weighted)
        line_consider(f, &l, at, &best);
    finish(f, &l.g, best.at.d, best.at.m, best.d | best.m << 16, 4, dst, n);
}

#define LINE_ENCODER(name, hi)                                                                                         \
    static void encode_##name(const float *src, const float *weight, unsigned char *dst, int n)                        \
    {                                                                                                                  \
        const pl_form plain = {PL_BOOK_LINE, 0, hi, 32, 0, 1}, weighted = {PL_BOOK_LINE, 0, hi, 32, 1, 1};             \
        if (weight)                                                                                                    \
            encode_line(weighted, PL_LIST(name##_weighted_tries), src, weight, dst, n);                                \
        else                                                                                                           \
            encode_line(plain, PL_LIST(name##_tries), src, NULL, dst, n);                                              \
    }

static const line_try q4_1_tries[] = {{0.2f, 15.4f}, {-0.4f, 15}};
static const line_try q4_1_weighted_tries[] = {
    {-0.6f, 14.8f}, {0, 15.6f},    {-0.6f, 15.4f}, {0.8f, 15.2f}, {-1.4f, 15.4f}, {0, 16.4f},
    {-0.2f, 14.8f}, {0.2f, 15.2f}, {-0.6f, 16},    {-2, 15},      {-0.2f, 13.2f}, {-0.6f, 16.6f},
    {0, 17},        {0, 13.8f},    {-1.6f, 15.2f}, {0.2f, 14.2f},
};
static const line_try q5_1_tries[] = {{-0.2f, 30.2f}, {0.2f, 31.2f}, {-0.2f, 30.8f}, {1, 30}};
static const line_try q5_1_weighted_tries[] = {
    {-0.2f, 30.2f}, {-0.6f, 31}, {0, 31.6f}, {0, 29},        {0, 28},     {-0.4f, 31.4f}, {-0.2f, 29.8f}, {0.2f, 30.2f},
    {-1.4f, 31.2f}, {1, 28},     {0, 32.4f}, {-0.2f, 30.8f}, {-2, 31.2f}, {0.2f, 31.2f},  {0, 33},        {0.2f, 29.2f},
};

LINE_ENCODER(q4_1, 15)
LINE_ENCODER(q5_1, 31)

/* ---- all ----------------------------------------------------------------------------------------------------- */

static pl_slab_fn encoder_of(pl_dtype type)
{
    switch (type) {
    case PL_Q4_0: return encode_q4_0;
    case PL_Q4_1: return encode_q4_1;
    case PL_Q5_0: return encode_q5_0;
    case PL_Q5_1: return encode_q5_1;
    default: return encode_q8_0;
    }
}

void PL_ISA_NAME(pl_encode_linear)(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n)
{
    slabs_encode(encoder_of(type), 32 * PL_WIDTH, pl_dtype_describe((int)type), src, weight, dst, n);
}
