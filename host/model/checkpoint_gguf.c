/* A GGUF file, or the parts of a split one. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/model/checkpoint_parts.h"
#include "host/model/config_parts.h"
#include "host/model/weights_bind.h"

#define PATH_BYTES 4096
#define SPLIT_SUFFIX_BYTES 20 /* "-00001-of-00003.gguf" */

/* Gemma 3n as published: the table serves the ids that are text; soft-token slots follow. */
#define PUBLISHED_VOCAB 262400
#define PUBLISHED_PLE_VOCAB 262144

/* More trailing zero rows than this are no padding. */
#define PADDING_ROWS_MAX 4096

typedef struct loader {
    pl_checkpoint *checkpoint;
    pl_gguf file;           /* the first part: all metadata */
    pl_tensor_list tensors; /* of all parts, indexed */
    pl_error *err;
} loader;

static bool text_is(const char *text, size_t n, const char *expected)
{
    return text && n == strlen(expected) && memcmp(text, expected, n) == 0;
}

static pl_status check_architecture(const loader *l)
{
    const char *text;
    size_t n;
    PL_TRY(pl_gguf_text(&l->file, "general.architecture", &text, &n, l->err));
    if (!text)
        return pl_gguf_missing(&l->file, "general.architecture", l->err);
    if (text_is(text, n, "clip"))
        return pl_fail(l->err, PL_ERR_UNSUPPORTED,
                       "%s: holds only the image and audio encoders; give the text model's file", l->file.where);
    if (!text_is(text, n, "gemma3n"))
        return pl_fail(l->err, PL_ERR_UNSUPPORTED, "%s: architecture '%.*s' is not Gemma 3n", l->file.where,
                       n < 64 ? (int)n : 64, text);
    return PL_OK;
}

/* True where no element of the table's row is other than zero. */
static bool row_is_zero(const pl_entry *table, int64_t row)
{
    const pl_dtype_info *info = pl_dtype_describe(table->type);
    int64_t cols = table->dims[1];
    size_t row_bytes = pl_dtype_bytes((pl_dtype)table->type, cols);
    const unsigned char *data = table->data + (size_t)row * row_bytes;
    float values[256];
    for (int64_t i = 0; i < cols; i += info->block_elems, data += info->block_bytes) {
        pl_decode((pl_dtype)table->type, data, values, info->block_elems);
        for (int j = 0; j < info->block_elems; j++)
            if (values[j] != 0)
                return false;
    }
    return true;
}

/* Converters fill the table with zero rows up to the vocabulary; ids that only they would serve use row 0
 * as in the original model. */
static int64_t served_rows(const pl_entry *table, int64_t vocab)
{
    int64_t rows = table->dims[0] < vocab ? table->dims[0] : vocab;
    if (vocab == PUBLISHED_VOCAB)
        return rows < PUBLISHED_PLE_VOCAB ? rows : PUBLISHED_PLE_VOCAB;
    int64_t kept = rows;
    if (rows == vocab)
        while (kept > 1 && rows - kept <= PADDING_ROWS_MAX && row_is_zero(table, kept - 1))
            kept--;
    return rows - kept <= PADDING_ROWS_MAX ? kept : rows;
}

static pl_status need_matrix(const loader *l, const char *name, const pl_entry **out)
{
    const pl_entry *entry = pl_tensor_list_find(&l->tensors, name);
    *out = entry;
    if (!entry)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: tensor %s is missing", l->file.where, name);
    if (entry->n_dims != 2 || entry->dims[0] < 1 || entry->dims[1] < 1 || entry->dims[0] > INT32_MAX)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: tensor %s is not a matrix of a usable size", entry->where, name);
    return PL_OK;
}

/* Sizes that only tensors state. */
static pl_status sizes_from_tensors(const loader *l)
{
    pl_config *c = &l->checkpoint->config;
    const pl_entry *embed, *table, *laurel;
    PL_TRY(need_matrix(l, "token_embd.weight", &embed));
    c->vocab = (int)embed->dims[0];
    PL_TRY(pl_gguf_int(&l->file, "gemma3n.vocab_size", c->vocab, c->vocab, &c->vocab, l->err));
    PL_TRY(need_matrix(l, "per_layer_token_embd.weight", &table));
    bool readable = pl_dtype_describe(table->type) != NULL;
    c->ple_vocab = (int)(readable ? served_rows(table, c->vocab) : 1);
    laurel = pl_tensor_list_find(&l->tensors, "blk.0.laurel_l.weight");
    c->laurel_rank = 1; /* written with one dimension when it is 1 */
    if (laurel && laurel->n_dims == 2 && laurel->dims[0] >= 1 && laurel->dims[0] <= INT32_MAX)
        c->laurel_rank = (int)laurel->dims[0];
    return PL_OK;
}

static pl_status check_tokenizer(const loader *l)
{
    const char *text;
    size_t n;
    bool space_prefix = false;
    PL_TRY(pl_gguf_text(&l->file, "tokenizer.ggml.model", &text, &n, l->err));
    if (!text)
        return pl_gguf_missing(&l->file, "tokenizer.ggml.model", l->err);
    if (!text_is(text, n, "llama"))
        return pl_fail(l->err, PL_ERR_UNSUPPORTED, "%s: tokenizer.ggml.model is '%.*s', expected llama", l->file.where,
                       n < 64 ? (int)n : 64, text);
    PL_TRY(pl_gguf_bool(&l->file, "tokenizer.ggml.add_space_prefix", &space_prefix, l->err));
    if (space_prefix)
        return pl_fail(l->err, PL_ERR_UNSUPPORTED, "%s: tokenizer.ggml.add_space_prefix is true, Gemma's is false",
                       l->file.where);
    return PL_OK;
}

static pl_status need_array(const loader *l, const char *key, pl_gguf_type type, const pl_gguf_value **out)
{
    const pl_config *c = &l->checkpoint->config;
    PL_TRY(pl_gguf_array(&l->file, key, type, out, l->err));
    if (!*out)
        return pl_gguf_missing(&l->file, key, l->err);
    if ((*out)->n != (uint64_t)c->vocab)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: %s has %" PRIu64 " entries, but token_embd.weight has %d rows",
                       l->file.where, key, (*out)->n, c->vocab);
    return PL_OK;
}

static uint64_t string_bytes(const unsigned char *at)
{
    uint64_t n;
    memcpy(&n, at, sizeof n);
    return n;
}

static pl_status copy_pieces(const loader *l, const pl_gguf_value *tokens, uint64_t **offset_out, char **text_out)
{
    size_t n = (size_t)tokens->n, total = 0;
    const unsigned char *at = tokens->data;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = string_bytes(at);
        total += bytes;
        at += sizeof bytes + bytes;
    }
    uint64_t *offset = pl_arena_take(l->checkpoint->arena, n + 1, sizeof *offset);
    char *text = pl_arena_take(l->checkpoint->arena, total + 1, 1);
    if (!offset || !text)
        return pl_fail_memory(l->err, (n + 1) * sizeof *offset + total + 1, "the vocabulary");
    at = tokens->data;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = string_bytes(at);
        memcpy(text + offset[i], at + sizeof bytes, bytes);
        offset[i + 1] = offset[i] + bytes;
        at += sizeof bytes + bytes;
    }
    *offset_out = offset;
    *text_out = text;
    return PL_OK;
}

static pl_status check_pieces(const loader *l, const float *score, const int32_t *kind, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (isnan(score[i]))
            return pl_fail(l->err, PL_ERR_FORMAT, "%s: tokenizer.ggml.scores: entry %d is not a number", l->file.where,
                           i);
        if (kind[i] < 1 || kind[i] > 6)
            return pl_fail(l->err, PL_ERR_FORMAT, "%s: tokenizer.ggml.token_type: entry %d is %d, expected 1 to 6",
                           l->file.where, i, kind[i]);
    }
    return PL_OK;
}

static pl_status read_pieces(const loader *l)
{
    const pl_gguf_value *tokens, *scores, *kinds;
    PL_TRY(need_array(l, "tokenizer.ggml.tokens", PL_GGUF_STRING, &tokens));
    PL_TRY(need_array(l, "tokenizer.ggml.scores", PL_GGUF_F32, &scores));
    PL_TRY(need_array(l, "tokenizer.ggml.token_type", PL_GGUF_I32, &kinds));
    size_t n = (size_t)tokens->n;
    uint64_t *offset = NULL;
    char *text = NULL;
    PL_TRY(copy_pieces(l, tokens, &offset, &text));
    float *score = pl_arena_take(l->checkpoint->arena, n, sizeof *score);
    int32_t *kind = pl_arena_take(l->checkpoint->arena, n, sizeof *kind);
    if (!score || !kind)
        return pl_fail_memory(l->err, n * (sizeof *score + sizeof *kind), "the vocabulary");
    memcpy(score, scores->data, n * sizeof *score);
    memcpy(kind, kinds->data, n * sizeof *kind);
    l->checkpoint->pieces = (pl_pieces){(int32_t)n, text, offset, score, kind};
    return check_pieces(l, score, kind, (int32_t)n);
}

/* A GGUF file states one stop token, chats end with another: both are known by their names. */
static pl_status add_eos_by_name(const loader *l)
{
    enum { CONTROL = 3 };
    const pl_pieces *p = &l->checkpoint->pieces;
    for (int32_t i = 0; i < p->n; i++) {
        const char *text = p->text + p->offset[i];
        size_t n = (size_t)(p->offset[i + 1] - p->offset[i]);
        if (p->kind[i] == CONTROL && (text_is(text, n, "<eos>") || text_is(text, n, "<end_of_turn>")))
            PL_TRY(pl_config_add_eos(&l->checkpoint->config, i, l->file.where, l->err));
    }
    return PL_OK;
}

static pl_status read_ids(const loader *l)
{
    static const char *const stops[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
    pl_config *c = &l->checkpoint->config;
    int bos = 2, pad = 0;
    PL_TRY(pl_gguf_int(&l->file, "tokenizer.ggml.bos_token_id", 0, c->vocab - 1, &bos, l->err));
    PL_TRY(pl_gguf_int(&l->file, "tokenizer.ggml.padding_token_id", 0, c->vocab - 1, &pad, l->err));
    c->bos = bos;
    c->pad = pad;
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        int id = -1;
        PL_TRY(pl_gguf_int(&l->file, stops[i], 0, c->vocab - 1, &id, l->err));
        if (id >= 0)
            PL_TRY(pl_config_add_eos(c, id, l->file.where, l->err));
    }
    return add_eos_by_name(l);
}

static pl_status read_nested_paths(const loader *l)
{
    static const char prefix[] = "pleiad.path.";
    PL_TRY(pl_checkpoint_expect_paths(l->checkpoint, l->file.n_values, l->err));
    for (size_t i = 0; i < l->file.n_values; i++) {
        const char *key = l->file.values[i].key, *spec;
        size_t n;
        if (strncmp(key, prefix, sizeof prefix - 1) != 0)
            continue;
        PL_TRY(pl_gguf_text(&l->file, key, &spec, &n, l->err));
        PL_TRY(pl_checkpoint_add_path(l->checkpoint, key + sizeof prefix - 1, spec, n, l->err));
    }
    return PL_OK;
}

static pl_status read_texts(const loader *l)
{
    pl_checkpoint *c = l->checkpoint;
    const char *text;
    size_t n;
    PL_TRY(pl_gguf_text(&l->file, "tokenizer.chat_template", &text, &n, l->err));
    if (text)
        PL_TRY(pl_checkpoint_text(c, text, n, &c->chat_template, l->err));
    PL_TRY(pl_gguf_text(&l->file, "general.name", &text, &n, l->err));
    if (!text || n == 0) {
        text = pl_file_base(c->path);
        n = strlen(text);
        if (n > 5 && strcmp(text + n - 5, ".gguf") == 0)
            n -= 5;
    }
    return pl_checkpoint_text(c, text, n, &c->name, l->err);
}

/* Everything after the parts are parsed. */
static pl_status load(loader *l)
{
    pl_checkpoint *c = l->checkpoint;
    c->values = l->file.values;
    c->n_values = l->file.n_values;
    PL_TRY(pl_tensor_list_index(&l->tensors, c->arena, l->err));
    PL_TRY(pl_config_from_gguf(&l->file, &c->config, l->err));
    PL_TRY(sizes_from_tensors(l));
    PL_TRY(check_tokenizer(l));
    PL_TRY(read_pieces(l));
    PL_TRY(read_ids(l));
    PL_TRY(pl_config_check(&c->config, l->file.where, l->err));
    pl_binder binder = {PL_CHECKPOINT_GGUF, l->file.where, "", &l->tensors, &c->config, c->arena, l->err};
    PL_TRY(pl_weights_bind(&binder, &c->weights));
    if (pl_tensor_list_find(&l->tensors, "output.weight"))
        PL_TRY(pl_weights_bind_one(&binder, "output.weight", c->config.vocab, c->config.hidden, &c->weights.head));
    PL_TRY(read_nested_paths(l));
    PL_TRY(read_texts(l));
    return pl_checkpoint_keep_tensors(c, &l->tensors, l->err);
}

static pl_status parse_part(loader *l, const char *path, pl_gguf *out)
{
    pl_checkpoint *c = l->checkpoint;
    const char *where = NULL;
    pl_mapfile *file = &c->files[c->n_files];
    PL_TRY(pl_checkpoint_text(c, path, strlen(path), &where, l->err));
    PL_TRY(pl_mapfile_open(path, file, l->err));
    c->n_files++;
    return pl_gguf_parse(file->data, file->size, where, c->arena, out, l->err);
}

static pl_status part_path(const loader *l, int part, int count, char *out)
{
    char suffix[32], expected[32];
    const char *path = l->checkpoint->path;
    size_t n = strlen(path);
    snprintf(expected, sizeof expected, "-%05d-of-%05d.gguf", 1, count);
    if (n <= SPLIT_SUFFIX_BYTES || n >= PATH_BYTES || strcmp(path + n - SPLIT_SUFFIX_BYTES, expected) != 0)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: is part 1 of %d, so its name must end in %s", path, count, expected);
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", part, count);
    memcpy(out, path, n - SPLIT_SUFFIX_BYTES);
    memcpy(out + n - SPLIT_SUFFIX_BYTES, suffix, SPLIT_SUFFIX_BYTES + 1);
    return PL_OK;
}

static pl_status read_part(loader *l, int part, int count, pl_tensor_list *out)
{
    char path[PATH_BYTES];
    pl_gguf file;
    int number = -1, of = -1;
    PL_TRY(part_path(l, part, count, path));
    PL_TRY(parse_part(l, path, &file));
    PL_TRY(pl_gguf_int(&file, "split.no", 0, INT32_MAX, &number, l->err));
    PL_TRY(pl_gguf_int(&file, "split.count", 0, INT32_MAX, &of, l->err));
    if (number != part - 1 || of != count)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: split.no is %d and split.count %d, expected %d and %d", path, number,
                       of, part - 1, count);
    *out = file.tensors;
    return PL_OK;
}

static pl_status read_parts(loader *l, int count)
{
    pl_checkpoint *c = l->checkpoint;
    pl_mapfile first = c->files[0];
    pl_mapfile *files = pl_arena_take(c->arena, (size_t)count, sizeof *files);
    pl_tensor_list *lists = pl_arena_take(c->arena, (size_t)count, sizeof *lists);
    if (!files || !lists)
        return pl_fail_memory(l->err, (size_t)count * (sizeof *files + sizeof *lists), "the parts of the file");
    files[0] = first;
    c->files = files;
    lists[0] = l->file.tensors;
    size_t total = lists[0].n;
    for (int part = 2; part <= count; part++) {
        PL_TRY(read_part(l, part, count, &lists[part - 1]));
        total += lists[part - 1].n;
    }
    int said = (int)(total < INT32_MAX ? total : INT32_MAX);
    PL_TRY(pl_gguf_int(&l->file, "split.tensors.count", said, said, &said, l->err));
    pl_entry *items = pl_arena_take(c->arena, total + 1, sizeof *items);
    if (!items)
        return pl_fail_memory(l->err, (total + 1) * sizeof *items, "the list of tensors");
    l->tensors = (pl_tensor_list){.items = items};
    for (int i = 0; i < count; i++) {
        memcpy(items + l->tensors.n, lists[i].items, lists[i].n * sizeof *items);
        l->tensors.n += lists[i].n;
    }
    return PL_OK;
}

/* Says what a file is that is no GGUF. */
static pl_status refuse(const char *path, const pl_mapfile *file, pl_error *err)
{
    if (file->size == 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: the file is empty", path);
    uint64_t header = 0;
    memcpy(&header, file->data, file->size < sizeof header ? file->size : sizeof header);
    if (file->size > 8 && header <= file->size - 8 && file->data[8] == '{')
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s: a safetensors file alone is no model; give the folder that holds it and config.json", path);
    return pl_fail(err, PL_ERR_FORMAT, "%s: neither a GGUF file nor a Hugging Face folder", path);
}

pl_status pl_checkpoint_load_gguf(pl_checkpoint *checkpoint, pl_error *err)
{
    loader l = {.checkpoint = checkpoint, .err = err};
    const char *path = checkpoint->path;
    int count = 1, number = 0;
    checkpoint->format = PL_CHECKPOINT_GGUF;
    checkpoint->files = pl_arena_take(checkpoint->arena, 1, sizeof *checkpoint->files);
    if (!checkpoint->files)
        return pl_fail_memory(err, sizeof *checkpoint->files, "the file");
    pl_mapfile *file = &checkpoint->files[0];
    PL_TRY(pl_mapfile_open(path, file, err));
    checkpoint->n_files = 1;
    if (file->size < 4 || memcmp(file->data, "GGUF", 4) != 0)
        return refuse(path, file, err);
    PL_TRY(pl_gguf_parse(file->data, file->size, path, checkpoint->arena, &l.file, err));
    l.tensors = l.file.tensors;
    PL_TRY(pl_gguf_int(&l.file, "split.no", 0, INT32_MAX, &number, err));
    PL_TRY(pl_gguf_int(&l.file, "split.count", 0, PL_MAX_PARTS, &count, err));
    if (number != 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is part %d of %d; open the first part", path, number + 1, count);
    PL_TRY(check_architecture(&l));
    if (count > 1)
        PL_TRY(read_parts(&l, count));
    return load(&l);
}

pl_status pl_checkpoint_load_gguf_memory(pl_checkpoint *checkpoint, const unsigned char *data, size_t size,
                                         pl_error *err)
{
    loader l = {.checkpoint = checkpoint, .err = err};
    checkpoint->format = PL_CHECKPOINT_GGUF;
    PL_TRY(pl_gguf_parse(data, size, checkpoint->path, checkpoint->arena, &l.file, err));
    l.tensors = l.file.tensors;
    PL_TRY(check_architecture(&l));
    return load(&l);
}
