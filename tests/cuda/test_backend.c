/* The CUDA backend: that copies, ops and recordings keep their order whenever the card gets to them, and that every
 * failure ends in a message. */
#include "cuda/recordings.h"
#include "host/base/rng.h"
#include "host/cpu/pack.h"
#include "host/ops/backend.h"
#include "tests/cuda/card.h"
#include "tests/ops/block_scales.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(EMU_ASAN) || defined(EMU_TSAN)
#define SEEDS 1
#else
#define SEEDS 6
#endif

#define WIDTH 8
#define MIB ((size_t)1 << 20)

static const pl_backend_shape shape = {.max_rows = 16, .max_context = 128, .heads = {2, 1, 64}};

static const float zeros[WIDTH];

static pl_backend *open_backend(const pl_backend_shape *as)
{
    pl_backend *b;
    pl_error err;
    pl_status status = pl_backend_cuda(as, 0, 2, NULL, &b, &err);
    cr_assert_eq(status, PL_OK, "%s", err.message);
    return b;
}

static void close_backend(pl_backend *b)
{
    pl_backend_free(b);
    cr_assert_eq(card_leftovers(), 0);
}

static void for_each_mode(void (*check)(pl_backend *b))
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        for (uint64_t seed = 0; seed <= SEEDS; seed++) {
            card_insert((card_mode)mode, seed);
            pl_backend *b = open_backend(&shape);
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

/* to = factor * from, WIDTH values each: the smallest op there is. */
static void multiply(pl_backend *b, pl_stream *s, float *to, const float *from, const int32_t *zero, float factor)
{
    pl_weight table = {.name = "from", .data = from, .rows = 1, .cols = WIDTH, .type = PL_F32};
    pl_embed_from of = {.table = &table, .scale = factor};
    b->ops->embed(s, to, &of, zero, 1);
}

static void upload_value(pl_backend *b, pl_stream *s, float *to, float value)
{
    float v[WIDTH];
    for (int i = 0; i < WIDTH; i++)
        v[i] = value;
    b->upload(s, to, v, sizeof v);
}

static float fetch_value(pl_backend *b, pl_stream *s, const float *from)
{
    const void *v;
    pl_error err;
    pl_status status = b->fetch(s, from, WIDTH * sizeof(float), &v, &err);
    cr_assert_eq(status, PL_OK, "%s", err.message);
    return ((const float *)v)[WIDTH - 1];
}

static void fill(unsigned char *bytes, size_t n, uint64_t seed)
{
    uint32_t state = (uint32_t)seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(state >> 24);
    }
}

static void expect_bytes(pl_backend *b, pl_stream *s, const void *at, const void *want, size_t n)
{
    const void *got;
    pl_error err;
    pl_status status = b->fetch(s, at, n, &got, &err);
    cr_assert_eq(status, PL_OK, "%s", err.message);
    cr_assert(memcmp(got, want, n) == 0);
}

/* ---- copies ---- */

static void memory_is_zeroed(pl_backend *b)
{
    unsigned char *none = calloc(1, 5000);
    cr_assert_not_null(none);
    char *memory = take(b, 5000);
    expect_bytes(b, b->side, memory, none, 5000);
    unsigned char *shared = b->shared_take(b, 5000);
    cr_assert(memcmp(shared, none, 5000) == 0);
    b->shared_give(b, shared, 5000);
    b->memory_give(b, memory, 5000);
    b->memory_give(b, NULL, 0);
    cr_assert_null(b->memory_take(b, 0));
    free(none);
}

Test(backend, memory_is_zeroed)
{
    for_each_mode(memory_is_zeroed);
}

/* The source is another by the time that the copy is made. */
static void upload_then_fetch(pl_backend *b, pl_stream *s, size_t bytes)
{
    unsigned char *source = malloc(bytes), *want = malloc(bytes);
    cr_assert(source && want);
    fill(source, bytes, bytes);
    memcpy(want, source, bytes);
    char *at = take(b, bytes);
    b->upload(s, at, source, bytes);
    memset(source, 0, bytes);
    expect_bytes(b, s, at, want, bytes);
    b->memory_give(b, at, bytes);
    free(source);
    free(want);
}

static void upload_sizes(pl_backend *b)
{
    static const size_t sizes[] = {1, 255, 256, 4097, 300000, MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        upload_then_fetch(b, b->stream, sizes[i]);
        upload_then_fetch(b, b->side, sizes[i]);
    }
}

Test(backend, uploads_arrive)
{
    for_each_mode(upload_sizes);
}

Test(backend, a_long_upload_arrives)
{
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    upload_then_fetch(b, b->stream, 4 * MIB);
    upload_then_fetch(b, b->stream, 37 * MIB + 3);
    upload_then_fetch(b, b->side, 5 * MIB + 1);
    close_backend(b);
}

/* In their turn between what is written before and after. */
static void copies(pl_backend *b)
{
    const size_t bytes = 5000;
    unsigned char *first = malloc(bytes), *second = malloc(bytes);
    cr_assert(first && second);
    fill(first, bytes, 1);
    fill(second, bytes, 2);
    char *from = take(b, bytes), *to = take(b, bytes + 1);
    b->upload(b->stream, from, first, bytes);
    b->copy(b->stream, to + 1, from, bytes);
    b->upload(b->stream, from, second, bytes);
    b->copy(b->stream, to, from, 1);
    b->copy(b->stream, to, from, 0);
    expect_bytes(b, b->stream, to + 1, first, bytes);
    expect_bytes(b, b->stream, to, second, 1);
    expect_bytes(b, b->stream, from, second, bytes);
    b->memory_give(b, from, bytes);
    b->memory_give(b, to, bytes + 1);
    free(first);
    free(second);
}

Test(backend, copies_keep_their_turn)
{
    for_each_mode(copies);
}

/* More than goes into the pinned memory that uploads leave from, in pieces of all sizes. */
static void many_uploads(pl_backend *b)
{
    enum { N = 300 };
    size_t total = 3 * MIB + MIB / 2, done = 0;
    unsigned char *want = malloc(total), *source = malloc(total);
    cr_assert(want && source);
    fill(want, total, 3);
    char *at = take(b, total);
    for (int i = 0; i < N; i++) {
        size_t bytes = i < N - 1 ? 1 + total / N * (size_t)(i % 7) / 4 : total - done;
        if (bytes > total - done)
            bytes = total - done;
        memcpy(source, want + done, bytes);
        b->upload(b->side, at + done, source, bytes);
        memset(source, 0, bytes);
        done += bytes;
    }
    cr_assert_eq(done, total);
    expect_bytes(b, b->side, at, want, total);
    b->memory_give(b, at, total);
    free(want);
    free(source);
}

Test(backend, uploads_wait_for_room)
{
    for_each_mode(many_uploads);
}

static void copies_and_ops_in_order(pl_backend *b)
{
    float *x = take(b, 4096), *y = x + 256, *z = y + 256;
    int32_t *zero = (int32_t *)(z + 256);
    for (int i = 1; i <= 40; i++) {
        upload_value(b, b->stream, x, (float)i);
        multiply(b, b->stream, y, x, zero, 2);
        upload_value(b, b->stream, x, -1);
        multiply(b, b->stream, z, y, zero, 3);
        if (i % 5 == 0) {
            cr_assert_eq(fetch_value(b, b->stream, z), 6 * (float)i);
            cr_assert_eq(fetch_value(b, b->stream, x), -1);
        }
    }
    b->memory_give(b, x, 4096);
}

Test(backend, copies_and_ops_keep_their_order)
{
    for_each_mode(copies_and_ops_in_order);
}

/* ---- marks ---- */

static void marks(pl_backend *b)
{
    enum { N = 3 * PL_QUEUE_MARKS };
    float *x = take(b, 4096), *shared = b->shared_take(b, N * WIDTH * sizeof(float));
    uint64_t mark[N];
    pl_error err;
    cr_assert_not_null(shared);
    for (int i = 0; i < N; i++) {
        upload_value(b, b->stream, x, (float)(i + 1));
        b->download(b->stream, shared + i * WIDTH, x, WIDTH * sizeof *x);
        mark[i] = b->mark(b->stream);
        cr_assert_eq(mark[i], (uint64_t)i + 1);
        if (i % 3 == 0) {
            int before = i / 2;
            cr_assert_eq(b->wait_for(b->stream, mark[before], &err), PL_OK);
            for (int j = 0; j <= before; j++)
                cr_assert_eq(shared[j * WIDTH], (float)(j + 1));
        }
    }
    cr_assert_eq(b->wait_for(b->stream, mark[N - 1], &err), PL_OK);
    for (int i = 0; i < N; i++)
        cr_assert_eq(shared[i * WIDTH + WIDTH - 1], (float)(i + 1));
    b->shared_give(b, shared, N * WIDTH * sizeof(float));
    b->memory_give(b, x, 4096);
}

Test(backend, marks_are_waited_for)
{
    for_each_mode(marks);
}

/* The card runs what it is asked for: what comes after the mark is not. */
Test(backend, no_mark_waits_for_more)
{
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    float *x = take(b, 4096), *shared = b->shared_take(b, 4096);
    pl_error err;
    for (int i = 0; i < PL_QUEUE_MARKS; i++) {
        upload_value(b, b->stream, x, (float)(i + 1));
        b->download(b->stream, shared, x, WIDTH * sizeof *x);
        cr_assert_eq(b->mark(b->stream), (uint64_t)i + 1);
    }
    cr_assert_eq(shared[0], 0);
    for (uint64_t mark = 1; mark <= PL_QUEUE_MARKS; mark++) {
        cr_assert_eq(b->wait_for(b->stream, mark, &err), PL_OK);
        cr_assert_eq(shared[0], (float)mark);
    }
    b->shared_give(b, shared, 4096);
    b->memory_give(b, x, 4096);
    close_backend(b);
}

/* More marks than can be open: the oldest are waited for, and no others. */
Test(backend, old_marks_are_behind)
{
    enum { MORE = 4 };
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    float *x = take(b, 4096), *shared = b->shared_take(b, 4096);
    pl_error err;
    for (int i = 0; i < PL_QUEUE_MARKS + MORE; i++) {
        upload_value(b, b->stream, x, (float)(i + 1));
        b->download(b->stream, shared, x, WIDTH * sizeof *x);
        b->mark(b->stream);
    }
    for (uint64_t mark = 1; mark <= MORE; mark++) {
        cr_assert_eq(b->wait_for(b->stream, mark, &err), PL_OK);
        cr_assert_eq(shared[0], MORE);
    }
    b->shared_give(b, shared, 4096);
    b->memory_give(b, x, 4096);
    close_backend(b);
}

/* ---- two queues, recordings ---- */

typedef struct work {
    float *x, *left, *right, *sum;
    int32_t *zero;
} work;

static work take_work(pl_backend *b)
{
    float *x = take(b, 8192);
    return (work){x, x + 256, x + 512, x + 768, (int32_t *)(x + 1024)};
}

static void give_work(pl_backend *b, work w)
{
    b->memory_give(b, w.x, 8192);
}

#define WORK_OPS 6

/* sum = 8 * factor * x on the side, then 3 times that; left is there to be overwritten too early. */
static void queue_work(pl_backend *b, work w, float factor, bool fork, bool join)
{
    multiply(b, b->stream, w.left, w.x, w.zero, 2);
    if (fork)
        b->fork(b);
    multiply(b, b->side, w.right, w.left, w.zero, 2);
    multiply(b, b->side, w.right, w.right, w.zero, 2 * factor);
    multiply(b, b->stream, w.sum, w.x, w.zero, 7);
    if (join)
        b->join(b);
    multiply(b, b->stream, w.sum, w.right, w.zero, 3);
    multiply(b, b->stream, w.left, w.x, w.zero, 0);
}

static float run_work(pl_backend *b, work w, float x, bool fork, bool join)
{
    upload_value(b, b->stream, w.left, 0);
    upload_value(b, b->stream, w.right, 0);
    fetch_value(b, b->stream, w.x);
    upload_value(b, b->stream, w.x, x);
    queue_work(b, w, 1, fork, join);
    float got = fetch_value(b, b->stream, w.sum);
    fetch_value(b, b->side, w.right);
    return got;
}

static void fork_and_join(pl_backend *b)
{
    work w = take_work(b);
    for (int i = 1; i <= 5; i++)
        cr_assert_eq(run_work(b, w, (float)i, true, true), 24 * (float)i);
    give_work(b, w);
}

Test(backend, fork_and_join_order_two_queues)
{
    for_each_mode(fork_and_join);
}

Test(backend, a_missing_fork_or_join_shows)
{
    int wrong[2] = {0};
    for (uint64_t seed = 0; seed < 16; seed++)
        for (int missing = 0; missing < 2; missing++) {
            card_insert(CARD_STARVE, seed);
            pl_backend *b = open_backend(&shape);
            work w = take_work(b);
            wrong[missing] += run_work(b, w, 1, missing != 0, missing != 1) != 24;
            give_work(b, w);
            close_backend(b);
        }
    cr_assert(wrong[0] >= 4 && wrong[1] >= 4, "%d without fork, %d without join", wrong[0], wrong[1]);
}

typedef struct step_key {
    int a, factor;
} step_key;

/* Under the key of its factor. */
static float run_step(pl_backend *b, work w, int factor, float x)
{
    step_key key = {7, factor};
    upload_value(b, b->stream, w.x, x);
    if (b->begin(b->stream, &key, sizeof key))
        queue_work(b, w, (float)factor, true, true);
    b->end(b->stream);
    return fetch_value(b, b->stream, w.sum);
}

static void recordings(pl_backend *b)
{
    static const unsigned long long launches[] = {WORK_OPS, WORK_OPS + 1, 1, 1, 1};
    work w = take_work(b);
    for (int i = 0; i < 5; i++)
        for (int factor = 1; factor <= 3; factor++) {
            unsigned long long before = card_launches();
            cr_assert_eq(run_step(b, w, factor, (float)(i + 1)), (float)(24 * factor * (i + 1)));
            cr_assert_eq(card_launches() - before, launches[i]);
        }
    give_work(b, w);
}

Test(backend, recordings_read_what_memory_holds)
{
    for_each_mode(recordings);
}

/* Steps in a row, nothing waited for in between. */
static void steps_in_a_row(pl_backend *b)
{
    enum { N = 30 };
    work w = take_work(b);
    float *shared = b->shared_take(b, N * WIDTH * sizeof(float));
    pl_error err;
    for (int i = 0; i < N; i++) {
        step_key key = {7, i % 2 + 1};
        upload_value(b, b->stream, w.x, (float)i);
        if (b->begin(b->stream, &key, sizeof key))
            queue_work(b, w, (float)key.factor, true, true);
        b->end(b->stream);
        b->download(b->stream, shared + i * WIDTH, w.sum, WIDTH * sizeof(float));
    }
    cr_assert_eq(b->wait_for(b->stream, b->mark(b->stream), &err), PL_OK);
    for (int i = 0; i < N; i++)
        cr_assert_eq(shared[i * WIDTH], (float)(24 * (i % 2 + 1) * i));
    b->shared_give(b, shared, N * WIDTH * sizeof(float));
    give_work(b, w);
}

Test(backend, recordings_in_a_row)
{
    for_each_mode(steps_in_a_row);
}

Test(backend, keys_differ_by_length_too)
{
    static const char key[2] = {1, 0};
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(b->begin(b->stream, key, 1), i < 2);
        b->end(b->stream);
        cr_assert_eq(b->begin(b->stream, key, 2), i < 2);
        b->end(b->stream);
        cr_assert_eq(b->begin(b->side, key, 2), i < 2);
        b->end(b->side);
    }
    close_backend(b);
}

Test(backend, no_graphs)
{
    pl_backend_shape as = shape;
    as.no_graphs = true;
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&as);
    work w = take_work(b);
    for (int i = 0; i < 4; i++) {
        unsigned long long before = card_launches();
        cr_assert_eq(run_step(b, w, 2, (float)i), (float)(48 * i));
        cr_assert_eq(card_launches() - before, WORK_OPS);
    }
    give_work(b, w);
    close_backend(b);
}

static bool is_replayed(pl_backend *b, work w, int factor)
{
    unsigned long long before = card_launches();
    cr_assert_eq(run_step(b, w, factor, 1), (float)(24 * factor));
    return card_launches() - before == 1;
}

Test(backend, the_least_recently_used_recording_goes)
{
    card_insert(CARD_ASKED, 1);
    pl_backend *b = open_backend(&shape);
    work w = take_work(b);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(is_replayed(b, w, 1) + is_replayed(b, w, 2), i < 2 ? 0 : 2);
    for (int i = 0; i < PL_RECORDINGS_MAX - 2; i++)
        cr_assert(!is_replayed(b, w, 100 + i));
    cr_assert(is_replayed(b, w, 1));
    cr_assert(!is_replayed(b, w, 1000)); /* takes the place of 2 */
    cr_assert(is_replayed(b, w, 1));
    cr_assert(!is_replayed(b, w, 2));
    for (int i = 0; i < PL_RECORDINGS_MAX; i++)
        cr_assert(!is_replayed(b, w, 2000 + i));
    cr_assert(!is_replayed(b, w, 1));
    give_work(b, w);
    close_backend(b);
}

Test(backend, another_recording_goes_when_memory_is_short)
{
    card_insert(CARD_ASKED, 1);
    pl_backend *b = open_backend(&shape);
    work w = take_work(b);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(is_replayed(b, w, 1), i == 2);
    cr_assert(!is_replayed(b, w, 2));
    card_fail_alloc(1);
    cr_assert(!is_replayed(b, w, 2));
    cr_assert(is_replayed(b, w, 2));
    cr_assert(!is_replayed(b, w, 1));
    give_work(b, w);
    close_backend(b);
}

Test(backend, a_capture_without_end)
{
    for (int forks = 0; forks < 2; forks++) {
        card_insert(CARD_ASKED, 0);
        pl_backend *b = open_backend(&shape);
        work w = take_work(b);
        run_step(b, w, 1, 1);
        step_key key = {7, 1};
        give_work(b, w);
        cr_assert(b->begin(b->stream, &key, sizeof key));
        if (forks)
            b->fork(b);
        close_backend(b);
    }
}

/* ---- weights ---- */

static const pl_dtype types[] = {PL_F32,  PL_F16,  PL_BF16, PL_Q4_0, PL_Q4_1,   PL_Q5_0,   PL_Q5_1,  PL_Q8_0, PL_Q2_K,
                                 PL_Q3_K, PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};
enum { N_TYPES = sizeof types / sizeof *types };

/* A matrix of any bytes, but finite scales. */
static pl_tensor make_tensor(pl_dtype type, int64_t rows, int64_t cols)
{
    size_t bytes = pl_dtype_bytes(type, rows * cols), block = (size_t)pl_dtype_describe((int)type)->block_bytes;
    unsigned char *data = malloc(bytes);
    int at[2];
    cr_assert_not_null(data);
    fill(data, bytes, (uint64_t)type);
    scale_offsets(type, at);
    for (size_t i = 0; i < bytes && block > 4; i += block)
        for (int k = 0; k < 2; k++)
            if (at[k] >= 0)
                data[i + (size_t)at[k] + 1] &= 0x3f;
    return (pl_tensor){"blk.3.weight", data, rows, cols, type};
}

static void free_tensor(pl_tensor t)
{
    free((void *)(uintptr_t)t.data);
}

static void expect_weight(pl_backend *b, const pl_weight *w, const pl_tensor *t)
{
    size_t bytes = b->weight_bytes(b, t), packed = pl_pack_bytes(t);
    pl_weight want;
    pl_error err;
    char *panels = malloc(packed + 1);
    cr_assert_not_null(panels);
    cr_assert_eq(pl_pack(b->pool, t, panels, &want, &err), PL_OK);
    cr_assert_eq(bytes, want.bytes);
    cr_assert(w->rows == t->rows && w->cols == t->cols && w->type == t->type && w->bytes == bytes);
    cr_assert(w->packed == (packed > 0) && strcmp(w->name, t->name) == 0);
    expect_bytes(b, b->stream, w->data, want.data, bytes);
    free(panels);
}

/* All of them queued before the first is looked at. */
static void weights_of_all_types(pl_backend *b)
{
    pl_tensor tensors[N_TYPES];
    pl_weight weights[N_TYPES];
    void *memory[N_TYPES];
    pl_error err;
    for (int i = 0; i < N_TYPES; i++) {
        tensors[i] = make_tensor(types[i], 5 + 11 * i, i % 2 ? 256 : 768);
        memory[i] = take(b, b->weight_bytes(b, &tensors[i]));
    }
    for (int i = 0; i < N_TYPES; i++)
        cr_assert_eq(b->weight_load(b, &tensors[i], memory[i], &weights[i], &err), PL_OK, "%s", err.message);
    for (int i = 0; i < N_TYPES; i++) {
        expect_weight(b, &weights[i], &tensors[i]);
        b->memory_give(b, memory[i], b->weight_bytes(b, &tensors[i]));
        free_tensor(tensors[i]);
    }
}

Test(backend, weights_of_all_types)
{
    for_each_mode(weights_of_all_types);
}

/* Of many pieces; what they come from is gone when they arrive. */
Test(backend, long_weights)
{
    static const pl_dtype long_types[] = {PL_Q4_0, PL_BF16};
    for (int i = 0; i < 2; i++) {
        card_insert(CARD_ASKED, 0);
        pl_backend *b = open_backend(&shape);
        pl_tensor t = make_tensor(long_types[i], 18005, 2048), gone = make_tensor(long_types[i], 18005, 2048);
        size_t bytes = b->weight_bytes(b, &t);
        cr_assert_gt(bytes, 17 * MIB); /* than the memory that they leave from */
        void *memory = take(b, bytes);
        pl_weight w;
        pl_error err;
        cr_assert_eq(b->weight_load(b, &gone, memory, &w, &err), PL_OK, "%s", err.message);
        free_tensor(gone);
        expect_weight(b, &w, &t);
        free_tensor(t);
        b->memory_give(b, memory, bytes);
        close_backend(b);
    }
}

Test(backend, a_bad_weight_is_named)
{
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    pl_tensor t = make_tensor(PL_Q8_0, 3000, 2048);
    void *memory = take(b, b->weight_bytes(b, &t));
    unsigned char *bad = (unsigned char *)(uintptr_t)pl_tensor_row(&t, 2777);
    bad[0] = 0x00;
    bad[1] = 0x7c;
    pl_weight w;
    pl_error err;
    cr_assert_eq(b->weight_load(b, &t, memory, &w, &err), PL_ERR_FORMAT);
    cr_assert(strstr(err.message, "blk.3.weight, row 2777"), "%s", err.message);
    bad[1] = 0;
    cr_assert_eq(b->weight_load(b, &t, memory, &w, &err), PL_OK);
    expect_weight(b, &w, &t);
    b->memory_give(b, memory, b->weight_bytes(b, &t));
    free_tensor(t);
    close_backend(b);
}

Test(backend, a_weight_with_rows_beyond_all_measure)
{
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    pl_tensor t = {"wide", zeros, 16, (int64_t)1 << 24, PL_Q8_0};
    pl_weight w;
    pl_error err;
    cr_assert_eq(b->weight_load(b, &t, NULL, &w, &err), PL_ERR_UNSUPPORTED);
    cr_assert(strstr(err.message, "wide"), "%s", err.message);
    close_backend(b);
}

/* ---- failures ---- */

/* Memory that is refused, or the reason why nothing is given any more. */
static pl_status try_take(pl_backend *b, bool shared, size_t bytes, void **out, pl_error *err)
{
    *out = shared ? b->shared_take(b, bytes) : b->memory_take(b, bytes);
    if (*out)
        return PL_OK;
    PL_TRY(b->fetch(b->stream, NULL, 0, NULL, err));
    return pl_fail_memory(err, bytes, "a test");
}

typedef struct everything {
    pl_backend *b;
    float *x, *shared;
    void *weight;
    pl_tensor tensor;
} everything;

static pl_status do_steps(everything *e, pl_error *err)
{
    pl_backend *b = e->b;
    work w = {e->x, e->x + 256, e->x + 512, e->x + 768, (int32_t *)(e->x + 1024)};
    for (int i = 1; i <= 4; i++) {
        step_key key = {7, 1};
        upload_value(b, b->stream, w.x, (float)i);
        if (b->begin(b->stream, &key, sizeof key))
            queue_work(b, w, 1, true, true);
        b->end(b->stream);
        b->download(b->stream, e->shared, w.sum, WIDTH * sizeof *e->shared);
        PL_TRY(b->wait_for(b->stream, b->mark(b->stream), err));
        cr_assert_eq(e->shared[0], (float)(24 * i));
    }
    const void *sum;
    PL_TRY(b->fetch(b->stream, w.sum, WIDTH * sizeof(float), &sum, err));
    cr_assert_eq(*(const float *)sum, 96);
    return PL_OK;
}

static pl_status do_everything(everything *e, pl_error *err)
{
    PL_TRY(pl_backend_cuda(&shape, 0, 1, NULL, &e->b, err));
    void *x, *shared;
    PL_TRY(try_take(e->b, false, 8192, &x, err));
    e->x = x;
    PL_TRY(try_take(e->b, true, 4096, &shared, err));
    e->shared = shared;
    PL_TRY(try_take(e->b, false, e->b->weight_bytes(e->b, &e->tensor), &e->weight, err));
    pl_weight w;
    PL_TRY(e->b->weight_load(e->b, &e->tensor, e->weight, &w, err));
    return do_steps(e, err);
}

/* After an error nothing hangs, and all calls tell of it. */
static void expect_dead(pl_backend *b, float *x, pl_status status, const char *message)
{
    pl_error err;
    const void *out;
    unsigned long long launches = card_launches();
    work w = {x, x, x, x, (int32_t *)x};
    upload_value(b, b->stream, x, 1);
    queue_work(b, w, 1, true, true);
    b->begin(b->stream, "other", 5);
    b->end(b->stream);
    b->download(b->stream, x, x, 4);
    cr_assert_eq(b->wait_for(b->stream, b->mark(b->stream), &err), status);
    cr_assert_str_eq(err.message, message);
    cr_assert_eq(b->fetch(b->side, x, 4, &out, &err), status);
    cr_assert_str_eq(err.message, message);
    cr_assert_null(b->memory_take(b, 100));
    cr_assert_null(b->shared_take(b, 100));
    cr_assert_eq(card_launches(), launches);
}

static void give_everything(everything *e)
{
    if (e->b) {
        e->b->memory_give(e->b, e->x, 8192);
        e->b->memory_give(e->b, e->weight, 0);
        e->b->shared_give(e->b, e->shared, 4096);
    }
    close_backend(e->b);
}

/* 0: there was nothing left to fail. */
static int fail_once(card_mode mode, uint64_t seed, void (*arm)(unsigned nth), unsigned nth, const pl_tensor *t)
{
    everything e = {.tensor = *t};
    pl_error err = {0};
    card_insert(mode, seed);
    arm(nth);
    pl_status status = do_everything(&e, &err);
    if (status != PL_OK) {
        cr_assert(status == PL_ERR_MEMORY || status == PL_ERR_DEVICE, "%d: %s", status, err.message);
        cr_assert_gt(strlen(err.message), 0);
        bool dead = strncmp(err.message, "card 0 (", 8) == 0;
        cr_assert(dead || status == PL_ERR_MEMORY, "%s", err.message);
        if (dead && e.x)
            expect_dead(e.b, e.x, status, err.message);
    }
    give_everything(&e);
    return status != PL_OK;
}

static unsigned fail_each(card_mode mode, void (*arm)(unsigned nth))
{
    pl_tensor t = make_tensor(PL_Q4_K, 50, 512);
    unsigned nth = 1;
    while (fail_once(mode, nth, arm, nth, &t))
        nth++;
    free_tensor(t);
    return nth - 1;
}

Test(backend, every_allocation_fails)
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        cr_assert_eq(fail_each((card_mode)mode, card_fail_alloc), 9);
}

Test(backend, every_launch_fails)
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        cr_assert_eq(fail_each((card_mode)mode, card_fail_launch), 2 * WORK_OPS + 3);
}

Test(backend, the_card_is_lost_at_every_point)
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        cr_assert_eq(fail_each((card_mode)mode, card_lose), 4 * WORK_OPS + 14);
}

Test(backend, an_error_says_what_failed)
{
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    work w = take_work(b);
    pl_error err;
    card_fail_launch(2);
    queue_work(b, w, 1, true, true);
    cr_assert_eq(b->fetch(b->stream, NULL, 0, NULL, &err), PL_ERR_DEVICE);
    cr_assert_str_eq(err.message, "card 0 (CPU in place of a card): embed: too many resources requested for launch");
    give_work(b, w);
    close_backend(b);
}

Test(backend, memory_that_is_refused_is_no_end)
{
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    work w = take_work(b);
    card_fail_alloc(1);
    cr_assert_null(b->memory_take(b, 1024 * MIB));
    card_fail_alloc(1);
    cr_assert_null(b->shared_take(b, 100));
    card_fail_alloc(1);
    const void *out;
    pl_error err;
    cr_assert_eq(b->fetch(b->stream, w.x, 4, &out, &err), PL_ERR_MEMORY);
    cr_assert_eq(run_work(b, w, 2, true, true), 48);
    give_work(b, w);
    close_backend(b);
}

static void expect_unsupported(int device, const char *message)
{
    pl_backend *b = NULL;
    pl_error err;
    cr_assert_eq(pl_backend_cuda(&shape, device, 1, NULL, &b, &err), PL_ERR_UNSUPPORTED);
    cr_assert_str_eq(err.message, message);
    cr_assert_null(b);
    cr_assert_eq(card_leftovers(), 0);
}

Test(backend, a_card_that_is_not_there)
{
    card_insert(CARD_ASKED, 0);
    expect_unsupported(1, "there is no card 1, cards are counted from 0 to 0");
    expect_unsupported(-1, "there is no card -1, cards are counted from 0 to 0");
    card_set_capability(7, 2);
    expect_unsupported(0, "card 0 (CPU in place of a card) has compute capability 7.2, at least 7.5 is needed");
    card_set_present(0);
    expect_unsupported(0, "no NVIDIA driver is loaded");
}

Test(backend, it_is_named_after_the_card)
{
    card_insert(CARD_ASKED, 0);
    pl_backend *b = open_backend(&shape);
    struct cudaDeviceProp card;
    cr_assert_eq(cudaGetDeviceProperties(&card, 0), cudaSuccess);
    cr_assert_eq(strncmp(b->name, "cuda ", 5), 0);
    cr_assert_str_eq(b->name + 5, card.name);
    cr_assert(b->fused && b->side != b->stream && pl_pool_threads(b->pool) == 2);
    close_backend(b);
}

/* ---- several at once ---- */

Test(backend, two_at_once)
{
    for (int mode = 0; mode < CARD_MODES; mode++) {
        card_insert((card_mode)mode, 3);
        pl_backend *b[2] = {open_backend(&shape), open_backend(&shape)};
        work w[2] = {take_work(b[0]), take_work(b[1])};
        for (int i = 1; i <= 4; i++)
            for (int k = 0; k < 2; k++)
                cr_assert_eq(run_step(b[k], w[k], k + 1, (float)i), (float)(24 * (k + 1) * i));
        pl_error err;
        card_fail_launch(1);
        multiply(b[0], b[0]->stream, w[0].x, w[0].x, w[0].zero, 1);
        cr_assert_eq(b[0]->fetch(b[0]->stream, NULL, 0, NULL, &err), PL_ERR_DEVICE);
        cr_assert_eq(run_step(b[1], w[1], 2, 5), 240);
        give_work(b[0], w[0]);
        pl_backend_free(b[0]);
        cr_assert_eq(run_step(b[1], w[1], 2, 6), 288);
        give_work(b[1], w[1]);
        close_backend(b[1]);
    }
}

static void *steps_of_a_thread(void *ctx)
{
    pl_backend *b = ctx;
    recordings(b);
    return NULL;
}

/* One after the other: a backend has one caller at a time, but of any thread. */
Test(backend, another_thread)
{
    for (int mode = 0; mode < CARD_MODES; mode++) {
        card_insert((card_mode)mode, 5);
        pl_backend *b = open_backend(&shape);
        marks(b);
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, steps_of_a_thread, b), 0);
        pthread_join(thread, NULL);
        copies_and_ops_in_order(b);
        close_backend(b);
    }
}
