/* Attention's two inner loops, with multiplication and addition fused where the instruction set has it (AVX2 and
 * above). Explicitly, not by letting the compiler contract: those levels agree to the bit, whatever the tiling. */
#ifndef PL_CPU_ATTENTION_FUSED_H
#define PL_CPU_ATTENTION_FUSED_H

/* _scores: score[h][t] = q[h] . key t, for keys one after another; sixteen lanes and a tree of halves (see vec.h).
 * _values: acc[h] += sum_t weight[h][t] * value t, t ascending.
 * Both ask for as many values from `soon` on, which may be NULL. */
#define PL_ATTENTION_FUSED(isa)                                                                                        \
    void pl_attention_scores_##isa(const float *const *q, int n_q, const float *k, int n_k, int dim,                   \
                                   float *const *score, const float *soon);                                            \
    void pl_attention_values_##isa(const float *const *weight, int n_q, const float *v, int n_v, int dim,              \
                                   float *const *acc, const float *soon);

PL_ATTENTION_FUSED(base)
PL_ATTENTION_FUSED(avx2)
PL_ATTENTION_FUSED(avx512)

#endif
