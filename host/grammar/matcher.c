#include "host/grammar/matcher.h"
#include "host/grammar/grow.h"

#include <stdlib.h>

#define NONE UINT32_MAX
#define MOST_WAYS 2048                /* stacks of a state */
#define MOST_SEEN 32768               /* frames looked at to find what may follow a state */
#define MOST_BYTES ((size_t)96 << 20) /* of the states that one search for a mask may make */

static bool fail(pl_matcher *m, pl_status status, const char *why)
{
    m->failed = status;
    m->why = why;
    return false;
}

static bool no_memory(pl_matcher *m)
{
    return fail(m, PL_ERR_MEMORY, "no memory for the states of a grammar");
}

pl_status pl_matcher_failure(const pl_matcher *matcher, pl_error *err)
{
    return pl_fail(err, matcher->failed, "%s", matcher->why);
}

/* ---- words ---- */

static bool reserve(pl_matcher *m, size_t n)
{
    if (n > UINT32_MAX / 2 - m->n_words)
        return no_memory(m);
    return pl_grow(&m->words, m->n_words, &m->word_room, n, sizeof *m->words) || no_memory(m);
}

/* ---- nodes: each frame on each stack once ---- */

static uint32_t mix(uint32_t h, uint32_t x)
{
    uint64_t product = (uint64_t)(h ^ x) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(product >> 32) ^ (uint32_t)product;
}

static uint32_t node_hash(uint32_t parent, uint32_t where, uint32_t count)
{
    return mix(mix(mix(0x2545f491u, parent), where), count);
}

static bool widen(pl_hash_heads *heads, uint32_t bits)
{
    uint32_t *head = malloc(sizeof *head << bits);
    if (!head)
        return false;
    memset(head, 0xff, sizeof *head << bits);
    free(heads->head);
    *heads = (pl_hash_heads){head, bits};
    return true;
}

static uint32_t *head_of(const pl_hash_heads *heads, uint32_t hash)
{
    return &heads->head[hash >> (32 - heads->bits)];
}

static bool widen_nodes(pl_matcher *m)
{
    if (!widen(&m->node_heads, m->node_heads.bits ? m->node_heads.bits + 1 : 8))
        return no_memory(m);
    for (uint32_t i = 1; i < m->n_nodes; i++) {
        pl_node *node = &m->node[i];
        uint32_t *head = head_of(&m->node_heads, node_hash(node->parent, node->where, node->count));
        node->chain = *head;
        *head = i;
    }
    return true;
}

/* A repetition's count that no `longest` bytes tell from this one. */
static uint32_t clamp(const pl_matcher *m, uint32_t where, uint32_t count)
{
    if (!(where & PL_NODE_REPEAT))
        return count;
    const pl_edge *edge = &m->program->edge[where & ~PL_NODE_REPEAT];
    if (edge->max != PL_NO_BOUND && edge->max - count <= m->longest)
        return count;
    if (count >= edge->min)
        return edge->min;
    return edge->min - count > m->longest ? 0 : count;
}

static uint32_t put_node(pl_matcher *m, uint32_t parent, uint32_t where, uint32_t count)
{
    uint32_t hash = node_hash(parent, where, count);
    for (uint32_t i = *head_of(&m->node_heads, hash); i != NONE; i = m->node[i].chain)
        if (m->node[i].parent == parent && m->node[i].where == where && m->node[i].count == count)
            return i;
    if (m->n_nodes >= PL_NODE_REPEAT || !pl_grow(&m->node, m->n_nodes, &m->node_room, 1, sizeof *m->node))
        return no_memory(m), NONE;
    if (m->n_nodes >> m->node_heads.bits && !widen_nodes(m))
        return NONE;
    uint32_t made = (uint32_t)m->n_nodes++, *head = head_of(&m->node_heads, hash);
    m->node[made] = (pl_node){parent, where, count, made, *head, 0};
    *head = made;
    uint32_t below = m->node[parent].canonical, fewer = clamp(m, where, count);
    if (below == parent && fewer == count)
        return made;
    uint32_t canonical = put_node(m, below, where, fewer); /* which is its own: no deeper */
    if (canonical != NONE)
        m->node[made].canonical = canonical;
    return canonical == NONE ? NONE : made;
}

/* The stack that goes on with a group; a frame that would only end is left out. */
static uint32_t put_group(pl_matcher *m, uint32_t parent, uint32_t group)
{
    return group == PL_GROUP_END ? parent : put_node(m, parent, group, 0);
}

/* The stack within a repetition, `count` rounds of which were begun. */
static uint32_t put_repeat(pl_matcher *m, uint32_t parent, uint32_t edge, uint32_t count)
{
    const pl_edge *e = &m->program->edge[edge];
    if (e->max == PL_NO_BOUND && count > e->min)
        count = e->min;
    if (count >= e->max)
        return put_group(m, parent, e->next);
    return put_node(m, parent, PL_NODE_REPEAT | edge, count);
}

/* ---- what may follow a state ---- */

static bool look_at(pl_matcher *m, uint32_t node)
{
    if (node == NONE)
        return false;
    if (m->node[node].seen == m->search)
        return true;
    m->node[node].seen = m->search;
    if (!pl_grow(&m->todo, m->n_todo, &m->todo_room, 1, sizeof *m->todo))
        return no_memory(m);
    m->todo[m->n_todo++] = node;
    return true;
}

static bool add_way(pl_matcher *m, uint32_t set, uint32_t parent, uint32_t group)
{
    if (!pl_grow(&m->found, m->n_found, &m->found_room, 3, sizeof *m->found))
        return no_memory(m);
    m->found[m->n_found++] = set;
    m->found[m->n_found++] = parent;
    m->found[m->n_found++] = group;
    return true;
}

static bool enter(pl_matcher *m, uint32_t back, uint32_t rule)
{
    return back != NONE && look_at(m, put_group(m, back, m->program->start[rule]));
}

static bool follow_edge(pl_matcher *m, uint32_t parent, uint32_t at)
{
    const pl_edge *edge = &m->program->edge[at];
    switch ((pl_edge_kind)edge->kind) {
    case PL_EDGE_END: return look_at(m, parent);
    case PL_EDGE_BYTES: return add_way(m, edge->arg, parent, edge->next);
    case PL_EDGE_REFER: return enter(m, put_group(m, parent, edge->next), edge->arg);
    default: return look_at(m, put_repeat(m, parent, at, 0));
    }
}

static bool follow_node(pl_matcher *m, uint32_t at)
{
    const pl_node node = m->node[at];
    const pl_program *p = m->program;
    if (node.where & PL_NODE_REPEAT) {
        uint32_t e = node.where & ~PL_NODE_REPEAT;
        if (node.count < p->edge[e].max && !enter(m, put_repeat(m, node.parent, e, node.count + 1), p->edge[e].arg))
            return false;
        return node.count < p->edge[e].min || look_at(m, put_group(m, node.parent, p->edge[e].next));
    }
    for (uint32_t e = p->first[node.where]; e < p->first[node.where + 1]; e++)
        if (!follow_edge(m, node.parent, e))
            return false;
    return true;
}

static bool follow_all(pl_matcher *m, bool *ends)
{
    for (size_t i = 0; i < m->n_todo; i++) {
        if (i == MOST_SEEN)
            return fail(m, PL_ERR_UNSUPPORTED, "the grammar can go on in too many ways at once");
        if (m->todo[i] == PL_NODE_BOTTOM)
            *ends = true;
        else if (!follow_node(m, m->todo[i]))
            return false;
    }
    return true;
}

bool pl_matcher_search(pl_matcher *m, uint32_t state)
{
    bool ends = false;
    m->n_todo = m->n_found = 0;
    if (++m->search == 0) {
        for (size_t i = 0; i < m->n_nodes; i++)
            m->node[i].seen = 0;
        m->search = 1;
    }
    for (uint32_t i = 0; i < m->state[state].n_nodes; i++)
        if (!look_at(m, m->words[m->state[state].nodes + i]))
            return false;
    if (!follow_all(m, &ends) || !reserve(m, m->n_found))
        return false;
    if (m->n_found)
        memcpy(m->words + m->n_words, m->found, m->n_found * sizeof *m->words);
    pl_state *s = &m->state[state];
    s->ways = (uint32_t)m->n_words;
    s->n_ways = (uint32_t)(m->n_found / 3);
    s->ends = ends;
    s->searched = true;
    m->n_words += m->n_found;
    return true;
}

/* ---- states: each set of stacks once ---- */

static uint32_t state_hash(const uint32_t *nodes, size_t n)
{
    uint32_t h = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        h = mix(h + 0x9e3779b9u, nodes[i]);
    return h;
}

static bool widen_states(pl_matcher *m)
{
    if (!widen(&m->state_heads, m->state_heads.bits ? m->state_heads.bits + 1 : 8))
        return no_memory(m);
    for (uint32_t i = 1; i < m->n_states; i++) {
        pl_state *state = &m->state[i];
        uint32_t *head = head_of(&m->state_heads, state_hash(m->words + state->nodes, state->n_nodes));
        state->chain = *head;
        *head = i;
    }
    return true;
}

static int ascending(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The state of the nodes in m->found, in any order. */
static uint32_t put_state(pl_matcher *m)
{
    size_t n = 0;
    if (m->n_found > 1)
        qsort(m->found, m->n_found, sizeof *m->found, ascending);
    for (size_t i = 0; i < m->n_found; i++)
        if (n == 0 || m->found[i] != m->found[n - 1])
            m->found[n++] = m->found[i];
    if (n > MOST_WAYS)
        return fail(m, PL_ERR_UNSUPPORTED, "the grammar can be read in too many ways at once"), PL_STATE_FAILED;
    uint32_t hash = state_hash(m->found, n);
    for (uint32_t i = *head_of(&m->state_heads, hash); i != NONE; i = m->state[i].chain)
        if (m->state[i].n_nodes == n && memcmp(m->words + m->state[i].nodes, m->found, n * sizeof *m->found) == 0)
            return i;
    if (!reserve(m, n) || !pl_grow(&m->state, m->n_states, &m->state_room, 1, sizeof *m->state))
        return no_memory(m), PL_STATE_FAILED;
    if (m->n_states >> m->state_heads.bits && !widen_states(m))
        return PL_STATE_FAILED;
    uint32_t *head = head_of(&m->state_heads, hash), made = (uint32_t)m->n_states++;
    memcpy(m->words + m->n_words, m->found, n * sizeof *m->words);
    m->state[made] = (pl_state){.nodes = (uint32_t)m->n_words, .n_nodes = (uint32_t)n, .chain = *head};
    m->n_words += n;
    *head = made;
    return made;
}

static bool find(pl_matcher *m, uint32_t node)
{
    if (node == NONE)
        return false;
    if (!pl_grow(&m->found, m->n_found, &m->found_room, 1, sizeof *m->found))
        return no_memory(m);
    m->found[m->n_found++] = node;
    return true;
}

uint32_t pl_matcher_state_of(pl_matcher *matcher, uint32_t node)
{
    matcher->n_found = 0;
    return find(matcher, node) ? put_state(matcher) : PL_STATE_FAILED;
}

uint32_t pl_matcher_alone(pl_matcher *matcher, uint32_t node)
{
    const pl_node *n = &matcher->node[node];
    return n->parent == PL_NODE_BOTTOM ? node : put_node(matcher, PL_NODE_BOTTOM, n->where, n->count);
}

uint32_t pl_matcher_canonical(pl_matcher *matcher, uint32_t state)
{
    if (matcher->state[state].canonical)
        return matcher->state[state].canonical;
    matcher->n_found = 0;
    for (uint32_t i = 0; i < matcher->state[state].n_nodes; i++)
        if (!find(matcher, matcher->node[matcher->words[matcher->state[state].nodes + i]].canonical))
            return PL_STATE_FAILED;
    uint32_t canonical = put_state(matcher);
    if (canonical != PL_STATE_FAILED)
        matcher->state[state].canonical = canonical;
    return canonical;
}

static size_t used(const pl_matcher *m)
{
    return m->n_nodes * (sizeof *m->node + sizeof(uint32_t)) + m->n_states * (sizeof *m->state + sizeof(uint32_t)) +
           m->n_words * sizeof *m->words;
}

bool pl_matcher_full(const pl_matcher *matcher)
{
    return used(matcher) > matcher->max_bytes;
}

static bool make_row(pl_matcher *m, uint32_t state)
{
    uint32_t n = m->program->n_classes;
    if (used(m) > MOST_BYTES)
        return fail(m, PL_ERR_UNSUPPORTED, "the grammar has too many states");
    if (!reserve(m, n))
        return false;
    m->state[state].row = (uint32_t)m->n_words;
    memset(m->words + m->n_words, 0xff, n * sizeof *m->words);
    m->n_words += n;
    return true;
}

uint32_t pl_matcher_step_new(pl_matcher *matcher, uint32_t state, uint8_t byte)
{
    pl_matcher *m = matcher;
    if (!m->state[state].searched && !pl_matcher_search(m, state))
        return PL_STATE_FAILED;
    if (!m->state[state].row && !make_row(m, state))
        return PL_STATE_FAILED;
    uint32_t next = PL_STATE_DEAD;
    m->n_found = 0;
    for (uint32_t i = 0; i < m->state[state].n_ways; i++) {
        const uint32_t *way = m->words + m->state[state].ways + 3 * i;
        if (pl_byte_set_has(&m->program->set[way[0]], byte) && !find(m, put_group(m, way[1], way[2])))
            return PL_STATE_FAILED;
    }
    if (m->n_found)
        next = put_state(m);
    if (next != PL_STATE_FAILED)
        m->words[m->state[state].row + m->program->class_of[byte]] = next;
    return next;
}

/* ---- life ---- */

/* A row of unknown for states without a row, the bottom, the dead state and the first. */
static bool begin(pl_matcher *m)
{
    uint32_t n = m->program->n_classes;
    if (!widen_nodes(m) || !widen_states(m) || !reserve(m, 2 * (size_t)n) ||
        !pl_grow(&m->node, 0, &m->node_room, 1, sizeof *m->node) ||
        !pl_grow(&m->state, 0, &m->state_room, 1, sizeof *m->state))
        return no_memory(m);
    memset(m->words, 0xff, n * sizeof *m->words);
    memset(m->words + n, 0, n * sizeof *m->words);
    m->n_words = 2 * (size_t)n;
    m->node[m->n_nodes++] = (pl_node){.canonical = PL_NODE_BOTTOM, .chain = NONE};
    m->state[m->n_states++] = (pl_state){.row = n, .searched = true, .chain = NONE};
    return pl_matcher_state_of(m, put_group(m, PL_NODE_BOTTOM, m->program->root)) == PL_STATE_START;
}

static void drop_states(pl_matcher *m)
{
    free(m->node);
    free(m->state);
    free(m->words);
    free(m->node_heads.head);
    free(m->state_heads.head);
    free(m->todo);
    free(m->found);
}

pl_status pl_matcher_create(pl_rules *rules, uint32_t longest, size_t max_bytes, pl_matcher **out, pl_error *err)
{
    pl_matcher *m = calloc(1, sizeof *m);
    if (!m) {
        pl_rules_free(rules);
        return pl_fail_memory(err, sizeof *m, "a grammar");
    }
    m->rules = rules;
    m->program = pl_rules_program(rules);
    m->longest = longest;
    m->max_bytes = max_bytes;
    if (!begin(m)) {
        pl_status status = pl_matcher_failure(m, err);
        pl_matcher_free(m);
        return status;
    }
    *out = m;
    return PL_OK;
}

void pl_matcher_free(pl_matcher *matcher)
{
    if (!matcher)
        return;
    drop_states(matcher);
    pl_rules_free(matcher->rules);
    free(matcher);
}

/* The same stack in another matcher: from the bottom up. */
static uint32_t copy_stack(pl_matcher *to, const pl_matcher *from, uint32_t node)
{
    to->n_todo = 0;
    for (; node != PL_NODE_BOTTOM; node = from->node[node].parent) {
        if (!pl_grow(&to->todo, to->n_todo, &to->todo_room, 1, sizeof *to->todo))
            return no_memory(to), NONE;
        to->todo[to->n_todo++] = node;
    }
    uint32_t copy = PL_NODE_BOTTOM;
    while (to->n_todo && copy != NONE) {
        const pl_node *n = &from->node[to->todo[--to->n_todo]];
        copy = put_node(to, copy, n->where, n->count);
    }
    return copy;
}

static uint32_t copy_state(pl_matcher *to, const pl_matcher *from, uint32_t state)
{
    if (state == PL_STATE_DEAD)
        return PL_STATE_DEAD;
    const pl_state *s = &from->state[state];
    to->n_found = 0;
    for (uint32_t i = 0; i < s->n_nodes; i++)
        if (!find(to, copy_stack(to, from, from->words[s->nodes + i])))
            return PL_STATE_FAILED;
    return put_state(to);
}

pl_status pl_matcher_forget(pl_matcher *matcher, uint32_t *const *held, size_t n, pl_error *err)
{
    pl_matcher fresh = {.rules = matcher->rules,
                        .program = matcher->program,
                        .longest = matcher->longest,
                        .max_bytes = matcher->max_bytes,
                        .age = matcher->age + 1};
    uint32_t *copy = malloc((n + 1) * sizeof *copy);
    bool made = copy ? begin(&fresh) : no_memory(&fresh);
    for (size_t i = 0; i < n && made; i++)
        made = (copy[i] = copy_state(&fresh, matcher, *held[i])) != PL_STATE_FAILED;
    for (size_t i = 0; i < n && made; i++)
        *held[i] = copy[i];
    free(copy);
    if (!made) {
        pl_status status = pl_matcher_failure(&fresh, err);
        drop_states(&fresh);
        return status;
    }
    drop_states(matcher);
    *matcher = fresh;
    return PL_OK;
}

pl_status pl_matcher_read(pl_matcher *matcher, const char *text, size_t n, size_t *allowed, bool *may_end,
                          pl_error *err)
{
    uint32_t state = PL_STATE_START;
    size_t i = 0;
    for (; i < n; i++) {
        uint32_t next = pl_matcher_step(matcher, state, (uint8_t)text[i]);
        if (next == PL_STATE_FAILED)
            return pl_matcher_failure(matcher, err);
        if (next == PL_STATE_DEAD)
            break;
        state = next;
    }
    int ends = pl_matcher_ends(matcher, state);
    if (ends < 0)
        return pl_matcher_failure(matcher, err);
    *allowed = i;
    *may_end = ends;
    return PL_OK;
}
