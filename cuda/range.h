/* Named ranges for the profilers that know NVTX; nothing where its headers are missing. */
#ifndef PL_CUDA_RANGE_H
#define PL_CUDA_RANGE_H

#if __has_include(<nvtx3/nvToolsExt.h>)

#include <nvtx3/nvToolsExt.h>

static inline void pl_range_push(const char *name)
{
    nvtxRangePushA(name);
}

static inline void pl_range_pop(void)
{
    nvtxRangePop();
}

#else

static inline void pl_range_push(const char *name)
{
    (void)name;
}

static inline void pl_range_pop(void)
{
}

#endif

#endif
