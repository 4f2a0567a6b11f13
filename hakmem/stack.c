/* SPDX-License-Identifier: MIT */
/*
 * Stacks of magazines without a lock; see stack.h.
 *
 * Orders: a magazine's blocks, and its link, are written before the release that pushes it,
 * and read after the acquire that pops it. A popper that lost the race has read a link only,
 * which is atomic; the tag makes its compare-and-swap fail. tests/model_stack.c explores all that
 * and shows which orders are needed.
 */
#include <hakmem/stack.h>

#if !HK_STACK_LOCKED

bool hk_stack_push(struct hk_stacks stacks, struct hk_stack *stack, uint32_t index, uint32_t rounds,
		   uint32_t depth_max)
{
	struct hk_link *link = &stacks.links[index];
	/* pairs with the release below, for the link of the magazine on top */
	uint64_t old = atomic_load_explicit(&stack->head, memory_order_acquire);

	link->rounds = (uint16_t)rounds;
	for (;;) {
		struct hk_stack_size size = hk_stack_size_at(stacks, old);

		if (size.depth >= depth_max) {
			/* the magazine on top may have gone to a deeper stack meanwhile */
			uint64_t now = atomic_load_explicit(&stack->head, memory_order_acquire);

			if (now == old)
				return false;
			old = now;
			continue;
		}
		hk_link_set(link, (uint32_t)old, size);
		/* release: pairs with the acquires here and in hk_stack_pop() */
		if (atomic_compare_exchange_weak_explicit(&stack->head, &old,
							  hk_stack_head(old, index + 1),
							  memory_order_release,
							  memory_order_acquire))
			return true;
	}
}

uint32_t hk_stack_pop(struct hk_stacks stacks, struct hk_stack *stack)
{
	/* acquire: pairs with the release in hk_stack_push() */
	uint64_t old = atomic_load_explicit(&stack->head, memory_order_acquire);
	uint32_t next;

	do {
		if (!(uint32_t)old)
			return 0;
		next = atomic_load_explicit(&stacks.links[(uint32_t)old - 1].next,
					    memory_order_relaxed);
	} while (
		!atomic_compare_exchange_weak_explicit(&stack->head, &old, hk_stack_head(old, next),
						       memory_order_acquire, memory_order_acquire));
	return (uint32_t)old;
}

struct hk_stack_size hk_stack_size(struct hk_stacks stacks, struct hk_stack *stack)
{
	/* acquire: pairs with the release in hk_stack_push(), for the link */
	uint64_t old, now = atomic_load_explicit(&stack->head, memory_order_acquire);
	struct hk_stack_size size;

	/* a magazine that was taken meanwhile may lie in another stack, whose size this would be */
	do {
		old = now;
		size = hk_stack_size_at(stacks, old);
		now = atomic_load_explicit(&stack->head, memory_order_acquire);
	} while (now != old);
	return size;
}

void hk_stack_clear(struct hk_stack *stack)
{
	uint64_t old = atomic_load_explicit(&stack->head, memory_order_relaxed);

	atomic_store_explicit(&stack->head, hk_stack_head(old, 0), memory_order_relaxed);
}

#endif /* !HK_STACK_LOCKED */
