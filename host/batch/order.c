#define _GNU_SOURCE
#include "host/batch/order.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define TEXT_BYTES 4096

static const size_t level_bytes[PL_ORDER_LEVELS] = {256, 1024, TEXT_BYTES};

/* What is read of a body, in that order. */
static const char *const members[] = {"tools", "system", "instructions", "messages", "prompt", "input"};

typedef struct gathered {
    size_t n;
    char text[TEXT_BYTES];
} gathered;

static void add(gathered *g, const void *bytes, size_t n)
{
    size_t room = sizeof g->text - g->n, m = n < room ? n : room;
    memcpy(g->text + g->n, bytes, m);
    g->n += m;
}

/* All texts and token ids below a value, in order. */
static void gather(const json_t *value, gathered *g)
{
    if (g->n == sizeof g->text)
        return;
    if (json_is_string(value)) {
        add(g, json_string_value(value), json_string_length(value) + 1);
    } else if (json_is_integer(value)) {
        json_int_t id = json_integer_value(value);
        add(g, &id, sizeof id);
    } else if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value) && g->n < sizeof g->text; i++)
            gather(json_array_get(value, i), g);
    } else if (json_is_object(value)) {
        json_t *object = (json_t *)(uintptr_t)value;
        for (void *i = json_object_iter(object); i && g->n < sizeof g->text; i = json_object_iter_next(object, i))
            gather(json_object_iter_value(i), g);
    }
}

static uint64_t mix(uint64_t hash, const char *text)
{
    return text ? XXH3_64bits_withSeed(text, strlen(text) + 1, hash) : hash;
}

void pl_order_key_make(const char *url, const json_t *body, pl_order_key *out)
{
    gathered g;
    g.n = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        gather(json_object_get(body, members[i]), &g);
    uint64_t seed = mix(mix(mix(0, url), json_string_value(json_object_get(body, "model"))),
                        json_string_value(json_object_get(body, "path")));
    for (int level = 0; level < PL_ORDER_LEVELS; level++)
        out->prefix[level] = XXH3_64bits_withSeed(g.text, g.n < level_bytes[level] ? g.n : level_bytes[level], seed);
}

/* By the first `levels` prefixes. */
static int compare_prefixes(const pl_order_key *a, const pl_order_key *b, int levels)
{
    for (int i = 0; i < levels; i++)
        if (a->prefix[i] != b->prefix[i])
            return a->prefix[i] < b->prefix[i] ? -1 : 1;
    return 0;
}

static int compare_groups(const void *a, const void *b, void *keys)
{
    const pl_order_key *k = keys;
    return compare_prefixes(&k[*(const uint32_t *)a], &k[*(const uint32_t *)b], PL_ORDER_LEVELS);
}

static int compare_lines(const void *a, const void *b, void *keys)
{
    const pl_order_key *k = keys;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int groups = compare_prefixes(&k[x], &k[y], PL_ORDER_LEVELS);
    if (groups)
        return groups;
    if (k[x].bytes != k[y].bytes)
        return k[x].bytes > k[y].bytes ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* In groups of lines that agree up to a level, the prefix of that level becomes the first line of the group. */
static void number_groups(pl_order_key *keys, const uint32_t *order, size_t n, int level)
{
    for (size_t begin = 0, end; begin < n; begin = end) {
        uint32_t first = order[begin];
        for (end = begin + 1; end < n && compare_prefixes(&keys[order[begin]], &keys[order[end]], level + 1) == 0;
             end++)
            first = order[end] < first ? order[end] : first;
        for (size_t i = begin; i < end; i++)
            keys[order[i]].prefix[level] = first;
    }
}

void pl_order_sort(pl_order_key *keys, uint32_t *order, size_t n)
{
    qsort_r(order, n, sizeof *order, compare_groups, keys);
    for (int level = PL_ORDER_LEVELS - 1; level >= 0; level--)
        number_groups(keys, order, n, level);
    qsort_r(order, n, sizeof *order, compare_lines, keys);
}
