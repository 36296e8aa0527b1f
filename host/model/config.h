/* The facts of a Gemma 3n text model: everything that the file, not the code, decides. */
#ifndef PL_MODEL_CONFIG_H
#define PL_MODEL_CONFIG_H

#include "host/base/status.h"

#define PL_MAX_LAYERS 128
#define PL_MAX_EOS 8
#define PL_ALTUP 4 /* parallel residual streams; files with another number are refused */

typedef struct pl_config {
    int n_layers;
    int n_kv_layers; /* layers below own K/V; those from here on read the last one below of their type */
    int hidden;
    int n_heads, n_kv_heads, head_dim;
    int ple_dim;   /* per-layer input width */
    int ple_vocab; /* rows of the per-layer table; ids outside use row 0 */
    int vocab;     /* rows of the embedding and of the logits */
    int laurel_rank;
    int window;  /* keys a local layer sees, the query's own included */
    int context; /* longest sequence */
    float eps;
    float softcap; /* of the logits; 0: none */
    float rope_base_global, rope_base_local;
    bool altup_correct_scale;
    int ffn[PL_MAX_LAYERS];          /* FFN width */
    bool local[PL_MAX_LAYERS];       /* sliding-window attention */
    float sparsity_z[PL_MAX_LAYERS]; /* cutoff in standard deviations above the mean; -INFINITY: dense */
    int kv_layer[PL_MAX_LAYERS];     /* the layer whose K/V are read; derived by pl_config_check() */
    int32_t bos, pad;
    int32_t eos[PL_MAX_EOS];
    int n_eos;
} pl_config;

/* Checks every value and every relation between them, and derives kv_layer. `where` names the file. */
pl_status pl_config_check(pl_config *config, const char *where, pl_error *err);

/* From the bytes of a config.json (section text_config, or a text-only file) and, where not NULL, of a
 * generation_config.json (stop tokens). */
pl_status pl_config_from_json(const char *json, size_t n, const char *generation, size_t n_generation,
                              const char *where, pl_config *out, pl_error *err);

#endif
