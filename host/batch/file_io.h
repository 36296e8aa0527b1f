/* Reading and writing of files at offsets, whole or with an error that names the file and the reason. path is for messages. */
#ifndef PL_BATCH_FILE_IO_H
#define PL_BATCH_FILE_IO_H

#include "host/base/status.h"

pl_status pl_file_read(int fd, const char *path, uint64_t offset, void *out, size_t n, pl_error *err);
pl_status pl_file_write(int fd, const char *path, uint64_t offset, const void *data, size_t n, pl_error *err);
pl_status pl_file_sync(int fd, const char *path, pl_error *err); /* what it holds, not its times */

/* Names that were made or changed in the folder of the file survive a power cut. */
pl_status pl_folder_sync(const char *path, pl_error *err);

/* The name of a file that belongs to `path`: its own, links followed where it is there, and a suffix. free(); NULL: errno. */
char *pl_file_beside(const char *path, const char *suffix);

#endif
