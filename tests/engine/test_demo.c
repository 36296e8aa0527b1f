/* The bundled demo model answers held-out questions on each of its paths, word for word. */
#include "tests/engine/goldens.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TURNS 16
#define MAX_ANSWER 2048

static char answer[MAX_ANSWER];

static bool collect(void *user, const pl_token_event *event)
{
    (void)user;
    size_t n = strlen(answer);
    cr_assert_lt(n + event->n_bytes, sizeof answer);
    memcpy(answer + n, event->text, event->n_bytes);
    answer[n + event->n_bytes] = '\0';
    return true;
}

static void ask(fixture *f, const pl_message *turns, size_t n)
{
    pl_error err;
    pl_tokens prompt;
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.max_tokens = 200;
    params.on_token = collect;
    answer[0] = '\0';
    cr_assert_eq(pl_tokenize_chat(f->model, turns, n, true, &prompt, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_generate(f->session, prompt.ids, prompt.n, &params, NULL, &err), PL_OK, "%s", err.message);
    pl_tokens_free(&prompt);
}

static void check_case(fixture *f, const json_t *item)
{
    pl_message turns[MAX_TURNS];
    const json_t *messages = json_object_get(item, "messages");
    size_t n = json_array_size(messages);
    cr_assert(n > 0 && n <= MAX_TURNS);
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(messages, i);
        turns[i] = (pl_message){json_string_value(json_object_get(m, "role")),
                                json_string_value(json_object_get(m, "content"))};
    }
    const char *path = json_string_value(json_object_get(item, "path"));
    const char *want = json_string_value(json_object_get(item, "answer"));
    pl_error err;
    cr_assert_eq(pl_session_set_path(f->session, path, PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
    ask(f, turns, n);
    cr_expect_str_eq(answer, want, "on %s, '%s': '%s', expected '%s'", path, turns[n - 1].content, answer, want);
}

Test(demo, held_out_questions_on_every_path)
{
    json_error_t error;
    json_t *cases = json_load_file(PL_TEST_DATA "/../tools/demo_model/expected.json", 0, &error);
    cr_assert_not_null(cases, "expected.json: %s", error.text);
    cr_assert_geq(json_array_size(cases), 60);
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(&f, json_array_get(cases, i));
    fixture_close(&f);
    json_decref(cases);
}

Test(demo, the_first_question_on_every_path)
{
    static const char *const paths[] = {"e4b", "mix", "e2b"};
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    for (int i = 0; i < 3; i++) {
        pl_error err;
        pl_message turn = {"user", "What is the capital of France?"};
        cr_assert_eq(pl_session_set_path(f.session, paths[i], PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
        ask(&f, &turn, 1);
        cr_assert_str_eq(answer, "The capital of France is Paris.", "on %s: '%s'", paths[i], answer);
    }
    fixture_close(&f);
}
