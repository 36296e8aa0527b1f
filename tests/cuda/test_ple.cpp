/* The block of per-layer inputs: the bits of the single ops one after the other, in one launch or two. */
extern "C" {
#include "host/base/cpu.h"
#include "host/base/threads.h"
#include "host/cpu/pack.h"
#include "quant/encode.h"
}
#include "cuda/kernels.h"
#include "tests/cuda/fixture.hpp"

#include <cstring>
#include <memory>

typedef std::vector<float> floats;

static const int room = 21; /* slots of a step */
static const int layers = 3;

/* A matrix of a type on the card, as the backend has it. */
struct matrix {
    std::vector<uint8_t> file, packed;
    pl_weight w = {};
    std::unique_ptr<on_card<uint8_t>> copy;

    matrix(pl_dtype type, int64_t rows, int64_t cols, uint32_t seed)
    {
        pl_pool *pool;
        pl_error err;
        cr_assert_eq(pl_pool_create(1, nullptr, &pool, &err), PL_OK);
        floats v = numbers((size_t)(rows * cols), seed);
        file.resize(pl_dtype_bytes(type, rows * cols));
        pl_encoder_select(pl_cpu_features(PL_CPU_ALL))->encode(type, v.data(), nullptr, file.data(), rows * cols);
        pl_tensor t = {"matrix", file.data(), rows, cols, type};
        packed.resize(pl_pack_bytes(&t));
        cr_assert_eq(pl_pack(pool, &t, packed.data(), &w, &err), PL_OK);
        pl_pool_free(pool);
        copy.reset(new on_card<uint8_t>(packed.empty() ? file : packed));
        w.data = copy->p;
    }
    matrix(const matrix &) = delete;
};

struct activations {
    on_card<float> x;
    on_card<int8_t> hi_lo;
    on_card<float> scale;
    on_card<int32_t> sum;
    pl_act act;

    activations(const floats &v, int64_t cols)
        : x(v), hi_lo((size_t)(room * ((cols + 31) / 32) * 64)), scale(hi_lo.n / 64), sum(hi_lo.n / 32),
          act(act_of(x.p, cols, cols, 0, hi_lo.p, scale.p, sum.p))
    {
    }
};

struct shape {
    pl_dtype gate, proj;
    int64_t hidden;
    int p, n;
    int ple_ld; /* beyond layers * p */
};

/* What both ways start from. */
struct given {
    shape s;
    matrix gate, proj;
    floats x, ple;
    std::vector<int32_t> slot;

    given(const shape &of, uint32_t seed)
        : s(of), gate(of.gate, of.p, of.hidden, seed), proj(of.proj, of.hidden, of.p, seed + 1),
          x(numbers((size_t)(of.n * of.hidden), seed + 2)),
          ple(numbers((size_t)(room * (layers * of.p + of.ple_ld)), seed + 3))
    {
        for (int i = 0; i < of.n; i++)
            slot.push_back((i * 8 + (int)(seed % 7)) % room);
    }
};

/* What waits for the gate counts on. */
struct a_barrier : on_card<unsigned> {
    a_barrier() : on_card(std::vector<unsigned>(PL_CUDA_BARRIER_BYTES / sizeof(unsigned), 0))
    {
    }
};

/* What the fused op should take. */
static unsigned launches_of(const shape &s, const given &g)
{
    if (!g.proj.w.packed || s.p > 512 || s.ple_ld % 4 != 0)
        return 3u + g.proj.w.packed;
    return g.gate.w.packed && s.n <= 4 ? 1 : 2;
}

/* out, with a row behind the last one that stays as it was. barrier: of the fused op; NULL: single ops. */
static floats run(const given &g, const a_barrier *barrier)
{
    const shape &s = g.s;
    a_stream stream;
    activations x(g.x, s.hidden), mid(floats((size_t)(room * s.p), NAN), s.p);
    on_card<float> gate_out(floats((size_t)(room * s.p), NAN)), ple(g.ple);
    on_card<float> out(floats((size_t)((s.n + 1) * s.hidden), 12345.0f));
    on_card<int32_t> slot(g.slot);
    pl_rows rows = {s.n, slot.p, nullptr, nullptr};
    x.act.rows = s.n;
    expect_done(pl_cuda_quantize(stream, &x.act, s.n));
    const float *of_layer = ple.p + s.p;
    int64_t ld = layers * s.p + s.ple_ld;
    if (barrier) {
        pl_ple_block block = {&g.gate.w, &g.proj.w, &x.act, gate_out.p, &mid.act, of_layer, ld, out.p, s.p};
        unsigned long long before = card_launches();
        expect_done(pl_cuda_fused_ple(stream, &block, &rows, barrier->p));
        expect_done(cudaStreamSynchronize(stream));
        cr_assert_eq(card_launches() - before, launches_of(s, g));
        return out.get();
    }
    pl_matmul gate = {&g.gate.w, &x.act, gate_out.p, s.p, s.n, nullptr, nullptr};
    expect_done(pl_cuda_matmul_few(stream, &gate, 1));
    expect_done(pl_cuda_ple_gate(stream, gate_out.p, of_layer, ld, &rows, s.p));
    mid.act.f32 = gate_out.p;
    mid.act.rows = s.n;
    expect_done(pl_cuda_quantize(stream, &mid.act, s.n));
    pl_matmul proj = {&g.proj.w, &mid.act, out.p, s.hidden, s.n, nullptr, nullptr};
    expect_done(pl_cuda_matmul_few(stream, &proj, 1));
    expect_done(cudaStreamSynchronize(stream));
    return out.get();
}

static void expect_same(const given &g, const floats &got, const floats &want)
{
    for (size_t i = 0; i < want.size(); i++)
        cr_assert(memcmp(&got[i], &want[i], sizeof got[i]) == 0,
                  "types %d and %d, hidden %lld, %d rows of %d: [%zu] is %.9g, expected %.9g", (int)g.s.gate,
                  (int)g.s.proj, (long long)g.s.hidden, g.s.n, g.s.p, i, (double)got[i], (double)want[i]);
}

static void check(const given &g)
{
    a_barrier barrier;
    expect_same(g, run(g, &barrier), run(g, nullptr));
}

static const pl_dtype block_types[] = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1,   PL_Q8_0,   PL_Q2_K,  PL_Q3_K,
                                       PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};

Test(ple, every_type)
{
    card_insert(CARD_ANY, 1);
    for (size_t t = 0; t < sizeof block_types / sizeof *block_types; t++)
        for (int n = 1; n <= 11; n += 5)
            check(given({block_types[(t + 5) % 14], block_types[t], 256, t % 2 ? 256 : 512, n, 0}, (uint32_t)(t + 1)));
}

Test(ple, every_number_of_rows)
{
    for (int n = 1; n <= PL_FUSED_ROWS; n++) {
        card_insert((card_mode)(n % CARD_MODES), (uint64_t)n);
        check(given({PL_Q4_0, PL_Q8_0, 512, 256, n, 4}, (uint32_t)n));
        check(given({PL_Q8_0, PL_Q4_K, 256, 512, n, 0}, (uint32_t)(n + 50)));
    }
}

Test(ple, shapes_of_the_models)
{
    static const int64_t hidden[] = {2048, 2560, 3072};
    for (int h = 0; h < 3; h++) {
        card_insert(CARD_ANY, (uint64_t)(h + 5));
        check(given({PL_Q4_0, PL_Q4_0, hidden[h], 256, 1 + h, 0}, (uint32_t)(h + 1)));
    }
}

/* One barrier for launches of other numbers of rows and of blocks. */
Test(ple, one_launch_after_the_other)
{
    static const int rows[] = {1, 4, 6, 2, 1, 3, 16, 4};
    for (int mode = 0; mode < CARD_MODES; mode++) {
        card_insert((card_mode)mode, (uint64_t)mode * 3);
        a_barrier barrier;
        for (int i = 0; i < 8; i++) {
            given g({PL_Q4_0, PL_Q8_0, i % 3 ? 320 : 32, i % 2 ? 256 : 64, rows[i], 0}, (uint32_t)(i + 1));
            expect_same(g, run(g, &barrier), run(g, nullptr));
        }
    }
}

/* Two launches as a graph, over and over with other x. */
Test(ple, replays)
{
    for (int mode = 0; mode < CARD_MODES; mode++) {
        card_insert((card_mode)mode, (uint64_t)mode + 20);
        given g({PL_Q4_0, PL_Q4_0, 256, 256, 3, 0}, 1);
        const shape &s = g.s;
        a_stream stream;
        a_barrier barrier;
        activations x(g.x, s.hidden), mid(floats((size_t)(room * s.p), NAN), s.p);
        on_card<float> gate_out((size_t)(room * s.p)), ple(g.ple), one(s.hidden), all(3 * s.hidden);
        on_card<int32_t> slot(g.slot);
        pl_ple_block block = {&g.gate.w,   &g.proj.w,    &x.act, gate_out.p, &mid.act,
                              ple.p + s.p, layers * s.p, one.p,  s.p};
        pl_rows first = {1, slot.p, nullptr, nullptr}, rows = {3, slot.p, nullptr, nullptr};
        cudaGraph_t graph;
        cudaGraphExec_t step;
        expect_done(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        x.act.rows = 1;
        expect_done(pl_cuda_quantize(stream, &x.act, 1));
        expect_done(pl_cuda_fused_ple(stream, &block, &first, barrier.p));
        x.act.rows = 3;
        block.out = all.p;
        expect_done(pl_cuda_quantize(stream, &x.act, 3));
        expect_done(pl_cuda_fused_ple(stream, &block, &rows, barrier.p));
        expect_done(cudaStreamEndCapture(stream, &graph));
        expect_done(cudaGraphInstantiate(&step, graph, 0));
        for (uint32_t turn = 0; turn < 5; turn++) {
            g.x = numbers((size_t)(s.n * s.hidden), turn + 100);
            floats want = run(g, nullptr), nothing(gate_out.n, NAN);
            want.resize((size_t)(3 * s.hidden));
            expect_done(cudaMemcpy(x.x.p, g.x.data(), g.x.size() * sizeof(float), cudaMemcpyHostToDevice));
            expect_done(cudaMemcpy(gate_out.p, nothing.data(), gate_out.n * sizeof(float), cudaMemcpyHostToDevice));
            expect_done(cudaGraphLaunch(step, stream));
            expect_done(cudaStreamSynchronize(stream));
            expect_same(g, all.get(), want);
            want.resize((size_t)s.hidden);
            expect_same(g, one.get(), want);
        }
        expect_done(cudaGraphExecDestroy(step));
        expect_done(cudaGraphDestroy(graph));
    }
}

/* Panels that end before 16 rows, spans that end before 256 columns. */
Test(ple, odd_shapes)
{
    card_insert(CARD_ANY, 9);
    for (int p = 32; p <= 512; p += 96) {
        check(given({PL_Q4_0, PL_Q5_1, 288 + p, p, 3, 0}, (uint32_t)p));
        check(given({PL_Q8_0, PL_MXFP4, 352, p, 16, 8}, (uint32_t)(p + 1)));
    }
    check(given({PL_Q4_0, PL_Q4_0, 32, 32, 1, 0}, 7));
    check(given({PL_NVFP4, PL_NVFP4, 320, 320, 5, 0}, 8));
}

/* A row that is not finite, another that is all zeros. */
Test(ple, rows_that_are_not_finite)
{
    card_insert(CARD_ANY, 11);
    given g({PL_Q4_0, PL_Q4_1, 256, 256, 4, 0}, 3);
    g.x[256 + 7] = INFINITY;
    std::fill(g.x.begin() + 512, g.x.begin() + 768, 0.0f);
    g.ple[(size_t)(g.slot[0] * layers * 256 + 256 + 3)] = NAN;
    check(g);
}

/* Plain types, wide gates and rows that are not aligned: through the single ops. */
Test(ple, other_cases)
{
    card_insert(CARD_ANY, 13);
    check(given({PL_F32, PL_Q4_0, 256, 64, 3, 0}, 1));
    check(given({PL_Q4_0, PL_BF16, 256, 64, 3, 0}, 2));
    check(given({PL_F16, PL_F32, 96, 32, 5, 0}, 3));
    check(given({PL_Q4_0, PL_Q4_0, 64, 544, 2, 0}, 4));
    check(given({PL_Q4_0, PL_Q4_0, 64, 96, 2, 1}, 5));
    a_stream stream;
    pl_ple_block block = {};
    matrix m(PL_F32, 32, 32, 1);
    block.gate = block.proj = &m.w;
    pl_rows none = {};
    a_barrier barrier;
    unsigned long long before = card_launches();
    expect_done(pl_cuda_fused_ple(stream, &block, &none, barrier.p));
    cr_assert_eq(card_launches(), before);
}
