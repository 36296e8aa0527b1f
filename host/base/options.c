#include "host/base/options.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/options_table.h"

#define MAX_OPTIONS 192

typedef struct parser {
    pl_options options;
    bool seen[MAX_OPTIONS];
    const char *operands[2];
    int n_operands;
    pl_error *err;
} parser;

/* ---- names -------------------------------------------------------------------------------------- */

static bool has_name(const pl_option *option, const char *name, size_t n)
{
    return (strlen(option->name) == n && memcmp(option->name, name, n) == 0) ||
           (option->alias && strlen(option->alias) == n && memcmp(option->alias, name, n) == 0);
}

static const pl_option *find_long(pl_command command, const char *name, size_t n)
{
    for (size_t i = 0; i < pl_option_count; i++)
        if (pl_option_belongs(&pl_option_table[i], command) && has_name(&pl_option_table[i], name, n))
            return &pl_option_table[i];
    return NULL;
}

static const pl_option *find_letter(pl_command command, char letter)
{
    for (size_t i = 0; i < pl_option_count; i++)
        if (pl_option_belongs(&pl_option_table[i], command) && pl_option_table[i].letter == letter)
            return &pl_option_table[i];
    return NULL;
}

static const pl_option *find_dash_word(pl_command command, const char *word)
{
    for (size_t i = 0; i < pl_option_count; i++) {
        const pl_option *option = &pl_option_table[i];
        if (pl_option_belongs(option, command) && option->word && strcmp(option->word, word) == 0)
            return option;
    }
    return NULL;
}

/* name: without dashes and value. */
static pl_status fail_unknown(pl_command command, const char *dashes, const char *name, pl_error *err)
{
    pl_nearest near = pl_nearest_to(name);
    for (size_t i = 0; i < pl_option_count; i++) {
        const pl_option *option = &pl_option_table[i];
        if (pl_option_belongs(option, command)) {
            pl_nearest_consider(&near, option->name);
            pl_nearest_consider(&near, option->alias);
        } else if (has_name(option, name, strlen(name)) && !find_long(command, name, strlen(name))) {
            for (int other = 0; other < PL_COMMANDS; other++)
                if (pl_option_belongs(option, (pl_command)other))
                    return pl_fail(err, PL_ERR_ARGUMENT, "--%s is an option of '%s', not of '%s'", name,
                                   pl_command_table[other].name, pl_command_table[command].name);
        }
    }
    if (near.name)
        return pl_fail(err, PL_ERR_ARGUMENT, "unknown option %s%s; did you mean --%s?", dashes, name, near.name);
    return pl_fail(err, PL_ERR_ARGUMENT, "unknown option %s%.100s; 'pleiad help %s' lists them", dashes, name,
                   pl_command_table[command].name);
}

/* ---- the command line --------------------------------------------------------------------------- */

/* value: what is attached to the option, or NULL; *next: the argument behind it. */
static pl_status take_option(parser *p, const pl_option *option, const char *value, int *next, int argc,
                             char *const *argv)
{
    if (option->kind == PL_OPTION_FLAG) {
        if (value)
            return pl_option_fail_value(option, value, NULL, p->err);
    } else if (!value) {
        if (*next >= argc)
            return pl_option_fail_missing(option, p->err);
        value = argv[(*next)++];
    }
    p->seen[option - pl_option_table] = true;
    return pl_option_set(&p->options, option, value, p->err);
}

static pl_status take_long(parser *p, const char *name, int *next, int argc, char *const *argv)
{
    size_t n = strcspn(name, "=");
    const pl_option *option = find_long(p->options.command, name, n);
    if (option)
        return take_option(p, option, name[n] ? name + n + 1 : NULL, next, argc, argv);
    char cut[64];
    snprintf(cut, sizeof cut, "%.*s", n < sizeof cut ? (int)n : (int)sizeof cut, name);
    return fail_unknown(p->options.command, "--", cut, p->err);
}

static pl_status take_short(parser *p, const char *name, int *next, int argc, char *const *argv)
{
    pl_command command = p->options.command;
    const pl_option *option = find_dash_word(command, name);
    if (option)
        return take_option(p, option, NULL, next, argc, argv);
    option = find_letter(command, name[0]);
    if (!option || (name[1] && (option->kind == PL_OPTION_FLAG || find_long(command, name, strcspn(name, "=")))))
        return fail_unknown(command, "-", name, p->err);
    return take_option(p, option, name[1] ? name + 1 : NULL, next, argc, argv);
}

static pl_status fail_subcommand(const char *given, pl_error *err)
{
    const char *prefix = "debug ";
    char names[128] = "";
    for (int i = 0, n = 0; i < PL_COMMANDS; i++) {
        const char *name = pl_command_table[i].name;
        if (strncmp(name, prefix, strlen(prefix)) == 0)
            n += snprintf(names + n, sizeof names - (size_t)n, "%s%s", n ? ", " : "", name + strlen(prefix));
    }
    if (given)
        return pl_fail(err, PL_ERR_ARGUMENT, "debug takes one of %s, not '%.100s'", names, given);
    return pl_fail(err, PL_ERR_ARGUMENT, "debug needs one of %s", names);
}

static pl_status take_operand(parser *p, const char *text)
{
    const pl_command_info *command = &pl_command_table[p->options.command];
    if (p->options.command == PL_COMMAND_DEBUG)
        return fail_subcommand(text, p->err);
    if (p->n_operands == command->max_operands)
        return pl_fail(p->err, PL_ERR_ARGUMENT, "'%s' does not take '%.100s' here%s", command->name, text,
                       p->options.command == PL_COMMAND_RUN ? "; a prompt goes behind -p" : "");
    p->operands[p->n_operands++] = text;
    return PL_OK;
}

static pl_status take_arguments(parser *p, int next, int argc, char *const *argv)
{
    bool only_operands = false;
    while (next < argc) {
        const char *arg = argv[next++];
        if (only_operands || arg[0] != '-' || !arg[1])
            PL_TRY(take_operand(p, arg));
        else if (arg[1] != '-')
            PL_TRY(take_short(p, arg + 1, &next, argc, argv));
        else if (arg[2])
            PL_TRY(take_long(p, arg + 2, &next, argc, argv));
        else
            only_operands = true;
    }
    return PL_OK;
}

/* The command that the words name, the longest that fits; *n_used: how many words it took. */
static pl_status find_command(int n, const char *const *words, pl_command *out, int *n_used, pl_error *err)
{
    *n_used = 0;
    pl_nearest near = pl_nearest_to(words[0]);
    for (int i = 0; i < PL_COMMANDS; i++) {
        const char *name = pl_command_table[i].name;
        const char *space = strchr(name, ' ');
        size_t first = space ? (size_t)(space - name) : strlen(name);
        bool same = strlen(words[0]) == first && memcmp(words[0], name, first) == 0;
        if (!space)
            pl_nearest_consider(&near, name);
        if (same && (!space || (n > 1 && strcmp(words[1], space + 1) == 0))) {
            *out = (pl_command)i;
            *n_used = space ? 2 : 1;
        }
    }
    if (*n_used)
        return PL_OK;
    return pl_fail(err, PL_ERR_ARGUMENT, "unknown command '%.100s'%s%s%s", words[0],
                   near.name ? "; did you mean " : "; 'pleiad help' lists them", near.name ? near.name : "",
                   near.name ? "?" : "");
}

static pl_status choose_topic(parser *p)
{
    pl_options *o = &p->options;
    o->topic = o->help ? PL_COMMAND_HELP : PL_COMMANDS;
    if (!p->n_operands)
        return PL_OK;
    int used;
    PL_TRY(find_command(p->n_operands, p->operands, &o->topic, &used, p->err));
    if (used == p->n_operands)
        return PL_OK;
    if (o->topic == PL_COMMAND_DEBUG)
        return fail_subcommand(p->operands[1], p->err);
    return pl_fail(p->err, PL_ERR_ARGUMENT, "'help %s' does not take '%.100s' here", p->operands[0], p->operands[1]);
}

static pl_status check_required(parser *p)
{
    pl_options *o = &p->options;
    for (size_t i = 0; i < pl_option_count; i++) {
        const pl_option *option = &pl_option_table[i];
        if (p->seen[i] || o->list_devices || !(option->required >> o->command & 1u))
            continue;
        return pl_fail(p->err, PL_ERR_ARGUMENT, "'%s' needs --%s %s%s%s: %s", pl_command_table[o->command].name,
                       option->name, option->arg, option->env ? " or the environment variable " : "",
                       option->env ? option->env : "", option->help);
    }
    if (o->verbose && o->quiet)
        return pl_fail(p->err, PL_ERR_ARGUMENT, "--verbose and --quiet exclude each other");
    return PL_OK;
}

/* --cache-type by llama.cpp's names. */
static pl_status join_cache_types(parser *p)
{
    pl_options *o = &p->options;
    int32_t k = o->cache_type_k, v = o->cache_type_v, given = k ? k : v;
    if (!given)
        return PL_OK;
    const pl_option *both = find_long(o->command, "cache-type", 10);
    if ((k && v && k != v) || (p->seen[both - pl_option_table] && given != 1 + o->cache_type))
        return pl_fail(p->err, PL_ERR_ARGUMENT,
                       "--cache-type, --cache-type-k and --cache-type-v differ, but keys and values have one type");
    o->cache_type = given - 1;
    return PL_OK;
}

/* Presets of the options that belong to the command, or of all the others. */
static pl_status set_presets(parser *p, bool belong)
{
    for (size_t i = 0; i < pl_option_count; i++) {
        const pl_option *option = &pl_option_table[i];
        const char *value = option->preset;
        if (p->seen[i] || pl_option_belongs(option, p->options.command) != belong)
            continue;
        const char *env = option->env ? getenv(option->env) : NULL;
        if (env && *env) {
            p->seen[i] = true;
            value = env;
        }
        if (value)
            PL_TRY(pl_option_set(&p->options, option, value, p->err));
    }
    return PL_OK;
}

static pl_status set_defaults(parser *p)
{
    PL_TRY(set_presets(p, true));
    p->options.sampling.dry_breakers = p->options.dry_breakers.items;
    p->options.sampling.n_dry_breakers = p->options.dry_breakers.n;
    p->options.sampling.bias = p->options.bias.items;
    p->options.sampling.n_bias = p->options.bias.n;
    return PL_OK;
}

static pl_status use_operand(parser *p, const char *name, const char *text)
{
    const pl_option *option = find_long(p->options.command, name, strlen(name));
    const char **field = (const char **)((char *)&p->options + option->offset);
    if (*field)
        return pl_fail(p->err, PL_ERR_ARGUMENT, "--%s is given twice: '%.100s' and '%.100s'", name, *field, text);
    p->seen[option - pl_option_table] = true;
    *field = text;
    return PL_OK;
}

static pl_status use_operands(parser *p)
{
    pl_options *o = &p->options;
    if (o->command == PL_COMMAND_HELP)
        return choose_topic(p);
    for (int i = 0; i < p->n_operands; i++)
        PL_TRY(use_operand(p, pl_command_table[o->command].takes[i], p->operands[i]));
    return PL_OK;
}

static pl_status parse_command(parser *p, int argc, char *const *argv)
{
    pl_options *o = &p->options;
    const char *words[2] = {argv[1], argc > 2 ? argv[2] : NULL};
    int used;
    PL_TRY(find_command(argc > 2 ? 2 : 1, words, &o->command, &used, p->err));
    PL_TRY(set_presets(p, false)); /* first: other commands may have other options for the same field */
    PL_TRY(take_arguments(p, 1 + used, argc, argv));
    PL_TRY(use_operands(p));
    PL_TRY(set_defaults(p));
    if (o->version)
        o->command = PL_COMMAND_VERSION;
    if (o->help && o->command != PL_COMMAND_HELP) {
        o->topic = o->command;
        o->command = PL_COMMAND_HELP;
    }
    if (o->command == PL_COMMAND_DEBUG)
        return fail_subcommand(NULL, p->err);
    PL_TRY(join_cache_types(p));
    return check_required(p);
}

static pl_status parse(parser *p, int argc, char *const *argv)
{
    if (argc < 2)
        return pl_fail(p->err, PL_ERR_ARGUMENT, "no command given; 'pleiad help' lists them");
    if (argv[1][0] != '-')
        return parse_command(p, argc, argv);
    bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;
    if (!help && strcmp(argv[1], "--version") != 0)
        return pl_fail(p->err, PL_ERR_ARGUMENT, "no command before '%.100s'; 'pleiad help' lists them", argv[1]);
    p->options.command = help ? PL_COMMAND_HELP : PL_COMMAND_VERSION;
    PL_TRY(set_presets(p, false));
    PL_TRY(take_arguments(p, 2, argc, argv));
    PL_TRY(use_operands(p));
    return set_defaults(p);
}

pl_status pl_options_parse(int argc, char *const *argv, pl_options *out, pl_error *err)
{
    parser p = {.err = err};
    p.options.topic = PL_COMMANDS;
    p.options.completion = PL_SHELL_NONE;
    pl_status status = parse(&p, argc, argv);
    if (status == PL_OK)
        *out = p.options;
    else
        pl_options_free(&p.options);
    return status;
}

void pl_options_free(pl_options *options)
{
    if (!options)
        return;
    free(options->dry_breakers.items);
    free(options->bias.items);
    free(options->stop.items);
    free(options->bench_prompts.items);
    free(options->bench_predicts.items);
    free(options->bench_depths.items);
    free(options->bench_parallel.items);
    free(options->bench_threads.items);
    free(options->paths.items);
    free(options->compare.items);
    free(options->tensor_types.items);
    free(options->in_files.items);
    free(options->switches.items);
    free(options->cors.items);
    free(options->shown.items);
    *options = (pl_options){.command = options->command};
}

/* ---- the environment ---------------------------------------------------------------------------- */

bool pl_options_color(const pl_options *options, int fd)
{
    if (options->color != PL_COLOR_AUTO)
        return options->color == PL_COLOR_ALWAYS;
    const char *no_color = getenv("NO_COLOR");
    return isatty(fd) && !(no_color && *no_color);
}

pl_status pl_cache_dir(char **out, pl_error *err)
{
    const char *tail = "/pleiad";
    const char *base = getenv("XDG_CACHE_HOME");
    if (!base || base[0] != '/') {
        base = getenv("HOME");
        tail = "/.cache/pleiad";
    }
    if (!base || base[0] != '/')
        return pl_fail(err, PL_ERR_IO, "no cache folder: neither XDG_CACHE_HOME nor HOME is an absolute path");
    size_t bytes = strlen(base) + strlen(tail) + 1;
    char *path = malloc(bytes);
    if (!path)
        return pl_fail_memory(err, bytes, "cache folder name");
    snprintf(path, bytes, "%s%s", base, tail);
    *out = path;
    return PL_OK;
}

int pl_launched_processes(void)
{
    /* Open MPI's mpirun, others that speak PMI, srun; a Slurm batch script alone has none of them. */
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        long n = text ? strtol(text, NULL, 10) : 0;
        if (n > 0 && n <= INT_MAX)
            return (int)n;
    }
    return 1;
}
