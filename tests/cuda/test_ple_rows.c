/* Per-layer embeddings from wherever they are kept: the card's op and the thread that brings rows, together. */
#include "host/engine/ple.h"
#include "host/ops/backend.h"
#include "tests/cuda/card.h"
#include "tests/ops/ple_table.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#if defined(EMU_ASAN) || defined(EMU_TSAN)
#define SEEDS 1
#else
#define SEEDS 3
#endif

#define DEMO_MODEL PL_TEST_DATA "/../tools/demo_model/demo.gguf"
#define MAX_ROWS 7
#define STEPS 11

static pl_backend *open_backend(void)
{
    static const pl_backend_shape shape = {
        .max_rows = MAX_ROWS, .max_context = 64, .heads = {.heads = 2, .kv_heads = 1, .dim = 64}, .vocab = 8};
    pl_backend *b;
    pl_error err;
    pl_status status = pl_backend_cuda(&shape, 0, 1, NULL, &b, &err);
    cr_assert_eq(status, PL_OK, "%s", err.message);
    return b;
}

static void close_backend(pl_backend *b)
{
    pl_backend_free(b);
    cr_assert_eq(card_leftovers(), 0);
}

static void for_each_mode(card_mode first, void (*check)(pl_backend *b))
{
    for (int mode = first; mode < CARD_MODES; mode++)
        for (uint64_t seed = 0; seed <= SEEDS; seed++) {
            card_insert((card_mode)mode, seed);
            pl_backend *b = open_backend();
            check(b);
            close_backend(b);
        }
}

static void *take(pl_backend *b, size_t bytes)
{
    void *memory = b->memory_take(b, bytes);
    cr_assert_not_null(memory);
    return memory;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* ---- the op and a host that brings rows late ---- */

#define SLOTS 4
#define ROW_BYTES (2 * 34)
#define COLS 64

typedef struct bringer {
    char *ring;
    uint32_t *ready;
    uint32_t ticket;
    int n;
} bringer;

static char *slot_of(const bringer *b)
{
    return b->ring + b->ticket % SLOTS * (MAX_ROWS * ROW_BYTES);
}

static void *bring(void *arg)
{
    bringer *b = arg;
    pause_ms(1);
    __atomic_store_n(b->ready, b->ticket - 1, __ATOMIC_RELEASE);
    pause_ms(1);
    fill_table((unsigned char *)slot_of(b), (size_t)b->n * ROW_BYTES, b->ticket);
    __atomic_store_n(b->ready, b->ticket, __ATOMIC_RELEASE);
    return NULL;
}

static void expect_bits(const float *got, const float *want, int64_t n, const char *what, int row)
{
    for (int64_t i = 0; i < n; i++)
        cr_assert_eq(memcmp(&got[i], &want[i], sizeof *got), 0, "%s, row %d, value %lld: %.9g, expected %.9g", what,
                     row, (long long)i, got[i], want[i]);
}

static void look_at_late_rows(pl_backend *b, bringer *by, int n)
{
    uint32_t *ticket = take(b, sizeof *ticket);
    int32_t *layers = take(b, MAX_ROWS * sizeof *layers), *bad = take(b, sizeof *bad), two[MAX_ROWS];
    float *out = take(b, MAX_ROWS * COLS * sizeof *out), want[COLS];
    for (int i = 0; i < MAX_ROWS; i++)
        two[i] = 2;
    by->n = n;
    b->upload(b->stream, ticket, &by->ticket, sizeof *ticket);
    b->upload(b->stream, layers, two, sizeof two);
    pl_ple_rows from = {.base = by->ring,
                        .type = PL_Q8_0,
                        .row_bytes = ROW_BYTES,
                        .vocab = 1,
                        .ready = by->ready,
                        .ticket = ticket,
                        .slots = SLOTS,
                        .slot_bytes = MAX_ROWS * ROW_BYTES};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, bring, by), 0);
    b->ops->ple_look(b->stream, out, COLS, &from, NULL, layers, n, COLS / 2, bad);
    const void *got;
    cr_assert_eq(b->fetch(b->stream, out, MAX_ROWS * COLS * sizeof *out, &got, NULL), PL_OK);
    pthread_join(thread, NULL);
    for (int i = 0; i < n; i++) {
        pl_decode(PL_Q8_0, slot_of(by) + i * ROW_BYTES, want, COLS);
        expect_bits((const float *)got + i * COLS, want, COLS, "late", i);
    }
    b->memory_give(b, ticket, sizeof *ticket);
    b->memory_give(b, layers, MAX_ROWS * sizeof *layers);
    b->memory_give(b, bad, sizeof *bad);
    b->memory_give(b, out, MAX_ROWS * COLS * sizeof *out);
}

/* Tickets pass from 2^32 - 1 to 0; few rows wait by themselves, many do not. */
static void late_rows(pl_backend *b)
{
    size_t bytes = 64 + SLOTS * MAX_ROWS * ROW_BYTES;
    char *shared = b->shared_take(b, bytes);
    cr_assert_not_null(shared);
    bringer by = {.ring = shared + 64, .ready = (uint32_t *)shared, .ticket = UINT32_MAX - 1};
    *by.ready = by.ticket - 1;
    for (int n = 1; n <= MAX_ROWS; n += 2, by.ticket++)
        look_at_late_rows(b, &by, n);
    b->shared_give(b, shared, bytes);
}

Test(ple_look, waits_for_its_rows)
{
    for_each_mode(CARD_EAGER, late_rows);
}

/* ---- every placement ---- */

static pl_checkpoint *demo(void)
{
    pl_checkpoint *checkpoint;
    pl_error err;
    pl_status status = pl_checkpoint_open(DEMO_MODEL, &checkpoint, &err);
    cr_assert_eq(status, PL_OK, "%s", err.message);
    return checkpoint;
}

static const pl_tensor *table_of(const pl_checkpoint *checkpoint)
{
    return &pl_checkpoint_weights(checkpoint)->ple_table;
}

/* A sequence of steps, of which one is queued before the one before it is done. */
typedef struct walk {
    pl_backend *b;
    pl_checkpoint *checkpoint;
    pl_ple *ple;
    const char *what;
    int64_t cols;
    pl_drawn *drawn; /* [MAX_ROWS] as the card would write them */
    int32_t id[STEPS][MAX_ROWS];
    float *out[STEPS];
    uint32_t *ticket;
    int32_t *ids, *layers, *bad;
} walk;

static int rows_of_step(int step)
{
    return 1 + step * 3 % MAX_ROWS;
}

static size_t out_bytes(const walk *w)
{
    return MAX_ROWS * (size_t)w->cols * sizeof(float);
}

static walk begin_walk(pl_backend *b, pl_ple_placement placement, const char *what)
{
    walk w = {.b = b, .checkpoint = demo(), .what = what};
    const pl_config *config = pl_checkpoint_config(w.checkpoint);
    pl_ple_params params = {
        .placement = placement, .max_rows = MAX_ROWS, .cache_bytes = 20 * pl_tensor_row_bytes(table_of(w.checkpoint))};
    pl_error err;
    pl_status status = pl_ple_open(w.checkpoint, b, &params, &w.ple, &err);
    cr_assert_eq(status, PL_OK, "%s: %s", what, err.message);
    w.cols = table_of(w.checkpoint)->cols;
    pl_rng rng;
    pl_rng_seed(&rng, 11);
    for (int s = 0; s < STEPS; s++) {
        w.out[s] = take(b, out_bytes(&w));
        for (int i = 0; i < MAX_ROWS; i++)
            w.id[s][i] = s == 2 && i == 1 ? -1
                                          : (int32_t)(pl_rng_next(&rng) % (s < 6 ? 30u : (uint32_t)config->ple_vocab));
    }
    w.drawn = b->shared_take(b, MAX_ROWS * sizeof *w.drawn);
    cr_assert_not_null(w.drawn);
    w.ticket = take(b, sizeof *w.ticket);
    w.ids = take(b, MAX_ROWS * sizeof *w.ids);
    w.layers = take(b, MAX_ROWS * sizeof *w.layers);
    w.bad = take(b, sizeof *w.bad);
    return w;
}

static void end_walk(walk *w)
{
    pl_backend *b = w->b;
    pl_ple_free(w->ple);
    for (int s = 0; s < STEPS; s++)
        b->memory_give(b, w->out[s], out_bytes(w));
    b->shared_give(b, w->drawn, MAX_ROWS * sizeof *w->drawn);
    b->memory_give(b, w->ticket, sizeof *w->ticket);
    b->memory_give(b, w->ids, MAX_ROWS * sizeof *w->ids);
    b->memory_give(b, w->layers, MAX_ROWS * sizeof *w->layers);
    b->memory_give(b, w->bad, sizeof *w->bad);
    pl_checkpoint_close(w->checkpoint);
}

static void queue_look(walk *w, int step, uint32_t ticket)
{
    const pl_config *config = pl_checkpoint_config(w->checkpoint);
    int32_t layers[MAX_ROWS];
    for (int i = 0; i < MAX_ROWS; i++)
        layers[i] = config->n_layers;
    pl_stream *s = w->b->stream;
    pl_ple_rows from = pl_ple_view(w->ple);
    from.ticket = w->ticket;
    w->b->upload(s, w->ticket, &ticket, sizeof ticket);
    w->b->upload(s, w->ids, w->id[step], sizeof w->id[step]);
    w->b->upload(s, w->layers, layers, sizeof layers);
    w->b->ops->ple_look(s, w->out[step], w->cols, &from, w->ids, w->layers, rows_of_step(step), config->ple_dim,
                        w->bad);
}

static pl_status queue_step(walk *w, int step, bool drawn, pl_error *err)
{
    pl_ple_want wants[MAX_ROWS];
    uint32_t ticket;
    for (int i = 0; i < MAX_ROWS; i++)
        wants[i] = drawn ? (pl_ple_want){.drawn = &w->drawn[i], .count = (uint32_t)step + 1}
                         : (pl_ple_want){.id = w->id[step][i]};
    PL_TRY(pl_ple_request(w->ple, wants, rows_of_step(step), &ticket, err));
    queue_look(w, step, ticket);
    return PL_OK;
}

static void expect_steps(walk *w)
{
    const pl_tensor *table = table_of(w->checkpoint);
    float *want = malloc((size_t)w->cols * sizeof *want);
    const void *got;
    cr_assert_not_null(want);
    for (int s = 0; s < STEPS; s++) {
        cr_assert_eq(w->b->fetch(w->b->stream, w->out[s], out_bytes(w), &got, NULL), PL_OK);
        for (int i = 0; i < rows_of_step(s); i++) {
            pl_decode(table->type, pl_tensor_row(table, w->id[s][i] < 0 ? 0 : w->id[s][i]), want, w->cols);
            expect_bits((const float *)got + i * w->cols, want, w->cols, w->what, 100 * s + i);
        }
    }
    cr_assert_eq(w->b->fetch(w->b->stream, w->bad, sizeof *w->bad, &got, NULL), PL_OK);
    cr_assert_eq(*(const int32_t *)got, 0);
    free(want);
}

static const struct placement {
    pl_ple_placement placement;
    const char *name;
    bool thread;
} placements[] = {{PL_PLE_VRAM, "vram", false},
                  {PL_PLE_PINNED, "pinned", false},
                  {PL_PLE_HOST, "host", true},
                  {PL_PLE_DISK, "disk", true}};

static void known_ids(pl_backend *b)
{
    for (size_t p = 0; p < sizeof placements / sizeof *placements; p++) {
        walk w = begin_walk(b, placements[p].placement, placements[p].name);
        uint64_t rows = 0;
        for (int s = 0; s < STEPS; s++) {
            pl_ple_will_need(w.ple, w.id[s], MAX_ROWS);
            cr_assert_eq(queue_step(&w, s, false, NULL), PL_OK);
            rows += (uint64_t)rows_of_step(s);
        }
        expect_steps(&w);
        pl_ple_stats stats = pl_ple_statistics(w.ple);
        cr_assert(stats.rows == (placements[p].thread ? rows : 0), "%s", w.what);
        cr_assert((stats.hits > 0) == (placements[p].placement == PL_PLE_DISK), "%s", w.what);
        end_walk(&w);
    }
}

Test(ple_look, every_placement_gives_the_rows)
{
    for_each_mode(CARD_EAGER, known_ids);
}

/* The draws of a step come a while after the step itself has been queued. */
static void *draw_all(void *arg)
{
    walk *w = arg;
    uint64_t served = 0;
    for (int s = 0; s < STEPS; s++) {
        if (s % 3 == 1)
            pause_ms(1);
        for (int i = 0; i < rows_of_step(s); i++) {
            pl_drawn next = {.token = w->id[s][i], .count = (uint32_t)s + 1};
            __atomic_store_n(&w->drawn[i].both, next.both, __ATOMIC_RELEASE);
        }
        served += (uint64_t)rows_of_step(s);
        while (pl_ple_statistics(w->ple).rows < served)
            sched_yield();
    }
    return NULL;
}

static void drawn_ids(pl_backend *b)
{
    for (size_t p = 0; p < sizeof placements / sizeof *placements; p++) {
        if (!placements[p].thread)
            continue;
        walk w = begin_walk(b, placements[p].placement, placements[p].name);
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, draw_all, &w), 0);
        for (int s = 0; s < STEPS; s++)
            cr_assert_eq(queue_step(&w, s, true, NULL), PL_OK);
        expect_steps(&w);
        pthread_join(thread, NULL);
        end_walk(&w);
    }
}

Test(ple_look, ids_that_are_drawn_later)
{
    for_each_mode(CARD_EAGER, drawn_ids);
}

/* ---- ends ---- */

static void free_while_a_step_waits(pl_backend *b)
{
    walk w = begin_walk(b, PL_PLE_HOST, "host");
    for (int s = 0; s < PL_PLE_SLOTS; s++)
        cr_assert_eq(queue_step(&w, s, true, NULL), PL_OK);
    end_walk(&w);
}

Test(ple_look, nothing_waits_for_ever)
{
    /* CARD_EAGER would wait within the call that queues the step. */
    for_each_mode(CARD_ASKED, free_while_a_step_waits);
}

static void card_is_lost(pl_backend *b)
{
    walk w = begin_walk(b, PL_PLE_DISK, "disk");
    pl_error err;
    pl_status status = PL_OK;
    for (int s = 0; s < 3; s++)
        cr_assert_eq(queue_step(&w, s, false, NULL), PL_OK);
    card_lose(1);
    for (int s = 3; s < STEPS && status == PL_OK; s++)
        status = queue_step(&w, s, s >= 5, &err);
    cr_assert_eq(status, PL_ERR_DEVICE);
    end_walk(&w);
}

Test(ple_look, a_lost_card_ends_requests)
{
    for_each_mode(CARD_EAGER, card_is_lost);
}

Test(ple_look, no_memory)
{
    card_insert(CARD_EAGER, 0);
    pl_backend *b = open_backend();
    pl_checkpoint *checkpoint = demo();
    for (size_t p = 0; p < sizeof placements / sizeof *placements; p++) {
        pl_ple_params params = {.placement = placements[p].placement, .max_rows = MAX_ROWS};
        pl_ple *ple = NULL;
        pl_error err;
        card_fail_alloc(1);
        cr_assert_eq(pl_ple_open(checkpoint, b, &params, &ple, &err), PL_ERR_MEMORY, "%s", placements[p].name);
        cr_assert_not_null(strstr(err.message, "per-layer embeddings"), "%s", err.message);
        cr_assert_null(ple);
    }
    pl_ple_free(NULL);
    pl_checkpoint_close(checkpoint);
    close_backend(b);
}

/* ---- sizes ---- */

Test(ple_look, takes_what_it_says)
{
    card_insert(CARD_EAGER, 0);
    pl_backend *b = open_backend();
    pl_checkpoint *checkpoint = demo();
    size_t row = pl_tensor_row_bytes(table_of(checkpoint));
    size_t whole = (size_t)pl_checkpoint_config(checkpoint)->ple_vocab * row;
    size_t ring = PL_PLE_SLOTS * MAX_ROWS * row;
    for (size_t p = 0; p < sizeof placements / sizeof *placements; p++) {
        pl_ple_params params = {.placement = placements[p].placement, .max_rows = MAX_ROWS, .cache_bytes = 1000};
        pl_ple_bytes bytes = pl_ple_memory(checkpoint, b, &params);
        size_t least = placements[p].thread ? ring : whole, taken = bytes.memory + bytes.shared;
        cr_assert(taken >= least && taken < least + least / 10 + 1000, "%s: %zu", placements[p].name, taken);
        cr_assert((bytes.memory > 0) == (params.placement == PL_PLE_VRAM));
        cr_assert_eq(bytes.cache, params.placement == PL_PLE_DISK ? 1000 : 0);
    }
    pl_checkpoint_close(checkpoint);
    close_backend(b);
}
