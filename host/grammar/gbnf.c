#include "host/grammar/gbnf.h"
#include "host/grammar/grow.h"
#include "host/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_DEPTH 500 /* of groups in groups */

/* A part of an alternative that is being read: it is written to the rules when its end is known, since groups in it have
 * rules of their own. */
typedef enum part_kind { PART_LITERAL, PART_CHARS, PART_RULE, PART_REPEAT } part_kind;

typedef struct part {
    part_kind kind;
    bool negated;
    int32_t rule, min, max;
    size_t first, n; /* of bytes or ranges */
} part;

typedef struct name {
    const char *text;
    size_t n;
    size_t used; /* where first */
    int32_t rule;
    bool defined;
} name;

typedef struct parser {
    const char *text;
    size_t n, at;
    pl_rules *rules;
    name *names;
    size_t n_names, name_room;
    size_t *slot; /* name + 1 by its text */
    size_t slots;
    size_t *owner; /* [n_owned] name of the rule that each rule belongs to */
    size_t n_owned, owner_room;
    part *parts;
    size_t n_parts, part_room;
    char *bytes;
    size_t n_bytes, byte_room;
    pl_code_range *ranges;
    size_t n_ranges, range_room;
    size_t current; /* name of the rule that is read */
    int depth;
    char shown[64]; /* a name, for a message */
    pl_error *err;
} parser;

/* ---- text ---- */

static pl_status no_memory(parser *p)
{
    return pl_fail(p->err, PL_ERR_MEMORY, "no memory for the grammar");
}

static void place_of(const parser *p, size_t at, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at && i < p->n; i++) {
        if (p->text[i] == '\n') {
            ++*line;
            *column = 1;
        } else if ((p->text[i] & 0xc0) != 0x80) {
            ++*column;
        }
    }
}

static pl_status wrong(parser *p, size_t at, pl_status status, const char *what)
{
    size_t line, column;
    place_of(p, at, &line, &column);
    return pl_fail(p->err, status, "line %zu, column %zu: %s", line, column, what);
}

/* The byte at a distance; 0 behind the end, as for a zero byte, which nothing may be. */
static char peek(const parser *p, size_t ahead)
{
    return p->at + ahead < p->n ? p->text[p->at + ahead] : '\0';
}

static void skip_space(parser *p, bool lines)
{
    for (;;) {
        char c = peek(p, 0);
        if (c == '#')
            while (p->at < p->n && p->text[p->at] != '\n' && p->text[p->at] != '\r')
                p->at++;
        else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')))
            p->at++;
        else
            return;
    }
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '-' || c == '_';
}

static int hex_value(char c)
{
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static pl_status read_hex(parser *p, size_t digits, uint32_t *code)
{
    size_t begin = p->at;
    p->at += 2;
    *code = 0;
    for (size_t i = 0; i < digits; i++, p->at++) {
        int value = hex_value(peek(p, 0));
        if (value < 0)
            return wrong(p, p->at, PL_ERR_ARGUMENT, "expected a hexadecimal digit");
        *code = *code << 4 | (uint32_t)value;
    }
    if (*code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
        return wrong(p, begin, PL_ERR_ARGUMENT, "this is no character");
    return PL_OK;
}

static pl_status read_escape(parser *p, uint32_t *code)
{
    char c = peek(p, 1);
    switch (c) {
    case 'x': return read_hex(p, 2, code);
    case 'u': return read_hex(p, 4, code);
    case 'U': return read_hex(p, 8, code);
    case 't': *code = '\t'; break;
    case 'r': *code = '\r'; break;
    case 'n': *code = '\n'; break;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '^':
    case '-': *code = (uint32_t)c; break;
    default: return wrong(p, p->at, PL_ERR_ARGUMENT, "there is no such escape");
    }
    p->at += 2;
    return PL_OK;
}

static pl_status read_char(parser *p, uint32_t *code)
{
    if (peek(p, 0) == '\\')
        return read_escape(p, code);
    size_t n = pl_utf8_next(p->text + p->at, p->n - p->at, code);
    if (n == 0)
        return wrong(p, p->at, PL_ERR_ARGUMENT, "this is not UTF-8");
    p->at += n;
    return PL_OK;
}

static pl_status read_number(parser *p, int32_t *out)
{
    int32_t value = 0;
    size_t begin = p->at;
    if (!is_digit(peek(p, 0)))
        return wrong(p, p->at, PL_ERR_ARGUMENT, "expected a number");
    for (; is_digit(peek(p, 0)); p->at++) {
        value = 10 * value + (peek(p, 0) - '0');
        if (value > PL_RULES_MOST)
            return wrong(p, begin, PL_ERR_UNSUPPORTED, "repetitions are counted up to 65535");
    }
    *out = value;
    return PL_OK;
}

/* ---- names and rules ---- */

static size_t hash_name(const char *text, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

static size_t *name_slot(const parser *p, const char *text, size_t n)
{
    size_t at = hash_name(text, n) & (p->slots - 1);
    for (; p->slot[at]; at = (at + 1) & (p->slots - 1)) {
        const name *known = &p->names[p->slot[at] - 1];
        if (known->n == n && memcmp(known->text, text, n) == 0)
            break;
    }
    return &p->slot[at];
}

static pl_status widen_names(parser *p)
{
    size_t slots = p->slots ? 2 * p->slots : 64, *slot = calloc(slots, sizeof *slot);
    if (!slot)
        return no_memory(p);
    free(p->slot);
    p->slot = slot;
    p->slots = slots;
    for (size_t i = 0; i < p->n_names; i++)
        *name_slot(p, p->names[i].text, p->names[i].n) = i + 1;
    return PL_OK;
}

static pl_status new_rule(parser *p, size_t owner, int32_t *rule)
{
    *rule = pl_rules_new(p->rules);
    if (!pl_grow(&p->owner, p->n_owned, &p->owner_room, 1, sizeof *p->owner))
        return no_memory(p);
    p->owner[p->n_owned++] = owner;
    return PL_OK;
}

static pl_status find_name(parser *p, const char *text, size_t n, size_t *out)
{
    if (2 * (p->n_names + 1) > p->slots)
        PL_TRY(widen_names(p));
    size_t *slot = name_slot(p, text, n);
    if (!*slot) {
        if (!pl_grow(&p->names, p->n_names, &p->name_room, 1, sizeof *p->names))
            return no_memory(p);
        name made = {.text = text, .n = n, .used = p->at};
        PL_TRY(new_rule(p, p->n_names, &made.rule));
        p->names[p->n_names++] = made;
        *slot = p->n_names;
    }
    *out = *slot - 1;
    return PL_OK;
}

static pl_status read_name(parser *p, size_t *out)
{
    size_t n = 0;
    while (is_word(peek(p, n)))
        n++;
    if (n == 0)
        return wrong(p, p->at, PL_ERR_ARGUMENT, "expected the name of a rule");
    PL_TRY(find_name(p, p->text + p->at, n, out));
    p->at += n;
    return PL_OK;
}

/* For messages; a rule that belongs to one with a name has its name. */
static const char *rule_name(void *user, int32_t rule)
{
    parser *p = user;
    if (rule < 0 || (size_t)rule >= p->n_owned)
        return NULL;
    const name *owner = &p->names[p->owner[rule]];
    snprintf(p->shown, sizeof p->shown, "%.*s", (int)(owner->n < sizeof p->shown ? owner->n : sizeof p->shown - 1),
             owner->text);
    return p->shown;
}

/* ---- parts ---- */

static pl_status push(parser *p, part made)
{
    if (!pl_grow(&p->parts, p->n_parts, &p->part_room, 1, sizeof *p->parts))
        return no_memory(p);
    p->parts[p->n_parts++] = made;
    return PL_OK;
}

static pl_status push_code(parser *p, uint32_t code)
{
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (!pl_grow(&p->bytes, p->n_bytes, &p->byte_room, n, 1))
        return no_memory(p);
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        p->bytes[p->n_bytes + i] = (char)(0x80 | (code & 0x3f));
    p->bytes[p->n_bytes] = (char)(lead[n] | code);
    p->n_bytes += n;
    return PL_OK;
}

static pl_status read_literal(parser *p)
{
    part made = {.kind = PART_LITERAL, .first = p->n_bytes};
    size_t begin = p->at++;
    while (peek(p, 0) != '"') {
        uint32_t code;
        if (p->at >= p->n)
            return wrong(p, begin, PL_ERR_ARGUMENT, "this string has no end");
        PL_TRY(read_char(p, &code));
        PL_TRY(push_code(p, code));
    }
    p->at++;
    made.n = p->n_bytes - made.first;
    return push(p, made);
}

static pl_status read_class(parser *p)
{
    size_t begin = p->at++;
    part made = {.kind = PART_CHARS, .first = p->n_ranges};
    if (peek(p, 0) == '^') {
        made.negated = true;
        p->at++;
    }
    while (peek(p, 0) != ']') {
        pl_code_range range;
        size_t from = p->at;
        if (p->at >= p->n)
            return wrong(p, begin, PL_ERR_ARGUMENT, "this class has no end");
        PL_TRY(read_char(p, &range.first));
        range.last = range.first;
        if (peek(p, 0) == '-' && peek(p, 1) != ']') {
            p->at++;
            PL_TRY(read_char(p, &range.last));
        }
        if (range.last < range.first)
            return wrong(p, from, PL_ERR_ARGUMENT, "the end of this range is before its beginning");
        if (!pl_grow(&p->ranges, p->n_ranges, &p->range_room, 1, sizeof *p->ranges))
            return no_memory(p);
        p->ranges[p->n_ranges++] = range;
    }
    p->at++;
    made.n = p->n_ranges - made.first;
    return made.n ? push(p, made) : wrong(p, begin, PL_ERR_ARGUMENT, "this class has no characters");
}

/* Writes the parts from `first` on as an alternative. */
static void write_alternative(parser *p, int32_t rule, size_t first)
{
    pl_rules_alternative(p->rules, rule);
    for (size_t i = first; i < p->n_parts; i++) {
        const part *q = &p->parts[i];
        switch (q->kind) {
        case PART_LITERAL:
            if (q->n)
                pl_rules_literal(p->rules, p->bytes + q->first, q->n);
            break;
        case PART_CHARS: pl_rules_chars(p->rules, q->n ? p->ranges + q->first : NULL, q->n, q->negated); break;
        case PART_RULE: pl_rules_refer(p->rules, q->rule); break;
        case PART_REPEAT: pl_rules_repeat(p->rules, q->rule, q->min, q->max); break;
        }
    }
    p->n_parts = first;
}

static pl_status repeat_last(parser *p, int32_t min, int32_t max)
{
    part *last = &p->parts[p->n_parts - 1];
    if (last->kind != PART_RULE) {
        int32_t rule;
        PL_TRY(new_rule(p, p->current, &rule));
        write_alternative(p, rule, p->n_parts - 1);
        PL_TRY(push(p, (part){.rule = rule}));
        last = &p->parts[p->n_parts - 1];
    }
    last->kind = PART_REPEAT;
    last->min = min;
    last->max = max;
    return PL_OK;
}

/* {m} {m,} {,n} {m,n} */
static pl_status read_bounds(parser *p, int32_t *min, int32_t *max)
{
    size_t begin = p->at++;
    skip_space(p, true);
    *min = 0;
    if (peek(p, 0) != ',')
        PL_TRY(read_number(p, min));
    *max = *min;
    skip_space(p, true);
    if (peek(p, 0) == ',') {
        p->at++;
        skip_space(p, true);
        *max = PL_RULES_ANY;
        if (is_digit(peek(p, 0)))
            PL_TRY(read_number(p, max));
        skip_space(p, true);
    }
    if (peek(p, 0) != '}')
        return wrong(p, p->at, PL_ERR_ARGUMENT, "expected '}'");
    p->at++;
    if (*max != PL_RULES_ANY && *max < *min)
        return wrong(p, begin, PL_ERR_ARGUMENT, "the most of these repetitions are fewer than the least");
    return PL_OK;
}

static pl_status read_repetition(parser *p, size_t first)
{
    char c = peek(p, 0);
    size_t begin = p->at;
    int32_t min = c == '+', max = c == '?' ? 1 : PL_RULES_ANY;
    if (c == '{')
        PL_TRY(read_bounds(p, &min, &max));
    else
        p->at++;
    if (p->n_parts == first)
        return wrong(p, begin, PL_ERR_ARGUMENT, "there is nothing here to repeat");
    return repeat_last(p, min, max);
}

/* ---- rules ---- */

static pl_status read_alternatives(parser *p, int32_t rule, bool nested);

static pl_status read_group(parser *p)
{
    size_t begin = p->at++;
    int32_t rule;
    if (++p->depth > MOST_DEPTH)
        return wrong(p, begin, PL_ERR_UNSUPPORTED, "groups stand in each other too deeply");
    skip_space(p, true);
    PL_TRY(new_rule(p, p->current, &rule));
    PL_TRY(read_alternatives(p, rule, true));
    if (peek(p, 0) != ')')
        return wrong(p, p->at, PL_ERR_ARGUMENT, "expected ')'");
    p->at++;
    p->depth--;
    return push(p, (part){.kind = PART_RULE, .rule = rule});
}

static pl_status read_sequence(parser *p, bool nested)
{
    size_t first = p->n_parts, named;
    for (;; skip_space(p, nested)) {
        char c = peek(p, 0);
        if (c == '"') {
            PL_TRY(read_literal(p));
        } else if (c == '[') {
            PL_TRY(read_class(p));
        } else if (c == '(') {
            PL_TRY(read_group(p));
        } else if (c == '.') {
            p->at++;
            PL_TRY(push(p, (part){.kind = PART_CHARS, .negated = true}));
        } else if (c == '*' || c == '+' || c == '?' || c == '{') {
            PL_TRY(read_repetition(p, first));
        } else if (is_word(c)) {
            PL_TRY(read_name(p, &named));
            PL_TRY(push(p, (part){.kind = PART_RULE, .rule = p->names[named].rule}));
        } else if (c == '<' || c == '!') {
            return wrong(p, p->at, PL_ERR_UNSUPPORTED, "single tokens cannot be named here");
        } else {
            return PL_OK;
        }
    }
}

static pl_status read_alternatives(parser *p, int32_t rule, bool nested)
{
    for (;;) {
        size_t first = p->n_parts;
        PL_TRY(read_sequence(p, nested));
        write_alternative(p, rule, first);
        if (peek(p, 0) != '|')
            return PL_OK;
        p->at++;
        skip_space(p, true);
    }
}

static pl_status read_rule(parser *p)
{
    size_t begin = p->at, which = 0;
    PL_TRY(read_name(p, &which));
    skip_space(p, false);
    if (peek(p, 0) != ':' || peek(p, 1) != ':' || peek(p, 2) != '=')
        return wrong(p, p->at, PL_ERR_ARGUMENT, "expected '::='");
    if (p->names[which].defined)
        return wrong(p, begin, PL_ERR_ARGUMENT, "this rule has been given before");
    p->names[which].defined = true;
    p->at += 3;
    p->current = which;
    skip_space(p, true);
    PL_TRY(read_alternatives(p, p->names[which].rule, false));
    if (p->at < p->n && peek(p, 0) != '\n' && peek(p, 0) != '\r')
        return wrong(p, p->at, PL_ERR_ARGUMENT, "expected a string, a class, a rule or the end of the line");
    skip_space(p, true);
    return PL_OK;
}

static pl_status read_all(parser *p)
{
    size_t root;
    skip_space(p, true);
    while (p->at < p->n)
        PL_TRY(read_rule(p));
    for (size_t i = 0; i < p->n_names; i++)
        if (!p->names[i].defined)
            return wrong(p, p->names[i].used, PL_ERR_ARGUMENT, "there is no rule of this name");
    PL_TRY(find_name(p, "root", 4, &root));
    if (!p->names[root].defined)
        return pl_fail(p->err, PL_ERR_ARGUMENT, "there is no rule named root");
    return pl_rules_finish(p->rules, p->names[root].rule, rule_name, p, p->err);
}

pl_status pl_gbnf_compile(const char *text, size_t n, pl_rules **out, pl_error *err)
{
    parser p = {.text = text, .n = n, .err = err};
    pl_status status;
    PL_TRY_GOTO(pl_rules_create(&p.rules, err));
    PL_TRY_GOTO(read_all(&p));
    *out = p.rules;
    p.rules = NULL;
fail:
    pl_rules_free(p.rules);
    free(p.names);
    free(p.slot);
    free(p.owner);
    free(p.parts);
    free(p.bytes);
    free(p.ranges);
    return status;
}
