/* The stand-in for the CUDA runtime: it does what the runtime promises, no more, and fails when asked to. */
#include "cuda/nccl.h"
#include "tests/cuda/faults.hpp"
#include "tests/cuda/fixture.hpp"
#include "tests/cuda/in_child.hpp"

#include <atomic>
#include <string.h>
#include <thread>
#include <unistd.h>

#if defined(EMU_ASAN) || defined(EMU_TSAN)
static const uint64_t seeds = 2;
#else
static const uint64_t seeds = 8;
#endif

/* A value in pinned memory. */
template <class T> struct pinned {
    T *p = nullptr;

    explicit pinned(T v)
    {
        expect_done(cudaHostAlloc(reinterpret_cast<void **>(&p), sizeof(T), cudaHostAllocDefault));
        *p = v;
    }
    pinned(const pinned &) = delete;
    ~pinned()
    {
        cudaFreeHost(p);
    }
};

/* ---- streams and events */

/* One stream copies 5 to the card, the other adds 1 to it and copies the result back. */
static float two_streams(bool with_wait)
{
    pinned<float> in(5), out(0);
    on_card<float> x(std::vector<float>(1, 100.0f)), y(std::vector<float>(1, 0.0f));
    a_stream copies, work;
    an_event copied;
    expect_done(cudaMemcpyAsync(x.p, in.p, sizeof(float), cudaMemcpyHostToDevice, copies));
    expect_done(cudaEventRecord(copied, copies));
    if (with_wait)
        expect_done(cudaStreamWaitEvent(work, copied, 0));
    expect_done(faults_add(work, x.p, 1, y.p, 1));
    expect_done(cudaMemcpyAsync(out.p, y.p, sizeof(float), cudaMemcpyDeviceToHost, work));
    expect_done(cudaStreamSynchronize(work));
    const float got = *out.p;
    expect_done(cudaDeviceSynchronize());
    return got;
}

Test(card, streams_wait_for_events)
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        for (uint64_t seed = 0; seed <= seeds; seed++) {
            card_insert(static_cast<card_mode>(mode), seed);
            const float got = two_streams(true);
            cr_assert(got == 6, "mode %d, seed %d: %g", mode, static_cast<int>(seed), static_cast<double>(got));
        }
    card_insert(CARD_EAGER, 0);
}

Test(card, a_missing_wait_is_caught)
{
    for (uint64_t seed = 0; seed <= seeds; seed++) {
        card_insert(CARD_ASKED, seed);
        cr_assert(two_streams(false) == 101);
    }
    unsigned wrong = 0;
    for (uint64_t seed = 0; seed <= 16; seed++) {
        card_insert(CARD_STARVE, seed);
        wrong += two_streams(false) == 101;
    }
    cr_assert(wrong >= 4 && wrong <= 13, "%u", wrong);
    card_insert(CARD_EAGER, 0);
}

Test(card, nothing_runs_before_the_host_waits)
{
    card_insert(CARD_ANY, 3);
    pinned<float> out(0);
    on_card<float> x(std::vector<float>(1, 5.0f));
    a_stream s;
    expect_done(cudaMemcpyAsync(out.p, x.p, sizeof(float), cudaMemcpyDeviceToHost, s));
    cr_expect(*out.p == 0);
    expect_done(cudaStreamSynchronize(s));
    cr_expect(*out.p == 5);
    an_event done;
    *out.p = 0;
    expect_done(cudaMemcpyAsync(out.p, x.p, sizeof(float), cudaMemcpyDeviceToHost, s));
    expect_done(cudaEventRecord(done, s));
    int turns = 0;
    for (cudaError_t e; (e = cudaEventQuery(done)) != cudaSuccess; turns++)
        cr_assert(e == cudaErrorNotReady && turns < 1000);
    cr_expect(*out.p == 5);
}

static void add_one(void *data)
{
    ++*static_cast<float *>(data);
}

Test(card, host_functions)
{
    for (int mode = 0; mode < CARD_MODES; mode++) {
        card_insert(static_cast<card_mode>(mode), 1);
        pinned<float> v(1);
        on_card<float> x(1);
        a_stream s;
        expect_done(cudaLaunchHostFunc(s, add_one, v.p));
        expect_done(cudaMemcpyAsync(x.p, v.p, sizeof(float), cudaMemcpyHostToDevice, s));
        expect_done(cudaLaunchHostFunc(s, add_one, v.p));
        expect_done(cudaStreamSynchronize(s));
        cr_expect(*v.p == 3 && x.get()[0] == 2);
    }
    card_insert(CARD_EAGER, 0);
    const child_end end = in_child([] {
        card_insert(CARD_ANY, 1);
        a_stream s;
        const auto call = [](void *) { cudaDeviceSynchronize(); };
        return cudaLaunchHostFunc(s, call, nullptr) == cudaSuccess && cudaStreamSynchronize(s) == cudaSuccess;
    });
    cr_expect(!end.well && end.said.find("within a host function") != std::string::npos);
}

/* A kernel that waits for a flag which another thread sets. */
Test(card, kernels_may_wait_for_the_host)
{
    for (card_mode mode : {CARD_ANY, CARD_ASKED, CARD_THREADED}) {
        card_insert(mode, 2);
        pinned<unsigned> flag(0);
        on_card<float> x(std::vector<float>(1, 7.0f)), y(std::vector<float>(1, 0.0f));
        a_stream s;
        expect_done(faults_poll(s, flag.p, x.p, y.p));
        std::thread setter([&flag] {
            usleep(20000);
            __atomic_store_n(flag.p, 1u, __ATOMIC_RELEASE);
        });
        expect_done(cudaStreamSynchronize(s));
        setter.join();
        cr_expect(y.get()[0] == 7);
    }
    card_insert(CARD_EAGER, 0);
}

/* ---- graphs */

static cudaGraphExec_t captured(cudaStream_t main, cudaStream_t side, const float *x, float *y, float *z, float *out)
{
    an_event forked, joined;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    expect_done(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal));
    expect_done(faults_add(main, x, 1, y, 1));
    expect_done(cudaEventRecord(forked, main));
    expect_done(cudaStreamWaitEvent(side, forked, 0));
    expect_done(faults_add(side, y, 10, z, 1));
    expect_done(cudaEventRecord(joined, side));
    expect_done(cudaStreamWaitEvent(main, joined, 0));
    expect_done(cudaMemcpyAsync(out, z, sizeof(float), cudaMemcpyDeviceToHost, main));
    expect_done(cudaStreamEndCapture(main, &graph));
    expect_done(cudaGraphInstantiate(&exec, graph, 0));
    expect_done(cudaGraphDestroy(graph));
    return exec;
}

Test(card, graphs_run_again_and_again)
{
    for (int mode = 0; mode < CARD_MODES; mode++)
        for (uint64_t seed = 0; seed <= seeds; seed++) {
            card_insert(static_cast<card_mode>(mode), seed);
            pinned<float> in(0), out(0);
            on_card<float> x(std::vector<float>(1, 0.0f)), y(1), z(1);
            a_stream main, side;
            cudaGraphExec_t exec = captured(main, side, x.p, y.p, z.p, out.p);
            cr_expect(*out.p == 0);
            for (int i = 1; i <= 3; i++) {
                *in.p = static_cast<float>(i);
                expect_done(cudaMemcpyAsync(x.p, in.p, sizeof(float), cudaMemcpyHostToDevice, main));
                expect_done(cudaGraphLaunch(exec, main));
                expect_done(cudaStreamSynchronize(main));
                cr_assert(*out.p == static_cast<float>(i + 11), "mode %d, launch %d", mode, i);
            }
            expect_done(cudaGraphExecDestroy(exec));
        }
    card_insert(CARD_EAGER, 0);
}

Test(card, captures_refuse_what_they_cannot_hold)
{
    card_insert(CARD_EAGER, 0);
    on_card<float> x(std::vector<float>(1, 0.0f)), y(1);
    a_stream main, side;
    an_event forked;
    cudaGraph_t graph;
    void *p;
    expect_done(cudaStreamBeginCapture(main, cudaStreamCaptureModeGlobal));
    cr_expect(cudaMalloc(&p, 4) == cudaErrorStreamCaptureUnsupported);
    cr_expect(cudaStreamEndCapture(main, &graph) == cudaErrorStreamCaptureInvalidated && !graph);

    expect_done(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal));
    cr_expect(cudaStreamSynchronize(main) == cudaErrorStreamCaptureUnsupported);
    cr_expect(cudaStreamEndCapture(main, &graph) == cudaErrorStreamCaptureInvalidated);

    expect_done(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal));
    expect_done(cudaEventRecord(forked, main));
    expect_done(cudaStreamWaitEvent(side, forked, 0));
    expect_done(faults_add(side, x.p, 1, y.p, 1));
    cr_expect(cudaStreamEndCapture(main, &graph) == cudaErrorStreamCaptureUnjoined);
    cr_expect(cudaStreamEndCapture(main, &graph) == cudaErrorIllegalState);
    expect_done(faults_add(side, x.p, 1, y.p, 1));
    cudaGetLastError();
}

/* ---- failures */

Test(card, memory_runs_out)
{
    card_insert(CARD_EAGER, 0);
    card_set_bytes(1 << 20);
    size_t left = 0, total = 0;
    void *a, *b;
    expect_done(cudaMalloc(&a, 900 << 10));
    cr_expect(cudaMalloc(&b, 200 << 10) == cudaErrorMemoryAllocation && !b);
    cr_expect(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess);
    expect_done(cudaMemGetInfo(&left, &total));
    cr_expect(total == 1 << 20 && left == 124 << 10, "%zu of %zu", left, total);
    expect_done(cudaMalloc(&b, 124 << 10));
    cr_expect(card_leftovers() == 2);
    expect_done(cudaFree(a));
    expect_done(cudaFree(b));
    cr_expect(cudaFree(&left) == cudaErrorInvalidValue);
    cr_expect(card_leftovers() == 0);
}

Test(card, allocations_and_launches_fail_on_demand)
{
    card_insert(CARD_EAGER, 0);
    on_card<float> x(std::vector<float>(1, 0.0f));
    a_stream s;
    void *p;
    card_fail_alloc(2);
    expect_done(cudaMalloc(&p, 4));
    expect_done(cudaFree(p));
    cr_expect(cudaHostAlloc(&p, 4, 0) == cudaErrorMemoryAllocation);
    expect_done(cudaMalloc(&p, 4));
    expect_done(cudaFree(p));
    card_fail_launch(2);
    expect_done(faults_add(s, x.p, 1, x.p, 1));
    cr_expect(faults_add(s, x.p, 1, x.p, 1) == cudaErrorLaunchOutOfResources);
    expect_done(faults_add(s, x.p, 1, x.p, 1));
    expect_done(cudaStreamSynchronize(s));
    cr_expect(x.get()[0] == 2);
    cudaGetLastError();
}

Test(card, a_lost_card_stays_lost)
{
    for (card_mode mode : {CARD_EAGER, CARD_ANY, CARD_THREADED}) {
        card_insert(mode, 1);
        {
            on_card<float> x(std::vector<float>(1, 0.0f));
            pinned<float> out(0);
            a_stream s;
            an_event e;
            card_lose(2);
            expect_done(faults_add(s, x.p, 1, x.p, 1));
            cudaMemcpyAsync(out.p, x.p, sizeof(float), cudaMemcpyDeviceToHost, s);
            cr_expect(cudaStreamSynchronize(s) == cudaErrorLaunchFailure);
            cr_expect(*out.p == 0);
            void *p;
            cr_expect(cudaMalloc(&p, 4) == cudaErrorLaunchFailure);
            cr_expect(cudaEventRecord(e, s) == cudaErrorLaunchFailure);
            cr_expect(faults_add(s, x.p, 1, x.p, 1) == cudaErrorLaunchFailure);
            cr_expect(cudaGetLastError() == cudaErrorLaunchFailure && cudaGetLastError() == cudaErrorLaunchFailure);
        }
        cr_expect(card_leftovers() == 0, "what is given back is gone all the same");
    }
    card_insert(CARD_EAGER, 0);
}

Test(card, launches_of_impossible_shapes)
{
    card_insert(CARD_EAGER, 0);
    on_card<float> x(std::vector<float>(1, 0.0f));
    a_stream s;
    cr_expect(faults_add(s, x.p, 1, x.p, 0) == cudaErrorInvalidConfiguration);
    card_set_present(0);
    int n = -1, driver = -1;
    cr_expect(cudaGetDeviceCount(&n) == cudaErrorNoDevice && n == 0);
    expect_done(cudaDriverGetVersion(&driver));
    cr_expect(driver == 0);
    card_set_present(1);
    cudaGetLastError();
}

/* ---- several cards */

/* What runs while `index` is the thread's card. */
struct on_device {
    explicit on_device(int index)
    {
        expect_done(cudaSetDevice(index));
    }
    ~on_device()
    {
        cudaSetDevice(0);
    }
};

Test(card, several_cards)
{
    card_insert(CARD_EAGER, 0);
    card_insert_more(2);
    char first[32], last[32];
    int n = 0, device = -1;
    size_t left[2], all;
    expect_done(cudaGetDeviceCount(&n));
    cr_expect(n == 3 && cudaSetDevice(3) == cudaErrorInvalidDevice);
    expect_done(cudaDeviceGetPCIBusId(first, sizeof first, 0));
    expect_done(cudaDeviceGetPCIBusId(last, sizeof last, 2));
    cr_expect(strcmp(first, last) != 0);
    on_device there(2);
    on_card<float> x(1000);
    expect_done(cudaMemGetInfo(&left[1], &all));
    std::thread([&] { /* a thread begins with the first card */
                      expect_done(cudaGetDevice(&device));
                      expect_done(cudaMemGetInfo(&left[0], &all));
    })
        .join();
    cr_expect(device == 0 && left[0] == all && left[1] < all);
}

/* Copies, and waits for events, may cross from card to card; launches, memsets, records and graphs may not. */
Test(card, what_is_of_a_card)
{
    card_insert(CARD_ANY, 0);
    card_insert_more(1);
    a_stream here;
    an_event event;
    on_card<float> x(std::vector<float>(1, 5.0f));
    on_device other(1);
    a_stream there;
    on_card<float> y(1);
    cr_expect(faults_add(here, y.p, 1, y.p, 1) == cudaErrorInvalidResourceHandle);
    cr_expect(cudaMemsetAsync(x.p, 0, 4, here) == cudaErrorInvalidResourceHandle);
    cr_expect(cudaEventRecord(event, there) == cudaErrorInvalidResourceHandle);
    expect_done(cudaEventRecord(event, here));
    expect_done(cudaStreamWaitEvent(there, event, 0));
    expect_done(cudaMemcpyAsync(y.p, x.p, sizeof(float), cudaMemcpyDeviceToDevice, here));
    expect_done(cudaStreamSynchronize(here));
    cr_expect(y.get()[0] == 5);
    expect_done(cudaStreamSynchronize(there));
    cudaGraph_t graph;
    cudaGraphExec_t made;
    expect_done(cudaStreamBeginCapture(there, cudaStreamCaptureModeThreadLocal));
    expect_done(faults_add(there, y.p, 1, y.p, 1));
    expect_done(cudaStreamEndCapture(there, &graph));
    expect_done(cudaGraphInstantiate(&made, graph, 0));
    cr_expect(cudaGraphLaunch(made, here) == cudaErrorInvalidResourceHandle);
    expect_done(cudaGraphLaunch(made, there));
    expect_done(cudaStreamSynchronize(there));
    cr_expect(y.get()[0] == 6);
    cudaGraphExecDestroy(made);
    cudaGraphDestroy(graph);
    cudaGetLastError();
}

Test(card, a_lost_card_leaves_the_others)
{
    card_insert(CARD_ANY, 0);
    card_insert_more(1);
    on_card<float> x(std::vector<float>(1, 5.0f));
    a_stream here;
    {
        on_device other(1);
        a_stream there;
        on_card<float> y(1);
        card_choose(1);
        card_lose(1);
        expect_done(cudaMemsetAsync(y.p, 0, 4, there));
        cr_expect(cudaStreamSynchronize(there) == cudaErrorLaunchFailure);
    }
    cr_expect(cudaSetDevice(1) == cudaErrorLaunchFailure);
    expect_done(cudaSetDevice(0));
    expect_done(faults_add(here, x.p, 1, x.p, 1));
    expect_done(cudaStreamSynchronize(here));
    cr_expect(x.get()[0] == 6);
}

/* ---- misuse */

static void expect_end(const char *says, const std::function<bool()> &what)
{
    const child_end end = in_child([&what] {
        card_insert(CARD_EAGER, 1);
        return what();
    });
    cr_expect(!end.well && end.said.find(says) != std::string::npos, "expected '%s', it said %s", says,
              end.said.c_str());
}

Test(card, misuse_ends_with_a_message)
{
    expect_end("default stream", [] {
        on_card<float> x(1);
        return cudaMemsetAsync(x.p, 0, 4, nullptr) == cudaSuccess;
    });
    expect_end("neither on the card nor pinned", [] {
        on_card<float> x(1);
        a_stream s;
        float v = 0;
        return cudaMemcpyAsync(x.p, &v, 4, cudaMemcpyHostToDevice, s) == cudaSuccess;
    });
    expect_end("reaches beyond the allocation (8 bytes)", [] {
        on_card<float> x(1);
        pinned<double> v(0);
        return cudaMemcpy(x.p, v.p, 8, cudaMemcpyHostToDevice) == cudaSuccess;
    });
    expect_end("left on the card: 1 allocations, 1 streams", [] {
        void *p;
        cudaStream_t s;
        expect_done(cudaMalloc(&p, 4));
        expect_done(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
        card_insert(CARD_EAGER, 1);
        return true;
    });
}

/* Two ranks, each with a stream and values; the work of the first is queued. */
struct two_ranks {
    pl_nccl nccl;
    pl_nccl_comm comm[2];
    cudaStream_t stream[2];
    float *x[2];

    two_ranks()
    {
        const int devices[] = {0, 1};
        char why[256];
        card_insert_more(1);
        cr_assert(pl_nccl_load(&nccl, why, sizeof why), "%s", why);
        cr_assert(nccl.CommInitAll(comm, 2, devices) == PL_NCCL_SUCCESS);
        for (int i = 0; i < 2; i++) {
            expect_done(cudaSetDevice(i));
            expect_done(cudaStreamCreateWithFlags(&stream[i], cudaStreamNonBlocking));
            expect_done(cudaMalloc(reinterpret_cast<void **>(&x[i]), 64));
        }
        sum(0, 8);
    }
    void sum(int rank, size_t n) const
    {
        nccl.AllReduce(x[rank], x[rank], n, PL_NCCL_FLOAT32, PL_NCCL_SUM, comm[rank], stream[rank]);
    }
};

Test(card, misuse_of_nccl_ends_with_a_message)
{
    expect_end("rank 0 has come to a sum of 8 values of type 7 (root -1), rank 1 to a sum of 7 values", [] {
        const two_ranks two;
        two.sum(1, 7);
        return true;
    });
    expect_end("rank 1 to a broadcast of 8 values", [] {
        const two_ranks two;
        two.nccl.Broadcast(two.x[1], two.x[1], 8, PL_NCCL_FLOAT32, 0, two.comm[1], two.stream[1]);
        return true;
    });
    expect_end("rank 1: 8 values of type 7 are not in the memory of card 1", [] {
        const two_ranks two;
        two.nccl.AllReduce(two.x[0], two.x[0], 8, PL_NCCL_FLOAT32, PL_NCCL_SUM, two.comm[1], two.stream[1]);
        return true;
    });
    expect_end("rank 1 is on card 1, the stream on card 0", [] {
        const two_ranks two;
        two.nccl.AllReduce(two.x[1], two.x[1], 8, PL_NCCL_FLOAT32, PL_NCCL_SUM, two.comm[1], two.stream[0]);
        return true;
    });
    expect_end("rank 0 is destroyed with work under way", [] {
        const two_ranks two;
        two.nccl.CommDestroy(two.comm[0]);
        return true;
    });
    expect_end("is memory of card 0, it runs on card 1", [] {
        const two_ranks two;
        return faults_add(two.stream[1], two.x[0], 1, two.x[0], 1) == cudaSuccess;
    });
}
