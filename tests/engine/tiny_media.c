#include "tests/engine/tiny_media.h"

#include "host/engine/media.h"
#include "tests/tower/tower_files.h"

#include <math.h>

#define FOLDER PL_TEST_DATA "/golden/multimodal/"

/* ---- opening ----------------------------------------------------------------------------------- */

static void open_engine(tiny *t, const pl_engine_params *params)
{
    pl_error err;
    const char *folder = scratch_path(&t->folder, "model");
    cr_assert_eq(pl_model_open(folder, &t->f.model, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_engine_create(t->f.model, params, &t->f.engine, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_session_create(t->f.engine, &t->f.session, &err), PL_OK, "%s", err.message);
}

tiny tiny_open_with(const pl_engine_params *params)
{
    tiny t = {0};
    pl_error err;
    json_t *manifest = json_load_file(FOLDER "manifest.json", 0, NULL);
    cr_assert_not_null(manifest);
    scratch_open(&t.folder);
    tower_tensors all = tower_tensors_make();
    tower_folder_write(&t.folder, "model", &all);
    tower_tensors_free(&all);
    scratch_copy(&t.folder, "model/tokenizer.json", FOLDER "tokenizer.json");
    scratch_text(&t.folder, "model/preprocessor_config.json", "{\"size\": {\"height\": 192, \"width\": 192}}");
    t.cases = json_incref(json_object_get(manifest, "cases"));
    json_decref(manifest);
    cr_assert_eq(pl_safetensors_open(FOLDER "golden.safetensors", &t.golden.file, &err), PL_OK, "%s", err.message);
    open_engine(&t, params);
    return t;
}

tiny tiny_open(int batch_rows, int sessions)
{
    pl_engine_params params = {
        .backend = PL_BACKEND_CPU, .threads = 2, .batch_rows = batch_rows, .sessions = sessions, .no_pin = true};
    return tiny_open_with(&params);
}

void tiny_close(tiny *t)
{
    fixture_close(&t->f);
    golden_close(&t->golden);
    json_decref(t->cases);
    scratch_close(&t->folder);
}

/* ---- prompts ----------------------------------------------------------------------------------- */

const float *tiny_golden(const tiny *t, const char *name, const char *what, int64_t *n)
{
    char key[128];
    snprintf(key, sizeof key, "%s/%s", name, what);
    return golden_f32(&t->golden, key, n);
}

char *tiny_file(const char *name, size_t *n)
{
    char path[512];
    snprintf(path, sizeof path, FOLDER "%s", name);
    return read_file(path, n);
}

static pl_media *of_rows(const tiny *t, const char *name, pl_media_kind kind, size_t index)
{
    int64_t n;
    int32_t rows = kind == PL_MEDIA_IMAGE ? TINY_IMAGE_ROWS : TINY_AUDIO_ROWS;
    const float *v = tiny_golden(t, name, kind == PL_MEDIA_IMAGE ? "image_features" : "audio_features", &n);
    pl_media *media = NULL;
    cr_assert_eq(pl_media_of_rows(t->f.engine, kind, NULL, v + (int64_t)index * rows * TINY_HIDDEN, rows, &media, NULL),
                 PL_OK);
    return media;
}

/* what: "pattern(192, 1)" or "wav/clip0.wav", as the manifest says */
static pl_media *of_towers(const tiny *t, pl_media_kind kind, const char *what)
{
    pl_media *media = NULL;
    pl_error err;
    size_t n;
    int variant;
    if (kind == PL_MEDIA_AUDIO) {
        char *file = tiny_file(strchr(what, '/') + 1, &n);
        cr_assert_eq(pl_media_create(t->f.engine, kind, file, n, what, NULL, &media, &err), PL_OK, "%s", err.message);
        free(file);
        return media;
    }
    cr_assert_eq(sscanf(what, "pattern(192, %d)", &variant), 1);
    uint8_t *rgb = tower_pattern(TINY_SIDE, variant);
    cr_assert_eq(pl_media_from_pixels(t->f.engine, rgb, TINY_SIDE, TINY_SIDE, NULL, &media, &err), PL_OK, "%s",
                 err.message);
    free(rgb);
    return media;
}

static void add_media(const tiny *t, tiny_prompt *p, const char *name, pl_media_kind kind, tiny_source source)
{
    const json_t *list = json_object_get(json_object_get(t->cases, name), kind == PL_MEDIA_IMAGE ? "images" : "audio");
    for (size_t i = 0; i < json_array_size(list); i++)
        p->media[p->n_media++] = source == TINY_ROWS ? of_rows(t, name, kind, i)
                                                     : of_towers(t, kind, json_string_value(json_array_get(list, i)));
}

/* Runs of as many placeholders as a media has ids become these. */
static void place(tiny_prompt *p, const pl_media *media)
{
    const int32_t *ids, placeholder = pl_media_kind_of(media) == PL_MEDIA_IMAGE ? 257 : 273;
    size_t n = pl_media_ids(media, &ids), at = 0;
    while (at < p->n && p->ids[at] != placeholder)
        at++;
    cr_assert_leq(at + n, p->n);
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(p->ids[at + i], placeholder);
        p->ids[at + i] = ids[i];
    }
}

tiny_prompt tiny_prompt_of(const tiny *t, const char *name, tiny_source source)
{
    const json_t *ids = json_object_get(json_object_get(t->cases, name), "ids");
    tiny_prompt p = {.n = json_array_size(ids)};
    cr_assert_leq(p.n, TINY_TOKENS);
    for (size_t i = 0; i < p.n; i++)
        p.ids[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    add_media(t, &p, name, PL_MEDIA_IMAGE, source);
    add_media(t, &p, name, PL_MEDIA_AUDIO, source);
    for (size_t i = 0; i < p.n_media; i++)
        place(&p, p.media[i]);
    return p;
}

void tiny_prompt_free(tiny_prompt *p)
{
    for (size_t i = 0; i < p->n_media; i++)
        pl_media_free(p->media[i]);
    p->n_media = 0;
}

double relative_l2(const float *got, const float *expected, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
        size += (double)expected[i] * expected[i];
    }
    return sqrt(difference / size);
}
