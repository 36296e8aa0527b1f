/* The card that tests run on: the CUDA runtime's functions, on the CPU (runtime_*.cpp), and what a test decides about
 * them. Work that was queued runs when the mode says so; the runtime promises a program no more than any of them. */
#ifndef PL_TESTS_CUDA_CARD_H
#define PL_TESTS_CUDA_CARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum card_mode {
    CARD_EAGER,    /* at once */
    CARD_ASKED,    /* when the host waits, and only what it waits for */
    CARD_STARVE,   /* when the host waits; one stream goes before all others */
    CARD_ANY,      /* when the host waits, in any order */
    CARD_THREADED, /* in a thread of its own, in any order */
    CARD_MODES
} card_mode;

/* A fresh card of 256 MiB; seed: of the order of threads, blocks and streams, 0 for the plain one. Ends with a message
 * when anything of the last card is left. */
void card_insert(card_mode mode, uint64_t seed);

/* Cards like it, CARD_MOST at most with it, and NCCL between them. */
#define CARD_MOST 8
void card_insert_more(int n);

/* Which of them is meant below; after card_insert() the first. */
void card_choose(int index);

/* Work runs in the order of another seed from here on. */
void card_reseed(uint64_t seed);

void card_set_bytes(size_t bytes);

/* 0: a machine without one. */
void card_set_present(int present);
void card_set_capability(int major, int minor);

/* The nth from now fails, 1 being the next; 0: none. Allocations count on the card and of pinned memory. */
void card_fail_alloc(unsigned nth);
void card_fail_launch(unsigned nth);
/* With the nth piece of work to run from now the card is lost: it and all after it never run, every call fails. */
void card_lose(unsigned nth);

/* 0: a machine without NCCL. */
void card_set_nccl(int present);
/* The nth call of NCCL from now fails. */
void card_fail_nccl(unsigned nth);
/* From now on NCCL says, to who asks, that its work has failed. */
void card_break_nccl(void);

/* Allocations, streams, events, graphs, communicators that nobody gave back, of all cards. */
size_t card_leftovers(void);

/* Bytes in use. */
size_t card_used(void);

/* Since card_insert(). */
unsigned long long card_allocs(void);
unsigned long long card_launches(void);
/* Bytes that were copied to it from the host's memory. */
unsigned long long card_uploaded(void);
/* Turns that ldmatrix lost to rows in the same banks. */
unsigned long long card_bank_conflicts(void);

#ifdef __cplusplus
}
#endif

#endif
