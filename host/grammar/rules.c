/* Building rules: what the notations' compilers call. */
#include "host/grammar/grow.h"
#include "host/grammar/rules_parts.h"

#include <stdlib.h>
#include <string.h>

pl_status pl_rules_create(pl_rules **out, pl_error *err)
{
    pl_rules *rules = calloc(1, sizeof *rules);
    if (!rules)
        return pl_fail_memory(err, sizeof *rules, "a grammar");
    *out = rules;
    return PL_OK;
}

void pl_program_free(pl_program *program)
{
    free(program->first);
    free(program->edge);
    free(program->set);
    free(program->start);
    *program = (pl_program){0};
}

void pl_rules_free(pl_rules *rules)
{
    if (!rules)
        return;
    free(rules->item);
    free(rules->alternative);
    free(rules->range);
    free(rules->chars);
    pl_set_table_free(&rules->sets);
    free(rules->by_rule);
    free(rules->first_of);
    free(rules->facts);
    pl_program_free(&rules->program);
    free(rules);
}

const pl_program *pl_rules_program(const pl_rules *rules)
{
    return &rules->program;
}

void pl_rules_fail(pl_rules *rules, pl_status status, const char *why)
{
    if (rules->failed == PL_OK) {
        rules->failed = status;
        rules->why = why;
    }
}

/* ---- sets ---- */

static uint64_t hash_set(const pl_byte_set *set)
{
    uint64_t h = 0;
    for (int i = 0; i < 4; i++) {
        h = (h ^ set->bits[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

static uint32_t *find_slot(const pl_set_table *table, const pl_byte_set *set)
{
    size_t at = hash_set(set) & (table->slots - 1);
    while (table->slot[at] && memcmp(&table->set[table->slot[at] - 1], set, sizeof *set) != 0)
        at = (at + 1) & (table->slots - 1);
    return &table->slot[at];
}

static bool widen(pl_set_table *table)
{
    size_t slots = table->slots ? 2 * table->slots : 64;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (!slot)
        return false;
    free(table->slot);
    table->slot = slot;
    table->slots = slots;
    for (size_t i = 0; i < table->n; i++)
        *find_slot(table, &table->set[i]) = (uint32_t)i + 1;
    return true;
}

int32_t pl_set_table_put(pl_set_table *table, const pl_byte_set *set)
{
    if (2 * (table->n + 1) > table->slots && !widen(table))
        return -1;
    uint32_t *slot = find_slot(table, set);
    if (!*slot) {
        if (!pl_grow(&table->set, table->n, &table->room, 1, sizeof *table->set))
            return -1;
        table->set[table->n++] = *set;
        *slot = (uint32_t)table->n;
    }
    return (int32_t)*slot - 1;
}

void pl_set_table_free(pl_set_table *table)
{
    free(table->set);
    free(table->slot);
    *table = (pl_set_table){0};
}

/* ---- rules and items ---- */

int32_t pl_rules_new(pl_rules *rules)
{
    if (rules->n_rules == PL_RULES_ITEMS) {
        pl_rules_fail(rules, PL_ERR_UNSUPPORTED, "the grammar has too many rules");
        return 0;
    }
    return rules->n_rules++;
}

void pl_rules_alternative(pl_rules *rules, int32_t rule)
{
    if (rules->n_alternatives >= PL_RULES_ITEMS)
        pl_rules_fail(rules, PL_ERR_UNSUPPORTED, "the grammar has too many alternatives");
    else if (!pl_grow(&rules->alternative, rules->n_alternatives, &rules->alternative_room, 1,
                      sizeof *rules->alternative))
        pl_rules_fail(rules, PL_ERR_MEMORY, "no memory for the grammar");
    else
        rules->alternative[rules->n_alternatives++] = (pl_alternative){rule, (uint32_t)rules->n_items};
}

static void push(pl_rules *rules, pl_item item)
{
    if (rules->n_items >= PL_RULES_ITEMS)
        pl_rules_fail(rules, PL_ERR_UNSUPPORTED, "the grammar is too large");
    else if (item.arg < 0 || !pl_grow(&rules->item, rules->n_items, &rules->item_room, 1, sizeof *rules->item))
        pl_rules_fail(rules, PL_ERR_MEMORY, "no memory for the grammar");
    else
        rules->item[rules->n_items++] = item;
}

void pl_rules_bytes(pl_rules *rules, const pl_byte_set *set)
{
    push(rules, (pl_item){.kind = PL_ITEM_BYTES, .arg = pl_set_table_put(&rules->sets, set)});
}

void pl_rules_literal(pl_rules *rules, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        pl_byte_set set = {{0}};
        pl_byte_set_add(&set, (unsigned char)text[i]);
        pl_rules_bytes(rules, &set);
    }
}

void pl_rules_refer(pl_rules *rules, int32_t rule)
{
    push(rules, (pl_item){.kind = PL_ITEM_RULE, .arg = rule});
}

void pl_rules_repeat(pl_rules *rules, int32_t rule, int32_t min, int32_t max)
{
    if (min < 0 || min > PL_RULES_MOST || max > PL_RULES_MOST || (max != PL_RULES_ANY && max < min))
        pl_rules_fail(rules, PL_ERR_ARGUMENT, "a repetition's bounds are out of order or too large");
    push(rules, (pl_item){.kind = PL_ITEM_REPEAT, .arg = rule, .min = min, .max = max});
}

/* ---- characters ---- */

static int by_first(const void *a, const void *b)
{
    const pl_code_range *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Sorts and joins ranges; gives how many are left. */
static size_t join(pl_code_range *range, size_t n)
{
    size_t k = 0;
    if (n)
        qsort(range, n, sizeof *range, by_first);
    for (size_t i = 0; i < n; i++) {
        if (range[i].first > range[i].last)
            continue;
        if (k && range[i].first <= range[k - 1].last + 1) {
            if (range[i].last > range[k - 1].last)
                range[k - 1].last = range[i].last;
        } else {
            range[k++] = range[i];
        }
    }
    return k;
}

/* What joined ranges leave out; out has room for n + 1. */
static size_t negate(const pl_code_range *range, size_t n, pl_code_range *out)
{
    size_t k = 0;
    uint32_t from = 0;
    for (size_t i = 0; i < n; i++) {
        if (range[i].first > from)
            out[k++] = (pl_code_range){from, range[i].first - 1};
        from = range[i].last + 1;
    }
    if (from <= 0x10ffff)
        out[k++] = (pl_code_range){from, 0x10ffff};
    return k;
}

/* The class of joined ranges at the end of rules->range, n of them; they are dropped where the class is known. */
static int32_t put_class(pl_rules *rules, size_t first, size_t n)
{
    for (size_t i = 0; i < rules->n_chars; i++)
        if (rules->chars[i].n == n &&
            memcmp(rules->range + rules->chars[i].first, rules->range + first, n * sizeof *rules->range) == 0)
            return (int32_t)i;
    if (!pl_grow(&rules->chars, rules->n_chars, &rules->chars_room, 1, sizeof *rules->chars))
        return -1;
    rules->chars[rules->n_chars] = (pl_char_class){(uint32_t)first, (uint32_t)n, -1};
    rules->n_ranges = first + n;
    return (int32_t)rules->n_chars++;
}

void pl_rules_chars(pl_rules *rules, const pl_code_range *ranges, size_t n, bool negated)
{
    if (n > PL_RULES_ITEMS || rules->n_ranges > PL_RULES_ITEMS) {
        pl_rules_fail(rules, PL_ERR_UNSUPPORTED, "the grammar's classes of characters are too large");
        return;
    }
    if (!pl_grow(&rules->range, rules->n_ranges, &rules->range_room, 2 * n + 1, sizeof *rules->range)) {
        pl_rules_fail(rules, PL_ERR_MEMORY, "no memory for the grammar");
        return;
    }
    pl_code_range *joined = rules->range + rules->n_ranges;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (ranges[i].first <= 0x10ffff)
            joined[kept++] = (pl_code_range){ranges[i].first, ranges[i].last < 0x10ffff ? ranges[i].last : 0x10ffff};
    kept = join(joined, kept);
    if (negated) {
        size_t others = negate(joined, kept, joined + kept);
        memmove(joined, joined + kept, others * sizeof *joined);
        kept = others;
    }
    if (kept == 0 || joined[kept - 1].last < 0x80) {
        pl_byte_set set = {{0}};
        for (size_t i = 0; i < kept; i++)
            for (uint32_t c = joined[i].first; c <= joined[i].last; c++)
                pl_byte_set_add(&set, c);
        pl_rules_bytes(rules, &set);
    } else {
        push(rules, (pl_item){.kind = PL_ITEM_CHARS, .arg = put_class(rules, rules->n_ranges, kept)});
    }
}

static void byte_range(pl_rules *rules, unsigned first, unsigned last)
{
    pl_byte_set set = {{0}};
    for (unsigned b = first; b <= last; b++)
        pl_byte_set_add(&set, b);
    pl_rules_bytes(rules, &set);
}

static int encode(uint32_t c, unsigned char out[4])
{
    if (c < 0x80)
        return out[0] = (unsigned char)c, 1;
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (unsigned char)(0x80 | (c & 0x3f));
    out[0] = (unsigned char)(lead[n] | c);
    return n;
}

/* Code points whose encodings have one length, as alternatives in each of which every byte has a range of its own: the
 * range is cut until the bytes behind the first that differs run from 80 to bf. */
static void one_length(pl_rules *rules, int32_t rule, uint32_t first, uint32_t last)
{
    unsigned char a[4] = {0}, b[4] = {0};
    int n = encode(first, a);
    encode(last, b);
    for (int i = 1; i < n; i++) {
        uint32_t low = ((uint32_t)1 << (6 * i)) - 1;
        if ((first & ~low) == (last & ~low))
            continue;
        if (first & low) {
            one_length(rules, rule, first, first | low);
            one_length(rules, rule, (first | low) + 1, last);
            return;
        }
        if ((last & low) != low) {
            one_length(rules, rule, first, (last & ~low) - 1);
            one_length(rules, rule, last & ~low, last);
            return;
        }
    }
    pl_rules_alternative(rules, rule);
    for (int i = 0; i < n; i++)
        byte_range(rules, a[i], b[i]);
}

void pl_rules_expand_classes(pl_rules *rules)
{
    /* ends of the code points of one length; surrogates are left out */
    static const pl_code_range lengths[] = {
        {0, 0x7f}, {0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, 0x10ffff}};
    for (size_t i = 0; i < rules->n_chars && rules->failed == PL_OK; i++) {
        pl_char_class *class = &rules->chars[i];
        class->rule = pl_rules_new(rules);
        for (uint32_t k = 0; k < class->n; k++) {
            pl_code_range range = rules->range[class->first + k];
            for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
                uint32_t first = range.first > lengths[l].first ? range.first : lengths[l].first;
                uint32_t last = range.last < lengths[l].last ? range.last : lengths[l].last;
                if (first <= last)
                    one_length(rules, class->rule, first, last);
            }
        }
    }
}
