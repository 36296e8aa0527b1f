/* Hugging Face folders that are written: what they hold, and that they appear whole or not at all. */
#include "host/convert/write_hf.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

#include "host/model/safetensors.h"
#include "host/model/safetensors_writer.h"
#include "tests/unit/plans.h"
#include "tests/unit/scratch.h"

#define E4B PL_TEST_DATA "/golden/text/e4b"
#define E2B PL_TEST_DATA "/golden/text/e2b"
#define E2B_OF_E4B "mix:widths=64;skip=10-14"
#define PREFIX "model.language_model."

static scratch s;
static pl_checkpoint *source, *written;
static pl_export *plan;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
}

static void remove_folder(const char *path)
{
    char command[700];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    cr_assert_eq(system(command), 0);
}

static void teardown(void)
{
    pl_export_free(plan);
    pl_checkpoint_close(written);
    pl_checkpoint_close(source);
    remove_folder(scratch_path(&s, "in"));
    remove_folder(scratch_path(&s, "out"));
    scratch_close(&s);
}

TestSuite(write_hf, .init = setup, .fini = teardown);

static int n_files(const char *folder)
{
    DIR *dir = opendir(folder);
    int n = 0;
    cr_assert_not_null(dir, "%s", folder);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static void make_plan(const char *from, const char *spec)
{
    source = must_open(from);
    plan = must_plan(source, spec, PL_CHECKPOINT_HF);
}

static const pl_write_hf_options quiet;

static void write_and_open(void)
{
    const char *out = scratch_path(&s, "out");
    cr_assert_eq(pl_write_hf(plan, out, &quiet, &err), PL_OK, "%s", err.message);
    written = must_open(out);
}

static void same_tensors(const pl_tensor_list *is, const pl_tensor_list *should)
{
    cr_assert_eq(is->n, should->n);
    for (size_t i = 0; i < should->n; i++) {
        const pl_entry *a = &should->items[i], *b = pl_tensor_list_find(is, a->name);
        cr_assert_not_null(b, "%s", a->name);
        cr_assert_str_eq(a->type_name, b->type_name, "%s", a->name);
        cr_assert_eq(a->n_dims, b->n_dims, "%s", a->name);
        cr_assert(a->n_dims == 0 || memcmp(a->dims, b->dims, (size_t)a->n_dims * sizeof *a->dims) == 0, "%s", a->name);
        cr_assert_eq(a->bytes, b->bytes, "%s", a->name);
        cr_assert_arr_eq(a->data, b->data, a->bytes, "%s", a->name);
    }
}

static void same_file(const char *a, const char *b)
{
    size_t n, m;
    char *x = read_file(a, &n), *y = read_file(b, &m);
    cr_assert_eq(n, m, "%s", b);
    cr_assert_arr_eq(x, y, n, "%s", b);
    free(x);
    free(y);
}

/* The reference's own slice, shards and order of tensors aside. */
Test(write_hf, a_slice_is_the_references)
{
    static const char *const copied[] = {"chat_template.jinja", "generation_config.json", "tokenizer.json",
                                         "tokenizer_config.json"};
    make_plan(E4B, E2B_OF_E4B);
    write_and_open();
    pl_checkpoint *reference = must_open(E2B);
    same_tensors(pl_checkpoint_entries(written), pl_checkpoint_entries(reference));
    pl_checkpoint_close(reference);
    json_t *is = json_load_file(scratch_path(&s, "out/config.json"), 0, NULL);
    json_t *should = json_load_file(E2B "/config.json", 0, NULL);
    cr_assert(json_equal(is, should));
    json_decref(is);
    json_decref(should);
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        char from[600], to[64];
        snprintf(from, sizeof from, E4B "/%s", copied[i]);
        snprintf(to, sizeof to, "out/%s", copied[i]);
        same_file(from, scratch_path(&s, to));
    }
    cr_assert_eq(n_files(scratch_path(&s, "out")), 6);
    cr_assert_eq(n_files(s.dir), 1);
    size_t n;
    char *text = read_file(scratch_path(&s, "out/model.safetensors"), &n);
    cr_assert_not_null(strstr(text + 8, "\"__metadata__\":{\"format\":\"pt\"}"));
    free(text);
}

/* ---- a folder with more in it -------------------------------------------------------------------- */

static void declare_all(pl_safetensors_writer *w, const pl_tensor_list *list, const pl_entry *others, size_t n_others)
{
    for (size_t i = 0; i < n_others + list->n; i++) {
        const pl_entry *t = i < n_others ? &others[i] : &list->items[i - n_others];
        pl_safetensors_declare(w, t->name, t->type_name, t->dims, t->n_dims, t->bytes);
    }
}

/* The golden folder with tensors of encoders and of layers beside those of the text model, and with files that do not
 * belong to a slice. */
static void make_rich_folder(const pl_entry *others, size_t n_others)
{
    char path[600];
    pl_safetensors file;
    pl_safetensors_writer *w = NULL;
    cr_assert_eq(mkdir(scratch_path(&s, "in"), 0700), 0);
    cr_assert_eq(pl_safetensors_open(E4B "/model.safetensors", &file, &err), PL_OK);
    cr_assert_eq(pl_safetensors_writer_create(&w, &err), PL_OK);
    declare_all(w, &file.tensors, others, n_others);
    snprintf(path, sizeof path, "%s", scratch_path(&s, "in/model.safetensors"));
    cr_assert_eq(pl_safetensors_writer_begin(w, path, NULL, &err), PL_OK, "%s", err.message);
    for (size_t i = 0; i < n_others; i++)
        cr_assert_eq(pl_safetensors_writer_append(w, others[i].data, others[i].bytes, &err), PL_OK);
    for (size_t i = 0; i < file.tensors.n; i++)
        cr_assert_eq(pl_safetensors_writer_append(w, file.tensors.items[i].data, file.tensors.items[i].bytes, &err),
                     PL_OK);
    cr_assert_eq(pl_safetensors_writer_commit(w, &err), PL_OK, "%s", err.message);
    pl_safetensors_writer_free(w);
    pl_safetensors_close(&file);
    json_t *config = json_load_file(E4B "/config.json", 0, NULL), *text = json_object_get(config, "text_config");
    json_object_set_new(config, "pleiad_paths", json_pack("{s:s}", "half", "mix:widths=64"));
    json_object_set_new(config, "third", json_real(1.0 / 3));
    json_object_set_new(text, "intermediate_size", json_integer(128));
    json_object_del(text, "layer_types");
    json_object_del(text, "activation_sparsity_pattern");
    cr_assert_eq(json_dump_file(config, scratch_path(&s, "in/config.json"), 0), 0);
    json_decref(config);
    scratch_text(&s, "in/preprocessor_config.json", "{}");
    scratch_text(&s, "in/model.safetensors.index.json", "{}");
    scratch_text(&s, "in/LICENSE", "terms");
    scratch_text(&s, "in/pytorch_model.bin", "weights");
    scratch_text(&s, "in/.hidden.json", "{}");
}

Test(write_hf, what_is_not_text_is_kept)
{
    static const unsigned char bytes[48] = {1, 2, 3, 4, 5, 6, 7, 8};
    const pl_entry others[] = {
        {.name = "model.vision_tower.conv",
         .data = bytes,
         .bytes = 48,
         .dims = {2, 1, 3, 2, 2},
         .n_dims = 5,
         .type_name = "F16"},
        {.name = "model.vision_tower.flag", .data = bytes, .bytes = 3, .dims = {3}, .n_dims = 1, .type_name = "U8"},
        {.name = "model.audio_tower.count", .data = bytes, .bytes = 8, .type_name = "I64"},
        {.name = PREFIX "layers.12.extra", .data = bytes, .bytes = 4, .dims = {1}, .n_dims = 1, .type_name = "F32"},
        {.name = PREFIX "layers.15.extra", .data = bytes, .bytes = 8, .dims = {2}, .n_dims = 1, .type_name = "F32"},
        {.name = "lm_head.weight", .data = bytes, .bytes = 4, .dims = {1, 2}, .n_dims = 2, .type_name = "BF16"},
    };
    make_rich_folder(others, sizeof others / sizeof others[0]);
    make_plan(scratch_path(&s, "in"), E2B_OF_E4B);
    write_and_open();
    const pl_tensor_list *list = pl_checkpoint_entries(written);
    for (size_t i = 0; i < 3; i++) {
        const pl_entry *t = pl_tensor_list_find(list, others[i].name);
        cr_assert_not_null(t, "%s", others[i].name);
        cr_assert_str_eq(t->type_name, others[i].type_name);
        cr_assert_eq(t->n_dims, others[i].n_dims);
        cr_assert_arr_eq(t->data, others[i].data, others[i].bytes);
        cr_assert_eq((size_t)(uintptr_t)t->data % (i == 2 ? 8 : i == 0 ? 2 : 1), 0, "%s is misaligned", t->name);
    }
    cr_assert_not_null(pl_tensor_list_find(list, "lm_head.weight"));
    cr_assert_not_null(pl_tensor_list_find(list, PREFIX "layers.10.extra"));
    cr_assert_null(pl_tensor_list_find(list, PREFIX "layers.12.extra"));
    cr_assert_null(pl_tensor_list_find(list, PREFIX "layers.15.extra"));
    cr_assert_eq(n_files(scratch_path(&s, "out")), 4); /* config, weights, preprocessor, licence */
    same_file(scratch_path(&s, "in/LICENSE"), scratch_path(&s, "out/LICENSE"));
    const pl_named_path *paths;
    cr_assert_eq(pl_checkpoint_paths(written, &paths), 0);
}

Test(write_hf, rules_of_the_source_become_lists)
{
    make_rich_folder(NULL, 0);
    make_plan(scratch_path(&s, "in"), "mix:widths=64;skip=10,14");
    write_and_open();
    json_t *config = json_load_file(scratch_path(&s, "out/config.json"), 0, NULL);
    json_t *text = json_object_get(config, "text_config");
    cr_assert_eq(json_array_size(json_object_get(text, "intermediate_size")), 18);
    cr_assert_eq(json_array_size(json_object_get(text, "layer_types")), 18);
    cr_assert_eq(json_array_size(json_object_get(text, "activation_sparsity_pattern")), 18);
    cr_assert_eq(json_integer_value(json_object_get(text, "num_kv_shared_layers")), 8);
    cr_assert_eq(json_real_value(json_object_get(config, "third")), 1.0 / 3);
    json_decref(config);
    const pl_config *is = pl_checkpoint_config(written), *from = pl_checkpoint_config(source);
    for (int l = 0; l < 18; l++) {
        int old = l < 10 ? l : l < 13 ? l + 1 : l + 2;
        cr_assert_eq(is->local[l], from->local[old]);
        cr_assert_eq(is->sparsity_z[l], from->sparsity_z[old]);
    }
}

Test(write_hf, numbers_of_layers_stay_with_them)
{
    make_rich_folder(NULL, 0);
    json_t *config = json_load_file(scratch_path(&s, "in/config.json"), 0, NULL), *list = json_array();
    for (int l = 0; l < 20; l++)
        json_array_append_new(list, json_real(l / 100.0));
    json_object_set_new(json_object_get(config, "text_config"), "activation_sparsity_pattern", list);
    cr_assert_eq(json_dump_file(config, scratch_path(&s, "in/config.json"), 0), 0);
    json_decref(config);
    make_plan(scratch_path(&s, "in"), "mix:widths=64;skip=10,14");
    write_and_open();
    config = json_load_file(scratch_path(&s, "out/config.json"), 0, NULL);
    list = json_object_get(json_object_get(config, "text_config"), "activation_sparsity_pattern");
    for (size_t l = 0; l < 18; l++) {
        size_t old = l < 10 ? l : l < 13 ? l + 1 : l + 2;
        cr_assert_eq(json_real_value(json_array_get(list, l)), (double)old / 100);
    }
    json_decref(config);
}

Test(write_hf, the_whole_keeps_its_paths)
{
    make_rich_folder(NULL, 0);
    make_plan(scratch_path(&s, "in"), "full");
    write_and_open();
    const pl_named_path *paths;
    cr_assert_eq(pl_checkpoint_paths(written, &paths), 1);
    cr_assert_str_eq(paths[0].spec, "mix:widths=64");
    same_tensors(pl_checkpoint_entries(written), pl_checkpoint_entries(source));
}

/* ---- whole or not at all ------------------------------------------------------------------------- */

Test(write_hf, a_folder_in_use_is_refused)
{
    make_plan(E4B, E2B_OF_E4B);
    cr_assert_eq(mkdir(scratch_path(&s, "out"), 0700), 0);
    scratch_text(&s, "out/mine.txt", "mine");
    expect_failure(pl_write_hf(plan, scratch_path(&s, "out"), &quiet, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("/out", "not empty"));
    expect_failure(pl_write_hf(plan, scratch_path(&s, "out/mine.txt"), &quiet, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("mine.txt", "is a file"));
    expect_failure(pl_write_hf(plan, scratch_path(&s, "none/out"), &quiet, &err), PL_ERR_IO, &err,
                   WORDS("none/out", "No such file"));
    cr_assert_eq(n_files(scratch_path(&s, "out")), 1);
    cr_assert_eq(n_files(s.dir), 1);
}

Test(write_hf, an_empty_folder_is_taken)
{
    make_plan(E4B, E2B_OF_E4B);
    cr_assert_eq(mkdir(scratch_path(&s, "out"), 0700), 0);
    cr_assert_eq(pl_write_hf(plan, scratch_path(&s, "out//"), &quiet, &err), PL_OK, "%s", err.message);
    cr_assert_eq(n_files(scratch_path(&s, "out")), 6);
    cr_assert_eq(n_files(s.dir), 1);
}

typedef struct watcher {
    int calls, stop_at;
    double last;
} watcher;

static void watch(void *user, const char *what, double fraction)
{
    watcher *w = user;
    cr_assert_not_null(what);
    cr_assert_geq(fraction, w->last);
    w->last = fraction;
    w->calls++;
}

static bool stop(void *user)
{
    watcher *w = user;
    return w->calls == w->stop_at;
}

Test(write_hf, an_interrupted_one_leaves_nothing)
{
    watcher w = {.stop_at = 100};
    const pl_write_hf_options options = {watch, &w, stop, &w};
    make_plan(E4B, E2B_OF_E4B);
    expect_failure(pl_write_hf(plan, scratch_path(&s, "out"), &options, &err), PL_ERR_CANCELLED, &err, WORDS("/out"));
    cr_assert_eq(n_files(s.dir), 0);
    w = (watcher){.stop_at = -1};
    cr_assert_eq(pl_write_hf(plan, scratch_path(&s, "out"), &options, &err), PL_OK, "%s", err.message);
    cr_assert_eq(w.last, 1);
}

static pl_status config_of_plan(void *ctx, pl_error *e)
{
    char *text = NULL;
    size_t n;
    (void)ctx;
    PL_TRY(pl_hf_config_text(plan, &text, &n, e));
    free(text);
    return PL_OK;
}

Test(write_hf, a_config_that_is_gone_is_told)
{
    make_rich_folder(NULL, 0);
    make_plan(scratch_path(&s, "in"), "mix:widths=64");
    cr_assert_eq(config_of_plan(NULL, &err), PL_OK, "%s", err.message);
    unlink(scratch_path(&s, "in/config.json"));
    expect_failure(config_of_plan(NULL, &err), PL_ERR_IO, &err, WORDS("in/config.json"));
    expect_failure(pl_write_hf(plan, scratch_path(&s, "out"), &quiet, &err), PL_ERR_IO, &err, WORDS("in/config.json"));
    cr_assert_eq(n_files(s.dir), 1);
}
