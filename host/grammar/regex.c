#include "host/grammar/regex.h"

#include <stdlib.h>

#include "host/grammar/json_rules.h"
#include "host/grammar/regex_parts.h"

#define NO_BOUND INT64_MAX

typedef struct writer {
    pl_regex *regex;
    pl_rules *rules;
    pl_regex_use use;
    int64_t min, max; /* characters of the whole; max: NO_BOUND */
    int32_t whole;    /* the rule */
    pl_error *err;
} writer;

static pl_status no_memory(const writer *w)
{
    return pl_fail_memory(w->err, w->regex->n, "a regular expression");
}

/* ---- lengths ------------------------------------------------------------------------------------ */

typedef struct span {
    int64_t min, max; /* characters; max: NO_BOUND */
} span;

static int64_t add(int64_t a, int64_t b)
{
    return a > NO_BOUND - b ? NO_BOUND : a + b;
}

static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    if (a == 0 || b == 0)
        return 0;
    return __builtin_mul_overflow(a, b, &product) ? NO_BOUND : product;
}

static span group_span(const pl_regex *x, int32_t group);

static span atom_span(const pl_regex *x, const pl_atom *atom)
{
    span one = {0, 0};
    if (atom->kind == PL_ATOM_CHARS)
        one = (span){1, 1};
    else if (atom->kind == PL_ATOM_GROUP)
        one = group_span(x, atom->first);
    return (span){times(one.min, atom->min), times(one.max, atom->max == PL_RULES_ANY ? NO_BOUND : atom->max)};
}

static span sequence_span(const pl_regex *x, int32_t sequence)
{
    span sum = {0, 0};
    for (int32_t a = x->sequences[sequence].first_atom; a != PL_REGEX_NONE; a = x->atoms[a].next) {
        span s = atom_span(x, &x->atoms[a]);
        sum = (span){add(sum.min, s.min), add(sum.max, s.max)};
    }
    return sum;
}

static span group_span(const pl_regex *x, int32_t group)
{
    span all = {NO_BOUND, 0};
    for (int32_t s = x->groups[group].first_sequence; s != PL_REGEX_NONE; s = x->sequences[s].next) {
        span one = sequence_span(x, s);
        all.min = one.min < all.min ? one.min : all.min;
        all.max = one.max > all.max ? one.max : all.max;
    }
    return all;
}

/* The one atom of a sequence that varies in length, if it is a repeated character; NONE otherwise. */
static int32_t only_variable(const pl_regex *x, int32_t sequence)
{
    int32_t found = PL_REGEX_NONE;
    for (int32_t a = x->sequences[sequence].first_atom; a != PL_REGEX_NONE; a = x->atoms[a].next) {
        span s = atom_span(x, &x->atoms[a]);
        if (s.min == s.max)
            continue;
        if (found != PL_REGEX_NONE || x->atoms[a].kind != PL_ATOM_CHARS)
            return PL_REGEX_NONE;
        found = a;
    }
    return found;
}

/* Narrows a sequence to the bounds of the whole; *possible is false where nothing is left. */
static pl_status fit(writer *w, int32_t sequence, bool *possible)
{
    pl_regex *x = w->regex;
    span all = sequence_span(x, sequence);
    *possible = all.max >= w->min && all.min <= w->max;
    if (!*possible || (all.min >= w->min && all.max <= w->max))
        return PL_OK;
    int32_t variable = only_variable(x, sequence);
    if (variable == PL_REGEX_NONE || !x->atoms)
        return pl_fail(w->err, PL_ERR_UNSUPPORTED,
                       "bounds of the length beside a regular expression are supported where one repeated character is "
                       "all that varies in its length");
    pl_atom *atom = &x->atoms[variable];
    int64_t rest = all.min - atom->min, min = w->min - rest, max = w->max == NO_BOUND ? NO_BOUND : w->max - rest;
    if (min > PL_RULES_MOST)
        return pl_fail(w->err, PL_ERR_UNSUPPORTED, "more than %d characters are not supported", PL_RULES_MOST);
    if (max != NO_BOUND && max > PL_RULES_MOST)
        max = PL_RULES_MOST;
    if (min > atom->min)
        atom->min = (int32_t)min;
    if (max != NO_BOUND && (atom->max == PL_RULES_ANY || max < atom->max))
        atom->max = (int32_t)max;
    return PL_OK;
}

/* ---- rules -------------------------------------------------------------------------------------- */

static pl_status make_group(writer *w, int32_t group, int32_t *rule);

static bool must_escape(const pl_code_range *range, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (range[i].first < 0x20 || (range[i].first <= '"' && range[i].last >= '"') ||
            (range[i].first <= '\\' && range[i].last >= '\\'))
            return true;
    return false;
}

/* NULL: it has none. */
static const pl_code_range *ranges_of(const pl_regex *x, const pl_atom *atom)
{
    return atom->n ? x->ranges + atom->first : NULL;
}

static pl_status make_chars(writer *w, pl_atom *atom)
{
    const pl_code_range *range = ranges_of(w->regex, atom);
    size_t n = (size_t)atom->n;
    if (w->use == PL_REGEX_IN_JSON && must_escape(range, atom->n)) {
        pl_code_range *bare = calloc(n + PL_JSON_RULES_SPLITS, sizeof *bare);
        if (!bare)
            return no_memory(w);
        atom->rule = pl_json_rules_chars(w->rules, range, n, bare);
        free(bare);
    } else if (atom->min != 1 || atom->max != 1) {
        atom->rule = pl_rules_new(w->rules);
        pl_rules_alternative(w->rules, atom->rule);
        pl_rules_chars(w->rules, range, n, false);
    }
    return PL_OK;
}

static pl_status make_atom(writer *w, pl_atom *atom)
{
    atom->rule = PL_REGEX_NONE;
    if (atom->kind == PL_ATOM_CHARS)
        return make_chars(w, atom);
    if (atom->kind == PL_ATOM_GROUP)
        return make_group(w, atom->first, &atom->rule);
    return pl_regex_fail(w->regex, atom->place, PL_ERR_UNSUPPORTED, w->err,
                         "%s is supported where the text %s, not within it", atom->kind == PL_ATOM_BEGIN ? "^" : "$",
                         atom->kind == PL_ATOM_BEGIN ? "begins" : "ends");
}

/* An alternative of `rule`. */
static pl_status add_sequence(writer *w, int32_t rule, int32_t sequence)
{
    pl_regex *x = w->regex;
    int32_t first = x->sequences[sequence].first_atom;
    for (int32_t a = first; a != PL_REGEX_NONE; a = x->atoms[a].next)
        PL_TRY(make_atom(w, &x->atoms[a]));
    pl_rules_alternative(w->rules, rule);
    for (int32_t a = first; a != PL_REGEX_NONE; a = x->atoms[a].next) {
        const pl_atom *atom = &x->atoms[a];
        if (atom->rule == PL_REGEX_NONE)
            pl_rules_chars(w->rules, ranges_of(x, atom), (size_t)atom->n, false);
        else if (atom->min == 1 && atom->max == 1)
            pl_rules_refer(w->rules, atom->rule);
        else
            pl_rules_repeat(w->rules, atom->rule, atom->min, atom->max);
    }
    return PL_OK;
}

static pl_status make_group(writer *w, int32_t group, int32_t *rule)
{
    *rule = pl_rules_new(w->rules);
    for (int32_t s = w->regex->groups[group].first_sequence; s != PL_REGEX_NONE; s = w->regex->sequences[s].next)
        PL_TRY(add_sequence(w, *rule, s));
    return PL_OK;
}

/* ---- where the text begins and ends ------------------------------------------------------------- */

/* An atom that is any characters, where the expression may match within the text. */
static pl_status make_anything(writer *w, int32_t *atom)
{
    pl_char_set set = {0};
    bool made = pl_char_set_finish(&set, true);
    *atom = made ? pl_regex_new_chars(w->regex, &set, 0) : PL_REGEX_NONE;
    pl_char_set_free(&set);
    if (*atom == PL_REGEX_NONE)
        return no_memory(w);
    w->regex->atoms[*atom].min = 0;
    w->regex->atoms[*atom].max = PL_RULES_ANY;
    return PL_OK;
}

/* Takes ^ from the front of a sequence and $ from its end; whether they were there. */
static void take_anchors(pl_regex *x, pl_sequence *sequence, bool *begin, bool *end)
{
    while (sequence->first_atom != PL_REGEX_NONE && x->atoms[sequence->first_atom].kind == PL_ATOM_BEGIN) {
        sequence->first_atom = x->atoms[sequence->first_atom].next;
        *begin = true;
    }
    int32_t *tail = &sequence->first_atom;
    for (int32_t a = sequence->first_atom; a != PL_REGEX_NONE; a = x->atoms[a].next)
        if (x->atoms[a].kind != PL_ATOM_END)
            tail = &x->atoms[a].next;
    *end = *end || *tail != PL_REGEX_NONE;
    *tail = PL_REGEX_NONE;
}

static pl_status open_ends(writer *w, int32_t sequence, bool begin, bool end)
{
    pl_regex *x = w->regex;
    int32_t before = PL_REGEX_NONE, after = PL_REGEX_NONE;
    if (!begin)
        PL_TRY(make_anything(w, &before));
    if (!end)
        PL_TRY(make_anything(w, &after));
    int32_t *tail = &x->sequences[sequence].first_atom;
    if (before != PL_REGEX_NONE) {
        x->atoms[before].next = *tail;
        *tail = before;
    }
    while (*tail != PL_REGEX_NONE)
        tail = &x->atoms[*tail].next;
    *tail = after;
    return PL_OK;
}

/* The sequences of the whole, and those of groups that stand there alone, as alternatives. */
static pl_status add_whole(writer *w, int32_t group, bool begun, bool ended)
{
    pl_regex *x = w->regex;
    for (int32_t s = x->groups[group].first_sequence; s != PL_REGEX_NONE; s = x->sequences[s].next) {
        bool begin = begun, end = ended, possible;
        take_anchors(x, &x->sequences[s], &begin, &end);
        int32_t first = x->sequences[s].first_atom;
        const pl_atom *atom = first == PL_REGEX_NONE ? NULL : &x->atoms[first];
        if (atom && atom->next == PL_REGEX_NONE && atom->kind == PL_ATOM_GROUP && atom->min == 1 && atom->max == 1) {
            PL_TRY(add_whole(w, atom->first, begin, end));
            continue;
        }
        if (w->use == PL_REGEX_IN_JSON)
            PL_TRY(open_ends(w, s, begin, end));
        PL_TRY(fit(w, s, &possible));
        if (possible)
            PL_TRY(add_sequence(w, w->whole, s));
    }
    return PL_OK;
}

pl_status pl_regex_add_sized(pl_rules *rules, const char *text, size_t n, pl_regex_use use, int64_t min, int64_t max,
                             int32_t *rule, pl_error *err)
{
    pl_regex regex;
    pl_status status = pl_regex_read(&regex, text, n, err);
    if (status == PL_OK) {
        *rule = pl_rules_new(rules);
        writer w = {&regex, rules, use, min, max < 0 ? NO_BOUND : max, *rule, err};
        status = add_whole(&w, 0, use == PL_REGEX_WHOLE, use == PL_REGEX_WHOLE);
    }
    pl_regex_free(&regex);
    return status;
}

pl_status pl_regex_add(pl_rules *rules, const char *text, size_t n, pl_regex_use use, int32_t *rule, pl_error *err)
{
    return pl_regex_add_sized(rules, text, n, use, 0, -1, rule, err);
}

pl_status pl_regex_compile(const char *text, size_t n, pl_rules **out, pl_error *err)
{
    pl_rules *rules;
    int32_t root;
    PL_TRY(pl_rules_create(&rules, err));
    pl_status status = pl_regex_add(rules, text, n, PL_REGEX_WHOLE, &root, err);
    if (status == PL_OK)
        status = pl_rules_finish(rules, root, NULL, NULL, err);
    if (status == PL_OK)
        *out = rules;
    else
        pl_rules_free(rules);
    return status;
}
