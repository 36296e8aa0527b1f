#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/options_table.h"

#define MAX_NAME 48

/* ---- nearest names ------------------------------------------------------------------------------ */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, substitutions and swaps of neighbours that lead from a to b. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX_NAME || m >= MAX_NAME)
        return SIZE_MAX;
    size_t rows[3][MAX_NAME + 1];
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3], *above = rows[(i - 1) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], above2[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

pl_nearest pl_nearest_to(const char *given)
{
    return (pl_nearest){.given = given, .distance = strlen(given) / 3 + 1};
}

void pl_nearest_consider(pl_nearest *n, const char *name)
{
    size_t distance = name ? edit_distance(n->given, name) : SIZE_MAX;
    if (distance < n->distance || (distance == n->distance && !n->name)) {
        n->distance = distance;
        n->name = name;
    }
}

/* ---- errors ------------------------------------------------------------------------------------- */

typedef struct text_buffer {
    char text[256];
    size_t n;
} text_buffer;

static void PL_PRINTF(2, 3) put(text_buffer *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(b->text + b->n, sizeof b->text - b->n, fmt, args);
    va_end(args);
    if (n > 0)
        b->n = least(b->n + (size_t)n, sizeof b->text - 1);
}

static void put_label(text_buffer *b, const pl_option *option)
{
    if (option->letter)
        put(b, "-%c/", option->letter);
    put(b, "--%s", option->name);
}

static void put_range(text_buffer *b, const pl_option *option)
{
    if (isinf(option->max))
        put(b, " from %.0f up", option->min);
    else
        put(b, " from %.10g to %.10g", option->min, option->max);
}

static void put_words(text_buffer *b, const pl_option *option)
{
    for (int i = 0; i < PL_OPTION_WORDS && option->words[i]; i++)
        put(b, "%s%s", i ? ", " : "", option->words[i]);
}

static void put_allowed(text_buffer *b, const pl_option *option)
{
    switch (option->kind) {
    case PL_OPTION_FLAG: put(b, "no value"); break;
    case PL_OPTION_INT:
    case PL_OPTION_INT64:
        put(b, "a whole number");
        put_range(b, option);
        break;
    case PL_OPTION_FLOAT:
        put(b, "a number");
        put_range(b, option);
        break;
    case PL_OPTION_BYTES: put(b, "a size such as 3GB, 2900MB or 2.5GiB"); break;
    case PL_OPTION_SECONDS: put(b, "a time such as 90s, 45m, 2.5h or 1h30m"); break;
    case PL_OPTION_INTS:
        put(b, "whole numbers");
        put_range(b, option);
        put(b, ", joined by commas");
        break;
    case PL_OPTION_CHOICE:
        put(b, "one of ");
        put_words(b, option);
        break;
    case PL_OPTION_SAMPLERS:
        put(b, "some of ");
        put_words(b, option);
        put(b, ", each once, joined by ';'");
        break;
    case PL_OPTION_BIASES: put(b, "a token id and what to add to its logit, as in 108-1.5, 108+2 or 108-inf"); break;
    case PL_OPTION_SWITCHES: put(b, "a position and a path, as in 20:e2b, in rising order"); break;
    case PL_OPTION_TEXT:
    case PL_OPTION_TEXTS:
    case PL_OPTION_SHOWN: put(b, "a value (%s)", option->arg); break;
    }
}

pl_status pl_option_fail_value(const pl_option *option, const char *given, const char *suggestion, pl_error *err)
{
    text_buffer b = {.n = 0};
    put_label(&b, option);
    put(&b, " takes ");
    put_allowed(&b, option);
    return pl_fail(err, PL_ERR_ARGUMENT, "%s, not '%.100s'%s%s%s", b.text, given, suggestion ? "; did you mean " : "",
                   suggestion ? suggestion : "", suggestion ? "?" : "");
}

pl_status pl_option_fail_missing(const pl_option *option, pl_error *err)
{
    text_buffer b = {.n = 0};
    put_label(&b, option);
    put(&b, " needs ");
    put_allowed(&b, option);
    return pl_fail(err, PL_ERR_ARGUMENT, "%s", b.text);
}

/* ---- values ------------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool in_range(const pl_option *option, double value)
{
    return value >= option->min && value <= option->max;
}

/* A decimal number at the start of text; *end is behind it. */
static bool read_int(const char *text, const char **end, int64_t *out)
{
    const char *digits = text + (*text == '-' || *text == '+');
    if (!is_digit(*digits))
        return false;
    char *stop;
    errno = 0;
    long long value = strtoll(text, &stop, 10);
    *end = stop;
    *out = value;
    return errno == 0;
}

static bool read_float(const char *text, const char **end, double *out)
{
    const char *p = text + (*text == '-' || *text == '+');
    if (!(is_digit(*p) || (*p == '.' && is_digit(p[1]))) || (*p == '0' && (p[1] == 'x' || p[1] == 'X')))
        return false;
    char *stop;
    *out = strtod(text, &stop);
    *end = stop;
    return true;
}

/* Room for one more item in a list that holds n and grew only by this function; NULL: no memory. */
static void *grow(void *items, size_t n, size_t size)
{
    if (n & (n - 1) || n == 1)
        return items;
    if (n > SIZE_MAX / 2 / size)
        return NULL;
    return realloc(items, (n ? 2 * n : 2) * size);
}

static pl_status add_text(pl_text_list *list, const char *text, pl_error *err)
{
    const char **items = grow(list->items, list->n, sizeof *items);
    if (!items)
        return pl_fail_memory(err, sizeof *items, "command line");
    list->items = items;
    items[list->n++] = text;
    return PL_OK;
}

static pl_status add_ints(pl_int_list *list, const pl_option *option, const char *text, pl_error *err)
{
    for (const char *p = text;; p++) {
        int64_t value;
        if (!read_int(p, &p, &value) || !in_range(option, (double)value) || (*p && *p != ','))
            return pl_option_fail_value(option, text, NULL, err);
        int32_t *items = grow(list->items, list->n, sizeof *items);
        if (!items)
            return pl_fail_memory(err, sizeof *items, "command line");
        list->items = items;
        items[list->n++] = (int32_t)value;
        if (!*p)
            return PL_OK;
    }
}

static pl_status add_bias(pl_bias_list *list, const pl_option *option, const char *text, pl_error *err)
{
    int64_t id;
    const char *p;
    if (!is_digit(*text) || !read_int(text, &p, &id) || id > INT32_MAX || (*p != '+' && *p != '-'))
        return pl_option_fail_value(option, text, NULL, err);
    double bias;
    if (strcmp(p, "-inf") == 0)
        bias = -INFINITY;
    else if (!read_float(p, &p, &bias) || *p || fabs(bias) > option->max)
        return pl_option_fail_value(option, text, NULL, err);
    pl_logit_bias *items = grow(list->items, list->n, sizeof *items);
    if (!items)
        return pl_fail_memory(err, sizeof *items, "command line");
    list->items = items;
    items[list->n++] = (pl_logit_bias){.id = (int32_t)id, .bias = (float)bias};
    return PL_OK;
}

static pl_status add_switch(pl_switch_list *list, const pl_option *option, const char *text, pl_error *err)
{
    int64_t at;
    const char *p;
    if (!read_int(text, &p, &at) || !in_range(option, (double)at) || p[0] != ':' || !p[1] ||
        (list->n && at <= list->items[list->n - 1].at))
        return pl_option_fail_value(option, text, NULL, err);
    pl_switch_point *items = grow(list->items, list->n, sizeof *items);
    if (!items)
        return pl_fail_memory(err, sizeof *items, "command line");
    list->items = items;
    items[list->n++] = (pl_switch_point){.at = at, .path = p + 1};
    return PL_OK;
}

static pl_status add_shown(pl_shown_list *list, const pl_option *option, const char *text, pl_error *err)
{
    pl_shown *items = grow(list->items, list->n, sizeof *items);
    if (!items)
        return pl_fail_memory(err, sizeof *items, "command line");
    list->items = items;
    items[list->n++] = (pl_shown){.kind = option->name, .file = text};
    return PL_OK;
}

static int find_word(const pl_option *option, const char *text, size_t n)
{
    for (int i = 0; i < PL_OPTION_WORDS && option->words[i]; i++)
        if (strlen(option->words[i]) == n && memcmp(option->words[i], text, n) == 0)
            return i;
    return -1;
}

static pl_status set_choice(int32_t *field, const pl_option *option, const char *text, pl_error *err)
{
    int word = find_word(option, text, strlen(text));
    if (word < 0) {
        pl_nearest near = pl_nearest_to(text);
        for (int i = 0; i < PL_OPTION_WORDS; i++)
            pl_nearest_consider(&near, option->words[i]);
        return pl_option_fail_value(option, text, near.name, err);
    }
    *field = word;
    return PL_OK;
}

static pl_status set_samplers(pl_sampler_step *order, const pl_option *option, const char *text, pl_error *err)
{
    pl_sampler_step steps[PL_SAMPLER_STEPS] = {PL_SAMPLER_END};
    unsigned used = 0;
    size_t count = 0;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ";");
        int word = find_word(option, p, n);
        if (word < 0 || used >> word & 1u)
            return pl_option_fail_value(option, text, NULL, err);
        used |= 1u << word;
        steps[count++] = (pl_sampler_step)(word + 1);
        p += n + (p[n] == ';');
    }
    memcpy(order, steps, sizeof steps);
    return PL_OK;
}

static pl_status set_number(void *field, const pl_option *option, const char *text, pl_error *err)
{
    const char *end;
    int64_t whole = 0;
    double value;
    bool ok;
    if (option->kind == PL_OPTION_FLOAT) {
        ok = read_float(text, &end, &value);
    } else {
        ok = read_int(text, &end, &whole);
        value = (double)whole;
    }
    if (!ok || *end || !in_range(option, value))
        return pl_option_fail_value(option, text, NULL, err);
    if (option->kind == PL_OPTION_FLOAT)
        *(float *)field = (float)value;
    else if (option->kind == PL_OPTION_INT)
        *(int32_t *)field = (int32_t)whole;
    else
        *(int64_t *)field = whole;
    return PL_OK;
}

/* "3GB": a number and k, M, G or T for powers of 1000 or, with i, of 1024; "B" may follow. */
static pl_status set_bytes(int64_t *field, const pl_option *option, const char *text, pl_error *err)
{
    static const char prefixes[] = "kMGT";
    const char *p;
    double value;
    if (!read_float(text, &p, &value))
        return pl_option_fail_value(option, text, NULL, err);
    p += *p == ' ';
    const char *prefix = *p ? strchr(prefixes, *p == 'K' ? 'k' : *p) : NULL;
    if (prefix) {
        p++;
        double base = *p == 'i' ? 1024 : 1000;
        p += *p == 'i';
        value *= pow(base, (double)(prefix - prefixes + 1));
    }
    p += *p == 'B';
    if (*p || !in_range(option, value))
        return pl_option_fail_value(option, text, NULL, err);
    *field = (int64_t)value;
    return PL_OK;
}

/* Parts with units of falling size, "1h30m"; a number alone is seconds. */
static pl_status set_seconds(float *field, const pl_option *option, const char *text, pl_error *err)
{
    static const char units[] = "dhms";
    static const double seconds[] = {86400, 3600, 60, 1};
    const char *p = text, *least_unit = units;
    double sum = 0, value;
    while (read_float(p, &p, &value) && value >= 0) {
        const char *unit = *p ? strchr(least_unit, *p) : NULL;
        if (!unit && (*p || p == text || least_unit != units))
            break;
        sum += value * (unit ? seconds[unit - units] : 1);
        if (!unit || !*++p) {
            if (!in_range(option, sum))
                break;
            *field = (float)sum;
            return PL_OK;
        }
        least_unit = unit + 1;
    }
    return pl_option_fail_value(option, text, NULL, err);
}

pl_status pl_option_set(pl_options *options, const pl_option *option, const char *text, pl_error *err)
{
    void *field = (char *)options + option->offset;
    switch (option->kind) {
    case PL_OPTION_FLAG: *(bool *)field = true; return PL_OK;
    case PL_OPTION_INT:
    case PL_OPTION_INT64:
    case PL_OPTION_FLOAT: return set_number(field, option, text, err);
    case PL_OPTION_BYTES: return set_bytes(field, option, text, err);
    case PL_OPTION_SECONDS: return set_seconds(field, option, text, err);
    case PL_OPTION_CHOICE: return set_choice(field, option, text, err);
    case PL_OPTION_TEXT: *(const char **)field = text; return PL_OK;
    case PL_OPTION_TEXTS: return add_text(field, text, err);
    case PL_OPTION_INTS: return add_ints(field, option, text, err);
    case PL_OPTION_BIASES: return add_bias(field, option, text, err);
    case PL_OPTION_SHOWN: return add_shown(field, option, text, err);
    case PL_OPTION_SWITCHES: return add_switch(field, option, text, err);
    case PL_OPTION_SAMPLERS: return set_samplers(field, option, text, err);
    }
    return PL_OK;
}
