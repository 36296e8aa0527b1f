/* The NVIDIA cards of this machine. */
#ifndef PL_OPS_DEVICES_H
#define PL_OPS_DEVICES_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PL_DEVICES_MAX 16
#define PL_LEAST_CAPABILITY 75 /* 10 * major + minor of the oldest cards that there are kernels for: Turing */

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

/* Never fails: of a card that cannot be asked the name says why and the rest is 0, and a machine without any lists none.
 * Does not start the cards: free_bytes is 0. */
void pl_devices_list(pl_device_list *out);

/* Fills free_bytes of one of the cards; it stays 0 where the card does not tell. Starts the card, which takes time and
 * some hundred MB of its memory until the process ends. */
void pl_devices_ask_free(pl_device_list *list, int index);

/* Whether several cards can work together: by which NCCL ("2.28.9"), or why there is none. */
bool pl_devices_nccl(char *out, size_t room);

#ifdef __cplusplus
}
#endif

#endif
