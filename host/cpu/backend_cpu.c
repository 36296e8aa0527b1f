/* The CPU backend: every op at once on a pool of threads, weights in ordinary memory. */
#define _GNU_SOURCE
#include "host/base/cpu.h"
#include "host/cpu/attention.h"
#include "host/cpu/comm_local.h"
#include "host/cpu/head_screen.h"
#include "host/cpu/pack.h"
#include "host/cpu/ple_look.h"
#include "host/cpu/stream.h"
#include "host/cpu/tower.h"
#include "host/ops/backend.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct cpu_backend {
    pl_backend base;
    pl_stream stream;
    pl_ops ops;
    pl_fused fused;
    pl_tower_ops tower;
} cpu_backend;

static size_t cpu_weight_bytes(const pl_backend *b, const pl_tensor *t)
{
    (void)b;
    return pl_pack_bytes(t);
}

static pl_status cpu_weight_load(pl_backend *b, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err)
{
    return pl_pack(b->pool, t, dst, out, err);
}

static void head_top_op(pl_stream *s, const pl_weight *head, pl_act *x, float *logits, int n, const int32_t *top,
                        float cap)
{
    pl_head_screen_count before = pl_head_screen_counted(s->screen);
    pl_head_screen_top(s->screen, s, s->ops, x, logits, n, top, cap);
    pl_head_screen_count after = pl_head_screen_counted(s->screen);
    s->skipped.bytes += head->bytes - (uint64_t)(after.bytes - before.bytes);
    s->skipped.products += 2 * (uint64_t)(n * head->rows * head->cols) - (uint64_t)(after.products - before.products);
}

static pl_status cpu_take_head(pl_backend *b, const pl_weight *w, pl_error *err)
{
    cpu_backend *cpu = (cpu_backend *)b;
    PL_TRY(pl_head_screen_create(w, &cpu->stream.screen, err));
    cpu->ops.head_top = cpu->stream.screen ? head_top_op : NULL;
    return PL_OK;
}

static pl_status cpu_weight_load_neurons(pl_backend *b, const pl_tensor *t, pl_weight_layout layout, void *dst,
                                         pl_weight *out, pl_error *err)
{
    return pl_pack_neurons(b->pool, t, layout, dst, out, err);
}

static pl_skipped cpu_skipped(const pl_backend *b)
{
    return b->stream->skipped;
}

/* Pages are zero and cost nothing until touched; huge ones where the system offers them, since a decode
 * step walks through gigabytes. */
static void *cpu_memory_take(pl_backend *b, size_t bytes)
{
    (void)b;
    if (bytes == 0)
        return NULL;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

static void cpu_memory_give(pl_backend *b, void *memory, size_t bytes)
{
    (void)b;
    if (memory)
        munmap(memory, bytes);
}

/* Ops run at once and in the host's own memory: nothing is ever queued. */

static void cpu_copy(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    (void)s;
    memcpy(dst, src, bytes);
}

static pl_status status_of(const pl_stream *s, pl_error *err)
{
    return atomic_load(&s->lost) ? pl_fail(err, PL_ERR_DEVICE, "another rank of this engine has failed") : PL_OK;
}

static pl_status cpu_fetch(pl_stream *s, const void *src, size_t bytes, const void **out, pl_error *err)
{
    (void)bytes;
    if (out)
        *out = src;
    return status_of(s, err);
}

static uint64_t cpu_mark(pl_stream *s)
{
    (void)s;
    return 1;
}

static pl_status cpu_wait_for(pl_stream *s, uint64_t mark, pl_error *err)
{
    (void)mark;
    return status_of(s, err);
}

static bool cpu_begin(pl_stream *s, const void *key, size_t key_bytes)
{
    (void)s, (void)key, (void)key_bytes;
    return true;
}

static void cpu_end(pl_stream *s)
{
    (void)s;
}

static void cpu_fork_or_join(pl_backend *b)
{
    (void)b;
}

static void cpu_destroy(pl_backend *b)
{
    cpu_backend *cpu = (cpu_backend *)b;
    pl_head_screen_free(cpu->stream.screen);
    free(cpu->stream.partial);
    free(cpu->stream.routed);
    free(cpu->stream.thread_scratch);
    free(cpu->stream.gemm_scratch);
    pl_pool_free(cpu->stream.pool);
    free(cpu);
}

#define FILL_OPS(isa)                                                                                                  \
    static void fill_ops_##isa(pl_ops *ops)                                                                            \
    {                                                                                                                  \
        pl_altup_ops_##isa(ops);                                                                                       \
        pl_attention_ops_##isa(ops);                                                                                   \
        pl_embed_ops_##isa(ops);                                                                                       \
        pl_ffn_ops_##isa(ops);                                                                                         \
        pl_ffn_sparse_ops_##isa(ops);                                                                                  \
        pl_output_ops_##isa(ops);                                                                                      \
        pl_ple_ops_##isa(ops);                                                                                         \
        pl_qkv_ops_##isa(ops);                                                                                         \
        pl_residual_ops_##isa(ops);                                                                                    \
    }                                                                                                                  \
    static void fill_fused_##isa(pl_fused *fused)                                                                      \
    {                                                                                                                  \
        pl_altup_fused_##isa(fused);                                                                                   \
        pl_ffn_fused_##isa(fused);                                                                                     \
        pl_ple_fused_##isa(fused);                                                                                     \
        pl_residual_fused_##isa(fused);                                                                                \
    }                                                                                                                  \
    static void fill_tower_##isa(pl_tower_ops *ops, pl_stream *s)                                                      \
    {                                                                                                                  \
        pl_tower_audio_ops_##isa(ops);                                                                                 \
        pl_tower_depthwise_ops_##isa(ops);                                                                             \
        pl_tower_norm_ops_##isa(ops);                                                                                  \
        s->softmax = pl_tower_softmax_##isa;                                                                           \
    }

FILL_OPS(base)
#if defined(__x86_64__)
FILL_OPS(avx2)
FILL_OPS(avx512)
#endif

static void quantize_op(pl_stream *s, pl_act *act, int n)
{
    s->kernels->quantize(s->pool, act, n);
}

static void matmul_op(pl_stream *s, const pl_matmul *jobs, int n_jobs)
{
    pl_stream_matmul(s, jobs, n_jobs);
}

typedef struct isa_level {
    const char *name;
    void (*fill)(pl_ops *ops);
    void (*fill_fused)(pl_fused *fused);
    void (*fill_tower)(pl_tower_ops *ops, pl_stream *s);
    pl_head_coarse_span *coarse_span;
} isa_level;

static isa_level choose_isa(unsigned features)
{
    isa_level chosen = {"cpu", fill_ops_base, fill_fused_base, fill_tower_base, pl_head_coarse_span_base};
    (void)features;
#if defined(__x86_64__)
    if (features & PL_CPU_AVX2)
        chosen = (isa_level){"cpu avx2", fill_ops_avx2, fill_fused_avx2, fill_tower_avx2, pl_head_coarse_span_avx2};
    if (features & PL_CPU_AVX512_VNNI)
        chosen = (isa_level){"cpu avx512", fill_ops_avx512, fill_fused_avx512, fill_tower_avx512,
                             pl_head_coarse_span_avx512};
#endif
    return chosen;
}

static void fill_tower(cpu_backend *cpu, const isa_level *isa, unsigned features)
{
    cpu->stream.gemm = pl_gemm_select(features);
    cpu->tower.ready_bytes = cpu->stream.gemm->bytes;
    pl_tower_gemm_ops(&cpu->tower);
    pl_tower_map_ops(&cpu->tower);
    isa->fill_tower(&cpu->tower, &cpu->stream);
}

static pl_status take_scratch(pl_stream *s, const pl_backend_shape *shape, int threads, pl_error *err)
{
    s->scratch_floats = (pl_attention_thread_floats(shape->heads) + 15) / 16 * 16;
    s->partial_floats = pl_attention_partial_floats(shape->heads, shape->max_context);
    s->thread_scratch = aligned_alloc(64, (size_t)threads * (size_t)s->scratch_floats * sizeof(float));
    s->partial = aligned_alloc(64, (size_t)s->partial_floats * sizeof(float));
    s->gemm_scratch = aligned_alloc(64, (size_t)threads * PL_GEMM_SCRATCH_FLOATS * sizeof(float));
    if (!s->gemm_scratch)
        return pl_fail_memory(err, (size_t)threads * PL_GEMM_SCRATCH_FLOATS * sizeof(float), "products");
    if (!s->thread_scratch || !s->partial)
        return pl_fail_memory(err, (size_t)s->partial_floats * sizeof(float), "attention");
    s->routed = calloc((size_t)shape->max_rows * PL_STREAMS, sizeof(float));
    if (!s->routed)
        return pl_fail_memory(err, (size_t)shape->max_rows * PL_STREAMS * sizeof(float), "AltUp");
    return PL_OK;
}

pl_status pl_backend_cpu(const pl_backend_shape *shape, int threads, const int *cpus, unsigned allowed,
                         pl_backend **out, pl_error *err)
{
    if (shape->heads.heads / shape->heads.kv_heads > PL_ATTENTION_MAX_GROUP)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%d query heads share a K/V head, at most %d are supported",
                       shape->heads.heads / shape->heads.kv_heads, PL_ATTENTION_MAX_GROUP);
    cpu_backend *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return pl_fail_memory(err, sizeof *cpu, "CPU backend");
    unsigned features = pl_cpu_features(allowed);
    isa_level isa = choose_isa(features);
    isa.fill(&cpu->ops);
    isa.fill_fused(&cpu->fused);
    cpu->fused.most_rows = shape->max_rows;
    cpu->ops.quantize = quantize_op;
    cpu->ops.matmul = matmul_op;
    cpu->ops.ple_look = pl_cpu_ple_look;
    cpu->stream.kernels = pl_matmul_select(features);
    const pl_matmul_kernels *kernels = cpu->stream.kernels;
    if (kernels->rounding == PL_ROUNDS_BOTH) /* tiles multiply all of it sooner than lanes what is live */
        cpu->ops.ffn_sparse_many = NULL;
    cpu->stream.ops = &cpu->ops;
    cpu->stream.coarse_span = isa.coarse_span;
    bool rounds = shape->fast_prompts && kernels->rounding != PL_ROUNDS_NOTHING;
    fill_tower(cpu, &isa, features);
    cpu->base = (pl_backend){
        .name = isa.name,
        .ops = &cpu->ops,
        .fused = &cpu->fused,
        .tower = &cpu->tower,
        .stream = &cpu->stream,
        .side = &cpu->stream,
        .weight_bytes = cpu_weight_bytes,
        .weight_load = cpu_weight_load,
        .weight_load_neurons = cpu_weight_load_neurons,
        .skipped = cpu_skipped,
        .wide_acts = kernels->wide || rounds,
        .rounds = rounds ? kernels->name : NULL,
        .take_head = cpu_take_head,
        .memory_take = cpu_memory_take,
        .memory_give = cpu_memory_give,
        .shared_take = cpu_memory_take,
        .shared_give = cpu_memory_give,
        .upload = cpu_copy,
        .copy = cpu_copy,
        .download = cpu_copy,
        .fetch = cpu_fetch,
        .mark = cpu_mark,
        .wait_for = cpu_wait_for,
        .begin = cpu_begin,
        .end = cpu_end,
        .fork = cpu_fork_or_join,
        .join = cpu_fork_or_join,
        .comm_create = pl_comm_create_local,
        .destroy = cpu_destroy,
    };
    pl_status status = PL_OK;
    PL_TRY_GOTO(pl_pool_create(threads, cpus, &cpu->stream.pool, err));
    cpu->base.pool = cpu->stream.pool;
    PL_TRY_GOTO(take_scratch(&cpu->stream, shape, threads, err));
    *out = &cpu->base;
    return PL_OK;
fail:
    cpu_destroy(&cpu->base);
    return status;
}

size_t pl_backend_cpu_weight_bytes(const pl_tensor *t)
{
    return pl_pack_bytes(t);
}

size_t pl_backend_cpu_head_bytes(const pl_tensor *head)
{
    return pl_head_screen_bytes(head->rows, head->cols, head->type);
}

void pl_backend_free(pl_backend *b)
{
    if (b)
        b->destroy(b);
}
