/* What the files of the input share. */
#ifndef PL_BATCH_INPUT_PARTS_H
#define PL_BATCH_INPUT_PARTS_H

#include "host/base/mapfile.h"
#include "host/batch/input.h"
#include "host/batch/order.h"

typedef enum pl_place_fault { PL_PLACE_GOOD, PL_PLACE_FAULTY, PL_PLACE_TOO_LONG, PL_PLACE_DUPLICATE } pl_place_fault;

typedef struct pl_place {
    uint64_t offset : 56, fault : 8;
    uint32_t bytes;  /* without end of line; UINT32_MAX: at least so many */
    uint32_t number; /* as editors count */
} pl_place;

typedef struct pl_duplicate {
    uint32_t line, first;
} pl_duplicate;

struct pl_input {
    char *path;
    pl_mapfile file;
    size_t most_bytes;
    uint64_t fingerprint;
    size_t n, capacity;
    pl_place *places;
    uint64_t *ids;            /* hashes of custom_id, 0: not known; gone when duplicates were found */
    pl_order_key *keys;       /* gone when lines were ordered */
    pl_duplicate *duplicates; /* by line */
    size_t n_duplicates;
};

/* Finds all lines and looks at them. */
pl_status pl_input_scan(pl_input *input, const pl_input_params *params, pl_error *err);

#endif
