/* Videos as parts of prompts, and the sound of files that are no sound files. */
#include <criterion/criterion.h>

#include "host/media/film.h"
#include "host/media/track.h"
#include "tests/unit/scratch.h"

#define MEDIA PL_TEST_DATA "/golden/media/"

static pl_error err;

/* ---- room -------------------------------------------------------------------------------------- */

static pl_film_plan plan_of(size_t context, size_t taken, size_t clip, int max_frames)
{
    pl_film_plan plan;
    pl_film_plan_make(context, taken, 256, clip, max_frames, &plan);
    return plan;
}

/* A frame is 256 + 12 tokens, a clip 188 + 12; an eighth of the context is for what else there is. */
Test(film, has_the_room_that_is_left)
{
    pl_film_plan p = plan_of(8192, 0, 188, 0);
    cr_expect(p.frame == 268 && p.fit == 26);
    cr_expect_eq(p.frames, 13);
    cr_expect_eq(p.most, (size_t)18 * 30 * PL_SOUND_RATE, "of 7168 tokens frames leave 3684: %zu", p.most);
    p = plan_of(8192, 0, 0, 0);
    cr_expect(p.frames == 26 && p.most == 0, "who does not hear sees more");
    p = plan_of(8192, 7168 - 2 * 268, 188, 0);
    cr_expect(p.frames == 1 && p.most == (size_t)30 * PL_SOUND_RATE);
    p = plan_of(8192, 7168 - 268, 188, 0);
    cr_expect(p.frames == 1 && p.most == 0, "half of the room has none");
    p = plan_of(8192, 7168 - 267, 188, 0);
    cr_expect(p.frames == 0 && p.fit == 0);
    cr_expect_eq(plan_of(8192, 9000, 188, 0).frames, 0);
}

Test(film, has_as_many_frames_as_are_asked_for)
{
    pl_film_plan p = plan_of(8192, 0, 188, 26);
    cr_expect(p.frames == 26 && p.most == (size_t)30 * PL_SOUND_RATE, "200 tokens are left");
    p = plan_of(8192, 0, 188, 2);
    cr_expect(p.frames == 2 && p.most == (size_t)33 * 30 * PL_SOUND_RATE);
    p = plan_of(8192, 0, 188, 27);
    cr_expect(p.frames == 27 && p.fit == 26 && p.most == 0);
}

Test(film, says_times)
{
    static const struct {
        double at_s;
        const char *said;
    } times[] = {{0, "00:00"},       {5.99, "00:05"},          {65, "01:05"},       {3599.9, "59:59"},
                 {3600, "01:00:00"}, {36000 + 61, "10:01:01"}, {1e300, "999:59:59"}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char said[PL_FILM_TIME];
        pl_film_time(times[i].at_s, said);
        cr_expect_str_eq(said, times[i].said);
    }
}

/* ---- sound ------------------------------------------------------------------------------------- */

static pl_status decode(const char *name, double max_s, const pl_video_params *params, pl_sound *out)
{
    char path[512];
    size_t n;
    snprintf(path, sizeof path, MEDIA "%s", name);
    char *bytes = read_file(path, &n);
    pl_status status = pl_track_decode(bytes, n, max_s, name, params, out, &err);
    free(bytes);
    return status;
}

/* The helper is for what is not read here. */
Test(film, sound_files_need_no_helper)
{
    const pl_video_params params = {.helper = "/dev/null/none"};
    pl_sound sound = {0};
    cr_assert_eq(decode("stereo48k.flac", 0, &params, &sound), PL_OK, "%s", err.message);
    cr_expect_gt(sound.n, 0);
    pl_sound_free(&sound);
    cr_expect_eq(decode("rgba.png", 0, &params, &sound), PL_ERR_FORMAT);
    cr_expect(strstr(err.message, "rgba.png is not sound"), "%s", err.message);
    cr_expect_eq(decode("sound.m4a", 0, &params, &sound), PL_ERR_IO);
    cr_expect(strstr(err.message, "/dev/null/none"), "%s", err.message);
}

#ifdef PL_HAVE_FRAMES
static bool at_once(void *user)
{
    (void)user;
    return true;
}

Test(film, sound_of_containers)
{
    pl_sound sound = {0};
    cr_assert_eq(decode("sound.m4a", 0, NULL, &sound), PL_OK, "%s", err.message);
    cr_expect_float_eq((double)sound.n / PL_SOUND_RATE, 2, 0.1);
    pl_sound_free(&sound);
    cr_assert_eq(decode("clip.mp4", 0, NULL, &sound), PL_OK, "%s", err.message);
    cr_expect_float_eq((double)sound.n / PL_SOUND_RATE, 2, 0.1);
    pl_sound_free(&sound);
    cr_expect_eq(decode("sound.m4a", 1, NULL, &sound), PL_ERR_UNSUPPORTED, "it is too long");
    cr_expect_eq(decode("silent.mkv", 0, NULL, &sound), PL_ERR_UNSUPPORTED);
    const pl_video_params stopped = {.stop = at_once};
    cr_expect_eq(decode("sound.m4a", 0, &stopped, &sound), PL_ERR_CANCELLED);
    cr_expect_null(sound.samples);
}

typedef struct seen {
    char times[8][PL_FILM_TIME];
    int n, most; /* frames; how many are looked at */
} seen;

static pl_status see(void *user, const char *at, const pl_video_frame *frame, pl_error *e)
{
    seen *v = user;
    cr_assert_lt(v->n, 8);
    cr_expect_eq(frame->width, 64);
    snprintf(v->times[v->n++], PL_FILM_TIME, "%s", at);
    return v->n < v->most ? PL_OK : pl_fail(e, PL_ERR_CONTEXT, "enough");
}

Test(film, is_read_as_planned)
{
    pl_sound sound;
    bool longer;
    seen v = {.most = 8};
    pl_film film = {.name = MEDIA "clip.mp4"};
    pl_film_plan plan = {.frames = 4, .most = 3 * PL_SOUND_RATE};
    cr_assert_eq(pl_film_read(&film, &plan, see, &v, &sound, &longer, &err), PL_OK, "%s", err.message);
    cr_expect(v.n == 2 && !longer);
    cr_expect_str_eq(v.times[0], "00:00");
    cr_expect_str_eq(v.times[1], "00:01");
    cr_expect_float_eq((double)sound.n / PL_SOUND_RATE, 2, 0.1);
    pl_sound_free(&sound);

    plan = (pl_film_plan){.frames = 1, .most = PL_SOUND_RATE};
    v.n = 0;
    char *bytes = read_file(film.name, &film.n);
    film.bytes = bytes;
    cr_assert_eq(pl_film_read(&film, &plan, see, &v, &sound, &longer, &err), PL_OK, "%s", err.message);
    cr_expect(v.n == 1 && longer && sound.n == 0 && !sound.samples);

    plan = (pl_film_plan){.frames = 4, .most = 3 * PL_SOUND_RATE};
    v = (seen){.most = 2};
    cr_expect_eq(pl_film_read(&film, &plan, see, &v, &sound, &longer, &err), PL_ERR_CONTEXT);
    cr_expect_null(sound.samples);
    film.stop = at_once;
    cr_expect_eq(pl_film_read(&film, &plan, see, &v, &sound, &longer, &err), PL_ERR_CANCELLED);
    free(bytes);
}
#else
Test(film, containers_need_the_helper)
{
    pl_sound sound;
    cr_expect_eq(decode("sound.m4a", 0, NULL, &sound), PL_ERR_UNSUPPORTED);
    cr_expect(strstr(err.message, "pleiad-frames"), "%s", err.message);
}
#endif
