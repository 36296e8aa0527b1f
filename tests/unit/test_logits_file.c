/* Files of logits: what is written is read, and what llama.cpp writes. */
#include <math.h>

#include "host/base/rng.h"
#include "host/measure/divergence.h"
#include "host/measure/logits_file.h"
#include "tests/unit/scratch.h"

#define LENGTH 6
#define SCORED 2 /* pl_passage_scored(LENGTH) */
#define N 2

static int32_t ids[N * LENGTH] = {2, 1, 0, 1, 2, 0, 2, 0, 1, 0, 0, 1};
static const pl_passages passages = {.ids = ids, .n = N, .length = LENGTH};

static void fill(float *logits, int32_t vocab, uint64_t seed, double spread)
{
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    for (int32_t i = 0; i < vocab; i++)
        logits[i] = (float)((pl_rng_uniform(&rng) - 0.5) * spread);
}

static void write_all(const char *path, int32_t vocab, double spread)
{
    pl_logits_writer w;
    pl_error err;
    float *logits = malloc((size_t)vocab * sizeof *logits);
    unsigned char *row = malloc(pl_logits_row_bytes(vocab));
    cr_assert_eq(pl_logits_writer_open(path, &passages, vocab, &w, &err), PL_OK, "%s", err.message);
    for (uint64_t i = 0; i < N * SCORED; i++) {
        fill(logits, vocab, i, spread);
        pl_logits_encode(logits, vocab, row);
        cr_assert_eq(pl_logits_writer_add(&w, row, 1, &err), PL_OK, "%s", err.message);
    }
    cr_assert_eq(pl_logits_writer_commit(&w, &err), PL_OK, "%s", err.message);
    free(logits);
    free(row);
}

static void check_row(const pl_logits_file *file, int32_t index, double spread)
{
    pl_error err;
    int32_t vocab = file->vocab;
    float *want = malloc((size_t)vocab * sizeof *want), *got = malloc((size_t)vocab * sizeof *got), floor;
    fill(want, vocab, (uint64_t)index, spread);
    double lse = pl_log_sum_exp(want, vocab);
    cr_assert_eq(pl_logits_file_row(file, index / SCORED, index % SCORED, got, &floor, &err), PL_OK, "%s", err.message);
    cr_expect((isfinite(floor) != 0) == (spread > 16), "floor %g", (double)floor);
    for (int32_t i = 0; i < vocab; i++) {
        double value = want[i] - lse;
        if (isfinite(floor) && value < floor)
            cr_expect_eq(got[i], floor);
        else /* half a step, and the roundings of f32 */
            cr_expect(fabs(got[i] - value) <= 16.0 / 65535 / 2 + 1e-5, "%d: %g, expected %g", i, (double)got[i], value);
    }
    free(want);
    free(got);
}

Test(logits_file, reads_what_was_written)
{
    static const int32_t vocabs[] = {1, 2, 3, 64, 1001};
    static const double spreads[] = {0, 5, 40};
    scratch s;
    scratch_open(&s);
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 3; j++) {
            if (vocabs[i] < 64 && spreads[j] > 16)
                continue; /* too few values to be sure of the range */
            pl_logits_file file;
            pl_error err;
            const char *path = scratch_path(&s, "logits");
            write_all(path, vocabs[i], spreads[j]);
            cr_assert(pl_logits_file_is(path));
            cr_assert_eq(pl_logits_file_open(path, &file, &err), PL_OK, "%s", err.message);
            cr_assert_eq(pl_logits_file_check(&file, &passages, vocabs[i], &err), PL_OK, "%s", err.message);
            for (int32_t row = 0; row < N * SCORED; row++)
                check_row(&file, row, spreads[j]);
            pl_logits_file_drop(&file, 0);
            check_row(&file, 0, spreads[j]);
            pl_logits_file_close(&file);
        }
    scratch_close(&s);
}

/* One passage of four tokens, three of them a vocabulary, as llama-perplexity writes it. */
static size_t make_by_hand(unsigned char *out, float scale, float floor)
{
    const int32_t heading[] = {4, 3, 1, 9, 1, 0, 2};
    const uint16_t codes[] = {0, 1, 65535, 0xdead};
    memcpy(out, "_logits_", 8);
    memcpy(out + 8, heading, sizeof heading);
    size_t at = 8 + sizeof heading;
    memcpy(out + at, &scale, 4);
    memcpy(out + at + 4, &floor, 4);
    memcpy(out + at + 8, codes, sizeof codes);
    return at + 8 + sizeof codes;
}

Test(logits_file, llama_cpps_layout)
{
    unsigned char bytes[64];
    pl_logits_file file;
    pl_error err;
    float row[3], floor;
    size_t n = make_by_hand(bytes, 16.0f / 65535, -17);
    cr_assert_eq(n, 52);
    cr_assert_eq(pl_logits_file_parse(bytes, n, "x", &file, &err), PL_OK, "%s", err.message);
    cr_assert(file.length == 4 && file.vocab == 3 && file.n == 1);
    cr_assert_eq(pl_logits_file_row(&file, 0, 0, row, &floor, &err), PL_OK);
    cr_expect(row[0] == -17 && floor == -17);
    cr_expect_float_eq(row[1], -17 + 16.0f / 65535, 2e-6);
    cr_expect_float_eq(row[2], -1, 2e-6);
    /* The first token may be the text's own: <bos> takes its place. */
    int32_t text[] = {2, 1, 0, 2};
    pl_passages p = {.ids = text, .n = 1, .length = 4};
    cr_expect_eq(pl_logits_file_check(&file, &p, 3, &err), PL_OK, "%s", err.message);
}

static void expect_bad_row(float scale, float floor)
{
    unsigned char bytes[64];
    pl_logits_file file;
    pl_error err;
    float row[3], got;
    size_t n = make_by_hand(bytes, scale, floor);
    cr_assert_eq(pl_logits_file_parse(bytes, n, "x.bin", &file, &err), PL_OK);
    expect_failure(pl_logits_file_row(&file, 0, 0, row, &got, &err), PL_ERR_FORMAT, &err, WORDS("x.bin", "row 0"));
}

Test(logits_file, rows_that_are_no_probabilities)
{
    expect_bad_row(NAN, -17);
    expect_bad_row(-1e-4f, -17);
    expect_bad_row(1, -17);
    expect_bad_row(1e-4f, NAN);
    expect_bad_row(1e-4f, -INFINITY);
    expect_bad_row(1e-4f, 1);
}

static void expect_refusal(const unsigned char *bytes, size_t n, const char *word)
{
    pl_logits_file file;
    pl_error err;
    unsigned char *copy = exact_copy(bytes, n);
    expect_failure(pl_logits_file_parse(copy, n, "x.bin", &file, &err), PL_ERR_FORMAT, &err, WORDS("x.bin", word));
    free(copy);
}

static void expect_heading_refused(int field, int32_t value)
{
    unsigned char bytes[64];
    size_t n = make_by_hand(bytes, 1e-4f, -17);
    memcpy(bytes + 8 + 4 * field, &value, sizeof value);
    expect_refusal(bytes, n, "");
}

Test(logits_file, damaged_files)
{
    unsigned char bytes[64];
    size_t n = make_by_hand(bytes, 1e-4f, -17);
    for (size_t i = 0; i < n; i++)
        expect_refusal(bytes, i, i < 20 ? "_logits_" : "cut short");
    expect_refusal(bytes, n + 1, "cut short");
    for (int field = 0; field < 3; field++) {
        static const int32_t values[] = {0, -1, 2, INT32_MAX, INT32_MIN, 1 << 24};
        for (size_t i = 0; i < 6; i++)
            expect_heading_refused(field, values[i]);
    }
    bytes[0] = 'x';
    expect_refusal(bytes, n, "_logits_");
    scratch s;
    scratch_open(&s);
    cr_expect(!pl_logits_file_is(scratch_path(&s, "nothing")));
    cr_expect(!pl_logits_file_is(scratch_text(&s, "short", "_logi")));
    cr_expect(!pl_logits_file_is(scratch_text(&s, "other", "GGUF....")));
    cr_expect(!pl_logits_file_is(s.dir));
    scratch_close(&s);
}

Test(logits_file, of_something_else)
{
    scratch s;
    scratch_open(&s);
    pl_logits_file file;
    pl_error err;
    write_all(scratch_path(&s, "logits"), 3, 5);
    const char *path = scratch_path(&s, "logits");
    cr_assert_eq(pl_logits_file_open(path, &file, &err), PL_OK);
    expect_failure(pl_logits_file_check(&file, &passages, 4, &err), PL_ERR_ARGUMENT, &err, WORDS(path, "3", "4"));
    pl_passages other = passages;
    bool scored[N * LENGTH] = {true};
    pl_logits_writer w;
    other.scored = scored;
    expect_failure(pl_logits_file_check(&file, &other, 3, &err), PL_ERR_ARGUMENT, &err, WORDS(path, "answers"));
    expect_failure(pl_logits_writer_open("x.bin", &other, 3, &w, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("x.bin", "answers"));
    other = passages;
    other.length = 5;
    expect_failure(pl_logits_file_check(&file, &other, 3, &err), PL_ERR_ARGUMENT, &err, WORDS(path, "6", "5"));
    int32_t more[3 * LENGTH] = {0};
    memcpy(more, ids, sizeof ids);
    other = (pl_passages){.ids = more, .n = 3, .length = LENGTH};
    expect_failure(pl_logits_file_check(&file, &other, 3, &err), PL_ERR_ARGUMENT, &err, WORDS(path, "first 2", "3"));
    other.n = 1; /* the beginning of it is fine */
    cr_expect_eq(pl_logits_file_check(&file, &other, 3, &err), PL_OK);
    more[0] = 7;
    cr_expect_eq(pl_logits_file_check(&file, &other, 3, &err), PL_OK);
    more[5] = 7;
    expect_failure(pl_logits_file_check(&file, &other, 3, &err), PL_ERR_ARGUMENT, &err, WORDS(path, "token 5", "7"));
    pl_logits_file_close(&file);
    scratch_close(&s);
}

Test(logits_file, appears_whole_or_not_at_all)
{
    scratch s;
    scratch_open(&s);
    pl_logits_writer w = {.row_bytes = 0};
    pl_error err;
    pl_logits_writer_abort(&w);
    const char *path = scratch_path(&s, "logits");
    cr_assert_eq(pl_logits_writer_open(path, &passages, 3, &w, &err), PL_OK, "%s", err.message);
    cr_expect_neq(access(path, F_OK), 0);
    pl_logits_writer_abort(&w);
    cr_expect_neq(access(path, F_OK), 0);
    expect_failure(pl_logits_writer_open("/dev/null/x", &passages, 3, &w, &err), PL_ERR_IO, &err, WORDS("/dev/null/x"));
    scratch_close(&s);
}
