/* UTF-8 as the Unicode standard has it: shortest forms only, no surrogates, nothing above U+10FFFF. */
#ifndef PL_TEXT_UTF8_H
#define PL_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length in bytes of the character at the start of text[0..n) and its code point; 0 when there is none. */
size_t pl_utf8_next(const char *text, size_t n, uint32_t *code);

bool pl_utf8_valid(const char *text, size_t n);

#endif
