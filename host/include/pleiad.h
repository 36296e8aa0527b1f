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
    PL_ERR_BUSY,        /* a bounded queue is full; later there may be room */
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

/* Tells models apart: another one, another type or another training makes another number, as does the same model in another
 * format. Reads a few pages a tensor; 0 where it was opened for its text tools only. */
uint64_t pl_model_fingerprint(const pl_model *model);

int32_t pl_model_vocab_size(const pl_model *model); /* rows of logits */
int32_t pl_model_context(const pl_model *model);    /* the longest sequence that the model was made for */

/* Names of paths that the file offers, the widest first: "e4b", declared ones, "e2b". The i-th, or NULL. */
const char *pl_model_path(const pl_model *model, size_t i);

/* Checks a path as pl_session_set_path() takes it. */
pl_status pl_model_check_path(const pl_model *model, const char *path, pl_error *err);

/* Values of a final state, as a request to embed gets it. */
int32_t pl_model_hidden_size(const pl_model *model);

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

#define PL_TOKEN_BYTES 1024 /* most of one token */

/* Writes what one token stands for by itself to out[PL_TOKEN_BYTES], returns how many bytes: of a byte piece its byte,
 * which need not be UTF-8 alone. Control tokens give their name, an id that is none 0 bytes. */
size_t pl_token_bytes(const pl_model *model, int32_t id, char *out);

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

/* Where the table of per-layer embeddings is kept for an engine on a card. It changes no result. On the CPU it stays in
 * the mapped file; PL_PLE_DISK: rows are read from the file instead, those used lately kept, and steps have fewer rows. */
typedef enum pl_ple_placement {
    PL_PLE_AUTO,
    PL_PLE_VRAM,   /* in the card's memory */
    PL_PLE_PINNED, /* in pinned memory of the host, read by the card over the bus */
    PL_PLE_HOST,   /* in memory of the host; a thread brings each step's rows */
    PL_PLE_DISK,   /* in the file; the same thread keeps the rows used most */
} pl_ple_placement;

const char *pl_ple_placement_name(pl_ple_placement placement); /* "vram"; of PL_PLE_AUTO "auto" */

/* How the keys and values of earlier tokens are kept. */
typedef enum pl_cache_type {
    PL_CACHE_F32,
    PL_CACHE_F16,
    PL_CACHE_Q8_0, /* 8 bits each, with a scale in f16 for every 32 */
} pl_cache_type;

const char *pl_cache_type_name(pl_cache_type type); /* "q8_0" */

typedef struct pl_engine_params {
    pl_backend_kind backend;
    int32_t device;          /* card, counted from 0 as `pleiad inspect` lists them */
    int32_t tp;              /* cards, from `device` on, that the engine is split over; on the CPU parts of its threads;
                                0, 1: not split */
    pl_ple_placement ple;    /* of an engine on a card */
    pl_cache_type cache;     /* on a card only f32 */
    int32_t sessions;        /* that can be open at once; 0: 4 */
    int32_t threads;         /* 0: one per physical core */
    int32_t context;         /* tokens a session can hold; 0: the model's, at most 32768 */
    int32_t batch_rows;      /* rows a step, the size of prompt chunks; 0: 512 */
    int64_t kv_tokens;       /* tokens whose K/V all sessions and kept prefixes share, at least one context's and on a
                                card what fits; 0: sessions x context; -1: as much as is sensible: on a card what is
                                left, on the CPU a quarter of the free memory */
    size_t kv_bytes;         /* memory that these may take, but for one context's; 0: any */
    double keep_towers_s;    /* towers are given up so long after their last use; 0: 300, below: never */
    bool no_pin;             /* leave threads to the operating system */
    bool fast_prompts;       /* steps of 64 and more rows of prompts in 8 bits (bf16 with AMX), on a CPU */
    pl_timeline *timeline;   /* records loading and every step; borrowed, may be NULL */
    pl_progress_fn progress; /* may be NULL */
    void *progress_user;
} pl_engine_params;

/* params may be NULL: all defaults. */
pl_status pl_engine_create(const pl_model *model, const pl_engine_params *params, pl_engine **out, pl_error *err);

/* n engines of the model, 1 to 16, made side by side: on these cards (NULL: 0 to n - 1), params->device is ignored; or on the CPU,
 * each on a NUMA node, or its part of one, with as much of the processors and of the free memory. Where NCCL is there weights
 * are read and packed once and go from card to card. PL_BACKEND_AUTO: n > 1 are on cards where there are any. progress is that
 * of the first, called by a thread of its own. out: [n]; on failure, whose message names the card, there are none. */
pl_status pl_engines_create(const pl_model *model, const pl_engine_params *params, const int *devices, int n,
                            pl_engine **out, pl_error *err);
void pl_engine_free(pl_engine *engine);

typedef struct pl_engine_info {
    const char *backend;  /* "cpu avx512"; lives as long as the engine */
    pl_backend_kind kind; /* never PL_BACKEND_AUTO */
    pl_ple_placement ple; /* of an engine on a card; else PL_PLE_AUTO */
    pl_cache_type cache;
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

/* ---- media ------------------------------------------------------------------------------------- */

/* An image or a clip of sound as rows of a prompt: ids of its own, beyond the vocabulary, that stand for them. Immutable, counted
 * by references; equal contents on one engine get equal ids as long as somebody holds or the engine remembers them, so that
 * prompts with the same image share their K/V. An engine that was given a prompt holds what its ids stand for by itself. Media and
 * listeners are freed before their engine. */
typedef struct pl_media pl_media;

typedef enum pl_media_kind { PL_MEDIA_IMAGE, PL_MEDIA_AUDIO } pl_media_kind;

const char *pl_media_kind_name(pl_media_kind kind); /* "image", "audio" */

/* Gives the model the towers of a GGUF file (llama.cpp's mmproj), for models whose own files have none. Before the first
 * engine is made of it. */
pl_status pl_model_add_towers(pl_model *model, const char *path, pl_error *err);

/* Whether there is a tower for it. */
bool pl_model_takes(const pl_model *model, pl_media_kind kind);

/* Ids that an image, or a clip of sound with its padding, has in a prompt; 0: there is no tower for it. */
size_t pl_model_media_ids(const pl_model *model, pl_media_kind kind);

typedef struct pl_media_params {
    int64_t max_pixels;       /* of an image; 0: 100 million */
    double max_s;             /* of sound; 0, and at most: 30, what one clip can be */
    int32_t image_side;       /* pixels that images are brought to: 256, 512 or 768, at most the model's own; 0: that */
    bool (*stop)(void *user); /* asked between pieces of the work: true ends it with PL_ERR_CANCELLED; NULL: nobody */
    void *stop_user;
} pl_media_params;

/* From the bytes of a file: JPEG, PNG, WebP; wav, mp3, flac, ogg. name: for messages. params may be NULL. Loads the tower where
 * it is not; the work is done by the calling thread and the engine's, between the steps of answers. PL_ERR_UNSUPPORTED: the
 * model has no such tower. */
pl_status pl_media_create(pl_engine *engine, pl_media_kind kind, const void *bytes, size_t n, const char *name,
                          const pl_media_params *params, pl_media **out, pl_error *err);

/* The same from pixels, [height][width][3] bytes, and from samples: 16 kHz, one channel, full scale 1. */
pl_status pl_media_from_pixels(pl_engine *engine, const uint8_t *rgb, int32_t width, int32_t height,
                               const pl_media_params *params, pl_media **out, pl_error *err);
pl_status pl_media_from_samples(pl_engine *engine, const float *samples, size_t n, const pl_media_params *params,
                                pl_media **out, pl_error *err);

pl_media *pl_media_share(pl_media *media); /* another reference; NULL gives NULL */
void pl_media_free(pl_media *media);

/* What it is, and its rows: *ids valid as long as the media; padding of sound is among them. */
pl_media_kind pl_media_kind_of(const pl_media *media);
size_t pl_media_ids(const pl_media *media, const int32_t **ids);

/* Sound as it comes: its rows are there while it is still being spoken, so that a prompt can be read along with it. */
typedef struct pl_listener pl_listener;

pl_status pl_listener_create(pl_engine *engine, pl_listener **out, pl_error *err);
void pl_listener_free(pl_listener *listener);

/* n more samples as of pl_media_from_samples(). PL_ERR_CONTEXT: more than one clip can hold. */
pl_status pl_listener_hear(pl_listener *listener, const float *samples, size_t n, pl_error *err);

/* No more will come: the last rows, without padding. */
pl_status pl_listener_finish(pl_listener *listener, pl_error *err);

/* The ids so far; none of them will change. Valid until the next call. */
size_t pl_listener_ids(const pl_listener *listener, const int32_t **ids);

/* What a finished listener heard, as a clip with its padding. PL_ERR_ARGUMENT: too short for a single row. */
pl_status pl_listener_media(const pl_listener *listener, pl_media **out, pl_error *err);

/* The towers' memory: how much there is now, and how long since the last use. Unused ones are given up after keep_s. */
typedef struct pl_tower_stats {
    size_t vision_bytes, audio_bytes; /* now; 0: not loaded */
    size_t cache_bytes;               /* rows that are remembered */
    uint64_t images, clips;           /* encoded */
    uint64_t hits;                    /* remembered instead */
    double encode_s, load_s;          /* wall time, all together */
} pl_tower_stats;

void pl_engine_towers(const pl_engine *engine, pl_tower_stats *out);

/* Gives up towers that nobody uses now and has for so many seconds. */
void pl_engine_drop_towers(pl_engine *engine, double idle_s);

/* As pl_tokenize() and pl_tokenize_chat_json(), of a text in which the model's placeholders ("<image_soft_token>",
 * "<audio_soft_token>") stand for media, in order: each becomes two newlines, its begin, its ids, its end, two
 * newlines, as the reference does it. PL_ERR_ARGUMENT: not as many of a kind as there are placeholders. */
pl_status pl_tokenize_media(const pl_model *model, const char *text, size_t n_bytes, unsigned flags,
                            pl_media *const *media, size_t n_media, pl_tokens *out, pl_error *err);
pl_status pl_tokenize_chat_media(const pl_model *model, const char *json, size_t n, bool reply, pl_media *const *media,
                                 size_t n_media, pl_tokens *out, pl_error *err);

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

/* ---- grammars ---------------------------------------------------------------------------------- */

/* What an answer may be, compiled to masks over the vocabulary. Immutable for its users: any number of answers, on any
 * threads, may use one. Compiling the first of a model builds the index of its pieces (some 0.1 s for 262k). */
typedef struct pl_grammar pl_grammar;

typedef enum pl_grammar_kind {
    PL_GRAMMAR_JSON,        /* any JSON object; there is no text */
    PL_GRAMMAR_JSON_SCHEMA, /* a JSON value as the schema says (host/grammar/json_schema.h names the subset) */
    PL_GRAMMAR_REGEX,       /* the whole answer matches (host/grammar/regex.h) */
    PL_GRAMMAR_GBNF,        /* llama.cpp's notation, beginning at "root" (host/grammar/gbnf.h) */
    PL_GRAMMAR_TOOLS,       /* calls of functions, or text (host/grammar/tool_rules.h) */
} pl_grammar_kind;

/* PL_ERR_ARGUMENT and PL_ERR_UNSUPPORTED name the place in the text and what was expected there. The result is one
 * reference. */
pl_status pl_grammar_compile(const pl_model *model, pl_grammar_kind kind, const char *text, size_t n, pl_grammar **out,
                             pl_error *err);
pl_grammar *pl_grammar_share(pl_grammar *grammar); /* another reference, to be freed likewise; NULL gives NULL */
void pl_grammar_free(pl_grammar *grammar);

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

/* Drafts: tokens proposed cheaply and then verified, several by one step. What is answered stays the same, token for token:
 * a proposal counts only where it is the token that is chosen anyway. Engines on a card make none. */
typedef enum pl_draft_source {
    PL_DRAFT_GIVEN, /* the caller */
    PL_DRAFT_NGRAM, /* what followed the same tokens earlier in prompt or answer */
    PL_DRAFT_PATH,  /* another path of the model */
    PL_DRAFT_SOURCES
} pl_draft_source;

const char *pl_draft_source_name(pl_draft_source source); /* "given", "ngram", "path" */

/* Proposes up to `most` tokens to follow tokens[0..n), prompt and answer: writes them to out, returns how many. Must be
 * quick; it is called between the steps, and must call nothing of this interface. */
typedef int32_t (*pl_propose_fn)(void *user, const int32_t *tokens, size_t n, int32_t most, int32_t *out);

typedef struct pl_drafting {
    int32_t most;     /* proposals a step: -1: as many as pay here, by what was accepted lately and what steps cost;
                              0: off; 1 to 15: so many wherever there are any */
    const char *path; /* proposes where the text does not; as pl_session_set_path(); NULL: none */
    pl_propose_fn propose; /* asked first; NULL: nobody */
    void *user;
} pl_drafting;

typedef struct pl_draft_counts {
    uint64_t drafted[PL_DRAFT_SOURCES]; /* proposals verified */
    uint64_t accepted[PL_DRAFT_SOURCES];
} pl_draft_counts;

typedef struct pl_generation {
    int32_t max_tokens; /* -1: until the context is full */
    pl_sampling sampling;
    const char *const *stop; /* strings that end the answer; not part of it */
    size_t n_stop;
    int32_t n_logprobs; /* alternatives reported with each token; 0: its own alone; -1: none, faster */
    bool ignore_eos;
    pl_grammar *grammar; /* what the answer may be; borrowed; NULL: anything */
    pl_drafting draft;
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
    int32_t stop_index;     /* with PL_FINISH_STOP: which of pl_generation.stop it was; else -1 */
    pl_draft_counts drafts;
} pl_generated;

/* Makes the session hold `prompt` (what it holds of it already is not computed again, the rest of what
 * it holds is forgotten), then answers. The answer's tokens stay in the session. `out` may be NULL; it is
 * also filled on PL_ERR_CANCELLED. */
pl_status pl_generate(pl_session *session, const int32_t *prompt, size_t n, const pl_generation *params,
                      pl_generated *out, pl_error *err);

/* Makes the session hold `prompt` without answering, as far as pl_generate() would not read it again: for prompts that
 * are known before they are complete. */
pl_status pl_session_prepare(pl_session *session, const int32_t *prompt, size_t n, pl_error *err);

/* Logits of every position of ids[0..n), from a fresh start of the session: f32 [n][vocab], written to
 * logits. A change of path between positions is made by calling again with the rest and keep = true. */
pl_status pl_logits(pl_session *session, const int32_t *ids, size_t n, bool keep, float *logits, pl_error *err);

/* ---- scheduler --------------------------------------------------------------------------------- */

/* Serves many requests on one engine: a thread of its own forms each step out of prompt chunks and single tokens of
 * all of them. What a request is answered does not depend on the others. Its functions may be called by any thread.
 * The engine's sessions go on working beside it, their steps take turns with its own. */
typedef struct pl_scheduler pl_scheduler;

typedef struct pl_scheduler_params {
    int32_t max_waiting; /* requests that wait for their first step; 0: 1024 */
    int32_t max_running; /* requests in steps at once; 0, and at most: the engine's sessions not in use otherwise */
    double step_s;       /* time a step should take while answers are under way, which bounds prompt chunks; 0: 0.1 */
    bool no_prefixes;    /* nothing is kept of prompts and answers that are done */
    const char *prefix_file; /* where kept prefixes are read from now and written to at the end; NULL: nowhere. A file
                                of another model, or damaged, is ignored */
} pl_scheduler_params;

/* params may be NULL: all defaults. Borrows the engine. */
pl_status pl_scheduler_create(pl_engine *engine, const pl_scheduler_params *params, pl_scheduler **out, pl_error *err);

/* Ends all requests that are left with PL_ERR_CANCELLED; their on_done has been called when it returns. */
void pl_scheduler_free(pl_scheduler *scheduler);

/* What "auto" should lean to. */
typedef enum pl_wish { PL_WISH_BALANCED, PL_WISH_QUALITY, PL_WISH_SPEED } pl_wish;

/* Whether an answer on "auto" may change its path between tokens. */
typedef enum pl_moves {
    PL_MOVES_NONE,
    PL_MOVES_EXACT, /* as PL_SWITCH_EXACT: all tokens before are read again unless their K/V are the same */
    PL_MOVES_FAST,  /* as PL_SWITCH_FAST */
} pl_moves;

typedef struct pl_outcome {
    pl_status status;    /* PL_OK, PL_ERR_CANCELLED, PL_ERR_NUMERIC, PL_ERR_DEVICE, PL_ERR_MEMORY ... */
    const char *message; /* "" with PL_OK */
    pl_generated answer; /* its times count from the request's first step */
    double queued_s;     /* wall time before that */
    const char *path;    /* that its last token ran through, as pl_session_set_path() takes it */
    const char *reason;  /* why this path, in a few words: "asked for", "load", "deadline" ... */
    int32_t preempted;   /* how often it lost its place and was read again */
    int32_t moved;       /* how often it changed its path */
    const float *state;  /* [n_state] of a request to embed */
    size_t n_state;
} pl_outcome;

/* Called once for each request that was taken; what it points to lives for the call. */
typedef void (*pl_done_fn)(void *user, const pl_outcome *outcome);

typedef struct pl_request {
    const int32_t *prompt; /* copied, as are the strings and lists below */
    size_t n_prompt;
    pl_generation generation; /* on_token is called by the scheduler's thread: it must not wait for anything */
    bool embed;               /* no answer, but the mean over the prompt of the final states (what the head reads) */
    const char *path;         /* as pl_session_set_path() takes it, or "auto"; NULL: the whole model */
    pl_wish wish;             /* for "auto" */
    pl_moves moves;           /* for "auto" */
    uint64_t client;          /* requests of one client share its turns; 0 is a client like any other */
    int32_t priority;         /* higher goes first; -100 to 100 */
    double first_token_s;     /* wished time to the first token; 0: none. What cannot be kept is served all the same */
    double token_s;           /* wished time per token after it; 0: none */
    pl_done_fn on_done;
    void *user; /* of on_done; on_token has generation.user */
} pl_request;

pl_request pl_request_default(void);

/* PL_ERR_BUSY when too many wait; PL_ERR_ARGUMENT, PL_ERR_CONTEXT as pl_generate() would say. *id, from 1, may be NULL
 * and is written before any callback. */
pl_status pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err);

/* Ends a request before its next step; on_done says PL_ERR_CANCELLED. One that is done, or unknown, is left alone. */
void pl_scheduler_cancel(pl_scheduler *scheduler, uint64_t id);

#define PL_HISTOGRAM_BUCKETS 20

typedef struct pl_histogram {
    uint64_t count[PL_HISTOGRAM_BUCKETS +
                   1]; /* values up to bound i, not those up to the bounds before it; the last: above all */
    double sum;
} pl_histogram;

double pl_histogram_bound(int i); /* seconds: 0.0005 doubled i times */

#define PL_STATS_PATHS 16

typedef struct pl_path_stats {
    char path[64];     /* cut where longer */
    uint64_t requests; /* that began on it */
    uint64_t rows;     /* of steps */
} pl_path_stats;

typedef struct pl_scheduler_stats {
    int32_t waiting, running;                             /* now */
    uint64_t submitted, refused, done, cancelled, failed; /* requests; refused: PL_ERR_BUSY */
    uint64_t steps, preemptions, moves;
    uint64_t prompt_tokens, reused_tokens, answer_tokens;  /* prompt_tokens: read, reused ones not among them */
    pl_histogram queued_s, first_token_s, token_s, step_s; /* first_token_s: from submission on */
    int64_t kv_tokens, kv_used, kv_kept;                   /* room; held by requests; kept for reuse */
    pl_draft_counts drafts;
    double retry_after_s;                /* when room for one more may be expected; 0: now */
    pl_path_stats paths[PL_STATS_PATHS]; /* the last counts all for which there is no room */
    int32_t n_paths;
} pl_scheduler_stats;

void pl_scheduler_count(pl_scheduler *scheduler, pl_scheduler_stats *out);

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
