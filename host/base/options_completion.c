/* Completion scripts for shells, printed from the options table. */
#include <string.h>

#include "host/base/options_table.h"

/* The first words of commands: the groups, not what is in them. */
static bool is_first_word(int command)
{
    return !strchr(pl_command_table[command].name, ' ');
}

static const char *second_word(int command)
{
    return strchr(pl_command_table[command].name, ' ') + 1;
}

static void put_words(FILE *out, const pl_option *option, const char *separator)
{
    for (int i = 0; i < PL_OPTION_WORDS && option->words[i]; i++)
        fprintf(out, "%s%s", i ? separator : "", option->words[i]);
}

static bool completes_words(const pl_option *option)
{
    return option->words[0] && option->kind != PL_OPTION_SAMPLERS;
}

static void put_names(FILE *out, bool first)
{
    const char *space = "";
    for (int i = 0; i < PL_COMMANDS; i++)
        if (is_first_word(i) == first) {
            fprintf(out, "%s%s", space, first ? pl_command_table[i].name : second_word(i));
            space = " ";
        }
}

/* ---- bash --------------------------------------------------------------------------------------- */

static void put_bash_command(FILE *out, pl_command command)
{
    fprintf(out, "    \"%s\")\n        case \"$previous\" in\n", pl_command_table[command].name);
    for (size_t i = 0; i < pl_option_count; i++) {
        const pl_option *option = &pl_option_table[i];
        if (!pl_option_belongs(option, command) || option->kind == PL_OPTION_FLAG)
            continue;
        fprintf(out, "        --%s", option->name);
        if (option->letter)
            fprintf(out, "|-%c", option->letter);
        if (option->files) {
            fputs(") compopt -o filenames; COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n", out);
        } else if (completes_words(option)) {
            fputs(") COMPREPLY=($(compgen -W '", out);
            put_words(out, option, " ");
            fputs("' -- \"$current\")); return ;;\n", out);
        } else {
            fputs(") return ;;\n", out);
        }
    }
    fputs("        esac\n        words='", out);
    const char *space = "";
    for (size_t i = 0; i < pl_option_count; i++)
        if (pl_option_belongs(&pl_option_table[i], command)) {
            fprintf(out, "%s--%s", space, pl_option_table[i].name);
            space = " ";
        }
    fputs("' ;;\n", out);
}

static void put_bash(FILE *out)
{
    fputs("# bash completion for pleiad\n"
          "_pleiad()\n{\n"
          "    local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\" words=''\n"
          "    local command=\"${COMP_WORDS[1]}\"\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W '",
          out);
    put_names(out, true);
    fputs(" --help --version' -- \"$current\"))\n        return\n    fi\n"
          "    if [ \"$command\" = debug ]; then\n"
          "        if [ \"$COMP_CWORD\" -eq 2 ]; then\n            COMPREPLY=($(compgen -W '",
          out);
    put_names(out, false);
    fputs("' -- \"$current\"))\n            return\n        fi\n"
          "        command=\"debug ${COMP_WORDS[2]}\"\n    fi\n    case \"$command\" in\n",
          out);
    for (int i = 0; i < PL_COMMANDS; i++)
        if (i != PL_COMMAND_DEBUG)
            put_bash_command(out, (pl_command)i);
    fputs("    esac\n"
          "    case \"$command $current\" in\n"
          "    'help '[!-]*|'help ') words=\"$words ",
          out);
    put_names(out, true);
    fputs(
        "\" ;;\n"
        "    'inspect '[!-]*|'transcribe '[!-]*) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n"
        "    esac\n"
        "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
        "}\ncomplete -F _pleiad pleiad\n",
        out);
}

/* ---- zsh ---------------------------------------------------------------------------------------- */

/* Help inside '...[here]...' of an _arguments line. */
static void put_zsh_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (*text == '[' || *text == ']' || *text == ':' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static bool repeats(const pl_option *option)
{
    return option->kind == PL_OPTION_TEXTS || option->kind == PL_OPTION_INTS || option->kind == PL_OPTION_BIASES ||
           option->kind == PL_OPTION_SHOWN || option->kind == PL_OPTION_SWITCHES;
}

static void put_zsh_option(FILE *out, const pl_option *option, const char *dashes, const char *name)
{
    fprintf(out, " \\\n            '%s%s%s[", repeats(option) ? "*" : "", dashes, name);
    put_zsh_text(out, option->help);
    fputc(']', out);
    if (option->kind != PL_OPTION_FLAG) {
        fputc(':', out);
        put_zsh_text(out, option->arg ? option->arg : option->name);
        fputc(':', out);
        if (option->files)
            fputs("_files", out);
        if (completes_words(option)) {
            fputc('(', out);
            put_words(out, option, " ");
            fputc(')', out);
        }
    }
    fputc('\'', out);
}

static void put_zsh_command(FILE *out, pl_command command)
{
    fprintf(out, "    '%s')\n        _arguments", pl_command_table[command].name);
    for (size_t i = 0; i < pl_option_count; i++) {
        const pl_option *option = &pl_option_table[i];
        char letter[2] = {option->letter, 0};
        if (!pl_option_belongs(option, command))
            continue;
        put_zsh_option(out, option, "--", option->name);
        if (option->letter)
            put_zsh_option(out, option, "-", letter);
    }
    for (int i = 0; i < 2 && pl_command_table[command].takes[i]; i++)
        fprintf(out, " \\\n            '%d:%s:_files'", i + 1, pl_command_table[command].takes[i]);
    if (command == PL_COMMAND_HELP) {
        fputs(" \\\n            '1:command:(", out);
        put_names(out, true);
        fputs(")'", out);
    }
    fputs(" ;;\n", out);
}

static void put_zsh(FILE *out)
{
    fputs("#compdef pleiad\n# zsh completion for pleiad\n"
          "_pleiad()\n{\n"
          "    if (( CURRENT == 2 )); then\n        local -a commands=(",
          out);
    for (int i = 0; i < PL_COMMANDS; i++)
        if (is_first_word(i)) {
            fprintf(out, "\n            '%s:", pl_command_table[i].name);
            put_zsh_text(out, pl_command_table[i].summary);
            fputc('\'', out);
        }
    fputs("\n        )\n        _describe command commands\n        return\n    fi\n"
          "    local command=$words[2]\n"
          "    shift words\n    (( CURRENT-- ))\n"
          "    if [[ $command == debug ]]; then\n"
          "        if (( CURRENT == 2 )); then\n            compadd ",
          out);
    put_names(out, false);
    fputs("\n            return\n        fi\n        command=\"debug $words[2]\"\n"
          "        shift words\n        (( CURRENT-- ))\n    fi\n    case $command in\n",
          out);
    for (int i = 0; i < PL_COMMANDS; i++)
        if (i != PL_COMMAND_DEBUG)
            put_zsh_command(out, (pl_command)i);
    fputs("    esac\n}\nif [ \"$funcstack[1]\" = _pleiad ]; then _pleiad \"$@\"; else compdef _pleiad pleiad; fi\n",
          out);
}

/* ---- fish --------------------------------------------------------------------------------------- */

static void put_fish_text(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('\'', out);
}

static void put_fish_option(FILE *out, pl_command command, const pl_option *option)
{
    const char *space = strchr(pl_command_table[command].name, ' ');
    const char *word = space ? space + 1 : pl_command_table[command].name;
    fprintf(out, "complete -c pleiad -n '__fish_seen_subcommand_from %s' -l %s", word, option->name);
    if (option->letter)
        fprintf(out, " -s %c", option->letter);
    if (option->kind != PL_OPTION_FLAG)
        fputs(option->files ? " -rF" : " -x", out);
    if (completes_words(option)) {
        fputs(" -a '", out);
        put_words(out, option, " ");
        fputc('\'', out);
    }
    fputs(" -d ", out);
    put_fish_text(out, option->help);
    fputc('\n', out);
}

static void put_fish_subcommand(FILE *out, int command)
{
    fputs("complete -c pleiad -n '__fish_seen_subcommand_from debug; and not __fish_seen_subcommand_from ", out);
    put_names(out, false);
    fprintf(out, "' -a %s -d ", second_word(command));
}

static void put_fish(FILE *out)
{
    fputs("# fish completion for pleiad\ncomplete -c pleiad -f\n", out);
    for (int i = 0; i < PL_COMMANDS; i++) {
        if (is_first_word(i))
            fprintf(out, "complete -c pleiad -n __fish_use_subcommand -a %s -d ", pl_command_table[i].name);
        else
            put_fish_subcommand(out, i);
        put_fish_text(out, pl_command_table[i].summary);
        fputc('\n', out);
    }
    fputs("complete -c pleiad -n '__fish_seen_subcommand_from inspect transcribe' -F\n", out);
    fputs("complete -c pleiad -n '__fish_seen_subcommand_from help' -a '", out);
    put_names(out, true);
    fputs("'\n", out);
    for (int i = 0; i < PL_COMMANDS; i++)
        for (size_t j = 0; i != PL_COMMAND_DEBUG && j < pl_option_count; j++)
            if (pl_option_belongs(&pl_option_table[j], (pl_command)i))
                put_fish_option(out, (pl_command)i, &pl_option_table[j]);
}

void pl_options_write_completion(FILE *out, pl_shell shell)
{
    switch (shell) {
    case PL_SHELL_BASH: put_bash(out); break;
    case PL_SHELL_ZSH: put_zsh(out); break;
    case PL_SHELL_FISH: put_fish(out); break;
    case PL_SHELL_NONE: break;
    }
}
