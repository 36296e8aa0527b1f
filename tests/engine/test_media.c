/* Prompts with images and sound against the reference's numbers; rows of the towers as recorded, so that only what the
 * engine does with them is looked at, unless a test says otherwise. */
#include "tests/engine/tiny_media.h"

#include "host/engine/media.h"
#include "host/engine/trace.h"

#include <math.h>

#define BOUND 1e-4
#define MARGIN 0.01 /* of the logits: where the two best are nearer, either may come */

static const char *const names[] = {"text", "image", "audio", "image_audio", "two_images", "two_audios", "hard_tokens"};
#define NAMES (sizeof names / sizeof *names)

/* ---- goldens ----------------------------------------------------------------------------------- */

typedef struct comparison {
    const tiny *t;
    const char *name;
    int compared;
} comparison;

static void compare(void *user, const pl_trace_tensor *tensor)
{
    static const char *const pairs[][2] = {
        {"embeds", "inputs_embeds"}, {"ple_lookup", "per_layer_token"}, {"per_layer_inputs", "per_layer_inputs"}};
    comparison *c = user;
    int64_t n;
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(tensor->name, pairs[i][0]) != 0)
            continue;
        const float *expected = tiny_golden(c->t, c->name, pairs[i][1], &n);
        cr_assert_eq(n, tensor->rows * tensor->width, "%s %s", c->name, tensor->name);
        cr_expect_lt(relative_l2(tensor->v, expected, n), BOUND, "%s %s", c->name, tensor->name);
        c->compared++;
    }
}

static void check_numbers(tiny *t, const char *name)
{
    tiny_prompt p = tiny_prompt_of(t, name, TINY_ROWS);
    comparison c = {t, name, 0};
    int64_t n;
    const float *expected = tiny_golden(t, name, "logits", &n);
    float *logits = malloc((size_t)n * sizeof *logits);
    pl_error err;
    pl_session_trace(t->f.session, compare, &c);
    cr_assert_eq(pl_logits(t->f.session, p.ids, p.n, false, logits, &err), PL_OK, "%s: %s", name, err.message);
    pl_session_trace(t->f.session, NULL, NULL);
    cr_expect_eq(c.compared, 3);
    cr_expect_lt(relative_l2(logits, expected, n), BOUND, "%s", name);
    free(logits);
    tiny_prompt_free(&p);
}

Test(media, numbers_of_the_reference)
{
    tiny t = tiny_open(0, 0);
    for (size_t i = 0; i < NAMES; i++)
        check_numbers(&t, names[i]);
    tiny_close(&t);
}

typedef struct answer {
    int32_t ids[32];
    int n;
} answer;

static bool hear(void *user, const pl_token_event *event)
{
    answer *a = user;
    if (event->id >= 0 && a->n < 32)
        a->ids[a->n++] = event->id;
    return true;
}

static pl_generation greedy(answer *a, int n)
{
    pl_generation g = pl_generation_default();
    g.max_tokens = n;
    g.sampling.temperature = 0;
    g.ignore_eos = true;
    g.on_token = hear;
    g.user = a;
    return g;
}

static answer answer_to(pl_session *s, const tiny_prompt *p, int n, pl_generated *out)
{
    answer a = {.n = 0};
    pl_error err;
    pl_generation g = greedy(&a, n);
    cr_assert_eq(pl_generate(s, p->ids, p->n, &g, out, &err), PL_OK, "%s", err.message);
    cr_assert_eq(a.n, n);
    return a;
}

static void expect_same(const answer *a, const answer *b)
{
    cr_expect_eq(a->n, b->n);
    cr_expect_arr_eq(a->ids, b->ids, sizeof a->ids[0] * (size_t)a->n);
}

/* Ids of the towers' own come out too, and are read again as what they are. */
Test(media, greedy_tokens)
{
    tiny t = tiny_open(0, 0);
    for (size_t i = 0; i < NAMES; i++) {
        const json_t *c = json_object_get(t.cases, names[i]), *ids = json_object_get(c, "greedy");
        const json_t *margin = json_object_get(c, "greedy_margin");
        tiny_prompt p = tiny_prompt_of(&t, names[i], TINY_ROWS);
        answer a = answer_to(t.f.session, &p, 10, NULL);
        for (size_t k = 0; k < json_array_size(ids); k++) {
            cr_expect_eq(a.ids[k], json_integer_value(json_array_get(ids, k)), "%s %zu", names[i], k);
            if (k < json_array_size(margin) && json_number_value(json_array_get(margin, k)) < MARGIN)
                break;
        }
        tiny_prompt_free(&p);
    }
    tiny_close(&t);
}

/* ---- ways to read it --------------------------------------------------------------------------- */

Test(media, cut_anywhere)
{
    tiny whole = tiny_open(64, 0);
    int64_t n;
    tiny_golden(&whole, "image_audio", "logits", &n);
    float *expected = malloc((size_t)n * sizeof *expected), *got = malloc((size_t)n * sizeof *got);
    tiny_prompt p = tiny_prompt_of(&whole, "image_audio", TINY_ROWS);
    cr_assert_eq(pl_logits(whole.f.session, p.ids, p.n, false, expected, NULL), PL_OK);
    for (size_t cut = 1; cut < p.n; cut++) {
        cr_assert_eq(pl_logits(whole.f.session, p.ids, cut, false, got, NULL), PL_OK);
        cr_assert_eq(pl_logits(whole.f.session, p.ids + cut, p.n - cut, true, got + cut * TINY_VOCAB, NULL), PL_OK);
        cr_assert_eq(memcmp(got, expected, (size_t)n * sizeof *got), 0, "cut at %zu", cut);
    }
    tiny_prompt_free(&p);
    for (int rows = 1; rows <= 7; rows += 3) {
        tiny parts = tiny_open(rows, 0);
        p = tiny_prompt_of(&parts, "image_audio", TINY_ROWS);
        cr_assert_eq(pl_logits(parts.f.session, p.ids, p.n, false, got, NULL), PL_OK);
        cr_assert_eq(memcmp(got, expected, (size_t)n * sizeof *got), 0, "%d rows a step", rows);
        tiny_prompt_free(&p);
        tiny_close(&parts);
    }
    free(expected);
    free(got);
    tiny_close(&whole);
}

/* The same image keeps its K/V; another one in its place does not. */
Test(media, reuse_by_content)
{
    tiny t = tiny_open(0, 0);
    pl_generated first, again, other;
    tiny_prompt p = tiny_prompt_of(&t, "image", TINY_TOWERS);
    answer a = answer_to(t.f.session, &p, 5, &first);
    tiny_prompt_free(&p);
    p = tiny_prompt_of(&t, "image", TINY_TOWERS);
    answer b = answer_to(t.f.session, &p, 5, &again);
    expect_same(&a, &b);
    cr_expect_eq(first.n_prompt_reused, 0);
    cr_expect_eq(again.n_prompt_reused, p.n - 1);
    pl_tower_stats stats;
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_eq(stats.images, 1);
    cr_expect_eq(stats.hits, 1);

    tiny_prompt rows = tiny_prompt_of(&t, "two_images", TINY_ROWS);
    const int32_t *ids;
    size_t n = pl_media_ids(rows.media[1], &ids);
    memcpy(p.ids + 6, ids, n * sizeof *ids);
    answer_to(t.f.session, &p, 1, &other);
    cr_expect_eq(other.n_prompt_reused, 6);
    tiny_prompt_free(&rows);
    tiny_prompt_free(&p);
    tiny_close(&t);
}

/* A session reads on with what its tokens stand for when nobody else has it any more. */
Test(media, held_by_the_session)
{
    tiny t = tiny_open(0, 2);
    pl_session *alone = NULL;
    cr_assert_eq(pl_session_create(t.f.engine, &alone, NULL), PL_OK);
    tiny_prompt p = tiny_prompt_of(&t, "image_audio", TINY_ROWS);
    answer want = answer_to(alone, &p, 8, NULL);
    cr_assert_eq(pl_session_prepare(t.f.session, p.ids, 20, NULL), PL_OK);
    cr_assert_eq(pl_session_prepare(t.f.session, p.ids, p.n, NULL), PL_OK);
    cr_expect_eq(pl_session_length(t.f.session), p.n);
    pl_session_free(alone);
    tiny_prompt_free(&p);
    cr_assert_eq(pl_session_set_path(t.f.session, "mix:widths=64", PL_SWITCH_EXACT, NULL), PL_OK);
    cr_assert_eq(pl_session_set_path(t.f.session, "e4b", PL_SWITCH_EXACT, NULL), PL_OK);
    pl_generated out;
    answer got = answer_to(t.f.session, &p, 8, &out);
    cr_expect_eq(out.n_prompt_reused, 0, "all of it was read again");
    expect_same(&got, &want);
    tiny_close(&t);
}

Test(media, prepared)
{
    tiny t = tiny_open(0, 0);
    pl_error err;
    pl_generated out;
    tiny_prompt p = tiny_prompt_of(&t, "image_audio", TINY_ROWS);
    answer want = answer_to(t.f.session, &p, 8, NULL);
    cr_assert_eq(pl_session_truncate(t.f.session, 0, NULL), PL_OK);
    for (size_t n = 1; n < p.n; n += 9)
        cr_assert_eq(pl_session_prepare(t.f.session, p.ids, n, NULL), PL_OK);
    answer got = answer_to(t.f.session, &p, 8, &out);
    cr_expect_eq(out.n_prompt_reused, 46, "the last preparation read so many");
    expect_same(&got, &want);
    cr_expect_eq(pl_session_prepare(t.f.session, p.ids, 0, &err), PL_ERR_ARGUMENT);
    int32_t many[600] = {0};
    cr_expect_eq(pl_session_prepare(t.f.session, many, 600, &err), PL_ERR_CONTEXT);
    tiny_prompt_free(&p);
    tiny_close(&t);
}

/* What is gone is refused, before anything is changed. */
Test(media, gone)
{
    tiny t = tiny_open(0, 0);
    pl_error err;
    tiny_prompt text = tiny_prompt_of(&t, "text", TINY_ROWS), p = tiny_prompt_of(&t, "image", TINY_ROWS);
    answer_to(t.f.session, &text, 1, NULL);
    int32_t first = p.ids[6];
    cr_assert_eq(first, TINY_VOCAB);
    tiny_prompt_free(&p);
    pl_generation g = pl_generation_default();
    cr_expect_eq(pl_generate(t.f.session, p.ids, p.n, &g, NULL, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "prompt token 6 is 288, which stands for no image or sound that is still there");
    cr_expect_eq(pl_session_prepare(t.f.session, p.ids, p.n, &err), PL_ERR_ARGUMENT);
    float logits[TINY_VOCAB];
    cr_expect_eq(pl_logits(t.f.session, &first, 1, false, logits, &err), PL_ERR_ARGUMENT);
    cr_expect_eq(pl_session_length(t.f.session), text.n + 1);
    first = -1;
    cr_expect_eq(pl_session_prepare(t.f.session, &first, 1, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "prompt token 0 is -1, expected 0 to 287");
    tiny_close(&t);
}

/* ---- what looks at tokens ---------------------------------------------------------------------- */

static answer answer_with(const tiny *t, const tiny_prompt *p, const pl_sampling *sampling, const pl_drafting *draft)
{
    answer a = {.n = 0};
    pl_error err;
    pl_generation g = greedy(&a, 20);
    g.sampling = *sampling;
    g.draft = *draft;
    cr_assert_eq(pl_generate(t->f.session, p->ids, p->n, &g, NULL, &err), PL_OK, "%s", err.message);
    return a;
}

/* Rows of images count for no penalty: with and without one the same words are penalised. */
Test(media, penalties_and_drafts)
{
    tiny t = tiny_open(0, 0);
    tiny_prompt p = tiny_prompt_of(&t, "two_images", TINY_ROWS);
    pl_sampling sampling = pl_sampling_default();
    sampling.temperature = 0;
    sampling.repeat_penalty = 1.3f;
    sampling.presence_penalty = 0.5f;
    sampling.penalty_last_n = -1;
    sampling.dry_multiplier = 0.8f;
    pl_drafting none = {.most = 0}, some = {.most = 3};
    answer plain = answer_with(&t, &p, &sampling, &none), drafted = answer_with(&t, &p, &sampling, &some);
    expect_same(&plain, &drafted);
    for (int i = 0; i < plain.n; i++)
        cr_expect_lt(plain.ids[i], TINY_VOCAB);
    tiny_prompt_free(&p);
    tiny_close(&t);
}

/* ---- objects ----------------------------------------------------------------------------------- */

Test(media, ids)
{
    tiny t = tiny_open(0, 0);
    const int32_t *ids;
    float rows[5 * TINY_HIDDEN] = {0};
    pl_media *image = NULL, *sound = NULL;
    cr_assert_eq(pl_media_of_rows(t.f.engine, PL_MEDIA_IMAGE, NULL, rows, 4, &image, NULL), PL_OK);
    cr_expect_eq(pl_media_ids(image, &ids), 4);
    for (int32_t i = 0; i < 4; i++)
        cr_expect_eq(ids[i], TINY_VOCAB + i);
    cr_assert_eq(pl_media_of_rows(t.f.engine, PL_MEDIA_AUDIO, NULL, rows, 5, &sound, NULL), PL_OK);
    cr_expect_eq(pl_media_ids(sound, &ids), TINY_AUDIO_ROWS);
    cr_expect_eq(ids[4], TINY_VOCAB + 8);
    for (int i = 5; i < TINY_AUDIO_ROWS; i++)
        cr_expect_eq(ids[i], 287, "padding");
    cr_expect_eq(pl_media_kind_of(sound), PL_MEDIA_AUDIO);
    pl_media *shared = pl_media_share(sound);
    pl_media_free(sound);
    cr_expect_eq(pl_media_ids(shared, &ids), TINY_AUDIO_ROWS);
    pl_media_free(shared);
    pl_media_free(image);
    cr_expect_eq(pl_media_share(NULL), NULL);
    pl_media_free(NULL);
    tiny_close(&t);
}

Test(media, tokens)
{
    tiny t = tiny_open(0, 0);
    float rows[4 * TINY_HIDDEN] = {0};
    pl_media *image = NULL;
    pl_tokens tokens;
    pl_error err;
    cr_assert_eq(pl_media_of_rows(t.f.engine, PL_MEDIA_IMAGE, NULL, rows, 2, &image, NULL), PL_OK);
    static const char text[] = "<image_soft_token>";
    cr_assert_eq(pl_tokenize_media(t.f.model, text, sizeof text - 1, PL_TOKENIZE_BOS, &image, 1, &tokens, &err), PL_OK,
                 "%s", err.message);
    const int32_t expected[] = {2, 10, 250, TINY_VOCAB, TINY_VOCAB + 1, 256, 10};
    cr_assert_eq(tokens.n, 7);
    cr_expect_arr_eq(tokens.ids, expected, sizeof expected);
    pl_tokens_free(&tokens);
    cr_expect_eq(pl_tokenize_media(t.f.model, text, sizeof text - 1, 0, NULL, 0, &tokens, &err), PL_ERR_ARGUMENT);
    pl_media_free(image);
    tiny_close(&t);
}
