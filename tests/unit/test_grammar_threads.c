#include <criterion/criterion.h>
#include <pthread.h>

#include "tests/unit/grammar_fixture.h"

typedef struct user {
    pl_model *model;
    pl_grammar *grammar;
    uint64_t seed, sum;
} user;

static void *use(void *arg)
{
    user *u = arg;
    pl_rng rng;
    pl_rng_seed(&rng, u->seed);
    u->sum = 0;
    for (int text = 0; text < 6; text++) {
        pl_grammar_place *place = NULL;
        pl_grammar *shared = pl_grammar_share(u->grammar);
        cr_assert_eq(pl_grammar_begin(shared, &place, NULL), PL_OK);
        pl_grammar_free(shared);
        for (int step = 0; step < 60; step++) {
            const uint32_t *mask = NULL;
            cr_assert_eq(pl_grammar_mask(place, &mask, NULL), PL_OK);
            for (size_t w = 0; w < u->model->pieces->n_words; w++)
                u->sum = 31 * u->sum + mask[w];
            int32_t id = fixture_choose(u->model, &rng, mask);
            cr_assert_eq(pl_grammar_accept(place, id, NULL), PL_OK);
        }
        pl_grammar_place_free(place);
    }
    return NULL;
}

Test(grammar_threads, share_one_grammar)
{
    enum { N = 4 };
    user users[N];
    pthread_t thread[N];
    pl_model *model = fixture_model();
    pl_grammar *grammar = fixture_grammar(model, fixture_json_grammar);
    for (int i = 0; i < N; i++) {
        users[i] = (user){model, grammar, (uint64_t)i, 0};
        cr_assert_eq(pthread_create(&thread[i], NULL, use, &users[i]), 0);
    }
    for (int i = 0; i < N; i++)
        pthread_join(thread[i], NULL);
    pl_grammar_free(grammar);
    for (int i = 0; i < N; i++) {
        user alone = {model, fixture_grammar(model, fixture_json_grammar), (uint64_t)i, 0};
        use(&alone);
        cr_assert_eq(alone.sum, users[i].sum);
        pl_grammar_free(alone.grammar);
    }
    pl_model_close(model);
}
