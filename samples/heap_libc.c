/* SPDX-License-Identifier: MIT */
/* replay --allocator libc: malloc as the program finds it, a preloaded one included. */
#include "heap_libc.h"
#include "replay.h"

#include "replay_loop.h"

int heap_libc_open(struct replay *replay, const char **why)
{
	if ((size_t)1 << replay->largest_log2 <= os_malloc_align_max())
		return 0;
	*why = "the trace has blocks that are aligned more strictly than malloc can here";
	return -1;
}

void heap_libc_run(struct replay_worker *worker, const struct replay_event *event,
		   const struct replay_event *end)
{
	replay_events(worker, event, end);
}
