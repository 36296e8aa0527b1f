#include "host/media/video_pipe.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

typedef struct pipe_reader {
    pl_pipe_read_fn read;
    void *read_user;
    const pl_pipe_limits *limits;
    const pl_video_sink *sink;
    const char *name; /* of the video */
    pl_error *err;
    uint64_t frames, samples, signs; /* so far */
    double at_s;                     /* of the last frame */
    uint8_t *rgb;
    size_t room; /* of rgb */
    float *sound;
} pipe_reader;

static pl_status wrong(const pipe_reader *r, const char *what)
{
    return pl_fail(r->err, PL_ERR_FORMAT, "%s: pleiad-frames sent %s, after %" PRIu64 " frames and %" PRIu64 " samples",
                   r->name, what, r->frames, r->samples);
}

static pl_status make_room(pipe_reader *r, size_t bytes)
{
    if (bytes <= r->room)
        return PL_OK;
    free(r->rgb);
    r->rgb = malloc(bytes);
    r->room = r->rgb ? bytes : 0;
    return r->rgb ? PL_OK : pl_fail_memory(r->err, bytes, "a frame of video");
}

static pl_status read_frame(pipe_reader *r, const pl_pipe_header *header)
{
    if (!r->sink->frame || r->frames == r->limits->frames)
        return wrong(r, "more frames than were asked for");
    if (header->width < 1 || header->height < 1 || header->width > r->limits->side || header->height > r->limits->side)
        return wrong(r, "a frame of a wrong size");
    if (header->bytes != (uint64_t)header->width * header->height * 3)
        return wrong(r, "a frame whose bytes are not its pixels");
    if (!isfinite(header->at_s) || header->at_s < r->at_s)
        return wrong(r, "a frame out of the order of time");
    PL_TRY(make_room(r, (size_t)header->bytes));
    PL_TRY(r->read(r->read_user, r->rgb, (size_t)header->bytes, r->err));
    r->frames++;
    r->at_s = header->at_s;
    pl_video_frame frame = {r->rgb, (int)header->width, (int)header->height, header->at_s};
    return r->sink->frame(r->sink->user, &frame, r->err);
}

static pl_status read_sound(pipe_reader *r, const pl_pipe_header *header)
{
    if (header->bytes == 0 || header->bytes > PL_PIPE_SOUND_BYTES || header->bytes % sizeof *r->sound != 0)
        return wrong(r, "a piece of sound of a wrong size");
    size_t n = (size_t)header->bytes / sizeof *r->sound;
    if (!r->sink->sound || n > r->limits->samples - r->samples)
        return wrong(r, "more sound than was asked for");
    PL_TRY(r->read(r->read_user, r->sound, (size_t)header->bytes, r->err));
    for (size_t i = 0; i < n; i++)
        if (!isfinite(r->sound[i]))
            return wrong(r, "sound that is no number");
    r->samples += n;
    return r->sink->sound(r->sink->user, r->sound, n, r->err);
}

static pl_status read_messages(pipe_reader *r)
{
    pl_pipe_header header;
    for (;;) {
        PL_TRY(r->read(r->read_user, &header, sizeof header, r->err));
        if (header.magic != PL_PIPE_MAGIC)
            return wrong(r, "what is no message");
        switch (header.kind) {
        case PL_PIPE_FRAME: PL_TRY(read_frame(r, &header)); break;
        case PL_PIPE_SOUND: PL_TRY(read_sound(r, &header)); break;
        case PL_PIPE_ALIVE:
            if (header.bytes != 0 || ++r->signs > PL_PIPE_CPU_SECONDS)
                return wrong(r, "too many signs of life");
            break;
        case PL_PIPE_END:
            if (header.frames != r->frames || header.samples != r->samples || header.bytes != 0)
                return wrong(r, "an end that counts otherwise");
            return PL_OK;
        default: return wrong(r, "a message of no kind");
        }
    }
}

pl_status pl_video_pipe(pl_pipe_read_fn read, void *read_user, const pl_pipe_limits *limits, const pl_video_sink *sink,
                        const char *name, pl_error *err)
{
    pipe_reader r = {.read = read, .read_user = read_user, .limits = limits, .sink = sink, .name = name, .err = err};
    r.sound = malloc(PL_PIPE_SOUND_BYTES);
    pl_status status = r.sound ? read_messages(&r) : pl_fail_memory(err, PL_PIPE_SOUND_BYTES, "the sound of a video");
    free(r.sound);
    free(r.rgb);
    return status;
}
