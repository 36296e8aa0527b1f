/* Q3_K, Q6_K: value = d * scale * code, with a scale for each group.
 *
 * As in encode_k_min.c each group is fitted alone, d is one whose multiples come near the steps of all groups, and each
 * group takes of the multiples nearby what makes its true error least. Codes reach one further below zero than above,
 * and so do scales: the signs of d and of steps are free. */
#include "host/base/isa.h"
#include "quant/encode_k.h"
#include "quant/encode_parts.h"

#include <assert.h>

typedef struct k_type {
    pl_k_codes codes;
    float lowest, highest; /* scales of groups */
    pl_k_starts beyond;
} k_type;

/* Of groups: the best step, and sum w q^2 of its codes. */
typedef struct k_fit {
    pl_k_row step, weight;
} k_fit;

/* What is stored, and its error. */
typedef struct k_choice {
    float d, error;
    pl_k_row scale;
} k_choice;

/* Keeps the step whose codes explain the more of sum w x^2. */
PL_INLINE void try_step(const pl_k_block *block, k_type type, int at, pl_lanes step, pl_lanes *best, pl_lanes *most)
{
    pl_k_moments sum = k_moments(block, at, step, lanes_set(0), type.codes);
    pl_lanes explained = lanes_ratio(sum.qy * sum.qy, sum.qq);
    pl_lanesi better = explained > *most * (1 + PL_K_NOISE);
    *best = lanes_select(better, step, *best);
    *most = lanes_select(better, explained, *most);
}

PL_INLINE pl_lanes best_start(const pl_k_block *block, k_type type, int at)
{
    pl_lanes least = {0}, most = {0}, best = {0}, explained = {0};
    for (int t = 0; t < PL_K_STEPS; t++) {
        least = lanes_min(least, lanes_load(block->x[t] + at));
        most = lanes_max(most, lanes_load(block->x[t] + at));
    }
    pl_lanes extreme = lanes_select(-least > most, least, most);
    for (int i = 0; i < type.beyond.count; i++) {
        float beyond = type.beyond.first + type.beyond.stride * (float)i;
        try_step(block, type, at, extreme * (1 / (type.codes.bottom - beyond)), &best, &explained);
        try_step(block, type, at, extreme * (1 / (type.codes.top + beyond)), &best, &explained);
    }
    return best;
}

/* Least squares for the codes of the best start. */
PL_INLINE void fit_groups(const pl_k_block *block, k_type type, int at, k_fit *fit)
{
    pl_lanes step = best_start(block, type, at);
    pl_k_rest rest = k_rest(block, at, step, lanes_set(0), type.codes);
    k_store(fit->step + at, step + lanes_ratio(rest.qr, rest.qq));
    k_store(fit->weight + at, rest.qq);
}

PL_INLINE void keep_better(pl_lanes scale, pl_lanes error, pl_lanes *best, pl_lanes *least)
{
    *best = lanes_select(error < *least, scale, *best);
    *least = lanes_min(error, *least);
}

/* Scales for a d; *best = them where they are better. */
PL_INLINE void choose(const pl_k_block *block, k_type type, const k_fit *fit, float d, k_choice *best)
{
    k_choice choice = {.d = k_stored(block, d)};
    const float nearby[] = {0, -1, 1};
    pl_k_row errors;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH) {
        pl_lanes nearest = k_round(lanes_ratio(lanes_load(fit->step + at), lanes_set(choice.d)), type.lowest,
                                   type.highest);
        pl_lanes scales = {0}, least = lanes_set(INFINITY);
        for (int i = 0; i < 3; i++) {
            pl_lanes scale = k_round(nearest + nearby[i], type.lowest, type.highest);
            keep_better(scale, k_judge(block, at, choice.d * scale, lanes_set(0), type.codes), &scales, &least);
        }
        k_store(choice.scale + at, scales);
        k_store(errors + at, least);
    }
    choice.error = k_total(errors, type.codes);
    if (choice.error < best->error)
        *best = choice;
}

PL_INLINE k_choice choose_all(const pl_k_block *block, k_type type)
{
    k_choice best = {.error = INFINITY};
    k_fit fit;
    float extreme = 0;
    for (int at = 0; at < PL_K_LANES; at += PL_WIDTH)
        fit_groups(block, type, at, &fit);
    for (int l = 0; l < PL_K_LANES; l++)
        extreme = fabsf(fit.step[l]) > fabsf(extreme) ? fit.step[l] : extreme;
    const float ends[] = {type.lowest, type.highest};
    for (int i = 0; i < 2; i++) {
        float d = k_best_unit(block, fit.step, fit.weight, extreme, ends[i], ends[i] / 64, type.lowest, type.highest,
                              type.codes);
        choose(block, type, &fit, d, &best);
    }
    return best;
}

/* What a block stores, each integer still in a place of its own; codes and scales less the lowest. */
typedef struct k_integers {
    uint16_t d;
    uint8_t scale[16], code[PL_K_VALUES];
} k_integers;

PL_INLINE void encode_block(const float *src, const float *weight, k_type type, k_integers *out)
{
    const float most = PL_K_F16_MOST * type.lowest * type.codes.bottom;
    pl_k_block block;
    pl_k_row step, low = {0};
    if (!k_load_block(&block, src, weight, -most, most, type.codes)) {
        out->d = 0;
        memset(out->scale, (int)-type.lowest, sizeof out->scale);
        memset(out->code, (int)-type.codes.bottom, sizeof out->code);
        return;
    }
    k_choice best = choose_all(&block, type);
    for (int l = 0; l < PL_K_LANES; l++) {
        step[l] = best.d * best.scale[l];
        out->scale[l] = (uint8_t)(best.scale[l] - type.lowest);
    }
    out->d = k_stored_bits(&block, best.d);
    k_final_codes(&block, step, low, type.codes, out->code);
}

static void block_q3_k(const float *src, const float *weight, void *dst)
{
    const k_type type = {{-4, 3, false, false}, -32, 31, {1.4f, -0.32f, 8}};
    pl_block_q3_k b = {.d = 0};
    k_integers n;
    encode_block(src, weight, type, &n);
    b.d = n.d;
    for (int j = 0; j < 16; j++) { /* the other way round: pl_q3_k_scale() */
        b.s[j & 7] = (uint8_t)(b.s[j & 7] | (n.scale[j] & 15) << 4 * (j >> 3));
        b.s[8 + (j & 3)] = (uint8_t)(b.s[8 + (j & 3)] | n.scale[j] >> 4 << 2 * (j >> 2));
    }
    for (int i = 0; i < PL_K_VALUES; i++)
        b.h[i % 32] = (uint8_t)(b.h[i % 32] | n.code[i] >> 2 << i / 32);
    for (int l = 0; l < 64; l++) {
        const uint8_t *c = n.code + 128 * (l / 32) + l % 32;
        b.q[l] = (uint8_t)((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
    memcpy(dst, &b, sizeof b);
}

static void block_q6_k(const float *src, const float *weight, void *dst)
{
    const k_type type = {{-32, 31, false, false}, -128, 127, {0.9f, -0.5f, 12}};
    pl_block_q6_k b;
    k_integers n;
    encode_block(src, weight, type, &n);
    b.d = n.d;
    for (int j = 0; j < 16; j++)
        b.s[j] = (int8_t)(n.scale[j] - 128);
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            const uint8_t *c = n.code + 128 * half + l;
            b.ql[64 * half + l] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
            b.ql[64 * half + 32 + l] = (uint8_t)((c[32] & 15) | (c[96] & 15) << 4);
            b.qh[32 * half + l] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
        }
    memcpy(dst, &b, sizeof b);
}

void PL_ISA_NAME(pl_encode_k_scale)(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n)
{
    assert(type == PL_Q3_K || type == PL_Q6_K);
    void (*encode)(const float *, const float *, void *) = type == PL_Q3_K ? block_q3_k : block_q6_k;
    size_t bytes = pl_dtype_bytes(type, PL_K_VALUES);
    unsigned char *out = dst;
    for (int64_t i = 0; i + PL_K_VALUES <= n; i += PL_K_VALUES, out += bytes)
        encode(src + i, weight ? weight + i : NULL, out);
}
