/* The next token, chosen where the logits are: the host's (host/engine/sampler.h), bit for bit. Weights are whole
 * numbers (host/ops/draw_math.h), so no sum depends on its order; keys are unique, so no choice does.
 *
 * prepare: a thread has four logits, a warp a chunk of 128. Bias and penalties hit few tokens: the block looks for those
 * in its slice. Writes the changed logits and the best rank of each chunk: 8 bytes a token moved.
 *
 * choose: one block a row. Candidates are first all tokens, `wide`: the logits that prepare wrote, those that are out
 * set to -INFINITY; from the first step on that leaves few enough a list of keys in shared memory. For top-k the
 * ranks of the chunks give a bound that at least k chunks reach, and about as many: only those are read, 512 bytes
 * each and 4 bytes a chunk for a handful of times, 70 KB of 1 MB for 64 of 262144 tokens. Where top-p comes first or
 * more tokens are equal than the list holds, the bound is found by halving the range of keys, at most 60 times reading
 * the chunks that reach it. */
#include "cuda/draw.h"
#include "cuda/ptx.cuh"
#include "host/ops/draw_math.h"

namespace
{

constexpr int chunk = 128, prepare_threads = 256, slice = 4 * prepare_threads;
constexpr int threads = 512, warps = threads / 32;
constexpr int list_room = 2048;              /* keys in shared memory */
constexpr uint32_t not_finite = 0xffffffffu; /* in place of a chunk's best rank */
constexpr unsigned everyone = 0xffffffffu;

/* What prepare leaves of a row. */
struct row_work {
    float *x;         /* [padded] */
    uint64_t *weight; /* [padded / chunk], of choose alone */
    uint32_t *best;   /* [padded / chunk] rank */
};

__host__ __device__ int64_t padded(int64_t vocab)
{
    return (vocab + slice - 1) / slice * slice;
}

__host__ __device__ int64_t row_bytes(int64_t vocab)
{
    return padded(vocab) / chunk * (chunk * 4 + 8 + 4);
}

__device__ row_work work_of(unsigned char *scratch, int64_t vocab, unsigned row)
{
    unsigned char *at = scratch + row * row_bytes(vocab);
    row_work w;
    w.x = reinterpret_cast<float *>(at);
    w.weight = reinterpret_cast<uint64_t *>(at + padded(vocab) * 4);
    w.best = reinterpret_cast<uint32_t *>(at + padded(vocab) / chunk * (chunk * 4 + 8));
    return w;
}

__device__ bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

__device__ int window_of(const pl_draw *d)
{
    return d->n_history < d->window ? d->n_history : d->window;
}

/* i-th last token, from 0. */
__device__ int32_t history(const pl_draw *d, int i)
{
    return d->history[(d->n_history - 1 - i) & (PL_DRAW_HISTORY - 1)];
}

__device__ float penalized(const pl_draw *d, float x, int count)
{
    return pl_penalized(x, count, d->repeat, d->presence, d->frequency);
}

/* Steps of the order that change each logit by itself, before the first of the others. */
__device__ int head_steps(const pl_draw *d)
{
    int n = 0;
    while (d->order[n] == PL_SAMPLER_PENALTIES || d->order[n] == PL_SAMPLER_TEMPERATURE)
        n++;
    return n;
}

/* ---- prepare ------------------------------------------------------------------------------------ */

__device__ float4 load_logits(const float *row, int64_t at, int64_t vocab)
{
    if (at + 4 <= vocab && (reinterpret_cast<uintptr_t>(row + at) & 15) == 0)
        return *reinterpret_cast<const float4 *>(row + at);
    return make_float4(at < vocab ? row[at] : 0.0f, at + 1 < vocab ? row[at + 1] : 0.0f,
                       at + 2 < vocab ? row[at + 2] : 0.0f, at + 3 < vocab ? row[at + 3] : 0.0f);
}

/* The entries of bias in the slice, those of one id by one thread. */
__device__ void add_bias(const pl_draw *d, float *x, int64_t first)
{
    for (int i = threadIdx.x; i < d->n_bias; i += prepare_threads) {
        int32_t id = d->bias[i].id;
        if (id < first || id >= first + slice || (i > 0 && d->bias[i - 1].id == id))
            continue;
        float v = x[id - first];
        for (int j = i; j < d->n_bias && d->bias[j].id == id; j++)
            v = pl_biased(v, d->bias[j].bias);
        x[id - first] = v;
    }
}

__device__ void count_history(const pl_draw *d, int *count, int64_t first)
{
    for (int i = threadIdx.x, n = window_of(d); i < n; i += prepare_threads) {
        int32_t id = history(d, i);
        if (id >= first && id < first + slice)
            atomicAdd(&count[id - first], 1);
    }
}

__global__ void __launch_bounds__(prepare_threads, 4)
    prepare_kernel(const float *logits, int64_t vocab, pl_draw *const *draws, unsigned char *scratch)
{
    KD_SHARED(float, slice_x, [slice]);
    KD_SHARED(int, slice_count, [slice]);
    const pl_draw *d = draws[blockIdx.y];
    const row_work work = work_of(scratch, vocab, blockIdx.y);
    const int64_t first = static_cast<int64_t>(blockIdx.x) * slice;
    const int mine = 4 * threadIdx.x;
    const int64_t at = first + mine;
    const float4 loaded = load_logits(logits + blockIdx.y * vocab, at, vocab);
    float x[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
    const bool bad = !is_finite(x[0]) || !is_finite(x[1]) || !is_finite(x[2]) || !is_finite(x[3]);
    const unsigned allowed = d->mask && at < vocab ? d->mask[at / 32] >> (at % 32) : 15;
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] = at + i < vocab && (allowed >> i & 1) ? x[i] : -INFINITY;

    int count[4] = {0, 0, 0, 0};
    if (d->n_bias > 0 || window_of(d) > 0) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            slice_x[mine + i] = x[i];
            slice_count[mine + i] = 0;
        }
        __syncthreads();
        add_bias(d, slice_x, first);
        count_history(d, slice_count, first);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[i] = slice_x[mine + i];
            count[i] = slice_count[mine + i];
        }
    }
    for (int step = 0, n = head_steps(d); step < n; step++) {
        const bool cools = d->order[step] == PL_SAMPLER_TEMPERATURE;
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i] = cools ? pl_cooled(x[i], d->temperature) : count[i] ? penalized(d, x[i], count[i]) : x[i];
    }
    uint32_t rank = bad ? not_finite : PL_RANK_BANNED;
#pragma unroll
    for (int i = 0; i < 4; i++)
        rank = max(rank, pl_rank_of(x[i]));
    rank = ptx::warp_max(rank);
    *reinterpret_cast<float4 *>(work.x + at) = make_float4(x[0], x[1], x[2], x[3]);
    if (threadIdx.x % 32 == 0)
        work.best[at / chunk] = rank;
}

/* ---- choose ------------------------------------------------------------------------------------- */

struct shared_work {
    uint64_t key[list_room];
    uint64_t part[2][warps];
    uint64_t left;
    int filled;
    int place;
};

__device__ uint64_t first_key(uint32_t rank)
{
    return static_cast<uint64_t>(rank) << 32;
}

__device__ float key_logit(uint64_t key)
{
    return pl_rank_value(static_cast<uint32_t>(key >> 32));
}

__device__ uint64_t weight_of(float x, float best)
{
    return pl_mass(pl_exp_negative(x - best));
}

struct found {
    uint64_t count, weight;
};

/* All threads of the block call each function together, with the same arguments. */
struct chooser {
    pl_draw *d;
    row_work work;
    int chunks;
    shared_work *sm;
    int turn;     /* which half of sm->part is next */
    int n;        /* keys in the list; < 0: wide */
    bool ordered; /* the list is in descending order */
    int tid, lane, warp;

    /* ---- across the block: the halves alternate, so that one barrier a time will do */

    __device__ uint64_t block_sum(uint64_t v)
    {
#pragma unroll
        for (int o = 16; o > 0; o >>= 1)
            v += __shfl_xor_sync(everyone, v, o);
        uint64_t *part = next_part();
        if (lane == 0)
            part[warp] = v;
        __syncthreads();
        uint64_t sum = 0;
        for (int i = 0; i < warps; i++)
            sum += part[i];
        return sum;
    }

    __device__ uint32_t block_max(uint32_t v)
    {
        v = ptx::warp_max(v);
        uint64_t *part = next_part();
        if (lane == 0)
            part[warp] = v;
        __syncthreads();
        uint64_t most = 0;
        for (int i = 0; i < warps; i++)
            most = part[i] > most ? part[i] : most;
        return static_cast<uint32_t>(most);
    }

    /* The sum of v of the threads before; *total: of all. */
    __device__ uint64_t block_before(uint64_t v, uint64_t *total)
    {
        uint64_t sum = v;
#pragma unroll
        for (int o = 1; o < 32; o <<= 1) {
            uint64_t lower = __shfl_up_sync(everyone, sum, o);
            sum += lane >= o ? lower : 0;
        }
        uint64_t *part = next_part();
        if (lane == 31)
            part[warp] = sum;
        __syncthreads();
        uint64_t before = sum - v, all = 0;
        for (int i = 0; i < warps; i++) {
            before += i < warp ? part[i] : 0;
            all += part[i];
        }
        *total = all;
        return before;
    }

    __device__ uint64_t *next_part()
    {
        turn ^= 1;
        return sm->part[turn];
    }

    /* ---- wide */

    /* f(chunk, its four tokens of this lane from `at` on) for the chunks that reach the rank. The thread's logits are the
     * same each time, and so are the ranks that it reads, here, in reach() and best_rank(): chunk c belongs to lane
     * c % 32. Who stays with its own needs no barriers. */
    template <class F> __device__ void each_chunk(uint32_t rank, F f)
    {
        for (int base = warp * 32; base < chunks; base += threads) {
            const bool hit = base + lane < chunks && work.best[base + lane] >= rank;
            for (unsigned hits = __ballot_sync(everyone, hit); hits; hits &= hits - 1) {
                const int c = base + __ffs(static_cast<int>(hits)) - 1;
                const int at = c * chunk + 4 * lane;
                const float4 v = *reinterpret_cast<const float4 *>(work.x + at);
                const float x[4] = {v.x, v.y, v.z, v.w};
                f(c, at, x);
            }
        }
    }

    /* x = f(x, key) for each token that is not out. */
    template <class F> __device__ void change_all(F f)
    {
        each_chunk(PL_RANK_BANNED + 1, [&](int c, int at, const float(&x)[4]) {
            float y[4];
            uint32_t rank = PL_RANK_BANNED;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                y[i] = f(x[i], pl_make_key(pl_rank_of(x[i]), static_cast<uint32_t>(at + i)));
                rank = max(rank, pl_rank_of(y[i]));
            }
            *reinterpret_cast<float4 *>(work.x + at) = make_float4(y[0], y[1], y[2], y[3]);
            rank = ptx::warp_max(rank);
            if (lane == c % 32)
                work.best[c] = rank;
        });
    }

    __device__ uint32_t best_rank()
    {
        uint32_t rank = 0;
        for (int i = tid; i < chunks; i += threads)
            rank = max(rank, work.best[i]);
        return block_max(rank);
    }

    /* How many keys there are from `low` on, and their weight if asked for. */
    __device__ found measure(uint64_t low, bool weigh, float best)
    {
        found mine = {0, 0};
        each_chunk(static_cast<uint32_t>(low >> 32), [&](int, int at, const float(&x)[4]) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (pl_make_key(pl_rank_of(x[i]), static_cast<uint32_t>(at + i)) >= low) {
                    mine.count++;
                    mine.weight += weigh ? weight_of(x[i], best) : 0;
                }
        });
        found all = {block_sum(mine.count), 0};
        if (weigh)
            all.weight = block_sum(mine.weight);
        return all;
    }

    /* Makes the list of the keys from `low` on, if there is room for them; returns how many there are. */
    __device__ int gather(uint64_t low)
    {
        if (tid == 0)
            sm->filled = 0;
        __syncthreads();
        each_chunk(static_cast<uint32_t>(low >> 32), [&](int, int at, const float(&x)[4]) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint64_t key = pl_make_key(pl_rank_of(x[i]), static_cast<uint32_t>(at + i));
                if (key >= low) {
                    const int place = atomicAdd(&sm->filled, 1);
                    if (place < list_room)
                        sm->key[place] = key;
                }
            }
        });
        __syncthreads();
        const int all = sm->filled;
        if (all <= list_room) {
            n = all;
            ordered = false;
        }
        return all;
    }

    __device__ int reach(uint32_t rank)
    {
        int mine = 0;
        for (int i = tid; i < chunks; i += threads)
            mine += work.best[i] >= rank;
        return static_cast<int>(block_sum(static_cast<uint64_t>(mine)));
    }

    /* A rank that at least k chunks reach, and few more where that is possible; that of the worst token where they are
     * fewer. */
    __device__ uint32_t chunks_reach(int k, uint32_t best)
    {
        uint32_t below = 0; /* ~ of the least rank of a chunk */
        for (int i = tid; i < chunks; i += threads)
            below = max(below, work.best[i] > PL_RANK_BANNED ? ~work.best[i] : 0);
        uint32_t low = ~block_max(below), high = best + 1;
        int n_low = reach(low);
        if (n_low < k)
            return PL_RANK_BANNED + 1;
        while (n_low > k + k / 4 && high - low > 1) {
            const uint32_t mid = low + (high - low) / 2;
            const int n_mid = reach(mid);
            low = n_mid >= k ? mid : low;
            high = n_mid >= k ? high : mid;
            n_low = n_mid >= k ? n_mid : n_low;
        }
        return low;
    }

    /* Leaves the fewest best keys of `need` by count or by weight, which is no more than there is from `low` on, or a
     * list of some more. */
    __device__ void halve(uint64_t low, uint64_t count, uint64_t need, bool by_weight, uint32_t best)
    {
        uint64_t high = first_key(best + 1);
        const uint64_t ids = ~static_cast<uint32_t>(chunks * chunk - 1); /* the least low half of a key */
        while (count > list_room && high - low > 1) {
            uint64_t mid = low + (high - low) / 2;
            if (static_cast<uint32_t>(mid) < ids && first_key(static_cast<uint32_t>(mid >> 32)) + ids < high)
                mid = first_key(static_cast<uint32_t>(mid >> 32)) + ids; /* no key lies between */
            const found m = measure(mid, by_weight, pl_rank_value(best));
            if ((by_weight ? m.weight : m.count) >= need) {
                low = mid;
                count = m.count;
            } else {
                high = mid;
            }
        }
        keep_from(low);
    }

    /* Leaves the keys from `low` on; a list of them is sorted. */
    __device__ void keep_from(uint64_t low)
    {
        if (gather(low) <= list_room) {
            sort();
            return;
        }
        change_all([&](float x, uint64_t key) { return key >= low ? x : -INFINITY; });
    }

    /* ---- the list */

    /* Descending; with zeros up to the next power of two. */
    __device__ void sort()
    {
        uint64_t *key = sm->key;
        int m = 2;
        while (m < n)
            m *= 2;
        for (int i = n + tid; i < m; i += threads)
            key[i] = 0;
        __syncthreads();
        for (int size = 2; size <= m; size *= 2)
            for (int step = size / 2; step > 0; step /= 2) {
                for (int i = tid; i < m / 2; i += threads) {
                    const int a = 2 * i - (i & (step - 1)), b = a + step;
                    const uint64_t first = key[a], second = key[b];
                    if ((first < second) == ((a & size) == 0)) {
                        key[a] = second;
                        key[b] = first;
                    }
                }
                /* Up to a distance of 32 a warp stays within its own 64 keys. */
                const int next = step > 1 ? step / 2 : size;
                if (step > 32 || next > 32 || next == m)
                    __syncthreads();
                else
                    __syncwarp();
            }
        ordered = true;
    }

    __device__ void sort_if_needed()
    {
        if (!ordered)
            sort();
    }

    /* key = f(key) */
    template <class F> __device__ void change_list(F f)
    {
        for (int i = tid; i < n; i += threads)
            sm->key[i] = f(sm->key[i]);
        __syncthreads();
        ordered = false;
    }

    /* The first i < count with which the sum of weight(i) becomes more than point(sum of all); sm->left: what of the
     * point lies within it. Each thread has neighbours. */
    template <class W, class P> __device__ int place_of(int count, W weight, P point)
    {
        const int each = (count + threads - 1) / threads;
        const int begin = min(tid * each, count), end = min(begin + each, count);
        uint64_t mine = 0, total;
        for (int i = begin; i < end; i++)
            mine += weight(i);
        const uint64_t before = block_before(mine, &total);
        uint64_t left = point(total) - before;
        if (left < mine) { /* from less than `before` it wraps to more than any sum */
            int i = begin;
            for (uint64_t w = weight(i); w <= left; w = weight(++i))
                left -= w;
            sm->place = i;
            sm->left = left;
        }
        __syncthreads();
        return sm->place;
    }

    /* ---- steps */

    __device__ void top_k(int k)
    {
        if (n < 0) {
            const uint32_t best = best_rank();
            const uint64_t low = first_key(chunks_reach(k, best));
            const int all = gather(low);
            if (all > list_room && all > k)
                halve(low, static_cast<uint64_t>(all), static_cast<uint64_t>(k), false, best);
        }
        if (n >= 0) {
            sort_if_needed();
            n = n < k ? n : k;
        }
    }

    __device__ void top_p()
    {
        uint64_t need;
        float best;
        if (n < 0) {
            const uint32_t rank = best_rank();
            best = pl_rank_value(rank);
            const uint64_t low = first_key(least_weighty(best));
            const found m = measure(low, true, best);
            need = pl_mass_share(d->top_p, m.weight);
            halve(low, m.count, need, true, rank);
            if (n < 0)
                return;
        } else {
            sort_if_needed();
            best = key_logit(sm->key[0]);
            uint64_t mine = 0;
            for (int i = tid; i < n; i += threads)
                mine += weight_of(key_logit(sm->key[i]), best);
            need = pl_mass_share(d->top_p, block_sum(mine));
        }
        n = 1 +
            place_of(
                n, [&](int i) { return weight_of(key_logit(sm->key[i]), best); }, [&](uint64_t) { return need - 1; });
    }

    /* A rank below which nothing weighs anything: e^-30 is a twentieth of a unit. */
    __device__ uint32_t least_weighty(float best)
    {
        const uint32_t rank = pl_rank_of(best - 30.0f);
        return rank > PL_RANK_BANNED ? rank : PL_RANK_BANNED + 1;
    }

    __device__ void min_p()
    {
        if (n < 0) {
            keep_from(first_key(pl_rank_of(pl_least_logit(pl_rank_value(best_rank()), d->log_min_p))));
            return;
        }
        sort_if_needed();
        const float low = pl_least_logit(key_logit(sm->key[0]), d->log_min_p);
        int mine = 0;
        for (int i = tid; i < n; i += threads)
            mine += key_logit(sm->key[i]) >= low;
        n = static_cast<int>(block_sum(static_cast<uint64_t>(mine)));
    }

    /* How often the token occurs among the last. */
    __device__ int occurrences(int32_t id, int window)
    {
        int count = 0;
        for (int i = 0; i < window; i++)
            count += history(d, i) == id;
        return count;
    }

    /* The logit of the i-th last token, for the last of its occurrences. */
    __device__ void penalize_wide(int i, int window)
    {
        const int32_t id = history(d, i);
        for (int j = 0; j < i; j++)
            if (history(d, j) == id)
                return;
        work.x[id] = penalized(d, work.x[id], occurrences(id, window));
    }

    __device__ void penalties()
    {
        const int window = window_of(d);
        if (n < 0) {
            __syncthreads();
            for (int i = tid; i < window; i += threads)
                penalize_wide(i, window);
            __syncthreads();
            change_all([](float x, uint64_t) { return x; }); /* the ranks */
            return;
        }
        change_list([&](uint64_t key) {
            const uint32_t id = pl_key_index(key);
            const int count = occurrences(static_cast<int32_t>(id), window);
            return count ? pl_make_key(pl_rank_of(penalized(d, key_logit(key), count)), id) : key;
        });
        sort();
    }

    /* Neighbours may become equal, so the list's order may not be that of its keys any more; its first stays the best. */
    __device__ void temperature()
    {
        const float by = d->temperature;
        if (n < 0) {
            change_all([&](float x, uint64_t) { return pl_cooled(x, by); });
            return;
        }
        change_list(
            [&](uint64_t key) { return pl_make_key(pl_rank_of(pl_cooled(key_logit(key), by)), pl_key_index(key)); });
    }

    /* ---- the draw */

    __device__ int32_t draw_listed(double u)
    {
        const float best = key_logit(sm->key[0]);
        __syncthreads();
        change_list([](uint64_t key) { return key << 32 | key >> 32; });
        sort();
        const int place = place_of(
            n, [&](int i) { return weight_of(pl_rank_value(static_cast<uint32_t>(sm->key[i])), best); },
            [&](uint64_t total) { return pl_mass_point(u, total); });
        return static_cast<int32_t>(~static_cast<uint32_t>(sm->key[place] >> 32));
    }

    /* Of the chunks that reach the rank. */
    __device__ void weigh_chunks(uint32_t least, float best)
    {
        each_chunk(least, [&](int c, int, const float(&x)[4]) {
            uint64_t weight = 0;
#pragma unroll
            for (int i = 0; i < 4; i++)
                weight += weight_of(x[i], best);
#pragma unroll
            for (int o = 16; o > 0; o >>= 1)
                weight += __shfl_xor_sync(everyone, weight, o);
            if (lane == 0)
                work.weight[c] = weight;
        });
        __syncthreads();
    }

    __device__ int32_t draw_wide(double u)
    {
        const float best = pl_rank_value(best_rank());
        const uint32_t least = least_weighty(best);
        weigh_chunks(least, best);
        const int c = place_of(
            chunks, [&](int i) { return work.best[i] >= least ? work.weight[i] : 0; },
            [&](uint64_t total) { return pl_mass_point(u, total); });
        const uint64_t left = sm->left;
        const int id = c * chunk;
        return id + place_of(
                        chunk, [&](int i) { return weight_of(work.x[id + i], best); }, [&](uint64_t) { return left; });
    }

    __device__ void step(int what)
    {
        if (what == PL_SAMPLER_PENALTIES)
            penalties();
        else if (what == PL_SAMPLER_TOP_K)
            top_k(d->top_k);
        else if (what == PL_SAMPLER_TOP_P)
            top_p();
        else if (what == PL_SAMPLER_MIN_P)
            min_p();
        else
            temperature();
    }

    __device__ int32_t choose()
    {
        const uint32_t best = best_rank();
        if (best == not_finite)
            return PL_DRAW_NOT_FINITE;
        if (best == PL_RANK_BANNED)
            return PL_DRAW_ALL_BANNED;
        for (int i = head_steps(d); d->order[i] != PL_SAMPLER_END; i++)
            step(d->order[i]);
        if (d->greedy) {
            top_k(1);
            return static_cast<int32_t>(pl_key_index(sm->key[0]));
        }
        pl_rng rng = d->rng;
        const double u = pl_rng_uniform(&rng);
        return n < 0 ? draw_wide(u) : draw_listed(u);
    }
};

/* By one thread, when no other reads *d any more. */
__device__ void finish(pl_draw *d, pl_drawn *drawn, int32_t token)
{
    if (token >= 0) {
        if (!d->greedy)
            pl_rng_next(&d->rng);
        d->history[d->n_history & (PL_DRAW_HISTORY - 1)] = token;
        d->n_history = d->n_history + 1 < 2 * PL_DRAW_HISTORY ? d->n_history + 1 : PL_DRAW_HISTORY;
    }
    d->token = token;
    d->count++;
    pl_drawn both;
    both.token = token;
    both.count = d->count;
    ptx::st_release_sys(&drawn->both, both.both);
}

__global__ void __launch_bounds__(threads, 1)
    choose_kernel(int64_t vocab, pl_draw *const *draws, pl_drawn *const *drawn, unsigned char *scratch)
{
    KD_SHARED(shared_work, shared, [1]);
    chooser c;
    c.d = draws[blockIdx.x];
    c.work = work_of(scratch, vocab, blockIdx.x);
    c.chunks = static_cast<int>(padded(vocab) / chunk);
    c.sm = shared;
    c.turn = 0;
    c.n = -1;
    c.ordered = false;
    c.tid = threadIdx.x;
    c.lane = threadIdx.x % 32;
    c.warp = threadIdx.x / 32;
    const int32_t token = c.choose();
    if (threadIdx.x == 0)
        finish(c.d, drawn[blockIdx.x], token);
}

__global__ void take_kernel(int32_t *id, const int32_t *from, pl_draw *const *draws, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        if (from[i] >= 0)
            id[i] = max(draws[from[i]]->token, 0);
}

} // namespace

extern "C" size_t pl_cuda_draw_scratch(int64_t vocab, int n)
{
    return static_cast<size_t>(n * row_bytes(vocab));
}

extern "C" cudaError_t pl_cuda_draw(cudaStream_t stream, const float *logits, int64_t vocab, int n,
                                    pl_draw *const *draws, pl_drawn *const *drawn, void *scratch)
{
    if (n == 0)
        return cudaSuccess;
    if (vocab < 1 || vocab > PL_CUDA_MAX_VOCAB || n > 65535)
        return cudaErrorInvalidValue;
    auto *work = static_cast<unsigned char *>(scratch);
    const dim3 slices(static_cast<unsigned>(padded(vocab) / slice), static_cast<unsigned>(n));
    cudaError_t e = KD_LAUNCH(prepare_kernel, (kd::launch_cfg{slices, dim3(prepare_threads), 0, stream, false}), logits,
                              vocab, draws, work);
    if (e != cudaSuccess)
        return e;
    return KD_LAUNCH(choose_kernel, (kd::launch_cfg{dim3(static_cast<unsigned>(n)), dim3(threads), 0, stream, false}),
                     vocab, draws, drawn, work);
}

extern "C" cudaError_t pl_cuda_take(cudaStream_t stream, int32_t *id, const int32_t *from, pl_draw *const *draws, int n)
{
    if (n == 0)
        return cudaSuccess;
    return KD_LAUNCH(take_kernel, (kd::launch_cfg{dim3(1), dim3(256), 0, stream, false}), id, from, draws, n);
}
