/* The image tower against recordings of timm and transformers in f32 (tests/golden/vision). */
#include <math.h>

#include "host/base/cpu.h"
#include "host/model/safetensors.h"
#include "host/tower/vision.h"
#include "tests/tower/tower_files.h"

#define GOLDEN PL_TEST_DATA "/golden/vision/"

/* Relative L2 error; stated with the recordings for f32 in any order of summation. Products of bf16 halves leave out
 * 2^-16 of each product (host/cpu/gemm.h), a hundred times as much as f32 does. */
#define BOUND_F32 2e-5
#define BOUND_AMX 1e-4

static const struct level {
    unsigned allowed;
    double bound;
} levels[] = {
    {PL_CPU_NONE, BOUND_F32},
    {PL_CPU_AVX2, BOUND_F32},
    {PL_CPU_ALL & ~(unsigned)PL_CPU_AMX_BF16, BOUND_F32},
    {PL_CPU_ALL, BOUND_AMX},
};
enum { LEVELS = sizeof levels / sizeof levels[0] };

typedef struct tower {
    pl_checkpoint *checkpoint;
    pl_tower_source *source;
    pl_backend *backend;
    pl_vision *vision;
} tower;

static pl_status tower_open(tower *t, const char *folder, const char *beside, int threads, unsigned allowed,
                            pl_error *err)
{
    pl_backend_shape shape = {.max_rows = 1, .max_context = 16, .heads = {1, 1, 16}};
    *t = (tower){0};
    PL_TRY(pl_checkpoint_open(folder, &t->checkpoint, err));
    PL_TRY(pl_tower_source_open(t->checkpoint, beside, &t->source, err));
    PL_TRY(pl_backend_cpu(&shape, threads, NULL, allowed, &t->backend, err));
    return pl_vision_create(t->source, t->backend, NULL, &t->vision, err);
}

static void tower_close(tower *t)
{
    pl_vision_free(t->vision);
    pl_backend_free(t->backend);
    pl_tower_source_close(t->source);
    pl_checkpoint_close(t->checkpoint);
}

static tower tower_must_open(const char *folder, const char *beside, int threads, unsigned allowed)
{
    tower t;
    pl_error err;
    cr_assert_eq(tower_open(&t, folder, beside, threads, allowed, &err), PL_OK, "%s", err.message);
    return t;
}

/* To be freed. */
static float *encode(tower *t, int side, int variant, const pl_tower_show *show)
{
    int grid = pl_tower_source_vision(t->source)->grid;
    pl_error err;
    uint8_t *rgb = tower_pattern(side, variant);
    float *rows = malloc((size_t)(grid * grid * 64) * sizeof *rows);
    cr_assert_not_null(rows);
    cr_assert_eq(pl_vision_encode(t->vision, rgb, side, NULL, show, rows, &err), PL_OK, "%s", err.message);
    free(rgb);
    return rows;
}

/* ---- comparing ---- */

static pl_safetensors golden_open(const char *name)
{
    pl_safetensors file;
    pl_error err;
    cr_assert_eq(pl_safetensors_open(name, &file, &err), PL_OK, "%s", err.message);
    return file;
}

static void expect_close(const char *name, const float *v, const float *want, int64_t n, double bound)
{
    double off = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        off += ((double)v[i] - want[i]) * ((double)v[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    cr_assert(sqrt(off) <= bound * sqrt(size), "%s: relative error %.3g, at most %.3g", name, sqrt(off / size), bound);
}

typedef struct comparison {
    pl_safetensors golden;
    double bound;
    int seen;
} comparison;

/* There maps are [channel][pixel], of the stem every fourth channel. */
static void compare_map(void *user, const char *name, const float *v, int64_t rows, int64_t cols)
{
    comparison *c = user;
    int64_t step = strcmp(name, "stem") == 0 ? 4 : 1, n = rows * cols / step;
    const pl_entry *entry = pl_tensor_list_find(&c->golden.tensors, step == 4 ? "stem_c4" : name);
    if (!entry)
        return;
    cr_assert_eq(entry->bytes, (uint64_t)n * sizeof(float), "%s has another size", name);
    float *turned = malloc((size_t)n * sizeof *turned);
    cr_assert_not_null(turned);
    for (int64_t channel = 0; channel < cols / step; channel++)
        for (int64_t i = 0; i < rows; i++)
            turned[channel * rows + i] = v[i * cols + channel * step];
    expect_close(name, turned, (const float *)entry->data, n, c->bound);
    free(turned);
    c->seen++;
}

static const float *recorded(const pl_safetensors *golden, const char *name)
{
    const pl_entry *entry = pl_tensor_list_find(&golden->tensors, name);
    cr_assert_not_null(entry, "%s is not recorded", name);
    return (const float *)entry->data;
}

typedef struct files {
    scratch dir;
    tower_tensors tensors;
    char folder[4096];
} files;

static files files_make(void)
{
    files f;
    scratch_open(&f.dir);
    f.tensors = tower_tensors_make();
    snprintf(f.folder, sizeof f.folder, "%s", tower_folder_write(&f.dir, "model", &f.tensors));
    return f;
}

static void files_free(files *f)
{
    tower_tensors_free(&f->tensors);
    scratch_close(&f->dir);
}

/* ---- tests ---- */

Test(vision, every_part_is_as_recorded)
{
    files f = files_make();
    comparison c = {.golden = golden_open(GOLDEN "case192.safetensors")};
    pl_tower_show show = {compare_map, &c};
    for (int i = 0; i < LEVELS; i++) {
        tower t = tower_must_open(f.folder, NULL, 2, levels[i].allowed);
        c.bound = levels[i].bound;
        c.seen = 0;
        float *rows = encode(&t, 192, 1, &show);
        cr_assert_eq(c.seen, 24, "%d parts were compared", c.seen);
        expect_close("embed", rows, recorded(&c.golden, "embed"), 16 * 64, c.bound);
        free(rows);
        tower_close(&t);
    }
    pl_safetensors_close(&c.golden);
    files_free(&f);
}

/* 768 and 512 are pooled, 256 is not, 640 and 224 go between the pixels. The largest takes more than a turn for a product. */
Test(vision, every_size_gives_the_recorded_rows)
{
    static const struct {
        int side, variant;
        const char *name;
    } cases[] = {{768, 6, "s768.embed"},
                 {224, 1, "s224.embed"},
                 {512, 2, "s512.embed"},
                 {256, 5, "s256.embed"},
                 {640, 4, "s640.embed"}};
    files f = files_make();
    pl_safetensors golden = golden_open(GOLDEN "sizes.safetensors");
    tower t = tower_must_open(f.folder, tower_mmproj_write(&f.dir, "mmproj.gguf", &f.tensors, 16), 1, PL_CPU_ALL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float *rows = encode(&t, cases[i].side, cases[i].variant, NULL);
        expect_close(cases[i].name, rows, recorded(&golden, cases[i].name), 256 * 64, BOUND_AMX);
        free(rows);
    }
    tower_close(&t);
    pl_safetensors_close(&golden);
    files_free(&f);
}

Test(vision, ids_of_its_vocabulary_give_the_recorded_rows)
{
    files f = files_make();
    pl_safetensors golden = golden_open(GOLDEN "sizes.safetensors");
    float rows[16 * 64];
    for (int i = 0; i < LEVELS; i++) {
        pl_embedder *embedder = NULL;
        pl_error err;
        tower t = tower_must_open(f.folder, NULL, 1, levels[i].allowed);
        cr_assert_eq(pl_embedder_create(t.source, PL_TOWER_VISION, t.backend, NULL, &embedder, &err), PL_OK);
        cr_assert_eq(pl_embedder_hard(embedder, rows, &err), PL_OK);
        expect_close("embed.hard", rows, recorded(&golden, "embed.hard"), 16 * 64, levels[i].bound);
        pl_embedder_free(embedder);
        tower_close(&t);
    }
    pl_safetensors_close(&golden);
    files_free(&f);
}

Test(vision, files_beside_the_model_and_threads_change_no_bit)
{
    files f = files_make();
    const char *beside = tower_mmproj_write(&f.dir, "mmproj.gguf", &f.tensors, 4);
    tower alone = tower_must_open(f.folder, NULL, 1, PL_CPU_ALL),
          other = tower_must_open(f.folder, beside, 3, PL_CPU_ALL);
    cr_assert_eq(pl_tower_source_vision(alone.source)->side, 768);
    cr_assert_eq(pl_tower_source_vision(other.source)->grid, 4);
    free(encode(&other, 64, 0, NULL)); /* leaves maps of another size behind */
    float *a = encode(&alone, 192, 3, NULL), *b = encode(&other, 192, 3, NULL);
    cr_assert_arr_eq(a, b, 16 * 64 * sizeof *a);
    free(a);
    free(b);
    tower_close(&alone);
    tower_close(&other);
    files_free(&f);
}

typedef struct turns {
    int begun, ended, most;
} turns;

static pl_status begin_turn(void *user, pl_error *err)
{
    turns *t = user;
    cr_assert_eq(t->begun, t->ended, "a turn begins within another");
    if (t->begun == t->most)
        return pl_fail(err, PL_ERR_CANCELLED, "enough");
    t->begun++;
    return PL_OK;
}

static void end_turn(void *user)
{
    turns *t = user;
    t->ended++;
}

Test(vision, it_works_in_turns_and_stops_when_one_is_refused)
{
    files f = files_make();
    tower t = tower_must_open(f.folder, NULL, 1, PL_CPU_ALL);
    uint8_t *rgb = tower_pattern(64, 0);
    float rows[16 * 64];
    pl_error err;
    turns all = {.most = 1000}, some = {.most = 9};
    pl_tower_turn turn = {begin_turn, end_turn, &all};
    cr_assert_eq(pl_vision_encode(t.vision, rgb, 64, &turn, NULL, rows, &err), PL_OK);
    cr_assert_gt(all.begun, 20);
    cr_assert_eq(all.begun, all.ended);
    turn.user = &some;
    cr_assert_eq(pl_vision_encode(t.vision, rgb, 64, &turn, NULL, rows, &err), PL_ERR_CANCELLED);
    cr_assert_eq(some.begun, 9);
    cr_assert_eq(some.ended, 9);
    expect_failure(pl_vision_encode(t.vision, rgb, 100, NULL, NULL, rows, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("100", "multiple of 32"));
    free(rgb);
    tower_close(&t);
    files_free(&f);
}

/* ---- bad files ---- */

static void expect_bad(files *f, const char *name, pl_status expected, const char *const *words)
{
    tower t;
    pl_error err;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", tower_folder_write(&f->dir, name, &f->tensors));
    expect_failure(tower_open(&t, folder, NULL, 1, PL_CPU_ALL, &err), expected, &err, words);
    tower_close(&t);
}

#define BLOCK "model.vision_tower.timm_model.blocks."

Test(vision, a_tensor_that_is_missing_is_named)
{
    files f = files_make();
    tower_tensor_drop(&f.tensors, BLOCK "1.1.pw_proj.bn.weight");
    expect_bad(&f, "bad", PL_ERR_FORMAT, WORDS("bad: tensor", "blocks.1.1.pw_proj.bn.weight", "missing"));
    files_free(&f);
}

Test(vision, a_tensor_of_another_shape_is_named)
{
    files f = files_make();
    tower_tensor *t = tower_tensor_find(&f.tensors, BLOCK "2.3.attn.output.proj.weight");
    t->dims[0] = 48;
    t->dims[1] = 40;
    expect_bad(&f, "bad", PL_ERR_FORMAT,
               WORDS("model.safetensors", "blocks.2.3.attn.output.proj.weight", "expected 40"));
    files_free(&f);
}

Test(vision, a_window_that_is_no_square_is_refused)
{
    files f = files_make();
    tower_tensor *t = tower_tensor_find(&f.tensors, BLOCK "1.0.dw_mid.conv.weight");
    t->dims[3] = 4;
    t->n = 96 * 5 * 4;
    expect_bad(&f, "bad", PL_ERR_UNSUPPORTED, WORDS("blocks.1.0.dw_mid.conv.weight", "20 taps"));
    files_free(&f);
}

Test(vision, a_value_that_is_not_finite_is_named)
{
    files f = files_make();
    tower_tensor_find(&f.tensors, BLOCK "0.1.conv_exp.weight")->values[9 * 16 * 3] = NAN;
    expect_bad(&f, "matrix", PL_ERR_FORMAT, WORDS("blocks.0.1.conv_exp.weight", "row 3", "not finite"));
    tower_tensor_find(&f.tensors, BLOCK "0.1.conv_exp.weight")->values[9 * 16 * 3] = 0;
    tower_tensor_find(&f.tensors, BLOCK "3.1.layer_scale.gamma")->values[7] = INFINITY;
    expect_bad(&f, "vector", PL_ERR_FORMAT, WORDS("blocks.3.1.layer_scale.gamma", "value 7", "not finite"));
    files_free(&f);
}

Test(vision, towers_of_another_text_model_are_refused)
{
    files f = files_make();
    tower_tensor *t = tower_tensor_find(&f.tensors, "model.embed_vision.embedding_projection.weight");
    t->dims[0] = 32;
    t->n /= 2;
    expect_bad(&f, "bad", PL_ERR_FORMAT, WORDS("embed_vision.embedding_projection.weight", "32", "text model", "64"));
    files_free(&f);
}

Test(vision, a_file_beside_the_model_without_towers_is_refused)
{
    files f = files_make();
    pl_checkpoint *checkpoint = NULL;
    pl_tower_source *source = NULL;
    pl_error err;
    tower_tensors none = {0};
    const char *beside = tower_mmproj_write(&f.dir, "none.gguf", &none, 4);
    cr_assert_eq(pl_checkpoint_open(f.folder, &checkpoint, &err), PL_OK);
    expect_failure(pl_tower_source_open(checkpoint, beside, &source, &err), PL_ERR_FORMAT, &err,
                   WORDS("none.gguf", "neither"));
    pl_checkpoint_close(checkpoint);
    files_free(&f);
}
