/* Progress bars of what goes before the work: a pl_progress_fn that makes one for each part. */
#ifndef PL_TOOLS_LOADING_H
#define PL_TOOLS_LOADING_H

#include "host/base/progress.h"

typedef struct pl_loading {
    pl_progress progress;
    const char *what; /* the part that progress is about, NULL before the first */
    bool wanted;      /* false: silent */
} pl_loading;

/* loading: a pl_loading. */
void pl_loading_show(void *loading, const char *what, double fraction);
void pl_loading_end(pl_loading *loading);

#endif
