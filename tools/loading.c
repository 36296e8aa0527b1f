#include "tools/loading.h"

void pl_loading_show(void *loading, const char *what, double fraction)
{
    pl_loading *l = loading;
    if (l->what != what) {
        pl_loading_end(l);
        pl_progress_start(&l->progress, what, NULL, 1, l->wanted);
        l->what = what;
    }
    pl_progress_update(&l->progress, fraction);
}

void pl_loading_end(pl_loading *loading)
{
    if (loading->what)
        pl_progress_finish(&loading->progress);
    loading->what = NULL;
}
