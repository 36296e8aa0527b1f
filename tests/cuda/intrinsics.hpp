/* The functions that CUDA C++ has on a device, for the CPU. Part of emu.hpp. */
#ifndef PL_TESTS_CUDA_INTRINSICS_HPP
#define PL_TESTS_CUDA_INTRINSICS_HPP

#include "tests/cuda/emu.hpp"

#define EMU_AT ::emu::site at = ::emu::site::here()

/* ---- block and warp */

static inline void __syncthreads(EMU_AT)
{
    ::emu::sync_threads(at);
}

static inline int __syncthreads_count(int predicate, EMU_AT)
{
    return ::emu::sync_threads_tally(::emu::tally::count, predicate, at);
}

static inline int __syncthreads_and(int predicate, EMU_AT)
{
    return ::emu::sync_threads_tally(::emu::tally::all, predicate, at);
}

static inline int __syncthreads_or(int predicate, EMU_AT)
{
    return ::emu::sync_threads_tally(::emu::tally::any, predicate, at);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_AT)
{
    ::emu::sync_warp(mask, at);
}

static inline unsigned __activemask()
{
    return ::emu::active_mask();
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_AT)
{
    return ::emu::vote_sync(::emu::vote::ballot, mask, predicate, at);
}

static inline int __any_sync(unsigned mask, int predicate, EMU_AT)
{
    return static_cast<int>(::emu::vote_sync(::emu::vote::any, mask, predicate, at));
}

static inline int __all_sync(unsigned mask, int predicate, EMU_AT)
{
    return static_cast<int>(::emu::vote_sync(::emu::vote::all, mask, predicate, at));
}

namespace emu
{

template <class T> static inline T shuffle_value(shuffle how, uint32_t mask, T value, int argument, int width, site at)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8, "not a type that shuffles take");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shuffle_sync(how, mask, bits, argument, width, at);
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace emu

template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32, EMU_AT)
{
    return ::emu::shuffle_value(::emu::shuffle::index, mask, v, lane, width, at);
}

template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, EMU_AT)
{
    return ::emu::shuffle_value(::emu::shuffle::up, mask, v, static_cast<int>(delta), width, at);
}

template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, EMU_AT)
{
    return ::emu::shuffle_value(::emu::shuffle::down, mask, v, static_cast<int>(delta), width, at);
}

template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, EMU_AT)
{
    return ::emu::shuffle_value(::emu::shuffle::exclusive_or, mask, v, bits, width, at);
}

#define EMU_REDUCE(name, T, what)                                                                                      \
    static inline T name(unsigned mask, T v, EMU_AT)                                                                   \
    {                                                                                                                  \
        return static_cast<T>(::emu::reduce_sync(::emu::reduce::what, mask, static_cast<uint32_t>(v), at));            \
    }
EMU_REDUCE(__reduce_add_sync, int, add)
EMU_REDUCE(__reduce_add_sync, unsigned, add)
EMU_REDUCE(__reduce_max_sync, int, max_signed)
EMU_REDUCE(__reduce_max_sync, unsigned, max_unsigned)
EMU_REDUCE(__reduce_min_sync, int, min_signed)
EMU_REDUCE(__reduce_min_sync, unsigned, min_unsigned)
EMU_REDUCE(__reduce_and_sync, unsigned, bit_and)
EMU_REDUCE(__reduce_or_sync, unsigned, bit_or)
EMU_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef EMU_REDUCE

/* ---- memory */

static inline void __threadfence()
{
    ::emu::fence();
}

static inline void __threadfence_block()
{
    ::emu::fence();
}

static inline void __threadfence_system()
{
    ::emu::fence();
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void __nanosleep(unsigned)
{
    ::emu::spin();
}

#define EMU_LOAD(name)                                                                                                 \
    template <class T> static inline T name(const T *p, EMU_AT)                                                        \
    {                                                                                                                  \
        return ::emu::load<T>(p, #name, at);                                                                           \
    }
EMU_LOAD(__ldg)
EMU_LOAD(__ldca)
EMU_LOAD(__ldcg)
EMU_LOAD(__ldcs)
#undef EMU_LOAD

#define EMU_STORE(name)                                                                                                \
    template <class T> static inline void name(T *p, T v, EMU_AT)                                                      \
    {                                                                                                                  \
        ::emu::check_aligned(p, sizeof(T), #name, at);                                                                 \
        *p = v;                                                                                                        \
    }
EMU_STORE(__stcg)
EMU_STORE(__stcs)
EMU_STORE(__stwb)
#undef EMU_STORE

namespace emu
{

template <class T, class F> static inline T read_modify_write(T *p, F change, site at)
{
    check_aligned(p, sizeof(T), "atomic", at);
    before_atomic(p);
    T old, changed;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do
        changed = change(old);
    while (!__atomic_compare_exchange(p, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    after_atomic(p);
    return old;
}

} // namespace emu

/* V: as on a device, atomicAdd(unsigned *, int) compiles. */
template <class T, class V> static inline T atomicAdd(T *p, V v, EMU_AT)
{
    return ::emu::read_modify_write(
        p, [=](T old) { return static_cast<T>(old + static_cast<T>(v)); }, at);
}

template <class T, class V> static inline T atomicMax(T *p, V v, EMU_AT)
{
    return ::emu::read_modify_write(
        p, [=](T old) { return old > static_cast<T>(v) ? old : static_cast<T>(v); }, at);
}

template <class T, class V> static inline T atomicMin(T *p, V v, EMU_AT)
{
    return ::emu::read_modify_write(
        p, [=](T old) { return old < static_cast<T>(v) ? old : static_cast<T>(v); }, at);
}

template <class T, class V> static inline T atomicOr(T *p, V v, EMU_AT)
{
    return ::emu::read_modify_write(
        p, [=](T old) { return static_cast<T>(old | static_cast<T>(v)); }, at);
}

template <class T, class V> static inline T atomicExch(T *p, V v, EMU_AT)
{
    return ::emu::read_modify_write(
        p, [=](T) { return static_cast<T>(v); }, at);
}

template <class T, class C, class V> static inline T atomicCAS(T *p, C expected, V v, EMU_AT)
{
    return ::emu::read_modify_write(
        p, [=](T old) { return old == static_cast<T>(expected) ? static_cast<T>(v) : old; }, at);
}

static inline unsigned atomicInc(unsigned *p, unsigned last, EMU_AT)
{
    return ::emu::read_modify_write(
        p, [=](unsigned old) { return old >= last ? 0u : old + 1; }, at);
}

/* ---- integers and bits */

static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
    return c;
}

static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 32; i += 8)
        c += static_cast<uint8_t>(a >> i) * static_cast<uint8_t>(b >> i);
    return c;
}

static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned which = selector >> (4 * i) & 15;
        unsigned byte = static_cast<uint8_t>(bytes >> (8 * (which & 7)));
        if (which & 8)
            byte = byte & 128 ? 255 : 0;
        r |= byte << (8 * i);
    }
    return r;
}

static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}

static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}

static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}

static inline int __clz(int v)
{
    return v ? __builtin_clz(static_cast<unsigned>(v)) : 32;
}

static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}

static inline int __mulhi(int a, int b)
{
    return static_cast<int>(static_cast<int64_t>(a) * b >> 32);
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

/* The bytes of a word apart: each wraps, compares or differs by itself. */
static inline unsigned __vsub4(unsigned a, unsigned b)
{
    return ((a | 0x80808080u) - (b & 0x7f7f7f7fu)) ^ ((a ^ ~b) & 0x80808080u);
}

static inline unsigned __vadd4(unsigned a, unsigned b)
{
    return ((a & 0x7f7f7f7fu) + (b & 0x7f7f7f7fu)) ^ ((a ^ b) & 0x80808080u);
}

namespace emu
{

template <class To, class From> static inline To bits_as(From v)
{
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To r;
    memcpy(&r, &v, sizeof r);
    return r;
}

} // namespace emu

static inline int __float_as_int(float v)
{
    return ::emu::bits_as<int>(v);
}

static inline unsigned __float_as_uint(float v)
{
    return ::emu::bits_as<unsigned>(v);
}

static inline float __int_as_float(int v)
{
    return ::emu::bits_as<float>(v);
}

static inline float __uint_as_float(unsigned v)
{
    return ::emu::bits_as<float>(v);
}

#define EMU_MIN_MAX(T)                                                                                                 \
    static inline T min(T a, T b)                                                                                      \
    {                                                                                                                  \
        return a < b ? a : b;                                                                                          \
    }                                                                                                                  \
    static inline T max(T a, T b)                                                                                      \
    {                                                                                                                  \
        return a > b ? a : b;                                                                                          \
    }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
#undef EMU_MIN_MAX

/* ---- floats */

static inline float min(float a, float b)
{
    return fminf(a, b);
}

static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

static inline int __float2int_rn(float v)
{
    if (v >= 2147483648.0f)
        return INT32_MAX;
    if (v < -2147483648.0f)
        return INT32_MIN;
    return v != v ? 0 : static_cast<int>(nearbyintf(v));
}

static inline float __int2float_rn(int v)
{
    return static_cast<float>(v);
}

static inline float rsqrtf(float v)
{
    return 1.0f / sqrtf(v);
}

static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float __fsub_rn(float a, float b)
{
    return a - b;
}

static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}

static inline float __fsqrt_rn(float v)
{
    return sqrtf(v);
}

static inline float __frcp_rn(float v)
{
    return 1.0f / v;
}

static inline float __fdividef(float a, float b)
{
    return a / b;
}

static inline float __saturatef(float v)
{
    return v > 0 ? (v < 1 ? v : 1) : 0;
}

/* glibc declares functions of these names. */
#define __expf(v) expf(v)
#define __exp2f(v) exp2f(v)
#define __logf(v) logf(v)
#define __log2f(v) log2f(v)
#define __sinf(v) sinf(v)
#define __cosf(v) cosf(v)

static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c)
{
    const float2 x = __half22float2(a), y = __half22float2(b), z = __half22float2(c);
    return __floats2half2_rn(fmaf(x.x, y.x, z.x), fmaf(x.y, y.y, z.y));
}

static inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c)
{
    const float2 x = __bfloat1622float2(a), y = __bfloat1622float2(b), z = __bfloat1622float2(c);
    return __floats2bfloat162_rn(fmaf(x.x, y.x, z.x), fmaf(x.y, y.y, z.y));
}

#undef EMU_AT

#endif
