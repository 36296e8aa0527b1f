/* A small model that takes images and sound, with the reference's numbers: tests/golden/multimodal (see its README). */
#ifndef PL_TESTS_ENGINE_TINY_MEDIA_H
#define PL_TESTS_ENGINE_TINY_MEDIA_H

#include "tests/engine/goldens.h"
#include "tests/unit/scratch.h"

#include <jansson.h>

#define TINY_SIDE 192
#define TINY_IMAGE_ROWS 16
#define TINY_AUDIO_ROWS 12
#define TINY_HIDDEN 64
#define TINY_VOCAB 288
#define TINY_TOKENS 64 /* more than any prompt of the file has */

typedef struct tiny {
    scratch folder;
    golden golden;
    json_t *cases;
    fixture f;
} tiny;

/* On the CPU, 2 threads. */
tiny tiny_open(int batch_rows, int sessions);
tiny tiny_open_with(const pl_engine_params *params);
void tiny_close(tiny *t);

/* Of a prompt: image or audio `index` by the rows in the file, or by what the towers make of its pixels or samples. */
typedef enum tiny_source { TINY_ROWS, TINY_TOWERS } tiny_source;

/* A prompt of the file with media in the places of its placeholders; the media are the caller's to free. */
typedef struct tiny_prompt {
    int32_t ids[TINY_TOKENS];
    size_t n;
    pl_media *media[2];
    size_t n_media;
} tiny_prompt;

tiny_prompt tiny_prompt_of(const tiny *t, const char *name, tiny_source source);
void tiny_prompt_free(tiny_prompt *p); /* gives up its media; the ids stay */

/* A recorded tensor "CASE/WHAT". */
const float *tiny_golden(const tiny *t, const char *name, const char *what, int64_t *n);

/* A file of tests/golden/multimodal, free(). */
char *tiny_file(const char *name, size_t *n);

double relative_l2(const float *got, const float *expected, int64_t n);

#endif
