/* Inside the stand-in for the CUDA runtime. */
#ifndef PL_TESTS_CUDA_RUNTIME_HPP
#define PL_TESTS_CUDA_RUNTIME_HPP

#include "tests/cuda/card.h"
#include "tests/cuda/emu.hpp"

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace emu
{

/* ---- work */

struct action {
    virtual ~action() = default;
    virtual void run() = 0;
};

typedef std::shared_ptr<action> action_ptr;

template <class F> struct action_of final : action {
    F f;

    explicit action_of(F &&g) : f(std::move(g))
    {
    }
    void run() override
    {
        f();
    }
};

template <class F> static inline action_ptr make_action(F f)
{
    return std::make_shared<action_of<F>>(std::move(f));
}

struct node;
typedef std::shared_ptr<node> node_ptr;

/* A piece of work that was queued. */
struct node {
    action_ptr what; /* NULL: a mere point in time */
    std::vector<node_ptr> after;
    uint32_t priority = 0;
    unsigned marked = 0;
    bool done = false;
    std::chrono::steady_clock::time_point ended;
};

struct graph_node {
    action_ptr what;
    std::vector<graph_node *> after;
};

struct graph {
    std::vector<std::unique_ptr<graph_node>> nodes;
    cudaStreamCaptureMode mode;
    std::thread::id capturing;
    bool broken = false; /* by a call that a capture forbids */
};

struct executable {
    std::shared_ptr<graph> of;
    node_ptr last;
};

struct stream {
    node_ptr last;
    uint32_t priority = 0;
    std::shared_ptr<graph> capture;
    bool began_capture = false;
    std::vector<graph_node *> ends; /* what the next captured work comes after */
};

struct event {
    node_ptr at;
    std::shared_ptr<graph> capture;
    std::vector<graph_node *> ends;
};

struct captured_graph {
    std::shared_ptr<graph> of;
};

/* ---- memory */

enum class place { device, pinned, registered };

struct allocation {
    place where;
    size_t bytes;
    char *map; /* with a forbidden page behind the bytes; NULL when registered */
    size_t map_bytes;
};

/* ---- the card */

struct card_state {
    std::recursive_mutex lock;
    std::condition_variable_any changed;
    card_mode mode = CARD_EAGER;
    uint64_t random = 1;
    bool present = true, lost = false;
    int major = 8, minor = 9;
    size_t bytes = 256u << 20, used = 0;
    unsigned fail_alloc = 0, fail_launch = 0, lose = 0;
    unsigned long long allocs = 0, launches = 0;
    cudaError_t last_error = cudaSuccess;

    std::map<uintptr_t, allocation> allocations;
    unsigned opened = 0; /* times that device memory was made accessible */

    std::vector<node_ptr> pending;
    bool busy = false; /* a thread runs a node */
    unsigned mark = 0;
    std::vector<stream *> streams;
    std::vector<std::weak_ptr<graph>> captures;
    size_t events = 0, graphs = 0;
    std::map<const void *, size_t> dynamic_limit;

    std::thread worker;
    bool stop = false;
};

card_state &card();
size_t shared_room(); /* of a block, after asking */

typedef std::unique_lock<std::recursive_mutex> card_lock;

uint32_t card_random(uint32_t n);

/* Counts down to the event that a test asked for. */
bool due(unsigned *countdown);

/* What a call returns; remembered for cudaGetLastError(). */
cudaError_t result(cudaError_t e);

/* What lets no call through: no card, a lost one, a call from a host function. */
cudaError_t usable();

/* Calls that wait or allocate are not allowed while this thread, or in global mode any, captures. */
cudaError_t allowed_in_capture();

/* ---- memory */

/* The allocation that the bytes lie in, or NULL. */
const allocation *find_allocation(const void *p, size_t bytes);

/* Kernels and copies may touch device memory between the two, the host never. */
void open_device();
void close_device();

/* ---- queue */

static inline stream *stream_of(cudaStream_t s)
{
    return reinterpret_cast<stream *>(s);
}

cudaError_t enqueue(cudaStream_t to, action_ptr what);
void append(card_lock &lock, stream *to, const node_ptr &n);
void wait_for(const node_ptr &n);
void wait_for_all();
/* In the lazy modes a question may find that something went on. */
void perhaps_run();
void start_worker();
void stop_worker();

} // namespace emu

#endif
