/* Attention for many rows.
 *
 * A block takes 8 or 16 neighbouring rows through the keys, which pass through shared memory. A row's softmax is
 * corrected page by page; pages where a row sees nothing leave it alone, so that neither the rows beside it nor their
 * number show in its result.
 *   Moves 8 dim bytes a key and K/V head for each block of rows; 4 dim flops a key and query head of each row bound it.
 *   Products stay in f32: bf16 or tf32 would cost the scores 13 to 16 bits, and in three terms would gain nothing on
 *   desktop cards. */
#ifndef PL_CUDA_ATTENTION_MANY_CUH
#define PL_CUDA_ATTENTION_MANY_CUH

#include "cuda/attention.cuh"
#include "cuda/ptx.cuh"

namespace attention
{

constexpr int LANES = 16;    /* threads of a row, with all heads of the set */
constexpr int K_UNITS = 8;   /* of each key in a chunk of K */
constexpr int K_STRIDE = 9;  /* so that neighbouring keys lie in different banks */
constexpr int V_UNITS = 512; /* of a chunk of V: whole keys */
constexpr int STAGE = PAGE * K_STRIDE;
constexpr int THREAD_KEYS = PAGE / LANES;

/* A page of K passes in chunks of some dims of all keys, one of V in chunks of some keys. */
template <class E, int DIM, int ROWS> struct many {
    static constexpr int VALUES = kv_unit<E>::VALUES;
    static constexpr int THREADS = ROWS * LANES;
    static constexpr int KEY_UNITS = DIM / VALUES;
    static constexpr int K_CHUNKS = KEY_UNITS / K_UNITS;
    static constexpr int V_KEYS = V_UNITS / KEY_UNITS;
    static constexpr int V_CHUNKS = PAGE / V_KEYS;
    static constexpr int STRIPS = KEY_UNITS / LANES; /* units of a key's values that a thread sums */
    static_assert(KEY_UNITS % K_UNITS == 0 && KEY_UNITS % LANES == 0 && PAGE % V_KEYS == 0, "whole chunks");
    static_assert(PAGE * K_UNITS % THREADS == 0 && V_UNITS % THREADS == 0, "a chunk is the same work for all threads");

    struct shared {
        float4 q[ROWS * HEADS][DIM / 4]; /* unit u of an odd row at u ^ 1: two rows are read at once */
        float4 weight[ROWS / 2][PAGE][2];
        uint4 stage[2][STAGE];
        key_range seen[ROWS];
        int position[ROWS], sequence[ROWS];
    };
};

/* Neighbouring rows of a block that are consecutive tokens of a sequence: what they see has no holes. */
struct row_run {
    int first, end;
    key_range seen;
    const int32_t *table;
};

template <class S> __device__ __forceinline__ row_run run_at(const attention_args &a, const S &sm, int first, int n)
{
    row_run run = {first, first + 1, sm.seen[first], a.kv.table + sm.sequence[first] * a.kv.table_ld};
    for (; run.end < n && sm.sequence[run.end] == sm.sequence[first] &&
           sm.position[run.end] == sm.position[run.end - 1] + 1;
         run.end++)
        run.seen.to = sm.seen[run.end].to;
    return run;
}

/* What a thread knows of its block and row, and its row's softmax so far. */
template <class E, int DIM, int ROWS> struct many_thread {
    using M = many<E, DIM, ROWS>;
    const attention_args &a;
    typename M::shared &sm;
    head_set set;
    int row, lane;       /* within the block, within the row */
    int chunks_done = 0; /* decides the stage */
    float m[HEADS] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    float l[HEADS] = {}; /* this lane's terms */
    float value[HEADS][M::STRIPS * M::VALUES] = {};

    /* Queues chunk `c` of the page that begins at `at`, of which keys [0, keys) are there. */
    __device__ __forceinline__ void fetch(int c, int64_t at, int keys)
    {
        uint4 *stage = sm.stage[chunks_done & 1];
        if (c < M::K_CHUNKS) {
            const E *k = reinterpret_cast<const E *>(a.kv.k) + at;
#pragma unroll
            for (int i0 = 0; i0 < PAGE * K_UNITS; i0 += M::THREADS) {
                int i = i0 + threadIdx.x;
                int key = i / K_UNITS, from = (c * K_UNITS + i % K_UNITS) * M::VALUES;
                bool take = key < keys && from < a.heads.dim;
                ptx::cp_async_16(stage + key * K_STRIDE + i % K_UNITS, k + (take ? key * a.heads.dim + from : 0), take);
            }
        } else {
            const E *v = reinterpret_cast<const E *>(a.kv.v) + at;
#pragma unroll
            for (int i0 = 0; i0 < V_UNITS; i0 += M::THREADS) {
                int i = i0 + threadIdx.x;
                int key = (c - M::K_CHUNKS) * M::V_KEYS + i / M::KEY_UNITS, from = i % M::KEY_UNITS * M::VALUES;
                bool take = key < keys && from < a.heads.dim;
                ptx::cp_async_16(stage + i, v + (take ? key * a.heads.dim + from : 0), take);
            }
        }
        ptx::cp_async_commit();
    }

    __device__ __forceinline__ void fetch_q(int first_row)
    {
        const float *q = a.q + (static_cast<int64_t>(first_row) * a.heads.heads + set.first) * a.heads.dim;
        for (int i = threadIdx.x; i < ROWS * HEADS * (DIM / 4); i += M::THREADS) {
            int query = i / (DIM / 4), unit = i % (DIM / 4), r = query / HEADS, h = query % HEADS;
            bool take = first_row + r < a.rows.n && h < set.n && unit * 4 < a.heads.dim;
            int64_t from = (static_cast<int64_t>(r) * a.heads.heads + h) * a.heads.dim + unit * 4;
            ptx::cp_async_16(&sm.q[query][unit ^ (r & 1)], q + (take ? from : 0), take);
        }
    }

    /* Waits for the chunk that was queued last, and until the other stage is free. */
    __device__ __forceinline__ const uint4 *next_chunk()
    {
        ptx::cp_async_wait<0>();
        __syncthreads();
        return sm.stage[chunks_done++ & 1];
    }

    /* Adds the chunk's dims to the scores of keys lane, lane + 16, ... */
    __device__ __forceinline__ void add_scores(float (&score)[HEADS][THREAD_KEYS], const uint4 *stage, int c)
    {
        float sum[HEADS][THREAD_KEYS] = {};
#pragma unroll
        for (int u = 0; u < K_UNITS; u++) {
            float query[HEADS][M::VALUES];
#pragma unroll
            for (int h = 0; h < HEADS; h++)
#pragma unroll
                for (int i = 0; i < M::VALUES; i += 4)
                    unpack(query[h] + i, sm.q[row * HEADS + h][((c * K_UNITS + u) * M::VALUES + i) / 4 ^ (row & 1)]);
#pragma unroll
            for (int t = 0; t < THREAD_KEYS; t++) {
                float x[M::VALUES];
                kv_unit<E>::unpack(x, stage[(t * LANES + lane) * K_STRIDE + u]);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
#pragma unroll
                    for (int i = 0; i < M::VALUES; i++)
                        sum[h][t] += query[h][i] * x[i];
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int t = 0; t < THREAD_KEYS; t++)
                score[h][t] += sum[h][t];
    }

    /* Scores become weights in shared memory; the returned factors are for what was summed before. */
    __device__ __forceinline__ float4 soften(const float (&score)[HEADS][THREAD_KEYS], key_range keys)
    {
        float factor[HEADS], weight[THREAD_KEYS][HEADS];
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float top = m[h];
#pragma unroll
            for (int t = 0; t < THREAD_KEYS; t++)
                if (t * LANES + lane >= keys.from && t * LANES + lane < keys.to)
                    top = fmaxf(top, score[h][t]);
#pragma unroll
            for (int o = LANES / 2; o > 0; o /= 2)
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, o));
            float sum = 0;
#pragma unroll
            for (int t = 0; t < THREAD_KEYS; t++) {
                bool sees = t * LANES + lane >= keys.from && t * LANES + lane < keys.to;
                float e = expf(score[h][t] - top);
                weight[t][h] = sees ? e : 0;
                sum += weight[t][h];
            }
            factor[h] = expf(m[h] - top);
            if (keys.from < keys.to) {
                l[h] = l[h] * factor[h] + sum;
                m[h] = top;
            }
        }
#pragma unroll
        for (int t = 0; t < THREAD_KEYS; t++)
            sm.weight[row / 2][t * LANES + lane][row & 1] = make_float4(weight[t][0], weight[t][1], weight[t][2],
                                                                        weight[t][3]);
        return make_float4(factor[0], factor[1], factor[2], factor[3]);
    }

    /* ALL: the row sees every key of the chunk. */
    template <bool ALL>
    __device__ __forceinline__ void add_values(float (&sum)[HEADS][M::STRIPS * M::VALUES], const uint4 *stage,
                                               int first, key_range keys)
    {
#pragma unroll
        for (int t = 0; t < M::V_KEYS; t++) {
            if (!ALL && (first + t < keys.from || first + t >= keys.to))
                continue;
            float4 w = sm.weight[row / 2][first + t][row & 1];
#pragma unroll
            for (int s = 0; s < M::STRIPS; s++) {
                float x[M::VALUES];
                kv_unit<E>::unpack(x, stage[t * M::KEY_UNITS + s * LANES + lane]);
#pragma unroll
                for (int i = 0; i < M::VALUES; i++) {
                    sum[0][s * M::VALUES + i] += w.x * x[i];
                    sum[1][s * M::VALUES + i] += w.y * x[i];
                    sum[2][s * M::VALUES + i] += w.z * x[i];
                    sum[3][s * M::VALUES + i] += w.w * x[i];
                }
            }
        }
    }

    /* A page of which the run sees keys up to `there`; past its end: keys of the page at `next`. */
    __device__ __forceinline__ void add_page(int64_t at, int64_t next, int there, key_range keys)
    {
        int taken = min(there, PAGE);
        float score[HEADS][THREAD_KEYS] = {}, sum[HEADS][M::STRIPS * M::VALUES] = {};
        for (int c = 0; c < M::K_CHUNKS; c++) {
            const uint4 *stage = next_chunk();
            fetch(c + 1, at, taken);
            if (keys.from < keys.to)
                add_scores(score, stage, c);
        }
        float4 factor = soften(score, keys);
        for (int c = 0; c < M::V_CHUNKS; c++) {
            const uint4 *stage = next_chunk();
            if (c + 1 < M::V_CHUNKS)
                fetch(M::K_CHUNKS + c + 1, at, taken);
            else if (there > PAGE)
                fetch(0, next, there - PAGE);
            int first = c * M::V_KEYS;
            if (keys.from <= first && first + M::V_KEYS <= keys.to)
                add_values<true>(sum, stage, first, keys);
            else if (keys.from < first + M::V_KEYS && first < keys.to)
                add_values<false>(sum, stage, first, keys);
        }
        if (keys.from >= keys.to)
            return;
#pragma unroll
        for (int i = 0; i < M::STRIPS * M::VALUES; i++) {
            value[0][i] = value[0][i] * factor.x + sum[0][i];
            value[1][i] = value[1][i] * factor.y + sum[1][i];
            value[2][i] = value[2][i] * factor.z + sum[2][i];
            value[3][i] = value[3][i] * factor.w + sum[3][i];
        }
    }

    __device__ __forceinline__ void add_run(const row_run &run)
    {
        bool mine = row >= run.first && row < run.end;
        int page = run.seen.from / PAGE, last = (run.seen.to - 1) / PAGE;
        int64_t at = page_offset(a, run.table[page], set.kv_head);
        fetch(0, at, run.seen.to - page * PAGE);
        for (; page <= last; page++) {
            int first = page * PAGE;
            int64_t next = page < last ? page_offset(a, run.table[page + 1], set.kv_head) : 0;
            key_range keys = {0, 0};
            if (mine)
                keys = {max(sm.seen[row].from - first, 0), min(sm.seen[row].to - first, PAGE)};
            add_page(at, next, run.seen.to - first, keys);
            at = next;
        }
    }

    __device__ __forceinline__ void store(int first_row)
    {
        float factor[HEADS];
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
#pragma unroll
            for (int o = LANES / 2; o > 0; o /= 2)
                l[h] += __shfl_xor_sync(0xffffffffu, l[h], o);
            factor[h] = 1 / l[h];
        }
        if (first_row + row >= a.rows.n)
            return;
        float *out = a.out + (static_cast<int64_t>(first_row + row) * a.heads.heads + set.first) * a.heads.dim;
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int i = 0; i < M::STRIPS * M::VALUES; i += 4) {
                int at = (i / M::VALUES * LANES + lane) * M::VALUES + i % M::VALUES;
                if (h < set.n && at < a.heads.dim)
                    *reinterpret_cast<float4 *>(out + h * a.heads.dim + at) = scaled(
                        make_float4(value[h][i], value[h][i + 1], value[h][i + 2], value[h][i + 3]), factor[h]);
            }
    }
};

/* grid: blocks of rows, the last, which see most, first; sets of all K/V heads. */
template <class E, int DIM, bool PADDED, int ROWS>
__global__ void __launch_bounds__(ROWS *LANES, 1) attention_many(attention_args a)
{
    if (!PADDED)
        a.heads.dim = DIM;
    using shared = typename many<E, DIM, ROWS>::shared;
    KD_DYN_SHARED(shared, sm);
    int first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * ROWS, n = min(ROWS, a.rows.n - first_row);
    int index = threadIdx.x;
    many_thread<E, DIM, ROWS> thread = {a, *sm, set_at(a.heads, blockIdx.y), index / LANES, index % LANES};
    if (index < n) {
        sm->seen[index] = visible(a, first_row + index);
        sm->position[index] = a.rows.position[first_row + index];
        sm->sequence[index] = a.rows.sequence[first_row + index];
    }
    __syncthreads();
    thread.fetch_q(first_row);
    for (int r = 0; r < n;) {
        row_run run = run_at(a, *sm, r, n);
        thread.add_run(run);
        r = run.end;
    }
    thread.store(first_row);
}

template <class E, int DIM, bool PADDED, int ROWS> cudaError_t launch_many(cudaStream_t stream, const attention_args &a)
{
    size_t bytes = sizeof(typename many<E, DIM, ROWS>::shared);
    static_assert(sizeof(typename many<E, DIM, ROWS>::shared) <= (ROWS > 8 ? 99 : 64) * 1024,
                  "what a desktop card gives a block, and what one before Ampere does");
    auto *kernel = attention_many<E, DIM, PADDED, ROWS>;
    cudaError_t err = kd::allow_smem(kernel, bytes);
    if (err != cudaSuccess)
        return err;
    dim3 grid((a.rows.n + ROWS - 1) / ROWS, a.heads.kv_heads * sets_of(a.heads));
    return KD_LAUNCH(kernel, (kd::launch_cfg{grid, dim3(ROWS * LANES), bytes, stream, false}), a);
}

} // namespace attention

#endif
