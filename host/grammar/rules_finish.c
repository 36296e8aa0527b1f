/* Checks of finished rules: what they refer to, what they can match, left recursion. */
#include "host/grammar/rules_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct namer {
    const char *(*name)(void *user, int32_t rule);
    void *user;
    char number[32];
} namer;

static const char *name_of(namer *n, int32_t rule)
{
    const char *name = n->name ? n->name(n->user, rule) : NULL;
    if (name)
        return name;
    snprintf(n->number, sizeof n->number, "number %d", rule);
    return n->number;
}

static pl_status take(size_t n, size_t size, void *place, pl_error *err)
{
    void *memory = calloc(n ? n : 1, size);
    if (!memory)
        return pl_fail_memory(err, n * size, "a grammar");
    memcpy(place, &memory, sizeof memory);
    return PL_OK;
}

/* Orders the alternatives by rule. */
static pl_status order(pl_rules *rules, pl_error *err)
{
    size_t n = (size_t)rules->n_rules;
    PL_TRY(take(n + 2, sizeof *rules->first_of, &rules->first_of, err));
    PL_TRY(take(rules->n_alternatives, sizeof *rules->by_rule, &rules->by_rule, err));
    for (size_t i = 0; i < rules->n_alternatives; i++) {
        int32_t rule = rules->alternative[i].rule;
        if (rule < 0 || rule >= rules->n_rules)
            return pl_fail(err, PL_ERR_ARGUMENT, "an alternative of rule number %d, of %d rules", rule, rules->n_rules);
        rules->first_of[rule + 2]++;
    }
    for (size_t r = 0; r < n; r++)
        rules->first_of[r + 2] += rules->first_of[r + 1];
    for (size_t i = 0; i < rules->n_alternatives; i++)
        rules->by_rule[rules->first_of[rules->alternative[i].rule + 1]++] = (uint32_t)i;
    return PL_OK;
}

/* Classes of characters become rules; whatever is referred to exists. */
static pl_status resolve(pl_rules *rules, pl_error *err)
{
    for (size_t i = 0; i < rules->n_items; i++) {
        pl_item *item = &rules->item[i];
        if (item->kind == PL_ITEM_CHARS)
            *item = (pl_item){.kind = PL_ITEM_RULE, .arg = rules->chars[item->arg].rule};
        if (item->kind != PL_ITEM_BYTES && item->arg >= rules->n_rules)
            return pl_fail(err, PL_ERR_ARGUMENT, "rule number %d is referred to, there are %d", item->arg,
                           rules->n_rules);
    }
    return PL_OK;
}

/* ---- what rules match ---- */

static pl_rule_facts item_facts(const pl_rules *rules, const pl_item *item)
{
    static const pl_byte_set nothing;
    const pl_rule_facts *rule = &rules->facts[item->arg < rules->n_rules ? item->arg : 0];
    switch ((pl_item_kind)item->kind) {
    case PL_ITEM_BYTES: {
        bool some = memcmp(&rules->sets.set[item->arg], &nothing, sizeof nothing) != 0;
        return (pl_rule_facts){some, false, some};
    }
    case PL_ITEM_REPEAT:
        return (pl_rule_facts){item->min == 0 || rule->productive, item->min == 0 || rule->empty,
                               item->max != 0 && rule->more};
    default: return *rule;
    }
}

static pl_rule_facts alternative_facts(const pl_rules *rules, uint32_t alternative)
{
    pl_rule_facts facts = {true, true, false};
    uint32_t end = pl_alternative_end(rules, alternative);
    for (uint32_t i = rules->alternative[alternative].first; i < end && facts.productive; i++) {
        pl_rule_facts item = item_facts(rules, &rules->item[i]);
        facts.productive = item.productive;
        facts.empty &= item.empty;
        facts.more |= item.more;
    }
    return facts.productive ? facts : (pl_rule_facts){0};
}

static bool learn(pl_rules *rules, int32_t rule)
{
    pl_rule_facts facts = {0};
    for (uint32_t i = rules->first_of[rule]; i < rules->first_of[rule + 1]; i++) {
        pl_rule_facts one = alternative_facts(rules, rules->by_rule[i]);
        facts.productive |= one.productive;
        facts.empty |= one.empty;
        facts.more |= one.more;
    }
    bool news = memcmp(&facts, &rules->facts[rule], sizeof facts) != 0;
    rules->facts[rule] = facts;
    return news;
}

/* A walk through the rules in depth, without recursion. */
typedef struct visit {
    int32_t rule;
    uint32_t alternative, item; /* the next to look at */
} visit;

typedef struct walk {
    visit *path;
    uint8_t *mark; /* [n_rules] 0 not seen, 1 on the path, 2 done */
    int32_t *done; /* rules in the order in which they were done */
    int32_t depth, n_done;
} walk;

static void walk_free(walk *w)
{
    free(w->path);
    free(w->mark);
    free(w->done);
}

static pl_status walk_start(const pl_rules *rules, int32_t root, walk *w, pl_error *err)
{
    size_t n = (size_t)rules->n_rules;
    *w = (walk){0};
    w->path = calloc(n + 1, sizeof *w->path);
    w->mark = calloc(n + 1, sizeof *w->mark);
    w->done = calloc(n + 1, sizeof *w->done);
    if (!w->path || !w->mark || !w->done)
        return pl_fail_memory(err, n * sizeof *w->path, "a grammar");
    w->path[w->depth++] = (visit){root, 0, 0};
    w->mark[root] = 1;
    return PL_OK;
}

/* The next rule that the deepest one refers to, or -1. left: only before a byte has been matched. */
static int32_t next_rule(const pl_rules *rules, visit *v, bool left)
{
    uint32_t first = rules->first_of[v->rule], n = rules->first_of[v->rule + 1] - first;
    for (; v->alternative < n; v->alternative++, v->item = 0) {
        uint32_t alternative = rules->by_rule[first + v->alternative];
        uint32_t begin = rules->alternative[alternative].first, end = pl_alternative_end(rules, alternative);
        while (begin + v->item < end) {
            const pl_item *item = &rules->item[begin + v->item];
            bool stays = !left || item_facts(rules, item).empty;
            v->item = stays ? v->item + 1 : end - begin;
            if (item->kind != PL_ITEM_BYTES && !(item->kind == PL_ITEM_REPEAT && item->max == 0))
                return item->arg;
        }
    }
    return -1;
}

/* Goes on until a rule is done, and gives it; or, with left, meets one that is on the path; -1 at the end. */
static int32_t walk_on(const pl_rules *rules, walk *w, bool left, bool *met)
{
    *met = false;
    while (w->depth) {
        visit *v = &w->path[w->depth - 1];
        int32_t rule = next_rule(rules, v, left);
        if (rule < 0) {
            w->depth--;
            w->mark[v->rule] = 2;
            w->done[w->n_done++] = v->rule;
            return v->rule;
        }
        if (w->mark[rule] == 1 && left) {
            *met = true;
            return rule;
        }
        if (w->mark[rule] == 0) {
            w->mark[rule] = 1;
            w->path[w->depth++] = (visit){rule, 0, 0};
        }
    }
    return -1;
}

static pl_status learn_all(pl_rules *rules, int32_t root, walk *w, pl_error *err)
{
    bool met, news = true;
    PL_TRY(walk_start(rules, root, w, err));
    while (walk_on(rules, w, false, &met) >= 0)
        ;
    while (news) {
        news = false;
        for (int32_t i = 0; i < w->n_done; i++)
            news |= learn(rules, w->done[i]);
    }
    return PL_OK;
}

static pl_status check_left(const pl_rules *rules, const walk *reached, walk *w, namer *names, pl_error *err)
{
    for (int32_t i = 0; i < reached->n_done; i++) {
        int32_t rule = reached->done[i];
        bool met;
        if (w->mark && w->mark[rule])
            continue;
        if (!w->mark)
            PL_TRY(walk_start(rules, rule, w, err));
        else
            w->path[w->depth++] = (visit){rule, 0, 0};
        w->mark[rule] = 1;
        while ((rule = walk_on(rules, w, true, &met)) >= 0)
            if (met)
                return pl_fail(err, PL_ERR_UNSUPPORTED, "rule %s begins with itself (left recursion)",
                               name_of(names, rule));
    }
    return PL_OK;
}

static pl_status check(pl_rules *rules, int32_t root, namer *names, pl_error *err)
{
    walk all = {0}, left = {0};
    pl_status status = learn_all(rules, root, &all, err);
    if (status == PL_OK)
        status = check_left(rules, &all, &left, names, err);
    walk_free(&all);
    walk_free(&left);
    PL_TRY(status);
    if (!rules->facts[root].productive)
        return pl_fail(err, PL_ERR_ARGUMENT, "the grammar can never be fulfilled: rule %s matches nothing",
                       name_of(names, root));
    return PL_OK;
}

pl_status pl_rules_finish(pl_rules *rules, int32_t root, const char *(*name)(void *user, int32_t rule), void *user,
                          pl_error *err)
{
    namer names = {.name = name, .user = user};
    if (rules->failed == PL_OK)
        pl_rules_expand_classes(rules);
    if (rules->failed != PL_OK)
        return pl_fail(err, rules->failed, "%s", rules->why);
    if (root < 0 || root >= rules->n_rules)
        return pl_fail(err, PL_ERR_ARGUMENT, "the grammar has no rule number %d to begin with", root);
    PL_TRY(resolve(rules, err));
    PL_TRY(order(rules, err));
    PL_TRY(take((size_t)rules->n_rules, sizeof *rules->facts, &rules->facts, err));
    PL_TRY(check(rules, root, &names, err));
    return pl_rules_make_program(rules, root, err);
}
