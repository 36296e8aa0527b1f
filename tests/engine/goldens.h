/* The recorded runs of tests/golden/text (see its README): random checkpoints run by transformers in f32. */
#ifndef PL_TESTS_ENGINE_GOLDENS_H
#define PL_TESTS_ENGINE_GOLDENS_H

#include "host/include/pleiad.h"
#include "host/model/safetensors.h"

#define GOLDEN_LOGITS_BOUND 3e-3f /* absolute; stated with the recordings: f32, any order of summation */
#define GOLDEN_TENSOR_BOUND 1e-3f /* of the tensor's RMS */

#define GOLDEN_E2B "mix:widths=64;skip=10-14"
#define GOLDEN_TAIL "mix:widths=128,128,128,128,128,128,128,128,128,128,64,64,64,64,64;skip=10-14"
#define GOLDEN_MNM "mix:widths=96,96,96,96,128,96,96,96,96,128,128,128,128,128,128,64,64,64,64,128"

/* A recorded file under tests/golden/text/golden, without ".safetensors". Fails the test when it is not there. */
typedef struct golden {
    pl_safetensors file;
} golden;

golden golden_open(const char *name);
void golden_close(golden *g);
const pl_entry *golden_find(const golden *g, const char *name);
const float *golden_f32(const golden *g, const char *name, int64_t *n);
const int32_t *golden_i32(const golden *g, const char *name, int64_t *n);

/* The bundled demo model: block-quantised, and it declares its paths. */
#define DEMO_MODEL "../tools/demo_model/demo.gguf"

/* The checkpoint golden/text/NAME, or DEMO_MODEL, opened and made to run. */
typedef struct fixture {
    pl_model *model;
    pl_engine *engine;
    pl_session *session;
} fixture;

fixture fixture_open(const char *name, int threads, int batch_rows); /* on the CPU */
fixture fixture_open_with(const char *name, const pl_engine_params *params);
void fixture_close(fixture *f);

/* Logits of ids, [n][vocab], to be freed; keep: behind what the session holds. */
float *fixture_logits(fixture *f, const int32_t *ids, int64_t n, bool keep);

/* Sets the session's path with PL_SWITCH_FAST; NULL: leaves it. */
void fixture_path(fixture *f, const char *path);

/* What was recorded, and on which path of which checkpoint it is. */
typedef struct golden_variant {
    const char *name, *checkpoint, *path;
} golden_variant;

#define GOLDEN_VARIANTS 7

extern const golden_variant golden_variants[GOLDEN_VARIANTS];

/* The path of checkpoint e4b that recorded switches call so. */
const char *golden_path(const char *name);

/* Compares with the recorded last rows; got: [n][vocab] of positions [from, n). */
void golden_check_logits(const golden *g, const float *got, int64_t from, int64_t vocab, const char *what);

/* Answers as recorded, greedily. */
void golden_check_greedy(fixture *f, const golden *g, const int32_t *ids, int64_t n);

#endif
