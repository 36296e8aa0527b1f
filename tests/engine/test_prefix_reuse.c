/* Kept prefixes change no bit: prompts that begin like others, taken over from whatever is kept, give the logits of a
 * fresh read, on every path, also when room is short and after a restart. */
#include "tests/engine/goldens.h"

#include "host/base/rng.h"
#include "host/engine/engine.h"
#include "host/engine/prefix.h"
#include "tests/unit/scratch.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 400 /* windows long: the demo's is 64; what all texts leave is more than local pages can hold */
#define TEXTS 6
#define ROWS 96
#define LAST 8 /* logits compared at the end of each prompt */

static const char *const paths[] = {"e4b", "e2b", "mix"};

#define PATHS (sizeof paths / sizeof *paths)

/* The engine under test, and one that reads everything afresh. */
typedef struct pair {
    fixture kept, fresh;
    pl_prefixes *prefixes;
    pl_path path[PATHS];
    int32_t text[TEXTS][TOKENS];
    int64_t reused, read;
} pair;

static int below(pl_rng *rng, int n)
{
    return (int)(pl_rng_next(rng) % (uint64_t)n);
}

static fixture open_engine(int64_t kv_tokens, pl_cache_type cache)
{
    pl_engine_params params = {.backend = PL_BACKEND_CPU,
                               .threads = 2,
                               .sessions = 2,
                               .context = 2048,
                               .batch_rows = ROWS,
                               .kv_tokens = kv_tokens,
                               .cache = cache,
                               .no_pin = true};
    return fixture_open_with(DEMO_MODEL, &params);
}

static void begin_with(pair *p, int64_t kv_tokens, pl_cache_type cache)
{
    pl_error err = {0};
    p->kept = open_engine(kv_tokens, cache);
    p->fresh = open_engine(0, cache);
    p->reused = p->read = 0;
    cr_assert_eq(pl_prefixes_create(p->kept.engine->config, p->kept.engine->kv, &p->prefixes, &err), PL_OK, "%s",
                 err.message);
    for (size_t i = 0; i < PATHS; i++)
        cr_assert_eq(pl_path_parse(p->kept.engine->model->checkpoint, paths[i], &p->path[i], &err), PL_OK, "%s",
                     err.message);
}

static void begin(pair *p, int64_t kv_tokens)
{
    begin_with(p, kv_tokens, PL_CACHE_F32);
}

static void end(pair *p)
{
    pl_prefixes_free(p->prefixes);
    fixture_close(&p->kept);
    fixture_close(&p->fresh);
}

/* Texts that share beginnings of all lengths with those before them. */
static void compose(pair *p, pl_rng *rng)
{
    for (int i = 0; i < TEXTS; i++) {
        int same = i > 0 ? below(rng, TOKENS) : 0;
        if (i > 0)
            memcpy(p->text[i], p->text[below(rng, i)], sizeof *p->text);
        for (int t = same; t < TOKENS; t++)
            p->text[i][t] = below(rng, p->kept.engine->config->vocab);
    }
}

/* Reads ids[from..n) in steps of up to `most` rows; the logits of the last ones go to `logits`, [LAST][vocab]. */
static void read_ids(pl_engine *e, int32_t id, const pl_path *path, const int32_t *ids, int32_t n, int most,
                     float *logits, pl_prefixes *prefixes)
{
    pl_error err = {0};
    size_t vocab = (size_t)e->config->vocab;
    for (int32_t from = pl_kv_length(e->kv, id), part; from < n; from += part) {
        pl_step_row rows[ROWS];
        int wanted = 0;
        part = n - from < most ? n - from : most;
        cr_assert_eq(pl_kv_extend(e->kv, id, part, &err), PL_OK, "%s", err.message);
        for (int32_t i = 0; i < part; i++)
            rows[i] = (pl_step_row){.token = ids[from + i],
                                    .position = from + i,
                                    .sequence = id,
                                    .path = path,
                                    .wanted = from + i >= n - LAST};
        cr_assert_eq(pl_step_run(e->step, rows, part, NULL, NULL, &err), PL_OK, "%s", err.message);
        for (int32_t i = 0; i < part; i++) {
            const float *row;
            if (!rows[i].wanted)
                continue;
            cr_assert_eq(pl_step_logits(e->step, wanted++, 1, &row, &err), PL_OK, "%s", err.message);
            memcpy(logits + (size_t)(from + i - (n - LAST)) * vocab, row, vocab * sizeof *row);
        }
        if (prefixes)
            pl_prefixes_keep(prefixes, id, path, ids, false);
    }
}

/* The first n tokens of a text, with what is kept of them and without. */
static void check_prompt(pair *p, const pl_path *path, const int32_t *ids, int32_t n, int most)
{
    pl_engine *e = p->kept.engine, *f = p->fresh.engine;
    size_t row = (size_t)e->config->vocab * sizeof(float);
    float *got = calloc(LAST, row), *want = calloc(LAST, row);
    int32_t id, fresh_id;
    cr_assert(got && want);
    cr_assert_eq(pl_kv_open(e->kv, &id, NULL), PL_OK);
    cr_assert_eq(pl_kv_open(f->kv, &fresh_id, NULL), PL_OK);
    int32_t reused = pl_prefixes_adopt(p->prefixes, id, path, ids, n);
    p->reused += reused;
    p->read += n - reused;
    read_ids(e, id, path, ids, n, most, got, p->prefixes);
    read_ids(f, fresh_id, path, ids, n, ROWS, want, NULL);
    int32_t first = n - LAST > reused ? 0 : reused - (n - LAST); /* of the others nothing was computed again */
    cr_assert_eq(
        memcmp((char *)got + (size_t)first * row, (char *)want + (size_t)first * row, (size_t)(LAST - first) * row), 0,
        "%d tokens, %d of them reused, %s", n, reused, path->name);
    pl_prefixes_keep(p->prefixes, id, path, ids, true);
    pl_kv_close(e->kv, id);
    pl_kv_close(f->kv, fresh_id);
    free(got);
    free(want);
}

static void check_prompts(pair *p, int count, pl_rng *rng)
{
    for (int i = 0; i < count; i++) {
        const pl_path *path = &p->path[below(rng, 6) ? 0 : below(rng, (int)PATHS)];
        check_prompt(p, path, p->text[below(rng, TEXTS)], LAST + 1 + below(rng, TOKENS - LAST), 1 + below(rng, ROWS));
    }
}

Test(prefix_reuse, changes_no_bit)
{
    static const int64_t budgets[] = {0, 2048};
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        static pair p;
        pl_rng rng;
        pl_rng_seed(&rng, 5 + i);
        begin(&p, budgets[i]);
        compose(&p, &rng);
        check_prompts(&p, 6, &rng);
        cr_assert_gt(p.reused, p.read / 4, "%lld read, %lld reused", (long long)p.read, (long long)p.reused);
        end(&p);
    }
}

static void forget_all(pair *p)
{
    pl_error err = {0};
    pl_prefixes_free(p->prefixes);
    cr_assert_eq(pl_prefixes_create(p->kept.engine->config, p->kept.engine->kv, &p->prefixes, &err), PL_OK, "%s",
                 err.message);
}

/* On each path, prompts cut at places all over a page and around the window. */
Test(prefix_reuse, wherever_it_is_cut)
{
    static pair p;
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    begin(&p, 0);
    compose(&p, &rng);
    for (int cut = LAST; cut < 220; cut += 47) {
        const pl_path *path = &p.path[cut % (int)PATHS];
        int32_t ids[TOKENS];
        memcpy(ids, p.text[0], sizeof ids);
        for (int t = cut; t < TOKENS; t++)
            ids[t] = (ids[t] + 1) % p.kept.engine->config->vocab;
        forget_all(&p);
        check_prompt(&p, path, p.text[0], 240, ROWS);
        cr_assert_eq(p.reused, 0);
        check_prompt(&p, path, ids, cut + LAST + 1, 1 + below(&rng, ROWS));
        cr_assert_eq(p.reused, cut);
        p.reused = 0;
    }
    end(&p);
}

/* What paths of other K/V have kept is not found. */
Test(prefix_reuse, paths_do_not_mix)
{
    static pair p;
    pl_rng rng;
    pl_rng_seed(&rng, 2);
    begin(&p, 0);
    compose(&p, &rng);
    int other = 0;
    for (size_t i = 0; i < PATHS; i++) {
        forget_all(&p);
        check_prompt(&p, &p.path[i], p.text[0], 200, ROWS);
        for (size_t j = 0; j < PATHS; j++) {
            bool same = pl_path_same_kv(p.kept.engine->config, &p.path[i], &p.path[j]);
            cr_assert_eq(pl_prefixes_match(p.prefixes, &p.path[j], p.text[0], 200), same ? 199 : 0);
            other += !same;
        }
        for (size_t j = 0; j < PATHS; j++)
            check_prompt(&p, &p.path[j], p.text[0], 199, ROWS);
    }
    cr_assert_gt(other, 0);
    end(&p);
}

/* The process ends and another goes on with the file. */
Test(prefix_reuse, after_a_restart)
{
    scratch dir;
    scratch_open(&dir);
    const char *file = scratch_path(&dir, "kept");
    static pair p;
    pl_error err = {0};
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    begin(&p, 0);
    compose(&p, &rng);
    check_prompts(&p, 6, &rng);
    cr_assert_eq(pl_prefixes_save(p.prefixes, 1, file, &err), PL_OK, "%s", err.message);
    end(&p);
    begin(&p, 0);
    cr_assert_eq(pl_prefixes_load(p.prefixes, 1, file, &err), PL_OK, "%s", err.message);
    check_prompts(&p, 6, &rng);
    cr_assert_gt(p.reused, p.read / 4, "%lld read, %lld reused", (long long)p.read, (long long)p.reused);
    end(&p);
    scratch_close(&dir);
}

/* Kept K/V of 8 bits are read back as they were, by engines that keep such. */
Test(prefix_reuse, narrow_types)
{
    scratch dir;
    scratch_open(&dir);
    const char *file = scratch_path(&dir, "kept");
    static pair p;
    pl_error err = {0};
    pl_rng rng;
    pl_rng_seed(&rng, 4);
    begin_with(&p, 0, PL_CACHE_Q8_0);
    compose(&p, &rng);
    check_prompts(&p, 3, &rng);
    cr_assert_eq(pl_prefixes_save(p.prefixes, 1, file, &err), PL_OK, "%s", err.message);
    forget_all(&p);
    cr_assert_eq(pl_prefixes_load(p.prefixes, 1, file, &err), PL_OK, "%s", err.message);
    p.reused = 0;
    check_prompts(&p, 3, &rng);
    cr_assert_gt(p.reused, 0);
    end(&p);
    for (pl_cache_type type = PL_CACHE_F32; type <= PL_CACHE_F16; type++) {
        begin_with(&p, 0, type);
        cr_assert_eq(pl_prefixes_load(p.prefixes, 1, file, &err), PL_ERR_FORMAT);
        cr_assert(strstr(err.message, "kept in q8_0, these in") && strstr(err.message, pl_cache_type_name(type)), "%s",
                  err.message);
        cr_assert_eq(pl_prefixes_tokens(p.prefixes), 0);
        end(&p);
    }
    scratch_close(&dir);
}
