#include "host/base/cpu.h"
#include "host/cpu/kv_rows.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 3

/* ---- rope_table ---------------------------------------------------------------------------------------- */

typedef struct rope_case {
    op_case base;
    int half;
    int32_t *position;
    float *inv_freq;
} rope_case;

static void run_rope(const op_case *base, pl_backend *b, int first, int n)
{
    const rope_case *c = (const rope_case *)base;
    b->ops->rope_table(b->stream, base->out[0].now + first * 2 * c->half, c->position + first, n, c->inv_freq, c->half);
}

/* The contract's angle is the f32 product; of that the table holds the nearest f32. */
Test(qkv, rope_table)
{
    static const int halves[] = {8, 16, 125, 128};
    static int32_t position[] = {0, 1, 2, 511, 4097, 32767, 2147483647};
    for (size_t s = 0; s < sizeof halves / sizeof *halves; s++) {
        rope_case c = {
            .base = {.what = "rope_table", .rows = 7, .run = run_rope}, .half = halves[s], .position = position};
        c.inv_freq = normals(c.half, 1, 1);
        int64_t n = 7 * 2 * c.half;
        num *want = nums(n);
        for (int i = 0; i < c.half; i++) {
            c.inv_freq[i] = (float)pow(10000, -(double)i / c.half);
            for (int r = 0; r < 7; r++) {
                double angle = (float)position[r] * c.inv_freq[i];
                want[r * 2 * c.half + i] = num_rounded(cos(angle), 0);
                want[r * 2 * c.half + c.half + i] = num_rounded(sin(angle), 0);
            }
        }
        float *before = normals(n, 1, 2);
        case_output(&c.base, before, want, n);
        check_case(&c.base);
        free(c.inv_freq);
        free(before);
        free(want);
    }
}

/* ---- qkv_store ----------------------------------------------------------------------------------------- */

typedef struct store_case {
    op_case base;
    pl_heads heads;
    pl_rows rows;
    int32_t position[ROOM], sequence[ROOM], table[2 * (PAGES + 1)];
    float *q_norm, *k_norm, *rope, *k, *v;
    int64_t page_floats;
    bool own_kv;
} store_case;

static void run_store(const op_case *base, pl_backend *b, int first, int n)
{
    const store_case *c = (const store_case *)base;
    int64_t dim = c->heads.dim, kv_at = first * c->heads.kv_heads * dim, kv_n = (int64_t)n * c->heads.kv_heads * dim;
    pl_rows rows = rows_from(c->rows, first, n);
    pl_kv_layer kv = {base->out[1].now, base->out[2].now, c->page_floats, c->table, PAGES + 1, PL_CACHE_F32};
    float *k = NULL, *v = NULL;
    if (c->own_kv) { /* the projections are the op's to spoil */
        k = normals(kv_n, 1, 0);
        v = normals(kv_n, 1, 0);
        memcpy(k, c->k + kv_at, (size_t)kv_n * sizeof *k);
        memcpy(v, c->v + kv_at, (size_t)kv_n * sizeof *v);
    }
    b->ops->qkv_store(b->stream, base->out[0].now + first * c->heads.heads * dim, k, v, &kv, &rows, c->heads, c->q_norm,
                      c->k_norm, c->rope, EPS);
    free(k);
    free(v);
}

/* x = rotated norm of x, with the rope row of the slot. */
static void expect_head(const store_case *c, int r, num *x, const float *norm)
{
    int dim = c->heads.dim, half = dim / 2;
    const float *cosine = c->rope + c->rows.slot[r] * dim, *sine = cosine + half;
    num_norm(x, x, norm, dim, EPS);
    for (int i = 0; i < half; i++) {
        num a = x[i], b = x[i + half], co = num_of(cosine[i]), si = num_of(sine[i]);
        x[i] = num_sub(num_mul(a, co), num_mul(b, si));
        x[i + half] = num_add(num_mul(b, co), num_mul(a, si));
    }
}

static void expect_kv(const store_case *c, int r, int head, num *k, num *v)
{
    int dim = c->heads.dim, position = c->position[r];
    int64_t page = c->table[c->sequence[r] * (PAGES + 1) + position / PL_KV_PAGE];
    int64_t at = page * c->page_floats + ((int64_t)head * PL_KV_PAGE + position % PL_KV_PAGE) * dim;
    for (int i = 0; i < dim; i++) {
        k[at + i] = num_of(c->k[(r * c->heads.kv_heads + head) * dim + i]);
        v[at + i] = num_of(c->v[(r * c->heads.kv_heads + head) * dim + i]);
    }
    expect_head(c, r, k + at, c->k_norm);
    num_norm(v + at, v + at, NULL, dim, EPS);
}

static void take(store_case *c, pl_heads heads, int rows, bool own_kv)
{
    static const int32_t page_of[2 * (PAGES + 1)] = {4, 0, 2, 0, 5, 1, 3, 0};
    *c = (store_case){.base = {.what = "qkv_store", .rows = rows, .run = run_store}, .heads = heads, .own_kv = own_kv};
    memcpy(c->table, page_of, sizeof page_of);
    for (int i = 0; i < ROOM; i++) {
        c->sequence[i] = i % 2;
        c->position[i] = (i * 11 + 60) % (PAGES * PL_KV_PAGE);
    }
    c->rows = scattered_rows(rows);
    c->rows.position = c->position;
    c->rows.sequence = c->sequence;
    c->page_floats = (int64_t)heads.kv_heads * PL_KV_PAGE * heads.dim + 16;
    c->q_norm = normals(heads.dim, 1, 1);
    c->k_norm = normals(heads.dim, 1, 2);
    c->rope = normals(ROOM * heads.dim, 0.7, 3);
    c->k = normals((int64_t)rows * heads.kv_heads * heads.dim, 2, 4);
    c->v = normals((int64_t)rows * heads.kv_heads * heads.dim, 0.1, 5);
}

static void check_store(pl_heads heads, int rows, bool own_kv)
{
    store_case c;
    take(&c, heads, rows, own_kv);
    int64_t q_n = (int64_t)rows * heads.heads * heads.dim, kv_n = 2 * PAGES * c.page_floats;
    float *q = normals(q_n, 3, 6), *k = normals(kv_n, 1, 7), *v = normals(kv_n, 1, 8);
    num *want_q = nums_of(q, q_n), *want_k = nums_of(k, kv_n), *want_v = nums_of(v, kv_n);
    for (int r = 0; r < rows; r++) {
        for (int h = 0; h < heads.heads; h++)
            expect_head(&c, r, want_q + (int64_t)(r * heads.heads + h) * heads.dim, c.q_norm);
        for (int h = 0; own_kv && h < heads.kv_heads; h++)
            expect_kv(&c, r, h, want_k, want_v);
    }
    case_output(&c.base, q, want_q, q_n);
    case_output(&c.base, k, want_k, kv_n);
    case_output(&c.base, v, want_v, kv_n);
    check_case(&c.base);
    for (int o = 0; o < 3; o++) {
        free(c.base.out[o].before);
        free(c.base.out[o].want);
    }
    free(c.q_norm);
    free(c.k_norm);
    free(c.rope);
    free(c.k);
    free(c.v);
}

Test(qkv, store)
{
    static const pl_heads layouts[] = {{4, 1, 16}, {8, 2, 32}, {2, 2, 64}, {6, 2, 250}, {8, 2, 256}, {2, 1, 320}};
    static const int row_counts[] = {1, 2, 7, 33};
    for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
            check_store(layouts[l], row_counts[r], true);
}

Test(qkv, layer_without_own_kv)
{
    check_store((pl_heads){8, 2, 32}, 7, false);
}

static void store_into(const store_case *c, pl_backend *b, pl_cache_type type, char *k, char *v)
{
    int64_t dim = c->heads.dim, kv_n = (int64_t)c->rows.n * c->heads.kv_heads * dim;
    float *q = normals((int64_t)c->rows.n * c->heads.heads * dim, 3, 6), *own_k = normals(kv_n, 2, 4),
          *own_v = normals(kv_n, 0.1, 5);
    int64_t stride = c->heads.kv_heads * (int64_t)(pl_kv_head_bytes(type, c->heads.dim) / sizeof(float));
    pl_kv_layer kv = {(float *)(void *)k, (float *)(void *)v, stride, c->table, PAGES + 1, type};
    b->ops->qkv_store(b->stream, q, own_k, own_v, &kv, &c->rows, c->heads, c->q_norm, c->k_norm, c->rope, EPS);
    free(q);
    free(own_k);
    free(own_v);
}

/* Each row becomes what pl_kv_put() makes of the one in f32, and nothing else is written. */
static void check_narrow(const store_case *c, pl_backend *b, pl_cache_type type)
{
    size_t heads = 2 * PAGES * (size_t)c->heads.kv_heads, plain = pl_kv_head_bytes(PL_CACHE_F32, c->heads.dim),
           narrow = pl_kv_head_bytes(type, c->heads.dim);
    char *exact[2], *got[2], *want = calloc(heads, narrow);
    for (int i = 0; i < 2; i++) {
        exact[i] = calloc(heads, plain);
        got[i] = calloc(heads, narrow);
        cr_assert(exact[i] && got[i] && want);
    }
    store_into(c, b, PL_CACHE_F32, exact[0], exact[1]);
    store_into(c, b, type, got[0], got[1]);
    for (int i = 0; i < 2; i++) {
        memset(want, 0, heads * narrow);
        for (int r = 0; r < c->rows.n; r++)
            for (int h = 0; h < c->heads.kv_heads; h++) {
                int row = c->position[r] % PL_KV_PAGE;
                size_t page = (size_t)c->table[c->sequence[r] * (PAGES + 1) + c->position[r] / PL_KV_PAGE];
                size_t head = page * (size_t)c->heads.kv_heads + (size_t)h;
                const float *x = (const float *)(void *)(exact[i] + head * plain) + (int64_t)row * c->heads.dim;
                pl_kv_put_base(type, want + head * narrow, row, x, c->heads.dim);
            }
        cr_assert_eq(memcmp(got[i], want, heads * narrow), 0, "%s, %s", pl_cache_type_name(type), b->name);
        free(exact[i]);
        free(got[i]);
    }
    free(want);
}

Test(qkv, store_of_narrow_types)
{
    static const pl_heads layouts[] = {{4, 1, 16}, {6, 2, 250}, {8, 2, 256}, {2, 1, 320}};
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++) {
        store_case c;
        take(&c, layouts[l], 33, true);
        pl_backend_shape shape = {.max_rows = 33, .max_context = PAGES * PL_KV_PAGE, .heads = layouts[l]};
        for (int i = 0; i < 3; i++) {
            pl_backend *b = open_backend(shape, 2, levels[i]);
            bool card = strcmp(b->name, "card") == 0; /* no card has these types */
            for (pl_cache_type type = PL_CACHE_F16; type <= PL_CACHE_Q8_0 && !card; type++)
                check_narrow(&c, b, type);
            pl_backend_free(b);
        }
        free(c.q_norm);
        free(c.k_norm);
        free(c.rope);
        free(c.k);
        free(c.v);
    }
}
