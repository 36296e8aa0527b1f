/* The sound of a file that is no sound file: put together from the pieces of video.h. */
#ifndef PL_MEDIA_TRACK_H
#define PL_MEDIA_TRACK_H

#include "host/media/sound.h"
#include "host/media/video.h"

typedef struct pl_track {
    pl_sound sound;
    size_t room;
    size_t most; /* samples; of a longer one nothing is kept */
    bool longer;
} pl_track;

/* Of a pl_video_sink; user: pl_track. */
pl_status pl_track_hear(void *user, const float *samples, size_t n, pl_error *err);

/* pl_sound_decode() that reads MP4, M4A, WebM and the like as well, by the helper: params' stop and helper are its own, and it may
 * be NULL. Without the helper such files are PL_ERR_UNSUPPORTED. */
pl_status pl_track_decode(const void *bytes, size_t n, double max_s, const char *what, const pl_video_params *params,
                          pl_sound *out, pl_error *err);

#endif
