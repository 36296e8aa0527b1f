/* pleiad inspect: what a file holds and what it needs. */
#include <math.h>

#include "tools/commands.h"
#include "tools/console.h"
#include "tools/inspect_facts.h"
#include "tools/size_text.h"

static void title(const pl_options *options, const char *text)
{
    bool color = pl_options_color(options, 1);
    printf("\n%s%s%s\n", color ? "\033[1m" : "", text, color ? "\033[0m" : "");
}

/* ---- model -------------------------------------------------------------------------------------- */

static int sparse_layers(const pl_config *c)
{
    int n = 0;
    for (int l = 0; l < c->n_layers; l++)
        n += isfinite(c->sparsity_z[l]) != 0;
    return n;
}

static void print_stops(const pl_config *c)
{
    printf("Vocabulary  %d; <bos> %d, answers end at ", c->vocab, c->bos);
    for (int i = 0; i < c->n_eos; i++)
        printf("%s%d", i ? ", " : "", c->eos[i]);
    if (c->n_eos == 0)
        printf("no token");
    printf("\n");
}

static void print_model(const pl_inspect_facts *f)
{
    char size[PL_SIZE_TEXT];
    const pl_config *c = pl_checkpoint_config(f->checkpoint);
    bool gguf = pl_checkpoint_kind(f->checkpoint) == PL_CHECKPOINT_GGUF;
    printf("Model       %s\n", pl_checkpoint_name(f->checkpoint));
    printf("File        %s, %s, %s\n", pl_checkpoint_path(f->checkpoint), gguf ? "GGUF" : "Hugging Face folder",
           pl_size_text((double)pl_checkpoint_bytes(f->checkpoint), size));
    printf("Layers      %d, the first %d with K/V of their own; hidden size %d\n", c->n_layers, c->n_kv_layers,
           c->hidden);
    printf("Attention   %d heads, %d for K/V, of %d; local layers see %d tokens\n", c->n_heads, c->n_kv_heads,
           c->head_dim, c->window);
    printf("FFN         ");
    pl_print_widths(c->ffn, NULL, c->n_layers);
    printf("; %d layers sparse\n", sparse_layers(c));
    printf("Context     %d tokens\n", c->context);
    print_stops(c);
    if (f->n_pieces)
        printf("Tokenizer   %d pieces\n", f->n_pieces);
    else
        printf("Tokenizer   none: %s\n", f->tokenizer_error.message);
    if (f->chat)
        printf("Chat        template known\n");
    else
        printf("Chat        no: %s\n", f->chat_error.message);
}

/* ---- tables ------------------------------------------------------------------------------------- */

static void print_types(const pl_options *options, const pl_inspect_facts *f)
{
    char size[PL_SIZE_TEXT], params[PL_SIZE_TEXT];
    title(options, "Types");
    printf("  %-22s %8s %15s %10s\n", "type", "tensors", "parameters", "size");
    for (size_t i = 0; i < f->n_types; i++)
        printf("  %-22s %8lld %15s %10s\n", f->types[i].name, (long long)f->types[i].tensors,
               pl_count_text(f->types[i].params, params), pl_size_text((double)f->types[i].bytes, size));
}

static void print_part(const char *name, pl_inspect_part part)
{
    char size[PL_SIZE_TEXT], params[PL_SIZE_TEXT];
    printf("  %-22s %24s %10s\n", name, pl_count_text(part.params, params), pl_size_text((double)part.bytes, size));
}

static void print_parts(const pl_options *options, const pl_inspect_facts *f)
{
    title(options, "Parts");
    printf("  %-22s %24s %10s\n", "part", "parameters", "size");
    for (int i = 0; i < PL_PARTS; i++) {
        if (i == PL_PART_HEAD)
            print_part("= core", pl_inspect_core(f));
        print_part(pl_inspect_part_name((pl_inspect_part_id)i), f->parts[i]);
    }
    print_part("= all", pl_inspect_total(f));
}

static void print_paths(const pl_options *options, const pl_inspect_facts *f)
{
    char size[PL_SIZE_TEXT], weights[PL_SIZE_TEXT];
    title(options, "Paths");
    printf("  %-12s %6s %24s %13s  %s\n", "path", "layers", "weights a token", "bytes a token", "FFN");
    for (size_t i = 0; i < f->n_paths; i++) {
        const pl_inspect_path *p = &f->paths[i];
        printf("  %-12s %6d %24s %13s  ", p->name, p->n_layers, pl_count_text(p->weights, weights),
               pl_size_text((double)p->bytes, size));
        pl_print_widths(p->path.ffn, p->path.skip, p->path.n_layers);
        printf("\n");
    }
}

static void print_towers(const pl_options *options, const pl_inspect_facts *f)
{
    char size[PL_SIZE_TEXT];
    const pl_vision_config *vision = pl_tower_source_vision(f->towers);
    const pl_audio_config *audio = pl_tower_source_audio(f->towers);
    title(options, "Towers, in memory only while they are used");
    if (vision)
        printf("  vision      %10s in the file; an image is %d x %d pixels and %d tokens\n",
               pl_size_text((double)pl_tower_source_vision_bytes(f->towers), size), vision->side, vision->side,
               vision->grid * vision->grid);
    if (audio)
        printf("  audio       %10s in the file; a clip is 30 seconds at most and %d tokens\n",
               pl_size_text((double)pl_tower_source_audio_bytes(f->towers), size), audio->rows);
    if (!vision && !audio)
        printf("  none: the model takes text alone; --mmproj FILE gives it some\n");
}

/* ---- memory ------------------------------------------------------------------------------------- */

static void print_memory_row(const char *part, double memory, double file, double card, const char *remark)
{
    char a[PL_SIZE_TEXT], b[PL_SIZE_TEXT], c[PL_SIZE_TEXT];
    printf("  %-18s %12s %12s %12s%s%s\n", part, memory > 0 ? pl_size_text(memory, a) : "-",
           file > 0 ? pl_size_text(file, b) : "-", card > 0 ? pl_size_text(card, c) : "-", *remark ? "  " : "", remark);
}

static void print_memory(const pl_options *options, const pl_inspect_facts *f)
{
    const pl_memory_plan *p = &f->plan;
    const pl_card_memory *card = &f->on_card[PL_PLE_PINNED];
    char heading[96], row[PL_SIZE_TEXT], remark[64];
    double kv = (double)p->kv, work = (double)p->work;
    snprintf(heading, sizeof heading, "Memory, one session of %d tokens", f->context);
    snprintf(remark, sizeof remark, "a token reads one row of %s", pl_size_text((double)p->ple_row, row));
    title(options, heading);
    printf("  %-18s %12s %12s %12s\n", "", "CPU: memory", "CPU: mapped", "a card");
    print_memory_row("core", (double)p->core_packed, (double)p->core_mapped, (double)(p->core_packed + p->core_mapped),
                     "");
    print_memory_row("embedding, head", (double)p->head_packed, (double)p->head_mapped,
                     (double)(p->head_packed + p->head_mapped), "");
    print_memory_row("head, coarse", (double)p->head_copy, 0, 0, "made with the first tokens; not with --ple disk");
    print_memory_row("K/V", kv, 0, (double)card->kv, "");
    print_memory_row("a step", work, 0, (double)card->work, "");
    print_memory_row("kernels, graphs", 0, 0, (double)card->reserve, "set aside");
    print_memory_row("per-layer table", 0, (double)p->ple_table, 0, remark);
    print_memory_row("= all", (double)(p->core_packed + p->head_packed + p->head_copy) + kv + work,
                     (double)p->core_mapped + (double)p->head_mapped + (double)p->ple_table,
                     (double)pl_card_memory_total(card), "");
}

static void print_placements(const pl_options *options, const pl_inspect_facts *f)
{
    title(options, "Per-layer table, with a card");
    printf("  %-18s %12s %12s %12s\n", "", "host: pinned", "host: cached", "the card");
    for (pl_ple_placement ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++) {
        const pl_card_memory *m = &f->on_card[ple];
        print_memory_row(pl_ple_placement_name(ple), (double)m->pinned, (double)m->host, (double)m->table, "");
    }
}

static void print_tensors(const pl_options *options, const pl_inspect_facts *f)
{
    char size[PL_SIZE_TEXT];
    const pl_tensor *all;
    size_t n = pl_checkpoint_tensors(f->checkpoint, &all);
    title(options, "Tensors");
    for (size_t i = 0; i < n; i++) {
        const pl_dtype_info *info = pl_dtype_describe((int)all[i].type);
        printf("  %-8s %9lld x %-9lld %10s  %s\n", info ? info->name : "other", (long long)all[i].rows,
               (long long)all[i].cols,
               info ? pl_size_text((double)all[i].rows * (double)pl_tensor_row_bytes(&all[i]), size) : "", all[i].name);
    }
}

static pl_status list_devices(const pl_options *options, pl_error *err)
{
    pl_inspect_cards cards;
    pl_inspect_find_cards(options->card_memory, &cards);
    if (!options->json) {
        printf("Cards\n");
        pl_inspect_print_cards(&cards, NULL);
        return pl_console_flush(err);
    }
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_object(&json);
    pl_inspect_write_cards(&json, &cards, NULL);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    return pl_json_flush(&json, "standard output", err);
}

pl_status pl_cmd_inspect(const pl_options *options, pl_error *err)
{
    pl_inspect_facts facts;
    pl_status status = PL_OK;
    if (options->list_devices)
        return list_devices(options, err);
    PL_TRY(pl_inspect_gather(options, &facts, err));
    if (options->json) {
        status = pl_inspect_print_json(&facts, options->tensors, err);
    } else {
        print_model(&facts);
        print_types(options, &facts);
        print_parts(options, &facts);
        print_paths(options, &facts);
        print_towers(options, &facts);
        print_memory(options, &facts);
        print_placements(options, &facts);
        title(options, "Cards");
        pl_inspect_print_cards(&facts.cards, &facts.plan);
        if (options->tensors)
            print_tensors(options, &facts);
    }
    pl_inspect_facts_free(&facts);
    return status;
}
