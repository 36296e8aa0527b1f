/* Decimal numbers and ranges of them, without rounding. */
#include <stdlib.h>
#include <string.h>

#include "host/grammar/number_range.h"

#define LONGEST_EXPONENT 5000

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void add_whole(pl_decimal *d, char digit)
{
    d->huge = d->huge || __builtin_mul_overflow(d->whole, (uint64_t)10, &d->whole) ||
              __builtin_add_overflow(d->whole, (uint64_t)(digit - '0'), &d->whole);
}

static void drop_zeros(char *digits, size_t n)
{
    while (n && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
}

/* The digits from `text` on, `places` of them before the point. */
static void read_digits(pl_decimal *d, const char *text, long places)
{
    size_t n = 0;
    for (; places < 0 && n < PL_FRACTION_DIGITS; places++)
        d->fraction[n++] = '0';
    for (; is_digit(*text) || *text == '.'; text++) {
        if (*text == '.')
            continue;
        if (places > 0) {
            add_whole(d, *text);
            places--;
        } else if (n < PL_FRACTION_DIGITS) {
            d->fraction[n++] = *text;
        }
    }
    for (; places > 0 && !d->huge && d->whole; places--)
        add_whole(d, '0');
    drop_zeros(d->fraction, n);
}

pl_decimal pl_decimal_read(const char *text)
{
    pl_decimal d = {0};
    bool minus = *text == '-';
    text += minus;
    size_t whole = strspn(text, "0123456789"), mantissa = strspn(text, "0123456789.");
    long exponent = text[mantissa] ? strtol(text + mantissa + 1, NULL, 10) : 0;
    if (exponent > LONGEST_EXPONENT)
        exponent = LONGEST_EXPONENT;
    if (exponent < -LONGEST_EXPONENT)
        exponent = -LONGEST_EXPONENT;
    read_digits(&d, text, (long)whole + exponent);
    d.negative = minus && (d.huge || d.whole || d.fraction[0]);
    return d;
}

static int compare_size(const pl_decimal *a, const pl_decimal *b)
{
    if (a->huge || b->huge)
        return a->huge - b->huge;
    if (a->whole != b->whole)
        return a->whole < b->whole ? -1 : 1;
    return strcmp(a->fraction, b->fraction);
}

int pl_decimal_compare(const pl_decimal *a, const pl_decimal *b)
{
    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    return a->negative ? compare_size(b, a) : compare_size(a, b);
}

void pl_number_range_min(pl_number_range *range, const pl_decimal *min, bool exclusive)
{
    int order = range->has_min ? pl_decimal_compare(min, &range->min) : 1;
    if (order > 0) {
        range->min = *min;
        range->above = exclusive;
    } else if (order == 0) {
        range->above = range->above || exclusive;
    }
    range->has_min = true;
}

void pl_number_range_max(pl_number_range *range, const pl_decimal *max, bool exclusive)
{
    int order = range->has_max ? pl_decimal_compare(max, &range->max) : -1;
    if (order < 0) {
        range->max = *max;
        range->below = exclusive;
    } else if (order == 0) {
        range->below = range->below || exclusive;
    }
    range->has_max = true;
}

bool pl_number_range_has(const pl_number_range *range, const pl_decimal *value)
{
    int low = range->has_min ? pl_decimal_compare(value, &range->min) : 1;
    int high = range->has_max ? pl_decimal_compare(value, &range->max) : -1;
    return (low > 0 || (low == 0 && !range->above)) && (high < 0 || (high == 0 && !range->below));
}
