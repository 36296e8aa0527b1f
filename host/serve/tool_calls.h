/* Finds the calls of functions in an answer's text as it comes:
 *
 *     {"name": "f", "parameters": {...}}        one
 *     [{...}, {...}]                            several
 *
 * either between lines ```json and ``` or not ("arguments" is taken for "parameters"). Text that does not begin so is
 * content, as is what turns out to be something else before a name was read. The arguments are passed on as they stand. */
#ifndef PL_SERVE_TOOL_CALLS_H
#define PL_SERVE_TOOL_CALLS_H

#include "host/base/strbuf.h"

typedef struct pl_tool_sink {
    void *user;
    void (*content)(void *user, const char *text, size_t n);
    void (*begin)(void *user, int32_t index, const char *name);               /* calls count from 0 */
    void (*arguments)(void *user, int32_t index, const char *text, size_t n); /* the next piece of the JSON object */
    void (*end)(void *user, int32_t index);                                   /* the object is whole */
} pl_tool_sink;

typedef enum pl_tool_stage {
    PL_TOOL_START,
    PL_TOOL_HEAD, /* in an object of a list, before its arguments */
    PL_TOOL_ARGUMENTS,
    PL_TOOL_TAIL,  /* after them, before its end */
    PL_TOOL_AFTER, /* between objects, or after the last */
    PL_TOOL_TEXT,
} pl_tool_stage;

/* All but names zero: at the start. */
typedef struct pl_tool_parser {
    pl_tool_stage stage;
    bool list;                /* within an array */
    bool string;              /* within a string of the arguments */
    bool escaped;             /* after a backslash there */
    int32_t depth;            /* of brackets in the arguments */
    int32_t n_calls;          /* begun */
    pl_strbuf held;           /* what is not yet known to be a call */
    const char *const *names; /* of functions, ends with NULL: a call of another is content; borrowed; NULL: any */
} pl_tool_parser;

/* Pieces may be cut anywhere. Memory that could not be had shows in held.failed; what follows is then dropped. */
void pl_tool_parse(pl_tool_parser *parser, const char *text, size_t n, const pl_tool_sink *sink);

/* The text is over: what was held back is content. Releases the parser. */
void pl_tool_parse_end(pl_tool_parser *parser, const pl_tool_sink *sink);
void pl_tool_parser_free(pl_tool_parser *parser);

#endif
