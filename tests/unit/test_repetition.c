#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/engine/repetition.h"
#include "host/engine/sampler.h"

#define VOCAB 128

/* Token 32 and up: the character; below: words that hold several. */
static const char *const words[32] = {[1] = "no:", [2] = "x\n\n", [3] = "<!", [4] = "--", [5] = "-- b"};

static const char *token_text(void *user, int32_t id, size_t *n)
{
    static char one[1];
    (void)user;
    if (id < 32) {
        *n = words[id] ? strlen(words[id]) : 0;
        return words[id];
    }
    one[0] = (char)id;
    *n = 1;
    return one;
}

typedef struct fixture {
    pl_repetition *r;
    pl_candidates c;
    float x[VOCAB];
} fixture;

static void start(fixture *f, const pl_sampling *params, const char *history)
{
    cr_assert_eq(pl_sampling_check(params, VOCAB, NULL), PL_OK);
    cr_assert_eq(pl_repetition_create(params, VOCAB, 1000, token_text, NULL, &f->r, NULL), PL_OK);
    cr_assert_eq(pl_candidates_init(&f->c, VOCAB, NULL), PL_OK);
    for (int i = 0; i < VOCAB; i++)
        f->x[i] = i % 2 ? 6.0f : -6.0f;
    for (; *history; history++)
        pl_repetition_accept(f->r, *history);
    pl_candidates_start(&f->c, f->x);
}

static float dried(const char *before, bool broken, const char *after, int32_t token)
{
    fixture f;
    pl_sampling p = pl_sampling_default();
    p.dry_multiplier = 1;
    start(&f, &p, before);
    if (broken)
        pl_repetition_break(f.r);
    for (; *after; after++)
        pl_repetition_accept(f.r, *after);
    pl_repetition_dry(f.r, &f.c);
    float x = pl_candidates_write(&f.c)[token];
    pl_repetition_free(f.r);
    pl_candidates_free(&f.c);
    return x;
}

/* An image between the same tokens ends a repetition, and what stands behind it can be one again. */
Test(repetition, broken)
{
    cr_expect_lt(dried("abcdab", false, "c", 'd'), -6);
    cr_expect_eq(dried("abcdab", true, "c", 'd'), -6);
    cr_expect_lt(dried("abcd", true, "abc", 'd'), -6);
}

static void finish(fixture *f)
{
    pl_repetition_free(f->r);
    pl_candidates_free(&f->c);
}

static pl_sampling dry(float multiplier, float base, int32_t allowed)
{
    pl_sampling p = pl_sampling_default();
    p.dry_multiplier = multiplier;
    p.dry_base = base;
    p.dry_allowed_length = allowed;
    return p;
}

/* pairs: n numbers: token, penalty, token, penalty, ...; every other token has none. */
static void expect_dry(const pl_sampling *params, const char *history, const double *pairs, size_t n)
{
    fixture f;
    double expected[VOCAB] = {0};
    for (size_t i = 0; i + 1 < n; i += 2)
        expected[(int)pairs[i]] = pairs[i + 1];
    start(&f, params, history);
    for (int twice = 0; twice < 2; twice++) { /* it leaves nothing behind */
        pl_candidates_start(&f.c, f.x);
        pl_repetition_dry(f.r, &f.c);
        for (int i = 0; i < VOCAB; i++)
            cr_assert_eq(f.c.x[i], (float)(f.x[i] - expected[i]), "\"%s\": token %d '%c': %g, expected %g", history, i,
                         i, (double)(f.x[i] - f.c.x[i]), expected[i]);
    }
    finish(&f);
}

#define EXPECT_DRY(params, history, ...)                                                                               \
    expect_dry(params, history, (double[]){__VA_ARGS__}, sizeof((double[]){__VA_ARGS__}) / sizeof(double))
#define EXPECT_NO_DRY(params, history) expect_dry(params, history, NULL, 0)

/* ---- penalties --------------------------------------------------------------------------------- */

Test(penalties, each_by_hand)
{
    pl_sampling p = pl_sampling_default();
    p.repeat_penalty = 2.0f;
    p.presence_penalty = 0.5f;
    p.frequency_penalty = 0.25f;
    fixture f;
    start(&f, &p, "bcbb");
    pl_repetition_penalize(f.r, &f.c);
    for (int i = 0; i < VOCAB; i++) {
        float expected = i == 'b' ? -6.0f * 2.0f - 0.5f - 3 * 0.25f : i == 'c' ? 6.0f / 2.0f - 0.5f - 0.25f : f.x[i];
        cr_assert_eq(f.c.x[i], expected, "%d", i);
    }
    finish(&f);
}

Test(penalties, zero_logits_and_bans)
{
    pl_sampling p = pl_sampling_default();
    p.repeat_penalty = 2.0f;
    p.presence_penalty = -INFINITY;
    cr_assert_eq(pl_sampling_check(&p, VOCAB, NULL), PL_ERR_ARGUMENT);
    p.presence_penalty = -FLT_MAX;
    fixture f;
    start(&f, &p, "abc");
    f.x['a'] = -INFINITY;
    f.x['b'] = FLT_MAX;
    f.x['c'] = 0.0f;
    pl_repetition_penalize(f.r, &f.c);
    cr_assert_eq(f.c.x['a'], -INFINITY, "a ban stays one");
    cr_assert_eq(f.c.x['b'], FLT_MAX, "no infinity appears");
    cr_assert_eq(f.c.x['c'], FLT_MAX);
    finish(&f);
}

Test(penalties, the_same_on_thinned_candidates)
{
    pl_sampling p = pl_sampling_default();
    p.repeat_penalty = 1.5f;
    p.frequency_penalty = 1.0f;
    fixture f;
    start(&f, &p, "aab");
    pl_candidates_top_k(&f.c, VOCAB / 2); /* the odd ids */
    pl_repetition_penalize(f.r, &f.c);
    cr_assert_eq(f.c.n, VOCAB / 2);
    for (size_t i = 0; i < f.c.n; i++)
        cr_assert_eq(f.c.x[i], f.c.id[i] == 'a' ? 6.0f / 1.5f - 2.0f : 6.0f);
    finish(&f);
}

Test(penalties, window)
{
    static const struct {
        int32_t last_n;
        const char *history;
        int a, b;
    } cases[] = {
        {0, "aab", 0, 0},         {1, "aab", 0, 1},           {2, "aab", 1, 1},   {3, "aab", 2, 1},
        {4, "aab", 2, 1},         {-1, "aab", 2, 1},          {2, "aabcc", 0, 0}, {3, "aabcc", 0, 1},
        {2, "abababababb", 0, 2}, {3, "bbbbaaabaabba", 1, 2}, {1, "ba", 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pl_sampling p = pl_sampling_default();
        p.frequency_penalty = 1.0f;
        p.penalty_last_n = cases[i].last_n;
        fixture f;
        start(&f, &p, cases[i].history);
        pl_repetition_penalize(f.r, &f.c);
        cr_assert_eq(f.x['a'] - f.c.x['a'], (float)cases[i].a, "case %zu: a", i);
        cr_assert_eq(f.x['b'] - f.c.x['b'], (float)cases[i].b, "case %zu: b", i);
        finish(&f);
    }
}

Test(penalties, all_means_the_capacity)
{
    pl_sampling p = pl_sampling_default();
    p.frequency_penalty = 1.0f;
    p.penalty_last_n = -1;
    fixture f;
    start(&f, &p, "");
    for (int i = 0; i < 5000; i++) {
        pl_repetition_accept(f.r, i % 3 ? 'b' : 'a');
        if (i % 257)
            continue;
        int n = i + 1 < 1000 ? i + 1 : 1000, a = 0;
        for (int j = i - n + 1; j <= i; j++)
            a += j % 3 == 0;
        pl_candidates_start(&f.c, f.x);
        pl_repetition_penalize(f.r, &f.c);
        cr_assert_eq(f.x['a'] - f.c.x['a'], (float)a);
        cr_assert_eq(f.x['b'] - f.c.x['b'], (float)(n - a));
    }
    pl_repetition_reset(f.r);
    pl_candidates_start(&f.c, f.x);
    pl_repetition_penalize(f.r, &f.c);
    cr_assert_eq(memcmp(f.c.x, f.x, sizeof f.x), 0);
    finish(&f);
}

/* ---- DRY --------------------------------------------------------------------------------------- */

Test(dry, by_hand)
{
    pl_sampling one = dry(1.0f, 2.0f, 1), two = dry(0.5f, 2.0f, 2), four = dry(1.0f, 2.0f, 4), off = dry(0.0f, 2.0f, 1);
    EXPECT_NO_DRY(&one, "");
    EXPECT_NO_DRY(&one, "a");
    EXPECT_NO_DRY(&one, "abc");
    EXPECT_DRY(&one, "abca", 'b', 1.0);
    /* a b c was followed by c, b c by y, and c by b. */
    EXPECT_DRY(&one, "abccbcyabc", 'c', 4.0, 'b', 1.0, 'y', 2.0);
    EXPECT_DRY(&two, "abccbcyabc", 'c', 1.0, 'y', 0.5);
    EXPECT_NO_DRY(&four, "abccbcyabc");
    EXPECT_NO_DRY(&off, "abccbcyabc");
}

Test(dry, the_longest_repetition_counts)
{
    pl_sampling p = dry(1.0f, 3.0f, 2);
    EXPECT_DRY(&p, "abz.ab", 'z', 1.0);
    EXPECT_DRY(&p, "abz,cabz.cab", 'z', 3.0);
    EXPECT_DRY(&p, "cabz.abz.cab", 'z', 3.0);
}

Test(dry, overlapping_repetitions)
{
    pl_sampling p = dry(1.0f, 2.0f, 2);
    EXPECT_DRY(&p, "aaaaa", 'a', 4.0);     /* aaaa, one token earlier */
    EXPECT_DRY(&p, "abababab", 'a', 16.0); /* ababab, two tokens earlier */
    EXPECT_DRY(&p, "aabaabaa", 'b', 8.0);
}

Test(dry, window)
{
    pl_sampling p = dry(1.0f, 2.0f, 2);
    p.dry_last_n = 6;
    EXPECT_DRY(&p, "abzcab", 'z', 1.0);
    EXPECT_NO_DRY(&p, "abzccab"); /* of the first pair only b is seen */
    p.dry_last_n = 0;
    EXPECT_NO_DRY(&p, "abzcab");
    p.dry_last_n = -1;
    EXPECT_DRY(&p, "abz0123456789ab", 'z', 1.0);
}

Test(dry, breakers)
{
    pl_sampling p = dry(1.0f, 2.0f, 1);
    EXPECT_DRY(&p, "ab:cd.ab:c", 'd', 1.0); /* not a b : c */
    EXPECT_NO_DRY(&p, "ab:cd.ab:");         /* nothing since the breaker */
    EXPECT_NO_DRY(&p, "ab:cd.ab");          /* would go on with the breaker itself */
    EXPECT_NO_DRY(&p, "ab\001cd.ab");       /* "no:" holds a breaker */
    EXPECT_DRY(&p, "cabd\001cab", 'd', 4.0);
    EXPECT_DRY(&p, "cd\002cab\002c", 'd', 1.0, 'a', 1.0);

    const char *const own[] = {"d", "<!-- b"};
    p.dry_breakers = own;
    p.n_dry_breakers = 2;
    EXPECT_DRY(&p, "xy:xy:", 'x', 4.0); /* a colon is none any more */
    EXPECT_DRY(&p, "axyz.dxy", 'z', 2.0);
    EXPECT_DRY(&p, "qcab.\003\004 bab", '.', 2.0, 'a', 1.0); /* in the tokens "<!", "--", " ", "b" ends a breaker */
    EXPECT_DRY(&p, "qcab.\003\004 ab", '.', 2.0);
    EXPECT_DRY(&p, "xcab.\003\005xcab", '.', 8.0);
    EXPECT_NO_DRY(&p, "\003\005e.\003\005");
    EXPECT_DRY(&p, "-\005e.\003-\005", 'e', 2.0); /* "<!--- b" is not it */

    p.n_dry_breakers = 0;
    EXPECT_DRY(&p, "a:cb.a:c", 'b', 4.0);
}

Test(dry, huge_penalties_stay_finite_and_bans_stay)
{
    pl_sampling p = dry(FLT_MAX, FLT_MAX, 1);
    char history[901];
    memset(history, 'a', 900);
    history[900] = 0;
    fixture f;
    start(&f, &p, history);
    pl_repetition_dry(f.r, &f.c);
    cr_assert_eq(f.c.x['a'], -FLT_MAX);
    cr_assert_eq(f.c.x['b'], f.x['b']);
    f.x['a'] = -INFINITY;
    pl_candidates_start(&f.c, f.x);
    pl_repetition_dry(f.r, &f.c);
    cr_assert_eq(f.c.x['a'], -INFINITY);
    finish(&f);
}

Test(dry, the_same_on_thinned_candidates)
{
    pl_sampling p = dry(1.0f, 2.0f, 1);
    fixture f;
    start(&f, &p, "abccbcyabc");
    for (int twice = 0; twice < 2; twice++) {
        pl_candidates_start(&f.c, f.x);
        pl_candidates_top_k(&f.c, VOCAB / 2); /* the odd ids: c and y, not b */
        pl_repetition_dry(f.r, &f.c);
        for (size_t i = 0; i < f.c.n; i++)
            cr_assert_eq(f.c.x[i], f.c.id[i] == 'c' ? 2.0f : f.c.id[i] == 'y' ? 4.0f : 6.0f);
    }
    finish(&f);
}

/* ---- against the plain way --------------------------------------------------------------------- */

static const char *const breakers[] = {"c", "ab:", "o:b", "-- b:"};

static bool ends_with_breaker(const char *text, size_t n, const char *breaker)
{
    size_t m = strlen(breaker);
    return m <= n && memcmp(text + n - m, breaker, m) == 0;
}

/* Tokens since the last in which a breaker ends. */
static size_t since_break(const int32_t *token, size_t n)
{
    static char text[10000];
    size_t length = 0, since = 0;
    for (size_t i = 0; i < n; i++) {
        size_t m = 0;
        const char *t = token_text(NULL, token[i], &m);
        since++;
        for (size_t j = 0; j < m; j++) {
            text[length++] = t[j];
            for (size_t b = 0; b < 4; b++)
                if (ends_with_breaker(text, length, breakers[b]))
                    since = 0;
        }
    }
    return since;
}

static bool breaks_alone(int32_t token)
{
    return since_break(&token, 1) == 0;
}

static size_t plain_length(const int32_t *token, size_t n, size_t limit, int32_t next)
{
    size_t longest = 0;
    for (size_t at = 1; at < n; at++) { /* token[at] is next: what precedes it, what precedes the end */
        if (token[at] != next)
            continue;
        size_t m = 0;
        while (m < limit && m < at && token[at - 1 - m] == token[n - 1 - m])
            m++;
        longest = m > longest ? m : longest;
    }
    return longest;
}

Test(dry, equals_the_plain_way)
{
    static const int32_t alphabet[] = {'a', 'b', 'c', ':', 'o', 1, 4, ' '};
    uint64_t state = 7;
    for (int round = 0; round < 400; round++) {
        pl_sampling p = dry(1.0f, 1.5f, 1 + round % 3);
        p.dry_breakers = breakers;
        p.n_dry_breakers = 4;
        p.dry_last_n = round % 2 ? -1 : 5 + round % 60;
        int32_t token[400];
        size_t n = 1 + (size_t)round, kinds = 2 + (size_t)round % 7;
        fixture f;
        start(&f, &p, "");
        for (size_t i = 0; i < n; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            token[i] = alphabet[(state >> 33) % kinds];
            pl_repetition_accept(f.r, token[i]);
        }
        size_t window = p.dry_last_n < 0 || (size_t)p.dry_last_n > n ? n : (size_t)p.dry_last_n;
        size_t limit = since_break(token, n), allowed = (size_t)p.dry_allowed_length;
        pl_repetition_dry(f.r, &f.c);
        for (int32_t i = 0; i < VOCAB; i++) {
            size_t length = plain_length(token + n - window, window, limit, i);
            double expected = length < allowed || breaks_alone(i) ? 0.0 : pow(1.5, (double)(length - allowed));
            double actual = (double)f.x[i] - f.c.x[i];
            cr_assert(fabs(actual - expected) <= 1e-6 * (10.0 + expected), "round %d, token %d: %g, expected %g", round,
                      i, actual, expected);
        }
        finish(&f);
    }
}
