/* Video files: frames at a chosen rate with their times, and the sound track, from a helper program, pleiad-frames (libav), in a
 * process of its own with limits on time and memory. It is found beside the program or in ../libexec/pleiad, and is there only
 * where libav was when Pleiad was built.
 *
 * The helper also reads what pl_sound_decode() does not: the sound of MP4, M4A, WebM and others. */
#ifndef PL_MEDIA_VIDEO_H
#define PL_MEDIA_VIDEO_H

#include "host/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pl_video_frame {
    const uint8_t *rgb; /* [height][width][3], upright; valid during the call */
    int width, height;
    double at_s; /* since the beginning */
} pl_video_frame;

/* Frames come in order of time, sound in pieces (16 kHz, one channel, full scale 1), both as they stand in the file. A status
 * other than PL_OK ends the reading with it. */
typedef struct pl_video_sink {
    pl_status (*frame)(void *user, const pl_video_frame *frame, pl_error *err);    /* NULL: the sound alone */
    pl_status (*sound)(void *user, const float *samples, size_t n, pl_error *err); /* NULL: the frames alone */
    void *user;
} pl_video_sink;

typedef struct pl_video_params {
    double frames_per_s;      /* 0: 1 */
    int max_frames;           /* a longer clip's are taken less often, as far as its length is known; 0: 64 */
    int max_side;             /* of frames, which are scaled down to it; 0: 1024 */
    double max_s;             /* longer video is refused; 0: 4 hours */
    double silence_s;         /* after so long without a sign of life the helper is given up; 0: 60 */
    const char *helper;       /* its path; NULL: where it is installed */
    bool (*stop)(void *user); /* asked some times a second: true ends it with PL_ERR_CANCELLED; NULL: nobody */
    void *stop_user;
} pl_video_params;

/* params may be NULL. A clip without sound is fine; one without pictures (or, for sound alone, without sound) is
 * PL_ERR_UNSUPPORTED. PL_ERR_FORMAT: no video, damaged, or the helper failed on it; PL_ERR_UNSUPPORTED: too long, or there is no
 * helper. */
pl_status pl_video_read(const char *path, const pl_video_params *params, const pl_video_sink *sink, pl_error *err);

/* The same from the bytes of a file. name: for messages. */
pl_status pl_video_read_bytes(const void *bytes, size_t n, const char *name, const pl_video_params *params,
                              const pl_video_sink *sink, pl_error *err);

#endif
