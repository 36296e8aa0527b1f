/* What is chosen on cards of all sizes, for the published shapes. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "host/base/free_memory.h"
#include "host/engine/placement.h"
#include "tests/unit/scratch.h"

#define GIB ((size_t)1 << 30)
#define MIB ((size_t)1 << 20)

typedef struct model {
    pl_config config;
    pl_memory_plan plan;
} model;

/* Q4_0 with the tables in Q6_K, as published; sizes as `pleiad inspect` tells them. */
static model published(bool e4b)
{
    model m = {.config = {.n_layers = e4b ? 35 : 30,
                          .n_kv_layers = 20,
                          .hidden = 2048,
                          .n_heads = 8,
                          .n_kv_heads = 2,
                          .head_dim = 256,
                          .ple_dim = 256,
                          .ple_vocab = 262144,
                          .vocab = 262400,
                          .laurel_rank = 64,
                          .window = 512,
                          .context = 32768}};
    for (int l = 0; l < m.config.n_layers; l++) {
        m.config.ffn[l] = e4b ? 16384 : 8192;
        m.config.local[l] = l % 5 != 4;
        m.config.sparsity_z[l] = -INFINITY;
    }
    m.plan = (pl_memory_plan){.core_packed = e4b ? 2190000000 : 1040000000,
                              .core_mapped = e4b ? 105000000 : 97500000,
                              .head_packed = 445000000,
                              .ple_table = e4b ? 1928640000 : 1653120000,
                              .ple_row = e4b ? 7350 : 6300,
                              .card_weights = e4b ? 4486425328 : 2421916768,
                              .card_slice = e4b ? 1570000000 : 0};
    return m;
}

static pl_device_list card_of(size_t total)
{
    pl_device_list cards = {.n = 1};
    cards.devices[0] = (pl_device){.name = "Card", .capability_major = 8, .capability_minor = 6, .total_bytes = total};
    cards.devices[0].free_bytes = total > PL_CARD_CONTEXT ? total - PL_CARD_CONTEXT : 0;
    return cards;
}

static pl_status choose(const model *m, size_t card, size_t host, pl_placement_wish wish, pl_placement *out,
                        pl_error *err)
{
    pl_device_list cards = card_of(card);
    pl_machine machine = {.cards = &cards, .free_memory = host};
    return pl_placement_choose(&m->config, &m->plan, &wish, &machine, out, err);
}

static pl_placement chosen(const model *m, size_t card, size_t host, pl_placement_wish wish)
{
    pl_placement p;
    pl_error err = {0};
    cr_assert_eq(choose(m, card, host, wish, &p, &err), PL_OK, "%s", err.message);
    return p;
}

/* ---- cards that people have ---- */

typedef struct expected {
    bool e4b;
    size_t card, host; /* GiB */
    pl_placement_wish wish;
    pl_backend_kind backend;
    pl_ple_placement ple;
    int context, rows; /* 0: less than as much as there can be, and as much as it takes to fit */
} expected;

Test(placement, cards_that_people_have)
{
    const pl_placement_wish one = {.sessions = 1};
    const expected table[] = {
        {false, 2, 16, one, PL_BACKEND_CPU, PL_PLE_AUTO, 32768, 512},
        {false, 3, 16, one, PL_BACKEND_CUDA, PL_PLE_PINNED, 32768, 512},
        {false, 3, 4, one, PL_BACKEND_CUDA, PL_PLE_PINNED, 32768, 512},
        {false, 3, 3, one, PL_BACKEND_CUDA, PL_PLE_HOST, 32768, 512},
        {false, 3, 2, one, PL_BACKEND_CUDA, PL_PLE_DISK, 32768, 512},
        {false, 6, 2, one, PL_BACKEND_CUDA, PL_PLE_VRAM, 32768, 512},
        {true, 2, 16, one, PL_BACKEND_CPU, PL_PLE_AUTO, 32768, 512},
        {true, 3, 16, one, PL_BACKEND_CPU, PL_PLE_AUTO, 32768, 512},
        {true, 4, 16, one, PL_BACKEND_CUDA, PL_PLE_PINNED, 32768, 256},
        {true, 4, 16, {.sessions = 0}, PL_BACKEND_CUDA, PL_PLE_PINNED, 0, 64},
        {true, 4, 16, {.sessions = 1, .context = 8192}, PL_BACKEND_CUDA, PL_PLE_PINNED, 8192, 512},
        {true, 6, 16, one, PL_BACKEND_CUDA, PL_PLE_PINNED, 32768, 512},
        {true, 8, 16, one, PL_BACKEND_CUDA, PL_PLE_VRAM, 32768, 512},
        {true, 8, 16, {.sessions = 1, .ple = PL_PLE_DISK}, PL_BACKEND_CUDA, PL_PLE_DISK, 32768, 512},
        {true, 12, 16, {.sessions = 0}, PL_BACKEND_CUDA, PL_PLE_VRAM, 32768, 512},
        {true, 24, 16, {.batch_rows = 2048}, PL_BACKEND_CUDA, PL_PLE_VRAM, 32768, 2048},
        {true, 24, 16, {.backend = PL_BACKEND_CPU}, PL_BACKEND_CPU, PL_PLE_AUTO, 32768, 512},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const expected *e = &table[i];
        model m = published(e->e4b);
        pl_placement p = chosen(&m, e->card * GIB, e->host * GIB, e->wish);
        cr_expect_eq(p.backend, e->backend, "%zu: %s", i, p.reason);
        cr_expect_eq(p.ple, e->ple, "%zu: %s", i, p.reason);
        cr_expect(e->context ? p.context == e->context : p.context < 32768 && p.context >= 2048, "%zu: %d tokens", i,
                  p.context);
        cr_expect_eq(p.batch_rows, e->rows, "%zu: %d rows", i, p.batch_rows);
        cr_expect_eq(p.sessions, e->wish.sessions ? e->wish.sessions : 4, "%zu: %d sessions", i, p.sessions);
        cr_expect_eq(p.reason[0] == '\0', e->wish.backend == PL_BACKEND_CPU, "%zu: '%s'", i, p.reason);
    }
}

/* A card keeps K/V in f32: others are for the CPU, which holds more of them in the same memory. */
Test(placement, narrow_kv_is_for_the_cpu)
{
    model m = published(true);
    pl_placement_wish wish = {.sessions = 16, .kv_tokens = -1, .cache = PL_CACHE_Q8_0};
    pl_placement p = chosen(&m, 24 * GIB, 12 * GIB, wish);
    cr_assert_eq(p.backend, PL_BACKEND_CPU);
    cr_assert_eq(p.cache, PL_CACHE_Q8_0);
    cr_assert(strstr(p.reason, "K/V in q8_0 (--cache-type): a card keeps them in f32"), "%s", p.reason);
    wish.cache = PL_CACHE_F32;
    wish.backend = PL_BACKEND_CPU;
    cr_assert_gt(p.kv_tokens, 2 * chosen(&m, 0, 12 * GIB, wish).kv_tokens);
    pl_error err = {0};
    wish = (pl_placement_wish){.backend = PL_BACKEND_CUDA, .cache = PL_CACHE_F16};
    cr_assert_eq(choose(&m, 24 * GIB, 5 * GIB, wish, &p, &err), PL_ERR_UNSUPPORTED);
    cr_assert_str_eq(err.message, "backend cuda: K/V in f16 (--cache-type): a card keeps them in f32");
}

/* ---- every card ---- */

static const pl_placement_wish wishes[] = {
    {.sessions = 0},
    {.sessions = 1},
    {.sessions = 2, .context = 4096},
    {.sessions = 1, .context = 32768},
    {.sessions = 1, .context = 100},
    {.sessions = 1, .batch_rows = 7},
    {.sessions = 1, .batch_rows = 2048},
    {.ple = PL_PLE_VRAM},
    {.sessions = 1, .ple = PL_PLE_VRAM},
    {.sessions = 1, .ple = PL_PLE_PINNED},
    {.sessions = 1, .ple = PL_PLE_HOST},
    {.sessions = 1, .ple = PL_PLE_DISK},
    {.sessions = 64, .kv_tokens = 100000},
    {.sessions = 1000, .context = 8192, .kv_tokens = -1},
};

#define WISHES (sizeof wishes / sizeof *wishes)

/* Better, or worse, in what is given up last. */
static int compare(const pl_placement *a, const pl_placement *b)
{
    int order[] = {(a->backend == PL_BACKEND_CUDA) - (b->backend == PL_BACKEND_CUDA), a->sessions - b->sessions,
                   a->context - b->context, a->batch_rows - b->batch_rows, (int)b->ple - (int)a->ple};
    if (a->backend == PL_BACKEND_CPU && b->backend == PL_BACKEND_CPU)
        return 0;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (order[i])
            return order[i];
    return 0;
}

static void check_fits(const model *m, const pl_placement *p, const pl_placement_wish *wish, size_t available)
{
    pl_card_memory again;
    pl_kv_size size = {p->sessions, p->context, p->batch_rows, p->kv_tokens, p->cache};
    pl_card_memory_compute(&m->config, &m->plan, p->ple, &size, &again);
    size_t total = again.weights + again.kv + again.work + again.reserve + again.table;
    cr_assert_eq(total, pl_card_memory_total(&p->memory));
    cr_assert_leq(total, available);
    cr_assert_neq(p->ple, PL_PLE_AUTO);
    cr_assert(wish->ple == PL_PLE_AUTO || p->ple == wish->ple);
    cr_assert(wish->context == 0 || p->context == wish->context);
    cr_assert(wish->sessions == 0 || p->sessions == wish->sessions);
    cr_assert(p->sessions >= 1 && p->batch_rows >= 1 && p->batch_rows <= p->context);
    cr_assert(wish->ple != PL_PLE_AUTO || p->ple != PL_PLE_VRAM || available - total >= GIB);
}

Test(placement, a_larger_card_is_never_worse_and_never_overfull)
{
    for (int e4b = 0; e4b < 2; e4b++) {
        model m = published(e4b);
        for (size_t i = 0; i < WISHES; i++) {
            pl_placement last = {.backend = PL_BACKEND_CPU};
            int on_card = 0;
            for (size_t card = 0; card <= 26 * GIB; card += 8 * MIB) {
                pl_placement p = chosen(&m, card, 16 * GIB, wishes[i]);
                cr_assert_geq(compare(&p, &last), 0, "wish %zu, card %zu MiB: %s", i, card / MIB, p.reason);
                if (p.backend == PL_BACKEND_CUDA)
                    check_fits(&m, &p, &wishes[i], card - PL_CARD_CONTEXT);
                on_card += p.backend == PL_BACKEND_CUDA;
                last = p;
            }
            cr_assert_gt(on_card, 0, "wish %zu", i);
        }
    }
}

Test(placement, more_memory_of_the_host_is_never_worse)
{
    model m = published(true);
    pl_placement last = {.backend = PL_BACKEND_CPU};
    for (size_t host = MIB; host <= 16 * GIB; host += 16 * MIB) {
        pl_placement p = chosen(&m, 6 * GIB, host, wishes[1]);
        cr_assert_geq(compare(&p, &last), 0, "%zu MiB: %s", host / MIB, p.reason);
        cr_assert(p.ple != PL_PLE_PINNED || p.memory.pinned <= host / 2);
        last = p;
    }
    cr_assert_eq(last.ple, PL_PLE_PINNED);
    cr_assert_eq(chosen(&m, 6 * GIB, 0, wishes[1]).ple, PL_PLE_HOST, "unknown");
}

/* Nothing that fits is left out: one step more of what was cut does not fit. */
Test(placement, as_much_as_fits)
{
    model m = published(true);
    for (size_t card = 3 * GIB; card <= 8 * GIB; card += 8 * MIB) {
        pl_placement p = chosen(&m, card, 16 * GIB, wishes[1]);
        pl_card_memory more;
        if (p.backend == PL_BACKEND_CPU || p.batch_rows == 512)
            continue;
        if (p.context < 32768)
            cr_assert_eq(p.batch_rows, 64);
        pl_kv_size size = {1, p.context, 2 * p.batch_rows, 0, PL_CACHE_F32};
        if (p.context < 32768)
            size = (pl_kv_size){1, p.context + 256, 64, 0, PL_CACHE_F32};
        pl_card_memory_compute(&m.config, &m.plan, p.ple, &size, &more);
        cr_assert_gt(pl_card_memory_total(&more), card - PL_CARD_CONTEXT, "%zu MiB: %s", card / MIB, p.reason);
    }
}

/* ---- K/V by budget ---- */

static size_t taken(const model *m, const pl_placement *p, int64_t kv_tokens)
{
    pl_card_memory memory;
    pl_kv_size size = {p->sessions, p->context, p->batch_rows, kv_tokens, PL_CACHE_F32};
    pl_card_memory_compute(&m->config, &m->plan, p->ple, &size, &memory);
    return pl_card_memory_total(&memory);
}

/* Many sessions cost little more than one; what is asked for comes before the table, what is taken unasked after it, and
 * that leaves room for others. */
Test(placement, kv_by_budget)
{
    model m = published(true);
    for (size_t card = 4 * GIB; card <= 26 * GIB; card += 64 * MIB) {
        size_t available = card - PL_CARD_CONTEXT;
        pl_placement one = chosen(&m, card, 16 * GIB, wishes[1]);
        pl_placement p = chosen(&m, card, 16 * GIB, (pl_placement_wish){.sessions = 64, .kv_tokens = 100000});
        if (p.backend == PL_BACKEND_CPU)
            continue;
        cr_assert_eq(p.sessions, 64);
        cr_assert_leq(p.context, one.context);
        cr_assert(p.kv_tokens >= p.context && p.kv_tokens <= 100000);
        cr_assert_leq(taken(&m, &p, p.kv_tokens), available);
        if (p.kv_tokens < 100000)
            cr_assert_gt(taken(&m, &p, p.kv_tokens + PL_KV_PAGE), available, "%zu MiB: %s", card / MIB, p.reason);
        p = chosen(&m, card, 16 * GIB, (pl_placement_wish){.sessions = 64, .kv_tokens = -1});
        if (p.kv_tokens == p.context)
            continue;
        cr_assert_leq(taken(&m, &p, p.kv_tokens), available - GIB);
        cr_assert_gt(taken(&m, &p, p.kv_tokens + PL_KV_PAGE), available - GIB);
        cr_assert_not_null(strstr(p.reason, "K/V of"));
    }
}

Test(placement, kv_by_budget_on_the_cpu)
{
    model m = published(true);
    const pl_placement_wish wish = {
        .backend = PL_BACKEND_CPU, .sessions = 1000, .context = 32768, .batch_rows = 512, .kv_tokens = -1};
    size_t weights = m.plan.core_packed + m.plan.head_packed;
    int64_t before = 0;
    for (size_t host = 0; host < 1024 * GIB; host += host / 8 + GIB) {
        pl_placement p = chosen(&m, 0, host, wish);
        pl_kv_size size = {p.sessions, p.context, p.batch_rows, p.kv_tokens, p.cache};
        cr_assert_geq(p.kv_tokens, p.context);
        cr_assert_leq(p.kv_tokens, 1000 * (int64_t)p.context);
        cr_assert_geq(p.kv_tokens, before);
        cr_assert(p.kv_tokens == p.context || pl_kv_bytes(&m.config, &size) <= (host - weights) / 4);
        before = p.kv_tokens;
    }
    cr_assert_gt(before, 32768);
    cr_assert_eq(chosen(&m, 0, 0, (pl_placement_wish){.kv_tokens = 70000}).kv_tokens, 70000);
    cr_assert_eq(chosen(&m, 0, 0, (pl_placement_wish){.kv_tokens = 0}).kv_tokens, 0);
    cr_assert_eq(pl_placement_kv_tokens(&m.config, 3, 1000, 64, PL_CACHE_F32, SIZE_MAX), 3000);
}

Test(placement, kv_by_bytes)
{
    model m = published(true);
    for (size_t bytes = 64 * MIB; bytes <= 16 * GIB; bytes *= 2) {
        pl_placement p = chosen(&m, 0, 64 * GIB,
                                (pl_placement_wish){.sessions = 64, .kv_tokens = -1, .kv_bytes = bytes});
        pl_kv_size size = {p.sessions, p.context, p.batch_rows, p.kv_tokens, p.cache};
        cr_assert(p.kv_tokens == p.context || pl_kv_bytes(&m.config, &size) <= bytes);
        size.tokens += PL_KV_PAGE;
        cr_assert(p.kv_tokens == 64 * (int64_t)p.context || pl_kv_bytes(&m.config, &size) > bytes);
        p = chosen(&m, 80 * GIB, 64 * GIB, (pl_placement_wish){.sessions = 64, .kv_tokens = -1, .kv_bytes = bytes});
        cr_assert_eq(p.backend, PL_BACKEND_CUDA);
        cr_assert(p.kv_tokens == p.context || p.memory.kv <= bytes);
    }
    const pl_placement_wish both = {.sessions = 64, .kv_tokens = 40000, .kv_bytes = 16 * GIB};
    cr_assert_eq(chosen(&m, 0, 0, both).kv_tokens, 40000);
}

/* ---- what cannot be ---- */

static void refused(const model *m, size_t card, size_t host, pl_placement_wish wish, pl_status status,
                    const char *const *words)
{
    pl_placement p = {.sessions = 77};
    pl_error err = {0};
    wish.backend = PL_BACKEND_CUDA;
    expect_failure(choose(m, card, host, wish, &p, &err), status, &err, words);
    cr_assert_eq(p.sessions, 77, "written in spite of the error");
    wish.backend = PL_BACKEND_AUTO;
    p = chosen(m, card, host, wish);
    cr_assert_eq(p.backend, PL_BACKEND_CPU);
    for (size_t i = 0; words[i]; i++)
        cr_assert_not_null(strstr(p.reason, words[i]), "%s", p.reason);
}

Test(placement, too_small_a_card_says_what_would_fit)
{
    model e4b = published(true), e2b = published(false);
    refused(&e4b, 3 * GIB, 16 * GIB, wishes[1], PL_ERR_MEMORY,
            WORDS("Card: 2.68 GB", "needs 3.", "2048 tokens); would fit: its E2B alone", "slice", "--fit 2.4GB')"));
    refused(&e4b, 2 * GIB, 16 * GIB, wishes[1], PL_ERR_MEMORY, WORDS("Card: 1.61 GB", "2048 tokens)"));
    refused(&e2b, 2 * GIB, 16 * GIB, wishes[1], PL_ERR_MEMORY, WORDS("--fit 1.3GB')"));
    refused(&e4b, 15 * GIB / 4, 16 * GIB, (pl_placement_wish){.sessions = 1, .context = 32768}, PL_ERR_MEMORY,
            WORDS("32768 tokens", "would fit: --ctx-size "));
    refused(&e4b, 15 * GIB / 4, 16 * GIB, (pl_placement_wish){.sessions = 3, .context = 16384}, PL_ERR_MEMORY,
            WORDS("3 times 16384 tokens"));
    refused(&e4b, 4 * GIB, 16 * GIB, (pl_placement_wish){.ple = PL_PLE_VRAM}, PL_ERR_MEMORY,
            WORDS("per-layer table", "would fit: --ple auto"));
    refused(&e4b, 8 * GIB, 1 * GIB, (pl_placement_wish){.ple = PL_PLE_PINNED}, PL_ERR_MEMORY,
            WORDS("pinned", "1.93 GB", "1.07 GB are free", "--ple disk"));
    refused(&e4b, 0, 0, wishes[0], PL_ERR_MEMORY, WORDS("0.00 GB"));
}

/* What the message proposes is then accepted. */
Test(placement, proposals_are_true)
{
    pl_placement p;
    pl_error err = {0};
    int slices = 0, contexts = 0, fits = 0;
    for (size_t card = GIB; card < 6 * GIB; card += 32 * MIB)
        for (size_t i = 0; i < WISHES; i++) {
            model m = published(true);
            pl_placement_wish wish = wishes[i];
            wish.backend = PL_BACKEND_CUDA;
            if (choose(&m, card, 16 * GIB, wish, &p, &err) == PL_OK)
                continue;
            cr_assert_lt(strlen(err.message), PL_ERROR_BYTES - 20, "nearly cut: %s", err.message);
            const char *context = strstr(err.message, "--ctx-size "), *fit = strstr(err.message, "--fit ");
            if (strstr(err.message, "--ple auto")) {
                wish.ple = PL_PLE_AUTO;
                cr_assert_eq(choose(&m, card, 16 * GIB, wish, &p, NULL), PL_OK, "%s", err.message);
                wish.ple = wishes[i].ple;
            }
            if (strstr(err.message, "slice")) {
                model half = m;
                half.plan.core_packed = m.plan.card_slice;
                half.plan.core_mapped = half.plan.head_packed = 0;
                cr_assert_eq(choose(&half, card, 16 * GIB, wish, &p, NULL), PL_OK, "%s", err.message);
                slices++;
            }
            if (fit) {
                double bytes = strtod(fit + strlen("--fit "), NULL) * 1e9;
                const char *c = strstr(fit, " -c ");
                int tokens = c ? (int)strtol(c + 4, NULL, 10) : 4096;
                pl_card_memory counted;
                model smaller = m;
                pl_card_memory_compute(&m.config, &m.plan, PL_PLE_HOST, &(pl_kv_size){1, tokens, 512, 0, PL_CACHE_F32},
                                       &counted);
                smaller.plan.core_packed = (size_t)bytes - counted.kv - counted.work;
                smaller.plan.core_mapped = smaller.plan.head_packed = 0;
                cr_assert_geq((double)smaller.plan.core_packed, (double)m.plan.card_weights * 3 / 8 - 1e8);
                cr_assert_eq(choose(&smaller, card, 16 * GIB, wish, &p, &err), PL_OK, "%s", err.message);
                fits++;
            }
            if (context) {
                wish.context = (int)strtol(context + strlen("--ctx-size "), NULL, 10);
                cr_assert_eq(choose(&m, card, 16 * GIB, wish, &p, NULL), PL_OK, "%d", wish.context);
                contexts++;
            }
        }
    cr_assert(slices > 0 && contexts > 0 && fits > 0);
}

Test(placement, cards_that_cannot_serve)
{
    model m = published(true);
    pl_device_list none = {.n = 0, .reason = "no NVIDIA driver is loaded"}, old = card_of(8 * GIB);
    pl_machine machine = {.cards = &none, .free_memory = 16 * GIB};
    pl_placement_wish wish = {.backend = PL_BACKEND_CUDA}, either = {.device = 0};
    pl_placement p;
    pl_error err = {0};
    expect_failure(pl_placement_choose(&m.config, &m.plan, &wish, &machine, &p, &err), PL_ERR_UNSUPPORTED, &err,
                   WORDS("cuda", "no NVIDIA driver is loaded"));
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &either, &machine, &p, &err), PL_OK);
    cr_assert_eq(p.backend, PL_BACKEND_CPU);
    cr_assert_str_eq(p.reason, "on the CPU: no NVIDIA driver is loaded");
    cr_assert_eq(p.ple, PL_PLE_AUTO);
    cr_assert_eq(pl_card_memory_total(&p.memory), 0);

    machine.cards = &old;
    old.devices[0].capability_major = 7;
    old.devices[0].capability_minor = 4;
    expect_failure(pl_placement_choose(&m.config, &m.plan, &wish, &machine, &p, &err), PL_ERR_UNSUPPORTED, &err,
                   WORDS("Card", "7.4", "7.5"));
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &either, &machine, &p, &err), PL_OK);
    cr_assert_eq(p.backend, PL_BACKEND_CPU);
    either.device = 1;
    expect_failure(pl_placement_choose(&m.config, &m.plan, &either, &machine, &p, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("device 1", "1 card"));
    either.device = -1;
    expect_failure(pl_placement_choose(&m.config, &m.plan, &either, &machine, &p, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("device -1"));
    machine.cards = NULL;
    either = (pl_placement_wish){.backend = PL_BACKEND_CPU, .context = 100, .sessions = 2};
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &either, &machine, &p, &err), PL_OK);
    cr_assert(p.context == 100 && p.batch_rows == 100 && p.sessions == 2);
}

/* ---- free memory ---- */

static void machine_file(scratch *s, const char *path, const char *text)
{
    char name[256];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(name, sizeof name, "%.*s", (int)(slash - path), path);
        mkdir(scratch_path(s, name), 0777);
    }
    scratch_text(s, path, text);
}

Test(placement, free_memory_of_machines)
{
    scratch s;
    scratch_open(&s);
    cr_assert_eq(pl_free_memory_of(s.dir), 0, "unknown");
    machine_file(&s, "proc/meminfo", "MemTotal:  8000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n");
    cr_assert_eq(pl_free_memory_of(s.dir), 4000 * 1024);
    machine_file(&s, "proc/self/cgroup", "1:name=systemd:/\n0::/a/b\n");
    cr_assert_eq(pl_free_memory_of(s.dir), 4000 * 1024);
    machine_file(&s, "sys/fs/cgroup/a/b/memory.max", "max\n");
    machine_file(&s, "sys/fs/cgroup/a/memory.max", "3000000\n");
    machine_file(&s, "sys/fs/cgroup/a/memory.current", "2500000\n");
    cr_assert_eq(pl_free_memory_of(s.dir), 500000, "of a group around ours");
    machine_file(&s, "sys/fs/cgroup/a/memory.stat", "anon 1\nfile_mapped 5\nfile 400000\n");
    cr_assert_eq(pl_free_memory_of(s.dir), 900000, "with page cache");
    machine_file(&s, "sys/fs/cgroup/memory.max", "10\n");
    machine_file(&s, "sys/fs/cgroup/memory.current", "20\n");
    cr_assert_eq(pl_free_memory_of(s.dir), 1, "a container's whole, overfull");
    scratch_close(&s);
    cr_assert_gt(pl_free_memory(), 0);
}

/* ---- cards that share a model ---- */

static pl_device_list cards_of(int n, const double *free_gib)
{
    pl_device_list cards = card_of(24 * GIB);
    cards.n = n;
    for (int i = 0; i < n; i++) {
        cards.devices[i] = cards.devices[0];
        snprintf(cards.devices[i].name, sizeof cards.devices[i].name, "Card %d", i);
        snprintf(cards.devices[i].pci_id, sizeof cards.devices[i].pci_id, "%d", i);
        cards.devices[i].free_bytes = (size_t)(free_gib[i] * (double)GIB);
    }
    return cards;
}

/* What fits is what fits on the one with the least room; the others' numbers do not matter. */
Test(placement, cards_that_share_a_model)
{
    static const double free_gib[] = {1, 8, 6, 20};
    model m = published(true);
    pl_device_list cards = cards_of(4, free_gib), least = cards_of(1, &free_gib[2]);
    pl_machine many = {.cards = &cards, .free_memory = 16 * GIB}, one = {.cards = &least, .free_memory = 16 * GIB};
    pl_placement_wish wish = {.backend = PL_BACKEND_CUDA, .device = 1, .ranks = 3},
                      alone = {.backend = PL_BACKEND_CUDA};
    pl_placement p, q;
    pl_error err = {0};
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &wish, &many, &p, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &alone, &one, &q, &err), PL_OK, "%s", err.message);
    cr_expect(p.context == q.context && p.batch_rows == q.batch_rows && p.sessions == q.sessions && p.ple == q.ple);
    cr_expect_eq(p.device, 1);
    cr_expect_str_eq(p.pci_id, "1");
    cr_expect(strstr(p.reason, "cards 1 to 3, a part of the model on each; Card 2: 6.44 of"), "%s", p.reason);
}

Test(placement, too_few_or_too_small_cards_to_share_a_model)
{
    static const double free_gib[] = {1, 8, 6, 20};
    model m = published(true);
    pl_device_list cards = cards_of(4, free_gib);
    pl_machine machine = {.cards = &cards, .free_memory = 16 * GIB};
    pl_placement_wish wish = {.backend = PL_BACKEND_AUTO, .device = 1, .ranks = 4};
    pl_placement p;
    pl_error err = {0};
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &wish, &machine, &p, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "the model cannot be shared by 4 cards from 1 on: this machine has 4");
    wish = (pl_placement_wish){.backend = PL_BACKEND_CUDA, .ranks = 2};
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &wish, &machine, &p, &err), PL_ERR_MEMORY);
    cr_expect(strstr(err.message, "Card 0: 1.07 GB of its memory are free, its part of the model needs"), "%s",
              err.message);
    cards.devices[1].capability_major = 6;
    wish.device = 1;
    cr_assert_eq(pl_placement_choose(&m.config, &m.plan, &wish, &machine, &p, &err), PL_ERR_UNSUPPORTED);
    cr_expect(strstr(err.message, "Card 1"), "%s", err.message);
}
