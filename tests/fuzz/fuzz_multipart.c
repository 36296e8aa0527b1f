/* Any bytes as a form for speech to text: a line with the Content-Type, then the body. */
#include <stdlib.h>
#include <string.h>

#include "host/serve/audio_form.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char type[256];
    const uint8_t *line = memchr(data, '\n', size);
    if (!line || (size_t)(line - data) >= sizeof type)
        return 0;
    memcpy(type, data, (size_t)(line - data));
    type[line - data] = '\0';
    size_t n = size - (size_t)(line + 1 - data);
    char *body = malloc(n + 1);
    if (!body)
        return 0;
    memcpy(body, line + 1, n);
    pl_multipart_part file;
    pl_api_error error = {0};
    json_t *fields = pl_audio_form_read(type, body, n, &file, &error);
    if (!fields == !error.status || (fields && file.data && (file.data < body || file.data + file.n > body + n)))
        abort();
    json_decref(fields);
    free(body);
    return 0;
}
