/* An opened checkpoint, whatever its format: config, weights as mapped views, what the tokenizer needs. */
#ifndef PL_MODEL_CHECKPOINT_H
#define PL_MODEL_CHECKPOINT_H

#include "host/model/config.h"
#include "host/model/gguf.h"
#include "host/ops/tensor.h"

typedef struct pl_layer_weights {
    /* H hidden, Q heads * head_dim, K kv_heads * head_dim, F ffn width, P ple_dim, R laurel_rank, A streams */
    pl_tensor attn_norm, post_attn_norm, ffn_norm, post_ffn_norm, post_ple_norm; /* [H] */
    pl_tensor q, k, v, o;     /* [Q,H] [K,H] [K,H] [H,Q]; k, v, k_norm absent from n_kv_layers on */
    pl_tensor q_norm, k_norm; /* [head_dim] */
    pl_tensor gate, up, down; /* [F,H] [F,H] [H,F] */
    pl_tensor laurel_left, laurel_right, laurel_norm; /* [R,H] [H,R] [H] */
    pl_tensor altup_router, altup_router_norm;        /* [A,H] [H] */
    pl_tensor altup_predict, altup_correct;           /* [A*A,A] [A,A] */
    pl_tensor altup_scale;                            /* [H] */
    pl_tensor ple_gate, ple_proj;                     /* [P,H] [H,P] */
} pl_layer_weights;

typedef struct pl_weights {
    pl_tensor embed;          /* [vocab,H]; the head unless `head` is present */
    pl_tensor head;           /* [vocab,H] or absent: tied */
    pl_tensor ple_table;      /* [>= ple_vocab, layers*P]; row: layer 0's P values, then layer 1's ...; rows from
                           * ple_vocab on are padding and serve nobody */
    pl_tensor ple_model_proj; /* [layers*P,H] */
    pl_tensor ple_norm;       /* [P] */
    pl_tensor altup_proj[PL_ALTUP - 1], altup_unembed[PL_ALTUP - 1]; /* [H,H] */
    pl_tensor out_norm;                                              /* [H] */
    pl_layer_weights layer[PL_MAX_LAYERS];
} pl_weights;

/* A vocabulary as GGUF states it: piece i is text[offset[i] .. offset[i+1]). */
typedef struct pl_pieces {
    int32_t n;
    const char *text;
    const uint64_t *offset; /* [n + 1] */
    const float *score;     /* [n]; the higher, the earlier two neighbours merge into this piece */
    const int32_t *kind;    /* [n] GGUF token types: 1 normal, 2 unknown, 3 control, 4 user, 5 unused, 6 byte */
} pl_pieces;

typedef struct pl_named_path {
    const char *name, *spec; /* "e2b", "mix:widths=512;skip=8-11" */
} pl_named_path;

typedef enum pl_checkpoint_format { PL_CHECKPOINT_HF, PL_CHECKPOINT_GGUF } pl_checkpoint_format;

typedef struct pl_checkpoint pl_checkpoint;

/* path: a Hugging Face folder or a GGUF file (of a split one, the first part). Everything that is said
 * about sizes, types and places is checked against what is there before anything is used; weights
 * themselves are not read. */
pl_status pl_checkpoint_open(const char *path, pl_checkpoint **out, pl_error *err);
void pl_checkpoint_close(pl_checkpoint *checkpoint);

/* The same for a folder in which the text model's weights may be missing: there is its configuration, and what its files
 * list. */
pl_status pl_checkpoint_open_parts(const char *path, pl_checkpoint **out, pl_error *err);

pl_checkpoint_format pl_checkpoint_kind(const pl_checkpoint *checkpoint);
const char *pl_checkpoint_path(const pl_checkpoint *checkpoint);
const char *pl_checkpoint_name(const pl_checkpoint *checkpoint); /* the model's own name, or its file's */
const pl_config *pl_checkpoint_config(const pl_checkpoint *checkpoint);
const pl_weights *pl_checkpoint_weights(const pl_checkpoint *checkpoint);

/* GGUF only, else NULL: the vocabulary; the Hugging Face folder has tokenizer.json instead. */
const pl_pieces *pl_checkpoint_pieces(const pl_checkpoint *checkpoint);

/* GGUF only, else 0: all keys of the (first) file, sorted. */
size_t pl_checkpoint_gguf_values(const pl_checkpoint *checkpoint, const pl_gguf_value **out);

/* The template text that the file carries, or NULL. */
const char *pl_checkpoint_chat_template(const pl_checkpoint *checkpoint);

/* Nested paths that the file declares (GGUF keys pleiad.path.NAME; config.json "pleiad_paths": {NAME: SPEC}). */
size_t pl_checkpoint_paths(const pl_checkpoint *checkpoint, const pl_named_path **out);

/* All tensors in the file, used or not, for `inspect`. rows is the product of all sizes but the last. Of a
 * type that pl_dtype_describe() does not know, data is NULL. */
size_t pl_checkpoint_tensors(const pl_checkpoint *checkpoint, const pl_tensor **out);

/* The same as the files list them, indexed by name. */
const pl_tensor_list *pl_checkpoint_entries(const pl_checkpoint *checkpoint);

/* Bytes of all mapped files together. */
size_t pl_checkpoint_bytes(const pl_checkpoint *checkpoint);

/* The weights behind a tensor, or a view of some of its rows, will be read soon. */
void pl_checkpoint_will_need(const pl_checkpoint *checkpoint, const pl_tensor *tensor);

/* Copies them by reading the file, not the mapping: see pl_mapfile_read(). */
pl_status pl_checkpoint_read(const pl_checkpoint *checkpoint, const pl_tensor *tensor, void *out, pl_error *err);

/* They have been copied elsewhere: their pages may leave memory. */
void pl_checkpoint_drop(const pl_checkpoint *checkpoint, const pl_tensor *tensor);

#endif
