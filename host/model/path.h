/* Paths through a resident model: which layers run, and how wide their FFN is (MatFormer). A path is
 * data; no code branches on its name. */
#ifndef PL_MODEL_PATH_H
#define PL_MODEL_PATH_H

#include "host/model/checkpoint.h"

#define PL_PATH_NAME_BYTES 1024

typedef struct pl_path {
    char name[PL_PATH_NAME_BYTES]; /* as asked for */
    int n_layers;                  /* of the full model */
    bool skip[PL_MAX_LAYERS];
    int ffn[PL_MAX_LAYERS]; /* 0 where skipped */
} pl_path;

/* Reads "e4b" (or "full"), "e2b", a name the checkpoint declares, or mix:widths=W[,W...][;skip=A-B,C]. A
 * declared name stands for "full" or a mix, and counts before e4b and e2b as they are here.
 *
 * e2b is what the file declares under that name; else, for the published shapes, Google's cut; else its
 * rule: half of every FFN, and the first period of the shared layers skipped where that leaves one, or
 * the whole model where there is only one.
 * Errors name the part of the text that is wrong and what would be right. Only shared layers may be
 * skipped. Widths of quantised layers must be whole blocks of ffn_down. */
pl_status pl_path_parse(const pl_checkpoint *checkpoint, const char *text, pl_path *out, pl_error *err);

/* The name of the path through everything that the file holds: "e2b" where that is what e2b means, else "e4b". */
const char *pl_path_default(const pl_checkpoint *checkpoint);

/* True when both write the same K/V: equal widths in all layers that own K/V. */
bool pl_path_same_kv(const pl_config *config, const pl_path *a, const pl_path *b);

/* Weight elements multiplied for one token on this path: all matrices, head included. */
int64_t pl_path_weights(const pl_checkpoint *checkpoint, const pl_path *path);

/* Bytes of weights read for one decoded token on this path as the file stores them: matrices and vectors,
 * head included; the token's rows of the two tables are not counted. */
int64_t pl_path_bytes(const pl_checkpoint *checkpoint, const pl_path *path);

#endif
