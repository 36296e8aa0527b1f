#include "host/base/energy.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NVML "libnvidia-ml.so.1"
#define POWERCAP "/sys/class/powercap"
#define PACKAGES_MOST 64
#define PATH_BYTES 512

/* What of NVML is used, as nvml.h declares it; 0 is success. */
typedef struct nvmlDevice_st *nvml_device;

typedef struct nvml {
    void *library; /* NULL: not there */
    int (*shutdown)(void);
    int (*energy)(nvml_device device, unsigned long long *millijoules);
} nvml;

typedef struct card {
    nvml_device device;
    unsigned long long begin; /* mJ */
} card;

/* A processor's counter, which begins again at `range`. */
typedef struct package {
    char file[PATH_BYTES];
    unsigned long long last, range; /* uJ */
    double used_j;
} package;

struct pl_energy {
    nvml nvml;
    card *cards; /* [n_cards] */
    int32_t n_cards;
    bool counts_cards; /* each of them */
    package packages[PACKAGES_MOST];
    int32_t n_packages;
    bool counts_packages;
};

/* ---- cards ------------------------------------------------------------------------------------- */

/* Through memory, as ISO C knows no way from an object to a function. */
static bool find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
    return found;
}

static bool find_cards(pl_energy *e, const pl_energy_params *params)
{
    int (*handle)(const char *pci_id, nvml_device *device);
    if (!find(e->nvml.library, "nvmlDeviceGetHandleByPciBusId_v2", &handle) ||
        !find(e->nvml.library, "nvmlDeviceGetTotalEnergyConsumption", &e->nvml.energy))
        return false;
    for (int32_t i = 0; i < params->n_cards; i++, e->n_cards++) {
        card *c = &e->cards[i];
        if (handle(params->pci_ids[i], &c->device) != 0 || e->nvml.energy(c->device, &c->begin) != 0)
            return false;
    }
    return true;
}

static bool open_nvml(nvml *n, const char *name)
{
    int (*init)(void);
    n->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!n->library)
        return false;
    if (find(n->library, "nvmlInit_v2", &init) && find(n->library, "nvmlShutdown", &n->shutdown) && init() == 0)
        return true;
    dlclose(n->library);
    n->library = NULL;
    return false;
}

static double read_cards(pl_energy *e)
{
    double sum = 0;
    for (int32_t i = 0; e->counts_cards && i < e->n_cards; i++) {
        unsigned long long now;
        e->counts_cards = e->nvml.energy(e->cards[i].device, &now) == 0;
        if (e->counts_cards)
            sum += (double)(now - e->cards[i].begin) / 1e3;
    }
    return e->counts_cards ? sum : -1;
}

/* ---- processors -------------------------------------------------------------------------------- */

static bool read_number(const char *file, unsigned long long *out)
{
    FILE *f = fopen(file, "re");
    if (!f)
        return false;
    bool ok = fscanf(f, "%llu", out) == 1;
    fclose(f);
    return ok;
}

/* A zone "intel-rapl:N", AMD's are named so, too, that is called "package-0", or "package-0-die-0": not one of its parts
 * ("core"), nor all of the machine ("psys"), nor what "intel-rapl-mmio:N" counts once more. */
static bool is_package(const char *folder, const char *zone)
{
    char file[PATH_BYTES], name[64] = "";
    if (strncmp(zone, "intel-rapl:", 11) != 0 ||
        (size_t)snprintf(file, sizeof file, "%s/%s/name", folder, zone) >= sizeof file)
        return false;
    FILE *f = fopen(file, "re");
    if (!f)
        return false;
    bool ok = fgets(name, sizeof name, f) && strncmp(name, "package-", 8) == 0;
    fclose(f);
    return ok;
}

static bool open_package(const char *folder, const char *zone, package *p)
{
    char range[PATH_BYTES];
    if ((size_t)snprintf(range, sizeof range, "%s/%s/max_energy_range_uj", folder, zone) >= sizeof range)
        return false;
    snprintf(p->file, sizeof p->file, "%s/%s/energy_uj", folder, zone);
    return read_number(range, &p->range) && read_number(p->file, &p->last) && p->last <= p->range;
}

static void find_packages(pl_energy *e, const char *path)
{
    const struct dirent *entry;
    DIR *folder = opendir(path);
    if (!folder)
        return;
    e->counts_packages = true;
    while ((entry = readdir(folder)) && e->n_packages < PACKAGES_MOST) {
        if (!is_package(path, entry->d_name))
            continue;
        e->counts_packages = e->counts_packages && open_package(path, entry->d_name, &e->packages[e->n_packages]);
        e->n_packages++;
    }
    e->counts_packages = e->counts_packages && e->n_packages > 0;
    closedir(folder);
}

static bool read_package(package *p)
{
    unsigned long long now;
    if (!read_number(p->file, &now) || now > p->range)
        return false;
    unsigned long long used = now >= p->last ? now - p->last : p->range - p->last + now;
    p->used_j += (double)used / 1e6;
    p->last = now;
    return true;
}

static double read_packages(pl_energy *e)
{
    double sum = 0;
    for (int32_t i = 0; e->counts_packages && i < e->n_packages; i++) {
        e->counts_packages = read_package(&e->packages[i]);
        sum += e->packages[i].used_j;
    }
    return e->counts_packages ? sum : -1;
}

/* ---- both -------------------------------------------------------------------------------------- */

pl_status pl_energy_start(const pl_energy_params *params, pl_energy **out, pl_error *err)
{
    pl_energy *e = calloc(1, sizeof *e);
    card *cards = calloc((size_t)params->n_cards + 1, sizeof *cards);
    if (!e || !cards) {
        free(e);
        free(cards);
        return pl_fail_memory(err, sizeof *e, "energy counters");
    }
    e->cards = cards;
    if (params->n_cards > 0 && open_nvml(&e->nvml, params->nvml ? params->nvml : NVML))
        e->counts_cards = find_cards(e, params);
    find_packages(e, params->powercap ? params->powercap : POWERCAP);
    *out = e;
    return PL_OK;
}

void pl_energy_free(pl_energy *e)
{
    if (!e)
        return;
    if (e->nvml.library) {
        e->nvml.shutdown();
        dlclose(e->nvml.library);
    }
    free(e->cards);
    free(e);
}

pl_energy_used pl_energy_read(pl_energy *e)
{
    return (pl_energy_used){read_cards(e), read_packages(e)};
}
