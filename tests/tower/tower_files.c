#include "tests/tower/tower_files.h"

#include <jansson.h>
#include <sys/stat.h>

#include "host/model/gguf_writer.h"
#include "host/model/safetensors_writer.h"

#define GOLDEN PL_TEST_DATA "/golden/multimodal/"
#define SEED 1
#define STEP 0x9E3779B97F4A7C15u

static uint64_t name_hash(const char *name)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001B3u;
    return h;
}

static void fill(tower_tensor *t, double center, double half)
{
    uint64_t s = name_hash(t->name) ^ SEED * STEP;
    t->values = malloc((size_t)t->n * sizeof *t->values);
    cr_assert_not_null(t->values);
    for (int64_t i = 0; i < t->n; i++) {
        uint64_t z = s + (uint64_t)(i + 1) * STEP;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        t->values[i] = (float)(center + half * (2 * ((double)(z >> 40) * 0x1p-24) - 1));
    }
}

tower_tensors tower_tensors_make(void)
{
    json_t *root = json_load_file(GOLDEN "manifest.json", 0, NULL), *tensors = json_object_get(root, "tensors"), *value;
    tower_tensors all = {0};
    const char *name;
    cr_assert(json_object_size(tensors) > 0);
    all.items = calloc(json_object_size(tensors), sizeof *all.items);
    cr_assert_not_null(all.items);
    json_object_foreach(tensors, name, value)
    {
        tower_tensor *t = &all.items[all.n++];
        json_t *shape = json_object_get(value, "shape");
        snprintf(t->name, sizeof t->name, "%s", name);
        t->n_dims = (int)json_array_size(shape);
        t->n = 1;
        for (int d = 0; d < t->n_dims; d++) {
            t->dims[d] = json_integer_value(json_array_get(shape, (size_t)d));
            t->n *= t->dims[d];
        }
        fill(t, json_number_value(json_object_get(value, "center")), json_number_value(json_object_get(value, "half")));
    }
    json_decref(root);
    return all;
}

void tower_tensors_free(tower_tensors *all)
{
    for (size_t i = 0; i < all->n; i++)
        free(all->items[i].values);
    free(all->items);
}

tower_tensor *tower_tensor_find(const tower_tensors *all, const char *name)
{
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->items[i].name, name) == 0)
            return &all->items[i];
    cr_assert_fail("there is no tensor %s", name);
    return NULL;
}

void tower_tensor_drop(tower_tensors *all, const char *name)
{
    tower_tensor *t = tower_tensor_find(all, name);
    free(t->values);
    *t = all->items[--all->n];
}

const char *tower_folder_write(scratch *s, const char *name, const tower_tensors *all)
{
    char path[4096], inner[64];
    pl_error err;
    pl_out_tensor *out = calloc(all->n, sizeof *out);
    cr_assert_not_null(out);
    for (size_t i = 0; i < all->n; i++) {
        const tower_tensor *t = &all->items[i];
        out[i] = (pl_out_tensor){.name = t->name, .dtype = PL_OUT_F32, .n_dims = t->n_dims, .data = t->values};
        memcpy(out[i].dims, t->dims, sizeof t->dims);
    }
    snprintf(path, sizeof path, "%s", scratch_path(s, name));
    cr_assert_eq(mkdir(path, 0700), 0);
    snprintf(inner, sizeof inner, "%s/config.json", name);
    scratch_copy(s, inner, GOLDEN "config.json");
    snprintf(inner, sizeof inner, "%s/model.safetensors", name);
    cr_assert_eq(pl_safetensors_write(scratch_path(s, inner), out, all->n, &err), PL_OK, "%s", err.message);
    free(out);
    return scratch_path(s, name);
}

/* ---- mmproj ---- */

static bool mmproj_name(const char *name, char out[160])
{
    static const char *const pairs[][2] = {
        {"model.embed_vision.embedding_projection.", "mm.input_projection."},
        {"model.embed_vision.soft_embedding_norm.", "mm.soft_emb_norm."},
        {"model.embed_vision.embedding.", "mm.embedding."},
        {"model.embed_vision.hard_embedding_norm.", "mm.hard_emb_norm."},
        {"model.vision_tower.timm_model.blocks.", "v.blk."},
        {"model.vision_tower.timm_model.", "v."},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        size_t n = strlen(pairs[i][0]);
        if (strncmp(name, pairs[i][0], n) == 0) {
            snprintf(out, 160, "%s%s", pairs[i][1], name + n);
            return true;
        }
    }
    return false;
}

/* Scales and the bias stand there as maps of one pixel. */
static void declare(pl_gguf_writer *w, const tower_tensor *t, const char *name)
{
    int64_t as_map[] = {1, t->dims[0], 1, 1};
    bool map = strstr(name, ".gamma") || strstr(name, "conv_stem.conv.bias");
    pl_gguf_declare(w, name, PL_F32, map ? as_map : t->dims, map ? 4 : t->n_dims);
}

static void put_keys(pl_gguf_writer *w, int grid)
{
    pl_gguf_put_text(w, "general.architecture", "clip");
    pl_gguf_put_bool(w, "clip.has_vision_encoder", true);
    pl_gguf_put_text(w, "clip.vision.projector_type", "gemma3nv");
    pl_gguf_put_u32(w, "clip.vision.embedding_length", 2048);
    pl_gguf_put_u32(w, "clip.vision.image_size", 768);
    pl_gguf_put_u32(w, "clip.vision.patch_size", (uint32_t)(768 / (grid * grid)));
    pl_gguf_put_f32(w, "clip.vision.attention.layer_norm_epsilon", 1e-6f);
}

const char *tower_mmproj_write(scratch *s, const char *name, const tower_tensors *all, int grid)
{
    pl_gguf_writer *w = NULL;
    pl_error err;
    char theirs[160];
    cr_assert_eq(pl_gguf_writer_create(&w, &err), PL_OK);
    put_keys(w, grid);
    for (size_t i = 0; i < all->n; i++)
        if (mmproj_name(all->items[i].name, theirs))
            declare(w, &all->items[i], theirs);
    cr_assert_eq(pl_gguf_writer_begin(w, scratch_path(s, name), &err), PL_OK, "%s", err.message);
    for (size_t i = 0; i < all->n; i++) {
        const tower_tensor *t = &all->items[i];
        if (mmproj_name(t->name, theirs))
            cr_assert_eq(pl_gguf_writer_append(w, t->values, (size_t)t->n * sizeof *t->values, &err), PL_OK);
    }
    cr_assert_eq(pl_gguf_writer_commit(w, &err), PL_OK, "%s", err.message);
    pl_gguf_writer_free(w);
    return scratch_path(s, name);
}

uint8_t *tower_pattern(int side, int variant)
{
    uint8_t *rgb = malloc((size_t)side * (size_t)side * 3);
    cr_assert_not_null(rgb);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++) {
                int g = (x * 6 / side * 37 + y * 6 / side * 91 + c * 53 + variant * 29) % 7;
                int t = g * 36 + ((x * (g + 1) + y * (3 + c)) & (63 >> (g & 3))) + (x * y >> 9);
                rgb[((size_t)y * (size_t)side + (size_t)x) * 3 + (size_t)c] = (uint8_t)(t & 255);
            }
    return rgb;
}
