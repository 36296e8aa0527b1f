/* The sound track of a video, put together from its pieces. */
#ifndef PL_TOOLS_MEDIA_TRACK_H
#define PL_TOOLS_MEDIA_TRACK_H

#include "host/media/sound.h"

#include <stdbool.h>

typedef struct pl_track {
    pl_sound sound;
    size_t room;
    size_t most; /* samples; of a longer one nothing is kept */
    bool longer;
} pl_track;

/* Of a pl_video_sink; user: pl_track. */
pl_status pl_track_hear(void *user, const float *samples, size_t n, pl_error *err);

#endif
