#include "cuda/ptx.cuh"
#include "tests/cuda/faults.hpp"

namespace
{

kd::launch_cfg plain(unsigned blocks, unsigned threads, cudaStream_t stream)
{
    return {dim3(blocks), dim3(threads), 0, stream, false};
}

/* ---- norm: a reduction over a block of 256 threads */

__global__ void __launch_bounds__(256) norm_kernel(fault what, const float *x, float *y, int n)
{
    KD_SHARED(float, part, [8]);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float *row = x + static_cast<size_t>(blockIdx.x) * n;
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += 256)
        sum += row[i] * row[i];
    sum = kd::warp_sum(sum);
    if (lane == 0)
        part[warp + (what == fault::shared_write_past && warp == 7)] = sum;
    if (what != fault::no_sync)
        __syncthreads();
    float all = 0;
    for (int i = 0; i < 8 + (what == fault::shared_read_past); i++)
        all += part[i];
    const float r = rsqrtf(all / n);
    for (int i = threadIdx.x; i < n; i += 256)
        y[static_cast<size_t>(blockIdx.x) * n + i] = row[i] * r;
}

/* ---- mirror: each warp by itself */

__global__ void mirror_kernel(fault what, const float *x, float *y)
{
    KD_SHARED(float, staged, [4][32]);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    staged[warp][lane] = x[blockIdx.x * 128 + threadIdx.x];
    if (what != fault::no_syncwarp)
        __syncwarp();
    y[blockIdx.x * 128 + threadIdx.x] = staged[warp][31 - lane];
}

/* ---- product: tiles of 64 x 64, 32 deep, in two buffers */

constexpr int tile = 64, depth = 32;

struct buffers {
    __nv_bfloat16 a[2][tile][depth], b[2][tile][depth];
};

__device__ __forceinline__ int place(fault what, int row, int chunk)
{
    return 8 * (what == fault::no_swizzle ? chunk : chunk ^ ((row >> 1) & 3));
}

__device__ __forceinline__ void load_tile(fault what, __nv_bfloat16 (*to)[depth], const uint16_t *from, int rows,
                                          int ld)
{
    for (int i = threadIdx.x; i < tile * depth / 8; i += 128) {
        const int row = i / 4, chunk = i % 4;
        const bool inside = row < rows;
        ptx::cp_async_16(&to[row][place(what, row, chunk)],
                         from + static_cast<size_t>(inside ? row : 0) * ld + chunk * 8, inside);
    }
}

__device__ __forceinline__ void multiply_tile(fault what, buffers *sm, int s, float (&sum)[2][4][4])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int k = 0; k < depth; k += 16) {
        uint32_t a[2][4], b[2][4];
        for (int i = 0; i < 2; i++) {
            const int row = warp / 2 * 32 + i * 16 + lane % 16;
            ptx::ldmatrix_x4(a[i], &sm->a[s][row][place(what, row, k / 8 + lane / 16)]);
        }
        for (int j = 0; j < 2; j++) {
            const int row = warp % 2 * 32 + j * 16 + lane % 8 + lane / 16 * 8;
            ptx::ldmatrix_x4(b[j], &sm->b[s][row][place(what, row, k / 8 + lane / 8 % 2)]);
        }
        const int first = what == fault::swapped_registers;
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 4; j++)
                ptx::mma_bf16_16816(sum[i][j], a[i], b[j / 2][j % 2 * 2 + first], b[j / 2][j % 2 * 2 + 1 - first]);
    }
}

__global__ void __launch_bounds__(128)
    product_kernel(fault what, const uint16_t *a, const uint16_t *b, float *c, int m, int n, int k)
{
    KD_DYN_SHARED(buffers, sm);
    const int row0 = blockIdx.y * tile, col0 = blockIdx.x * tile, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    a += static_cast<size_t>(row0) * k;
    b += static_cast<size_t>(col0) * k;
    float sum[2][4][4] = {};
    load_tile(what, sm->a[0], a, m - row0, k);
    load_tile(what, sm->b[0], b, n - col0, k);
    ptx::cp_async_commit();
    for (int at = 0; at < k; at += depth) {
        const int s = at / depth % 2;
        if (at + depth < k) {
            load_tile(what, sm->a[1 - s], a + at + depth, m - row0, k);
            load_tile(what, sm->b[1 - s], b + at + depth, n - col0, k);
        }
        ptx::cp_async_commit();
        if (what == fault::wrong_wait)
            ptx::cp_async_wait<2>();
        else if (what != fault::no_last_wait || at + depth < k)
            ptx::cp_async_wait<1>();
        if (what != fault::no_sync_before_use)
            __syncthreads();
        multiply_tile(what, sm, s, sum);
        if (what != fault::no_sync_after_use)
            __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int e = 0; e < 4; e++) {
                const int row = row0 + warp / 2 * 32 + i * 16 + lane / 4 + e / 2 * 8;
                const int col = col0 + warp % 2 * 32 + j * 8 + lane % 4 * 2 + e % 2;
                if (row < m && col < n)
                    c[static_cast<size_t>(row) * n + col] = sum[i][j][e];
            }
}

/* ---- layers: a barrier across the grid */

__device__ __forceinline__ void grid_barrier(fault what, unsigned *arrived, unsigned target)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        if (what == fault::relaxed_barrier)
            atomicAdd(arrived, 1u);
        else
            ptx::atom_add_release(arrived, 1u);
        while (ptx::ld_acquire(arrived) < target) {}
    }
    if (what != fault::half_barrier)
        __syncthreads();
}

__global__ void __launch_bounds__(64)
    layers_kernel(fault what, const float *w, float *x, float *y, unsigned *arrived, int n, int layers)
{
    const int lane = threadIdx.x % 32, warp = (blockIdx.x * 64 + threadIdx.x) / 32, warps = gridDim.x * 2;
    for (int l = 0; l < layers; l++) {
        for (int row = warp; row < n; row += warps) {
            float sum = 0;
            for (int i = lane; i < n; i += 32)
                sum += w[(static_cast<size_t>(l) * n + row) * n + i] * x[i];
            sum = kd::warp_sum(sum);
            if (lane == 0)
                y[row] = tanhf(sum);
        }
        if (what != fault::no_barrier)
            grid_barrier(what, arrived, static_cast<unsigned>(l + 1) * gridDim.x);
        float *next = x;
        x = y;
        y = next;
    }
}

/* ---- the rest */

__global__ void odd_kernel(fault what, float *y, unsigned *flag)
{
    const unsigned t = threadIdx.x;
    float v = static_cast<float>(t);
    if (what == fault::part_of_block && t < 48)
        __syncthreads();
    if (what == fault::part_of_warp && t % 32 < 16)
        v = __shfl_xor_sync(0xffffffffu, v, 1);
    if (what == fault::exited_lane && t % 32 == 31)
        return;
    if (what == fault::exited_lane)
        v = kd::warp_sum(v);
    if (what == fault::unaligned)
        v += ptx::ld_nc_v4(y + 1).x;
    if (what == fault::endless_wait)
        while (ptx::ld_acquire(flag) == 0) {}
    y[t + (what == fault::global_write_past)] = v;
}

__global__ void bytes_kernel(const int8_t *a, const int8_t *b, int *c)
{
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t fa[4];
    int d[4] = {0, 0, 0, 0};
    for (int r = 0; r < 4; r++)
        fa[r] = *reinterpret_cast<const uint32_t *>(a + (g + 8 * (r % 2)) * 32 + 4 * t + 16 * (r / 2));
    const uint32_t *fb = reinterpret_cast<const uint32_t *>(b + g * 32 + 4 * t);
    ptx::mma_s8_16832(d, fa, fb[0], fb[4]);
    for (int r = 0; r < 4; r++)
        c[(g + 8 * (r / 2)) * 8 + 2 * t + r % 2] = d[r];
}

__global__ void add_kernel(const float *x, float v, float *y, int n)
{
    const int i = blockIdx.x * 64 + threadIdx.x;
    if (i < n)
        y[i] = x[i] + v;
}

__global__ void poll_kernel(const unsigned *flag, const float *x, float *y)
{
    while (ptx::ld_acquire(flag) == 0) {}
    *y = *x;
}

__global__ void intrinsics_kernel(int *out)
{
    const int lane = threadIdx.x;
    const int up = __shfl_up_sync(0xffffffffu, lane, 3), down = __shfl_down_sync(0xffffffffu, lane, 3, 16);
    const int other = __shfl_xor_sync(0xffffffffu, lane, 16), low = __shfl_sync(0xffffffffu, lane, 5, 8);
    const unsigned odd = __ballot_sync(0xffffffffu, lane % 2);
    const int sum = kd::warp_sum(lane), most = __reduce_max_sync(0xffffffffu, -lane);
    const int counted = __syncthreads_count(lane < 7), any = __syncthreads_or(lane == 7);
    int half = 0;
    if (lane < 16)
        half = __reduce_add_sync(0xffffu, 1);
    else
        half = __reduce_add_sync(0xffff0000u, 2);
    if (lane == 20) {
        const int r[] = {up, down, other, low, static_cast<int>(odd), sum, most, counted, any, half};
        for (int i = 0; i < 10; i++)
            out[i] = r[i];
        out[10] = __dp4a(0x7f80ff01, 0x02030405, 10);
        out[11] = static_cast<int>(__byte_perm(0x33221100u, 0x77665544u, 0x7521u));
        out[12] = kd::to_int(2.5f);
        out[13] = kd::to_int(3e9f);
        out[14] = kd::to_int(-3e9f);
        out[15] = kd::to_int(nanf(""));
        out[16] = static_cast<int>(kd::warp_max(0.0f) == 0);
    } else {
        kd::warp_max(static_cast<float>(-lane));
    }
}

} // namespace

cudaError_t faults_norm(cudaStream_t stream, fault what, const float *x, float *y, int rows, int n)
{
    return KD_LAUNCH(norm_kernel, plain(static_cast<unsigned>(rows), 256, stream), what, x, y, n);
}

cudaError_t faults_mirror(cudaStream_t stream, fault what, const float *x, float *y, int blocks)
{
    return KD_LAUNCH(mirror_kernel, plain(static_cast<unsigned>(blocks), 128, stream), what, x, y);
}

cudaError_t faults_product(cudaStream_t stream, fault what, const uint16_t *a, const uint16_t *b, float *c, int m,
                           int n, int k)
{
    cudaError_t e = kd::allow_smem(product_kernel, sizeof(buffers));
    if (e)
        return e;
    const dim3 grid(static_cast<unsigned>((n + tile - 1) / tile), static_cast<unsigned>((m + tile - 1) / tile));
    return KD_LAUNCH(product_kernel, (kd::launch_cfg{grid, dim3(128), sizeof(buffers), stream, false}), what, a, b, c,
                     m, n, k);
}

cudaError_t faults_layers(cudaStream_t stream, fault what, const float *w, float *x, float *y, unsigned *arrived, int n,
                          int layers)
{
    return KD_LAUNCH(layers_kernel, (kd::launch_cfg{dim3(8), dim3(64), 0, stream, true}), what, w, x, y, arrived, n,
                     layers);
}

cudaError_t faults_odd(cudaStream_t stream, fault what, float *y, unsigned *flag)
{
    return KD_LAUNCH(odd_kernel, plain(1, 64, stream), what, y, flag);
}

cudaError_t faults_bytes(cudaStream_t stream, const int8_t *a, const int8_t *b, int *c)
{
    return KD_LAUNCH(bytes_kernel, plain(1, 32, stream), a, b, c);
}

cudaError_t faults_add(cudaStream_t stream, const float *x, float v, float *y, int n)
{
    return KD_LAUNCH(add_kernel, plain(static_cast<unsigned>((n + 63) / 64), 64, stream), x, v, y, n);
}

cudaError_t faults_poll(cudaStream_t stream, const unsigned *flag, const float *x, float *y)
{
    return KD_LAUNCH(poll_kernel, plain(1, 1, stream), flag, x, y);
}

cudaError_t faults_intrinsics(cudaStream_t stream, int *out)
{
    return KD_LAUNCH(intrinsics_kernel, plain(1, 32, stream), out);
}
