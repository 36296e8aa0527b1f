/* The inside of a pl_tokenizer, for the files that share it. */
#ifndef PL_TEXT_TOKENIZER_PARTS_H
#define PL_TEXT_TOKENIZER_PARTS_H

#include "host/base/mapfile.h"
#include "host/text/token_tables.h"
#include "host/text/tokenizer.h"

struct pl_tokenizer {
    pl_token_tables tables;
    void *image;     /* the tables' memory when they were built here, else NULL */
    pl_mapfile file; /* the tables' memory when they come from the cache */
};

#endif
