/* What the files behind source.h share. */
#ifndef PL_TOWER_SOURCE_PARTS_H
#define PL_TOWER_SOURCE_PARTS_H

#include "host/base/arena.h"
#include "host/base/mapfile.h"
#include "host/model/gguf.h"
#include "host/tower/source.h"

#define PL_TOWER_NAME_BYTES 160

struct pl_tower_source {
    const pl_checkpoint *checkpoint;
    const char *where; /* for messages: the file beside the checkpoint, or the checkpoint */
    pl_arena *arena;
    pl_mapfile file;        /* the one beside the checkpoint; data NULL: none */
    pl_tensor_list tensors; /* of the towers alone, by Hugging Face names, indexed */
    bool has_vision, has_audio;
    pl_vision_config vision;
    pl_audio_config audio;
    pl_media_tokens tokens;
};

/* A GGUF file beside the checkpoint: its tensors and keys, not checked yet. checkpoint, where and arena are set; data is
 * borrowed. */
pl_status pl_tower_source_read(pl_tower_source *source, const unsigned char *data, size_t size, pl_error *err);

/* Of the published models: what a configuration does not say. */
extern const pl_vision_config pl_vision_published;
extern const pl_audio_config pl_audio_published;

/* The Hugging Face name, behind "model.", of a tensor that GGUF calls `name`; false: it is none of a tower. */
bool pl_tower_name_from_gguf(const char *name, char out[PL_TOWER_NAME_BYTES]);

/* The same of a name in a folder. */
bool pl_tower_name_from_folder(const char *name, char out[PL_TOWER_NAME_BYTES]);

/* Fill in vision, audio and tokens of a source whose tensors are known. keys: the GGUF file with clip.* keys. */
pl_status pl_tower_config_from_folder(pl_tower_source *source, pl_error *err);
pl_status pl_tower_config_from_gguf(pl_tower_source *source, const pl_gguf *keys, pl_error *err);

/* Sizes that tensors state, checked against the configuration and the text model. */
pl_status pl_tower_config_check(pl_tower_source *source, pl_error *err);

#endif
