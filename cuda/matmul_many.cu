/* The matrix product for many rows of x: which weights go to which kernel. Jobs that share x share a launch where
 * their types are the same. */
#include "cuda/matmul_many.cuh"

#include "cuda/kernels.h"

namespace
{

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
    for (int j = 0; j < n_jobs; j++) {
        const cudaError_t err = seen_before(jobs, j) ? cudaSuccess : multiply_type(stream, jobs, j, n_jobs);
        if (err != cudaSuccess)
            return err;
    }
    return cudaSuccess;
}
