#include "host/engine/repetition.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/engine/needles.h"
#include "host/ops/draw_math.h"

static const char *const default_breakers[] = {"\n", ":", "\"", "*"};

struct pl_repetition {
    int32_t vocab;
    int32_t *token; /* [2 * window]: the history, moved to the front when the end is reached */
    size_t n, window;

    double repeat, presence, frequency;
    size_t penalty_window;
    int32_t *count; /* [vocab]: occurrences in the penalty window */

    double multiplier, base;
    size_t allowed, dry_window;
    size_t since_break;                  /* tokens after the last one in which a breaker ended */
    int32_t *common;                     /* [dry_window]: see repeats() */
    int32_t *longest;                    /* [vocab]: of the repetitions that a token would extend; 0 between calls */
    pl_needles *breakers, *own_breakers; /* in the stream; in one token */
    pl_token_text_fn token_text;
    void *user;
};

static size_t window_of(int32_t last_n, int32_t capacity)
{
    return (size_t)(last_n < 0 || last_n > capacity ? capacity : last_n);
}

static pl_status create_dry(pl_repetition *r, const pl_sampling *params, pl_error *err)
{
    const char *const *breakers = params->dry_breakers;
    size_t n = params->n_dry_breakers;
    if (!breakers) {
        breakers = default_breakers;
        n = sizeof default_breakers / sizeof *default_breakers;
    }
    r->common = malloc(r->dry_window * sizeof *r->common);
    r->longest = calloc((size_t)r->vocab, sizeof *r->longest);
    if (!r->common || !r->longest)
        return pl_fail_memory(err, (r->dry_window + (size_t)r->vocab) * sizeof *r->common, "repetitions");
    PL_TRY(pl_needles_create(breakers, n, "dry_breakers", &r->breakers, err));
    return pl_needles_create(breakers, n, "dry_breakers", &r->own_breakers, err);
}

static pl_status create_buffers(pl_repetition *r, const pl_sampling *params, pl_error *err)
{
    r->window = r->penalty_window > r->dry_window ? r->penalty_window : r->dry_window;
    r->token = malloc((2 * r->window + 1) * sizeof *r->token);
    if (!r->token)
        return pl_fail_memory(err, (2 * r->window + 1) * sizeof *r->token, "repetitions");
    if (r->penalty_window) {
        r->count = calloc((size_t)r->vocab, sizeof *r->count);
        if (!r->count)
            return pl_fail_memory(err, (size_t)r->vocab * sizeof *r->count, "repetitions");
    }
    return r->dry_window ? create_dry(r, params, err) : PL_OK;
}

pl_status pl_repetition_create(const pl_sampling *params, int32_t vocab, int32_t capacity, pl_token_text_fn token_text,
                               void *user, pl_repetition **out, pl_error *err)
{
    pl_repetition *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, "repetitions");
    *r = (pl_repetition){
        .vocab = vocab,
        .repeat = params->repeat_penalty,
        .presence = params->presence_penalty,
        .frequency = params->frequency_penalty,
        .multiplier = params->dry_multiplier,
        .base = params->dry_base,
        .allowed = (size_t)params->dry_allowed_length,
        .token_text = token_text,
        .user = user,
    };
    if (r->repeat != 1.0 || r->presence != 0.0 || r->frequency != 0.0)
        r->penalty_window = window_of(params->penalty_last_n, capacity);
    if (r->multiplier != 0.0)
        r->dry_window = window_of(params->dry_last_n, capacity);
    assert(!r->dry_window || token_text);
    pl_status status = create_buffers(r, params, err);
    if (status != PL_OK) {
        pl_repetition_free(r);
        return status;
    }
    *out = r;
    return PL_OK;
}

void pl_repetition_free(pl_repetition *r)
{
    if (!r)
        return;
    free(r->token);
    free(r->count);
    free(r->common);
    free(r->longest);
    pl_needles_free(r->breakers);
    pl_needles_free(r->own_breakers);
    free(r);
}

void pl_repetition_reset(pl_repetition *r)
{
    r->n = 0;
    r->since_break = 0;
    if (r->count)
        memset(r->count, 0, (size_t)r->vocab * sizeof *r->count);
    if (r->breakers)
        pl_needles_reset(r->breakers);
}

static bool feed(pl_repetition *r, pl_needles *needles, int32_t token)
{
    size_t n = 0;
    const char *text = r->token_text(r->user, token, &n);
    bool found = false;
    for (size_t i = 0; i < n; i++)
        found |= pl_needles_feed(needles, text[i]) >= 0;
    return found;
}

void pl_repetition_accept(pl_repetition *r, int32_t token)
{
    assert(token >= 0 && token < r->vocab);
    if (!r->window)
        return;
    if (r->n == 2 * r->window) {
        memcpy(r->token, r->token + r->window, r->window * sizeof *r->token);
        r->n = r->window;
    }
    if (r->penalty_window) {
        if (r->n >= r->penalty_window)
            r->count[r->token[r->n - r->penalty_window]]--;
        r->count[token]++;
    }
    r->token[r->n++] = token;
    if (r->dry_window)
        r->since_break = feed(r, r->breakers, token) ? 0 : r->since_break + 1;
}

void pl_repetition_break(pl_repetition *r)
{
    r->since_break = 0;
    if (r->breakers)
        pl_needles_reset(r->breakers);
}

static float penalized(const pl_repetition *r, float x, int32_t count)
{
    return pl_penalized(x, count, r->repeat, r->presence, r->frequency);
}

void pl_repetition_penalize(pl_repetition *r, pl_candidates *c)
{
    if (!r->penalty_window || !r->n)
        return;
    float *x = pl_candidates_write(c);
    if (c->id) {
        for (size_t i = 0; i < c->n; i++)
            if (r->count[c->id[i]])
                x[i] = penalized(r, x[i], r->count[c->id[i]]);
        return;
    }
    size_t n = r->n < r->penalty_window ? r->n : r->penalty_window;
    const int32_t *last = r->token + r->n - n;
    for (size_t i = 0; i < n; i++) {
        int32_t *count = &r->count[last[i]];
        if (*count > 0) {
            x[last[i]] = penalized(r, x[last[i]], *count);
            *count = -*count; /* done */
        }
    }
    for (size_t i = 0; i < n; i++)
        if (r->count[last[i]] < 0)
            r->count[last[i]] = -r->count[last[i]];
}

/* ---- DRY --------------------------------------------------------------------------------------- */

/* common[k], 0 < k < n: how many of the last tokens also end k tokens before the end of the history.
 * The Z function of the history read backwards: linear in n. */
static void repeats(const int32_t *end, size_t n, int32_t *common)
{
    size_t from = 0, to = 0; /* of the furthest-reaching match: it began at `from` and ended before `to` */
    for (size_t k = 1; k < n; k++) {
        size_t z = 0;
        if (k < to) {
            size_t known = (size_t)common[k - from];
            z = known < to - k ? known : to - k;
        }
        while (k + z < n && end[-1 - (ptrdiff_t)z] == end[-1 - (ptrdiff_t)(k + z)])
            z++;
        common[k] = (int32_t)z;
        if (k + z > to) {
            from = k;
            to = k + z;
        }
    }
}

static double power(double base, size_t exponent)
{
    double result = 1.0;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1)
            result *= base;
    return result;
}

static float dried(pl_repetition *r, float x, int32_t token)
{
    if (x == -INFINITY)
        return x;
    pl_needles_reset(r->own_breakers);
    if (feed(r, r->own_breakers, token))
        return x;
    double v = x - r->multiplier * power(r->base, (size_t)r->longest[token] - r->allowed);
    return (float)(v < -FLT_MAX ? -FLT_MAX : v);
}

/* Fills r->longest for the tokens that would extend a repetition; false when there is none. */
static bool find_repetitions(pl_repetition *r, const int32_t *end, size_t n)
{
    size_t limit = r->since_break < n ? r->since_break : n;
    if (limit < r->allowed)
        return false;
    repeats(end, n, r->common);
    bool found = false;
    for (size_t k = 1; k < n; k++) {
        size_t length = (size_t)r->common[k] < limit ? (size_t)r->common[k] : limit;
        int32_t *longest = &r->longest[end[-(ptrdiff_t)k]];
        if (length >= r->allowed && (int32_t)length > *longest) {
            *longest = (int32_t)length;
            found = true;
        }
    }
    return found;
}

void pl_repetition_dry(pl_repetition *r, pl_candidates *c)
{
    size_t n = r->n < r->dry_window ? r->n : r->dry_window;
    const int32_t *end = r->token + r->n;
    if (!n || !find_repetitions(r, end, n))
        return;
    float *x = pl_candidates_write(c);
    if (c->id)
        for (size_t i = 0; i < c->n; i++)
            if (r->longest[c->id[i]])
                x[i] = dried(r, x[i], c->id[i]);
    for (size_t k = 1; k < n; k++) {
        int32_t token = end[-(ptrdiff_t)k];
        if (!c->id && r->longest[token])
            x[token] = dried(r, x[token], token);
        r->longest[token] = 0;
    }
}
