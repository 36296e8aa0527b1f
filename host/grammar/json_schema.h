/* JSON Schema (draft 2020-12 and what of the older drafts is in use) to rules over the text of a JSON value.
 *
 * The subset: type (also a list), enum, const, anyOf, oneOf (taken as anyOf), allOf, $ref within the document (also
 * recursive, with keys beside it), $defs, definitions, nullable;
 * object: properties, required, additionalProperties, patternProperties (one, alone), minProperties, maxProperties;
 * array: items, prefixItems (or items as a list, with additionalItems), minItems, maxItems;
 * string: minLength, maxLength, pattern (regex.h), format (json_formats.c);
 * integer and number: minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf 1, formats int32, int64, float,
 * double.
 * title, description, default, example, examples, discriminator, $schema, $id, $comment, deprecated, readOnly and
 * writeOnly say nothing about the text. Any other key, and what the rules cannot say exactly, is PL_ERR_UNSUPPORTED
 * naming it and its place as a JSON pointer: a constraint is never dropped in silence.
 *
 * Every text that the rules match is valid (but where oneOf excludes it, or a name that is not given comes twice). Of
 * the valid ones they leave out:
 *  - properties in another order than that of the schema, required ones that it does not name after those, the
 *    additional ones at the end; names and other texts with needless escapes where they must be compared;
 *  - properties and items beyond the named ones, unless additionalProperties or items says that they may be;
 *  - other types than those that the keys speak of, where type does not say them;
 *  - enum and const in another form than compact JSON; integers of more than 64 bits or with a point; numbers of more
 *    than 18 digits before or behind the point, with bounds also those with an exponent; texts of more than 65535
 *    characters and arrays of more than 65535 items where there is a maximum;
 *  - white space but one space after "," and ":", and a line break with up to 20 spaces after a bracket or "," and
 *    before a bracket: never without bound, so that an answer cannot consist of it. */
#ifndef PL_GRAMMAR_JSON_SCHEMA_H
#define PL_GRAMMAR_JSON_SCHEMA_H

#include "host/grammar/rules.h"

/* A rule that matches a value of the schema (JSON text, n bytes). `where` begins the pointers in messages: "". */
pl_status pl_json_schema_add(pl_rules *rules, const char *schema, size_t n, const char *where, int32_t *rule,
                             pl_error *err);

/* Finished rules of one schema; of any JSON object. PL_ERR_ARGUMENT also where no value can be valid. */
pl_status pl_json_schema_compile(const char *schema, size_t n, pl_rules **out, pl_error *err);
pl_status pl_json_object_compile(pl_rules **out, pl_error *err);

#endif
