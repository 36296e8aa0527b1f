/* Prompts with images and sound on the card: their rows are made on the CPU and brought to it step by step. */
#include "tests/engine/tiny_media.h"

#define BOUND 1e-4

static tiny open_card(int batch_rows)
{
    pl_engine_params params = {.backend = PL_BACKEND_CUDA,
                               .ple = PL_PLE_HOST,
                               .sessions = 2,
                               .threads = 1,
                               .context = 256,
                               .batch_rows = batch_rows,
                               .no_pin = true};
    return tiny_open_with(&params);
}

Test(media_card, numbers_of_the_reference)
{
    static const char *const names[] = {"image_audio", "hard_tokens", "two_audios"};
    static const int rows[] = {64, 7};
    for (int r = 0; r < 2; r++) {
        tiny t = open_card(rows[r]);
        for (size_t i = 0; i < 3; i++) {
            tiny_prompt p = tiny_prompt_of(&t, names[i], TINY_ROWS);
            int64_t n;
            const float *expected = tiny_golden(&t, names[i], "logits", &n);
            float *logits = malloc((size_t)n * sizeof *logits);
            cr_assert_eq(pl_logits(t.f.session, p.ids, p.n, false, logits, NULL), PL_OK);
            cr_expect_lt(relative_l2(logits, expected, n), BOUND, "%s", names[i]);
            free(logits);
            tiny_prompt_free(&p);
        }
        tiny_close(&t);
    }
}

typedef struct answer {
    int32_t ids[16];
    int n;
} answer;

static bool hear(void *user, const pl_token_event *event)
{
    answer *a = user;
    if (event->id >= 0)
        a->ids[a->n++] = event->id;
    return true;
}

/* Steps that draw, the towers' work beside them; penalties look back on words alone. */
static answer answer_on(const tiny *t, tiny_source source)
{
    answer a = {.n = 0};
    pl_error err;
    pl_generation g = pl_generation_default();
    g.max_tokens = 12;
    g.ignore_eos = true;
    g.sampling.repeat_penalty = 1.2f;
    g.sampling.penalty_last_n = -1;
    g.on_token = hear;
    g.user = &a;
    tiny_prompt p = tiny_prompt_of(t, "two_images", source);
    cr_assert_eq(pl_generate(t->f.session, p.ids, p.n, &g, NULL, &err), PL_OK, "%s", err.message);
    tiny_prompt_free(&p);
    return a;
}

Test(media_card, answers_as_on_the_cpu)
{
    tiny card = open_card(64), cpu = tiny_open(64, 2);
    answer want = answer_on(&cpu, TINY_ROWS), got = answer_on(&card, TINY_ROWS);
    cr_expect_eq(got.n, 12);
    cr_expect_arr_eq(got.ids, want.ids, sizeof got.ids[0] * 12);
    answer seen = answer_on(&card, TINY_TOWERS);
    cr_expect_arr_eq(seen.ids, want.ids, sizeof got.ids[0] * 12);
    tiny_close(&card);
    tiny_close(&cpu);
}
