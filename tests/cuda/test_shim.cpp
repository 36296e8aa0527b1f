/* Kernels on the CPU: right ones pass whatever the order, and each mistake of faults.hpp is caught with every seed. */
#include "tests/cuda/faults.hpp"
#include "tests/cuda/fixture.hpp"
#include "tests/cuda/in_child.hpp"

#include <string.h>

#if defined(EMU_ASAN) || defined(EMU_TSAN)
static const uint64_t seeds = 2;
#else
static const uint64_t seeds = 10;
#endif
#if defined(EMU_TSAN)
static const bool sees_races = true;
#else
static const bool sees_races = false;
#endif

/* ---- the kernels against plain loops: true when right */

static bool norm_is_right(fault what)
{
    const int rows = 5, n = 300;
    const std::vector<float> x = numbers(rows * n, 1);
    on_card<float> dx(x), dy(x.size());
    a_stream s;
    expect_done(faults_norm(s, what, dx.p, dy.p, rows, n));
    expect_done(cudaStreamSynchronize(s));
    std::vector<double> want(x.size());
    for (int r = 0; r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += pow(x[r * n + i], 2);
        for (int i = 0; i < n; i++)
            want[r * n + i] = x[r * n + i] / sqrt(sum / n);
    }
    return furthest(dy.get(), want) < 1e-5;
}

static bool mirror_is_right(fault what)
{
    const int blocks = 3;
    const std::vector<float> x = numbers(blocks * 128, 2);
    on_card<float> dx(x), dy(x.size());
    a_stream s;
    expect_done(faults_mirror(s, what, dx.p, dy.p, blocks));
    expect_done(cudaStreamSynchronize(s));
    const std::vector<float> y = dy.get();
    for (size_t i = 0; i < y.size(); i++)
        if (y[i] != x[i / 32 * 32 + 31 - i % 32])
            return false;
    return true;
}

static float from_bf16(uint16_t v)
{
    const uint32_t bits = static_cast<uint32_t>(v) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static std::vector<uint16_t> bf16_numbers(size_t n, uint32_t seed)
{
    std::vector<uint16_t> v(n);
    for (uint16_t &x : v) {
        const float f = a_number(&seed);
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        x = static_cast<uint16_t>(bits >> 16);
    }
    return v;
}

static bool product_is_right(fault what)
{
    const int m = 70, n = 90, k = 128;
    const std::vector<uint16_t> a = bf16_numbers(m * k, 3), b = bf16_numbers(n * k, 4);
    on_card<uint16_t> da(a), db(b);
    on_card<float> dc(m * n);
    a_stream s;
    expect_done(faults_product(s, what, da.p, db.p, dc.p, m, n, k));
    expect_done(cudaStreamSynchronize(s));
    std::vector<double> want(m * n);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            for (int l = 0; l < k; l++)
                want[i * n + j] += static_cast<double>(from_bf16(a[i * k + l])) * from_bf16(b[j * k + l]);
    return furthest(dc.get(), want) < 1e-4;
}

static bool layers_are_right(fault what)
{
    const int n = 64, layers = 4;
    std::vector<float> w = numbers(layers * n * n, 5);
    for (float &v : w)
        v *= 0.2f;
    std::vector<double> x(n), next(n);
    const std::vector<float> first = numbers(n, 6);
    on_card<float> dw(w), dx(first), dy(n);
    on_card<unsigned> arrived(std::vector<unsigned>(1, 0));
    a_stream s;
    expect_done(faults_layers(s, what, dw.p, dx.p, dy.p, arrived.p, n, layers));
    expect_done(cudaStreamSynchronize(s));
    x.assign(first.begin(), first.end());
    for (int l = 0; l < layers; l++) {
        for (int r = 0; r < n; r++) {
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += w[(l * n + r) * n + i] * x[i];
            next[r] = tanh(sum);
        }
        x.swap(next);
    }
    return furthest(dx.get(), x) < 1e-4;
}

static bool odd_is_right(fault what)
{
    on_card<float> y(std::vector<float>(64, 0.0f));
    on_card<unsigned> flag(std::vector<unsigned>(1, 0));
    a_stream s;
    expect_done(faults_odd(s, what, y.p, flag.p));
    expect_done(cudaStreamSynchronize(s));
    const std::vector<float> v = y.get();
    for (size_t i = 0; i < v.size(); i++)
        if (v[i] != static_cast<float>(i))
            return false;
    return true;
}

/* ---- right ones */

static void expect_right_always(bool (*right)(fault))
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        for (uint64_t seed = 0; seed <= seeds; seed++) {
            card_insert(static_cast<card_mode>(mode), seed);
            cr_assert(right(fault::none), "mode %d, seed %d", mode, static_cast<int>(seed));
        }
    card_insert(CARD_EAGER, 0);
}

Test(shim, norm_is_right)
{
    expect_right_always(norm_is_right);
}

Test(shim, mirror_is_right)
{
    expect_right_always(mirror_is_right);
}

Test(shim, product_is_right)
{
    card_insert(CARD_EAGER, 1);
    cr_assert(product_is_right(fault::none));
    cr_expect(card_bank_conflicts() == 0, "%llu", card_bank_conflicts());
    expect_right_always(product_is_right);
}

Test(shim, layers_are_right)
{
    expect_right_always(layers_are_right);
}

Test(shim, odd_is_right)
{
    expect_right_always(odd_is_right);
}

Test(shim, product_of_bytes)
{
    card_insert(CARD_EAGER, 1);
    std::vector<int8_t> a(16 * 32), b(8 * 32);
    uint32_t state = 7;
    for (int8_t &v : a)
        v = static_cast<int8_t>(128 * a_number(&state));
    for (int8_t &v : b)
        v = static_cast<int8_t>(128 * a_number(&state));
    on_card<int8_t> da(a), db(b);
    on_card<int> dc(16 * 8);
    a_stream s;
    expect_done(faults_bytes(s, da.p, db.p, dc.p));
    expect_done(cudaStreamSynchronize(s));
    const std::vector<int> c = dc.get();
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            int sum = 0;
            for (int k = 0; k < 32; k++)
                sum += a[i * 32 + k] * b[j * 32 + k];
            cr_assert(c[i * 8 + j] == sum, "(%d, %d): %d, expected %d", i, j, c[i * 8 + j], sum);
        }
}

Test(shim, intrinsics)
{
    /* Of lane 20; 10 to 16: __dp4a, __byte_perm, to_int of 2.5, 3e9, -3e9, NaN, warp_max. */
    const int want[] = {17,
                        23,
                        4,
                        21,
                        static_cast<int>(0xaaaaaaaau),
                        496,
                        0,
                        7,
                        1,
                        32,
                        10 + 5 - 4 - 384 + 254,
                        0x77552211,
                        2,
                        INT32_MAX,
                        INT32_MIN,
                        0,
                        1};
    const size_t n = sizeof want / sizeof want[0];
    for (uint64_t seed = 0; seed <= seeds; seed++) {
        card_insert(CARD_EAGER, seed);
        on_card<int> out(n);
        a_stream s;
        expect_done(faults_intrinsics(s, out.p));
        expect_done(cudaStreamSynchronize(s));
        const std::vector<int> got = out.get();
        for (size_t i = 0; i < n; i++)
            cr_expect(got[i] == want[i], "%zu: %d (0x%x), expected %d", i, got[i], static_cast<unsigned>(got[i]),
                      want[i]);
    }
}

/* ---- mistakes */

/* With every seed the result is wrong or the process ends; `says` stands in what the shim says when it notices. */
static void expect_caught(bool (*right)(fault), fault what, const char *says)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        const child_end end = in_child([=] {
            card_insert(CARD_ANY, seed);
            return right(what);
        });
        cr_assert(!end.well, "seed %d: not caught", static_cast<int>(seed));
        const bool sanitizer = end.said.find("Sanitizer") != std::string::npos ||
                               end.said.find("runtime error") != std::string::npos;
        cr_assert(!says || sanitizer || end.said.find(says) != std::string::npos, "seed %d: expected '%s', it said %s",
                  static_cast<int>(seed), says, end.said.c_str());
    }
}

Test(shim, missing_syncthreads)
{
    expect_caught(norm_is_right, fault::no_sync, nullptr);
}

Test(shim, missing_syncwarp)
{
    expect_caught(mirror_is_right, fault::no_syncwarp, nullptr);
}

Test(shim, shared_memory_out_of_bounds)
{
    expect_caught(norm_is_right, fault::shared_read_past, nullptr);
    expect_caught(norm_is_right, fault::shared_write_past, "past the end of part in shared memory");
}

Test(shim, tile_without_sync)
{
    expect_caught(product_is_right, fault::no_sync_before_use, nullptr);
    expect_caught(product_is_right, fault::no_sync_after_use, nullptr);
}

Test(shim, copies_not_waited_for)
{
    expect_caught(product_is_right, fault::wrong_wait, nullptr);
    expect_caught(product_is_right, fault::no_last_wait, nullptr);
}

Test(shim, swapped_registers)
{
    expect_caught(product_is_right, fault::swapped_registers, nullptr);
}

Test(shim, bank_conflicts_are_counted)
{
    card_insert(CARD_EAGER, 1);
    cr_assert(product_is_right(fault::no_swizzle));
    cr_assert(card_bank_conflicts() > 1000, "%llu", card_bank_conflicts());
}

Test(shim, grid_barrier)
{
    expect_caught(layers_are_right, fault::no_barrier, nullptr);
    expect_caught(layers_are_right, fault::half_barrier, nullptr);
    /* On x86-64 every add releases: only ThreadSanitizer can tell. */
    if (sees_races)
        expect_caught(layers_are_right, fault::relaxed_barrier, nullptr);
}

Test(shim, divergence)
{
    expect_caught(odd_is_right, fault::part_of_block, "__syncthreads at");
    expect_caught(odd_is_right, fault::part_of_warp, "a shuffle at");
    expect_caught(odd_is_right, fault::exited_lane, "kd::warp_sum at");
}

Test(shim, reports_name_file_and_line)
{
    const child_end end = in_child([] {
        card_insert(CARD_EAGER, 1);
        return odd_is_right(fault::part_of_warp);
    });
    cr_assert(end.said.find("faults.cu:") != std::string::npos, "%s", end.said.c_str());
    cr_assert(end.said.find("in odd_kernel, block (0,0,0), thread (") != std::string::npos, "%s", end.said.c_str());
}

Test(shim, memory_of_the_card)
{
    expect_caught(odd_is_right, fault::unaligned, "not aligned to 16 bytes");
    expect_caught(odd_is_right, fault::global_write_past, "touches what follows an allocation");
}

Test(shim, endless_wait, .timeout = 300)
{
    const child_end end = in_child([] {
        card_insert(CARD_EAGER, 1);
        return odd_is_right(fault::endless_wait);
    });
    cr_assert(!end.well);
    cr_assert(end.said.find("livelock") != std::string::npos, "%s", end.said.c_str());
}

Test(shim, host_pointer_for_a_kernel)
{
    const child_end end = in_child([] {
        card_insert(CARD_EAGER, 1);
        float x[64] = {0};
        a_stream s;
        return faults_add(s, x, 1, x, 64) == cudaSuccess;
    });
    cr_assert(!end.well);
    cr_assert(end.said.find("add_kernel: argument 0") != std::string::npos, "%s", end.said.c_str());
}

Test(shim, device_pointer_on_the_host)
{
    const child_end end = in_child([] {
        card_insert(CARD_EAGER, 1);
        on_card<float> x(std::vector<float>(8, 1.0f));
        return *const_cast<volatile float *>(x.p) == 1.0f;
    });
    cr_assert(!end.well);
    cr_assert(sees_races || end.said.find("device memory from the host") != std::string::npos ||
                  end.said.find("Sanitizer") != std::string::npos,
              "%s", end.said.c_str());
}
