/* pleiad-frames: takes a video (stdin, a file) apart with libav and writes frames and sound to stdout, as
 * host/media/video_pipe.h has it. What libav makes of hostile files, it does here: without other files, memory without end or
 * time without end. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/time.h>
#include <libswresample/swresample.h>
#include <libswscale/swscale.h>

#include "host/media/image_parts.h"
#include "host/media/sound.h"
#include "host/media/video_pipe.h"

#define MAX_PIXELS (64 << 20) /* of a frame as it is stored */
#define MEMORY_BYTES ((rlim_t)4 << 30)
#define INPUT_BYTES (1 << 16)
#define PIECE (PL_PIPE_SOUND_BYTES / sizeof(float))

/* Neither playlists, which name other files, nor anything that is not a recording. */
#define FORMATS "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,wav,mp3,aac,flac,amr,h264,hevc"

typedef struct track {
    AVStream *stream; /* NULL: there is none, or it is not wanted */
    AVCodecContext *decoder;
} track;

typedef struct film {
    double frames_per_s, max_s;
    int64_t max_frames;
    int max_side;
    AVFormatContext *format;
    AVIOContext *input;
    track pictures, sound;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *scaler;
    struct SwrContext *resampler;
    AVChannelLayout layout; /* what the resampler takes */
    int rate, sample_format;
    double start_s, next_s; /* of the film; of the next frame to be given */
    uint64_t frames, samples;
    int64_t heard_us; /* when there was the last sign of life */
} film;

/* Ends are _exit()s: all memory goes at once, and LeakSanitizer could not open the files that it needs. */
static _Noreturn void give_up(int code, const char *what, int av_code)
{
    char reason[AV_ERROR_MAX_STRING_SIZE] = "";
    if (av_code < 0)
        av_strerror(av_code, reason, sizeof reason);
    fprintf(stderr, "%s%s%s\n", what, reason[0] ? ": " : "", reason);
    _exit(code);
}

static void *must(void *allocated)
{
    if (!allocated)
        give_up(PL_FRAMES_UNSUPPORTED, "out of memory", 0);
    return allocated;
}

/* Sanitizers set aside terabytes, and write nothing of them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_LIMITED false
#elif defined(__has_feature)
#define MEMORY_LIMITED (!__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer))
#else
#define MEMORY_LIMITED true
#endif

static void limit(int what, rlim_t most)
{
    struct rlimit limits = {most, most}, before;
    if (getrlimit(what, &before) == 0 && before.rlim_max < most)
        limits.rlim_cur = limits.rlim_max = before.rlim_max;
    if (setrlimit(what, &limits) != 0)
        give_up(PL_FRAMES_UNSUPPORTED, "its limits cannot be set", AVERROR(errno));
}

static void set_limits(void)
{
    limit(RLIMIT_CPU, PL_PIPE_CPU_SECONDS);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NOFILE, 3);
    if (MEMORY_LIMITED)
        limit(RLIMIT_AS, MEMORY_BYTES);
}

/* ---- output ------------------------------------------------------------------------------------- */

static void put(const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t k = write(STDOUT_FILENO, at, n);
        if (k < 0 && errno != EINTR)
            _exit(PL_FRAMES_UNSUPPORTED); /* nobody listens any more */
        at += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
}

static void put_frame(film *f, const pl_image *image, double at_s)
{
    pl_pipe_header header = {.magic = PL_PIPE_MAGIC,
                             .kind = PL_PIPE_FRAME,
                             .width = (uint32_t)image->width,
                             .height = (uint32_t)image->height,
                             .bytes = (uint64_t)image->width * (uint64_t)image->height * 3,
                             .at_s = at_s};
    put(&header, sizeof header);
    put(image->rgb, (size_t)header.bytes);
    f->frames++;
}

static void put_sound(film *f, const float *samples, size_t n)
{
    if ((double)(f->samples + n) > f->max_s * PL_SOUND_RATE)
        give_up(PL_FRAMES_UNSUPPORTED, "its sound is longer than the limit", 0);
    pl_pipe_header header = {.magic = PL_PIPE_MAGIC, .kind = PL_PIPE_SOUND, .bytes = n * sizeof *samples};
    if (n == 0)
        return;
    put(&header, sizeof header);
    put(samples, n * sizeof *samples);
    f->samples += n;
}

static void put_alive(film *f)
{
    pl_pipe_header header = {.magic = PL_PIPE_MAGIC, .kind = PL_PIPE_ALIVE};
    if (av_gettime_relative() - f->heard_us < 1000000)
        return;
    put(&header, sizeof header);
    f->heard_us = av_gettime_relative();
}

static void put_end(const film *f)
{
    pl_pipe_header header = {.magic = PL_PIPE_MAGIC, .kind = PL_PIPE_END, .frames = f->frames, .samples = f->samples};
    put(&header, sizeof header);
}

/* ---- input -------------------------------------------------------------------------------------- */

static int read_input(void *user, uint8_t *to, int n)
{
    (void)user;
    ssize_t k;
    do
        k = read(STDIN_FILENO, to, (size_t)n);
    while (k < 0 && errno == EINTR);
    return k > 0 ? (int)k : k == 0 ? AVERROR_EOF : AVERROR(errno);
}

static int64_t seek_input(void *user, int64_t offset, int whence)
{
    (void)user;
    struct stat info;
    if (whence & AVSEEK_SIZE)
        return fstat(STDIN_FILENO, &info) == 0 ? info.st_size : AVERROR(errno);
    off_t at = lseek(STDIN_FILENO, offset, whence & ~AVSEEK_FORCE);
    return at < 0 ? AVERROR(errno) : at;
}

static int refuse_open(AVFormatContext *format, AVIOContext **out, const char *url, int flags, AVDictionary **options)
{
    (void)format, (void)out, (void)url, (void)flags, (void)options;
    return AVERROR(EACCES);
}

static void open_format(film *f)
{
    f->format = must(avformat_alloc_context());
    f->input = must(
        avio_alloc_context(must(av_malloc(INPUT_BYTES)), INPUT_BYTES, 0, NULL, read_input, NULL, seek_input));
    f->format->pb = f->input;
    f->format->io_open = refuse_open;
    f->format->format_whitelist = must(av_strdup(FORMATS));
    int code = avformat_open_input(&f->format, "", NULL, NULL);
    if (code < 0)
        give_up(PL_FRAMES_DAMAGED, "neither video nor sound that is read", code);
    if ((code = avformat_find_stream_info(f->format, NULL)) < 0)
        give_up(PL_FRAMES_DAMAGED, "damaged or cut short", code);
    int64_t start = f->format->start_time;
    f->start_s = start == AV_NOPTS_VALUE ? 0 : (double)start / AV_TIME_BASE;
}

static track open_track(const film *f, enum AVMediaType kind)
{
    track t = {0};
    const AVCodec *codec = NULL;
    int at = av_find_best_stream(f->format, kind, -1, -1, &codec, 0);
    if (at == AVERROR_DECODER_NOT_FOUND)
        give_up(PL_FRAMES_UNSUPPORTED, "in a coding that libav has no decoder for", 0);
    /* The picture of an album is no video. */
    if (at < 0 || f->format->streams[at]->disposition & AV_DISPOSITION_ATTACHED_PIC)
        return t;
    t.stream = f->format->streams[at];
    t.decoder = must(avcodec_alloc_context3(codec));
    t.decoder->max_pixels = MAX_PIXELS;
    t.decoder->thread_count = 2;
    t.decoder->pkt_timebase = t.stream->time_base;
    int code = avcodec_parameters_to_context(t.decoder, t.stream->codecpar);
    if (code >= 0)
        code = avcodec_open2(t.decoder, codec, NULL);
    if (code < 0)
        give_up(PL_FRAMES_DAMAGED, "its decoder refuses it", code);
    return t;
}

static void open_tracks(film *f, bool sound)
{
    bool pictures = f->max_frames > 0;
    if (pictures)
        f->pictures = open_track(f, AVMEDIA_TYPE_VIDEO);
    if (sound)
        f->sound = open_track(f, AVMEDIA_TYPE_AUDIO);
    if (pictures && !f->pictures.stream)
        give_up(PL_FRAMES_UNSUPPORTED, "no pictures in it, only sound", 0);
    if (!pictures && !f->sound.stream)
        give_up(PL_FRAMES_UNSUPPORTED, "no sound in it", 0);
    for (unsigned i = 0; i < f->format->nb_streams; i++)
        if (f->format->streams[i] != f->pictures.stream && f->format->streams[i] != f->sound.stream)
            f->format->streams[i]->discard = AVDISCARD_ALL;
}

/* Of a long film frames are taken less often, so that they tell of all of it. */
static void choose_rate(film *f)
{
    if (f->format->duration == AV_NOPTS_VALUE || f->format->duration <= 0)
        return;
    double length_s = (double)f->format->duration / AV_TIME_BASE;
    if (length_s > f->max_s)
        give_up(PL_FRAMES_UNSUPPORTED, "longer than the limit", 0);
    if (length_s * f->frames_per_s > (double)f->max_frames)
        f->frames_per_s = (double)f->max_frames / length_s;
}

/* ---- frames ------------------------------------------------------------------------------------- */

static double frame_time(const film *f, const track *t)
{
    int64_t at = f->frame->best_effort_timestamp;
    double at_s = at == AV_NOPTS_VALUE ? f->next_s : (double)at * av_q2d(t->stream->time_base) - f->start_s;
    return at_s > 0 ? at_s : 0;
}

static int orientation(const AVStream *stream)
{
    size_t n = 0;
    uint8_t *matrix = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &n);
    if (!matrix || n < 9 * sizeof(int32_t))
        return 1;
    double angle = av_display_rotation_get((const int32_t *)(const void *)matrix); /* counterclockwise; NaN: none */
    if (!isfinite(angle))
        return 1;
    switch (((int)lround(angle / 90) % 4 + 4) % 4) {
    case 1: return 8;
    case 2: return 3;
    case 3: return 6;
    default: return 1;
    }
}

static void set_colours(film *f)
{
    const int *matrix = sws_getCoefficients(f->frame->colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_DEFAULT
                                                                                          : (int)f->frame->colorspace);
    sws_setColorspaceDetails(f->scaler, matrix, f->frame->color_range == AVCOL_RANGE_JPEG,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
}

/* The frame in RGB, no larger than is wanted. */
static void scale(film *f, pl_image *out)
{
    const AVFrame *from = f->frame;
    int longest = from->width > from->height ? from->width : from->height;
    double shrink = longest > f->max_side ? (double)f->max_side / longest : 1;
    out->width = (int)fmax(1, round(from->width * shrink));
    out->height = (int)fmax(1, round(from->height * shrink));
    f->scaler = sws_getCachedContext(f->scaler, from->width, from->height, from->format, out->width, out->height,
                                     AV_PIX_FMT_RGB24, SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, NULL, NULL,
                                     NULL);
    if (!f->scaler)
        give_up(PL_FRAMES_UNSUPPORTED, "pixels of a kind that is not read", 0);
    set_colours(f);
    /* The scaler writes some bytes more than a row has. */
    int stride = (out->width * 3 + 63) / 64 * 64;
    uint8_t *rows = must(malloc((size_t)stride * (size_t)out->height + 64));
    int code = sws_scale(f->scaler, (const uint8_t *const *)from->data, from->linesize, 0, from->height, &rows,
                         &stride);
    if (code < 0)
        give_up(PL_FRAMES_DAMAGED, "a frame cannot be scaled", code);
    for (int y = 0; y < out->height; y++)
        memmove(rows + (size_t)y * (size_t)out->width * 3, rows + (size_t)y * (size_t)stride, (size_t)out->width * 3);
    out->rgb = rows;
}

static void take_picture(film *f)
{
    pl_image image = {0};
    double at_s = frame_time(f, &f->pictures);
    if (at_s > f->max_s)
        give_up(PL_FRAMES_UNSUPPORTED, "longer than the limit", 0);
    if (at_s + 1e-6 < f->next_s || f->frames >= (uint64_t)f->max_frames || f->frame->width < 1 || f->frame->height < 1)
        return;
    scale(f, &image);
    if (pl_image_turn(&image, orientation(f->pictures.stream), NULL) != PL_OK)
        must(NULL);
    put_frame(f, &image, at_s);
    free(image.rgb);
    f->next_s = (floor(at_s * f->frames_per_s + 1e-6) + 1) / f->frames_per_s;
}

/* ---- sound -------------------------------------------------------------------------------------- */

/* n samples of each channel; NULL and 0: what the resampler still holds. */
static void resample(film *f, uint8_t **channels, int n)
{
    int room = swr_get_out_samples(f->resampler, n);
    float *samples = must(malloc(((size_t)(room > 0 ? room : 0) + 64) * sizeof *samples));
    uint8_t *out = (uint8_t *)samples;
    int got = swr_convert(f->resampler, &out, room, (const uint8_t **)(void *)channels, n);
    if (got < 0)
        give_up(PL_FRAMES_DAMAGED, "its sound cannot be resampled", got);
    for (size_t at = 0, piece; at < (size_t)got; at += piece) {
        piece = (size_t)got - at < PIECE ? (size_t)got - at : PIECE;
        put_sound(f, samples + at, piece);
    }
    free(samples);
}

static void flush_sound(film *f)
{
    if (f->resampler)
        resample(f, NULL, 0);
    swr_free(&f->resampler);
}

static void open_resampler(film *f)
{
    AVChannelLayout mono = AV_CHANNEL_LAYOUT_MONO;
    AVFrame *from = f->frame;
    flush_sound(f);
    int code = swr_alloc_set_opts2(&f->resampler, &mono, AV_SAMPLE_FMT_FLT, PL_SOUND_RATE, &from->ch_layout,
                                   from->format, from->sample_rate, 0, NULL);
    if (code >= 0)
        code = swr_init(f->resampler);
    if (code >= 0)
        code = av_channel_layout_copy(&f->layout, &from->ch_layout);
    if (code < 0)
        give_up(PL_FRAMES_UNSUPPORTED, "its sound cannot be resampled", code);
    f->rate = from->sample_rate;
    f->sample_format = from->format;
}

/* Silence until the sound begins. */
static void begin_sound(film *f)
{
    static const float silence[PIECE];
    double at_s = frame_time(f, &f->sound);
    for (double left = fmin(at_s, f->max_s) * PL_SOUND_RATE; f->pictures.stream && left >= 1; left -= (double)PIECE)
        put_sound(f, silence, left < (double)PIECE ? (size_t)left : PIECE);
}

static void take_sound(film *f)
{
    const AVFrame *from = f->frame;
    if (from->nb_samples < 1 || from->sample_rate < 1)
        return;
    if (!f->resampler && f->samples == 0)
        begin_sound(f);
    if (!f->resampler || f->rate != from->sample_rate || f->sample_format != from->format ||
        av_channel_layout_compare(&f->layout, &from->ch_layout) != 0)
        open_resampler(f);
    resample(f, from->extended_data, from->nb_samples);
}

/* ---- all of it ---------------------------------------------------------------------------------- */

/* Feeds a decoder and takes what comes out. Damaged packets are left out, as players do. */
static void decode(film *f, const track *t, const AVPacket *packet)
{
    if (avcodec_send_packet(t->decoder, packet) < 0)
        return;
    while (avcodec_receive_frame(t->decoder, f->frame) >= 0) {
        if (t == &f->pictures)
            take_picture(f);
        else
            take_sound(f);
        av_frame_unref(f->frame);
    }
}

static void take_apart(film *f)
{
    f->heard_us = av_gettime_relative();
    f->packet = must(av_packet_alloc());
    f->frame = must(av_frame_alloc());
    while (av_read_frame(f->format, f->packet) >= 0) {
        const AVStream *stream = f->format->streams[f->packet->stream_index];
        if (stream == f->pictures.stream)
            decode(f, &f->pictures, f->packet);
        else if (stream == f->sound.stream)
            decode(f, &f->sound, f->packet);
        av_packet_unref(f->packet);
        put_alive(f);
    }
    if (f->pictures.stream)
        decode(f, &f->pictures, NULL);
    if (f->sound.stream)
        decode(f, &f->sound, NULL);
    flush_sound(f);
    if (f->pictures.stream && f->frames == 0)
        give_up(PL_FRAMES_DAMAGED, "damaged: not one picture can be decoded", 0);
    if (!f->pictures.stream && f->samples == 0)
        give_up(PL_FRAMES_DAMAGED, "damaged: no sound can be decoded", 0);
}

int main(int argc, char **argv)
{
    film f = {0};
    if (argc == 5 || (argc == 6 && strcmp(argv[5], "sound") == 0)) {
        f.frames_per_s = strtod(argv[1], NULL);
        f.max_frames = strtoll(argv[2], NULL, 10);
        f.max_side = (int)strtol(argv[3], NULL, 10);
        f.max_s = strtod(argv[4], NULL);
    }
    if (!(f.frames_per_s > 0) || f.max_frames < 0 || f.max_side < 1 || !(f.max_s > 0) || isatty(STDOUT_FILENO))
        give_up(PL_FRAMES_UNSUPPORTED,
                "usage: pleiad-frames FRAMES_PER_SECOND MAX_FRAMES MAX_SIDE MAX_SECONDS [sound] < VIDEO > PIPE\n"
                "Pleiad starts it by itself.",
                0);
    set_limits();
    av_log_set_level(AV_LOG_FATAL);
    open_format(&f);
    open_tracks(&f, argc == 6);
    choose_rate(&f);
    take_apart(&f);
    put_end(&f);
    _exit(0);
}
