/* SPDX-License-Identifier: MIT */
/*
 * Stacks of magazines, which are named by their index; the depot's way to exchange whole ones.
 *
 * A stack's head is 64 bits, the index of the topmost magazine plus one and a tag that every
 * exchange increments, against ABA: one compare-and-swap takes or gives a magazine with all its
 * blocks (Bonwick and Adams, "Magazines and Vmem", 2001). Links lie in a side table, so that a
 * thread that looks at a magazine another has just taken reads no block. The table also says
 * how many rounds a magazine has, how deep it lies in its stack and how many blocks are there
 * from it down: that bounds and measures a stack without a counter that all caches would write.
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
	_Atomic uint32_t next;	 /* index plus one */
	_Atomic uint32_t depth;	 /* magazines from here down, this one included */
	_Atomic uint32_t blocks; /* in these */
	uint16_t rounds;	 /* blocks in this one; its owner's, but while it lies in a stack */
	_Atomic uint16_t capacity; /* blocks that it may have; changed by who takes it empty */
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

/* What lies in a stack. */
struct hk_stack_size {
	uint32_t depth; /* magazines */
	uint32_t blocks;
};

/* The size of the stack whose topmost @head names. */
static inline struct hk_stack_size hk_stack_size_at(struct hk_stacks stacks, uint64_t head)
{
	uint32_t top = (uint32_t)head;
	struct hk_stack_size size = { 0, 0 };

	if (top) {
		struct hk_link *link = &stacks.links[top - 1];

		/* acquire: pairs with the releases in hk_link_set(); the head is looked at after */
		size.depth = atomic_load_explicit(&link->depth, memory_order_acquire);
		size.blocks = atomic_load_explicit(&link->blocks, memory_order_acquire);
	}
	return size;
}

/* Puts a magazine with so many rounds on a stack of @size, not yet seen by others. */
static inline void hk_link_set(struct hk_link *link, uint32_t next, struct hk_stack_size size)
{
	atomic_store_explicit(&link->next, next, memory_order_relaxed);
	/* release: who reads this of a magazine taken meanwhile then sees that the head changed */
	atomic_store_explicit(&link->depth, size.depth + 1, memory_order_release);
	atomic_store_explicit(&link->blocks, size.blocks + link->rounds, memory_order_release);
}

/* Pushes a magazine of @rounds blocks unless the stack is @depth_max deep. */
bool hk_stack_push(struct hk_stacks stacks, struct hk_stack *stack, uint32_t index, uint32_t rounds,
		   uint32_t depth_max);

/* Pops a magazine: its index plus one, or 0; its link has the rounds. */
uint32_t hk_stack_pop(struct hk_stacks stacks, struct hk_stack *stack);

struct hk_stack_size hk_stack_size(struct hk_stacks stacks, struct hk_stack *stack);

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
