/* SPDX-License-Identifier: MIT */
/*
 * Large blocks: more than HK_CLASS_MAX bytes, or aligned to more than a slab, or of more than
 * HK_QUARTER_MAX and resized since. Each is a run of its own.
 *
 * A large block's first slab has the class byte HK_CLASS_LARGE, the others HK_CLASS_INSIDE. Who
 * frees it changes the first byte by compare-and-swap, so that of two threads that free the
 * same block one is told so. There is no lock here; the run's owner is the block's.
 */
#ifndef HK_LARGE_H
#define HK_LARGE_H

#include <hakmem/superslab.h>

struct hk_large {
	struct hk_superslabs *space;
	_Atomic size_t blocks;	       /* live, or set aside */
	_Atomic size_t slabs;	       /* their slabs */
	_Atomic size_t stashed_blocks; /* of these, set aside */
	_Atomic size_t stashed_slabs;
	_Atomic size_t allocs;
	_Atomic size_t frees;
};

/*
 * 0, or an error of hk_run_take(), or HK_ERROR_ARGUMENT: the range has no such place at all. The
 * first @zero_bytes are zero. Locks: space.
 */
int hk_large_alloc(struct hk_large *large, size_t size, size_t align, size_t zero_bytes,
		   void **block);

/* A run becomes a live block; the caller owns it. */
void hk_large_adopt(struct hk_large *large, uint32_t first, uint32_t count);

/* Frees a block by its address, or says what is wrong with it. */
enum hk_fault hk_large_free(struct hk_large *large, void *ptr);

/* What is wrong with @ptr as the start of a large block; its class byte is not 1 to 128. */
enum hk_fault hk_large_fault(const struct hk_large *large, const void *ptr);

/* Bytes of a large block, 0 when @ptr is no large block's start. */
size_t hk_large_size(const struct hk_large *large, const void *ptr);

/*
 * Changes a live block's size in place; @size is at least 1. 0, or an error as above: something
 * lies behind it (HK_ERROR_ADDRESS_SPACE), or memory is short. Locks: space.
 */
int hk_large_resize(struct hk_large *large, void *ptr, size_t size);

/*
 * Blocks that are set aside in a list of their owner's, first slab plus one: live for all others,
 * but counted apart. One more; one of @size bytes, or NULL.
 */
int hk_large_stash(struct hk_large *large, size_t size, uint32_t *list);
void *hk_large_unstash(struct hk_large *large, size_t size, uint32_t *list);

/* Frees all that are in the list. Locks: space. */
void hk_large_drop_stash(struct hk_large *large, uint32_t *list);

/* How many in the list have @size bytes. */
size_t hk_large_stashed(const struct hk_large *large, size_t size, uint32_t list);

/* Everything was freed by a reset. */
void hk_large_reset(struct hk_large *large);

/* Number of broken invariants; nothing else runs. */
size_t hk_large_check(struct hk_large *large);

#endif /* HK_LARGE_H */
