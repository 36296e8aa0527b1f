#include "host/grammar/json_rules.h"

#define LAST 0x10ffff

static void literal(pl_rules *rules, int32_t rule, const char *text, size_t n)
{
    pl_rules_alternative(rules, rule);
    pl_rules_literal(rules, text, n);
}

static int32_t one_of(pl_rules *rules, const pl_code_range *ranges, size_t n)
{
    int32_t rule = pl_rules_new(rules);
    pl_rules_alternative(rules, rule);
    pl_rules_chars(rules, ranges, n, false);
    return rule;
}

/* ---- characters --------------------------------------------------------------------------------- */

static const pl_code_range as_is[] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, LAST}};
static const char short_names[] = "btn?fr"; /* of 0x08 to 0x0d; 0x0b has none */

static bool has(const pl_code_range *ranges, size_t n, uint32_t code)
{
    for (size_t i = 0; i < n; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

static void add_escaped(pl_rules *rules, int32_t rule, uint32_t code)
{
    static const char hex[] = "0123456789abcdef";
    if (code == '"' || code == '\\')
        literal(rules, rule, (char[]){'\\', (char)code}, 2);
    else if (code >= '\b' && code <= '\r' && code != '\v')
        literal(rules, rule, (char[]){'\\', short_names[code - '\b']}, 2);
    else
        literal(rules, rule, (char[]){'\\', 'u', '0', '0', hex[code >> 4], hex[code & 15]}, 6);
}

/* What of the ranges, which are apart, needs no escape. */
static size_t unescaped(const pl_code_range *ranges, size_t n, pl_code_range *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof as_is / sizeof *as_is; k++) {
            uint32_t first = ranges[i].first > as_is[k].first ? ranges[i].first : as_is[k].first;
            uint32_t last = ranges[i].last < as_is[k].last ? ranges[i].last : as_is[k].last;
            if (first <= last)
                out[count++] = (pl_code_range){first, last};
        }
    return count;
}

int32_t pl_json_rules_chars(pl_rules *rules, const pl_code_range *ranges, size_t n, pl_code_range *bare)
{
    size_t n_bare = unescaped(ranges, n, bare);
    int32_t rule = pl_rules_new(rules);
    if (n_bare) {
        pl_rules_alternative(rules, rule);
        pl_rules_chars(rules, bare, n_bare, false);
    }
    for (uint32_t code = 0; code <= '\\'; code++)
        if ((code < 0x20 || code == '"' || code == '\\') && has(ranges, n, code))
            add_escaped(rules, rule, code);
    return rule;
}

/* \uHHHH for any character: four digits, or two times four for those above U+FFFF. */
static void add_hex_escapes(pl_rules *rules, int32_t rule)
{
    int32_t hex = one_of(rules, (pl_code_range[]){{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, 3);
    int32_t not_d = one_of(rules, (pl_code_range[]){{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}}, 5);
    pl_code_range d[] = {{'D', 'D'}, {'d', 'd'}}, low[] = {{'0', '7'}};
    pl_code_range first_half[] = {{'8', '9'}, {'A', 'B'}, {'a', 'b'}}, second_half[] = {{'C', 'F'}, {'c', 'f'}};
    literal(rules, rule, "\\u", 2);
    pl_rules_refer(rules, not_d);
    pl_rules_repeat(rules, hex, 3, 3);
    literal(rules, rule, "\\u", 2);
    pl_rules_chars(rules, d, 2, false);
    pl_rules_chars(rules, low, 1, false);
    pl_rules_repeat(rules, hex, 2, 2);
    literal(rules, rule, "\\u", 2);
    pl_rules_chars(rules, d, 2, false);
    pl_rules_chars(rules, first_half, 3, false);
    pl_rules_repeat(rules, hex, 2, 2);
    pl_rules_literal(rules, "\\u", 2);
    pl_rules_chars(rules, d, 2, false);
    pl_rules_chars(rules, second_half, 2, false);
    pl_rules_repeat(rules, hex, 2, 2);
}

static int32_t any_char(pl_rules *rules)
{
    static const char after_backslash[] = "\"\\/bfnrt";
    pl_byte_set set = {{0}};
    for (const char *c = after_backslash; *c; c++)
        set.bits[(unsigned char)*c >> 6] |= (uint64_t)1 << (*c & 63);
    int32_t rule = one_of(rules, as_is, sizeof as_is / sizeof *as_is);
    literal(rules, rule, "\\", 1);
    pl_rules_bytes(rules, &set);
    add_hex_escapes(rules, rule);
    return rule;
}

/* ---- white space -------------------------------------------------------------------------------- */

static void add_blanks(pl_rules *rules, int32_t rule)
{
    int32_t blank = one_of(rules, (pl_code_range[]){{' ', ' '}}, 1);
    literal(rules, rule, "\n", 1);
    pl_rules_repeat(rules, blank, 0, PL_JSON_BLANKS);
}

static void make_space(pl_json_rules *text)
{
    pl_rules *rules = text->rules;
    text->line = pl_rules_new(rules);
    text->spaced = pl_rules_new(rules);
    text->gap = pl_rules_new(rules);
    literal(rules, text->line, "", 0);
    add_blanks(rules, text->line);
    literal(rules, text->spaced, "", 0);
    literal(rules, text->spaced, " ", 1);
    literal(rules, text->gap, "", 0);
    literal(rules, text->gap, " ", 1);
    add_blanks(rules, text->gap);
}

/* ---- values ------------------------------------------------------------------------------------- */

static int32_t quoted(pl_rules *rules, int32_t character, int32_t min, int32_t max)
{
    int32_t rule = pl_rules_new(rules);
    literal(rules, rule, "\"", 1);
    pl_rules_repeat(rules, character, min, max);
    pl_rules_literal(rules, "\"", 1);
    return rule;
}

int32_t pl_json_rules_string(const pl_json_rules *text, int32_t min, int32_t max)
{
    return quoted(text->rules, text->any_char, min, max);
}

static void add_exponent(const pl_json_rules *text, int32_t rule)
{
    pl_rules *rules = text->rules;
    pl_code_range e[] = {{'E', 'E'}, {'e', 'e'}}, sign[] = {{'+', '+'}, {'-', '-'}};
    int32_t signs = one_of(rules, sign, 2), size = pl_rules_new(rules);
    pl_rules_alternative(rules, size);
    pl_rules_repeat(rules, text->digit, 1, 2);
    literal(rules, size, "1", 1);
    pl_rules_repeat(rules, text->digit, 2, 2);
    literal(rules, rule, "", 0);
    pl_rules_alternative(rules, rule);
    pl_rules_chars(rules, e, 2, false);
    pl_rules_repeat(rules, signs, 0, 1);
    pl_rules_refer(rules, size);
}

static int32_t any_number(const pl_json_rules *text)
{
    pl_rules *rules = text->rules;
    pl_code_range not_zero = {'1', '9'};
    int32_t minus = pl_rules_new(rules), whole = pl_rules_new(rules), fraction = pl_rules_new(rules);
    int32_t exponent = pl_rules_new(rules), rule = pl_rules_new(rules);
    literal(rules, minus, "-", 1);
    literal(rules, whole, "0", 1);
    pl_rules_alternative(rules, whole);
    pl_rules_chars(rules, &not_zero, 1, false);
    pl_rules_repeat(rules, text->digit, 0, PL_JSON_DIGITS - 1);
    literal(rules, fraction, ".", 1);
    pl_rules_repeat(rules, text->digit, 1, PL_JSON_DIGITS);
    add_exponent(text, exponent);
    pl_rules_alternative(rules, rule);
    pl_rules_repeat(rules, minus, 0, 1);
    pl_rules_refer(rules, whole);
    pl_rules_repeat(rules, fraction, 0, 1);
    pl_rules_refer(rules, exponent);
    return rule;
}

int32_t pl_json_rules_list(const pl_json_rules *text, const char *brackets, int32_t item, int32_t min, int32_t max)
{
    pl_rules *rules = text->rules;
    int32_t rule = pl_rules_new(rules), next = pl_rules_new(rules);
    literal(rules, next, ",", 1);
    pl_rules_refer(rules, text->gap);
    pl_rules_refer(rules, item);
    if (min == 0)
        literal(rules, rule, brackets, 2);
    if (max == 0)
        return rule;
    literal(rules, rule, brackets, 1);
    pl_rules_refer(rules, text->line);
    pl_rules_refer(rules, item);
    pl_rules_repeat(rules, next, min ? min - 1 : 0, max == PL_RULES_ANY ? max : max - 1);
    pl_rules_refer(rules, text->line);
    pl_rules_literal(rules, brackets + 1, 1);
    return rule;
}

int32_t pl_json_rules_member(const pl_json_rules *text, int32_t key, int32_t value)
{
    int32_t rule = pl_rules_new(text->rules);
    pl_rules_alternative(text->rules, rule);
    pl_rules_refer(text->rules, key);
    pl_rules_literal(text->rules, ":", 1);
    pl_rules_refer(text->rules, text->spaced);
    pl_rules_refer(text->rules, value);
    return rule;
}

static void make_values(pl_json_rules *text)
{
    static const char *const words[] = {"null", "true", "false"};
    pl_rules *rules = text->rules;
    int32_t value = pl_rules_new(rules);
    text->any_string = pl_json_rules_string(text, 0, PL_RULES_ANY);
    text->any_number = any_number(text);
    text->any_object = pl_json_rules_list(text, "{}", pl_json_rules_member(text, text->any_string, value), 0,
                                          PL_RULES_ANY);
    text->any_array = pl_json_rules_list(text, "[]", value, 0, PL_RULES_ANY);
    for (size_t i = 0; i < 3; i++)
        literal(rules, value, words[i], i == 2 ? 5 : 4);
    int32_t others[] = {text->any_string, text->any_number, text->any_object, text->any_array};
    for (size_t i = 0; i < 4; i++) {
        pl_rules_alternative(rules, value);
        pl_rules_refer(rules, others[i]);
    }
    text->any_value = value;
}

void pl_json_rules_init(pl_json_rules *text, pl_rules *rules)
{
    pl_code_range bare[1 + PL_JSON_RULES_SPLITS];
    *text = (pl_json_rules){.rules = rules};
    text->digit = one_of(rules, (pl_code_range[]){{'0', '9'}}, 1);
    text->any_char = any_char(rules);
    text->plain_char = pl_json_rules_chars(rules, (pl_code_range[]){{0, LAST}}, 1, bare);
    make_space(text);
    make_values(text);
}
