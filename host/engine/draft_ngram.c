#include "host/engine/draft_ngram.h"

#include <assert.h>
#include <stdlib.h>

#define LOOKS 24 /* places compared at most */

struct pl_ngrams {
    int32_t *latest; /* [mask + 1] the last place with such tokens before it; 0: none */
    int32_t *before; /* [room] the place before this one in its chain */
    uint32_t mask;
    int32_t room, indexed; /* places below `indexed` are in chains */
};

pl_status pl_ngrams_create(int32_t room, pl_ngrams **out, pl_error *err)
{
    pl_ngrams *g = calloc(1, sizeof *g);
    if (!g)
        return pl_fail_memory(err, sizeof *g, "drafts");
    g->room = room;
    g->indexed = PL_NGRAM_LEAST;
    while ((int64_t)g->mask + 1 < room)
        g->mask = 2 * g->mask + 1;
    g->latest = calloc((size_t)g->mask + 1, sizeof *g->latest);
    g->before = malloc((size_t)room * sizeof *g->before);
    if (!g->latest || !g->before) {
        pl_ngrams_free(g);
        return pl_fail_memory(err, (size_t)room * sizeof *g->before, "drafts");
    }
    *out = g;
    return PL_OK;
}

void pl_ngrams_free(pl_ngrams *g)
{
    if (!g)
        return;
    free(g->latest);
    free(g->before);
    free(g);
}

/* The chain of a place, by the two tokens before it. */
static int32_t *chain_of(const pl_ngrams *g, const int32_t *place)
{
    uint32_t h = (uint32_t)place[-1] * 0x9e3779b1u ^ (uint32_t)place[-2] * 0x85ebca6bu;
    return &g->latest[(h ^ h >> 15) & g->mask];
}

static void add_until(pl_ngrams *g, const int32_t *tokens, int32_t n)
{
    assert(n <= g->room);
    for (; g->indexed < n; g->indexed++) {
        int32_t *latest = chain_of(g, tokens + g->indexed);
        g->before[g->indexed] = *latest;
        *latest = g->indexed;
    }
}

/* How many tokens before place agree with those before the end. */
static int32_t agreeing(const int32_t *tokens, int32_t n, int32_t place)
{
    int32_t same = 0;
    while (same < PL_NGRAM_MOST && same < place && tokens[place - 1 - same] == tokens[n - 1 - same])
        same++;
    return same;
}

int32_t pl_ngrams_find(pl_ngrams *g, const int32_t *tokens, int32_t n, int32_t most, int32_t *out)
{
    if (n < PL_NGRAM_LEAST)
        return 0;
    add_until(g, tokens, n);
    int32_t best = PL_NGRAM_LEAST - 1, from = 0, place = *chain_of(g, tokens + n);
    for (int look = 0; place > 0 && look < LOOKS && best < PL_NGRAM_MOST; look++, place = g->before[place]) {
        int32_t same = agreeing(tokens, n, place);
        if (same > best) {
            best = same;
            from = place;
        }
    }
    if (from == 0)
        return 0;
    for (int32_t i = 0; i < most; i++)
        out[i] = from + i < n ? tokens[from + i] : out[from + i - n];
    return best;
}
