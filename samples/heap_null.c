/* SPDX-License-Identifier: MIT */
/*
 * replay --allocator null: no allocator. Every block of an OS thread is the same scratch memory,
 * so that what remains is the time that the replayer itself takes.
 */
#include "heap_null.h"
#include "replay.h"

#include "replay_loop.h"

int heap_null_open(struct replay *replay, const char **why)
{
	uint64_t align = (uint64_t)1 << replay->largest_log2;
	unsigned char *scratch = NULL;
	uint64_t stride;
	unsigned i;

	if (align < REPLAY_PAGE)
		align = REPLAY_PAGE;
	/* One step more than the blocks need, for aligning the first. */
	stride = (replay->largest + align - 1) / align * align;
	if (!stride)
		stride = align;
	if (stride <= PTRDIFF_MAX && stride + align <= PTRDIFF_MAX &&
	    stride <= (PTRDIFF_MAX - align) / replay->worker_count)
		scratch = replay_map(replay, stride * replay->worker_count + align, 1);
	if (!scratch) {
		*why = "there is not enough memory for a block as large as the trace's largest";
		return -1;
	}
	scratch += (size_t)(-(uintptr_t)scratch & (uintptr_t)(align - 1));
	for (i = 0; i < replay->thread_count; i++)
		replay->fronts[i] = scratch + i % replay->worker_count * (size_t)stride;
	return 0;
}

void heap_null_run(struct replay_worker *worker, const struct replay_event *event,
		   const struct replay_event *end)
{
	replay_events(worker, event, end);
}
