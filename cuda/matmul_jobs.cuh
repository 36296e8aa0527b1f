/* What the kernels for few rows of x share: jobs, how they are dealt to blocks, and the sum at the end.
 *
 * A unit is as many rows of weights as one warp works on at once: a panel, or PLAIN_OUTPUTS rows of a plain type. A
 * unit's columns, in spans of 256, are dealt to k_warps warps of a block; each leaves its part [rows][OUTPUTS] in
 * shared memory, and the parts are added in the order of the warps. k_warps depends on the matrix alone, so that a
 * row's result depends on nothing else either. */
#ifndef PL_CUDA_MATMUL_JOBS_CUH
#define PL_CUDA_MATMUL_JOBS_CUH

#include "cuda/kd.cuh"
#include "host/cpu/panel.h"
#include "host/ops/matmul.h"

namespace few
{

constexpr int WARPS = 8;
constexpr int THREADS = 32 * WARPS;
constexpr int MOST_ROWS = 16;
constexpr int MOST_JOBS = 8; /* a launch */
constexpr int MOST_PASSES = 4;
constexpr int PLAIN_OUTPUTS = 4; /* of a unit of a plain type */
constexpr unsigned ALL = 0xffffffffu;

struct job {
    const uint8_t *weights;
    float *out;
    const int32_t *n_out, *n_in;
    int64_t out_ld;
    size_t unit_bytes; /* of a panel */
    pl_act x;
    pl_dtype type;
    bool packed;
    bool floats;    /* packed, and x is there in f32 only */
    int rows, cols; /* of the matrix */
    int n_rows;
    int k_shift;     /* k_warps is 1, 2, 4 or 8: two to this power */
    int block_units; /* that a block computes, passes after one another by WARPS / k_warps side by side */
    int first_block;
};

struct batch {
    job jobs[MOST_JOBS];
    int n;
    int passes; /* at most MOST_PASSES, each WARPS parts of sums in shared memory */
};

/* ---- on the card */

/* Of the thread's warp; said so that the compiler sees that all its lanes agree. */
static __device__ __forceinline__ int warp_index()
{
    return __shfl_sync(ALL, static_cast<int>(threadIdx.x) / 32, 0);
}

static __device__ __forceinline__ const job &job_of_block(const batch &b, int block)
{
    int n = 0;
    while (n + 1 < b.n && b.jobs[n + 1].first_block <= block)
        n++;
    return b.jobs[n];
}

/* Columns that row `lane` of x wants of the unit that starts at output `first`: none if none of its outputs. */
static __device__ __forceinline__ int columns_wanted(const job &j, int first, int lane)
{
    if (lane >= j.n_rows || (j.n_out && __ldg(j.n_out + lane) <= first))
        return 0;
    return j.n_in ? __ldg(j.n_in + lane) : j.cols;
}

/* parts: of `units` units from output `first` on, each [k_warps][ROWS][OUTPUTS]. All threads of the block. */
template <int ROWS, int OUTPUTS>
static __device__ __forceinline__ void store_units(const float *parts, const job &j, int first, int units)
{
    constexpr int PART = ROWS * OUTPUTS;
    for (int i = static_cast<int>(threadIdx.x); i < units * PART; i += THREADS) {
        int unit = i / PART, row = i % PART / OUTPUTS, output = first + unit * OUTPUTS + i % OUTPUTS;
        if (row >= j.n_rows || output >= (j.n_out ? __ldg(j.n_out + row) : j.rows))
            continue;
        const float *part = parts + (unit << j.k_shift) * PART + i % PART;
        float sum = part[0];
        for (int k = 1; k < 1 << j.k_shift; k++)
            sum += part[k * PART];
        j.out[row * j.out_ld + output] = sum;
    }
}

/* ---- on the host */

static inline job describe(const pl_matmul &m)
{
    int64_t spans = (m.w->cols + PL_SPAN - 1) / PL_SPAN;
    job j = {};
    j.weights = static_cast<const uint8_t *>(m.w->data);
    j.out = m.out;
    j.n_out = m.n_out;
    j.n_in = m.n_in;
    j.out_ld = m.out_ld;
    j.unit_bytes = m.w->packed ? pl_panel_bytes(pl_panel_describe(m.w->type), m.w->cols) : 0;
    j.x = *m.x;
    j.type = m.w->type;
    j.packed = m.w->packed;
    j.rows = static_cast<int>(m.w->rows);
    j.cols = static_cast<int>(m.w->cols);
    j.n_rows = m.n_rows;
    while (1 << j.k_shift < spans && 1 << j.k_shift < WARPS)
        j.k_shift++;
    return j;
}

static inline int unit_count(const job &j)
{
    int outputs = j.packed ? PL_PANEL_ROWS : PLAIN_OUTPUTS;
    return (j.rows + outputs - 1) / outputs;
}

/* Deals blocks to the jobs and returns their number. A block makes several passes where there are plenty of units. */
static inline int deal_blocks(batch *b)
{
    int64_t warps = 0;
    for (int i = 0; i < b->n; i++)
        warps += static_cast<int64_t>(unit_count(b->jobs[i])) << b->jobs[i].k_shift;
    int64_t passes = warps / (2048 * WARPS);
    int blocks = 0;
    b->passes = static_cast<int>(passes < 1 ? 1 : passes > MOST_PASSES ? MOST_PASSES : passes);
    for (int i = 0; i < b->n; i++) {
        job *j = &b->jobs[i];
        j->block_units = b->passes * WARPS >> j->k_shift;
        j->first_block = blocks;
        blocks += (unit_count(*j) + j->block_units - 1) / j->block_units;
    }
    return blocks;
}

static inline int most_rows(const batch &b)
{
    int n = 0;
    for (int i = 0; i < b.n; i++)
        n = b.jobs[i].n_rows > n ? b.jobs[i].n_rows : n;
    return n;
}

} // namespace few

#endif
