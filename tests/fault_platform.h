/* SPDX-License-Identifier: MIT */
/*
 * A platform for tests. It stands in front of another one (the system's by default), keeps its
 * own books of what is reserved and committed, page by page, records every breach of the
 * contract in platform/platform.h, and fails the calls that the test asks it to fail.
 *
 *	struct fault_platform fault;
 *	struct fault_options options = { .page_size = 16384, .forbid = true };
 *
 *	cr_assert_eq(fault_platform_init(&fault, &options), 0);
 *	fault.fail_at = 3;
 *	... hk_arena_create() with .platform = &fault.platform ...
 *	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
 *
 * A decommit that is made to fail scribbles on the range, whose content is then undefined.
 *
 * The struct must stay where it was initialised: the platform's context points to it. Fields
 * are read and set while no other thread is within the platform.
 */
#ifndef FAULT_PLATFORM_H
#define FAULT_PLATFORM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platform/platform.h>

/* The functions, as indices of the counts and, by FAULT_BIT(), as masks. */
enum fault_function {
	FAULT_RESERVE,
	FAULT_COMMIT,
	FAULT_DECOMMIT,
	FAULT_RELEASE,
	FAULT_NOW,
	FAULT_POPULATE,
	FAULT_MOVE,
	FAULT_LARGE_PAGES,
	FAULT_PARK,
	FAULT_WAKE,
	FAULT_FUNCTIONS,
};

#define FAULT_BIT(function) (1u << (function))

/* The functions that can fail, each such call is one step of fail_at and fail_from. */
#define FAULT_FALLIBLE                                                                             \
	(FAULT_BIT(FAULT_RESERVE) | FAULT_BIT(FAULT_COMMIT) | FAULT_BIT(FAULT_DECOMMIT) |          \
	 FAULT_BIT(FAULT_POPULATE) | FAULT_BIT(FAULT_MOVE) | FAULT_BIT(FAULT_LARGE_PAGES))

#define FAULT_RESERVATIONS 64 /* most that can be alive at once */

/**
 * struct fault_options - what the platform pretends; all zero is plain passing through
 * @inner: the platform behind; copied. NULL: the system's.
 * @page_size: bytes, a power of two, at least that of @inner; 0: that of @inner.
 * @flags: enum hk_platform_flag to set besides those of @inner.
 * @hide: mask of optional functions to leave NULL (FAULT_NOW, FAULT_POPULATE, FAULT_MOVE,
 *	FAULT_LARGE_PAGES; FAULT_PARK hides both park and wake).
 * @fake_clock: now_ns returns fault_platform.now, which then grows by .tick.
 * @garbage: memory just committed is full of garbage, and HK_PLATFORM_ZEROED is not set.
 * @forbid: touching memory that is not committed crashes, after a decommit too (the system's
 *	decommit leaves memory accessible). Ignored before a platform that is OPEN.
 * @copy_move: move copies, so that it works where @inner cannot move.
 */
struct fault_options {
	const struct hk_platform *inner;
	size_t page_size;
	unsigned flags;
	unsigned hide;
	bool fake_clock;
	bool garbage;
	bool forbid;
	bool copy_move;
};

/**
 * struct fault_reservation - the books of one reservation
 * @base: NULL for an unused entry.
 * @size: bytes.
 * @committed: bytes.
 * @bits: one bit a page: committed.
 */
struct fault_reservation {
	unsigned char *base;
	size_t size;
	size_t committed;
	uint64_t *bits;
};

/**
 * struct fault_platform - the platform, its switches and its books
 * @platform: hand this to the arena.
 * @fail_at: fail the Nth call that counts, from 1; 0: none.
 * @fail_from: fail all calls that count from the Nth on; 0: none.
 * @fail_only: mask of the functions whose calls count; 0: all that can fail.
 * @quota: commit fails where more bytes than this would be committed; 0: no quota.
 * @now: the fake clock, nanoseconds.
 * @tick: what every look at the fake clock adds to it.
 * @counts: calls of each function, failed ones too.
 * @calls: calls of all functions.
 * @steps: calls that counted for @fail_at and @fail_from.
 * @injected: calls that were made to fail, the quota's included.
 * @failed: mask of the functions that were made to fail.
 * @inner_failures: calls that failed without being made to.
 * @reserved: bytes reserved now.
 * @reservations: reservations alive.
 * @committed: bytes committed now.
 * @peak: the most bytes that were ever committed.
 * @again: pages that were committed when already committed; allowed.
 * @idle: pages that were decommitted when not committed; useless, not forbidden.
 * @violations: breaches of the contract by the caller (or by @inner).
 * @violation: the first of them in words, "" when there is none.
 */
struct fault_platform {
	struct hk_platform platform;
	uint64_t fail_at;
	uint64_t fail_from;
	unsigned fail_only;
	size_t quota;
	uint64_t now;
	uint64_t tick;
	uint64_t counts[FAULT_FUNCTIONS];
	uint64_t calls;
	uint64_t steps;
	uint64_t injected;
	unsigned failed;
	uint64_t inner_failures;
	size_t reserved;
	size_t reservations;
	size_t committed;
	size_t peak;
	uint64_t again;
	uint64_t idle;
	uint64_t violations;
	char violation[160];

	/* private */
	struct fault_options options;
	struct hk_platform inner;
	pthread_mutex_t lock;
	struct fault_reservation books[FAULT_RESERVATIONS];
};

/**
 * fault_platform_init() - make a platform that fails nothing yet
 * @fault: filled in.
 * @options: NULL: all zero. Copied.
 *
 * Return: 0, or a negative enum hk_error.
 */
int fault_platform_init(struct fault_platform *fault, const struct fault_options *options);

/**
 * fault_platform_rewind() - start counting anew
 * @fault: the platform.
 *
 * Sets the counts, steps, injected, failed and the fail_ switches to zero, keeps the books and
 * the violations.
 */
void fault_platform_rewind(struct fault_platform *fault);

/**
 * fault_platform_end() - close the books
 * @fault: the platform; not to be used again before fault_platform_init().
 *
 * Reservations still alive are violations, and are released.
 *
 * Return: the number of violations; the first is in @fault->violation.
 */
uint64_t fault_platform_end(struct fault_platform *fault);

/**
 * fault_platform_is_committed() - does the caller have this memory, by the books?
 * @fault: the platform.
 * @ptr: first byte, any alignment.
 * @size: bytes.
 *
 * Return: true when every page of the range is committed.
 */
bool fault_platform_is_committed(struct fault_platform *fault, const void *ptr, size_t size);

/* The function's name, for messages. */
const char *fault_function_name(enum fault_function function);

#endif /* FAULT_PLATFORM_H */
