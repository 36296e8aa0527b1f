/* The keys of written files: what comes of them when the file is opened again. */
#include <math.h>

#include "host/convert/metadata.h"
#include "host/text/tokenizer.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/plans.h"
#include "tests/unit/scratch.h"

#define E4B PL_TEST_DATA "/golden/text/e4b"

static gguf_builder b;
static scratch s;
static pl_checkpoint *source, *written;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    gguf_builder_tiny(&b);
}

static void teardown(void)
{
    pl_checkpoint_close(written);
    pl_checkpoint_close(source);
    gguf_builder_free(&b);
    scratch_close(&s);
}

TestSuite(metadata, .init = setup, .fini = teardown);

static void open_tiny(void)
{
    gguf_builder_place(&b);
    source = must_open(gguf_builder_write(&b, &s, "tiny.gguf"));
}

static void append(pl_gguf_writer *w, const pl_export_tensor *t)
{
    size_t bytes = pl_dtype_bytes(t->type, t->n_cols) * (size_t)t->n_rows;
    float *values = malloc((size_t)(t->n_rows * t->n_cols) * sizeof *values + 1);
    void *data = values;
    if (pl_export_is_copy(t))
        pl_export_copy(t, 0, t->n_rows, data);
    else
        pl_export_read(t, 0, t->n_rows, data);
    cr_assert(pl_export_is_copy(t) || t->type == PL_F32);
    cr_assert_eq(pl_gguf_writer_append(w, data, bytes, &err), PL_OK, "%s", err.message);
    free(values);
}

/* Writes the path of `source` to a file and opens that as `written`. */
static void rewrite(const char *spec)
{
    pl_export *e = must_plan(source, spec, PL_CHECKPOINT_GGUF);
    pl_gguf_writer *w = NULL;
    cr_assert_eq(pl_gguf_writer_create(&w, &err), PL_OK);
    cr_assert_eq(pl_metadata_put(w, e, 7, &err), PL_OK, "%s", err.message);
    for (size_t i = 0; i < e->n; i++)
        pl_gguf_declare(w, e->tensors[i].name, e->tensors[i].type, e->tensors[i].dims, e->tensors[i].n_dims);
    const char *to = scratch_path(&s, "written.gguf");
    cr_assert_eq(pl_gguf_writer_begin(w, to, &err), PL_OK, "%s", err.message);
    for (size_t i = 0; i < e->n; i++)
        append(w, &e->tensors[i]);
    cr_assert_eq(pl_gguf_writer_commit(w, &err), PL_OK, "%s", err.message);
    pl_gguf_writer_free(w);
    pl_export_free(e);
    written = must_open(to);
}

static const pl_gguf_value *find(const pl_checkpoint *checkpoint, const char *key)
{
    const pl_gguf_value *values;
    size_t n = pl_checkpoint_gguf_values(checkpoint, &values);
    for (size_t i = 0; i < n; i++)
        if (strcmp(values[i].key, key) == 0)
            return &values[i];
    return NULL;
}

static int64_t number(const char *key)
{
    const pl_gguf_value *value = find(written, key);
    cr_assert_not_null(value, "%s", key);
    return pl_gguf_integer_at(value, 0);
}

static void has_text(const char *key, const char *text)
{
    const pl_gguf_value *value = find(written, key);
    cr_assert_not_null(value, "%s", key);
    cr_assert_eq(value->n, strlen(text), "%s is %.*s", key, (int)value->n, (const char *)value->data);
    cr_assert_arr_eq(value->data, text, value->n, "%s is %.*s", key, (int)value->n, (const char *)value->data);
}

/* All that decides the equations; stop tokens in any order. */
static void same_config(const pl_config *a, const pl_config *c)
{
    cr_assert_eq(a->n_layers, c->n_layers);
    cr_assert_eq(a->n_kv_layers, c->n_kv_layers);
    cr_assert_eq(a->hidden, c->hidden);
    cr_assert_eq(a->n_heads, c->n_heads);
    cr_assert_eq(a->n_kv_heads, c->n_kv_heads);
    cr_assert_eq(a->head_dim, c->head_dim);
    cr_assert_eq(a->ple_dim, c->ple_dim);
    cr_assert_eq(a->ple_vocab, c->ple_vocab);
    cr_assert_eq(a->vocab, c->vocab);
    cr_assert_eq(a->laurel_rank, c->laurel_rank);
    cr_assert_eq(a->window, c->window);
    cr_assert_eq(a->context, c->context);
    cr_assert_eq(a->eps, c->eps);
    cr_assert_eq(a->softcap, c->softcap);
    cr_assert_eq(a->rope_base_global, c->rope_base_global);
    cr_assert_eq(a->rope_base_local, c->rope_base_local);
    cr_assert_eq(a->bos, c->bos);
    cr_assert_eq(a->pad, c->pad);
    for (int l = 0; l < a->n_layers; l++) {
        cr_assert_eq(a->ffn[l], c->ffn[l]);
        cr_assert_eq(a->local[l], c->local[l]);
        cr_assert_eq(a->sparsity_z[l], c->sparsity_z[l]);
        cr_assert_eq(a->kv_layer[l], c->kv_layer[l]);
    }
    cr_assert_eq(a->n_eos, c->n_eos);
    for (int i = 0; i < a->n_eos; i++) {
        bool there = false;
        for (int j = 0; j < c->n_eos; j++)
            there |= a->eos[i] == c->eos[j];
        cr_assert(there, "stop token %d", a->eos[i]);
    }
}

static pl_tokenizer *tokenizer_of(const pl_checkpoint *checkpoint)
{
    const pl_pieces *p = pl_checkpoint_pieces(checkpoint);
    pl_vocabulary v = {p->n, p->text, p->offset, p->score, p->kind};
    pl_tokenizer *out = NULL;
    cr_assert_eq(pl_tokenizer_from_vocabulary(&v, "written", NULL, &out, &err), PL_OK, "%s", err.message);
    return out;
}

Test(metadata, a_folder_becomes_the_same_model)
{
    static const char *const texts[] = {"Hello, world!",
                                        "  two spaces\n\n\ttab",
                                        "na\xc3\xafve caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd",
                                        "<start_of_turn>user\nhi<end_of_turn>",
                                        "def help(self):\n    return 1234567890",
                                        "<unused3> \xf0\x9f\x99\x82 <h1>x</h1>"};
    pl_tokenizer *should = NULL, *is;
    source = must_open(E4B);
    rewrite(NULL);
    same_config(pl_checkpoint_config(written), pl_checkpoint_config(source));
    cr_assert_str_eq(pl_checkpoint_name(written), "e4b");
    cr_assert_str_eq(pl_checkpoint_chat_template(written), pl_checkpoint_chat_template(source));
    cr_assert_eq(pl_tokenizer_from_json(E4B "/tokenizer.json", NULL, &should, &err), PL_OK, "%s", err.message);
    is = tokenizer_of(written);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        pl_ids a = {0}, c = {0};
        cr_assert_eq(pl_tokenizer_encode(should, texts[i], strlen(texts[i]), true, &a, &err), PL_OK);
        cr_assert_eq(pl_tokenizer_encode(is, texts[i], strlen(texts[i]), true, &c, &err), PL_OK);
        cr_assert_eq(a.n, c.n, "%s", texts[i]);
        cr_assert_arr_eq(a.v, c.v, a.n * sizeof *a.v, "%s", texts[i]);
        pl_ids_free(&a);
        pl_ids_free(&c);
    }
    pl_tokenizer_free(is);
    pl_tokenizer_free(should);
}

Test(metadata, a_folder_gets_the_converters_keys)
{
    source = must_open(E4B);
    rewrite(NULL);
    const pl_pieces *p = pl_checkpoint_pieces(written);
    has_text("general.architecture", "gemma3n");
    has_text("general.type", "model");
    has_text("general.size_label", "1.4M");
    has_text("tokenizer.ggml.model", "llama");
    has_text("tokenizer.ggml.pre", "default");
    cr_assert_eq(number("general.file_type"), 7);
    cr_assert_eq(number("general.quantization_version"), 2);
    cr_assert_eq(number("general.sampling.top_k"), 64);
    cr_assert_eq(number("tokenizer.ggml.eos_token_id"), 1);
    cr_assert_eq(number("tokenizer.ggml.unknown_token_id"), 3);
    cr_assert_eq(find(written, "tokenizer.ggml.add_bos_token")->data[0], 1);
    cr_assert_eq(find(written, "tokenizer.ggml.add_eos_token")->data[0], 0);
    cr_assert_eq(find(written, "tokenizer.ggml.add_space_prefix")->data[0], 0);
    cr_assert_null(find(written, "tokenizer.ggml.eot_token_id"));
    cr_assert_eq(find(written, "gemma3n.feed_forward_length")->type, PL_GGUF_I32);
    cr_assert_eq(find(written, "gemma3n.block_count")->type, PL_GGUF_U32);
    static const struct {
        int id, kind;
        float score;
    } pieces[] = {{0, 3, -1000},   {3, 3, -1000}, {4, 3, -1000}, {6, 3, -1000}, {105, 3, -1000}, {106, 3, -1000},
                  {107, 4, -1000}, {238, 6, 0},   {493, 6, 0},   {494, 1, 0},   {600, 1, -106}};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        cr_assert_eq(p->kind[pieces[i].id], pieces[i].kind, "piece %d is %d", pieces[i].id, p->kind[pieces[i].id]);
        cr_assert_eq(p->score[pieces[i].id], pieces[i].score, "piece %d", pieces[i].id);
    }
}

Test(metadata, keys_of_a_gguf_file_are_kept)
{
    static const char *const tags[] = {"a", "bc"};
    uint16_t zero = 0, one = 1;
    gguf_builder_text(&b, "general.license", "apache-2.0");
    gguf_builder_texts(&b, "general.tags", tags, 2);
    gguf_builder_u32(&b, "general.file_type", 3);
    gguf_builder_text(&b, "general.size_label", "7K");
    gguf_builder_text(&b, "pleiad.path.small", "mix:widths=32");
    gguf_builder_raw(&b, "split.no", PL_GGUF_U16, &zero, sizeof zero);
    gguf_builder_raw(&b, "split.count", PL_GGUF_U16, &one, sizeof one);
    gguf_builder_u32(&b, "general.alignment", 64);
    b.alignment = 64;
    open_tiny();
    rewrite(NULL);
    const pl_gguf_value *values;
    size_t n = pl_checkpoint_gguf_values(source, &values);
    for (size_t i = 0; i < n; i++) {
        const pl_gguf_value *value = find(written, values[i].key);
        bool storage = strncmp(values[i].key, "split.", 6) == 0 || strcmp(values[i].key, "general.alignment") == 0;
        cr_assert_eq(!value, storage, "%s", values[i].key);
        if (!value || strcmp(value->key, "general.file_type") == 0)
            continue;
        cr_assert_eq(value->type, values[i].type, "%s", value->key);
        cr_assert_eq(value->is_array, values[i].is_array, "%s", value->key);
        cr_assert_eq(value->n, values[i].n, "%s", value->key);
    }
    cr_assert_eq(number("general.file_type"), 7);
    has_text("general.size_label", "7K");
    has_text("general.license", "apache-2.0");
    same_config(pl_checkpoint_config(written), pl_checkpoint_config(source));
    const pl_named_path *paths;
    cr_assert_eq(pl_checkpoint_paths(written, &paths), 1);
    cr_assert_str_eq(paths[0].spec, "mix:widths=32");
}

Test(metadata, a_slice_states_its_own_sizes)
{
    pl_path path;
    gguf_builder_text(&b, "pleiad.path.small", "mix:widths=32");
    gguf_builder_text(&b, "general.size_label", "7K");
    open_tiny();
    rewrite("mix:widths=32,64,32;skip=2");
    const pl_config *c = pl_checkpoint_config(written);
    pl_config should = *pl_checkpoint_config(source);
    should.n_layers = 3;
    should.ffn[0] = should.ffn[2] = 32;
    should.local[2] = should.local[3];
    should.sparsity_z[2] = should.sparsity_z[3];
    should.kv_layer[2] = 1;
    same_config(c, &should);
    cr_assert_eq(number("gemma3n.block_count"), 3);
    cr_assert_eq(number("gemma3n.attention.shared_kv_layers"), 1);
    cr_assert_neq(find(written, "general.size_label")->data[0], '7');
    const pl_named_path *paths;
    cr_assert_eq(pl_checkpoint_paths(written, &paths), 0);
    cr_assert_eq(pl_path_parse(written, "full", &path, &err), PL_OK);
}

static void copy_folder(const char *const *names)
{
    for (; *names; names++) {
        char from[600];
        snprintf(from, sizeof from, E4B "/%s", *names);
        scratch_copy(&s, *names, from);
    }
}

static void remove_folder(const char *const *names)
{
    for (; *names; names++)
        unlink(scratch_path(&s, *names));
}

/* Ids behind the tokenizer's: two slots, of which tokenizer_config.json names one. */
Test(metadata, slots_without_a_piece_are_unused)
{
    static const char *const names[] = {"config.json",           "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json", "written.gguf",      NULL};
    static const char *const copied[] = {"config.json", "model.safetensors", "tokenizer.json", NULL};
    size_t n;
    copy_folder(copied);
    char *text = read_file(scratch_path(&s, "tokenizer.json"), &n), *cut = strstr(text, ",{\"id\":1086,");
    cr_assert_not_null(cut);
    char *end = strchr(cut, ']');
    memmove(cut, end, strlen(end) + 1);
    scratch_text(&s, "tokenizer.json", text);
    free(text);
    scratch_text(&s, "tokenizer_config.json",
                 "{\"eos_token\": {\"content\": \"<end_of_turn>\"}, \"added_tokens_decoder\": {"
                 "\"1\": {\"content\": \"no\"}, \"1087\": {\"content\": \"<x\xe2\x96\x81y>\"}, "
                 "\"5000\": {\"content\": \"no\"}}}");
    source = must_open(s.dir);
    rewrite(NULL);
    const pl_pieces *p = pl_checkpoint_pieces(written);
    cr_assert_eq(p->n, 1088);
    cr_assert_eq(p->kind[1086], 5);
    cr_assert_eq(p->score[1086], -10000);
    cr_assert_arr_eq(p->text + p->offset[1086], "[PAD1086]", 9);
    cr_assert_eq(p->kind[1087], 4);
    cr_assert_eq(p->score[1087], -1000);
    cr_assert_eq(p->offset[1088] - p->offset[1087], 5);
    cr_assert_arr_eq(p->text + p->offset[1087], "<x y>", 5);
    cr_assert_arr_eq(p->text + p->offset[1], "<eos>", 5);
    cr_assert_eq(number("tokenizer.ggml.eos_token_id"), 106);
    remove_folder(names);
}

/* ---- what cannot be said ------------------------------------------------------------------------- */

static pl_status put_from_scratch(void)
{
    source = must_open(s.dir);
    pl_export *e = must_plan(source, NULL, PL_CHECKPOINT_GGUF);
    pl_gguf_writer *w = NULL;
    cr_assert_eq(pl_gguf_writer_create(&w, &err), PL_OK);
    pl_status status = pl_metadata_put(w, e, 0, &err);
    pl_gguf_writer_free(w);
    pl_export_free(e);
    return status;
}

Test(metadata, a_missing_tokenizer_is_told)
{
    static const char *const names[] = {"config.json", "model.safetensors", NULL};
    copy_folder(names);
    expect_failure(put_from_scratch(), PL_ERR_IO, &err, WORDS("tokenizer.json", "No such file"));
    remove_folder(names);
}

/* Swaps the first two merges that make different pieces of the model. */
Test(metadata, merges_out_of_order_are_refused)
{
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json", NULL};
    size_t n;
    copy_folder(names);
    char *text = read_file(scratch_path(&s, "tokenizer.json"), &n);
    char *last = strrchr(text, '['), *merges = strstr(text, "\"merges\":[") + 10;
    size_t bytes = strlen(last) - strlen("]}}"), head = (size_t)(merges - text);
    cr_assert_str_eq(last + strlen(last) - 4, "]]}}");
    char *swapped = calloc(1, 2 * n);
    snprintf(swapped, 2 * n, "%.*s%.*s,%.*s]}}", (int)head, text, (int)bytes, last, (int)(last - merges - 1), merges);
    scratch_text(&s, "tokenizer.json", swapped);
    free(swapped);
    free(text);
    expect_failure(put_from_scratch(), PL_ERR_UNSUPPORTED, &err, WORDS("tokenizer.json", "merge", "order"));
    remove_folder(names);
}

static pl_export *planned;

static pl_status put_and_free(void *ctx, pl_error *e)
{
    pl_gguf_writer *w = NULL;
    pl_status status = pl_gguf_writer_create(&w, e);
    if (status != PL_OK)
        return status;
    PL_TRY_GOTO(pl_metadata_put(w, planned, 1, e));
    status = pl_gguf_writer_begin(w, ctx, e);
fail:
    pl_gguf_writer_free(w);
    return status;
}

static void every_allocation_may_fail(int at_least)
{
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_path(&s, "new.gguf"));
    planned = must_plan(source, NULL, PL_CHECKPOINT_GGUF);
    cr_assert_geq(fail_alloc_each(put_and_free, path), at_least);
    pl_export_free(planned);
}

Test(metadata, every_allocation_may_fail_with_gguf)
{
    open_tiny();
    every_allocation_may_fail(5);
}

Test(metadata, every_allocation_may_fail_with_a_folder)
{
    source = must_open(E4B);
    every_allocation_may_fail(20);
}
