/* What the files behind metadata.h share. */
#ifndef PL_CONVERT_METADATA_PARTS_H
#define PL_CONVERT_METADATA_PARTS_H

#include "host/convert/folder.h"
#include "host/convert/metadata.h"

/* tokenizer.ggml.*, from the tokenizer.json of e's folder. tokenizer_config: NULL where there is none. */
pl_status pl_metadata_put_vocabulary(pl_gguf_writer *w, const pl_export *e, const json_t *tokenizer_config,
                                     pl_error *err);

#endif
