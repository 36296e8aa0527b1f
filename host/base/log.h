/* Messages to the person at the terminal, on stderr. */
#ifndef PL_BASE_LOG_H
#define PL_BASE_LOG_H

#include "host/base/status.h"

typedef enum pl_log_level { PL_LOG_ERROR, PL_LOG_WARN, PL_LOG_INFO, PL_LOG_DEBUG } pl_log_level;

typedef struct pl_log {
    pl_log_level level; /* messages above it are dropped */
    bool color;         /* on when stderr is a terminal and NO_COLOR is unset */
} pl_log;

void pl_log_write(const pl_log *log, pl_log_level level, const char *fmt, ...) PL_PRINTF(3, 4);

#endif
