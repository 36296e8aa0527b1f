/* Builds without nvcc see no cards. */
#include "host/ops/backend.h"
#include "host/ops/devices.h"

#include <stdio.h>

#define REASON "this build has no CUDA part"

void pl_devices_list(pl_device_list *out)
{
    *out = (pl_device_list){0};
    snprintf(out->reason, sizeof out->reason, REASON);
}

void pl_devices_ask_free(pl_device_list *list, int index)
{
    (void)list, (void)index;
}

bool pl_devices_nccl(char *out, size_t room)
{
    snprintf(out, room, REASON);
    return false;
}

pl_status pl_backend_cuda(const pl_backend_shape *shape, int device, int threads, const int *cpus, pl_backend **out,
                          pl_error *err)
{
    (void)shape, (void)device, (void)threads, (void)cpus, (void)out;
    return pl_fail(err, PL_ERR_UNSUPPORTED, REASON);
}
