/* Builds without nvcc see no cards. */
#include "host/ops/devices.h"

#include <stdio.h>

void pl_devices_list(pl_device_list *out)
{
    *out = (pl_device_list){0};
    snprintf(out->reason, sizeof out->reason, "this build has no CUDA part");
}
