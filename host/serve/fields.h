/* Reads the fields of a request's JSON, with the errors that OpenAI gives for fields that are wrong.
 *
 *     pl_fields f = pl_fields_of(object, &error, "");
 *     double temperature = pl_field_number(&f, "temperature", 1, 0, 2);
 *     ...
 *     if (!pl_fields_done(&f)) respond with error
 *
 * The first error is kept, and all later reads give the default. null counts as not given. pl_fields_done() also fails
 * for a field that nobody has read ("Unrecognized request argument supplied: x"). Objects are jansson's, borrowed. Texts
 * do not hold NUL characters. */
#ifndef PL_SERVE_FIELDS_H
#define PL_SERVE_FIELDS_H

#include "host/serve/api_error.h"

#include <jansson.h>

#define PL_FIELDS_KNOWN 96 /* most that an object of any API has */

typedef struct pl_fields {
    json_t *object;
    char where[96]; /* "" or "messages[2]": before names in messages */
    pl_api_error *error;
    const char *known[PL_FIELDS_KNOWN]; /* names read so far, borrowed until pl_fields_done() */
    size_t n_known;
} pl_fields;

/* value must be an object; another type is an error of the field `where`. where: printf's. */
pl_fields pl_fields_of(json_t *value, pl_api_error *error, const char *where, ...)
    __attribute__((format(printf, 3, 4)));

bool pl_field_given(pl_fields *f, const char *name); /* and not null */
double pl_field_number(pl_fields *f, const char *name, double preset, double min, double max);
int64_t pl_field_int(pl_fields *f, const char *name, int64_t preset, int64_t min, int64_t max);
bool pl_field_bool(pl_fields *f, const char *name, bool preset);
const char *pl_field_text(pl_fields *f, const char *name, const char *preset); /* borrowed */
const char *pl_field_required_text(pl_fields *f, const char *name);            /* "" when there was an error */
int pl_field_choice(pl_fields *f, const char *name, int preset, const char *const *words); /* NULL-terminated */
json_t *pl_field_object(pl_fields *f, const char *name); /* NULL: not given; so below */
json_t *pl_field_array(pl_fields *f, const char *name, size_t max);
json_t *pl_field_any(pl_fields *f, const char *name);

/* Fields that are known and have no meaning here: "user", "store" ... Read and ignored. */
void pl_field_ignore(pl_fields *f, const char *name);

/* "Missing required parameter" where it is not given. */
void pl_field_require(pl_fields *f, const char *name);

/* An element of an array of texts; as above. */
const char *pl_field_text_at(pl_fields *f, const char *name, json_t *array, size_t i);

/* "an array", for messages */
const char *pl_json_type_name(const json_t *value);

/* "Invalid type for 'name': expected ..., but got ... instead." */
void pl_field_fail_type(pl_fields *f, const char *name, const char *expected, const json_t *got);

/* A field that is wrong for a reason of the caller's; name may be "". */
void pl_field_fail(pl_fields *f, const char *name, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void pl_field_fail_of(pl_fields *f, const char *name, const pl_error *err); /* the same, of an engine's error */
bool pl_fields_failed(const pl_fields *f);

bool pl_fields_done(pl_fields *f);

/* Parses a body: an object. On failure NULL, and error says where. To be released with json_decref(). */
json_t *pl_fields_parse(const char *body, size_t n, pl_api_error *error);

#endif
