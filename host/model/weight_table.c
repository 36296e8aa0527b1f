#include "host/model/weight_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYER(field) offsetof(pl_layer_weights, field)
#define WHOLE(field) offsetof(pl_weights, field)
#define VECTOR(field_offset, cols, when) field_offset, PL_SIZE_1, cols, PL_WEIGHT_VECTOR, when, 1
#define SMALL(field_offset, rows, cols) field_offset, rows, cols, PL_WEIGHT_VECTOR, PL_WHEN_ALWAYS, 1
#define MATRIX(field_offset, rows, cols, when) field_offset, rows, cols, PL_WEIGHT_MATRIX, when, 1

/* clang-format off */
const pl_weight_info pl_weight_table[PL_ROLES] = {
    [PL_ROLE_ATTN_NORM] = {"input_layernorm.weight", "attn_norm.weight", "attn_norm",
                           VECTOR(LAYER(attn_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_POST_ATTN_NORM] = {"post_attention_layernorm.weight", "post_attention_norm.weight", "post_attn_norm",
                                VECTOR(LAYER(post_attn_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_FFN_NORM] = {"pre_feedforward_layernorm.weight", "ffn_norm.weight", "ffn_norm",
                          VECTOR(LAYER(ffn_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_POST_FFN_NORM] = {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", "post_ffn_norm",
                               VECTOR(LAYER(post_ffn_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_POST_PLE_NORM] = {"post_per_layer_input_norm.weight", "post_norm.weight", "post_ple_norm",
                               VECTOR(LAYER(post_ple_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_Q] = {"self_attn.q_proj.weight", "attn_q.weight", "q",
                   MATRIX(LAYER(q), PL_SIZE_Q, PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_K] = {"self_attn.k_proj.weight", "attn_k.weight", "k",
                   MATRIX(LAYER(k), PL_SIZE_K, PL_SIZE_H, PL_WHEN_OWNS_KV)},
    [PL_ROLE_V] = {"self_attn.v_proj.weight", "attn_v.weight", "v",
                   MATRIX(LAYER(v), PL_SIZE_K, PL_SIZE_H, PL_WHEN_OWNS_KV)},
    [PL_ROLE_O] = {"self_attn.o_proj.weight", "attn_output.weight", "o",
                   MATRIX(LAYER(o), PL_SIZE_H, PL_SIZE_Q, PL_WHEN_ALWAYS)},
    [PL_ROLE_Q_NORM] = {"self_attn.q_norm.weight", "attn_q_norm.weight", "q_norm",
                        VECTOR(LAYER(q_norm), PL_SIZE_D, PL_WHEN_ALWAYS)},
    [PL_ROLE_K_NORM] = {"self_attn.k_norm.weight", "attn_k_norm.weight", "k_norm",
                        VECTOR(LAYER(k_norm), PL_SIZE_D, PL_WHEN_OWNS_KV)},
    [PL_ROLE_GATE] = {"mlp.gate_proj.weight", "ffn_gate.weight", "gate",
                      MATRIX(LAYER(gate), PL_SIZE_F, PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_UP] = {"mlp.up_proj.weight", "ffn_up.weight", "up",
                    MATRIX(LAYER(up), PL_SIZE_F, PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_DOWN] = {"mlp.down_proj.weight", "ffn_down.weight", "down",
                      MATRIX(LAYER(down), PL_SIZE_H, PL_SIZE_F, PL_WHEN_ALWAYS)},
    [PL_ROLE_LAUREL_LEFT] = {"laurel.linear_left.weight", "laurel_l.weight", "laurel_left",
                             MATRIX(LAYER(laurel_left), PL_SIZE_R, PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_LAUREL_RIGHT] = {"laurel.linear_right.weight", "laurel_r.weight", "laurel_right",
                              MATRIX(LAYER(laurel_right), PL_SIZE_H, PL_SIZE_R, PL_WHEN_ALWAYS)},
    [PL_ROLE_LAUREL_NORM] = {"laurel.post_laurel_norm.weight", "laurel_post_norm.weight", "laurel_norm",
                             VECTOR(LAYER(laurel_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_ALTUP_ROUTER] = {"altup.modality_router.weight", "altup_router.weight", "altup_router",
                              SMALL(LAYER(altup_router), PL_SIZE_A, PL_SIZE_H)},
    [PL_ROLE_ALTUP_ROUTER_NORM] = {"altup.router_norm.weight", "altup_router_norm.weight", "altup_router_norm",
                                   VECTOR(LAYER(altup_router_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_ALTUP_PREDICT] = {"altup.prediction_coefs.weight", "altup_predict_coef.weight", "altup_predict",
                               SMALL(LAYER(altup_predict), PL_SIZE_AA, PL_SIZE_A)},
    [PL_ROLE_ALTUP_CORRECT] = {"altup.correction_coefs.weight", "altup_correct_coef.weight", "altup_correct",
                               SMALL(LAYER(altup_correct), PL_SIZE_A, PL_SIZE_A)},
    [PL_ROLE_ALTUP_SCALE] = {"altup.correct_output_scale", "altup_correct_scale.weight", "altup_scale",
                             VECTOR(LAYER(altup_scale), PL_SIZE_H, PL_WHEN_SCALED)},
    [PL_ROLE_PLE_GATE] = {"per_layer_input_gate.weight", "inp_gate.weight", "ple_gate",
                          MATRIX(LAYER(ple_gate), PL_SIZE_P, PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_PLE_PROJ] = {"per_layer_projection.weight", "proj.weight", "ple_proj",
                          MATRIX(LAYER(ple_proj), PL_SIZE_H, PL_SIZE_P, PL_WHEN_ALWAYS)},

    [PL_ROLE_EMBED] = {"embed_tokens.weight", "token_embd.weight", "embed",
                       MATRIX(WHOLE(embed), PL_SIZE_V, PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_HEAD] = {"lm_head.weight", "output.weight", "head",
                      MATRIX(WHOLE(head), PL_SIZE_V, PL_SIZE_H, PL_WHEN_UNTIED)},
    [PL_ROLE_PLE_TABLE] = {"embed_tokens_per_layer.weight", "per_layer_token_embd.weight", "ple_table",
                           WHOLE(ple_table), PL_SIZE_PLE_VOCAB, PL_SIZE_LP, PL_WEIGHT_LOOKUP, PL_WHEN_ALWAYS, 1},
    [PL_ROLE_PLE_MODEL_PROJ] = {"per_layer_model_projection.weight", "per_layer_model_proj.weight", "ple_model_proj",
                                MATRIX(WHOLE(ple_model_proj), PL_SIZE_LP, PL_SIZE_H, PL_WHEN_ALWAYS)},
    [PL_ROLE_PLE_NORM] = {"per_layer_projection_norm.weight", "per_layer_proj_norm.weight", "ple_norm",
                          VECTOR(WHOLE(ple_norm), PL_SIZE_P, PL_WHEN_ALWAYS)},
    [PL_ROLE_ALTUP_PROJ] = {"altup_projections", "altup_proj.weight", "altup_proj",
                            WHOLE(altup_proj), PL_SIZE_H, PL_SIZE_H, PL_WEIGHT_MATRIX, PL_WHEN_ALWAYS, PL_ALTUP - 1},
    [PL_ROLE_ALTUP_UNEMBED] = {"altup_unembed_projections", "altup_unembd_proj.weight", "altup_unembed",
                               WHOLE(altup_unembed), PL_SIZE_H, PL_SIZE_H, PL_WEIGHT_MATRIX, PL_WHEN_ALWAYS,
                               PL_ALTUP - 1},
    [PL_ROLE_OUT_NORM] = {"norm.weight", "output_norm.weight", "out_norm",
                          VECTOR(WHOLE(out_norm), PL_SIZE_H, PL_WHEN_ALWAYS)},
};
/* clang-format on */

int64_t pl_size_of(const pl_config *c, int layer, pl_size size)
{
    switch (size) {
    case PL_SIZE_1: return 1;
    case PL_SIZE_A: return PL_ALTUP;
    case PL_SIZE_AA: return PL_ALTUP * PL_ALTUP;
    case PL_SIZE_D: return c->head_dim;
    case PL_SIZE_F: return c->ffn[layer];
    case PL_SIZE_H: return c->hidden;
    case PL_SIZE_K: return (int64_t)c->n_kv_heads * c->head_dim;
    case PL_SIZE_LP: return (int64_t)c->n_layers * c->ple_dim;
    case PL_SIZE_P: return c->ple_dim;
    case PL_SIZE_PLE_VOCAB: return c->ple_vocab;
    case PL_SIZE_Q: return (int64_t)c->n_heads * c->head_dim;
    case PL_SIZE_R: return c->laurel_rank;
    case PL_SIZE_V: return c->vocab;
    }
    return 0;
}

bool pl_weight_needed(const pl_config *c, int layer, pl_role role)
{
    switch (pl_weight_table[role].when) {
    case PL_WHEN_ALWAYS: return true;
    case PL_WHEN_OWNS_KV: return layer < c->n_kv_layers;
    case PL_WHEN_SCALED: return c->altup_correct_scale;
    case PL_WHEN_UNTIED: return false;
    }
    return true;
}

void pl_weight_name(pl_checkpoint_format format, const char *prefix, int layer, pl_role role, int index, char *out)
{
    const pl_weight_info *info = &pl_weight_table[role];
    bool hf = format == PL_CHECKPOINT_HF;
    if (pl_role_in_layer(role))
        snprintf(out, PL_WEIGHT_NAME_BYTES, "%s%s.%d.%s", prefix, hf ? "layers" : "blk", layer,
                 hf ? info->hf : info->gguf);
    else if (hf && info->count > 1)
        snprintf(out, PL_WEIGHT_NAME_BYTES, "%s%s.%d.weight", prefix, info->hf, index);
    else
        snprintf(out, PL_WEIGHT_NAME_BYTES, "%s%s", prefix, hf ? info->hf : info->gguf);
}

bool pl_weight_find(const char *name, pl_role *role, int *layer)
{
    int begin = PL_LAYER_ROLES, end = PL_ROLES;
    *layer = -1;
    if (strncmp(name, "blk.", 4) == 0) {
        char *rest;
        long number = strtol(name + 4, &rest, 10);
        if (rest == name + 4 || *rest != '.' || number < 0 || number >= PL_MAX_LAYERS)
            return false;
        *layer = (int)number;
        name = rest + 1;
        begin = 0;
        end = PL_LAYER_ROLES;
    }
    for (int i = begin; i < end; i++)
        if (strcmp(pl_weight_table[i].gguf, name) == 0) {
            *role = (pl_role)i;
            return true;
        }
    return false;
}

/* Places are numbered: PL_LAYER_ROLES a layer, then PL_ALTUP for each role of the whole model. */
static bool set_place(const pl_config *c, int place, pl_weight_cursor *at)
{
    int in_layers = c->n_layers * PL_LAYER_ROLES, rest = place - in_layers;
    if (rest < 0) {
        at->layer = place / PL_LAYER_ROLES;
        at->role = (pl_role)(place % PL_LAYER_ROLES);
        at->index = 0;
        return true;
    }
    at->layer = -1;
    at->role = (pl_role)(PL_LAYER_ROLES + rest / PL_ALTUP);
    at->index = rest % PL_ALTUP;
    return at->role < PL_ROLES;
}

bool pl_weight_next(const pl_weights *weights, const pl_config *config, pl_weight_cursor *at)
{
    while (set_place(config, at->next, at)) {
        at->next++;
        if (at->index >= pl_weight_table[at->role].count)
            continue;
        at->tensor = pl_weight_at(weights, at->layer, at->role) + at->index;
        if (at->tensor->data)
            return true;
    }
    return false;
}
