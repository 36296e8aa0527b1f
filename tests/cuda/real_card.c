/* card.h for the card that is really there: the runtime is NVIDIA's own, and work runs in the one order in which the
 * card runs it. Modes and seeds change nothing. A test that asks for what such a card cannot do, to fail when told to
 * or to be another one, ends there as skipped. */
#include "tests/cuda/card.h"

#include <criterion/criterion.h>
#include <cuda_runtime_api.h>

static unsigned long long launches;

cudaError_t __real_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **args);
cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **args);
cudaError_t __real_cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);

cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **args)
{
    __atomic_add_fetch(&launches, 1, __ATOMIC_RELAXED);
    return __real_cudaLaunchKernelExC(config, kernel, args);
}

cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    __atomic_add_fetch(&launches, 1, __ATOMIC_RELAXED);
    return __real_cudaGraphLaunch(graph, stream);
}

static void only_in_the_shim(const char *what)
{
    cr_skip("a real card cannot %s\n", what);
}

/* What earlier work left is told here, before it is taken for the next test's. */
void card_insert(card_mode mode, uint64_t seed)
{
    int n = 0;
    (void)mode, (void)seed;
    cudaError_t error = cudaGetDeviceCount(&n);
    cr_assert(error == cudaSuccess && n > 0, "no card: %s",
              error == cudaSuccess ? "the driver knows of none" : cudaGetErrorString(error));
    error = cudaSetDevice(0);
    cr_assert(error == cudaSuccess, "card 0: %s", cudaGetErrorString(error));
    error = cudaDeviceSynchronize();
    cr_assert(error == cudaSuccess, "card 0, work of before: %s", cudaGetErrorString(error));
}

void card_reseed(uint64_t seed)
{
    (void)seed;
}

void card_insert_more(int n)
{
    int all = 0;
    if (cudaGetDeviceCount(&all) != cudaSuccess || all <= n)
        cr_skip("there are not %d cards here\n", n + 1);
}

void card_choose(int index)
{
    (void)index;
}

void card_set_nccl(int present)
{
    if (!present)
        only_in_the_shim("be without NCCL");
}

void card_fail_nccl(unsigned nth)
{
    if (nth)
        only_in_the_shim("fail a call of NCCL");
}

void card_break_nccl(void)
{
    only_in_the_shim("break NCCL");
}

size_t card_used(void)
{
    only_in_the_shim("count its memory");
    return 0;
}

void card_set_bytes(size_t bytes)
{
    (void)bytes;
    only_in_the_shim("have another amount of memory");
}

void card_set_present(int present)
{
    if (!present)
        only_in_the_shim("be away");
}

void card_set_capability(int major, int minor)
{
    (void)major, (void)minor;
    only_in_the_shim("be of another kind");
}

void card_fail_alloc(unsigned nth)
{
    if (nth)
        only_in_the_shim("fail an allocation");
}

void card_fail_launch(unsigned nth)
{
    if (nth)
        only_in_the_shim("fail a launch");
}

void card_lose(unsigned nth)
{
    if (nth)
        only_in_the_shim("be lost");
}

/* The runtime does not say. */
size_t card_leftovers(void)
{
    return 0;
}

unsigned long long card_allocs(void)
{
    only_in_the_shim("count allocations");
    return 0;
}

unsigned long long card_launches(void)
{
    return __atomic_load_n(&launches, __ATOMIC_RELAXED);
}

unsigned long long card_uploaded(void)
{
    only_in_the_shim("count copies");
    return 0;
}

unsigned long long card_bank_conflicts(void)
{
    return 0;
}
