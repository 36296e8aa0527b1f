/* The bundled demo model sees and hears: it answers the questions about its samples on each of its paths, word for word. */
#include "host/base/mapfile.h"
#include "tests/engine/goldens.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES PL_TEST_DATA "/../tools/demo_model/samples/"
#define MAX_ANSWER 512

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

static pl_media *open_sample(fixture *f, pl_media_kind kind, const char *name)
{
    char path[1024];
    pl_mapfile file;
    pl_media *media;
    pl_error err;
    snprintf(path, sizeof path, SAMPLES "%s", name);
    cr_assert_eq(pl_mapfile_open(path, &file, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_media_create(f->engine, kind, file.data, file.size, name, NULL, &media, &err), PL_OK, "%s",
                 err.message);
    pl_mapfile_close(&file);
    return media;
}

/* One user turn: the media and the question, in the order that the case tells. */
static char *turn_of(const json_t *item, pl_media_kind kind)
{
    json_t *text = json_pack("{s:s, s:O}", "type", "text", "text", json_object_get(item, "question"));
    json_t *place = json_pack("{s:s}", "type", kind == PL_MEDIA_IMAGE ? "image" : "audio");
    bool before = json_is_true(json_object_get(item, "before"));
    json_t *messages = json_pack("[{s:s, s:[o, o]}]", "role", "user", "content", before ? text : place,
                                 before ? place : text);
    char *dump = json_dumps(messages, 0);
    cr_assert_not_null(dump);
    json_decref(messages);
    return dump;
}

static void check_case(fixture *f, const json_t *item)
{
    static const char *const paths[] = {"e4b", "mix", "e2b"};
    const char *image = json_string_value(json_object_get(item, "image"));
    const char *name = image ? image : json_string_value(json_object_get(item, "audio"));
    const char *want = json_string_value(json_object_get(item, "answer"));
    pl_media_kind kind = image ? PL_MEDIA_IMAGE : PL_MEDIA_AUDIO;
    pl_media *media = open_sample(f, kind, name);
    char *turn = turn_of(item, kind);
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.max_tokens = 60;
    params.on_token = collect;
    pl_tokens prompt;
    pl_error err;
    cr_assert_eq(pl_tokenize_chat_media(f->model, turn, strlen(turn), true, &media, 1, &prompt, &err), PL_OK, "%s",
                 err.message);
    for (int i = 0; i < 3; i++) {
        answer[0] = '\0';
        cr_assert_eq(pl_session_set_path(f->session, paths[i], PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
        cr_assert_eq(pl_generate(f->session, prompt.ids, prompt.n, &params, NULL, &err), PL_OK, "%s", err.message);
        cr_expect_str_eq(answer, want, "%s on %s, '%s': '%s', expected '%s'", name, paths[i],
                         json_string_value(json_object_get(item, "question")), answer, want);
    }
    pl_tokens_free(&prompt);
    pl_media_free(media);
    free(turn);
}

Test(demo_media, answers_about_its_samples_on_every_path)
{
    json_error_t error;
    json_t *cases = json_load_file(SAMPLES "expected.json", 0, &error);
    cr_assert_not_null(cases, "expected.json: %s", error.text);
    cr_assert_geq(json_array_size(cases), 10);
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(&f, json_array_get(cases, i));
    fixture_close(&f);
    json_decref(cases);
}
