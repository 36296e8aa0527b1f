/* The small model's tokenizer and its goldens, for the tests of host/text. */
#ifndef PL_TESTS_UNIT_TOKENIZER_FIXTURE_H
#define PL_TESTS_UNIT_TOKENIZER_FIXTURE_H

#include <jansson.h>

#include "host/text/tokenizer.h"

#define SMALL_TOKENIZER PL_TEST_DATA "/golden/text/e4b/tokenizer.json"
#define SMALL_GOLDEN PL_TEST_DATA "/golden/tokenizer/golden.json"

/* Both fail the test when there is no such thing. */
json_t *fixture_json(const char *path);
pl_tokenizer *fixture_tokenizer(void);

/* A new folder; fixture_remove() takes it away with the files in it. */
char *fixture_folder(void);
void fixture_remove(char *folder);
void fixture_write(const char *path, const void *data, size_t n);

/* The vocabulary that a converter makes of a tokenizer.json: kinds, scores, U+2581 of user defined pieces as
 * space. All parts malloc'ed: fixture_vocabulary_free(). */
typedef struct fixture_vocabulary {
    int32_t n;
    char *text;
    uint64_t *offset;
    float *score;
    int32_t *kind;
} fixture_vocabulary;
fixture_vocabulary fixture_vocabulary_of(const json_t *tokenizer);
void fixture_vocabulary_free(fixture_vocabulary *vocabulary);
pl_vocabulary fixture_view(const fixture_vocabulary *vocabulary);

/* Compare with a golden; what names the case in messages. */
void fixture_expect_ids(const pl_tokenizer *tokenizer, const char *text, size_t n, bool special, const json_t *ids,
                        const char *what);
void fixture_expect_text(const pl_tokenizer *tokenizer, const json_t *ids, bool skip_special, const json_t *text,
                         const char *what);

#endif
