/* Weights that hold something else than numbers: named when the engine loads them, or, in the per-layer table,
 * when the row is first read; the session goes on after that. */
#include "host/base/arena.h"
#include "host/engine/engine.h"
#include "host/include/pleiad.h"
#include "host/model/gguf.h"
#include "tests/unit/scratch.h"

static unsigned char *file; /* the demo model, to be damaged */
static size_t file_bytes;
static pl_gguf gguf;
static pl_arena *arena;
static scratch s;
static pl_model *model;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    model = NULL;
    file = (unsigned char *)read_file(PL_TEST_DATA "/../tools/demo_model/demo.gguf", &file_bytes);
    cr_assert_eq(pl_arena_create(1 << 16, &arena, &err), PL_OK);
    cr_assert_eq(pl_gguf_parse(file, file_bytes, "demo.gguf", arena, &gguf, &err), PL_OK, "%s", err.message);
}

static void teardown(void)
{
    pl_model_close(model);
    pl_arena_free(arena);
    free(file);
    scratch_close(&s);
}

TestSuite(bad_weights, .init = setup, .fini = teardown);

static void put(const char *tensor, size_t at, const void *bytes, size_t n)
{
    for (size_t i = 0; i < gguf.tensors.n; i++) {
        const pl_entry *e = &gguf.tensors.items[i];
        if (strcmp(e->name, tensor) != 0)
            continue;
        cr_assert_leq(at + n, e->bytes);
        memcpy(file + (e->data - file) + at, bytes, n);
        return;
    }
    cr_assert_fail("no tensor %s", tensor);
}

static pl_status open_engine(pl_engine **engine)
{
    const char *path = scratch_write(&s, "damaged.gguf", file, file_bytes);
    cr_assert_eq(pl_model_open(path, &model, &err), PL_OK, "%s", err.message);
    pl_engine_params params = {.threads = 2, .no_pin = true};
    return pl_engine_create(model, &params, engine, &err);
}

/* Bytes of n values in Q8_0. */
#define Q8_BYTES(n) ((n) / 32 * 34)

static const uint32_t f32_nan = 0x7fc00000, f32_inf = 0x7f800000;
static const uint16_t f16_nan = 0x7e00;

Test(bad_weights, a_plain_matrix)
{
    pl_engine *engine = NULL;
    put("blk.1.altup_router.weight", 4 * (3 * 192 + 5), &f32_nan, sizeof f32_nan);
    expect_failure(open_engine(&engine), PL_ERR_FORMAT, &err, WORDS("blk.1.altup_router.weight", "row 3", "5"));
}

Test(bad_weights, a_vector)
{
    pl_engine *engine = NULL;
    put("blk.0.attn_norm.weight", 4 * 7, &f32_inf, sizeof f32_inf);
    expect_failure(open_engine(&engine), PL_ERR_FORMAT, &err, WORDS("blk.0.attn_norm.weight", "7"));
}

Test(bad_weights, a_scale)
{
    pl_engine *engine = NULL;
    put("blk.2.ffn_up.weight", Q8_BYTES(9 * 192) + 34, &f16_nan, sizeof f16_nan);
    expect_failure(open_engine(&engine), PL_ERR_FORMAT, &err, WORDS("blk.2.ffn_up.weight", "row 9"));
}

Test(bad_weights, a_row_of_the_per_layer_table)
{
    pl_engine *engine = NULL;
    pl_session *session = NULL;
    put("per_layer_token_embd.weight", Q8_BYTES(600 * 384), &f16_nan, sizeof f16_nan);
    cr_assert_eq(open_engine(&engine), PL_OK, "%s", err.message);
    cr_assert_eq(pl_session_create(engine, &session, &err), PL_OK, "%s", err.message);
    pl_generation params = pl_generation_default();
    params.max_tokens = 0;
    int32_t good[] = {2, 500, 700}, bad[] = {2, 500, 600};
    pl_status status = pl_generate(session, bad, 3, &params, NULL, &err);
    expect_failure(status, PL_ERR_NUMERIC, &err, WORDS("per_layer_token_embd.weight", "row 600"));
    cr_assert_eq(pl_generate(session, good, 3, &params, NULL, &err), PL_OK, "%s", err.message);
    pl_session_free(session);
    pl_engine_free(engine);
}

/* ---- served beside others ---- */

static _Atomic int n_done;
static pl_status status_of[4];
static char message_of[4][PL_ERROR_BYTES];

static void keep_status(void *user, const pl_outcome *outcome)
{
    size_t i = (size_t)((pl_status *)user - status_of);
    status_of[i] = outcome->status;
    memcpy(message_of[i], outcome->message, strlen(outcome->message) + 1);
    n_done++;
}

Test(bad_weights, only_the_request_that_reads_it_fails)
{
    pl_engine *engine = NULL;
    pl_scheduler *scheduler = NULL;
    put("per_layer_token_embd.weight", Q8_BYTES(600 * 384), &f16_nan, sizeof f16_nan);
    cr_assert_eq(open_engine(&engine), PL_OK, "%s", err.message);
    cr_assert_eq(pl_scheduler_create(engine, NULL, &scheduler, &err), PL_OK, "%s", err.message);
    pl_request r = pl_request_default();
    r.on_done = keep_status;
    r.generation.max_tokens = 1;
    pl_engine_lock(engine); /* all into one step */
    for (int i = 0; i < 4; i++) {
        const int32_t prompt[] = {2, 500, i == 2 ? 600 : 700 + i};
        r.prompt = prompt;
        r.n_prompt = 3;
        r.user = &status_of[i];
        cr_assert_eq(pl_scheduler_submit(scheduler, &r, NULL, &err), PL_OK, "%s", err.message);
    }
    pl_engine_unlock(engine);
    while (n_done < 4)
        usleep(1000);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(status_of[i], i == 2 ? PL_ERR_NUMERIC : PL_OK, "request %d: %s", i, message_of[i]);
    cr_assert(strstr(message_of[2], "row 600"), "%s", message_of[2]);
    pl_scheduler_free(scheduler);
    pl_engine_free(engine);
}
