/* Instructions CUDA C++ has no name for: every line of inline assembly, each with a twin that does the same on a CPU
 * for the tests (tests/cuda). Lanes, registers and layouts as in the PTX ISA, "Matrix multiply-accumulate". Cards
 * before Ampere (PTX_TURING) do in several instructions what later ones do in one; bf16 they do not multiply. */
#ifndef PL_CUDA_PTX_CUH
#define PL_CUDA_PTX_CUH

#include "cuda/kd.cuh"

#define PTX_FN static __device__ __forceinline__
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define PTX_TURING 1
#else
#define PTX_TURING 0
#endif
/* Where the kernel calls it, for the CPU's reports. */
#if KD_EMU
#define PTX_AT , ::emu::site at = ::emu::site::here()
#else
#define PTX_AT
#endif

namespace ptx
{

#if !KD_EMU
PTX_FN uint32_t smem_u32(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
#endif

/* ---- memory */

/* 16, 8, 4 bytes that no kernel writes while this one runs, read once: past the first cache. */
PTX_FN uint4 ld_nc_v4(const void *p PTX_AT)
{
#if KD_EMU
    return ::emu::load<uint4>(p, "ld_nc_v4", at);
#else
    uint4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "l"(p));
    return r;
#endif
}

PTX_FN uint2 ld_nc_v2(const void *p PTX_AT)
{
#if KD_EMU
    return ::emu::load<uint2>(p, "ld_nc_v2", at);
#else
    uint2 r;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(r.x), "=r"(r.y) : "l"(p));
    return r;
#endif
}

PTX_FN uint32_t ld_nc_u32(const void *p PTX_AT)
{
#if KD_EMU
    return ::emu::load<uint32_t>(p, "ld_nc_u32", at);
#else
    uint32_t r;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(r) : "l"(p));
    return r;
#endif
}

/* What a thread wrote before its add with release is seen by those whose acquire sees that add. */
PTX_FN unsigned ld_acquire(const unsigned *p)
{
#if KD_EMU
    return ::emu::ld_acquire(p);
#else
    unsigned r;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
    return r;
#endif
}

/* The same of what a thread of the host wrote before it stored to *p with release. */
PTX_FN unsigned ld_acquire_sys(const unsigned *p)
{
#if KD_EMU
    return ::emu::ld_acquire(p);
#else
    unsigned r;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
    return r;
#endif
}

/* The host's threads, once they load it with acquire, see what this thread wrote before. */
PTX_FN void st_release_sys(uint64_t *p, uint64_t v)
{
#if KD_EMU
    ::emu::before_atomic(p);
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
#else
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
#endif
}

PTX_FN unsigned atom_add_release(unsigned *p, unsigned v)
{
#if KD_EMU
    return ::emu::atom_add_release(p, v);
#else
    unsigned r;
    asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;" : "=r"(r) : "l"(p), "r"(v) : "memory");
    return r;
#endif
}

PTX_FN unsigned atom_add_acq_rel(unsigned *p, unsigned v)
{
#if KD_EMU
    return ::emu::atom_add_acq_rel(p, v);
#else
    unsigned r;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(r) : "l"(p), "r"(v) : "memory");
    return r;
#endif
}

/* ---- copies into shared memory behind the kernel's back; before Ampere at once, waits are none then */

/* 16 bytes; without pred zeros, and src is not read. */
PTX_FN void cp_async_16(void *dst, const void *src, bool pred = true PTX_AT)
{
#if KD_EMU
    ::emu::cp_async(dst, src, 16, pred ? 16 : 0, at);
#elif PTX_TURING
    *static_cast<uint4 *>(dst) = pred ? *static_cast<const uint4 *>(src) : make_uint4(0, 0, 0, 0);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem_u32(dst)), "l"(src), "r"(pred ? 16 : 0)
                 : "memory");
#endif
}

/* The same for 4 bytes. */
PTX_FN void cp_async_4(void *dst, const void *src, bool pred = true PTX_AT)
{
#if KD_EMU
    ::emu::cp_async(dst, src, 4, pred ? 4 : 0, at);
#elif PTX_TURING
    *static_cast<uint32_t *>(dst) = pred ? *static_cast<const uint32_t *>(src) : 0;
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(smem_u32(dst)), "l"(src), "r"(pred ? 4 : 0)
                 : "memory");
#endif
}

PTX_FN void cp_async_commit()
{
#if KD_EMU
    ::emu::cp_async_commit();
#elif !PTX_TURING
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Until no more than the last N groups of this thread are under way; others' copies need a barrier as well. */
template <int N> PTX_FN void cp_async_wait()
{
#if KD_EMU
    ::emu::cp_async_wait(N);
#elif !PTX_TURING
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* ---- matrices; all 32 lanes take part */

/* 8x8 matrices of 16-bit elements: lanes 8i to 8i + 7 hold the addresses of the rows of matrix i. */
PTX_FN void ldmatrix_x4(uint32_t (&r)[4], const void *row PTX_AT)
{
#if KD_EMU
    ::emu::ldmatrix(r, 4, row, false, at);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem_u32(row))
                 : "memory");
#endif
}

PTX_FN void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row PTX_AT)
{
#if KD_EMU
    ::emu::ldmatrix(r, 4, row, true, at);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem_u32(row))
                 : "memory");
#endif
}

PTX_FN void ldmatrix_x2(uint32_t (&r)[2], const void *row PTX_AT)
{
#if KD_EMU
    ::emu::ldmatrix(r, 2, row, false, at);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(smem_u32(row))
                 : "memory");
#endif
}

#if PTX_TURING
/* d0, d1 += a * b: a 8 x 16, b 16 x 8 of bytes. */
PTX_FN void mma_s8_8816(int32_t &d0, int32_t &d1, uint32_t a, uint32_t b)
{
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(d0), "+r"(d1)
                 : "r"(a), "r"(b));
}

/* d += a * b: a 16 x 8, b 8 x 8. */
PTX_FN void mma_f16_1688(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(b));
}
#endif

/* d += a * b: a 16 x 16 by rows, b 16 x 8 by columns. Not before Ampere: hosts launch no kernel there that has it. */
PTX_FN void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1 PTX_AT)
{
#if KD_EMU
    ::emu::mma_bf16_16816(d, a, b0, b1, at);
#elif PTX_TURING
    __trap();
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

PTX_FN void mma_f16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1 PTX_AT)
{
#if KD_EMU
    ::emu::mma_f16_16816(d, a, b0, b1, at);
#elif PTX_TURING
    mma_f16_1688(d, a[0], a[1], b0);
    mma_f16_1688(d, a[2], a[3], b1);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/* a 16 x 16, b 16 x 8 of bytes, sums exact. */
PTX_FN void mma_s8_16816(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t b PTX_AT)
{
#if KD_EMU
    const uint32_t a[4] = {a0, a1, 0, 0};
    ::emu::mma_s8_16832(d, a, b, 0, at);
#elif PTX_TURING
    mma_s8_8816(d[0], d[1], a0, b);
    mma_s8_8816(d[2], d[3], a1, b);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a0), "r"(a1), "r"(b));
#endif
}

/* a 16 x 32, b 32 x 8, sums exact. */
PTX_FN void mma_s8_16832(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1 PTX_AT)
{
#if KD_EMU
    ::emu::mma_s8_16832(d, a, b0, b1, at);
#elif PTX_TURING
    mma_s8_8816(d[0], d[1], a[0], b0);
    mma_s8_8816(d[2], d[3], a[1], b0);
    mma_s8_8816(d[0], d[1], a[2], b1);
    mma_s8_8816(d[2], d[3], a[3], b1);
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/* ---- over a warp */

/* All 32 lanes take part, and all get the result. */
PTX_FN uint32_t warp_max(uint32_t v PTX_AT)
{
#if KD_EMU
    return __reduce_max_sync(0xffffffffu, v, at);
#elif PTX_TURING
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        v = max(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
#else
    return __reduce_max_sync(0xffffffffu, v);
#endif
}

/* ---- barriers */

/* Named barrier 1 to 15 of `threads` threads of the block, whole warps. */
PTX_FN void bar_sync(int id, int threads PTX_AT)
{
#if KD_EMU
    ::emu::bar_sync(id, threads, at);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

} // namespace ptx

#undef PTX_AT
#undef PTX_TURING
#undef PTX_FN

#endif
