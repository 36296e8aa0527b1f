/* A model file of the full size with weights that mean nothing, to measure with: the tensors, types and keys that a
 * quantised Gemma 3n has, as llama.cpp reads them too.
 *
 *     make_model SIZE TYPE FILE [THREADS]      SIZE: e4b, e2b, tiny   TYPE: q4_0, q4_k_m, q8_0
 *
 * Matrices are normally distributed with a deviation of 1 / sqrt(columns), norms are near 1: what passes through the
 * layers stays of one size, and of the sparse layers' gates one in twenty passes the cut, as in the real model. So that
 * writing takes as long as the disk needs and not as long as encoding does, rows are put together at random from a few
 * thousand encoded pieces of 256 values. The same file each time, whatever the threads. The words of the vocabulary
 * are made up. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/base/threads.h"
#include "host/model/gguf_writer.h"
#include "host/model/weight_table.h"
#include "quant/encode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE 256
#define POOL_PIECES 4096
#define MAX_POOLS 32
#define BATCH_BYTES ((size_t)32 << 20)
#define SPARSE_LAYERS 10
#define SPARSITY_Z 1.6448533535003662f /* one normal value in twenty is larger */

typedef struct size {
    const char *name;
    int layers, kv_layers, hidden, ffn, heads, kv_heads, head_dim, vocab, window, context;
    const char *mix; /* the path "mix" */
} size;

static const size sizes[] = {
    {"e4b", 35, 20, 2048, 16384, 8, 2, 256, 262400, 512, 32768, "mix:widths=12288"},
    {"e2b", 30, 20, 2048, 8192, 8, 2, 256, 262400, 512, 32768, NULL},
    {"tiny", 25, 20, 256, 512, 4, 2, 64, 4096, 64, 4096, "mix:widths=256"},
};

typedef struct mix {
    const char *name;
    pl_dtype base;
    bool more_bits; /* V and down of some layers in Q6_K */
    uint32_t file_type;
} mix;

static const mix mixes[] = {{"q4_0", PL_Q4_0, false, 2}, {"q4_k_m", PL_Q4_K, true, 15}, {"q8_0", PL_Q8_0, false, 7}};

/* Encoded pieces of one distribution. */
typedef struct pool {
    pl_dtype type;
    float mean, deviation;
    int piece;
    size_t piece_bytes;
    unsigned char *bytes;
} pool;

typedef struct making {
    const size *size;
    const mix *mix;
    pl_config config;
    const pl_encoder *encoder;
    pl_pool *threads;
    pl_gguf_writer *writer;
    pool pools[MAX_POOLS];
    int n_pools;
    unsigned char *batch;

    /* The tensor that is being written. */
    const pool *from;
    uint64_t seed;
    int64_t row;
    size_t row_bytes;
    int row_pieces;
} making;

typedef struct tensor {
    char name[PL_WEIGHT_NAME_BYTES];
    pl_role role;
    int64_t rows, cols; /* of all parts together */
    pl_dtype type;
    float mean, deviation;
} tensor;

static void fail(const char *what)
{
    fprintf(stderr, "make_model: %s\n", what);
    exit(1);
}

static void check(pl_status status, const pl_error *err)
{
    if (status != PL_OK)
        fail(err->message);
}

static void *take(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p)
        fail("no memory");
    return p;
}

/* ---- which tensors, of which types ---- */

static bool more_bits(const making *m, int layer)
{
    int n = m->size->layers;
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

/* As llama-quantize has it, see host/convert/recipe.c. */
static pl_dtype type_of(const making *m, pl_role role, int layer, int64_t cols)
{
    pl_dtype type = m->mix->base;
    switch (role) {
    case PL_ROLE_LAUREL_LEFT:
    case PL_ROLE_LAUREL_RIGHT:
    case PL_ROLE_ALTUP_ROUTER:
    case PL_ROLE_ALTUP_PROJ:
    case PL_ROLE_ALTUP_UNEMBED:
    case PL_ROLE_PLE_MODEL_PROJ: return PL_F16;
    case PL_ROLE_EMBED:
    case PL_ROLE_PLE_TABLE: type = type == PL_Q8_0 ? PL_Q8_0 : PL_Q6_K; break;
    case PL_ROLE_V:
    case PL_ROLE_DOWN: type = m->mix->more_bits && more_bits(m, layer) ? PL_Q6_K : type; break;
    default: break;
    }
    if (pl_weight_table[role].kind == PL_WEIGHT_VECTOR)
        return PL_F32;
    return cols % pl_dtype_describe((int)type)->block_elems == 0 ? type : PL_F16;
}

static void set_distribution(const making *m, tensor *t)
{
    float hidden = (float)m->size->hidden;
    t->mean = 0;
    t->deviation = 1 / sqrtf((float)t->cols);
    switch (t->role) {
    case PL_ROLE_ATTN_NORM:
    case PL_ROLE_FFN_NORM:
    case PL_ROLE_ALTUP_ROUTER_NORM:
    case PL_ROLE_ALTUP_SCALE:
    case PL_ROLE_PLE_NORM:
    case PL_ROLE_OUT_NORM: t->mean = 1, t->deviation = 0.1f; break;
    case PL_ROLE_POST_ATTN_NORM:
    case PL_ROLE_POST_FFN_NORM:
    case PL_ROLE_POST_PLE_NORM:
    case PL_ROLE_LAUREL_NORM: t->mean = 0.4f, t->deviation = 0.05f; break; /* the residual must not grow */
    case PL_ROLE_Q_NORM:
    case PL_ROLE_K_NORM: /* scores of attention deviate by 2 */
        t->mean = sqrtf(2 / sqrtf((float)m->size->head_dim));
        t->deviation = 0.1f * t->mean;
        break;
    case PL_ROLE_ALTUP_ROUTER: t->deviation = sqrtf(hidden); break; /* its input is divided by the hidden size */
    case PL_ROLE_ALTUP_PREDICT:
    case PL_ROLE_ALTUP_CORRECT: t->deviation = 0.15f; break;
    case PL_ROLE_EMBED: t->deviation = 2.5f / sqrtf(hidden); break; /* logits deviate by 2.5 */
    case PL_ROLE_PLE_TABLE: t->deviation = 1 / sqrtf((float)m->config.ple_dim); break;
    default: break;
    }
}

/* K/V matrices stand in all layers, for llama.cpp's sake. */
static tensor describe(const making *m, pl_role role, int layer)
{
    const pl_weight_info *info = &pl_weight_table[role];
    tensor t = {.role = role};
    pl_weight_name(PL_CHECKPOINT_GGUF, "", layer, role, 0, t.name);
    t.rows = info->count * pl_size_of(&m->config, layer, info->rows);
    t.cols = pl_size_of(&m->config, layer, info->cols);
    t.type = type_of(m, role, layer, t.cols);
    set_distribution(m, &t);
    return t;
}

static void for_each_tensor(making *m, void (*fn)(making *m, const tensor *t))
{
    for (pl_role role = PL_LAYER_ROLES; role < PL_ROLES; role++)
        if (role != PL_ROLE_HEAD) {
            tensor t = describe(m, role, 0);
            fn(m, &t);
        }
    for (int layer = 0; layer < m->size->layers; layer++)
        for (pl_role role = 0; role < PL_LAYER_ROLES; role++) {
            tensor t = describe(m, role, layer);
            fn(m, &t);
        }
}

static void declare(making *m, const tensor *t)
{
    int count = pl_weight_table[t->role].count;
    int64_t dims[3] = {count, t->rows / count, t->cols};
    int first = count > 1 ? 0 : t->rows > 1 ? 1 : 2;
    pl_gguf_declare(m->writer, t->name, t->type, dims + first, 3 - first);
}

/* ---- keys ---- */

static void put_sizes(pl_gguf_writer *w, const making *m)
{
    const size *s = m->size;
    int32_t ffn[PL_MAX_LAYERS];
    float z[PL_MAX_LAYERS];
    unsigned char local[PL_MAX_LAYERS];
    for (int l = 0; l < s->layers; l++) {
        ffn[l] = s->ffn;
        z[l] = l < SPARSE_LAYERS ? SPARSITY_Z : -INFINITY;
        local[l] = (l + 1) % 5 != 0;
    }
    pl_gguf_put_u32(w, "gemma3n.context_length", (uint32_t)s->context);
    pl_gguf_put_u32(w, "gemma3n.embedding_length", (uint32_t)s->hidden);
    pl_gguf_put_u32(w, "gemma3n.block_count", (uint32_t)s->layers);
    pl_gguf_put_array(w, "gemma3n.feed_forward_length", PL_GGUF_I32, ffn, (uint64_t)s->layers);
    pl_gguf_put_u32(w, "gemma3n.attention.head_count", (uint32_t)s->heads);
    pl_gguf_put_u32(w, "gemma3n.attention.head_count_kv", (uint32_t)s->kv_heads);
    pl_gguf_put_u32(w, "gemma3n.attention.key_length", (uint32_t)s->head_dim);
    pl_gguf_put_u32(w, "gemma3n.attention.value_length", (uint32_t)s->head_dim);
    pl_gguf_put_f32(w, "gemma3n.attention.layer_norm_rms_epsilon", 1e-6f);
    pl_gguf_put_u32(w, "gemma3n.attention.sliding_window", (uint32_t)s->window);
    pl_gguf_put_array(w, "gemma3n.attention.sliding_window_pattern", PL_GGUF_BOOL, local, (uint64_t)s->layers);
    pl_gguf_put_u32(w, "gemma3n.attention.shared_kv_layers", (uint32_t)(s->layers - s->kv_layers));
    pl_gguf_put_f32(w, "gemma3n.rope.freq_base", 1e6f);
    pl_gguf_put_f32(w, "gemma3n.rope.freq_base_swa", 1e4f);
    pl_gguf_put_f32(w, "gemma3n.final_logit_softcapping", 30);
    pl_gguf_put_u32(w, "gemma3n.altup.active_idx", 0);
    pl_gguf_put_u32(w, "gemma3n.altup.num_inputs", PL_ALTUP);
    pl_gguf_put_u32(w, "gemma3n.embedding_length_per_layer_input", (uint32_t)m->config.ple_dim);
    pl_gguf_put_array(w, "gemma3n.activation_sparsity_scale", PL_GGUF_F32, z, (uint64_t)s->layers);
    if (s->mix)
        pl_gguf_put_text(w, "pleiad.path.mix", s->mix);
}

enum { NORMAL = 1, CONTROL = 3, BYTE = 6 };

/* Specials as published, the bytes, the letters that words merge from, and words. */
static int32_t write_piece(int id, char text[16])
{
    enum { START = 105, END = 106, BYTES = 238, LETTERS = BYTES + 256, WORDS = LETTERS + 96 };
    static const char *const special[] = {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>"};
    if (id < 5) {
        snprintf(text, 16, "%s", special[id]);
        return CONTROL;
    }
    if (id == START || id == END) {
        snprintf(text, 16, "%s", id == START ? "<start_of_turn>" : "<end_of_turn>");
        return CONTROL;
    }
    if (id < BYTES) {
        snprintf(text, 16, "<unused%d>", id);
        return CONTROL;
    }
    if (id < LETTERS) {
        snprintf(text, 16, "<0x%02X>", id - BYTES);
        return BYTE;
    }
    if (id == LETTERS || id == WORDS - 1)
        snprintf(text, 16, "%s", id == LETTERS ? "\xe2\x96\x81" : "\n");
    else if (id < WORDS)
        snprintf(text, 16, "%c", ' ' + id - LETTERS);
    else
        snprintf(text, 16, "\xe2\x96\x81w%d", id - WORDS);
    return NORMAL;
}

static void put_vocabulary(pl_gguf_writer *w, int n)
{
    char(*pieces)[16] = take((size_t)n * sizeof *pieces);
    const char **text = take((size_t)n * sizeof *text);
    size_t *bytes = take((size_t)n * sizeof *bytes);
    float *score = take((size_t)n * sizeof *score);
    int32_t *kind = take((size_t)n * sizeof *kind);
    for (int i = 0; i < n; i++) {
        kind[i] = write_piece(i, pieces[i]);
        text[i] = pieces[i];
        bytes[i] = strlen(pieces[i]);
        score[i] = kind[i] == NORMAL ? -(float)i : kind[i] == CONTROL ? -1000 : 0;
    }
    pl_gguf_put_text(w, "tokenizer.ggml.model", "llama");
    pl_gguf_put_text(w, "tokenizer.ggml.pre", "default");
    pl_gguf_put_texts(w, "tokenizer.ggml.tokens", text, bytes, (uint64_t)n);
    pl_gguf_put_array(w, "tokenizer.ggml.scores", PL_GGUF_F32, score, (uint64_t)n);
    pl_gguf_put_array(w, "tokenizer.ggml.token_type", PL_GGUF_I32, kind, (uint64_t)n);
    pl_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 2);
    pl_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 106);
    pl_gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", 3);
    pl_gguf_put_u32(w, "tokenizer.ggml.padding_token_id", 0);
    pl_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
    pl_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false);
    pl_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false);
    free(pieces);
    free(text);
    free(bytes);
    free(score);
    free(kind);
}

static void put_keys(making *m)
{
    char name[64];
    snprintf(name, sizeof name, "Gemma 3n %s random %s", m->size->name, m->mix->name);
    pl_gguf_put_text(m->writer, "general.architecture", "gemma3n");
    pl_gguf_put_text(m->writer, "general.type", "model");
    pl_gguf_put_text(m->writer, "general.name", name);
    pl_gguf_put_u32(m->writer, "general.file_type", m->mix->file_type);
    pl_gguf_put_u32(m->writer, "general.quantization_version", 2);
    put_sizes(m->writer, m);
    put_vocabulary(m->writer, m->size->vocab);
}

/* ---- weights ---- */

static float normal(pl_rng *rng)
{
    double radius = sqrt(-2 * log(1 - pl_rng_uniform(rng)));
    return (float)(radius * cos(6.283185307179586 * pl_rng_uniform(rng)));
}

static void encode_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    making *m = ctx;
    const pool *p = m->from;
    for (int64_t i = begin; i < end; i++) {
        float values[PIECE];
        pl_rng rng;
        pl_rng_seed(&rng, m->seed + (uint64_t)i);
        for (int k = 0; k < p->piece; k++)
            values[k] = p->mean + p->deviation * normal(&rng);
        m->encoder->encode(p->type, values, NULL, p->bytes + (size_t)i * p->piece_bytes, p->piece);
    }
}

static const pool *find_pool(making *m, const tensor *t)
{
    int piece = t->cols < PIECE ? (int)t->cols : PIECE;
    for (int i = 0; i < m->n_pools; i++) {
        const pool *p = &m->pools[i];
        if (p->type == t->type && p->mean == t->mean && p->deviation == t->deviation && p->piece == piece)
            return p;
    }
    if (m->n_pools == MAX_POOLS || t->cols % piece != 0)
        fail("a shape that it does not know");
    pool *p = &m->pools[m->n_pools++];
    *p = (pool){t->type, t->mean, t->deviation, piece, pl_dtype_bytes(t->type, piece), NULL};
    p->bytes = take(POOL_PIECES * p->piece_bytes);
    m->from = p;
    m->seed = (uint64_t)m->n_pools << 32;
    pl_pool_for(m->threads, POOL_PIECES, 64, encode_pieces, m);
    return p;
}

static void fill_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    making *m = ctx;
    size_t bytes = m->from->piece_bytes;
    for (int64_t i = begin; i < end; i++) {
        unsigned char *to = m->batch + (size_t)i * m->row_bytes;
        pl_rng rng;
        pl_rng_seed(&rng, m->seed + (uint64_t)(m->row + i));
        for (int k = 0; k < m->row_pieces; k++)
            memcpy(to + (size_t)k * bytes, m->from->bytes + pl_rng_next(&rng) % POOL_PIECES * bytes, bytes);
    }
}

static uint64_t hash(const char *text)
{
    uint64_t h = 14695981039346656037u;
    while (*text)
        h = (h ^ (unsigned char)*text++) * 1099511628211u;
    return h;
}

static void write_tensor(making *m, const tensor *t)
{
    pl_error err;
    m->from = find_pool(m, t);
    m->seed = hash(t->name);
    m->row_bytes = pl_dtype_bytes(t->type, t->cols);
    m->row_pieces = (int)(t->cols / m->from->piece);
    int64_t most = (int64_t)(BATCH_BYTES / m->row_bytes);
    for (m->row = 0; m->row < t->rows;) {
        int64_t n = t->rows - m->row < most ? t->rows - m->row : most;
        pl_pool_for(m->threads, n, 64, fill_rows, m);
        check(pl_gguf_writer_append(m->writer, m->batch, (size_t)n * m->row_bytes, &err), &err);
        m->row += n;
    }
}

static void set_config(making *m)
{
    const size *s = m->size;
    m->config = (pl_config){.n_layers = s->layers,
                            .n_kv_layers = s->kv_layers,
                            .hidden = s->hidden,
                            .n_heads = s->heads,
                            .n_kv_heads = s->kv_heads,
                            .head_dim = s->head_dim,
                            .ple_dim = 256,
                            .ple_vocab = s->vocab,
                            .vocab = s->vocab,
                            .laurel_rank = 64,
                            .altup_correct_scale = true};
    for (int l = 0; l < s->layers; l++)
        m->config.ffn[l] = s->ffn;
}

int main(int argc, char **argv)
{
    making m = {0};
    for (size_t i = 0; argc >= 4 && i < sizeof sizes / sizeof *sizes; i++)
        m.size = strcmp(argv[1], sizes[i].name) == 0 ? &sizes[i] : m.size;
    for (size_t i = 0; argc >= 4 && i < sizeof mixes / sizeof *mixes; i++)
        m.mix = strcmp(argv[2], mixes[i].name) == 0 ? &mixes[i] : m.mix;
    long threads = argc > 4 ? strtol(argv[4], NULL, 10) : sysconf(_SC_NPROCESSORS_ONLN);
    if (!m.size || !m.mix || argc > 5 || threads < 1 || threads > 256)
        fail("usage: make_model e4b|e2b|tiny q4_0|q4_k_m|q8_0 FILE [THREADS]");
    pl_error err;
    set_config(&m);
    m.encoder = pl_encoder_select(pl_cpu_features(PL_CPU_ALL));
    m.batch = take(BATCH_BYTES);
    check(pl_pool_create((int)threads, NULL, &m.threads, &err), &err);
    check(pl_gguf_writer_create(&m.writer, &err), &err);
    put_keys(&m);
    for_each_tensor(&m, declare);
    check(pl_gguf_writer_begin(m.writer, argv[3], &err), &err);
    for_each_tensor(&m, write_tensor);
    check(pl_gguf_writer_commit(m.writer, &err), &err);
    pl_gguf_writer_free(m.writer);
    pl_pool_free(m.threads);
    for (int i = 0; i < m.n_pools; i++)
        free(m.pools[i].bytes);
    free(m.batch);
    return 0;
}
