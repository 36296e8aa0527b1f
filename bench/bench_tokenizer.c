/* How fast text becomes tokens and back, and how long a tokenizer takes to load.
 *
 *     bench_tokenizer TOKENIZER.json TEXT [CACHE_DIR]
 *
 * Prints one line of CSV for each: medians of RUNS runs on one thread. bench_tokenizer_hf.py prints the same for
 * Hugging Face tokenizers. */
#include "bench/median.h"
#include "host/base/clock.h"
#include "host/base/mapfile.h"
#include "host/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

#define RUNS 9

static pl_status bench_load(const char *path, const char *cache_dir, const char *what, pl_error *err)
{
    double s[RUNS];
    for (int i = 0; i < RUNS; i++) {
        pl_tokenizer *tokenizer;
        double start = pl_clock_seconds();
        PL_TRY(pl_tokenizer_from_json(path, cache_dir, &tokenizer, err));
        s[i] = pl_clock_seconds() - start;
        pl_tokenizer_free(tokenizer);
    }
    printf("%s,%.1f,ms\n", what, 1e3 * pl_median(s, RUNS));
    return PL_OK;
}

static pl_status bench_text(const pl_tokenizer *tokenizer, const pl_mapfile *text, pl_error *err)
{
    double encode_s[RUNS], decode_s[RUNS];
    size_t n_ids = 0;
    for (int i = 0; i < RUNS; i++) {
        pl_ids ids = {0};
        char *back;
        size_t n_back;
        double start = pl_clock_seconds();
        PL_TRY(pl_tokenizer_encode(tokenizer, (const char *)text->data, text->size, true, &ids, err));
        double middle = pl_clock_seconds();
        PL_TRY(pl_tokenizer_decode(tokenizer, ids.v, ids.n, false, &back, &n_back, err));
        encode_s[i] = middle - start;
        decode_s[i] = pl_clock_seconds() - middle;
        n_ids = ids.n;
        free(back);
        pl_ids_free(&ids);
    }
    printf("tokens,%zu,\n", n_ids);
    printf("encode,%.2f,MB/s\n", (double)text->size / 1e6 / pl_median(encode_s, RUNS));
    printf("decode,%.2f,MB/s\n", (double)text->size / 1e6 / pl_median(decode_s, RUNS));
    return PL_OK;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER.json TEXT [CACHE_DIR]\n");
        return 2;
    }
    pl_error err = {0};
    pl_mapfile text = {0};
    pl_tokenizer *tokenizer = NULL;
    pl_status status;
    PL_TRY_GOTO(pl_mapfile_open(argv[2], &text, &err));
    PL_TRY_GOTO(pl_tokenizer_from_json(argv[1], argc > 3 ? argv[3] : NULL, &tokenizer, &err));
    printf("what,value,unit\n");
    PL_TRY_GOTO(bench_text(tokenizer, &text, &err));
    PL_TRY_GOTO(bench_load(argv[1], NULL, "load", &err));
    if (argc > 3)
        PL_TRY_GOTO(bench_load(argv[1], argv[3], "load_cached", &err));
fail:
    if (status != PL_OK)
        fprintf(stderr, "bench_tokenizer: %s\n", err.message);
    pl_tokenizer_free(tokenizer);
    pl_mapfile_close(&text);
    return status == PL_OK ? 0 : 1;
}
