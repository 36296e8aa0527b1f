/* The program: one command a run. */
#include <signal.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/console.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

static pl_status run(const pl_options *options, pl_error *err)
{
    switch (options->command) {
    case PL_COMMAND_RUN: return pl_cmd_run(options, err);
    case PL_COMMAND_SERVE: return pl_cmd_serve(options, err);
    case PL_COMMAND_BATCH: return pl_cmd_batch(options, err);
    case PL_COMMAND_TRANSCRIBE: return pl_cmd_transcribe(options, err);
    case PL_COMMAND_INSPECT: return pl_cmd_inspect(options, err);
    case PL_COMMAND_BENCH: return pl_cmd_bench(options, err);
    case PL_COMMAND_EVAL: return pl_cmd_eval(options, err);
    case PL_COMMAND_QUANTIZE: return pl_cmd_quantize(options, err);
    case PL_COMMAND_IMATRIX: return pl_cmd_imatrix(options, err);
    case PL_COMMAND_SENSITIVITY: return pl_cmd_sensitivity(options, err);
    case PL_COMMAND_SLICE: return pl_cmd_slice(options, err);
    case PL_COMMAND_DEBUG_TOKENIZE:
    case PL_COMMAND_DEBUG_DETOKENIZE:
    case PL_COMMAND_DEBUG_LOGITS:
    case PL_COMMAND_DEBUG_IMAGE:
    case PL_COMMAND_DEBUG_AUDIO: return pl_cmd_debug(options, err);
    case PL_COMMAND_VERSION: puts("pleiad " PL_VERSION); return PL_OK;
    case PL_COMMAND_HELP:
    case PL_COMMAND_DEBUG:
    case PL_COMMANDS: break;
    }
    return pl_cmd_help(options, err);
}

/* `pleiad ... | head` ends like any other program, even where the caller had SIGPIPE ignored. */
static void end_quietly_on_broken_pipe(void)
{
    signal(SIGPIPE, SIG_DFL);
}

int main(int argc, char **argv)
{
    pl_error err = {.status = PL_OK};
    pl_options options = {.color = PL_COLOR_AUTO};
    pl_console_prepare();
    end_quietly_on_broken_pipe();
    if (pl_options_parse(argc, argv, &options, &err) != PL_OK) {
        pl_console_error(&options, &err);
        return EXIT_USAGE;
    }
    pl_status status = run(&options, &err);
    if (status == PL_OK || status == PL_ERR_CANCELLED) {
        pl_status flushed = pl_console_flush(&err);
        if (flushed != PL_OK)
            status = flushed;
    }
    if (status != PL_OK && status != PL_ERR_CANCELLED)
        pl_console_error(&options, &err);
    pl_options_free(&options);
    switch (status) {
    case PL_OK: return EXIT_OK;
    case PL_ERR_ARGUMENT: return EXIT_USAGE;
    case PL_ERR_CANCELLED: return EXIT_INTERRUPTED;
    default: return EXIT_FAILED;
    }
}
