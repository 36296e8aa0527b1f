/* The one table of the model's weights: names in both formats, shapes, kinds. Whatever goes through all weights
 * (binding, loading, counting, quantising, slicing, measuring) goes through this. */
#ifndef PL_MODEL_WEIGHT_TABLE_H
#define PL_MODEL_WEIGHT_TABLE_H

#include "host/model/checkpoint.h"

/* Roles: first those of a layer, then those of the whole model. */
typedef enum pl_role {
    PL_ROLE_ATTN_NORM,
    PL_ROLE_POST_ATTN_NORM,
    PL_ROLE_FFN_NORM,
    PL_ROLE_POST_FFN_NORM,
    PL_ROLE_POST_PLE_NORM,
    PL_ROLE_Q,
    PL_ROLE_K,
    PL_ROLE_V,
    PL_ROLE_O,
    PL_ROLE_Q_NORM,
    PL_ROLE_K_NORM,
    PL_ROLE_GATE,
    PL_ROLE_UP,
    PL_ROLE_DOWN,
    PL_ROLE_LAUREL_LEFT,
    PL_ROLE_LAUREL_RIGHT,
    PL_ROLE_LAUREL_NORM,
    PL_ROLE_ALTUP_ROUTER,
    PL_ROLE_ALTUP_ROUTER_NORM,
    PL_ROLE_ALTUP_PREDICT,
    PL_ROLE_ALTUP_CORRECT,
    PL_ROLE_ALTUP_SCALE,
    PL_ROLE_PLE_GATE,
    PL_ROLE_PLE_PROJ,
    PL_LAYER_ROLES,

    PL_ROLE_EMBED = PL_LAYER_ROLES,
    PL_ROLE_HEAD,
    PL_ROLE_PLE_TABLE,
    PL_ROLE_PLE_MODEL_PROJ,
    PL_ROLE_PLE_NORM,
    PL_ROLE_ALTUP_PROJ,    /* PL_ALTUP - 1 matrices: one tensor in GGUF, one each in Hugging Face */
    PL_ROLE_ALTUP_UNEMBED, /* likewise */
    PL_ROLE_OUT_NORM,
    PL_ROLES,
} pl_role;

/* The sizes that shapes are made of, as checkpoint.h writes them; LP: layers * P. */
typedef enum pl_size {
    PL_SIZE_1,
    PL_SIZE_A,
    PL_SIZE_AA,
    PL_SIZE_D,
    PL_SIZE_F,
    PL_SIZE_H,
    PL_SIZE_K,
    PL_SIZE_LP,
    PL_SIZE_P,
    PL_SIZE_PLE_VOCAB,
    PL_SIZE_Q,
    PL_SIZE_R,
    PL_SIZE_V
} pl_size;

typedef enum pl_weight_kind {
    PL_WEIGHT_VECTOR, /* norms and the small tables: used as f32, never quantised */
    PL_WEIGHT_MATRIX, /* multiplied */
    PL_WEIGHT_LOOKUP, /* the per-layer table: rows are read, never multiplied */
} pl_weight_kind;

typedef enum pl_weight_when {
    PL_WHEN_ALWAYS,
    PL_WHEN_OWNS_KV, /* in layers with K/V of their own */
    PL_WHEN_SCALED,  /* with altup_correct_scale */
    PL_WHEN_UNTIED,  /* the head */
} pl_weight_when;

typedef struct pl_weight_info {
    const char *hf, *gguf; /* after the prefix and, of a layer, its number: "mlp.up_proj.weight", "ffn_up.weight" */
    const char *label;     /* for people and files of ours: "up" */
    size_t offset;         /* of the pl_tensor in pl_layer_weights or pl_weights */
    pl_size rows, cols;    /* rows PL_SIZE_1: a vector of cols */
    pl_weight_kind kind;
    pl_weight_when when;
    int count; /* pl_tensors in a row: PL_ALTUP - 1 for the AltUp projections, else 1 */
} pl_weight_info;

extern const pl_weight_info pl_weight_table[PL_ROLES];

static inline bool pl_role_in_layer(pl_role role)
{
    return role < PL_LAYER_ROLES;
}

/* layer: any where the size does not depend on it. */
int64_t pl_size_of(const pl_config *config, int layer, pl_size size);

/* Whether the model uses this weight in this layer; the head is told by the checkpoint, not the config. */
bool pl_weight_needed(const pl_config *config, int layer, pl_role role);

/* The tensor of a role, the first where there are several; layer: ignored for those of the whole model. */
static inline const pl_tensor *pl_weight_at(const pl_weights *weights, int layer, pl_role role)
{
    const char *base = pl_role_in_layer(role) ? (const char *)&weights->layer[layer] : (const char *)weights;
    return (const pl_tensor *)(const void *)(base + pl_weight_table[role].offset);
}

/* One after the other, all tensors that are there: those of layer 0, of layer 1 ..., then those of the whole model.
 *
 *     for (pl_weight_cursor at = {0}; pl_weight_next(weights, config, &at);) */
typedef struct pl_weight_cursor {
    const pl_tensor *tensor;
    pl_role role;
    int layer; /* -1: of the whole model */
    int index; /* among several of one role */
    int next;  /* where to go on */
} pl_weight_cursor;

bool pl_weight_next(const pl_weights *weights, const pl_config *config, pl_weight_cursor *at);

#define PL_WEIGHT_NAME_BYTES 320

/* "blk.3.ffn_up.weight", or with the prefix of the folder "model.language_model.layers.3.mlp.up_proj.weight".
 * index: which of several in Hugging Face's names ("altup_projections.1.weight"). out: PL_WEIGHT_NAME_BYTES. */
void pl_weight_name(pl_checkpoint_format format, const char *prefix, int layer, pl_role role, int index, char *out);

/* The role and layer (-1: of the whole model) that a GGUF name stands for; false for any other name. */
bool pl_weight_find(const char *gguf_name, pl_role *role, int *layer);

#endif
