/* Status and error messages, for everyone: one way to fail.
 *
 *     pl_status f(..., pl_error *err)
 *     {
 *         PL_TRY(g(..., err));
 *         if (bad)
 *             return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s is cut short", path, name);
 *         return PL_OK;
 *     }
 */
#ifndef PL_BASE_STATUS_H
#define PL_BASE_STATUS_H

#include "host/include/pleiad.h"

#if defined(__GNUC__)
#define PL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PL_PRINTF(fmt, args)
#endif

/* Fills err (unless NULL) and returns status. Control bytes in the message become '?', so that a hostile
 * file cannot speak to the terminal; a message that is too long is cut. */
pl_status pl_fail(pl_error *err, pl_status status, const char *fmt, ...) PL_PRINTF(3, 4);

/* Puts "context: " before the message that err already holds; returns its status. */
pl_status pl_fail_within(pl_error *err, pl_status status, const char *fmt, ...) PL_PRINTF(3, 4);

/* The message for a failed allocation of `bytes` for `what`. */
pl_status pl_fail_memory(pl_error *err, size_t bytes, const char *what);

/* The three above never return PL_OK: said to compilers and analysers here, so that they see what a caller's
 * PL_TRY leaves behind. */
static inline pl_status pl_failed(pl_status status)
{
    if (status == PL_OK)
        __builtin_unreachable();
    return status;
}
#define pl_fail(...) pl_failed(pl_fail(__VA_ARGS__))
#define pl_fail_within(...) pl_failed(pl_fail_within(__VA_ARGS__))
#define pl_fail_memory(...) pl_failed(pl_fail_memory(__VA_ARGS__))

#define PL_TRY(call)                                                                                                   \
    do {                                                                                                               \
        pl_status pl_try_status = (call);                                                                              \
        if (pl_try_status != PL_OK)                                                                                    \
            return pl_try_status;                                                                                      \
    } while (0)

/* The same for functions with something to clean up: sets `status` and goes to `fail`. */
#define PL_TRY_GOTO(call)                                                                                              \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != PL_OK)                                                                                           \
            goto fail;                                                                                                 \
    } while (0)

#endif
