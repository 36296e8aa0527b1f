/* What the files of imatrix.h share. */
#ifndef PL_MODEL_IMATRIX_PARTS_H
#define PL_MODEL_IMATRIX_PARTS_H

#include "host/model/imatrix.h"

#define PL_IMATRIX_NAME_BYTES 249 /* of a tensor: what GGUF allows, less what is put behind it */

/* Adds an entry of zeros behind the others; their order and that no name stands twice is for pl_imatrix_sort() to see
 * to. With one count, a tensor whose name says that it is several matrices is taken apart. name: copied. */
pl_status pl_imatrix_append(pl_imatrix *m, const char *name, int64_t values, int64_t counts, pl_imatrix_entry **out,
                            pl_error *err);
pl_status pl_imatrix_sort(pl_imatrix *m, const char *where, pl_error *err);

/* PL_ERR_FORMAT unless all sums and counts are finite and not negative and no sum stands without a count. */
pl_status pl_imatrix_check_entry(const pl_imatrix_entry *entry, const char *where, pl_error *err);

/* Whether anything was counted. */
bool pl_imatrix_counted(const pl_imatrix_entry *entry);

/* Something was counted, and every sum fits an f32. */
pl_status pl_imatrix_check_writable(const pl_imatrix *m, const char *where, pl_error *err);

/* A dataset's name, copied. */
pl_status pl_imatrix_add_dataset(pl_imatrix *m, const char *name, size_t n, pl_error *err);

/* Fill an empty m. */
pl_status pl_imatrix_parse_gguf(const unsigned char *data, size_t size, const char *where, pl_imatrix *m,
                                pl_error *err);
pl_status pl_imatrix_parse_dat(const unsigned char *data, size_t size, const char *where, pl_imatrix *m, pl_error *err);

#endif
