/* The one way from a plan to a GGUF file: reads, converts and writes a few rows at a time on all threads. */
#ifndef PL_CONVERT_WRITE_GGUF_H
#define PL_CONVERT_WRITE_GGUF_H

#include "host/base/threads.h"
#include "host/convert/export.h"
#include "host/model/imatrix.h"
#include "quant/encode.h"

typedef struct pl_write_options {
    pl_pool *pool;
    const pl_imatrix *imatrix; /* NULL: all errors count the same */
    uint32_t file_type;        /* GGUF's number for the mix */
    pl_progress_fn progress;   /* may be NULL; what: the tensor's name */
    void *progress_user;
    bool (*cancelled)(void *user); /* may be NULL: PL_ERR_CANCELLED between pieces, nothing is left behind */
    void *cancelled_user;
    pl_encode_error *errors; /* [e->n] what each tensor lost, weighted as it was encoded; NULL saves the measuring */
} pl_write_options;

/* Types are e->tensors[i].type. Memory: a few MB a thread. A value that is not finite is PL_ERR_FORMAT naming tensor
 * and place, as is an importance matrix of other sizes; the file appears whole or not at all. */
pl_status pl_write_gguf(const pl_export *e, const char *path, const pl_write_options *options, pl_error *err);

#endif
