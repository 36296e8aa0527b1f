/* The machine as hwloc sees it, and where threads go on it. Placement is a pure function of a topology,
 * so it is tested on recorded machines. */
#ifndef PL_BASE_TOPOLOGY_H
#define PL_BASE_TOPOLOGY_H

#include "host/base/threads.h"

typedef struct pl_topology pl_topology;

/* xml: a recorded machine (hwloc's lstopo --of xml), or NULL for this one, restricted to the processors
 * that this process may use. */
pl_status pl_topology_open(const char *xml, pl_topology **out, pl_error *err);
void pl_topology_close(pl_topology *topology);

int pl_topology_cores(const pl_topology *topology);      /* physical cores */
int pl_topology_processors(const pl_topology *topology); /* hardware threads */
int pl_topology_numa_nodes(const pl_topology *topology);
size_t pl_topology_cache_bytes(const pl_topology *topology, int level); /* of one core's cache; 0: unknown */
size_t pl_topology_memory_bytes(const pl_topology *topology);

/* Fills cpus[0..n) with operating system processor numbers: one thread a physical core first, fast cores
 * before efficient ones, cores of one NUMA node together, second hardware threads only when the cores
 * are used up; wraps around when n exceeds the processors. */
void pl_topology_place(const pl_topology *topology, int n, int *cpus);

/* Fills cpus[0..most) with the processors nearest to the device with this PCI id ("0000:65:00.0"), as the operating
 * system numbers them, in ascending order. Returns how many; 0: not known. sysfs: where the system tells, PL_SYSFS. */
int pl_topology_near(const char *sysfs, const char *pci_id, int most, int *cpus);

#define PL_SYSFS "/sys"

/* A pool on this machine. n_threads: 0 for one a physical core; pinned: each thread on the processor that
 * pl_topology_place() gives it. */
pl_status pl_topology_pool(int n_threads, bool pinned, pl_pool **out, pl_error *err);

#endif
