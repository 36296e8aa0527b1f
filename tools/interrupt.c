#include "tools/interrupt.h"

#include <signal.h>
#include <stdatomic.h>

static volatile sig_atomic_t pending;
static _Atomic(pl_session *) watched;

static void on_interrupt(int signal_number)
{
    pl_session *session = atomic_load(&watched);
    if (session && pending) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    pending = 1;
    if (session)
        pl_session_cancel(session);
}

void pl_interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void pl_interrupt_watch(pl_session *session)
{
    pending = 0;
    atomic_store(&watched, session);
}

bool pl_interrupt_pending(void)
{
    return pending;
}

bool pl_interrupt_poll(void *unused)
{
    (void)unused;
    return pending;
}

bool pl_interrupt_take(void)
{
    bool was = pending;
    pending = 0;
    return was;
}
