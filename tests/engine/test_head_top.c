/* Answers do not depend on whether the head finds the largest logits by the coarse copy. */
#include "host/cpu/head_screen.h"
#include "host/cpu/stream.h"
#include "host/engine/sampler.h"
#include "host/engine/session.h"
#include "tests/engine/served.h"

#include <criterion/criterion.h>
#include <string.h>

#define MAX_TOKENS 60

typedef struct answer {
    int32_t token[MAX_TOKENS + 1];
    size_t n;
} answer;

static bool collect(void *user, const pl_token_event *event)
{
    answer *a = user;
    if (event->id >= 0)
        a->token[a->n++] = event->id;
    return true;
}

static answer ask(fixture *f, const char *question, pl_sampling sampling, pl_drafting draft, pl_generated *made)
{
    answer a = {.n = 0};
    pl_error err;
    pl_tokens prompt;
    pl_message turn = {"user", question};
    pl_generation params = pl_generation_default();
    params.sampling = sampling;
    params.draft = draft;
    params.max_tokens = MAX_TOKENS;
    params.ignore_eos = true;
    params.on_token = collect;
    params.user = &a;
    cr_assert_eq(pl_tokenize_chat(f->model, &turn, 1, true, &prompt, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_generate(f->session, prompt.ids, prompt.n, &params, made, &err), PL_OK, "%s", err.message);
    pl_tokens_free(&prompt);
    return a;
}

static pl_head_screen_count counted(const fixture *f)
{
    return pl_head_screen_counted(f->engine->backend->stream->screen);
}

static void check_answers(pl_sampling sampling, bool screens)
{
    static const char *const questions[] = {"What is the capital of France?", "How are you?", "Tell me about rain."};
    fixture with = fixture_open(DEMO_MODEL, 2, 0), without = fixture_open(DEMO_MODEL, 1, 0);
    ((pl_ops *)(uintptr_t)without.session->engine->backend->ops)->head_top = NULL;
    for (int i = 0; i < 3; i++) {
        sampling.seed = (uint64_t)i;
        pl_drafting draft = pl_generation_default().draft;
        answer a = ask(&with, questions[i], sampling, draft, NULL);
        answer b = ask(&without, questions[i], sampling, draft, NULL);
        cr_assert_eq(a.n, b.n, "%zu tokens, expected %zu", a.n, b.n);
        cr_assert_arr_eq(a.token, b.token, a.n * sizeof *a.token);
    }
    cr_assert_eq(counted(&without).calls, 0);
    if (screens)
        cr_assert_gt(counted(&with).screened, 20, "%lld of %lld", (long long)counted(&with).screened,
                     (long long)counted(&with).calls);
    else
        cr_assert_eq(counted(&with).calls, 0);
    fixture_close(&with);
    fixture_close(&without);
}

Test(head_top, greedy)
{
    pl_sampling sampling = pl_sampling_default();
    sampling.temperature = 0;
    check_answers(sampling, true);
}

Test(head_top, drawn_from_the_best_few)
{
    pl_sampling sampling = pl_sampling_default();
    sampling.top_k = 8;
    sampling.temperature = 1.5f;
    check_answers(sampling, true);
}

Test(head_top, where_all_logits_count_the_whole_head_is_read)
{
    pl_sampling sampling = pl_sampling_default();
    sampling.top_k = 8;
    sampling.repeat_penalty = 1.1f;
    check_answers(sampling, false);
    sampling = pl_sampling_default();
    sampling.top_k = 0;
    check_answers(sampling, false);
}

/* Side by side, eight rows a step, each finds what it finds alone in the whole head. */
Test(head_top, of_eight_answers_at_once)
{
    enum { N = 8, TOKENS = 200 };
    const pl_engine_params engine = {.sessions = N};
    bench b = bench_open(&engine, NULL);
    static served of[N];
    int32_t ids[N][20];
    ((pl_ops *)(uintptr_t)b.alone.session->engine->backend->ops)->head_top = NULL;
    for (int i = 0; i < N; i++) {
        fill_ids(ids[i], 20, i);
        served_init(&of[i], &b.crowd, ids[i], 20, TOKENS);
        if (i % 2) {
            of[i].request.generation.sampling = pl_sampling_default();
            of[i].request.generation.sampling.seed = (uint64_t)i;
            of[i].request.generation.sampling.top_k = 1 << i / 2;
        }
        served_submit(&of[i], b.scheduler);
    }
    crowd_wait(&b.crowd, N);
    for (int i = 0; i < N; i++) {
        heard alone;
        answer_alone(b.alone.session, &of[i], NULL, &alone);
        expect_same(&of[i], &alone, "beside seven others");
        served_free(&of[i]);
    }
    pl_head_screen_count count = counted(&b.served);
    cr_assert_gt(count.screened, N * TOKENS / 2, "%lld in %lld steps", (long long)count.screened,
                 (long long)count.calls);
    bench_close(&b);
}

/* What another path proposes is guessed, and nothing else. */
Test(head_top, drafts_are_guessed)
{
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    for (int drawn = 0; drawn < 2; drawn++) {
        int64_t guessed = counted(&f).guessed;
        pl_sampling sampling = pl_sampling_default();
        sampling.temperature = drawn ? 1 : 0;
        sampling.top_k = 0;
        answer plain = ask(&f, "What is the capital of France?", sampling, (pl_drafting){0}, NULL);
        cr_assert_eq(counted(&f).guessed, guessed);
        pl_generated made;
        answer a = ask(&f, "What is the capital of France?", sampling, (pl_drafting){.most = 3, .path = "e2b"}, &made);
        cr_assert_eq(a.n, plain.n);
        cr_assert_arr_eq(a.token, plain.token, a.n * sizeof *a.token);
        cr_assert_gt(made.drafts.accepted[PL_DRAFT_PATH], 5);
        cr_assert_eq(counted(&f).guessed - guessed, (int64_t)made.drafts.drafted[PL_DRAFT_PATH]);
    }
    fixture_close(&f);
}

static const char *no_text(void *user, int32_t id, size_t *n)
{
    (void)user;
    (void)id;
    *n = 0;
    return NULL;
}

static int32_t top_of(pl_sampling sampling)
{
    pl_sampler *s;
    cr_assert_eq(pl_sampler_create(&sampling, 2048, 64, no_text, NULL, &s, NULL), PL_OK);
    int32_t top = pl_sampler_top(s, PL_HEAD_TOP);
    pl_sampler_free(s);
    return top;
}

Test(head_top, how_many_a_sampler_depends_on)
{
    pl_sampling p = pl_sampling_default();
    cr_expect_eq(top_of(p), 64);
    p.top_k = PL_HEAD_TOP + 1;
    cr_expect_eq(top_of(p), 0);
    p.temperature = 0;
    cr_expect_eq(top_of(p), 1);
    p.presence_penalty = 0.1f;
    cr_expect_eq(top_of(p), 0);
    p = pl_sampling_default();
    p.dry_multiplier = 1;
    p.order[1] = PL_SAMPLER_TOP_K; /* DRY is not in the order */
    p.order[2] = PL_SAMPLER_END;
    cr_expect_eq(top_of(p), 64);
    p = pl_sampling_default();
    p.order[2] = PL_SAMPLER_MIN_P;
    p.order[3] = PL_SAMPLER_TOP_K;
    p.order[5] = PL_SAMPLER_TYPICAL;
    cr_expect_eq(top_of(p), 64, "min-p is off");
    p.min_p = 0.1f;
    cr_expect_eq(top_of(p), 0, "min-p comes first");
    p.temperature = 0;
    cr_expect_eq(top_of(p), 1);
    p.bias = &(pl_logit_bias){3, 1.0f};
    p.n_bias = 1;
    cr_expect_eq(top_of(p), 0);
}
