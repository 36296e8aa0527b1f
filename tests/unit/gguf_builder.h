/* Builds GGUF files piece by piece, right ones and wrong ones. */
#ifndef PL_TESTS_UNIT_GGUF_BUILDER_H
#define PL_TESTS_UNIT_GGUF_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/model/gguf.h"
#include "quant/blocks.h"
#include "tests/unit/scratch.h"

typedef struct built_key {
    char name[80];
    unsigned char *value; /* type id and value as they stand in the file */
    size_t n;
} built_key;

typedef struct built_tensor {
    char name[80];
    uint32_t n_dims;
    uint64_t ne[8]; /* fastest first */
    uint32_t type;
    uint64_t offset; /* set by gguf_builder_place() */
    unsigned char *data;
    size_t n;
} built_tensor;

typedef struct gguf_builder {
    uint32_t magic, version;
    uint64_t alignment;
    built_key *keys;
    size_t n_keys;
    built_tensor *tensors;
    size_t n_tensors;
    uint64_t extra_tensors, extra_keys; /* added to the counts in the header */
} gguf_builder;

void gguf_builder_init(gguf_builder *b);
void gguf_builder_free(gguf_builder *b);

/* Sets a key, in place where it exists already. */
void gguf_builder_raw(gguf_builder *b, const char *key, uint32_t type, const void *value, size_t n);
void gguf_builder_u32(gguf_builder *b, const char *key, uint32_t value);
void gguf_builder_f32(gguf_builder *b, const char *key, float value);
void gguf_builder_bool(gguf_builder *b, const char *key, bool value);
void gguf_builder_text(gguf_builder *b, const char *key, const char *value);
void gguf_builder_array(gguf_builder *b, const char *key, uint32_t type, const void *values, uint64_t n, size_t size);
void gguf_builder_texts(gguf_builder *b, const char *key, const char *const *values, uint64_t n);
void gguf_builder_drop_key(gguf_builder *b, const char *key);

/* Adds a tensor of small values; ne fastest first. */
built_tensor *gguf_builder_tensor(gguf_builder *b, const char *name, uint32_t type, uint32_t n_dims, uint64_t ne0,
                                  uint64_t ne1, uint64_t ne2);
built_tensor *gguf_builder_find(gguf_builder *b, const char *name);
void gguf_builder_drop_tensor(gguf_builder *b, const char *name);

/* Gives a tensor another type or shape, with data to match. */
void gguf_builder_retype(built_tensor *tensor, uint32_t type);
void gguf_builder_reshape(built_tensor *tensor, uint32_t n_dims, uint64_t ne0, uint64_t ne1, uint64_t ne2);

/* Lays out the tensors one behind the other. */
void gguf_builder_place(gguf_builder *b);

/* The same without data: for files of full size, which gguf_builder_write_hollow() makes as one big hole. */
built_tensor *gguf_builder_hollow(gguf_builder *b, const char *name, uint32_t type, uint32_t n_dims, uint64_t ne0,
                                  uint64_t ne1, uint64_t ne2);
bool gguf_builder_write_hollow(const gguf_builder *b, const char *path);

/* The file as it stands, malloc'ed. Data of tensors whose place was changed goes where their offset says as
 * far as that is possible. */
unsigned char *gguf_builder_bytes(const gguf_builder *b, size_t *n);

/* Writes these bytes into the folder; returns the path. */
const char *gguf_builder_write(const gguf_builder *b, scratch *s, const char *name);

size_t gguf_builder_header_bytes(const gguf_builder *b);

/* A Gemma 3n of 4 layers (2 own K/V; local, global, local, global), hidden 32, 2 heads and 1 K/V head of 16,
 * FFN 64, 8 per-layer inputs, LAuReL rank 4, 16 pieces; F32 but for FFN matrices in Q8_0. Placed. */
#define TINY_LAYERS 4
#define TINY_VOCAB 16
void gguf_builder_tiny(gguf_builder *b);

#endif
