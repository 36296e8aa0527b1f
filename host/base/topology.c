#include "host/base/topology.h"

#include <ctype.h>
#include <errno.h>
#include <hwloc.h>
#include <hwloc/linux.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What decides where a processor stands in the order, most important first. */
typedef struct seat {
    int sibling;  /* 0: the first hardware thread of its core */
    int slowness; /* 0: the fastest kind of core */
    int numa;
    int core;
    int cpu; /* as the operating system numbers it */
} seat;

struct pl_topology {
    hwloc_topology_t machine;
    int n_processors;
    seat *seats; /* [n_processors] in the order of placement */
};

static int compare_seats(const void *a, const void *b)
{
    const seat *x = a, *y = b;
    if (x->sibling != y->sibling)
        return x->sibling < y->sibling ? -1 : 1;
    if (x->slowness != y->slowness)
        return x->slowness < y->slowness ? -1 : 1;
    if (x->numa != y->numa)
        return x->numa < y->numa ? -1 : 1;
    if (x->core != y->core)
        return x->core < y->core ? -1 : 1;
    return (x->cpu > y->cpu) - (x->cpu < y->cpu);
}

/* Kinds of core are numbered from the most sparing to the fastest. */
static int slowness_of(hwloc_topology_t machine, hwloc_obj_t pu)
{
    int kind = hwloc_cpukinds_get_by_cpuset(machine, pu->cpuset, 0);
    int efficiency = -1;
    if (kind < 0 || hwloc_cpukinds_get_info(machine, (unsigned)kind, NULL, &efficiency, NULL, NULL, 0) != 0 ||
        efficiency < 0)
        return 0;
    return hwloc_cpukinds_get_nr(machine, 0) - 1 - efficiency;
}

/* How many processors of its core stand before this one. */
static int sibling_index(hwloc_obj_t core, hwloc_obj_t pu)
{
    int before = 0;
    for (hwloc_obj_t other = pu->prev_cousin; core && other; other = other->prev_cousin) {
        if (!hwloc_bitmap_isset(core->cpuset, other->os_index))
            break;
        before++;
    }
    return before;
}

static seat seat_of(hwloc_topology_t machine, hwloc_obj_t pu)
{
    hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(machine, HWLOC_OBJ_CORE, pu);
    return (seat){
        .sibling = sibling_index(core, pu),
        .slowness = slowness_of(machine, pu),
        .numa = pu->nodeset ? hwloc_bitmap_first(pu->nodeset) : 0,
        .core = (int)(core ? core : pu)->logical_index,
        .cpu = (int)pu->os_index,
    };
}

static pl_status order_processors(pl_topology *t, pl_error *err)
{
    t->n_processors = hwloc_get_nbobjs_by_type(t->machine, HWLOC_OBJ_PU);
    if (t->n_processors <= 0)
        return pl_fail(err, PL_ERR_FORMAT, "topology: no processors");
    size_t n = (size_t)t->n_processors;
    t->seats = malloc(n * sizeof *t->seats);
    if (!t->seats)
        return pl_fail_memory(err, n * sizeof *t->seats, "topology");
    for (size_t i = 0; i < n; i++)
        t->seats[i] = seat_of(t->machine, hwloc_get_obj_by_type(t->machine, HWLOC_OBJ_PU, (unsigned)i));
    qsort(t->seats, n, sizeof *t->seats, compare_seats);
    return PL_OK;
}

/* hwloc's own way to do this gives up where threads of the process are bound to different processors. */
static pl_status restrict_to_thread(pl_topology *t, pl_error *err)
{
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    if (!allowed)
        return pl_fail_memory(err, sizeof *t, "topology");
    bool known = hwloc_get_cpubind(t->machine, allowed, HWLOC_CPUBIND_THREAD) == 0;
    bool failed = known && hwloc_topology_restrict(t->machine, allowed, 0) != 0;
    hwloc_bitmap_free(allowed);
    return failed ? pl_fail(err, PL_ERR_IO,
                            "topology of this machine: cannot be restricted to the processors that this "
                            "process may use: %s",
                            strerror(errno))
                  : PL_OK;
}

static pl_status load(pl_topology *t, const char *xml, pl_error *err)
{
    const char *name = xml ? xml : "this machine";
    errno = 0;
    if (hwloc_topology_init(&t->machine) != 0) {
        t->machine = NULL;
        return pl_fail_memory(err, sizeof *t, "topology");
    }
    unsigned long flags = xml ? 0 : HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM;
    if ((xml && hwloc_topology_set_xml(t->machine, xml) != 0) || hwloc_topology_set_flags(t->machine, flags) != 0 ||
        hwloc_topology_load(t->machine) != 0)
        return pl_fail(err, errno == ENOMEM ? PL_ERR_MEMORY : PL_ERR_IO, "topology of %s: cannot read: %s", name,
                       errno ? strerror(errno) : "not a recorded machine");
    return xml ? PL_OK : restrict_to_thread(t, err);
}

pl_status pl_topology_open(const char *xml, pl_topology **out, pl_error *err)
{
    pl_topology *t = calloc(1, sizeof *t);
    pl_status status;
    if (!t)
        return pl_fail_memory(err, sizeof *t, "topology");
    PL_TRY_GOTO(load(t, xml, err));
    PL_TRY_GOTO(order_processors(t, err));
    *out = t;
    return PL_OK;
fail:
    pl_topology_close(t);
    return status;
}

void pl_topology_close(pl_topology *topology)
{
    if (!topology)
        return;
    if (topology->machine)
        hwloc_topology_destroy(topology->machine);
    free(topology->seats);
    free(topology);
}

int pl_topology_cores(const pl_topology *topology)
{
    int n = hwloc_get_nbobjs_by_type(topology->machine, HWLOC_OBJ_CORE);
    return n > 0 ? n : topology->n_processors;
}

int pl_topology_processors(const pl_topology *topology)
{
    return topology->n_processors;
}

/* The smallest number above `node` of a NUMA node with processors; -1: there is none. */
static int next_node(const pl_topology *t, int node)
{
    int next = -1;
    for (int i = 0; i < t->n_processors; i++)
        if (t->seats[i].numa > node && (next < 0 || t->seats[i].numa < next))
            next = t->seats[i].numa;
    return next;
}

int pl_topology_numa_nodes(const pl_topology *topology)
{
    int n = 0;
    for (int node = next_node(topology, -1); node >= 0; node = next_node(topology, node))
        n++;
    return n > 0 ? n : 1;
}

size_t pl_topology_cache_bytes(const pl_topology *topology, int level)
{
    if (level < 1 || level > 5)
        return 0;
    hwloc_obj_type_t type = (hwloc_obj_type_t)(HWLOC_OBJ_L1CACHE + level - 1);
    hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(topology->machine, (unsigned)topology->seats[0].cpu);
    hwloc_obj_t cache = pu ? hwloc_get_ancestor_obj_by_type(topology->machine, type, pu) : NULL;
    return cache ? (size_t)cache->attr->cache.size : 0;
}

size_t pl_topology_memory_bytes(const pl_topology *topology)
{
    return (size_t)hwloc_get_root_obj(topology->machine)->total_memory;
}

void pl_topology_place(const pl_topology *topology, int n, int *cpus)
{
    for (int i = 0; i < n; i++)
        cpus[i] = topology->seats[i % topology->n_processors].cpu;
}

/* ---- parts ---- */

static bool has_node(const pl_topology *t, int node)
{
    for (int i = 0; i < t->n_processors; i++)
        if (t->seats[i].numa == node)
            return true;
    return false;
}

/* How many cores on the node (-1: on any) stand before that of s in the order of placement, of its kind or of all; *of: how
 * many there are. */
static int cores_before(const pl_topology *t, const seat *s, int node, bool of_kind, int *of)
{
    int before = 0;
    *of = 0;
    for (int i = 0; i < t->n_processors; i++) {
        const seat *other = &t->seats[i];
        if (other->sibling || (node >= 0 && other->numa != node) || (of_kind && other->slowness != s->slowness))
            continue;
        seat alike = {.slowness = s->slowness, .numa = s->numa, .core = s->core, .cpu = other->cpu};
        before += compare_seats(other, &alike) < 0;
        ++*of;
    }
    return before;
}

/* Whether the core of s is one of party `mine` of `parties`. Kinds of which there is not one for each are dealt. */
static bool falls_to(const pl_topology *t, const seat *s, int node, int mine, int parties)
{
    int all, of_kind, at = cores_before(t, s, node, false, &all);
    if (all < parties)
        return all > 0 && at == mine % all;
    int in_kind = cores_before(t, s, node, true, &of_kind);
    if (of_kind < parties)
        return at % parties == mine;
    return in_kind >= mine * of_kind / parties && in_kind < (mine + 1) * of_kind / parties;
}

int pl_topology_part(const pl_topology *topology, const int *node, int n, int i, int *cpus, int *cores)
{
    int mine = 0, parties = 1, count = 0, at = has_node(topology, node[i]) ? node[i] : -1;
    for (int j = 0; j < n; j++) {
        if ((has_node(topology, node[j]) ? node[j] : -1) != at || j == i)
            continue;
        mine += j < i;
        parties++;
    }
    *cores = 0;
    for (int j = 0; j < topology->n_processors; j++) {
        const seat *s = &topology->seats[j];
        if ((at >= 0 && s->numa != at) || !falls_to(topology, s, at, mine, parties))
            continue;
        cpus[count++] = s->cpu;
        *cores += s->sibling == 0;
    }
    return count;
}

int pl_topology_node_at(const pl_topology *topology, int i)
{
    int node = -1;
    for (int left = i % pl_topology_numa_nodes(topology); left >= 0; left--)
        node = next_node(topology, node);
    return node;
}

int pl_topology_node_of(const pl_topology *topology, const int *cpus, int n)
{
    int node = -1;
    for (int i = 0; i < topology->n_processors; i++)
        for (int j = 0; j < n; j++) {
            if (topology->seats[i].cpu != cpus[j])
                continue;
            if (node >= 0 && topology->seats[i].numa != node)
                return -1;
            node = topology->seats[i].numa;
        }
    return node;
}

/* "0000:0A:00.0" as the kernel writes it; false: not such a name. */
static bool folder_of(const char *pci_id, char *out, size_t room)
{
    size_t n = strlen(pci_id);
    if (n == 0 || n >= room || strspn(pci_id, "0123456789abcdefABCDEF:.") != n || strstr(pci_id, ".."))
        return false;
    for (size_t i = 0; i <= n; i++)
        out[i] = (char)tolower((unsigned char)pci_id[i]);
    return true;
}

int pl_topology_near(const char *sysfs, const char *pci_id, int most, int *cpus)
{
    char folder[32], path[PATH_MAX];
    int n = 0;
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (set && folder_of(pci_id, folder, sizeof folder) &&
        snprintf(path, sizeof path, "%s/bus/pci/devices/%s/local_cpus", sysfs, folder) < (int)sizeof path &&
        hwloc_linux_read_path_as_cpumask(path, set) == 0)
        for (int cpu = -1; n < most && (cpu = hwloc_bitmap_next(set, cpu)) >= 0;)
            cpus[n++] = cpu;
    hwloc_bitmap_free(set);
    return n;
}

pl_status pl_topology_pool(int n_threads, bool pinned, pl_pool **out, pl_error *err)
{
    pl_topology *topology;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    int n = n_threads ? n_threads : pl_topology_cores(topology);
    int *cpus = pinned ? calloc((size_t)n, sizeof *cpus) : NULL;
    if (cpus)
        pl_topology_place(topology, n, cpus);
    pl_topology_close(topology);
    pl_status status = pinned && !cpus ? pl_fail_memory(err, (size_t)n * sizeof *cpus, "threads")
                                       : pl_pool_create(n, cpus, out, err);
    free(cpus);
    return status;
}
