#include "host/serve/logprobs.h"

static void put_token(const pl_model *model, int32_t id, float logprob, pl_json *json)
{
    char bytes[PL_TOKEN_BYTES];
    size_t n = pl_token_bytes(model, id, bytes);
    pl_json_key(json, "token");
    pl_json_text(json, bytes, n);
    pl_json_key(json, "logprob");
    pl_json_float(json, logprob);
    pl_json_key_array(json, "bytes");
    for (size_t i = 0; i < n; i++)
        pl_json_int(json, (unsigned char)bytes[i]);
    pl_json_end_array(json);
}

void pl_put_logprob(const pl_model *model, const pl_call_piece *piece, pl_json *json)
{
    pl_json_begin_object(json);
    put_token(model, piece->id, piece->logprob, json);
    pl_json_key_array(json, "top_logprobs");
    for (size_t i = 0; i < piece->n_top; i++) {
        pl_json_begin_object(json);
        put_token(model, piece->top[i].id, piece->top[i].logprob, json);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
    pl_json_end_object(json);
}
