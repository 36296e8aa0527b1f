/* From checked rules to the program: a tree of each rule's alternatives, then, from its leaves up, groups of which equal
 * ones are one. */
#include "host/grammar/grow.h"
#include "host/grammar/rules_parts.h"

#define NONE UINT32_MAX

typedef struct tree_edge {
    pl_edge edge;     /* next: a node of the tree */
    uint32_t sibling; /* the next edge of the same node */
    uint32_t from;
} tree_edge;

typedef struct tree_node {
    uint32_t edge; /* the first */
    bool ends;
} tree_node;

typedef struct builder {
    pl_rules *rules;
    tree_node *node;
    tree_edge *edge;
    size_t n_nodes, node_room, n_edges, edge_room;
    uint32_t *slot; /* tree: edge + 1 by node and item; then: group + 1 by its edges */
    size_t slots;
    uint32_t *rule;  /* of each rule of the program: 2 * rule of the grammar, + 1: without the empty text */
    uint32_t *index; /* [2 * n_rules] the reverse + 1 */
    size_t n_rules, rule_room;
    uint32_t *root; /* [n_rules] node */
    size_t root_room;
    uint32_t *group; /* [n_nodes] */
    pl_program program;
    size_t first_room, out_room;
} builder;

static pl_status no_memory(pl_error *err)
{
    return pl_fail(err, PL_ERR_MEMORY, "no memory for the grammar");
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

static uint64_t hash_edge(uint64_t h, const pl_edge *edge)
{
    h = mix(h, (uint64_t)edge->kind << 32 | edge->arg);
    return mix(h, (uint64_t)edge->min << 32 | edge->max);
}

static bool same_item(const pl_edge *a, const pl_edge *b)
{
    return a->kind == b->kind && a->arg == b->arg && a->min == b->min && a->max == b->max;
}

/* ---- the tree ---- */

static uint32_t *tree_slot(const builder *b, uint32_t from, const pl_edge *edge)
{
    size_t at = hash_edge(from, edge) & (b->slots - 1);
    for (; b->slot[at]; at = (at + 1) & (b->slots - 1)) {
        const tree_edge *known = &b->edge[b->slot[at] - 1];
        if (known->from == from && same_item(&known->edge, edge))
            break;
    }
    return &b->slot[at];
}

static pl_status widen(builder *b, pl_error *err)
{
    size_t slots = b->slots ? 2 * b->slots : 256;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (!slot)
        return no_memory(err);
    free(b->slot);
    b->slot = slot;
    b->slots = slots;
    for (size_t i = 0; i < b->n_edges; i++)
        *tree_slot(b, b->edge[i].from, &b->edge[i].edge) = (uint32_t)i + 1;
    return PL_OK;
}

static pl_status new_node(builder *b, uint32_t *out, pl_error *err)
{
    if (!pl_grow(&b->node, b->n_nodes, &b->node_room, 1, sizeof *b->node))
        return no_memory(err);
    *out = (uint32_t)b->n_nodes;
    b->node[b->n_nodes++] = (tree_node){NONE, false};
    return PL_OK;
}

/* Follows the edge from *at, which is made where there is none. */
static pl_status follow(builder *b, uint32_t *at, pl_edge edge, pl_error *err)
{
    if (2 * (b->n_edges + 1) > b->slots)
        PL_TRY(widen(b, err));
    uint32_t *slot = tree_slot(b, *at, &edge);
    if (!*slot) {
        if (b->n_edges >= PL_RULES_ITEMS)
            return pl_fail(err, PL_ERR_UNSUPPORTED, "the grammar is too large");
        if (!pl_grow(&b->edge, b->n_edges, &b->edge_room, 1, sizeof *b->edge))
            return no_memory(err);
        PL_TRY(new_node(b, &edge.next, err));
        b->edge[b->n_edges++] = (tree_edge){edge, b->node[*at].edge, *at};
        *slot = (uint32_t)b->n_edges;
        b->node[*at].edge = *slot - 1;
    }
    *at = b->edge[*slot - 1].edge.next;
    return PL_OK;
}

/* The number in the program of a rule, whole or without the empty text. */
static pl_status need_rule(builder *b, int32_t rule, bool not_empty, uint32_t *out, pl_error *err)
{
    uint32_t which = 2 * (uint32_t)rule + not_empty;
    if (!b->index[which]) {
        if (!pl_grow(&b->rule, b->n_rules, &b->rule_room, 1, sizeof *b->rule) ||
            !pl_grow(&b->root, b->n_rules, &b->root_room, 1, sizeof *b->root))
            return no_memory(err);
        b->rule[b->n_rules++] = which;
        b->index[which] = (uint32_t)b->n_rules;
    }
    *out = b->index[which] - 1;
    return PL_OK;
}

/* Appends an item, or with not_empty that of it which is not the empty text. */
static pl_status append(builder *b, uint32_t *at, const pl_item *item, bool not_empty, pl_error *err)
{
    pl_edge edge = {.kind = PL_EDGE_BYTES, .arg = (uint32_t)item->arg};
    if (item->kind == PL_ITEM_BYTES)
        return follow(b, at, edge, err);
    const pl_rule_facts *rule = &b->rules->facts[item->arg];
    if (item->kind == PL_ITEM_RULE) {
        edge.kind = PL_EDGE_REFER;
        PL_TRY(need_rule(b, item->arg, not_empty && rule->empty, &edge.arg, err));
        return follow(b, at, edge, err);
    }
    if (item->max == 0 || !rule->more)
        return PL_OK;
    PL_TRY(need_rule(b, item->arg, rule->empty, &edge.arg, err));
    edge.min = rule->empty ? 0 : (uint32_t)item->min;
    if (not_empty && edge.min == 0)
        edge.min = 1;
    edge.max = item->max == PL_RULES_ANY ? PL_NO_BOUND : (uint32_t)item->max;
    edge.kind = edge.min == 1 && edge.max == 1 ? PL_EDGE_REFER : PL_EDGE_REPEAT;
    if (edge.kind == PL_EDGE_REFER)
        edge.min = edge.max = 0;
    return follow(b, at, edge, err);
}

static bool item_is(const pl_rules *rules, const pl_item *item, bool empty)
{
    if (item->kind == PL_ITEM_BYTES)
        return !empty;
    const pl_rule_facts *rule = &rules->facts[item->arg];
    if (item->kind == PL_ITEM_REPEAT)
        return empty ? item->min == 0 || rule->empty : item->max != 0 && rule->more;
    return empty ? rule->empty : rule->more;
}

static bool item_productive(const pl_rules *rules, const pl_item *item)
{
    static const pl_byte_set nothing;
    if (item->kind == PL_ITEM_BYTES)
        return memcmp(&rules->sets.set[item->arg], &nothing, sizeof nothing) != 0;
    return item_is(rules, item, true) || rules->facts[item->arg].productive;
}

/* The items from `first` on; `forced` is one that must not be empty, or NONE. */
static pl_status insert(builder *b, uint32_t node, uint32_t first, uint32_t end, uint32_t forced, pl_error *err)
{
    for (uint32_t i = first; i < end; i++)
        PL_TRY(append(b, &node, &b->rules->item[i], i == forced, err));
    b->node[node].ends = true;
    return PL_OK;
}

static pl_status insert_alternative(builder *b, uint32_t node, uint32_t alternative, bool not_empty, pl_error *err)
{
    const pl_rules *rules = b->rules;
    uint32_t first = rules->alternative[alternative].first, end = pl_alternative_end(rules, alternative);
    for (uint32_t i = first; i < end; i++)
        if (!item_productive(rules, &rules->item[i]))
            return PL_OK;
    if (!not_empty)
        return insert(b, node, first, end, NONE, err);
    for (uint32_t i = first; i < end; i++) {
        if (item_is(rules, &rules->item[i], false))
            PL_TRY(insert(b, node, i, end, i, err));
        if (!item_is(rules, &rules->item[i], true))
            break;
    }
    return PL_OK;
}

static pl_status build_tree(builder *b, pl_error *err)
{
    const pl_rules *rules = b->rules;
    for (size_t r = 0; r < b->n_rules; r++) {
        uint32_t rule = b->rule[r] / 2, root;
        PL_TRY(new_node(b, &root, err));
        b->root[r] = root;
        for (uint32_t i = rules->first_of[rule]; i < rules->first_of[rule + 1]; i++)
            PL_TRY(insert_alternative(b, root, rules->by_rule[i], b->rule[r] & 1, err));
    }
    return PL_OK;
}

/* ---- groups ---- */

static int by_next(const void *a, const void *b)
{
    const pl_edge *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->next != y->next)
        return x->next < y->next ? -1 : 1;
    if (x->arg != y->arg)
        return x->arg < y->arg ? -1 : 1;
    if (x->min != y->min)
        return x->min < y->min ? -1 : 1;
    return x->max < y->max ? -1 : x->max > y->max;
}

/* Joins the sets of edges that lead to one group; they stand beside each other. */
static pl_status join_sets(builder *b, pl_edge *edge, uint32_t *n, pl_error *err)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < *n;) {
        pl_edge joined = edge[i++];
        if (joined.kind == PL_EDGE_BYTES) {
            pl_byte_set set = b->rules->sets.set[joined.arg];
            for (; i < *n && edge[i].kind == PL_EDGE_BYTES && edge[i].next == joined.next; i++)
                for (int w = 0; w < 4; w++)
                    set.bits[w] |= b->rules->sets.set[edge[i].arg].bits[w];
            int32_t put = pl_set_table_put(&b->rules->sets, &set);
            if (put < 0)
                return no_memory(err);
            joined.arg = (uint32_t)put;
        }
        edge[k++] = joined;
    }
    *n = k;
    return PL_OK;
}

static uint32_t *group_slot(const builder *b, const pl_edge *edge, uint32_t n)
{
    const pl_program *p = &b->program;
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++)
        h = mix(hash_edge(h, &edge[i]), edge[i].next);
    size_t at = h & (b->slots - 1);
    for (; b->slot[at]; at = (at + 1) & (b->slots - 1)) {
        uint32_t g = b->slot[at] - 1;
        if (p->first[g + 1] - p->first[g] == n && memcmp(p->edge + p->first[g], edge, n * sizeof *edge) == 0)
            break;
    }
    return &b->slot[at];
}

/* The group of a node whose edges' targets have theirs. The edges are put behind those of the groups so far. */
static pl_status make_group(builder *b, uint32_t node, pl_error *err)
{
    pl_program *p = &b->program;
    uint32_t n = 0;
    for (uint32_t e = b->node[node].edge; b->edge && e != NONE; e = b->edge[e].sibling)
        n++;
    if (!pl_grow(&p->edge, p->n_edges, &b->out_room, n + 1, sizeof *p->edge) ||
        !pl_grow(&p->first, p->n_groups + 1, &b->first_room, 1, sizeof *p->first))
        return no_memory(err);
    pl_edge *edge = p->edge + p->n_edges;
    n = 0;
    for (uint32_t e = b->node[node].edge; b->edge && e != NONE; e = b->edge[e].sibling) {
        edge[n] = b->edge[e].edge;
        edge[n].next = b->group[edge[n].next];
        n++;
    }
    if (b->node[node].ends)
        edge[n++] = (pl_edge){.kind = PL_EDGE_END};
    if (n > 1) {
        qsort(edge, n, sizeof *edge, by_next);
        PL_TRY(join_sets(b, edge, &n, err));
    }
    uint32_t *slot = group_slot(b, edge, n);
    if (!*slot) {
        p->n_edges += n;
        p->first[++p->n_groups] = p->n_edges;
        *slot = p->n_groups;
    }
    b->group[node] = *slot - 1;
    return PL_OK;
}

static pl_status make_groups(builder *b, pl_error *err)
{
    pl_program *p = &b->program;
    size_t slots = 64;
    while (slots < 2 * b->n_nodes + 2)
        slots *= 2;
    free(b->slot);
    b->slots = slots;
    b->slot = calloc(slots, sizeof *b->slot);
    b->group = malloc((b->n_nodes + 1) * sizeof *b->group);
    if (!b->slot || !b->group || !pl_grow(&p->first, 0, &b->first_room, 2, sizeof *p->first) ||
        !pl_grow(&p->edge, 0, &b->out_room, 1, sizeof *p->edge))
        return no_memory(err);
    p->edge[0] = (pl_edge){.kind = PL_EDGE_END};
    p->first[0] = 0;
    p->first[1] = p->n_edges = p->n_groups = 1;
    *group_slot(b, p->edge, 1) = PL_GROUP_END + 1;
    for (size_t i = b->n_nodes; i-- > 0;)
        PL_TRY(make_group(b, (uint32_t)i, err));
    p->start = calloc(b->n_rules ? b->n_rules : 1, sizeof *p->start);
    if (!p->start)
        return no_memory(err);
    for (size_t r = 0; r < b->n_rules; r++)
        p->start[r] = b->group[b->root[r]];
    p->root = p->start[0];
    return PL_OK;
}

/* ---- sets ---- */

static void find_classes(pl_program *p)
{
    p->n_classes = 1;
    for (uint32_t s = 0; s < p->n_sets; s++) {
        int32_t inside[256]; /* the class of those in the set that had a class before */
        bool outside[256] = {false};
        for (uint32_t c = 0; c < p->n_classes; c++)
            inside[c] = -1;
        for (unsigned b = 0; b < 256; b++)
            if (!pl_byte_set_has(&p->set[s], b))
                outside[p->class_of[b]] = true;
        uint32_t before = p->n_classes;
        for (unsigned b = 0; b < 256; b++) {
            uint8_t c = p->class_of[b];
            if (c >= before || !outside[c] || !pl_byte_set_has(&p->set[s], b))
                continue;
            if (inside[c] < 0)
                inside[c] = (int32_t)p->n_classes++;
            p->class_of[b] = (uint8_t)inside[c];
        }
    }
    for (unsigned b = 256; b-- > 0;)
        p->example[p->class_of[b]] = (uint8_t)b;
}

/* Only the sets that the edges use. */
static pl_status take_sets(builder *b, pl_error *err)
{
    pl_program *p = &b->program;
    uint32_t *renamed = calloc(b->rules->sets.n + 1, sizeof *renamed);
    p->set = malloc((b->rules->sets.n + 1) * sizeof *p->set);
    if (!renamed || !p->set) {
        free(renamed);
        return no_memory(err);
    }
    for (uint32_t e = 0; e < p->n_edges; e++) {
        if (p->edge[e].kind != PL_EDGE_BYTES)
            continue;
        uint32_t *to = &renamed[p->edge[e].arg];
        if (!*to) {
            p->set[p->n_sets++] = b->rules->sets.set[p->edge[e].arg];
            *to = p->n_sets;
        }
        p->edge[e].arg = *to - 1;
    }
    free(renamed);
    find_classes(p);
    return PL_OK;
}

pl_status pl_rules_make_program(pl_rules *rules, int32_t root, pl_error *err)
{
    builder b = {.rules = rules, .index = calloc(2 * (size_t)rules->n_rules, sizeof *b.index)};
    uint32_t first;
    pl_status status;
    if (!b.index) {
        status = no_memory(err);
        goto fail;
    }
    PL_TRY_GOTO(need_rule(&b, root, false, &first, err));
    PL_TRY_GOTO(build_tree(&b, err));
    PL_TRY_GOTO(make_groups(&b, err));
    PL_TRY_GOTO(take_sets(&b, err));
    rules->program = b.program;
    b.program = (pl_program){0};
fail:
    free(b.node);
    free(b.edge);
    free(b.slot);
    free(b.rule);
    free(b.index);
    free(b.root);
    free(b.group);
    pl_program_free(&b.program);
    return status;
}
