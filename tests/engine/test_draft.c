/* Whatever is proposed, by whom and how much of it: pl_generate() answers the same. */
#include "tests/engine/drafts.h"

#include "host/engine/session.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 40, ANSWER = 32, CONTEXT = 128 };

/* Two sessions of the demo model: one never proposes anything. */
typedef struct pair {
    fixture fixture;
    pl_session *plain, *drafting;
    pl_grammar *grammar;
} pair;

static pair pair_open(int batch_rows)
{
    static const char list[] = "([0-9]{1,3}, ){3,9}[A-Z][a-z]+";
    pl_engine_params params = {.backend = PL_BACKEND_CPU,
                               .threads = 2,
                               .no_pin = true,
                               .sessions = 2,
                               .context = CONTEXT,
                               .batch_rows = batch_rows};
    pair p = {.fixture = fixture_open_with(DEMO_MODEL, &params)};
    p.plain = p.fixture.session;
    cr_assert_eq(pl_session_create(p.fixture.engine, &p.drafting, NULL), PL_OK);
    cr_assert_eq(pl_grammar_compile(p.fixture.model, PL_GRAMMAR_REGEX, list, sizeof list - 1, &p.grammar, NULL), PL_OK);
    return p;
}

static void pair_close(pair *p)
{
    pl_grammar_free(p->grammar);
    pl_session_free(p->drafting);
    fixture_close(&p->fixture);
}

static void set_path(pair *p, const char *path)
{
    pl_error err = {0};
    cr_assert_eq(pl_session_set_path(p->plain, path, PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_session_set_path(p->drafting, path, PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
}

static pl_generated answer(pl_session *s, const int32_t *prompt, size_t n, pl_generation params, heard *out)
{
    pl_error err = {0};
    pl_generated made = {0};
    int stop_after = out->stop_after;
    memset(out, 0, sizeof *out);
    out->stop_after = stop_after;
    params.on_token = hear_alone;
    params.user = out;
    pl_status status = pl_generate(s, prompt, n, &params, &made, &err);
    cr_assert(status == PL_OK || (status == PL_ERR_CANCELLED && stop_after), "%s", err.message);
    return made;
}

static bool same_floats(const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

static void expect_equal(const heard *a, const heard *b, const pl_generated *ma, const pl_generated *mb,
                         const char *what)
{
    cr_assert_eq(a->n, b->n, "%s: %d tokens, expected %d", what, b->n, a->n);
    for (int i = 0; i < a->n; i++)
        cr_assert_eq(a->ids[i], b->ids[i], "%s: token %d is %d, expected %d", what, i, b->ids[i], a->ids[i]);
    cr_assert(same_floats(a->logprob, b->logprob, a->n), "%s: log probabilities differ", what);
    cr_assert_eq(memcmp(a->top, b->top, sizeof a->top), 0, "%s: alternatives differ", what);
    cr_assert_eq(a->n_text, b->n_text, "%s", what);
    cr_assert_eq(memcmp(a->text, b->text, a->n_text), 0, "%s: text differs", what);
    cr_assert_eq(ma->finish, mb->finish, "%s", what);
    cr_assert_eq(ma->n_tokens, mb->n_tokens, "%s", what);
    cr_assert_eq(ma->stop_index, mb->stop_index, "%s", what);
}

/* What the sessions hold afterwards: as many tokens, and K/V that the next turn's answer shows to be the same. */
static void expect_same_end(pair *p, const int32_t *prompt, const heard *said, const char *what)
{
    pl_engine *e = p->fixture.engine;
    int32_t turn[CONTEXT], n = PROMPT;
    heard a = {0}, b = {0};
    pl_generation params = pl_generation_default();
    cr_assert_eq(p->plain->n_tokens, p->drafting->n_tokens, "%s", what);
    cr_assert_leq(pl_kv_length(e->kv, p->drafting->sequence), p->drafting->n_tokens, "%s", what);
    cr_assert_geq(pl_kv_length(e->kv, p->drafting->sequence), pl_kv_length(e->kv, p->plain->sequence), "%s", what);
    memcpy(turn, prompt, PROMPT * sizeof *turn);
    for (int i = 0; i < said->n && n < CONTEXT - 4; i++)
        turn[n++] = said->ids[i];
    turn[n++] = 600;
    params.max_tokens = 3;
    params.n_logprobs = SERVED_TOP;
    params.ignore_eos = true;
    params.sampling.temperature = 0;
    pl_generated ma = answer(p->plain, turn, (size_t)n, params, &a);
    pl_generated mb = answer(p->drafting, turn, (size_t)n, params, &b);
    cr_assert_geq(mb.n_prompt_reused, ma.n_prompt_reused, "%s: %zu tokens kept, expected %zu", what, mb.n_prompt_reused,
                  ma.n_prompt_reused);
    expect_equal(&a, &b, &ma, &mb, what);
}

/* Answers with and without, proposals of a liar's. Returns what was accepted. */
static uint64_t compare(pair *p, const char *path, pl_generation params, pl_drafting draft, int wrong_of_8,
                        uint64_t seed)
{
    int32_t prompt[PROMPT];
    heard a = {0}, b = {0};
    char what[128];
    snprintf(what, sizeof what, "seed %d on %s, draft %d%s%s", (int)seed, path, draft.most,
             draft.path ? " by path " : "", draft.path ? draft.path : "");
    fill_ids(prompt, PROMPT, (int)seed);
    set_path(p, path);
    pl_generated ma = answer(p->plain, prompt, PROMPT, params, &a);
    liar l = liar_of(&a, PROMPT, wrong_of_8, seed);
    params.draft = draft;
    if (wrong_of_8 >= 0) {
        params.draft.propose = liar_propose;
        params.draft.user = &l;
    }
    pl_generated mb = answer(p->drafting, prompt, PROMPT, params, &b);
    expect_equal(&a, &b, &ma, &mb, what);
    expect_same_end(p, prompt, &a, what);
    uint64_t accepted = 0;
    for (int i = 0; i < PL_DRAFT_SOURCES; i++) {
        cr_assert_leq(mb.drafts.accepted[i], mb.drafts.drafted[i], "%s", what);
        accepted += mb.drafts.accepted[i];
    }
    cr_assert_leq(accepted, mb.n_tokens, "%s", what);
    return accepted;
}

Test(draft, every_form_of_answer)
{
    static const char *const paths[3] = {"e4b", "mix", "e2b"};
    pair p = pair_open(0);
    uint64_t accepted = 0;
    for (int i = 0; i < 3 * DRAFTS_FORMS; i++) {
        pl_generation params = pl_generation_default();
        pl_drafting draft = {.most = 1 + i * 7 % 15};
        params.max_tokens = ANSWER;
        drafts_form(&params, i % DRAFTS_FORMS, p.grammar, (uint64_t)i);
        accepted += compare(&p, paths[i / DRAFTS_FORMS], params, draft, i / DRAFTS_FORMS, (uint64_t)i);
    }
    cr_assert_gt(accepted, 300, "%d accepted", (int)accepted);
    pair_close(&p);
}

Test(draft, steps_of_few_rows_and_ends_of_all_kinds)
{
    uint64_t accepted = 0;
    for (int rows = 1; rows <= 9; rows += 4) {
        pair p = pair_open(rows);
        for (int max = -1; max <= 9; max += 2) {
            pl_generation params = pl_generation_default();
            params.max_tokens = max;
            params.ignore_eos = true;
            accepted += compare(&p, "e4b", params, (pl_drafting){.most = 15}, 1, (uint64_t)(rows * 100 + max));
        }
        pair_close(&p);
    }
    cr_assert_gt(accepted, 100);
}

Test(draft, only_lies)
{
    pair p = pair_open(0);
    for (int form = 0; form < DRAFTS_FORMS; form++) {
        pl_generation params = pl_generation_default();
        params.max_tokens = 20;
        drafts_form(&params, form, p.grammar, 77);
        compare(&p, "e4b", params, (pl_drafting){.most = 8}, 8, (uint64_t)form);
    }
    pair_close(&p);
}

Test(draft, the_text_and_the_paths_propose)
{
    static const char *const path[4] = {NULL, "e2b", "mix", "mix:widths=128"};
    static const int most[3] = {-1, 4, 15};
    pair p = pair_open(0);
    for (int i = 0; i < 4; i++) {
        uint64_t accepted = 0;
        for (int j = 0; j < 3; j++) {
            pl_generation params = pl_generation_default();
            params.max_tokens = ANSWER;
            params.ignore_eos = true;
            params.sampling.temperature = j == 1 ? 1.0f : 0;
            accepted += compare(&p, "e4b", params, (pl_drafting){.most = most[j], .path = path[i]}, -1, (uint64_t)i);
        }
        cr_assert_gt(accepted, 5, "%s: %d accepted", path[i] ? path[i] : "text", (int)accepted);
    }
    pair_close(&p);
}

Test(draft, a_caller_that_stops_leaves_what_it_saw)
{
    pair p = pair_open(0);
    for (int stop = 1; stop <= 12; stop++) {
        int32_t prompt[PROMPT];
        heard a = {.stop_after = stop}, b = {.stop_after = stop}, all = {0};
        pl_generation params = pl_generation_default();
        params.max_tokens = 20;
        params.ignore_eos = true;
        params.sampling.temperature = 0;
        fill_ids(prompt, PROMPT, stop);
        set_path(&p, "e4b");
        answer(p.plain, prompt, PROMPT, params, &all);
        pl_generated ma = answer(p.plain, prompt, PROMPT, params, &a);
        liar l = liar_of(&all, PROMPT, 0, 1);
        params.draft = (pl_drafting){.most = 6, .propose = liar_propose, .user = &l};
        pl_generated mb = answer(p.drafting, prompt, PROMPT, params, &b);
        expect_equal(&a, &b, &ma, &mb, "stopped");
        expect_same_end(&p, prompt, &a, "stopped");
    }
    pair_close(&p);
}

Test(draft, what_cannot_be_is_refused)
{
    pair p = pair_open(0);
    int32_t prompt[PROMPT];
    pl_error err;
    pl_generation params = pl_generation_default();
    fill_ids(prompt, PROMPT, 0);
    params.max_tokens = 2;
    params.draft.most = 16;
    cr_assert_eq(pl_generate(p.plain, prompt, PROMPT, &params, NULL, &err), PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, "draft: most is 16, expected -1 to 15");
    params.draft = (pl_drafting){.most = 4, .path = "e9b"};
    cr_assert_eq(pl_generate(p.plain, prompt, PROMPT, &params, NULL, &err), PL_ERR_ARGUMENT);
    pair_close(&p);
}

/* ---- distribution ---- */

enum { DRAWS = 1000, KEPT = 12 };

/* chi^2 of what was drawn against the KEPT best of these logits. */
static double chi_square(const float *logits, int vocab, const int *count, int draws)
{
    pl_logprob top[KEPT];
    float unused;
    double sum = 0, chi = 0;
    cr_assert_eq(pl_sampler_logprobs(logits, vocab, 0, &unused, top, KEPT, NULL), PL_OK);
    for (int i = 0; i < KEPT; i++)
        sum += exp(top[i].logprob);
    for (int i = 0; i < KEPT; i++) {
        double expected = exp(top[i].logprob) / sum * draws, off = count[top[i].id] - expected;
        cr_assert_gt(expected, 5);
        chi += off * off / expected;
    }
    return chi;
}

/* Behind a first token that was proposed, or not, the second one is drawn as the model has it. */
Test(draft, tokens_are_drawn_as_the_model_has_them)
{
    fixture f = fixture_open("e2b", 1, 0);
    int32_t ids[PROMPT + 1];
    heard h = {0}, truth = {0};
    int vocab = pl_model_vocab_size(f.model), drawn = 0;
    float *logits = malloc((size_t)(PROMPT + 1) * (size_t)vocab * sizeof *logits);
    int *count = calloc((size_t)vocab, sizeof *count);
    cr_assert(logits && count);
    for (int i = 0; i < PROMPT; i++)
        ids[i] = 3 + i * 7 % 50;
    pl_generation params = pl_generation_default();
    params.max_tokens = 2;
    params.ignore_eos = true;
    params.sampling.temperature = 0;
    answer(f.session, ids, PROMPT, params, &truth);
    ids[PROMPT] = truth.ids[0];
    params.sampling = pl_sampling_default();
    params.sampling.top_k = KEPT;
    params.sampling.top_p = 1;
    params.sampling.bias = &(pl_logit_bias){truth.ids[0], 3}; /* so that it is drawn often */
    params.sampling.n_bias = 1;
    for (int i = 0; i < DRAWS; i++) {
        liar l = liar_of(&truth, PROMPT, 1, (uint64_t)i);
        params.draft = (pl_drafting){.most = 3, .propose = liar_propose, .user = &l};
        params.sampling.seed = (uint64_t)i;
        answer(f.session, ids, PROMPT, params, &h);
        if (h.ids[0] == ids[PROMPT])
            count[h.ids[1]] += ++drawn > 0;
    }
    cr_assert_gt(drawn, DRAWS / 4, "%d", drawn);
    cr_assert_eq(pl_logits(f.session, ids, PROMPT + 1, false, logits, NULL), PL_OK);
    logits[(size_t)PROMPT * (size_t)vocab + (size_t)ids[PROMPT]] += 3;
    double chi = chi_square(logits + (size_t)PROMPT * (size_t)vocab, vocab, count, drawn);
    cr_assert_lt(chi, 31.3, "chi^2 is %g: with 11 degrees of freedom more than 31.3 has a chance of 0.001", chi);
    free(logits);
    free(count);
    fixture_close(&f);
}
