/* Folders and files for one test, removed at its end; and checks on error messages. */
#ifndef PL_TESTS_UNIT_SCRATCH_H
#define PL_TESTS_UNIT_SCRATCH_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/status.h"

#define SCRATCH_PATHS 4

typedef struct scratch {
    char *dir;
    char *path[SCRATCH_PATHS]; /* handed out in turn by scratch_path() */
    int turn;
} scratch;

void scratch_open(scratch *s);
void scratch_close(scratch *s);

/* The path of a file in the folder; valid for the next three calls. */
const char *scratch_path(scratch *s, const char *name);

/* Writes the file and returns its path. */
const char *scratch_write(scratch *s, const char *name, const void *data, size_t n);
const char *scratch_text(scratch *s, const char *name, const char *text);

/* Copies a file into the folder. */
const char *scratch_copy(scratch *s, const char *name, const char *from);

/* The whole file, malloc'ed, with a NUL behind it. */
char *read_file(const char *path, size_t *n);

/* A copy of exactly n bytes, so that AddressSanitizer sees a read behind them. */
unsigned char *exact_copy(const void *data, size_t n);

/* The failure has this status and its message holds each of the words (NULL ends them). */
void expect_failure(pl_status got, pl_status expected, const pl_error *err, const char *const *words);

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
