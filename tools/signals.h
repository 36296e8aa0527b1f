/* SIGINT and SIGTERM of a program with threads: one of them waits for the signals and passes them on. */
#ifndef PL_TOOLS_SIGNALS_H
#define PL_TOOLS_SIGNALS_H

#include "host/base/status.h"

typedef struct pl_signals pl_signals;

/* To be called before any other thread starts. Until somebody wants to hear of them, the signals end the program as ever. */
pl_status pl_signals_begin(pl_signals **out, pl_error *err);

/* From now on each is a call of heard(user), on the thread that waits; NULL: nobody wants to hear any more. */
void pl_signals_set(pl_signals *signals, void (*heard)(void *user), void *user);
void pl_signals_end(pl_signals *signals); /* NULL: nothing */

#endif
