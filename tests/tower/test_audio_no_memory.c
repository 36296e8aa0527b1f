/* Every allocation of the audio tower and of its streams fails once. */
#include "host/base/cpu.h"
#include "host/media/mel.h"
#include "tests/tower/audio_fixture.h"
#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>

static pl_status make_and_hear(void *ctx, pl_error *err)
{
    static const float frames[20 * PL_MEL_BINS];
    static float rows[8 * 64];
    audio_fixture *f = ctx;
    pl_audio *audio = NULL;
    pl_audio_stream *stream = NULL;
    int n;
    pl_status status = pl_audio_create(&f->source, f->backend, NULL, &audio, err);
    if (status == PL_OK)
        status = pl_audio_stream_create(audio, &stream, err);
    if (status == PL_OK)
        status = pl_audio_hear(stream, frames, 20, true, NULL, NULL, rows, 8, &n, err);
    pl_audio_stream_free(stream);
    pl_audio_free(audio);
    return status;
}

Test(audio_no_memory, tower_and_stream)
{
    audio_fixture f = audio_fixture_open(AUDIO_GOLDEN "tiny.safetensors", audio_config_small());
    audio_fixture_start(&f, 1, PL_CPU_AVX2);
    /* the tower, room for values twice, its layers; the embedder; the stream, its layers */
    cr_expect_geq(fail_alloc_each(make_and_hear, &f), 7);
    audio_fixture_close(&f);
}

static pl_status make_mel(void *ctx, pl_error *err)
{
    (void)ctx;
    pl_mel *mel = NULL;
    pl_status status = pl_mel_create(&mel, err);
    pl_mel_free(mel);
    return status;
}

Test(audio_no_memory, features)
{
    cr_expect_eq(fail_alloc_each(make_mel, NULL), 1);
}
