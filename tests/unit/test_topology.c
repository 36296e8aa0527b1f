#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/base/topology.h"
#include "tests/unit/scratch.h"

#define MAX_CPUS 128

static pl_topology *recorded(const char *name)
{
    char path[512];
    pl_topology *t;
    pl_error err = {0};
    snprintf(path, sizeof path, "%s/topology/%s", PL_TEST_DATA, name);
    cr_assert_eq(pl_topology_open(path, &t, &err), PL_OK, "%s", err.message);
    return t;
}

static void has(const pl_topology *t, int cores, int processors, int nodes, size_t memory_gib)
{
    cr_assert_eq(pl_topology_cores(t), cores);
    cr_assert_eq(pl_topology_processors(t), processors);
    cr_assert_eq(pl_topology_numa_nodes(t), nodes);
    cr_assert_eq(pl_topology_memory_bytes(t) >> 30, memory_gib);
}

static void placed(const pl_topology *t, int n, const int *expected)
{
    int cpus[MAX_CPUS];
    pl_topology_place(t, n, cpus);
    for (int i = 0; i < n; i++)
        cr_assert_eq(cpus[i], expected[i], "thread %d of %d on processor %d instead of %d", i, n, cpus[i], expected[i]);
}

/* expected[i] = first + i for n threads from thread `from` on. */
static void run_of(int *expected, int from, int n, int first)
{
    for (int i = 0; i < n; i++)
        expected[from + i] = first + i;
}

Test(topology, virtual_machine)
{
    pl_topology *t = recorded("vm-2.xml");
    has(t, 2, 2, 1, 4);
    placed(t, 5, (int[]){0, 1, 0, 1, 0});
    cr_assert_eq(pl_topology_cache_bytes(t, 2), 1048576);
    cr_assert_eq(pl_topology_cache_bytes(t, 3), 16777216);
    cr_assert_eq(pl_topology_cache_bytes(t, 4), 0);
    cr_assert_eq(pl_topology_cache_bytes(t, 0), 0);
    cr_assert_eq(pl_topology_cache_bytes(t, -1), 0);
    pl_topology_close(t);
}

Test(topology, recorded_server)
{
    pl_topology *t = recorded("server-vm-4.xml");
    has(t, 4, 4, 1, 13);
    placed(t, 4, (int[]){0, 1, 2, 3});
    cr_assert_eq(pl_topology_cache_bytes(t, 1), 49152);
    cr_assert_eq(pl_topology_cache_bytes(t, 2), 2097152);
    pl_topology_close(t);
}

Test(topology, desktop_uses_cores_before_second_threads)
{
    int expected[16];
    pl_topology *t = recorded("desktop-8-smt.xml");
    has(t, 8, 16, 1, 32);
    run_of(expected, 0, 16, 0); /* second threads are numbered from 8 on */
    placed(t, 16, expected);
    pl_topology_close(t);
}

Test(topology, workstation_keeps_a_node_together)
{
    int expected[128];
    pl_topology *t = recorded("workstation-2x16-smt.xml");
    has(t, 32, 64, 2, 256);
    run_of(expected, 0, 64, 0); /* 0-15: node 0, 16-31: node 1, then the second threads */
    run_of(expected, 64, 64, 0);
    placed(t, 16, expected);
    placed(t, 128, expected);
    pl_topology_close(t);
}

Test(topology, hybrid_starts_with_fast_cores)
{
    int expected[24];
    pl_topology *t = recorded("hybrid-8p8e.xml");
    has(t, 16, 24, 1, 32);
    for (int i = 0; i < 8; i++) {
        expected[i] = 2 * i;          /* first threads of the fast cores */
        expected[8 + i] = 16 + i;     /* the sparing cores */
        expected[16 + i] = 2 * i + 1; /* second threads of the fast cores */
    }
    placed(t, 24, expected);
    pl_topology_close(t);
}

Test(topology, hybrid_with_mixed_numbering)
{
    pl_topology *t = recorded("hybrid-4p8e-mixed.xml");
    has(t, 12, 12, 1, 32);
    placed(t, 12, (int[]){0, 1, 6, 7, 2, 3, 4, 5, 8, 9, 10, 11});
    pl_topology_close(t);
}

/* ---- parts ---- */

static void part(const pl_topology *t, const int *node, int n, int i, int cores, int processors, const int *expected)
{
    int cpus[MAX_CPUS], got = -1;
    cr_assert_eq(pl_topology_part(t, node, n, i, cpus, &got), processors, "party %d", i);
    cr_assert_eq(got, cores, "party %d: %d cores", i, got);
    cr_assert_arr_eq(cpus, expected, (size_t)processors * sizeof *cpus, "party %d", i);
}

/* Two cards on one node, one on the other, and one that is on neither. */
Test(topology, parts_of_nodes)
{
    const int node[] = {1, 0, 1, -1};
    int expected[64];
    pl_topology *t = recorded("workstation-2x16-smt.xml");
    run_of(expected, 0, 8, 16);
    run_of(expected, 8, 8, 48);
    part(t, node, 4, 0, 8, 16, expected);
    run_of(expected, 0, 8, 24);
    run_of(expected, 8, 8, 56);
    part(t, node, 4, 2, 8, 16, expected);
    run_of(expected, 0, 16, 0);
    run_of(expected, 16, 16, 32);
    part(t, node, 4, 1, 16, 32, expected);
    run_of(expected, 0, 64, 0);
    part(t, node, 4, 3, 32, 64, expected);
    pl_topology_close(t);
}

Test(topology, parts_have_as_many_cores_of_each_kind)
{
    pl_topology *t = recorded("hybrid-4p8e-mixed.xml");
    part(t, (int[]){0, 0}, 2, 0, 6, 6, (int[]){0, 1, 2, 3, 4, 5});
    part(t, (int[]){0, 0}, 2, 1, 6, 6, (int[]){6, 7, 8, 9, 10, 11});
    pl_topology_close(t);
}

/* Whatever the machine and however many parties: each has something, and cores are shared only where there are too few. */
Test(topology, parts_leave_nobody_without_and_nothing_over)
{
    static const char *const machines[] = {"vm-2.xml", "desktop-8-smt.xml", "workstation-2x16-smt.xml",
                                           "hybrid-8p8e.xml", "hybrid-4p8e-mixed.xml"};
    for (size_t m = 0; m < sizeof machines / sizeof *machines; m++) {
        pl_topology *t = recorded(machines[m]);
        int nodes[40], cpus[MAX_CPUS], cores;
        for (int i = 0; i < 40; i++)
            nodes[i] = 77; /* not there: any */
        for (int n = 1; n <= 40; n++) {
            int taken[MAX_CPUS] = {0}, all = 0;
            for (int i = 0; i < n; i++) {
                int count = pl_topology_part(t, nodes, n, i, cpus, &cores);
                cr_assert(count >= cores && cores >= 1, "%s: party %d of %d", machines[m], i, n);
                for (int j = 0; j < count; j++)
                    all += taken[cpus[j]]++ == 0;
            }
            cr_assert_eq(all, pl_topology_processors(t), "%s: %d parties", machines[m], n);
            for (int i = 0; n <= pl_topology_cores(t) && i < MAX_CPUS; i++)
                cr_assert_leq(taken[i], 1, "%s: %d parties, processor %d", machines[m], n, i);
        }
        pl_topology_close(t);
    }
}

Test(topology, nodes_of_processors)
{
    pl_topology *t = recorded("workstation-2x16-smt.xml");
    cr_assert_eq(pl_topology_node_at(t, 0), 0);
    cr_assert_eq(pl_topology_node_at(t, 1), 1);
    cr_assert_eq(pl_topology_node_at(t, 2), 0);
    cr_assert_eq(pl_topology_node_of(t, (int[]){20, 48, 127}, 3), 1);
    cr_assert_eq(pl_topology_node_of(t, (int[]){0, 16}, 2), -1);
    cr_assert_eq(pl_topology_node_of(t, NULL, 0), -1);
    pl_topology_close(t);
}

/* ---- this machine ---- */

Test(topology, this_machine)
{
    cpu_set_t allowed;
    pl_topology *t;
    cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    cr_assert_eq(pl_topology_open(NULL, &t, NULL), PL_OK);
    cr_assert_eq(pl_topology_processors(t), CPU_COUNT(&allowed));
    cr_assert_gt(pl_topology_memory_bytes(t), 0);
    pl_topology_close(t);
}

/* The exit status of a process that may use one processor only, but for threads that are bound to others: 0 when it sees
 * just that one. */
static int look_from(int cpu)
{
    cpu_set_t one;
    pl_topology *t;
    pl_pool *pool;
    int cpus[2];
    if (pl_topology_pool(0, true, &pool, NULL) != PL_OK)
        return 3;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0 || pl_topology_open(NULL, &t, NULL) != PL_OK)
        return 2;
    pl_topology_place(t, 2, cpus);
    bool ok = pl_topology_processors(t) == 1 && pl_topology_cores(t) == 1 && cpus[0] == cpu && cpus[1] == cpu;
    pl_topology_close(t);
    pl_pool_free(pool);
    return ok ? 0 : 1;
}

Test(topology, only_what_this_process_may_use)
{
    cpu_set_t allowed;
    int cpu = CPU_SETSIZE - 1, status;
    cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    while (!CPU_ISSET(cpu, &allowed))
        cpu--;
    pid_t child = fork();
    if (child == 0)
        _exit(look_from(cpu));
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

Test(topology, pools)
{
    pl_topology *t;
    pl_pool *pool;
    cr_assert_eq(pl_topology_open(NULL, &t, NULL), PL_OK);
    for (int pinned = 0; pinned < 2; pinned++) {
        cr_assert_eq(pl_topology_pool(0, pinned, &pool, NULL), PL_OK);
        cr_assert_eq(pl_pool_threads(pool), pl_topology_cores(t));
        pl_pool_free(pool);
        cr_assert_eq(pl_topology_pool(2, pinned, &pool, NULL), PL_OK);
        cr_assert_eq(pl_pool_threads(pool), 2);
        pl_pool_free(pool);
    }
    pl_topology_close(t);
}

Test(topology, processors_near_a_card)
{
    static const int second_socket[] = {4, 5, 6, 7, 36, 37};
    int cpus[MAX_CPUS];
    scratch s;
    scratch_open(&s);
    for (const char *part = "bus\0bus/pci\0bus/pci/devices\0bus/pci/devices/0000:8a:00.0\0"; *part;
         part += strlen(part) + 1)
        cr_assert_eq(mkdir(scratch_path(&s, part), 0700), 0);
    scratch_text(&s, "bus/pci/devices/0000:8a:00.0/local_cpus", "00000030,000000f0\n");
    cr_assert_eq(pl_topology_near(s.dir, "0000:8A:00.0", MAX_CPUS, cpus), 6);
    cr_assert_eq(memcmp(cpus, second_socket, sizeof second_socket), 0);
    cr_assert_eq(pl_topology_near(s.dir, "0000:8a:00.0", 3, cpus), 3);
    cr_assert_eq(pl_topology_near(s.dir, "0000:82:00.0", MAX_CPUS, cpus), 0);
    cr_assert_eq(pl_topology_near(s.dir, "../0000:8a:00.0", MAX_CPUS, cpus), 0);
    cr_assert_eq(pl_topology_near(s.dir, "", MAX_CPUS, cpus), 0);
    cr_assert_eq(pl_topology_near("/nonexistent", "0000:8a:00.0", MAX_CPUS, cpus), 0);
    cr_assert_eq(pl_topology_near(PL_SYSFS, "ffff:ff:1f.7", MAX_CPUS, cpus), 0);
    scratch_close(&s);
}

Test(topology, bad_files)
{
    pl_topology *t = NULL;
    pl_error err;
    cr_assert_eq(pl_topology_open("/nonexistent/machine.xml", &t, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "/nonexistent/machine.xml"), "%s", err.message);
    cr_assert_neq(pl_topology_open(PL_TEST_DATA "/topology/README.md", &t, &err), PL_OK);
    cr_assert_not_null(strstr(err.message, "README.md"), "%s", err.message);
    cr_assert_null(t);
    pl_topology_close(NULL);
}
