/* SPDX-License-Identifier: MIT */
/*
 * Charges against budgets. The bottom of all: an arena's own limit is a budget, too, whose parent
 * is the one that the host named.
 *
 * No lock: each level is a compare-and-swap that does not pass the level's limit; where one further
 * up refuses, those below get back what they were charged. A charge that is refused may so make
 * another one fail for a moment, which memory that is made room for tries again; none ever passes.
 *
 * A level whose use comes to its soft limit by a charge is a bit in what the charge tells, level 0
 * the arena's own; whoever holds no lock any more calls on_pressure.
 */
#ifndef HK_CHARGE_H
#define HK_CHARGE_H

#include <hakmem/hakmem.h>
#include <stdatomic.h>

/* A field of a budget, whose header C++ reads, too. */
static inline size_t hk_budget_load(const size_t *field)
{
	return atomic_load_explicit((_Atomic size_t *)(void *)(uintptr_t)field,
				    memory_order_relaxed);
}

/* Charges @bytes to a budget and all above: 0 or HK_ERROR_LIMIT. @pressed: see above. */
int hk_charge(struct hk_budget *budget, size_t bytes, uint32_t *pressed);
void hk_uncharge(struct hk_budget *budget, size_t bytes);

/* What is charged was really taken: the peaks follow. */
void hk_charge_settled(struct hk_budget *budget);

/*
 * The lowest limit, and the least that a limit leaves, of a budget and all above; SIZE_MAX:
 * none.
 */
size_t hk_charge_limit(const struct hk_budget *budget);
size_t hk_charge_left(const struct hk_budget *budget);

/* An arena or a budget with @bytes in use is within the budget from now on, or no more. */
void hk_budget_join(struct hk_budget *budget);
void hk_budget_leave(struct hk_budget *budget, size_t bytes);

#endif /* HK_CHARGE_H */
