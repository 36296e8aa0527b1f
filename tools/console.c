#include "tools/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "host/base/log.h"

#define LINE_BYTES 2048 /* of a note; longer ones are cut */

void pl_console_prepare(void)
{
    /* Each is opened the wrong way round: reading from a closed input gives an error, as does writing. */
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            return;
}

static pl_log console_log(const pl_options *options)
{
    return (pl_log){
        .level = options->quiet     ? PL_LOG_ERROR
                 : options->verbose ? PL_LOG_DEBUG
                                    : PL_LOG_INFO,
        .color = pl_options_color(options, STDERR_FILENO),
    };
}

void pl_console_error(const pl_options *options, const pl_error *error)
{
    pl_log log = console_log(options);
    fputs("pleiad: ", stderr);
    pl_log_write(&log, PL_LOG_ERROR, "%s", error->message);
}

static void write_line(const pl_options *options, const char *line)
{
    bool color = pl_options_color(options, STDERR_FILENO);
    fflush(stdout);
    fprintf(stderr, "%s%s%s\n", color ? "\033[2m" : "", line, color ? "\033[0m" : "");
}

void pl_console_note(const pl_options *options, const char *fmt, ...)
{
    char line[LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (!options->quiet)
        write_line(options, line);
}

void pl_console_detail(const pl_options *options, const char *fmt, ...)
{
    char line[LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (options->verbose)
        write_line(options, line);
}

pl_status pl_console_flush(pl_error *err)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return PL_OK;
    return pl_fail(err, PL_ERR_IO, "standard output: %s", errno ? strerror(errno) : "not everything could be written");
}
