/* The order in which lines are handed out: those with a common beginning next to each other, so that its K/V is kept, and among
 * these the longest first. Otherwise the order of the file. By text alone, nothing is tokenized. */
#ifndef PL_BATCH_ORDER_H
#define PL_BATCH_ORDER_H

#include "host/base/status.h"

#include <jansson.h>

#define PL_ORDER_LEVELS 3

/* Lines with equal prefix[0..i] agree in their url, model and path, and in the first 256, 1024, 4096 bytes of what is read: tools,
 * system prompt, messages, prompt or input. */
typedef struct pl_order_key {
    uint64_t prefix[PL_ORDER_LEVELS];
    uint32_t bytes; /* how long the line is */
} pl_order_key;

/* Fills in prefix. */
void pl_order_key_make(const char *url, const json_t *body, pl_order_key *out);

/* order: [n] the lines to be sorted, in the order of the file; keys: of all lines, those of the sorted are overwritten. */
void pl_order_sort(pl_order_key *keys, uint32_t *order, size_t n);

#endif
