/* SPDX-License-Identifier: MIT */
/* hakmem, for a loop that includes this: a front is a cache. */
#ifndef SAMPLES_HEAP_HAKMEM_H
#define SAMPLES_HEAP_HAKMEM_H

#include <hakmem/hakmem.h>

enum {
	HEAP_ALIGNMENT = 16
};

static inline void *heap_alloc(void *front, size_t size)
{
	return hk_alloc(front, size);
}

static inline void *heap_zalloc(void *front, size_t size)
{
	return hk_zalloc(front, size);
}

static inline void *heap_aligned(void *front, size_t size, size_t align)
{
	return hk_alloc_aligned(front, size, align);
}

static inline void *heap_realloc(void *front, void *block, size_t size)
{
	return hk_realloc(front, block, size);
}

static inline void heap_free(void *front, void *block)
{
	hk_free(front, block);
}

#endif /* SAMPLES_HEAP_HAKMEM_H */
