/* What the files behind checkpoint.h share. */
#ifndef PL_MODEL_CHECKPOINT_PARTS_H
#define PL_MODEL_CHECKPOINT_PARTS_H

#include "host/base/mapfile.h"
#include "host/model/checkpoint.h"
#include "host/model/tensor_list.h"

#define PL_MAX_PARTS 1024 /* files of one checkpoint */

struct pl_checkpoint {
    pl_checkpoint_format format;
    bool parts; /* see pl_checkpoint_open_parts() */
    const char *path, *name;
    pl_arena *arena; /* owns everything below but the mappings */
    pl_mapfile *files;
    size_t n_files;
    pl_config config;
    pl_weights weights;
    pl_pieces pieces;
    const pl_gguf_value *values;
    size_t n_values;
    const char *chat_template;
    pl_named_path *paths;
    size_t n_paths;
    pl_tensor *tensors;
    size_t n_tensors;
    pl_tensor_list entries; /* behind `tensors` */
};

/* Fill in a checkpoint whose path and arena are set; on failure the caller closes it. */
pl_status pl_checkpoint_load_hf(pl_checkpoint *checkpoint, pl_error *err);
pl_status pl_checkpoint_load_gguf(pl_checkpoint *checkpoint, pl_error *err);

/* The same for a GGUF file of one part that stands in memory, named by checkpoint->path. */
pl_status pl_checkpoint_load_gguf_memory(pl_checkpoint *checkpoint, const unsigned char *data, size_t size,
                                         pl_error *err);

/* An empty checkpoint for the loaders. */
pl_status pl_checkpoint_create(const char *path, pl_checkpoint **out, pl_error *err);

/* Keeps the list, which lies in the checkpoint's arena, and makes that for `inspect`. */
pl_status pl_checkpoint_keep_tensors(pl_checkpoint *checkpoint, const pl_tensor_list *list, pl_error *err);

/* A copy in the checkpoint's arena, NUL-terminated. */
pl_status pl_checkpoint_text(pl_checkpoint *checkpoint, const char *text, size_t n, const char **out, pl_error *err);

/* Room for n nested paths, then one at a time; texts are copied. */
pl_status pl_checkpoint_expect_paths(pl_checkpoint *checkpoint, size_t n, pl_error *err);
pl_status pl_checkpoint_add_path(pl_checkpoint *checkpoint, const char *name, const char *spec, size_t n_spec,
                                 pl_error *err);

/* The last component of a path. */
const char *pl_file_base(const char *path);

#endif
