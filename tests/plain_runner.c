/* Runs Criterion tests one after another in one process. Criterion's own runner needs addresses that
 * ThreadSanitizer keeps for itself, so the thread build links this in its place: the functions below
 * stand before those of the library. Tests that expect a signal or an exit code are left out. */
#include <criterion/criterion.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[], *__stop_cr_sts[];
#pragma weak __start_cr_sts
#pragma weak __stop_cr_sts

static jmp_buf test_end;
static bool test_failed;

void criterion_internal_test_setup(void)
{
}

void criterion_internal_test_main(void (*fn)(void))
{
    fn();
}

void criterion_internal_test_teardown(void)
{
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
    if (stats->passed)
        return;
    test_failed = true;
    fprintf(stderr, "%s:%u: %s\n", stats->file, stats->line, stats->message ? stats->message : "assertion failed");
}

void criterion_abort_test(void)
{
    test_failed = true;
    longjmp(test_end, 1);
}

static const struct criterion_test_extra_data *suite_data(const char *name)
{
    static const struct criterion_test_extra_data none;
    if (__start_cr_sts)
        for (struct criterion_suite **suite = __start_cr_sts; suite < __stop_cr_sts; suite++)
            if (*suite && strcmp((*suite)->name, name) == 0 && (*suite)->data)
                return (*suite)->data;
    return &none;
}

static bool can_run(const struct criterion_test_extra_data *test, const struct criterion_test_extra_data *suite)
{
    return test->kind_ == CR_TEST_NORMAL && !test->disabled && !suite->disabled && !test->signal && !suite->signal &&
           !test->exit_code && !suite->exit_code;
}

static void call(void (*fn)(void))
{
    if (fn && setjmp(test_end) == 0)
        fn();
}

static bool run(const struct criterion_test *test, const struct criterion_test_extra_data *suite)
{
    test_failed = false;
    call(suite->init);
    call(test->data->init);
    if (!test_failed)
        call(test->test);
    call(test->data->fini);
    call(suite->fini);
    fprintf(stderr, "[%s] %s::%s\n", test_failed ? "FAIL" : "PASS", test->category, test->name);
    return !test_failed;
}

int main(void)
{
    int tested = 0, passing = 0;
    for (struct criterion_test **test = __start_cr_tst; test < __stop_cr_tst; test++) {
        if (!*test)
            continue;
        const struct criterion_test_extra_data *suite = suite_data((*test)->category);
        if (!can_run((*test)->data, suite))
            continue;
        tested++;
        passing += run(*test, suite);
    }
    fprintf(stderr, "Tested: %d | Passing: %d | Failing: %d\n", tested, passing, tested - passing);
    return tested != passing;
}
