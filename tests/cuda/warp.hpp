/* How lanes of a warp do something together. */
#ifndef PL_TESTS_CUDA_WARP_HPP
#define PL_TESTS_CUDA_WARP_HPP

#include "tests/cuda/grid.hpp"

namespace emu
{

/* What this lane brings and takes. */
lane_slot *my_slot();

/* Registers this lane among those of the mask, without lanes that this warp lacks. */
meeting *meet_begin(const char *what, int detail, uint32_t mask, site at);
/* Until the last has come; the last goes through meet_end(). */
void meet_wait();
void meet_end(meeting *m);

/* Waits for all lanes of the mask; the last of them calls together(warp, mask) for all. Lanes must agree in `what`
 * (compared by address) and `detail`. */
template <class F> static inline void meet(const char *what, int detail, uint32_t mask, site at, F together)
{
    meeting *m = meet_begin(what, detail, mask, at);
    if (m->arrived != m->mask) {
        meet_wait();
        return;
    }
    together(self()->own_warp, m->mask);
    meet_end(m);
}

template <class F> static inline void for_lanes(uint32_t mask, F each)
{
    for (; mask; mask &= mask - 1)
        each(static_cast<unsigned>(__builtin_ctz(mask)));
}

/* Fails unless the bytes are within shared memory of this block. */
void check_shared(const void *p, size_t bytes, const char *what, site at);

} // namespace emu

#endif
