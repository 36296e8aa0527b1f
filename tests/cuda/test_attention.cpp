#include "cuda/kernels.h"

extern "C" {
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/cpu/attention.h"
#include "host/ops/backend.h"
}
#include "tests/cuda/fixture.hpp"
#include "tests/ops/bounded.h"

#include <algorithm>
#include <cstring>
#include <vector>

#define SEQUENCES 3
#define SEEDS 3
#define FEW 16           /* rows up to which there is a block for each */
#define CUDA_EXP_UNITS 4 /* CUDA C++ Programming Guide, "Mathematical Functions": 2 ulp */

typedef std::vector<float> floats;
typedef std::vector<int32_t> ints;

static floats normals(size_t n, double deviation, uint64_t seed)
{
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    floats x(n);
    for (float &v : x) {
        double radius = sqrt(-2.0 * log(1.0 - pl_rng_uniform(&rng)));
        v = (float)(deviation * radius * cos(6.283185307179586 * pl_rng_uniform(&rng)));
    }
    return x;
}

static ints counted(int first, int n)
{
    ints v;
    for (int i = 0; i < n; i++)
        v.push_back(first + i);
    return v;
}

/* ---- a case ---------------------------------------------------------------------------------------------- */

/* What no row sees is NaN: keys after a sequence's last position, pages that no table names, the table's spare end. */
struct attention_case {
    pl_heads heads;
    int window, context = 0, pages, n;
    ints position, sequence, table;
    floats q, k, v;
    int64_t page_stride, table_ld;

    attention_case(pl_heads heads, int window, const ints &position, const ints &sequence)
        : heads(heads), window(window), n((int)position.size()), position(position), sequence(sequence)
    {
        for (int p : position)
            context = std::max(context, p + 1);
        pages = (context + PL_KV_PAGE - 1) / PL_KV_PAGE;
        page_stride = (int64_t)heads.kv_heads * PL_KV_PAGE * heads.dim;
        table_ld = pages + 1;
        q = normals((size_t)n * heads.heads * heads.dim, 4 / sqrt(heads.dim), 1);
        int all = SEQUENCES * pages + 1, step = 7;
        while ((all - 1) % step == 0)
            step += 2;
        k = normals(all * page_stride, 1, 2);
        v = normals(all * page_stride, 1, 3);
        table.assign(SEQUENCES * table_ld, all - 1);
        for (int i = 0; i < SEQUENCES * pages; i++)
            table[i / pages * table_ld + i % pages] = (i * step + 5) % (all - 1);
        std::vector<bool> seen(k.size());
        for (int r = 0; r < n; r++)
            for (int t = from(r); t <= position[r]; t++)
                for (int h = 0; h < heads.kv_heads; h++)
                    std::fill_n(seen.begin() + key_at(r, h, t), heads.dim, true);
        for (size_t i = 0; i < seen.size(); i++)
            if (!seen[i])
                k[i] = v[i] = NAN;
    }

    int from(int row) const
    {
        return window && position[row] + 1 > window ? position[row] + 1 - window : 0;
    }

    int64_t key_at(int row, int kv_head, int t) const
    {
        return table[sequence[row] * table_ld + t / PL_KV_PAGE] * page_stride +
               ((int64_t)kv_head * PL_KV_PAGE + t % PL_KV_PAGE) * heads.dim;
    }

    int64_t width() const
    {
        return (int64_t)heads.heads * heads.dim;
    }
};

/* A case's arrays on the card, and its rows in any choice and order. */
struct on_device {
    const attention_case &c;
    a_stream stream;
    on_card<float> k, v;
    on_card<int32_t> table;
    pl_kv_layer kv;

    explicit on_device(const attention_case &c)
        : c(c), k(c.k), v(c.v), table(c.table), kv{k.p, v.p, c.page_stride, table.p, c.table_ld, PL_CACHE_F32}
    {
    }

    floats run(const ints &choice) const
    {
        int n = (int)choice.size();
        floats q;
        ints position, sequence;
        for (int r : choice) {
            q.insert(q.end(), c.q.begin() + r * c.width(), c.q.begin() + (r + 1) * c.width());
            position.push_back(c.position[r]);
            sequence.push_back(c.sequence[r]);
        }
        on_card<float> on_q(q), out(q.size());
        on_card<int32_t> on_position(position), on_sequence(sequence);
        on_card<char> scratch(std::vector<char>(pl_cuda_attention_scratch(n, c.heads, c.context)));
        pl_rows rows = {n, nullptr, on_position.p, on_sequence.p};
        unsigned long long launches = card_launches();
        expect_done(pl_cuda_attention(stream, out.p, on_q.p, &kv, &rows, c.heads, c.window, c.context, scratch.p));
        cr_assert_eq(card_launches() - launches, 1);
        expect_done(cudaStreamSynchronize(stream));
        return out.get();
    }
};

static floats on_cpu(const attention_case &c)
{
    pl_backend_shape shape = {};
    shape.max_rows = c.n;
    shape.max_context = c.context;
    shape.heads = c.heads;
    pl_backend *b = nullptr;
    pl_error err;
    cr_assert_eq(pl_backend_cpu(&shape, 1, nullptr, PL_CPU_ALL, &b, &err), PL_OK);
    floats out(c.q.size());
    pl_kv_layer kv = {const_cast<float *>(c.k.data()),
                      const_cast<float *>(c.v.data()),
                      c.page_stride,
                      c.table.data(),
                      c.table_ld,
                      PL_CACHE_F32};
    pl_rows rows = {c.n, nullptr, c.position.data(), c.sequence.data()};
    b->ops->attention(b->stream, out.data(), c.q.data(), &kv, &rows, c.heads, c.window);
    pl_backend_free(b);
    return out;
}

/* ---- bounds: docs/numerics.md, "Attention" ------------------------------------------------------------------ */

/* Roundings that a term of a sum passes through, at most. */
struct roundings {
    double score;     /* product and additions of one */
    double exps;      /* exponentials whose product is a weight */
    double exp_units; /* error of one */
    double additions; /* of a value's sum, or of the weights' */
};

/* A lane adds 4 dim / 128 products, then there are 32 lanes; a weight meets 8 keys of a warp, the pages of a split, 8
 * warps, the row's own token, and 60 splits. */
static roundings of_few(int dim, int keys)
{
    double pages = keys / PL_KV_PAGE + 2, length = ceil(pages / 60), splits = std::min(pages, 60.0);
    return {4.0 * ((dim + 127) / 128) + 5 + 1, 1 + length + 2, CUDA_EXP_UNITS, 9 * length + 10 + 1 + splits + 1};
}

/* 32 dims a chunk, 64 keys a page. */
static roundings of_many(int dim, int keys)
{
    double pages = keys / PL_KV_PAGE + 2;
    return {32 + dim / 32.0 + 1, 1 + pages, CUDA_EXP_UNITS, PL_KV_PAGE + 4 + 3 * pages};
}

static roundings of_cpu(int dim, int keys)
{
    double segments = keys / PL_ATTENTION_SEGMENT + 2;
    return {sum_units(dim), segments + 1, EXP_UNITS, PL_ATTENTION_SEGMENT + 3 * segments};
}

static void reference(const attention_case &c, int row, int head, const roundings &u, num *out)
{
    int dim = c.heads.dim, from = c.from(row), n = c.position[row] + 1 - from;
    int kv_head = head / (c.heads.heads / c.heads.kv_heads);
    const float *q = c.q.data() + row * c.width() + head * dim;
    std::vector<double> weight(n), e(n);
    double top = -INFINITY, sum = 0, sum_e = 0;
    for (int t = 0; t < n; t++) {
        const float *k = c.k.data() + c.key_at(row, kv_head, from + t);
        double score = 0, size = 0;
        for (int i = 0; i < dim; i++) {
            score += (double)q[i] * k[i];
            size += fabs((double)q[i] * k[i]);
        }
        weight[t] = score;
        e[t] = u.score * UNIT * size;
        top = std::max(top, score);
    }
    for (int t = 0; t < n; t++) {
        double below = top - weight[t];
        weight[t] = exp(-below);
        e[t] += UNIT * (2 * below + (u.exp_units + 2) * u.exps);
        sum += weight[t];
        sum_e += weight[t] * e[t];
    }
    double sum_rel = sum_e / sum + u.additions * UNIT;
    for (int i = 0; i < dim; i++) {
        double value = 0, size = 0, off = 0;
        for (int t = 0; t < n; t++) {
            double part = weight[t] / sum * c.v[c.key_at(row, kv_head, from + t) + i];
            value += part;
            size += fabs(part);
            off += fabs(part) * e[t];
        }
        out[i] = {value, off + size * (sum_rel + (u.additions + 3) * UNIT) + n * exp(-87) * 4};
    }
}

static void expect_reference(const attention_case &c, const floats &card, bool few)
{
    floats cpu = on_cpu(c);
    int dim = c.heads.dim;
    std::vector<num> want(dim), want_cpu(dim);
    for (int r = 0; r < c.n; r++)
        for (int h = 0; h < c.heads.heads; h++) {
            int keys = c.position[r] + 1 - c.from(r);
            reference(c, r, h, few ? of_few(dim, keys) : of_many(dim, keys), want.data());
            reference(c, r, h, of_cpu(dim, keys), want_cpu.data());
            for (int i = 0; i < dim; i++) {
                int64_t at = r * c.width() + h * dim + i;
                cr_assert(fabs(card[at] - want[i].v) <= want[i].e,
                          "%d/%d heads of %d, window %d: row %d of %d (position %d), head %d [%d] is %.9g, expected "
                          "%.9g +- %.3g",
                          c.heads.heads, c.heads.kv_heads, dim, c.window, r, c.n, c.position[r], h, i, card[at],
                          want[i].v, want[i].e);
                cr_assert(fabs(card[at] - cpu[at]) <= want[i].e + want_cpu[i].e);
            }
        }
}

static void expect_rows(const attention_case &c, const floats &all, const floats &some, const ints &choice)
{
    for (size_t i = 0; i < choice.size(); i++)
        cr_assert(memcmp(&all[choice[i] * c.width()], &some[i * c.width()], c.width() * sizeof(float)) == 0,
                  "%d/%d heads of %d, window %d: row %d of %d is not the same among %zu", c.heads.heads,
                  c.heads.kv_heads, c.heads.dim, c.window, choice[i], c.n, choice.size());
}

/* Within bounds, the same bits among other rows, in another order. */
static void check(pl_heads heads, int window, const ints &position, const ints &sequence)
{
    attention_case c(heads, window, position, sequence);
    bool few = c.n <= FEW;
    ints choice = counted(0, c.n);
    floats all = on_device(c).run(choice);
    expect_reference(c, all, few);
    for (int seed = 1; seed <= SEEDS; seed++) {
        card_insert(CARD_ANY, seed);
        expect_rows(c, all, on_device(c).run(choice), choice);
    }
    on_device device(c);
    if (few) {
        for (int r : {0, c.n / 2, c.n - 1})
            expect_rows(c, all, device.run({r}), {r});
        return;
    }
    std::reverse(choice.begin(), choice.end());
    expect_rows(c, all, device.run(choice), choice);
    std::reverse(choice.begin(), choice.end());
    choice.erase(choice.begin());
    if ((int)choice.size() <= FEW)
        choice.resize(FEW + 1, choice.back());
    expect_rows(c, all, device.run(choice), choice);
}

static void check(pl_heads heads, int window, int first, int n)
{
    check(heads, window, counted(first, n), ints(n, 1));
}

/* ---- tests ----------------------------------------------------------------------------------------------- */

Test(cuda_attention, a_few_rows)
{
    for (int window : {0, 1, 9, 64, 100}) {
        check({4, 1, 16}, window, 0, 7);
        check({8, 2, 32}, window, 120, 16);
        check({8, 2, 80}, window, 60, 3);
        check({2, 2, 64}, window, 300, 1);
    }
}

Test(cuda_attention, many_rows)
{
    for (int window : {0, 1, 9, 64, 100}) {
        check({4, 1, 16}, window, 0, 33);
        check({8, 2, 32}, window, 120, 17);
        check({2, 2, 64}, window, 250, 20);
    }
    check({8, 2, 80}, 33, 40, 25);
}

Test(cuda_attention, wide_heads)
{
    for (int n : {2, 19}) {
        check({8, 2, 256}, 0, 190, n);
        check({8, 2, 256}, 70, 190, n);
        check({4, 1, 240}, 0, 55, n);
        check({4, 1, 128}, 0, 55, n);
    }
}

/* Splits of one, two and three pages. */
Test(cuda_attention, long_contexts)
{
    check({4, 1, 16}, 0, 2111, 1);
    check({4, 1, 16}, 0, 3838, 4);
    check({4, 1, 16}, 0, 3919, 2);
    check({2, 1, 16}, 0, 8000, 1);
    check({4, 1, 32}, 512, 4000, 2);
    check({4, 1, 16}, 512, 1500, 18);
}

/* Sets of query heads that are not full. */
Test(cuda_attention, groups_of_any_size)
{
    for (pl_heads heads : {pl_heads{3, 3, 16}, pl_heads{6, 2, 16}, pl_heads{10, 2, 32}, pl_heads{9, 1, 16}}) {
        check(heads, 0, 70, 3);
        check(heads, 0, 70, 18);
    }
}

/* Sequences change within a block, positions do not follow each other, a position comes twice. */
Test(cuda_attention, rows_of_several_sequences)
{
    ints position = {300, 301, 3, 128, 127, 0, 200, 5, 6, 299, 140, 64, 65, 66, 66, 67, 68, 192},
         sequence = {0, 0, 1, 1, 1, 2, 2, 0, 0, 0, 1, 2, 2, 2, 2, 2, 0, 0};
    for (int window : {0, 9, 64}) {
        check({8, 2, 32}, window, position, sequence);
        check({8, 2, 32}, window, ints(position.begin(), position.begin() + 13),
              ints(sequence.begin(), sequence.begin() + 13));
    }
}

/* Enough of them for blocks of 16 rows, which give the bits of blocks of 8. */
static void check_large_blocks(pl_heads heads, int first, int n)
{
    attention_case c(heads, 0, counted(first, n), ints(n, 0));
    on_device device(c);
    floats all = device.run(counted(0, n));
    expect_reference(c, all, false);
    ints choice = counted(3, 30);
    expect_rows(c, all, device.run(choice), choice);
}

Test(cuda_attention, large_blocks)
{
    check_large_blocks({64, 64, 16}, 100, 65);
    check_large_blocks({64, 64, 80}, 40, 64);
    check_large_blocks({64, 64, 256}, 40, 64);
}

/* Where a block gets 64 KB, it has 8 rows. */
Test(cuda_attention, before_ampere_blocks_are_small)
{
    attention_case c({64, 64, 80}, 0, counted(40, 64), ints(64, 0));
    on_device device(c);
    floats all = device.run(counted(0, 64));
    card_set_capability(7, 5);
    expect_rows(c, all, device.run(counted(0, 64)), counted(0, 64));
}

/* One key far above the others takes all the weight; far below them, none. */
Test(cuda_attention, extreme_scores)
{
    for (float sign : {-50.0f, 50.0f})
        for (int n : {1, 17}) {
            attention_case c({2, 1, 16}, 0, counted(150, n), ints(n, 0));
            for (int i = 0; i < 16; i++)
                c.k[c.key_at(0, 0, 77) + i] = sign * c.q[i];
            expect_reference(c, on_device(c).run(counted(0, n)), n == 1);
        }
}

/* A value that is not finite reaches the rows that see it, and no other. */
static void check_not_finite(int n, int window, int kind)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const int key = 246;
    attention_case c({4, 1, 16}, window, counted(240, n), ints(n, 0));
    (kind % 2 ? c.k : c.v)[c.key_at(n - 1, 0, key)] = bad[kind / 2];
    floats out = on_device(c).run(counted(0, n));
    for (int i = 0; i < n * 64; i++) {
        bool sees = c.position[i / 64] >= key && c.position[i / 64] < key + window;
        cr_assert(sees || std::isfinite(out[i]), "%d rows, kind %d: row %d does not see it", n, kind, i / 64);
        if (sees && kind < 2 && (i % 16 == 0 || kind == 1))
            cr_assert(std::isnan(out[i]), "%d rows, kind %d: row %d sees it", n, kind, i / 64);
    }
}

Test(cuda_attention, not_finite_values_stay_with_the_rows_that_see_them)
{
    for (int n : {12, 33})
        for (int window : {16, 40})
            for (int kind = 0; kind < 6; kind++)
                check_not_finite(n, window, kind);
}

/* What is captured at one position serves others. */
Test(cuda_attention, a_captured_step_follows_the_positions)
{
    for (int n : {3, 20}) {
        attention_case c({4, 1, 16}, 40, counted(200, n), ints(n, 0));
        on_device device(c);
        floats want = device.run(counted(0, n));
        on_card<float> q(c.q), out(c.q.size());
        on_card<int32_t> position(counted(0, n)), sequence(c.sequence);
        on_card<char> scratch(std::vector<char>(pl_cuda_attention_scratch(n, c.heads, c.context)));
        pl_rows rows = {n, nullptr, position.p, sequence.p};
        cudaGraph_t graph;
        cudaGraphExec_t step;
        expect_done(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal));
        expect_done(
            pl_cuda_attention(device.stream, out.p, q.p, &device.kv, &rows, c.heads, c.window, c.context, scratch.p));
        expect_done(cudaStreamEndCapture(device.stream, &graph));
        expect_done(cudaGraphInstantiate(&step, graph, 0));
        for (const ints &at : {counted(150, n), c.position}) {
            expect_done(cudaMemcpy(position.p, at.data(), at.size() * sizeof(int32_t), cudaMemcpyHostToDevice));
            expect_done(cudaGraphLaunch(step, device.stream));
            expect_done(cudaStreamSynchronize(device.stream));
        }
        expect_rows(c, want, out.get(), counted(0, n));
        expect_done(cudaGraphExecDestroy(step));
        expect_done(cudaGraphDestroy(graph));
    }
}

Test(cuda_attention, shapes_it_does_not_take)
{
    pl_kv_layer kv = {};
    pl_rows rows = {0, nullptr, nullptr, nullptr};
    a_stream stream;
    for (pl_heads heads : {pl_heads{4, 1, 20}, pl_heads{4, 1, 272}, pl_heads{4, 3, 16}})
        cr_assert_eq(pl_cuda_attention(stream, nullptr, nullptr, &kv, &rows, heads, 0, 64, nullptr),
                     cudaErrorInvalidValue);
    expect_done(pl_cuda_attention(stream, nullptr, nullptr, &kv, &rows, {4, 1, 16}, 0, 64, nullptr));
}
