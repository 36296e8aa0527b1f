/* Video: what the helper gives of real clips, and helpers that crash, hang and lie. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>

#include "host/media/sound.h"
#include "host/media/video.h"
#include "host/media/video_pipe.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

#define MEDIA PL_TEST_DATA "/golden/media/"
#define CLIP MEDIA "clip.mp4"
#define MAX_FRAMES 16

static scratch s;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    memset(&err, 0, sizeof err);
}

static void teardown(void)
{
    scratch_close(&s);
}

TestSuite(video, .init = setup, .fini = teardown);

typedef struct seen {
    int frames, width, height;
    double at_s[MAX_FRAMES];
    int corner[MAX_FRAMES][4]; /* red: upper left, upper right, lower left, lower right */
    size_t samples, crossings;
    float before;
    pl_status answer;
} seen;

static pl_status see(void *user, const pl_video_frame *frame, pl_error *e)
{
    seen *v = user;
    cr_assert_lt(v->frames, MAX_FRAMES);
    size_t w = (size_t)frame->width, h = (size_t)frame->height;
    const size_t at[] = {0, w - 1, (h - 1) * w, h * w - 1};
    for (int i = 0; i < 4; i++)
        v->corner[v->frames][i] = frame->rgb[3 * at[i]];
    v->width = frame->width;
    v->height = frame->height;
    v->at_s[v->frames++] = frame->at_s;
    return v->answer == PL_OK ? PL_OK : pl_fail(e, v->answer, "enough of it");
}

static pl_status hear(void *user, const float *samples, size_t n, pl_error *e)
{
    seen *v = user;
    (void)e;
    for (size_t i = 0; i < n; i++) {
        v->crossings += v->before < 0 && samples[i] >= 0;
        v->before = samples[i];
    }
    v->samples += n;
    return PL_OK;
}

static pl_status watch(const char *path, const pl_video_params *params, seen *v)
{
    memset(v, 0, sizeof *v);
    return pl_video_read(path, params, &(pl_video_sink){see, hear, v}, &err);
}

#ifndef PL_HAVE_FRAMES
Test(video, without_helper)
{
    seen v;
    expect_failure(watch(CLIP, NULL, &v), PL_ERR_UNSUPPORTED, &err, WORDS("pleiad-frames", "libavformat-dev"));
}
#else

static void expect_tone(const seen *v)
{
    double seconds = (double)v->samples / PL_SOUND_RATE;
    cr_assert_float_eq(seconds, 2, 0.1, "%g seconds", seconds);
    cr_assert_float_eq((double)v->crossings / 2, 440, 5, "%zu periods in two seconds", v->crossings);
}

/* Half seconds of which each is 40 brighter than the one before, 1 more each pixel to the right: times 255 / 219, as video does
 * not use all values; and what the coding takes away. */
Test(video, frames_and_sound)
{
    seen v;
    pl_video_params params = {.frames_per_s = 2};
    cr_assert_eq(watch(CLIP, &params, &v), PL_OK, "%s", err.message);
    cr_assert(v.frames == 4 && v.width == 64 && v.height == 48);
    for (int i = 0; i < 4; i++) {
        cr_assert_float_eq(v.at_s[i], 0.5 * i, 1e-6);
        cr_assert(abs(v.corner[i][0] - (16 + i * 40) * 255 / 219) <= 8, "frame %d: %d", i, v.corner[i][0]);
        cr_assert(abs(v.corner[i][1] - (16 + 63 + i * 40) * 255 / 219) <= 8, "frame %d: %d", i, v.corner[i][1]);
    }
    expect_tone(&v);
}

Test(video, one_a_second_if_nobody_says_otherwise)
{
    seen v;
    cr_assert_eq(watch(CLIP, NULL, &v), PL_OK, "%s", err.message);
    cr_assert(v.frames == 2 && v.at_s[0] == 0);
    cr_assert_float_eq(v.at_s[1], 1, 1e-6);
}

Test(video, few_frames_are_spread_and_small)
{
    seen v;
    pl_video_params params = {.frames_per_s = 10, .max_frames = 2, .max_side = 32};
    cr_assert_eq(watch(CLIP, &params, &v), PL_OK, "%s", err.message);
    cr_assert(v.frames == 2 && v.width == 32 && v.height == 24);
    cr_assert_float_eq(v.at_s[1], 1, 0.11);
}

Test(video, from_memory)
{
    seen v = {.frames = 0};
    size_t n;
    char *bytes = read_file(CLIP, &n);
    const pl_video_sink sink = {see, hear, &v};
    cr_assert_eq(pl_video_read_bytes(bytes, n, "upload", NULL, &sink, &err), PL_OK, "%s", err.message);
    cr_assert(v.frames == 2 && v.width == 64);
    expect_tone(&v);
    expect_failure(pl_video_read_bytes("a text", 6, "upload", NULL, &sink, &err), PL_ERR_FORMAT, &err, WORDS("upload"));
    free(bytes);
}

Test(video, turned_upright)
{
    seen v;
    cr_assert_eq(watch(MEDIA "turned.mp4", NULL, &v), PL_OK, "%s", err.message);
    cr_assert(v.width == 48 && v.height == 64);
    cr_assert(v.corner[0][0] > v.corner[0][2] + 40 && v.corner[0][1] > v.corner[0][0], "what was right is above");
}

Test(video, without_sound_or_pictures)
{
    seen v;
    cr_assert_eq(watch(MEDIA "silent.mkv", NULL, &v), PL_OK, "%s", err.message);
    cr_assert(v.frames == 2 && v.samples == 0);
    expect_failure(watch(MEDIA "sound.m4a", NULL, &v), PL_ERR_UNSUPPORTED, &err, WORDS("sound.m4a", "no pictures"));

    const pl_video_sink ears = {NULL, hear, &v}, eyes = {see, NULL, &v};
    memset(&v, 0, sizeof v);
    expect_failure(pl_video_read(MEDIA "silent.mkv", NULL, &ears, &err), PL_ERR_UNSUPPORTED, &err,
                   WORDS("silent.mkv", "no sound"));
    cr_assert_eq(pl_video_read(MEDIA "sound.m4a", NULL, &ears, &err), PL_OK, "%s", err.message);
    expect_tone(&v);
    memset(&v, 0, sizeof v);
    cr_assert_eq(pl_video_read(CLIP, NULL, &eyes, &err), PL_OK, "%s", err.message);
    cr_assert(v.frames == 2 && v.samples == 0);
}

Test(video, limit_of_seconds)
{
    seen v;
    pl_video_params params = {.max_s = 1};
    expect_failure(watch(CLIP, &params, &v), PL_ERR_UNSUPPORTED, &err, WORDS("clip.mp4", "longer than the limit"));
}

Test(video, damaged_files)
{
    seen v;
    size_t n;
    expect_failure(watch(scratch_text(&s, "a.mp4", "a text, named .mp4"), NULL, &v), PL_ERR_FORMAT, &err,
                   WORDS("a.mp4", "neither video nor sound"));
    expect_failure(watch(scratch_text(&s, "b.mp4", ""), NULL, &v), PL_ERR_FORMAT, &err, WORDS("b.mp4"));
    char *bytes = read_file(CLIP, &n);
    for (size_t keep = n / 8; keep < n / 2; keep += n / 8) /* the index is at the end */
        expect_failure(watch(scratch_write(&s, "cut.mp4", bytes, keep), NULL, &v), PL_ERR_FORMAT, &err,
                       WORDS("cut.mp4"));
    memset(bytes + n / 4, 0x55, n / 8); /* pictures and sound in shreds: what is left, or an error */
    pl_status status = watch(scratch_write(&s, "torn.mp4", bytes, n), NULL, &v);
    cr_assert(status == PL_OK || status == PL_ERR_FORMAT, "%s", err.message);
    free(bytes);
}

/* A list of other files opens none of them. */
Test(video, playlists)
{
    seen v;
    static const char *const lists[] = {"ffconcat version 1.0\nfile '" CLIP "'\n",
                                        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n" CLIP "\n#EXT-X-ENDLIST\n"};
    for (size_t i = 0; i < 2; i++)
        expect_failure(watch(scratch_text(&s, "list.mp4", lists[i]), NULL, &v), PL_ERR_FORMAT, &err, WORDS("list.mp4"));
}

Test(video, what_the_sink_says)
{
    seen v = {.answer = PL_ERR_CONTEXT};
    expect_failure(pl_video_read(CLIP, NULL, &(pl_video_sink){see, hear, &v}, &err), PL_ERR_CONTEXT, &err,
                   WORDS("enough of it"));
    cr_assert_eq(v.frames, 1);
}
#endif

Test(video, no_file)
{
    seen v;
    pl_video_params params = {.helper = "/bin/true"};
    expect_failure(watch("/nowhere/clip.mp4", &params, &v), PL_ERR_IO, &err, WORDS("/nowhere/clip.mp4"));
    expect_failure(watch(s.dir, &params, &v), PL_ERR_IO, &err, WORDS("not a regular file"));
    params.max_side = 1 << 20;
    expect_failure(watch(CLIP, &params, &v), PL_ERR_ARGUMENT, &err, WORDS("1048576"));
}

/* ---- other helpers ------------------------------------------------------------------------------ */

/* Reads the clip with a shell script for a helper. */
static pl_status watch_script(const char *script, pl_video_params params, seen *v)
{
    char text[1024];
    snprintf(text, sizeof text, "#!/bin/sh\n%s\n", script);
    params.helper = scratch_text(&s, "helper", text);
    cr_assert_eq(chmod(params.helper, 0755), 0);
    return watch(CLIP, &params, v);
}

static pl_status watch_bytes(const void *bytes, size_t n, seen *v)
{
    char script[512];
    snprintf(script, sizeof script, "exec cat '%s'", scratch_write(&s, "stream", bytes, n));
    return watch_script(script, (pl_video_params){.max_frames = 2, .max_side = 8, .max_s = 1}, v);
}

Test(video, helpers_that_fail)
{
    seen v;
    const pl_video_params plain = {0};
    expect_failure(watch_script("exit 0", plain, &v), PL_ERR_FORMAT, &err, WORDS("clip.mp4", "status 0"));
    expect_failure(watch_script("echo first >&2; echo 'no such codec' >&2; exit 2", plain, &v), PL_ERR_UNSUPPORTED,
                   &err, WORDS("clip.mp4: no such codec"));
    expect_failure(watch_script("echo 'shredded' >&2; exit 1", plain, &v), PL_ERR_FORMAT, &err,
                   WORDS("clip.mp4: shredded"));
    expect_failure(watch_script("echo 'out of luck' >&2; kill -SEGV $$", plain, &v), PL_ERR_FORMAT, &err,
                   WORDS("clip.mp4", "signal 11", "out of luck"));
    expect_failure(watch_script("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 77", plain, &v), PL_ERR_FORMAT, &err,
                   WORDS("status 77", "xxxx"));
    pl_video_params missing = {.helper = "/nowhere/helper"};
    expect_failure(watch(CLIP, &missing, &v), PL_ERR_IO, &err, WORDS("/nowhere/helper", "cannot be started"));
}

Test(video, helpers_that_hang)
{
    seen v;
    pl_video_params params = {.silence_s = 0.2};
    expect_failure(watch_script("exec sleep 60", params, &v), PL_ERR_IO, &err, WORDS("clip.mp4", "0.2 seconds"));
    expect_failure(watch_script("while :; do echo noise >&2; sleep 0.05; done", params, &v), PL_ERR_IO, &err,
                   WORDS("0.2 seconds"));
    expect_failure(watch_script("exec sleep 60 >&-", params, &v), PL_ERR_FORMAT, &err, WORDS("signal 9"));
}

static bool stop_at_once(void *user)
{
    (void)user;
    return true;
}

Test(video, stopped)
{
    seen v;
    pl_video_params params = {.stop = stop_at_once};
    expect_failure(watch_script("exec sleep 60", params, &v), PL_ERR_CANCELLED, &err, WORDS("clip.mp4"));
}

/* It sees its five arguments, the clip on stdin and none of our files. */
Test(video, what_the_helper_gets)
{
    seen v;
    pl_video_params params = {.frames_per_s = 0.5, .max_frames = 7, .max_side = 100, .max_s = 60};
    int ours = fcntl(STDIN_FILENO, F_DUPFD, 57);
    cr_assert_eq(ours, 57);
    expect_failure(watch_script("echo \"$@\" $(head -c 8 | tail -c 4) $(ls -d /proc/$$/fd/57 || echo none) >&2; exit 1",
                                params, &v),
                   PL_ERR_FORMAT, &err, WORDS("0.5 7 100 60 sound ftyp none"));
    close(ours);
}

static pl_pipe_header frame_of(uint32_t w, uint32_t h, double at_s)
{
    return (pl_pipe_header){PL_PIPE_MAGIC, PL_PIPE_FRAME, w, h, (uint64_t)w * h * 3, 0, 0, at_s};
}

static pl_pipe_header sound_of(uint64_t bytes)
{
    return (pl_pipe_header){.magic = PL_PIPE_MAGIC, .kind = PL_PIPE_SOUND, .bytes = bytes};
}

static pl_pipe_header end_of(uint64_t frames, uint64_t samples)
{
    return (pl_pipe_header){.magic = PL_PIPE_MAGIC, .kind = PL_PIPE_END, .frames = frames, .samples = samples};
}

/* Headers, each followed by the payload that it promises, up to a megabyte: what is wrong is found before it is read. */
static pl_status watch_messages(const pl_pipe_header *headers, size_t n, seen *v)
{
    static unsigned char bytes[1 << 20];
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(bytes + at, &headers[i], sizeof headers[i]);
        at += sizeof headers[i];
        size_t payload = headers[i].bytes < 100000 ? (size_t)headers[i].bytes : 0;
        memset(bytes + at, 0, payload);
        at += payload;
    }
    return watch_bytes(bytes, at, v);
}

#define MESSAGES(...)                                                                                                  \
    (const pl_pipe_header[]){__VA_ARGS__}, sizeof((pl_pipe_header[]){__VA_ARGS__}) / sizeof(pl_pipe_header)

Test(video, a_good_stream)
{
    seen v;
    const pl_pipe_header alive = {.magic = PL_PIPE_MAGIC, .kind = PL_PIPE_ALIVE};
    cr_assert_eq(watch_messages(
                     MESSAGES(frame_of(8, 4, 0), alive, sound_of(4000), alive, frame_of(4, 8, 0), end_of(2, 1000)), &v),
                 PL_OK, "%s", err.message);
    cr_assert(v.frames == 2 && v.width == 4 && v.height == 8 && v.samples == 1000);
}

Test(video, helpers_that_lie)
{
    seen v;
    pl_pipe_header other = frame_of(1, 1, 0), longer = frame_of(2, 2, 0), noise = frame_of(1, 1, 0);
    other.kind = 9;
    longer.bytes++;
    noise.magic ^= 1;
    const struct {
        pl_pipe_header headers[3];
        size_t n;
        const char *word;
    } lies[] = {
        {{noise}, 1, "no message"},
        {{other}, 1, "no kind"},
        {{frame_of(9, 1, 0)}, 1, "wrong size"},
        {{frame_of(0, 1, 0)}, 1, "wrong size"},
        {{frame_of(0xffffffff, 0xffffffff, 0)}, 1, "wrong size"},
        {{longer}, 1, "not its pixels"},
        {{frame_of(1, 1, NAN)}, 1, "order of time"},
        {{frame_of(1, 1, -1)}, 1, "order of time"},
        {{frame_of(1, 1, 2), frame_of(1, 1, 1)}, 2, "order of time, after 1 frames"},
        {{frame_of(1, 1, 0), frame_of(1, 1, 0), frame_of(1, 1, 0)}, 3, "more frames"},
        {{sound_of(0)}, 1, "wrong size"},
        {{sound_of(5)}, 1, "wrong size"},
        {{sound_of(1ull << 40)}, 1, "wrong size"},
        {{sound_of(60000), sound_of(8000)}, 2, "more sound"},
        {{frame_of(1, 1, 0), end_of(2, 0)}, 2, "counts otherwise"},
        {{end_of(0, 1)}, 1, "counts otherwise"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++)
        expect_failure(watch_messages(lies[i].headers, lies[i].n, &v), PL_ERR_FORMAT, &err,
                       WORDS("clip.mp4", "pleiad-frames sent", lies[i].word));
}

Test(video, signs_of_life_without_end)
{
    seen v;
    const pl_pipe_header alive = {.magic = PL_PIPE_MAGIC, .kind = PL_PIPE_ALIVE};
    pl_pipe_header *signs = malloc((PL_PIPE_CPU_SECONDS + 1) * sizeof *signs);
    for (size_t i = 0; i <= PL_PIPE_CPU_SECONDS; i++)
        signs[i] = alive;
    expect_failure(watch_bytes(signs, (PL_PIPE_CPU_SECONDS + 1) * sizeof *signs, &v), PL_ERR_FORMAT, &err,
                   WORDS("clip.mp4", "signs of life"));
    free(signs);
}

Test(video, a_stream_that_breaks_off)
{
    seen v;
    char script[512];
    pl_pipe_header header = frame_of(8, 8, 0);
    for (size_t keep = 0; keep <= sizeof header; keep += 12) {
        snprintf(script, sizeof script, "cat '%s'; exit 0", scratch_write(&s, "stream", &header, keep));
        expect_failure(watch_script(script, (pl_video_params){0}, &v), PL_ERR_FORMAT, &err,
                       WORDS("too early", "status 0"));
        cr_assert_eq(v.frames, 0);
    }
}

typedef struct stream {
    const unsigned char *bytes;
    size_t n, at;
} stream;

static pl_status read_stream(void *user, void *to, size_t n, pl_error *e)
{
    stream *in = user;
    if (n > in->n - in->at)
        return pl_fail(e, PL_ERR_FORMAT, "cut short");
    memcpy(to, in->bytes + in->at, n);
    in->at += n;
    return PL_OK;
}

static pl_status read_without_memory(void *ctx, pl_error *e)
{
    seen v = {.frames = 0};
    stream in = *(const stream *)ctx;
    const pl_pipe_limits limits = {2, 100, 8};
    return pl_video_pipe(read_stream, &in, &limits, &(pl_video_sink){see, hear, &v}, "clip", e);
}

Test(video, no_memory)
{
    const struct {
        pl_pipe_header small;
        unsigned char pixel[3];
        pl_pipe_header large;
        unsigned char pixels[12];
        pl_pipe_header end;
    } __attribute__((packed)) messages = {frame_of(1, 1, 0), {0}, frame_of(2, 2, 0), {0}, end_of(2, 0)};
    stream in = {(const unsigned char *)&messages, sizeof messages, 0};
    cr_assert_eq(fail_alloc_each(read_without_memory, &in), 3);
}
