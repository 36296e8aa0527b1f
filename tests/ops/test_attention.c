#include "host/base/cpu.h"
#include "host/cpu/attention.h"
#include "host/cpu/kv_rows.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENCES 3

typedef struct attention_case {
    op_case base;
    pl_rows rows;
    pl_heads heads;
    int window, context, pages;
    float *q, *k, *v; /* k, v: what is kept, in f32 */
    void *kept_k, *kept_v;
    int32_t *table;
    pl_kv_layer kv;
} attention_case;

static void run(const op_case *base, pl_backend *b, int first, int n)
{
    const attention_case *c = (const attention_case *)base;
    pl_rows rows = rows_from(c->rows, first, n);
    int64_t at = (int64_t)first * c->heads.heads * c->heads.dim;
    b->ops->attention(b->stream, base->out[0].now + at, c->q + at, &c->kv, &rows, c->heads, c->window);
}

static int64_t key_at(const attention_case *c, int row, int head, int t)
{
    int32_t page = c->table[c->rows.sequence[row] * c->kv.table_ld + t / PL_KV_PAGE];
    return (((int64_t)page * c->heads.kv_heads + head) * PL_KV_PAGE + t % PL_KV_PAGE) * c->heads.dim;
}

/* docs/numerics.md, "Attention": the weights' error is that of the scores (whose differences enter) plus exp's, once in a
 * segment and once for each merge after it; the values' sum adds a rounding a key. */
static void reference(const attention_case *c, int row, int head, num *out)
{
    int dim = c->heads.dim, to = c->rows.position[row] + 1, from = c->window && to > c->window ? to - c->window : 0,
        n = to - from;
    int kv_head = head / (c->heads.heads / c->heads.kv_heads);
    const float *q = c->q + ((int64_t)row * c->heads.heads + head) * dim;
    double *score = malloc((size_t)n * sizeof *score), *e = malloc((size_t)n * sizeof *e), top = -INFINITY, sum = 0,
           sum_e = 0;
    cr_assert(score && e);
    for (int t = 0; t < n; t++) {
        const float *k = c->k + key_at(c, row, kv_head, from + t);
        double size = 0;
        score[t] = 0;
        for (int i = 0; i < dim; i++) {
            score[t] += (double)q[i] * k[i];
            size += fabs((double)q[i] * k[i]);
        }
        e[t] = sum_units(dim) * UNIT * size;
        top = score[t] > top ? score[t] : top;
    }
    int segments = (to - 1) / PL_ATTENTION_SEGMENT - from / PL_ATTENTION_SEGMENT + 1;
    for (int t = 0; t < n; t++) {
        double below = top - score[t];
        score[t] = exp(-below);
        /* The differences from the tops add up to `below`; their roundings, and those of the merge's products. */
        e[t] += UNIT * (2 * below + (EXP_UNITS + 2) * (segments + 1));
        sum += score[t];
        sum_e += score[t] * e[t];
    }
    double additions = PL_ATTENTION_SEGMENT + 3.0 * segments;
    double sum_rel = sum_e / sum + (sum_units(PL_ATTENTION_SEGMENT) + 3.0 * segments) * UNIT;
    for (int i = 0; i < dim; i++) {
        double v = 0, size = 0, off = 0;
        for (int t = 0; t < n; t++) {
            double part = score[t] / sum * c->v[key_at(c, row, kv_head, from + t) + i];
            v += part;
            size += fabs(part);
            off += fabs(part) * e[t];
        }
        out[i] = (num){v, off + size * (sum_rel + (additions + 3) * UNIT) + n * exp(-87) * 4};
    }
    free(score);
    free(e);
}

/* Pages of this type made of x, which becomes what is kept of it. */
static void *kept(const attention_case *c, float *x, int64_t pages, pl_cache_type type)
{
    int dim = c->heads.dim;
    size_t head_bytes = pl_kv_head_bytes(type, dim);
    char *to = calloc((size_t)(pages * c->heads.kv_heads), head_bytes);
    cr_assert_not_null(to);
    for (int64_t i = 0; i < pages * c->heads.kv_heads * PL_KV_PAGE; i++) {
        char *head = to + (size_t)(i / PL_KV_PAGE) * head_bytes;
        pl_kv_put_base(type, head, (int)(i % PL_KV_PAGE), x + i * dim, dim);
        if (type != PL_CACHE_F32)
            pl_kv_get_base(type, head, (int)(i % PL_KV_PAGE), 1, dim, x + i * dim, NULL);
    }
    return to;
}

static void take_kv(attention_case *c, pl_cache_type type)
{
    int64_t page_floats = (int64_t)c->heads.kv_heads * PL_KV_PAGE * c->heads.dim;
    c->pages = (c->context + PL_KV_PAGE - 1) / PL_KV_PAGE;
    int64_t all = (int64_t)c->pages * SEQUENCES;
    c->k = normals(all * page_floats, 1, 2);
    c->v = normals(all * page_floats, 1, 3);
    c->table = malloc((size_t)(all + SEQUENCES) * sizeof *c->table);
    cr_assert_not_null(c->table);
    c->kept_k = kept(c, c->k, all, type);
    c->kept_v = kept(c, c->v, all, type);
    int64_t stride = c->heads.kv_heads * (int64_t)(pl_kv_head_bytes(type, c->heads.dim) / sizeof(float));
    c->kv = (pl_kv_layer){c->kept_k, c->kept_v, stride, c->table, c->pages + 1, type};
    int64_t step = 7;
    while (all % step == 0)
        step += 2;
    for (int64_t i = 0; i < all; i++)
        c->table[i / c->pages * c->kv.table_ld + i % c->pages] = (int32_t)((i * step + 5) % all);
}

static void give(attention_case *c)
{
    free(c->q);
    free(c->k);
    free(c->v);
    free(c->kept_k);
    free(c->kept_v);
    free(c->table);
    free(c->base.out[0].before);
    free(c->base.out[0].want);
}

static void prepare(attention_case *c, pl_cache_type type, pl_heads heads, int window, int n, const int32_t *position,
                    const int32_t *sequence)
{
    static int32_t slot[64];
    *c = (attention_case){
        .base = {.what = "attention", .rows = n, .run = run, .fused = true}, .heads = heads, .window = window};
    c->rows = (pl_rows){n, slot, position, sequence};
    for (int i = 0; i < n; i++)
        c->context = position[i] >= c->context ? position[i] + 1 : c->context;
    c->base.shape = (pl_backend_shape){.max_rows = n, .max_context = c->context, .heads = heads};
    int64_t width = (int64_t)heads.heads * heads.dim;
    take_kv(c, type);
    c->q = normals(n * width, 4 / sqrt(heads.dim), 1);
    num *want = nums(n * width);
    for (int i = 0; i < n; i++)
        for (int h = 0; h < heads.heads; h++)
            reference(c, i, h, want + i * width + h * heads.dim);
    case_output(&c->base, normals(n * width, 1, 4), want, n * width);
}

static void check_type(pl_cache_type type, pl_heads heads, int window, int n, const int32_t *position,
                       const int32_t *sequence)
{
    attention_case c;
    prepare(&c, type, heads, window, n, position, sequence);
    check_case(&c.base);
    give(&c);
}

static void check(pl_heads heads, int window, int n, const int32_t *position, const int32_t *sequence)
{
    check_type(PL_CACHE_F32, heads, window, n, position, sequence);
}

static const int32_t one_sequence[64];
static const int windows[] = {0, 9, 16, 512};

/* The first rows of a prompt, a chunk across a page and a segment, one row far along. */
static void check_positions(pl_heads heads, int window)
{
    int32_t position[33];
    for (int i = 0; i < 33; i++)
        position[i] = i;
    check(heads, window, 33, position, one_sequence);
    for (int i = 0; i < 33; i++)
        position[i] = 500 + i;
    check(heads, window, 33, position, one_sequence);
    check(heads, window, 7, position + 8, one_sequence);
    check(heads, window, 2, position + 10, one_sequence);
    position[0] = 1999;
    check(heads, window, 1, position, one_sequence);
}

Test(attention, head_layouts_and_windows)
{
    static const pl_heads layouts[] = {{4, 1, 16}, {8, 2, 32}, {2, 2, 64}, {6, 2, 20}};
    for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++)
            check_positions(layouts[l], windows[w]);
}

Test(attention, wide_heads)
{
    check_positions((pl_heads){8, 2, 256}, 512);
    check_positions((pl_heads){4, 1, 250}, 0);
}

Test(attention, a_group_larger_than_a_block)
{
    int32_t position[] = {0, 63, 64, 200};
    check((pl_heads){40, 1, 16}, 0, 4, position, one_sequence);
    check((pl_heads){64, 1, 16}, 9, 4, position, one_sequence);
}

/* Sequences change within a block, and positions do not follow each other. */
Test(attention, rows_of_several_sequences)
{
    int32_t position[] = {700, 701, 3, 128, 127, 0, 1300, 5, 6, 1299, 640, 64},
            sequence[] = {0, 0, 1, 1, 1, 2, 2, 0, 0, 0, 1, 2};
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        check((pl_heads){8, 2, 32}, windows[w], 12, position, sequence);
        check((pl_heads){8, 2, 32}, windows[w], 5, position, sequence);
        check((pl_heads){8, 2, 32}, windows[w], 12, position, one_sequence);
        check((pl_heads){8, 2, 32}, windows[w], 8, position + 4, one_sequence);
    }
}

/* More keys than any model's context. */
Test(attention, beyond_32768)
{
    int32_t position[] = {40000, 32767, 32768};
    for (pl_cache_type type = PL_CACHE_F32; type <= PL_CACHE_Q8_0; type++) {
        check_type(type, (pl_heads){2, 1, 16}, 0, 1, position, one_sequence);
        check_type(type, (pl_heads){2, 1, 16}, 512, 3, position, one_sequence);
    }
}

/* Against the formula with the keys and values that are kept. */
Test(attention, narrow_types)
{
    static const pl_heads layouts[] = {{8, 2, 64}, {6, 2, 20}, {4, 1, 320}};
    int32_t position[20];
    for (int i = 0; i < 20; i++)
        position[i] = 500 + i;
    for (pl_cache_type type = PL_CACHE_F16; type <= PL_CACHE_Q8_0; type++)
        for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
            for (size_t w = 0; w < sizeof windows / sizeof *windows; w += 3) {
                check_type(type, layouts[l], windows[w], 20, position, one_sequence);
                check_type(type, layouts[l], windows[w], 2, position + 11, one_sequence);
            }
}

/* A row over narrow K/V has the bits that it has over what is kept of them, in f32. */
Test(attention, narrow_types_are_f32_of_what_is_kept)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    const pl_heads heads = {8, 2, 256};
    int32_t position[20];
    for (int i = 0; i < 20; i++)
        position[i] = 250 + i;
    for (pl_cache_type type = PL_CACHE_F16; type <= PL_CACHE_Q8_0; type++) {
        attention_case c;
        prepare(&c, type, heads, 0, 20, position, one_sequence);
        pl_kv_layer plain = {c.k,     c.v,         (int64_t)heads.kv_heads * PL_KV_PAGE * heads.dim,
                             c.table, c.pages + 1, PL_CACHE_F32};
        int64_t n = 20 * (int64_t)heads.heads * heads.dim;
        float *want = normals(n, 1, 5), *got = normals(n, 1, 6);
        for (int l = 0; l < 3; l++) {
            pl_backend *b = open_backend(c.base.shape, 2, levels[l]);
            b->ops->attention(b->stream, got, c.q, &c.kv, &c.rows, heads, 0);
            b->ops->attention(b->stream, want, c.q, &plain, &c.rows, heads, 0);
            cr_assert_eq(memcmp(got, want, (size_t)n * sizeof *got), 0, "%s, %s", pl_cache_type_name(type), b->name);
            pl_backend_free(b);
        }
        free(want);
        free(got);
        give(&c);
    }
}

/* One key far above the others takes all the weight; far below them, none. */
Test(attention, extreme_scores)
{
    for (int sign = -1; sign <= 1; sign += 2) {
        int32_t position = 1000;
        attention_case c;
        prepare(&c, PL_CACHE_F32, (pl_heads){2, 1, 16}, 0, 1, &position, one_sequence);
        float *kept_k = c.kept_k;
        for (int i = 0; i < 16; i++)
            kept_k[key_at(&c, 0, 0, 77) + i] = c.k[key_at(&c, 0, 0, 77) + i] = (float)sign * 50 * c.q[i];
        for (int h = 0; h < 2; h++)
            reference(&c, 0, h, c.base.out[0].want + h * 16);
        check_case(&c.base);
        give(&c);
    }
}

/* A value that is not finite reaches the rows that see it, and no other. */
Test(attention, not_finite_values_stay_with_the_rows_that_see_them)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    int32_t position[33];
    for (int i = 0; i < 33; i++)
        position[i] = 240 + i;
    attention_case c;
    prepare(&c, PL_CACHE_F32, (pl_heads){4, 1, 16}, 16, 33, position, one_sequence);
    for (int kind = 0; kind < 6; kind++) {
        float *at = (float *)(kind % 2 ? c.kept_k : c.kept_v) + key_at(&c, 0, 0, 250), was = *at;
        *at = bad[kind / 2];
        for (int l = 0; l < 3; l++) {
            pl_backend *b = open_backend(c.base.shape, 1, levels[l]);
            c.base.out[0].now = c.base.out[0].before;
            run(&c.base, b, 0, 33);
            for (int i = 0; i < 33 * 64; i++) {
                bool sees = position[i / 64] >= 250 && position[i / 64] < 266;
                bool first = i % 16 == 0 || kind == 1;
                cr_assert(sees || isfinite(c.base.out[0].now[i]), "kind %d: row %d does not see it", kind, i / 64);
                if (sees && first && kind < 2)
                    cr_assert(isnan(c.base.out[0].now[i]), "kind %d: row %d sees it", kind, i / 64);
            }
            pl_backend_free(b);
        }
        *at = was;
    }
    give(&c);
}
