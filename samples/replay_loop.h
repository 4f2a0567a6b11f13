/* SPDX-License-Identifier: MIT */
/*
 * The loop that does the events, the same for every allocator: a file that is an allocator
 * defines HEAP_ALIGNMENT and the functions
 *
 *	static inline void *heap_alloc(void *front, size_t size);
 *	static inline void *heap_zalloc(void *front, size_t size);
 *	static inline void *heap_aligned(void *front, size_t size, size_t align);
 *	static inline void *heap_realloc(void *front, void *block, size_t size);
 *	static inline void heap_free(void *front, void *block);
 *
 * and then includes this one. The compiler inlines them: no call through a pointer stands
 * between the loop and an allocator.
 */
#ifndef SAMPLES_REPLAY_LOOP_H
#define SAMPLES_REPLAY_LOOP_H

#include "replay.h"

/*
 * What a program does at least: it writes the block's ends and all its pages. The stores must
 * stay although nobody reads them.
 */
static inline void replay_touch(void *block, size_t size)
{
	volatile unsigned char *bytes = block;
	size_t at;

	for (at = 0; at < size; at += REPLAY_PAGE)
		bytes[at] = 1;
	if (size)
		bytes[size - 1] = 1;
}

static void replay_events(struct replay_worker *worker, const struct replay_event *event,
			  const struct replay_event *end)
{
	struct replay *replay = worker->replay;
	void *const *fronts = replay->fronts;
	bool verify = replay->blocks != NULL;
	void **slots = replay->slots;

	for (; event != end; event++) {
		void *front = fronts[event->thread];
		size_t align = HEAP_ALIGNMENT;
		void **slot = &slots[event->slot];
		size_t size = event->size;
		unsigned op = event->op;
		void *block;

		if (HK_UNLIKELY(op & REPLAY_SPECIAL))
			size = replay_before(worker, event);
		switch (op & REPLAY_OP) {
		case TRACE_ALLOC:
			block = heap_alloc(front, size);
			break;
		case TRACE_FREE:
			if (HK_UNLIKELY(verify))
				replay_verify_old(worker, event, *slot);
			heap_free(front, *slot);
			goto out_publish;
		case TRACE_REALLOC:
			if (HK_UNLIKELY(verify))
				replay_verify_old(worker, event, *slot);
			block = heap_realloc(front, *slot, size);
			if (HK_UNLIKELY(!block)) {
				/* The old block is as it was, and stays in its slot. */
				replay_note_failed(worker, event, size);
				goto out_publish;
			}
			if (HK_LIKELY(!verify))
				replay_touch(block, size);
			else if (*slot)
				replay_verify_resized(worker, event, block, size, align);
			else /* its allocation failed, and this one did not */
				replay_verify_new(worker, event, block, size, align, false);
			*slot = block;
			goto out_publish;
		case TRACE_ZALLOC:
			block = heap_zalloc(front, size);
			break;
		case TRACE_ALIGNED:
			if (((size_t)1 << event->log2) > align)
				align = (size_t)1 << event->log2;
			block = heap_aligned(front, size, align);
			break;
		default: /* a mark, whose @wait is its place in replay->marks */
			if (replay->options.marks)
				replay->marks[event->wait].reached_ns = os_now_ns();
			continue;
		}
		*slot = block;
		if (HK_UNLIKELY(!block))
			replay_note_failed(worker, event, size);
		else if (HK_UNLIKELY(verify))
			replay_verify_new(worker, event, block, size, align,
					  (op & REPLAY_OP) == TRACE_ZALLOC);
		else
			replay_touch(block, size);

out_publish:
		/* Pairs with the acquire in replay_before(): the slot and the block with it. */
		if (HK_UNLIKELY(op & REPLAY_AWAITED))
			atomic_store_explicit(&worker->done, (uint32_t)(event - worker->events) + 1,
					      memory_order_release);
	}
}

#endif /* SAMPLES_REPLAY_LOOP_H */
