/* The one options table: commands and options are declared once (options_table.c), and from that come the
 * parsed struct, the help, the man page, the shell completions and the error messages.
 *
 * The environment is read here and nowhere else. */
#ifndef PL_BASE_OPTIONS_H
#define PL_BASE_OPTIONS_H

#include <stdio.h>

#include "host/base/status.h"

typedef enum pl_command {
    PL_COMMAND_RUN,
    PL_COMMAND_SERVE,
    PL_COMMAND_BATCH,
    PL_COMMAND_TRANSCRIBE,
    PL_COMMAND_INSPECT,
    PL_COMMAND_BENCH,
    PL_COMMAND_EVAL,
    PL_COMMAND_QUANTIZE,
    PL_COMMAND_IMATRIX,
    PL_COMMAND_SENSITIVITY,
    PL_COMMAND_SLICE,
    PL_COMMAND_DEBUG, /* a group: only a topic of help, never what pl_options_parse() returns */
    PL_COMMAND_DEBUG_TOKENIZE,
    PL_COMMAND_DEBUG_DETOKENIZE,
    PL_COMMAND_DEBUG_LOGITS,
    PL_COMMAND_DEBUG_IMAGE,
    PL_COMMAND_DEBUG_AUDIO,
    PL_COMMAND_HELP,
    PL_COMMAND_VERSION,
    PL_COMMANDS, /* how many; as a topic of help: the overview */
} pl_command;

typedef enum pl_color { PL_COLOR_AUTO, PL_COLOR_ALWAYS, PL_COLOR_NEVER } pl_color;
typedef enum pl_bench_output { PL_BENCH_TABLE, PL_BENCH_JSON, PL_BENCH_CSV, PL_BENCH_MD } pl_bench_output;
typedef enum pl_text_format { PL_TEXT_TXT, PL_TEXT_SRT, PL_TEXT_VTT, PL_TEXT_JSON } pl_text_format;
typedef enum pl_imatrix_format { PL_IMATRIX_GGUF, PL_IMATRIX_DAT } pl_imatrix_format;
typedef enum pl_shell { PL_SHELL_NONE = -1, PL_SHELL_BASH, PL_SHELL_ZSH, PL_SHELL_FISH } pl_shell;

typedef struct pl_text_list {
    const char **items;
    size_t n;
} pl_text_list;

typedef struct pl_int_list {
    int32_t *items;
    size_t n;
} pl_int_list;

typedef struct pl_bias_list {
    pl_logit_bias *items;
    size_t n;
} pl_bias_list;

typedef struct pl_shown {
    const char *kind; /* the option's name: "image", "audio" or "video" */
    const char *file; /* "-": standard input */
} pl_shown;

typedef struct pl_shown_list {
    pl_shown *items;
    size_t n;
} pl_shown_list;

typedef struct pl_switch_point {
    int64_t at;       /* the first position on the new path */
    const char *path; /* as pl_session_set_path() takes it */
} pl_switch_point;

typedef struct pl_switch_list {
    pl_switch_point *items;
    size_t n;
} pl_switch_list;

/* What a command line says. Texts are borrowed from argv, the environment and the table; the lists are
 * owned: pl_options_free(). Fields that no option of the command sets hold their defaults. */
typedef struct pl_options {
    pl_command command; /* "run --help" gives PL_COMMAND_HELP with topic PL_COMMAND_RUN */

    pl_command topic;   /* help: of which command; PL_COMMANDS: the overview */
    int32_t completion; /* help: pl_shell */
    bool man;           /* help */

    const char *model;  /* set for all commands that need one */
    const char *mmproj; /* file with the model's towers; NULL: in the model's own */
    const char *in_file;
    const char *out_file;

    const char *prompt; /* NULL: not given, as with all texts below */
    const char *file;   /* "-": standard input */
    const char *system;
    bool interactive;
    bool no_chat; /* the prompt is continued as it is, without the chat template */

    pl_shown_list shown; /* what stands before the first question, in this order */
    float fps;           /* frames a second of a video */
    int32_t max_frames;
    int32_t image_size; /* 0: the model's; 1, 2, 3: 256, 512, 768 pixels */
    float keep_towers;  /* seconds; below 0: for ever */

    int32_t text_format;              /* transcribe: pl_text_format */
    const char *language, *translate; /* transcribe: as pl_speech_language() takes them */
    float clip;                       /* seconds; 0: by the format */
    bool live;

    int32_t n_predict; /* -1: until the answer or the context ends */
    int32_t n_context; /* 0: the model's */
    int32_t n_threads; /* 0: one per physical core */
    int32_t n_batch;   /* rows a step; 0: the engine's choice */
    bool no_pin;
    bool fast_prompts;
    int32_t backend;      /* pl_backend_kind */
    int32_t device;       /* card, counted from 0 */
    const char *devices;  /* batch: "all", or cards joined by commas */
    int32_t tp;           /* cards that one engine is split over */
    int32_t ple;          /* pl_ple_placement */
    int32_t cache_type;   /* pl_cache_type */
    int32_t cache_type_k; /* llama.cpp's: 1 + pl_cache_type; 0: not given */
    int32_t cache_type_v;
    int32_t n_gpu_layers; /* llama.cpp's: 0 is the CPU, anything else leaves the choice */
    const char *trace;    /* Chrome trace to write */
    const char *path;     /* NULL: the model's own */
    pl_text_list paths;   /* of commands that take several; empty: the model's own */
    int32_t switch_mode;  /* pl_switch */

    /* All of it filled in but the seed: dry_breakers and bias point into the lists of this struct. */
    pl_sampling sampling;
    int64_t seed; /* -1: another one each time */
    pl_text_list dry_breakers;
    pl_bias_list bias;
    pl_text_list stop;
    int32_t n_logprobs;
    int32_t draft;          /* pl_drafting.most */
    const char *draft_path; /* NULL: none */
    bool ignore_eos;
    const char *grammar, *json_schema, *regex; /* what the answer may be, at most one of these five */
    const char *grammar_file, *json_schema_file;

    bool json;
    bool tensors;        /* inspect: list them */
    bool list_devices;   /* inspect: the cards alone, without a model */
    int64_t card_memory; /* inspect: of a card that is not there; 0: none */
    bool verbose;
    bool quiet;
    int32_t color; /* pl_color; see pl_options_color() */

    pl_int_list bench_prompts;  /* tokens of prompt to measure */
    pl_int_list bench_predicts; /* tokens to generate to measure */
    pl_int_list bench_depths;   /* tokens before what is measured */
    pl_int_list bench_parallel; /* sequences that generate together */
    pl_int_list bench_threads;
    bool bench_ops; /* one op after the other */
    int32_t repetitions;
    int32_t bench_output; /* pl_bench_output */

    bool chats;              /* eval, imatrix, sensitivity: the text holds chats */
    int32_t chunks;          /* eval, imatrix, sensitivity: pieces of the text to use; -1: all */
    const char *reference;   /* eval: model or file of logits to compare with */
    const char *save_logits; /* eval */
    pl_text_list compare;    /* eval: more models beside the first */
    const char *resume_file; /* eval: state of an earlier run */

    const char *type; /* quantize: a recipe or one type for all */
    int64_t fit;      /* bytes on a card; 0: not asked for */
    const char *imatrix;
    const char *sensitivity;
    pl_text_list tensor_types; /* "PATTERN=TYPE" */
    bool pure, dry_run;

    pl_text_list in_files;  /* imatrix: files to add to */
    bool resume;            /* imatrix, batch */
    int32_t imatrix_format; /* pl_imatrix_format */

    const char *slice, *widths, *skip; /* slice: what remains */

    const char *host; /* serve: address, name or path of a Unix socket */
    int32_t port;
    const char *api_key_file;
    const char *alias;  /* of the model; NULL: by its file's name */
    int32_t n_parallel; /* requests in steps at once */
    int64_t kv_tokens;  /* -1: what there is room for */
    int64_t kv_memory;  /* bytes; 0: any */
    int32_t max_queue;
    int32_t max_tokens; /* of one answer; -1: the context */
    pl_text_list cors;  /* origins */
    bool no_web;
    bool allow_media_urls; /* fetch what requests name by URL */
    const char *prefix_cache;
    float timeout, drain; /* seconds */
    int64_t max_body;     /* bytes */

    bool ordered, overwrite; /* batch */
    float deadline;          /* seconds; 0: none */
    float lost_after;        /* seconds without a sign of life */
    int32_t share;           /* pl_share_how */

    bool debug_chat; /* standard input holds JSON messages */
    bool debug_bos;
    bool debug_no_special;
    const char *ids_file;
    pl_switch_list switches; /* in rising order of `at` */
    int32_t chunk;           /* rows a prompt chunk; 0: the engine's choice */
    bool all_tensors;

    bool help; /* asked for on the way; pl_options_parse() has turned them into `command` */
    bool version;
} pl_options;

/* argv[0] is the program. Messages name the option, what was given and what is allowed, and suggest the
 * nearest name. Writes out only on success. */
pl_status pl_options_parse(int argc, char *const *argv, pl_options *out, pl_error *err);
void pl_options_free(pl_options *options);

/* Text made from the table; the caller looks at ferror(). topic: PL_COMMANDS for the overview. */
void pl_options_write_help(FILE *out, pl_command topic);
void pl_options_write_man(FILE *out); /* troff, section 1 */
void pl_options_write_completion(FILE *out, pl_shell shell);

/* Whether to write escape sequences to this descriptor: --color, else a terminal and no NO_COLOR. */
bool pl_options_color(const pl_options *options, int fd);

/* The folder for what can be made again: XDG_CACHE_HOME/pleiad or HOME/.cache/pleiad. It need not exist.
 * *out: free(). PL_ERR_IO when the environment names no absolute folder. */
pl_status pl_cache_dir(char **out, pl_error *err);

/* How many processes mpirun or srun has started for this job, as the environment says; 1 where neither did. */
int pl_launched_processes(void);

#endif
