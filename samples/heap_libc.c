/* SPDX-License-Identifier: MIT */
/* replay --allocator libc: malloc as the program finds it, a preloaded one included. */
#include "replay.h"

#include <stdlib.h>

/* malloc promises less than 16 for blocks smaller than that, and some use it. */
enum {
	HEAP_ALIGNMENT = sizeof(void *)
};

static inline void *heap_alloc(void *front, size_t size)
{
	(void)front;
	return malloc(size);
}

static inline void *heap_zalloc(void *front, size_t size)
{
	(void)front;
	return calloc(1, size);
}

static inline void *heap_aligned(void *front, size_t size, size_t align)
{
	(void)front;
	return os_malloc_aligned(align, size);
}

/* realloc() to 0 may free, which a trace's never does. */
static inline void *heap_realloc(void *front, void *block, size_t size)
{
	(void)front;
	return realloc(block, size ? size : 1);
}

static inline void heap_free(void *front, void *block)
{
	(void)front;
	free(block);
}

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
