/* The inside of pl_rules, for the files that build and finish them. */
#ifndef PL_GRAMMAR_RULES_PARTS_H
#define PL_GRAMMAR_RULES_PARTS_H

#include "host/grammar/program.h"

typedef enum pl_item_kind { PL_ITEM_BYTES, PL_ITEM_CHARS, PL_ITEM_RULE, PL_ITEM_REPEAT } pl_item_kind;

typedef struct pl_item {
    int32_t kind;
    int32_t arg; /* set, class of characters or rule */
    int32_t min, max;
} pl_item;

typedef struct pl_alternative {
    int32_t rule;
    uint32_t first; /* item */
} pl_alternative;

typedef struct pl_char_class {
    uint32_t first, n; /* of the ranges: sorted, apart from each other, not negated */
    int32_t rule;      /* made by pl_rules_expand_classes() */
} pl_char_class;

typedef struct pl_set_table {
    pl_byte_set *set;
    size_t n, room;
    uint32_t *slot; /* [slots] index of a set + 1; slots: a power of two */
    size_t slots;
} pl_set_table;

/* What is known about a rule that is checked. */
typedef struct pl_rule_facts {
    bool productive; /* matches something */
    bool empty;      /* matches the empty text */
    bool more;       /* matches something else */
} pl_rule_facts;

struct pl_rules {
    int32_t n_rules;
    pl_item *item;
    size_t n_items, item_room;
    pl_alternative *alternative;
    size_t n_alternatives, alternative_room;
    pl_code_range *range;
    size_t n_ranges, range_room;
    pl_char_class *chars;
    size_t n_chars, chars_room;
    pl_set_table sets;
    pl_status failed; /* PL_OK while nothing went wrong */
    const char *why;
    /* made by pl_rules_finish() */
    uint32_t *by_rule;    /* alternatives, ordered by rule */
    uint32_t *first_of;   /* [n_rules + 1] into by_rule */
    pl_rule_facts *facts; /* [n_rules] */
    pl_program program;
};

/* One past the last item of an alternative. */
static inline uint32_t pl_alternative_end(const pl_rules *rules, uint32_t alternative)
{
    return alternative + 1 < rules->n_alternatives ? rules->alternative[alternative + 1].first
                                                   : (uint32_t)rules->n_items;
}

void pl_rules_fail(pl_rules *rules, pl_status status, const char *why);

/* The index of a set; equal ones have the same. -1 without memory. */
int32_t pl_set_table_put(pl_set_table *table, const pl_byte_set *set);
void pl_set_table_free(pl_set_table *table);

/* Makes a rule over bytes of each class of characters that is not one set of bytes. */
void pl_rules_expand_classes(pl_rules *rules);

/* The program of checked rules. */
pl_status pl_rules_make_program(pl_rules *rules, int32_t root, pl_error *err);

#endif
