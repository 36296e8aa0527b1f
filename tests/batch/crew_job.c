/* A batch job without a model: what passes between ranks, for tests under mpirun and srun. The answer to a line is its text's
 * checksum, after some time.
 *
 *     crew_job IN OUT MICROSECONDS_A_LINE [lost=SECONDS] [die=RANK:LINES] [stay=RANK] [unable=RANK] [idle=RANK]
 *              [meet=FOLDER] [model=PATH] [share=auto|always|never]
 *
 * So that what is to happen happens, however fast the other ranks are: with a folder to meet in, where they leave files, each
 * goes on with its first line only when all have one, and rank 0 knows who is unable. Who is to stay, and the others where one
 * is to die, are busy with their first lines until a signal comes.
 *
 * Each rank writes a line of JSON about itself. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/base/options.h"
#include "host/batch/dealer.h"
#include "host/batch/model_share.h"
#include "host/batch/ranks.h"

typedef struct job {
    const char *in, *out, *model;
    double line_s, lost_s;
    int die, stay, unable, idle; /* ranks, -1: none */
    int64_t die_after;
    const char *meet;
    pl_share_how how;
    int64_t taken;
    pl_input *input;
    pl_results *results;
    pl_dealer *dealer;
    pl_shared_file file;
} job;

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void say(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "%s\n", text);
}

static bool read_option(job *j, const char *arg)
{
    char how[16];
    long after;
    if (sscanf(arg, "lost=%lf", &j->lost_s) == 1 || sscanf(arg, "unable=%d", &j->unable) == 1 ||
        sscanf(arg, "idle=%d", &j->idle) == 1 || sscanf(arg, "stay=%d", &j->stay) == 1)
        return true;
    if (sscanf(arg, "die=%d:%ld", &j->die, &after) == 2) {
        j->die_after = after;
        return true;
    }
    if (strncmp(arg, "meet=", 5) == 0) {
        j->meet = arg + 5;
        return true;
    }
    if (strncmp(arg, "model=", 6) == 0) {
        j->model = arg + 6;
        return true;
    }
    if (sscanf(arg, "share=%15s", how) != 1)
        return false;
    j->how = strcmp(how, "always") == 0 ? PL_SHARE_ALWAYS : strcmp(how, "never") == 0 ? PL_SHARE_NEVER : PL_SHARE_AUTO;
    return true;
}

static pl_status open_desk(job *j, int ranks, pl_error *err)
{
    pl_input_params in = {.path = j->in};
    PL_TRY(pl_input_open(&in, &j->input, err));
    pl_results_params out = {.out = j->out,
                             .fingerprint = pl_input_fingerprint(j->input),
                             .lines = pl_input_lines(j->input),
                             .settings = "checksums",
                             .note = say};
    PL_TRY(pl_results_open(&out, &j->results, err));
    pl_dealer_params dealer = {.input = j->input, .results = j->results, .ranks = ranks};
    return pl_dealer_create(&dealer, &j->dealer, err);
}

/* FNV-1a */
static uint64_t checksum(const char *text, size_t n)
{
    uint64_t sum = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        sum = (sum ^ (unsigned char)text[i]) * 0x100000001b3;
    return sum;
}

static pl_status answer(job *j, const pl_work_source *source, pl_work *work, pl_error *err)
{
    char record[128];
    double begun = pl_clock_seconds();
    while (pl_clock_seconds() - begun < j->line_s && !interrupted)
        nanosleep(&(struct timespec){0, (long)(j->line_s * 1e9) % 1000000000}, NULL);
    int n = snprintf(record, sizeof record, "{\"line\": %ld, \"sum\": \"%016lx\"}\n", (long)work->line,
                     (unsigned long)checksum(work->text, work->n));
    free(work->text);
    pl_work_result result = {
        .line = work->line, .record = record, .n = (size_t)n, .prompt_tokens = 1, .answer_tokens = 1};
    return source->give(source->user, &result, err);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static const char *place_of(const job *j, int rank)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%d", j->meet, rank);
    return path;
}

static void meet(const job *j, int rank, int size, pl_crew *crew)
{
    while (rank == 0 && j->unable >= 0 && pl_crew_working(crew) == size && !interrupted)
        nap();
    int fd = open(place_of(j, rank), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    for (int i = 0; i < size && rank != j->unable; i++)
        while ((i == 0 || i != j->unable) && access(place_of(j, i), F_OK) != 0 && !interrupted)
            nap();
}

/* With the first line in hand. */
static void hold(const job *j, int rank, int size, pl_crew *crew)
{
    if (j->meet)
        meet(j, rank, size, crew);
    while ((rank == j->stay || (j->die >= 0 && rank != j->die)) && !interrupted)
        nap();
}

static void work(job *j, int rank, int size, const pl_work_source *source, pl_crew *crew)
{
    pl_work w;
    pl_error why;
    if (rank == j->unable) {
        pl_fail(&why, PL_ERR_MEMORY, "no engine here");
        pl_crew_cannot_work(crew, &why);
        if (rank == 0 && j->meet)
            meet(j, rank, size, crew);
    }
    while (rank != j->idle && source->take(source->user, &w)) {
        if (++j->taken > j->die_after && rank == j->die)
            raise(SIGKILL);
        if (j->taken == 1)
            hold(j, rank, size, crew);
        if (interrupted && rank == 0)
            pl_dealer_stop(j->dealer, NULL);
        if (interrupted || answer(j, source, &w, &why) != PL_OK)
            break;
    }
    if (interrupted && rank != 0) {
        pl_fail(&why, PL_ERR_CANCELLED, "interrupted");
        pl_crew_cannot_work(crew, &why);
    }
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static pl_status run_ranks(job *j, pl_ranks *ranks, bool *broken, pl_error *err)
{
    double begun = pl_clock_seconds(), cpu = cpu_seconds();
    pl_crew *crew;
    pl_crew_desk desk;
    if (j->model) {
        PL_TRY(pl_share_file(ranks, j->model, j->how, NULL, NULL, &j->file, err));
        fprintf(stderr, "rank %d on %s: %s after %.1f s\n", ranks->rank, ranks->name, j->file.path,
                pl_clock_seconds() - begun);
    }
    if (j->dealer)
        desk = pl_dealer_desk(j->dealer);
    pl_crew_params params = {.ranks = ranks, .desk = j->dealer ? &desk : NULL, .lost_after_s = j->lost_s, .say = say};
    PL_TRY(pl_crew_create(&params, &crew, err));
    pl_work_source source = pl_crew_source(crew);
    work(j, ranks->rank, ranks->size, &source, crew);
    pl_status status = pl_crew_end(crew, broken, err);
    pl_crew_free(crew);
    fprintf(stderr,
            "{\"rank\": %d, \"name\": \"%s\", \"host\": %d, \"taken\": %ld, \"seconds\": %.3f, \"cpu\": %.3f}\n",
            ranks->rank, ranks->name, ranks->host, (long)j->taken, pl_clock_seconds() - begun, cpu_seconds() - cpu);
    return status;
}

static pl_status run_alone(job *j, pl_error *err)
{
    pl_work_source source = pl_dealer_source(j->dealer);
    work(j, 0, 1, &source, NULL);
    return pl_dealer_error(j->dealer, err);
}

static pl_status run(job *j, pl_ranks *ranks, bool *broken, pl_error *err)
{
    bool first = !ranks || ranks->rank == 0;
    if (first)
        PL_TRY(open_desk(j, ranks ? ranks->size : 1, err));
    PL_TRY(ranks ? run_ranks(j, ranks, broken, err) : run_alone(j, err));
    if (first)
        PL_TRY(pl_results_finish(j->results, false, err));
    return first ? pl_results_forget(j->results, err) : PL_OK;
}

int main(int argc, char **argv)
{
    job j = {.die = -1, .stay = -1, .unable = -1, .idle = -1, .lost_s = 60, .file = {.fd = -1}};
    pl_error err = {0};
    pl_ranks *ranks = NULL;
    bool broken = true; /* until the crew has ended: others wait for this rank */
    if (argc < 4)
        return 2;
    j.in = argv[1];
    j.out = argv[2];
    j.line_s = strtod(argv[3], NULL) * 1e-6;
    for (int i = 4; i < argc; i++)
        if (!read_option(&j, argv[i]))
            return 2;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    pl_status status = pl_ranks_open(pl_launched_processes(), j.lost_s, &ranks, &err);
    if (status == PL_OK)
        status = run(&j, ranks, &broken, &err);
    int code = status == PL_OK ? 0 : status == PL_ERR_CANCELLED ? 130 : 1;
    if (status != PL_OK)
        fprintf(stderr, "crew_job: rank %d: %s\n", ranks ? ranks->rank : 0, err.message);
    pl_dealer_free(j.dealer);
    pl_results_close(j.results);
    pl_input_free(j.input);
    pl_shared_file_close(&j.file);
    if (ranks && broken)
        ranks->abort(ranks, code ? code : 1);
    else if (ranks)
        ranks->close(ranks);
    return code;
}
