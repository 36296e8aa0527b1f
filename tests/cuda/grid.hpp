/* A kernel under way: its blocks, warps and threads, and who may run next. One grid runs at a time. */
#ifndef PL_TESTS_CUDA_GRID_HPP
#define PL_TESTS_CUDA_GRID_HPP

#include "tests/cuda/emu.hpp"
#include "tests/cuda/fiber.hpp"

#include <vector>

namespace emu
{

constexpr unsigned warp_lanes = 32;
constexpr int barriers = 16;
constexpr size_t max_block_threads = 1024;
constexpr size_t max_copies = 64; /* of a thread under way */
constexpr size_t shared_default = 48 * 1024, shared_opt_in = 99 * 1024, shared_before_ampere = 64 * 1024;
/* Between variables in shared memory, of NaNs that nobody may change. */
constexpr size_t shared_gap = 64;

struct warp;
struct block;

enum class state : uint8_t { ready, in_warp, at_barrier, exited };

/* A copy under way. Its source is read when it starts or when it is waited for: a card promises neither. */
struct async_copy {
    char *dst;
    const char *src;
    int bytes, valid;
    unsigned group;
    bool read;
    char value[16];
};

struct thread final : thread_view {
    fiber run;
    struct warp *own_warp = nullptr;
    struct block *owner = nullptr;
    state now = state::ready;
    const char *waits_for = "";
    site at = {"", 0};
    std::vector<async_copy> copies;
    unsigned groups = 0;               /* of copies, closed */
    bool fenced = false;               /* the next atomic releases */
    const void *last_atomic = nullptr; /* the next fence acquires */
};

/* Lanes of a mask that wait for one another. Lanes outside a mask may meanwhile wait in another that names them all. */
struct meeting {
    uint32_t mask, arrived; /* nobody: free */
    const char *what;
    int detail;
    char order;
};

/* What the lanes of a meeting bring and take. */
struct lane_slot {
    uint64_t in, out;
    int argument;
    const void *from;
    void *to;
};

struct warp {
    thread *lanes;
    struct block *owner;
    unsigned n;
    uint32_t present, ready, exited;
    lane_slot slot[warp_lanes];
    meeting meetings[2 * warp_lanes];
    unsigned open, latest; /* how many are not free, and where the last began */
};

struct barrier {
    int wanted, arrived, count, result;
    const char *what;
    tally kind;
    unsigned generation;
    std::vector<thread *> waiting;
    char order[2];
};

struct block : block_view {
    struct grid *owner = nullptr;
    std::vector<thread> threads;
    std::vector<warp> warps;
    uint32_t ready_warps = 0;
    int alive = 0;
    bool active = false;
    barrier bars[barriers];
    char *shared = nullptr;
};

struct shared_variable {
    const void *key;
    const char *name;
    size_t offset, bytes;
};

struct grid {
    const launch *what = nullptr;
    size_t blocks = 0, started = 0;
    std::vector<uint32_t> order;
    std::vector<block> slots; /* blocks that run side by side */
    std::vector<shared_variable> variables;
    size_t static_bytes = 0;
    std::vector<char *> shared_free;
    fiber host;
    char begins, ends;
};

/* The grid that runs, the thread in it. */
extern grid *running;
static inline thread *self()
{
    return const_cast<thread *>(static_cast<const thread *>(current));
}

/* ---- chance: the seed decides; seed 0 stands for the plain order */

void seed_order(uint64_t seed);
bool by_chance(unsigned one_in); /* never with seed 0 */
uint32_t random_below(uint32_t n);

/* ---- running */

void run_launch(const launch &what);
/* The calling thread does not go on until make_ready(). */
void stop_here(state why);
/* Anyone's turn, perhaps the calling thread's. */
void anyone_next();
/* Anyone else's turn, of another block if possible. */
void give_way();
void make_ready(thread *t);
[[noreturn]] void report_stuck(const char *how);
/* Work was done: a busy wait may come to an end. */
void progress_made();

/* What is said of a thread that leaves. */
void check_leaves(thread *t);

void shared_begin(block *b);
/* Finds what was written between variables. */
void shared_end(block *b);

extern unsigned long long bank_conflicts;

} // namespace emu

#endif
