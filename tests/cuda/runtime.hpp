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

struct node;
typedef std::shared_ptr<node> node_ptr;

struct action {
    virtual ~action() = default;
    virtual void run() = 0;

    /* Of work that streams of several cards meet for: n has come to it. Only the last to come runs, and all end. */
    virtual bool arrive(const node_ptr &n)
    {
        (void)n;
        return true;
    }
    virtual const void *meeting_place() const
    {
        return nullptr;
    }
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

/* A piece of work that was queued. */
struct node {
    action_ptr what; /* NULL: a mere point in time */
    std::vector<node_ptr> after;
    std::vector<node_ptr> with; /* what ends when it does */
    int device = 0;
    uint32_t priority = 0;
    unsigned marked = 0;
    bool arrived = false; /* and waits for others */
    bool done = false;
    std::chrono::steady_clock::time_point ended;
};

struct graph_node {
    action_ptr what;
    std::vector<graph_node *> after;
};

struct graph {
    std::vector<std::unique_ptr<graph_node>> nodes;
    int device;
    cudaStreamCaptureMode mode;
    std::thread::id capturing;
    bool broken = false; /* by a call that a capture forbids */
};

struct executable {
    std::shared_ptr<graph> of;
    node_ptr last;
};

struct stream {
    int device = 0;
    node_ptr last;
    uint32_t priority = 0;
    std::shared_ptr<graph> capture;
    bool began_capture = false;
    std::vector<graph_node *> ends; /* what the next captured work comes after */
};

struct event {
    int device = 0;
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
    int device;
    bool portable; /* pinned, for all cards */
    size_t bytes;
    char *map; /* with a forbidden page behind the bytes; NULL when registered */
    size_t map_bytes;
};

/* ---- the cards */

/* One of them. */
struct device {
    bool lost = false;
    size_t bytes = 256u << 20, used = 0;
    unsigned fail_alloc = 0, fail_launch = 0, lose = 0;
    unsigned long long allocs = 0, launches = 0, uploaded = 0;
};

/* Of what they have in common; their work is in one list. */
struct card_state {
    std::recursive_mutex lock;
    std::condition_variable_any changed;
    card_mode mode = CARD_EAGER;
    uint64_t random = 1;
    bool present = true, nccl = true;
    int major = 8, minor = 9;
    int n_devices = 1, chosen = 0;
    device devices[CARD_MOST];
    unsigned fail_nccl = 0;
    bool nccl_broken = false;

    std::map<uintptr_t, allocation> allocations;
    unsigned opened[CARD_MOST] = {}; /* times that a device's memory was made accessible */

    std::vector<node_ptr> pending;
    bool busy = false; /* a thread runs a node */
    unsigned mark = 0;
    std::vector<stream *> streams;
    std::vector<std::weak_ptr<graph>> captures;
    size_t events = 0, graphs = 0, communicators = 0;
    std::map<std::pair<int, const void *>, size_t> dynamic_limit; /* of a kernel on a device */

    std::thread worker;
    bool stop = false;
};

card_state &card();

/* The calling thread's, as cudaSetDevice() has it. */
int device_now();
device &this_device();

size_t shared_room(); /* of a block, after asking */

typedef std::unique_lock<std::recursive_mutex> card_lock;

uint32_t card_random(uint32_t n);

/* Counts down to the event that a test asked for. */
bool due(unsigned *countdown);

/* What a call returns; remembered for cudaGetLastError(). */
cudaError_t result(cudaError_t e);

/* What lets no call through: no card, a lost one, a call from a host function. */
cudaError_t usable();
cudaError_t usable_on(int index);

/* Calls that wait or allocate are not allowed while this thread, or in global mode any, captures. */
cudaError_t allowed_in_capture();

/* ---- memory */

/* The allocation that the bytes lie in, or NULL. */
const allocation *find_allocation(const void *p, size_t bytes);

/* Kernels and copies may touch device memory between the two, the host never. */
void open_device(int index);
void close_device(int index);

/* ---- queue */

static inline stream *stream_of(cudaStream_t s)
{
    return reinterpret_cast<stream *>(s);
}

cudaError_t enqueue(cudaStream_t to, action_ptr what);
void append(card_lock &lock, stream *to, const node_ptr &n);
void wait_for(const node_ptr &n);
void wait_for_all(int index);

/* n has ended; the card's lock is held. */
void finish(const node_ptr &n);

/* In the lazy modes a question may find that something went on. */
void perhaps_run();
void start_worker();
void stop_worker();

} // namespace emu

#endif
