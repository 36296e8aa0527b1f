/* The inside of the JSON schema compiler.
 *
 * What a value must be is a list of parts: schemas that it must all satisfy, brought together by $ref and allOf. Each
 * list becomes one rule, found again when the same list comes up, so that recursion ends and nothing is made twice. */
#ifndef PL_GRAMMAR_JSON_SCHEMA_PARTS_H
#define PL_GRAMMAR_JSON_SCHEMA_PARTS_H

#include <jansson.h>

#include "host/grammar/json_rules.h"
#include "host/grammar/number_range.h"

#define PL_SCHEMA_LISTS 50000       /* most lists of a schema */
#define PL_SCHEMA_PARTS 64          /* most parts of a list */
#define PL_SCHEMA_WORK 500000       /* most parts that are put into lists, again and again */
#define PL_SCHEMA_COMPARED 20000000 /* most pairs of values of two enums */

/* Types of values, as bits. A number is whole or has a fraction. */
enum {
    PL_TYPE_NULL = 1,
    PL_TYPE_BOOLEAN = 2,
    PL_TYPE_INTEGER = 4,
    PL_TYPE_FRACTION = 8,
    PL_TYPE_STRING = 16,
    PL_TYPE_ARRAY = 32,
    PL_TYPE_OBJECT = 64,
    PL_TYPE_NUMBER = PL_TYPE_INTEGER | PL_TYPE_FRACTION,
    PL_TYPE_ANY = 127,
};

typedef struct pl_schema_part {
    const json_t *schema; /* an object */
    bool any_done;        /* its anyOf was replaced by one of the alternatives */
    bool one_done;        /* the same of oneOf */
} pl_schema_part;

typedef struct pl_schema_list {
    pl_schema_part *part;
    size_t n, room;
    bool never;   /* one of them is false */
} pl_schema_list; /* all zero: no parts, anything */

typedef struct pl_schema_entry {
    size_t first, n; /* of the parts of all lists */
    uint64_t hash;
    int32_t rule;
} pl_schema_entry;

typedef struct pl_schema {
    pl_json_rules text;
    pl_rules *rules;
    const json_t *root;
    const char *where;
    pl_error *err;
    int32_t never; /* a rule without alternatives */
    pl_schema_part *part;
    size_t n_parts, part_room;
    pl_schema_entry *entry;
    size_t n_entries, entry_room;
    uint32_t *slot; /* [slots] index of an entry + 1; slots: a power of two */
    size_t slots;
    size_t work;    /* parts that were put into lists */
    json_t *ranges; /* rules of ranges of numbers, by what they are */
} pl_schema;

/* What the parts of a list say about values that are not objects or arrays. */
typedef struct pl_schema_shape {
    unsigned types;  /* allowed */
    unsigned hinted; /* those that keys speak of: allowed ones where no `type` says so */
    bool typed;
    const json_t *values; /* of enum, or const; NULL: neither */
    const json_t *values_of;
    bool is_const;
    pl_number_range range;
    const json_t *multiple_of; /* schemas that have these keys */
    const json_t *pattern_of;
    const json_t *format_of;
    const json_t *unique_of;
    int64_t min_length, max_length; /* max: -1: none */
    int64_t min_items, max_items;
    int64_t min_properties, max_properties;
} pl_schema_shape;

/* Fails with the JSON pointer of a key (NULL: the schema itself) of a schema before the message. */
pl_status pl_schema_fail(const pl_schema *s, const json_t *schema, const char *key, pl_status status, const char *fmt,
                         ...) PL_PRINTF(5, 6);
/* Puts the pointer before the message that err holds already. */
pl_status pl_schema_fail_within(const pl_schema *s, const json_t *schema, const char *key, pl_status status);
pl_status pl_schema_no_memory(const pl_schema *s);
pl_status pl_schema_too_large(const pl_schema *s);
#define pl_schema_fail(...) pl_failed(pl_schema_fail(__VA_ARGS__))

/* What a key says: which types it speaks of, or that it says nothing about the text. */
typedef enum pl_key_kind { PL_KEY_UNKNOWN, PL_KEY_NOTE, PL_KEY_LINK, PL_KEY_CHOICE, PL_KEY_SAYS } pl_key_kind;
pl_key_kind pl_schema_key(const char *key, unsigned *types);

/* Adds a schema, and what it leads to by $ref and allOf, to a list. `of` and key say where it stands. */
pl_status pl_schema_gather(pl_schema *s, pl_schema_list *list, const json_t *schema, const json_t *of, const char *key);
pl_status pl_schema_push(pl_schema *s, pl_schema_list *list, pl_schema_part part);
void pl_schema_list_free(pl_schema_list *list);

/* The rule of a list; it is made later if it is new. */
pl_status pl_schema_rule(pl_schema *s, const pl_schema_list *list, int32_t *rule);

/* The schema that a reference leads to. */
pl_status pl_schema_follow(const pl_schema *s, const json_t *schema, const json_t **out);

/* Reads what the parts say. Below, keys that do not fit a shape's types are left aside, as JSON Schema has it. */
pl_status pl_schema_read(const pl_schema *s, const pl_schema_part *part, size_t n, pl_schema_shape *shape);

/* Each makes a rule for the values of one kind. */
pl_status pl_schema_values(pl_schema *s, const pl_schema_part *part, size_t n, const pl_schema_shape *shape,
                           int32_t rule);
pl_status pl_schema_string(pl_schema *s, const pl_schema_shape *shape, int32_t *rule);
pl_status pl_schema_array(pl_schema *s, const pl_schema_part *part, size_t n, const pl_schema_shape *shape,
                          int32_t *rule);
pl_status pl_schema_object(pl_schema *s, const pl_schema_part *part, size_t n, const pl_schema_shape *shape,
                           int32_t *rule);

/* A rule for strings, with their quotes, that match a regular expression; schema and key say where it stands. */
pl_status pl_schema_pattern(pl_schema *s, const json_t *schema, const char *key, const char *text, size_t n,
                            int64_t min, int64_t max, int32_t *rule);

/* A rule for strings, with their quotes, that are none of the keys of `names`. */
pl_status pl_schema_other_names(pl_schema *s, json_t *names, int32_t *rule);

/* The regular expression of a format; NULL: unknown. */
const char *pl_schema_format(const char *name);

/* The text of a number as it stands in an answer. */
void pl_schema_number_text(const json_t *number, char out[32]);

/* A rule for the values of schema that are also ones of `also` (NULL: all). */
pl_status pl_json_schema_add_tree(pl_rules *rules, const json_t *schema, const json_t *also, const char *where,
                                  int32_t *rule, pl_error *err);

/* JSON text as all compilers here read it. what: for messages. */
pl_status pl_schema_parse(const char *text, size_t n, const char *what, json_t **out, pl_error *err);

#endif
