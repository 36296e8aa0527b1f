#include "host/engine/towers.h"

#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/engine/soft_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KINDS 2 /* of pl_tower_kind */

struct pl_towers {
    pl_engine *engine;
    const pl_tower_source *source;
    double keep_s;
    int hidden;

    pthread_mutex_t work; /* held by who computes; of what follows */
    pl_backend *own;      /* where the engine's backend has no ops for towers; NULL: not made */
    pl_vision *vision;
    pl_audio *audio;
    pl_mel *mel;

    pthread_mutex_t lock; /* of what follows; taken last */
    int users[KINDS];
    double last_use_s[KINDS];
    pl_tower_stats stats;
};

struct pl_ear {
    pl_towers *towers;
    pl_audio_stream *stream;
    int frames;  /* heard so far */
    float *mel;  /* [frames of a clip][bins] of the call at hand */
    float *rows; /* [rows of a clip][text hidden] of the call at hand */
    int room;    /* of rows */
};

/* ---- life -------------------------------------------------------------------------------------- */

pl_status pl_towers_create(pl_engine *e, double keep_s, pl_towers **out, pl_error *err)
{
    pl_towers *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "towers");
    t->engine = e;
    t->source = e->model->towers;
    t->keep_s = keep_s == 0 ? PL_TOWERS_KEEP_S : keep_s < 0 ? INFINITY : keep_s;
    t->hidden = e->config->hidden;
    pthread_mutex_init(&t->work, NULL);
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return PL_OK;
}

static void give_up_backend(pl_towers *t)
{
    if (!t->own || t->vision || t->audio)
        return;
    pl_backend_free(t->own);
    t->own = NULL;
}

static void give_up(pl_towers *t, pl_tower_kind kind)
{
    if (!t->own)
        pl_engine_lock(t->engine);
    if (kind == PL_TOWER_VISION) {
        pl_vision_free(t->vision);
        t->vision = NULL;
    } else {
        pl_audio_free(t->audio);
        t->audio = NULL;
    }
    if (!t->own)
        pl_engine_unlock(t->engine);
    give_up_backend(t);
}

void pl_towers_free(pl_towers *t)
{
    if (!t)
        return;
    for (int kind = 0; kind < KINDS; kind++)
        give_up(t, (pl_tower_kind)kind);
    pl_mel_free(t->mel);
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->work);
    free(t);
}

/* ---- turns: the steps of answers come between ----------------------------------------------------- */

typedef struct taker {
    pl_engine *engine; /* whose steps come between; NULL: they run beside it */
    const pl_tower_asker *asker;
} taker;

static pl_status begin_piece(void *user, pl_error *err)
{
    const taker *k = user;
    if (k->asker && k->asker->stop && k->asker->stop(k->asker->user))
        return pl_fail(err, PL_ERR_CANCELLED, "the work on an image or sound was stopped");
    if (k->engine)
        pl_engine_lock(k->engine);
    return PL_OK;
}

static void end_piece(void *user)
{
    const taker *k = user;
    if (k->engine)
        pl_engine_unlock(k->engine);
}

static taker taker_of(const pl_towers *t, const pl_tower_asker *asker)
{
    return (taker){t->own ? NULL : t->engine, asker};
}

/* ---- loading; `work` is held ------------------------------------------------------------------- */

static pl_status find_backend(pl_towers *t, pl_backend **out, pl_error *err)
{
    pl_backend *b = t->engine->backend;
    if (!b->tower && !t->own) {
        const pl_config *c = t->engine->config;
        pl_backend_shape shape = {
            .max_rows = 1, .max_context = 1, .vocab = c->vocab, .heads = {c->n_heads, c->n_kv_heads, c->head_dim}};
        PL_TRY(pl_backend_cpu(&shape, pl_pool_threads(b->pool), NULL, PL_CPU_ALL, &t->own, err));
    }
    *out = b->tower ? b : t->own;
    return PL_OK;
}

static bool is_loaded(const pl_towers *t, pl_tower_kind kind)
{
    return kind == PL_TOWER_VISION ? t->vision != NULL : t->audio != NULL;
}

static pl_status load_parts(pl_towers *t, pl_tower_kind kind, const pl_tower_asker *asker, pl_error *err)
{
    pl_backend *backend = NULL;
    PL_TRY(find_backend(t, &backend, err));
    if (kind == PL_TOWER_AUDIO && !t->mel)
        PL_TRY(pl_mel_create(&t->mel, err));
    taker k = taker_of(t, asker);
    pl_tower_turn turn = {begin_piece, end_piece, &k};
    return kind == PL_TOWER_VISION ? pl_vision_create(t->source, backend, &turn, &t->vision, err)
                                   : pl_audio_create(t->source, backend, &turn, &t->audio, err);
}

static pl_status load(pl_towers *t, pl_tower_kind kind, const pl_tower_asker *asker, pl_error *err)
{
    double begin = pl_clock_seconds();
    pl_status status = load_parts(t, kind, asker, err);
    if (status != PL_OK) {
        give_up_backend(t);
        return status;
    }
    pthread_mutex_lock(&t->lock);
    t->stats.load_s += pl_clock_seconds() - begin;
    pthread_mutex_unlock(&t->lock);
    return PL_OK;
}

static bool is_idle(pl_towers *t, pl_tower_kind kind, double idle_s)
{
    pthread_mutex_lock(&t->lock);
    bool idle = t->users[kind] == 0 && pl_clock_seconds() - t->last_use_s[kind] >= idle_s;
    pthread_mutex_unlock(&t->lock);
    return idle;
}

static void count_bytes(pl_towers *t)
{
    pthread_mutex_lock(&t->lock);
    t->stats.vision_bytes = t->vision ? pl_vision_bytes(t->vision) : 0;
    t->stats.audio_bytes = t->audio ? pl_audio_bytes(t->audio) : 0;
    pthread_mutex_unlock(&t->lock);
}

static void give_up_idle(pl_towers *t, pl_tower_kind kind, double idle_s)
{
    if (!is_loaded(t, kind) || !is_idle(t, kind, idle_s))
        return;
    give_up(t, kind);
    count_bytes(t);
}

/* ---- use --------------------------------------------------------------------------------------- */

static bool has_tower(const pl_towers *t, pl_tower_kind kind)
{
    return kind == PL_TOWER_VISION ? pl_tower_source_vision(t->source) != NULL
                                   : pl_tower_source_audio(t->source) != NULL;
}

/* Takes the turn; the tower is there. The other one may have been there for long enough. */
static pl_status enter(pl_towers *t, pl_tower_kind kind, const pl_tower_asker *asker, pl_error *err)
{
    if (!has_tower(t, kind))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the model has no %s tower: %s are not for it",
                       kind == PL_TOWER_VISION ? "vision" : "audio", kind == PL_TOWER_VISION ? "images" : "sounds");
    pthread_mutex_lock(&t->work);
    give_up_idle(t, kind == PL_TOWER_VISION ? PL_TOWER_AUDIO : PL_TOWER_VISION, t->keep_s);
    pl_status status = is_loaded(t, kind) ? PL_OK : load(t, kind, asker, err);
    if (status != PL_OK)
        pthread_mutex_unlock(&t->work);
    return status;
}

static void leave(pl_towers *t, pl_tower_kind kind, double encode_s)
{
    pthread_mutex_lock(&t->lock);
    t->last_use_s[kind] = pl_clock_seconds();
    t->stats.encode_s += encode_s;
    pthread_mutex_unlock(&t->lock);
    count_bytes(t);
    pthread_mutex_unlock(&t->work);
}

pl_status pl_towers_see(pl_towers *t, const uint8_t *rgb, int side, const pl_tower_asker *asker, float *rows,
                        pl_error *err)
{
    PL_TRY(enter(t, PL_TOWER_VISION, asker, err));
    taker k = taker_of(t, asker);
    pl_tower_turn turn = {begin_piece, end_piece, &k};
    double begin = pl_clock_seconds();
    pl_status status = pl_vision_encode(t->vision, rgb, side, &turn, NULL, rows, err);
    pthread_mutex_lock(&t->lock);
    t->stats.images += status == PL_OK;
    pthread_mutex_unlock(&t->lock);
    leave(t, PL_TOWER_VISION, pl_clock_seconds() - begin);
    return status;
}

/* ---- sound ------------------------------------------------------------------------------------- */

static void count_user(pl_towers *t, int change)
{
    pthread_mutex_lock(&t->lock);
    t->users[PL_TOWER_AUDIO] += change;
    pthread_mutex_unlock(&t->lock);
}

static pl_status create_ear(pl_ear *ear, const pl_tower_asker *asker, pl_error *err)
{
    pl_towers *t = ear->towers;
    int frames = pl_mel_frames(PL_MEL_CLIP, false);
    PL_TRY(enter(t, PL_TOWER_AUDIO, asker, err));
    pl_status status = pl_audio_stream_create(t->audio, &ear->stream, err);
    ear->room = pl_audio_rows(t->audio, frames + 32);
    if (status == PL_OK)
        count_user(t, 1);
    leave(t, PL_TOWER_AUDIO, 0);
    PL_TRY(status);
    size_t mel = (size_t)frames * PL_MEL_BINS, rows = (size_t)ear->room * (size_t)t->hidden;
    ear->mel = malloc(mel * sizeof *ear->mel);
    ear->rows = malloc(rows * sizeof *ear->rows);
    return ear->mel && ear->rows ? PL_OK : pl_fail_memory(err, (mel + rows) * sizeof *ear->mel, "sound");
}

pl_status pl_ear_create(pl_towers *t, const pl_tower_asker *asker, pl_ear **out, pl_error *err)
{
    pl_ear *ear = calloc(1, sizeof *ear);
    if (!ear)
        return pl_fail_memory(err, sizeof *ear, "sound");
    ear->towers = t;
    pl_status status = create_ear(ear, asker, err);
    if (status != PL_OK) {
        pl_ear_free(ear);
        return status;
    }
    *out = ear;
    return PL_OK;
}

void pl_ear_free(pl_ear *ear)
{
    if (!ear)
        return;
    if (ear->stream) {
        pl_towers *t = ear->towers;
        pthread_mutex_lock(&t->work);
        pl_audio_stream_free(ear->stream);
        count_user(t, -1);
        leave(t, PL_TOWER_AUDIO, 0);
    }
    free(ear->mel);
    free(ear->rows);
    free(ear);
}

pl_status pl_ear_hear(pl_ear *ear, const float *samples, size_t n_samples, bool last, const pl_tower_asker *asker,
                      const float **rows, int *n, pl_error *err)
{
    pl_towers *t = ear->towers;
    int frames = pl_mel_frames(n_samples, !last), fresh = frames - ear->frames;
    *n = 0;
    *rows = ear->rows;
    if (fresh <= 0 && !last)
        return PL_OK;
    PL_TRY(enter(t, PL_TOWER_AUDIO, asker, err));
    taker k = taker_of(t, asker);
    pl_tower_turn turn = {begin_piece, end_piece, &k};
    double begin = pl_clock_seconds();
    pl_mel_compute(t->mel, samples, n_samples, ear->frames, fresh, ear->mel);
    pl_status status = pl_audio_hear(ear->stream, ear->mel, fresh, last, &turn, NULL, ear->rows, ear->room, n, err);
    ear->frames += fresh;
    pthread_mutex_lock(&t->lock);
    t->stats.clips += status == PL_OK && last;
    pthread_mutex_unlock(&t->lock);
    leave(t, PL_TOWER_AUDIO, pl_clock_seconds() - begin);
    return status;
}

/* ---- ids of their own -------------------------------------------------------------------------- */

typedef struct vocabulary {
    int32_t first, n;
} vocabulary;

static vocabulary vocabulary_of(const pl_tower_source *source, pl_tower_kind kind)
{
    const pl_vision_config *vision = pl_tower_source_vision(source);
    const pl_audio_config *audio = pl_tower_source_audio(source);
    if (kind == PL_TOWER_VISION)
        return vision ? (vocabulary){vision->first_id, vision->vocab} : (vocabulary){0};
    return audio ? (vocabulary){audio->first_id, audio->vocab} : (vocabulary){0};
}

static pl_status fill_rows(pl_towers *t, pl_tower_kind kind, float *rows, pl_error *err)
{
    pl_backend *backend = NULL;
    pl_embedder *embedder = NULL;
    PL_TRY(find_backend(t, &backend, err));
    PL_TRY(pl_embedder_create(t->source, kind, backend, NULL, &embedder, err));
    pl_status status = pl_embedder_hard(embedder, rows, err);
    pl_embedder_free(embedder);
    return status;
}

static pl_status fill_all(pl_towers *t, vocabulary vision, vocabulary audio, float *rows, pl_error *err)
{
    if (vision.n > 0)
        PL_TRY(fill_rows(t, PL_TOWER_VISION, rows, err));
    return audio.n > 0 ? fill_rows(t, PL_TOWER_AUDIO, rows + (size_t)vision.n * (size_t)t->hidden, err) : PL_OK;
}

pl_status pl_towers_hard_rows(pl_towers *t, float **rows, int32_t *first, int32_t *n, pl_error *err)
{
    vocabulary vision = vocabulary_of(t->source, PL_TOWER_VISION), audio = vocabulary_of(t->source, PL_TOWER_AUDIO);
    if (vision.n > 0 && audio.n > 0 && audio.first != vision.first + vision.n)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the ids of sound begin at %d, expected %d, behind those of images",
                       audio.first, vision.first + vision.n);
    *first = vision.n > 0 ? vision.first : audio.first;
    *n = vision.n + audio.n;
    size_t values = (size_t)*n * (size_t)t->hidden;
    float *all = malloc(values * sizeof *all);
    if (!all)
        return pl_fail_memory(err, values * sizeof *all, "embeddings of the towers' ids");
    pl_status status = fill_all(t, vision, audio, all, err);
    give_up_backend(t);
    if (status != PL_OK)
        free(all);
    else
        *rows = all;
    return status;
}

/* ---- what there is ----------------------------------------------------------------------------- */

void pl_towers_count_hit(pl_towers *t)
{
    pthread_mutex_lock(&t->lock);
    t->stats.hits++;
    pthread_mutex_unlock(&t->lock);
}

void pl_towers_describe(pl_towers *t, pl_tower_stats *out)
{
    pthread_mutex_lock(&t->lock);
    *out = t->stats;
    pthread_mutex_unlock(&t->lock);
    out->cache_bytes = pl_soft_rows_bytes(t->engine->soft);
}

void pl_towers_drop(pl_towers *t, double idle_s)
{
    if (pthread_mutex_trylock(&t->work) != 0)
        return;
    for (int kind = 0; kind < KINDS; kind++)
        give_up_idle(t, (pl_tower_kind)kind, idle_s < 0 ? t->keep_s : idle_s);
    pthread_mutex_unlock(&t->work);
}
