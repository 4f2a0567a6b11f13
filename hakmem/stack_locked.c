/* SPDX-License-Identifier: MIT */
/* Stacks of magazines with a lock each, for processors without 64-bit exchange; see stack.h. */
#include <hakmem/stack.h>

#if HK_STACK_LOCKED

bool hk_stack_push(struct hk_stacks stacks, struct hk_stack *stack, uint32_t index, uint32_t rounds,
		   uint32_t depth_max)
{
	struct hk_link *link = &stacks.links[index];
	struct hk_stack_size size;

	link->rounds = (uint16_t)rounds;
	hk_lock_acquire(&stack->lock, stacks.platform);
	size = hk_stack_size_at(stacks, stack->head);
	if (size.depth < depth_max) {
		hk_link_set(link, (uint32_t)stack->head, size);
		stack->head = hk_stack_head(stack->head, index + 1);
	}
	hk_lock_release(&stack->lock, stacks.platform);
	return size.depth < depth_max;
}

uint32_t hk_stack_pop(struct hk_stacks stacks, struct hk_stack *stack)
{
	uint32_t got, next;

	hk_lock_acquire(&stack->lock, stacks.platform);
	got = (uint32_t)stack->head;
	if (got) {
		next = atomic_load_explicit(&stacks.links[got - 1].next, memory_order_relaxed);
		stack->head = hk_stack_head(stack->head, next);
	}
	hk_lock_release(&stack->lock, stacks.platform);
	return got;
}

struct hk_stack_size hk_stack_size(struct hk_stacks stacks, struct hk_stack *stack)
{
	struct hk_stack_size size;

	hk_lock_acquire(&stack->lock, stacks.platform);
	size = hk_stack_size_at(stacks, stack->head);
	hk_lock_release(&stack->lock, stacks.platform);
	return size;
}

void hk_stack_clear(struct hk_stack *stack)
{
	stack->head = hk_stack_head(stack->head, 0);
}

void hk_stack_add_lock(struct hk_stacks stacks, struct hk_stack *stack, uint64_t *acquired,
		       uint64_t *waited)
{
	hk_lock_acquire(&stack->lock, stacks.platform);
	*acquired += stack->lock.acquired;
	*waited += stack->lock.waited;
	hk_lock_release(&stack->lock, stacks.platform);
}

#endif /* HK_STACK_LOCKED */
