/* What the matrix products for many rows share: jobs as a kernel sees them. A block makes a tile of rows of x times a
 * tile of rows of weights; tiles of weights are numbered through all jobs of a launch. */
#ifndef PL_CUDA_MATMUL_MANY_CUH
#define PL_CUDA_MATMUL_MANY_CUH

#include "cuda/ptx.cuh"
#include "host/cpu/panel.h"
#include "host/ops/matmul.h"

namespace many
{

/* One product of a launch. n_out, n_in: device memory, or NULL. */
struct job {
    const uint8_t *weights;
    float *out;
    const int32_t *n_out, *n_in;
    int64_t out_ld;
    int32_t n_rows;
    int32_t rows, cols; /* of the weights */
    int32_t first_tile;
};

constexpr int max_jobs = 8;

/* Products with the same x by weights of one type. */
struct launch {
    job jobs[max_jobs];
    int n_jobs;
    pl_act x;
};

static inline unsigned tiles(int64_t n, int tile)
{
    return static_cast<unsigned>((n + tile - 1) / tile);
}

/* Numbers the tiles of `rows` rows of x by `outputs` of weights. */
static inline dim3 deal_tiles(launch *l, int rows, int outputs)
{
    int n_rows = 0;
    unsigned n = 0;
    for (int j = 0; j < l->n_jobs; j++) {
        l->jobs[j].first_tile = static_cast<int32_t>(n);
        n += tiles(l->jobs[j].rows, outputs);
        n_rows = l->jobs[j].n_rows > n_rows ? l->jobs[j].n_rows : n_rows;
    }
    return dim3(tiles(n_rows, rows), n);
}

static __device__ __forceinline__ const job &job_of_tile(const launch &l, int tile)
{
    int j = 0;
    while (j + 1 < l.n_jobs && tile >= l.jobs[j + 1].first_tile)
        j++;
    return l.jobs[j];
}

/* How many of the weights' rows, or columns, row i of x takes. */
static __device__ __forceinline__ int prefix(const int32_t *n, int i, int all)
{
    return n ? min(__ldg(n + i), all) : all;
}

} // namespace many

/* For weights in panels and, from Ampere on, for plain ones; numbers the tiles. */
cudaError_t pl_cuda_many_packed(cudaStream_t stream, pl_dtype type, many::launch *l);
cudaError_t pl_cuda_many_plain(cudaStream_t stream, pl_dtype type, many::launch *l);

#endif
