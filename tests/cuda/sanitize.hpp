/* What the sanitizers have to be told. The shim itself is compiled without their instrumentation (it would report its
 * own bookkeeping); EMU_ASAN and EMU_TSAN say which one the program is linked with. */
#ifndef PL_TESTS_CUDA_SANITIZE_HPP
#define PL_TESTS_CUDA_SANITIZE_HPP

#include <stddef.h>

#if defined(EMU_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMU_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *address, unsigned long bytes);
extern "C" void __tsan_write_range(void *address, unsigned long bytes);
#endif

namespace emu
{

#if defined(EMU_TSAN)
constexpr bool with_tsan = true;
#else
constexpr bool with_tsan = false;
#endif

static inline void forbid([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes)
{
#if defined(EMU_ASAN)
    __asan_poison_memory_region(p, bytes);
#endif
}

static inline void permit([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes)
{
#if defined(EMU_ASAN)
    __asan_unpoison_memory_region(p, bytes);
#endif
}

/* The first byte of the range that may not be touched, or NULL. */
static inline const void *forbidden([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes)
{
#if defined(EMU_ASAN)
    return __asan_region_is_poisoned(const_cast<void *>(p), bytes);
#else
    return nullptr;
#endif
}

/* What came before release(x) comes before what follows acquire(x). */
static inline void release([[maybe_unused]] const void *x)
{
#if defined(EMU_TSAN)
    __tsan_release(const_cast<void *>(x));
#endif
}

static inline void acquire([[maybe_unused]] const void *x)
{
#if defined(EMU_TSAN)
    __tsan_acquire(const_cast<void *>(x));
#endif
}

static inline void note_read([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes)
{
#if defined(EMU_TSAN)
    __tsan_read_range(const_cast<void *>(p), bytes);
#endif
}

static inline void note_write([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes)
{
#if defined(EMU_TSAN)
    __tsan_write_range(const_cast<void *>(p), bytes);
#endif
}

} // namespace emu

#endif
