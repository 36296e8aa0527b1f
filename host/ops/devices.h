/* The NVIDIA cards of this machine. */
#ifndef PL_OPS_DEVICES_H
#define PL_OPS_DEVICES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PL_DEVICES_MAX 16

typedef struct pl_device {
    char name[128];
    int capability_major, capability_minor;
    size_t total_bytes, free_bytes; /* of its memory */
    char pci_id[32];                /* "0000:01:00.0" */
} pl_device;

typedef struct pl_device_list {
    pl_device devices[PL_DEVICES_MAX];
    int n;
    char reason[256]; /* when n is 0: why, e.g. that there is no driver; else empty */
} pl_device_list;

/* Never fails: a card that cannot be asked is left out, and a machine without any lists none. Asking for
 * free memory starts the driver, which can take a second. */
void pl_devices_list(pl_device_list *out);

#ifdef __cplusplus
}
#endif

#endif
