#ifndef PL_TOOLS_MEDIA_LIVE_H
#define PL_TOOLS_MEDIA_LIVE_H

#include "host/base/options.h"

/* Transcribes standard input as it comes, 16-bit samples at 16 kHz: sound is encoded and read into the session while it is
 * spoken, and answered at each pause. Ends with the input, or on Ctrl-C. */
pl_status pl_transcribe_live(const pl_options *options, pl_error *err);

#endif
