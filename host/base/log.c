#include "host/base/log.h"

#include <stdarg.h>
#include <stdio.h>

void pl_log_write(const pl_log *log, pl_log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
    static const char *const colors[] = {"\033[1;31m", "\033[1;33m", "", "\033[2m"};
    if (level > log->level)
        return;
    bool color = log->color && colors[level][0];
    va_list args;
    va_start(args, fmt);
    flockfile(stderr);
    fprintf(stderr, "%s%s%s", color ? colors[level] : "", names[level], color ? "\033[0m" : "");
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(args);
}
