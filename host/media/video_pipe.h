/* What pleiad-frames writes, and its reader: messages of a header and a payload, in the machine's byte order. */
#ifndef PL_MEDIA_VIDEO_PIPE_H
#define PL_MEDIA_VIDEO_PIPE_H

#include "host/media/video.h"

#define PL_PIPE_MAGIC 0x31664c50u /* "PLf1" */
#define PL_PIPE_SOUND_BYTES (1u << 16)

enum { PL_PIPE_FRAME = 1, PL_PIPE_SOUND, PL_PIPE_ALIVE, PL_PIPE_END };

/* Signs of life come between frames that lie far apart, once a second: no more of them than of seconds that the helper may compute. */
#define PL_PIPE_CPU_SECONDS 3600

typedef struct pl_pipe_header {
    uint32_t magic, kind;
    uint32_t width, height;   /* of a frame */
    uint64_t bytes;           /* of the payload: RGB, or float samples; 0 at the end */
    uint64_t frames, samples; /* at the end: how many there were */
    double at_s;              /* of a frame */
} pl_pipe_header;

/* The helper's exit status, 0 where all went well. Its last line on stderr says what is wrong. */
enum { PL_FRAMES_DAMAGED = 1, PL_FRAMES_UNSUPPORTED };

typedef struct pl_pipe_limits {
    uint64_t frames, samples;
    uint32_t side;
} pl_pipe_limits;

/* Reads exactly n bytes. */
typedef pl_status (*pl_pipe_read_fn)(void *user, void *to, size_t n, pl_error *err);

/* Reads all messages up to the end and gives them to the sink. Nothing is believed: what breaks a limit, the order of time or
 * the counts is PL_ERR_FORMAT. name: of the video, for messages. */
pl_status pl_video_pipe(pl_pipe_read_fn read, void *read_user, const pl_pipe_limits *limits, const pl_video_sink *sink,
                        const char *name, pl_error *err);

#endif
