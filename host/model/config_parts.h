/* What the makers of a pl_config share. */
#ifndef PL_MODEL_CONFIG_PARTS_H
#define PL_MODEL_CONFIG_PARTS_H

#include "host/model/config.h"
#include "host/model/gguf.h"
#include "host/model/model_json.h"

/* From a parsed config.json and, where not NULL, generation_config.json. Checked. */
pl_status pl_config_from_tree(const json_t *root, const json_t *generation, const char *where, pl_config *out,
                              pl_error *err);

/* From GGUF metadata. Sizes that no key states (vocab, ple_vocab, laurel_rank) and the stop tokens are the
 * caller's to fill in before pl_config_check(). */
pl_status pl_config_from_gguf(const pl_gguf *file, pl_config *out, pl_error *err);

/* The published layer pattern: four local layers, then a global one. */
static inline bool pl_config_local_by_rule(int layer)
{
    return (layer + 1) % 5 != 0;
}

/* Layers with activation sparsity where a file does not say, and their cutoff. */
#define PL_DEFAULT_SPARSE_LAYERS 10
#define PL_DEFAULT_SPARSITY 0.95

/* The z below which a standard normal variable lies with probability p in [0, 1); -INFINITY for 0. */
float pl_normal_quantile(double p);

/* Appends a stop token unless it is there; one that does not fit is an error. */
pl_status pl_config_add_eos(pl_config *config, int64_t id, const char *where, pl_error *err);

#endif
