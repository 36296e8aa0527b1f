/* Files of logits: what a model said about each scored token of a text, to be a reference later. llama.cpp's format
 * (llama-perplexity --kl-divergence-base), little-endian:
 *
 *     "_logits_" | int32 length, vocab, n | int32 ids[n][length] | row[n][pl_passage_scored(length)]
 *     row: f32 scale, f32 floor, uint16 code[vocab rounded up to even]
 *
 * A log-probability is scale * code + floor. What is more than 16 below a row's largest has code 0: 131 MB for 250
 * tokens of the full vocabulary. llama.cpp keeps in ids what the text has where a passage starts with <bos>. */
#ifndef PL_MEASURE_LOGITS_FILE_H
#define PL_MEASURE_LOGITS_FILE_H

#include "host/base/mapfile.h"
#include "host/base/outfile.h"
#include "host/measure/passages.h"

/* ---- reading ---- */

typedef struct pl_logits_file {
    const char *where; /* borrowed */
    pl_mapfile map;
    const unsigned char *ids, *rows;
    int32_t length, vocab, n;
    size_t row_bytes;
} pl_logits_file;

/* Whether the file starts as one of these; false where it cannot be read. */
bool pl_logits_file_is(const char *path);

/* Keeps the path for messages. The size of the file must be what its heading says. */
pl_status pl_logits_file_open(const char *path, pl_logits_file *out, pl_error *err);
void pl_logits_file_close(pl_logits_file *file);

/* The same on bytes in memory, which are borrowed. */
pl_status pl_logits_file_parse(const unsigned char *data, size_t n_bytes, const char *where, pl_logits_file *out,
                               pl_error *err);

/* Refuses a file of another vocabulary, another text, other lengths, or fewer passages, and passages with marks of
 * what is scored, which such a file knows nothing of. */
pl_status pl_logits_file_check(const pl_logits_file *file, const pl_passages *passages, int32_t vocab, pl_error *err);

/* Log-probabilities f32 [vocab] after scored position `row` of a passage; *floor as pl_position_measure() takes it.
 * Any number of threads may read. */
pl_status pl_logits_file_row(const pl_logits_file *file, int32_t passage, int32_t row, float *out, float *floor,
                             pl_error *err);

/* The rows of a passage may leave memory. */
void pl_logits_file_drop(const pl_logits_file *file, int32_t passage);

/* ---- writing ---- */

typedef struct pl_logits_writer {
    pl_outfile out;
    size_t row_bytes;
    int64_t rows_left;
} pl_logits_writer; /* all zero: nothing open */

size_t pl_logits_row_bytes(int32_t vocab);

/* logits f32 [vocab], finite; row: pl_logits_row_bytes(vocab). */
void pl_logits_encode(const float *logits, int32_t vocab, unsigned char *row);

/* Passages with marks are refused as by pl_logits_file_check(). */
pl_status pl_logits_writer_open(const char *path, const pl_passages *passages, int32_t vocab, pl_logits_writer *out,
                                pl_error *err);

/* The next n rows, in order. */
pl_status pl_logits_writer_add(pl_logits_writer *writer, const unsigned char *rows, int64_t n, pl_error *err);

/* The file appears when all of its rows were added. Closes the writer either way. */
pl_status pl_logits_writer_commit(pl_logits_writer *writer, pl_error *err);
void pl_logits_writer_abort(pl_logits_writer *writer);

#endif
