/* The entries of the options table, for the files that parse it and print it. */
#ifndef PL_BASE_OPTIONS_TABLE_H
#define PL_BASE_OPTIONS_TABLE_H

#include "host/base/options.h"

typedef enum pl_option_kind {
    PL_OPTION_FLAG,     /* bool */
    PL_OPTION_INT,      /* int32_t in [min, max] */
    PL_OPTION_INT64,    /* int64_t in [min, max]; max = INFINITY: any */
    PL_OPTION_FLOAT,    /* float in [min, max] */
    PL_OPTION_BYTES,    /* int64_t in [min, max]: "3GB", "2900 MiB" */
    PL_OPTION_SECONDS,  /* float in [min, max]: "90s", "45m", "1h30m" */
    PL_OPTION_CHOICE,   /* int32_t: index into words */
    PL_OPTION_TEXT,     /* const char * */
    PL_OPTION_TEXTS,    /* pl_text_list, repeatable */
    PL_OPTION_INTS,     /* pl_int_list: "1,2,3", repeatable */
    PL_OPTION_BIASES,   /* pl_bias_list: "ID+BIAS" or "ID-BIAS", repeatable */
    PL_OPTION_SHOWN,    /* pl_shown_list, repeatable; several options may share one, which keeps their order */
    PL_OPTION_SWITCHES, /* pl_switch_list: "AT:PATH", repeatable */
    PL_OPTION_SAMPLERS, /* pl_sampler_step[]: names joined by ';', each once; words[i] is step i + 1 */
} pl_option_kind;

typedef enum pl_option_group {
    PL_GROUP_MODEL,
    PL_GROUP_INPUT,
    PL_GROUP_ANSWER,
    PL_GROUP_SAMPLING,
    PL_GROUP_PATH,
    PL_GROUP_SERVER,
    PL_GROUP_JOB,
    PL_GROUP_TYPES,
    PL_GROUP_MACHINE,
    PL_GROUP_OUTPUT,
    PL_GROUP_GENERAL,
    PL_GROUPS,
} pl_option_group;

#define PL_OPTION_WORDS 32

typedef struct pl_option {
    const char *name;  /* long name without dashes, unique within a command */
    const char *alias; /* another long name, or NULL */
    const char *word;  /* a word after one dash, as "sys" for -sys, or NULL */
    char letter;       /* 0: none; may stand for different options of different commands */
    pl_option_group group;
    pl_option_kind kind;
    size_t offset;      /* of the field in pl_options */
    uint32_t commands;  /* bits 1 << pl_command */
    uint32_t required;  /* commands that fail without it */
    const char *arg;    /* how help calls the value; NULL for flags and choices */
    const char *preset; /* the default, parsed as if typed; NULL: zero or empty */
    const char *env;    /* the environment variable that stands in, or NULL */
    double min, max;
    const char *words[PL_OPTION_WORDS]; /* CHOICE: all values; TEXT: values to complete; NULL-terminated */
    bool files;                         /* the value is a file name */
    const char *help;
} pl_option;

typedef struct pl_command_info {
    const char *name;
    const char *operands; /* how help shows them, or NULL for none */
    int max_operands;
    const char *takes[2];     /* the options that the operands stand for */
    const char *summary;      /* one line, without full stop */
    const char *text;         /* paragraphs for the command's own help; may be NULL */
    const char *examples[16]; /* a comment and a command line in turn, NULL-terminated */
} pl_command_info;

extern const pl_command_info pl_command_table[PL_COMMANDS];
extern const pl_option pl_option_table[];
extern const size_t pl_option_count;
extern const char *const pl_group_titles[PL_GROUPS];

static inline bool pl_option_belongs(const pl_option *option, pl_command command)
{
    return command < PL_COMMANDS && (option->commands >> command & 1u);
}

/* Sets the option's field from its text, or appends to it. A text is borrowed. */
pl_status pl_option_set(pl_options *options, const pl_option *option, const char *text, pl_error *err);

/* "--temp takes a number from 0 to 100, not 'warm'; did you mean ...?"; suggestion may be NULL. */
pl_status pl_option_fail_value(const pl_option *option, const char *given, const char *suggestion, pl_error *err);
pl_status pl_option_fail_missing(const pl_option *option, pl_error *err);

/* The name most like `given` among those considered; name stays NULL while none is close. */
typedef struct pl_nearest {
    const char *given, *name;
    size_t distance;
} pl_nearest;

pl_nearest pl_nearest_to(const char *given);
void pl_nearest_consider(pl_nearest *nearest, const char *name); /* name may be NULL */

#endif
