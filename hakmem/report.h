/* SPDX-License-Identifier: MIT */
/*
 * News for the host: misuse, leaks, broken invariants, exhaustion, failures of the platform, soft
 * limits that are reached.
 *
 * A reporter is called with no lock held. Code that holds one notes what it found (struct
 * hk_bad for pointers, hk_reporter_note() for the platform's failures, hk_reporter_press() for soft
 * limits), and whoever released the last lock sends it.
 */
#ifndef HK_REPORT_H
#define HK_REPORT_H

#include <hakmem/charge.h>

struct hk_reporter {
	const struct hk_arena *arena;
	const char *name;
	void *context;
	void (*on_report)(void *context, const struct hk_report *report);
	const struct hk_budget *budget;	  /* the arena's own limit, and those above */
	_Atomic size_t platform_failures; /* noted, not yet sent */
	_Atomic uint32_t pressed;	  /* levels of the budgets, not yet told */
	_Atomic bool pressing;		  /* a thread is telling */
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

/* Notes soft limits that a charge came to, see charge.h; any lock may be held. */
static inline void hk_reporter_press(struct hk_reporter *reporter, uint32_t pressed)
{
	atomic_fetch_or(&reporter->pressed, pressed); /* see send_pressure() */
}

void hk_reporter_send_noted(struct hk_reporter *reporter);

/* Sends what was noted; no lock is held. */
static inline void hk_reporter_flush(struct hk_reporter *reporter)
{
	if (HK_UNLIKELY(atomic_load_explicit(&reporter->platform_failures, memory_order_relaxed) ||
			atomic_load_explicit(&reporter->pressed, memory_order_relaxed)))
		hk_reporter_send_noted(reporter);
}

#endif /* HK_REPORT_H */
