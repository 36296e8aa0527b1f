/* Reads a regular expression into groups, sequences and atoms. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/grammar/grow.h"
#include "host/grammar/regex_parts.h"
#include "host/text/utf8.h"

typedef struct reader {
    pl_regex *regex;
    const char *text;
    size_t n, at; /* the next byte */
    int depth;
    pl_error *err;
} reader;

pl_status pl_regex_fail(const pl_regex *regex, size_t place, pl_status status, pl_error *err, const char *fmt, ...)
{
    char what[256];
    size_t character = 1;
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    for (size_t i = 0; i < place; i++)
        character += ((unsigned char)regex->text[i] & 0xc0) != 0x80;
    return pl_fail(err, status, "regular expression, character %zu: %s", character, what);
}

static pl_status no_memory(const reader *r)
{
    return pl_fail_memory(r->err, r->n, "a regular expression");
}

static pl_status wrong(const reader *r, size_t place, const char *what)
{
    return pl_failed(pl_regex_fail(r->regex, place, PL_ERR_ARGUMENT, r->err, "%s", what));
}

static pl_status unsupported(const reader *r, size_t place, const char *what)
{
    return pl_failed(pl_regex_fail(r->regex, place, PL_ERR_UNSUPPORTED, r->err, "%s not supported", what));
}

static bool next_is(const reader *r, const char *text)
{
    size_t n = strlen(text);
    return r->n - r->at >= n && memcmp(r->text + r->at, text, n) == 0;
}

static bool take(reader *r, const char *text)
{
    if (!next_is(r, text))
        return false;
    r->at += strlen(text);
    return true;
}

/* ---- parts -------------------------------------------------------------------------------------- */

static int32_t new_atom(pl_regex *x, pl_atom atom)
{
    if (!pl_grow(&x->atoms, x->n_atoms, &x->atom_room, 1, sizeof *x->atoms))
        return PL_REGEX_NONE;
    atom.next = PL_REGEX_NONE;
    x->atoms[x->n_atoms] = atom;
    return (int32_t)x->n_atoms++;
}

int32_t pl_regex_new_chars(pl_regex *regex, const pl_char_set *set, size_t place)
{
    if (!pl_grow(&regex->ranges, regex->n_ranges, &regex->range_room, set->n, sizeof *regex->ranges))
        return PL_REGEX_NONE;
    pl_atom atom = {.kind = PL_ATOM_CHARS, .n = (int32_t)set->n, .min = 1, .max = 1, .place = place};
    atom.first = (int32_t)regex->n_ranges;
    if (set->n)
        memcpy(regex->ranges + regex->n_ranges, set->range, set->n * sizeof *set->range);
    regex->n_ranges += set->n;
    return new_atom(regex, atom);
}

/* Appends an empty sequence to a group. */
static pl_status begin_sequence(reader *r, int32_t group)
{
    pl_regex *x = r->regex;
    if (!pl_grow(&x->sequences, x->n_sequences, &x->sequence_room, 1, sizeof *x->sequences))
        return no_memory(r);
    int32_t sequence = (int32_t)x->n_sequences++;
    x->sequences[sequence] = (pl_sequence){PL_REGEX_NONE, PL_REGEX_NONE, PL_REGEX_NONE};
    pl_group *g = &x->groups[group];
    if (g->last_sequence == PL_REGEX_NONE)
        g->first_sequence = sequence;
    else
        x->sequences[g->last_sequence].next = sequence;
    g->last_sequence = sequence;
    return PL_OK;
}

static void append(pl_regex *x, int32_t group, int32_t atom)
{
    pl_sequence *sequence = &x->sequences[x->groups[group].last_sequence];
    if (sequence->last_atom == PL_REGEX_NONE)
        sequence->first_atom = atom;
    else
        x->atoms[sequence->last_atom].next = atom;
    sequence->last_atom = atom;
}

/* ---- characters --------------------------------------------------------------------------------- */

static bool read_hex(reader *r, int digits, uint32_t *code)
{
    uint32_t value = 0;
    if (r->n - r->at < (size_t)digits)
        return false;
    for (int i = 0; i < digits; i++) {
        char c = r->text[r->at + (size_t)i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            return false;
        value = value << 4 | digit;
    }
    r->at += (size_t)digits;
    *code = value;
    return true;
}

/* After \u. */
static pl_status read_unicode(reader *r, size_t place, uint32_t *code)
{
    uint32_t low;
    if (take(r, "{")) {
        int digits = 0;
        while (digits < 7 && r->at + (size_t)digits < r->n && r->text[r->at + (size_t)digits] != '}')
            digits++;
        if (digits < 1 || digits > 6 || !read_hex(r, digits, code) || !take(r, "}") || *code > 0x10ffff)
            return wrong(r, place, "\\u{ needs a code point in up to six hexadecimal digits and }");
    } else if (!read_hex(r, 4, code)) {
        return wrong(r, place, "\\u needs four hexadecimal digits");
    } else if (*code >= 0xd800 && *code < 0xdc00 && take(r, "\\u") && read_hex(r, 4, &low) && low >= 0xdc00 &&
               low < 0xe000) {
        *code = 0x10000 + ((*code & 0x3ff) << 10 | (low & 0x3ff));
    }
    if (*code >= 0xd800 && *code < 0xe000)
        return unsupported(r, place, "half of a surrogate pair is");
    return PL_OK;
}

/* After a backslash: one character. */
static pl_status read_escape(reader *r, size_t place, uint32_t *code)
{
    static const char letters[] = "nrtfv", values[] = "\n\r\t\f\v";
    char c = r->text[r->at++];
    const char *letter = strchr(letters, c);
    if (c && letter) {
        *code = (unsigned char)values[letter - letters];
    } else if (c == '0' && !(r->at < r->n && r->text[r->at] >= '0' && r->text[r->at] <= '9')) {
        *code = 0;
    } else if (c == 'x') {
        if (!read_hex(r, 2, code))
            return wrong(r, place, "\\x needs two hexadecimal digits");
    } else if (c == 'u') {
        return read_unicode(r, place, code);
    } else if (c == 'c') {
        char l = r->at < r->n ? (char)(r->text[r->at] | 0x20) : '\0';
        if (l < 'a' || l > 'z')
            return wrong(r, place, "\\c needs a letter");
        *code = (uint32_t)(l - 'a' + 1);
        r->at++;
    } else if (c >= '0' && c <= '9') {
        return unsupported(r, place, "a back-reference or octal escape is");
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        char what[] = "\\? is";
        what[1] = c;
        return unsupported(r, place, what);
    } else {
        r->at--;
        r->at += pl_utf8_next(r->text + r->at, r->n - r->at, code);
    }
    return PL_OK;
}

static bool is_class_letter(char c)
{
    return c && strchr("dwsDWS", c);
}

/* One member of a class: a character, or \d and its like, which are added at once (*single is false). */
static pl_status read_member(reader *r, pl_char_set *set, uint32_t *code, bool *single)
{
    size_t place = r->at;
    *single = true;
    if (!take(r, "\\")) {
        r->at += pl_utf8_next(r->text + r->at, r->n - r->at, code);
        return PL_OK;
    }
    if (r->at == r->n)
        return wrong(r, place, "nothing follows the backslash");
    if (is_class_letter(r->text[r->at])) {
        *single = false;
        return pl_char_set_add_class(set, r->text[r->at++]) ? PL_OK : no_memory(r);
    }
    if (take(r, "b")) {
        *code = '\b';
        return PL_OK;
    }
    return read_escape(r, place, code);
}

static pl_status read_members(reader *r, size_t place, pl_char_set *set)
{
    while (!take(r, "]")) {
        uint32_t first = 0, last;
        bool single, end_single = true;
        size_t from = r->at;
        if (r->at == r->n)
            return wrong(r, place, "the class has no end: ] is missing");
        PL_TRY(read_member(r, set, &first, &single));
        last = first;
        if (next_is(r, "-") && r->at + 1 < r->n && r->text[r->at + 1] != ']') {
            r->at++;
            PL_TRY(read_member(r, set, &last, &end_single));
            if (!single || !end_single || last < first)
                return wrong(r, from, "the range is not from a lower to a higher character");
        }
        if (single && !pl_char_set_add(set, first, last))
            return no_memory(r);
    }
    return PL_OK;
}

/* After "[". */
static pl_status read_class(reader *r, size_t place, pl_char_set *set, bool *negated)
{
    *negated = take(r, "^");
    if (next_is(r, "]"))
        return unsupported(r, place, "a class that begins with ] or is empty is");
    return read_members(r, place, set);
}

static pl_status read_set(reader *r, pl_char_set *set)
{
    size_t place = r->at;
    bool negated = false, added = true;
    if (take(r, "[")) {
        PL_TRY(read_class(r, place, set, &negated));
    } else if (take(r, ".")) {
        negated = true;
        added = pl_char_set_add(set, '\n', '\n') && pl_char_set_add(set, '\r', '\r') &&
                pl_char_set_add(set, 0x2028, 0x2029);
    } else if (next_is(r, "\\") && r->at + 1 < r->n && is_class_letter(r->text[r->at + 1])) {
        added = pl_char_set_add_class(set, r->text[r->at + 1]);
        r->at += 2;
    } else {
        uint32_t code;
        if (!take(r, "\\"))
            r->at += pl_utf8_next(r->text + r->at, r->n - r->at, &code);
        else if (r->at == r->n)
            return wrong(r, place, "nothing follows the backslash");
        else
            PL_TRY(read_escape(r, place, &code));
        added = pl_char_set_add(set, code, code);
    }
    return added && pl_char_set_finish(set, negated) ? PL_OK : no_memory(r);
}

static pl_status read_chars(reader *r, int32_t *atom)
{
    size_t place = r->at;
    pl_char_set set = {0};
    pl_status status = read_set(r, &set);
    if (status == PL_OK) {
        *atom = pl_regex_new_chars(r->regex, &set, place);
        if (*atom == PL_REGEX_NONE)
            status = no_memory(r);
    }
    pl_char_set_free(&set);
    return status;
}

/* ---- repetitions -------------------------------------------------------------------------------- */

static pl_status read_number(reader *r, int32_t *value)
{
    size_t place = r->at;
    int64_t number = 0;
    for (; r->at < r->n && r->text[r->at] >= '0' && r->text[r->at] <= '9'; r->at++) {
        number = number * 10 + (r->text[r->at] - '0');
        if (number > PL_RULES_MOST)
            return pl_regex_fail(r->regex, place, PL_ERR_UNSUPPORTED, r->err,
                                 "a repetition of more than %d is not supported", PL_RULES_MOST);
    }
    *value = (int32_t)number;
    return PL_OK;
}

/* Whether "{" begins a repetition; elsewhere it stands for itself. */
static bool at_bounds(const reader *r)
{
    size_t i = r->at + 1;
    if (!next_is(r, "{") || i == r->n || r->text[i] < '0' || r->text[i] > '9')
        return false;
    while (i < r->n && ((r->text[i] >= '0' && r->text[i] <= '9') || r->text[i] == ','))
        i++;
    return i < r->n && r->text[i] == '}';
}

static pl_status read_bounds(reader *r, pl_atom *atom)
{
    size_t place = r->at++;
    PL_TRY(read_number(r, &atom->min));
    atom->max = atom->min;
    if (take(r, ",")) {
        if (next_is(r, "}"))
            atom->max = PL_RULES_ANY;
        else
            PL_TRY(read_number(r, &atom->max));
    }
    if (!take(r, "}"))
        return wrong(r, place, "a repetition is {m}, {m,} or {m,n}");
    if (atom->max != PL_RULES_ANY && atom->max < atom->min)
        return wrong(r, place, "the bounds of the repetition are out of order");
    return PL_OK;
}

static pl_status read_repetition(reader *r, pl_atom *atom)
{
    size_t place = r->at;
    if (take(r, "*")) {
        atom->min = 0;
        atom->max = PL_RULES_ANY;
    } else if (take(r, "+")) {
        atom->max = PL_RULES_ANY;
    } else if (take(r, "?")) {
        atom->min = 0;
    } else if (at_bounds(r)) {
        PL_TRY(read_bounds(r, atom));
    } else if (next_is(r, "{,") && r->at + 2 < r->n && r->text[r->at + 2] >= '0' && r->text[r->at + 2] <= '9') {
        return unsupported(r, place, "{,n} is read differently by everyone and");
    } else {
        return PL_OK;
    }
    if (atom->kind == PL_ATOM_BEGIN || atom->kind == PL_ATOM_END)
        return wrong(r, place, "^ and $ cannot be repeated");
    take(r, "?");
    return PL_OK;
}

/* ---- groups ------------------------------------------------------------------------------------- */

static pl_status read_group(reader *r, int32_t *group);

/* After "(?": what kind of group. */
static pl_status read_group_kind(reader *r, size_t place)
{
    if (take(r, ":"))
        return PL_OK;
    if (next_is(r, "=") || next_is(r, "!") || next_is(r, "<=") || next_is(r, "<!"))
        return unsupported(r, place, "look-around is");
    if (!take(r, "<") && !take(r, "P<"))
        return unsupported(r, place, "this kind of group is");
    const char *end = memchr(r->text + r->at, '>', r->n - r->at);
    if (!end)
        return wrong(r, place, "the group's name has no end: > is missing");
    r->at = (size_t)(end - r->text) + 1;
    return PL_OK;
}

static pl_status read_parentheses(reader *r, int32_t *atom)
{
    size_t place = r->at++;
    int32_t group;
    if (take(r, "?"))
        PL_TRY(read_group_kind(r, place));
    if (++r->depth > PL_REGEX_DEPTH)
        return unsupported(r, place, "so many groups within each other are");
    PL_TRY(read_group(r, &group));
    r->depth--;
    if (!take(r, ")"))
        return wrong(r, place, "the group has no end: ) is missing");
    *atom = new_atom(r->regex, (pl_atom){.kind = PL_ATOM_GROUP, .first = group, .min = 1, .max = 1, .place = place});
    return *atom == PL_REGEX_NONE ? no_memory(r) : PL_OK;
}

static pl_status read_atom(reader *r, int32_t *atom)
{
    size_t place = r->at;
    bool begin = next_is(r, "^");
    if (next_is(r, "("))
        return read_parentheses(r, atom);
    if (next_is(r, "*") || next_is(r, "+") || next_is(r, "?") || at_bounds(r))
        return wrong(r, place, "there is nothing to repeat");
    if (!begin && !next_is(r, "$"))
        return read_chars(r, atom);
    r->at++;
    *atom = new_atom(r->regex,
                     (pl_atom){.kind = begin ? PL_ATOM_BEGIN : PL_ATOM_END, .min = 1, .max = 1, .place = place});
    return *atom == PL_REGEX_NONE ? no_memory(r) : PL_OK;
}

static pl_status read_group(reader *r, int32_t *group)
{
    pl_regex *x = r->regex;
    if (!pl_grow(&x->groups, x->n_groups, &x->group_room, 1, sizeof *x->groups))
        return no_memory(r);
    *group = (int32_t)x->n_groups++;
    x->groups[*group] = (pl_group){PL_REGEX_NONE, PL_REGEX_NONE};
    PL_TRY(begin_sequence(r, *group));
    while (r->at < r->n && !next_is(r, ")")) {
        int32_t atom = PL_REGEX_NONE;
        if (take(r, "|")) {
            PL_TRY(begin_sequence(r, *group));
            continue;
        }
        PL_TRY(read_atom(r, &atom));
        PL_TRY(read_repetition(r, &x->atoms[atom]));
        append(x, *group, atom);
    }
    return PL_OK;
}

pl_status pl_regex_read(pl_regex *regex, const char *text, size_t n, pl_error *err)
{
    int32_t whole;
    *regex = (pl_regex){.text = text, .n = n};
    reader r = {.regex = regex, .text = text, .n = n, .err = err};
    if (n > PL_REGEX_BYTES)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "a regular expression of more than %d bytes is not supported",
                       PL_REGEX_BYTES);
    if (!pl_utf8_valid(text, n))
        return pl_fail(err, PL_ERR_ARGUMENT, "the regular expression is not UTF-8");
    PL_TRY(read_group(&r, &whole));
    if (r.at < n)
        return wrong(&r, r.at, "a ) without its (");
    return PL_OK;
}

void pl_regex_free(pl_regex *regex)
{
    free(regex->atoms);
    free(regex->sequences);
    free(regex->groups);
    free(regex->ranges);
    *regex = (pl_regex){0};
}
