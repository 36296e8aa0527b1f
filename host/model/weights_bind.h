/* From the tensors that a file lists to the weights that the model needs. */
#ifndef PL_MODEL_WEIGHTS_BIND_H
#define PL_MODEL_WEIGHTS_BIND_H

#include "host/model/checkpoint.h"
#include "host/model/tensor_list.h"

typedef struct pl_binder {
    pl_checkpoint_format format;
    const char *where;  /* the checkpoint, for messages about tensors that are missing */
    const char *prefix; /* of Hugging Face names; "" for GGUF */
    const pl_tensor_list *list;
    const pl_config *config; /* checked */
    pl_arena *arena;         /* takes copies of tensors whose place does not suit their type */
    pl_error *err;
} pl_binder;

/* Fills in all weights but `head`. Missing tensors, shapes that are not the config's and types that are not
 * in pl_dtype are errors that name the tensor. */
pl_status pl_weights_bind(const pl_binder *binder, pl_weights *out);

/* One tensor by its full name, [rows, cols] or, with rows = 1, [cols]. */
pl_status pl_weights_bind_one(const pl_binder *binder, const char *name, int64_t rows, int64_t cols, pl_tensor *out);

#endif
