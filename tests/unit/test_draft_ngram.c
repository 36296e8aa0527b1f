#include "host/engine/draft_ngram.h"

#include "host/base/rng.h"

#include <criterion/criterion.h>

enum { MOST = 6 };

static int32_t find(const int32_t *tokens, int32_t n, int32_t *out)
{
    pl_ngrams *g = NULL;
    cr_assert_eq(pl_ngrams_create(n, &g, NULL), PL_OK);
    int32_t same = pl_ngrams_find(g, tokens, n, MOST, out);
    pl_ngrams_free(g);
    return same;
}

Test(draft_ngram, what_followed_the_longest_match_follows_again)
{
    static const int32_t tokens[] = {7, 1, 2, 3, 40, 41, 42, 43, 44, 45, 9, 2, 3, 50, 51, 8, 1, 2, 3};
    int32_t out[MOST];
    cr_assert_eq(find(tokens, 19, out), 3, "1 2 3 agrees, though 2 3 comes later");
    for (int i = 0; i < MOST; i++)
        cr_assert_eq(out[i], 40 + i);
}

Test(draft_ngram, of_equal_matches_the_latest_counts)
{
    static const int32_t tokens[] = {1, 2, 10, 1, 2, 20, 1, 2, 30, 9, 1, 2};
    int32_t out[MOST];
    cr_assert_eq(find(tokens, 12, out), 2);
    cr_assert_eq(out[0], 30);
}

Test(draft_ngram, a_loop_goes_on)
{
    static const int32_t tokens[] = {5, 6, 7, 5, 6, 7, 5};
    static const int32_t expected[MOST] = {6, 7, 5, 6, 7, 5};
    int32_t out[MOST];
    cr_assert_eq(find(tokens, 7, out), 4);
    cr_assert_arr_eq(out, expected, sizeof out);
}

Test(draft_ngram, nothing_is_found_where_nothing_repeats)
{
    static const int32_t tokens[] = {1, 2, 3, 4, 2, 1, 9, 3};
    int32_t out[MOST];
    for (int32_t n = 0; n <= 8; n++)
        cr_assert_eq(find(tokens, n > 0 ? n : 1, out), 0, "%d tokens", n);
}

/* Tokens before `place` that agree with the text's last ones. */
static int32_t agreeing(const int32_t *tokens, int32_t n, int32_t place)
{
    int32_t same = 0;
    while (same < PL_NGRAM_MOST && same < place && tokens[place - 1 - same] == tokens[n - 1 - same])
        same++;
    return same;
}

static void check(const int32_t *tokens, int32_t n, int32_t same, const int32_t *out)
{
    int32_t best = 0, first = -1;
    for (int32_t place = 1; place < n; place++) {
        int32_t length = agreeing(tokens, n, place);
        if (length >= best && length >= PL_NGRAM_LEAST) {
            best = length;
            first = tokens[place];
        }
    }
    cr_assert_eq(same, best, "%d tokens: %d agree, expected %d", n, same, best);
    if (same > 0)
        cr_assert_eq(out[0], first, "%d tokens", n);
}

/* Short enough for every place to be looked at; and the text grows under the index. */
Test(draft_ngram, is_what_a_search_of_the_whole_text_finds)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    int found = 0;
    for (int round = 0; round < 300; round++) {
        int32_t tokens[64], out[MOST];
        int alphabet = 3 + round % 6;
        pl_ngrams *g = NULL;
        cr_assert_eq(pl_ngrams_create(64, &g, NULL), PL_OK);
        for (int32_t n = 0; n < 64;) {
            int more = 1 + (int)(pl_rng_next(&rng) % 5);
            for (; more > 0 && n < 64; more--)
                tokens[n++] = (int32_t)(pl_rng_next(&rng) % (uint64_t)alphabet);
            int32_t same = pl_ngrams_find(g, tokens, n, MOST, out);
            check(tokens, n, same, out);
            found += same > 0;
        }
        pl_ngrams_free(g);
    }
    cr_assert_gt(found, 1000);
}
