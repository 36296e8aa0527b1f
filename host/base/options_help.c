/* Help and the man page, printed from the options table. */
#include <string.h>

#include "host/base/options_table.h"

#define WIDTH 80
#define HELP_COLUMN 30

/* "-m, --model PATH", with aliases when `all`. */
static void spell_option(char *text, size_t size, const pl_option *option, bool all)
{
    char letter[8] = "    ", alias[64] = "", value[64] = "";
    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    if (all && option->word)
        snprintf(alias, sizeof alias, ", -%s", option->word);
    if (all && option->alias)
        snprintf(alias + strlen(alias), sizeof alias - strlen(alias), ", --%s", option->alias);
    if (option->arg)
        snprintf(value, sizeof value, " %s", option->arg);
    else if (option->kind != PL_OPTION_FLAG)
        for (int i = 0; i < PL_OPTION_WORDS && option->words[i]; i++)
            snprintf(value + strlen(value), sizeof value - strlen(value), "%c%s", i ? '|' : ' ', option->words[i]);
    snprintf(text, size, "%s--%s%s%s", all && !option->letter ? "" : letter, option->name, alias, value);
}

static bool shows_default(const pl_option *option)
{
    return option->preset && option->kind != PL_OPTION_SAMPLERS;
}

/* Writes words from column `at` on, breaking lines before WIDTH; further lines start at `indent`. */
static int put_wrapped(FILE *out, const char *text, int at, int indent)
{
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at > indent && at + 1 + n > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', out);
            at++;
        }
        fwrite(text, 1, (size_t)n, out);
        at += n;
        text += n;
        text += strspn(text, " ");
    }
    return at;
}

static void put_option_help(FILE *out, const pl_option *option)
{
    char text[160];
    spell_option(text, sizeof text, option, false);
    int at = fprintf(out, "  %s", text);
    if (at > HELP_COLUMN - 2) {
        fputc('\n', out);
        at = 0;
    }
    fprintf(out, "%*s", HELP_COLUMN - at, "");
    at = put_wrapped(out, option->help, HELP_COLUMN, HELP_COLUMN);
    if (shows_default(option)) {
        snprintf(text, sizeof text, "(default: %s)", option->preset);
        put_wrapped(out, text, at, HELP_COLUMN);
    }
    fputc('\n', out);
}

static void put_groups(FILE *out, pl_command command)
{
    for (int group = 0; group < PL_GROUPS; group++) {
        bool titled = false;
        for (size_t i = 0; i < pl_option_count; i++) {
            const pl_option *option = &pl_option_table[i];
            if ((int)option->group != group || !pl_option_belongs(option, command))
                continue;
            if (!titled)
                fprintf(out, "\n%s:\n", pl_group_titles[group]);
            titled = true;
            put_option_help(out, option);
        }
    }
}

static void put_examples(FILE *out, const pl_command_info *command)
{
    if (command->examples[0])
        fprintf(out, "\nExamples:\n");
    for (int i = 0; command->examples[i]; i += 2)
        fprintf(out, "  # %s\n  %s\n", command->examples[i], command->examples[i + 1]);
}

static bool is_part_of(const char *name, const char *group)
{
    size_t n = strlen(group);
    return strncmp(name, group, n) == 0 && name[n] == ' ';
}

/* The commands of one group, or all for NULL; groups themselves are left out. */
static void put_commands(FILE *out, const char *group)
{
    fprintf(out, "\nCommands:\n");
    for (int i = 0; i < PL_COMMANDS; i++) {
        const pl_command_info *command = &pl_command_table[i];
        if (i == PL_COMMAND_DEBUG || (group && !is_part_of(command->name, group)))
            continue;
        fprintf(out, "  %-18s", command->name);
        put_wrapped(out, command->summary, 20, 20);
        fputc('\n', out);
    }
}

static void put_overview(FILE *out)
{
    fprintf(out, "Usage: pleiad COMMAND [OPTION]...\n\nLocal inference for Gemma 3n.\n");
    put_commands(out, NULL);
    put_examples(out, &pl_command_table[PL_COMMAND_RUN]);
    fprintf(out, "\n'pleiad help COMMAND' explains a command and its options.\n");
}

void pl_options_write_help(FILE *out, pl_command topic)
{
    if (topic >= PL_COMMANDS) {
        put_overview(out);
        return;
    }
    const pl_command_info *command = &pl_command_table[topic];
    bool group = topic == PL_COMMAND_DEBUG;
    fprintf(out, "Usage: pleiad %s%s [OPTION]...%s%s\n\n%s.\n", command->name, group ? " COMMAND" : "",
            command->operands ? " " : "", command->operands ? command->operands : "", command->summary);
    if (command->text) {
        fputc('\n', out);
        put_wrapped(out, command->text, 0, 0);
        fputc('\n', out);
    }
    if (group)
        put_commands(out, command->name);
    else
        put_groups(out, topic);
    put_examples(out, command);
}

/* ---- man page ----------------------------------------------------------------------------------- */

/* Text for troff: dashes and backslashes as themselves, no line that starts a request. */
static void put_troff(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '\'')
            fputs("\\(aq", out);
        else
            fputc(*text, out);
    }
}

static void put_man_option(FILE *out, const pl_option *option)
{
    char text[160];
    spell_option(text, sizeof text, option, true);
    fputs(".TP\n.B ", out);
    put_troff(out, text);
    fputc('\n', out);
    put_troff(out, option->help);
    if (shows_default(option) || option->kind == PL_OPTION_SAMPLERS) {
        fputs(" (default: ", out);
        put_troff(out, option->preset);
        fputc(')', out);
    }
    fputs(".\n", out);
}

static void put_man_command(FILE *out, pl_command topic)
{
    const pl_command_info *command = &pl_command_table[topic];
    fprintf(out, ".SS pleiad %s %s\n", command->name, command->operands ? command->operands : "");
    put_troff(out, command->summary);
    fputs(".\n", out);
    if (command->text) {
        fputs(".PP\n", out);
        put_troff(out, command->text);
        fputc('\n', out);
    }
    for (int group = 0; group < PL_GROUP_GENERAL; group++)
        for (size_t i = 0; i < pl_option_count; i++)
            if ((int)pl_option_table[i].group == group && pl_option_belongs(&pl_option_table[i], topic))
                put_man_option(out, &pl_option_table[i]);
}

static void put_man_examples(FILE *out)
{
    fputs(".SH EXAMPLES\n", out);
    for (int i = 0; i < PL_COMMANDS; i++)
        for (int j = 0; pl_command_table[i].examples[j]; j += 2) {
            fputs(".PP\n", out);
            put_troff(out, pl_command_table[i].examples[j]);
            fputs(":\n.PP\n.nf\n.RS\n", out);
            put_troff(out, pl_command_table[i].examples[j + 1]);
            fputs("\n.RE\n.fi\n", out);
        }
}

void pl_options_write_man(FILE *out)
{
    fputs(".TH PLEIAD 1 \"\" \"pleiad " PL_VERSION "\" \"User Commands\"\n"
          ".SH NAME\npleiad \\- local inference for Gemma 3n\n"
          ".SH SYNOPSIS\n.B pleiad\n.I COMMAND\n[\\fIOPTION\\fR]...\n"
          ".SH DESCRIPTION\nRuns Gemma 3n models on one machine. Values follow their option as the next argument, "
          "or attached as in \\-\\-temp=0.5 and \\-n5; \\-\\- ends the options.\n"
          ".SH COMMANDS\n",
          out);
    for (int i = 0; i < PL_COMMANDS; i++)
        put_man_command(out, (pl_command)i);
    fputs(".SH OPTIONS OF ALL COMMANDS\n", out);
    for (size_t i = 0; i < pl_option_count; i++)
        if (pl_option_table[i].group == PL_GROUP_GENERAL)
            put_man_option(out, &pl_option_table[i]);
    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < pl_option_count; i++)
        if (pl_option_table[i].env)
            fprintf(out, ".TP\n.B %s\nStands in for \\-\\-%s where that is not given.\n", pl_option_table[i].env,
                    pl_option_table[i].name);
    fputs(".TP\n.B NO_COLOR\nWhen set and not empty: no colors, unless \\-\\-color says otherwise.\n"
          ".TP\n.B XDG_CACHE_HOME, HOME\nThe cache is the folder pleiad in the first, or .cache/pleiad in the second.\n"
          ".SH EXIT STATUS\n0: done. 1: it failed. 2: the command line is wrong.\n",
          out);
    put_man_examples(out);
}
