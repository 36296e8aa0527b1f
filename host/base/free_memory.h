/* How much memory of this machine a program may still take. */
#ifndef PL_BASE_FREE_MEMORY_H
#define PL_BASE_FREE_MEMORY_H

#include <stddef.h>

/* Bytes: what the system calls available (free, or page cache that it can give up), and no more than the limits of the
 * control groups that this process is in leave. 0: unknown. */
size_t pl_free_memory(void);

/* The same of a recorded machine: root is the folder that holds its proc/ and sys/; "" is this one. */
size_t pl_free_memory_of(const char *root);

#endif
