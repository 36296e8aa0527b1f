/* What the kernels do not take, they refuse; no rows are no work. */
#include "cuda/kernels.h"
#include "tests/cuda/card.h"

#include <criterion/criterion.h>
#include <math.h>

typedef struct place {
    cudaStream_t queue;
    float *v; /* on the card; the calls below launch nothing */
    const int32_t *index;
} place;

static place insert(void)
{
    place p;
    card_insert(CARD_ASKED, 0);
    cr_assert_eq(cudaStreamCreateWithFlags(&p.queue, cudaStreamNonBlocking), cudaSuccess);
    cr_assert_eq(cudaMalloc((void **)&p.v, 4096), cudaSuccess);
    p.index = (const int32_t *)p.v;
    return p;
}

static void eject(place p)
{
    cr_assert_eq(card_launches(), 0);
    cudaFree(p.v);
    cudaStreamDestroy(p.queue);
}

static void expect_all(place p, int n, int64_t hidden, int64_t width, int dim, cudaError_t want)
{
    pl_streams s = {p.v, 1, hidden};
    pl_rows rows = {n, p.index, p.index, p.index};
    pl_altup altup = {p.v, p.v, p.v, p.v, p.v};
    pl_kv_layer kv = {p.v, p.v, PL_KV_PAGE * dim, p.index, 1, PL_CACHE_F32};
    pl_heads heads = {1, 1, dim};
    cr_expect_eq(pl_cuda_match_rms(p.queue, p.v, p.v, n, hidden), want);
    cr_expect_eq(pl_cuda_altup_predict(p.queue, s, p.v, s, &rows, &altup, p.v, 1e-6f), want);
    cr_expect_eq(pl_cuda_altup_correct(p.queue, s, p.v, p.v, p.v, s, &rows, &altup, p.v, 1e-6f), want);
    cr_expect_eq(pl_cuda_attn_residual(p.queue, p.v, p.v, p.v, p.v, p.v, p.v, p.v, p.v, p.v, n, hidden, 1e-6f), want);
    cr_expect_eq(pl_cuda_ple_add(p.queue, s, p.v, &rows, p.v, 1e-6f), want);
    cr_expect_eq(pl_cuda_output_norm(p.queue, p.v, p.v, p.v, s, n, p.v, 1e-6f), want);
    cr_expect_eq(pl_cuda_ffn_act(p.queue, p.v, p.v, width, n, p.index, 1.6f), want);
    cr_expect_eq(pl_cuda_qkv_store(p.queue, p.v, p.v, p.v, &kv, &rows, heads, p.v, p.v, p.v, 1e-6f), want);
}

Test(card_limits, too_wide)
{
    place p = insert();
    expect_all(p, 1, PL_CUDA_MAX_HIDDEN + 1, PL_CUDA_MAX_SPARSE_WIDTH + 1, PL_CUDA_MAX_HEAD_DIM + 2,
               cudaErrorInvalidValue);
    eject(p);
}

Test(card_limits, no_rows)
{
    place p = insert();
    pl_weight table = {.name = "table", .data = p.v, .rows = 1, .cols = 16, .type = PL_F32};
    pl_rows rows = {0, p.index, p.index, p.index};
    expect_all(p, 0, 16, 16, 16, cudaSuccess);
    pl_embed_from from = {.table = &table, .scale = 1};
    cr_expect_eq(pl_cuda_embed(p.queue, p.v, &from, p.index, 0), cudaSuccess);
    cr_expect_eq(pl_cuda_ffn_act(p.queue, p.v, p.v, 16, 0, p.index, -INFINITY), cudaSuccess);
    cr_expect_eq(pl_cuda_ple_combine(p.queue, p.v, p.v, 16, p.v, 0, p.index, 16, 1, 1, 1e-6f), cudaSuccess);
    cr_expect_eq(pl_cuda_ple_gate(p.queue, p.v, p.v, 16, &rows, 16), cudaSuccess);
    cr_expect_eq(pl_cuda_rope_table(p.queue, p.v, p.index, 0, p.v, 8), cudaSuccess);
    cr_expect_eq(pl_cuda_softcap(p.queue, p.v, 0, 16, 30), cudaSuccess);
    eject(p);
}
