/* Where speech pauses, told by loudness alone, as it comes. */
#ifndef PL_TOOLS_MEDIA_PAUSES_H
#define PL_TOOLS_MEDIA_PAUSES_H

#include <stdbool.h>

#define PL_PAUSE_FRAME 320 /* samples at 16 kHz: 20 ms */

typedef struct pl_pauses {
    float background; /* its loudness: root mean square */
    int loud, quiet;  /* frames in a row */
    bool speaking;
} pl_pauses; /* all zero: nothing heard yet */

/* One more frame; whether somebody speaks: from the second loud frame on, until it has been quiet for 0.6 s. */
bool pl_pauses_hear(pl_pauses *pauses, const float *frame);

#endif
