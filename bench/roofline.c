/* What a step should take on a card, from what it moves and multiplies: an estimate, of which no part was measured but
 * what --bandwidth, --tops and --launch say.
 *
 *     roofline MODEL [--path P] [--rows N] [--at POSITION] [--prompt] [--card NAME] [--csv] [--ops]
 *              [--bandwidth GB/s] [--tops TOPS] [--tflops TFLOPS] [--bus GB/s] [--launch US]
 *
 * A decode step has N rows of N sequences at POSITION and draws a token of each; with --prompt the rows are the N tokens
 * of one sequence that end at POSITION, and the last one draws. The ops are the model's own walk over a backend that
 * counts (count_ops.h). An op takes the longest of: its bytes at the card's bandwidth, its products at the card's rate;
 * and, for each launch, what lies between two kernels of a graph. Rows of the per-layer table cross the bus beside all
 * that. Cards are as their makers' data sheets have them; the time between kernels is an assumption. */
#include "host/engine/step.h"
#include "host/measure/count_ops.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct card {
    const char *name;
    double bandwidth;  /* of its memory, GB/s */
    double int8, bf16; /* dense products on tensor cores, 1e12 operations a second */
    double bus;        /* GB/s, one way */
    double launch;     /* us from one kernel of a graph to the next */
} card;

static const card cards[] = {
    {"RTX 3060", 360, 102, 51, 32, 1.5},   {"RTX 3090", 936, 284, 71, 32, 1.5},   {"RTX 4060", 272, 121, 60, 16, 1.5},
    {"RTX 4090", 1008, 660, 165, 32, 1.5}, {"RTX 5090", 1792, 838, 210, 64, 1.5}, {"H200", 4800, 1979, 989, 64, 1.5},
};

#define N_CARDS ((int)(sizeof cards / sizeof *cards))

typedef struct request {
    const char *model, *path, *only_card;
    int rows, at;
    bool prompt, csv, ops;
    card given; /* what replaces a card's own figures; 0: nothing */
} request;

static const struct option long_options[] = {
    {"path", required_argument, NULL, 'p'}, {"rows", required_argument, NULL, 'n'},
    {"at", required_argument, NULL, 'a'},   {"prompt", no_argument, NULL, 'P'},
    {"card", required_argument, NULL, 'c'}, {"csv", no_argument, NULL, 'C'},
    {"ops", no_argument, NULL, 'o'},        {"bandwidth", required_argument, NULL, 'b'},
    {"tops", required_argument, NULL, 't'}, {"tflops", required_argument, NULL, 'f'},
    {"bus", required_argument, NULL, 'B'},  {"launch", required_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},       {0},
};

static void usage(FILE *out)
{
    fputs("usage: roofline MODEL [--path P] [--rows N] [--at POSITION] [--prompt] [--card NAME] [--csv] [--ops]\n"
          "                [--bandwidth GB/s] [--tops TOPS] [--tflops TFLOPS] [--bus GB/s] [--launch US]\n",
          out);
}

/* A number, or one that no option takes. */
static double number(const char *text)
{
    char *end = NULL;
    double v = strtod(text, &end);
    return end != text && *end == '\0' ? v : -1;
}

static bool parse(int argc, char **argv, request *r)
{
    int c;
    while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (c) {
        case 'p': r->path = optarg; break;
        case 'n': r->rows = (int)number(optarg); break;
        case 'a': r->at = (int)number(optarg); break;
        case 'P': r->prompt = true; break;
        case 'c': r->only_card = optarg; break;
        case 'C': r->csv = true; break;
        case 'o': r->ops = true; break;
        case 'b': r->given.bandwidth = number(optarg); break;
        case 't': r->given.int8 = number(optarg); break;
        case 'f': r->given.bf16 = number(optarg); break;
        case 'B': r->given.bus = number(optarg); break;
        case 'l': r->given.launch = number(optarg); break;
        case 'h': usage(stdout); exit(0);
        default: return false;
        }
    }
    r->model = optind < argc ? argv[optind] : NULL;
    const card *g = &r->given;
    bool sound = g->bandwidth >= 0 && g->int8 >= 0 && g->bf16 >= 0 && g->bus >= 0 && g->launch >= 0;
    return sound && r->model && r->rows >= 1 && r->rows <= 8192 && r->at >= 0;
}

/* ---- counting ---- */

typedef struct counted_engine {
    pl_checkpoint *checkpoint;
    pl_backend *backend;
    pl_net *net;
    pl_kv *kv;
    pl_ple *ple;
    pl_ple_rows ple_rows;
    pl_draws *draws;
    pl_step *step;
    pl_path path;
    pl_step_row *rows;
    pl_step_result *result;
} counted_engine;

static pl_status open_engine(counted_engine *e, const request *r, pl_counts *counts, pl_error *err)
{
    int sequences = r->prompt ? 1 : r->rows;
    PL_TRY(pl_checkpoint_open(r->model, &e->checkpoint, err));
    const pl_config *config = pl_checkpoint_config(e->checkpoint);
    if (r->at >= config->context || (r->prompt && r->at + 1 < r->rows))
        return pl_fail(err, PL_ERR_ARGUMENT, "position %d, expected %d to %d", r->at, r->prompt ? r->rows - 1 : 0,
                       config->context - 1);
    PL_TRY(pl_path_parse(e->checkpoint, r->path ? r->path : pl_path_default(e->checkpoint), &e->path, err));
    PL_TRY(pl_count_backend(counts, r->rows <= PL_FUSED_ROWS, &e->backend, err));
    PL_TRY(pl_net_load(e->checkpoint, NULL, NULL, e->backend, NULL, NULL, &e->net, err));
    pl_ple_params ple = {.placement = PL_PLE_PINNED, .max_rows = r->rows};
    PL_TRY(pl_ple_open(e->checkpoint, e->backend, &ple, &e->ple, err));
    e->ple_rows = pl_ple_view(e->ple);
    pl_kv_size kv = {.sequences = sequences, .context = r->at + 1, .batch_rows = r->rows};
    PL_TRY(pl_kv_create(config, e->backend, &kv, &e->kv, err));
    PL_TRY(pl_draws_create(e->backend, sequences, &e->draws, err));
    PL_TRY(pl_step_create(e->net, e->kv, e->ple, &e->ple_rows, e->draws, NULL, r->rows, &e->step, err));
    return pl_step_result_create(e->step, &e->result, err);
}

static void close_engine(counted_engine *e)
{
    pl_step_result_free(e->result);
    pl_step_free(e->step);
    pl_draws_free(e->draws);
    pl_kv_free(e->kv);
    pl_ple_free(e->ple);
    pl_net_free(e->net);
    pl_backend_free(e->backend);
    pl_checkpoint_close(e->checkpoint);
    free(e->rows);
}

/* The op list of one step. */
static pl_status count(const request *r, pl_counts *counts, pl_error *err)
{
    counted_engine e = {0};
    pl_status status = PL_OK;
    PL_TRY_GOTO(open_engine(&e, r, counts, err));
    e.rows = calloc((size_t)r->rows, sizeof *e.rows);
    if (!e.rows) {
        status = pl_fail_memory(err, (size_t)r->rows * sizeof *e.rows, "rows");
        goto fail;
    }
    for (int i = 0; i < r->rows; i++) {
        bool last = !r->prompt || i == r->rows - 1;
        e.rows[i] = (pl_step_row){.token = i,
                                  .position = r->prompt ? r->at + 1 - r->rows + i : r->at,
                                  .sequence = r->prompt ? 0 : i,
                                  .path = &e.path,
                                  .wanted = last,
                                  .draw = last};
    }
    memset(counts, 0, sizeof *counts);
    PL_TRY_GOTO(pl_step_queue(e.step, e.rows, r->rows, e.result, err));
fail:
    close_engine(&e);
    return status;
}

/* ---- from counts to time ---- */

static card with_given(card c, const card *given)
{
    c.bandwidth = given->bandwidth > 0 ? given->bandwidth : c.bandwidth;
    c.int8 = given->int8 > 0 ? given->int8 : c.int8;
    c.bf16 = given->bf16 > 0 ? given->bf16 : c.bf16;
    c.bus = given->bus > 0 ? given->bus : c.bus;
    c.launch = given->launch > 0 ? given->launch : c.launch;
    return c;
}

/* Microseconds; two integer products make one of 15 bits (host/ops/matmul.h). */
static double op_time(const pl_counted *op, const card *c)
{
    double memory = op->bytes / c->bandwidth * 1e-3;
    double products = 2 * op->int_ops / c->int8 * 1e-6 + op->f32_ops / c->bf16 * 1e-6;
    return (memory > products ? memory : products) + op->launches * c->launch;
}

static pl_counted sum(const pl_counts *counts)
{
    pl_counted all = {.op = "all"};
    for (int i = 0; i < counts->n; i++) {
        const pl_counted *op = &counts->op[i];
        all.launches += op->launches;
        all.bytes += op->bytes;
        all.int_ops += op->int_ops;
        all.f32_ops += op->f32_ops;
        all.bus_bytes += op->bus_bytes;
    }
    return all;
}

static double step_time(const pl_counts *counts, const card *c)
{
    double time = 0;
    for (int i = 0; i < counts->n; i++)
        time += op_time(&counts->op[i], c);
    double bus = sum(counts).bus_bytes / c->bus * 1e-3;
    return time > bus ? time : bus;
}

static void print_ops(const pl_counts *counts, const card *c)
{
    printf("%-14s %8s %12s %12s %10s\n", "op", "launches", "MB", "Gop", "us");
    for (int i = 0; i < counts->n; i++) {
        const pl_counted *op = &counts->op[i];
        printf("%-14s %8d %12.3f %12.3f %10.1f\n", op->op, op->launches, op->bytes / 1e6,
               (op->int_ops + op->f32_ops) / 1e9, op_time(op, c));
    }
}

static void print_card(const request *r, const pl_counts *counts, const card *c)
{
    pl_counted all = sum(counts);
    double time = step_time(counts, c), share = all.bytes / c->bandwidth * 1e-3 / time;
    if (r->csv)
        printf("%s,%s,%s,%d,%d,%d,%.0f,%.0f,%.0f,%.1f,%.1f,%.3f\n", c->name, r->path ? r->path : "",
               r->prompt ? "prompt" : "decode", r->rows, r->at, all.launches, all.bytes, all.int_ops + all.f32_ops,
               all.bus_bytes, time, r->rows / time * 1e6, share);
    else
        printf("%-10s %9.0f %9.2f %12.0f %10.0f %%\n", c->name, c->bandwidth, time / 1e3, r->rows / time * 1e6,
               share * 100);
}

int main(int argc, char **argv)
{
    request r = {.rows = 1, .at = 512};
    if (!parse(argc, argv, &r)) {
        usage(stderr);
        return 2;
    }
    pl_error err;
    pl_counts counts = {0};
    if (count(&r, &counts, &err) != PL_OK) {
        fprintf(stderr, "roofline: %s\n", err.message);
        return 1;
    }
    pl_counted all = sum(&counts);
    if (r.csv)
        puts("card,path,step,rows,position,launches,bytes,operations,bus_bytes,us,tokens_per_s,bandwidth_share");
    else
        printf("%d launches, %.1f MB, %.2f Gop; %.1f kB over the bus. Estimates:\n%-10s %9s %9s %12s %12s\n",
               all.launches, all.bytes / 1e6, (all.int_ops + all.f32_ops) / 1e9, all.bus_bytes / 1e3, "card", "GB/s",
               "ms", "tokens/s", "bandwidth");
    int shown = 0;
    for (int i = 0; i < N_CARDS; i++) {
        card c = with_given(cards[i], &r.given);
        if (r.only_card && strcmp(r.only_card, c.name) != 0)
            continue;
        if (r.ops)
            print_ops(&counts, &c);
        print_card(&r, &counts, &c);
        shown++;
    }
    if (shown == 0) {
        fprintf(stderr, "roofline: there is no card '%s'\n", r.only_card);
        return 1;
    }
    return 0;
}
