#include "tests/ops/ops_fixture.h"

#include "host/base/cpu.h"
#include "host/base/rng.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 64
#define GUARD_VALUE 1234.5f

float *normals(int64_t n, double deviation, uint64_t seed)
{
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    cr_assert_not_null(x);
    for (int64_t i = 0; i < n; i++) {
        double radius = sqrt(-2.0 * log(1.0 - pl_rng_uniform(&rng)));
        x[i] = (float)(deviation * radius * cos(6.283185307179586 * pl_rng_uniform(&rng)));
    }
    return x;
}

num *nums(int64_t n)
{
    num *x = calloc((size_t)(n + 1), sizeof *x);
    cr_assert_not_null(x);
    return x;
}

num *nums_of(const float *x, int64_t n)
{
    num *v = nums(n);
    for (int64_t i = 0; i < n; i++)
        v[i] = num_of(x[i]);
    return v;
}

pl_rows scattered_rows(int n)
{
    static int32_t slot[ROOM], position[ROOM], sequence[ROOM];
    for (int i = 0; i < ROOM; i++) {
        slot[i] = (i * 7 + 3) % ROOM;
        position[i] = i;
    }
    return (pl_rows){n, slot, position, sequence};
}

pl_rows rows_from(pl_rows rows, int first, int n)
{
    return (pl_rows){n, rows.slot + first, rows.position + first, rows.sequence + first};
}

void case_output(op_case *c, float *before, num *want, int64_t n)
{
    cr_assert_lt(c->n_outputs, MAX_OUTPUTS);
    c->out[c->n_outputs++] = (op_output){.n = n, .before = before, .want = want};
}

pl_backend *open_backend(pl_backend_shape shape, int threads, unsigned allowed)
{
    pl_backend *b = NULL;
    pl_error err;
    cr_assert_eq(pl_backend_cpu(&shape, threads, NULL, allowed, &b, &err), PL_OK);
    return b;
}

static void outputs_begin(op_case *c)
{
    for (int o = 0; o < c->n_outputs; o++) {
        op_output *out = &c->out[o];
        float *room = malloc((size_t)(out->n + 2 * GUARD) * sizeof *room);
        cr_assert_not_null(room);
        for (int i = 0; i < GUARD; i++)
            room[i] = room[GUARD + out->n + i] = GUARD_VALUE;
        out->now = room + GUARD;
        memcpy(out->now, out->before, (size_t)out->n * sizeof *room);
    }
}

static void outputs_end(op_case *c)
{
    for (int o = 0; o < c->n_outputs; o++) {
        op_output *out = &c->out[o];
        for (int i = 1; i <= GUARD; i++)
            cr_assert(out->now[-i] == GUARD_VALUE && out->now[out->n + i - 1] == GUARD_VALUE,
                      "%s: output %d was written beyond its ends", c->what, o);
        free(out->now - GUARD);
        out->now = NULL;
    }
}

static void expect_bounds(const op_case *c, const char *name)
{
    for (int o = 0; o < c->n_outputs; o++)
        for (int64_t i = 0; i < c->out[o].n; i++) {
            num want = c->out[o].want[i];
            double off = fabs(c->out[o].now[i] - want.v);
            cr_assert(off <= want.e + 0x1p-149, "%s, %s, %d rows: output %d [%lld] is %.9g, expected %.9g +- %.3g",
                      c->what, name, c->rows, o, (long long)i, c->out[o].now[i], want.v, want.e);
        }
}

static void keep_bits(const op_case *c, float **bits)
{
    for (int o = 0; o < c->n_outputs; o++) {
        size_t bytes = (size_t)c->out[o].n * sizeof(float);
        bits[o] = malloc(bytes + 1);
        cr_assert_not_null(bits[o]);
        memcpy(bits[o], c->out[o].now, bytes);
    }
}

static void expect_bits(const op_case *c, const char *name, float *const *bits, const char *why)
{
    for (int o = 0; o < c->n_outputs; o++)
        for (int64_t i = 0; i < c->out[o].n; i++)
            cr_assert(memcmp(&bits[o][i], &c->out[o].now[i], sizeof(float)) == 0,
                      "%s, %s, %d rows: output %d [%lld] is %.9g, %s %.9g", c->what, name, c->rows, o, (long long)i,
                      c->out[o].now[i], why, bits[o][i]);
}

static void check_level(op_case *c, unsigned allowed, int threads, float **bits)
{
    pl_backend *b = open_backend(c->shape, threads, allowed);
    outputs_begin(c);
    c->run(c, b, 0, c->rows);
    expect_bounds(c, b->name);
    if (bits[0])
        expect_bits(c, b->name, bits, "elsewhere");
    else
        keep_bits(c, bits);
    outputs_end(c);
    outputs_begin(c);
    for (int r = c->rows - 1; r >= 0; r--)
        c->run(c, b, r, 1);
    expect_bits(c, b->name, bits, "with other rows");
    outputs_end(c);
    pl_backend_free(b);
}

/* Values that are not finite among those that the op works on in place: no crash, no write beyond the ends. */
static void check_not_finite(op_case *c, unsigned allowed)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, -NAN};
    pl_backend *b = open_backend(c->shape, 1, allowed);
    outputs_begin(c);
    for (int o = 0; o < c->n_outputs; o++)
        for (int64_t i = 0; i < c->out[o].n; i += 5)
            c->out[o].now[i] = bad[i % 4];
    c->run(c, b, 0, c->rows);
    outputs_end(c);
    pl_backend_free(b);
}

void check_case(op_case *c)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    float *bits[MAX_OUTPUTS] = {NULL}, *bits_unfused[MAX_OUTPUTS] = {NULL};
    if (c->shape.heads.heads == 0)
        c->shape = (pl_backend_shape){.max_rows = ROOM, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        check_not_finite(c, levels[i]);
        for (int threads = 1; threads <= 3; threads += 2)
            check_level(c, levels[i], threads,
                        c->fused && !(pl_cpu_features(levels[i]) & PL_CPU_AVX2) ? bits_unfused : bits);
    }
    for (int o = 0; o < c->n_outputs; o++) {
        free(bits[o]);
        free(bits_unfused[o]);
    }
}
