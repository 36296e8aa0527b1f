#include "host/base/json_out.h"
#include "tools/inspect_facts.h"

static void put_int(pl_json *json, const char *key, int64_t value)
{
    pl_json_key(json, key);
    pl_json_int(json, value);
}

static void put_size(pl_json *json, const char *key, size_t value)
{
    put_int(json, key, (int64_t)value);
}

static void put_string(pl_json *json, const char *key, const char *value)
{
    pl_json_key(json, key);
    pl_json_string(json, value);
}

static void begin_list(pl_json *json, const char *key)
{
    pl_json_key(json, key);
    pl_json_begin_array(json);
}

static void begin_object(pl_json *json, const char *key)
{
    pl_json_key(json, key);
    pl_json_begin_object(json);
}

static void write_config(pl_json *json, const pl_config *c)
{
    begin_object(json, "config");
    put_int(json, "layers", c->n_layers);
    put_int(json, "kv_layers", c->n_kv_layers);
    put_int(json, "hidden", c->hidden);
    put_int(json, "heads", c->n_heads);
    put_int(json, "kv_heads", c->n_kv_heads);
    put_int(json, "head_dim", c->head_dim);
    put_int(json, "ple_dim", c->ple_dim);
    put_int(json, "ple_vocab", c->ple_vocab);
    put_int(json, "vocab", c->vocab);
    put_int(json, "laurel_rank", c->laurel_rank);
    put_int(json, "window", c->window);
    put_int(json, "context", c->context);
    put_int(json, "bos", c->bos);
    begin_list(json, "eos");
    for (int i = 0; i < c->n_eos; i++)
        pl_json_int(json, c->eos[i]);
    pl_json_end_array(json);
    begin_list(json, "ffn");
    for (int l = 0; l < c->n_layers; l++)
        pl_json_int(json, c->ffn[l]);
    pl_json_end_array(json);
    begin_list(json, "local");
    for (int l = 0; l < c->n_layers; l++)
        pl_json_bool(json, c->local[l]);
    pl_json_end_array(json);
    pl_json_end_object(json);
}

static void write_text(pl_json *json, const pl_inspect_facts *f)
{
    begin_object(json, "tokenizer");
    put_int(json, "pieces", f->n_pieces);
    put_string(json, "error", f->n_pieces ? NULL : f->tokenizer_error.message);
    pl_json_end_object(json);
    begin_object(json, "chat");
    pl_json_key(json, "known");
    pl_json_bool(json, f->chat);
    put_string(json, "error", f->chat ? NULL : f->chat_error.message);
    pl_json_end_object(json);
}

static void write_types(pl_json *json, const pl_inspect_facts *f)
{
    begin_list(json, "types");
    for (size_t i = 0; i < f->n_types; i++) {
        pl_json_begin_object(json);
        put_string(json, "type", f->types[i].name);
        put_int(json, "tensors", f->types[i].tensors);
        put_int(json, "parameters", f->types[i].params);
        put_size(json, "bytes", f->types[i].bytes);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

static void write_part(pl_json *json, const char *name, pl_inspect_part part)
{
    pl_json_begin_object(json);
    put_string(json, "part", name);
    put_int(json, "parameters", part.params);
    put_size(json, "bytes", part.bytes);
    pl_json_end_object(json);
}

static void write_parts(pl_json *json, const pl_inspect_facts *f)
{
    begin_list(json, "parts");
    for (int i = 0; i < PL_PARTS; i++)
        write_part(json, pl_inspect_part_name((pl_inspect_part_id)i), f->parts[i]);
    pl_json_end_array(json);
    pl_json_key(json, "core");
    write_part(json, "core", pl_inspect_core(f));
    pl_json_key(json, "all");
    write_part(json, "all", pl_inspect_total(f));
}

static void write_paths(pl_json *json, const pl_inspect_facts *f)
{
    begin_list(json, "paths");
    for (size_t i = 0; i < f->n_paths; i++) {
        const pl_inspect_path *p = &f->paths[i];
        pl_json_begin_object(json);
        put_string(json, "path", p->name);
        put_string(json, "declared", p->spec);
        put_int(json, "layers", p->n_layers);
        begin_list(json, "ffn");
        for (int l = 0; l < p->path.n_layers; l++)
            pl_json_int(json, p->path.ffn[l]);
        pl_json_end_array(json);
        put_int(json, "weights_per_token", p->weights);
        put_int(json, "bytes_per_token", p->bytes);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

static void write_memory(pl_json *json, const pl_inspect_facts *f)
{
    const pl_memory_plan *p = &f->plan;
    size_t card = pl_inspect_core(f).bytes + f->parts[PL_PART_HEAD].bytes + p->kv + p->work;
    begin_object(json, "memory");
    put_int(json, "context", f->context);
    put_size(json, "core_packed_bytes", p->core_packed);
    put_size(json, "core_mapped_bytes", p->core_mapped);
    put_size(json, "head_packed_bytes", p->head_packed);
    put_size(json, "head_mapped_bytes", p->head_mapped);
    put_size(json, "ple_table_bytes", p->ple_table);
    put_size(json, "ple_row_bytes", p->ple_row);
    put_size(json, "kv_bytes", p->kv);
    put_size(json, "kv_bytes_per_token", p->kv_per_token);
    put_size(json, "step_bytes", p->work);
    put_size(json, "unused_bytes", p->unused);
    put_size(json, "card_bytes", card);
    pl_json_end_object(json);
}

static void write_devices(pl_json *json, const pl_inspect_facts *f)
{
    begin_list(json, "cards");
    for (int i = 0; i < f->devices.n; i++) {
        const pl_device *d = &f->devices.devices[i];
        pl_json_begin_object(json);
        put_string(json, "name", d->name);
        put_int(json, "capability_major", d->capability_major);
        put_int(json, "capability_minor", d->capability_minor);
        put_size(json, "total_bytes", d->total_bytes);
        put_size(json, "free_bytes", d->free_bytes);
        put_string(json, "pci_id", d->pci_id);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
    put_string(json, "no_cards_because", f->devices.n ? NULL : f->devices.reason);
}

static void write_tensors(pl_json *json, const pl_inspect_facts *f)
{
    const pl_tensor *all;
    size_t n = pl_checkpoint_tensors(f->checkpoint, &all);
    begin_list(json, "tensors");
    for (size_t i = 0; i < n; i++) {
        const pl_dtype_info *info = pl_dtype_describe((int)all[i].type);
        pl_json_begin_object(json);
        put_string(json, "name", all[i].name);
        put_string(json, "type", info ? info->name : NULL);
        put_int(json, "rows", all[i].rows);
        put_int(json, "cols", all[i].cols);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

pl_status pl_inspect_print_json(const pl_inspect_facts *facts, bool tensors, pl_error *err)
{
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_object(&json);
    put_string(&json, "name", pl_checkpoint_name(facts->checkpoint));
    put_string(&json, "path", pl_checkpoint_path(facts->checkpoint));
    put_string(&json, "format", pl_checkpoint_kind(facts->checkpoint) == PL_CHECKPOINT_GGUF ? "gguf" : "huggingface");
    put_size(&json, "file_bytes", pl_checkpoint_bytes(facts->checkpoint));
    write_config(&json, pl_checkpoint_config(facts->checkpoint));
    write_text(&json, facts);
    write_types(&json, facts);
    write_parts(&json, facts);
    write_paths(&json, facts);
    write_memory(&json, facts);
    write_devices(&json, facts);
    if (tensors)
        write_tensors(&json, facts);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    return pl_json_flush(&json, "standard output", err);
}
