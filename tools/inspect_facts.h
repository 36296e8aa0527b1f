/* What `pleiad inspect` has to say, gathered before any of it is printed. */
#ifndef PL_TOOLS_INSPECT_FACTS_H
#define PL_TOOLS_INSPECT_FACTS_H

#include "host/base/options.h"
#include "host/model/path.h"
#include "host/tower/source.h"
#include "tools/inspect_cards.h"

#define PL_INSPECT_TYPES 64

typedef struct pl_inspect_type {
    const char *name;
    int64_t tensors, params;
    size_t bytes;
} pl_inspect_type;

typedef enum pl_inspect_part_id {
    PL_PART_FFN,
    PL_PART_ATTENTION,
    PL_PART_KV,
    PL_PART_PLE_GATES,
    PL_PART_ALTUP_PROJECTIONS,
    PL_PART_PLE_PROJECTION,
    PL_PART_LAUREL,
    PL_PART_ALTUP,
    PL_PART_NORMS,
    PL_PART_HEAD,
    PL_PART_PLE_TABLE,
    PL_PART_UNUSED,
    PL_PARTS,
} pl_inspect_part_id;

typedef struct pl_inspect_part {
    int64_t params;
    size_t bytes; /* as the file stores them */
} pl_inspect_part;

typedef struct pl_inspect_path {
    const char *name, *spec; /* spec: what the file declares, or NULL */
    pl_path path;
    int n_layers;
    int64_t weights, bytes; /* of one decoded token */
} pl_inspect_path;

typedef struct pl_inspect_facts {
    pl_checkpoint *checkpoint;
    pl_tower_source *towers; /* of its own files or of --mmproj */
    pl_inspect_type types[PL_INSPECT_TYPES];
    size_t n_types;
    pl_inspect_part parts[PL_PARTS];
    pl_inspect_path *paths;
    size_t n_paths;
    int context;
    pl_memory_plan plan;
    pl_card_memory on_card[PL_PLE_DISK + 1]; /* with each placement of the per-layer table, for one session */
    pl_inspect_cards cards;
    int32_t n_pieces;         /* of the tokenizer; 0: it cannot be read */
    pl_error tokenizer_error; /* why not */
    bool chat;                /* the chat template is known */
    pl_error chat_error;      /* why not */
} pl_inspect_facts;

pl_status pl_inspect_gather(const pl_options *options, pl_inspect_facts *out, pl_error *err);
void pl_inspect_facts_free(pl_inspect_facts *facts);

const char *pl_inspect_part_name(pl_inspect_part_id part);

/* The parts that one card or memory holds whatever the text: all but the last three. */
pl_inspect_part pl_inspect_core(const pl_inspect_facts *facts);
pl_inspect_part pl_inspect_total(const pl_inspect_facts *facts);

pl_status pl_inspect_print_json(const pl_inspect_facts *facts, bool tensors, pl_error *err);

#endif
