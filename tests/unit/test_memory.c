/* The plan against what an engine then takes. */
#include <criterion/criterion.h>
#include <string.h>

#include "host/engine/engine.h"
#include "host/engine/placement.h"

static const char *const models[] = {PL_TEST_DATA "/golden/text/e4b", PL_TEST_DATA "/../tools/demo_model/demo.gguf"};

#define MODELS (sizeof models / sizeof *models)

static pl_model *opened(size_t i)
{
    pl_model *model = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_model_open(models[i], &model, &err), PL_OK, "%s", err.message);
    return model;
}

Test(memory, weights_are_what_an_engine_loads)
{
    for (size_t i = 0; i < MODELS; i++) {
        pl_model *model = opened(i);
        pl_engine *engine = NULL;
        pl_engine_info info;
        pl_memory_plan plan;
        pl_card_memory card;
        pl_engine_params params = {.backend = PL_BACKEND_CPU, .threads = 1, .context = 64, .no_pin = true};
        cr_assert_eq(pl_engine_create(model, &params, &engine, NULL), PL_OK);
        pl_engine_describe(engine, &info);
        pl_memory_plan_compute(model->checkpoint, 64, 64, PL_CACHE_F32, &plan);
        pl_card_memory_compute(engine->config, &plan, PL_PLE_HOST, &(pl_kv_size){1, 64, 64, 0, PL_CACHE_F32}, &card);
        cr_expect_eq(card.weights, plan.core_packed + plan.core_mapped + plan.head_packed + plan.head_mapped);
        cr_expect_geq(card.weights, info.weight_bytes + info.mapped_bytes, "%zu, %zu + %zu", card.weights,
                      info.weight_bytes, info.mapped_bytes);
        cr_expect_leq(card.weights, (info.weight_bytes + info.mapped_bytes) + (128 << 10));
        cr_expect_eq(info.mapped_bytes, plan.core_mapped + plan.head_mapped);
        bool plain = i == 0; /* its matrices stay in the file; those among quantised ones are copied */
        cr_expect_eq(info.mapped_bytes > 0, plain, "%zu", info.mapped_bytes);
        cr_expect_gt(plan.card_weights, 0);
        cr_expect(plan.card_slice > 0 && plan.card_slice < card.weights, "%zu", plan.card_slice);
        pl_engine_free(engine);
        pl_model_close(model);
    }
}

/* What ranks have together is what the plans of all of them say, and less for each than the whole. */
Test(memory, of_ranks)
{
    for (size_t i = 0; i < MODELS; i++) {
        pl_model *model = opened(i);
        pl_engine *engine = NULL;
        pl_engine_info info;
        pl_memory_plan whole, part;
        size_t planned = 0;
        pl_engine_params params = {.backend = PL_BACKEND_CPU, .tp = 2, .threads = 2, .context = 64, .no_pin = true};
        cr_assert_eq(pl_engine_create(model, &params, &engine, NULL), PL_OK);
        pl_engine_describe(engine, &info);
        pl_memory_plan_compute(model->checkpoint, 64, 64, PL_CACHE_F32, &whole);
        for (int rank = 0; rank < 2; rank++) {
            pl_memory_plan_rank(model->checkpoint, &engine->ranks->rank[rank].shard, 64, 64, PL_CACHE_F32, &part);
            planned += part.core_packed + part.core_mapped + part.head_packed + part.head_mapped;
            cr_expect(part.core_packed + part.core_mapped < (whole.core_packed + whole.core_mapped) * 3 / 4);
            cr_expect_eq(2 * part.kv, whole.kv);
        }
        cr_expect_geq(planned, info.weight_bytes + info.mapped_bytes);
        cr_expect_leq(planned, info.weight_bytes + info.mapped_bytes + (256 << 10));
        pl_engine_free(engine);
        pl_model_close(model);
    }
}

/* Everything grows with what it is for, and the table is in one place. */
Test(memory, of_a_card)
{
    pl_model *model = opened(0);
    const pl_config *config = pl_checkpoint_config(model->checkpoint);
    pl_memory_plan plan;
    pl_card_memory m[PL_PLE_DISK + 1], more;
    pl_memory_plan_compute(model->checkpoint, 64, 64, PL_CACHE_F32, &plan);
    for (pl_ple_placement ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++) {
        pl_card_memory_compute(config, &plan, ple, &(pl_kv_size){1, 256, 64, 0, PL_CACHE_F32}, &m[ple]);
        cr_assert_eq(pl_card_memory_total(&m[ple]), m[ple].weights + m[ple].kv + m[ple].work + m[ple].reserve +
                                                        (ple == PL_PLE_VRAM ? plan.ple_table : 0));
        pl_card_memory_compute(config, &plan, ple, &(pl_kv_size){2, 256, 64, 0, PL_CACHE_F32}, &more);
        cr_assert_eq(more.kv, 2 * m[ple].kv);
        pl_card_memory_compute(config, &plan, ple, &(pl_kv_size){1, 512, 64, 0, PL_CACHE_F32}, &more);
        cr_assert(more.kv > m[ple].kv && more.work > m[ple].work);
        pl_card_memory_compute(config, &plan, ple, &(pl_kv_size){1, 256, 128, 0, PL_CACHE_F32}, &more);
        cr_assert(more.work > m[ple].work && more.pinned >= m[ple].pinned);
    }
    cr_assert_eq(m[PL_PLE_VRAM].pinned + m[PL_PLE_VRAM].host, 0);
    cr_assert_eq(m[PL_PLE_PINNED].pinned, plan.ple_table);
    cr_assert_eq(m[PL_PLE_HOST].host, plan.ple_table);
    cr_assert_geq(m[PL_PLE_HOST].pinned, 4 * 64 * plan.ple_row);
    cr_assert_eq(m[PL_PLE_DISK].host, PL_PLE_CACHE_BYTES);
    pl_model_close(model);
}

/* An engine on the CPU has what was asked for, or the defaults, whatever else it is told about cards. */
Test(memory, here_on_the_cpu)
{
    pl_model *model = opened(0);
    pl_placement p;
    pl_error err = {0};
    pl_placement_wish wish = {.backend = PL_BACKEND_CPU, .ple = PL_PLE_VRAM, .device = 99};
    cr_assert_eq(pl_placement_here(model->checkpoint, &wish, &p, &err), PL_OK, "%s", err.message);
    cr_assert_eq(p.backend, PL_BACKEND_CPU);
    cr_assert_eq(p.ple, PL_PLE_AUTO);
    cr_assert_eq(p.batch_rows, PL_DEFAULT_BATCH_ROWS);
    wish.ple = PL_PLE_DISK; /* to save memory: steps are smaller too, unless told */
    cr_assert_eq(pl_placement_here(model->checkpoint, &wish, &p, &err), PL_OK, "%s", err.message);
    cr_assert_eq(p.ple, PL_PLE_DISK);
    cr_assert_lt(p.batch_rows, PL_DEFAULT_BATCH_ROWS);
    wish.batch_rows = 300;
    cr_assert_eq(pl_placement_here(model->checkpoint, &wish, &p, &err), PL_OK, "%s", err.message);
    cr_assert_eq(p.batch_rows, 300);
    cr_assert_eq(p.sessions, PL_DEFAULT_SESSIONS);
    cr_assert_eq(p.context, pl_model_context(model));
    cr_assert_str_eq(p.reason, "");
    wish = (pl_placement_wish){.sessions = 2, .context = 33, .batch_rows = 5};
    cr_assert_eq(pl_placement_here(model->checkpoint, &wish, &p, &err), PL_OK, "%s", err.message);
    cr_assert(p.sessions == 2 && p.context == 33 && p.batch_rows == 5);
    pl_model_close(model);
}
