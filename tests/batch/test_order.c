#include "host/batch/order.h"
#include "tests/unit/scratch.h"

#define CHAT "/v1/chat/completions"

static pl_order_key key_of(const char *url, const char *body)
{
    json_t *root = json_loads(body, 0, NULL);
    cr_assert_not_null(root, "%s", body);
    pl_order_key key = {.bytes = (uint32_t)strlen(body)};
    pl_order_key_make(url, root, &key);
    json_decref(root);
    return key;
}

/* A chat of a system prompt of n letters c, and a question. */
static pl_order_key chat(char c, int n, const char *question)
{
    char body[8192], system[6001];
    memset(system, c, (size_t)n);
    system[n] = '\0';
    snprintf(body, sizeof body,
             "{\"messages\": [{\"role\": \"system\", \"content\": \"%s\"}, {\"role\": \"user\", \"content\": \"%s\"}]}",
             system, question);
    return key_of(CHAT, body);
}

/* How many levels two keys share. */
static int shared(pl_order_key a, pl_order_key b)
{
    int n = 0;
    while (n < PL_ORDER_LEVELS && a.prefix[n] == b.prefix[n])
        n++;
    for (int i = n; i < PL_ORDER_LEVELS; i++)
        cr_assert_neq(a.prefix[i], b.prefix[i]);
    return n;
}

Test(order, keys_share_what_the_texts_share)
{
    cr_assert_eq(shared(chat('a', 100, "x"), chat('a', 100, "y")), 0);
    cr_assert_eq(shared(chat('a', 300, "x"), chat('a', 300, "y")), 1);
    cr_assert_eq(shared(chat('a', 1100, "x"), chat('a', 1100, "y")), 2);
    cr_assert_eq(shared(chat('a', 5000, "x"), chat('a', 5000, "y")), 3);
    cr_assert_eq(shared(chat('a', 5000, "x"), chat('b', 5000, "x")), 0);
    cr_assert_eq(shared(chat('a', 10, "x"), chat('a', 10, "x")), 3);
}

Test(order, keys_know_url_model_and_path)
{
    const char *body = "{\"prompt\": \"p\"}";
    cr_assert_eq(shared(key_of(CHAT, body), key_of("/v1/completions", body)), 0);
    cr_assert_eq(shared(key_of(CHAT, body), key_of(CHAT, "{\"prompt\": \"p\", \"model\": \"m\"}")), 0);
    cr_assert_eq(shared(key_of(CHAT, body), key_of(CHAT, "{\"prompt\": \"p\", \"path\": \"e2b\"}")), 0);
    cr_assert_eq(shared(key_of(CHAT, body), key_of(CHAT, "{\"max_tokens\": 3, \"prompt\": \"p\"}")), 3);
    cr_assert_eq(shared(key_of(CHAT, "{\"prompt\": [5, 6]}"), key_of(CHAT, "{\"prompt\": [5, 7]}")), 0);
    cr_assert_eq(shared(key_of(CHAT, "{\"prompt\": [\"ab\", \"c\"]}"), key_of(CHAT, "{\"prompt\": [\"a\", \"bc\"]}")),
                 0);
    cr_assert_eq(shared(key_of(CHAT, "{\"input\": \"p\"}"), key_of(CHAT, "{\"input\": \"q\"}")), 0);
}

Test(order, tools_and_system_prompts_come_first)
{
    char tools[1200], a[3000], b[3000];
    memset(tools, 't', 1199);
    tools[1199] = '\0';
    snprintf(a, sizeof a, "{\"messages\": [{\"content\": \"x\"}], \"tools\": [{\"name\": \"%s\"}]}", tools);
    snprintf(b, sizeof b, "{\"tools\": [{\"name\": \"%s\"}], \"messages\": [{\"content\": \"y\"}]}", tools);
    cr_assert_eq(shared(key_of(CHAT, a), key_of(CHAT, b)), 2);
}

Test(order, groups_begin_where_their_first_line_is)
{
    /*                       level 0, 1, 2    bytes */
    pl_order_key keys[] = {{{50, 90, 9}, 10},  /* 0 */
                           {{20, 11, 8}, 10},  /* 1: another group */
                           {{50, 30, 7}, 10},  /* 2: with 0, but another group of level 1 */
                           {{50, 90, 9}, 30},  /* 3: with 0, longer */
                           {{10, 10, 10}, 99}, /* 4: alone */
                           {{50, 30, 7}, 10},  /* 5: equal to 2 */
                           {{50, 90, 2}, 40}}; /* 6: with 0 and 3 in level 1 only */
    uint32_t order[] = {0, 1, 2, 3, 4, 5, 6};
    static const uint32_t expected[] = {3, 0, 6, 2, 5, 1, 4};
    pl_order_sort(keys, order, 7);
    cr_assert_arr_eq(order, expected, sizeof expected);
}

Test(order, only_the_given_lines_are_sorted)
{
    pl_order_key keys[] = {{{5, 5, 5}, 1}, {{4, 4, 4}, 9}, {{5, 5, 5}, 2}, {{3, 3, 3}, 9}};
    uint32_t order[] = {0, 2, 3};
    static const uint32_t expected[] = {2, 0, 3};
    pl_order_sort(keys, order, 3);
    cr_assert_arr_eq(order, expected, sizeof expected);
    pl_order_sort(keys, order, 0);
}
