/* SPDX-License-Identifier: MIT */
/*
 * Stacks of magazines, which are named by their index; the depot's way to exchange whole ones.
 *
 * A stack's head is 64 bits, the index of the topmost magazine plus one and a tag that every
 * exchange increments, against ABA: one compare-and-swap takes or gives a magazine with all its
 * blocks (Bonwick and Adams, "Magazines and Vmem", 2001). Links lie in a side table, so that a
 * thread that looks at a magazine another has just taken reads no block. The table also says
 * how deep each magazine lies in its stack: that bounds a stack without a counter that all
 * caches would write.
 *
 * Where 64 bits are not exchanged without a lock, stack_locked.c stands in for stack.c, with a
 * lock per stack; it comes last in the lock order. A host may define HK_STACK_LOCKED itself.
 */
#ifndef HK_STACK_H
#define HK_STACK_H

#include <hakmem/lock.h>

#ifndef HK_STACK_LOCKED
#define HK_STACK_LOCKED (ATOMIC_LLONG_LOCK_FREE != 2)
#endif

/* Index plus one of the topmost magazine in the low half, tag in the high half. */
#if HK_STACK_LOCKED
struct hk_stack {
	_Alignas(64) uint64_t head;
	struct hk_lock lock;
};
#else
struct hk_stack {
	_Alignas(64) _Atomic uint64_t head;
};
#endif

struct hk_link {
	_Atomic uint32_t next;	/* index plus one */
	_Atomic uint32_t depth; /* magazines from here down, this one included */
};

/* What all stacks of a depot share. */
struct hk_stacks {
	struct hk_link *links;
	const struct hk_platform *platform;
};

/* The head after an exchange. */
static inline uint64_t hk_stack_head(uint64_t old, uint32_t index_plus_one)
{
	return ((old >> 32) + 1) << 32 | index_plus_one;
}

/* Magazines in the stack whose topmost @head names. */
static inline uint32_t hk_stack_depth_at(struct hk_stacks stacks, uint64_t head)
{
	uint32_t top = (uint32_t)head;

	if (!top)
		return 0;
	return atomic_load_explicit(&stacks.links[top - 1].depth, memory_order_relaxed);
}

/* Pushes a magazine unless the stack is @depth_max deep. */
bool hk_stack_push(struct hk_stacks stacks, struct hk_stack *stack, uint32_t index,
		   uint32_t depth_max);

/* Pops a magazine: its index plus one, or 0. */
uint32_t hk_stack_pop(struct hk_stacks stacks, struct hk_stack *stack);

/* Magazines in the stack. */
uint32_t hk_stack_depth(struct hk_stacks stacks, struct hk_stack *stack);

/* Forgets all magazines; nothing else runs. */
void hk_stack_clear(struct hk_stack *stack);

/* Adds how often the stack's lock, where it has one, was taken and waited for. */
#if HK_STACK_LOCKED
void hk_stack_add_lock(struct hk_stacks stacks, struct hk_stack *stack, uint64_t *acquired,
		       uint64_t *waited);
#else
static inline void hk_stack_add_lock(struct hk_stacks stacks, struct hk_stack *stack,
				     uint64_t *acquired, uint64_t *waited)
{
	(void)stacks;
	(void)stack;
	(void)acquired;
	(void)waited;
}
#endif

#endif /* HK_STACK_H */
