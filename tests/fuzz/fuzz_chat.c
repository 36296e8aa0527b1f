/* Any bytes as a chat in JSON and as a template. */
#include <stdlib.h>
#include <string.h>

#include "host/text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_error err = {0};
    char *text;
    size_t n;
    pl_status status = pl_chat_render_json((const char *)data, size, true, &text, &n, &err);
    if (status == PL_OK) {
        if (n < 5 || memcmp(text, "<bos>", 5) != 0 || text[n] != '\0')
            abort();
        free(text);
    } else if (err.status != status || !err.message[0]) {
        abort();
    }
    char *copy = malloc(size + 1);
    memcpy(copy, data, size);
    copy[size] = '\0';
    pl_chat_template_check(copy, &err);
    free(copy);
    return 0;
}
