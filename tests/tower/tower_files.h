/* Small models with towers, written for one test: random weights by the rule that the recordings of tests/golden/vision and
 * tests/golden/multimodal were made with (vision_oracle.py tells it). */
#ifndef PL_TESTS_TOWER_TOWER_FILES_H
#define PL_TESTS_TOWER_TOWER_FILES_H

#include "host/tower/source.h"
#include "tests/unit/scratch.h"

/* One tensor of a file; values may be changed before it is written. */
typedef struct tower_tensor {
    char name[160];
    int64_t dims[4], n;
    int n_dims;
    float *values;
} tower_tensor;

typedef struct tower_tensors {
    tower_tensor *items;
    size_t n;
} tower_tensors;

/* All tensors of the small model: text, vision and audio, by the names of a folder. */
tower_tensors tower_tensors_make(void);
void tower_tensors_free(tower_tensors *all);
tower_tensor *tower_tensor_find(const tower_tensors *all, const char *name);
void tower_tensor_drop(tower_tensors *all, const char *name);

/* A folder named `name`: config.json of the recordings and model.safetensors. Returns its path. */
const char *tower_folder_write(scratch *s, const char *name, const tower_tensors *all);

/* The image tower as llama.cpp's mmproj files have it, for grid x grid rows. Returns its path. */
const char *tower_mmproj_write(scratch *s, const char *name, const tower_tensors *all, int grid);

/* Image `variant` of the recordings: [side][side][3]. To be freed. */
uint8_t *tower_pattern(int side, int variant);

#endif
