/* Streams, events, and when queued work runs. */
#include "tests/cuda/grid.hpp"
#include "tests/cuda/runtime.hpp"

#include <algorithm>
#include <unistd.h>

namespace emu
{

static event *event_of(cudaEvent_t e)
{
    return reinterpret_cast<event *>(e);
}

static thread_local bool inside_work;

/* ---- running what is pending; the card's lock is held, and let go while a node runs */

static bool can_run(const node &n)
{
    return std::all_of(n.after.begin(), n.after.end(), [](const node_ptr &before) { return before->done; });
}

static const void *meeting_place(const node &n)
{
    return n.what ? n.what->meeting_place() : nullptr;
}

/* What has to run before n is done, and n. */
static void mark_needed(const node_ptr &n)
{
    const unsigned mark = ++card().mark;
    std::vector<node *> open = {n.get()};
    while (!open.empty()) {
        node *next = open.back();
        open.pop_back();
        if (next->done || next->marked == mark)
            continue;
        next->marked = mark;
        for (const node_ptr &before : next->after)
            open.push_back(before.get());
        if (const void *place = meeting_place(*next))
            for (const node_ptr &other : card().pending)
                if (meeting_place(*other) == place)
                    open.push_back(other.get());
    }
}

/* NULL: nothing can run. only_needed: of what mark_needed() marked. */
static node_ptr choose(bool only_needed)
{
    card_state &c = card();
    std::vector<const node_ptr *> ready;
    for (const node_ptr &n : c.pending)
        if ((!only_needed || n->marked == c.mark) && !n->arrived && can_run(*n))
            ready.push_back(&n);
    if (ready.empty())
        return nullptr;
    const node_ptr *chosen = ready[card_random(static_cast<uint32_t>(ready.size()))];
    if (c.mode != CARD_STARVE)
        return *chosen;
    if (card_random(64) == 0)
        for (stream *s : c.streams)
            s->priority = card_random(1u << 30);
    for (const node_ptr *n : ready)
        if ((*n)->priority > (*chosen)->priority)
            chosen = n;
    return *chosen;
}

void finish(const node_ptr &n)
{
    card_state &c = card();
    for (const node_ptr &other : n->with)
        finish(other);
    n->done = true;
    n->after.clear();
    n->with.clear();
    n->what = nullptr;
    n->ended = std::chrono::steady_clock::now();
    c.pending.erase(std::find(c.pending.begin(), c.pending.end(), n));
    c.changed.notify_all();
}

static void run_node(card_lock &lock, const node_ptr &n)
{
    card_state &c = card();
    device &d = c.devices[n->device];
    if (n->what && due(&d.lose))
        d.lost = true;
    if (n->what && !d.lost) {
        if (!n->what->arrive(n)) {
            c.changed.notify_all();
            return;
        }
        c.busy = true;
        open_device(n->device);
        lock.unlock();
        inside_work = true;
        n->what->run();
        inside_work = false;
        lock.lock();
        close_device(n->device);
        c.busy = false;
    }
    finish(n);
}

/* For work that other cards have not come to, and may yet. */
static bool somebody_waits()
{
    const auto &all = card().pending;
    return std::any_of(all.begin(), all.end(), [](const node_ptr &n) { return n->arrived; });
}

void wait_for(const node_ptr &n)
{
    if (!n)
        return;
    card_state &c = card();
    card_lock lock(c.lock);
    while (!n->done) {
        if (c.busy || c.mode == CARD_THREADED) {
            c.changed.wait(lock);
            continue;
        }
        mark_needed(n);
        node_ptr next = choose(c.mode == CARD_ASKED);
        if (next)
            run_node(lock, next);
        else if (somebody_waits())
            c.changed.wait(lock);
        else
            fail("a wait that nothing can end");
    }
}

/* At once, but for what is behind work that others have not come to. */
static void run_eagerly(card_lock &lock, const node_ptr &n)
{
    card_state &c = card();
    while (!n->done) {
        if (c.busy) {
            c.changed.wait(lock);
            continue;
        }
        mark_needed(n);
        node_ptr next = choose(true);
        if (!next)
            break;
        run_node(lock, next);
    }
}

void wait_for_all(int index)
{
    for (;;) {
        node_ptr last;
        {
            card_lock lock(card().lock);
            for (const node_ptr &n : card().pending)
                if (n->device == index)
                    last = n;
        }
        if (!last)
            return;
        wait_for(last);
    }
}

void perhaps_run()
{
    card_state &c = card();
    card_lock lock(c.lock);
    if (c.mode == CARD_THREADED || c.busy || card_random(4) != 0)
        return;
    if (node_ptr next = choose(false))
        run_node(lock, next);
}

static void work_on()
{
    card_state &c = card();
    card_lock lock(c.lock);
    while (!c.stop) {
        node_ptr next = choose(false);
        if (!next) {
            c.changed.wait(lock);
            continue;
        }
        const uint32_t pause = card_random(8) == 0 ? card_random(100) : 0;
        if (pause) {
            lock.unlock();
            usleep(pause);
            lock.lock();
        }
        run_node(lock, next);
    }
}

void start_worker()
{
    card().stop = false;
    card().worker = std::thread(work_on);
}

void stop_worker()
{
    {
        card_lock lock(card().lock);
        card().stop = true;
        card().changed.notify_all();
    }
    if (card().worker.joinable())
        card().worker.join();
}

/* ---- queueing */

void append(card_lock &lock, stream *to, const node_ptr &n)
{
    n->priority = to->priority;
    n->device = to->device;
    if (to->last && !to->last->done)
        n->after.push_back(to->last);
    to->last = n;
    card().pending.push_back(n);
    card().changed.notify_all();
    if (card().mode == CARD_EAGER)
        run_eagerly(lock, n);
}

static void capture_work(stream *to, action_ptr what)
{
    auto n = std::make_unique<graph_node>();
    n->what = std::move(what);
    n->after = to->ends;
    to->ends.assign(1, n.get());
    to->capture->nodes.push_back(std::move(n));
}

cudaError_t enqueue(cudaStream_t to, action_ptr what)
{
    if (!to)
        fail("work on the default stream: it would wait for no other stream");
    card_lock lock(card().lock);
    stream *s = stream_of(to);
    cudaError_t e = usable_on(s->device);
    if (e)
        return result(e);
    if (s->capture) {
        capture_work(s, std::move(what));
        return cudaSuccess;
    }
    auto n = std::make_shared<node>();
    n->what = std::move(what);
    append(lock, s, n);
    return result(usable_on(s->device));
}

cudaError_t usable()
{
    return usable_on(device_now());
}

cudaError_t usable_on(int index)
{
    if (inside_work)
        fail("a call of the CUDA runtime from within a host function");
    return !card().present ? cudaErrorNoDevice : card().devices[index].lost ? cudaErrorLaunchFailure : cudaSuccess;
}

/* ---- kernels */

cudaError_t allow_dynamic_bytes(const void *function, size_t bytes)
{
    card_lock lock(card().lock);
    if (bytes > shared_room())
        return result(cudaErrorInvalidValue);
    card().dynamic_limit[{device_now(), function}] = std::max(bytes, shared_default);
    return result(usable());
}

static cudaError_t check_shape(const launch &what, const void *function)
{
    const size_t threads = static_cast<size_t>(what.block.x) * what.block.y * what.block.z;
    const size_t blocks = static_cast<size_t>(what.grid.x) * what.grid.y * what.grid.z;
    const auto limit = card().dynamic_limit.find({device_now(), function});
    if (threads == 0 || threads > max_block_threads || what.block.z > 64)
        return cudaErrorInvalidConfiguration;
    if (blocks == 0 || what.grid.x > INT32_MAX || what.grid.y > 65535 || what.grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    if (what.dynamic_bytes > (limit == card().dynamic_limit.end() ? shared_default : limit->second))
        return cudaErrorInvalidValue;
    if (what.cooperative) {
        int per_processor = 0, processors = 0;
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, function, static_cast<int>(threads),
                                                      what.dynamic_bytes);
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0);
        if (blocks > static_cast<size_t>(per_processor) * static_cast<size_t>(processors))
            return cudaErrorCooperativeLaunchTooLarge;
    }
    return cudaSuccess;
}

cudaError_t enqueue_launch(cudaStream_t to, const launch &what, const void *function)
{
    std::shared_ptr<const body> code(what.code);
    card_lock lock(card().lock);
    cudaError_t e = usable();
    if (!e && to && stream_of(to)->device != device_now())
        e = cudaErrorInvalidResourceHandle;
    if (!e)
        e = check_shape(what, function);
    this_device().launches++;
    if (!e && due(&this_device().fail_launch))
        e = cudaErrorLaunchOutOfResources;
    if (e)
        return result(e);
    lock.unlock();
    /* Nothing of it stays here: the last to let go of it is who ran it. */
    return enqueue(to, make_action([what, code = std::move(code)] { run_launch(what); }));
}

} // namespace emu

using namespace emu;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int)
{
    card_lock lock(card().lock);
    cudaError_t e = usable();
    if (e)
        return result(e);
    if (!(flags & cudaStreamNonBlocking))
        fail("a stream that waits for the default stream");
    stream *s = new stream();
    s->device = device_now();
    s->priority = card_random(1u << 30);
    card().streams.push_back(s);
    *out = reinterpret_cast<cudaStream_t>(s);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    return cudaStreamCreateWithPriority(out, flags, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    card_lock lock(card().lock);
    auto &all = card().streams;
    auto it = std::find(all.begin(), all.end(), stream_of(s));
    if (it == all.end())
        return result(cudaErrorInvalidResourceHandle);
    all.erase(it);
    delete stream_of(s);
    return result(usable());
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (!s)
        fail("a wait for the default stream");
    node_ptr last;
    {
        card_lock lock(card().lock);
        cudaError_t e = usable_on(stream_of(s)->device);
        if (!e && stream_of(s)->capture) {
            stream_of(s)->capture->broken = true;
            e = cudaErrorStreamCaptureUnsupported;
        }
        if (e)
            return result(e);
        last = stream_of(s)->last;
    }
    wait_for(last);
    return result(usable_on(stream_of(s)->device));
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    perhaps_run();
    card_lock lock(card().lock);
    cudaError_t e = usable_on(stream_of(s)->device);
    if (e)
        return result(e);
    return stream_of(s)->last && !stream_of(s)->last->done ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t e = usable();
    if (!e)
        e = allowed_in_capture();
    if (e)
        return result(e);
    wait_for_all(device_now());
    return result(usable());
}

cudaError_t cudaLaunchHostFunc(cudaStream_t to, cudaHostFn_t function, void *data)
{
    const int index = to ? stream_of(to)->device : 0;
    return enqueue(to, make_action([=] {
                       close_device(index);
                       function(data);
                       open_device(index);
                   }));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    card_lock lock(card().lock);
    cudaError_t e = usable();
    if (e)
        return result(e);
    event *made = new event();
    made->device = device_now();
    *out = reinterpret_cast<cudaEvent_t>(made);
    card().events++;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return cudaEventCreateWithFlags(out, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    card_lock lock(card().lock);
    delete event_of(e);
    card().events--;
    return result(usable());
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t on)
{
    if (!on)
        fail("an event on the default stream");
    card_lock lock(card().lock);
    stream *s = stream_of(on);
    event *ev = event_of(e);
    if (ev->device != s->device)
        return result(cudaErrorInvalidResourceHandle);
    if (s->capture) {
        ev->capture = s->capture;
        ev->ends = s->ends;
        return result(usable());
    }
    lock.unlock();
    cudaError_t error = enqueue(on, nullptr);
    lock.lock();
    ev->capture = nullptr;
    ev->at = s->last;
    return error;
}

static cudaError_t wait_in_capture(stream *s, const event *ev)
{
    if (!ev->capture)
        return cudaErrorStreamCaptureIsolation;
    if (s->capture && s->capture != ev->capture)
        return cudaErrorStreamCaptureMerge;
    if (s->device != ev->capture->device)
        fail("a capture on several cards");
    if (!s->capture) {
        s->capture = ev->capture;
        s->ends.clear();
    }
    for (graph_node *n : ev->ends)
        if (std::find(s->ends.begin(), s->ends.end(), n) == s->ends.end())
            s->ends.push_back(n);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t on, cudaEvent_t e, unsigned)
{
    if (!on)
        fail("a wait on the default stream");
    card_lock lock(card().lock);
    stream *s = stream_of(on);
    const event *ev = event_of(e);
    if (s->capture || ev->capture)
        return result(wait_in_capture(s, ev));
    cudaError_t error = usable_on(s->device);
    if (error || !ev->at || ev->at->done)
        return result(error);
    auto n = std::make_shared<node>();
    n->after.push_back(ev->at);
    append(lock, s, n);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (event_of(e)->capture)
        return result(cudaErrorCapturedEvent);
    cudaError_t error = usable_on(event_of(e)->device);
    if (error)
        return result(error);
    wait_for(event_of(e)->at);
    return result(usable_on(event_of(e)->device));
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    perhaps_run();
    card_lock lock(card().lock);
    cudaError_t error = usable_on(event_of(e)->device);
    if (error || event_of(e)->capture)
        return result(error ? error : cudaErrorCapturedEvent);
    return event_of(e)->at && !event_of(e)->at->done ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    card_lock lock(card().lock);
    const node_ptr &a = event_of(from)->at, &b = event_of(to)->at;
    if (!a || !b)
        return result(cudaErrorInvalidResourceHandle);
    if (!a->done || !b->done)
        return result(cudaErrorNotReady);
    *ms = std::chrono::duration<float, std::milli>(b->ended - a->ended).count();
    return cudaSuccess;
}

} // extern "C"
