/* Finished rules as the matcher runs them.
 *
 *     group    the ways to go on from a place within a rule: some edges
 *     edge     a byte of a set, a rule or a repetition, then the next group; or the end of the rule
 *
 * Alternatives that begin alike share their beginning, groups that are alike exist once: a list of words is a minimal
 * automaton. No rule that is repeated matches the empty text, no group is without edges, and from every group the end
 * can be reached. */
#ifndef PL_GRAMMAR_PROGRAM_H
#define PL_GRAMMAR_PROGRAM_H

#include "host/grammar/rules.h"

typedef enum pl_edge_kind { PL_EDGE_END, PL_EDGE_BYTES, PL_EDGE_REFER, PL_EDGE_REPEAT } pl_edge_kind;

typedef struct pl_edge {
    uint32_t kind;
    uint32_t arg;      /* a set; or a rule, as start[] counts them */
    uint32_t next;     /* group; 0 of PL_EDGE_END */
    uint32_t min, max; /* of PL_EDGE_REPEAT; max: PL_NO_BOUND where there is none */
} pl_edge;

#define PL_NO_BOUND UINT32_MAX
#define PL_GROUP_END 0u /* the group whose only edge is PL_EDGE_END */

typedef struct pl_program {
    uint32_t *first; /* [n_groups + 1] edges of group g are edge[first[g]] to edge[first[g + 1]] */
    pl_edge *edge;
    pl_byte_set *set;
    uint32_t *start; /* first group of each rule */
    uint32_t n_groups, n_edges, n_sets;
    uint32_t root;         /* group */
    uint8_t class_of[256]; /* bytes that no set tells apart have one class */
    uint8_t example[256];  /* a byte of each class */
    uint32_t n_classes;
} pl_program;

static inline bool pl_byte_set_has(const pl_byte_set *set, unsigned byte)
{
    return set->bits[byte >> 6] >> (byte & 63) & 1;
}

static inline void pl_byte_set_add(pl_byte_set *set, unsigned byte)
{
    set->bits[byte >> 6] |= (uint64_t)1 << (byte & 63);
}

/* Of finished rules. */
const pl_program *pl_rules_program(const pl_rules *rules);

void pl_program_free(pl_program *program);

#endif
