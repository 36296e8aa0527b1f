/* From pixels and samples to an answer, with each allocation made to fail in turn; the towers are there already, and what
 * stays behind for good: rows that are remembered. */
#include "tests/engine/tiny_media.h"
#include "tests/tower/tower_files.h"
#include "tests/unit/fail_alloc.h"

typedef struct work {
    tiny t;
    uint8_t *rgb;
    float samples[8000];
} work;

static pl_status listen(const work *w, pl_error *err)
{
    pl_listener *l = NULL;
    PL_TRY(pl_listener_create(w->t.f.engine, &l, err));
    pl_status status = pl_listener_hear(l, w->samples, 8000, err);
    if (status == PL_OK)
        status = pl_listener_finish(l, err);
    pl_listener_free(l);
    return status;
}

static pl_status answer(const work *w, pl_media *const *media, pl_error *err)
{
    static const char text[] = "<image_soft_token>b<audio_soft_token>";
    pl_tokens tokens;
    PL_TRY(pl_tokenize_media(w->t.f.model, text, sizeof text - 1, PL_TOKENIZE_BOS, media, 2, &tokens, err));
    pl_generation params = pl_generation_default();
    pl_session *session = NULL;
    params.max_tokens = 2;
    pl_status status = pl_session_create(w->t.f.engine, &session, err);
    if (status == PL_OK)
        status = pl_session_prepare(session, tokens.ids, tokens.n - 1, err);
    if (status == PL_OK)
        status = pl_generate(session, tokens.ids, tokens.n, &params, NULL, err);
    pl_session_free(session);
    pl_tokens_free(&tokens);
    return status;
}

static pl_status run(void *ctx, pl_error *err)
{
    const work *w = ctx;
    pl_engine *e = w->t.f.engine;
    pl_media *media[2] = {NULL, NULL};
    pl_status status = pl_media_from_pixels(e, w->rgb, TINY_SIDE, TINY_SIDE, NULL, &media[0], err);
    if (status == PL_OK)
        status = pl_media_from_samples(e, w->samples, 8000, NULL, &media[1], err);
    if (status == PL_OK)
        status = listen(w, err);
    if (status == PL_OK)
        status = answer(w, media, err);
    pl_media_free(media[0]);
    pl_media_free(media[1]);
    return status;
}

Test(media_no_memory, every_allocation)
{
    work w = {.t = tiny_open(0, 0)};
    pl_error err;
    w.rgb = tower_pattern(TINY_SIDE, 1);
    for (int i = 0; i < 8000; i++)
        w.samples[i] = (float)(i * 7919 % 1000) / 1000 - 0.5f;
    cr_assert_eq(run(&w, &err), PL_OK, "%s", err.message);
    cr_assert_geq(fail_alloc_each(run, &w), 20);
    free(w.rgb);
    tiny_close(&w.t);
}
