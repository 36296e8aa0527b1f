/* Images and sound of requests to rows of their prompts, on the service's media threads. */
#ifndef PL_SERVE_MEDIA_ENCODE_H
#define PL_SERVE_MEDIA_ENCODE_H

#include "host/serve/media_part.h"
#include "host/serve/service.h"

#define PL_MEDIA_SOUND_MOST_S 900.0 /* of sound in a conversation */

/* Asked now and then; true ends the work with PL_ERR_CANCELLED. */
typedef struct pl_media_stop {
    bool (*stop)(void *user);
    void *user;
} pl_media_stop;

/* Whether the model and the server take such a part, before any work is done for it. */
bool pl_media_part_check(pl_service *s, const pl_media_part *part, pl_api_error *error);

/* Fetches it where it has to be, decodes it and fills part->rows; its bytes are given up. taken: tokens that the prompt has
 * already; a video takes what its context has left. */
bool pl_media_part_encode(pl_service *s, pl_media_part *part, size_t taken, const pl_media_stop *stop,
                          pl_api_error *error);

/* Adds the rows of one clip: samples as of pl_media_from_samples(). */
pl_status pl_media_part_encode_clip(pl_service *s, pl_media_part *part, const float *samples, size_t n,
                                    const pl_media_stop *stop, pl_error *err);

/* An error of its file as one of its request's field. */
pl_api_error pl_media_error(const pl_media_part *part, const pl_error *err);

#endif
