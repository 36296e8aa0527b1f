/* What formats write. */
#include "host/serve/call.h"

#include <stdlib.h>

void pl_call_event(pl_strbuf *out, const char *event, pl_json *json)
{
    if (event)
        pl_strbuf_printf(out, "event: %s\n", event);
    pl_strbuf_add_text(out, "data: ");
    if (json->buf.failed)
        out->failed = true;
    else
        pl_strbuf_add(out, json->buf.data, json->buf.n);
    pl_strbuf_add_text(out, "\n\n");
    pl_json_free(json);
}

const char *pl_call_finish_name(const pl_call_choice *choice)
{
    if (choice->finish == PL_FINISH_LENGTH)
        return "length";
    return choice->n_tools ? "tool_calls" : "stop";
}

pl_call_usage pl_call_count(const pl_call *call)
{
    const pl_call_spec *spec = pl_call_asked(call);
    pl_call_usage usage = {.audio = spec->audio_tokens};
    for (int32_t i = 0; i < pl_call_choices(call); i++) {
        const pl_generated *answer = &pl_call_choice_at(call, i)->answer;
        usage.answer += (int64_t)answer->n_tokens;
        if (i % spec->n == 0) {
            usage.prompt += (int64_t)answer->n_prompt;
            usage.reused += (int64_t)answer->n_prompt_reused;
        }
    }
    return usage;
}

/* To three places. */
static double rounded(double x)
{
    return (double)(int64_t)(x * 1e3 + 0.5) / 1e3;
}

void pl_call_put_served(const pl_call *call, int32_t choice, pl_json *json)
{
    const pl_call_choice *c = pl_call_choice_at(call, choice);
    const pl_generated *answer = &c->answer;
    double rate = answer->generate_s > 0 && answer->n_tokens > 1 ? (double)(answer->n_tokens - 1) / answer->generate_s
                                                                 : 0;
    pl_json_key_object(json, "pleiad");
    pl_json_put_string(json, "path", c->path);
    pl_json_put_string(json, "reason", c->reason);
    pl_json_put_double(json, "queued_ms", rounded(c->queued_s * 1e3));
    pl_json_put_double(json, "prompt_ms", rounded(answer->prompt_s * 1e3));
    pl_json_put_double(json, "generate_ms", rounded(answer->generate_s * 1e3));
    pl_json_put_double(json, "tokens_per_second", rounded(rate));
    pl_json_put_size(json, "reused", answer->n_prompt_reused);
    pl_json_put_int(json, "preempted", c->preempted);
    pl_json_put_int(json, "moved", c->moved);
    pl_json_end_object(json);
}
