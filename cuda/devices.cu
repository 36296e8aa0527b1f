/* The CUDA runtime is linked statically and loads the driver itself, so a machine without one is a case
 * like any other. */
#include "host/ops/devices.h"

#include <cstdio>
#include <cstring>
#include <cuda_runtime_api.h>

static cudaError_t describe(int index, pl_device *device)
{
    cudaDeviceProp prop;
    cudaError_t err = cudaGetDeviceProperties(&prop, index);
    if (err == cudaSuccess)
        err = cudaDeviceGetPCIBusId(device->pci_id, (int)sizeof device->pci_id, index);
    if (err != cudaSuccess)
        return err;
    snprintf(device->name, sizeof device->name, "%s", prop.name);
    device->capability_major = prop.major;
    device->capability_minor = prop.minor;
    device->total_bytes = prop.totalGlobalMem;
    return cudaSuccess;
}

void pl_devices_list(pl_device_list *out)
{
    memset(out, 0, sizeof *out);
    int driver = 0;
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
        snprintf(out->reason, sizeof out->reason, "no NVIDIA driver is loaded");
        return;
    }

    int n = 0;
    cudaError_t err = cudaGetDeviceCount(&n);
    for (int i = 0; err == cudaSuccess && i < n && i < PL_DEVICES_MAX; i++) {
        pl_device *device = &out->devices[out->n++];
        cudaError_t failed = describe(i, device);
        if (failed != cudaSuccess)
            snprintf(device->name, sizeof device->name, "unknown: %s", cudaGetErrorString(failed));
    }
    if (out->n > 0)
        out->reason[0] = '\0';
    else if (err != cudaSuccess)
        snprintf(out->reason, sizeof out->reason, "%s", cudaGetErrorString(err));
    else if (n == 0)
        snprintf(out->reason, sizeof out->reason, "no NVIDIA card found");
}

void pl_devices_ask_free(pl_device_list *list, int index)
{
    pl_device *device = &list->devices[index];
    size_t total;
    if (cudaSetDevice(index) != cudaSuccess || cudaMemGetInfo(&device->free_bytes, &total) != cudaSuccess)
        device->free_bytes = 0;
}
