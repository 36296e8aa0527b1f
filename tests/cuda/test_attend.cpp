/* The fused attention step: the bits of qkv_store, attention and quantize one after the other. */
#include "cuda/kernels.h"
#include "tests/cuda/fixture.hpp"

#include <algorithm>
#include <cstring>

typedef std::vector<float> floats;
typedef std::vector<int32_t> ints;

static const float eps = 1e-6f;
static const int slots = 17;

/* ---- a case ---------------------------------------------------------------------------------------------- */

struct attend_case {
    pl_heads heads;
    int window;
    ints position, sequence;
    bool distinct;
    bool own_kv = true;
    int shift = 0; /* floats by which q_norm misses its alignment */
    uint32_t seed = 1;

    int n() const
    {
        return (int)position.size();
    }
    int context() const
    {
        return *std::max_element(position.begin(), position.end()) + 1;
    }
    int64_t pages() const /* of a sequence */
    {
        return (context() + PL_KV_PAGE - 1) / PL_KV_PAGE;
    }
    int sequences() const
    {
        return *std::max_element(sequence.begin(), sequence.end()) + 1;
    }
    int64_t page_floats() const
    {
        return (int64_t)heads.kv_heads * PL_KV_PAGE * heads.dim;
    }
};

/* Each row of a sequence of its own. */
static attend_case distinct_rows(pl_heads heads, int window, const ints &position)
{
    ints sequence;
    for (int i = 0; i < (int)position.size(); i++)
        sequence.push_back((int)position.size() - 1 - i);
    return {heads, window, position, sequence, true};
}

/* Neighbouring pages of a sequence lie anywhere. */
static ints page_table(const attend_case &c)
{
    int all = (int)c.pages() * c.sequences(), step = 7;
    while (all % step == 0)
        step += 2;
    ints table;
    for (int i = 0; i < all; i++)
        table.push_back((int)(((int64_t)i * step + 3) % all));
    return table;
}

/* K or V as the steps before left it: NaN from the first position of the sequence's rows on, if the layer has its own. */
static floats cache(const attend_case &c, const ints &table, uint32_t seed)
{
    int64_t page = c.page_floats(), dim = c.heads.dim;
    floats x((size_t)(page * c.pages() * c.sequences()), NAN);
    floats stock = numbers(4099, seed);
    size_t used = 0;
    for (int s = 0; s < c.sequences(); s++) {
        int end = 0;
        for (int i = 0; i < c.n(); i++)
            if (c.sequence[i] == s)
                end = c.own_kv ? (end ? std::min(end, c.position[i]) : c.position[i]) : c.position[i] + 1;
        for (int t = 0; t < end; t++)
            for (int h = 0; h < c.heads.kv_heads; h++)
                for (int64_t d = 0; d < dim; d++)
                    x[(size_t)(table[s * c.pages() + t / PL_KV_PAGE] * page +
                               ((int64_t)h * PL_KV_PAGE + t % PL_KV_PAGE) * dim + d)] = stock[used++ % stock.size()];
    }
    return x;
}

static floats odd_numbers(size_t n, uint32_t seed, int shift)
{
    floats x = numbers(n, seed);
    x.insert(x.begin(), (size_t)shift, NAN);
    return x;
}

static ints some_slots(int n)
{
    ints slot;
    for (int i = 0; i < n; i++)
        slot.push_back((i * 5 + 3) % slots);
    return slot;
}

struct results {
    floats out, k, v, scale;
    std::vector<int8_t> hi_lo;
    ints sum;
};

/* A case on the card: two of them start out the same. */
struct on_the_card {
    const attend_case &c;
    int64_t q_width, kv_width, blocks;
    on_card<int32_t> table, position, sequence, slot;
    on_card<float> q, k, v, cache_k, cache_v, q_norm, k_norm, rope, out, scale;
    on_card<int8_t> hi_lo;
    on_card<int32_t> sum;
    on_card<char> scratch;
    pl_act act;

    explicit on_the_card(const attend_case &of)
        : c(of), q_width(c.heads.heads * c.heads.dim), kv_width(c.heads.kv_heads * c.heads.dim),
          blocks((q_width + 31) / 32), table(page_table(c)), position(c.position), sequence(c.sequence),
          slot(some_slots(c.n())), q(numbers((size_t)(c.n() * q_width), c.seed)),
          k(numbers((size_t)(c.n() * kv_width), c.seed + 1)), v(numbers((size_t)(c.n() * kv_width), c.seed + 2)),
          cache_k(cache(c, page_table(c), c.seed + 3)), cache_v(cache(c, page_table(c), c.seed + 4)),
          q_norm(odd_numbers((size_t)c.heads.dim, c.seed + 5, c.shift)),
          k_norm(numbers((size_t)c.heads.dim, c.seed + 6)), rope(numbers((size_t)(slots * c.heads.dim), c.seed + 7)),
          out((size_t)(c.n() * q_width)), scale((size_t)(c.n() * blocks)), hi_lo((size_t)(c.n() * blocks * 64)),
          sum((size_t)(c.n() * blocks * 2)),
          scratch(std::vector<char>(pl_cuda_attention_scratch(c.n(), c.heads, c.context()))),
          act(act_of(out.p, q_width, q_width, 0, hi_lo.p, scale.p, sum.p))
    {
    }

    pl_kv_layer kv() const
    {
        return {cache_k.p, cache_v.p, c.page_floats(), table.p, c.pages(), PL_CACHE_F32};
    }
    pl_rows rows() const
    {
        return {c.n(), slot.p, position.p, sequence.p};
    }
    void run_single(cudaStream_t s)
    {
        pl_kv_layer to = kv();
        pl_rows r = rows();
        expect_done(pl_cuda_qkv_store(s, q.p, c.own_kv ? k.p : nullptr, c.own_kv ? v.p : nullptr, &to, &r, c.heads,
                                      q_norm.p + c.shift, k_norm.p, rope.p, eps));
        expect_done(pl_cuda_attention(s, out.p, q.p, &to, &r, c.heads, c.window, c.context(), scratch.p));
        expect_done(pl_cuda_quantize(s, &act, c.n()));
    }

    void run_fused(cudaStream_t s)
    {
        run_fused(s, 0, c.n());
    }

    /* Rows [first, first + n); the integers as of n rows. */
    void run_fused(cudaStream_t s, int first, int n)
    {
        pl_kv_layer to = kv();
        pl_rows r = {n, slot.p + first, position.p + first, sequence.p + first};
        float *k_rows = c.own_kv ? k.p + first * kv_width : nullptr,
              *v_rows = c.own_kv ? v.p + first * kv_width : nullptr;
        expect_done(pl_cuda_fused_attend(s, out.p + first * q_width, &act, q.p + first * q_width, k_rows, v_rows, &to,
                                         &r, c.heads, c.window, q_norm.p + c.shift, k_norm.p, rope.p, eps, c.distinct,
                                         c.context(), scratch.p));
        cr_assert_eq(act.rows, n);
    }

    /* Other positions, and operands that no step has worked on. */
    void renew(const ints &at)
    {
        const floats x[] = {numbers(q.n, c.seed), numbers(k.n, c.seed + 1), numbers(v.n, c.seed + 2)};
        float *to[] = {q.p, k.p, v.p};
        for (int i = 0; i < 3; i++)
            expect_done(cudaMemcpy(to[i], x[i].data(), x[i].size() * sizeof(float), cudaMemcpyHostToDevice));
        expect_done(cudaMemcpy(position.p, at.data(), at.size() * sizeof(int32_t), cudaMemcpyHostToDevice));
    }

    results get() const
    {
        return {out.get(), cache_k.get(), cache_v.get(), scale.get(), hi_lo.get(), sum.get()};
    }

    /* All that the next launch needs to find at zero. */
    void expect_clean(const char *what) const
    {
        std::vector<char> s = scratch.get();
        for (size_t i = 0; i < 16 * sizeof(unsigned) * (size_t)c.heads.heads; i++)
            cr_assert_eq(s[i], 0, "%s: byte %zu of scratch", what, i);
    }
};

template <class T> static bool same_bits(const std::vector<T> &a, const std::vector<T> &b)
{
    return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

static void expect_same(const attend_case &c, const results &got, const results &want)
{
    for (float x : want.out)
        cr_assert(std::isfinite(x), "%d rows, window %d: the case itself is broken", c.n(), c.window);
    const bool same[] = {same_bits(got.out, want.out),     same_bits(got.k, want.k),
                         same_bits(got.v, want.v),         same_bits(got.hi_lo, want.hi_lo),
                         same_bits(got.scale, want.scale), same_bits(got.sum, want.sum)};
    const char *what[] = {"out", "K", "V", "codes", "scales", "sums"};
    for (int i = 0; i < 6; i++)
        cr_assert(same[i], "%d/%d heads of %d, %d rows, window %d, %s%s: %s", c.heads.heads, c.heads.kv_heads,
                  c.heads.dim, c.n(), c.window, c.distinct ? "distinct" : "mixed", c.own_kv ? "" : ", no K/V", what[i]);
}

static void check(const attend_case &c, unsigned launches)
{
    a_stream stream;
    on_the_card want(c), got(c);
    want.run_single(stream);
    expect_done(cudaStreamSynchronize(stream));
    card_reseed(c.seed * 31 + (uint32_t)c.n());
    unsigned long long before = card_launches();
    got.run_fused(stream);
    cr_assert_eq(card_launches() - before, launches, "%llu launches", card_launches() - before);
    expect_done(cudaStreamSynchronize(stream));
    expect_same(c, got.get(), want.get());
    got.expect_clean("fused");
}

static ints positions(int n, int first)
{
    static const int all[] = {0, 63, 64, 511, 512, 600, 1, 127, 128, 5, 575, 576, 320, 62, 65, 448};
    ints p;
    for (int i = 0; i < n; i++)
        p.push_back(all[(i + first) % 16]);
    return p;
}

/* ---- tests ----------------------------------------------------------------------------------------------- */

static const pl_heads two{4, 2, 64}, four{8, 2, 64}, wide_two{4, 2, 256}, wide_four{8, 2, 256};

Test(attend, rows_of_their_own_sequences_take_one_launch)
{
    card_insert(CARD_EAGER, 1);
    for (int n = 1; n <= 16; n++)
        for (int window : {0, 512}) {
            attend_case c = distinct_rows(n % 2 ? four : two, window, positions(n, window ? n : 0));
            c.seed = (uint32_t)n;
            check(c, 1);
            c.own_kv = false;
            if (n % 3 == 0)
                check(c, 1);
        }
}

Test(attend, every_position_by_itself)
{
    card_insert(CARD_EAGER, 2);
    for (int at : {0, 63, 64, 511, 512, 600, 3000})
        for (int window : {0, 512}) {
            attend_case c = distinct_rows(at % 2 ? two : four, window, {at});
            check(c, 1);
            c.own_kv = false;
            check(c, 1);
        }
}

Test(attend, wide_heads)
{
    card_insert(CARD_ANY, 3);
    for (bool own : {true, false}) {
        attend_case c = distinct_rows(wide_four, 0, {64, 0, 130});
        c.own_kv = own;
        check(c, 1);
        c = distinct_rows(wide_two, 100, {511, 63, 200, 5});
        c.own_kv = own;
        check(c, 1);
    }
}

/* Two sets of query heads make the same K and V, and one stores them. */
Test(attend, groups_of_any_size)
{
    card_insert(CARD_ASKED, 4);
    for (pl_heads heads : {pl_heads{3, 3, 32}, pl_heads{6, 1, 32}, pl_heads{10, 2, 64}, pl_heads{9, 1, 96}})
        check(distinct_rows(heads, 0, {70, 0, 128}), 1);
}

Test(attend, every_mode_and_many_seeds)
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        for (uint64_t seed = 0; seed < 6; seed++) {
            card_insert((card_mode)mode, seed);
            attend_case c = distinct_rows(two, seed % 2 ? 100 : 0, {130, 63, 64, 0});
            c.seed = (uint32_t)seed;
            c.own_kv = seed != 3;
            check(c, 1);
        }
}

/* Rows of a sequence see each other's keys. */
Test(attend, rows_of_one_sequence_take_two_launches)
{
    for (int mode = 0; mode < CARD_MODES; mode++) {
        card_insert((card_mode)mode, 5);
        for (int window : {0, 70}) {
            attend_case c = {four, window, {126, 127, 128, 5, 0, 64, 65}, {0, 0, 0, 2, 1, 3, 3}, false};
            check(c, 2);
            c.own_kv = false;
            check(c, 2);
        }
    }
    ints run, one;
    for (int i = 0; i < 16; i++) {
        run.push_back(500 + i);
        one.push_back(0);
    }
    check({two, 512, run, one, false}, 2);
}

/* Blocks of integers across heads, operands that are not aligned: more launches, the same bits. */
Test(attend, shapes_that_take_more_launches)
{
    card_insert(CARD_ANY, 6);
    attend_case small = distinct_rows({4, 2, 16}, 0, {70, 3, 64});
    check(small, 2);
    small.distinct = false;
    check(small, 3);
    attend_case odd = distinct_rows({3, 1, 48}, 0, {70, 3, 64});
    check(odd, 2);
    attend_case shifted = distinct_rows(four, 0, {70, 3, 64});
    shifted.shift = 1;
    check(shifted, 2);
}

/* Splits of one and of two pages. */
Test(attend, long_contexts)
{
    card_insert(CARD_ANY, 7);
    check(distinct_rows({2, 1, 32}, 0, {3839, 3840}), 1);
    check(distinct_rows({2, 1, 32}, 512, {4000}), 1);
}

/* Rows [first, first + n) of a case, alone. */
static results run_some(const attend_case &c, int first, int n)
{
    a_stream stream;
    on_the_card all(c);
    all.run_fused(stream, first, n);
    expect_done(cudaStreamSynchronize(stream));
    return all.get();
}

/* Where block b of row r of n begins: see pl_act. */
static size_t block_at(int64_t blocks, int n, int r, int64_t b)
{
    int64_t first = b / 8 * 8;
    return (size_t)(first * n + r * std::min<int64_t>(8, blocks - first) + b - first);
}

static void expect_row(const attend_case &c, const results &all, int row, const results &one)
{
    int64_t width = c.heads.heads * c.heads.dim, blocks = width / 32;
    cr_assert(memcmp(&all.out[(size_t)(row * width)], &one.out[(size_t)(row * width)], (size_t)width * sizeof(float)) ==
                  0,
              "row %d of %d: out", row, c.n());
    for (int64_t b = 0; b < blocks; b++) {
        size_t at = block_at(blocks, c.n(), row, b), alone = block_at(blocks, 1, 0, b);
        cr_assert(memcmp(&all.hi_lo[64 * at], &one.hi_lo[64 * alone], 64) == 0 && all.scale[at] == one.scale[alone] &&
                      memcmp(&all.sum[2 * at], &one.sum[2 * alone], 2 * sizeof(int32_t)) == 0,
                  "row %d of %d: integers of block %d", row, c.n(), (int)b);
    }
}

Test(attend, a_row_is_the_same_alone_and_among_others)
{
    card_insert(CARD_ANY, 8);
    attend_case c = distinct_rows(two, 512, positions(16, 0));
    results all = run_some(c, 0, c.n());
    for (int row = 0; row < c.n(); row++)
        expect_row(c, all, row, run_some(c, row, 1));
}

/* Counts of blocks are back at zero after each launch, and what is captured at one position serves others. */
Test(attend, a_captured_step_is_replayed)
{
    static const int steps[] = {-4, -3, -2, -2, -1, 0, 0};
    card_insert(CARD_ANY, 9);
    attend_case c = distinct_rows(two, 100, {66, 130, 4});
    a_stream stream;
    on_the_card want(c), got(c);
    cudaGraph_t graph;
    cudaGraphExec_t step;
    expect_done(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    got.run_fused(stream);
    expect_done(cudaStreamEndCapture(stream, &graph));
    expect_done(cudaGraphInstantiate(&step, graph, 0));
    for (int back : steps) {
        ints at;
        for (int p : c.position)
            at.push_back(p + back);
        want.renew(at);
        got.renew(at);
        want.run_single(stream);
        expect_done(cudaGraphLaunch(step, stream));
        expect_done(cudaStreamSynchronize(stream));
        expect_same(c, got.get(), want.get());
        got.expect_clean("replayed");
    }
    expect_done(cudaGraphExecDestroy(step));
    expect_done(cudaGraphDestroy(graph));
}

/* One scratch for launches of any shape. */
Test(attend, launches_of_other_shapes_share_the_scratch)
{
    card_insert(CARD_ANY, 10);
    attend_case c = distinct_rows(two, 512, positions(6, 2));
    a_stream stream;
    on_the_card all(c);
    all.run_fused(stream);
    cudaStreamSynchronize(stream);
    results want = all.get();
    for (int n : {1, 5, 2, 6}) {
        all.run_fused(stream, 6 - n, n);
        expect_done(cudaStreamSynchronize(stream));
        cr_assert(same_bits(all.get().out, want.out), "the last %d rows", n);
    }
}

Test(attend, scratch_is_bounded)
{
    size_t bytes = pl_cuda_attention_scratch(4096, {8, 2, 256}, 32768);
    cr_assert_leq(bytes, 8000000);
    cr_assert_eq(pl_cuda_attention_scratch(16, {8, 2, 256}, 1 << 20), bytes);
}

Test(attend, shapes_it_does_not_take)
{
    a_stream stream;
    pl_kv_layer kv = {};
    pl_rows rows = {17, nullptr, nullptr, nullptr};
    pl_act act = {};
    for (pl_heads heads : {pl_heads{4, 1, 32}, pl_heads{4, 1, 40}, pl_heads{4, 1, 272}, pl_heads{4, 3, 32}}) {
        cr_assert_eq(pl_cuda_fused_attend(stream, nullptr, &act, nullptr, nullptr, nullptr, &kv, &rows, heads, 0,
                                          nullptr, nullptr, nullptr, eps, true, 64, nullptr),
                     cudaErrorInvalidValue);
        rows.n = 1;
    }
    rows.n = 0;
    expect_done(pl_cuda_fused_attend(stream, nullptr, &act, nullptr, nullptr, nullptr, &kv, &rows, {4, 1, 32}, 0,
                                     nullptr, nullptr, nullptr, eps, true, 64, nullptr));
}
