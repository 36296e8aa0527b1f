/* The card itself: what it says of itself, what tests decide, errors. */
#include "tests/cuda/grid.hpp"
#include "tests/cuda/runtime.hpp"

#include <algorithm>
#include <stdio.h>
#include <stdlib.h>

namespace emu
{

constexpr int processors = 4, threads_of_processor = 1536, blocks_of_processor = 16;

card_state &card()
{
    /* Never destroyed: threads of the program may outlive main(). */
    static card_state *state = new card_state();
    return *state;
}

static thread_local int chosen_by_thread;
static thread_local cudaError_t last_error;

int device_now()
{
    return chosen_by_thread;
}

device &this_device()
{
    return card().devices[chosen_by_thread];
}

uint32_t card_random(uint32_t n)
{
    uint64_t &state = card().random;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<uint32_t>((state >> 16 & 0xffffffffu) * n >> 32);
}

bool due(unsigned *countdown)
{
    return *countdown && --*countdown == 0;
}

cudaError_t result(cudaError_t e)
{
    if (e)
        last_error = e;
    return e;
}

size_t shared_room()
{
    card_lock lock(card().lock);
    return card().major < 8 ? shared_before_ampere : shared_opt_in;
}

} // namespace emu

using namespace emu;

extern "C" {

/* ---- what tests decide */

void card_reseed(uint64_t seed)
{
    card_lock lock(card().lock);
    card().random = (seed + 1) * 0x9e3779b97f4a7c15ull;
    seed_order(seed);
}

size_t card_leftovers(void)
{
    card_lock lock(card().lock);
    return card().allocations.size() + card().streams.size() + card().events + card().graphs + card().communicators;
}

void card_insert(card_mode mode, uint64_t seed)
{
    static bool once;
    if (card().worker.joinable())
        stop_worker();
    card_state &c = card();
    if (card_leftovers() || !c.pending.empty())
        fail("left on the card: %zu allocations, %zu streams, %zu events, %zu graphs, %zu communicators, %zu pieces of "
             "work",
             c.allocations.size(), c.streams.size(), c.events, c.graphs, c.communicators, c.pending.size());
    c.mode = mode;
    c.present = c.nccl = true;
    card_set_capability(8, 9);
    c.n_devices = 1;
    c.chosen = 0;
    c.devices[0] = {};
    c.fail_nccl = 0;
    c.nccl_broken = false;
    chosen_by_thread = 0;
    last_error = cudaSuccess;
    c.dynamic_limit.clear();
    bank_conflicts = 0;
    card_reseed(seed);
    if (mode != CARD_THREADED)
        return;
    if (!once)
        atexit(stop_worker);
    once = true;
    start_worker();
}

void card_insert_more(int n)
{
    card_lock lock(card().lock);
    if (n < 0 || card().n_devices + n > CARD_MOST)
        fail("%d more cards: %d are possible", n, CARD_MOST);
    for (; n > 0; n--)
        card().devices[card().n_devices++] = {};
}

void card_choose(int index)
{
    card_lock lock(card().lock);
    if (index < 0 || index >= card().n_devices)
        fail("card %d of %d", index, card().n_devices);
    card().chosen = index;
}

static device &meant()
{
    return card().devices[card().chosen];
}

void card_set_bytes(size_t bytes)
{
    card_lock lock(card().lock);
    meant().bytes = std::max(bytes, meant().used);
}

void card_set_nccl(int present)
{
    card_lock lock(card().lock);
    card().nccl = present != 0;
}

void card_fail_nccl(unsigned nth)
{
    card_lock lock(card().lock);
    card().fail_nccl = nth;
}

void card_break_nccl(void)
{
    card_lock lock(card().lock);
    card().nccl_broken = true;
}

size_t card_used(void)
{
    card_lock lock(card().lock);
    return meant().used;
}

void card_set_present(int present)
{
    card_lock lock(card().lock);
    card().present = present != 0;
}

void card_set_capability(int major, int minor)
{
    card_lock lock(card().lock);
    card().major = major;
    card().minor = minor;
}

void card_fail_alloc(unsigned nth)
{
    card_lock lock(card().lock);
    meant().fail_alloc = nth;
}

void card_fail_launch(unsigned nth)
{
    card_lock lock(card().lock);
    meant().fail_launch = nth;
}

void card_lose(unsigned nth)
{
    card_lock lock(card().lock);
    meant().lose = nth;
}

unsigned long long card_allocs(void)
{
    card_lock lock(card().lock);
    return meant().allocs;
}

unsigned long long card_launches(void)
{
    card_lock lock(card().lock);
    return meant().launches;
}

unsigned long long card_uploaded(void)
{
    card_lock lock(card().lock);
    return meant().uploaded;
}

unsigned long long card_bank_conflicts(void)
{
    return bank_conflicts;
}

/* ---- what the runtime says of the card: as a small one would */

cudaError_t cudaDriverGetVersion(int *version)
{
    card_lock lock(card().lock);
    *version = card().present ? CUDART_VERSION : 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    card_lock lock(card().lock);
    *n = card().present ? card().n_devices : 0;
    return result(card().present ? cudaSuccess : cudaErrorNoDevice);
}

static bool usable_index(int index)
{
    return !card().present || (index >= 0 && index < card().n_devices);
}

cudaError_t cudaSetDevice(int index)
{
    card_lock lock(card().lock);
    if (!usable_index(index))
        return result(cudaErrorInvalidDevice);
    chosen_by_thread = index;
    return result(usable());
}

cudaError_t cudaGetDevice(int *index)
{
    *index = chosen_by_thread;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int index)
{
    card_lock lock(card().lock);
    memset(out, 0, sizeof *out);
    if (!usable_index(index))
        return result(cudaErrorInvalidDevice);
    snprintf(out->name, sizeof out->name, "CPU in place of a card");
    out->major = card().major;
    out->minor = card().minor;
    out->multiProcessorCount = processors;
    out->totalGlobalMem = card().devices[index].bytes;
    out->sharedMemPerBlock = shared_default;
    out->sharedMemPerBlockOptin = shared_room();
    out->sharedMemPerMultiprocessor = shared_room() + 1024;
    out->warpSize = warp_lanes;
    out->maxThreadsPerBlock = max_block_threads;
    out->maxThreadsPerMultiProcessor = threads_of_processor;
    out->l2CacheSize = 32 << 20;
    out->pciBusID = index + 1;
    return result(usable_on(index));
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr what, int)
{
    switch (what) {
    case cudaDevAttrMultiProcessorCount: *value = processors; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = card().major; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = card().minor; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(shared_room()); return cudaSuccess;
    case cudaDevAttrCooperativeLaunch: *value = 1; return cudaSuccess;
    default: fail("cudaDeviceGetAttribute: attribute %d is not known here", static_cast<int>(what));
    }
}

cudaError_t cudaDeviceGetPCIBusId(char *out, int bytes, int index)
{
    card_lock lock(card().lock);
    if (!usable_index(index))
        return result(cudaErrorInvalidDevice);
    snprintf(out, static_cast<size_t>(bytes), "0000:%02x:00.0", static_cast<unsigned>(index) + 1);
    return result(usable_on(index));
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, const void *, int threads, size_t dynamic_bytes)
{
    int n = std::min(blocks_of_processor, threads_of_processor / std::max(threads, 1));
    if (dynamic_bytes)
        n = std::min(n, static_cast<int>(shared_room() / dynamic_bytes));
    *out = n;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset(void)
{
    wait_for_all(chosen_by_thread);
    return cudaSuccess;
}

/* ---- errors */

cudaError_t cudaGetLastError(void)
{
    card_lock lock(card().lock);
    const cudaError_t e = last_error;
    last_error = this_device().lost ? e : cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorLaunchOutOfResources: return "cudaErrorLaunchOutOfResources";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    default: return "cudaErrorUnknown";
    }
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    default: return "an error that has no text here";
    }
}

} // extern "C"
