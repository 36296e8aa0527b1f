/* The keys of a GGUF file to be written: what it is, its sizes, its tokenizer. */
#ifndef PL_CONVERT_METADATA_H
#define PL_CONVERT_METADATA_H

#include "host/convert/export.h"
#include "host/model/gguf_writer.h"

/* Puts all keys for e: from a GGUF source its own, with sizes and paths as e->config and e->paths have them; from a
 * Hugging Face folder what llama.cpp's converter would write (vocabulary, scores and kinds from tokenizer.json, chat
 * template). file_type: general.file_type, GGUF's number for the mix of types. */
pl_status pl_metadata_put(pl_gguf_writer *w, const pl_export *e, uint32_t file_type, pl_error *err);

#endif
