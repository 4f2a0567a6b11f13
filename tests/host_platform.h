/* SPDX-License-Identifier: MIT */
/*
 * Functions of a host's own, for tests with threads. They count, take their time at random, so
 * that threads overlap inside them, and fail as they are told. tests/fault_platform.c does its
 * work under one lock; here nothing holds threads apart, and two calls for one page at the same
 * time are a breach of the contract.
 */
#ifndef TESTS_HOST_PLATFORM_H
#define TESTS_HOST_PLATFORM_H

#include <stdatomic.h>

#include "fault_platform.h"

#define HOST_RANGE ((size_t)64 << 20)
#define HOST_PAGE 4096u
#define HOST_PAGES (HOST_RANGE / HOST_PAGE)

/**
 * struct host - the functions, their books and how they fail
 * @platform: hand this to the arena; one reservation at a time.
 * @inner: the system, for all but the memory where @memory is set.
 * @memory: what the host has: HOST_RANGE bytes, accessible and full of garbage.
 * @base: the reservation, NULL when there is none.
 * @size: its bytes.
 * @pages: of each, whether it is committed, and whether a call is at work on it.
 * @committed: bytes.
 * @calls: of all functions.
 * @counts: calls of each function.
 * @failed: of these, how many were made to fail.
 * @inside: threads within the functions.
 * @most_inside: the most there ever were.
 * @random: where the sequence of random numbers stands.
 * @steps: calls of functions that can fail.
 * @slow: calls take their time.
 * @nth: every nth step fails; 0: none.
 * @per_mille: so many steps of a thousand fail.
 * @at: the number of one step that fails; 0: none.
 * @only: mask of the functions whose calls are steps; 0: all that can fail.
 * @breach: of the contract, the first; NULL when there is none.
 */
struct host {
	struct hk_platform platform;
	struct hk_platform inner;
	unsigned char *memory;
	unsigned char *_Atomic base;
	atomic_size_t size;
	atomic_uchar pages[HOST_PAGES];
	atomic_size_t committed;
	atomic_ullong calls;
	atomic_ullong counts[FAULT_FUNCTIONS];
	atomic_ullong failed[FAULT_FUNCTIONS];
	atomic_uint inside;
	atomic_uint most_inside;
	atomic_ullong random;
	atomic_ullong steps;
	bool slow;
	atomic_uint nth;
	atomic_uint per_mille;
	atomic_ullong at;
	atomic_uint only;
	_Atomic(const char *) breach;
};

/*
 * Over the system, with all that it has, or with @own_memory over memory of the host and with
 * nothing that is optional. Fails nothing yet. A struct that was made before keeps its memory.
 */
int host_make(struct host *host, bool own_memory, uint64_t seed);

/* From now on nothing fails. */
void host_disarm(struct host *host);

/* Failures that an arena must tell of. */
unsigned long long host_failures(const struct host *host);

#endif /* TESTS_HOST_PLATFORM_H */
