/* NCCL between the cards, in place of the library that cuda/nccl.c looks for. Work of a communicator begins when the streams
 * of all its ranks have come to it, and holds up nothing but these streams. */
#include "cuda/nccl.h"
#include "tests/cuda/runtime.hpp"

#include <algorithm>
#include <deque>
#include <stdio.h>
#include <string.h>

namespace emu
{
struct clique;
}

struct ncclComm {
    std::shared_ptr<emu::clique> of;
    int rank;
};

namespace emu
{

/* Streams that come to the same piece of work. */
struct meeting {
    std::vector<node_ptr> came; /* [ranks] */
    std::vector<const struct collective *> what;
};

/* A communicator's part that its ranks share. */
struct clique {
    std::vector<int> devices;
    std::vector<size_t> met; /* [ranks] meetings that each has come to */
    size_t over = 0;         /* meetings that are behind all */
    std::deque<meeting> meetings;
    std::vector<bool> aborted;
    std::vector<size_t> alive; /* [ranks] pieces of work that are queued, or held by graphs */
};

static size_t width_of(int type)
{
    switch (type) {
    case PL_NCCL_INT8: return 1;
    case PL_NCCL_FLOAT32: return sizeof(float);
    case PL_NCCL_FLOAT64: return sizeof(double);
    default: fail("NCCL: values of type %d are not known here", type);
    }
}

enum class kind { sum, gather, broadcast };

struct collective final : action {
    std::shared_ptr<clique> of;
    kind what;
    int rank, root;
    const char *from;
    char *to;
    size_t n;
    int type;
    std::vector<const collective *> all; /* [ranks] */

    explicit collective(const ncclComm &comm);
    collective(const collective &) = delete;
    ~collective() override;

    bool arrive(const node_ptr &n) override;
    void run() override;

    const void *meeting_place() const override
    {
        return of.get();
    }

  private:
    template <class T> void sum();
    void gather() const;
    void give() const;
};

static const char *name_of(kind what)
{
    return what == kind::sum ? "a sum" : what == kind::gather ? "a gathering" : "a broadcast";
}

static void compare(const collective &a, const collective &b)
{
    if (a.what == b.what && a.root == b.root && a.n == b.n && a.type == b.type)
        return;
    fail(
        "NCCL: rank %d has come to %s of %zu values of type %d (root %d), rank %d to %s of %zu values of type %d (root "
        "%d)",
        a.rank, name_of(a.what), a.n, a.type, a.root, b.rank, name_of(b.what), b.n, b.type, b.root);
}

/* An aborted rank's work ends at once and comes to no meeting. */
bool collective::arrive(const node_ptr &node)
{
    clique &c = *of;
    const size_t size = c.devices.size(), me = static_cast<size_t>(rank);
    all.clear();
    if (c.aborted[me])
        return true;
    const size_t at = c.met[me]++ - c.over;
    while (c.meetings.size() <= at)
        c.meetings.push_back({std::vector<node_ptr>(size), std::vector<const collective *>(size)});
    meeting &m = c.meetings[at];
    for (const collective *other : m.what)
        if (other)
            compare(*other, *this);
    m.came[me] = node;
    m.what[me] = this;
    node->arrived = true;
    if (std::find(m.what.begin(), m.what.end(), nullptr) != m.what.end())
        return false;
    for (size_t i = 0; i < size; i++) {
        all.push_back(m.what[i]);
        if (i != me)
            node->with.push_back(m.came[i]);
    }
    c.meetings.pop_front();
    c.over++;
    return true;
}

/* As round a ring: each part of the values is summed from another rank on. */
template <class T> void collective::sum()
{
    const size_t size = all.size(), part = (n + size - 1) / size;
    for (size_t i = 0; i < n; i++) {
        T v = 0;
        for (size_t j = 0; j < size; j++)
            v += reinterpret_cast<const T *>(all[(i / part + j) % size]->from)[i];
        for (const collective *c : all)
            reinterpret_cast<T *>(c->to)[i] = v;
    }
}

void collective::gather() const
{
    const size_t bytes = n * width_of(type);
    for (const collective *c : all)
        for (size_t i = 0; i < all.size(); i++)
            memcpy(c->to + i * bytes, all[i]->from, bytes);
}

void collective::give() const
{
    const collective *from = all[static_cast<size_t>(root)];
    for (const collective *c : all)
        if (c != from)
            memcpy(c->to, from->from, n * width_of(type));
}

void collective::run()
{
    if (all.empty())
        return;
    for (int device : of->devices)
        open_device(device);
    if (what == kind::broadcast)
        give();
    else if (what == kind::gather)
        gather();
    else if (type == PL_NCCL_FLOAT32)
        sum<float>();
    else
        sum<double>();
    for (int device : of->devices)
        close_device(device);
}

/* Of the rank, that is queued; NULL: there is none. */
static node_ptr queued_work(const clique *of, int rank)
{
    const auto &all = card().pending;
    auto it = std::find_if(all.begin(), all.end(), [=](const node_ptr &n) {
        return n->what && n->what->meeting_place() == of && static_cast<collective *>(n->what.get())->rank == rank;
    });
    return it == all.end() ? nullptr : *it;
}

collective::collective(const ncclComm &comm) : of(comm.of), rank(comm.rank)
{
    card_lock lock(card().lock);
    of->alive[static_cast<size_t>(rank)]++;
}

collective::~collective()
{
    card_lock lock(card().lock);
    of->alive[static_cast<size_t>(rank)]--;
    card().changed.notify_all();
}

} // namespace emu

using namespace emu;

namespace
{

enum { ok = PL_NCCL_SUCCESS, cuda_error = 1, system_error = 2, invalid_argument = 4, invalid_usage = 5 };

int get_version(int *version)
{
    *version = 22809;
    return ok;
}

const char *get_error_string(int result)
{
    switch (result) {
    case ok: return "no error";
    case cuda_error: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case system_error: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case invalid_argument: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case invalid_usage: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    default: return "unknown result code";
    }
}

int init_all(pl_nccl_comm *comms, int n, const int *devices)
{
    card_lock lock(card().lock);
    auto of = std::make_shared<clique>();
    for (int i = 0; i < n; i++) {
        if (devices[i] < 0 || devices[i] >= card().n_devices)
            return invalid_argument;
        if (usable_on(devices[i]))
            return cuda_error;
        if (std::find(of->devices.begin(), of->devices.end(), devices[i]) != of->devices.end())
            return invalid_usage;
        of->devices.push_back(devices[i]);
    }
    if (due(&card().fail_nccl))
        return system_error;
    of->met.resize(of->devices.size());
    of->aborted.resize(of->devices.size());
    of->alive.resize(of->devices.size());
    for (int i = 0; i < n; i++)
        comms[i] = new ncclComm{of, i};
    card().communicators += static_cast<size_t>(n);
    return ok;
}

int forget(pl_nccl_comm comm)
{
    card_lock lock(card().lock);
    card().communicators--;
    delete comm;
    return ok;
}

/* As NCCL's own it returns when the work is gone, also that of graphs. */
int abort_one(pl_nccl_comm comm)
{
    clique &c = *comm->of;
    const size_t me = static_cast<size_t>(comm->rank);
    {
        card_lock lock(card().lock);
        c.aborted[me] = true;
        for (meeting &m : c.meetings) {
            if (m.came[me])
                finish(m.came[me]);
            m.came[me] = nullptr;
            m.what[me] = nullptr;
        }
    }
    for (;;) {
        node_ptr next;
        {
            card_lock lock(card().lock);
            next = queued_work(&c, comm->rank);
            if (!next && c.alive[me] == 0)
                break;
            if (!next)
                card().changed.wait(lock);
        }
        wait_for(next);
    }
    return forget(comm);
}

int destroy(pl_nccl_comm comm)
{
    {
        card_lock lock(card().lock);
        if (queued_work(comm->of.get(), comm->rank))
            fail("NCCL: rank %d is destroyed with work under way", comm->rank);
        if (comm->of->alive[static_cast<size_t>(comm->rank)])
            fail("NCCL: rank %d is destroyed while graphs hold its work", comm->rank);
    }
    return forget(comm);
}

int get_async_error(pl_nccl_comm comm, int *result)
{
    card_lock lock(card().lock);
    const bool lost = usable_on(comm->of->devices[static_cast<size_t>(comm->rank)]) != cudaSuccess;
    *result = lost ? cuda_error : card().nccl_broken ? system_error : ok;
    return ok;
}

void check_memory(pl_nccl_comm comm, const void *p, size_t n, int type)
{
    const int device = comm->of->devices[static_cast<size_t>(comm->rank)];
    const allocation *a = find_allocation(p, n * width_of(type));
    if (!a || a->where != place::device || a->device != device)
        fail("NCCL: rank %d: %zu values of type %d are not in the memory of card %d", comm->rank, n, type, device);
}

int queue(pl_nccl_comm comm, cudaStream_t stream, kind kind_of, int root, const void *from, void *to, size_t n,
          int type)
{
    const int device = comm->of->devices[static_cast<size_t>(comm->rank)];
    {
        card_lock lock(card().lock);
        check_memory(comm, from, n, type);
        check_memory(comm, to, kind_of == kind::gather ? n * comm->of->devices.size() : n, type);
        if (stream_of(stream)->device != device)
            fail("NCCL: rank %d is on card %d, the stream on card %d", comm->rank, device, stream_of(stream)->device);
        if (due(&card().fail_nccl))
            return system_error;
    }
    auto what = std::make_shared<collective>(*comm);
    what->what = kind_of;
    what->root = root;
    what->from = static_cast<const char *>(from);
    what->to = static_cast<char *>(to);
    what->n = n;
    what->type = type;
    return enqueue(stream, what) ? cuda_error : ok;
}

int all_reduce(const void *from, void *to, size_t n, int type, int op, pl_nccl_comm comm, cudaStream_t stream)
{
    if (op != PL_NCCL_SUM || type == PL_NCCL_INT8)
        fail("NCCL: only sums of floating-point values are known here");
    return queue(comm, stream, kind::sum, -1, from, to, n, type);
}

int all_gather(const void *from, void *to, size_t n, int type, pl_nccl_comm comm, cudaStream_t stream)
{
    return queue(comm, stream, kind::gather, -1, from, to, n, type);
}

int broadcast(const void *from, void *to, size_t n, int type, int root, pl_nccl_comm comm, cudaStream_t stream)
{
    if (root < 0 || static_cast<size_t>(root) >= comm->of->devices.size())
        return invalid_argument;
    return queue(comm, stream, kind::broadcast, root, from, to, n, type);
}

} // namespace

bool pl_nccl_load(pl_nccl *out, char *why, size_t room)
{
    card_lock lock(card().lock);
    if (!card().nccl) {
        snprintf(why, room, PL_NCCL_LIBRARY ": cannot open shared object file: No such file or directory");
        return false;
    }
    *out = {get_version,     get_error_string, init_all,   destroy,  abort_one,
            get_async_error, all_reduce,       all_gather, broadcast};
    return true;
}
