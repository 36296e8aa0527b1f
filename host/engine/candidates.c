#include "host/engine/candidates.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/engine/softmax.h"
#include "host/ops/draw_math.h"

#define LEAST_KEYS 1024

pl_status pl_candidates_init(pl_candidates *c, int32_t vocab, pl_error *err)
{
    size_t n = (size_t)vocab;
    *c = (pl_candidates){.vocab = n};
    c->own_x = malloc(n * sizeof *c->own_x);
    c->own_id = malloc(n * sizeof *c->own_id);
    c->p = malloc(n * sizeof *c->p);
    c->key = malloc(n * sizeof *c->key);
    c->kept = calloc(n / 64 + 1, sizeof *c->kept);
    c->part = malloc((n / PL_DRAW_PART + 1) * sizeof *c->part);
    if (!c->own_x || !c->own_id || !c->p || !c->key || !c->kept || !c->part) {
        pl_candidates_free(c);
        return pl_fail_memory(err, 20 * n, "sampling");
    }
    return PL_OK;
}

void pl_candidates_free(pl_candidates *c)
{
    free(c->own_x);
    free(c->own_id);
    free(c->p);
    free(c->key);
    free(c->kept);
    free(c->part);
    *c = (pl_candidates){0};
}

void pl_candidates_start(pl_candidates *c, const float *logits)
{
    c->x = logits;
    c->id = NULL;
    c->n = c->vocab;
}

float *pl_candidates_write(pl_candidates *c)
{
    if (c->x != c->own_x)
        memcpy(c->own_x, c->x, c->n * sizeof *c->x);
    c->x = c->own_x;
    return c->own_x;
}

/* ---- keys (pl_make_key) of the candidates ------------------------------------------------------ */

/* The middle of the values of key[0..n), n > 1: above the least, not above the largest. */
static uint64_t middle(const uint64_t *key, size_t n)
{
    uint64_t least = key[0], largest = key[0];
    for (size_t i = 1; i < n; i++) {
        least = key[i] < least ? key[i] : least;
        largest = key[i] > largest ? key[i] : largest;
    }
    return least + (largest - least) / 2 + 1;
}

/* Moves the keys >= pivot to the front; returns how many they are. */
static size_t partition(uint64_t *key, size_t n, uint64_t pivot)
{
    size_t front = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t k = key[i];
        key[i] = key[front];
        key[front] = k;
        front += k >= pivot;
    }
    return front;
}

/* term NULL: 1 each */
static uint64_t weigh(const uint64_t *key, size_t n, const float *term)
{
    if (!term)
        return n;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += pl_mass(term[pl_key_index(key[i])]);
    return sum;
}

/* Moves the fewest best keys that weigh `need` or more to the front, in no order; returns how many they are: all n
 * where they weigh less. Each round halves the range of values, so there are at most 64, whatever the values; n > 0. */
static size_t select_best(uint64_t *key, size_t n, const float *term, uint64_t need)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t mid = low + partition(key + low, high - low, middle(key + low, high - low));
        uint64_t sum = weigh(key + low, mid - low, term);
        if (sum >= need) {
            high = mid;
        } else {
            need -= sum;
            low = mid;
        }
    }
    return high;
}

/* Keeps the candidates that key[0..n) names, in order of id. */
static void keep(pl_candidates *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = pl_key_index(c->key[i]);
        c->kept[at / 64] |= (uint64_t)1 << at % 64;
    }
    size_t out = 0;
    for (size_t word = 0; word <= (c->n - 1) / 64; word++) {
        uint64_t bits = c->kept[word];
        c->kept[word] = 0;
        for (; bits; bits &= bits - 1) {
            size_t at = word * 64 + (size_t)__builtin_ctzll(bits);
            c->own_x[out] = c->x[at];
            c->own_id[out++] = c->id ? c->id[at] : (int32_t)at;
        }
    }
    c->x = c->own_x;
    c->id = c->own_id;
    c->n = out;
}

void pl_candidates_mask(pl_candidates *c, const uint32_t *mask)
{
    size_t last = c->n - 1;
    for (size_t i = 0; i <= last / 32; i++)
        c->kept[i / 2] |= (uint64_t)mask[i] << i % 2 * 32;
    c->kept[last / 64] &= ~(uint64_t)0 >> (63 - last % 64);
    keep(c, 0);
}

/* Keys, by logit, of the candidates with value[i] >= low. */
static size_t collect(pl_candidates *c, const float *value, float low)
{
    size_t n = 0;
    for (size_t i = pl_find_from(value, 0, c->n, low); i < c->n; i = pl_find_from(value, i + 1, c->n, low))
        c->key[n++] = pl_make_key(pl_rank_of(c->x[i]), (uint32_t)i);
    return n;
}

/* ---- steps ------------------------------------------------------------------------------------- */

/* The least value among the best k of n keys, which become the first. */
static float shrink(uint64_t *key, size_t n, size_t k)
{
    select_best(key, n, NULL, k);
    uint64_t least = key[0];
    for (size_t i = 1; i < k; i++)
        least = key[i] < least ? key[i] : least;
    return pl_rank_value((uint32_t)(least >> 32));
}

void pl_candidates_top_k(pl_candidates *c, size_t k)
{
    if (k >= c->n)
        return;
    size_t room = k < c->n / 2 ? 2 * k : c->n;
    if (room < LEAST_KEYS)
        room = c->n < LEAST_KEYS ? c->n : LEAST_KEYS;
    float low = -FLT_MAX;
    size_t n = 0;
    for (size_t i = pl_find_from(c->x, 0, c->n, low); i < c->n; i = pl_find_from(c->x, i + 1, c->n, low)) {
        c->key[n++] = pl_make_key(pl_rank_of(c->x[i]), (uint32_t)i);
        if (n == room && n > k) {
            /* k candidates of lower id are at least as good as one with this logit */
            low = nextafterf(shrink(c->key, n, k), INFINITY);
            n = k;
        }
    }
    if (n > k)
        n = select_best(c->key, n, NULL, k);
    if (n)
        keep(c, n);
}

void pl_candidates_top_p(pl_candidates *c, double top_p)
{
    float best = pl_max(c->x, c->n);
    if (top_p >= 1.0 || best == -INFINITY)
        return;
    uint64_t total = pl_exp_mass(c->x, c->n, best, c->p), need = pl_mass_share(top_p, total);
    /* What may go is 2 `spare` for each candidate: those below `spare` go for certain, even where neighbours' terms are
     * not in the order of their logits to the last bit. Terms below half a unit have no mass. */
    double spare = 0.5 * PL_MASS_UNIT * (double)((total - need) / c->n), least = 0.5 * PL_MASS_UNIT;
    size_t n = collect(c, c->p, (float)(spare > least ? spare : least));
    keep(c, select_best(c->key, n, c->p, need));
}

void pl_candidates_min_p(pl_candidates *c, double min_p)
{
    float best = pl_max(c->x, c->n);
    if (best == -INFINITY)
        return;
    keep(c, collect(c, c->x, pl_least_logit(best, pl_log(min_p))));
}

void pl_candidates_typical(pl_candidates *c, double typical_p)
{
    float best = pl_max(c->x, c->n);
    if (typical_p >= 1.0 || best == -INFINITY)
        return;
    double sum = pl_exp_sum(c->x, c->n, best, c->p), mean = 0.0;
    for (size_t i = 0; i < c->n; i++)
        if (c->p[i] > 0.0f)
            mean += c->p[i] * (double)(c->x[i] - best);
    /* surprise - entropy = (log(sum) - (x - best)) - (log(sum) - mean / sum) */
    mean /= sum;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        if (c->p[i] > 0.0f)
            c->key[n++] = pl_make_key(pl_rank_of(-(float)fabs(mean - (double)(c->x[i] - best))), (uint32_t)i);
    keep(c, select_best(c->key, n, c->p, pl_mass_share(typical_p, weigh(c->key, n, c->p))));
}

void pl_candidates_temperature(pl_candidates *c, float temperature)
{
    float *x = pl_candidates_write(c);
    for (size_t i = 0; i < c->n; i++)
        x[i] = pl_cooled(x[i], temperature);
}

int32_t pl_candidates_best(const pl_candidates *c)
{
    float best = pl_max(c->x, c->n);
    if (best == -INFINITY)
        return -1;
    size_t i = pl_find_from(c->x, 0, c->n, best);
    return c->id ? c->id[i] : (int32_t)i;
}

int32_t pl_candidates_draw(pl_candidates *c, double u)
{
    float best = pl_max(c->x, c->n);
    if (best == -INFINITY)
        return -1;
    uint64_t total = 0;
    for (size_t i = 0; i < c->n; i += PL_DRAW_PART) {
        size_t n = c->n - i < PL_DRAW_PART ? c->n - i : PL_DRAW_PART;
        c->part[i / PL_DRAW_PART] = pl_exp_mass(c->x + i, n, best, c->p + i);
        total += c->part[i / PL_DRAW_PART];
    }
    uint64_t left = pl_mass_point(u, total);
    size_t i = 0;
    for (; c->part[i / PL_DRAW_PART] <= left; i += PL_DRAW_PART)
        left -= c->part[i / PL_DRAW_PART];
    for (; pl_mass(c->p[i]) <= left; i++)
        left -= pl_mass(c->p[i]);
    return c->id ? c->id[i] : (int32_t)i;
}
