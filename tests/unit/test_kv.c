/* K/V memory: budget, growth, what is given back, and that no page serves two. */
#include "tests/unit/kv_fixture.h"
#include "tests/unit/scratch.h"

#include <stdlib.h>

#define PAGES(tokens) (((tokens) + PL_KV_PAGE - 1) / PL_KV_PAGE)

static int below(pl_rng *rng, int n)
{
    return (int)(pl_rng_next(rng) % (uint64_t)n);
}

static void extended(kv_fixture *f, kv_story *s, int32_t n)
{
    pl_error err = {0};
    cr_assert_eq(kv_extend(f, s, n, &err), PL_OK, "%s", err.message);
}

static void filled(kv_fixture *f, kv_story *s, int32_t to)
{
    while (s->n < to)
        extended(f, s, to - s->n < KV_BATCH ? to - s->n : KV_BATCH);
}

static void refused(kv_fixture *f, kv_story *s, int32_t n, pl_status status, const char *const *words)
{
    pl_error err = {0};
    expect_failure(kv_extend(f, s, n, &err), status, &err, words);
}

/* Without a budget every sequence can have all of its context, all of them growing by whole batches at once. */
Test(kv, all_contexts)
{
    kv_fixture f;
    static kv_story s[KV_SEQUENCES];
    kv_fixture_open(&f, 0, false);
    cr_assert_eq(pl_kv_count(f.kv).tokens, KV_SEQUENCES * KV_CONTEXT);
    for (int i = 0; i < KV_SEQUENCES; i++)
        kv_open(&f, &s[i], 0);
    for (int32_t n = KV_BATCH; n < KV_CONTEXT + KV_BATCH; n += KV_BATCH)
        for (int i = 0; i < KV_SEQUENCES; i++)
            filled(&f, &s[i], n < KV_CONTEXT ? n : KV_CONTEXT);
    cr_assert_eq(pl_kv_count(f.kv).used, KV_SEQUENCES * KV_CONTEXT);
    refused(&f, &s[0], 1, PL_ERR_CONTEXT, WORDS("4097", "4096"));
    pl_error err;
    int32_t none;
    expect_failure(pl_kv_open(f.kv, &none, &err), PL_ERR_UNSUPPORTED, &err, WORDS("4 sessions"));
    for (int i = 0; i < KV_SEQUENCES; i++) {
        kv_check_story(&f, &s[i]);
        kv_close(&f, &s[i]);
    }
    kv_fixture_close(&f);
}

Test(kv, budget)
{
    kv_fixture f;
    static kv_story s[3];
    kv_fixture_open(&f, KV_CONTEXT + 100, false);
    cr_assert_eq(pl_kv_count(f.kv).tokens, PAGES(KV_CONTEXT + 100) * PL_KV_PAGE);
    for (int i = 0; i < 3; i++)
        kv_open(&f, &s[i], 0);
    filled(&f, &s[0], KV_CONTEXT - 64);
    filled(&f, &s[1], 128);
    extended(&f, &s[2], 64);
    cr_assert(pl_kv_fits(f.kv, s[1].id, 0));
    refused(&f, &s[1], 1, PL_ERR_BUSY, WORDS("4224", "1 more"));
    refused(&f, &s[0], 65, PL_ERR_CONTEXT, WORDS("4096"));
    refused(&f, &s[0], 64, PL_ERR_BUSY, WORDS("4224"));
    kv_truncate(&f, &s[1], 64);
    extended(&f, &s[0], 64);
    refused(&f, &s[2], 1, PL_ERR_BUSY, WORDS("4224"));
    kv_close(&f, &s[0]);
    filled(&f, &s[2], KV_CONTEXT);
    cr_assert_eq(pl_kv_count(f.kv).used, KV_CONTEXT + 64);
    kv_check_story(&f, &s[1]);
    kv_check_story(&f, &s[2]);
    kv_close(&f, &s[1]);
    kv_close(&f, &s[2]);
    kv_fixture_close(&f);
}

/* One sequence can always have its context; more than all can use is not set aside. */
Test(kv, budgets_have_bounds)
{
    kv_fixture f;
    kv_fixture_open(&f, 1, false);
    cr_assert_eq(pl_kv_count(f.kv).tokens, KV_CONTEXT);
    kv_fixture_close(&f);
    kv_fixture_open(&f, INT64_MAX, false);
    cr_assert_eq(pl_kv_count(f.kv).tokens, KV_SEQUENCES * KV_CONTEXT);
    kv_fixture_close(&f);
}

/* What local layers keep is bounded, however long a sequence is. */
Test(kv, local_pages_are_given_back)
{
    kv_fixture f;
    static kv_story s;
    kv_fixture_open(&f, 0, false);
    const pl_page_pool *local = pl_kv_pool(f.kv, PL_KV_LOCAL);
    kv_open(&f, &s, 0);
    for (int i = 0; i < KV_CONTEXT; i++) {
        extended(&f, &s, 1);
        cr_assert_leq(local->n_pages - local->n_free, PAGES(KV_WINDOW + PL_KV_SLACK) + 1);
        kv_check_story(&f, &s);
    }
    cr_assert_eq(kv_truncate(&f, &s, KV_CONTEXT - PL_KV_SLACK), KV_CONTEXT - PL_KV_SLACK);
    kv_check_story(&f, &s);
    cr_assert_eq(kv_truncate(&f, &s, 100), 0, "the window is gone");
    cr_assert_eq(local->n_free, local->n_pages);
    filled(&f, &s, 200);
    kv_check_story(&f, &s);
    kv_close(&f, &s);
    kv_fixture_close(&f);
}

/* The sum that plans count with is what is taken. */
Test(kv, bytes_are_as_planned)
{
    static const int64_t budgets[] = {0, 1, KV_CONTEXT, 9000, 1 << 30};
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        kv_fixture f;
        kv_fixture_open(&f, budgets[i], false);
        pl_kv_size size = {KV_SEQUENCES, KV_CONTEXT, KV_BATCH, budgets[i], PL_CACHE_F32};
        size_t taken = 2 * KV_SEQUENCES * (KV_CONTEXT / PL_KV_PAGE) * sizeof(int32_t);
        for (pl_kv_kind kind = 0; kind < PL_KV_KINDS; kind++)
            taken += (size_t)pl_kv_pool(f.kv, kind)->n_pages * pl_kv_pool(f.kv, kind)->page_bytes;
        cr_assert_eq(pl_kv_bytes(&f.config, &size), taken);
        kv_fixture_close(&f);
    }
}

/* Narrower types take as much less as their pages are smaller, and views say where they are. */
Test(kv, narrow_types)
{
    kv_fixture f;
    kv_fixture_open(&f, 0, false);
    f.config.head_dim = 256;
    for (pl_cache_type type = PL_CACHE_F32; type <= PL_CACHE_Q8_0; type++) {
        pl_kv_size size = {KV_SEQUENCES, KV_CONTEXT, KV_BATCH, 0, type};
        pl_kv *kv;
        pl_error err = {0};
        cr_assert_eq(pl_kv_create(&f.config, f.backend, &size, &kv, &err), PL_OK, "%s", err.message);
        size_t head = pl_kv_head_bytes(type, 256), table = KV_SEQUENCES * (KV_CONTEXT / PL_KV_PAGE) * sizeof(int32_t);
        cr_assert_eq(pl_kv_token_bytes(&f.config, type), 2 * head / PL_KV_PAGE);
        cr_assert_eq(pl_kv_pool(kv, PL_KV_LOCAL)->page_bytes, 3 * 2 * head);
        cr_assert_eq(pl_kv_bytes(&f.config, &size), 2 * table +
                                                        2 * head * (size_t)pl_kv_pool(kv, PL_KV_GLOBAL)->n_pages +
                                                        6 * head * (size_t)pl_kv_pool(kv, PL_KV_LOCAL)->n_pages);
        pl_kv_layer first = pl_kv_view(kv, 0, 0), last = pl_kv_view(kv, 0, 3);
        cr_assert(first.type == type && last.type == type);
        cr_assert_eq((size_t)((char *)first.v - (char *)first.k), head);
        cr_assert_eq((size_t)((char *)last.v - (char *)first.k), 5 * head);
        cr_assert_eq((size_t)first.page_stride * sizeof(float), 6 * head);
        pl_kv_free(kv);
    }
    f.config.head_dim = 4;
    kv_fixture_close(&f);
}

static void random_action(kv_fixture *f, kv_story *s, pl_rng *rng)
{
    pl_error err = {0};
    if (s->id < 0) {
        kv_open(f, s, 0);
        for (int i = 0; i < KV_CONTEXT; i++)
            s->ids[i] = below(rng, 4);
        return;
    }
    switch (below(rng, 8)) {
    case 0: kv_close(f, s); return;
    case 1: kv_truncate(f, s, s->n - (s->n > 0 ? below(rng, s->n) / (1 + below(rng, 8)) : 0)); return;
    default: kv_extend(f, s, below(rng, 2) ? 1 + below(rng, KV_BATCH) : 1, &err);
    }
}

Test(kv, random_actions)
{
    static const int64_t budgets[] = {0, 1, 6000, 12000};
    for (uint64_t seed = 1; seed <= 12; seed++) {
        kv_fixture f;
        static kv_story s[KV_SEQUENCES];
        pl_rng rng;
        pl_rng_seed(&rng, seed);
        kv_fixture_open(&f, budgets[seed % 4], false);
        for (int i = 0; i < KV_SEQUENCES; i++)
            s[i].id = -1;
        for (int step = 0; step < 400; step++) {
            kv_story *at = &s[below(&rng, KV_SEQUENCES)];
            random_action(&f, at, &rng);
            if (at->id >= 0)
                kv_check_story(&f, at);
            kv_check_pages(&f);
        }
        for (int i = 0; i < KV_SEQUENCES; i++)
            if (s[i].id >= 0) {
                kv_check_story(&f, &s[i]);
                kv_close(&f, &s[i]);
            }
        kv_fixture_close(&f);
    }
}
