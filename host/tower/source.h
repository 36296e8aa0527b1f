/* Where the towers' weights are: in the checkpoint itself (Hugging Face folder, GGUF with clip.* keys) or in a GGUF
 * file beside it, llama.cpp's mmproj. */
#ifndef PL_TOWER_SOURCE_H
#define PL_TOWER_SOURCE_H

#include "host/model/checkpoint.h"

typedef struct pl_vision_config {
    int hidden;       /* channels of the tower's output */
    int side;         /* pixels of the image's side: 768 */
    int grid;         /* the output is grid x grid rows of a prompt */
    int vocab;        /* ids of its own: rows of the embedder's table */
    int32_t first_id; /* of these */
    float eps;
} pl_vision_config;

typedef struct pl_audio_config {
    int hidden, heads, layers, mel_bins;
    int chunk, left,
        right;       /* of local attention, as the configuration counts: a step sees left keys, its own included */
    int kernel;      /* of the light convolution */
    int reduction;   /* every so manyth step is a row of the prompt */
    int channels[2]; /* of the two convolutions */
    int rows;        /* of a prompt that a clip takes, whatever its length */
    int vocab;
    int32_t first_id;
    float residual_weight, logit_cap, group_eps, clip, eps;
} pl_audio_config;

/* Ids that stand around and for media in a prompt; -1: the model has none such. */
typedef struct pl_media_tokens {
    int32_t image_begin, image, image_end;
    int32_t audio_begin, audio, audio_end;
} pl_media_tokens;

typedef struct pl_tower_source pl_tower_source;

/* path: of a GGUF file; NULL: the checkpoint itself. A checkpoint without towers gives a source that has none; a
 * file beside it without any, or for a text model of another width, is PL_ERR_FORMAT. Borrows the checkpoint. Weights are
 * mapped, not read. */
pl_status pl_tower_source_open(const pl_checkpoint *checkpoint, const char *path, pl_tower_source **out, pl_error *err);
void pl_tower_source_close(pl_tower_source *source);

/* NULL: there is no such tower. */
const pl_vision_config *pl_tower_source_vision(const pl_tower_source *source);
const pl_audio_config *pl_tower_source_audio(const pl_tower_source *source);
const pl_media_tokens *pl_tower_source_tokens(const pl_tower_source *source);

/* Bytes of a tower's weights in the file; 0: there is none. */
size_t pl_tower_source_vision_bytes(const pl_tower_source *source);
size_t pl_tower_source_audio_bytes(const pl_tower_source *source);

/* By its Hugging Face name behind "model." ("vision_tower.timm_model.conv_stem.conv.weight"), whatever the format; NULL
 * when there is none. dims are the file's, where llama.cpp's converter adds sizes of 1 to vectors. */
const pl_entry *pl_tower_source_find(const pl_tower_source *source, const char *name);

/* Must be there, of a type that is known. As a matrix the first size is its rows, all others together are its columns; 0:
 * of any number. Plain types may stand at any address. */
pl_status pl_tower_source_matrix(const pl_tower_source *source, const char *name, int64_t rows, int64_t cols,
                                 pl_tensor *out, pl_error *err);

/* Its n values, which are finite. */
pl_status pl_tower_source_vector(const pl_tower_source *source, const char *name, int64_t n, float *out, pl_error *err);

/* The tensor has been copied: its pages may leave memory. */
void pl_tower_source_drop(const pl_tower_source *source, const pl_tensor *tensor);

#endif
