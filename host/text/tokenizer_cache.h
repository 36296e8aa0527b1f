/* Tables derived from a tokenizer.json, kept in a file that is named by the hash of the json's content. */
#ifndef PL_TEXT_TOKENIZER_CACHE_H
#define PL_TEXT_TOKENIZER_CACHE_H

#include "host/base/mapfile.h"
#include "host/text/token_tables.h"

/* True when dir holds sound tables for this source: *file is their mapping, out reads from it. */
bool pl_tokenizer_cache_load(const char *dir, const uint64_t source[2], pl_mapfile *file, pl_token_tables *out);

/* Writes the image beside its place and moves it there, so that others see all of it or nothing; makes dir if
 * need be. A cache that cannot be written is done without. */
void pl_tokenizer_cache_store(const char *dir, void *image);

#endif
