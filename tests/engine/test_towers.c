/* From pixels and samples to rows of a prompt, as the engine does it. */
#include "tests/engine/tiny_media.h"

#include "host/engine/media.h"
#include "host/media/sound.h"
#include "tests/tower/tower_files.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define BOUND 1e-4 /* of rows and of logits */

/* The rows that a media stands for, but for padding. */
static const float *rows_of(const tiny *t, const pl_media *media, int32_t *n)
{
    const int32_t *ids;
    pl_media_ids(media, &ids);
    return pl_soft_rows_at(t->f.engine->soft, ids[0], n);
}

static pl_sound clip(const char *name)
{
    size_t n;
    pl_error err;
    pl_sound sound;
    char *file = tiny_file(name, &n);
    cr_assert_eq(pl_sound_decode(file, n, 0, name, &sound, &err), PL_OK, "%s", err.message);
    free(file);
    return sound;
}

static pl_media *see(const tiny *t, int variant)
{
    pl_error err;
    pl_media *media = NULL;
    uint8_t *rgb = tower_pattern(TINY_SIDE, variant);
    cr_assert_eq(pl_media_from_pixels(t->f.engine, rgb, TINY_SIDE, TINY_SIDE, NULL, &media, &err), PL_OK, "%s",
                 err.message);
    free(rgb);
    return media;
}

/* ---- numbers ----------------------------------------------------------------------------------- */

/* two_audios is not among them: it was padded by silence to the longer clip. */
Test(towers, rows_of_the_reference)
{
    static const struct {
        const char *name, *what;
        int media;
        int index;
    } recorded[] = {{"image", "image_features", 0, 0},
                    {"two_images", "image_features", 1, 1},
                    {"image_audio", "image_features", 0, 0},
                    {"image_audio", "audio_features", 1, 0},
                    {"audio", "audio_features", 0, 0}};
    tiny t = tiny_open(0, 0);
    for (size_t i = 0; i < sizeof recorded / sizeof *recorded; i++) {
        tiny_prompt p = tiny_prompt_of(&t, recorded[i].name, TINY_TOWERS);
        int64_t n;
        int32_t rows;
        const float *expected = tiny_golden(&t, recorded[i].name, recorded[i].what, &n);
        const float *got = rows_of(&t, p.media[recorded[i].media], &rows);
        int64_t at = (int64_t)recorded[i].index * TINY_IMAGE_ROWS * TINY_HIDDEN;
        cr_expect_leq(at + rows * TINY_HIDDEN, n);
        double error = relative_l2(got, expected + at, (int64_t)rows * TINY_HIDDEN);
        cr_expect_lt(error, BOUND, "%s %s: %g", recorded[i].name, recorded[i].what, error);
        tiny_prompt_free(&p);
    }
    tiny_close(&t);
}

Test(towers, logits_of_the_reference)
{
    static const char *const names[] = {"image", "audio", "image_audio", "two_images"};
    tiny t = tiny_open(0, 0);
    for (size_t i = 0; i < 4; i++) {
        tiny_prompt p = tiny_prompt_of(&t, names[i], TINY_TOWERS);
        int64_t n;
        const float *expected = tiny_golden(&t, names[i], "logits", &n);
        float *logits = malloc((size_t)n * sizeof *logits);
        cr_assert_eq(pl_logits(t.f.session, p.ids, p.n, false, logits, NULL), PL_OK);
        double error = relative_l2(logits, expected, n);
        cr_expect_lt(error, BOUND, "%s: %g", names[i], error);
        free(logits);
        tiny_prompt_free(&p);
    }
    tiny_close(&t);
}

/* Pixels beyond what the tower was made for would cost time and tell it nothing. */
Test(towers, no_side_beyond_the_models)
{
    tiny t = tiny_open(0, 0);
    pl_media *own = see(&t, 0), *large = NULL;
    const int32_t *own_ids, *large_ids;
    uint8_t *rgb = tower_pattern(TINY_SIDE, 0);
    pl_media_params params = {.image_side = 768};
    cr_assert_eq(pl_media_from_pixels(t.f.engine, rgb, TINY_SIDE, TINY_SIDE, &params, &large, NULL), PL_OK);
    cr_assert_eq(pl_media_ids(own, &own_ids), pl_media_ids(large, &large_ids));
    cr_expect_eq(own_ids[0], large_ids[0]);
    free(rgb);
    pl_media_free(own);
    pl_media_free(large);
    tiny_close(&t);
}

/* ---- sound as it comes ------------------------------------------------------------------------- */

/* A clip in pieces of any length has the rows that it has whole, bit for bit. */
Test(towers, heard_in_pieces)
{
    static const size_t pieces[] = {160, 1000, 4801, 16000};
    tiny t = tiny_open(0, 0);
    pl_sound sound = clip("clip0.wav");
    pl_media *whole = NULL;
    int32_t n_whole, some;
    cr_assert_eq(pl_media_from_samples(t.f.engine, sound.samples, sound.n, NULL, &whole, NULL), PL_OK);
    const float *expected = rows_of(&t, whole, &n_whole);
    for (size_t i = 0; i < 4; i++) {
        pl_listener *l = NULL;
        pl_error err;
        const int32_t *ids;
        size_t early = 0;
        cr_assert_eq(pl_listener_create(t.f.engine, &l, &err), PL_OK, "%s", err.message);
        for (size_t at = 0; at < sound.n; at += pieces[i]) {
            size_t n = sound.n - at < pieces[i] ? sound.n - at : pieces[i];
            cr_assert_eq(pl_listener_hear(l, sound.samples + at, n, &err), PL_OK, "%s", err.message);
            if (at + n < sound.n)
                early = pl_listener_ids(l, &ids);
        }
        cr_assert_eq(pl_listener_finish(l, &err), PL_OK, "%s", err.message);
        size_t n = pl_listener_ids(l, &ids);
        cr_expect_eq((int32_t)n, n_whole);
        cr_expect(pieces[i] > 1000 || early + 2 >= n, "%zu of %zu rows were there before the end", early, n);
        for (size_t k = 0; k < n; k++)
            cr_assert_eq(memcmp(pl_soft_rows_at(t.f.engine->soft, ids[k], &some), expected + k * TINY_HIDDEN,
                                TINY_HIDDEN * sizeof(float)),
                         0, "row %zu, pieces of %zu", k, pieces[i]);
        cr_expect_eq(pl_listener_hear(l, sound.samples, 1, &err), PL_ERR_ARGUMENT);
        pl_listener_free(l);
    }
    pl_media_free(whole);
    pl_sound_free(&sound);
    tiny_close(&t);
}

/* 2, 96, "\n\n", the beginning of sound, its rows */
static size_t fill_prompt(int32_t *prompt, const int32_t *rows, size_t n)
{
    static const int32_t before[] = {2, 96, 10, 251};
    memcpy(prompt, before, sizeof before);
    memcpy(prompt + 4, rows, n * sizeof *rows);
    return 4 + n;
}

/* The prompt grows with what is heard; in the end its K/V are those of the whole clip read at once. */
Test(towers, read_along)
{
    tiny t = tiny_open(0, 0);
    pl_sound sound = clip("clip0.wav");
    pl_listener *l = NULL;
    pl_media *whole = NULL;
    int32_t prompt[64], end = 272;
    const int32_t *ids;
    float along[TINY_VOCAB], at_once[TINY_VOCAB], others[64 * TINY_VOCAB];
    cr_assert_eq(pl_listener_create(t.f.engine, &l, NULL), PL_OK);
    for (size_t at = 0; at < sound.n; at += 3200) {
        cr_assert_eq(pl_listener_hear(l, sound.samples + at, sound.n - at < 3200 ? sound.n - at : 3200, NULL), PL_OK);
        size_t n = pl_listener_ids(l, &ids);
        cr_assert_eq(pl_session_prepare(t.f.session, prompt, fill_prompt(prompt, ids, n), NULL), PL_OK);
    }
    cr_assert_eq(pl_listener_finish(l, NULL), PL_OK);
    size_t n = pl_listener_ids(l, &ids), all = fill_prompt(prompt, ids, n);
    cr_assert_eq(pl_session_prepare(t.f.session, prompt, all, NULL), PL_OK);
    pl_listener_free(l);
    cr_assert_eq(pl_logits(t.f.session, &end, 1, true, along, NULL), PL_OK);
    cr_assert_eq(pl_logits(t.f.session, prompt, all, false, others, NULL), PL_OK, "the session holds them");
    cr_assert_eq(pl_logits(t.f.session, &end, 1, true, at_once, NULL), PL_OK);
    cr_expect_eq(memcmp(along, at_once, sizeof along), 0, "in steps of any size");

    cr_assert_eq(pl_media_from_samples(t.f.engine, sound.samples, sound.n, NULL, &whole, NULL), PL_OK);
    pl_media_ids(whole, &ids);
    cr_assert_eq(pl_logits(t.f.session, prompt, fill_prompt(prompt, ids, n), false, others, NULL), PL_OK);
    cr_assert_eq(pl_logits(t.f.session, &end, 1, true, at_once, NULL), PL_OK);
    cr_expect_eq(memcmp(along, at_once, sizeof along), 0, "as the whole clip");
    pl_media_free(whole);
    pl_sound_free(&sound);
    tiny_close(&t);
}

Test(towers, too_much)
{
    tiny t = tiny_open(0, 0);
    pl_listener *l = NULL;
    pl_error err;
    float *samples = calloc(PL_MEL_CLIP + 1, sizeof *samples);
    cr_assert_eq(pl_listener_create(t.f.engine, &l, NULL), PL_OK);
    cr_expect_eq(pl_listener_hear(l, samples, PL_MEL_CLIP + 1, &err), PL_ERR_CONTEXT);
    samples[3] = NAN;
    cr_expect_eq(pl_listener_hear(l, samples, 5, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "sample 3 is nan, expected a number");
    const int32_t *ids;
    cr_expect_eq(pl_listener_finish(l, &err), PL_OK);
    cr_expect_eq(pl_listener_ids(l, &ids), 0);
    pl_listener_free(l);
    pl_media *media = NULL;
    cr_expect_eq(pl_media_from_samples(t.f.engine, samples, 5, NULL, &media, &err), PL_ERR_ARGUMENT);
    cr_expect_eq(pl_media_from_samples(t.f.engine, samples, 0, NULL, &media, &err), PL_ERR_ARGUMENT);
    cr_expect_eq(pl_media_from_samples(t.f.engine, samples, PL_MEL_CLIP + 1, NULL, &media, &err), PL_ERR_UNSUPPORTED);
    pl_media_params params = {.max_s = 0.5, .max_pixels = 99, .image_side = 300};
    cr_expect_eq(pl_media_from_samples(t.f.engine, samples + 10, 9000, &params, &media, &err), PL_ERR_UNSUPPORTED);
    const uint8_t rgb[300] = {0};
    cr_expect_eq(pl_media_from_pixels(t.f.engine, rgb, 10, 10, &params, &media, &err), PL_ERR_UNSUPPORTED);
    cr_expect_eq(pl_media_from_pixels(t.f.engine, rgb, 10, 9, &params, &media, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "image side: 300, expected 256, 512 or 768");
    cr_expect_eq(pl_media_from_pixels(t.f.engine, rgb, 0, 9, NULL, &media, &err), PL_ERR_ARGUMENT);
    cr_expect_null(media);
    free(samples);
    tiny_close(&t);
}

Test(towers, none)
{
    fixture f = fixture_open("e4b", 2, 0);
    pl_media *media = NULL;
    pl_listener *l = NULL;
    pl_error err;
    const uint8_t rgb[3] = {0};
    const float sample = 0;
    pl_tower_stats stats;
    cr_expect_not(pl_model_takes(f.model, PL_MEDIA_IMAGE));
    cr_expect_eq(pl_media_from_pixels(f.engine, rgb, 1, 1, NULL, &media, &err), PL_ERR_UNSUPPORTED);
    cr_expect_str_eq(err.message, "the model takes no images: it has no tower for them");
    cr_expect_eq(pl_media_from_samples(f.engine, &sample, 1, NULL, &media, &err), PL_ERR_UNSUPPORTED);
    cr_expect_eq(pl_media_create(f.engine, PL_MEDIA_AUDIO, rgb, 3, "a", NULL, &media, &err), PL_ERR_UNSUPPORTED);
    cr_expect_eq(pl_listener_create(f.engine, &l, &err), PL_ERR_UNSUPPORTED);
    pl_engine_towers(f.engine, &stats);
    cr_expect_eq(stats.vision_bytes + stats.audio_bytes + stats.cache_bytes, 0);
    pl_engine_drop_towers(f.engine, 0);
    fixture_close(&f);
}

/* ---- on demand --------------------------------------------------------------------------------- */

Test(towers, come_and_go)
{
    tiny t = tiny_open(0, 0);
    pl_tower_stats stats;
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_eq(stats.vision_bytes + stats.audio_bytes + stats.cache_bytes, 0);
    pl_media *first = see(&t, 1);
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_gt(stats.vision_bytes, 0);
    cr_expect_eq(stats.audio_bytes, 0);
    cr_expect_eq(stats.cache_bytes, TINY_IMAGE_ROWS * TINY_HIDDEN * sizeof(float));
    cr_expect_eq(stats.images, 1);
    cr_expect_gt(stats.encode_s, 0);

    pl_listener *l = NULL;
    cr_assert_eq(pl_listener_create(t.f.engine, &l, NULL), PL_OK);
    pl_engine_drop_towers(t.f.engine, 3600);
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_gt(stats.vision_bytes, 0, "not yet");
    pl_engine_drop_towers(t.f.engine, 0);
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_eq(stats.vision_bytes, 0);
    cr_expect_gt(stats.audio_bytes, 0, "somebody listens");
    pl_listener_free(l);
    pl_engine_drop_towers(t.f.engine, 0);
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_eq(stats.audio_bytes, 0);

    pl_media *again = see(&t, 2), *same = see(&t, 1);
    int32_t n;
    cr_expect_eq(rows_of(&t, same, &n), rows_of(&t, first, &n));
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_eq(stats.images, 2);
    cr_expect_eq(stats.hits, 1);
    pl_media_free(first);
    pl_media_free(again);
    pl_media_free(same);
    tiny_close(&t);
}

static pl_engine_params impatient(void)
{
    return (pl_engine_params){.backend = PL_BACKEND_CPU, .threads = 2, .keep_towers_s = 1e-9, .no_pin = true};
}

/* One that has not been used for long enough makes place for the other. */
Test(towers, kept_for_so_long)
{
    pl_engine_params params = impatient();
    tiny t = tiny_open_with(&params);
    pl_tower_stats stats;
    pl_media_free(see(&t, 1));
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_gt(stats.vision_bytes, 0);
    pl_listener *l = NULL;
    cr_assert_eq(pl_listener_create(t.f.engine, &l, NULL), PL_OK);
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_eq(stats.vision_bytes, 0);
    cr_expect_gt(stats.audio_bytes, 0);
    pl_listener_free(l);
    tiny_close(&t);
}

static void finished(void *user, const pl_outcome *outcome)
{
    (void)outcome;
    atomic_store((atomic_bool *)user, true);
}

/* A scheduler with nothing to do gives up what nobody has used for long enough. */
Test(towers, given_up_by_the_scheduler)
{
    pl_engine_params params = impatient();
    tiny t = tiny_open_with(&params);
    pl_scheduler *scheduler = NULL;
    pl_request request = pl_request_default();
    atomic_bool done = false;
    const int32_t prompt = 2;
    pl_tower_stats stats;
    cr_assert_eq(pl_scheduler_create(t.f.engine, NULL, &scheduler, NULL), PL_OK);
    pl_media_free(see(&t, 1));
    request.prompt = &prompt;
    request.n_prompt = 1;
    request.generation.max_tokens = 1;
    request.on_done = finished;
    request.user = &done;
    cr_assert_eq(pl_scheduler_submit(scheduler, &request, NULL, NULL), PL_OK);
    do {
        sched_yield();
        pl_engine_towers(t.f.engine, &stats);
    } while (!atomic_load(&done) || stats.vision_bytes > 0);
    pl_scheduler_free(scheduler);
    tiny_close(&t);
}

typedef struct stopper {
    int left; /* pieces until it says stop */
} stopper;

static bool stop_then(void *user)
{
    stopper *s = user;
    return s->left-- <= 0;
}

Test(towers, stopped)
{
    tiny t = tiny_open(0, 0);
    pl_error err;
    pl_media *media = NULL;
    uint8_t *rgb = tower_pattern(TINY_SIDE, 1);
    for (int pieces = 0; pieces < 3; pieces++) {
        stopper s = {pieces};
        pl_media_params params = {.stop = stop_then, .stop_user = &s};
        cr_expect_eq(pl_media_from_pixels(t.f.engine, rgb, TINY_SIDE, TINY_SIDE, &params, &media, &err),
                     PL_ERR_CANCELLED);
        cr_expect_eq(s.left, -1, "nobody is asked again");
    }
    pl_media *whole = see(&t, 1);
    int64_t n;
    int32_t rows;
    const float *expected = tiny_golden(&t, "image", "image_features", &n);
    cr_expect_lt(relative_l2(rows_of(&t, whole, &rows), expected, n), BOUND);
    pl_media_free(whole);
    free(rgb);
    tiny_close(&t);
}

/* ---- while one loads --------------------------------------------------------------------------- */

/* Asked before each piece of the work, where the session can take a step: nobody holds the engine. */
typedef struct passer {
    pl_session *session;
    int asked, left; /* how often; until it says stop */
} passer;

static bool take_step(void *user)
{
    passer *p = user;
    float logits[TINY_VOCAB];
    const int32_t token = 2;
    cr_assert_eq(pl_logits(p->session, &token, 1, false, logits, NULL), PL_OK);
    p->asked++;
    return p->left-- == 0;
}

static pl_status encode(const tiny *t, pl_media_kind kind, int variant, passer *p)
{
    pl_error err;
    pl_media *media = NULL;
    pl_media_params params = {.stop = take_step, .stop_user = p};
    pl_status status;
    if (kind == PL_MEDIA_IMAGE) {
        uint8_t *rgb = tower_pattern(TINY_SIDE, variant);
        status = pl_media_from_pixels(t->f.engine, rgb, TINY_SIDE, TINY_SIDE, &params, &media, &err);
        free(rgb);
    } else {
        pl_sound sound = clip("clip0.wav");
        status = pl_media_from_samples(t->f.engine, sound.samples, sound.n - (size_t)variant, &params, &media, &err);
        pl_sound_free(&sound);
    }
    cr_expect_eq(media != NULL, status == PL_OK);
    pl_media_free(media);
    return status;
}

/* Those of a tower, and its projection: windows of a channel by itself, [channels][1][...], are none. */
static int count_matrices(pl_media_kind kind)
{
    static const char *const towers[] = {"model.vision_tower.", "model.audio_tower."};
    tower_tensors all = tower_tensors_make();
    int n = 1;
    for (size_t i = 0; i < all.n; i++) {
        const tower_tensor *t = &all.items[i];
        bool window = kind == PL_MEDIA_IMAGE ? t->dims[1] == 1 : t->n_dims == 3;
        n += strncmp(t->name, towers[kind], strlen(towers[kind])) == 0 && t->n_dims > 1 && !window;
    }
    tower_tensors_free(&all);
    return n;
}

/* Steps come between all matrices: the first image or clip has that many turns more than another one. */
Test(towers, steps_while_one_loads)
{
    tiny t = tiny_open(0, 0);
    for (int kind = PL_MEDIA_IMAGE; kind <= PL_MEDIA_AUDIO; kind++) {
        passer first = {t.f.session, 0, -1}, second = first;
        cr_assert_eq(encode(&t, (pl_media_kind)kind, 1, &first), PL_OK);
        cr_assert_eq(encode(&t, (pl_media_kind)kind, 2, &second), PL_OK);
        int matrices = count_matrices((pl_media_kind)kind);
        cr_assert_gt(matrices, 10);
        cr_expect_eq(first.asked - second.asked, matrices, "%d of %d", first.asked - second.asked, matrices);
    }
    tiny_close(&t);
}

/* Stopped at any matrix; then the other tower, then this one load as if nothing had been. */
Test(towers, stopped_while_one_loads)
{
    tiny t = tiny_open(0, 0);
    pl_tower_stats stats;
    for (int kind = PL_MEDIA_IMAGE; kind <= PL_MEDIA_AUDIO; kind++) {
        int matrices = count_matrices((pl_media_kind)kind);
        for (int at = 0; at < matrices; at += matrices / 4) {
            passer p = {t.f.session, 0, at};
            cr_expect_eq(encode(&t, (pl_media_kind)kind, 1, &p), PL_ERR_CANCELLED);
            cr_expect_eq(p.asked, at + 1, "nobody is asked again");
            pl_engine_towers(t.f.engine, &stats);
            cr_expect_eq(stats.vision_bytes + stats.audio_bytes + stats.cache_bytes, 0);
            cr_expect_eq(stats.load_s, 0);
        }
    }
    pl_sound sound = clip("clip0.wav");
    pl_media *media = NULL;
    int64_t n;
    int32_t rows;
    cr_assert_eq(pl_media_from_samples(t.f.engine, sound.samples, sound.n, NULL, &media, NULL), PL_OK);
    const float *expected = tiny_golden(&t, "audio", "audio_features", &n);
    const float *got = rows_of(&t, media, &rows);
    cr_expect_lt(relative_l2(got, expected, (int64_t)rows * TINY_HIDDEN), BOUND);
    pl_media_free(media);
    pl_sound_free(&sound);
    pl_media *image = see(&t, 1);
    expected = tiny_golden(&t, "image", "image_features", &n);
    cr_expect_lt(relative_l2(rows_of(&t, image, &rows), expected, n), BOUND);
    pl_media_free(image);
    tiny_close(&t);
}

/* ---- threads ----------------------------------------------------------------------------------- */

typedef struct viewer {
    const tiny *t;
    int variant;
    pl_media *media;
} viewer;

static void *look(void *arg)
{
    viewer *v = arg;
    v->media = see(v->t, v->variant);
    return NULL;
}

/* Images are encoded while a session answers; two of them are the same. */
Test(towers, beside_answers)
{
    tiny t = tiny_open(0, 0);
    viewer v[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        v[i] = (viewer){&t, 1 + i % 3, NULL};
        cr_assert_eq(pthread_create(&thread[i], NULL, look, &v[i]), 0);
    }
    tiny_prompt p = tiny_prompt_of(&t, "audio", TINY_ROWS);
    pl_generation g = pl_generation_default();
    g.max_tokens = 30;
    g.ignore_eos = true;
    cr_assert_eq(pl_generate(t.f.session, p.ids, p.n, &g, NULL, NULL), PL_OK);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    pl_tower_stats stats;
    pl_engine_towers(t.f.engine, &stats);
    cr_expect_eq(stats.images + stats.hits, 4);
    int32_t n;
    cr_expect_eq(rows_of(&t, v[0].media, &n), rows_of(&t, v[3].media, &n));
    for (int i = 0; i < 4; i++)
        pl_media_free(v[i].media);
    tiny_prompt_free(&p);
    tiny_close(&t);
}
