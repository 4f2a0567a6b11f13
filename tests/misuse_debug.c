/* SPDX-License-Identifier: MIT */
/* hk_free_sized() as a debug build of the host sees it: the size is checked. */
#define _POSIX_C_SOURCE 200809L
#undef HK_DEBUG
#define HK_DEBUG 1

#include <stdint.h>
#include <string.h>

#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)

Test(misuse_debug, right_sizes_pass)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < count; i++) {
		void *block = hk_alloc(heap.cache, sizes[i]);

		hk_free_sized(heap.cache, block, sizes[i]);
		must(heap_live_blocks(&heap) == 0, "size %zu", sizes[i]);
		block = hk_alloc(heap.cache, 500);
		block = hk_realloc(heap.cache, block, sizes[i]);
		hk_free_sized(heap.cache, block, sizes[i]);
		must(heap_live_blocks(&heap) == 0, "size %zu", sizes[i]);
	}
	heap_close(&heap, 0);
}

/* The call does nothing: the block is still there, and can be freed as it should be. */
Test(misuse_debug, wrong_sizes_are_told_and_the_block_stays)
{
	static const size_t sizes[] = { 16, 64, 1000, 1500, 30000, 70000, 500000, 600000, MIB };
	struct heap heap;
	size_t i;
	size_t j;
	size_t faults = 0;

	heap_open(&heap, 0);
	for (i = 0; i < COUNT(sizes); i++)
		for (j = i + 1; j < COUNT(sizes); j++) {
			void *block = hk_alloc(heap.cache, sizes[i]);

			test_fill(block, sizes[i], i);
			hk_free_sized(heap.cache, block, sizes[j]);
			faults++;
			must(heap.reports.count == faults, "%zu freed as %zu", sizes[i], sizes[j]);
			must(heap.reports.last.fault == HK_FAULT_ARGUMENT, "%zu freed as %zu: %s",
			     sizes[i], sizes[j], hk_fault_name(heap.reports.last.fault));
			must(heap.reports.last.address == block, "%zu freed as %zu", sizes[i],
			     sizes[j]);
			must(heap_live_blocks(&heap) == 1, "%zu freed as %zu", sizes[i], sizes[j]);
			must(test_holds(block, sizes[i], i), "%zu freed as %zu", sizes[i],
			     sizes[j]);
			hk_free_sized(heap.cache, block, sizes[i]);
			must(heap.reports.count == faults, "%zu", sizes[i]);
			must(heap_live_blocks(&heap) == 0, "%zu", sizes[i]);
		}
	heap_close(&heap, faults);
}

/* A block that shrank where nothing smaller was to be had is freed with what it shrank to. */
Test(misuse_debug, shrunk_in_place_at_the_limit_is_no_wrong_size)
{
	static void *blocks[4000];
	struct heap heap;
	size_t count;
	size_t kept = 0;
	size_t i;

	heap_open(&heap, 2 * MIB);
	for (count = 0; (blocks[count] = hk_alloc(heap.cache, 1000)) != NULL; count++)
		;
	for (i = 0; i < count; i++) {
		blocks[i] = hk_realloc(heap.cache, blocks[i], 24);
		must(blocks[i], "block %zu", i);
		kept += hk_usable_size(heap.arena, blocks[i]) > hk_good_size(24);
	}
	cr_assert_gt(kept, 0, "the limit left room for all, nothing is tried here");
	for (i = 0; i < count; i++)
		hk_free_sized(heap.cache, blocks[i], 24);
	heap_close(&heap, 1);
}

Test(misuse_debug, wrong_pointers_are_told)
{
	struct heap heap;
	unsigned char *block;
	char local;

	heap_open(&heap, 0);
	block = hk_alloc(heap.cache, 100);
	hk_free_sized(heap.cache, &local, 100);
	cr_assert_eq(heap.reports.last.fault, HK_FAULT_FOREIGN);
	hk_free_sized(heap.cache, block, 100);
	hk_cache_flush(heap.cache);
	heap_close(&heap, 1);
}
