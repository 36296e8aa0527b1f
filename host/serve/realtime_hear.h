/* Speech as pcm16 that comes in pieces, to rows of a prompt: what is there is encoded at once. On media threads. */
#ifndef PL_SERVE_REALTIME_HEAR_H
#define PL_SERVE_REALTIME_HEAR_H

#include "host/media/sound.h"
#include "host/serve/media_encode.h"

typedef struct pl_hearing {
    pl_service *service;
    pl_media_stop stop; /* asked between pieces */
    pl_resampler *resampler;
    pl_listener *listener; /* of the clip that is heard now; NULL: none */
    size_t n_clip, n;      /* samples at 16 kHz: of the clip, all together */
    pl_media_part part;    /* the clips before */
} pl_hearing;              /* all else zero: nothing heard */

void pl_hearing_clear(pl_hearing *h); /* as if nothing had been heard */

/* bytes: little-endian, n of them, of `rate` samples a second. PL_ERR_CONTEXT: more than PL_MEDIA_SOUND_MOST_S. */
pl_status pl_hearing_add(pl_hearing *h, double rate, const unsigned char *bytes, size_t n, pl_error *err);

/* No more will come: *out is to be freed, and nothing is heard. On failure all is as after a clear. PL_ERR_ARGUMENT: there is less
 * than a tenth of a second. */
pl_status pl_hearing_end(pl_hearing *h, pl_media_part *out, pl_error *err);

#endif
