/* Graphs: captured from streams, launched as often as one likes. */
#include "tests/cuda/runtime.hpp"

#include <algorithm>

namespace emu
{

cudaError_t allowed_in_capture()
{
    card_lock lock(card().lock);
    bool allowed = true;
    for (const std::weak_ptr<graph> &w : card().captures) {
        const std::shared_ptr<graph> g = w.lock();
        if (!g || g->mode == cudaStreamCaptureModeRelaxed)
            continue;
        if (g->mode == cudaStreamCaptureModeGlobal || g->capturing == std::this_thread::get_id()) {
            g->broken = true;
            allowed = false;
        }
    }
    return allowed ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

static void forget_capture(const std::shared_ptr<graph> &g)
{
    for (stream *s : card().streams) {
        if (s->capture != g)
            continue;
        s->capture = nullptr;
        s->began_capture = false;
        s->ends.clear();
    }
    auto &all = card().captures;
    all.erase(std::remove_if(all.begin(), all.end(), [&](const std::weak_ptr<graph> &w) { return w.lock() == g; }),
              all.end());
}

/* Every piece of work leads to where the capture ends. */
static bool joined(const graph &g, const std::vector<graph_node *> &ends)
{
    std::vector<const graph_node *> open(ends.begin(), ends.end()), seen;
    while (!open.empty()) {
        const graph_node *n = open.back();
        open.pop_back();
        if (std::find(seen.begin(), seen.end(), n) != seen.end())
            continue;
        seen.push_back(n);
        open.insert(open.end(), n->after.begin(), n->after.end());
    }
    return seen.size() == g.nodes.size();
}

} // namespace emu

using namespace emu;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode)
{
    card_lock lock(card().lock);
    cudaError_t e = usable();
    if (e || !s || stream_of(s)->capture)
        return result(e ? e : cudaErrorStreamCaptureUnsupported);
    auto g = std::make_shared<graph>();
    g->mode = mode;
    g->device = stream_of(s)->device;
    g->capturing = std::this_thread::get_id();
    card().captures.push_back(g);
    stream_of(s)->capture = g;
    stream_of(s)->began_capture = true;
    stream_of(s)->ends.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *out)
{
    card_lock lock(card().lock);
    const std::shared_ptr<graph> &g = stream_of(s)->capture;
    *out = !g          ? cudaStreamCaptureStatusNone
           : g->broken ? cudaStreamCaptureStatusInvalidated
                       : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    card_lock lock(card().lock);
    *out = nullptr;
    const std::shared_ptr<graph> g = stream_of(s)->capture;
    if (!g)
        return result(cudaErrorIllegalState);
    if (!stream_of(s)->began_capture)
        return result(cudaErrorStreamCaptureUnmatched);
    if (g->mode != cudaStreamCaptureModeRelaxed && g->capturing != std::this_thread::get_id())
        return result(cudaErrorStreamCaptureWrongThread);
    const bool complete = joined(*g, stream_of(s)->ends);
    forget_capture(g);
    if (g->broken || !complete)
        return result(g->broken ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnjoined);
    /* Events that were recorded know the capture still, and hold nothing of its work. */
    auto made = std::make_shared<graph>();
    made->device = g->device;
    made->mode = g->mode;
    made->nodes = std::move(g->nodes);
    *out = reinterpret_cast<cudaGraph_t>(new captured_graph{made});
    card().graphs++;
    return result(usable());
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long)
{
    card_lock lock(card().lock);
    cudaError_t e = usable();
    this_device().allocs++; /* it takes memory of the card */
    if (!e && due(&this_device().fail_alloc))
        e = cudaErrorMemoryAllocation;
    if (e)
        return result(e);
    *out = reinterpret_cast<cudaGraphExec_t>(new executable{reinterpret_cast<captured_graph *>(g)->of, nullptr});
    card().graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    card_lock lock(card().lock);
    delete reinterpret_cast<captured_graph *>(g);
    card().graphs--;
    return result(usable());
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    card_lock lock(card().lock);
    delete reinterpret_cast<executable *>(x);
    card().graphs--;
    return result(usable());
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    card_lock lock(card().lock);
    return result(usable());
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph_exec, cudaStream_t to)
{
    if (!to)
        fail("a graph on the default stream");
    card_lock lock(card().lock);
    cudaError_t e = usable();
    stream *s = stream_of(to);
    executable *x = reinterpret_cast<executable *>(graph_exec);
    if (!e && (s->device != device_now() || x->of->device != s->device))
        e = cudaErrorInvalidResourceHandle;
    if (!e && s->capture)
        e = cudaErrorStreamCaptureUnsupported;
    this_device().launches++;
    if (!e && due(&this_device().fail_launch))
        e = cudaErrorLaunchOutOfResources;
    if (e)
        return result(e);
    std::map<const graph_node *, node_ptr> made;
    auto end = std::make_shared<node>();
    for (const auto &from : x->of->nodes) {
        auto n = std::make_shared<node>();
        n->what = from->what;
        n->priority = s->priority;
        n->device = s->device;
        for (const graph_node *before : from->after)
            n->after.push_back(made[before]);
        if (s->last && !s->last->done)
            n->after.push_back(s->last);
        if (x->last && !x->last->done)
            n->after.push_back(x->last);
        made[from.get()] = n;
        end->after.push_back(n);
        card().pending.push_back(n);
    }
    x->last = end;
    append(lock, s, end);
    return result(usable());
}

} // extern "C"
