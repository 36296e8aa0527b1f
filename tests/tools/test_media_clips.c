#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/media/track.h"
#include "tools/media_clips.h"
#include "tools/media_pauses.h"

#define SECOND PL_SOUND_RATE

/* Loud but for 0.3 s at the end of every `every` seconds; each sample tells its place. */
static pl_sound sound_of(double seconds, double every)
{
    pl_sound s = {.n = (size_t)(seconds * SECOND)};
    s.samples = malloc((s.n + 1) * sizeof *s.samples);
    cr_assert_not_null(s.samples);
    for (size_t i = 0; i < s.n; i++) {
        double at = fmod((double)i / SECOND, every);
        s.samples[i] = (at > every - 0.3 ? 1e-6F : 0.5F) * (float)((i % 1000) + 1) / 1000.0F * (i % 2 ? 1.0F : -1.0F);
    }
    return s;
}

/* Clips follow one another without a gap, hold what the sound holds, and are no longer than max_s. */
static size_t check_clips(double seconds, double every, double max_s)
{
    pl_clips clips;
    pl_clip clip;
    size_t at = 0, n = 0;
    pl_sound sound = sound_of(seconds, every), copy = sound_of(seconds, every);
    cr_assert_eq(pl_clips_of(&sound, max_s, &clips, NULL), PL_OK);
    cr_assert_null(sound.samples);
    for (;; n++) {
        cr_assert_eq(pl_clips_next(&clips, &clip, NULL), PL_OK);
        if (!clip.n)
            break;
        cr_assert_leq((double)clip.n, max_s * SECOND);
        cr_assert_float_eq(clip.start, (double)at / SECOND, 1e-9);
        cr_assert_float_eq(clip.end, (double)(at + clip.n) / SECOND, 1e-9);
        cr_assert_leq(at + clip.n, copy.n);
        cr_assert_arr_eq(clip.samples, copy.samples + at, clip.n * sizeof *clip.samples);
        at += clip.n;
    }
    cr_assert_eq(at, copy.n);
    pl_clips_close(&clips);
    pl_sound_free(&copy);
    return n;
}

Test(media_clips, cover_the_sound)
{
    cr_expect_eq(check_clips(0.1, 5, 30), 1);
    cr_expect_eq(check_clips(30, 7, 30), 1);
    cr_expect_eq(check_clips(60, 100, 30), 2);
    cr_expect_geq(check_clips(60.0001, 8, 30), 3);
    cr_expect_geq(check_clips(125, 8, 30), 5);
    cr_expect_geq(check_clips(61, 5, 10), 7);
}

Test(media_clips, end_where_it_is_quiet)
{
    pl_clips clips;
    pl_clip clip;
    pl_sound sound = sound_of(70, 8);
    cr_assert_eq(pl_clips_of(&sound, 30, &clips, NULL), PL_OK);
    cr_assert_eq(pl_clips_next(&clips, &clip, NULL), PL_OK);
    cr_expect_gt(fmod(clip.end, 8), 7.7);
    pl_clips_close(&clips);
}

Test(media_clips, a_track_is_put_together)
{
    const float piece[3] = {0.1F, 0.2F, 0.3F};
    pl_track track = {.most = 100000};
    for (int i = 0; i < 30000; i++)
        cr_assert_eq(pl_track_hear(&track, piece, 3, NULL), PL_OK);
    cr_assert_eq(track.sound.n, 90000);
    for (size_t i = 0; i < track.sound.n; i++)
        cr_assert_eq(track.sound.samples[i], piece[i % 3]);
    for (int i = 0; i < 4000; i++)
        cr_assert_eq(pl_track_hear(&track, piece, 3, NULL), PL_OK);
    cr_expect(track.longer && track.sound.n == 0 && !track.sound.samples);
    pl_sound_free(&track.sound);
}

/* Frames of that loudness; how many of them were speech. */
static int hear(pl_pauses *pauses, float loudness, int frames)
{
    float frame[PL_PAUSE_FRAME];
    int speech = 0;
    for (int i = 0; i < PL_PAUSE_FRAME; i++)
        frame[i] = i % 2 ? loudness : -loudness;
    for (int i = 0; i < frames; i++)
        speech += pl_pauses_hear(pauses, frame);
    return speech;
}

Test(media_pauses, a_sentence_ends_after_the_pause)
{
    pl_pauses p = {.speaking = false};
    cr_expect_eq(hear(&p, 0, 100), 0);
    cr_expect_eq(hear(&p, 0.0039F, 100), 0, "too soft for speech");
    cr_expect_eq(hear(&p, 0.1F, 1), 0, "a click");
    cr_expect_eq(hear(&p, 0, 10), 0);
    cr_expect_eq(hear(&p, 0.1F, 50), 49);
    cr_expect_eq(hear(&p, 0, 29), 29, "between two words");
    cr_expect_eq(hear(&p, 0.1F, 50), 50);
    cr_expect_eq(hear(&p, 0, 100), 29);
}

Test(media_pauses, a_loud_room_is_learnt)
{
    pl_pauses p = {.speaking = false};
    hear(&p, 0.02F, 3000);
    cr_expect_eq(hear(&p, 0.02F, 100), 0);
    cr_expect_eq(hear(&p, 0.2F, 100), 99);
    cr_expect_eq(hear(&p, 0.02F, 100), 29);
}

Test(media_pauses, speech_without_a_pause_is_not_taken_for_the_room)
{
    pl_pauses p = {.speaking = false};
    cr_expect_eq(hear(&p, 0.1F, 1500), 1499);
}
