/* The machine as hwloc sees it, and where threads go on it. Placement is a pure function of a topology,
 * so it is tested on recorded machines. */
#ifndef PL_BASE_TOPOLOGY_H
#define PL_BASE_TOPOLOGY_H

#include "host/base/threads.h"

typedef struct pl_topology pl_topology;

/* xml: a recorded machine (hwloc's lstopo --of xml), or NULL for this one, restricted to the processors
 * that this thread may use. */
pl_status pl_topology_open(const char *xml, pl_topology **out, pl_error *err);
void pl_topology_close(pl_topology *topology);

int pl_topology_cores(const pl_topology *topology);                     /* physical cores */
int pl_topology_processors(const pl_topology *topology);                /* hardware threads */
int pl_topology_numa_nodes(const pl_topology *topology);                /* that have processors */
size_t pl_topology_cache_bytes(const pl_topology *topology, int level); /* of one core's cache; 0: unknown */
size_t pl_topology_memory_bytes(const pl_topology *topology);

/* Fills cpus[0..n) with operating system processor numbers: one thread a physical core first, fast cores
 * before efficient ones, cores of one NUMA node together, second hardware threads only when the cores
 * are used up; wraps around when n exceeds the processors. */
void pl_topology_place(const pl_topology *topology, int n, int *cpus);

/* Fills cpus with the processors of party i of n that work beside each other, in the order of pl_topology_place(). node[i]
 * is the NUMA node, as the operating system numbers it, that party i is to be on; -1, or one without processors for us: any.
 * The cores of a node, of each kind of them, are split evenly between those that are to be on it; where there are fewer,
 * several have the same. Returns how many processors, *cores: on how many cores. cpus: [pl_topology_processors()]. */
int pl_topology_part(const pl_topology *topology, const int *node, int n, int i, int *cpus, int *cores);

/* The number, as the operating system has it, of the NUMA node with processors at index i (modulo how many there are). */
int pl_topology_node_at(const pl_topology *topology, int i);

/* The NUMA node that all of these processors belong to; -1: there is none such. */
int pl_topology_node_of(const pl_topology *topology, const int *cpus, int n);

/* Fills cpus[0..most) with the processors nearest to the device with this PCI id ("0000:65:00.0"), as the operating
 * system numbers them, in ascending order. Returns how many; 0: not known. sysfs: where the system tells, PL_SYSFS. */
int pl_topology_near(const char *sysfs, const char *pci_id, int most, int *cpus);

#define PL_SYSFS "/sys"

/* A pool on this machine. n_threads: 0 for one a physical core; pinned: each thread on the processor that
 * pl_topology_place() gives it. */
pl_status pl_topology_pool(int n_threads, bool pinned, pl_pool **out, pl_error *err);

#endif
