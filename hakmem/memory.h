/* SPDX-License-Identifier: MIT */
/*
 * The arena's memory: one reservation, what of it is committed, and the limit on that.
 *
 * Every commit and decommit of the arena goes through here, so that the bytes taken from the
 * platform are counted in one place. A charge comes before the commit and is undone when the
 * commit fails: no limit is ever passed, not for a moment, neither the arena's nor a budget's.
 *
 * A section is a part of the reservation that grows from its start: metadata at a fixed place,
 * committed up to a mark, page-rounded. Whoever owns a section guards it with its own lock.
 */
#ifndef HK_MEMORY_H
#define HK_MEMORY_H

#include <hakmem/lock.h>
#include <hakmem/report.h>

struct hk_memory {
	struct hk_platform platform;
	struct hk_reporter *reporter;
	unsigned char *base;
	size_t size;
	struct hk_budget own;	 /* the arena's limit, what is committed, the budgets above */
	_Atomic size_t calls;	 /* of the platform */
	_Atomic size_t refusals; /* commits that it would not do, since the last that it did */
};

struct hk_section {
	unsigned char *base;
	size_t size;	  /* address range */
	size_t committed; /* bytes from the start */
};

static inline size_t hk_round_up(size_t value, size_t unit)
{
	return (value + unit - 1) & ~(unit - 1);
}

/* Copies what a memory is so far to where it stays. */
static inline void hk_memory_init(struct hk_memory *memory, const struct hk_memory *from,
				  struct hk_reporter *reporter)
{
	memory->platform = from->platform;
	memory->reporter = reporter;
	memory->base = from->base;
	memory->size = from->size;
	memory->own = from->own;
	atomic_init(&memory->calls, from->calls);
}

static inline void hk_memory_count_call(struct hk_memory *memory)
{
	atomic_fetch_add_explicit(&memory->calls, 1, memory_order_relaxed);
}

static inline size_t hk_memory_committed(const struct hk_memory *memory)
{
	return hk_budget_load(&memory->own.used);
}

/* The lowest limit that there is, SIZE_MAX: none; and what the limits leave. */
static inline size_t hk_memory_limit(const struct hk_memory *memory)
{
	return hk_charge_limit(&memory->own);
}

static inline size_t hk_memory_left(const struct hk_memory *memory)
{
	return hk_charge_left(&memory->own);
}

/* Takes @bytes out of what the limits still allow: 0 or HK_ERROR_LIMIT. */
int hk_memory_charge(struct hk_memory *memory, size_t bytes);
void hk_memory_uncharge(struct hk_memory *memory, size_t bytes);

/* Charges and commits: 0, HK_ERROR_LIMIT or HK_ERROR_MEMORY. The range was not committed. */
int hk_memory_commit(struct hk_memory *memory, void *ptr, size_t size);

/* Decommits and uncharges: 0, or HK_ERROR_PLATFORM, and the range is still committed. */
int hk_memory_decommit(struct hk_memory *memory, void *ptr, size_t size);

/* Whether memory is zero after its commit. */
static inline bool hk_memory_is_zeroed(const struct hk_memory *memory)
{
	return memory->platform.flags & HK_PLATFORM_ZEROED;
}

/* Commits a section's first @bytes, what is new is zero: 0 or an error as above. */
int hk_section_grow(struct hk_memory *memory, struct hk_section *section, size_t bytes);

/* Decommits what lies beyond a section's first @bytes, page-rounded. Returns bytes given back. */
size_t hk_section_shrink(struct hk_memory *memory, struct hk_section *section, size_t bytes);

/* Faults in what is committed, where the platform knows how: 0 or HK_ERROR_MEMORY. */
int hk_memory_populate(struct hk_memory *memory, void *ptr, size_t size);

/* The time by which bounded work ends. */
struct hk_deadline {
	uint64_t end_ns; /* 0: never */
};

/* As hk_section_shrink(), in steps until time is over, at least one. */
size_t hk_section_trim(struct hk_memory *memory, struct hk_section *section, size_t bytes,
		       struct hk_deadline deadline);

struct hk_deadline hk_deadline_in(struct hk_memory *memory, uint64_t budget_ns);

/* Whether the time is over; with a bound but without a clock, always. */
bool hk_deadline_over(struct hk_memory *memory, struct hk_deadline deadline);

/* Nanoseconds until then: 0: it is over, UINT64_MAX: it never will be. */
uint64_t hk_deadline_left(struct hk_memory *memory, struct hk_deadline deadline);

/* The sum of bytes given back, of which 1 is none yet. */
static inline size_t hk_freed(size_t freed, size_t more)
{
	if (freed > 1 && more > 1)
		return freed + more;
	return freed > more ? freed : more;
}

/* Whether there is to be a step: nothing has come of it yet, or there is time. */
static inline bool hk_deadline_allows(struct hk_memory *memory, struct hk_deadline deadline,
				      size_t freed)
{
	return freed <= 1 || !hk_deadline_over(memory, deadline);
}

#endif /* HK_MEMORY_H */
