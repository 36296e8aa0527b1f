#include "tests/unit/earley.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCTIONS 8000
#define SYMBOLS 24
#define RULES 4000
#define SLOTS (1 << 18)

typedef struct symbol {
    int32_t rule; /* or -1: a byte first to last */
    pl_byte_set bytes;
} symbol;

typedef struct production {
    int32_t rule, next; /* the next of the same rule */
    int n;
    symbol symbol[SYMBOLS];
    bool dropped; /* can match nothing */
} production;

typedef struct item {
    int16_t production, dot;
    int32_t origin;
} item;

typedef struct set {
    item *item;
    int n, room;
} set;

struct earley {
    production production[PRODUCTIONS];
    int n_productions;
    int32_t first[RULES]; /* production of a rule */
    bool productive[RULES], empty[RULES];
    int32_t n_rules;
    set at[EARLEY_TEXT + 1];
    int length;
    uint64_t slot[SLOTS];
    uint32_t stamp[SLOTS], now;
};

earley *earley_create(void)
{
    earley *e = calloc(1, sizeof *e);
    cr_assert_not_null(e);
    return e;
}

void earley_free(earley *e)
{
    for (int i = 0; i <= EARLEY_TEXT; i++)
        free(e->at[i].item);
    free(e);
}

/* ---- the grammar ---- */

static int32_t new_rule(earley *e)
{
    cr_assert_lt(e->n_rules, RULES);
    e->first[e->n_rules] = -1;
    return e->n_rules++;
}

static production *new_production(earley *e, int32_t rule)
{
    cr_assert_lt(e->n_productions, PRODUCTIONS);
    production *p = &e->production[e->n_productions];
    p->rule = rule;
    p->n = 0;
    p->dropped = false;
    p->next = e->first[rule];
    e->first[rule] = e->n_productions++;
    return p;
}

static void add_symbol(production *p, symbol s)
{
    cr_assert_lt(p->n, SYMBOLS);
    p->symbol[p->n++] = s;
}

static void add_bytes(production *p, unsigned first, unsigned last)
{
    symbol s = {.rule = -1};
    for (unsigned b = first; b <= last; b++)
        s.bytes.bits[b / 64] |= (uint64_t)1 << b % 64;
    add_symbol(p, s);
}

static production *current(earley *e)
{
    return &e->production[e->n_productions - 1];
}

/* The production that is being written stays the last one. */
static void refer(earley *e, production *p, int32_t rule)
{
    (void)e;
    add_symbol(p, (symbol){.rule = rule});
}

void earley_begin(earley *e, int32_t n_rules)
{
    e->n_productions = e->n_rules = 0;
    for (int32_t i = 0; i < n_rules; i++)
        new_rule(e);
}

void earley_alternative(earley *e, int32_t rule)
{
    new_production(e, rule);
}

void earley_literal(earley *e, const char *text)
{
    for (; *text; text++)
        add_bytes(current(e), (unsigned char)*text, (unsigned char)*text);
}

void earley_rule(earley *e, int32_t rule)
{
    refer(e, current(e), rule);
}

/* Moves the production that is being written behind those made meanwhile. */
static void keep_last(earley *e, int which)
{
    production written = e->production[which], *last = new_production(e, written.rule);
    int32_t next = last->next;
    e->production[which].dropped = true;
    e->production[which].n = 0;
    *last = written;
    last->next = next;
}

static bool in(const pl_code_range *ranges, size_t n, uint32_t code)
{
    for (size_t i = 0; i < n; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

/* Ranges within U+0000 to U+00FF; negated, all above are matched as well. */
void earley_chars(earley *e, const pl_code_range *ranges, size_t n, bool negated)
{
    /* the Unicode Standard, table 3-7, from U+0100 on */
    static const uint8_t above[][8] = {{0xc4, 0xdf, 0x80, 0xbf},
                                       {0xe0, 0xe0, 0xa0, 0xbf, 0x80, 0xbf},
                                       {0xe1, 0xec, 0x80, 0xbf, 0x80, 0xbf},
                                       {0xed, 0xed, 0x80, 0x9f, 0x80, 0xbf},
                                       {0xee, 0xef, 0x80, 0xbf, 0x80, 0xbf},
                                       {0xf0, 0xf0, 0x90, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
                                       {0xf1, 0xf3, 0x80, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
                                       {0xf4, 0xf4, 0x80, 0x8f, 0x80, 0xbf, 0x80, 0xbf}};
    int which = e->n_productions - 1;
    int32_t rule = new_rule(e);
    refer(e, current(e), rule);
    for (uint32_t code = 0; code < 0x100; code++) {
        if (in(ranges, n, code) == negated)
            continue;
        production *p = new_production(e, rule);
        if (code >= 0x80)
            add_bytes(p, 0xc0 | code >> 6, 0xc0 | code >> 6);
        add_bytes(p, code < 0x80 ? code : 0x80 | (code & 0x3f), code < 0x80 ? code : 0x80 | (code & 0x3f));
    }
    for (size_t i = 0; i < 8 && negated; i++) {
        production *p = new_production(e, rule);
        for (size_t k = 0; k < 8 && above[i][k]; k += 2)
            add_bytes(p, above[i][k], above[i][k + 1]);
    }
    keep_last(e, which);
}

void earley_repeat(earley *e, int32_t rule, int32_t min, int32_t max)
{
    int which = e->n_productions - 1;
    int32_t count = new_rule(e);
    refer(e, current(e), count);
    for (int32_t k = 0;; k++) {
        if (k >= min)
            new_production(e, count);
        if (max == PL_RULES_ANY ? k > min : k == max)
            break;
        int32_t next = max == PL_RULES_ANY && k >= min ? count : new_rule(e);
        production *p = new_production(e, count);
        refer(e, p, rule);
        refer(e, p, next);
        if (next == count)
            break;
        count = next;
    }
    keep_last(e, which);
}

static bool learn(earley *e, int i, bool *facts, bool empty)
{
    const production *p = &e->production[i];
    for (int k = 0; k < p->n; k++)
        if (p->symbol[k].rule < 0 ? empty : !facts[p->symbol[k].rule])
            return false;
    bool news = !facts[p->rule];
    facts[p->rule] = true;
    return news;
}

void earley_end(earley *e)
{
    memset(e->productive, 0, sizeof e->productive);
    memset(e->empty, 0, sizeof e->empty);
    for (bool news = true; news;) {
        news = false;
        for (int i = 0; i < e->n_productions; i++)
            if (!e->production[i].dropped) {
                news |= learn(e, i, e->productive, false);
                news |= learn(e, i, e->empty, true);
            }
    }
    for (int i = 0; i < e->n_productions; i++)
        for (int k = 0; k < e->production[i].n; k++)
            if (e->production[i].symbol[k].rule >= 0 && !e->productive[e->production[i].symbol[k].rule])
                e->production[i].dropped = true;
}

bool earley_productive(const earley *e)
{
    return e->productive[0];
}

/* ---- the text ---- */

static void add_item(earley *e, set *s, item made)
{
    uint64_t key = (uint64_t)made.origin << 32 | (uint64_t)made.production << 8 | (uint64_t)made.dot;
    size_t at = (size_t)((key * 0x9e3779b97f4a7c15u) >> 46);
    for (; e->stamp[at] == e->now; at = (at + 1) % SLOTS)
        if (e->slot[at] == key)
            return;
    e->stamp[at] = e->now;
    e->slot[at] = key;
    if (s->n == s->room) {
        s->room = 2 * s->room + 64;
        s->item = realloc(s->item, (size_t)s->room * sizeof *s->item);
        cr_assert_not_null(s->item);
    }
    s->item[s->n++] = made;
}

static void predict(earley *e, set *s, int at, int32_t rule)
{
    for (int32_t i = e->first[rule]; i >= 0; i = e->production[i].next)
        if (!e->production[i].dropped)
            add_item(e, s, (item){(int16_t)i, 0, at});
}

static void complete(earley *e, set *s, int32_t rule, int origin)
{
    const set *from = &e->at[origin];
    for (int i = 0; i < from->n; i++) {
        item waiting = from->item[i];
        const production *p = &e->production[waiting.production];
        if (waiting.dot < p->n && p->symbol[waiting.dot].rule == rule)
            add_item(e, s, (item){waiting.production, (int16_t)(waiting.dot + 1), waiting.origin});
    }
}

static void close_set(earley *e, int at)
{
    set *s = &e->at[at];
    for (int i = 0; i < s->n; i++) {
        item now = s->item[i];
        const production *p = &e->production[now.production];
        if (now.dot == p->n) {
            complete(e, s, p->rule, now.origin);
        } else if (p->symbol[now.dot].rule >= 0) {
            int32_t rule = p->symbol[now.dot].rule;
            predict(e, s, at, rule);
            if (e->empty[rule])
                add_item(e, s, (item){now.production, (int16_t)(now.dot + 1), now.origin});
        }
    }
}

static bool scan(earley *e, unsigned byte)
{
    cr_assert_lt(e->length, EARLEY_TEXT);
    const set *from = &e->at[e->length];
    set *to = &e->at[e->length + 1];
    to->n = 0;
    e->now++;
    for (int i = 0; i < from->n; i++) {
        item now = from->item[i];
        const production *p = &e->production[now.production];
        if (now.dot < p->n && p->symbol[now.dot].rule < 0 && p->symbol[now.dot].bytes.bits[byte / 64] >> byte % 64 & 1)
            add_item(e, to, (item){now.production, (int16_t)(now.dot + 1), now.origin});
    }
    if (to->n == 0)
        return false;
    close_set(e, ++e->length);
    return true;
}

void earley_start(earley *e)
{
    e->length = 0;
    e->at[0].n = 0;
    e->now++;
    predict(e, &e->at[0], 0, 0);
    close_set(e, 0);
}

void earley_take(earley *e, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(scan(e, (unsigned char)text[i]));
}

bool earley_continues(earley *e, const char *text, size_t n)
{
    int length = e->length;
    bool goes_on = true;
    for (size_t i = 0; i < n && goes_on; i++)
        goes_on = scan(e, (unsigned char)text[i]);
    e->length = length;
    return goes_on;
}

bool earley_complete(const earley *e)
{
    const set *s = &e->at[e->length];
    for (int i = 0; i < s->n; i++) {
        const production *p = &e->production[s->item[i].production];
        if (p->rule == 0 && s->item[i].origin == 0 && s->item[i].dot == p->n)
            return true;
    }
    return false;
}
