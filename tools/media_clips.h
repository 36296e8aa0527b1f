/* Recordings of any length as clips that the model can hear, cut at silences; decoded as they are asked for. */
#ifndef PL_TOOLS_MEDIA_CLIPS_H
#define PL_TOOLS_MEDIA_CLIPS_H

#include "host/media/sound.h"

#define PL_CLIP_SECONDS 30

typedef struct pl_clips {
    pl_sound_reader *reader; /* NULL: all of it is in `track` */
    pl_sound track;
    size_t taken;   /* of the track */
    double seconds; /* how long it is; 0: not known yet */
    float *samples; /* [room]: those not yet given, behind the clip that was given last */
    size_t n, given;
    double max_s; /* of a clip */
    double start; /* seconds, of samples[0] */
    bool ended;   /* no more behind them */
} pl_clips;

typedef struct pl_clip {
    const float *samples; /* until the next one */
    size_t n;             /* 0: there is none */
    double start, end;    /* seconds */
} pl_clip;

/* bytes, borrowed until pl_clips_close(), are those of the file; where they are no sound as such, the sound track of a video is
 * looked for in it. path: NULL: there is no such file. max_s: of a clip, at most PL_CLIP_SECONDS. */
pl_status pl_clips_open(const void *bytes, size_t n, const char *path, double max_s, pl_clips *out, pl_error *err);

/* Of a sound that is there, which is taken and left empty. */
pl_status pl_clips_of(pl_sound *sound, double max_s, pl_clips *out, pl_error *err);
void pl_clips_close(pl_clips *clips);

pl_status pl_clips_next(pl_clips *clips, pl_clip *out, pl_error *err);

#endif
