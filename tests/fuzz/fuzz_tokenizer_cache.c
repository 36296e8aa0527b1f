/* A sound cache with patches under a checksum that fits: refused, or usable without harm. The input is a list of
 * 7-byte patches: 3 bytes where, 4 bytes what. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/text/tokenizer_parts.h"

static pl_tokenizer *sound;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    pl_error err;
    if (pl_tokenizer_from_json(PL_TEST_DATA "/golden/text/e4b/tokenizer.json", NULL, &sound, &err) != PL_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    return 0;
}

static void use(pl_tokenizer *tokenizer)
{
    static const char text[] =
        "get <bos> \n\n\t</td> it\xff \xe4\xb8\x96 \xe2\x96\x81\xe2\x96\x81 thequickbrownfoxjumpsoverthelazydogthequickbrownfox";
    pl_ids ids = {0};
    char *back = NULL;
    size_t n_back;
    if (pl_tokenizer_encode(tokenizer, text, sizeof text, true, &ids, NULL) != PL_OK)
        abort();
    for (int32_t i = 0; i < pl_tokenizer_size(tokenizer); i++)
        if (pl_ids_push(&ids, i, NULL) != PL_OK)
            abort();
    if (pl_tokenizer_decode(tokenizer, ids.v, ids.n, true, &back, &n_back, NULL) != PL_OK)
        abort();
    pl_tokenizer_id(tokenizer, text, 3);
    free(back);
    pl_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t bytes = sound->tables.head->bytes;
    unsigned char *image = malloc(bytes);
    memcpy(image, sound->image, bytes);
    for (; size >= 7; data += 7, size -= 7) {
        size_t at = (size_t)data[0] << 16 | (size_t)data[1] << 8 | data[2];
        memcpy(image + at % (bytes - 4), data + 3, 4);
    }
    pl_tables_header *head = (void *)image;
    if (head->bytes == bytes) /* the checksum reads as far as this says */
        pl_token_tables_seal(image);
    pl_tokenizer tokenizer = {0};
    if (pl_token_tables_bind(image, bytes, sound->tables.head->source, &tokenizer.tables))
        use(&tokenizer);
    free(image);
    return 0;
}
