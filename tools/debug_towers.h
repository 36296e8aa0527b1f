#ifndef PL_TOOLS_DEBUG_TOWERS_H
#define PL_TOOLS_DEBUG_TOWERS_H

#include "host/base/options.h"

/* pleiad debug image, pleiad debug audio. */
pl_status pl_debug_image(const pl_options *options, pl_error *err);
pl_status pl_debug_audio(const pl_options *options, pl_error *err);

#endif
