/* The small audio tower of tests/golden/audio (see its README), opened without a text model. */
#ifndef PL_TESTS_TOWER_AUDIO_FIXTURE_H
#define PL_TESTS_TOWER_AUDIO_FIXTURE_H

#include "host/model/safetensors.h"
#include "host/tower/audio.h"
#include "host/tower/source_parts.h"

#define AUDIO_GOLDEN PL_TEST_DATA "/golden/audio/"

typedef struct audio_fixture {
    pl_tower_source source;
    pl_safetensors weights;
    pl_backend *backend;
    pl_audio *audio;
} audio_fixture;

/* Its configuration. */
pl_audio_config audio_config_small(void);

/* The weights; the tower is not made yet. Tensors may be changed before that. */
audio_fixture audio_fixture_open(const char *weights, pl_audio_config config);

/* Makes the tower; ends the test when that fails. */
void audio_fixture_start(audio_fixture *f, int threads, unsigned allowed);
void audio_fixture_close(audio_fixture *f);

/* All rows of a clip: [*n_rows][text hidden], to be freed. */
float *audio_fixture_rows(audio_fixture *f, const float *frames, int n, const pl_tower_show *show, int *n_rows);

pl_safetensors audio_golden_open(const char *path);
const float *audio_golden_find(const pl_safetensors *golden, const char *clip, const char *what, int64_t *rows,
                               int64_t *cols);

/* |a - b| / |b| */
double relative_l2(const float *a, const float *b, int64_t n);

#endif
