/* A regular expression as it was read: groups of sequences of atoms, linked by index. */
#ifndef PL_GRAMMAR_REGEX_PARTS_H
#define PL_GRAMMAR_REGEX_PARTS_H

#include "host/grammar/rules.h"

#define PL_REGEX_NONE (-1)
#define PL_REGEX_DEPTH 200   /* groups within each other */
#define PL_REGEX_BYTES 65536 /* longest expression */

typedef struct pl_char_set {
    pl_code_range *range; /* sorted, apart, without surrogates once pl_char_set_finish() is done */
    size_t n, room;
} pl_char_set;

/* Each false without memory. */
bool pl_char_set_add(pl_char_set *set, uint32_t first, uint32_t last);
bool pl_char_set_add_class(pl_char_set *set, char letter); /* of "dwsDWS" */
bool pl_char_set_finish(pl_char_set *set, bool negated);
void pl_char_set_free(pl_char_set *set);

typedef enum pl_atom_kind { PL_ATOM_CHARS, PL_ATOM_GROUP, PL_ATOM_BEGIN, PL_ATOM_END } pl_atom_kind;

typedef struct pl_atom {
    pl_atom_kind kind;
    int32_t first; /* CHARS: index of the first of its n ranges; GROUP: index of the group */
    int32_t n;
    int32_t min, max; /* max: PL_RULES_ANY */
    size_t place;     /* in the text, in bytes */
    int32_t next;     /* of the sequence */
    int32_t rule;     /* made of it; NONE: what it matches is appended directly */
} pl_atom;

typedef struct pl_sequence {
    int32_t first_atom, last_atom;
    int32_t next; /* of the group */
} pl_sequence;

typedef struct pl_group {
    int32_t first_sequence, last_sequence;
} pl_group;

typedef struct pl_regex {
    const char *text;
    size_t n;
    pl_atom *atoms;
    pl_sequence *sequences;
    pl_group *groups; /* the first is the whole */
    pl_code_range *ranges;
    size_t n_atoms, n_sequences, n_groups, n_ranges;
    size_t atom_room, sequence_room, group_room, range_room;
} pl_regex;

pl_status pl_regex_read(pl_regex *regex, const char *text, size_t n, pl_error *err);
void pl_regex_free(pl_regex *regex);

/* "regular expression, character 7: " before the message. */
pl_status pl_regex_fail(const pl_regex *regex, size_t place, pl_status status, pl_error *err, const char *fmt, ...)
    PL_PRINTF(5, 6);

/* An atom, not yet in a sequence, that is one character of a finished set; NONE without memory. */
int32_t pl_regex_new_chars(pl_regex *regex, const pl_char_set *set, size_t place);

#endif
