/* Importance matrices: for each matrix of the model the sums of squares of what it was multiplied with, a value a
 * column. Read and written in llama.cpp's formats (tools/imatrix): GGUF, and the older .dat. */
#ifndef PL_MODEL_IMATRIX_H
#define PL_MODEL_IMATRIX_H

#include "host/base/arena.h"
#include "host/base/status.h"

typedef struct pl_imatrix_entry {
    const char *name; /* the tensor's in GGUF: "blk.3.ffn_down.weight" */
    int64_t cols;
    int n_mat;     /* matrices in the tensor: 3 of the AltUp projections, else 1 */
    double *sum2;  /* [n_mat][cols] sums over tokens of x^2 */
    double *count; /* [n_mat] tokens */
} pl_imatrix_entry;

/* What a matrix is collected from and how far that got, so that it can go on: keys "pleiad.imatrix.*" in GGUF. */
typedef struct pl_imatrix_run {
    const char *model;      /* its name, for people */
    uint64_t model_print;   /* what tells it from others */
    uint64_t text_print;    /* pl_passages.fingerprint */
    int32_t passages, done; /* of the text; read so far: all of them on paths[0], then all on paths[1] ... */
    const char *const *paths;
    size_t n_paths;
    const double *sums; /* [n_sums] the collector's own, exact; NULL once all is read */
    size_t n_sums;
} pl_imatrix_run;

typedef struct pl_imatrix {
    pl_imatrix_entry *entries; /* sorted by name */
    size_t n, room;            /* room: entries that fit before the list must move */
    const char **datasets;     /* names of the texts */
    size_t n_datasets;
    int64_t chunks;            /* pieces of text that went in */
    int32_t chunk_size;        /* tokens each; 0: not known (.dat), the counts are of chunks then */
    const pl_imatrix_run *run; /* NULL: not known */
    pl_arena *arena;           /* owns all of it but what a caller makes run point to */
} pl_imatrix;

pl_status pl_imatrix_create(pl_imatrix **out, pl_error *err);
void pl_imatrix_free(pl_imatrix *m);

/* Either format, told by its beginning. Values are checked: finite, not negative, shapes that fit the file. */
pl_status pl_imatrix_read(const char *path, pl_imatrix **out, pl_error *err);

/* The same from memory; `where` names it in messages. */
pl_status pl_imatrix_parse(const unsigned char *data, size_t size, const char *where, pl_imatrix **out, pl_error *err);

/* Entries that nothing was counted for are left out; when that leaves none it is PL_ERR_ARGUMENT. A .dat holds means
 * only, the last dataset's name and no run. */
pl_status pl_imatrix_write_gguf(const pl_imatrix *m, const char *path, pl_error *err);
pl_status pl_imatrix_write_dat(const pl_imatrix *m, const char *path, pl_error *err);

/* NULL when there is none of this name. */
const pl_imatrix_entry *pl_imatrix_find(const pl_imatrix *m, const char *name);

/* The entry of this name, made with zeros if need be; one of another shape is PL_ERR_FORMAT. *out: valid until
 * another entry is made; its name, sum2 and count stay where they are. */
pl_status pl_imatrix_entry_at(pl_imatrix *m, const char *name, int64_t cols, int n_mat, pl_imatrix_entry **out,
                              pl_error *err);

/* m += other: sums, counts, chunks (as many as there are of m's size) and names of datasets, but not the run; `where`
 * names other in messages. Where only one knows its chunk size, the other's chunks count as ones of that size. On
 * failure m holds part of it. */
pl_status pl_imatrix_add(pl_imatrix *m, const pl_imatrix *other, const char *where, pl_error *err);

#endif
