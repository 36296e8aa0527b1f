/* Sets of code points, as the classes of regular expressions name them. */
#include <stdlib.h>
#include <string.h>

#include "host/grammar/grow.h"
#include "host/grammar/regex_parts.h"

#define LAST 0x10ffffu

bool pl_char_set_add(pl_char_set *set, uint32_t first, uint32_t last)
{
    if (!pl_grow(&set->range, set->n, &set->room, 1, sizeof *set->range))
        return false;
    set->range[set->n++] = (pl_code_range){first, last};
    return true;
}

static int by_first(const void *a, const void *b)
{
    const pl_code_range *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static void join(pl_char_set *set)
{
    size_t kept = 0;
    if (set->n)
        qsort(set->range, set->n, sizeof *set->range, by_first);
    for (size_t i = 0; i < set->n; i++) {
        pl_code_range *last = kept ? &set->range[kept - 1] : NULL;
        if (!last || set->range[i].first > last->last + 1)
            set->range[kept++] = set->range[i];
        else if (set->range[i].last > last->last)
            last->last = set->range[i].last;
    }
    set->n = kept;
}

static bool turn(pl_char_set *set)
{
    pl_char_set rest = {0};
    uint32_t from = 0;
    bool fits = true;
    join(set);
    for (size_t i = 0; i < set->n; i++) {
        if (set->range[i].first > from)
            fits = fits && pl_char_set_add(&rest, from, set->range[i].first - 1);
        from = set->range[i].last + 1;
    }
    if (from <= LAST)
        fits = fits && pl_char_set_add(&rest, from, LAST);
    pl_char_set_free(set);
    *set = rest;
    return fits;
}

bool pl_char_set_finish(pl_char_set *set, bool negated)
{
    /* Without surrogates: they are put in, and then the rest is what is wanted. */
    if (!negated && !turn(set))
        return false;
    return pl_char_set_add(set, 0xd800, 0xdfff) && turn(set);
}

bool pl_char_set_add_class(pl_char_set *set, char letter)
{
    static const pl_code_range digits[] = {{'0', '9'}};
    static const pl_code_range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    /* ECMA-262's WhiteSpace and LineTerminator */
    static const pl_code_range spaces[] = {{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680},
                                           {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                                           {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    bool others = letter == 'D' || letter == 'W' || letter == 'S';
    const pl_code_range *range = spaces;
    size_t n = sizeof spaces / sizeof *spaces;
    if (letter == 'd' || letter == 'D') {
        range = digits;
        n = sizeof digits / sizeof *digits;
    } else if (letter == 'w' || letter == 'W') {
        range = words;
        n = sizeof words / sizeof *words;
    }
    uint32_t from = 0;
    for (size_t i = 0; i < n; from = range[i++].last + 1)
        if (others ? !pl_char_set_add(set, from, range[i].first - 1)
                   : !pl_char_set_add(set, range[i].first, range[i].last))
            return false;
    return !others || pl_char_set_add(set, from, LAST);
}

void pl_char_set_free(pl_char_set *set)
{
    free(set->range);
    *set = (pl_char_set){0};
}
