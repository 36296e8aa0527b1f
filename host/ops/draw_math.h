/* The arithmetic of choosing a token, for the host's sampler (host/engine/sampler.h) and for the card's (host/ops/draw.h):
 * the same bits on both. A banned token's logit is -INFINITY; all others are finite. */
#ifndef PL_OPS_DRAW_MATH_H
#define PL_OPS_DRAW_MATH_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "host/base/both.h"

/* ---- changes of a logit ------------------------------------------------------------------------- */

PL_BOTH float pl_biased(float x, float bias)
{
    float v = x + bias;
    return v < FLT_MAX ? v : FLT_MAX;
}

/* See host/engine/repetition.h; count: how often the token occurs, 1 or more. */
PL_BOTH float pl_penalized(float x, int32_t count, double repeat, double presence, double frequency)
{
    double v = x > 0.0f ? x / repeat : pl_mul_double(x, repeat);
    v = pl_add_double(pl_add_double(v, -presence), -pl_mul_double(count, frequency));
    v = v < -FLT_MAX ? -FLT_MAX : v > FLT_MAX ? FLT_MAX : v;
    return x == -INFINITY ? x : (float)v;
}

PL_BOTH float pl_cooled(float x, float temperature)
{
    float v = x / temperature;
    v = v > FLT_MAX ? FLT_MAX : v < -FLT_MAX ? -FLT_MAX : v;
    return x == -INFINITY ? x : v;
}

/* ---- which is better ----------------------------------------------------------------------------- */

/* Rises with x; the same for both zeros. */
PL_BOTH uint32_t pl_rank_of(float x)
{
    float v = x + 0.0f;
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

#define PL_RANK_BANNED 0x007fffffu  /* of -INFINITY; of those that are not banned: more */
#define PL_RANK_HIGHEST 0xff7fffffu /* of FLT_MAX */

PL_BOTH float pl_rank_value(uint32_t rank)
{
    uint32_t bits = rank >> 31 ? rank & 0x7fffffffu : ~rank;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Larger is better; unique: where logits are equal the lower index (or id) has the larger key. */
PL_BOTH uint64_t pl_make_key(uint32_t rank, uint32_t i)
{
    return (uint64_t)rank << 32 | ~i;
}

PL_BOTH uint32_t pl_key_index(uint64_t key)
{
    return ~(uint32_t)key;
}

/* Min-p: the least logit that stays. log_min_p: of pl_log(). */
PL_BOTH float pl_least_logit(float best, double log_min_p)
{
    float low = (float)(best + log_min_p);
    return low < -FLT_MAX ? -FLT_MAX : low;
}

/* ---- probabilities ------------------------------------------------------------------------------- */

/* x or 0; without a branch, so that compilers make vectors of loops around it. */
PL_BOTH float pl_float_if(int condition, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= -(uint32_t)condition;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* e^x for x <= 0: x = k ln 2 + r with |r| <= ln(2) / 2, the Taylor series of e^r to r^7 (what it leaves out is under
 * 6e-9), times 2^k. numerics: within 2^-22 of its value, relatively; 0 from -87 down. */
PL_BOTH float pl_exp_negative(float x)
{
    const float round = 12582912.0f;                                /* 1.5 * 2^23: adding it drops the fraction */
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f; /* the first has 9 bits: k times it is exact */
    float y = pl_float_if(x > -87.0f, x);
    float k = pl_add(pl_add(pl_mul(y, 1.44269504f), round), -round);
    float r = pl_add(pl_add(y, -pl_mul(k, ln2_high)), -pl_mul(k, ln2_low));
    float s = 1.0f / 5040.0f;
    s = pl_add(pl_mul(s, r), 1.0f / 720.0f);
    s = pl_add(pl_mul(s, r), 1.0f / 120.0f);
    s = pl_add(pl_mul(s, r), 1.0f / 24.0f);
    s = pl_add(pl_mul(s, r), 1.0f / 6.0f);
    s = pl_add(pl_mul(s, r), 0.5f);
    s = pl_add(pl_mul(s, r), 1.0f);
    s = pl_add(pl_mul(s, r), 1.0f);
    int32_t bits = ((int32_t)k + 127) * (1 << 23);
    float power;
    memcpy(&power, &bits, sizeof power);
    return pl_float_if(x > -87.0f, pl_mul(s, power));
}

/* Shares are measured in whole numbers, so that a sum does not depend on its order: a term of the softmax, 0 to 1, is
 * the multiple of 2^-39 nearest to it (ties to even). 2^24 of them sum to 2^63. numerics: half a unit is 2^-40 of the
 * best token's weight; over 2^18 tokens that is at most 2^-22 of the sum, as much as the terms are off by themselves. */
#define PL_MASS_UNIT 0x1p-39
#define PL_MASS_ROUND 12288.0 /* 1.5 * 2^52 units: adding it leaves the units in the low bits */

PL_BOTH uint64_t pl_mass_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

PL_BOTH uint64_t pl_mass(float term)
{
    return pl_mass_bits(term + PL_MASS_ROUND) - pl_mass_bits(PL_MASS_ROUND);
}

/* The mass that is `share` of `total` or more, 1 to total; 0 < share, total > 0. */
PL_BOTH uint64_t pl_mass_share(double share, uint64_t total)
{
    double exact = pl_mul_double(share, (double)total);
    if (!(exact < (double)total))
        return total;
    uint64_t whole = (uint64_t)exact;
    whole += (double)whole < exact;
    return whole < total ? whole : total;
}

/* Where u in [0, 1) falls: the chosen token is the first, in order of id, with which the sum is more. */
PL_BOTH uint64_t pl_mass_point(double u, uint64_t total)
{
    uint64_t point = (uint64_t)pl_mul_double(u, (double)total);
    return point < total ? point : total - 1;
}

#endif
