/* A job's output in a folder of its own: made, gone on with, finished, checked. */
#ifndef PL_TESTS_BATCH_RESULT_FILES_H
#define PL_TESTS_BATCH_RESULT_FILES_H

#include "host/batch/results.h"
#include "tests/unit/scratch.h"

#define RESULT_LINES 20
#define RESULT_SETTINGS "demo.gguf, path e4b"

typedef struct result_files {
    scratch s;
    char out[200], part[220], journal[220];
    int notes;      /* so far */
    char note[512]; /* the last one */
} result_files;

void result_files_make(result_files *f);
void result_files_remove(result_files *f);

/* OUT, OUT.part, OUT.journal go. */
void result_files_clear(const result_files *f);

pl_results_params result_params(result_files *f);
pl_status result_open(result_files *f, pl_results **out, pl_error *err);

/* The record of a line: of some length that follows from the line, with its end of line. */
#define RESULT_BYTES 100
size_t result_record(int64_t line, char out[RESULT_BYTES]);

pl_status result_add(pl_results *results, int64_t line, bool *added, pl_error *err);

/* Adds what is missing, out of order. */
pl_status result_add_missing(pl_results *results, pl_error *err);

/* From there to the end: add_missing, finish, forget, close. */
pl_status result_end(pl_results *results, bool ordered, pl_error *err);

/* The whole job. */
pl_status result_do_all(result_files *f, bool ordered, pl_error *err);

/* OUT has each record once, in order or in any; nothing else is there. */
void result_expect_done(const result_files *f, bool ordered);

#endif
