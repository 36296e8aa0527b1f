/* Choosing types for a size: the choice itself against trying everything, and what it does to a model. */
#include <math.h>

#include "host/base/rng.h"
#include "host/convert/fit.h"
#include "host/convert/recipe.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/plans.h"
#include "tests/unit/scratch.h"

#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"
#define THREADS 2

static scratch s;
static pl_checkpoint *checkpoint;
static pl_export *plan;
static pl_pool *pool;
static pl_fit_result result;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    cr_assert_eq(pl_pool_create(THREADS, NULL, &pool, &err), PL_OK);
}

static void teardown(void)
{
    pl_pool_free(pool);
    pl_export_free(plan);
    pl_checkpoint_close(checkpoint);
    plan = NULL;
    checkpoint = NULL;
    scratch_close(&s);
}

TestSuite(fit, .init = setup, .fini = teardown);

/* ---- the choice ---------------------------------------------------------------------------------- */

#define ITEMS 6
#define CHOICES 4

static pl_fit_item items[ITEMS];
static pl_fit_step steps[ITEMS * PL_FIT_CHOICES];

static void make_items(pl_rng *rng)
{
    for (int i = 0; i < ITEMS; i++) {
        double scale = exp(4 * pl_rng_uniform(rng));
        items[i].n = CHOICES;
        for (int c = 0; c < CHOICES; c++)
            items[i].choice[c] = (pl_fit_choice){.bytes = (int64_t)(scale * 1000 * (c + 1 + pl_rng_uniform(rng))),
                                                 .loss = pl_rng_uniform(rng) * exp(-c)};
    }
}

static void add_up(const int *chosen, int64_t *bytes, double *loss)
{
    *bytes = 0;
    *loss = 0;
    for (int i = 0; i < ITEMS; i++) {
        *bytes += items[i].choice[chosen[i]].bytes;
        *loss += items[i].choice[chosen[i]].loss;
    }
}

/* Of all combinations within the budget; INFINITY where there is none. */
static double least_loss(int64_t budget)
{
    double best = INFINITY;
    int chosen[ITEMS], all = 1;
    for (int i = 0; i < ITEMS; i++)
        all *= CHOICES;
    for (int code = 0; code < all; code++) {
        int64_t bytes;
        double loss;
        for (int i = 0, rest = code; i < ITEMS; i++, rest /= CHOICES)
            chosen[i] = rest % CHOICES;
        add_up(chosen, &bytes, &loss);
        if (bytes <= budget && loss < best)
            best = loss;
    }
    return best;
}

/* Between the fewest bytes and the most, and a bit below. */
static int64_t budget_for(double fraction)
{
    double least = 0, most = 0;
    for (int i = 0; i < ITEMS; i++) {
        double low = INFINITY, high = 0;
        for (int c = 0; c < CHOICES; c++) {
            low = fmin(low, (double)items[i].choice[c].bytes);
            high = fmax(high, (double)items[i].choice[c].bytes);
        }
        least += low;
        most += high;
    }
    return (int64_t)(0.9 * least + fraction * (most - 0.9 * least));
}

/* Greedy steps along convex hulls lose at most what one step saves against the best there is. */
static double largest_step(void)
{
    double largest = 0;
    for (int i = 0; i < ITEMS; i++)
        for (int a = 0; a < CHOICES; a++)
            for (int b = 0; b < CHOICES; b++)
                largest = fmax(largest, items[i].choice[a].loss - items[i].choice[b].loss);
    return largest;
}

Test(fit, choice_is_near_the_best_there_is)
{
    pl_rng rng;
    double excess = 0;
    int solved = 0;
    pl_rng_seed(&rng, 5);
    for (int round = 0; round < 200; round++) {
        make_items(&rng);
        double rate, loss;
        int64_t bytes, budget = budget_for(pl_rng_uniform(&rng));
        double best = least_loss(budget);
        bool there = pl_fit_choose(items, ITEMS, budget, steps, &rate);
        cr_assert_eq(there, isfinite(best));
        if (!there)
            continue;
        int chosen[ITEMS];
        for (int i = 0; i < ITEMS; i++)
            chosen[i] = items[i].chosen;
        add_up(chosen, &bytes, &loss);
        cr_assert_leq(bytes, budget);
        cr_assert_leq(loss, best + largest_step() + 1e-12);
        excess += loss - best;
        solved++;
    }
    cr_assert_gt(solved, 100);
    cr_assert_lt(excess / solved, 0.05, "on average %g above the best", excess / solved);
}

Test(fit, choice_with_room_for_everything_is_the_best)
{
    pl_rng rng;
    double rate = -1;
    pl_rng_seed(&rng, 9);
    make_items(&rng);
    cr_assert(pl_fit_choose(items, ITEMS, INT64_MAX / 2, steps, &rate));
    cr_assert_eq(rate, 0);
    for (int i = 0; i < ITEMS; i++)
        for (int c = 0; c < CHOICES; c++)
            cr_assert_leq(items[i].choice[items[i].chosen].loss, items[i].choice[c].loss);
}

Test(fit, choice_spends_to_the_byte_and_tells_what_another_is_worth)
{
    /* The middle of the first item lies above the line between its ends; the second saves less for each byte. */
    items[0] = (pl_fit_item){.n = 3, .choice = {{PL_Q2_K, 100, 1.0}, {PL_Q4_K, 200, 0.9}, {PL_Q8_0, 300, 0.2}}};
    items[1] = (pl_fit_item){.n = 2, .choice = {{PL_Q8_0, 200, 0.1}, {PL_Q2_K, 100, 0.3}}};
    double rate;
    cr_assert_not(pl_fit_choose(items, 2, 199, steps, &rate));
    cr_assert(items[0].chosen == 0 && items[1].chosen == 1);
    cr_assert(pl_fit_choose(items, 2, 200, steps, &rate));
    cr_assert_float_eq(rate, 0.8 / 200, 1e-12);
    cr_assert(pl_fit_choose(items, 2, 400, steps, &rate));
    cr_assert(items[0].chosen == 2 && items[1].chosen == 1, "the better step first");
    cr_assert_float_eq(rate, 0.2 / 100, 1e-12);
    cr_assert(pl_fit_choose(items, 2, 399, steps, &rate));
    cr_assert(items[0].chosen == 0 && items[1].chosen == 0, "what is left goes to what fits");
    cr_assert(pl_fit_choose(items, 2, 500, steps, &rate));
    cr_assert(items[0].chosen == 2 && items[1].chosen == 0 && rate == 0);
    cr_assert(pl_fit_choose(items, 1, 299, steps, &rate));
    cr_assert(items[0].chosen == 1, "off the line, but all that fits");
}

/* ---- a model ------------------------------------------------------------------------------------- */

static void open_plan(const char *path)
{
    checkpoint = must_open(path);
    plan = must_plan(checkpoint, NULL, PL_CHECKPOINT_GGUF);
}

static pl_fit_params params_for(int64_t bytes)
{
    return (pl_fit_params){.pool = pool, .sensitivity = pl_sensitivity_default(), .card_bytes = bytes};
}

static pl_status fit(pl_fit_params params)
{
    return pl_fit_types(plan, &params, &result, &err);
}

static void fits(pl_fit_params params)
{
    cr_assert_eq(fit(params), PL_OK, "%s", err.message);
}

static int64_t bytes_of(pl_role role)
{
    int64_t sum = 0;
    for (size_t i = 0; i < plan->n; i++)
        if (plan->tensors[i].role == role && !pl_recipe_unread(plan, &plan->tensors[i]))
            sum += pl_fit_tensor_bytes(&plan->tensors[i]);
    return sum;
}

Test(fit, more_room_means_less_loss_and_never_too_much)
{
    double last = INFINITY;
    open_plan(DEMO);
    for (int64_t bytes = 4000000; bytes <= 8000000; bytes += 500000) {
        pl_fit_params params = params_for(bytes + 100000);
        params.reserved_bytes = 100000;
        fits(params);
        cr_expect_leq(pl_fit_card_bytes(plan), bytes);
        cr_expect_leq(result.loss, last);
        if (bytes < 7000000)
            cr_expect_gt(pl_fit_card_bytes(plan), bytes - 20000, "room left unused");
        last = result.loss;
    }
    fits(params_for(INT64_C(1) << 40));
    cr_expect_eq(result.rate, 0);
    for (size_t i = 0; i < plan->n; i++)
        if (pl_fit_on_card(plan, &plan->tensors[i]) && pl_recipe_may_change(&plan->tensors[i]))
            cr_expect_eq(plan->tensors[i].type, PL_Q8_0, "%s", plan->tensors[i].name);
}

Test(fit, what_a_card_holds)
{
    open_plan(DEMO);
    cr_expect(pl_fit_on_card(plan, must_find(plan, "token_embd.weight")));
    cr_expect(pl_fit_on_card(plan, must_find(plan, "blk.0.attn_norm.weight")));
    cr_expect_not(pl_fit_on_card(plan, must_find(plan, "per_layer_token_embd.weight")));
    cr_expect_not(pl_fit_on_card(plan, must_find(plan, "blk.11.attn_k.weight")));
    fits(params_for(5000000));
    cr_expect_eq(must_find(plan, "blk.11.attn_k.weight")->type, PL_MXFP4, "never read, so the smallest");
}

Test(fit, too_little_room_says_how_much_is_needed)
{
    open_plan(DEMO);
    pl_fit_params params = params_for(2000000);
    params.reserved_bytes = 500000;
    expect_failure(fit(params), PL_ERR_ARGUMENT, &err, WORDS("2.0 MB are too few", "weights take at least", "0.5 MB"));
    double weights = 0, all = 0;
    cr_assert_eq(sscanf(strstr(err.message, "at least"), "at least %lf", &weights), 1);
    cr_assert_eq(sscanf(strstr(err.message, "together"), "together %lf", &all), 1);
    params.card_bytes = (int64_t)((all + 0.06) * 1e6);
    fits(params);
    params.card_bytes = (int64_t)((all - 0.06) * 1e6);
    cr_assert_eq(fit(params), PL_ERR_ARGUMENT);
}

Test(fit, bytes_go_where_they_are_worth_more)
{
    open_plan(DEMO);
    pl_sensitivity other = *pl_sensitivity_default();
    pl_fit_params params = params_for(4500000);
    params.sensitivity = &other;
    other.value[PL_ROLE_PLE_TABLE][0] = 1e-6;
    fits(params);
    int64_t down = bytes_of(PL_ROLE_DOWN), up = bytes_of(PL_ROLE_UP), table = bytes_of(PL_ROLE_PLE_TABLE);
    for (int i = 0; i < PL_THIRDS; i++)
        other.value[PL_ROLE_DOWN][i] = 100;
    other.value[PL_ROLE_PLE_TABLE][0] = 1000;
    fits(params);
    cr_expect_gt(bytes_of(PL_ROLE_DOWN), down);
    cr_expect_lt(bytes_of(PL_ROLE_UP), up);
    cr_expect_gt(bytes_of(PL_ROLE_PLE_TABLE), table, "the table, too, though it is not on the card");
}

Test(fit, columns_that_matter_decide)
{
    open_plan(DEMO);
    pl_imatrix *m;
    pl_imatrix_entry *entry;
    fits(params_for(4500000));
    double before = result.loss;
    cr_assert_eq(pl_imatrix_create(&m, &err), PL_OK);
    for (size_t i = 0; i < plan->n; i++) {
        const pl_export_tensor *t = &plan->tensors[i];
        if (t->role != PL_ROLE_UP)
            continue;
        cr_assert_eq(pl_imatrix_entry_at(m, t->name, t->n_cols, 1, &entry, &err), PL_OK);
        entry->count[0] = 10;
        for (int64_t c = 0; c < t->n_cols; c++)
            entry->sum2[c] = c == 0 ? 100 : 0;
    }
    pl_fit_params params = params_for(4500000);
    params.imatrix = m;
    fits(params);
    cr_expect_lt(result.loss, before, "errors elsewhere no longer count");
    pl_imatrix_free(m);
}

Test(fit, pinned_types_stay)
{
    open_plan(DEMO);
    bool *pinned = calloc(plan->n, sizeof *pinned);
    static const char *const fixed[] = {"blk.*.ffn_down=q8_0", "token_embd=q4_0"};
    cr_assert_eq(pl_recipe_override(plan, fixed, 2, pinned, &err), PL_OK);
    pl_fit_params params = params_for(5500000);
    params.pinned = pinned;
    fits(params);
    cr_expect_eq(must_find(plan, "token_embd.weight")->type, PL_Q4_0);
    cr_expect_eq(must_find(plan, "blk.7.ffn_down.weight")->type, PL_Q8_0);
    cr_expect_leq(pl_fit_card_bytes(plan), 5500000);
    free(pinned);
}

Test(fit, the_same_for_any_number_of_threads)
{
    open_plan(DEMO);
    fits(params_for(4700000));
    pl_dtype *types = calloc(plan->n, sizeof *types);
    for (size_t i = 0; i < plan->n; i++)
        types[i] = plan->tensors[i].type;
    double loss = result.loss;
    pl_pool_free(pool);
    cr_assert_eq(pl_pool_create(1, NULL, &pool, &err), PL_OK);
    fits(params_for(4700000));
    cr_expect_eq(result.loss, loss);
    for (size_t i = 0; i < plan->n; i++)
        cr_expect_eq(plan->tensors[i].type, types[i], "%s", plan->tensors[i].name);
    free(types);
}

Test(fit, a_part_without_sensitivity_is_named)
{
    open_plan(DEMO);
    pl_sensitivity other = *pl_sensitivity_default();
    other.value[PL_ROLE_GATE][1] = NAN;
    pl_fit_params params = params_for(5000000);
    params.sensitivity = &other;
    expect_failure(fit(params), PL_ERR_ARGUMENT, &err, WORDS("roles.gate[1]", "blk.4.ffn_gate.weight"));
    other = *pl_sensitivity_default();
    other.value[PL_ROLE_K][2] = NAN; /* layers without K of their own */
    fits(params);
}

static bool at_once(void *user)
{
    (void)user;
    return true;
}

Test(fit, can_be_cancelled)
{
    open_plan(DEMO);
    pl_fit_params params = params_for(5000000);
    params.cancelled = at_once;
    cr_assert_eq(fit(params), PL_ERR_CANCELLED);
}

Test(fit, values_that_are_not_finite_are_found)
{
    gguf_builder b;
    gguf_builder_tiny(&b);
    built_tensor *t = gguf_builder_find(&b, "blk.2.attn_q.weight");
    float bad = INFINITY;
    memcpy(t->data + (3 * 32 + 5) * sizeof bad, &bad, sizeof bad);
    open_plan(gguf_builder_write(&b, &s, "bad.gguf"));
    gguf_builder_free(&b);
    expect_failure(fit(params_for(1 << 30)), PL_ERR_FORMAT, &err,
                   WORDS("bad.gguf", "blk.2.attn_q.weight", "row 3, column 5"));
}

static pl_status plan_and_fit(void *ctx, pl_error *e)
{
    (void)ctx;
    pl_export *made = NULL;
    pl_fit_params params = params_for(1 << 30);
    PL_TRY(pl_export_plan(checkpoint, NULL, PL_CHECKPOINT_GGUF, &made, e));
    pl_status status = pl_fit_types(made, &params, &result, e);
    pl_export_free(made);
    return status;
}

Test(fit, reports_missing_memory)
{
    open_plan(PL_TEST_DATA "/golden/text/e2b");
    cr_assert_gt(fail_alloc_each(plan_and_fit, NULL), 5);
}
