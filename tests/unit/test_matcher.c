#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/rng.h"
#include "host/grammar/gbnf.h"
#include "host/grammar/matcher.h"

static pl_matcher *create(const char *text, uint32_t longest)
{
    pl_rules *rules = NULL;
    pl_matcher *matcher = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_gbnf_compile(text, strlen(text), &rules, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_matcher_create(rules, longest, 1 << 20, &matcher, &err), PL_OK, "%s", err.message);
    return matcher;
}

static uint32_t run(pl_matcher *matcher, uint32_t state, const char *text)
{
    for (; *text; text++)
        state = pl_matcher_step(matcher, state, (uint8_t)*text);
    return state;
}

Test(matcher, deep_recursion)
{
    pl_matcher *m = create("root ::= \"[\" root? \"]\" | \"(\" root \")\"", 0);
    uint32_t state = PL_STATE_START;
    for (int i = 0; i < 30000; i++)
        state = pl_matcher_step(m, state, i % 3 ? '[' : '(');
    cr_assert_eq(pl_matcher_step(m, state, ')'), PL_STATE_DEAD, "a ( holds something");
    uint32_t *held[] = {&state};
    cr_assert_eq(pl_matcher_forget(m, held, 1, NULL), PL_OK);
    state = run(m, state, "[]");
    for (int i = 30000; i-- > 0;) {
        cr_assert_eq(pl_matcher_ends(m, state), 0);
        cr_assert_eq(pl_matcher_step(m, state, i % 3 ? ')' : ']'), PL_STATE_DEAD);
        state = pl_matcher_step(m, state, i % 3 ? ']' : ')');
    }
    cr_assert_eq(pl_matcher_ends(m, state), 1);
    cr_assert_eq(pl_matcher_step(m, state, ']'), PL_STATE_DEAD);
    pl_matcher_free(m);
}

Test(matcher, lists_written_by_right_recursion_do_not_grow)
{
    pl_matcher *m = create("root ::= word more\nmore ::= \",\" word more | \"\"\nword ::= [a-z] word | [a-z]", 0);
    uint32_t state = run(m, PL_STATE_START, "ab,cd,e");
    size_t states = m->n_states;
    for (int i = 0; i < 1000; i++)
        state = run(m, state, "ab,cd,e");
    cr_assert_eq(m->n_states, states);
    cr_assert_eq(pl_matcher_ends(m, state), 1);
    pl_matcher_free(m);
}

Test(matcher, states_are_shared)
{
    pl_matcher *m = create("root ::= (\"ab\" | \"cb\" | [a-c] \"bd\")*", 0);
    cr_assert_eq(run(m, PL_STATE_START, "abcb"), run(m, PL_STATE_START, "cbab"));
    cr_assert_eq(run(m, PL_STATE_START, "ax"), PL_STATE_DEAD);
    cr_assert_eq(run(m, PL_STATE_DEAD, "ab"), PL_STATE_DEAD);
    pl_matcher_free(m);
}

/* Any text of up to `longest` bytes goes on alike from a state and its canonical one. */
static void expect_alike(pl_matcher *m, uint32_t a, uint32_t b, int depth)
{
    cr_assert_eq(pl_matcher_ends(m, a), pl_matcher_ends(m, b));
    for (const char *c = "ab,."; *c && depth > 0; c++) {
        uint32_t next_a = pl_matcher_step(m, a, (uint8_t)*c), next_b = pl_matcher_step(m, b, (uint8_t)*c);
        cr_assert_eq(next_a == PL_STATE_DEAD, next_b == PL_STATE_DEAD, "%c with %d to go", *c, depth);
        if (next_a != PL_STATE_DEAD)
            expect_alike(m, next_a, next_b, depth - 1);
    }
}

Test(matcher, canonical_states_go_on_alike)
{
    enum { LONGEST = 4 };
    pl_matcher *m = create("root ::= item{12,30} \".\" | \"b\"{3,} \".\"\nitem ::= \"a\"{0,15} \",\" | \"b\"{9}",
                           LONGEST);
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    size_t merged = 0;
    for (int text = 0; text < 200; text++) {
        uint32_t state = PL_STATE_START;
        for (int i = 0; i < 150; i++) {
            uint32_t next = pl_matcher_step(m, state, (uint8_t) "aabbbb,,."[pl_rng_next(&rng) % 9]);
            if (next == PL_STATE_DEAD)
                continue;
            state = next;
            uint32_t canonical = pl_matcher_canonical(m, state);
            merged += canonical != state;
            expect_alike(m, state, canonical, LONGEST);
        }
    }
    cr_assert_gt(merged, 1000);
    pl_matcher_free(m);
}

Test(matcher, long_repetitions_have_few_canonical_states)
{
    pl_matcher *m = create("root ::= \"a\"{10000,20000}", 8);
    uint32_t state = PL_STATE_START, last = 0, changes = 0;
    for (int i = 0; i < 20000; i++) {
        uint32_t canonical = pl_matcher_canonical(m, state);
        changes += canonical != last;
        last = canonical;
        state = pl_matcher_step(m, state, 'a');
    }
    cr_assert_lt(changes, 40);
    cr_assert_eq(pl_matcher_ends(m, state), 1);
    cr_assert_eq(pl_matcher_step(m, state, 'a'), PL_STATE_DEAD);
    pl_matcher_free(m);
}

Test(matcher, forgets_all_but_what_is_held)
{
    pl_matcher *m = create("root ::= \"(\" root \")\" | [a-z]{0,60000}", 0);
    uint32_t state = run(m, PL_STATE_START, "((("), *held[] = {&state};
    int forgotten = 0;
    for (int i = 0; i < 50000; i++) {
        state = pl_matcher_step(m, state, 'x');
        cr_assert_neq(state, PL_STATE_DEAD);
        if (pl_matcher_full(m)) {
            cr_assert_eq(pl_matcher_forget(m, held, 1, NULL), PL_OK);
            cr_assert_not(pl_matcher_full(m));
            forgotten++;
        }
    }
    cr_assert_gt(forgotten, 2);
    cr_assert_eq(pl_matcher_ends(m, run(m, state, "))")), 0);
    cr_assert_eq(pl_matcher_ends(m, run(m, state, ")))")), 1);
    pl_matcher_free(m);
}

Test(matcher, too_many_ways_are_an_error)
{
    /* each "(" doubles the stacks: what it was is only told by its end */
    pl_matcher *m = create("root ::= a | b\na ::= \"(\" root \"a\" | \"x\"\nb ::= \"(\" root \"b\" | \"x\"", 0);
    uint32_t state = PL_STATE_START;
    int steps = 0;
    for (; steps < 100 && state != PL_STATE_FAILED; steps++)
        state = pl_matcher_step(m, state, '(');
    pl_error err = {0};
    cr_assert(steps > 8 && steps < 20, "%d", steps);
    cr_assert_eq(pl_matcher_failure(m, &err), PL_ERR_UNSUPPORTED);
    cr_assert(strstr(err.message, "too many ways"), "%s", err.message);
    pl_matcher_free(m);
}

Test(matcher, beginnings_in_common_are_no_ambiguity)
{
    pl_matcher *m = create("root ::= \"(\" root \"a\" | \"(\" root \"b\" | \"x\"", 0);
    uint32_t state = PL_STATE_START;
    for (int i = 0; i < 1000; i++)
        state = pl_matcher_step(m, state, '(');
    cr_assert_eq(m->state[state].n_nodes, 1);
    pl_matcher_free(m);
}

Test(matcher, many_words_are_one_automaton)
{
    static char text[5000 * 16];
    size_t n = (size_t)snprintf(text, sizeof text, "root ::= \"word\"");
    for (unsigned i = 0; i < 5000; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, " | \"%u\"", i);
    pl_matcher *m = create(text, 0);
    cr_assert_lt(m->program->n_groups, 16);
    for (unsigned i = 0; i < 6000; i++) {
        char word[8];
        size_t allowed;
        bool ends;
        int length = snprintf(word, sizeof word, "%u", i);
        cr_assert_eq(pl_matcher_read(m, word, (size_t)length, &allowed, &ends, NULL), PL_OK);
        cr_assert_eq(allowed == (size_t)length && ends, i < 5000, "%u", i);
    }
    pl_matcher_free(m);
}
