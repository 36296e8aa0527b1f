/* A call of one of the APIs that answer with text: from a body to requests of the scheduler to a response, whole or
 * streamed. What is particular to an API is a pl_call_format; all else is here.
 *
 *     loop       pl_call_start() by the route's handler; the body goes to a thread of the service
 *     service    format->read(): JSON to a pl_call_spec; pl_scheduler_submit() of each choice
 *     media      where there are images or sound: these become prompts first, one after another, with a turn for others between
 *     scheduler  pieces of answers pile up in the call, the loop is told once (call_news.h)
 *     loop       format->piece() for each piece of a streamed call, format->finish() at the end
 *
 * When the client leaves, all choices are cancelled. A call is freed when its exchange is over and the scheduler has
 * let go of all its choices, whichever comes last. */
#ifndef PL_SERVE_CALL_H
#define PL_SERVE_CALL_H

#include "host/base/arena.h"
#include "host/base/json_out.h"
#include "host/base/strbuf.h"
#include "host/serve/conversation.h"
#include "host/serve/fields.h"
#include "host/serve/media_encode.h"
#include "host/serve/service.h"
#include "host/serve/tool_calls.h"

#define PL_CALL_CHOICES 128 /* most of one call */

typedef struct pl_call pl_call;

/* What a body asks for. Strings and lists live in the call's memory (pl_call_keep). */
typedef struct pl_call_spec {
    pl_tokens *prompts; /* [n_prompts]; freed with the call */
    size_t n_prompts;
    pl_conversation
        *conversation;    /* becomes the only prompt; freed once it has, or with the call; NULL: prompts are there,
                                      or format->prompt makes them */
    bool count;           /* nothing is answered, the prompts are only counted */
    int64_t audio_tokens; /* of the conversation's prompt, in sound */
    int32_t n;            /* choices of each prompt; those of prompt p are p * n to p * n + n - 1 */
    pl_request request; /* for all; filled with presets before read(). Prompt, client and callbacks are the call's, seed
                            counts up over the choices. What it points to lives in the call's memory */
    pl_grammar *grammar;           /* freed with the call; or NULL */
    bool tools;                    /* answers may be calls of functions: they are parsed as such (tool_calls.h) */
    const char *const *tool_names; /* of these functions, ends with NULL */
    const char *form;              /* the JSON schema of answers that are no calls, as text; NULL: none */
    bool stream;
    const char *prompt_field; /* whose fault a prompt that is too long is: "messages" */
    void *format_data;        /* the format's own, in the call's memory */
} pl_call_spec;

/* A token of a choice, or what was left of its text at the end. */
typedef struct pl_call_piece {
    const char *text; /* n_bytes, whole characters, maybe none */
    size_t n_bytes;
    int32_t id; /* -1: text only */
    float logprob;
    const pl_logprob *top;
    size_t n_top;
} pl_call_piece;

/* A piece of a call of a function. */
typedef struct pl_tool_piece {
    int32_t index;   /* of the call in its choice */
    bool begin, end; /* the call's name is known; its arguments are whole */
    const char *id;  /* "call_..."; always there, as is the name */
    const char *name;
    const char *arguments; /* n_bytes more of their JSON, maybe none */
    size_t n_bytes;
} pl_tool_piece;

/* A call of a function, so far. */
typedef struct pl_tool_call {
    char id[32];
    pl_strbuf name, arguments;
} pl_tool_call;

/* A choice as it is now. */
typedef struct pl_call_choice {
    pl_strbuf text;      /* all of it so far, without calls of functions */
    pl_tool_call *tools; /* [n_tools] */
    size_t n_tools;
    pl_call_piece *pieces; /* where logprobs are asked for, of streams only those that repeat: all, without text */
    size_t n_pieces;
    bool begun, done;
    pl_status status;
    pl_finish finish;
    pl_generated answer;
    char path[256], reason[128];
    double queued_s;
    int32_t preempted, moved;
    float *state; /* of an embedding */
    size_t n_state;
    pl_error error;
} pl_call_choice;

typedef struct pl_call_format {
    /* On a thread of the service: a body that is not JSON as an object for read(). NULL: it is JSON. What it returns is
     * released with what else is read of the body, which stays as long as that. */
    json_t *(*parse)(pl_call *call, const char *body, size_t n, pl_api_error *error);

    /* On a service thread. False: *error says why, and is responded. */
    bool (*read)(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error);

    /* On a media thread, as are the two above where this is given: makes prompts[i], in order, when answers of the ones before
     * are mostly there. Takes none of the call's memory. release: it is not called any more. */
    bool (*prompt)(pl_call *call, size_t i, const pl_media_stop *stop, pl_tokens *out, pl_api_error *error);
    void (*release)(pl_call *call);
    void (*free)(pl_call *call); /* the call's end, on any thread */

    /* On the loop, streamed calls only. Each appends whole SSE events to out (pl_call_event). begin: before the first
     * piece of any choice. piece: in order for each choice, those that have text or, where asked for, a logprob; where
     * calls of functions are parsed, the text is what is none. tool: in order among these. choice_done: once for each,
     * after its last piece. Those not needed may be NULL. */
    void (*begin)(pl_call *call, pl_strbuf *out);
    void (*piece)(pl_call *call, int32_t choice, const pl_call_piece *piece, pl_strbuf *out);
    void (*tool)(pl_call *call, int32_t choice, const pl_tool_piece *piece, pl_strbuf *out);
    void (*choice_done)(pl_call *call, int32_t choice, pl_strbuf *out);
    void (*end)(pl_call *call, pl_strbuf *out);
    void (*fail)(pl_call *call, const pl_api_error *error, pl_strbuf *out); /* once a stream has begun */

    /* On the loop: the whole response of a call that is not streamed, as JSON. */
    void (*whole)(pl_call *call, pl_json *out);

    /* Instead, where it is no JSON: returns its Content-Type. */
    const char *(*plain)(pl_call *call, pl_strbuf *out);

    bool repeats; /* the end of a stream says all of it again: pieces are kept for it */
} pl_call_format;

/* Takes the exchange. */
void pl_call_start(pl_service *service, pl_exchange *x, const pl_call_format *format);

/* ---- for formats ---- */

pl_service *pl_call_service(const pl_call *call);
const pl_call_spec *pl_call_asked(const pl_call *call);
int32_t pl_call_choices(const pl_call *call);
const pl_call_choice *pl_call_choice_at(const pl_call *call, int32_t i);
const char *pl_call_content_type(const pl_call *call); /* of the body; NULL: not told */
const char *pl_call_id(const pl_call *call);           /* 24 characters, unique: for "chatcmpl-..." */
int64_t pl_call_created(const pl_call *call);          /* Unix time */
const char *pl_call_model(const pl_call *call);        /* as asked for: "NAME:e2b" */
void pl_call_set_data(pl_call *call, void *data);      /* the spec's format_data, before read() */
void pl_call_set_model(pl_call *call, const char *model);

/* Memory that lives as long as the call; NULL: none. The text of n bytes gets a NUL. */
void *pl_call_keep(pl_call *call, size_t bytes);
const char *pl_call_keep_text(pl_call *call, const char *text, size_t n);

/* Reads the fields that all APIs share into the spec: model (NAME, NAME:path; unknown is 404 model_not_found), path,
 * quality ("quality", "balanced", "speed"), moves ("none", "exact", "fast"), priority, latency_ms {first_token,
 * per_token}. */
void pl_call_read_common(pl_call *call, pl_fields *f, pl_call_spec *spec);

/* temperature (0 to hottest), top_p, top_k, min_p, typical_p, repeat_penalty, presence_penalty, frequency_penalty,
 * logit_bias, seed, ignore_eos. */
void pl_call_read_sampling(pl_call *call, pl_fields *f, double hottest, pl_call_spec *spec);

/* The spec's conversation, made anew. False: told to f. */
bool pl_call_converse(pl_call *call, pl_fields *f, pl_call_spec *spec);

/* Limits the answer to what is asked for, 0: as much as the server gives; more than that is an error of field `name`. */
void pl_call_read_max_tokens(pl_call *call, pl_fields *f, const char *name, pl_call_spec *spec);

/* Up to PL_CALL_STOPS strings that are not empty: one, or an array of them. */
#define PL_CALL_STOPS 16
void pl_call_read_stop(pl_call *call, pl_fields *f, const char *name, pl_call_spec *spec);

/* The spec's grammar. text is about the field `name`. */
void pl_call_use_grammar(pl_call *call, pl_fields *f, const char *name, pl_grammar_kind kind, const char *text,
                         size_t n, pl_call_spec *spec);

/* The extensions grammar (GBNF) and regex, of which there may be one. */
void pl_call_read_grammar(pl_call *call, pl_fields *f, pl_call_spec *spec);

/* Appends "event: NAME\n" (NULL: none) and "data: JSON\n\n"; takes json. */
void pl_call_event(pl_strbuf *out, const char *event, pl_json *json);

/* finish_reason as OpenAI has it: "stop", "length"; "tool_calls" where functions are called. */
const char *pl_call_finish_name(const pl_call_choice *choice);

/* Tokens of all choices: prompts (each counted once), of them reused, answers. */
typedef struct pl_call_usage {
    int64_t prompt, reused, answer, audio; /* audio: of the prompt */
} pl_call_usage;
pl_call_usage pl_call_count(const pl_call *call);

/* The object "pleiad": path, reason, queued_ms, prompt_ms, generate_ms, tokens_per_second, reused, preempted, moved. */
void pl_call_put_served(const pl_call *call, int32_t choice, pl_json *json);

#endif
