/* Writes compact JSON, in order, into a buffer or a file; builds no tree.
 *
 *     pl_json json = pl_json_to_buffer();
 *     pl_json_begin_object(&json);
 *     pl_json_put_string(&json, "type", "BPE");
 *     pl_json_key_array(&json, "ids");
 *     pl_json_int(&json, 2);
 *     pl_json_end_array(&json);
 *     pl_json_end_object(&json);
 *     PL_TRY(pl_json_take(&json, &text, NULL, err));
 *
 * Nothing in between can fail: the first trouble is remembered and told at the end. */
#ifndef PL_BASE_JSON_OUT_H
#define PL_BASE_JSON_OUT_H

#include <stdio.h>

#include "host/base/strbuf.h"

#define PL_JSON_DEPTH 64 /* objects and arrays within each other; deeper is a bug of ours */

typedef struct pl_json {
    FILE *file; /* NULL: into buf */
    pl_strbuf buf;
    uint64_t filled; /* bit d: the object or array at depth d holds something */
    int depth;
    bool after_key;
} pl_json;

pl_json pl_json_to_buffer(void);
pl_json pl_json_to_file(FILE *file); /* borrowed */

void pl_json_begin_object(pl_json *json);
void pl_json_end_object(pl_json *json);
void pl_json_begin_array(pl_json *json);
void pl_json_end_array(pl_json *json);
void pl_json_key(pl_json *json, const char *key);

/* Bytes that are not UTF-8 become U+FFFD, one for each longest cut-off beginning of a character. */
void pl_json_text(pl_json *json, const char *text, size_t n);
void pl_json_string(pl_json *json, const char *text); /* NUL-terminated; NULL: null */
void pl_json_int(pl_json *json, int64_t value);
void pl_json_double(pl_json *json, double value); /* the shortest text that reads back equal; not finite: null */
void pl_json_float(pl_json *json, float value);   /* the same, read back as a float */
void pl_json_bool(pl_json *json, bool value);
void pl_json_null(pl_json *json);
void pl_json_raw(pl_json *json, const char *text, size_t n);     /* a value that is JSON already */
void pl_json_base64(pl_json *json, const void *bytes, size_t n); /* a string: RFC 4648's, with its padding */

/* A key and its value, or the beginning of that. */
void pl_json_key_object(pl_json *json, const char *key);
void pl_json_key_array(pl_json *json, const char *key);
void pl_json_put_string(pl_json *json, const char *key, const char *value);
void pl_json_put_int(pl_json *json, const char *key, int64_t value);
void pl_json_put_size(pl_json *json, const char *key, size_t value);
void pl_json_put_double(pl_json *json, const char *key, double value);
void pl_json_put_bool(pl_json *json, const char *key, bool value);

/* Ends a line between documents ("JSON lines"). */
void pl_json_newline(pl_json *json);

/* To a buffer: hands the text over (free()); n_bytes may be NULL. Releases the writer either way. */
pl_status pl_json_take(pl_json *json, char **out, size_t *n_bytes, pl_error *err);

/* To a file: flushes it; PL_ERR_IO naming `path` when anything was not written. */
pl_status pl_json_flush(pl_json *json, const char *path, pl_error *err);

/* Gives up: needed only where pl_json_take() is not reached. */
void pl_json_free(pl_json *json);

#endif
