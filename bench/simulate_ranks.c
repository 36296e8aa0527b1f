/* How a batch spreads over ranks: what rank 0 spends on a line and on a message is measured here, with the crew and the dealer as
 * they are and ranks that are threads; more ranks than fit into a machine are simulated with these costs and the crew's rules.
 *
 *     simulate_ranks [LINES A RANK] [ROUND TRIP ms] [WINDOW]
 *
 * What MPI and the network's driver take of rank 0's processor is not among the costs. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/base/rng.h"
#include "host/batch/dealer.h"
#include "host/batch/portions.h"
#include "tests/batch/local_ranks.h"

/* ---- measured ------------------------------------------------------------------------------------- */

#define MEMBERS 2
#define MEASURED_LINES 20000
#define TEXT "Tell me what you know of the number"
#define RECORD_BYTES 1200

typedef struct cost {
    double line_s, message_s; /* of rank 0's thread */
} cost;

typedef struct meter {
    double cpu_s; /* of the thread that polls */
    int64_t messages;
} meter;

typedef struct member {
    pl_crew *crew;
    long line_ns; /* that it takes for a line */
    pthread_t thread;
} member;

static pl_status (*plain_poll)(pl_ranks *r, int *from, int *kind, void **data, size_t *n, pl_error *err);
static meter rank_0;

static pl_status metered_poll(pl_ranks *r, int *from, int *kind, void **data, size_t *n, pl_error *err)
{
    struct timespec t;
    pl_status status = plain_poll(r, from, kind, data, n, err);
    rank_0.messages += status == PL_OK && *from >= 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    rank_0.cpu_s = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    return status;
}

static void *answer(void *arg)
{
    member *m = arg;
    pl_work_source source = pl_crew_source(m->crew);
    char record[RECORD_BYTES + 1];
    memset(record, 'x', RECORD_BYTES);
    memcpy(record, "{\"a\":\"", 6);
    memcpy(record + RECORD_BYTES - 3, "\"}\n", 3);
    pl_work work;
    while (source.take(source.user, &work)) {
        if (m->line_ns > 0)
            nanosleep(&(struct timespec){0, m->line_ns}, NULL);
        pl_work_result result = {.line = work.line, .record = record, .n = RECORD_BYTES};
        source.give(source.user, &result, NULL);
        free(work.text);
    }
    bool broken;
    pl_crew_end(m->crew, &broken, NULL);
    return NULL;
}

static bool write_lines(const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    for (int i = 0; i < MEASURED_LINES; i++)
        fprintf(
            f,
            "{\"custom_id\": \"r%d\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {\"messages\": "
            "[{\"role\": \"user\", \"content\": \"" TEXT " %d" TEXT TEXT TEXT "\"}]}}\n",
            i, i);
    return fclose(f) == 0;
}

/* A job that others do. The longer they take for a line, the fewer lines are in a message. */
static pl_status measure(const char *folder, long line_ns, meter *out, pl_error *err)
{
    char in[256], results_path[256];
    member members[MEMBERS + 1];
    pl_input *input = NULL;
    pl_results *results = NULL;
    pl_dealer *dealer = NULL;
    snprintf(in, sizeof in, "%s/in.jsonl", folder);
    snprintf(results_path, sizeof results_path, "%s/out.jsonl", folder);
    if (!write_lines(in))
        return pl_fail(err, PL_ERR_IO, "%s cannot be written", in);
    PL_TRY(pl_input_open(&(pl_input_params){.path = in}, &input, err));
    PL_TRY(pl_results_open(&(pl_results_params){.out = results_path,
                                                .fingerprint = pl_input_fingerprint(input),
                                                .lines = pl_input_lines(input),
                                                .settings = "measured",
                                                .overwrite = true},
                           &results, err));
    PL_TRY(
        pl_dealer_create(&(pl_dealer_params){.input = input, .results = results, .ranks = MEMBERS + 1}, &dealer, err));
    local_net *net = local_net_create(&(local_params){.size = MEMBERS + 1});
    pl_crew_desk desk = pl_dealer_desk(dealer);
    plain_poll = local_net_rank(net, 0)->poll;
    local_net_rank(net, 0)->poll = metered_poll;
    rank_0 = (meter){0};
    for (int i = 0; i <= MEMBERS; i++) {
        pl_crew_params params = {.ranks = local_net_rank(net, i), .desk = i == 0 ? &desk : NULL};
        PL_TRY(pl_crew_create(&params, &members[i].crew, err));
        members[i].line_ns = line_ns;
        if (i > 0)
            pthread_create(&members[i].thread, NULL, answer, &members[i]);
    }
    bool broken;
    pl_status status = pl_crew_end(members[0].crew, &broken, err);
    for (int i = 1; i <= MEMBERS; i++)
        pthread_join(members[i].thread, NULL);
    for (int i = 0; i <= MEMBERS; i++)
        pl_crew_free(members[i].crew);
    *out = rank_0;
    local_net_free(net);
    pl_dealer_free(dealer);
    pl_results_close(results);
    pl_input_free(input);
    return status;
}

/* Two jobs with the same lines in many and in few messages. */
static pl_status find_cost(const char *folder, cost *out, pl_error *err)
{
    meter many, few;
    PL_TRY(measure(folder, 100000, &many, err));
    PL_TRY(measure(folder, 0, &few, err));
    double more = (double)(many.messages - few.messages);
    out->message_s = more > 0 ? fmax(0, (many.cpu_s - few.cpu_s) / more) : 0;
    out->line_s = fmax(0, few.cpu_s - (double)few.messages * out->message_s) / MEASURED_LINES;
    printf("measured: %lld messages took %.3f s, %lld took %.3f s, for %d lines\n", (long long)many.messages,
           many.cpu_s, (long long)few.messages, few.cpu_s, MEASURED_LINES);
    return PL_OK;
}

/* ---- simulated ------------------------------------------------------------------------------------ */

#define MOST_RANKS 64
#define BUNDLE_S 0.05

enum { DONE, FLUSH, AT_RANK_0, READ, AT_RANK };

typedef struct event {
    double at;
    int what, rank;
    int64_t lines; /* of an ask: less than 0 */
} event;

typedef struct sim_rank {
    int busy;
    int64_t stock, asked_for; /* asked_for: open at rank 0 */
    int64_t taken, taken_at_ask, wanted, results;
    bool asked, flushing;
} sim_rank;

typedef struct sim {
    int n, window;
    double line_s; /* that a line takes in one of a rank's places */
    double trip_s; /* one way */
    cost cost;
    int64_t left, done, lines;
    double now, server_free, server_busy;
    pl_portion portions[MOST_RANKS];
    sim_rank ranks[MOST_RANKS];
    pl_rng rng;
    event *heap;
    size_t n_heap, capacity;
} sim;

static void add(sim *s, double at, int what, int rank, int64_t lines)
{
    if (s->n_heap == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 1024;
        s->heap = realloc(s->heap, s->capacity * sizeof *s->heap);
        if (!s->heap)
            abort();
    }
    size_t i = s->n_heap++;
    for (; i > 0 && s->heap[(i - 1) / 2].at > at; i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = (event){at, what, rank, lines};
}

static event next(sim *s)
{
    event first = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < s->n_heap; i = k) {
        k += k + 1 < s->n_heap && s->heap[k + 1].at < s->heap[k].at;
        if (s->heap[k].at >= last.at)
            break;
        s->heap[i] = s->heap[k];
    }
    s->heap[i] = last;
    return first;
}

static void spend(sim *s, double seconds)
{
    s->server_free = fmax(s->server_free, s->now) + seconds;
    s->server_busy += seconds;
}

static void begin_line(sim *s, int r)
{
    s->ranks[r].busy++;
    add(s, s->now + s->line_s * (0.5 + pl_rng_uniform(&s->rng)), DONE, r, 0);
}

static void ask(sim *s, int r)
{
    sim_rank *k = &s->ranks[r];
    int64_t idle = k->busy < s->window;
    int64_t wanted = k->wanted > idle ? k->wanted : idle;
    if (k->asked || k->stock > wanted / 2)
        return;
    k->asked = true;
    k->taken_at_ask = k->taken;
    add(s, s->now + s->trip_s, AT_RANK_0, r, -(wanted > k->stock ? wanted - k->stock : 1));
}

static void work(sim *s, int r)
{
    sim_rank *k = &s->ranks[r];
    while (k->busy < s->window && k->stock > 0) {
        k->stock--;
        k->taken++;
        begin_line(s, r);
    }
    ask(s, r);
}

static void deal(sim *s)
{
    int64_t rooms[MOST_RANKS];
    pl_portion_rooms(s->portions, s->n, s->left, s->now + 1, rooms);
    while (s->ranks[0].busy < s->window && s->left > 0 && rooms[0] > 0) {
        s->left--;
        rooms[0]--;
        pl_portion_took(&s->portions[0], 1, s->now + 1);
        begin_line(s, 0);
    }
    for (int i = 1; i < s->n && s->left > 0; i++) {
        sim_rank *k = &s->ranks[i];
        int64_t n = fmin((double)k->asked_for, fmin((double)rooms[i], (double)s->left));
        if (n <= 0)
            continue;
        k->asked_for = 0;
        s->left -= n;
        pl_portion_took(&s->portions[i], n, s->now + 1);
        spend(s, s->cost.message_s + (double)n * s->cost.line_s / 2);
        add(s, s->server_free + s->trip_s, AT_RANK, i, n);
    }
}

static void flush(sim *s, int r)
{
    sim_rank *k = &s->ranks[r];
    k->flushing = false;
    if (k->results > 0)
        add(s, s->now + s->trip_s, AT_RANK_0, r, k->results);
    k->results = 0;
}

static void line_done(sim *s, int r)
{
    sim_rank *k = &s->ranks[r];
    k->busy--;
    if (r == 0) {
        s->done++;
        pl_portion_gave(&s->portions[0], 1, s->now + 1);
        return;
    }
    k->results++;
    if (!k->flushing)
        add(s, s->now + BUNDLE_S, FLUSH, r, 0);
    k->flushing = true;
    if (k->busy == 0 && k->stock == 0)
        flush(s, r);
    work(s, r);
}

static void read_at_rank_0(sim *s, const event *e)
{
    if (e->lines < 0) {
        s->ranks[e->rank].asked_for = -e->lines;
        s->portions[e->rank].works = true;
        return;
    }
    s->done += e->lines;
    pl_portion_gave(&s->portions[e->rank], e->lines, s->now + 1);
}

static void happen(sim *s, const event *e)
{
    sim_rank *k = &s->ranks[e->rank];
    s->now = e->at;
    if (e->what == DONE) {
        line_done(s, e->rank);
    } else if (e->what == FLUSH) {
        flush(s, e->rank);
    } else if (e->what == AT_RANK_0) {
        spend(s, s->cost.message_s + (e->lines > 0 ? (double)e->lines * s->cost.line_s / 2 : 0));
        add(s, s->server_free, READ, e->rank, e->lines);
    } else if (e->what == READ) {
        read_at_rank_0(s, e);
    } else {
        k->wanted = pl_stock_wanted(k->wanted, k->taken - k->taken_at_ask, k->busy < s->window);
        k->wanted = k->wanted < 2048 ? k->wanted : 2048;
        k->asked = false;
        k->stock += e->lines;
        work(s, e->rank);
    }
    if (e->what == READ || e->rank == 0)
        deal(s);
}

/* Prints the efficiency: lines a second over n times what one rank does. */
static void simulate(int n, double rate, int64_t lines_a_rank, double round_trip_s, int window, const cost *c)
{
    sim s = {.n = n,
             .window = window,
             .line_s = window / rate,
             .trip_s = round_trip_s / 2,
             .cost = *c,
             .left = lines_a_rank * n,
             .lines = lines_a_rank * n};
    pl_rng_seed(&s.rng, (uint64_t)n);
    s.portions[0].works = true;
    for (int i = 1; i < n; i++) {
        s.ranks[i].wanted = 1;
        ask(&s, i);
    }
    deal(&s);
    while (s.done < s.lines && s.n_heap > 0) {
        event e = next(&s);
        happen(&s, &e);
    }
    printf(" %5.1f %% (%3.0f %%)", 100 * (double)s.lines / (s.now * n * rate), 100 * s.server_busy / s.now);
    free(s.heap);
}

static void print_table(int64_t lines, double round_trip_s, int window, const cost *c)
{
    static const double rates[] = {1, 10, 100, 1000};
    printf("\nsimulated: %lld lines a rank, %d at once, %g ms to rank 0 and back\n", (long long)lines, window,
           1e3 * round_trip_s);
    printf("lines a second of all ranks, as a part of what they do alone (rank 0's thread is busy)\n\nranks");
    for (size_t k = 0; k < sizeof rates / sizeof rates[0]; k++)
        printf(" %8g lines/s ", rates[k]);
    for (int n = 1; n <= MOST_RANKS; n *= 2) {
        printf("\n%5d", n);
        for (size_t k = 0; k < sizeof rates / sizeof rates[0]; k++)
            simulate(n, rates[k], lines, round_trip_s, window, c);
    }
    printf("\n\nrank 0 is the limit at about %.0f lines a second (bundles of ten)\n",
           1 / (c->line_s + 2 * c->message_s / 10));
}

int main(int argc, char **argv)
{
    char folder[] = "/tmp/simulate-ranks-XXXXXX", path[300];
    static const char *const files[] = {"in.jsonl", "out.jsonl.part", "out.jsonl.journal"};
    cost c = {0};
    pl_error err;
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    pl_status status = find_cost(folder, &c, &err);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
    if (status != PL_OK) {
        fprintf(stderr, "simulate_ranks: %s\n", err.message);
        return 1;
    }
    printf("measured: %.2f us a line (%d bytes of result), %.2f us a message\n", 1e6 * c.line_s, RECORD_BYTES,
           1e6 * c.message_s);
    print_table(argc > 1 ? strtoll(argv[1], NULL, 10) : 2000, argc > 2 ? strtod(argv[2], NULL) * 1e-3 : 1e-3,
                argc > 3 ? (int)strtol(argv[3], NULL, 10) : 16, &c);
    return 0;
}
