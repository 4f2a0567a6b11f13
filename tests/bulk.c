/* SPDX-License-Identifier: MIT */
/* Many blocks in one call, and frees that are told the size as a release build does them. */
#define _POSIX_C_SOURCE 200809L
#undef HK_DEBUG
#define HK_DEBUG 0 /* the inline path of hk_free_sized(), whatever the build says */

#include <stdint.h>
#include <string.h>

#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)

static void *blocks[100000];

static void bulk(struct heap *heap, size_t size, size_t count)
{
	size_t i;

	must(hk_alloc_bulk(heap->cache, size, count, blocks), "%zu of %zu", count, size);
	for (i = 0; i < count; i++) {
		must(blocks[i] && (uintptr_t)blocks[i] % 16 == 0, "%zu of %zu", i, size);
		must(hk_usable_size(heap->arena, blocks[i]) == hk_good_size(size), "%zu of %zu", i,
		     size);
		test_fill(blocks[i], size, i);
	}
	must(heap_live_blocks(heap) == count, "%zu of %zu", count, size);
	must(hk_arena_check(heap->arena) == 0, "%zu of %zu", count, size);
	for (i = 0; i < count; i++)
		must(test_holds(blocks[i], size, i), "%zu of %zu", i, size);
	hk_free_bulk(heap->cache, count, blocks);
	must(heap_live_blocks(heap) == 0, "%zu of %zu", count, size);
}

Test(bulk, of_every_size_and_many_counts)
{
	static const size_t counts[] = { 0, 1, 2, 15, 30, 31, 32, 33, 63, 64, 100, 1000 };
	static const size_t sizes[] = { 0, 1, 16, 100, 1024, 1025, 8192, 32768, 40000, 300000 };
	struct heap heap;
	size_t i;
	size_t j;

	heap_open(&heap, 0);
	for (i = 0; i < COUNT(sizes); i++)
		for (j = 0; j < COUNT(counts) && counts[j] * sizes[i] < 20 * MIB; j++)
			bulk(&heap, sizes[i], counts[j]);
	bulk(&heap, 64, 50000);
	bulk(&heap, 600000, 20);
	bulk(&heap, 3 * MIB, 5);
	heap_close(&heap, 0);
}

/* Blocks in the cache, then some of the slab: what is there already is part of the bulk. */
Test(bulk, takes_from_a_cache_in_any_state)
{
	struct heap heap;
	void *held[40];
	size_t before;
	size_t i;

	heap_open(&heap, 0);
	for (before = 0; before < COUNT(held); before++) {
		for (i = 0; i < before; i++)
			held[i] = hk_alloc(heap.cache, 48);
		for (i = 0; i < before; i++)
			hk_free(heap.cache, held[i]);
		bulk(&heap, 48, 40);
		bulk(&heap, 48, 7);
	}
	heap_close(&heap, 0);
}

static void bulk_too_many(size_t size, size_t count)
{
	struct hk_stats before;
	struct hk_stats after;
	struct heap heap;
	void *kept;
	size_t i;

	heap_open(&heap, 2 * MIB);
	kept = hk_alloc(heap.cache, size);
	must(kept, "size %zu", size);
	test_fill(kept, size, 1);
	hk_arena_stats(heap.arena, &before);
	for (i = 0; i < count; i++)
		blocks[i] = &heap;
	must(!hk_alloc_bulk(heap.cache, size, count, blocks), "size %zu", size);
	for (i = 0; i < count; i++)
		must(!blocks[i], "size %zu: block %zu is not NULL", size, i);
	hk_arena_stats(heap.arena, &after);
	must(after.live_blocks == 1, "size %zu: %zu blocks kept", size, after.live_blocks);
	must(after.live_bytes == before.live_bytes, "size %zu", size);
	must(after.peak_committed_bytes <= 2 * MIB, "size %zu", size);
	must(heap.reports.by_fault[HK_FAULT_EXHAUSTED] == 1, "size %zu", size);
	must(heap.reports.count == 1, "size %zu", size);
	must(hk_arena_check(heap.arena) == 0, "size %zu", size);
	must(test_holds(kept, size, 1), "size %zu", size);
	hk_free(heap.cache, kept);
	bulk(&heap, size, 2);
	heap_close(&heap, 1);
}

Test(bulk, at_the_limit_all_or_nothing)
{
	bulk_too_many(32, COUNT(blocks) - 1);
	bulk_too_many(32, COUNT(blocks));
	bulk_too_many(100, COUNT(blocks));
	bulk_too_many(1500, 3000);
	bulk_too_many(30000, 100);
	bulk_too_many(100000, 30);
	bulk_too_many(500000, 10);
	bulk_too_many(600000, 5);
}

/* The other frees leave nothing behind that the free of a mixed array trips over. */
Test(bulk, free_of_mixed_sizes_and_null)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct heap heap;
	size_t used = 0;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < count; i++) {
		blocks[used++] = hk_alloc(heap.cache, sizes[i]);
		if (i % 3 == 0)
			blocks[used++] = NULL;
		blocks[used++] = hk_arena_alloc(heap.arena, sizes[count - 1 - i]);
	}
	blocks[used++] = NULL;
	cr_assert_eq(heap_live_blocks(&heap), 2 * count);
	hk_free_bulk(heap.cache, used, blocks);
	heap_close(&heap, 0);
}

Test(bulk, free_of_one_class_from_many_slabs)
{
	struct heap heap;
	uint64_t seed = 3;
	size_t i;

	heap_open(&heap, 0);
	cr_assert(hk_alloc_bulk(heap.cache, 160, 20000, blocks));
	for (i = 20000; i > 1; i--) {
		size_t other = (size_t)(test_random(&seed) % i);
		void *block = blocks[i - 1];

		blocks[i - 1] = blocks[other];
		blocks[other] = block;
	}
	hk_free_bulk(heap.cache, 20000, blocks);
	heap_close(&heap, 0);
}

/* Every class, hits and misses, by the size that was asked for and not by the class's. */
Test(free_sized, every_edge_many_times)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct heap heap;
	size_t i;
	size_t j;

	heap_open(&heap, 0);
	for (i = 0; i < count; i++) {
		size_t many = sizes[i] <= 4096 ? 100 : sizes[i] <= 100000 ? 20 : 3;

		for (j = 0; j < many; j++) {
			blocks[j] = hk_alloc(heap.cache, sizes[i]);
			must(blocks[j], "size %zu", sizes[i]);
		}
		for (j = 0; j < many; j++)
			hk_free_sized(heap.cache, blocks[j], sizes[i]);
		must(heap_live_blocks(&heap) == 0, "size %zu", sizes[i]);
	}
	heap_close(&heap, 0);
}

#define SIZED(heap, size)                                                                          \
	do {                                                                                       \
		size_t n;                                                                          \
                                                                                                   \
		for (n = 0; n < 70; n++)                                                           \
			blocks[n] = hk_alloc((heap)->cache, (size));                               \
		for (n = 0; n < 70; n++) {                                                         \
			must(hk_usable_size((heap)->arena, blocks[n]) == hk_good_size(size),       \
			     "size %zu", (size_t)(size));                                          \
			hk_free_sized((heap)->cache, blocks[n], (size));                           \
		}                                                                                  \
		must(heap_live_blocks(heap) == 0, "size %zu", (size_t)(size));                     \
	} while (0)

Test(free_sized, of_constant_sizes)
{
	struct heap heap;

	heap_open(&heap, 0);
	SIZED(&heap, 1);
	SIZED(&heap, 16);
	SIZED(&heap, 17);
	SIZED(&heap, 1024);
	SIZED(&heap, 1025);
	SIZED(&heap, 1152);
	SIZED(&heap, 1153);
	SIZED(&heap, 4096);
	SIZED(&heap, 4097);
	SIZED(&heap, 32768);
	SIZED(&heap, 32769);
	SIZED(&heap, 65536);
	SIZED(&heap, 131073);
	SIZED(&heap, 524288);
	SIZED(&heap, 524289);
	heap_close(&heap, 0);
}

/*
 * At the limit a block that shrinks may stay as large as it was, and is still freed with the
 * size it shrank to: it must find its way back to its own slab.
 */
Test(free_sized, of_blocks_that_shrank_where_there_was_no_smaller)
{
	struct heap heap;
	size_t count;
	size_t kept = 0;
	size_t i;

	heap_open(&heap, 2 * MIB);
	for (count = 0; (blocks[count] = hk_alloc(heap.cache, 1000)) != NULL; count++)
		;
	for (i = 0; i < count; i++) {
		void *block = hk_realloc(heap.cache, blocks[i], 24);

		must(block, "block %zu", i);
		kept += hk_usable_size(heap.arena, block) > hk_good_size(24);
		blocks[i] = block;
	}
	cr_assert_gt(kept, 0, "the limit left room for all, nothing is tried here");
	cr_assert_eq(heap_live_blocks(&heap), count);
	for (i = 0; i < count; i++)
		hk_free_sized(heap.cache, blocks[i], 24);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	heap_close(&heap, 1);
}
