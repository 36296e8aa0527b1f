/* The cache of grammars, with a compiler of the test's own. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/serve/grammar_cache.h"

struct pl_grammar {
    _Atomic int references;
};

static _Atomic int n_compiled, n_alive, n_asked;
static int wait_for_askers; /* compiling takes until so many have asked */

pl_status __wrap_pl_grammar_compile(const pl_model *model, pl_grammar_kind kind, const char *text, size_t n,
                                    pl_grammar **out, pl_error *err);
pl_grammar *__wrap_pl_grammar_share(pl_grammar *grammar);
void __wrap_pl_grammar_free(pl_grammar *grammar);

pl_status __wrap_pl_grammar_compile(const pl_model *model, pl_grammar_kind kind, const char *text, size_t n,
                                    pl_grammar **out, pl_error *err)
{
    (void)model;
    (void)kind;
    for (int i = 0; i < 10000 && atomic_load(&n_asked) < wait_for_askers; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    atomic_fetch_add(&n_compiled, 1);
    if (n >= 3 && memcmp(text, "bad", 3) == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "this is bad");
    *out = calloc(1, sizeof **out);
    atomic_store(&(*out)->references, 1);
    atomic_fetch_add(&n_alive, 1);
    return PL_OK;
}

pl_grammar *__wrap_pl_grammar_share(pl_grammar *grammar)
{
    atomic_fetch_add(&grammar->references, 1);
    return grammar;
}

void __wrap_pl_grammar_free(pl_grammar *grammar)
{
    if (grammar && atomic_fetch_sub(&grammar->references, 1) == 1) {
        atomic_fetch_sub(&n_alive, 1);
        free(grammar);
    }
}

static pl_grammar_cache *cache;

static void begin(size_t max_grammars, size_t max_bytes)
{
    atomic_store(&n_compiled, 0);
    wait_for_askers = 0;
    cr_assert_eq(pl_grammar_cache_create(NULL, max_grammars, max_bytes, &cache, NULL), PL_OK);
}

static void end(void)
{
    pl_grammar_cache_free(cache);
    cr_assert_eq(atomic_load(&n_alive), 0);
}

static void get(pl_grammar_kind kind, const char *text)
{
    pl_grammar *grammar;
    pl_error err;
    cr_assert_eq(pl_grammar_cache_get(cache, kind, text, strlen(text), &grammar, &err), PL_OK);
    __wrap_pl_grammar_free(grammar);
}

Test(grammar_cache, compiles_once)
{
    begin(8, 1000);
    get(PL_GRAMMAR_REGEX, "a");
    get(PL_GRAMMAR_REGEX, "a");
    cr_assert_eq(n_compiled, 1);
    get(PL_GRAMMAR_REGEX, "ab");
    get(PL_GRAMMAR_GBNF, "a");
    get(PL_GRAMMAR_JSON, "");
    get(PL_GRAMMAR_JSON, "");
    cr_assert_eq(n_compiled, 4);
    cr_assert_eq(pl_grammar_cache_count(cache).found, 2);
    end();
}

Test(grammar_cache, keeps_what_was_used_lately)
{
    begin(2, 1000);
    get(PL_GRAMMAR_REGEX, "a");
    get(PL_GRAMMAR_REGEX, "b");
    get(PL_GRAMMAR_REGEX, "a");
    get(PL_GRAMMAR_REGEX, "c"); /* b goes */
    cr_assert_eq(n_compiled, 3);
    get(PL_GRAMMAR_REGEX, "a");
    cr_assert_eq(n_compiled, 3);
    get(PL_GRAMMAR_REGEX, "b");
    cr_assert_eq(n_compiled, 4);
    cr_assert_eq(n_alive, 2);
    end();
}

Test(grammar_cache, keeps_no_more_than_so_many_bytes)
{
    begin(100, 10);
    get(PL_GRAMMAR_REGEX, "123456");
    get(PL_GRAMMAR_REGEX, "1234");
    cr_assert_eq(pl_grammar_cache_count(cache).kept, 2);
    get(PL_GRAMMAR_REGEX, "12345");
    cr_assert_eq(pl_grammar_cache_count(cache).kept, 2);
    get(PL_GRAMMAR_REGEX, "12345678901"); /* alone too large: used and forgotten */
    cr_assert_eq(n_alive, 2);
    end();
}

Test(grammar_cache, a_grammar_in_use_outlives_its_place)
{
    pl_grammar *held;
    begin(1, 1000);
    cr_assert_eq(pl_grammar_cache_get(cache, PL_GRAMMAR_REGEX, "a", 1, &held, NULL), PL_OK);
    get(PL_GRAMMAR_REGEX, "b");
    cr_assert_eq(held->references, 1);
    __wrap_pl_grammar_free(held);
    end();
}

Test(grammar_cache, errors_are_told_and_not_kept)
{
    pl_grammar *grammar = NULL;
    pl_error err = {.status = PL_OK};
    begin(8, 1000);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pl_grammar_cache_get(cache, PL_GRAMMAR_REGEX, "bad", 3, &grammar, &err), PL_ERR_ARGUMENT);
        cr_assert_str_eq(err.message, "this is bad");
    }
    cr_assert_eq(n_compiled, 2);
    cr_assert_null(grammar);
    end();
}

static void *ask(void *text)
{
    pl_grammar *grammar = NULL;
    pl_error err = {.status = PL_OK};
    atomic_fetch_add(&n_asked, 1);
    pl_status status = pl_grammar_cache_get(cache, PL_GRAMMAR_REGEX, text, strlen(text), &grammar, &err);
    if (status == PL_OK)
        __wrap_pl_grammar_free(grammar);
    return strcmp(err.message, "this is bad") == 0 ? text : NULL;
}

static int ask_at_once(char *text)
{
    pthread_t threads[8];
    int failed = 0;
    atomic_store(&n_asked, 0);
    wait_for_askers = 8;
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, ask, text);
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed += result != NULL;
    }
    return failed;
}

Test(grammar_cache, many_who_ask_at_once)
{
    char good[] = "good", bad[] = "bad";
    begin(8, 1000);
    cr_assert_eq(ask_at_once(good), 0);
    cr_assert_eq(n_compiled, 1);
    cr_assert_eq(ask_at_once(bad), 8);
    end();
}

Test(grammar_cache, many_who_ask_at_once_for_what_is_not_kept)
{
    char good[] = "good"; /* larger than the cache: gone when the last who waited has it */
    begin(1, 2);
    cr_assert_eq(ask_at_once(good), 0);
    cr_assert_geq(n_compiled, 1);
    end();
}
