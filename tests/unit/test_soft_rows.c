#include "host/engine/soft_rows.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#define FIRST 1000
#define WIDTH 4
#define ROW (WIDTH * sizeof(float))

static pl_soft_rows *open_store(int32_t first, size_t remembered)
{
    pl_soft_rows *s = NULL;
    cr_assert_eq(pl_soft_rows_create(first, WIDTH, remembered, &s, NULL), PL_OK);
    return s;
}

/* n rows, all values `value`; key 0: none. */
static pl_soft_block *add(pl_soft_rows *s, uint64_t key, int32_t n, float value)
{
    float rows[16 * WIDTH];
    pl_soft_block *b = NULL;
    const pl_soft_key k = {{key, ~key}};
    for (int32_t i = 0; i < n * WIDTH; i++)
        rows[i] = value;
    cr_assert_eq(pl_soft_rows_add(s, key ? &k : NULL, rows, n, &b, NULL), PL_OK);
    return b;
}

static pl_soft_block *find(pl_soft_rows *s, uint64_t key)
{
    return pl_soft_rows_find(s, &(pl_soft_key){{key, ~key}});
}

Test(soft_rows, ids_ascend)
{
    pl_soft_rows *s = open_store(FIRST, 0);
    pl_soft_block *a = add(s, 0, 3, 1), *b = add(s, 0, 2, 2);
    cr_expect_eq(pl_soft_block_first(a), FIRST);
    cr_expect_eq(pl_soft_block_first(b), FIRST + 3);
    int32_t n = 0;
    cr_expect_eq(pl_soft_rows_at(s, FIRST + 1, &n)[0], 1);
    cr_expect_eq(n, 2);
    cr_expect_eq(pl_soft_rows_at(s, FIRST + 4, &n)[WIDTH - 1], 2);
    cr_expect_eq(n, 1);
    cr_expect_eq(pl_soft_rows_bytes(s), 5 * ROW);
    pl_soft_block_drop(a);
    cr_expect_eq(pl_soft_rows_bytes(s), 2 * ROW);
    pl_soft_block *c = add(s, 0, 1, 3);
    cr_expect_eq(pl_soft_block_first(c), FIRST + 5, "ids are not used again");
    pl_soft_block_drop(b);
    pl_soft_block_drop(c);
    pl_soft_rows_free(s);
}

Test(soft_rows, found_by_key)
{
    pl_soft_rows *s = open_store(FIRST, 100 * ROW);
    pl_soft_block *a = add(s, 7, 3, 1), *same = add(s, 7, 3, 9);
    cr_expect_eq(a, same);
    cr_expect_eq(find(s, 8), NULL);
    pl_soft_block_drop(a);
    pl_soft_block_drop(same);
    a = find(s, 7);
    cr_assert_not_null(a, "remembered");
    int32_t n;
    cr_expect_eq(pl_soft_rows_at(s, FIRST, &n)[0], 1);
    pl_soft_block_drop(a);
    pl_soft_rows_free(s);
}

Test(soft_rows, the_longest_unused_goes_first)
{
    pl_soft_rows *s = open_store(FIRST, 5 * ROW);
    pl_soft_block *held = add(s, 1, 4, 1);
    pl_soft_block_drop(add(s, 2, 2, 2));
    pl_soft_block_drop(add(s, 3, 2, 3));
    pl_soft_block_drop(find(s, 2));
    pl_soft_block_drop(add(s, 4, 2, 4)); /* 6 rows that nobody holds */
    pl_soft_block *second = find(s, 2), *third = find(s, 3), *fourth = find(s, 4);
    cr_expect(second && !third && fourth);
    cr_expect_eq(pl_soft_rows_bytes(s), 8 * ROW);
    pl_soft_block_drop(second);
    pl_soft_block_drop(fourth);
    pl_soft_block_drop(held); /* the last one used, with 4 rows: the others go */
    cr_expect_eq(pl_soft_rows_bytes(s), 4 * ROW);
    pl_soft_rows_free(s);
}

Test(soft_rows, held_by_ids)
{
    pl_soft_rows *s = open_store(FIRST, 0);
    pl_soft_block *a = add(s, 0, 3, 1), *b = add(s, 0, 2, 2);
    const int32_t ids[] = {5, FIRST + 1, FIRST + 2, 6, FIRST + 4, FIRST};
    pl_soft_holds holds = {0};
    pl_error err;
    cr_assert_eq(pl_soft_rows_hold(s, ids, 6, "token", &holds, &err), PL_OK);
    pl_soft_block_drop(a);
    pl_soft_block_drop(b);
    cr_expect_eq(pl_soft_rows_bytes(s), 5 * ROW);
    const int32_t dead[] = {FIRST, FIRST + 5};
    cr_assert_eq(pl_soft_rows_hold(s, dead, 2, "token", &holds, &err), PL_ERR_ARGUMENT);
    cr_expect_eq(holds.n, 3, "as before");
    cr_expect_str_eq(err.message, "token 1 is 1005, which stands for no image or sound that is still there");
    pl_soft_holds_free(&holds);
    cr_expect_eq(pl_soft_rows_bytes(s), 0);
    cr_expect_eq(pl_soft_rows_hold(s, dead, 1, "token", &holds, &err), PL_ERR_ARGUMENT);
    pl_soft_rows_free(s);
}

/* Behind the largest id they begin again, past those that are there. */
Test(soft_rows, round)
{
    pl_soft_rows *s = open_store(INT32_MAX - 9, 0);
    pl_soft_block *a = add(s, 0, 2, 1), *b = add(s, 0, 3, 2), *c = add(s, 0, 4, 3);
    cr_expect_eq(pl_soft_rows_laps(s), 0);
    pl_soft_block_drop(b);
    pl_soft_block *d = add(s, 0, 3, 4);
    cr_expect_eq(pl_soft_block_first(d), INT32_MAX - 9 + 2, "between the two that are left");
    cr_expect_eq(pl_soft_rows_laps(s), 1);
    int32_t n;
    cr_expect_eq(pl_soft_rows_at(s, INT32_MAX - 9 + 2, &n)[0], 4);
    cr_expect_eq(pl_soft_rows_at(s, INT32_MAX - 9 + 5, &n)[0], 3);
    pl_soft_block_drop(a);
    pl_soft_block_drop(c);
    pl_soft_block_drop(d);
    pl_soft_rows_free(s);
}

static void *come_and_go(void *arg)
{
    pl_soft_rows *s = arg;
    for (uint64_t i = 0; i < 2000; i++) {
        pl_soft_block *b = add(s, 1 + i % 7, 3, (float)(i % 7)), *none = add(s, 0, 1, 9);
        int32_t n, first = pl_soft_block_first(b);
        pl_soft_holds holds = {0};
        cr_assert_eq(pl_soft_rows_at(s, first + 1, &n)[0], (float)(i % 7));
        cr_assert_eq(pl_soft_rows_hold(s, &first, 1, "token", &holds, NULL), PL_OK);
        pl_soft_block_drop(b);
        pl_soft_block_drop(none);
        pl_soft_holds_free(&holds);
    }
    return NULL;
}

Test(soft_rows, threads)
{
    pl_soft_rows *s = open_store(FIRST, 12 * ROW);
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, come_and_go, s), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    cr_expect_leq(pl_soft_rows_bytes(s), 12 * ROW);
    pl_soft_rows_free(s);
}
