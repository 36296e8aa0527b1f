#include "tools/inspect_cards.h"

#include "host/base/free_memory.h"
#include "tools/size_text.h"

static void imagine_card(size_t total, pl_inspect_card *out)
{
    char size[PL_SIZE_TEXT];
    *out = (pl_inspect_card){.imagined = true};
    snprintf(out->device.name, sizeof out->device.name, "a card of %s", pl_size_text((double)total, size));
    out->device.capability_major = PL_LEAST_CAPABILITY / 10;
    out->device.capability_minor = PL_LEAST_CAPABILITY % 10;
    out->device.total_bytes = total;
    out->device.free_bytes = total > PL_CARD_CONTEXT ? total - PL_CARD_CONTEXT : 0;
}

void pl_inspect_find_cards(int64_t card_memory, pl_inspect_cards *out)
{
    pl_device_list list;
    pl_devices_list(&list);
    *out = (pl_inspect_cards){.n = list.n};
    snprintf(out->reason, sizeof out->reason, "%s", list.reason);
    for (int i = 0; i < list.n; i++) {
        pl_devices_ask_free(&list, i);
        out->cards[i] = (pl_inspect_card){.device = list.devices[i]};
    }
    if (card_memory)
        imagine_card((size_t)card_memory, &out->cards[out->n++]);
}

void pl_inspect_fit_cards(const pl_config *config, const pl_memory_plan *plan, int context, pl_inspect_cards *cards)
{
    size_t host = pl_free_memory();
    for (int i = 0; i < cards->n; i++) {
        pl_inspect_card *card = &cards->cards[i];
        pl_device_list alone = {.devices = {card->device}, .n = 1};
        pl_machine machine = {.cards = &alone, .free_memory = host};
        for (pl_ple_placement ple = PL_PLE_AUTO; ple <= PL_PLE_DISK; ple++) {
            pl_placement_wish wish = {.ple = ple, .sessions = 1, .context = context};
            pl_placement *out = ple == PL_PLE_AUTO ? &card->chosen : &card->with[ple];
            pl_placement_choose(config, plan, &wish, &machine, out, NULL);
        }
    }
}

/* ---- text ---- */

static void print_fit(const pl_inspect_card *card)
{
    char size[PL_SIZE_TEXT];
    if (card->chosen.backend == PL_BACKEND_CPU)
        printf("     %s\n", card->chosen.reason);
    for (pl_ple_placement ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++) {
        const pl_placement *p = &card->with[ple];
        if (p->backend == PL_BACKEND_CUDA)
            printf("     --ple %-7s %9s on the card, %d tokens, %d rows a step%s\n", pl_ple_placement_name(ple),
                   pl_size_text((double)pl_card_memory_total(&p->memory), size), p->context, p->batch_rows,
                   card->chosen.ple == ple ? "  <- auto" : "");
        else if (card->chosen.backend == PL_BACKEND_CUDA)
            printf("     --ple %-7s does not fit\n", pl_ple_placement_name(ple));
    }
}

static void print_together(void)
{
    char nccl[256];
    if (pl_devices_nccl(nccl, sizeof nccl))
        printf("  together: NCCL %s\n", nccl);
    else
        printf("  not together (--tp), each reads the model's file: %s\n", nccl);
}

void pl_inspect_print_cards(const pl_inspect_cards *cards, const pl_memory_plan *plan)
{
    char total[PL_SIZE_TEXT], available[PL_SIZE_TEXT];
    int real = 0;
    if (cards->reason[0])
        printf("  none: %s\n", cards->reason);
    for (int i = 0; i < cards->n; i++) {
        const pl_device *d = &cards->cards[i].device;
        if (cards->cards[i].imagined)
            printf("  %s, some %s of it free\n", d->name, pl_size_text((double)d->free_bytes, available));
        else
            printf("  %d: %s, compute %d.%d, %s, %s free, %s\n", i, d->name, d->capability_major, d->capability_minor,
                   pl_size_text((double)d->total_bytes, total), pl_size_text((double)d->free_bytes, available),
                   d->pci_id);
        if (plan)
            print_fit(&cards->cards[i]);
        real += !cards->cards[i].imagined;
    }
    if (real > 1)
        print_together();
}

/* ---- JSON ---- */

static void write_placement(pl_json *json, const pl_placement *p)
{
    bool fits = p->backend == PL_BACKEND_CUDA;
    pl_json_put_bool(json, "fits", fits);
    if (fits) {
        pl_json_put_int(json, "context", p->context);
        pl_json_put_int(json, "batch_rows", p->batch_rows);
        pl_json_put_size(json, "card_bytes", pl_card_memory_total(&p->memory));
        pl_json_put_size(json, "pinned_bytes", p->memory.pinned);
        pl_json_put_size(json, "host_bytes", p->memory.host);
    }
    pl_json_put_string(json, "reason", p->reason);
}

static void write_fit(pl_json *json, const pl_inspect_card *card)
{
    pl_json_put_string(json, "auto",
                       card->chosen.backend == PL_BACKEND_CUDA ? pl_ple_placement_name(card->chosen.ple) : NULL);
    pl_json_key_array(json, "placements");
    for (pl_ple_placement ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++) {
        pl_json_begin_object(json);
        pl_json_put_string(json, "ple", pl_ple_placement_name(ple));
        write_placement(json, &card->with[ple]);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

void pl_inspect_write_cards(pl_json *json, const pl_inspect_cards *cards, const pl_memory_plan *plan)
{
    pl_json_key_array(json, "cards");
    for (int i = 0; i < cards->n; i++) {
        const pl_device *d = &cards->cards[i].device;
        bool imagined = cards->cards[i].imagined;
        pl_json_begin_object(json);
        pl_json_put_string(json, "name", d->name);
        pl_json_put_bool(json, "imagined", imagined);
        pl_json_put_int(json, "capability_major", d->capability_major);
        pl_json_put_int(json, "capability_minor", d->capability_minor);
        pl_json_put_size(json, "total_bytes", d->total_bytes);
        pl_json_put_size(json, "free_bytes", d->free_bytes);
        pl_json_put_string(json, "pci_id", imagined ? NULL : d->pci_id);
        if (plan)
            write_fit(json, &cards->cards[i]);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
    pl_json_put_string(json, "no_cards_because", cards->reason[0] ? cards->reason : NULL);
}
