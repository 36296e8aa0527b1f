#include "tools/commands.h"

pl_status pl_cmd_help(const pl_options *options, pl_error *err)
{
    (void)err;
    if (options->man)
        pl_options_write_man(stdout);
    else if (options->completion != PL_SHELL_NONE)
        pl_options_write_completion(stdout, (pl_shell)options->completion);
    else
        pl_options_write_help(stdout, options->topic);
    return PL_OK;
}
