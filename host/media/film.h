/* A video as parts of a prompt: its frames, each behind its time, then its sound, as far as there is room. */
#ifndef PL_MEDIA_FILM_H
#define PL_MEDIA_FILM_H

#include "host/media/sound.h"
#include "host/media/video.h"

#define PL_FILM_TIME 16 /* bytes of "00:05" or "01:00:05" */

/* What a prompt has room for, in tokens. Frames get half of it where the model hears, too, unless somebody says how many there
 * are; sound gets the rest. */
typedef struct pl_film_plan {
    size_t frame; /* tokens of one, with its time */
    size_t fit;   /* frames that there is room for */
    int frames;   /* at most; more than fit, or 0: there is no room for them */
    size_t most;  /* samples of sound; 0: it is not heard */
} pl_film_plan;

/* Of a prompt that holds `context` tokens, `taken` of them already. image, clip: tokens of one; clip 0: the model does not hear.
 * max_frames 0: as many as fit. */
void pl_film_plan_make(size_t context, size_t taken, size_t image, size_t clip, int max_frames, pl_film_plan *out);

/* A time as it is said before a frame. */
void pl_film_time(double at_s, char out[PL_FILM_TIME]);

/* at: its time */
typedef pl_status (*pl_film_frame_fn)(void *user, const char *at, const pl_video_frame *frame, pl_error *err);

typedef struct pl_film {
    const char *name;  /* of the file, for messages; its path where bytes is NULL */
    const void *bytes; /* [n] */
    size_t n;
    double frames_per_s; /* 0: 1 */
    bool (*stop)(void *user);
    void *stop_user;
} pl_film;

/* sound: what was heard, pl_sound_free(); empty where there is none, or where it is too long: *longer. */
pl_status pl_film_read(const pl_film *film, const pl_film_plan *plan, pl_film_frame_fn frame, void *user,
                       pl_sound *sound, bool *longer, pl_error *err);

#endif
