/* Any bytes as a tokenizer.json: refused with a message, or a tokenizer that stays within its bounds. */
#include <stdlib.h>
#include <string.h>

#include "host/text/token_source.h"
#include "host/text/tokenizer_parts.h"

static void use(const pl_tokenizer *tokenizer, const char *text, size_t n)
{
    pl_ids ids = {0};
    char *back = NULL;
    size_t n_back;
    if (pl_tokenizer_encode(tokenizer, text, n, true, &ids, NULL) != PL_OK ||
        pl_tokenizer_decode(tokenizer, ids.v, ids.n, true, &back, &n_back, NULL) != PL_OK)
        abort();
    free(back);
    pl_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_error err = {0};
    pl_token_source src;
    pl_tokenizer tokenizer = {0};
    const uint64_t source[2] = {1, 2};
    pl_token_source_init(&src, "fuzz", source);
    pl_status status = pl_token_source_from_json((const char *)data, size, &src, &err);
    if (status == PL_OK)
        status = pl_token_tables_build(&src, &tokenizer.image, &tokenizer.tables, &err);
    if (status == PL_OK) {
        pl_token_tables_seal(tokenizer.image);
        pl_token_tables again;
        if (!pl_token_tables_bind(tokenizer.image, tokenizer.tables.head->bytes, source, &again))
            abort(); /* what was built must pass the checks of the cache */
        use(&tokenizer, (const char *)data, size < 4096 ? size : 4096);
    } else if (err.status != status || !err.message[0]) {
        abort();
    }
    pl_token_source_free(&src);
    free(tokenizer.image);
    return 0;
}
