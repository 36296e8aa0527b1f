/* Names of things that are compiled once for each instruction set: PL_ISA is base, avx2 or avx512. */
#ifndef PL_BASE_ISA_H
#define PL_BASE_ISA_H

#define PL_ISA_JOIN2(name, isa) name##_##isa
#define PL_ISA_JOIN(name, isa) PL_ISA_JOIN2(name, isa)
#define PL_ISA_NAME(name) PL_ISA_JOIN(name, PL_ISA)

#endif
