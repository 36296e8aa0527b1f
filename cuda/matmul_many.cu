/* The matrix product for many rows of x: which weights go to which kernel. Jobs that share x share a launch where
 * their types are the same. Cards before Ampere do not multiply bf16: plain weights go through the kernel for few rows
 * there, once for each 16 rows of x. */
#include "cuda/matmul_many.cuh"

#include "cuda/kernels.h"

namespace
{

constexpr int bf16_capability = 8; /* major */

many::job describe(const pl_matmul &m)
{
    many::job j = {};
    j.weights = static_cast<const uint8_t *>(m.w->data);
    j.out = m.out;
    j.n_out = m.n_out;
    j.n_in = m.n_in;
    j.out_ld = m.out_ld;
    j.n_rows = m.n_rows;
    j.rows = static_cast<int32_t>(m.w->rows);
    j.cols = static_cast<int32_t>(m.w->cols);
    return j;
}

cudaError_t launch(cudaStream_t stream, pl_dtype type, many::launch *l)
{
    if (l->n_jobs == 0)
        return cudaSuccess;
    const cudaError_t err = pl_panel_describe(type).bits ? pl_cuda_many_packed(stream, type, l)
                                                         : pl_cuda_many_plain(stream, type, l);
    l->n_jobs = 0;
    return err;
}

bool seen_before(const pl_matmul *jobs, int j)
{
    for (int i = 0; i < j; i++)
        if (jobs[i].w->type == jobs[j].w->type)
            return true;
    return false;
}

/* By 16 rows at a time, with the bits of matmul_few. */
cudaError_t multiply_slices(cudaStream_t stream, const pl_matmul &job)
{
    cudaError_t err = cudaSuccess;
    for (int row = 0; row < job.n_rows && err == cudaSuccess; row += PL_FUSED_ROWS) {
        pl_act x = *job.x;
        pl_matmul slice = job;
        x.f32 += row * x.ld;
        slice.x = &x;
        slice.out += row * job.out_ld;
        slice.n_rows = job.n_rows - row < PL_FUSED_ROWS ? job.n_rows - row : PL_FUSED_ROWS;
        slice.n_out = job.n_out ? job.n_out + row : nullptr;
        slice.n_in = job.n_in ? job.n_in + row : nullptr;
        err = pl_cuda_matmul_few(stream, &slice, 1);
    }
    return err;
}

/* Those of the jobs from `first` on that have its type. */
cudaError_t multiply_type(cudaStream_t stream, const pl_matmul *jobs, int first, int n_jobs)
{
    const pl_dtype type = jobs[first].w->type;
    many::launch l = {};
    l.x = *jobs[first].x;
    for (int j = first; j < n_jobs; j++) {
        if (jobs[j].w->type != type || jobs[j].n_rows == 0)
            continue;
        l.jobs[l.n_jobs++] = describe(jobs[j]);
        if (l.n_jobs == many::max_jobs) {
            const cudaError_t err = launch(stream, type, &l);
            if (err != cudaSuccess)
                return err;
        }
    }
    return launch(stream, type, &l);
}

} // namespace

cudaError_t pl_cuda_matmul_many(cudaStream_t stream, const pl_matmul *jobs, int n_jobs)
{
    int capability = 0;
    cudaError_t err = kd::card_attribute(&capability, cudaDevAttrComputeCapabilityMajor);
    for (int j = 0; j < n_jobs && err == cudaSuccess; j++) {
        if (!jobs[j].w->packed && capability < bf16_capability)
            err = multiply_slices(stream, jobs[j]);
        else if (!seen_before(jobs, j))
            err = multiply_type(stream, jobs, j, n_jobs);
    }
    return err;
}
