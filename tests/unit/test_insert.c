/* Prompts with images and sound against what the reference's processor makes of them (tests/golden/multimodal). */
#include "host/text/insert.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_ROWS 256
#define AUDIO_ROWS 188
#define MOST 4 /* of a kind in a prompt */

static pl_tokenizer *open_tokenizer(void)
{
    pl_error err;
    pl_tokenizer *tokenizer = NULL;
    cr_assert_eq(pl_tokenizer_from_json(PL_TEST_DATA "/golden/text/e4b/tokenizer.json", NULL, &tokenizer, &err), PL_OK,
                 "%s", err.message);
    return tokenizer;
}

static int32_t id_of(const pl_tokenizer *tokenizer, const char *name)
{
    int32_t id = pl_tokenizer_id(tokenizer, name, strlen(name));
    cr_assert_geq(id, 0, "%s", name);
    return id;
}

/* n of a kind, their rows all the placeholder's id. */
static size_t fill(const pl_tokenizer *tokenizer, pl_part_kind kind, size_t n, int32_t *rows, pl_insert *out)
{
    bool image = kind == PL_PART_IMAGE;
    size_t n_rows = image ? IMAGE_ROWS : AUDIO_ROWS;
    for (size_t i = 0; i < n_rows; i++)
        rows[i] = id_of(tokenizer, image ? "<image_soft_token>" : "<audio_soft_token>");
    for (size_t i = 0; i < n; i++)
        out[i] = (pl_insert){.kind = kind,
                             .begin = id_of(tokenizer, image ? "<start_of_image>" : "<start_of_audio>"),
                             .end = id_of(tokenizer, image ? "<end_of_image>" : "<end_of_audio>"),
                             .ids = rows,
                             .n = n_rows};
    return n;
}

static void expect_runs(const pl_ids *ids, const json_t *runs, const char *name)
{
    size_t at = 0, i;
    json_t *run;
    json_array_foreach(runs, i, run)
    {
        int32_t id = (int32_t)json_integer_value(json_array_get(run, 0));
        json_int_t n = json_integer_value(json_array_get(run, 1));
        for (json_int_t k = 0; k < n; k++, at++)
            cr_assert(at < ids->n && ids->v[at] == id, "%s: position %zu: %d, expected %d", name, at,
                      at < ids->n ? ids->v[at] : -1, id);
    }
    cr_assert_eq(at, ids->n, "%s: %zu ids, expected %zu", name, ids->n, at);
}

/* What the template makes of the case's messages, or its text; free(). */
static char *text_of(const json_t *prompt, const char *name, size_t *n)
{
    const json_t *messages = json_object_get(prompt, "messages");
    char *text = NULL;
    pl_error err;
    if (!messages) {
        text = strdup(json_string_value(json_object_get(prompt, "text")));
        *n = strlen(text);
        return text;
    }
    char *json = json_dumps(messages, 0);
    cr_assert_eq(pl_chat_render_json(json, strlen(json), true, &text, n, &err), PL_OK, "%s: %s", name, err.message);
    free(json);
    cr_assert_str_eq(text, json_string_value(json_object_get(prompt, "rendered")), "%s", name);
    return text;
}

static void check(const pl_tokenizer *tokenizer, const json_t *prompt, const char *name)
{
    int32_t image[IMAGE_ROWS], audio[AUDIO_ROWS];
    pl_insert inserts[2 * MOST];
    pl_error err;
    pl_ids ids = {0};
    size_t n_bytes, images = (size_t)json_integer_value(json_object_get(prompt, "images"));
    size_t n = fill(tokenizer, PL_PART_IMAGE, images, image, inserts);
    n += fill(tokenizer, PL_PART_AUDIO, (size_t)json_integer_value(json_object_get(prompt, "audios")), audio,
              inserts + n);
    char *text = text_of(prompt, name, &n_bytes);
    if (json_object_get(prompt, "text"))
        cr_assert_eq(pl_ids_push(&ids, id_of(tokenizer, "<bos>"), &err), PL_OK);
    cr_assert_eq(pl_tokenizer_encode_with(tokenizer, text, n_bytes, true, inserts, n, &ids, &err), PL_OK, "%s: %s",
                 name, err.message);
    expect_runs(&ids, json_object_get(prompt, "ids_run_length"), name);
    pl_ids_free(&ids);
    free(text);
}

Test(insert, as_the_reference)
{
    pl_tokenizer *tokenizer = open_tokenizer();
    json_t *prompts = json_load_file(PL_TEST_DATA "/golden/multimodal/prompts.json", 0, NULL), *prompt;
    const char *name;
    cr_assert_eq(json_object_size(prompts), 17);
    json_object_foreach(prompts, name, prompt) check(tokenizer, prompt, name);
    json_decref(prompts);
    pl_tokenizer_free(tokenizer);
}

/* Of a kind they are taken in order, whatever stands between. */
Test(insert, each_in_its_place)
{
    pl_tokenizer *tokenizer = open_tokenizer();
    const char *text = "<image_soft_token><audio_soft_token><image_soft_token>";
    const int32_t ids[3][2] = {{900, 901}, {910, 911}, {920, 921}};
    const pl_insert inserts[] = {
        {PL_PART_IMAGE, 1, 2, ids[0], 2}, {PL_PART_IMAGE, 3, 4, ids[1], 2}, {PL_PART_AUDIO, 5, 6, ids[2], 2}};
    const int32_t expected[] = {108, 1, 900, 901, 2, 110, 5, 920, 921, 6, 110, 3, 910, 911, 4, 108};
    pl_ids out = {0};
    pl_error err;
    cr_assert_eq(pl_tokenizer_encode_with(tokenizer, text, strlen(text), true, inserts, 3, &out, &err), PL_OK);
    cr_assert_eq(out.n, sizeof expected / sizeof *expected);
    cr_assert_arr_eq(out.v, expected, sizeof expected);
    pl_ids_free(&out);
    pl_tokenizer_free(tokenizer);
}

static void refuse(const pl_tokenizer *tokenizer, const char *text, size_t images, size_t audios, const char *expected)
{
    int32_t image[IMAGE_ROWS], audio[AUDIO_ROWS];
    pl_insert inserts[2 * MOST];
    size_t n = fill(tokenizer, PL_PART_IMAGE, images, image, inserts);
    n += fill(tokenizer, PL_PART_AUDIO, audios, audio, inserts + n);
    pl_ids out = {0};
    pl_error err;
    cr_assert_eq(pl_tokenizer_encode_with(tokenizer, text, strlen(text), true, inserts, n, &out, &err),
                 PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, expected);
    cr_assert_eq(out.n, 0);
    pl_ids_free(&out);
}

Test(insert, counts)
{
    pl_tokenizer *tokenizer = open_tokenizer();
    refuse(tokenizer, "a <image_soft_token>", 0, 0,
           "the prompt has 1 times <image_soft_token>, but 0 images are given");
    refuse(tokenizer, "a", 1, 0, "the prompt has 0 times <image_soft_token>, but 1 images are given");
    refuse(tokenizer, "<image_soft_token>", 1, 2,
           "the prompt has 0 times <audio_soft_token>, but 2 clips of sound are given");
    pl_tokenizer_free(tokenizer);
}
