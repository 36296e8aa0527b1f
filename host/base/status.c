#include "host/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *pl_status_name(pl_status status)
{
    switch (status) {
    case PL_OK: return "ok";
    case PL_ERR_ARGUMENT: return "bad argument";
    case PL_ERR_IO: return "input/output error";
    case PL_ERR_FORMAT: return "format error";
    case PL_ERR_UNSUPPORTED: return "not supported";
    case PL_ERR_MEMORY: return "out of memory";
    case PL_ERR_CONTEXT: return "context full";
    case PL_ERR_CANCELLED: return "cancelled";
    case PL_ERR_NUMERIC: return "numeric error";
    case PL_ERR_DEVICE: return "device error";
    case PL_ERR_BUSY: return "busy";
    }
    return "unknown status";
}

static void clean(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

pl_status(pl_fail)(pl_error *err, pl_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    err->status = status;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    clean(err->message);
    return status;
}

pl_status(pl_fail_within)(pl_error *err, pl_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    char inner[PL_ERROR_BYTES];
    memcpy(inner, err->message, sizeof inner);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n + 3 < sizeof err->message)
        snprintf(err->message + n, sizeof err->message - (size_t)n, ": %.*s", (int)(sizeof inner - 3) - n, inner);
    err->status = status;
    clean(err->message);
    return status;
}

pl_status(pl_fail_memory)(pl_error *err, size_t bytes, const char *what)
{
    return pl_fail(err, PL_ERR_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}
