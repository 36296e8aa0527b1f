/* What streams cost the HTTP loop: N clients, each getting R events a second for S seconds; the CPU time of the loop's
 * thread, and how late events arrive.
 *
 *     bench_http [clients [events a second [seconds [parts]]]]
 *
 * parts: the clients are served in so many turns instead of all in one. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/serve/http.h"

#define EVENT_BYTES 180 /* a chunk of a chat */

typedef struct bench {
    pl_http *http;
    int n, rate, seconds, apart;
    pl_exchange **streams;
    _Atomic int open;
    double cpu_s;
    _Atomic uint64_t received;
    _Atomic bool over;
    double late_sum, late_max;
    uint64_t late_n;
} bench;

static void stream(void *user, pl_exchange *x)
{
    bench *b = user;
    pl_exchange_begin(x, 200, "text/event-stream");
    b->streams[atomic_fetch_add(&b->open, 1)] = x;
}

/* A step's tokens: one for each stream, or for the share of them that is due. */
static void send_events(void *user)
{
    bench *b = user;
    static int turn;
    char event[EVENT_BYTES + 1];
    int n = snprintf(event, sizeof event, "data: {\"t\":%.6f,\"pad\":\"", pl_clock_seconds());
    memset(event + n, 'x', EVENT_BYTES - (size_t)n - 4);
    memcpy(event + EVENT_BYTES - 4, "\"}\n\n", 4);
    for (int i = turn; i < b->n; i += b->apart)
        pl_exchange_send(b->streams[i], event, EVENT_BYTES);
    turn = (turn + 1) % b->apart;
}

static void end_streams(void *user)
{
    bench *b = user;
    for (int i = 0; i < b->n; i++)
        pl_exchange_end(b->streams[i]);
}

static void *serve(void *user)
{
    bench *b = user;
    struct timespec used;
    pl_http_serve(b->http, 5, NULL);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    b->cpu_s = (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
    return NULL;
}

static int open_client(const bench *b)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)strtoul(strrchr(pl_http_address(b->http), ':') + 1, NULL, 10));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0 || send(fd, request, sizeof request - 1, 0) < 0) {
        perror("bench_http: client");
        exit(1);
    }
    return fd;
}

static void *receive(void *user)
{
    bench *b = user;
    struct epoll_event events[256];
    char data[16384];
    int epoll = epoll_create1(0);
    for (int i = 0; i < b->n; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = open_client(b)};
        epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
    }
    while (!atomic_load(&b->over)) {
        int n = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < n; i++) {
            ssize_t got = recv(events[i].data.fd, data, sizeof data - 1, 0);
            if (got <= 0)
                continue;
            atomic_fetch_add(&b->received, (uint64_t)got);
            data[got] = '\0';
            const char *at = strstr(data, "\"t\":");
            if (!at)
                continue;
            double late = pl_clock_seconds() - strtod(at + 4, NULL);
            b->late_sum += late;
            b->late_n++;
            if (late > b->late_max)
                b->late_max = late;
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    bench b = {.n = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1000,
               .rate = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 20,
               .seconds = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 5,
               .apart = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 1};
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    static const pl_http_route routes[] = {{"GET", "/", stream, true}, {.method = NULL}};
    pl_http_params params = {.host = "127.0.0.1"};
    pl_error err = {.status = PL_OK};
    b.streams = calloc((size_t)b.n, sizeof *b.streams);
    if (!b.streams || pl_http_create(&params, routes, &b, &b.http, &err) != PL_OK) {
        fprintf(stderr, "bench_http: %s\n", err.message);
        return 1;
    }
    pthread_t server, clients;
    pthread_create(&server, NULL, serve, &b);
    pthread_create(&clients, NULL, receive, &b);
    while (atomic_load(&b.open) < b.n)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    double begin = pl_clock_seconds(), period = 1.0 / b.rate / b.apart;
    for (int i = 0; i < b.rate * b.seconds * b.apart; i++) {
        double left = begin + i * period - pl_clock_seconds();
        if (left > 0)
            nanosleep(&(struct timespec){.tv_nsec = (long)(left * 1e9)}, NULL);
        pl_http_post(b.http, send_events, &b, NULL);
    }
    double took = pl_clock_seconds() - begin;
    pl_http_post(b.http, end_streams, &b, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    atomic_store(&b.over, true);
    pthread_join(clients, NULL);
    pl_http_stop(b.http);
    pl_http_stop(b.http);
    pthread_join(server, NULL);
    printf("%d streams x %d events/s for %.1f s: loop %.1f %% of a core, %.2f us an event; %.1f MB received; "
           "late %.1f ms on average, %.1f at most\n",
           b.n, b.rate, took, 100 * b.cpu_s / took, 1e6 * b.cpu_s / (b.n * b.rate * took),
           (double)atomic_load(&b.received) / 1e6, 1000 * b.late_sum / (double)b.late_n, 1000 * b.late_max);
    pl_http_free(b.http);
    free(b.streams);
    return 0;
}
