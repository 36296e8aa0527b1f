/* Attention over paged K/V; query heads of one K/V head go through its keys four at a time.
 *
 * Up to 16 rows: attention_few.cuh; more: attention_many.cuh. A key that a row does not see never enters its sums, not
 * even with weight 0: it may be NaN. */
#include "cuda/attention_few.cuh"
#include "cuda/attention_many.cuh"

using namespace attention;

namespace
{

constexpr int FEW_ROWS = 16;
constexpr int DIM_STEP = 16; /* heads' dims are multiples of it */
constexpr int MOST_DIM = 256;
constexpr int MANY_BLOCKS = 256; /* of 16 rows, from which on they are taken */

static_assert(FEW_ROWS == PL_FUSED_ROWS, "a fused step takes the kernels for few rows");

/* Splits of a row, at most. */
int most_splits(int window, int max_context)
{
    int all = (max_context + PAGE - 1) / PAGE, in_window = (window + PAGE - 2) / PAGE + 1;
    return min(window > 0 ? min(in_window, all) : all, MOST_SPLITS);
}

/* The counts of blocks that are done lie before the parts, where they are whatever the rows and the window. */
size_t done_bytes(pl_heads heads)
{
    return (FEW_ROWS * heads.heads * sizeof(unsigned) + 15) / 16 * 16;
}

template <class E, int DIM, bool PADDED> cudaError_t launch_few(cudaStream_t stream, const attention_args &a)
{
    unsigned n = a.rows.n, sets = a.heads.kv_heads * sets_of(a.heads);
    auto *kernel = attention_few<E, DIM, PADDED>;
    return KD_LAUNCH(kernel, (kd::launch_cfg{dim3(n, sets, a.segments), dim3(WARPS * 32), 0, stream, false}), a);
}

/* Many: small blocks until large ones would fill a card, or where shared memory has no room for those (before Ampere);
 * the results are the same. */
template <class E, int DIM, bool PADDED> cudaError_t launch_for(cudaStream_t stream, const attention_args &a)
{
    if (a.rows.n <= FEW_ROWS)
        return launch_few<E, DIM, PADDED>(stream, a);
    if (static_cast<int64_t>(a.rows.n) * a.heads.kv_heads * sets_of(a.heads) < MANY_BLOCKS * 16)
        return launch_many<E, DIM, PADDED, 8>(stream, a);
    int room = 0;
    cudaError_t err = kd::card_attribute(&room, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    if (err != cudaSuccess)
        return err;
    if (static_cast<size_t>(room) < sizeof(typename many<E, DIM, 16>::shared))
        return launch_many<E, DIM, PADDED, 8>(stream, a);
    return launch_many<E, DIM, PADDED, 16>(stream, a);
}

cudaError_t launch(cudaStream_t stream, attention_args a, int max_context, void *scratch)
{
    if (a.rows.n <= FEW_ROWS) {
        a.segments = most_splits(a.window, max_context);
        a.done = static_cast<unsigned *>(scratch);
        a.part = reinterpret_cast<float *>(static_cast<char *>(scratch) + done_bytes(a.heads));
        a.sums = reinterpret_cast<float2 *>(a.part +
                                            static_cast<size_t>(a.rows.n) * a.heads.heads * a.segments * a.heads.dim);
    }
    if (a.heads.dim == 256)
        return launch_for<float, 256, false>(stream, a);
    if (a.heads.dim > 64)
        return launch_for<float, 256, true>(stream, a);
    return launch_for<float, 64, true>(stream, a);
}

attention_args args_of(float *out, const float *q, const pl_kv_layer *kv, const pl_rows *rows, pl_heads heads,
                       int window)
{
    attention_args a = {};
    a.out = out;
    a.q = q;
    a.kv = *kv;
    a.rows = *rows;
    a.heads = heads;
    a.window = window;
    return a;
}

bool takes(pl_heads heads)
{
    return heads.dim % DIM_STEP == 0 && heads.dim <= MOST_DIM && heads.heads % heads.kv_heads == 0;
}

} // namespace

size_t pl_cuda_attention_scratch(int max_rows, pl_heads heads, int max_context)
{
    size_t parts = static_cast<size_t>(min(max_rows, FEW_ROWS)) * heads.heads * most_splits(0, max_context);
    return done_bytes(heads) + parts * (heads.dim * sizeof(float) + sizeof(float2));
}

cudaError_t pl_cuda_attention(cudaStream_t stream, float *out, const float *q, const pl_kv_layer *kv,
                              const pl_rows *rows, pl_heads heads, int window, int max_context, void *scratch)
{
    if (!takes(heads))
        return cudaErrorInvalidValue;
    if (rows->n == 0)
        return cudaSuccess;
    return launch(stream, args_of(out, q, kv, rows, heads, window), max_context, scratch);
}

cudaError_t pl_cuda_fused_attend(cudaStream_t stream, float *out, pl_act *act, float *q, float *k, float *v,
                                 const pl_kv_layer *kv, const pl_rows *rows, pl_heads heads, int window,
                                 const float *q_norm, const float *k_norm, const float *rope, float eps, bool distinct,
                                 int max_context, void *scratch)
{
    if (!takes(heads) || rows->n > PL_FUSED_ROWS)
        return cudaErrorInvalidValue;
    act->rows = rows->n;
    if (rows->n == 0)
        return cudaSuccess;
    attention_args a = args_of(out, q, kv, rows, heads, window);
    cudaError_t err = cudaSuccess;
    if (distinct && qkv::is_wide(heads, q, k, v, *kv, q_norm, k_norm, rope))
        a.own = {k, v, q_norm, k_norm, rope, eps};
    else
        err = pl_cuda_qkv_store(stream, q, k, v, kv, rows, heads, q_norm, k_norm, rope, eps);
    bool blocks_in_heads = heads.dim % PL_ACT_BLOCK == 0;
    if (blocks_in_heads)
        a.act = *act;
    if (err == cudaSuccess)
        err = launch(stream, a, max_context, scratch);
    if (err != cudaSuccess || blocks_in_heads)
        return err;
    pl_act whole = *act;
    whole.f32 = out;
    whole.ld = static_cast<int64_t>(heads.heads) * heads.dim;
    return pl_cuda_quantize(stream, &whole, rows->n);
}
