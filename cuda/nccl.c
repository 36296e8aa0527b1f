#include "cuda/nccl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef struct symbol {
    const char *name;
    size_t at; /* in pl_nccl */
} symbol;

#define SYMBOL(name)                                                                                                   \
    {                                                                                                                  \
        "nccl" #name, offsetof(pl_nccl, name)                                                                          \
    }

static const symbol symbols[] = {
    SYMBOL(GetVersion),        SYMBOL(GetErrorString), SYMBOL(CommInitAll), SYMBOL(CommDestroy), SYMBOL(CommAbort),
    SYMBOL(CommGetAsyncError), SYMBOL(AllReduce),      SYMBOL(AllGather),   SYMBOL(Broadcast),
};

bool pl_nccl_load(pl_nccl *out, char *why, size_t room)
{
    void *library = dlopen(PL_NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, room, "%s", dlerror());
        return false;
    }
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *function = dlsym(library, symbols[i].name);
        if (!function) {
            snprintf(why, room, "%s has no %s", PL_NCCL_LIBRARY, symbols[i].name);
            return false;
        }
        memcpy((char *)out + symbols[i].at, &function, sizeof function);
    }
    int version = 0;
    if (out->GetVersion(&version) == PL_NCCL_SUCCESS && version >= PL_NCCL_LEAST_VERSION)
        return true;
    snprintf(why, room, "%s is of version %d, at least %d is needed", PL_NCCL_LIBRARY, version, PL_NCCL_LEAST_VERSION);
    return false;
}
