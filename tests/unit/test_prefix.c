/* Kept prefixes: what is found, that it is the right thing, that shared pages are not written, and what is given up. */
#include "host/model/fingerprint.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/kv_fixture.h"
#include "tests/unit/scratch.h"

#include <stdlib.h>

#define PAGE PL_KV_PAGE

static int below(pl_rng *rng, int n)
{
    return (int)(pl_rng_next(rng) % (uint64_t)n);
}

/* A prompt that is told from others by `first`, its first token. */
static void prompt(kv_story *s, int32_t first)
{
    for (int32_t i = 0; i < KV_CONTEXT; i++)
        s->ids[i] = first + i;
}

/* From `at` on another prompt. */
static void diverge(kv_story *s, int32_t at, int32_t how)
{
    for (int32_t i = at; i < KV_CONTEXT; i++)
        s->ids[i] = how + i;
}

static int32_t adopt(kv_fixture *f, kv_story *s, int32_t n)
{
    int32_t match = pl_prefixes_match(f->prefixes, &s->path, s->ids, n);
    s->n = pl_prefixes_adopt(f->prefixes, s->id, &s->path, s->ids, n);
    cr_assert_eq(s->n, match);
    cr_assert_eq(s->n, pl_kv_length(f->kv, s->id));
    pl_kv_upload(f->kv);
    kv_check_story(f, s);
    kv_check_pages(f);
    kv_check_tree(f);
    return s->n;
}

static void keep(kv_fixture *f, kv_story *s, bool all)
{
    pl_prefixes_keep(f->prefixes, s->id, &s->path, s->ids, all);
    pl_kv_upload(f->kv);
    kv_check_story(f, s);
    kv_check_tree(f);
}

static void grow(kv_fixture *f, kv_story *s, int32_t to)
{
    pl_error err = {0};
    while (s->n < to) {
        int32_t n = to - s->n < KV_BATCH ? to - s->n : KV_BATCH;
        cr_assert_eq(kv_extend(f, s, n, &err), PL_OK, "%s", err.message);
        keep(f, s, false);
    }
}

static void finish(kv_fixture *f, kv_story *s)
{
    keep(f, s, true);
    kv_close(f, s);
    kv_check_pages(f);
    kv_check_tree(f);
}

/* Reads a prompt with whatever is kept of it; returns how much was. */
static int32_t serve(kv_fixture *f, kv_story *s, int class, int32_t n, int32_t answer)
{
    kv_open(f, s, class);
    int32_t reused = adopt(f, s, n);
    grow(f, s, n + answer);
    finish(f, s);
    return reused;
}

static int32_t peek(const kv_fixture *f, const kv_story *s, int class, int32_t n)
{
    pl_path path = kv_path(f, class);
    return pl_prefixes_match(f->prefixes, &path, s->ids, n);
}

Test(prefix, of_every_length)
{
    kv_fixture f;
    static kv_story s, t;
    kv_fixture_open(&f, 0, true);
    prompt(&s, 1000);
    prompt(&t, 1000);
    cr_assert_eq(serve(&f, &s, 0, 200, 50), 0);
    cr_assert_eq(pl_prefixes_tokens(f.prefixes), 4 * PAGE);
    for (int32_t n = 1; n <= 300; n++)
        cr_assert_eq(peek(&f, &t, 0, n), n - 1 < 250 ? n - 1 : 250);
    for (int32_t at = 1; at < 250; at++) {
        prompt(&t, 1000);
        diverge(&t, at, 5000);
        kv_open(&f, &t, 0);
        cr_assert_eq(adopt(&f, &t, 400), at);
        pl_error err;
        cr_assert_eq(kv_extend(&f, &t, 1 + at % KV_BATCH, &err), PL_OK);
        kv_check_story(&f, &t);
        kv_close(&f, &t);
        cr_assert_eq(peek(&f, &s, 0, 300), 250);
    }
    kv_open(&f, &s, 0);
    cr_assert_eq(adopt(&f, &s, 300), 250);
    kv_close(&f, &s);
    kv_fixture_close(&f);
}

Test(prefix, paths_that_write_other_kv_find_nothing)
{
    kv_fixture f;
    static kv_story s;
    kv_fixture_open(&f, 0, true);
    prompt(&s, 0);
    serve(&f, &s, 0, 200, 0);
    for (int class = 0; class < 4; class ++)
        cr_assert_eq(peek(&f, &s, class, 200), class == 0 ? 199 : 0);
    for (int class = 1; class < 4; class ++)
        cr_assert_eq(serve(&f, &s, class, 200, 0), 0);
    for (int class = 0; class < 4; class ++)
        cr_assert_eq(serve(&f, &s, class, 200, 0), 199);
    kv_fixture_close(&f);
}

/* More kinds of K/V than are told apart: some are not kept, none is mixed up. */
Test(prefix, many_classes)
{
    kv_fixture f;
    static kv_story s;
    kv_fixture_open(&f, 0, true);
    prompt(&s, 0);
    for (int class = 0; class < PL_PREFIX_CLASSES + 2; class ++) {
        kv_open(&f, &s, 0);
        s.path.ffn[0] = 1000 + class;
        adopt(&f, &s, 100);
        cr_assert_eq(s.n, 0);
        grow(&f, &s, 100);
        finish(&f, &s);
    }
    kv_open(&f, &s, 0);
    s.path.ffn[0] = 1000 + PL_PREFIX_CLASSES - 1;
    cr_assert_eq(adopt(&f, &s, 100), 99);
    kv_close(&f, &s);
    kv_fixture_close(&f);
}

/* Two that read the same at once end up with one set of pages. */
Test(prefix, the_same_twice_is_held_once)
{
    kv_fixture f;
    static kv_story s[3];
    kv_fixture_open(&f, 0, true);
    for (int i = 0; i < 3; i++) {
        prompt(&s[i], 7);
        kv_open(&f, &s[i], 0);
        cr_assert_eq(adopt(&f, &s[i], 600), 0);
    }
    for (int32_t n = 100; n <= 600; n += 100)
        for (int i = 0; i < 3; i++)
            grow(&f, &s[i], n);
    cr_assert_eq(pl_kv_count(f.kv).used, (9 + 3) * PAGE);
    for (int i = 0; i < 3; i++)
        finish(&f, &s[i]);
    cr_assert_eq(pl_kv_count(f.kv).kept, 10 * PAGE);
    kv_fixture_close(&f);
}

/* A chat that comes back: prompt, answer and a new turn, again and again, each time longer. */
Test(prefix, turns_of_a_chat)
{
    kv_fixture f;
    static kv_story s;
    kv_fixture_open(&f, 0, true);
    prompt(&s, 3);
    int32_t held = 0;
    for (int32_t n = 90; n + 30 < KV_CONTEXT; n += 75) {
        cr_assert_eq(serve(&f, &s, 0, n, 30), held);
        held = n + 30;
        cr_assert_eq(pl_kv_count(f.kv).kept, (held + PAGE - 1) / PAGE * PAGE, "a begun page is replaced");
    }
    kv_fixture_close(&f);
}

/* Local pages are what is short: users of one system prompt, longer than the window, still find it, whatever else passes
 * through between them. The first of them leaves it behind, the second branches off, from the third on it is known to
 * be worth its room. */
Test(prefix, a_system_prompt_of_many)
{
    kv_fixture f;
    static kv_story s;
    kv_fixture_open(&f, 0, true);
    cr_assert_lt(f.prefixes->pool[PL_KV_LOCAL]->n_pages, f.prefixes->pool[PL_KV_GLOBAL]->n_pages / 2);
    const int32_t system = 500;
    for (int32_t user = 0; user < 40; user++) {
        prompt(&s, 3);
        diverge(&s, system, 10000 * (user + 1));
        int32_t reused = serve(&f, &s, 0, system + 100, 300);
        cr_assert(user < 2 || reused == system, "user %d: %d", user, reused);
        prompt(&s, 500000 + 10000 * user);
        serve(&f, &s, 0, 1900, 100);
    }
    kv_fixture_close(&f);
}

/* What was used longest ago goes first, and never what others are built on. */
Test(prefix, the_longest_unused_goes_first)
{
    kv_fixture f;
    static kv_story s;
    kv_fixture_open(&f, KV_CONTEXT, true);
    for (int32_t i = 0; i < 4; i++) {
        prompt(&s, 10000 * i);
        serve(&f, &s, 0, KV_CONTEXT / 4, 0);
    }
    prompt(&s, 0);
    cr_assert_eq(serve(&f, &s, 0, KV_CONTEXT / 4, 0), KV_CONTEXT / 4 - 1);
    prompt(&s, 90000);
    serve(&f, &s, 0, KV_CONTEXT / 4, 0);
    prompt(&s, 10000);
    cr_assert_lt(peek(&f, &s, 0, KV_CONTEXT / 4), PAGE);
    for (int32_t i = 0; i < 4; i++) {
        prompt(&s, 10000 * i);
        cr_assert(i == 1 || peek(&f, &s, 0, KV_CONTEXT / 4) == KV_CONTEXT / 4 - 1, "%d", i);
    }
    kv_fixture_close(&f);
}

/* All room is one sequence's if it needs it, also where that begins inside a kept page. */
Test(prefix, gives_up_everything)
{
    for (int32_t begin = PAGE - 1; begin < KV_CONTEXT; begin += 95) {
        kv_fixture f;
        static kv_story s;
        kv_fixture_open(&f, KV_CONTEXT, true);
        prompt(&s, 0);
        serve(&f, &s, 0, begin, 0);
        kv_open(&f, &s, 0);
        cr_assert_eq(adopt(&f, &s, begin + 1), begin);
        grow(&f, &s, KV_CONTEXT);
        kv_check_pages(&f);
        cr_assert_eq(pl_kv_count(f.kv).used, KV_CONTEXT);
        finish(&f, &s);
        cr_assert_eq(pl_kv_count(f.kv).kept, KV_CONTEXT);
        kv_open(&f, &s, 0);
        cr_assert_eq(adopt(&f, &s, KV_CONTEXT), KV_CONTEXT - 1);
        grow(&f, &s, KV_CONTEXT);
        kv_close(&f, &s);
        kv_fixture_close(&f);
    }
}

/* What is found where local pages are missing, against looking at every length. */
static int32_t longest_usable(const bool *has_local, int32_t n)
{
    for (int32_t e = n; e > 0; e--) {
        bool whole = true;
        for (int32_t t = e - KV_WINDOW + 1; t < e; t++)
            whole &= t < 0 || has_local[t / PAGE];
        if (whole)
            return e;
    }
    return 0;
}

Test(prefix, windows_with_holes)
{
    const int32_t pages = 12;
    pl_rng rng;
    pl_rng_seed(&rng, 9);
    for (int round = 0; round < 60; round++) {
        kv_fixture f;
        static kv_story s;
        bool has_local[KV_CONTEXT / PAGE];
        kv_fixture_open(&f, 0, true);
        prompt(&s, 0);
        kv_open(&f, &s, 0);
        grow(&f, &s, pages * PAGE);
        int32_t node = pl_kv_page(f.kv, s.id, PL_KV_GLOBAL, pages - 1);
        finish(&f, &s);
        for (int32_t i = pages - 1; i >= 0; i--, node = f.prefixes->nodes[node].parent) {
            has_local[i] = below(&rng, 5) > 0;
            if (!has_local[i])
                pl_prefix_remove_local(f.prefixes, node);
        }
        for (int32_t n = 2; n <= pages * PAGE; n++)
            cr_assert_eq(peek(&f, &s, 0, n), longest_usable(has_local, n - 1), "of %d", n);
        kv_fixture_close(&f);
    }
}

/* ---- at random ---- */

/* Tokens that begin like another's, or not at all. */
static void compose(kv_story *s, const kv_story *others, pl_rng *rng)
{
    const kv_story *base = &others[below(rng, KV_SEQUENCES)];
    int32_t same = below(rng, 3) ? below(rng, KV_CONTEXT) : below(rng, 130);
    memmove(s->ids, base->ids, sizeof s->ids);
    for (int32_t i = same; i < KV_CONTEXT; i++)
        s->ids[i] = below(rng, 3);
}

static void begin_random(kv_fixture *f, kv_story *s, kv_story *all, pl_rng *rng)
{
    compose(s, all, rng);
    kv_open(f, s, below(rng, 8) ? 0 : 1);
    adopt(f, s, 1 + below(rng, KV_CONTEXT));
}

static void act(kv_fixture *f, kv_story *s, kv_story *all, pl_rng *rng)
{
    pl_error err;
    if (s->id < 0) {
        begin_random(f, s, all, rng);
        return;
    }
    switch (below(rng, 12)) {
    case 0: kv_close(f, s); break;
    case 1: finish(f, s); break;
    case 2: kv_truncate(f, s, s->n > 0 ? s->n - below(rng, s->n) / (1 + below(rng, 8)) : 0); break;
    case 3:
    case 4: keep(f, s, false); break;
    case 5:
        for (int32_t i = s->n; i < KV_CONTEXT; i++)
            s->ids[i] = below(rng, 3);
        break;
    default: kv_extend(f, s, below(rng, 2) ? 1 + below(rng, KV_BATCH) : 1 + below(rng, 3), &err);
    }
}

static void check_all(const kv_fixture *f, const kv_story *s)
{
    kv_check_pages(f);
    kv_check_tree(f);
    for (int i = 0; i < KV_SEQUENCES; i++)
        if (s[i].id >= 0)
            kv_check_story(f, &s[i]);
}

static void act_at_random(kv_fixture *f, kv_story *s, int steps, pl_rng *rng)
{
    for (int step = 0; step < steps; step++) {
        act(f, &s[below(rng, KV_SEQUENCES)], s, rng);
        check_all(f, s);
    }
}

static void close_all(kv_fixture *f, kv_story *s)
{
    for (int i = 0; i < KV_SEQUENCES; i++)
        if (s[i].id >= 0)
            kv_close(f, &s[i]);
}

Test(prefix, random_actions)
{
    static const int64_t budgets[] = {0, 1, 6000, 12000};
    for (uint64_t seed = 1; seed <= 40; seed++) {
        kv_fixture f;
        static kv_story s[KV_SEQUENCES];
        pl_rng rng;
        pl_rng_seed(&rng, seed);
        kv_fixture_open(&f, budgets[seed % 4], true);
        for (int i = 0; i < KV_SEQUENCES; i++)
            s[i].id = -1;
        act_at_random(&f, s, 400, &rng);
        close_all(&f, s);
        check_all(&f, s);
        kv_fixture_close(&f);
    }
}

/* ---- on disk ---- */

static void save(const kv_fixture *f, const char *path)
{
    pl_error err = {0};
    cr_assert_eq(pl_prefixes_save(f->prefixes, 77, path, &err), PL_OK, "%s", err.message);
}

static void load(kv_fixture *f, const char *path)
{
    pl_error err = {0};
    cr_assert_eq(pl_prefixes_load(f->prefixes, 77, path, &err), PL_OK, "%s", err.message);
    kv_check_pages(f);
    kv_check_tree(f);
}

Test(prefix, on_disk)
{
    scratch dir;
    scratch_open(&dir);
    for (uint64_t seed = 1; seed <= 8; seed++) {
        kv_fixture f, g;
        static kv_story s[KV_SEQUENCES], t;
        pl_rng rng;
        pl_rng_seed(&rng, seed);
        kv_fixture_open(&f, seed % 2 ? 0 : 6000, true);
        kv_fixture_open(&g, seed % 2 ? 0 : 6000, true);
        for (int i = 0; i < KV_SEQUENCES; i++)
            s[i].id = -1;
        act_at_random(&f, s, 300, &rng);
        const char *path = scratch_path(&dir, "kept");
        save(&f, path);
        load(&g, path);
        for (int i = 0; i < 50; i++) {
            compose(&t, s, &rng);
            kv_open(&g, &t, i % 4 == 0);
            int32_t n = adopt(&g, &t, KV_CONTEXT), was = peek(&f, &t, i % 4 == 0, KV_CONTEXT);
            cr_assert_eq(n, was);
            kv_close(&g, &t);
        }
        load(&g, path);
        close_all(&f, s);
        kv_fixture_close(&f);
        kv_fixture_close(&g);
    }
    scratch_close(&dir);
}

/* What begins with text and goes on with an image: the text's pages are written, no others. */
Test(prefix, on_disk_without_images)
{
    scratch dir;
    scratch_open(&dir);
    kv_fixture f, g;
    static kv_story text, image, all;
    kv_fixture_open(&f, 0, true);
    kv_fixture_open(&g, 0, true);
    prompt(&text, 1000);
    prompt(&image, 1000);
    for (int32_t i = 2 * PAGE + 10; i < 2 * PAGE + 20; i++)
        image.ids[i] = KV_VOCAB + i;
    prompt(&all, KV_VOCAB);
    serve(&f, &text, 0, 2 * PAGE + 5, 0);
    serve(&f, &image, 0, 4 * PAGE, 0);
    serve(&f, &all, 0, 3 * PAGE, 0);
    const char *path = scratch_path(&dir, "kept");
    save(&f, path);
    load(&g, path);
    kv_check_tree(&g);
    cr_expect_eq(peek(&f, &image, 0, 4 * PAGE), 4 * PAGE - 1);
    cr_expect_eq(peek(&g, &image, 0, 4 * PAGE), 2 * PAGE);
    cr_expect_eq(peek(&g, &text, 0, 3 * PAGE), 2 * PAGE, "the page begun after them is part of the image's");
    cr_expect_eq(peek(&g, &all, 0, 3 * PAGE), 0);
    kv_fixture_close(&f);
    kv_fixture_close(&g);
    scratch_close(&dir);
}

/* Those who hold pages go on, and what they have is kept again. */
Test(prefix, forget)
{
    kv_fixture f;
    static kv_story done, running;
    kv_fixture_open(&f, 0, true);
    prompt(&done, 1000);
    prompt(&running, 5000);
    serve(&f, &done, 0, 3 * PAGE, 7);
    kv_open(&f, &running, 0);
    adopt(&f, &running, 3 * PAGE);
    grow(&f, &running, 2 * PAGE + 9);
    pl_prefixes_forget(f.prefixes);
    kv_check_tree(&f);
    kv_check_pages(&f);
    cr_expect_eq(pl_prefixes_tokens(f.prefixes), 0);
    cr_expect_eq(peek(&f, &done, 0, 3 * PAGE), 0);
    cr_expect_eq(peek(&f, &running, 0, 3 * PAGE), 0);
    grow(&f, &running, 3 * PAGE + 3);
    finish(&f, &running);
    cr_expect_eq(peek(&f, &running, 0, 3 * PAGE), 3 * PAGE - 1);
    pl_prefixes_forget(f.prefixes);
    pl_prefixes_forget(f.prefixes);
    cr_expect_eq(pl_prefixes_tokens(f.prefixes), 0);
    kv_fixture_close(&f);
}

/* Of more than there is room for, what was used last. */
Test(prefix, on_disk_more_than_fits)
{
    scratch dir;
    kv_fixture f, g;
    static kv_story s;
    scratch_open(&dir);
    kv_fixture_open(&f, 3 * KV_CONTEXT, true);
    kv_fixture_open(&g, 1, true);
    for (int32_t i = 0; i < 5; i++) {
        prompt(&s, 10000 * i);
        serve(&f, &s, 0, KV_CONTEXT / 2, 0);
    }
    prompt(&s, 0);
    serve(&f, &s, 0, KV_CONTEXT / 2, 0);
    const char *path = scratch_path(&dir, "kept");
    save(&f, path);
    load(&g, path);
    cr_assert_eq(pl_prefixes_tokens(g.prefixes), KV_CONTEXT);
    for (int32_t i = 0; i < 5; i++) {
        prompt(&s, 10000 * i);
        cr_assert_eq(peek(&g, &s, 0, KV_CONTEXT / 2), i == 0 || i == 4 ? KV_CONTEXT / 2 - 1 : 0, "%d", i);
    }
    prompt(&s, 90000);
    serve(&g, &s, 0, PAGE, 0);
    prompt(&s, 0);
    cr_assert_eq(peek(&g, &s, 0, KV_CONTEXT / 2), KV_CONTEXT / 2 - 1, "the other one was used less");
    kv_fixture_close(&f);
    kv_fixture_close(&g);
    scratch_close(&dir);
}

static void not_loaded(kv_fixture *f, uint64_t model, const char *path, const char *const *words)
{
    pl_error err = {0};
    expect_failure(pl_prefixes_load(f->prefixes, model, path, &err), PL_ERR_FORMAT, &err, words);
    cr_assert_eq(pl_prefixes_tokens(f->prefixes), 0);
}

Test(prefix, on_disk_of_another_model)
{
    scratch dir;
    kv_fixture f, g;
    static kv_story s;
    scratch_open(&dir);
    kv_fixture_open(&f, 0, true);
    kv_fixture_open(&g, 0, true);
    prompt(&s, 0);
    serve(&f, &s, 0, 200, 0);
    const char *path = scratch_path(&dir, "kept");
    save(&f, path);
    not_loaded(&g, 78, path, WORDS("kept", "another model"));
    g.prefixes->window++;
    not_loaded(&g, 77, path, WORDS("kept", "window 100, expected 101"));
    g.prefixes->window--;
    g.prefixes->n_kv_layers--;
    not_loaded(&g, 77, path, WORDS("kept", "layers with K/V 4, expected 3"));
    g.prefixes->n_kv_layers++;
    load(&g, path);
    pl_error err;
    expect_failure(pl_prefixes_load(g.prefixes, 77, scratch_path(&dir, "none"), &err), PL_ERR_IO, &err, WORDS("none"));
    expect_failure(pl_prefixes_save(f.prefixes, 77, scratch_path(&dir, "no/folder"), &err), PL_ERR_IO, &err,
                   WORDS("no"));
    kv_fixture_close(&f);
    kv_fixture_close(&g);
    scratch_close(&dir);
}

static const char saved[] = "kept";

static pl_status create_and_load(void *ctx, pl_error *err)
{
    kv_fixture *f = ctx;
    pl_status status = pl_prefixes_create(&f->config, f->kv, &f->prefixes, err);
    if (status == PL_OK)
        status = pl_prefixes_load(f->prefixes, 77, saved, err);
    pl_prefixes_free(f->prefixes);
    f->prefixes = NULL;
    return status;
}

Test(prefix, no_memory)
{
    scratch dir;
    kv_fixture f, g;
    static kv_story s;
    scratch_open(&dir);
    cr_assert_eq(chdir(dir.dir), 0);
    kv_fixture_open(&f, 0, true);
    kv_fixture_open(&g, 0, false);
    prompt(&s, 0);
    serve(&f, &s, 0, 300, 0);
    save(&f, saved);
    cr_assert_geq(fail_alloc_each(create_and_load, &g), 9);
    kv_fixture_close(&f);
    kv_fixture_close(&g);
    scratch_close(&dir);
}

/* Wherever a byte is wrong or the file ends, nothing is taken. */
Test(prefix, on_disk_damaged)
{
    scratch dir;
    kv_fixture f, g;
    static kv_story s;
    scratch_open(&dir);
    kv_fixture_open(&f, 0, true);
    kv_fixture_open(&g, 0, true);
    for (int32_t i = 0; i < 3; i++) {
        prompt(&s, 1000 * i);
        serve(&f, &s, (int)i, 150, 0);
    }
    save(&f, scratch_path(&dir, "kept"));
    size_t n;
    char *data = read_file(scratch_path(&dir, "kept"), &n);
    for (size_t at = 0; at < n; at += at < 200 ? 1 : 61) {
        data[at] ^= 4;
        not_loaded(&g, 77, scratch_write(&dir, "changed", data, n), WORDS("changed"));
        data[at] ^= 4;
    }
    for (size_t end = 0; end < n; end += end < 200 ? 13 : 997)
        not_loaded(&g, 77, scratch_write(&dir, "cut", data, end), WORDS("cut"));
    data[n] = 0;
    not_loaded(&g, 77, scratch_write(&dir, "longer", data, n + 1), WORDS("longer", "behind"));
    load(&g, scratch_write(&dir, "whole", data, n));
    cr_assert_eq(pl_prefixes_tokens(g.prefixes), pl_prefixes_tokens(f.prefixes));
    free(data);
    kv_fixture_close(&f);
    kv_fixture_close(&g);
    scratch_close(&dir);
}
