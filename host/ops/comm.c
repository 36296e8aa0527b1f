#include "host/ops/comm.h"

pl_status pl_comm_create(pl_backend *const *backends, int n, pl_comm **out, pl_error *err)
{
    if (n < 1 || n > PL_COMM_MOST)
        return pl_fail(err, PL_ERR_ARGUMENT, "%d ranks, expected 1 to %d", n, PL_COMM_MOST);
    pl_status (*create)(pl_backend *const *, int, pl_comm **, pl_error *) = backends[0]->comm_create;
    for (int i = 0; i < n; i++)
        if (!create || backends[i]->comm_create != create)
            return pl_fail(err, PL_ERR_UNSUPPORTED, "%s and %s cannot compute as ranks of one engine",
                           backends[0]->name, backends[i]->name);
    return create(backends, n, out, err);
}
