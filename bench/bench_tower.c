/* How fast the towers of Gemma 3n are, with weights of full size that are made up.
 *
 *     bench_tower audio|vision [THREADS]
 *
 * Prints CSV. Audio: seconds until the tower is there; half a minute of sound at once: the best time, and its share of that
 * half minute; sound as it comes, in pieces of 160 ms: median and longest time from the end of a piece to its row.
 * Vision: seconds until the tower is there; for each size of an image the best time, and images a second. */
#include "bench/median.h"
#include "bench/vision_tensors.h"
#include "host/base/clock.h"
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/media/mel.h"
#include "host/tower/audio.h"
#include "host/tower/source_parts.h"
#include "host/tower/vision.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_HIDDEN 2048
#define MOST_TENSORS 600
#define LARGEST (6144 * 1536)
#define FRAMES 2997
#define PIECE 16
#define MOST_ROWS 256 /* of a clip and of an image */
#define RUNS 3

typedef struct shape {
    const char *name;
    int64_t rows, cols; /* cols 0: a vector */
} shape;

static const shape audio_once[] = {
    {"audio_tower.subsample_conv_projection.conv_0.conv.weight", 128, 9},
    {"audio_tower.subsample_conv_projection.conv_0.norm.weight", 128, 0},
    {"audio_tower.subsample_conv_projection.conv_1.conv.weight", 32, 1152},
    {"audio_tower.subsample_conv_projection.conv_1.norm.weight", 32, 0},
    {"audio_tower.subsample_conv_projection.input_proj_linear.weight", 1536, 1024},
    {"embed_audio.embedding.weight", 128, 1536},
    {"embed_audio.hard_embedding_norm.weight", 1536, 0},
    {"embed_audio.soft_embedding_norm.weight", 1536, 0},
    {"embed_audio.embedding_projection.weight", TEXT_HIDDEN, 1536},
};

static const shape audio_layer[] = {
    {"ffw_layer_start.pre_layer_norm.weight", 1536, 0},
    {"ffw_layer_start.ffw_layer_1.weight", 6144, 1536},
    {"ffw_layer_start.ffw_layer_2.weight", 1536, 6144},
    {"ffw_layer_start.post_layer_norm.weight", 1536, 0},
    {"attention.pre_attn_norm.weight", 1536, 0},
    {"attention.attn.q_proj.weight", 1536, 1536},
    {"attention.attn.k_proj.weight", 1536, 1536},
    {"attention.attn.v_proj.weight", 1536, 1536},
    {"attention.attn.per_dim_scale", 192, 0},
    {"attention.attn.relative_position_embedding.pos_proj.weight", 1536, 1536},
    {"attention.post.weight", 1536, 1536},
    {"attention.post_norm.weight", 1536, 0},
    {"lconv1d.pre_layer_norm.weight", 1536, 0},
    {"lconv1d.linear_start.weight", 3072, 1536},
    {"lconv1d.depthwise_conv1d.weight", 1536, 5},
    {"lconv1d.conv_norm.weight", 1536, 0},
    {"lconv1d.linear_end.weight", 1536, 1536},
    {"ffw_layer_end.pre_layer_norm.weight", 1536, 0},
    {"ffw_layer_end.ffw_layer_1.weight", 6144, 1536},
    {"ffw_layer_end.ffw_layer_2.weight", 1536, 6144},
    {"ffw_layer_end.post_layer_norm.weight", 1536, 0},
    {"norm.weight", 1536, 0},
};

typedef struct bench {
    pl_tower_source source;
    pl_entry entries[MOST_TENSORS];
    char names[MOST_TENSORS][PL_TOWER_NAME_BYTES];
    uint16_t *values; /* bf16: all tensors begin here */
    float *frames, *rows;
    pl_backend *backend;
    pl_audio *audio;
    pl_audio_stream *stream;
    pl_vision *vision;
} bench;

static void add_tensor(void *user, const char *name, int64_t rows, int64_t cols)
{
    bench *b = user;
    size_t at = b->source.tensors.n++;
    snprintf(b->names[at], sizeof b->names[at], "%s", name);
    b->entries[at] = (pl_entry){.name = b->names[at],
                                .where = "bench",
                                .data = (const unsigned char *)b->values,
                                .bytes = (uint64_t)(rows * (cols > 0 ? cols : 1)) * sizeof *b->values,
                                .dims = {rows, cols},
                                .n_dims = cols > 0 ? 2 : 1,
                                .type = PL_BF16,
                                .type_name = "BF16"};
}

static void add_tensors(bench *b, const char *prefix, const shape *shapes, size_t n)
{
    char name[PL_TOWER_NAME_BYTES];
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%s%s", prefix, shapes[i].name);
        add_tensor(b, name, shapes[i].rows, shapes[i].cols);
    }
}

/* Both signs, from 2^-6 to 2^-5. */
static void make_values(uint16_t *values, size_t n)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (size_t i = 0; i < n; i++)
        values[i] = (uint16_t)((pl_rng_next(&rng) & 0x807f) | 121 << 7);
}

static pl_status make_source(bench *b, pl_error *err)
{
    pl_tower_source *s = &b->source;
    b->values = malloc(LARGEST * sizeof *b->values);
    if (!b->values)
        return pl_fail_memory(err, LARGEST * sizeof *b->values, "weights");
    make_values(b->values, LARGEST);
    PL_TRY(pl_arena_create(1 << 16, &s->arena, err));
    s->where = "bench";
    s->file = (pl_mapfile){.data = (const unsigned char *)b->values}; /* of no bytes: nothing is dropped */
    s->has_audio = s->has_vision = true;
    s->audio = pl_audio_published;
    s->vision = pl_vision_published;
    s->tensors.items = b->entries;
    return PL_OK;
}

static void add_audio(bench *b)
{
    add_tensors(b, "", audio_once, sizeof audio_once / sizeof *audio_once);
    for (int layer = 0; layer < pl_audio_published.layers; layer++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "audio_tower.conformer.%d.", layer);
        add_tensors(b, prefix, audio_layer, sizeof audio_layer / sizeof *audio_layer);
    }
}

static pl_status make_frames(bench *b, pl_error *err)
{
    pl_rng rng;
    size_t floats = (size_t)FRAMES * PL_MEL_BINS + (size_t)MOST_ROWS * TEXT_HIDDEN;
    pl_rng_seed(&rng, 2);
    b->frames = malloc(floats * sizeof *b->frames);
    if (!b->frames)
        return pl_fail_memory(err, floats * sizeof *b->frames, "frames");
    for (int i = 0; i < FRAMES * PL_MEL_BINS; i++)
        b->frames[i] = (float)(-11.5 * pl_rng_uniform(&rng));
    b->rows = b->frames + (size_t)FRAMES * PL_MEL_BINS;
    return PL_OK;
}

/* All frames in pieces; the times of all but the first few, which give no row. */
static pl_status hear(bench *b, int piece, double *times, size_t *n_times, pl_error *err)
{
    *n_times = 0;
    pl_audio_stream_free(b->stream);
    b->stream = NULL;
    PL_TRY(pl_audio_stream_create(b->audio, &b->stream, err));
    for (int done = 0; done < FRAMES; done += piece) {
        int now = FRAMES - done < piece ? FRAMES - done : piece, n;
        double start = pl_clock_seconds();
        PL_TRY(pl_audio_hear(b->stream, b->frames + (size_t)done * PL_MEL_BINS, now, done + now == FRAMES, NULL, NULL,
                             b->rows, MOST_ROWS, &n, err));
        if (n > 0)
            times[(*n_times)++] = pl_clock_seconds() - start;
    }
    return PL_OK;
}

static const pl_backend_shape least = {.max_rows = 1, .max_context = 16, .heads = {1, 1, 16}, .vocab = 16};

static pl_status run_audio(bench *b, int threads, pl_error *err)
{
    double whole[RUNS] = {0}, pieces[FRAMES], start = pl_clock_seconds();
    size_t n;
    PL_TRY(pl_backend_cpu(&least, threads, NULL, PL_CPU_ALL, &b->backend, err));
    PL_TRY(pl_audio_create(&b->source, b->backend, NULL, &b->audio, err));
    double load = pl_clock_seconds() - start;
    for (int i = 0; i < RUNS; i++)
        PL_TRY(hear(b, FRAMES, &whole[i], &n, err));
    PL_TRY(hear(b, PIECE, pieces, &n, err));
    double median = pl_median(pieces, n), best = whole[0];
    for (int i = 1; i < RUNS; i++)
        best = whole[i] < best ? whole[i] : best;
    printf("tower,threads,kernels,bytes,load s,30 s in,share of real time,160 ms: median ms,longest ms\n");
    printf("audio,%d,%s,%zu,%.2f,%.3f,%.4f,%.1f,%.1f\n", threads, b->backend->name, pl_audio_bytes(b->audio), load,
           best, best / 30, 1e3 * median, 1e3 * pieces[n - 1]);
    return PL_OK;
}

static pl_status run_vision(bench *b, int threads, pl_error *err)
{
    static const int sides[] = {256, 512, 768};
    static uint8_t rgb[768 * 768 * 3];
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)pl_rng_next(&rng);
    double start = pl_clock_seconds();
    PL_TRY(pl_backend_cpu(&least, threads, NULL, PL_CPU_ALL, &b->backend, err));
    PL_TRY(pl_vision_create(&b->source, b->backend, NULL, &b->vision, err));
    double load = pl_clock_seconds() - start;
    printf("tower,threads,kernels,bytes,load s,side,image s,images a second\n");
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        double best = 1e9;
        for (int run = 0; run <= RUNS; run++) { /* the first one takes the memory */
            start = pl_clock_seconds();
            PL_TRY(pl_vision_encode(b->vision, rgb, sides[i], NULL, NULL, b->rows, err));
            double now = pl_clock_seconds() - start;
            best = now < best ? now : best;
        }
        printf("vision,%d,%s,%zu,%.2f,%d,%.3f,%.2f\n", threads, b->backend->name, pl_vision_bytes(b->vision), load,
               sides[i], best, 1 / best);
    }
    return PL_OK;
}

static pl_status run(bench *b, bool vision, int threads, pl_error *err)
{
    PL_TRY(make_source(b, err));
    if (vision)
        vision_tensors(add_tensor, b, TEXT_HIDDEN);
    else
        add_audio(b);
    PL_TRY(pl_tensor_list_index(&b->source.tensors, b->source.arena, err));
    PL_TRY(make_frames(b, err));
    return vision ? run_vision(b, threads, err) : run_audio(b, threads, err);
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 1;
    pl_error err = {.message = ""};
    bool vision = argc > 1 && strcmp(argv[1], "vision") == 0;
    if (argc < 2 || (!vision && strcmp(argv[1], "audio") != 0) || threads < 1) {
        fprintf(stderr, "bench_tower: expected 'audio' or 'vision', then a number of threads\n");
        return 2;
    }
    static bench b;
    pl_status status = run(&b, vision, threads, &err);
    if (status != PL_OK)
        fprintf(stderr, "bench_tower: %s\n", err.message);
    pl_audio_stream_free(b.stream);
    pl_audio_free(b.audio);
    pl_vision_free(b.vision);
    pl_backend_free(b.backend);
    pl_arena_free(b.source.arena);
    free(b.frames);
    free(b.values);
    return status != PL_OK;
}
