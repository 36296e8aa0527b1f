#include "host/engine/placement.h"

#include "host/base/free_memory.h"
#include "host/engine/step.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LEAST_BATCH_ROWS 64
#define DISK_BATCH_ROWS 128     /* on the CPU with the table on disk: memory is what is short */
#define LEAST_CONTEXT 2048      /* less holds no chat */
#define CONTEXT_STEP 256        /* that the context is made smaller by */
#define LEAST_BITS 3            /* of the smallest type worth proposing, a weight */
#define FIT_CONTEXT 4096        /* what `pleiad quantize --fit` leaves room for unless told */
#define SPARE ((size_t)1 << 30) /* stays free on a card that takes the table unasked */

typedef struct chooser {
    const pl_config *config;
    const pl_memory_plan *plan;
    const pl_placement_wish *wish;
    const pl_machine *machine;
    const pl_device *card;
    int context_most, rows_most, sessions_most;
} chooser;

const char *pl_ple_placement_name(pl_ple_placement placement)
{
    static const char *const names[] = {"auto", "vram", "pinned", "host", "disk"};
    return names[placement];
}

/* To two digits: what there is rounded down, what is needed rounded up, so that they compare as they should. */
static double gb_free(size_t bytes)
{
    return (double)(bytes / 10000000) / 100;
}

static double gb_needed(size_t bytes)
{
    return (double)((bytes + 9999999) / 10000000) / 100;
}

static int lesser(int a, int b)
{
    return a < b ? a : b;
}

static int wished(int wish, int otherwise)
{
    return wish > 0 ? wish : otherwise;
}

/* ---- sizes ---- */

static pl_kv_size kv_size(const pl_placement *p)
{
    return (pl_kv_size){.sequences = p->sessions,
                        .context = p->context,
                        .batch_rows = p->batch_rows,
                        .tokens = p->kv_tokens,
                        .type = p->cache};
}

static size_t total_of(const chooser *c, const pl_placement *p)
{
    pl_card_memory m;
    pl_kv_size size = kv_size(p);
    pl_card_memory_compute(c->config, c->plan, p->ple, &size, &m);
    return pl_card_memory_total(&m);
}

static bool fits(const chooser *c, const pl_placement *p)
{
    return total_of(c, p) <= c->card->free_bytes;
}

static void set_context(const chooser *c, pl_placement *p, int context, int rows)
{
    p->context = context;
    p->kv_tokens = c->wish->kv_tokens ? context : 0;
    p->batch_rows = lesser(lesser(rows, c->rows_most), context);
}

/* The longest context from `least` on, a multiple of the step or the most there is, that fits with the fewest rows. */
static bool fit_context(const chooser *c, pl_placement *p, int least)
{
    int low = (least + CONTEXT_STEP - 1) / CONTEXT_STEP, high = (c->context_most + CONTEXT_STEP - 1) / CONTEXT_STEP;
    set_context(c, p, lesser(low * CONTEXT_STEP, c->context_most), LEAST_BATCH_ROWS);
    if (!fits(c, p))
        return false;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        set_context(c, p, lesser(middle * CONTEXT_STEP, c->context_most), LEAST_BATCH_ROWS);
        if (fits(c, p))
            low = middle;
        else
            high = middle - 1;
    }
    set_context(c, p, lesser(low * CONTEXT_STEP, c->context_most), LEAST_BATCH_ROWS);
    return true;
}

/* Sets sessions, context and batch_rows for p->ple; false: nothing fits, and they are the least there can be. */
static bool fit_sizes(const chooser *c, pl_placement *p)
{
    int least_sessions = c->wish->sessions > 0 ? c->sessions_most : 1;
    int least_context = c->wish->context > 0 ? c->context_most : lesser(LEAST_CONTEXT, c->context_most);
    for (p->sessions = c->sessions_most;; p->sessions--) {
        for (int rows = c->rows_most;; rows = rows / 2 < LEAST_BATCH_ROWS ? LEAST_BATCH_ROWS : rows / 2) {
            set_context(c, p, c->context_most, rows);
            if (fits(c, p))
                return true;
            if (rows <= LEAST_BATCH_ROWS)
                break;
        }
        if (fit_context(c, p, least_context))
            return true;
        if (p->sessions == least_sessions)
            break;
    }
    set_context(c, p, least_context, LEAST_BATCH_ROWS);
    return false;
}

int64_t pl_placement_kv_tokens(const pl_config *config, int sessions, int context, int batch_rows, pl_cache_type cache,
                               size_t bytes)
{
    pl_kv_size size = {.sequences = sessions, .context = context, .batch_rows = batch_rows, .type = cache};
    int64_t least = context, most = (int64_t)sessions * context;
    while (least < most) {
        size.tokens = least + (most - least + 1) / 2;
        if (pl_kv_bytes(config, &size) <= bytes)
            least = size.tokens;
        else
            most = size.tokens - 1;
    }
    return least;
}

/* Takes for K/V what is left of the card but `spare`, up to the wish. */
static void grow_kv(const chooser *c, pl_placement *p, size_t spare)
{
    pl_kv_size size = kv_size(p);
    size_t rest = total_of(c, p) - pl_kv_bytes(c->config, &size) + spare, free_bytes = c->card->free_bytes;
    int64_t tokens = pl_placement_kv_tokens(c->config, p->sessions, p->context, p->batch_rows, p->cache,
                                            free_bytes > rest ? free_bytes - rest : 0);
    if (c->wish->kv_tokens > 0 && c->wish->kv_tokens < tokens)
        tokens = c->wish->kv_tokens;
    p->kv_tokens = tokens > p->context ? tokens : p->context;
}

static int64_t kv_tokens_on_cpu(const chooser *c, const pl_placement *p)
{
    if (c->wish->kv_tokens >= 0)
        return c->wish->kv_tokens;
    size_t weights = c->plan->core_packed + c->plan->head_packed + c->plan->head_copy,
           available = c->machine->free_memory;
    return pl_placement_kv_tokens(c->config, p->sessions, p->context, p->batch_rows, p->cache,
                                  available > weights ? (available - weights) / 4 : 0);
}

/* ---- the table ---- */

static pl_ple_placement place_table(const chooser *c, size_t used)
{
    size_t table = c->plan->ple_table, host = c->machine->free_memory;
    if (c->card->free_bytes - used >= table && c->card->free_bytes - used - table >= SPARE)
        return PL_PLE_VRAM;
    if (table <= host / 2)
        return PL_PLE_PINNED;
    return table <= host / 4 * 3 || host == 0 ? PL_PLE_HOST : PL_PLE_DISK;
}

/* ---- what would fit ---- */

typedef struct message {
    char text[PL_ERROR_BYTES];
    size_t n;
    int hints;
} message;

static void PL_PRINTF(2, 3) say(message *m, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(m->text + m->n, sizeof m->text - m->n, fmt, args);
    va_end(args);
    m->n += n > 0 ? (size_t)n : 0;
    m->n = m->n < sizeof m->text ? m->n : sizeof m->text - 1;
}

static void hint(message *m)
{
    say(m, m->hints++ ? ", or " : "; would fit: ");
}

/* The room for weights, K/V and a step, as --fit counts it, that p's card has for a file of this model; 0: too little for
 * any types. */
static size_t fit_size(const chooser *c, const pl_placement *p, int *context)
{
    const size_t unit = 100000000; /* that is told */
    pl_card_memory m;
    *context = lesser(p->context > FIT_CONTEXT ? p->context : FIT_CONTEXT, c->config->context);
    pl_kv_size one = {.sequences = 1, .context = *context, .batch_rows = PL_DEFAULT_BATCH_ROWS}, size = one;
    size.sequences = p->sessions;
    size.tokens = p->kv_tokens ? *context : 0;
    pl_card_memory_compute(c->config, c->plan, p->ple, &size, &m);
    size_t step = pl_step_bytes(c->config, PL_DEFAULT_BATCH_ROWS, false);
    size_t session = pl_kv_bytes(c->config, &one);
    size_t others = m.reserve + m.table + m.work - step + m.kv - session;
    size_t room = c->card->free_bytes > others ? (c->card->free_bytes - others) / unit * unit : 0;
    size_t least = (size_t)c->plan->card_weights / 8 * LEAST_BITS + session + step;
    return room >= least ? room : 0;
}

/* least: the least that p's sizes can be. */
static void say_what_fits(const chooser *c, const pl_placement *least, message *m)
{
    pl_placement p = *least;
    int tokens;
    size_t need = total_of(c, &p), available = c->card->free_bytes, fit = fit_size(c, &p, &tokens);
    size_t weights = c->plan->core_packed + c->plan->core_mapped + c->plan->head_packed + c->plan->head_mapped;
    if (p.ple == PL_PLE_VRAM) {
        p.ple = PL_PLE_PINNED;
        if (fits(c, &p)) {
            hint(m);
            say(m, "--ple auto");
        }
        p = *least;
    }
    if (c->wish->context > 0 && fit_context(c, &p, CONTEXT_STEP) && p.context < least->context) {
        hint(m);
        say(m, "--ctx-size %d", p.context);
    }
    if (c->plan->card_slice && need - weights + c->plan->card_slice <= available) {
        hint(m);
        say(m, "its E2B alone ('pleiad slice --slice e2b')");
    }
    if (fit) {
        hint(m);
        say(m, "smaller types ('pleiad quantize --fit %.1fGB", (double)fit / 1e9);
        if (tokens != FIT_CONTEXT)
            say(m, " -c %d", tokens);
        say(m, "')");
    }
}

static pl_status fail_too_large(const chooser *c, const pl_placement *least, pl_error *err)
{
    message m = {.n = 0};
    pl_card_memory memory;
    pl_kv_size size = kv_size(least);
    pl_card_memory_compute(c->config, c->plan, least->ple, &size, &memory);
    say(&m, "%.60s: %.2f GB of its memory are free, %s needs %.2f GB (%.2f GB of weights, %.2f GB of K/V for ",
        c->card->name, gb_free(c->card->free_bytes), c->wish->ranks > 1 ? "its part of the model" : "this model",
        gb_needed(pl_card_memory_total(&memory)), gb_needed(memory.weights), gb_needed(memory.kv));
    if (least->sessions > 1 && !least->kv_tokens)
        say(&m, "%d times ", least->sessions);
    say(&m, "%d tokens", least->context);
    if (memory.table)
        say(&m, ", %.2f GB of per-layer table", gb_needed(memory.table));
    say(&m, ")");
    say_what_fits(c, least, &m);
    return pl_fail(err, PL_ERR_MEMORY, "%s", m.text);
}

/* ---- the choice ---- */

static pl_status check_card(const pl_device *d, pl_error *err)
{
    if (10 * d->capability_major + d->capability_minor >= PL_LEAST_CAPABILITY)
        return PL_OK;
    return pl_fail(err, PL_ERR_UNSUPPORTED, "%.60s has compute capability %d.%d, at least %d.%d is needed", d->name,
                   d->capability_major, d->capability_minor, PL_LEAST_CAPABILITY / 10, PL_LEAST_CAPABILITY % 10);
}

/* Of several that share the model the one with the least room. */
static pl_status take_card(chooser *c, pl_error *err)
{
    const pl_device_list *cards = c->machine->cards;
    int first = c->wish->device, n = c->wish->ranks > 1 ? c->wish->ranks : 1;
    if (n > cards->n - first)
        return pl_fail(err, PL_ERR_ARGUMENT, "the model cannot be shared by %d cards from %d on: this machine has %d",
                       n, first, cards->n);
    for (int i = first; i < first + n; i++) {
        const pl_device *card = &cards->devices[i];
        PL_TRY(check_card(card, err));
        if (!c->card || card->free_bytes < c->card->free_bytes)
            c->card = card;
    }
    return PL_OK;
}

static pl_status check_host(const chooser *c, const pl_placement *p, pl_error *err)
{
    size_t available = c->machine->free_memory;
    if (available == 0 || p->memory.pinned <= available)
        return PL_OK;
    return pl_fail(
        err, PL_ERR_MEMORY,
        "the per-layer table in %s memory takes %.2f GB of the host's, of which %.2f GB are free; --ple host "
        "or --ple disk leave it in the file",
        pl_ple_placement_name(p->ple), gb_needed(p->memory.pinned), gb_free(available));
}

/* "cards 0 to 3, a part of the model on each; " */
static void say_cards(const chooser *c, message *m)
{
    if (c->wish->ranks > 1)
        say(m, "cards %d to %d, a part of the model on each; ", c->wish->device, c->wish->device + c->wish->ranks - 1);
}

static void explain(const chooser *c, pl_placement *p)
{
    static const char *const where[] = {"", "the card's memory", "pinned memory of the host", "memory of the host",
                                        "the file"};
    message m = {.n = 0};
    say_cards(c, &m);
    say(&m,
        "%.60s: %.2f of %.2f GB free, %.2f GB for %d session%s of %d tokens at %d rows a step; per-layer table in %s",
        c->card->name, gb_free(c->card->free_bytes), gb_free(c->card->total_bytes),
        gb_needed(pl_card_memory_total(&p->memory)), p->sessions, p->sessions > 1 ? "s" : "", p->context, p->batch_rows,
        where[p->ple]);
    if (p->kv_tokens)
        say(&m, "; K/V of %lld tokens", (long long)p->kv_tokens);
    if (p->sessions < c->sessions_most || p->context < c->context_most || p->batch_rows < c->rows_most)
        say(&m, "; made smaller to fit");
    memcpy(p->reason, m.text, sizeof p->reason);
}

static pl_status choose_card(chooser *c, pl_placement *out, pl_error *err)
{
    const pl_device_list *cards = c->machine->cards;
    pl_placement p = {.backend = PL_BACKEND_CUDA, .device = c->wish->device, .ple = c->wish->ple};
    if (!cards || cards->n == 0)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s", cards ? cards->reason : "no card was looked for");
    if (p.device < 0 || p.device >= cards->n)
        return pl_fail(err, PL_ERR_ARGUMENT, "device %d: this machine has %d card%s, counted from 0", p.device,
                       cards->n, cards->n > 1 ? "s" : "");
    memcpy(p.pci_id, cards->devices[p.device].pci_id, sizeof p.pci_id);
    PL_TRY(take_card(c, err));
    if (c->wish->cache != PL_CACHE_F32)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "K/V in %s (--cache-type): a card keeps them in f32",
                       pl_cache_type_name(c->wish->cache));
    if (!fit_sizes(c, &p))
        return fail_too_large(c, &p, err);
    if (c->wish->kv_tokens > 0)
        grow_kv(c, &p, 0);
    if (p.ple == PL_PLE_AUTO)
        p.ple = place_table(c, total_of(c, &p));
    if (c->wish->kv_tokens < 0)
        grow_kv(c, &p, SPARE);
    pl_kv_size size = kv_size(&p);
    pl_card_memory_compute(c->config, c->plan, p.ple, &size, &p.memory);
    PL_TRY(check_host(c, &p, err));
    explain(c, &p);
    *out = p;
    return PL_OK;
}

pl_status pl_placement_choose(const pl_config *config, const pl_memory_plan *plan, const pl_placement_wish *wish,
                              const pl_machine *machine, pl_placement *out, pl_error *err)
{
    pl_error why = {.status = PL_OK};
    pl_placement_wish bounded = *wish;
    chooser c = {.config = config, .plan = plan, .wish = &bounded, .machine = machine};
    c.context_most = wished(wish->context, lesser(config->context, PL_DEFAULT_CONTEXT));
    c.rows_most = lesser(wished(wish->batch_rows, PL_DEFAULT_BATCH_ROWS), c.context_most);
    c.sessions_most = wished(wish->sessions, PL_DEFAULT_SESSIONS);
    if (wish->kv_bytes) {
        int64_t most = pl_placement_kv_tokens(config, c.sessions_most, c.context_most, c.rows_most, wish->cache,
                                              wish->kv_bytes);
        bounded.kv_tokens = wish->kv_tokens > 0 && wish->kv_tokens < most ? wish->kv_tokens : most;
    }
    pl_placement cpu = {.backend = PL_BACKEND_CPU,
                        .ple = wish->ple == PL_PLE_DISK ? PL_PLE_DISK : PL_PLE_AUTO,
                        .cache = wish->cache,
                        .sessions = c.sessions_most,
                        .context = c.context_most,
                        .batch_rows = c.rows_most};
    if (cpu.ple == PL_PLE_DISK && wish->batch_rows <= 0)
        cpu.batch_rows = lesser(DISK_BATCH_ROWS, c.rows_most);
    cpu.kv_tokens = kv_tokens_on_cpu(&c, &cpu);
    if (wish->backend != PL_BACKEND_CPU) {
        pl_status status = choose_card(&c, out, &why);
        if (status == PL_OK)
            return PL_OK;
        if (status == PL_ERR_ARGUMENT)
            return pl_fail(err, status, "%s", why.message);
        if (wish->backend == PL_BACKEND_CUDA)
            return pl_fail(err, status, "backend cuda: %s", why.message);
        snprintf(cpu.reason, sizeof cpu.reason, "on the CPU: %.480s", why.message);
    }
    *out = cpu;
    return PL_OK;
}

/* Cards hold parts of the model, the CPU all of them. */
static pl_status choose_ranks(const pl_checkpoint *checkpoint, const pl_placement_wish *wish, const pl_machine *machine,
                              const pl_memory_plan *whole, pl_placement *out, pl_error *err)
{
    pl_shard first;
    pl_memory_plan plan;
    pl_placement_wish on_cpu = *wish;
    on_cpu.backend = PL_BACKEND_CPU;
    PL_TRY(pl_shard_make(checkpoint, 0, wish->ranks, &first, err));
    pl_memory_plan_rank(checkpoint, &first, PL_KV_PAGE, 1, wish->cache, &plan);
    PL_TRY(pl_placement_choose(&first.config, &plan, wish, machine, out, err));
    if (out->backend == PL_BACKEND_CUDA)
        return PL_OK;
    pl_placement cpu;
    PL_TRY(pl_placement_choose(first.whole, whole, &on_cpu, machine, &cpu, err));
    memcpy(cpu.reason, out->reason, sizeof cpu.reason);
    *out = cpu;
    return PL_OK;
}

pl_status pl_placement_here(const pl_checkpoint *checkpoint, const pl_placement_wish *wish, pl_placement *out,
                            pl_error *err)
{
    pl_memory_plan plan;
    pl_device_list cards = {.n = 0};
    pl_machine machine = {.cards = &cards, .free_memory = pl_free_memory()};
    pl_memory_plan_compute(checkpoint, PL_KV_PAGE, 1, wish->cache, &plan);
    if (wish->backend != PL_BACKEND_CPU)
        pl_devices_list(&cards);
    for (int i = wish->device; i >= 0 && i < cards.n && (i == wish->device || i < wish->device + wish->ranks); i++)
        pl_devices_ask_free(&cards, i);
    if (wish->ranks > 1)
        return choose_ranks(checkpoint, wish, &machine, &plan, out, err);
    return pl_placement_choose(pl_checkpoint_config(checkpoint), &plan, wish, &machine, out, err);
}
