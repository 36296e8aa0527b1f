/* Memory of the card and pinned memory. Fresh bytes are NaNs, a forbidden page follows each allocation, and the host
 * cannot touch what lies on the card. */
#include "tests/cuda/runtime.hpp"
#include "tests/cuda/sanitize.hpp"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

namespace emu
{

namespace
{

constexpr size_t page = 4096, granularity = 256;
constexpr unsigned char nan_byte = 0xff;

size_t rounded(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

void protect(const allocation &a, bool open)
{
    if (a.where == place::device)
        mprotect(a.map, a.map_bytes - page, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

#if !defined(EMU_ASAN) && !defined(EMU_TSAN)
void on_fault(int, siginfo_t *info, void *)
{
    const uintptr_t p = reinterpret_cast<uintptr_t>(info->si_addr);
    const char *what = "an address that nothing was allocated at";
    for (const auto &a : card().allocations) {
        const uintptr_t map = reinterpret_cast<uintptr_t>(a.second.map);
        if (a.second.map && p >= map && p < map + a.second.map_bytes)
            what = p - map >= a.second.map_bytes - page ? "what follows an allocation" : "device memory from the host";
    }
    char text[256];
    const int n = snprintf(text, sizeof text, "emu: %s touches %s (%p)\n", current ? "a kernel" : "the program", what,
                           info->si_addr);
    if (write(STDERR_FILENO, text, static_cast<size_t>(n)) == n)
        signal(SIGSEGV, SIG_DFL);
    else
        _exit(1);
}

void explain_faults()
{
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
}
#else
void explain_faults()
{
}
#endif

cudaError_t allocate(void **out, size_t bytes, place where, bool portable = false)
{
    card_lock lock(card().lock);
    cudaError_t e = usable();
    if (!e)
        e = allowed_in_capture();
    if (e)
        return result(e);
    *out = nullptr;
    const size_t taken = rounded(bytes, granularity);
    if (bytes == 0)
        return cudaSuccess;
    device &d = this_device();
    d.allocs++;
    if (due(&d.fail_alloc) || taken < bytes || (where == place::device && taken > d.bytes - d.used))
        return result(cudaErrorMemoryAllocation);
    allocation a = {where, device_now(), portable, bytes, nullptr, rounded(taken, page) + page};
    void *map = mmap(nullptr, a.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return result(cudaErrorMemoryAllocation);
    explain_faults();
    a.map = static_cast<char *>(map);
    char *begin = a.map + a.map_bytes - page - taken;
    memset(begin, nan_byte, taken);
    mprotect(a.map + a.map_bytes - page, page, PROT_NONE);
    forbid(a.map, static_cast<size_t>(begin - a.map));
    forbid(begin + bytes, taken - bytes + page);
    if (where == place::device)
        d.used += taken;
    if (!card().opened[a.device])
        protect(a, false);
    card().allocations[reinterpret_cast<uintptr_t>(begin)] = a;
    *out = begin;
    return cudaSuccess;
}

/* Bytes between the end asked for and the forbidden page. */
void check_slack(uintptr_t begin, const allocation &a)
{
    permit(a.map, a.map_bytes);
    protect(a, true);
    const unsigned char *p = reinterpret_cast<const unsigned char *>(begin);
    for (size_t i = a.bytes; i < rounded(a.bytes, granularity); i++)
        if (p[i] != nan_byte)
            fail("something wrote %zu bytes past the end of an allocation of %zu bytes", i - a.bytes, a.bytes);
}

void give_back(std::map<uintptr_t, allocation>::iterator it)
{
    const allocation &a = it->second;
    if (a.map) {
        check_slack(it->first, a);
        munmap(a.map, a.map_bytes);
    }
    if (a.where == place::device)
        card().devices[a.device].used -= rounded(a.bytes, granularity);
    card().allocations.erase(it);
}

cudaError_t release_memory(void *p, place where)
{
    if (!p)
        return cudaSuccess;
    if (allowed_in_capture())
        return result(cudaErrorStreamCaptureUnsupported);
    int owner;
    {
        card_lock lock(card().lock);
        const allocation *a = find_allocation(p, 0);
        if (!a || a->where != where)
            return result(cudaErrorInvalidValue);
        owner = a->device;
    }
    wait_for_all(owner);
    card_lock lock(card().lock);
    auto it = card().allocations.find(reinterpret_cast<uintptr_t>(p));
    if (it == card().allocations.end())
        return result(cudaErrorInvalidValue);
    give_back(it);
    return result(usable());
}

void check_range(const char *call, const char *which, const void *p, size_t bytes, bool pageable_too)
{
    card_lock lock(card().lock);
    if (bytes == 0 || find_allocation(p, bytes))
        return;
    if (find_allocation(p, 1))
        fail("%s: its %s reaches beyond the allocation (%zu bytes)", call, which, bytes);
    if (!pageable_too)
        fail("%s: its %s is neither on the card nor pinned", call, which);
}

} // namespace

const allocation *find_allocation(const void *p, size_t bytes)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    auto it = card().allocations.upper_bound(at);
    if (it == card().allocations.begin())
        return nullptr;
    --it;
    return at - it->first <= it->second.bytes && bytes <= it->second.bytes - (at - it->first) ? &it->second : nullptr;
}

static void protect_all(int index, bool open)
{
    for (const auto &a : card().allocations)
        if (a.second.device == index)
            protect(a.second, open);
}

void open_device(int index)
{
    card_lock lock(card().lock);
    if (card().opened[index]++ == 0)
        protect_all(index, true);
}

void close_device(int index)
{
    card_lock lock(card().lock);
    if (--card().opened[index] == 0)
        protect_all(index, false);
}

void check_pointer_argument(const char *kernel, int index, const void *p)
{
    card_lock lock(card().lock);
    if (!p)
        return;
    const allocation *a = find_allocation(p, 0);
    if (!a)
        fail("%s: argument %d (%p) is neither device memory nor pinned", kernel, index, p);
    if (a->device != device_now() && !a->portable)
        fail("%s: argument %d (%p) is memory of card %d, it runs on card %d", kernel, index, p, a->device,
             device_now());
}

} // namespace emu

using namespace emu;

/* A copy may be queued on any card's stream. */
static int owner_of(const void *p)
{
    card_lock lock(card().lock);
    const allocation *a = find_allocation(p, 0);
    return a ? a->device : device_now();
}

/* Not on any stream. */
template <class F> static cudaError_t at_once(F change)
{
    cudaError_t e = usable();
    if (!e)
        e = allowed_in_capture();
    if (e)
        return result(e);
    for (int i = 0; i < card().n_devices; i++)
        open_device(i);
    change();
    for (int i = 0; i < card().n_devices; i++)
        close_device(i);
    return cudaSuccess;
}

extern "C" {

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    return allocate(p, bytes, place::device);
}

cudaError_t cudaFree(void *p)
{
    return release_memory(p, place::device);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    return allocate(p, bytes, place::pinned, (flags & cudaHostAllocPortable) != 0);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return allocate(p, bytes, place::pinned);
}

cudaError_t cudaFreeHost(void *p)
{
    return release_memory(p, place::pinned);
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags)
{
    card_lock lock(card().lock);
    cudaError_t e = usable();
    if (e)
        return result(e);
    this_device().allocs++;
    if (due(&this_device().fail_alloc))
        return result(cudaErrorMemoryAllocation);
    if (find_allocation(p, 0))
        return result(cudaErrorHostMemoryAlreadyRegistered);
    const bool portable = (flags & cudaHostRegisterPortable) != 0;
    card().allocations[reinterpret_cast<uintptr_t>(p)] = {place::registered, device_now(), portable, bytes, nullptr, 0};
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    return release_memory(p, place::registered);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned)
{
    card_lock lock(card().lock);
    const allocation *a = find_allocation(host, 0);
    *device = host;
    return result(a && a->where != place::device ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    card_lock lock(card().lock);
    *free_bytes = this_device().bytes - this_device().used;
    *total = this_device().bytes;
    return result(usable());
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t to)
{
    if (kind == cudaMemcpyHostToDevice) {
        card_lock lock(card().lock);
        this_device().uploaded += bytes;
    }
    check_range("cudaMemcpyAsync", "target", dst, bytes, false);
    check_range("cudaMemcpyAsync", "source", src, bytes, false);
    const int from = owner_of(src), target = owner_of(dst);
    return enqueue(to, make_action([=] {
                       open_device(from);
                       open_device(target);
                       memcpy(dst, src, bytes);
                       close_device(target);
                       close_device(from);
                   }));
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t to)
{
    if (width > dst_pitch || width > src_pitch)
        return result(cudaErrorInvalidPitchValue);
    if (width && height) {
        check_range("cudaMemcpy2DAsync", "target", dst, (height - 1) * dst_pitch + width, false);
        check_range("cudaMemcpy2DAsync", "source", src, (height - 1) * src_pitch + width, false);
    }
    return enqueue(to, make_action([=] {
                       for (size_t i = 0; i < height; i++)
                           memcpy(static_cast<char *>(dst) + i * dst_pitch,
                                  static_cast<const char *>(src) + i * src_pitch, width);
                   }));
}

/* As on a card, it waits for no stream. */
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind)
{
    check_range("cudaMemcpy", "target", dst, bytes, true);
    check_range("cudaMemcpy", "source", src, bytes, true);
    return at_once([=] { memcpy(dst, src, bytes); });
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t to)
{
    check_range("cudaMemsetAsync", "target", dst, bytes, false);
    if (to && stream_of(to)->device != device_now())
        return result(cudaErrorInvalidResourceHandle);
    return enqueue(to, make_action([=] { memset(dst, value, bytes); }));
}

cudaError_t cudaMemset(void *dst, int value, size_t bytes)
{
    check_range("cudaMemset", "target", dst, bytes, false);
    return at_once([=] { memset(dst, value, bytes); });
}

} // extern "C"
