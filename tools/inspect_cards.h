/* How a model fits the cards of this machine, and one that is only thought of. */
#ifndef PL_TOOLS_INSPECT_CARDS_H
#define PL_TOOLS_INSPECT_CARDS_H

#include "host/base/json_out.h"
#include "host/base/options.h"
#include "host/engine/placement.h"

#define PL_INSPECT_CARDS (PL_DEVICES_MAX + 1)

typedef struct pl_inspect_card {
    pl_device device;
    bool imagined;
    pl_placement chosen;                /* by --backend auto --ple auto, for one session */
    pl_placement with[PL_PLE_DISK + 1]; /* with each placement of the table; on the CPU where it does not fit */
} pl_inspect_card;

typedef struct pl_inspect_cards {
    pl_inspect_card cards[PL_INSPECT_CARDS];
    int n;
    char reason[256]; /* where the machine has none: why */
} pl_inspect_cards;

/* Cards alone; card_memory: of one to be thought of, 0: none. */
void pl_inspect_find_cards(int64_t card_memory, pl_inspect_cards *out);

/* Fills chosen and with. context: 0 for as much as fits. */
void pl_inspect_fit_cards(const pl_config *config, const pl_memory_plan *plan, int context, pl_inspect_cards *cards);

/* plan: NULL for the cards alone. */
void pl_inspect_print_cards(const pl_inspect_cards *cards, const pl_memory_plan *plan);
void pl_inspect_write_cards(pl_json *json, const pl_inspect_cards *cards, const pl_memory_plan *plan);

#endif
