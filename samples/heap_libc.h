/* SPDX-License-Identifier: MIT */
/* malloc as the program finds it, a preloaded one included, for a loop that includes this. */
#ifndef SAMPLES_HEAP_LIBC_H
#define SAMPLES_HEAP_LIBC_H

#include "os.h"

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

#endif /* SAMPLES_HEAP_LIBC_H */
