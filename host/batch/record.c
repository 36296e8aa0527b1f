#include "host/batch/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "host/base/json_out.h"

uint64_t pl_record_seed(const char *settings)
{
    return XXH3_64bits(settings, strlen(settings));
}

void pl_record_id(uint64_t seed, int64_t line, const char *text, size_t n, char out[PL_RECORD_ID_BYTES])
{
    const uint64_t place[2] = {seed, (uint64_t)line};
    XXH128_hash_t hash = XXH3_128bits_withSeed(text ? text : "", text ? n : 0, XXH3_64bits(place, sizeof place));
    snprintf(out, PL_RECORD_ID_BYTES, "batch_req_%08" PRIx32 "%016" PRIx64, (uint32_t)hash.high64, hash.low64);
}

static pl_json begin(const char *id, const char *custom_id)
{
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "id", id);
    pl_json_put_string(&json, "custom_id", custom_id);
    return json;
}

static pl_status end(pl_json *json, char **out, size_t *n_out, pl_error *err)
{
    pl_json_end_object(json);
    pl_json_newline(json);
    return pl_json_take(json, out, n_out, err);
}

/* JSON has ends of lines only where they mean nothing. */
static void unfold(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\n' || text[i] == '\r')
            text[i] = ' ';
}

pl_status pl_record_response(const char *id, const char *custom_id, int status, const char *request_id,
                             const char *body, size_t n, char **out, size_t *n_out, pl_error *err)
{
    size_t n_made;
    pl_json json = begin(id, custom_id);
    pl_json_key_object(&json, "response");
    pl_json_put_int(&json, "status_code", status);
    pl_json_put_string(&json, "request_id", request_id);
    pl_json_key(&json, "body");
    if (n)
        pl_json_raw(&json, body, n);
    else
        pl_json_null(&json);
    pl_json_end_object(&json);
    pl_json_put_string(&json, "error", NULL);
    PL_TRY(end(&json, out, &n_made, err));
    unfold(*out, n_made - 1);
    *n_out = n_made;
    return PL_OK;
}

pl_status pl_record_fault(const char *id, const char *custom_id, int64_t number, const pl_line_fault *fault, char **out,
                          size_t *n_out, pl_error *err)
{
    pl_json json = begin(id, custom_id);
    pl_json_put_string(&json, "response", NULL);
    pl_json_key_object(&json, "error");
    pl_json_put_string(&json, "code", fault->code);
    pl_json_put_string(&json, "message", fault->message);
    pl_json_put_int(&json, "line", number);
    pl_json_put_string(&json, "param", fault->param);
    pl_json_end_object(&json);
    return end(&json, out, n_out, err);
}
