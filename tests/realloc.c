/* SPDX-License-Identifier: MIT */
/* Blocks that change their size: in place, moved, or left as they were. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

Test(realloc, null_allocates)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < count; i++) {
		void *block = hk_realloc(heap.cache, NULL, sizes[i]);
		void *second = hk_realloc_aligned(heap.cache, NULL, sizes[i], 64);

		must(block && second && block != second, "size %zu", sizes[i]);
		must(hk_usable_size(heap.arena, block) == hk_good_size(sizes[i]), "size %zu",
		     sizes[i]);
		must((uintptr_t)second % 64 == 0, "size %zu", sizes[i]);
		hk_free_sized(heap.cache, block, sizes[i]);
		hk_free(heap.cache, second);
	}
	heap_close(&heap, 0);
}

Test(realloc, stays_where_the_class_stays)
{
	struct heap heap;
	size_t bound = 0;

	heap_open(&heap, 0);
	while (bound < HK_CLASS_MAX) {
		size_t lowest = bound + 1;
		void *block = hk_alloc(heap.cache, lowest);
		void *same;

		bound = hk_good_size(lowest);
		test_fill(block, bound, bound);
		same = hk_realloc(heap.cache, block, bound);
		must(same == block, "%zu to %zu", lowest, bound);
		same = hk_realloc(heap.cache, block, lowest);
		must(same == block, "%zu to %zu", bound, lowest);
		must(test_holds(block, bound, bound), "class of %zu", bound);
		hk_free_sized(heap.cache, block, lowest);
	}
	heap_close(&heap, 0);
}

Test(realloc, keeps_the_content_from_every_size_to_every_other)
{
	static const size_t sizes[] = {
		0,    1,     16,    17,	   40,	  100,	  1000,	  1024,	  1025,	  1152, 1153,
		5000, 32768, 32769, 65536, 65537, 131072, 200000, 524288, 524289, MIB,	3 * MIB,
	};
	struct heap heap;
	size_t i;
	size_t j;

	heap_open(&heap, 0);
	for (i = 0; i < COUNT(sizes); i++) {
		for (j = 0; j < COUNT(sizes); j++) {
			size_t kept = smaller(sizes[i], sizes[j]);
			void *block = hk_alloc(heap.cache, sizes[i]);

			must(block, "size %zu", sizes[i]);
			test_fill(block, sizes[i], i);
			block = hk_realloc(heap.cache, block, sizes[j]);
			must(block, "%zu to %zu", sizes[i], sizes[j]);
			must((uintptr_t)block % 16 == 0, "%zu to %zu", sizes[i], sizes[j]);
			must(hk_usable_size(heap.arena, block) == hk_good_size(sizes[j]),
			     "%zu to %zu has %zu", sizes[i], sizes[j],
			     hk_usable_size(heap.arena, block));
			must(test_holds(block, kept, i), "%zu to %zu", sizes[i], sizes[j]);
			memset(block, 0xff, sizes[j]);
			hk_free_sized(heap.cache, block, sizes[j]);
		}
		must(heap_live_blocks(&heap) == 0, "size %zu", sizes[i]);
		must(hk_arena_check(heap.arena) == 0, "size %zu", sizes[i]);
	}
	heap_close(&heap, 0);
}

Test(realloc, grows_a_vector_with_its_content)
{
	struct heap heap;
	void *block = NULL;
	size_t size = 0;
	size_t next;

	heap_open(&heap, 0);
	for (next = 1; next < 48 * MIB; next = next * 3 / 2 + 1) {
		block = hk_realloc(heap.cache, block, next);
		must(block, "size %zu", next);
		must(test_holds(block, size, 5), "%zu to %zu", size, next);
		size = next;
		test_fill(block, size, 5);
	}
	for (; size > 0; size = size * 2 / 3) {
		block = hk_realloc(heap.cache, block, size);
		must(block && test_holds(block, size, 5), "down to %zu", size);
	}
	hk_free(heap.cache, block);
	heap_close(&heap, 0);
}

Test(realloc, size_zero_shrinks_to_the_smallest_block)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < count; i++) {
		unsigned char *block = hk_alloc(heap.cache, sizes[i]);

		memset(block, 0x77, sizes[i]);
		block = hk_realloc(heap.cache, block, 0);
		must(block, "size %zu", sizes[i]);
		must(hk_usable_size(heap.arena, block) == hk_good_size(0), "size %zu", sizes[i]);
		must(heap_live_blocks(&heap) == 1, "size %zu", sizes[i]);
		hk_free_sized(heap.cache, block, 0);
	}
	heap_close(&heap, 0);
}

/*
 * Finds two large blocks of @size that lie next to each other; the arena hands them out from
 * one end in a heap as empty as this one, but which end is its own affair.
 */
static void neighbours(struct heap *heap, size_t size, unsigned char **low, unsigned char **high)
{
	unsigned char *blocks[8];
	size_t i;
	size_t j;

	*low = NULL;
	*high = NULL;
	for (i = 0; i < COUNT(blocks); i++) {
		blocks[i] = hk_alloc(heap->cache, size);
		cr_assert_not_null(blocks[i]);
	}
	for (i = 0; i < COUNT(blocks) && !*low; i++)
		for (j = 0; j < COUNT(blocks); j++)
			if (blocks[i] + size == blocks[j]) {
				*low = blocks[i];
				*high = blocks[j];
			}
	cr_assert(*low && *high, "no two blocks of %zu next to each other", size);
	for (i = 0; i < COUNT(blocks); i++)
		if (blocks[i] != *low && blocks[i] != *high)
			hk_free(heap->cache, blocks[i]);
}

Test(realloc, large_grows_in_place_into_free_slabs)
{
	unsigned char *block;
	unsigned char *next;
	struct heap heap;

	heap_open(&heap, 0);
	neighbours(&heap, MIB, &block, &next);
	test_fill(block, MIB, 1);
	hk_free(heap.cache, next);
	next = hk_realloc(heap.cache, block, 2 * MIB);
	cr_assert_eq(next, block, "moved from %p to %p", (void *)block, (void *)next);
	cr_assert_eq(hk_usable_size(heap.arena, block), 2 * MIB);
	cr_assert(test_holds(block, MIB, 1));
	memset(block + MIB, 0x55, MIB);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	hk_free(heap.cache, block);
	heap_close(&heap, 0);
}

Test(realloc, large_moves_when_the_slabs_behind_are_taken)
{
	unsigned char *block;
	unsigned char *next;
	unsigned char *moved;
	struct heap heap;

	heap_open(&heap, 0);
	neighbours(&heap, MIB, &block, &next);
	test_fill(block, MIB, 1);
	test_fill(next, MIB, 2);
	moved = hk_realloc(heap.cache, block, 2 * MIB);
	cr_assert_not_null(moved);
	cr_assert_neq(moved, block);
	cr_assert(test_holds(moved, MIB, 1));
	memset(moved, 0x33, 2 * MIB);
	cr_assert(test_holds(next, MIB, 2));
	cr_assert_eq(heap_live_blocks(&heap), 2);
	hk_free(heap.cache, moved);
	hk_free(heap.cache, next);
	heap_close(&heap, 0);
}

/* A limit that has room for the tail alone tells whether it came back. */
Test(realloc, large_shrinks_in_place_and_its_tail_is_used_again)
{
	unsigned char *block;
	unsigned char *second;
	struct heap heap;

	heap_open(&heap, 10 * MIB);
	block = hk_alloc(heap.cache, 8 * MIB);
	cr_assert_not_null(block);
	test_fill(block, 8 * MIB, 9);
	cr_assert_null(hk_alloc(heap.cache, 6 * MIB));
	cr_assert_eq(hk_realloc(heap.cache, block, MIB), block);
	cr_assert_eq(hk_usable_size(heap.arena, block), MIB);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	second = hk_alloc(heap.cache, 6 * MIB);
	cr_assert_not_null(second);
	memset(second, 0x11, 6 * MIB);
	cr_assert(test_holds(block, MIB, 9));
	hk_free(heap.cache, second);
	hk_free(heap.cache, block);
	heap_close(&heap, 1);
}

Test(realloc, expand_takes_what_is_free_behind_or_nothing)
{
	unsigned char *block;
	unsigned char *next;
	struct heap heap;

	heap_open(&heap, 0);
	neighbours(&heap, MIB, &block, &next);
	test_fill(block, MIB, 1);
	test_fill(next, MIB, 2);
	cr_assert_not(hk_expand(heap.cache, block, MIB + 1));
	cr_assert_eq(hk_usable_size(heap.arena, block), MIB);
	cr_assert(hk_expand(heap.cache, block, MIB));
	cr_assert(hk_expand(heap.cache, block, 1), "a size that it holds already");
	cr_assert_eq(hk_usable_size(heap.arena, block), MIB, "and nothing changes");
	cr_assert(test_holds(next, MIB, 2));
	hk_free(heap.cache, next);
	cr_assert(hk_expand(heap.cache, block, MIB + 1));
	cr_assert_eq(hk_usable_size(heap.arena, block), MIB + 65536);
	cr_assert(test_holds(block, MIB, 1));
	memset(block, 0x44, MIB + 65536);
	cr_assert_not(hk_expand(heap.cache, block, (size_t)1 << 40));
	cr_assert_eq(hk_usable_size(heap.arena, block), MIB + 65536);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	hk_free(heap.cache, block);
	hk_cache_flush(heap.cache);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	cr_assert_eq(heap_live_blocks(&heap), 0);
	hk_arena_destroy(heap.arena);
	cr_assert_eq(heap.reports.by_fault[HK_FAULT_LEAK], 0);
	cr_assert_eq(heap.reports.by_fault[HK_FAULT_FOREIGN], 0);
}

/* Aligned to more than a slab, a short block has a run of its own. */
Test(realloc, large_by_alignment_is_resized_in_place)
{
	const size_t align = 131072;
	unsigned char *block, *same;
	struct heap heap;

	heap_open(&heap, 0);
	block = hk_alloc_aligned(heap.cache, 300000, align);
	cr_assert_not_null(block);
	test_fill(block, 300000, 1);
	same = hk_realloc_aligned(heap.cache, block, 310000, align);
	cr_assert_eq(same, block);
	cr_assert(hk_expand(heap.cache, block, 400000));
	cr_assert_geq(hk_usable_size(heap.arena, block), 400000);
	same = hk_realloc_aligned(heap.cache, block, 100000, align);
	cr_assert_eq(same, block);
	cr_assert(test_holds(block, 100000, 1));
	hk_free(heap.cache, block);
	heap_close(&heap, 0);
}

/* Blocks whose run could go while they lie in a magazine: in the loaded one, and in the spare. */
Test(realloc, what_was_freed_is_not_resized)
{
	unsigned char *blocks[100];
	size_t i, faults;
	struct heap heap;

	heap_open(&heap, 0);
	for (i = 0; i < COUNT(blocks); i++)
		blocks[i] = hk_alloc(heap.cache, 600000);
	for (i = 0; i < 6; i++)
		hk_free(heap.cache, blocks[i]);
	/* the first four times past the magazines */
	for (i = 0; i < 6; i++)
		blocks[i] = hk_alloc(heap.cache, 600000);
	for (i = 0; i < 2 * 3; i++)
		hk_free(heap.cache, blocks[i]);
	for (faults = i = 0; i < 2 * 3; i++) {
		faults++;
		cr_assert_null(hk_realloc(heap.cache, blocks[i], 1300000), "block %zu", i);
		cr_assert_eq(heap.reports.by_fault[HK_FAULT_DOUBLE_FREE], faults);
		faults++;
		cr_assert_not(hk_expand(heap.cache, blocks[i], 1300000));
		cr_assert_eq(heap.reports.by_fault[HK_FAULT_DOUBLE_FREE], faults);
	}
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	hk_arena_reset(heap.arena);
	heap_close(&heap, faults);
}

static bool oom_asked;

static bool note_oom(void *context, struct hk_arena *arena, size_t size)
{
	(void)context;
	(void)arena;
	(void)size;
	oom_asked = true;
	return false;
}

/* A size that no try can help: the reserve stays for those that it can. */
Test(realloc, what_the_range_cannot_hold_costs_no_reserve)
{
	struct hk_arena_config config = { .address_space = MIB,
					  .reserve = 65536,
					  .on_oom = note_oom };
	struct hk_stats stats;
	struct hk_arena *arena;
	struct hk_cache *cache;

	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.reserve_bytes, 65536);
	cr_assert_null(hk_alloc(cache, MIB));
	cr_assert(oom_asked);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.reserve_bytes, 65536);
	hk_arena_destroy(arena);
}

/* As many large blocks are freed as there were. */
Test(realloc, what_becomes_a_large_block_is_counted)
{
	struct hk_stats stats;
	struct heap heap;
	void *block;

	heap_open(&heap, 0);
	block = hk_alloc(heap.cache, 600000);
	hk_arena_stats(heap.arena, &stats);
	cr_assert_eq(stats.counters.large_alloc, 0);
	cr_assert(hk_expand(heap.cache, block, 1300000));
	hk_arena_stats(heap.arena, &stats);
	cr_assert_eq(stats.counters.large_alloc, 1);
	cr_assert_eq(stats.counters.slab_emptied, stats.counters.new_slab);
	hk_free(heap.cache, block);
	hk_arena_stats(heap.arena, &stats);
	cr_assert_eq(stats.counters.large_free, 1);
	heap_close(&heap, 0);
}

Test(realloc, expand_within_the_class)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < count && sizes[i] <= HK_QUARTER_MAX; i++) {
		size_t good = hk_good_size(sizes[i]);
		void *block = hk_alloc(heap.cache, sizes[i]);

		test_fill(block, good, i);
		must(hk_expand(heap.cache, block, good), "size %zu", sizes[i]);
		must(hk_expand(heap.cache, block, 0), "size %zu", sizes[i]);
		must(!hk_expand(heap.cache, block, good + 1), "size %zu", sizes[i]);
		must(hk_usable_size(heap.arena, block) == good, "size %zu", sizes[i]);
		must(test_holds(block, good, i), "size %zu", sizes[i]);
		hk_free(heap.cache, block);
	}
	heap_close(&heap, 0);
}

/* Fills the arena with blocks of @size until it is full; returns how many fitted. */
static size_t fill_up(struct heap *heap, size_t size, void **blocks, size_t count)
{
	size_t used;

	for (used = 0; used < count; used++) {
		blocks[used] = hk_alloc(heap->cache, size);
		if (!blocks[used])
			break;
		test_fill(blocks[used], size, used);
	}
	must(used > 0 && used < count, "%zu blocks of %zu", used, size);
	return used;
}

Test(realloc, shrinking_never_fails_at_the_limit)
{
	static const size_t sizes[] = { 48, 1000, 1025, 20000, 32769, 200000, 524288, 700000 };
	static const size_t targets[] = { 0, 1, 16, 40, 500, 1024, 4000, 33000, 150000, 524289 };
	static void *blocks[60000];
	size_t i;
	size_t j;

	for (i = 0; i < COUNT(sizes); i++) {
		struct heap heap;
		size_t count;

		heap_open(&heap, 2 * MIB);
		count = fill_up(&heap, sizes[i], blocks, COUNT(blocks));
		for (j = 0; j < count; j++) {
			size_t target = targets[j % COUNT(targets)];
			void *block;

			if (target >= sizes[i])
				continue;
			block = hk_realloc(heap.cache, blocks[j], target);
			must(block, "%zu to %zu", sizes[i], target);
			must(test_holds(block, target, j), "%zu to %zu", sizes[i], target);
			must(hk_usable_size(heap.arena, block) >= target, "%zu to %zu", sizes[i],
			     target);
			blocks[j] = block;
		}
		must(hk_arena_check(heap.arena) == 0, "size %zu", sizes[i]);
		must(heap_live_blocks(&heap) == count, "size %zu", sizes[i]);
		for (j = 0; j < count; j++)
			hk_free(heap.cache, blocks[j]);
		must(heap.reports.count == heap.reports.by_fault[HK_FAULT_EXHAUSTED], "size %zu",
		     sizes[i]);
		heap_close(&heap, heap.reports.count);
	}
}

Test(realloc, failing_growth_leaves_the_block_as_it_was)
{
	static const size_t sizes[] = { 16, 100, 1000, 5000, 32769, 300000, 600000 };
	static void *blocks[200000];
	size_t i;

	for (i = 0; i < COUNT(sizes); i++) {
		struct hk_stats before;
		struct hk_stats after;
		struct heap heap;
		size_t count;
		size_t j;

		heap_open(&heap, 2 * MIB);
		count = fill_up(&heap, sizes[i], blocks, COUNT(blocks));
		hk_arena_stats(heap.arena, &before);
		for (j = 0; j < count && j < 50; j++) {
			must(!hk_realloc(heap.cache, blocks[j], 4 * MIB), "size %zu", sizes[i]);
			must(!hk_realloc_aligned(heap.cache, blocks[j], 4 * MIB, 4096), "size %zu",
			     sizes[i]);
			must(!hk_expand(heap.cache, blocks[j], 4 * MIB), "size %zu", sizes[i]);
			must(hk_usable_size(heap.arena, blocks[j]) == hk_good_size(sizes[i]),
			     "size %zu", sizes[i]);
		}
		hk_arena_stats(heap.arena, &after);
		must(after.live_blocks == before.live_blocks, "size %zu", sizes[i]);
		must(after.live_bytes == before.live_bytes, "size %zu", sizes[i]);
		must(hk_arena_check(heap.arena) == 0, "size %zu", sizes[i]);
		for (j = 0; j < count; j++) {
			must(test_holds(blocks[j], sizes[i], j), "size %zu", sizes[i]);
			hk_free(heap.cache, blocks[j]);
		}
		must(heap.reports.count == heap.reports.by_fault[HK_FAULT_EXHAUSTED], "size %zu",
		     sizes[i]);
		heap_close(&heap, heap.reports.count);
	}
}

Test(realloc, aligned_keeps_alignment_and_content)
{
	static const size_t sizes[] = { 0, 1, 20, 100, 1025, 5000, 40000, 100000, 524289, 700000 };
	struct heap heap;
	size_t align;
	size_t i;
	size_t j;

	heap_open(&heap, 0);
	for (align = 1; align <= 4 * MIB; align *= 4) {
		for (i = 0; i < COUNT(sizes); i++) {
			for (j = 0; j < COUNT(sizes); j++) {
				size_t kept = smaller(sizes[i], sizes[j]);
				unsigned char *block = hk_alloc(heap.cache, sizes[i]);

				test_fill(block, sizes[i], i);
				block = hk_realloc_aligned(heap.cache, block, sizes[j], align);
				must(block, "%zu to %zu at %zu", sizes[i], sizes[j], align);
				must((uintptr_t)block % align == 0, "%zu to %zu at %zu", sizes[i],
				     sizes[j], align);
				must(hk_usable_size(heap.arena, block) >= sizes[j],
				     "%zu to %zu at %zu", sizes[i], sizes[j], align);
				must(test_holds(block, kept, i), "%zu to %zu at %zu", sizes[i],
				     sizes[j], align);
				memset(block, 0x66, sizes[j]);
				hk_free(heap.cache, block);
			}
		}
		must(hk_arena_check(heap.arena) == 0, "align %zu", align);
	}
	heap_close(&heap, 0);
}

/* A block of another's alignment must not stay just because its class fits. */
Test(realloc, aligned_moves_a_block_that_lies_wrong)
{
	void *blocks[64];
	struct heap heap;
	size_t moved = 0;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < COUNT(blocks); i++) {
		blocks[i] = hk_alloc(heap.cache, 100);
		test_fill(blocks[i], 100, i);
	}
	for (i = 0; i < COUNT(blocks); i++) {
		void *block = hk_realloc_aligned(heap.cache, blocks[i], 100, 512);

		must(block && (uintptr_t)block % 512 == 0, "block %zu", i);
		must(test_holds(block, 100, i), "block %zu", i);
		moved += block != blocks[i];
		blocks[i] = block;
	}
	cr_assert_gt(moved, COUNT(blocks) / 2);
	cr_assert_eq(heap_live_blocks(&heap), COUNT(blocks));
	hk_free_bulk(heap.cache, COUNT(blocks), blocks);
	heap_close(&heap, 0);
}

/*
 * An aligned block may be of a larger class than its size asks for. Once reallocated it may be
 * freed with its size, so that the books must not go by the size alone.
 */
Test(realloc, aligned_block_reallocated_may_be_freed_with_its_size)
{
	static const size_t sizes[] = { 1, 40, 100, 900, 1100, 5000, 33000 };
	struct heap heap;
	size_t align;
	size_t i;

	heap_open(&heap, 0);
	for (align = 64; align <= 262144; align *= 2) {
		for (i = 0; i < COUNT(sizes); i++) {
			void *block = hk_alloc_aligned(heap.cache, sizes[i], align);

			must(block, "size %zu align %zu", sizes[i], align);
			test_fill(block, sizes[i], i);
			block = hk_realloc(heap.cache, block, sizes[i]);
			must(block && test_holds(block, sizes[i], i), "size %zu align %zu",
			     sizes[i], align);
			hk_free_sized(heap.cache, block, sizes[i]);
			must(heap_live_blocks(&heap) == 0, "size %zu align %zu", sizes[i], align);
		}
	}
	heap_close(&heap, 0);
}
