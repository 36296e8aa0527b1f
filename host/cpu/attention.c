/* Attention over paged K/V.
 *
 * The keys that a row sees are cut into segments at fixed positions of the sequence. Each segment gives a
 * part (maximum m, sum l of e^(score - m), values weighted by the same), and parts are merged in order of
 * position. Where few rows are at work the segments are spread over threads and merged afterwards; the
 * arithmetic is the same, so the result does not depend on it.
 *
 * A block of neighbouring rows, with all query heads of one K/V head, goes through the keys together: keys that
 * all of them see are read once for all, the others (at the diagonal, at a window's edge) row by row. */
#include "host/cpu/attention.h"
#include "host/base/isa.h"
#include "host/cpu/attention_fused.h"
#include "host/cpu/kv_rows.h"
#include "host/cpu/stream.h"

#include <math.h>

#define MAX_QUERIES PL_ATTENTION_BLOCK
_Static_assert(PL_ATTENTION_MAX_GROUP <= MAX_QUERIES, "a block has room for all heads of one row");

/* Keys or values that are f32 already, taken at once: the first-level cache holds them beside a few queries. */
#if defined(__AVX512F__)
#define F32_KEYS (2 * PL_ATTENTION_KEYS)
#else
#define F32_KEYS PL_ATTENTION_KEYS
#endif

typedef struct attention_job {
    float *out;
    const float *q;
    const pl_kv_layer *kv;
    const pl_rows *rows;
    pl_heads heads;
    int group; /* query heads of a K/V head */
    int window;
    int block_rows;
    int64_t blocks;
    int segments; /* at most, for any block */
    float *partial;
    float *scratch;
    int64_t scratch_floats;
} attention_job;

typedef struct key_range {
    int32_t from, to; /* [from, to); empty where to <= from */
} key_range;

/* Rows [row, row + n) of one sequence at one K/V head; query i is head i % group of row i / group. */
typedef struct block {
    const attention_job *job;
    int64_t row;
    int n, head;
    int first_segment, end_segment;
    key_range seen[PL_ATTENTION_BLOCK];
    const float *q[MAX_QUERIES];
    float *score[MAX_QUERIES]; /* of the segment at hand */
    float *part[MAX_QUERIES];
    float *room;      /* for keys or values of other types than f32 */
    int32_t fetch_to; /* keys before this position will be wanted by this thread */
} block;

static key_range visible(const attention_job *j, int64_t r)
{
    int32_t to = j->rows->position[r] + 1;
    int32_t from = j->window && to > j->window ? to - j->window : 0;
    return (key_range){from, to};
}

static key_range overlap(key_range a, key_range b)
{
    return (key_range){a.from > b.from ? a.from : b.from, a.to < b.to ? a.to : b.to};
}

static key_range segment_keys(int s)
{
    return (key_range){s * PL_ATTENTION_SEGMENT, (s + 1) * PL_ATTENTION_SEGMENT};
}

/* What a thread works in. */
typedef struct thread_scratch {
    float *score, *part, *room;
} thread_scratch;

static thread_scratch scratch_of(const attention_job *j, int thread)
{
    int64_t queries = (int64_t)j->block_rows * j->group;
    thread_scratch s = {.score = j->scratch + thread * j->scratch_floats};
    s.part = s.score + queries * PL_ATTENTION_SEGMENT;
    s.room = s.part + queries * pl_attention_part_floats(j->heads);
    return s;
}

/* The block that begins at `row` and ends before `limit` or the next sequence. */
static void block_begin(block *b, const attention_job *j, int64_t row, int64_t limit, int head, thread_scratch scratch)
{
    *b = (block){.job = j, .row = row, .head = head, .first_segment = INT32_MAX, .room = scratch.room};
    for (; row < limit && j->rows->sequence[row] == j->rows->sequence[b->row]; row++) {
        key_range seen = visible(j, row);
        int first = seen.from / PL_ATTENTION_SEGMENT, end = (seen.to - 1) / PL_ATTENTION_SEGMENT + 1;
        b->first_segment = first < b->first_segment ? first : b->first_segment;
        b->end_segment = end > b->end_segment ? end : b->end_segment;
        b->seen[b->n++] = seen;
    }
    for (int i = 0; i < b->n * j->group; i++) {
        b->q[i] = j->q + ((b->row + i / j->group) * j->heads.heads + head * j->group + i % j->group) * j->heads.dim;
        b->score[i] = scratch.score + (int64_t)i * PL_ATTENTION_SEGMENT;
    }
}

/* Parts of row i's query heads from `part` on. */
static void row_parts(block *b, int i, float *part)
{
    int group = b->job->group;
    for (int h = 0; h < group; h++)
        b->part[i * group + h] = part + h * pl_attention_part_floats(b->job->heads);
}

/* ---- one segment --------------------------------------------------------------------------------------- */

/* What is done with keys of one page for rows [first, first + n) of the block; base: where the scores begin. */
typedef void (*page_fn)(const block *b, int first, int n, key_range keys, int32_t base);

/* The head's page with position t. from: k or v of the layer. */
static const char *page_at(const block *b, const float *from, int32_t t)
{
    const pl_kv_layer *kv = b->job->kv;
    int32_t page = kv->table[b->job->rows->sequence[b->row] * kv->table_ld + t / PL_KV_PAGE];
    return (const char *)(from + page * kv->page_stride) +
           (size_t)b->head * pl_kv_head_bytes(kv->type, b->job->heads.dim);
}

/* Keys or values in f32. */
typedef struct page_rows {
    const float *now;
    const float *soon; /* as many that will be wanted soon and nobody has asked for, or NULL */
} page_rows;

/* [t, t + n) of `page`; next: a page that will be wanted soon, or NULL. */
static page_rows rows_of(const block *b, const char *page, int32_t t, int n, const char *next)
{
    pl_cache_type type = b->job->kv->type;
    int dim = b->job->heads.dim, first = t % PL_KV_PAGE;
    int64_t at = (int64_t)first * dim;
    if (type == PL_CACHE_F32)
        return (page_rows){(const float *)(const void *)page + at,
                           next ? (const float *)(const void *)next + at : NULL};
    PL_ISA_NAME(pl_kv_get)(type, page, first, n, dim, b->room, next);
    return (page_rows){b->room, NULL};
}

/* How many of the keys from t on the inner loops take at once. */
static int keys_at_once(const block *b, key_range keys, int32_t t)
{
    int most = PL_ATTENTION_KEYS;
    if (b->job->kv->type == PL_CACHE_F32)
        most = F32_KEYS;
    return keys.to - t < most ? keys.to - t : most;
}

static void score_page(const block *b, int first, int n, key_range keys, int32_t base)
{
    int queries = n * b->job->group;
    const float *const *q = b->q + first * b->job->group;
    float *score[MAX_QUERIES];
    const char *page = page_at(b, b->job->kv->k, keys.from), *next = page_at(b, b->job->kv->v, keys.from);
    for (int32_t t = keys.from; t < keys.to;) {
        int some = keys_at_once(b, keys, t);
        page_rows k = rows_of(b, page, t, some, next);
        for (int i = 0; i < queries; i++)
            score[i] = b->score[first * b->job->group + i] + (t - base);
        PL_ISA_NAME(pl_attention_scores)(q, queries, k.now, some, b->job->heads.dim, score, k.soon);
        t += some;
    }
}

static void value_page(const block *b, int first, int n, key_range keys, int32_t base)
{
    int queries = n * b->job->group;
    float *const *part = b->part + first * b->job->group;
    const float *weight[MAX_QUERIES];
    int32_t after = keys.from + PL_ATTENTION_SEGMENT;
    const char *page = page_at(b, b->job->kv->v, keys.from);
    const char *next = after < b->fetch_to ? page_at(b, b->job->kv->k, after) : NULL;
    for (int32_t t = keys.from; t < keys.to;) {
        int some = keys_at_once(b, keys, t);
        page_rows v = rows_of(b, page, t, some, next);
        for (int i = 0; i < queries; i++)
            weight[i] = b->score[first * b->job->group + i] + (t - base);
        PL_ISA_NAME(pl_attention_values)(weight, queries, v.now, some, b->job->heads.dim, part, v.soon);
        t += some;
    }
}

/* Each row's keys in ascending order: row by row those before `common`, all rows together, row by row the rest. */
static void walk_pages(const block *b, key_range segment, const key_range *keys, key_range common, page_fn fn)
{
    key_range before = {segment.from, common.from}, after = {common.to, segment.to};
    for (int32_t t = segment.from; t < segment.to; t += PL_KV_PAGE) {
        key_range page = {t, t + PL_KV_PAGE};
        for (int i = 0; i < b->n; i++) {
            key_range k = overlap(overlap(keys[i], before), page);
            if (k.from < k.to)
                fn(b, i, 1, k, segment.from);
        }
        key_range shared = overlap(common, page);
        if (shared.from < shared.to)
            fn(b, 0, b->n, shared, segment.from);
        for (int i = 0; i < b->n; i++) {
            key_range k = overlap(overlap(keys[i], after), page);
            if (k.from < k.to)
                fn(b, i, 1, k, segment.from);
        }
    }
}

/* PL_LANES scores become weights. A score that is NaN makes the sum NaN, and so the row. */
static inline void weigh(float *score, float top)
{
    pl_part x[PL_PARTS], e[PL_PARTS];
    for (int i = 0; i < PL_PARTS; i++)
        e[i] = x[i] = part_load(score + i * PL_PART_LANES) - top;
    part_exp(e, PL_PARTS);
    for (int i = 0; i < PL_PARTS; i++)
        part_store(score + i * PL_PART_LANES, part_select(x[i] == x[i], e[i], x[i]));
}

/* Scores become weights; returns their sum, *top the maximum. */
static float soften(float *score, int n, float *top)
{
    pl_vec best = vec_set(-INFINITY), sum = {0};
    int t = 0;
    for (; t + PL_LANES <= n; t += PL_LANES)
        best = vec_max(best, vec_load(score + t));
    float m = vec_largest(best);
    for (; t < n; t++)
        m = score[t] > m ? score[t] : m;
    for (t = 0; t + PL_LANES <= n; t += PL_LANES) {
        weigh(score + t, m);
        sum += vec_load(score + t);
    }
    if (t < n) {
        int rest = n - t;
        float lanes[PL_LANES];
        vec_store(lanes, vec_load_part(score + t, rest));
        weigh(lanes, m);
        memcpy(score + t, lanes, (size_t)rest * sizeof *score);
        sum += vec_load_part(score + t, rest);
    }
    *top = m;
    return vec_sum(sum);
}

/* Where maximum and sum of a part are. */
static float *part_ends(const attention_job *j, float *part)
{
    return part + pl_attention_dim_floats(j->heads);
}

/* The parts of segment s for all queries of the block; those of rows that see nothing of it are left alone. keys: what each row sees. */
static void compute_parts(const block *b, int s, key_range *keys)
{
    int group = b->job->group, dim = b->job->heads.dim;
    key_range segment = segment_keys(s), common = segment;
    for (int i = 0; i < b->n; i++) {
        keys[i] = overlap(b->seen[i], segment);
        common = overlap(common, keys[i]);
    }
    if (common.from >= common.to)
        common = (key_range){segment.to, segment.to};
    walk_pages(b, segment, keys, common, score_page);
    for (int i = 0; i < b->n * group; i++) {
        key_range k = keys[i / group];
        if (k.from >= k.to)
            continue;
        float *ends = part_ends(b->job, b->part[i]);
        ends[1] = soften(b->score[i] + (k.from - segment.from), k.to - k.from, &ends[0]);
        memset(b->part[i], 0, (size_t)dim * sizeof(float));
    }
    walk_pages(b, segment, keys, common, value_page);
}

/* ---- merging ------------------------------------------------------------------------------------------- */

/* Parts of one query head, merged in order of position into out. */
typedef struct merged {
    float m, l;
} merged;

static merged merge_begin(float *out, int dim)
{
    memset(out, 0, (size_t)dim * sizeof *out);
    return (merged){-INFINITY, 0};
}

static void merge_part(merged *sum, float *out, const float *part, const float *ends, int dim)
{
    float m = ends[0] > sum->m ? ends[0] : sum->m;
    pl_vec e = vec_exp((pl_vec){sum->m - m, ends[0] - m});
    float old = e[0], fresh = e[1];
    for (int i = 0; i < dim; i++)
        out[i] = out[i] * old + part[i] * fresh;
    sum->l = sum->l * old + ends[1] * fresh;
    sum->m = m;
}

static void merge_end(const merged *sum, float *out, int dim)
{
    float factor = 1.0f / sum->l;
    for (int i = 0; i < dim; i++)
        out[i] *= factor;
}

static float *output_of(const attention_job *j, int64_t r, int head, int h)
{
    return j->out + (r * j->heads.heads + head * j->group + h) * j->heads.dim;
}

/* ---- whole rows: a task is a block at one K/V head and does all its segments ----------------------------- */

static void whole_block(block *b, float *part)
{
    int group = b->job->group, dim = b->job->heads.dim;
    merged sum[MAX_QUERIES];
    key_range keys[PL_ATTENTION_BLOCK] = {{0, 0}};
    for (int i = 0; i < b->n; i++)
        row_parts(b, i, part + i * group * pl_attention_part_floats(b->job->heads));
    for (int i = 0; i < b->n * group; i++)
        sum[i] = merge_begin(output_of(b->job, b->row + i / group, b->head, i % group), dim);
    b->fetch_to = b->seen[b->n - 1].to;
    for (int s = b->first_segment; s < b->end_segment; s++) {
        compute_parts(b, s, keys);
        for (int i = 0; i < b->n * group; i++)
            if (keys[i / group].from < keys[i / group].to)
                merge_part(&sum[i], output_of(b->job, b->row + i / group, b->head, i % group), b->part[i],
                           part_ends(b->job, b->part[i]), dim);
    }
    for (int i = 0; i < b->n * group; i++)
        merge_end(&sum[i], output_of(b->job, b->row + i / group, b->head, i % group), dim);
}

static int64_t block_limit(const attention_job *j, int64_t row)
{
    int64_t limit = row + j->block_rows;
    return limit < j->rows->n ? limit : j->rows->n;
}

static void whole_blocks(void *ctx, int64_t begin, int64_t end, int thread)
{
    const attention_job *j = ctx;
    thread_scratch scratch = scratch_of(j, thread);
    block b = {.n = 0};
    for (int64_t task = begin; task < end; task++) {
        int64_t row = task % j->blocks * j->block_rows, limit = block_limit(j, row);
        for (; row < limit; row += b.n) {
            block_begin(&b, j, row, limit, (int)(task / j->blocks), scratch);
            whole_block(&b, scratch.part);
        }
    }
}

/* ---- split rows: a task is one segment of a block; its parts go to `partial` ----------------------------- */

/* Where part s of a row begins, counted from the first segment that the row sees. */
static float *partial_at(const attention_job *j, int64_t r, int head, int s)
{
    return j->partial +
           ((r * j->heads.kv_heads + head) * j->segments + s) * j->group * pl_attention_part_floats(j->heads);
}

/* more: the thread goes on with the segment behind it. */
static void split_segment(block *b, int s, bool more)
{
    key_range keys[PL_ATTENTION_BLOCK] = {{0, 0}};
    for (int i = 0; i < b->n; i++) {
        int first = b->seen[i].from / PL_ATTENTION_SEGMENT;
        row_parts(b, i, partial_at(b->job, b->row + i, b->head, s > first ? s - first : 0));
    }
    b->fetch_to = more ? b->seen[b->n - 1].to : 0;
    compute_parts(b, s, keys);
}

static void split_segments(void *ctx, int64_t begin, int64_t end, int thread)
{
    const attention_job *j = ctx;
    thread_scratch scratch = scratch_of(j, thread);
    block b = {.n = 0};
    for (int64_t task = begin; task < end; task++) {
        int s = (int)(task % j->segments), head = (int)(task / j->segments / j->blocks);
        int64_t row = task / j->segments % j->blocks * j->block_rows, limit = block_limit(j, row);
        for (; row < limit; row += b.n) {
            block_begin(&b, j, row, limit, head, scratch);
            if (b.first_segment + s < b.end_segment)
                split_segment(&b, b.first_segment + s, task + 1 < end && s + 1 < j->segments);
        }
    }
}

static void split_merge(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const attention_job *j = ctx;
    int dim = j->heads.dim;
    for (int64_t task = begin; task < end; task++) {
        int64_t r = task / j->heads.heads;
        int head = (int)(task % j->heads.heads) / j->group, h = (int)(task % j->heads.heads) % j->group;
        float *out = output_of(j, r, head, h);
        merged sum = merge_begin(out, dim);
        key_range seen = visible(j, r);
        int n = (seen.to - 1) / PL_ATTENTION_SEGMENT - seen.from / PL_ATTENTION_SEGMENT + 1;
        for (int s = 0; s < n; s++) {
            float *part = partial_at(j, r, head, s) + h * pl_attention_part_floats(j->heads);
            merge_part(&sum, out, part, part_ends(j, part), dim);
        }
        merge_end(&sum, out, dim);
    }
}

static int most_segments(const attention_job *j)
{
    int most = 0;
    block b = {.n = 0};
    for (int64_t i = 0; i < j->blocks; i++) {
        int64_t row = i * j->block_rows, limit = block_limit(j, row);
        for (; row < limit; row += b.n) {
            block_begin(&b, j, row, limit, 0, scratch_of(j, 0));
            int n = b.end_segment - b.first_segment;
            most = n > most ? n : most;
        }
    }
    return most;
}

/* Large blocks read the keys fewer times; enough of them keep all threads at work. */
static int block_rows(const pl_stream *s, int n, pl_heads heads, bool split)
{
    int64_t most = pl_attention_block_rows(heads), threads = pl_pool_threads(s->pool);
    int64_t rows = split ? n : (int64_t)n * heads.kv_heads / (2 * threads);
    rows = rows < most ? rows : most;
    return rows > 1 ? (int)rows : 1;
}

static void attention(pl_stream *s, float *out, const float *q, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, int window)
{
    attention_job job = {.out = out, .q = q, .kv = kv, .rows = rows, .heads = heads, .window = window};
    job.group = heads.heads / heads.kv_heads;
    job.partial = s->partial;
    job.scratch = s->thread_scratch;
    job.scratch_floats = s->scratch_floats;
    bool split = (int64_t)rows->n * heads.kv_heads <= PL_ATTENTION_SPLIT_TASKS;
    job.block_rows = block_rows(s, rows->n, heads, split);
    job.blocks = (rows->n + job.block_rows - 1) / job.block_rows;
    job.segments = split ? most_segments(&job) : 1;
    if (job.segments > 1) {
        int64_t tasks = job.blocks * heads.kv_heads * job.segments;
        pl_pool_for(s->pool, tasks, row_grain(s, tasks), split_segments, &job);
        pl_pool_for(s->pool, (int64_t)rows->n * heads.heads, 1, split_merge, &job);
    } else {
        pl_pool_for(s->pool, job.blocks * heads.kv_heads, 1, whole_blocks, &job);
    }
}

void PL_ISA_NAME(pl_attention_ops)(pl_ops *ops)
{
    ops->attention = attention;
}
