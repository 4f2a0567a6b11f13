/* SPDX-License-Identifier: MIT */
/*
 * No allocator, for a loop that includes this: every block of a front is the same scratch memory,
 * so that what remains is the time that the loop itself takes.
 */
#ifndef SAMPLES_HEAP_NULL_H
#define SAMPLES_HEAP_NULL_H

#include <stddef.h>

enum {
	HEAP_ALIGNMENT = 16
};

static inline void *heap_alloc(void *front, size_t size)
{
	(void)size;
	return front;
}

static inline void *heap_zalloc(void *front, size_t size)
{
	(void)size;
	return front;
}

static inline void *heap_aligned(void *front, size_t size, size_t align)
{
	(void)size;
	(void)align;
	return front;
}

static inline void *heap_realloc(void *front, void *block, size_t size)
{
	(void)block;
	(void)size;
	return front;
}

static inline void heap_free(void *front, void *block)
{
	(void)front;
	(void)block;
}

#endif /* SAMPLES_HEAP_NULL_H */
