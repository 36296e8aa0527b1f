/* K/V memory of a small made-up model, whose "K/V" are numbers that tell every beginning of every sequence from every
 * other: so that whatever page is mixed up, lost or written by two shows. */
#ifndef PL_TESTS_UNIT_KV_FIXTURE_H
#define PL_TESTS_UNIT_KV_FIXTURE_H

#include "host/base/rng.h"
#include "host/engine/prefix_tree.h"

#define KV_WINDOW 100
#define KV_VOCAB (1 << 20) /* ids beyond are those of images */
#define KV_CONTEXT 4096
#define KV_BATCH 700
#define KV_SEQUENCES 4 /* so local pages are the scarcer ones, unless there is a small budget */

typedef struct kv_fixture {
    pl_config config;
    pl_backend *backend;
    pl_kv *kv;
    pl_prefixes *prefixes; /* NULL: none */
} kv_fixture;

/* A sequence and what it should hold. */
typedef struct kv_story {
    int32_t id; /* -1: closed */
    int32_t n;
    int32_t ids[KV_CONTEXT];
    pl_path path;
} kv_story;

/* tokens: as pl_kv_size. */
void kv_fixture_open(kv_fixture *f, int64_t tokens, bool with_prefixes);
void kv_fixture_close(kv_fixture *f);

/* Paths of one class write the same K/V. */
pl_path kv_path(const kv_fixture *f, int class);

void kv_open(kv_fixture *f, kv_story *s, int class);
void kv_close(kv_fixture *f, kv_story *s);

/* As pl_kv_extend() for the next n of its ids, whose K/V it writes. Checks that pl_kv_fits() said the same. */
pl_status kv_extend(kv_fixture *f, kv_story *s, int32_t n, pl_error *err);
int32_t kv_truncate(kv_fixture *f, kv_story *s, int32_t n);

/* That the sequence's K/V are what its tokens make, as far as the token behind them sees. */
void kv_check_story(const kv_fixture *f, const kv_story *s);

/* That pages are counted as they are held. */
void kv_check_pages(const kv_fixture *f);

/* The same of the tree's nodes. */
void kv_check_tree(const kv_fixture *f);

#endif
