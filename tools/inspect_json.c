#include "host/base/json_out.h"
#include "tools/inspect_facts.h"

static void write_config(pl_json *json, const pl_config *c)
{
    pl_json_key_object(json, "config");
    pl_json_put_int(json, "layers", c->n_layers);
    pl_json_put_int(json, "kv_layers", c->n_kv_layers);
    pl_json_put_int(json, "hidden", c->hidden);
    pl_json_put_int(json, "heads", c->n_heads);
    pl_json_put_int(json, "kv_heads", c->n_kv_heads);
    pl_json_put_int(json, "head_dim", c->head_dim);
    pl_json_put_int(json, "ple_dim", c->ple_dim);
    pl_json_put_int(json, "ple_vocab", c->ple_vocab);
    pl_json_put_int(json, "vocab", c->vocab);
    pl_json_put_int(json, "laurel_rank", c->laurel_rank);
    pl_json_put_int(json, "window", c->window);
    pl_json_put_int(json, "context", c->context);
    pl_json_put_int(json, "bos", c->bos);
    pl_json_key_array(json, "eos");
    for (int i = 0; i < c->n_eos; i++)
        pl_json_int(json, c->eos[i]);
    pl_json_end_array(json);
    pl_json_key_array(json, "ffn");
    for (int l = 0; l < c->n_layers; l++)
        pl_json_int(json, c->ffn[l]);
    pl_json_end_array(json);
    pl_json_key_array(json, "local");
    for (int l = 0; l < c->n_layers; l++)
        pl_json_bool(json, c->local[l]);
    pl_json_end_array(json);
    pl_json_end_object(json);
}

static void write_text(pl_json *json, const pl_inspect_facts *f)
{
    pl_json_key_object(json, "tokenizer");
    pl_json_put_int(json, "pieces", f->n_pieces);
    pl_json_put_string(json, "error", f->n_pieces ? NULL : f->tokenizer_error.message);
    pl_json_end_object(json);
    pl_json_key_object(json, "chat");
    pl_json_put_bool(json, "known", f->chat);
    pl_json_put_string(json, "error", f->chat ? NULL : f->chat_error.message);
    pl_json_end_object(json);
}

static void write_types(pl_json *json, const pl_inspect_facts *f)
{
    pl_json_key_array(json, "types");
    for (size_t i = 0; i < f->n_types; i++) {
        pl_json_begin_object(json);
        pl_json_put_string(json, "type", f->types[i].name);
        pl_json_put_int(json, "tensors", f->types[i].tensors);
        pl_json_put_int(json, "parameters", f->types[i].params);
        pl_json_put_size(json, "bytes", f->types[i].bytes);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

static void write_part(pl_json *json, const char *name, pl_inspect_part part)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "part", name);
    pl_json_put_int(json, "parameters", part.params);
    pl_json_put_size(json, "bytes", part.bytes);
    pl_json_end_object(json);
}

static void write_parts(pl_json *json, const pl_inspect_facts *f)
{
    pl_json_key_array(json, "parts");
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
    pl_json_key_array(json, "paths");
    for (size_t i = 0; i < f->n_paths; i++) {
        const pl_inspect_path *p = &f->paths[i];
        pl_json_begin_object(json);
        pl_json_put_string(json, "path", p->name);
        pl_json_put_string(json, "declared", p->spec);
        pl_json_put_int(json, "layers", p->n_layers);
        pl_json_key_array(json, "ffn");
        for (int l = 0; l < p->path.n_layers; l++)
            pl_json_int(json, p->path.ffn[l]);
        pl_json_end_array(json);
        pl_json_put_int(json, "weights_per_token", p->weights);
        pl_json_put_int(json, "bytes_per_token", p->bytes);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

static void write_card_memory(pl_json *json, pl_ple_placement ple, const pl_card_memory *m)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "ple", pl_ple_placement_name(ple));
    pl_json_put_size(json, "weights_bytes", m->weights);
    pl_json_put_size(json, "kv_bytes", m->kv);
    pl_json_put_size(json, "step_bytes", m->work);
    pl_json_put_size(json, "reserve_bytes", m->reserve);
    pl_json_put_size(json, "table_bytes", m->table);
    pl_json_put_size(json, "card_bytes", pl_card_memory_total(m));
    pl_json_put_size(json, "pinned_bytes", m->pinned);
    pl_json_put_size(json, "host_bytes", m->host);
    pl_json_end_object(json);
}

static void write_memory(pl_json *json, const pl_inspect_facts *f)
{
    const pl_memory_plan *p = &f->plan;
    pl_json_key_object(json, "memory");
    pl_json_put_int(json, "context", f->context);
    pl_json_put_size(json, "core_packed_bytes", p->core_packed);
    pl_json_put_size(json, "core_mapped_bytes", p->core_mapped);
    pl_json_put_size(json, "head_packed_bytes", p->head_packed);
    pl_json_put_size(json, "head_mapped_bytes", p->head_mapped);
    pl_json_put_size(json, "head_copy_bytes", p->head_copy);
    pl_json_put_size(json, "ple_table_bytes", p->ple_table);
    pl_json_put_size(json, "ple_row_bytes", p->ple_row);
    pl_json_put_size(json, "kv_bytes", p->kv);
    pl_json_put_size(json, "kv_bytes_per_token", p->kv_per_token);
    pl_json_put_size(json, "step_bytes", p->work);
    pl_json_put_size(json, "unused_bytes", p->unused);
    pl_json_put_size(json, "card_bytes", pl_card_memory_total(&f->on_card[PL_PLE_PINNED]));
    pl_json_key_array(json, "card_placements");
    for (pl_ple_placement ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++)
        write_card_memory(json, ple, &f->on_card[ple]);
    pl_json_end_array(json);
    pl_json_end_object(json);
}

static void write_tower(pl_json *json, const char *name, size_t bytes, int rows)
{
    pl_json_key(json, name);
    if (!bytes) {
        pl_json_null(json);
        return;
    }
    pl_json_begin_object(json);
    pl_json_put_size(json, "bytes", bytes);
    pl_json_put_int(json, "tokens", rows);
    pl_json_end_object(json);
}

static void write_towers(pl_json *json, const pl_inspect_facts *f)
{
    const pl_vision_config *vision = pl_tower_source_vision(f->towers);
    const pl_audio_config *audio = pl_tower_source_audio(f->towers);
    pl_json_key_object(json, "towers");
    write_tower(json, "vision", pl_tower_source_vision_bytes(f->towers), vision ? vision->grid * vision->grid : 0);
    write_tower(json, "audio", pl_tower_source_audio_bytes(f->towers), audio ? audio->rows : 0);
    pl_json_end_object(json);
}

static void write_tensors(pl_json *json, const pl_inspect_facts *f)
{
    const pl_tensor *all;
    size_t n = pl_checkpoint_tensors(f->checkpoint, &all);
    pl_json_key_array(json, "tensors");
    for (size_t i = 0; i < n; i++) {
        const pl_dtype_info *info = pl_dtype_describe((int)all[i].type);
        pl_json_begin_object(json);
        pl_json_put_string(json, "name", all[i].name);
        pl_json_put_string(json, "type", info ? info->name : NULL);
        pl_json_put_int(json, "rows", all[i].rows);
        pl_json_put_int(json, "cols", all[i].cols);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

pl_status pl_inspect_print_json(const pl_inspect_facts *facts, bool tensors, pl_error *err)
{
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "name", pl_checkpoint_name(facts->checkpoint));
    pl_json_put_string(&json, "path", pl_checkpoint_path(facts->checkpoint));
    pl_json_put_string(&json, "format",
                       pl_checkpoint_kind(facts->checkpoint) == PL_CHECKPOINT_GGUF ? "gguf" : "huggingface");
    pl_json_put_size(&json, "file_bytes", pl_checkpoint_bytes(facts->checkpoint));
    write_config(&json, pl_checkpoint_config(facts->checkpoint));
    write_text(&json, facts);
    write_types(&json, facts);
    write_parts(&json, facts);
    write_paths(&json, facts);
    write_towers(&json, facts);
    write_memory(&json, facts);
    pl_inspect_write_cards(&json, &facts->cards, &facts->plan);
    if (tensors)
        write_tensors(&json, facts);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    return pl_json_flush(&json, "standard output", err);
}
