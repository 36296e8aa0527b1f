/* From a plan to a Hugging Face folder: config.json, model.safetensors, and what the source's folder holds besides. */
#ifndef PL_CONVERT_WRITE_HF_H
#define PL_CONVERT_WRITE_HF_H

#include "host/convert/export.h"

typedef struct pl_write_hf_options {
    pl_progress_fn progress; /* may be NULL; what: the tensor's name */
    void *progress_user;
    bool (*cancelled)(void *user); /* may be NULL: PL_ERR_CANCELLED between pieces, nothing is left behind */
    void *cancelled_user;
} pl_write_hf_options;

/* folder: must not be there yet, or be empty. It appears whole or not at all. Weights are streamed: memory is a few
 * MB. Tensors keep the source's types. */
pl_status pl_write_hf(const pl_export *e, const char *folder, const pl_write_hf_options *options, pl_error *err);

/* The text of the config.json that belongs to e: the source's, with the layers as they are in e. *text: free(). */
pl_status pl_hf_config_text(const pl_export *e, char **text, size_t *n, pl_error *err);

#endif
