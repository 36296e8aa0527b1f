/* Small kernels that can be told to make one mistake each: what the shim has to catch. */
#ifndef PL_TESTS_CUDA_FAULTS_HPP
#define PL_TESTS_CUDA_FAULTS_HPP

#include <cuda_runtime_api.h>
#include <stdint.h>

enum class fault {
    none,
    no_sync,            /* norm: between writing and reading shared memory */
    shared_read_past,   /* norm */
    shared_write_past,  /* norm */
    no_syncwarp,        /* mirror */
    no_sync_before_use, /* product: of a tile */
    no_sync_after_use,
    wrong_wait,        /* product: waits for one group too few */
    no_last_wait,      /* product: leaves with copies under way */
    swapped_registers, /* product: of fragment B */
    no_swizzle,        /* product: right, with bank conflicts */
    relaxed_barrier,   /* layers: of the grid, adds without release */
    half_barrier,      /* layers: no __syncthreads behind it */
    no_barrier,        /* layers */
    part_of_block,     /* odd: half the threads reach a barrier */
    part_of_warp,      /* odd: half the lanes reach a shuffle */
    exited_lane,       /* odd: a shuffle names a lane that left */
    unaligned,         /* odd: a load of 16 bytes */
    global_write_past, /* odd */
    endless_wait       /* odd: for what nobody sets */
};

/* y[row] = x[row] / sqrt(mean(x[row]^2)), n columns. */
cudaError_t faults_norm(cudaStream_t stream, fault what, const float *x, float *y, int rows, int n);
/* Each 32 values in reverse order. */
cudaError_t faults_mirror(cudaStream_t stream, fault what, const float *x, float *y, int blocks);
/* c[m][n] = a[m][k] b[n][k]^T in bfloat16, k a multiple of 32. */
cudaError_t faults_product(cudaStream_t stream, fault what, const uint16_t *a, const uint16_t *b, float *c, int m,
                           int n, int k);
/* x = tanh(w[layer] x), n x n, again and again: in one launch, the result in x for an even number of layers, else in y.
 * *arrived is 0. */
cudaError_t faults_layers(cudaStream_t stream, fault what, const float *w, float *x, float *y, unsigned *arrived, int n,
                          int layers);
/* y has 64 values. */
cudaError_t faults_odd(cudaStream_t stream, fault what, float *y, unsigned *flag);
/* c[16][8] = a[16][32] b[8][32]^T. */
cudaError_t faults_bytes(cudaStream_t stream, const int8_t *a, const int8_t *b, int *c);
/* y[i] = x[i] + v, one launch. */
cudaError_t faults_add(cudaStream_t stream, const float *x, float v, float *y, int n);
/* Waits until *flag, then *y = *x. */
cudaError_t faults_poll(cudaStream_t stream, const unsigned *flag, const float *x, float *y);
/* out[i]: results of intrinsics on one warp, as test_shim.cpp expects them. */
cudaError_t faults_intrinsics(cudaStream_t stream, int *out);

#endif
