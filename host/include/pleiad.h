/* Pleiad: an inference engine for Gemma 3n.
 *
 * The whole public interface: programs, servers and embedders include this file and nothing else.
 *
 * Objects and ownership
 *   pl_model    an opened checkpoint: mapped weights, tokenizer, chat template. Immutable after opening,
 *               so any number of threads may use it.
 *   pl_engine   a model made ready to run on one machine: packed weights, threads, K/V memory.
 *               Borrows the model, which must outlive it.
 *   pl_session  one conversation: its tokens and K/V. Borrows the engine. A session is used by one
 *               thread at a time; only pl_session_cancel() may be called from any other thread.
 *               Sessions of one engine may run on different threads: their steps take turns.
 * Every create/open has its free/close; those accept NULL. Strings passed in are borrowed for the call.
 *
 * Errors
 *   Functions that can fail return a pl_status and, where there is more to say, fill the pl_error they
 *   are given (which may be NULL). The message names what was wrong and where. On failure no
 *   out-parameter is written unless its description says so. */
#ifndef PLEIAD_H
#define PLEIAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PL_VERSION "0.1.0"

typedef enum pl_status {
    PL_OK = 0,
    PL_ERR_ARGUMENT,    /* the caller passed something that can never be right */
    PL_ERR_IO,          /* the operating system refused: missing file, no permission, disk full */
    PL_ERR_FORMAT,      /* a file is not what it claims to be */
    PL_ERR_UNSUPPORTED, /* a valid request or file that this build cannot serve */
    PL_ERR_MEMORY,      /* an allocation failed */
    PL_ERR_CONTEXT,     /* the sequence does not fit the context */
    PL_ERR_CANCELLED,   /* pl_session_cancel() or a callback stopped it */
    PL_ERR_NUMERIC,     /* the model produced a value that is not finite */
    PL_ERR_DEVICE,      /* a card failed or was lost; engines on it serve no more */
} pl_status;

#define PL_ERROR_BYTES 512

typedef struct pl_error {
    pl_status status;
    char message[PL_ERROR_BYTES]; /* one line, without newline, always terminated */
} pl_error;

/* A short constant name of a status, e.g. "format error". */
const char *pl_status_name(pl_status status);

/* ---- model ------------------------------------------------------------------------------------- */

typedef struct pl_model pl_model;
typedef struct pl_engine pl_engine;
typedef struct pl_session pl_session;
typedef struct pl_timeline pl_timeline; /* what ran when; see below */

/* Opens a Hugging Face folder (config.json, *.safetensors, tokenizer.json) or a GGUF file. The weights
 * are mapped, not read: the files must stay unchanged until pl_model_close(). */
pl_status pl_model_open(const char *path, pl_model **out, pl_error *err);
void pl_model_close(pl_model *model);

/* Opens only the tokenizer and chat template: a folder with tokenizer files alone is enough. Such a
 * model serves the text functions below and no engine. */
pl_status pl_model_open_text(const char *path, pl_model **out, pl_error *err);

int32_t pl_model_vocab_size(const pl_model *model); /* rows of logits */
int32_t pl_model_context(const pl_model *model);    /* the longest sequence that the model was made for */

/* ---- text -------------------------------------------------------------------------------------- */

typedef struct pl_message {
    const char *role;    /* "system" (first only), "user", "assistant" or "model" */
    const char *content; /* UTF-8 */
} pl_message;

typedef struct pl_tokens {
    int32_t *ids; /* owned by the holder: pl_tokens_free() */
    size_t n;
} pl_tokens;

#define PL_TOKENIZE_BOS 1u        /* put <bos> first */
#define PL_TOKENIZE_NO_SPECIAL 2u /* control tokens written in the text are ordinary text */

/* text: n_bytes of UTF-8 (bytes that are not UTF-8 become byte pieces). */
pl_status pl_tokenize(const pl_model *model, const char *text, size_t n_bytes, unsigned flags, pl_tokens *out,
                      pl_error *err);

/* The tokens of a chat in the model's template, starting with <bos>; with `reply` the template's
 * opening of a model turn is appended. */
pl_status pl_tokenize_chat(const pl_model *model, const pl_message *messages, size_t n, bool reply, pl_tokens *out,
                           pl_error *err);

/* The same for a chat written in JSON: an array of {"role", "content"}, where content is a string or an array of
 * parts, or an object {"messages": [...], "add_generation_prompt": bool}; reply is used where it does not say. */
pl_status pl_tokenize_chat_json(const pl_model *model, const char *json, size_t n, bool reply, pl_tokens *out,
                                pl_error *err);

/* *out: NUL-terminated UTF-8 owned by the caller (pl_text_free), *n_bytes without the NUL; with
 * skip_special control tokens are left out. */
pl_status pl_detokenize(const pl_model *model, const int32_t *ids, size_t n, bool skip_special, char **out,
                        size_t *n_bytes, pl_error *err);

void pl_tokens_free(pl_tokens *tokens);
void pl_text_free(char *text);

/* ---- engine ------------------------------------------------------------------------------------ */

/* Called while loading; fraction in [0, 1]. */
typedef void (*pl_progress_fn)(void *user, const char *what, double fraction);

typedef enum pl_backend_kind {
    PL_BACKEND_AUTO, /* a card when there is one that the model fits, else the CPU */
    PL_BACKEND_CPU,
    PL_BACKEND_CUDA,
} pl_backend_kind;

/* Where the table of per-layer embeddings is kept for an engine on a card. It changes no result. */
typedef enum pl_ple_placement {
    PL_PLE_AUTO,
    PL_PLE_VRAM,   /* in the card's memory */
    PL_PLE_PINNED, /* in pinned memory of the host, read by the card over the bus */
    PL_PLE_HOST,   /* in memory of the host; a thread brings each step's rows */
    PL_PLE_DISK,   /* in the file; the same thread keeps the rows used most */
} pl_ple_placement;

const char *pl_ple_placement_name(pl_ple_placement placement); /* "vram"; of PL_PLE_AUTO "auto" */

typedef struct pl_engine_params {
    pl_backend_kind backend;
    int32_t device;          /* card, counted from 0 as `pleiad inspect` lists them */
    pl_ple_placement ple;    /* of an engine on a card */
    int32_t sessions;        /* that can be open at once; 0: 4 */
    int32_t threads;         /* 0: one per physical core */
    int32_t context;         /* tokens a session can hold; 0: the model's, at most 32768 */
    int32_t batch_rows;      /* rows a step, the size of prompt chunks; 0: 512 */
    bool no_pin;             /* leave threads to the operating system */
    pl_timeline *timeline;   /* records loading and every step; borrowed, may be NULL */
    pl_progress_fn progress; /* may be NULL */
    void *progress_user;
} pl_engine_params;

/* params may be NULL: all defaults. */
pl_status pl_engine_create(const pl_model *model, const pl_engine_params *params, pl_engine **out, pl_error *err);
void pl_engine_free(pl_engine *engine);

typedef struct pl_engine_info {
    const char *backend;   /* "cpu avx512"; lives as long as the engine */
    pl_backend_kind kind;  /* never PL_BACKEND_AUTO */
    pl_ple_placement ple;  /* of an engine on a card; else PL_PLE_AUTO */
    const char *placement; /* why this backend and these sizes, in a line; "" where nothing was to be chosen */
    uint64_t ple_rows;     /* of the per-layer table that a thread brought to the card so far */
    uint64_t ple_hits;     /* of them, from the cache of rows used lately */
    int32_t sessions;      /* that can be open at once */
    int32_t threads;
    int32_t context;
    int32_t batch_rows;
    double load_s;       /* wall time of pl_engine_create() */
    size_t weight_bytes; /* weights in memory of the engine's own */
    size_t mapped_bytes; /* weights read where they are in the file */
    size_t peak_bytes;   /* the process' peak resident memory so far */
} pl_engine_info;

void pl_engine_describe(const pl_engine *engine, pl_engine_info *out);

/* Bytes of weights that one decoded token reads on the session's path. */
size_t pl_session_token_bytes(const pl_session *session);

/* ---- sampling ---------------------------------------------------------------------------------- */

typedef struct pl_logit_bias {
    int32_t id;
    float bias; /* added to the logit; -INFINITY bans the token */
} pl_logit_bias;

/* The steps of sampling, for pl_sampling.order. */
typedef enum pl_sampler_step {
    PL_SAMPLER_END = 0,
    PL_SAMPLER_PENALTIES,
    PL_SAMPLER_DRY,
    PL_SAMPLER_TOP_K,
    PL_SAMPLER_TYPICAL,
    PL_SAMPLER_TOP_P,
    PL_SAMPLER_MIN_P,
    PL_SAMPLER_TEMPERATURE,
} pl_sampler_step;

#define PL_SAMPLER_STEPS 8

typedef struct pl_sampling {
    float temperature;       /* <= 0: greedy, the best token after bias and penalties */
    int32_t top_k;           /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float typical_p;         /* 1: off */
    float repeat_penalty;    /* 1: off */
    float presence_penalty;  /* 0: off */
    float frequency_penalty; /* 0: off */
    int32_t penalty_last_n;  /* tokens looked back on; 0: none, -1: all */
    float dry_multiplier;    /* 0: off */
    float dry_base;
    int32_t dry_allowed_length;
    int32_t dry_last_n;              /* -1: all */
    const char *const *dry_breakers; /* strings that end a repetition; NULL: newline, colon, quote, asterisk */
    size_t n_dry_breakers;
    const pl_logit_bias *bias;
    size_t n_bias;
    uint64_t seed;
    pl_sampler_step order[PL_SAMPLER_STEPS]; /* ends at PL_SAMPLER_END */
} pl_sampling;

/* Gemma's published values: temperature 1.0, top-k 64, top-p 0.95; everything else off; order as in the
 * enum. */
pl_sampling pl_sampling_default(void);

/* ---- sessions and generation ------------------------------------------------------------------- */

pl_status pl_session_create(pl_engine *engine, pl_session **out, pl_error *err);
void pl_session_free(pl_session *session);

/* How tokens that the session already holds are treated when its path changes. */
typedef enum pl_switch {
    PL_SWITCH_EXACT, /* re-read them on the new path, unless their K/V are the same there anyway */
    PL_SWITCH_FAST,  /* keep their K/V as the old path wrote them */
} pl_switch;

/* path: "e4b", "e2b", a name that the file declares, or "mix:widths=W[,W...][;skip=A-B,C]".
 * Takes effect at the next token. */
pl_status pl_session_set_path(pl_session *session, const char *path, pl_switch how, pl_error *err);

/* The path in use, as pl_session_set_path() takes it. Valid until the path changes. */
const char *pl_session_path(const pl_session *session);

/* Forgets all tokens from position n on (n = 0: all). */
pl_status pl_session_truncate(pl_session *session, size_t n, pl_error *err);
size_t pl_session_length(const pl_session *session);

/* Stops the running pl_generate() of this session before its next step; from any thread. */
void pl_session_cancel(pl_session *session);

typedef struct pl_logprob {
    int32_t id;
    float logprob;
} pl_logprob;

typedef struct pl_token_event {
    int32_t id;       /* -1: no new token, only text that had been held back until the end */
    const char *text; /* what can be shown so far: n_bytes of whole UTF-8 characters, maybe none */
    size_t n_bytes;
    float logprob;         /* of this token, natural log, under the model's own distribution; NAN unless asked for */
    const pl_logprob *top; /* the n_top most likely, best first, as asked for by n_logprobs */
    size_t n_top;
} pl_token_event;

/* Called for each token; false stops the answer as if it had been cancelled. */
typedef bool (*pl_token_fn)(void *user, const pl_token_event *event);

typedef struct pl_generation {
    int32_t max_tokens; /* -1: until the context is full */
    pl_sampling sampling;
    const char *const *stop; /* strings that end the answer; not part of it */
    size_t n_stop;
    int32_t n_logprobs; /* alternatives reported with each token; 0: its own alone; -1: none, faster */
    bool ignore_eos;
    pl_token_fn on_token; /* may be NULL */
    void *user;
} pl_generation;

pl_generation pl_generation_default(void);

typedef enum pl_finish {
    PL_FINISH_EOS,
    PL_FINISH_STOP,   /* a stop string */
    PL_FINISH_LENGTH, /* max_tokens or the context */
    PL_FINISH_CANCEL,
} pl_finish;

typedef struct pl_generated {
    pl_finish finish;
    size_t n_prompt;        /* tokens of the prompt */
    size_t n_prompt_reused; /* of these, how many the session already held */
    size_t n_tokens;        /* tokens of the answer, the ending one included */
    double prompt_s;        /* wall time until the first token was there */
    double generate_s;      /* wall time from then to the last */
} pl_generated;

/* Makes the session hold `prompt` (what it holds of it already is not computed again, the rest of what
 * it holds is forgotten), then answers. The answer's tokens stay in the session. `out` may be NULL; it is
 * also filled on PL_ERR_CANCELLED. */
pl_status pl_generate(pl_session *session, const int32_t *prompt, size_t n, const pl_generation *params,
                      pl_generated *out, pl_error *err);

/* Logits of every position of ids[0..n), from a fresh start of the session: f32 [n][vocab], written to
 * logits. A change of path between positions is made by calling again with the rest and keep = true. */
pl_status pl_logits(pl_session *session, const int32_t *ids, size_t n, bool keep, float *logits, pl_error *err);

/* ---- timeline ---------------------------------------------------------------------------------- */

/* Records spans of time from any thread, at most a fixed number of them, for an engine that is given it; it must
 * outlive the engine. max_events: 0 for 262144, which take 64 bytes each as they come. */
pl_status pl_timeline_create(size_t max_events, pl_timeline **out, pl_error *err);
void pl_timeline_free(pl_timeline *timeline);

/* Writes what there is so far as a Chrome trace: JSON for chrome://tracing or ui.perfetto.dev. */
pl_status pl_timeline_write(pl_timeline *timeline, const char *path, pl_error *err);

#ifdef __cplusplus
}
#endif

#endif
