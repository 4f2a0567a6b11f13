/* SPDX-License-Identifier: MIT */
/*
 * News for the host: misuse, leaks, broken invariants, exhaustion, failures of the platform.
 *
 * A reporter is called with no lock held. Code that holds one notes what it found (struct
 * hk_bad for pointers, hk_reporter_note() for the platform's failures), and whoever released
 * the last lock sends it.
 */
#ifndef HK_REPORT_H
#define HK_REPORT_H

#include <hakmem/hakmem.h>
#include <stdatomic.h>

struct hk_reporter {
	const struct hk_arena *arena;
	const char *name;
	void *context;
	void (*on_report)(void *context, const struct hk_report *report);
	_Atomic size_t platform_failures; /* noted, not yet sent */
};

/* A pointer that was refused, and why. */
struct hk_bad {
	void *block;
	enum hk_fault fault;
	unsigned size_class;
};

void hk_report(struct hk_reporter *reporter, const struct hk_report *report);
void hk_report_fault(struct hk_reporter *reporter, enum hk_fault fault, const char *what,
		     const void *address, size_t size);
void hk_report_bad(struct hk_reporter *reporter, const struct hk_bad *bad, size_t count);

/* Notes a failure of the platform; any lock may be held. */
static inline void hk_reporter_note(struct hk_reporter *reporter)
{
	atomic_fetch_add_explicit(&reporter->platform_failures, 1, memory_order_relaxed);
}

void hk_reporter_send_noted(struct hk_reporter *reporter);

/* Sends what was noted; no lock is held. */
static inline void hk_reporter_flush(struct hk_reporter *reporter)
{
	if (atomic_load_explicit(&reporter->platform_failures, memory_order_relaxed))
		hk_reporter_send_noted(reporter);
}

#endif /* HK_REPORT_H */
