/* The head for its largest outputs only: what it says of them has the bits of the whole product, for heads of any kind,
 * and the bound that it relies on holds. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/cpu/head_screen.h"
#include "host/cpu/pack.h"
#include "host/cpu/stream.h"
#include "quant/encode.h"
#include "tests/ops/acts.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define WORDS 3000 /* not a multiple of 16 */
#define COLS 512

static const unsigned levels[] = {0, PL_CPU_AVX2, PL_CPU_AVX2 | PL_CPU_AVX_VNNI, PL_CPU_ALL};
static const pl_backend_shape shape = {.max_rows = 1, .max_context = 64, .heads = {2, 1, 32}, .vocab = WORDS};

/* ---- heads ---- */

typedef struct head {
    pl_tensor tensor;
    void *packed;
    pl_weight w;
} head;

static head make_head(pl_dtype type, const float *values, int64_t rows)
{
    size_t bytes = (size_t)rows * pl_dtype_bytes(type, COLS);
    void *data = malloc(bytes);
    cr_assert_not_null(data);
    pl_encoder_select(pl_cpu_features(PL_CPU_ALL))->encode(type, values, NULL, data, rows * COLS);
    head h = {.tensor = {"head", data, rows, COLS, type}};
    size_t packed = pl_pack_bytes(&h.tensor);
    h.packed = packed ? aligned_alloc(64, (packed + 63) / 64 * 64) : NULL;
    pl_pool *pool;
    cr_assert_eq(pl_pool_create(1, NULL, &pool, NULL), PL_OK);
    cr_assert_eq(pl_pack(pool, &h.tensor, h.packed, &h.w, NULL), PL_OK);
    pl_pool_free(pool);
    return h;
}

static void free_head(head *h)
{
    free((void *)(uintptr_t)h->tensor.data);
    free(h->packed);
}

static pl_act make_act(const float *x, int rows)
{
    return act_open(x, COLS, rows, COLS, false);
}

/* ---- against the whole product ---- */

typedef struct setting {
    pl_backend *backend;
    const head *head;
    float cap;
    int64_t screened; /* rows */
} setting;

static void multiply_whole(const setting *s, pl_act *x, int n, float *out)
{
    pl_stream *stream = s->backend->stream;
    pl_matmul job = {.w = &s->head->w, .x = x, .out = out, .out_ld = WORDS, .n_rows = n};
    s->backend->ops->quantize(stream, x, n);
    s->backend->ops->matmul(stream, &job, 1);
    if (s->cap > 0)
        s->backend->ops->softcap(stream, out, n, WORDS, s->cap);
}

/* Whether token a comes before b. */
static bool before(const float *v, int64_t a, int64_t b)
{
    return v[a] > v[b] || (v[a] == v[b] && a < b);
}

static int64_t rank_of(const float *v, int64_t id)
{
    int64_t rank = 0;
    for (int64_t i = 0; i < WORDS; i++)
        rank += before(v, i, id);
    return rank;
}

static void check_row(const float *whole, const float *top, int k)
{
    for (int64_t i = 0; i < WORDS; i++) {
        if (top[i] == whole[i])
            continue;
        cr_assert_eq(top[i], -FLT_MAX, "output %lld is %g, expected %g", (long long)i, (double)top[i],
                     (double)whole[i]);
        cr_assert_geq(rank_of(whole, i), k, "output %lld of rank %lld is missing", (long long)i,
                      (long long)rank_of(whole, i));
    }
}

static void check_rows(setting *s, const float *x, int n, const int32_t *top)
{
    float *whole = calloc((size_t)n * WORDS, sizeof *whole), *got = calloc((size_t)n * WORDS, sizeof *got);
    float *alone = calloc(WORDS, sizeof *alone);
    pl_act act = make_act(x, n);
    multiply_whole(s, &act, n, whole);
    s->backend->ops->head_top(s->backend->stream, &s->head->w, &act, got, n, top, s->cap);
    for (int i = 0; i < n; i++) {
        check_row(whole + i * WORDS, got + i * WORDS, top[i]);
        pl_act one = make_act(x + i * COLS, 1);
        s->backend->ops->head_top(s->backend->stream, &s->head->w, &one, alone, 1, top + i, s->cap);
        check_row(whole + i * WORDS, alone, top[i]);
        act_close(&one);
    }
    s->screened = pl_head_screen_counted(s->backend->stream->screen).screened;
    act_close(&act);
    free(whole);
    free(got);
    free(alone);
}

/* Calls until the copy is made and no call is left out. */
static setting open_setting(const head *h, int threads, unsigned level, float cap)
{
    setting s = {open_backend(shape, threads, level), h, cap, 0};
    cr_assert_eq(s.backend->take_head(s.backend, &h->w, NULL), PL_OK);
    cr_assert_not_null(s.backend->ops->head_top);
    float *x = calloc(COLS, sizeof *x), *room = calloc(2 * WORDS, sizeof *room);
    x[0] = 1;
    pl_act act = make_act(x, 1);
    s.backend->ops->quantize(s.backend->stream, &act, 1);
    pl_head_screen_look(s.backend->stream->screen, s.backend->stream, &act, 1, room, room + WORDS);
    act_close(&act);
    free(room);
    free(x);
    return s;
}

/* Where most rows are far below a few hundred, in three places, that answer to x. */
static float *peaked_values(const float *x, uint64_t seed)
{
    float *w = normals((int64_t)WORDS * COLS, 1, seed);
    for (int i = 0; i < 210; i++) {
        int64_t row = i % 3 * 1000 + i / 3 + 300;
        for (int k = 0; k < COLS; k++)
            w[row * COLS + k] += x[k] * (0.15f + 0.0005f * (float)i);
    }
    return w;
}

static void check_type(pl_dtype type, bool screens)
{
    float *x = normals(3 * COLS, 1, 5);
    memcpy(x + COLS, x, COLS * sizeof *x);
    float *w = peaked_values(x, 1);
    head h = make_head(type, w, WORDS);
    static const int32_t top[][3] = {{1, 1, 1}, {40, 1, 64}, {20, 30, 128}};
    for (size_t level = 0; level < COUNT(levels); level++) {
        for (size_t i = 0; i < COUNT(top); i++) {
            setting s = open_setting(&h, 1 + 2 * (level % 2), levels[level], i % 2 ? 30 : 0);
            check_rows(&s, x, 2, top[i]);
            cr_assert(s.screened == 4 || !screens, "%lld of 4", (long long)s.screened);
            check_rows(&s, x, 3, top[i]);
            pl_backend_free(s.backend);
        }
    }
    free_head(&h);
    free(w);
    free(x);
}

Test(head_screen, the_top_has_the_bits_of_the_whole_product)
{
    static const pl_dtype types[] = {PL_Q5_1, PL_Q6_K, PL_Q8_0, PL_F16, PL_BF16, PL_F32};
    for (size_t i = 0; i < COUNT(types); i++)
        check_type(types[i], true);
}

Test(head_screen, as_many_rows_as_there_may_be)
{
    static const int32_t top[PL_HEAD_ROWS] = {1, 40, 2, 64, 1, 80, 7, 20};
    float *x = normals(PL_HEAD_ROWS * COLS, 0.1f, 16), *w, *peak = normals(COLS, 1, 5);
    for (int i = 0; i < PL_HEAD_ROWS * COLS; i++)
        x[i] += peak[i % COLS]; /* all of them find rows that answer */
    w = peaked_values(peak, 1);
    head h = make_head(PL_Q8_0, w, WORDS);
    for (size_t level = 0; level < COUNT(levels); level++) {
        for (int n = 1; n <= PL_HEAD_ROWS; n++) {
            setting s = open_setting(&h, 1 + n % 3, levels[level], n % 2 ? 30 : 0);
            check_rows(&s, x, n, top);
            cr_assert_eq(s.screened, 2 * n, "%lld of %d at level %zu", (long long)s.screened, 2 * n, level);
            pl_backend_free(s.backend);
        }
    }
    free_head(&h);
    free(w);
    free(x);
    free(peak);
}

Test(head_screen, a_head_of_few_bits_is_left_alone)
{
    float *w = normals(WORDS * COLS, 1, 1);
    static const pl_dtype types[] = {PL_Q4_0, PL_Q4_K, PL_Q5_0};
    for (size_t i = 0; i < COUNT(types); i++) {
        head h = make_head(types[i], w, WORDS);
        pl_backend *b = open_backend(shape, 1, PL_CPU_ALL);
        cr_assert_eq(b->take_head(b, &h.w, NULL), PL_OK);
        cr_assert_null(b->ops->head_top);
        pl_backend_free(b);
        free_head(&h);
    }
    free(w);
}

/* ---- heads and states that are hard to tell apart ---- */

static void check_all_tops(const head *h, const float *x, float cap)
{
    static const int32_t tops[] = {1, 2, 17, 64, 128};
    for (size_t i = 0; i < COUNT(tops); i++) {
        setting s = open_setting(h, 2, PL_CPU_ALL, cap);
        check_rows(&s, x, 1, &tops[i]);
        pl_backend_free(s.backend);
    }
}

Test(head_screen, equal_and_nearly_equal_rows)
{
    float *x = normals(COLS, 1, 6), *w = peaked_values(x, 2);
    for (int i = 0; i < 40; i++) { /* the largest row, everywhere, the odd ones a little different */
        float *copy = w + (int64_t)(71 * i + 5) * COLS;
        memcpy(copy, w + (2 * 1000 + 69 + 300) * (int64_t)COLS, COLS * sizeof *w);
        copy[i] *= i % 2 ? 1.01f : 1;
    }
    head h = make_head(PL_Q8_0, w, WORDS);
    check_all_tops(&h, x, 0);
    check_all_tops(&h, x, 30);
    check_all_tops(&h, x, 1e-3f); /* all of them are capped to the same */
    free_head(&h);
    free(w);
    free(x);
}

Test(head_screen, states_of_any_size)
{
    static const float factors[] = {0, 1e-38f, 1e-20f, 1e-3f, 1e3f, 1e20f, 1e33f, 3e37f};
    float *x = normals(COLS, 1, 7), *w = peaked_values(x, 3), scaled[COLS];
    head h = make_head(PL_Q6_K, w, WORDS);
    for (size_t f = 0; f < COUNT(factors); f++) {
        for (int k = 0; k < COLS; k++)
            scaled[k] = x[k] * factors[f];
        setting s = open_setting(&h, 1, PL_CPU_ALL, f % 2 ? 30 : 0);
        check_rows(&s, scaled, 1, &(int32_t){5});
        pl_backend_free(s.backend);
    }
    memset(scaled, 0, sizeof scaled);
    scaled[77] = -3; /* one column alone */
    check_all_tops(&h, scaled, 30);
    free_head(&h);
    free(w);
    free(x);
}

Test(head_screen, weights_of_any_size)
{
    static const float factors[] = {0, 1e-30f, 1e-6f, 1e4f, 1e6f, 1e30f};
    float *x = normals(COLS, 1, 8), *w = peaked_values(x, 4);
    for (size_t f = 0; f < COUNT(factors); f++) {
        for (int64_t i = 0; i < WORDS * COLS; i++)
            w[i] *= f % 2 || i % 3 ? factors[f] : 1; /* of one size, and of two */
        head h = make_head(PL_F32, w, WORDS);
        setting s = open_setting(&h, 1, PL_CPU_ALL, 30);
        check_rows(&s, x, 1, &(int32_t){20});
        pl_backend_free(s.backend);
        free_head(&h);
        float *again = peaked_values(x, 4);
        free(w);
        w = again;
    }
    free(w);
    free(x);
}

/* ---- the bound ---- */

/* The coarse products of n rows and what they may be off, on one level. */
static void look(const head *h, unsigned level, const float *x, int n, float *coarse, float *bound)
{
    setting s = {open_backend(shape, 2, level), h, 0, 0};
    cr_assert_eq(s.backend->take_head(s.backend, &h->w, NULL), PL_OK);
    pl_act act = make_act(x, n);
    s.backend->ops->quantize(s.backend->stream, &act, n);
    pl_head_screen_look(s.backend->stream->screen, s.backend->stream, &act, n, coarse, bound);
    act_close(&act);
    pl_backend_free(s.backend);
}

/* Some kernels leave out what is zero. */
Test(head_screen, coarse_products_have_the_same_bits_everywhere)
{
    float *x = normals(PL_HEAD_ROWS * COLS, 1, 17), *w = normals(WORDS * COLS, 1, 18);
    float *want = calloc(PL_HEAD_ROWS * WORDS, sizeof *want), *got = calloc(PL_HEAD_ROWS * WORDS, sizeof *got);
    float *bound = calloc(PL_HEAD_ROWS * WORDS, sizeof *bound);
    head h = make_head(PL_Q8_0, w, WORDS);
    look(&h, 0, x, PL_HEAD_ROWS, want, bound);
    for (size_t level = 1; level < COUNT(levels); level++) {
        for (int n = 1; n <= PL_HEAD_ROWS; n++) {
            look(&h, levels[level], x, n, got, bound);
            cr_assert_arr_eq(got, want, (size_t)n * WORDS * sizeof *got, "%d rows, level %zu", n, level);
        }
    }
    free_head(&h);
    free(x);
    free(w);
    free(want);
    free(got);
    free(bound);
}

/* The largest share of its bound by which a coarse product is off. */
static double largest_share(pl_dtype type, const float *w, const float *x, int n)
{
    head h = make_head(type, w, WORDS);
    setting s = {open_backend(shape, 2, PL_CPU_ALL), &h, 0, 0};
    cr_assert_eq(s.backend->take_head(s.backend, &h.w, NULL), PL_OK);
    float *whole = calloc((size_t)n * WORDS, sizeof *whole), *coarse = calloc((size_t)n * WORDS, sizeof *coarse);
    float *bound = calloc((size_t)n * WORDS, sizeof *bound);
    pl_act act = make_act(x, n);
    multiply_whole(&s, &act, n, whole);
    pl_head_screen_look(s.backend->stream->screen, s.backend->stream, &act, n, coarse, bound);
    double largest = 0;
    for (int64_t i = 0; i < (int64_t)n * WORDS; i++) {
        double share = fabs((double)coarse[i] - (double)whole[i]) / (double)bound[i];
        largest = share > largest ? share : largest;
    }
    act_close(&act);
    free(whole);
    free(coarse);
    free(bound);
    pl_backend_free(s.backend);
    free_head(&h);
    return largest;
}

/* Ten deviations: of 24000 products the worst is off by four or five. */
Test(head_screen, errors_stay_within_the_bound_and_it_is_not_idle)
{
    static const pl_dtype types[] = {PL_Q5_1, PL_Q6_K, PL_Q8_0, PL_F32};
    for (size_t i = 0; i < COUNT(types); i++) {
        float *x = normals(PL_HEAD_ROWS * COLS, 1, 9 + i), *w = normals(WORDS * COLS, 0.02, 19 + i);
        for (int k = 0; k < COLS; k++)
            x[COLS + k] *= k % 37 ? 1.0f : 30.0f; /* columns that stick out */
        double share = largest_share(types[i], w, x, PL_HEAD_ROWS);
        cr_assert(share > 0.28 && share < 0.65, "%g", share);
        free(w);
        free(x);
    }
}

/* Weights on a grid, all at the same place between two codes: only the random numbers tell them apart. */
Test(head_screen, errors_do_not_add_up)
{
    float *x = calloc(COLS, sizeof *x), *w = calloc(WORDS * COLS, sizeof *w);
    for (int k = 0; k < COLS; k++)
        x[k] = 1;
    for (int64_t i = 0; i < WORDS * COLS; i++) {
        float place = (float)(i / COLS) / WORDS;
        w[i] = i % PL_ACT_BLOCK ? place : 7.5f;
    }
    double share = largest_share(PL_F32, w, x, 1);
    cr_assert_lt(share, 0.65, "%g", share);
    free(w);
    free(x);
}

/* Activations on a grid as well, all at the same place between two multiples of what they are rounded to, and weights as
 * large as their blocks allow. */
Test(head_screen, errors_of_activations_do_not_add_up)
{
    float *x = calloc(PL_HEAD_ROWS * COLS, sizeof *x), *w = calloc(WORDS * COLS, sizeof *w);
    for (int i = 0; i < PL_HEAD_ROWS * COLS; i++)
        x[i] = i % PL_ACT_BLOCK ? 256.0f + 16.0f * (float)(i / COLS) : 16256.0f;
    for (int64_t i = 0; i < WORDS * COLS; i++) {
        float place = 15 * (float)(i / COLS) / WORDS - 7.5f;
        w[i] = i % PL_ACT_BLOCK ? place : 7.5f;
    }
    for (int n = 1; n <= PL_HEAD_ROWS; n++) {
        double share = largest_share(PL_F32, w, x, n);
        cr_assert_lt(share, 0.65, "%d rows: %g", n, share);
    }
    free(w);
    free(x);
}

/* ---- guesses ---- */

enum { PANEL = 16, PANELS = (WORDS + PANEL - 1) / PANEL, COMMON = PANELS / 8 };

/* A step reads these tokens. */
static void read_tokens(const setting *s, const int32_t *id, int n)
{
    static const float soft[COLS];
    pl_embed_from from = {.table = &s->head->w, .scale = 1, .soft = soft};
    float *out = calloc((size_t)n * COLS, sizeof *out);
    cr_assert_not_null(out);
    s->backend->ops->embed(s->backend->stream, out, &from, id, n);
    free(out);
}

/* Marks the panels of which guesses say something, each row the same, and all of that with the bits of the whole product. */
static void look_at_guess(const setting *s, const float *x, int n, bool looked[PANELS])
{
    int32_t top[PL_HEAD_ROWS];
    for (int i = 0; i < n; i++)
        top[i] = PL_HEAD_GUESS;
    float *whole = calloc((size_t)n * WORDS, sizeof *whole), *got = calloc((size_t)n * WORDS, sizeof *got);
    pl_act act = make_act(x, n);
    multiply_whole(s, &act, n, whole);
    s->backend->ops->head_top(s->backend->stream, &s->head->w, &act, got, n, top, s->cap);
    for (int p = 0; p < PANELS; p++)
        looked[p] = got[p * PANEL] != -FLT_MAX;
    for (int64_t i = 0; i < (int64_t)n * WORDS; i++) {
        float expected = looked[i % WORDS / PANEL] ? whole[i] : -FLT_MAX;
        cr_assert_eq(got[i], expected, "row %d, output %d is %g, expected %g", (int)(i / WORDS), (int)(i % WORDS),
                     (double)got[i], (double)expected);
    }
    act_close(&act);
    free(whole);
    free(got);
}

static int64_t bytes_read(const setting *s)
{
    return pl_head_screen_counted(s->backend->stream->screen).bytes;
}

Test(head_screen, a_guess_looks_at_the_first_words_and_at_those_read_lately)
{
    static const pl_dtype types[] = {PL_Q6_K, PL_Q8_0, PL_F16};
    static const int32_t ids[] = {WORDS - 1, 1500, -1, 1501, 700, 5, 1500};
    float *x = normals(PL_HEAD_ROWS * COLS, 1, 12), *w = normals(WORDS * COLS, 1, 13);
    const int guesses = PL_HEAD_ROWS * (PL_HEAD_ROWS + 1) / 2;
    for (size_t i = 0; i < COUNT(types) * COUNT(levels); i++) {
        head h = make_head(types[i % COUNT(types)], w, WORDS);
        setting s = {open_backend(shape, 1 + i % 2, levels[i / COUNT(types)]), &h, i % 2 ? 30 : 0, 0};
        cr_assert_eq(s.backend->take_head(s.backend, &h.w, NULL), PL_OK);
        for (int n = 1; n <= PL_HEAD_ROWS; n++) {
            bool looked[PANELS];
            look_at_guess(&s, x, n, looked);
            for (int p = 0; p < PANELS; p++)
                cr_assert_eq(looked[p],
                             p < COMMON || (n > 1 && (p == 700 / PANEL || p == 1500 / PANEL || p == PANELS - 1)),
                             "panel %d", p);
            read_tokens(&s, ids, COUNT(ids));
        }
        cr_assert_leq(bytes_read(&s), (guesses * COMMON + (guesses - 1) * 3) * (int64_t)(h.w.bytes / (WORDS / PANEL)));
        pl_backend_free(s.backend);
        free_head(&h);
    }
    free(w);
    free(x);
}

/* However much is read, a guess leaves out as much as the coarse copy takes, to a panel; what was read first is forgotten
 * first. */
Test(head_screen, guesses_forget)
{
    float *x = normals(COLS, 1, 14), *w = normals(WORDS * COLS, 1, 15);
    head h = make_head(PL_Q8_0, w, WORDS);
    setting s = {open_backend(shape, 1, PL_CPU_ALL), &h, 0, 0};
    cr_assert_eq(s.backend->take_head(s.backend, &h.w, NULL), PL_OK);
    bool looked[PANELS];
    for (int round = 0; round < 3; round++) {
        for (int32_t id = 0; id < WORDS; id++)
            read_tokens(&s, &id, 1);
        int64_t before = bytes_read(&s), n = 0;
        look_at_guess(&s, x, 1, looked);
        for (int p = 0; p < PANELS; p++) {
            n += looked[p];
            cr_assert(p <= COMMON || looked[p] >= looked[p - 1], "panel %d", p);
        }
        cr_assert(!looked[COMMON] && looked[PANELS - 1]);
        cr_assert_gt(n, COMMON + PANELS / 8);
        int64_t spared = (int64_t)pl_head_screen_bytes(WORDS, COLS, PL_Q8_0) - (int64_t)(h.w.bytes / PANELS);
        cr_assert_leq(bytes_read(&s) - before, (int64_t)h.w.bytes - spared);
    }
    read_tokens(&s, &(int32_t){COMMON * PANEL}, 1);
    look_at_guess(&s, x, 1, looked);
    cr_assert(looked[COMMON] && looked[PANELS - 1]);
    pl_backend_free(s.backend);
    free_head(&h);
    free(w);
    free(x);
}
