/* The twins of ldmatrix and mma: fragments as in the PTX ISA. g is a lane's group of four, t its place in the group. */
#include "tests/cuda/sanitize.hpp"
#include "tests/cuda/warp.hpp"

namespace emu
{

/* ---- ldmatrix */

static const void *row_of(const warp *w, int matrix, unsigned row)
{
    return w->slot[8 * static_cast<unsigned>(matrix) + row].from;
}

/* Rows that lie in the same 16 bytes of the 128 that the banks serve at once cost one more turn each. */
static void count_conflicts(const warp *w, int matrix)
{
    int ways[8] = {0}, worst = 1;
    for (unsigned row = 0; row < 8; row++) {
        const int n = ++ways[reinterpret_cast<uintptr_t>(row_of(w, matrix, row)) >> 4 & 7];
        worst = n > worst ? n : worst;
    }
    bank_conflicts += static_cast<unsigned>(worst - 1);
}

static uint32_t element(const warp *w, int matrix, unsigned row, unsigned column)
{
    return static_cast<const uint16_t *>(row_of(w, matrix, row))[column];
}

void ldmatrix(uint32_t *out, int matrices, const void *row, bool transposed, site at)
{
    thread *me = self();
    if (me->lane < 8 * static_cast<unsigned>(matrices)) {
        check_aligned(row, 16, "ldmatrix", at);
        check_shared(row, 16, "ldmatrix", at);
        note_read(row, 16);
    }
    lane_slot *slot = my_slot();
    slot->from = row;
    slot->to = out;
    meet("ldmatrix", matrices * 2 + transposed, 0xffffffffu, at, [matrices, transposed](warp *w, uint32_t lanes) {
        for (int i = 0; i < matrices; i++) {
            count_conflicts(w, i);
            for_lanes(lanes, [&](unsigned l) {
                const unsigned g = l / 4, t = l % 4;
                const uint32_t low = transposed ? element(w, i, 2 * t, g) : element(w, i, g, 2 * t);
                const uint32_t high = transposed ? element(w, i, 2 * t + 1, g) : element(w, i, g, 2 * t + 1);
                static_cast<uint32_t *>(w->slot[l].to)[i] = low | high << 16;
            });
        }
    });
}

/* ---- mma: a 16 x K by rows, b K x 8 by columns, d 16 x 8 */

struct fragments {
    const uint32_t *a;
    uint32_t b[2];
};

struct bf16_format {
    typedef float value;
    static constexpr unsigned per_register = 2;
    static float read(uint32_t bits)
    {
        return __uint_as_float(bits << 16);
    }
};

struct f16_format {
    typedef float value;
    static constexpr unsigned per_register = 2;
    static float read(uint32_t bits)
    {
        __half_raw raw;
        raw.x = static_cast<unsigned short>(bits);
        return __half2float(__half(raw));
    }
};

struct s8_format {
    typedef int32_t value;
    static constexpr unsigned per_register = 4;
    static int32_t read(uint32_t bits)
    {
        return static_cast<int8_t>(bits);
    }
};

template <class F> static void multiply(warp *w)
{
    typedef typename F::value value;
    constexpr unsigned n = F::per_register, bits = 32 / n, mask = (1u << bits) - 1, depth = 8 * n;
    value a[16][depth], b[8][depth];
    for (unsigned l = 0; l < warp_lanes; l++) {
        const fragments *in = static_cast<const fragments *>(w->slot[l].from);
        const unsigned g = l / 4, t = l % 4;
        for (unsigned h = 0; h < n; h++) {
            for (unsigned r = 0; r < 4; r++)
                a[g + 8 * (r % 2)][n * t + h + 4 * n * (r / 2)] = F::read(in->a[r] >> (bits * h) & mask);
            for (unsigned r = 0; r < 2; r++)
                b[g][n * t + h + 4 * n * r] = F::read(in->b[r] >> (bits * h) & mask);
        }
    }
    for (unsigned l = 0; l < warp_lanes; l++) {
        value *d = static_cast<value *>(w->slot[l].to);
        const unsigned g = l / 4, t = l % 4;
        for (unsigned r = 0; r < 4; r++) {
            value sum = 0;
            for (unsigned k = 0; k < depth; k++)
                sum += a[g + 8 * (r / 2)][k] * b[2 * t + r % 2][k];
            d[r] += sum;
        }
    }
}

template <class F>
static void mma(const char *what, typename F::value *d, const uint32_t *a, uint32_t b0, uint32_t b1, site at)
{
    const fragments in = {a, {b0, b1}};
    lane_slot *slot = my_slot();
    slot->from = &in;
    slot->to = d;
    if (self()->own_warp->n != warp_lanes)
        fail("%s at %s:%d: the warp has only %u lanes", what, at.file, at.line, self()->own_warp->n);
    meet(what, 0, 0xffffffffu, at, [](warp *w, uint32_t) { multiply<F>(w); });
}

void mma_bf16_16816(float *d, const uint32_t *a, uint32_t b0, uint32_t b1, site at)
{
    mma<bf16_format>("mma_bf16_16816", d, a, b0, b1, at);
}

void mma_f16_16816(float *d, const uint32_t *a, uint32_t b0, uint32_t b1, site at)
{
    mma<f16_format>("mma_f16_16816", d, a, b0, b1, at);
}

void mma_s8_16832(int32_t *d, const uint32_t *a, uint32_t b0, uint32_t b1, site at)
{
    mma<s8_format>("mma_s8_16832", d, a, b0, b1, at);
}

} // namespace emu
