/* What a kernel file sees of a card when it is compiled for the CPU: cuda/kd.cuh includes this in place of nvcc's own.
 * Each CUDA thread is a fiber of one thread of the machine, run in an order that the seed decides. Shared memory and
 * device memory start as NaNs. A mistake ends the process with a message that names kernel, block, thread and line. */
#ifndef PL_TESTS_CUDA_EMU_HPP
#define PL_TESTS_CUDA_EMU_HPP

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/* The toolkit's headers leave these to the compiler; written by hand they would be silently wrong. */
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __shared__
#define __shared__ kd_shared_memory_is_written_KD_SHARED
#undef __constant__
#define __constant__ kd_has_no_constant_memory

namespace emu
{

/* A line of a kernel, for reports. */
struct site {
    const char *file;
    int line;

    static constexpr site here(const char *file = __builtin_FILE(), int line = __builtin_LINE())
    {
        return {file, line};
    }
};

struct block_view {
    uint3 index;
    dim3 block_size, grid_size;
};

struct thread_view {
    uint3 index;
    unsigned lane;
    const block_view *block;
};

/* The CUDA thread that runs; NULL outside kernels. */
extern __thread const thread_view *current;

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- block and warp; every named lane or thread has to come */

enum class vote { ballot, any, all };
enum class tally { count, all, any };
enum class shuffle { index, up, down, exclusive_or };
enum class reduce { add, max_signed, min_signed, max_unsigned, min_unsigned, bit_and, bit_or, bit_xor };

void sync_threads(site at);
int sync_threads_tally(tally what, int predicate, site at);
void bar_sync(int id, int threads, site at);
void sync_warp(uint32_t mask, site at);
uint32_t active_mask();
uint32_t vote_sync(vote what, uint32_t mask, int predicate, site at);
uint64_t shuffle_sync(shuffle how, uint32_t mask, uint64_t value, int argument, int width, site at);
uint32_t reduce_sync(reduce what, uint32_t mask, uint32_t value, site at);
/* The sums of five exchanges (16, 8, 4, 2, 1) in one meeting. */
float warp_sum(float value, site at);
float warp_max(float value, site at);
void ldmatrix(uint32_t *out, int matrices, const void *row, bool transposed, site at);
void mma_bf16_16816(float *d, const uint32_t *a, uint32_t b0, uint32_t b1, site at);
void mma_f16_16816(float *d, const uint32_t *a, uint32_t b0, uint32_t b1, site at);
void mma_s8_16832(int32_t *d, const uint32_t *a, uint32_t b0, uint32_t b1, site at);

/* ---- memory */

void *static_shared(const void *variable, size_t bytes, const char *name);
void *dynamic_shared();
[[noreturn]] void misaligned(const void *p, size_t alignment, const char *what, site at);
void cp_async(void *dst, const void *src, int bytes, int valid, site at);
void cp_async_commit();
void cp_async_wait(int groups);
void fence();
/* Lets others run, as a busy wait must. */
void spin();
void before_atomic(const void *p);
void after_atomic(const void *p);
unsigned ld_acquire(const unsigned *p);
unsigned atom_add_release(unsigned *p, unsigned v);
unsigned atom_add_acq_rel(unsigned *p, unsigned v);

static inline void check_aligned(const void *p, size_t alignment, const char *what, site at)
{
    if (reinterpret_cast<uintptr_t>(p) & (alignment - 1))
        misaligned(p, alignment, what, at);
}

template <class T> static inline T load(const void *p, const char *what, site at)
{
    check_aligned(p, sizeof(T), what, at);
    return *static_cast<const T *>(p);
}

/* ---- launch */

/* A kernel with its arguments. */
struct body {
    virtual ~body() = default;
    virtual void run() const = 0;
};

struct launch {
    const char *kernel;
    dim3 grid, block;
    size_t dynamic_bytes;
    bool cooperative;
    const body *code; /* owned by whom it is given to */
};

cudaError_t enqueue_launch(cudaStream_t stream, const launch &what, const void *function);
cudaError_t allow_dynamic_bytes(const void *function, size_t bytes);
void check_pointer_argument(const char *kernel, int index, const void *p);

template <class... P> struct bound_body final : body {
    void (*kernel)(P...);
    std::tuple<P...> args;

    bound_body(void (*k)(P...), std::tuple<P...> &&a) : kernel(k), args(std::move(a))
    {
    }
    void run() const override
    {
        std::apply(kernel, args);
    }
};

template <class T> static inline void check_argument(const char *kernel, int index, const T &value)
{
    if constexpr (std::is_pointer<T>::value)
        check_pointer_argument(kernel, index, static_cast<const void *>(value));
    else
        (void)kernel, (void)index, (void)value;
}

} // namespace emu

#define threadIdx (::emu::current->index)
#define blockIdx (::emu::current->block->index)
#define blockDim (::emu::current->block->block_size)
#define gridDim (::emu::current->block->grid_size)
static constexpr int warpSize = 32;

#define KD_SHARED(T, name, dims)                                                                                       \
    typedef T kd_type_##name dims;                                                                                     \
    static char kd_key_##name;                                                                                         \
    kd_type_##name &name = *static_cast<kd_type_##name *>(                                                             \
        ::emu::static_shared(&kd_key_##name, sizeof(kd_type_##name), #name))
#define KD_DYN_SHARED(T, name) T *name = static_cast<T *>(::emu::dynamic_shared())

#include "tests/cuda/intrinsics.hpp"

namespace kd
{

struct launch_cfg {
    dim3 grid, block;
    size_t smem;
    cudaStream_t stream;
    bool coop;
};

template <class... P, class... A>
inline cudaError_t launch(const char *name, void (*kernel)(P...), const launch_cfg &cfg, A &&...args)
{
    std::tuple<P...> bound(static_cast<P>(args)...);
    int index = 0;
    std::apply([&](const auto &...value) { (::emu::check_argument(name, index++, value), ...); }, bound);
    const ::emu::body *code = new ::emu::bound_body<P...>(kernel, std::move(bound));
    return ::emu::enqueue_launch(cfg.stream, {name, cfg.grid, cfg.block, cfg.smem, cfg.coop, code},
                                 reinterpret_cast<const void *>(kernel));
}

template <class K> inline cudaError_t allow_smem(K *kernel, size_t bytes)
{
    return ::emu::allow_dynamic_bytes(reinterpret_cast<const void *>(kernel), bytes);
}

static inline float warp_sum(float v, ::emu::site at = ::emu::site::here())
{
    return ::emu::warp_sum(v, at);
}

static inline int warp_sum(int v, ::emu::site at = ::emu::site::here())
{
    return static_cast<int>(::emu::reduce_sync(::emu::reduce::add, 0xffffffffu, static_cast<uint32_t>(v), at));
}

static inline float warp_max(float v, ::emu::site at = ::emu::site::here())
{
    return ::emu::warp_max(v, at);
}

static inline int to_int(float v)
{
    return __float2int_rn(v);
}

} // namespace kd

#endif
