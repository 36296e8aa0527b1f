/* Ctrl-C: a flag that the first one sets, and the session that it cancels. This is the one place with state of
 * its own, since a signal handler can be given none. */
#ifndef PL_TOOLS_INTERRUPT_H
#define PL_TOOLS_INTERRUPT_H

#include "host/include/pleiad.h"

/* From now on SIGINT does not end the program but sets the flag; poll() returns early, other calls go on. */
void pl_interrupt_catch(void);

/* The session that SIGINT cancels too, NULL for none. While there is one, a second SIGINT that finds the flag
 * still set ends the program. Also clears the flag. */
void pl_interrupt_watch(pl_session *session);

bool pl_interrupt_pending(void);

/* The same for those who ask a callback; unused may be NULL. */
bool pl_interrupt_poll(void *unused);

/* Whether the flag was set; clears it. */
bool pl_interrupt_take(void);

#endif
