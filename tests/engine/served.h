/* Requests to a scheduler, what came of them, and what pl_generate() says to the same by itself. */
#ifndef PL_TESTS_ENGINE_SERVED_H
#define PL_TESTS_ENGINE_SERVED_H

#include "host/engine/scheduler_parts.h"
#include "tests/engine/goldens.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#define SERVED_TOKENS 256
#define SERVED_TEXT 4096
#define SERVED_TOP 3

typedef struct heard {
    int32_t ids[SERVED_TOKENS];
    float logprob[SERVED_TOKENS];
    pl_logprob top[SERVED_TOKENS][SERVED_TOP];
    int n;
    char text[SERVED_TEXT];
    size_t n_text;
    int stop_after; /* tokens until the callback wants no more; 0: never */
} heard;

typedef struct served {
    pl_request request; /* prompt, path and lists live as long as this */
    heard heard;
    uint64_t id;
    _Atomic int n_done; /* calls of on_done */
    int after_done;     /* events that came behind it */
    pl_status status;
    char message[PL_ERROR_BYTES], path[128], reason[64];
    pl_outcome outcome; /* its pointers are not valid any more */
    float *state;       /* [n_state], a copy */
    int order;          /* how many were done before */
    struct crowd *crowd;
    int hold_from; /* at each token from this one on the scheduler stands still, with no lock held; 0: never */
    sem_t held, go;
} served;

/* Those that are waited for. */
typedef struct crowd {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int done;
} crowd;

crowd crowd_open(void);
void crowd_wait(crowd *c, int done); /* until so many are done */

/* A greedy request of at most max_tokens, whatever ends an answer. */
void served_init(served *s, crowd *c, const int32_t *prompt, size_t n, int max_tokens);
void served_submit(served *s, pl_scheduler *scheduler);
void served_free(served *s);

/* Of one with hold_from: until the scheduler stands still, and then on to the next token or for good. */
void served_wait_held(served *s);
void served_go_on(served *s, bool to_next);

bool hear_alone(void *heard, const pl_token_event *event);

/* The request by itself, on a session's engine; on `path` instead of its own where that is not NULL. */
void answer_alone(pl_session *session, const served *s, const char *path, heard *out);

/* Before it is submitted: the least urgent, which stands still with the first of at least two tokens. Whoever comes until
 * served_go_on() is there beside it, and may take its place. */
void served_be_first(served *s);

/* Fails the test where they differ. A cancelled answer is a beginning of the other. */
void expect_same(const served *s, const heard *alone, const char *what);

/* A scheduler on an engine, and an engine and session of one's own beside it, both of the demo model. */
typedef struct bench {
    fixture served, alone;
    pl_scheduler *scheduler;
    crowd crowd;
} bench;

bench bench_open(const pl_engine_params *engine, const pl_scheduler_params *params); /* of the CPU, two threads */
void bench_close(bench *b);                                                          /* finds all pages given back */

/* Tokens like no others' with another salt, but for a period. */
void fill_ids(int32_t *ids, int n, int salt);

#endif
