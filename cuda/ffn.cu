/* The gated FFN for few rows, dense layers in two launches: gate and up with the activation, then down.
 *
 * A block computes 32 units of the FFN: two panels of gate and the same two of up. So it has all that these units'
 * values and their block of integers depend on; between the launches only those move, 6.4 bytes a unit and row, against
 * 20 and more when gate and up are written and read again. Moves the bytes of the three weights, once for all rows; of
 * a MatFormer path only what its rows want. Of x what the matrix product moves.
 *
 * gate_out is left as ffn_act leaves it. Gate or up of a plain type, or of two shapes, go the longer way: three
 * launches of the single kernels, four where down is packed. Layers with a cutoff are cuda/ffn_sparse.cu's. */
#include "cuda/ffn_sparse.h"
#include "cuda/gelu.cuh"
#include "cuda/kernels.h"
#include "cuda/matmul_packed.cuh"
#include "cuda/quantize_act.cuh"

namespace
{

constexpr int UNITS = PL_ACT_BLOCK;
constexpr int PANELS = UNITS / PL_PANEL_ROWS; /* of gate, and of up */

struct ffn_args {
    few::job gate_up[2];
    pl_act mid;
    float *out; /* gelu(gate) * up */
    int64_t ld;
    const int32_t *width;
    bool wide; /* four values of a row may be written at once */
};

/* The sums of four neighbouring units; parts: of the panel's k_warps warps. */
template <int PART> __device__ __forceinline__ float4 add_parts(const float *parts, int k_warps)
{
    float4 sum = *reinterpret_cast<const float4 *>(parts);
    for (int k = 1; k < k_warps; k++) {
        float4 part = *reinterpret_cast<const float4 *>(parts + k * PART);
        sum.x += part.x;
        sum.y += part.y;
        sum.z += part.z;
        sum.w += part.w;
    }
    return sum;
}

/* Four of the row's units, of which `left` are within its width. */
__device__ __forceinline__ void store_units(float *out, const float (&v)[4], int left, bool wide)
{
    if (wide && left >= 4) {
        *reinterpret_cast<float4 *>(out) = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < left)
            out[i] = v[i];
}

/* gelu(gate) * up of the block's units, in f32 and as integers; zero beyond a row's width. Whole warps take part, eight
 * lanes for a row. */
template <int PART> __device__ __forceinline__ void finish(const float *parts, const ffn_args &a, int block)
{
    int row = static_cast<int>(threadIdx.x) / 8, unit = static_cast<int>(threadIdx.x) % 8 * 4;
    const few::job &gate = a.gate_up[0];
    if (row / 4 * 4 >= gate.n_rows)
        return;
    bool exists = row < gate.n_rows;
    int left = exists ? __ldg(a.width + row) - block * UNITS - unit : 0;
    const float *at = parts + (unit / PL_PANEL_ROWS << gate.k_shift) * PART + row * PL_PANEL_ROWS +
                      unit % PL_PANEL_ROWS;
    float4 g = add_parts<PART>(at, 1 << gate.k_shift);
    float4 u = add_parts<PART>(at + (PANELS << gate.k_shift) * PART, 1 << gate.k_shift);
    float4 h = gelu_times(g, u);
    const float v[4] = {left > 0 ? h.x : 0, left > 1 ? h.y : 0, left > 2 ? h.z : 0, left > 3 ? h.w : 0};
    if (left > 0)
        store_units(a.out + row * a.ld + block * UNITS + unit, v, left, a.wide);
    quantize::store_block(a.mid, gate.n_rows, row, block, exists && block < a.mid.blocks, v);
}

template <int TILES> __global__ void __launch_bounds__(few::THREADS, 2) ffn_gate_up(const __grid_constant__ ffn_args a)
{
    constexpr int PART = TILES * packed::TILE_ROWS * PL_PANEL_ROWS;
    KD_DYN_SHARED(float, parts);
    int block = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x) % 32;
    if (__ldg(a.width) <= block * UNITS)
        return;
    int shift = a.gate_up[0].k_shift;
    for (int at = few::warp_index(); at < 2 * PANELS << shift; at += few::WARPS) {
        int panel = at >> shift;
        packed::multiply_part<TILES, TILES, false>(parts + at * PART, a.gate_up[panel / PANELS],
                                                   block * PANELS + panel % PANELS, at & ((1 << shift) - 1), lane);
    }
    __syncthreads();
    finish<PART>(parts, a, block);
}

template <int TILES> cudaError_t launch(cudaStream_t stream, const ffn_args &a)
{
    const few::job &gate = a.gate_up[0];
    size_t parts = 2 * PANELS << gate.k_shift,
           shared = parts * TILES * packed::TILE_ROWS * PL_PANEL_ROWS * sizeof(float);
    dim3 blocks(static_cast<unsigned>((gate.rows + UNITS - 1) / UNITS));
    return KD_LAUNCH(ffn_gate_up<TILES>, (kd::launch_cfg{blocks, dim3(few::THREADS), shared, stream, false}), a);
}

cudaError_t gate_and_up(cudaStream_t stream, const pl_ffn &f, const pl_matmul (&jobs)[2])
{
    ffn_args a = {};
    a.gate_up[0] = few::describe(jobs[0]);
    a.gate_up[1] = few::describe(jobs[1]);
    a.mid = *f.mid;
    a.out = f.gate_out;
    a.ld = f.ld;
    a.width = f.width;
    a.wide = reinterpret_cast<uintptr_t>(f.gate_out) % 16 == 0 && f.ld % 4 == 0;
    if (f.n <= packed::TILE_ROWS)
        return launch<1>(stream, a);
    return f.n <= 2 * packed::TILE_ROWS ? launch<2>(stream, a) : launch<4>(stream, a);
}

/* The same by single kernels. */
cudaError_t gate_then_up(cudaStream_t stream, const pl_ffn &f, const pl_matmul (&jobs)[2])
{
    cudaError_t err = pl_cuda_matmul_few(stream, jobs, 2);
    if (err == cudaSuccess)
        err = pl_cuda_ffn_act(stream, f.gate_out, f.up_out, f.ld, f.n, f.width, f.z);
    return err == cudaSuccess && f.down->packed ? pl_cuda_quantize(stream, f.mid, f.n) : err;
}

} // namespace

cudaError_t pl_cuda_fused_ffn(cudaStream_t stream, const pl_ffn *f)
{
    if (f->n == 0)
        return cudaSuccess;
    if (f->n > few::MOST_ROWS)
        return cudaErrorInvalidValue;
    if (!isinf(f->z) || f->z > 0)
        return pl_cuda_ffn_sparse(stream, f);
    f->mid->f32 = f->gate_out;
    f->mid->ld = f->ld;
    f->mid->cols = f->down->cols;
    f->mid->blocks = (f->down->cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    f->mid->rows = f->n;
    const pl_matmul jobs[2] = {{f->gate, f->x, f->gate_out, f->ld, f->n, f->width, nullptr},
                               {f->up, f->x, f->up_out, f->ld, f->n, f->width, nullptr}};
    const pl_matmul down = {f->down, f->mid, f->out, f->down->rows, f->n, nullptr, f->width};
    bool alike = f->gate->packed && f->up->packed && f->gate->rows == f->up->rows && f->gate->cols == f->up->cols;
    cudaError_t err = alike ? gate_and_up(stream, *f, jobs) : gate_then_up(stream, *f, jobs);
    return err == cudaSuccess ? pl_cuda_matmul_few(stream, &down, 1) : err;
}
