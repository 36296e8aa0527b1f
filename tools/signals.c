#include "tools/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define END SIGUSR1 /* our own word to the thread */

struct pl_signals {
    pthread_t thread;
    sigset_t awaited, before;
    pthread_mutex_t lock; /* of what follows */
    void (*heard)(void *user);
    void *user;
    bool ends;
};

/* As if it had not been caught. */
static void end_program(int number)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    signal(number, SIG_DFL);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void *await(void *arg)
{
    pl_signals *s = arg;
    bool ends = false;
    while (!ends) {
        int number;
        if (sigwait(&s->awaited, &number) != 0)
            return NULL;
        pthread_mutex_lock(&s->lock);
        ends = s->ends;
        if (number != END && s->heard)
            s->heard(s->user);
        else if (number != END)
            end_program(number);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

pl_status pl_signals_begin(pl_signals **out, pl_error *err)
{
    pl_signals *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "signals");
    pthread_mutex_init(&s->lock, NULL);
    sigemptyset(&s->awaited);
    sigaddset(&s->awaited, SIGINT);
    sigaddset(&s->awaited, SIGTERM);
    sigaddset(&s->awaited, END);
    pthread_sigmask(SIG_BLOCK, &s->awaited, &s->before);
    int failed = pthread_create(&s->thread, NULL, await, s);
    if (failed) {
        pthread_sigmask(SIG_SETMASK, &s->before, NULL);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return pl_fail(err, PL_ERR_MEMORY, "cannot start a thread: %s", strerror(failed));
    }
    *out = s;
    return PL_OK;
}

void pl_signals_set(pl_signals *s, void (*heard)(void *user), void *user)
{
    pthread_mutex_lock(&s->lock);
    s->heard = heard;
    s->user = user;
    pthread_mutex_unlock(&s->lock);
}

void pl_signals_end(pl_signals *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->ends = true;
    pthread_mutex_unlock(&s->lock);
    pthread_kill(s->thread, END);
    pthread_join(s->thread, NULL);
    pthread_sigmask(SIG_SETMASK, &s->before, NULL);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
