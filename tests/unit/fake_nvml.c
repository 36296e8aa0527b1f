/* A library with the few symbols of NVML that are used, for two cards: "0000:01:00.0" has used 5 J for every time that it
 * was asked, "0000:02:00.0" 7 J; "0000:03:00.0" does not count, and loses its first count at the third question. */
#include <stdbool.h>
#include <string.h>

static struct {
    int users;
    unsigned long long asked[3];
} state;

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci_id, void **device);
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules);

int nvmlInit_v2(void)
{
    state.users++;
    return 0;
}

int nvmlShutdown(void)
{
    return --state.users;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci_id, void **device)
{
    bool known = state.users > 0 && strncmp(pci_id, "0000:0", 6) == 0 && pci_id[6] >= '1' && pci_id[6] <= '3';
    if (known)
        *device = &state.asked[pci_id[6] - '1'];
    return known ? 0 : 6;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules)
{
    unsigned long long *asked = device;
    int card = (int)(asked - state.asked);
    ++*asked;
    *millijoules = 1000000 + *asked * (card ? 7000 : 5000);
    return card == 2 && *asked > 2 ? 3 : 0;
}
