#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/batch/ranks.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MODULE "pleiad-mpi.so"

static pl_status find_module(char out[PATH_MAX], int launched, pl_error *err)
{
    char self[PATH_MAX];
    static const char *const places[] = {"/" MODULE, "/../libexec/pleiad/" MODULE};
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (snprintf(out, PATH_MAX, "%s%s", self, places[i]) < PATH_MAX && access(out, R_OK) == 0)
            return PL_OK;
    return pl_fail(
        err, PL_ERR_UNSUPPORTED,
        "this was started as %d processes, which needs " MODULE
        ": it is neither in %s nor in %s/../libexec/pleiad; it is built where MPI (libopenmpi-dev) is installed",
        launched, self, self);
}

static pl_status load(const char *path, pl_ranks_open_fn *out, pl_error *err)
{
    /* MPI loads parts of its own, which look for its symbols. Never closed: it keeps threads and handlers. */
    void *module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!module)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s cannot be loaded: %s", path, dlerror());
    void *symbol = dlsym(module, PL_RANKS_MPI_OPEN);
    if (!symbol)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s is not Pleiad's: it has no " PL_RANKS_MPI_OPEN, path);
    memcpy(out, &symbol, sizeof symbol);
    return PL_OK;
}

pl_status pl_ranks_open(int launched, double patience_s, pl_ranks **out, pl_error *err)
{
    char path[PATH_MAX];
    pl_ranks_open_fn open_mpi;
    if (launched <= 1) {
        *out = NULL;
        return PL_OK;
    }
    PL_TRY(find_module(path, launched, err));
    PL_TRY(load(path, &open_mpi, err));
    PL_TRY(open_mpi(patience_s, out, err));
    if ((*out)->size == launched)
        return PL_OK;
    int known = (*out)->size;
    (*out)->close(*out);
    return pl_fail(
        err, PL_ERR_UNSUPPORTED,
        "this was started as %d processes, but MPI knows of %d: with srun, --mpi=pmix makes them know each other; "
        "mpirun must be the one of the MPI that %s was built with",
        launched, known, MODULE);
}
