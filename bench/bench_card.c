/* How fast a card is, and the ops and steps on it.
 *
 *     bench_card rates                                what the card gives: copying, reading, the bus, launches
 *     bench_card ops [ROWS[,ROWS...]]                 each op and fused op at the shapes of Gemma 3n E4B
 *     bench_card steps MODEL PATH PLE [ROWS[,...]]    decode steps of ROWS sequences, drawing included
 *     bench_card memory MODEL PATH PLE                the card's memory in use by one session of 4096 tokens
 *
 * Prints CSV. GB/s of an op counts the bytes that it must move (host/measure/count_ops.h), share is that rate over the rate at
 * which the card copies within its own memory, reading and writing counted. An op is queued 16 times behind each other
 * and replayed as one graph, so its time holds what lies between two kernels; weights, K/V and the rows of tables are
 * other ones each time, so that they come from memory; activations are not, since in a step the op before has just
 * written them. The median of five after three to warm up. */
#include "bench/card_cases.h"
#include "bench/card_steps.h"
#include "bench/median.h"
#include "cuda/queue.h"
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/engine/card_draw.h"
#include "host/measure/count_ops.h"
#include "quant/encode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TURNS 16
#define WARM_UPS 3
#define REPEATS 5
#define WEIGHT_ROOM ((size_t)1 << 30)
#define DISTINCT_ROWS 512 /* of a weight; then they repeat */
#define TABLE_ROWS 4096
#define NORMALS (1 << 20)
#define TINY_OPS 100

typedef struct bench {
    pl_backend *b;
    pl_error err;
    cudaEvent_t begin, end;
    case_operands o;
    case_plan plan, *card_plan;
    char *weights; /* WEIGHT_ROOM bytes on the card */
    size_t at[CASE_WEIGHTS], set_bytes;
    int copies;
    float *values; /* [CASE_ROWS][CASE_FFN] of the host: normal */
    double copy_rate;
    uint64_t key;
} bench;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench_card: %s: %s\n", what, why);
    exit(1);
}

static void cuda(cudaError_t error, const char *what)
{
    if (error != cudaSuccess)
        fail(what, cudaGetErrorString(error));
}

static void done(bench *n, const char *what)
{
    if (n->b->fetch(n->b->stream, NULL, 0, NULL, &n->err) != PL_OK)
        fail(what, n->err.message);
}

static void *take(bench *n, size_t bytes)
{
    void *memory = n->b->memory_take(n->b, bytes);
    if (!memory)
        fail("memory of the card", "there is not enough left");
    return memory;
}

static void *host_take(size_t bytes)
{
    void *memory = malloc(bytes);
    if (!memory)
        fail("memory", "there is not enough left");
    return memory;
}

static void print(const char *kind, const char *name, const char *detail, int rows, double us, double rate,
                  double share, double tops)
{
    printf("%s,%s,\"%s\",%d,%.2f,%.2f,%.3f,%.2f,%.1f\n", kind, name, detail, rows, us, rate, share, tops,
           us > 0 ? rows / us * 1e6 : 0);
    fflush(stdout);
}

/* ---- time ---- */

typedef struct timed {
    void (*queue)(bench *n, const void *user, int rows, int turn);
    const void *user;
    int rows, turns;
} timed;

/* Microseconds for all turns together. */
static double measure(bench *n, const timed *t, const char *what)
{
    double us[REPEATS];
    cudaStream_t queue = n->b->stream->queue;
    uint64_t key = ++n->key;
    for (int i = 0; i < WARM_UPS + REPEATS; i++) {
        cuda(cudaEventRecord(n->begin, queue), what);
        if (n->b->begin(n->b->stream, &key, sizeof key))
            for (int turn = 0; turn < t->turns; turn++)
                t->queue(n, t->user, t->rows, turn);
        n->b->end(n->b->stream);
        cuda(cudaEventRecord(n->end, queue), what);
        done(n, what);
        float ms;
        cuda(cudaEventElapsedTime(&ms, n->begin, n->end), what);
        if (i >= WARM_UPS)
            us[i - WARM_UPS] = 1e3 * (double)ms;
    }
    return pl_median(us, REPEATS);
}

/* ---- what the card gives ---- */

static double copy_us(bench *n, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    double us[REPEATS];
    cudaStream_t queue = n->b->stream->queue;
    for (int i = 0; i < WARM_UPS + REPEATS; i++) {
        float ms;
        cuda(cudaEventRecord(n->begin, queue), "copy");
        cuda(cudaMemcpyAsync(to, from, bytes, kind, queue), "copy");
        cuda(cudaEventRecord(n->end, queue), "copy");
        cuda(cudaStreamSynchronize(queue), "copy");
        cuda(cudaEventElapsedTime(&ms, n->begin, n->end), "copy");
        if (i >= WARM_UPS)
            us[i - WARM_UPS] = 1e3 * (double)ms;
    }
    return pl_median(us, REPEATS);
}

static void read_all(bench *n, const void *user, int rows, int turn)
{
    (void)turn;
    n->b->ops->check_finite(n->b->stream, user, rows, (int64_t)(WEIGHT_ROOM / sizeof(float)) / rows, n->o.bad);
}

static void tiny_op(bench *n, const void *user, int rows, int turn)
{
    (void)user, (void)turn;
    n->b->ops->softcap(n->b->stream, n->o.logits, rows, 32, 30);
}

static void rates(bench *n)
{
    size_t bytes = (size_t)256 << 20;
    void *pinned = n->b->shared_take(n->b, bytes);
    if (!pinned)
        fail("pinned memory", "there is not enough left");
    print("rate", "copy", "within the card's memory, read and written", 0, 0, n->copy_rate * 1e-3, 1, 0);
    timed read = {read_all, n->weights, 1024, 1};
    double rate = (double)WEIGHT_ROOM / measure(n, &read, "reading");
    print("rate", "read", "by check_finite", 0, 0, rate * 1e-3, rate / n->copy_rate, 0);
    double in = (double)bytes / copy_us(n, n->weights, pinned, bytes, cudaMemcpyHostToDevice) * 1e-3;
    double out = (double)bytes / copy_us(n, pinned, n->weights, bytes, cudaMemcpyDeviceToHost) * 1e-3;
    print("rate", "bus in", "from pinned memory", 0, 0, in, 0, 0);
    print("rate", "bus out", "to pinned memory", 0, 0, out, 0, 0);
    timed tiny = {tiny_op, NULL, 1, TINY_OPS};
    print("rate", "launch", "of one of 100 small kernels in a graph", 0, measure(n, &tiny, "launches") / TINY_OPS, 0, 0,
          0);
    n->b->shared_give(n->b, pinned, bytes);
}

/* ---- operands ---- */

static float normal(pl_rng *rng)
{
    double radius = sqrt(-2 * log(1 - pl_rng_uniform(rng)));
    return (float)(radius * cos(6.283185307179586 * pl_rng_uniform(rng)));
}

static float *floats(bench *n, size_t count)
{
    float *to = take(n, count * sizeof *to);
    size_t most = (size_t)CASE_ROWS * CASE_FFN;
    for (size_t at = 0; at < count; at += most) {
        size_t part = count - at < most ? count - at : most;
        cuda(cudaMemcpy(to + at, n->values, part * sizeof *to, cudaMemcpyHostToDevice), "copy");
    }
    return to;
}

static pl_act operand(bench *n, const float *from)
{
    size_t blocks = (size_t)CASE_ROWS * CASE_FFN / PL_ACT_BLOCK;
    return (pl_act){.f32 = from,
                    .ld = CASE_FFN,
                    .cols = CASE_FFN,
                    .blocks = CASE_FFN / PL_ACT_BLOCK,
                    .hi_lo = take(n, blocks * 2 * PL_ACT_BLOCK),
                    .scale = take(n, blocks * sizeof(float)),
                    .sum = take(n, blocks * 2 * sizeof(int32_t))};
}

static void make_kv(bench *n)
{
    enum { PAGES = CASE_CONTEXT / PL_KV_PAGE, STRIDE = 2 * PL_KV_PAGE * 256 };
    static int32_t table[CASE_SEQUENCES * PAGES];
    for (int i = 0; i < CASE_SEQUENCES * PAGES; i++)
        table[i] = i;
    int32_t *on_card = take(n, sizeof table);
    cuda(cudaMemcpy(on_card, table, sizeof table, cudaMemcpyHostToDevice), "copy");
    n->o.kv = (pl_kv_layer){.k = floats(n, (size_t)CASE_SEQUENCES * PAGES * STRIDE),
                            .v = floats(n, (size_t)CASE_SEQUENCES * PAGES * STRIDE),
                            .page_stride = STRIDE,
                            .table = on_card,
                            .table_ld = PAGES};
}

static void make_table(bench *n)
{
    size_t row = pl_dtype_bytes(PL_Q6_K, CASE_PLE_COLS), bytes = (TABLE_ROWS * row + 15) / 16 * 16;
    n->o.table = (pl_ple_rows){
        .name = "table", .base = take(n, bytes), .type = PL_Q6_K, .row_bytes = row, .vocab = TABLE_ROWS};
}

static void make_draws(bench *n)
{
    pl_sampling sampling = pl_generation_default().sampling;
    pl_draw *image = host_take(sizeof *image), *on_card = take(n, CASE_SEQUENCES * sizeof *on_card);
    pl_draw *list[CASE_SEQUENCES];
    pl_drawn *drawn[CASE_SEQUENCES], *shared = n->b->shared_take(n->b, sizeof *shared * CASE_SEQUENCES);
    if (!shared)
        fail("pinned memory", "there is not enough left");
    for (int i = 0; i < CASE_SEQUENCES; i++) {
        sampling.seed = (uint64_t)i + 1;
        if (pl_card_draw_start(&sampling, CASE_VOCAB, CASE_CONTEXT, NULL, 0, image, &n->err) != PL_OK)
            fail("draws", n->err.message);
        cuda(cudaMemcpy(on_card + i, image, sizeof *image, cudaMemcpyHostToDevice), "copy");
        list[i] = on_card + i;
        drawn[i] = shared + i;
    }
    n->o.draws = take(n, sizeof list);
    n->o.drawn = take(n, sizeof drawn);
    cuda(cudaMemcpy(n->o.draws, list, sizeof list, cudaMemcpyHostToDevice), "copy");
    cuda(cudaMemcpy(n->o.drawn, drawn, sizeof drawn, cudaMemcpyHostToDevice), "copy");
    free(image);
}

static void make_operands(bench *n)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    n->values = host_take((size_t)CASE_ROWS * CASE_FFN * sizeof *n->values);
    for (size_t i = 0; i < (size_t)CASE_ROWS * CASE_FFN; i++)
        n->values[i] = i < 2 * NORMALS ? normal(&rng) : n->values[i - 2 * NORMALS + i % 7];
    for (int i = 0; i < 3; i++)
        n->o.wide[i] = floats(n, (size_t)CASE_ROWS * CASE_FFN);
    for (int i = 0; i < 6; i++)
        n->o.rows[i] = floats(n, (size_t)CASE_ROWS * CASE_FFN);
    n->o.streams = floats(n, (size_t)PL_STREAMS * CASE_ROWS * CASE_HIDDEN);
    n->o.predicted = floats(n, (size_t)PL_STREAMS * CASE_ROWS * CASE_HIDDEN);
    n->o.vector = floats(n, CASE_FFN + PL_STREAMS * CASE_HIDDEN);
    n->o.logits = floats(n, (size_t)PL_FUSED_ROWS * CASE_VOCAB);
    n->o.x = operand(n, n->o.rows[0]);
    n->o.mid = operand(n, n->o.wide[2]);
    n->o.bad = take(n, sizeof *n->o.bad);
    n->card_plan = take(n, sizeof *n->card_plan);
    make_kv(n);
    make_table(n);
    make_draws(n);
}

/* ---- weights ---- */

/* Normally distributed, so that a sparse FFN cuts as many units as it should. */
static unsigned char *make_weight(bench *n, pl_dtype type, int64_t rows, int64_t cols)
{
    const pl_encoder *encoder = pl_encoder_select(pl_cpu_features(PL_CPU_ALL));
    size_t row = pl_dtype_bytes(type, cols);
    unsigned char *data = host_take((size_t)rows * row);
    float *scaled = host_take((size_t)cols * sizeof *scaled), by = 1 / sqrtf((float)cols);
    for (int64_t i = 0; i < rows; i++) {
        if (i >= DISTINCT_ROWS) {
            memcpy(data + (size_t)i * row, data + (size_t)(i - DISTINCT_ROWS) * row, row);
            continue;
        }
        const float *from = n->values + NORMALS + i * 12289 % NORMALS; /* not those of the operands */
        for (int64_t k = 0; k < cols; k++)
            scaled[k] = by * from[k];
        encoder->encode(type, scaled, NULL, data + (size_t)i * row, cols);
    }
    free(scaled);
    return data;
}

/* The case's weights at the start of the room, and as many copies of them as are used in turn. */
static void load_weights(bench *n, const card_case *c)
{
    n->set_bytes = 0;
    for (int i = 0; i < c->n_weights; i++) {
        pl_tensor t = {.name = c->op, .rows = c->weight[i].rows, .cols = c->weight[i].cols, .type = c->weight[i].type};
        unsigned char *data = make_weight(n, t.type, t.rows, t.cols);
        t.data = data;
        n->at[i] = n->set_bytes;
        n->set_bytes += (n->b->weight_bytes(n->b, &t) + 255) / 256 * 256;
        if (n->set_bytes > WEIGHT_ROOM)
            fail(c->op, "its weights do not fit");
        if (n->b->weight_load(n->b, &t, n->weights + n->at[i], &n->o.weight[i], &n->err) != PL_OK)
            fail(c->op, n->err.message);
        done(n, c->op);
        free(data);
    }
    size_t room = n->set_bytes ? WEIGHT_ROOM / n->set_bytes : 1;
    n->copies = room < TURNS ? (int)room : TURNS;
    for (int i = 1; i < n->copies; i++)
        cuda(cudaMemcpy(n->weights + (size_t)i * n->set_bytes, n->weights, n->set_bytes, cudaMemcpyDeviceToDevice),
             c->op);
}

/* ---- ops ---- */

static void queue_case(bench *n, const void *user, int rows, int turn)
{
    const card_case *c = user;
    for (int i = 0; i < c->n_weights; i++)
        n->o.weight[i].data = n->weights + (size_t)(turn % n->copies) * n->set_bytes + n->at[i];
    c->run(n->b, c, &n->o, rows, turn);
}

static void make_plan(bench *n, const card_case *c, int rows)
{
    pl_rng rng;
    pl_rng_seed(&rng, 2);
    for (int i = 0; i < CASE_ROWS + CASE_SEQUENCES; i++)
        n->plan.sequence[i] = rows > PL_FUSED_ROWS ? 0 : i % CASE_SEQUENCES;
    for (int i = 0; i < CASE_ROWS; i++) {
        int back = rows > PL_FUSED_ROWS ? rows - 1 - i : 0;
        n->plan.slot[i] = i;
        n->plan.position[i] = c->position > back ? c->position - back : 0;
        n->plan.width[i] = CASE_FFN;
        n->plan.layers[i] = CASE_PLE_COLS / 256;
        n->plan.id[i] = (int32_t)(pl_rng_uniform(&rng) * TABLE_ROWS);
    }
    cuda(cudaMemcpy(n->card_plan, &n->plan, sizeof n->plan, cudaMemcpyHostToDevice), "copy");
    n->o.plan = n->card_plan;
}

/* The same call to a backend that counts; what it looks at is in the host's memory. */
static pl_counted count(bench *n, const card_case *c, int rows)
{
    pl_counts counts = {0};
    pl_backend *counting;
    if (pl_count_backend(&counts, true, &counting, &n->err) != PL_OK)
        fail(c->op, n->err.message);
    case_operands o = n->o;
    o.plan = &n->plan;
    c->run(counting, c, &o, rows, 0);
    pl_backend_free(counting);
    return counts.op[0];
}

static void bench_case(bench *n, const card_case *c, int rows)
{
    char detail[96];
    snprintf(detail, sizeof detail, "%s%s%s", c->fused ? "fused" : "", c->fused && *c->what ? " " : "", c->what);
    make_plan(n, c, rows);
    pl_act *acts[] = {&n->o.x, &n->o.mid};
    for (int i = 0; i < 2; i++) {
        pl_act a = *acts[i];
        n->b->ops->quantize(n->b->stream, &a, rows);
    }
    timed t = {queue_case, c, rows, TURNS};
    double us = measure(n, &t, c->op) / TURNS;
    pl_counted counted = count(n, c, rows);
    double rate = (counted.bytes + counted.bus_bytes) / us;
    print("op", c->op, detail, rows, us, rate * 1e-3, rate / n->copy_rate,
          (counted.int_ops + counted.f32_ops) / us * 1e-6);
}

static void bench_ops(bench *n, const int *rows, int n_rows)
{
    for (int i = 0; i < n_card_cases; i++) {
        const card_case *c = &card_cases[i];
        load_weights(n, c);
        for (int k = 0; k < n_rows; k++)
            if (rows[k] <= c->most_rows)
                bench_case(n, c, rows[k]);
    }
}

/* ---- */

static void open_card(bench *n)
{
    long threads = sysconf(_SC_NPROCESSORS_ONLN);
    pl_backend_shape shape = {
        .max_rows = CASE_ROWS, .max_context = CASE_CONTEXT, .heads = {8, 2, 256}, .vocab = CASE_VOCAB};
    if (pl_backend_cuda(&shape, 0, threads < 1 ? 1 : threads > 16 ? 16 : (int)threads, NULL, &n->b, &n->err) != PL_OK)
        fail("no card to measure", n->err.message);
    cuda(cudaEventCreate(&n->begin), "cudaEventCreate");
    cuda(cudaEventCreate(&n->end), "cudaEventCreate");
    n->weights = take(n, WEIGHT_ROOM);
    make_operands(n);
    size_t half = WEIGHT_ROOM / 2;
    n->copy_rate = 2 * (double)half / copy_us(n, n->weights + half, n->weights, half, cudaMemcpyDeviceToDevice);
}

/* "1,2,16"; false where it is something else. */
static bool read_rows(const char *text, int most, int *rows, int *n)
{
    for (*n = 0; *n < BENCH_ROWS_MAX; text++) {
        char *end;
        long v = strtol(text, &end, 10);
        if (end == text || v < 1 || v > most)
            return false;
        rows[(*n)++] = (int)v;
        if (!*end)
            return true;
        text = end;
        if (*text != ',')
            return false;
    }
    return false;
}

int main(int argc, char **argv)
{
    static bench n;
    int rows[BENCH_ROWS_MAX], n_rows;
    const char *what = argc > 1 ? argv[1] : "";
    bool memory = strcmp(what, "memory") == 0 && argc == 5;
    bool steps = memory || (strcmp(what, "steps") == 0 && argc >= 5), ops = strcmp(what, "ops") == 0;
    const char *list = steps ? (argc > 5 ? argv[5] : "1,2,4,8,16") : ops && argc > 2 ? argv[2] : "1,2,4,8,16,512";
    if ((!steps && !ops && strcmp(what, "rates") != 0) ||
        !read_rows(list, steps ? PL_FUSED_ROWS : CASE_ROWS, rows, &n_rows)) {
        fputs("usage: bench_card rates | ops [ROWS,...] | steps MODEL PATH PLE [ROWS,...] | memory MODEL PATH PLE\n",
              stderr);
        return 2;
    }
    if (steps) {
        if (pl_bench_steps(argv[2], argv[3], argv[4], rows, memory ? 0 : n_rows, &n.err) == PL_OK)
            return 0;
        fail("steps", n.err.message);
    }
    open_card(&n);
    puts(BENCH_CARD_HEAD);
    if (ops)
        bench_ops(&n, rows, n_rows);
    else
        rates(&n);
    cudaEventDestroy(n.begin);
    cudaEventDestroy(n.end);
    free(n.values);
    pl_backend_free(n.b); /* what was taken goes with the process */
    return 0;
}
