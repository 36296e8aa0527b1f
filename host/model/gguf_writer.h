/* Writes one GGUF v3 file as a stream: first all keys, then all tensors' names and shapes, then their bytes in
 * that order. The file appears whole or not at all. Source: ggml's gguf.cpp.
 *
 *     PL_TRY(pl_gguf_writer_create(&w, err));
 *     pl_gguf_put_text(w, "general.architecture", "gemma3n");
 *     pl_gguf_declare(w, "blk.0.ffn_up.weight", PL_Q4_0, dims, 2);
 *     PL_TRY(pl_gguf_writer_begin(w, path, err));
 *     PL_TRY(pl_gguf_writer_append(w, rows, bytes, err));    any number of pieces a tensor
 *     PL_TRY(pl_gguf_writer_commit(w, err));
 *
 * Putting and declaring cannot fail: the first trouble is remembered and told by begin. */
#ifndef PL_MODEL_GGUF_WRITER_H
#define PL_MODEL_GGUF_WRITER_H

#include "host/model/gguf.h"

typedef struct pl_gguf_writer pl_gguf_writer;

pl_status pl_gguf_writer_create(pl_gguf_writer **out, pl_error *err);

/* Also removes what was written and not committed. */
void pl_gguf_writer_free(pl_gguf_writer *w);

/* Keys and texts are copied; a key that was put before is a trouble. */
void pl_gguf_put_u32(pl_gguf_writer *w, const char *key, uint32_t value);
void pl_gguf_put_i32(pl_gguf_writer *w, const char *key, int32_t value);
void pl_gguf_put_f32(pl_gguf_writer *w, const char *key, float value);
void pl_gguf_put_bool(pl_gguf_writer *w, const char *key, bool value);
void pl_gguf_put_text(pl_gguf_writer *w, const char *key, const char *text);
void pl_gguf_put_bytes(pl_gguf_writer *w, const char *key, const char *text, size_t n); /* a string, by length */

/* type: a plain one (no string, no array); data: n packed elements; bools are a byte each. */
void pl_gguf_put_array(pl_gguf_writer *w, const char *key, pl_gguf_type type, const void *data, uint64_t n);
void pl_gguf_put_texts(pl_gguf_writer *w, const char *key, const char *const *texts, const size_t *n_bytes, uint64_t n);

/* As the reader gave it, under the same key. */
void pl_gguf_put_value(pl_gguf_writer *w, const pl_gguf_value *value);

/* dims: row-major, outermost first, 1 to 4 of them; the last a multiple of the type's block. */
void pl_gguf_declare(pl_gguf_writer *w, const char *name, pl_dtype type, const int64_t *dims, int n_dims);

/* Bytes of the whole file, as declared so far. */
uint64_t pl_gguf_writer_bytes(const pl_gguf_writer *w);

/* Writes everything before the tensors' bytes, beside `path`. Starts writing to the disk early, so that commit does
 * not have to wait for all of it. */
pl_status pl_gguf_writer_begin(pl_gguf_writer *w, const char *path, pl_error *err);
pl_status pl_gguf_writer_append(pl_gguf_writer *w, const void *data, size_t bytes, pl_error *err);

/* Puts the file in place. Bytes missing of any tensor are a bug of the caller. */
pl_status pl_gguf_writer_commit(pl_gguf_writer *w, pl_error *err);

#endif
