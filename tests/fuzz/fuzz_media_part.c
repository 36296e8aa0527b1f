/* Any text as base64 and as the URL of an image or of a file. What is decoded is encoded again to the same text. */
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/serve/base64.h"
#include "host/serve/media_part.h"

static void check_base64(const char *text, size_t n)
{
    unsigned char *bytes;
    size_t n_bytes, n_again;
    char *again;
    if (pl_base64_decode(text, n, &bytes, &n_bytes, NULL) != PL_OK)
        return;
    pl_json json = pl_json_to_buffer();
    pl_json_base64(&json, bytes, n_bytes);
    if (pl_json_take(&json, &again, &n_again, NULL) != PL_OK || n_again != n + 2 || memcmp(again + 1, text, n) != 0)
        abort();
    free(again);
    free(bytes);
}

static void check_field(const char *name, const char *text, size_t n, bool file)
{
    static const pl_media_kind image = PL_MEDIA_IMAGE;
    json_t *object = json_object();
    pl_api_error error = {0};
    pl_media_part part = {0};
    json_object_set_new(object, name, json_stringn(text, n));
    pl_fields f = pl_fields_of(object, &error, "x");
    bool read = file ? pl_media_read_file(&f, &part) : pl_media_read_url(&f, name, &image, &part);
    if (read == (error.status != 0) || (read && !part.bytes == !part.url))
        abort();
    pl_media_part_free(&part);
    json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_base64((const char *)data, size);
    check_field("url", (const char *)data, size, false);
    check_field("file_data", (const char *)data, size, true);
    return 0;
}
