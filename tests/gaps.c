/* SPDX-License-Identifier: MIT */
/* Small tests for bugs of mutants.txt that no other test notices within a second. */
#define _POSIX_C_SOURCE 200809L

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)

static struct fault_platform fault;

static void open_arena(struct heap *heap)
{
	struct hk_arena_config config = {
		.address_space = 256 * MIB,
		.platform = &fault.platform,
		.context = &heap->reports,
		.on_report = test_on_report,
	};

	memset(heap, 0, sizeof(*heap));
	cr_assert_eq(fault_platform_init(&fault, &(struct fault_options){ .copy_move = true }), 0);
	cr_assert_eq(hk_arena_create(&heap->arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap->arena, &heap->cache), 0);
}

static void close_arena(struct heap *heap)
{
	heap_close(heap, 0);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* Most of the superslab was never committed: a reset must not make it ready. */
Test(gaps, reset_of_a_superslab_that_is_committed_in_part)
{
	struct heap heap;
	void *block;

	open_arena(&heap);
	cr_assert_not_null(hk_alloc(heap.cache, 100));
	hk_arena_reset(heap.arena);
	cr_assert_eq(hk_arena_check(heap.arena), 0, "%s", heap.reports.last.what);
	block = hk_alloc(heap.cache, MIB);
	cr_assert_not_null(block);
	cr_assert(fault_platform_is_committed(&fault, block, MIB));
	hk_free(heap.cache, block);
	close_arena(&heap);
}

/* An arena that was reset may give its class table back, whose bound must go with it. */
Test(gaps, reset_and_trim_give_the_class_table_back)
{
	struct heap heap;
	void *block;
	size_t used;

	open_arena(&heap);
	hk_arena_trim(heap.arena, 0, 0);
	used = hk_arena_used(heap.arena);
	cr_assert_not_null(hk_alloc(heap.cache, MIB));
	hk_arena_reset(heap.arena);
	hk_arena_trim(heap.arena, 0, 0);
	cr_assert_leq(hk_arena_used(heap.arena), used, "%zu, not %zu", hk_arena_used(heap.arena),
		      used);
	block = hk_alloc(heap.cache, MIB);
	cr_assert_not_null(block);
	hk_free(heap.cache, block);
	close_arena(&heap);
}

/* A move is a call of the platform like any other. */
Test(gaps, moves_are_counted)
{
	struct heap heap;
	struct hk_stats stats;
	void *block, *behind;

	open_arena(&heap);
	block = hk_alloc(heap.cache, MIB);
	behind = hk_alloc(heap.cache, MIB);
	cr_assert(block && behind);
	block = hk_realloc(heap.cache, block, 2 * MIB);
	cr_assert_not_null(block);
	cr_assert_eq(fault.counts[FAULT_MOVE], 1);
	hk_arena_stats(heap.arena, &stats);
	cr_assert_eq(stats.counters.platform_call, fault.calls, "%zu, not %zu",
		     (size_t)stats.counters.platform_call, (size_t)fault.calls);
	hk_free(heap.cache, block);
	hk_free(heap.cache, behind);
	close_arena(&heap);
}

/* What a move leaves is mapped anew, without the large pages that were asked for. */
Test(gaps, blocks_are_copied_where_large_pages_were_asked_for)
{
	struct hk_arena_config config = { .address_space = 256 * MIB,
					  .platform = &fault.platform,
					  .large_pages = true };
	struct hk_arena *arena;
	struct hk_cache *cache;
	void *block;

	cr_assert_eq(fault_platform_init(&fault, &(struct fault_options){ .copy_move = true }), 0);
	if (!fault.platform.large_pages)
		cr_skip_test("this system has no large pages");
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	block = hk_alloc(cache, MIB);
	cr_assert(block && hk_alloc(cache, MIB));
	test_fill(block, MIB, 3);
	block = hk_realloc(cache, block, 2 * MIB);
	cr_assert(block && test_holds(block, MIB, 3));
	cr_assert_eq(fault.counts[FAULT_MOVE], 0);
	hk_arena_destroy(arena);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

static size_t large_decommits;

static int agree_to_large_pages(void *context, void *ptr, size_t size, bool enable)
{
	(void)context;
	(void)ptr;
	(void)size;
	(void)enable;
	return 0;
}

static int decommit_large(void *context, void *ptr, size_t size)
{
	large_decommits++;
	return fault.platform.decommit(context, ptr, size);
}

/* By a function of their own, where the platform has one, and only where they were asked for. */
Test(gaps, large_pages_are_given_back_whole)
{
	struct hk_arena_config config = { .address_space = 256 * MIB, .platform = &fault.platform };
	struct hk_arena *arena;
	struct hk_cache *cache;
	unsigned large;

	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	fault.platform.large_pages = agree_to_large_pages;
	fault.platform.decommit_large = decommit_large;
	for (large = 0; large < 2; large++) {
		config.large_pages = large;
		cr_assert_eq(hk_arena_create(&arena, &config), 0);
		cr_assert_eq(hk_cache_create(arena, &cache), 0);
		hk_free(cache, hk_alloc(cache, 8 * MIB));
		cr_assert_geq(hk_arena_trim(arena, 0, 0), 8 * MIB);
		cr_assert_eq(large_decommits > 0, large);
		hk_arena_destroy(arena);
	}
	cr_assert_eq(large_decommits, fault.counts[FAULT_DECOMMIT] / 2);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* Blocks of a class, too, have pages of their own: from 128 KiB on these are moved, not copied. */
Test(gaps, medium_blocks_are_moved_by_the_platform)
{
	static const size_t steps[] = { 114688, 131072, 163840, 200000, 400000, 600000, 700000 };
	static const unsigned moves[] = { 0, 0, 1, 2, 3, 4, 5 };
	struct heap heap;
	unsigned char *block, *behind[COUNT(steps)];
	size_t i;

	open_arena(&heap);
	block = hk_alloc(heap.cache, steps[0]);
	cr_assert_not_null(block);
	for (i = 0; i < COUNT(steps); i++) {
		block = hk_realloc(heap.cache, block, steps[i]);
		cr_assert_not_null(block);
		must(fault.counts[FAULT_MOVE] == moves[i], "%zu bytes: %u moves", steps[i],
		     (unsigned)fault.counts[FAULT_MOVE]);
		must(!i || test_holds(block, steps[i - 1], i - 1), "%zu bytes", steps[i]);
		test_fill(block, steps[i], i);
		behind[i] = hk_alloc(heap.cache, 600000);
		cr_assert_not_null(behind[i]);
	}
	for (i = 0; i < COUNT(steps); i++)
		hk_free(heap.cache, behind[i]);
	hk_free(heap.cache, block);
	close_arena(&heap);
}

/* What a block grows into is its user's from then on, and zero no more. */
Test(gaps, what_a_block_grew_into_is_known_to_be_dirty)
{
	struct heap heap;
	unsigned char *block, *clean;
	size_t i;

	open_arena(&heap);
	block = hk_alloc(heap.cache, MIB);
	cr_assert_not_null(block);
	cr_assert(hk_expand(heap.cache, block, 2 * MIB));
	memset(block, 0xa5, 2 * MIB);
	hk_free(heap.cache, block);
	cr_assert_eq(hk_arena_check(heap.arena), 0, "%s", heap.reports.last.what);
	clean = hk_zalloc(heap.cache, 2 * MIB);
	cr_assert_not_null(clean);
	for (i = 0; i < 2 * MIB; i++)
		must(!clean[i], "byte %zu", i);
	hk_free(heap.cache, clean);
	close_arena(&heap);
}

/*
 * The slabs of a longer run keep what was known of them as runs of their own; a walk must not
 * look at that. It would find blocks where there are none.
 */
Test(gaps, leaks_in_slabs_that_were_runs_before)
{
	struct heap heap;
	void *blocks[10];
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < 10; i++) {
		blocks[i] = hk_alloc(heap.cache, 16 * (i + 1));
		cr_assert_not_null(blocks[i]);
	}
	hk_free_bulk(heap.cache, 10, blocks);
	hk_cache_flush(heap.cache);
	cr_assert_not_null(hk_alloc(heap.cache, 20000));
	hk_arena_destroy(heap.arena);
	cr_assert_eq(heap.reports.by_fault[HK_FAULT_LEAK], 2);
	cr_assert_eq(heap.reports.last.size, hk_good_size(20000));
}

/* An address that the range does not have is no reason for alarm. */
Test(gaps, alignment_without_room_is_not_reported)
{
	volatile size_t align = SIZE_MAX / 2 + 1; /* more than compilers like to see */
	struct heap heap;

	heap_open(&heap, 0);
	cr_assert_null(hk_alloc_aligned(heap.cache, 100, align));
	heap_close(&heap, 0);
}

/* What the limit forbids for ever costs nothing: no headers for a range that is never used. */
Test(gaps, what_is_beyond_the_limit_leaves_nothing_behind)
{
	struct heap heap;
	void *block;
	size_t used;

	heap_open(&heap, 64 * MIB);
	block = hk_alloc(heap.cache, MIB);
	cr_assert_not_null(block);
	used = hk_arena_used(heap.arena);
	cr_assert_null(hk_alloc(heap.cache, 900 * MIB));
	cr_assert_eq(hk_arena_used(heap.arena), used, "alloc");
	cr_assert_not(hk_expand(heap.cache, block, 900 * MIB));
	cr_assert_eq(hk_arena_used(heap.arena), used, "expand");
	cr_assert_null(hk_realloc(heap.cache, block, 900 * MIB));
	cr_assert_eq(hk_arena_used(heap.arena), used, "realloc");
	cr_assert_eq(heap.reports.by_fault[HK_FAULT_EXHAUSTED], 2);
	hk_free(heap.cache, block);
	heap_close(&heap, 2);
}

static struct {
	struct hk_cache *cache;
	unsigned running;
	unsigned calls;
	unsigned nested;
} oom;

static bool allocate_in_oom(void *context, struct hk_arena *arena, size_t size)
{
	(void)context;
	(void)arena;
	oom.calls++;
	oom.nested += oom.running;
	if (oom.running)
		return false;
	oom.running = 1;
	if (hk_alloc(oom.cache, size))
		oom.nested += 100;
	oom.running = 0;
	return false;
}

/* Within on_oom an allocation that fails is NULL at once, and on_oom is not asked again. */
Test(gaps, on_oom_is_not_nested)
{
	struct hk_arena_config config = {
		.address_space = 64 * MIB,
		.limit = 2 * MIB,
		.on_oom = allocate_in_oom,
	};
	struct hk_arena *arena;

	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &oom.cache), 0);
	cr_assert_null(hk_alloc(oom.cache, 4 * MIB));
	cr_assert_eq(oom.calls, 1, "%u", oom.calls);
	cr_assert_eq(oom.nested, 0, "%u", oom.nested);
	hk_arena_destroy(arena);
}

/* Holes that are too small for a block stand in the way of the limit until they are trimmed. */
Test(gaps, free_slabs_are_given_back_for_the_limit)
{
	struct heap heap;
	void *blocks[7];
	void *large;
	size_t i;

	heap_open(&heap, 8 * MIB);
	for (i = 0; i < 7; i++) {
		blocks[i] = hk_alloc(heap.cache, MIB);
		cr_assert_not_null(blocks[i]);
	}
	for (i = 1; i < 7; i += 2)
		hk_free(heap.cache, blocks[i]);
	large = hk_alloc(heap.cache, 2 * MIB);
	cr_assert_not_null(large);
	hk_free(heap.cache, large);
	for (i = 0; i < 7; i += 2)
		hk_free(heap.cache, blocks[i]);
	heap_close(&heap, 0);
}

/* The structs of caches that are gone are memory like any other. */
Test(gaps, trim_gives_the_structs_of_caches_back)
{
	struct hk_arena *arena = test_arena(NULL, 0);
	struct hk_cache *caches[100];
	size_t before, i;

	for (i = 0; i < 2; i++)
		cr_assert_eq(hk_cache_create(arena, &caches[i]), 0);
	for (i = 0; i < 2; i++)
		hk_cache_destroy(caches[i]);
	hk_arena_trim(arena, 0, 0);
	before = hk_arena_used(arena);
	for (i = 0; i < 100; i++)
		cr_assert_eq(hk_cache_create(arena, &caches[i]), 0);
	for (i = 0; i < 100; i++)
		hk_cache_destroy(caches[i]);
	hk_arena_trim(arena, 0, 0);
	cr_assert_eq(hk_arena_used(arena), before, "%zu, not %zu", hk_arena_used(arena), before);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_destroy(arena);
}

/* A block freed twice is in the magazines twice; the numbers stay within what there is. */
Test(gaps, statistics_of_a_double_free_are_never_negative)
{
	struct heap heap;
	struct hk_stats stats;
	struct hk_class_stats *class = &stats.classes[hk_size_class(100)];
	void *block, *blocks[100];

	heap_open(&heap, 0);
	/* a class that is not used yet has no magazine to hide a double free */
	cr_assert(hk_alloc_bulk(heap.cache, 100, 100, blocks));
	hk_free_bulk(heap.cache, 100, blocks);
	hk_cache_flush(heap.cache);
	block = hk_alloc(heap.cache, 100);
	cr_assert_not_null(block);
	hk_free(heap.cache, block);
	hk_free(heap.cache, block);
	hk_arena_stats(heap.arena, &stats);
	cr_assert_eq(class->live_blocks, 0, "%zu", class->live_blocks);
	cr_assert_eq(class->live_bytes, 0, "%zu", class->live_bytes);
	cr_assert_eq(stats.live_blocks, 0, "%zu", stats.live_blocks);
	hk_arena_reset(heap.arena);
	heap_close(&heap, 0);
}
