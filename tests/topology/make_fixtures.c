/* Writes the made-up machines of this folder: cc make_fixtures.c -lhwloc && ./a.out
 * (the recorded one is lstopo's, without names and serial numbers). Not part of the build. */
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct machine {
    const char *file, *synthetic;
    const char *absent;   /* processors that this machine lacks, or NULL */
    const char *kinds[2]; /* slow and fast processors, or NULL */
} machine;

static const machine machines[] = {
    {.file = "vm-2.xml",
     .synthetic = "pack:1 [numa(memory=4294967296)] l3:1(size=16777216) l2:2(size=1048576) l1d:1 core:1 pu:1"},
    {.file = "desktop-8-smt.xml",
     .synthetic = "pack:1 [numa(memory=34359738368)] l3:1(size=33554432) l2:8(size=1048576) l1d:1(size=32768) core:1 "
                  "pu:2(indexes=2*8:1*2)"},
    {.file = "workstation-2x16-smt.xml",
     .synthetic = "pack:2 [numa(memory=137438953472)] l3:1(size=67108864) l2:16(size=2097152) l1d:1(size=49152) "
                  "core:1 pu:2(indexes=2*32:1*2)"},
    /* Eight fast cores with two threads each, then eight sparing ones with one. */
    {.file = "hybrid-8p8e.xml",
     .synthetic = "pack:1 [numa(memory=34359738368)] l3:1(size=31457280) l2:16(size=1310720) l1d:1(size=49152) core:1 "
                  "pu:2(indexes=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,24,17,25,18,26,19,27,20,28,21,29,22,30,23,31)",
     .absent = "24-31",
     .kinds = {"16-23", "0-15"}},
    /* Fast cores between sparing ones, no second threads. */
    {.file = "hybrid-4p8e-mixed.xml",
     .synthetic =
         "pack:1 [numa(memory=34359738368)] l3:1(size=31457280) l2:12(size=3145728) l1d:1(size=49152) core:1 pu:1",
     .kinds = {"2-5,8-11", "0-1,6-7"}},
};

static void check(int failed, const char *what, const char *file)
{
    if (failed) {
        fprintf(stderr, "%s: %s failed\n", file, what);
        exit(1);
    }
}

int main(void)
{
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        const machine *m = &machines[i];
        hwloc_topology_t t;
        hwloc_bitmap_t set = hwloc_bitmap_alloc();
        check(hwloc_topology_init(&t) || hwloc_topology_set_synthetic(t, m->synthetic) || hwloc_topology_load(t),
              "synthetic", m->file);
        if (m->absent) {
            hwloc_bitmap_list_sscanf(set, m->absent);
            hwloc_bitmap_andnot(set, hwloc_topology_get_topology_cpuset(t), set);
            check(hwloc_topology_restrict(t, set, 0), "restrict", m->file);
        }
        for (int kind = 0; kind < 2 && m->kinds[kind]; kind++) {
            hwloc_bitmap_list_sscanf(set, m->kinds[kind]);
            check(hwloc_cpukinds_register(t, set, kind, 0, NULL, 0), "kinds", m->file);
        }
        check(hwloc_topology_export_xml(t, m->file, 0), "export", m->file);
        hwloc_bitmap_free(set);
        hwloc_topology_destroy(t);
    }
    return 0;
}
