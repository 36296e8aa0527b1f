#ifndef PL_TOOLS_MEDIA_FILM_H
#define PL_TOOLS_MEDIA_FILM_H

#include "tools/media_shown.h"

/* Adds the frames of a video, each behind its time, then its sound, as far as the context has room: frames get half of it
 * where the model hears, too, unless --max-frames says how many there are. */
pl_status pl_showing_add_film(pl_showing *showing, const pl_options *options, const pl_opened *opened, const char *file,
                              pl_error *err);

#endif
