/* Rows of the per-layer table read from the file for the CPU's ops, against the mapped table. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/engine/ple.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

#include <unistd.h>

#define MAX_ROWS 40
#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"

typedef struct bench {
    scratch files;
    const char *path;
    pl_checkpoint *checkpoint;
    pl_backend *backend;
    pl_ple *ple;
    pl_tensor table; /* mapped */
    size_t row_bytes;
} bench;

static bench b;

static void set_up(void)
{
    pl_error err;
    scratch_open(&b.files);
    b.path = scratch_copy(&b.files, "demo.gguf", DEMO);
    cr_assert_eq(pl_checkpoint_open(b.path, &b.checkpoint, &err), PL_OK, "%s", err.message);
    pl_backend_shape shape = {.max_rows = MAX_ROWS, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}};
    cr_assert_eq(pl_backend_cpu(&shape, 1, NULL, PL_CPU_ALL, &b.backend, &err), PL_OK, "%s", err.message);
    b.table = pl_checkpoint_weights(b.checkpoint)->ple_table;
    b.table.rows = pl_checkpoint_config(b.checkpoint)->ple_vocab;
    b.row_bytes = pl_tensor_row_bytes(&b.table);
}

static void tear_down(void)
{
    pl_ple_free(b.ple);
    pl_backend_free(b.backend);
    pl_checkpoint_close(b.checkpoint);
    scratch_close(&b.files);
}

TestSuite(ple_gather, .init = set_up, .fini = tear_down);

static void open_ple(size_t cache_rows)
{
    pl_error err;
    pl_ple_params params = {
        .placement = PL_PLE_DISK, .max_rows = MAX_ROWS, .cache_bytes = cache_rows * b.row_bytes + b.row_bytes / 2};
    cr_assert_eq(pl_ple_open(b.checkpoint, b.backend, &params, &b.ple, &err), PL_OK, "%s", err.message);
}

/* What an op sees as the rows of a step. */
static void expect_rows(const pl_ple_want *want, int n)
{
    uint32_t ticket;
    pl_error err;
    cr_assert_eq(pl_ple_request(b.ple, want, n, &ticket, &err), PL_OK, "%s", err.message);
    pl_ple_rows view = pl_ple_view(b.ple);
    cr_assert_eq(*view.ready, ticket);
    for (int i = 0; i < n; i++) {
        int32_t id = want[i].id, row = id >= 0 && id < b.table.rows ? id : 0;
        const char *got = (const char *)view.base + ticket % view.slots * view.slot_bytes + (size_t)i * view.row_bytes;
        cr_assert_arr_eq(got, pl_tensor_row(&b.table, row), b.row_bytes, "row %d of the step, id %d", i, id);
    }
}

/* Few ids often and others seldom, with ids outside the table among them. */
static void run_steps(size_t cache_rows)
{
    pl_rng rng;
    pl_rng_seed(&rng, 5);
    open_ple(cache_rows);
    for (int step = 0; step < 50; step++) {
        pl_ple_want want[MAX_ROWS] = {{0}};
        int32_t ids[MAX_ROWS];
        int n = step % 7 == 0 ? 1 : 1 + (int)(pl_rng_next(&rng) % MAX_ROWS);
        for (int i = 0; i < n; i++) {
            uint64_t draw = pl_rng_next(&rng) >> 8;
            ids[i] = draw % 11 == 0 ? -1 : (int32_t)(draw % 2 ? draw % 17 : draw % (uint64_t)(b.table.rows + 3));
            want[i].id = ids[i];
        }
        pl_ple_will_need(b.ple, ids, (size_t)n);
        expect_rows(want, n);
    }
}

Test(ple_gather, rows_are_those_of_the_mapped_table)
{
    run_steps(10);
    pl_ple_stats stats = pl_ple_statistics(b.ple);
    cr_assert_gt(stats.hits, 0);
    cr_assert_eq(stats.bytes, (stats.rows - stats.hits) * b.row_bytes);
}

Test(ple_gather, without_a_cache_all_are_read)
{
    run_steps(0);
    pl_ple_stats stats = pl_ple_statistics(b.ple);
    cr_assert_eq(stats.hits, 0);
    cr_assert_eq(stats.bytes, stats.rows * b.row_bytes);
}

Test(ple_gather, takes_the_memory_that_it_says)
{
    pl_ple_params params = {.placement = PL_PLE_DISK, .max_rows = MAX_ROWS, .cache_bytes = 12345};
    pl_ple_bytes bytes = pl_ple_memory(b.checkpoint, b.backend, &params);
    cr_assert_eq(bytes.memory, 0);
    cr_assert_eq(bytes.shared, MAX_ROWS * b.row_bytes);
    cr_assert_eq(bytes.cache, 12345);
    params.placement = PL_PLE_AUTO;
    bytes = pl_ple_memory(b.checkpoint, b.backend, &params);
    cr_assert_eq(bytes.shared + bytes.cache, 0);
}

Test(ple_gather, a_file_cut_meanwhile_is_an_error_that_names_it)
{
    pl_error err;
    uint32_t ticket;
    pl_ple_want want[2] = {{.id = 3}, {.id = 4}};
    int32_t ids[2] = {3, 4};
    open_ple(4);
    cr_assert_eq(truncate(b.path, 4096), 0);
    pl_ple_will_need(b.ple, ids, 2);
    expect_failure(pl_ple_request(b.ple, want, 2, &ticket, &err), PL_ERR_IO, &err,
                   WORDS("demo.gguf", b.table.name, "ends at byte"));
    cr_assert_eq(pl_ple_statistics(b.ple).hits, 0);
    want[0].id = want[1].id = 4; /* what could not be read is not in the cache */
    cr_assert_eq(pl_ple_request(b.ple, want, 2, &ticket, &err), PL_ERR_IO);
}

static pl_status open_and_close(void *ctx, pl_error *err)
{
    (void)ctx;
    pl_ple *ple = NULL;
    pl_ple_params params = {.placement = PL_PLE_DISK, .max_rows = MAX_ROWS, .cache_bytes = 100 * b.row_bytes};
    pl_status status = pl_ple_open(b.checkpoint, b.backend, &params, &ple, err);
    pl_ple_free(ple);
    return status;
}

Test(ple_gather, failed_allocations)
{
    cr_assert_geq(fail_alloc_each(open_and_close, NULL), 6); /* two, and the cache's four */
}
