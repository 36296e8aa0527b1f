/* The matrix product for 1 to 16 rows of x: what decoding spends its time in.
 *
 * Moves w->bytes of each job, once for all rows; of x, from the caches, 2.4 bytes a value for each panel (integers), or
 * 4 bytes a value for each four outputs of a plain type and for each panel of attn_out's second job (f32).
 *
 * One launch for jobs of all types and operands: blocks are dealt to the jobs. The spans of a panel go to up to eight
 * warps of a block, which add up in the order of the warps; their number depends on the matrix alone. A warp issues the
 * loads of 1 to 8 groups before it uses the first: at one row 19 KB (Q4_K) to 37 KB (Q4_0) are under way on a
 * multiprocessor. Plain types whose rows do not begin at multiples of 16 bytes, which no published model has, go
 * through a kernel of their own that is merely right, a launch for each. */
#include "cuda/kernels.h"
#include "cuda/matmul_packed.cuh"
#include "cuda/matmul_plain.cuh"

namespace
{

/* Which jobs a kernel is for: of packed types with x as integers, of plain types, or of all kinds, with x in f32 too.
 * With many rows the last lacks the registers for all at once and reads the weights anew for each eight rows, of plain
 * types for each four; plain types alone for each eight. */
enum { PACKED, PLAIN, ALL };

__host__ __device__ constexpr int min_of(int a, int b)
{
    return a < b ? a : b;
}

/* multiply(part, unit, k, lane): warp k's sums of the job's unit into its part of [ROWS][OUTPUTS]. */
template <int ROWS, int OUTPUTS, class MULTIPLY>
__device__ __forceinline__ void multiply_units(float *parts, const few::job &job, int block, MULTIPLY multiply)
{
    int lane = static_cast<int>(threadIdx.x) % 32, first = (block - job.first_block) * job.block_units;
    int units = min(job.block_units, (job.rows + OUTPUTS - 1) / OUTPUTS - first);
    for (int at = few::warp_index(); at < units << job.k_shift; at += few::WARPS)
        multiply(parts + at * ROWS * OUTPUTS, first + (at >> job.k_shift), at & ((1 << job.k_shift) - 1), lane);
    __syncthreads();
    few::store_units<ROWS, OUTPUTS>(parts, job, first * OUTPUTS, units);
}

/* Two blocks a multiprocessor: registers for all that a warp has under way count for more than further warps. */
template <int KINDS, int ROWS>
__global__ void __launch_bounds__(few::THREADS, 2) matmul_few(const __grid_constant__ few::batch batch)
{
    constexpr int TILES = packed::tiles_of(ROWS), PACKED_ROWS = TILES * packed::TILE_ROWS;
    KD_DYN_SHARED(float, parts);
    int block = static_cast<int>(blockIdx.x);
    const few::job &job = few::job_of_block(batch, block);
    if (KINDS == PLAIN || (KINDS == ALL && !job.packed)) {
        constexpr int STEP = min_of(ROWS, KINDS == PLAIN ? 8 : 4);
        multiply_units<ROWS, plain::OUTPUTS>(parts, job, block, [&](float *part, int unit, int k, int lane) {
            plain::multiply_part<ROWS, STEP>(part, job, unit * plain::OUTPUTS, k, lane);
        });
    } else if (KINDS == ALL && job.floats) {
        multiply_units<PACKED_ROWS, packed::OUTPUTS>(parts, job, block, [&](float *part, int unit, int k, int lane) {
            packed::multiply_part<TILES, 1, true>(part, job, unit, k, lane);
        });
    } else {
        constexpr int STEP = KINDS == ALL ? min_of(TILES, 2) : TILES;
        multiply_units<PACKED_ROWS, packed::OUTPUTS>(parts, job, block, [&](float *part, int unit, int k, int lane) {
            packed::multiply_part<TILES, STEP, false>(part, job, unit, k, lane);
        });
    }
}

/* A warp for each output, a row of x after the other. */
__global__ void __launch_bounds__(few::THREADS, 2) matmul_unaligned(const __grid_constant__ few::job j)
{
    int output = static_cast<int>(blockIdx.x) * few::WARPS + few::warp_index();
    int lane = static_cast<int>(threadIdx.x) % 32;
    if (output >= j.rows)
        return;
    for (int r = 0; r < j.n_rows; r++) {
        int end = few::columns_wanted(j, output, r);
        size_t first = static_cast<size_t>(output) * j.cols;
        float sum = 0;
        for (int k = lane; k < end; k += 32) {
            float w = j.type == PL_F32 ? __ldg(reinterpret_cast<const float *>(j.weights) + first + k) : 0;
            if (j.type != PL_F32) {
                uint32_t bits = __ldg(reinterpret_cast<const uint16_t *>(j.weights) + first + k);
                w = j.type == PL_F16 ? plain::half_value(bits) : __uint_as_float(bits << 16);
            }
            sum = fmaf(w, __ldg(j.x.f32 + r * j.x.ld + k), sum);
        }
        sum = kd::warp_sum(sum);
        if (lane == 0 && output < (j.n_out ? __ldg(j.n_out + r) : j.rows))
            j.out[r * j.out_ld + output] = sum;
    }
}

template <int KINDS, int ROWS> cudaError_t launch(cudaStream_t stream, const few::batch &batch, int blocks)
{
    constexpr int PACKED_ROWS = packed::tiles_of(ROWS) * packed::TILE_ROWS;
    constexpr int PART = KINDS == PLAIN ? ROWS * plain::OUTPUTS : PACKED_ROWS * packed::OUTPUTS;
    size_t shared = static_cast<size_t>(batch.passes) * few::WARPS * PART * sizeof(float);
    kd::launch_cfg cfg = {dim3(static_cast<unsigned>(blocks)), dim3(few::THREADS), shared, stream, false};
    return KD_LAUNCH((matmul_few<KINDS, ROWS>), cfg, batch);
}

template <int KINDS> cudaError_t launch_kinds(cudaStream_t stream, few::batch *batch)
{
    int rows = few::most_rows(*batch), blocks = few::deal_blocks(batch);
    if constexpr (KINDS != PACKED)
        if (rows <= 1)
            return launch<KINDS, 1>(stream, *batch, blocks);
    if (rows <= 4)
        return launch<KINDS, 4>(stream, *batch, blocks);
    return rows <= 8 ? launch<KINDS, 8>(stream, *batch, blocks) : launch<KINDS, 16>(stream, *batch, blocks);
}

cudaError_t launch_batch(cudaStream_t stream, few::batch *batch)
{
    int packed = 0, plain = 0;
    for (int i = 0; i < batch->n; i++) {
        packed += batch->jobs[i].packed && !batch->jobs[i].floats;
        plain += !batch->jobs[i].packed;
    }
    if (batch->n == 0)
        return cudaSuccess;
    if (packed == batch->n)
        return launch_kinds<PACKED>(stream, batch);
    return plain == batch->n ? launch_kinds<PLAIN>(stream, batch) : launch_kinds<ALL>(stream, batch);
}

cudaError_t launch_unaligned(cudaStream_t stream, const few::job &j)
{
    unsigned blocks = static_cast<unsigned>((j.rows + few::WARPS - 1) / few::WARPS);
    kd::launch_cfg cfg = {dim3(blocks), dim3(few::THREADS), 0, stream, false};
    return KD_LAUNCH(matmul_unaligned, cfg, j);
}

bool is_aligned(const pl_matmul &m)
{
    return (m.w->cols * (m.w->type == PL_F32 ? 4 : 2) | static_cast<int64_t>(m.x->ld * sizeof(float)) |
            static_cast<int64_t>(reinterpret_cast<uintptr_t>(m.w->data) | reinterpret_cast<uintptr_t>(m.x->f32))) %
               16 ==
           0;
}

/* from_f32: the job whose x is there in f32 only, or NULL. */
cudaError_t multiply(cudaStream_t stream, const pl_matmul *jobs, int n_jobs, const pl_matmul *from_f32)
{
    few::batch batch = {};
    cudaError_t err = cudaSuccess;
    for (int i = 0; i < n_jobs; i++)
        if (jobs[i].n_rows > few::MOST_ROWS)
            return cudaErrorInvalidValue;
    for (int i = 0; i < n_jobs && err == cudaSuccess; i++) {
        if (jobs[i].n_rows == 0)
            continue;
        few::job job = few::describe(jobs[i]);
        job.floats = jobs + i == from_f32;
        if (!job.packed && !is_aligned(jobs[i])) {
            err = launch_unaligned(stream, job);
            continue;
        }
        batch.jobs[batch.n++] = job;
        if (batch.n == few::MOST_JOBS) {
            err = launch_batch(stream, &batch);
            batch.n = 0;
        }
    }
    return err == cudaSuccess ? launch_batch(stream, &batch) : err;
}

} // namespace

cudaError_t pl_cuda_matmul_few(cudaStream_t stream, const pl_matmul *jobs, int n_jobs)
{
    return multiply(stream, jobs, n_jobs, nullptr);
}

cudaError_t pl_cuda_fused_attn_out(cudaStream_t stream, const pl_matmul *o, const pl_matmul *laurel)
{
    const pl_matmul both[2] = {*o, *laurel};
    return multiply(stream, both, 2, both + 1);
}
