#include <criterion/criterion.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/base/energy.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

static const char *const ids[] = {"0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:09:00.0"};

static pl_energy *start(const char *const *pci_ids, int32_t n, const char *nvml, const char *powercap)
{
    pl_energy *e;
    pl_error err;
    const pl_energy_params params = {.pci_ids = pci_ids, .n_cards = n, .nvml = nvml, .powercap = powercap};
    cr_assert_eq(pl_energy_start(&params, &e, &err), PL_OK, "%s", err.message);
    return e;
}

/* ---- cards ------------------------------------------------------------------------------------- */

Test(energy, cards)
{
    pl_energy *e = start(ids, 2, PL_FAKE_NVML, "/nowhere");
    for (int i = 1; i < 4; i++)
        cr_assert_eq(pl_energy_read(e).cards_j, 12 * i);
    cr_assert_eq(pl_energy_read(e).processor_j, -1);
    pl_energy_free(e);
    e = start(ids + 1, 1, PL_FAKE_NVML, "/nowhere");
    cr_assert_eq(pl_energy_read(e).cards_j, 7);
    pl_energy_free(e);
}

/* Less than all of them is nothing that could be shown. */
Test(energy, cards_that_do_not_count)
{
    pl_energy *e = start(ids, 4, PL_FAKE_NVML, "/nowhere");
    cr_assert_eq(pl_energy_read(e).cards_j, -1);
    pl_energy_free(e);
    e = start(ids, 3, PL_FAKE_NVML, "/nowhere");
    cr_assert_eq(pl_energy_read(e).cards_j, 5 + 7 + 7);
    cr_assert_eq(pl_energy_read(e).cards_j, -1);
    cr_assert_eq(pl_energy_read(e).cards_j, -1);
    pl_energy_free(e);
}

Test(energy, no_library)
{
    pl_energy *e = start(ids, 2, "libnothing-of-this-name.so.1", "/nowhere");
    cr_assert_eq(pl_energy_read(e).cards_j, -1);
    pl_energy_free(e);
    e = start(ids, 2, "libm.so.6", "/nowhere"); /* one without the symbols */
    cr_assert_eq(pl_energy_read(e).cards_j, -1);
    pl_energy_free(e);
    e = start(NULL, 0, PL_FAKE_NVML, "/nowhere");
    cr_assert_eq(pl_energy_read(e).cards_j, -1);
    pl_energy_free(e);
    pl_energy_free(NULL);
}

/* ---- processors -------------------------------------------------------------------------------- */

static scratch files;

static void put(const char *zone, const char *name, const char *text)
{
    char path[128];
    mkdir(scratch_path(&files, zone), 0700);
    snprintf(path, sizeof path, "%s/%s", zone, name);
    scratch_text(&files, path, text);
}

static void put_zone(const char *zone, const char *name, const char *energy)
{
    put(zone, "name", name);
    put(zone, "max_energy_range_uj", "10000000\n");
    put(zone, "energy_uj", energy);
}

Test(energy, packages_and_their_wrap_around)
{
    scratch_open(&files);
    put_zone("intel-rapl:0", "package-0\n", "2000000\n");
    put_zone("intel-rapl:1", "package-1\n", "9000000\n");
    put_zone("intel-rapl:0:0", "core\n", "1\n");
    put_zone("intel-rapl:2", "psys\n", "1\n");
    put_zone("intel-rapl-mmio:0", "package-0\n", "1\n");
    pl_energy *e = start(NULL, 0, NULL, files.dir);
    cr_assert_eq(pl_energy_read(e).processor_j, 0);
    put("intel-rapl:0", "energy_uj", "2500000\n");
    cr_assert_float_eq(pl_energy_read(e).processor_j, 0.5, 1e-9);
    put("intel-rapl:1", "energy_uj", "500000\n");
    put("intel-rapl:0:0", "energy_uj", "5000000\n");
    put("intel-rapl:2", "energy_uj", "5000000\n");
    put("intel-rapl-mmio:0", "energy_uj", "5000000\n");
    cr_assert_float_eq(pl_energy_read(e).processor_j, 2, 1e-9);
    put("intel-rapl:0", "energy_uj", "2400000\n"); /* once around */
    cr_assert_float_eq(pl_energy_read(e).processor_j, 11.9, 1e-9);
    cr_assert_eq(pl_energy_read(e).cards_j, -1);
    pl_energy_free(e);
    scratch_close(&files);
}

static void expect_unknown(void)
{
    pl_energy *e = start(NULL, 0, NULL, files.dir);
    cr_assert_eq(pl_energy_read(e).processor_j, -1);
    pl_energy_free(e);
}

/* One of two, in whatever order the folder lists them. */
Test(energy, counters_that_cannot_be_read)
{
    static const char *const wrong[] = {"lots\n", "", "10000001\n"};
    scratch_open(&files);
    expect_unknown();
    for (int i = 0; i < 2; i++) {
        const char *zone = i ? "intel-rapl:1" : "intel-rapl:0";
        for (int k = 0; k < 3; k++) {
            put_zone("intel-rapl:0", "package-0\n", "2000000\n");
            put_zone("intel-rapl:1", "package-1\n", "2000000\n");
            put(zone, "energy_uj", wrong[k]);
            expect_unknown();
        }
    }
    unlink(scratch_path(&files, "intel-rapl:1/energy_uj"));
    expect_unknown();
    scratch_close(&files);
}

Test(energy, counters_that_go_wrong_later)
{
    scratch_open(&files);
    put_zone("intel-rapl:0", "package-0\n", "2000000\n");
    for (int k = 0; k < 2; k++) {
        pl_energy *e = start(NULL, 0, NULL, files.dir);
        cr_assert_eq(pl_energy_read(e).processor_j, 0);
        put("intel-rapl:0", "energy_uj", k ? "?" : "10000001\n");
        cr_assert_eq(pl_energy_read(e).processor_j, -1);
        put("intel-rapl:0", "energy_uj", "3000000\n");
        cr_assert_eq(pl_energy_read(e).processor_j, -1);
        pl_energy_free(e);
    }
    scratch_close(&files);
}

/* ---- memory ------------------------------------------------------------------------------------ */

static pl_status start_and_end(void *ctx, pl_error *err)
{
    pl_energy *e = NULL;
    PL_TRY(pl_energy_start(ctx, &e, err));
    pl_energy_free(e);
    return PL_OK;
}

Test(energy, without_memory)
{
    pl_energy_params params = {.pci_ids = ids, .n_cards = 2, .nvml = PL_FAKE_NVML, .powercap = "/nowhere"};
    cr_assert_eq(fail_alloc_each(start_and_end, &params), 2);
}
