/* Q2_K, Q4_K, Q5_K: value = d * scale * code - dmin * minimum, with a scale and a minimum for each group.
 *
 * Each group is fitted alone first, as if its step and low had all their bits: the best of a grid of starts, then least
 * squares for the codes that this gives. Then d and dmin are those whose multiples come near the steps and lows of all
 * groups, and each group takes of the multiples nearby what makes its true error least. Last, least squares gives d and
 * dmin for the codes, all groups at once, and groups choose again; the best that was seen is what is stored. */
#include "host/base/isa.h"
#include "quant/encode_k.h"
#include "quant/encode_parts.h"

#include <assert.h>

typedef struct k_type {
    pl_k_codes codes;
    float most;   /* the largest scale and minimum of a group */
    float stride; /* the d that are tried: largest step / (most - stride * i) */
    pl_k_starts below, above;
} k_type;

/* Of groups: step and low, and of their codes the weighted mean and sum w (q - mean)^2. */
typedef struct k_fit {
    pl_k_row step, low, mean_code, spread;
} k_fit;

/* d and dmin as stored, the integers of groups, and the error of all that. */
typedef struct k_choice {
    float d, dmin, error;
    pl_k_row scale, minimum;
} k_choice;

/* How much of sum w x^2 least squares explains with the codes of a step and low, but for a constant. */
PL_INLINE pl_lanes explained(const pl_k_block *block, k_type type, int at, pl_lanes step, pl_lanes low)
{
    pl_lanes weight = lanes_load(block->weight + at), mean = lanes_load(block->mean + at);
    pl_k_moments sum = k_moments(block, at, step, low, type.codes);
    pl_lanes mean_code = sum.q / weight, covariance = sum.qy - (mean + low) * sum.q;
    pl_lanes variance = lanes_max(sum.qq - mean_code * sum.q, 1e-5f * sum.qq); /* not the noise of one code for all */
    pl_lanesi negative = covariance * mean_code < mean * variance;             /* low would be: it becomes 0 */
    pl_lanes with = lanes_select(negative, sum.qy - low * sum.q, covariance);
    pl_lanes share = lanes_ratio(with * with, lanes_select(negative, sum.qq, variance));
    return lanes_select(negative, share - weight * mean * mean, share);
}

PL_INLINE void find_range(const pl_k_block *block, k_type type, int at, pl_lanes *least, pl_lanes *most)
{
    *least = lanes_set(0); /* lows are not negative */
    *most = lanes_load(block->x[0] + at);
    for (int t = 0; t < PL_K_STEPS; t++) {
        *least = lanes_min(*least, lanes_load(block->x[t] + at));
        *most = lanes_max(*most, lanes_load(block->x[t] + at));
    }
    if (type.codes.paired) {
        *least = lanes_min(*least, k_swap(*least));
        *most = lanes_max(*most, k_swap(*most));
    }
}

PL_INLINE void best_start(const pl_k_block *block, k_type type, int at, pl_lanes *step, pl_lanes *low)
{
    pl_lanes least, most, best = lanes_set(-INFINITY);
    find_range(block, type, at, &least, &most);
    *step = *low = lanes_set(0);
    for (int i = 0; i < type.below.count; i++)
        for (int j = 0; j < type.above.count; j++) {
            float below = type.below.first + type.below.stride * (float)i;
            float above = type.above.first + type.above.stride * (float)j;
            pl_lanes s = (most - least) * (1 / (type.codes.top + below + above));
            pl_lanes l = lanes_max(-least - below * s, lanes_set(0));
            pl_lanes share = explained(block, type, at, s, l);
            pl_lanesi better = share > best * (1 + PL_K_NOISE);
            *step = lanes_select(better, s, *step);
            *low = lanes_select(better, l, *low);
            best = lanes_select(better, share, best);
        }
}

/* Least squares for the codes of a step and low, with low >= 0. */
PL_INLINE pl_k_rest refit(const pl_k_block *block, k_type type, int at, pl_lanes step, pl_lanes low, k_fit *fit)
{
    pl_k_rest sum = k_rest(block, at, step, low, type.codes);
    pl_lanes weight = lanes_load(block->weight + at), mean_code = sum.q / weight;
    pl_lanes spread = sum.qq - mean_code * sum.q, covariance = sum.qr - mean_code * sum.r;
    spread = lanes_select(spread > 1e-5f * sum.qq, spread, lanes_set(0));
    pl_lanes more = lanes_ratio(covariance, spread), less = sum.r / weight - mean_code * more;
    more = lanes_select(less > low, lanes_ratio(sum.qr - low * sum.q, sum.qq), more);
    less = lanes_min(less, low);
    k_store(fit->step + at, step + more);
    k_store(fit->low + at, low - less);
    k_store(fit->mean_code + at, mean_code);
    k_store(fit->spread + at, spread);
    return sum;
}

/* Of the groups of one register. */
typedef struct k_pick {
    pl_lanes scale, minimum, error;
} k_pick;

PL_INLINE void judge(const pl_k_block *block, k_type type, int at, const k_choice *choice, pl_lanes scale,
                     pl_lanes minimum, k_pick *best)
{
    pl_lanes error = k_judge(block, at, choice->d * scale, choice->dmin * minimum, type.codes);
    pl_lanesi better = error < best->error;
    best->scale = lanes_select(better, scale, best->scale);
    best->minimum = lanes_select(better, minimum, best->minimum);
    best->error = lanes_select(better, error, best->error);
}

/* The low that suits a group's codes once its step is d * scale. */
PL_INLINE pl_lanes low_for(const pl_k_block *block, const k_fit *fit, int at, pl_lanes step)
{
    return lanes_max(step * lanes_load(fit->mean_code + at) - lanes_load(block->mean + at), lanes_set(0));
}

/* Of scales next to the fit's, each with the minimum that suits it, and of the minima next to the best one's. */
PL_INLINE k_pick pick(const pl_k_block *block, k_type type, const k_fit *fit, int at, const k_choice *choice)
{
    pl_lanes nearest = k_round(lanes_ratio(lanes_load(fit->step + at), lanes_set(choice->d)), 0, type.most);
    const float nearby[] = {0, -1, 1};
    k_pick best = {.error = lanes_set(INFINITY)};
    for (int i = 0; i < 3; i++) {
        pl_lanes scale = k_round(nearest + nearby[i], 0, type.most);
        pl_lanes low = low_for(block, fit, at, choice->d * scale);
        judge(block, type, at, choice, scale, k_round(lanes_ratio(low, lanes_set(choice->dmin)), 0, type.most), &best);
    }
    pl_lanes minimum = best.minimum;
    judge(block, type, at, choice, best.scale, k_round(minimum - 1, 0, type.most), &best);
    judge(block, type, at, choice, best.scale, k_round(minimum + 1, 0, type.most), &best);
    return best;
}

/* Scales and minima for a d and dmin; *best = that where it is better. */
PL_INLINE void choose(const pl_k_block *block, k_type type, const k_fit *fit, float d, float dmin, k_choice *best)
{
    k_choice choice = {.d = k_stored(block, d), .dmin = k_stored(block, dmin)};
    pl_k_row errors;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        k_pick groups = pick(block, type, fit, at, &choice);
        k_store(choice.scale + at, groups.scale);
        k_store(choice.minimum + at, groups.minimum);
        k_store(errors + at, groups.error);
    }
    choice.error = k_total(errors, type.codes);
    if (choice.error < best->error)
        *best = choice;
}

PL_INLINE float largest(const pl_k_row v)
{
    float most = 0;
    for (int l = 0; l < PL_K_LANES; l++)
        most = most > v[l] ? most : v[l];
    return most;
}

PL_INLINE float best_dmin(const pl_k_block *block, k_type type, const k_fit *fit, float d)
{
    pl_k_row low;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        pl_lanes scale = k_round(lanes_ratio(lanes_load(fit->step + at), lanes_set(d)), 0, type.most);
        k_store(low + at, low_for(block, fit, at, d * scale));
    }
    return k_best_unit(block, low, block->weight, largest(low), type.most, type.stride, 0, type.most, type.codes);
}

/* Least squares for the codes of a choice: d and dmin together, and each group's own step and low. */
PL_INLINE void solve(const pl_k_block *block, k_type type, const k_choice *choice, k_fit *fit, float *d, float *dmin)
{
    pl_k_row dd, dm, mm, dr, mr;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        pl_lanes scale = lanes_load(choice->scale + at), minimum = lanes_load(choice->minimum + at);
        pl_k_rest sum = refit(block, type, at, choice->d * scale, choice->dmin * minimum, fit);
        k_store(dd + at, scale * scale * sum.qq);
        k_store(dm + at, scale * minimum * sum.q);
        k_store(mm + at, minimum * minimum * lanes_load(block->weight + at));
        k_store(dr + at, scale * sum.qr);
        k_store(mr + at, minimum * sum.r);
    }
    double a = k_total(dd, type.codes), b = k_total(dm, type.codes), c = k_total(mm, type.codes);
    double u = k_total(dr, type.codes), v = k_total(mr, type.codes), determinant = a * c - b * b;
    double new_d = choice->d, new_dmin = choice->dmin;
    if (determinant > 1e-6 * a * c) {
        new_d += (u * c - v * b) / determinant;
        new_dmin += (u * b - v * a) / determinant;
    } else if (a > 0) {
        new_d += u / a;
    }
    *d = new_d > 0 ? (float)new_d : 0;
    *dmin = new_dmin > 0 ? (float)new_dmin : 0;
}

PL_INLINE k_choice choose_all(const pl_k_block *block, k_type type)
{
    k_choice best = {.error = INFINITY};
    k_fit fit;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        pl_lanes step, low;
        best_start(block, type, at, &step, &low);
        refit(block, type, at, step, low, &fit);
    }
    float d, dmin, extreme = largest(fit.step);
    for (int range = 0; range < 2; range++) {
        float most = type.most - type.stride * (float)(PL_K_LANES * range);
        d = k_best_unit(block, fit.step, fit.spread, extreme, most, type.stride, 0, type.most, type.codes);
        choose(block, type, &fit, d, best_dmin(block, type, &fit, d), &best);
    }
    solve(block, type, &best, &fit, &d, &dmin);
    choose(block, type, &fit, d, dmin, &best);
    return best;
}

/* What a block stores, each integer still in a place of its own. */
typedef struct k_integers {
    uint16_t d, dmin;
    uint8_t scale[16], minimum[16], code[PL_K_VALUES];
} k_integers;

PL_INLINE void encode_block(const float *src, const float *weight, k_type type, k_integers *out)
{
    pl_k_block block;
    pl_k_row step, low;
    memset(out, 0, sizeof *out);
    if (!k_load_block(&block, src, weight, -PL_K_F16_MOST * type.most, PL_K_F16_MOST * type.most * type.codes.top,
                      type.codes))
        return;
    k_choice best = choose_all(&block, type);
    for (int l = 0; l < PL_K_LANES; l++) {
        int group = type.codes.paired ? l / 2 : l;
        step[l] = best.d * best.scale[l];
        low[l] = best.dmin * best.minimum[l];
        out->scale[group] = (uint8_t)best.scale[l];
        out->minimum[group] = (uint8_t)best.minimum[l];
    }
    out->d = k_stored_bits(&block, best.d);
    out->dmin = k_stored_bits(&block, best.dmin);
    k_final_codes(&block, step, low, type.codes, out->code);
}

static void block_q2_k(const float *src, const float *weight, void *dst)
{
    const k_type type = {{0, 3, true, false}, 15, 0.2f, {0.8f, -0.4f, 4}, {0.8f, -0.3f, 6}};
    pl_block_q2_k b;
    k_integers n;
    encode_block(src, weight, type, &n);
    b.d = n.d;
    b.dmin = n.dmin;
    for (int j = 0; j < 16; j++)
        b.s[j] = (uint8_t)(n.scale[j] | n.minimum[j] << 4);
    for (int l = 0; l < 64; l++) {
        const uint8_t *c = n.code + 128 * (l / 32) + l % 32;
        b.q[l] = (uint8_t)(c[0] | c[32] << 2 | c[64] << 4 | c[96] << 6);
    }
    memcpy(dst, &b, sizeof b);
}

/* The other way round: pl_k_scale(). */
static void pack_scales(const k_integers *n, uint8_t s[12])
{
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(n->scale[j] | n->scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(n->minimum[j] | n->minimum[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((n->scale[j + 4] & 15) | (n->minimum[j + 4] & 15) << 4);
    }
}

static void pack_nibbles(const k_integers *n, uint8_t q[128])
{
    for (int l = 0; l < 128; l++) {
        const uint8_t *c = n->code + 64 * (l / 32) + l % 32; /* of a pair of groups */
        q[l] = (uint8_t)((c[0] & 15) | (c[32] & 15) << 4);
    }
}

static void block_q4_k(const float *src, const float *weight, void *dst)
{
    const k_type type = {{0, 15, true, true}, 63, 0.5f, {0.5f, -0.33f, 3}, {1, -0.43f, 8}};
    pl_block_q4_k b;
    k_integers n;
    encode_block(src, weight, type, &n);
    b.d = n.d;
    b.dmin = n.dmin;
    pack_scales(&n, b.s);
    pack_nibbles(&n, b.q);
    memcpy(dst, &b, sizeof b);
}

static void block_q5_k(const float *src, const float *weight, void *dst)
{
    const k_type type = {{0, 31, true, true}, 63, 0.5f, {0.5f, -0.33f, 3}, {1, -0.43f, 8}};
    pl_block_q5_k b;
    k_integers n;
    encode_block(src, weight, type, &n);
    b.d = n.d;
    b.dmin = n.dmin;
    pack_scales(&n, b.s);
    pack_nibbles(&n, b.q);
    memset(b.h, 0, sizeof b.h);
    for (int i = 0; i < PL_K_VALUES; i++)
        b.h[i % 32] = (uint8_t)(b.h[i % 32] | n.code[i] >> 4 << i / 32);
    memcpy(dst, &b, sizeof b);
}

void PL_ISA_NAME(pl_encode_k_min)(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n)
{
    assert(type == PL_Q2_K || type == PL_Q4_K || type == PL_Q5_K);
    void (*encode)(const float *, const float *, void *) = type == PL_Q2_K   ? block_q2_k
                                                           : type == PL_Q4_K ? block_q4_k
                                                                             : block_q5_k;
    size_t bytes = pl_dtype_bytes(type, PL_K_VALUES);
    unsigned char *out = dst;
    for (int64_t i = 0; i + PL_K_VALUES <= n; i += PL_K_VALUES, out += bytes)
        encode(src + i, weight ? weight + i : NULL, out);
}
