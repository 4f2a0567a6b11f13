/* SPDX-License-Identifier: MIT */
/*
 * What a host does wrong: each kind is reported with what, where and which block, and harms no
 * block but the one concerned; without a callback it stops the program.
 */
#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* What __builtin_trap() raises. */
#if defined(__aarch64__) || defined(__arm__)
#define TRAP SIGTRAP
#else
#define TRAP SIGILL
#endif

/* Blocks of all kinds, live all the while. */
static struct {
	struct heap heap;
	unsigned char *blocks[40];
	size_t sizes[40];
	size_t reports; /* that were expected so far */
} town;

static void town_open(void)
{
	static const size_t sizes[] = { 16,    64,    64,     1000,   1500,
					30000, 70000, 500000, 600000, 1200000 };
	size_t i;

	heap_open(&town.heap, 0);
	town.reports = 0;
	for (i = 0; i < COUNT(town.blocks); i++) {
		town.sizes[i] = sizes[i % COUNT(sizes)];
		town.blocks[i] = hk_alloc(town.heap.cache, town.sizes[i]);
		cr_assert_not_null(town.blocks[i]);
		test_fill(town.blocks[i], town.sizes[i], i);
	}
}

/* A report since the last, and no more than one, and it says all this. */
static void reported(enum hk_fault fault, const void *address, const char *when)
{
	const struct test_reports *reports = &town.heap.reports;

	cr_assert_eq(reports->count, town.reports + 1, "%s: %zu reports, the last: %s", when,
		     reports->count - town.reports, reports->last.what);
	cr_assert_eq(reports->last.fault, fault, "%s: %s, not %s", when,
		     hk_fault_name(reports->last.fault), hk_fault_name(fault));
	cr_assert_eq(reports->last.address, address, "%s: address", when);
	cr_assert_eq(reports->last.arena, town.heap.arena, "%s: arena", when);
	cr_assert_str_eq(reports->last.arena_name, "test");
	cr_assert(reports->last.what && reports->last.what[0], "%s: no words", when);
	town.reports++;
}

static unsigned class_of(size_t size)
{
	return size > HK_CLASS_MAX ? 0 : hk_size_class(size);
}

static void reported_of_block(enum hk_fault fault, const void *address, size_t size,
			      const char *when)
{
	reported(fault, address, when);
	cr_assert_eq(town.heap.reports.last.size_class, class_of(size), "%s: class %u", when,
		     town.heap.reports.last.size_class);
	if (size <= HK_CLASS_MAX)
		cr_assert_eq(town.heap.reports.last.size, hk_good_size(size), "%s: size %zu", when,
			     town.heap.reports.last.size);
}

static void town_stands(const char *when)
{
	size_t i;

	cr_assert_eq(town.heap.reports.count, town.reports, "%s: reported again", when);
	cr_assert_eq(hk_arena_check(town.heap.arena), 0, "%s", when);
	for (i = 0; i < COUNT(town.blocks); i++) {
		must(hk_usable_size(town.heap.arena, town.blocks[i]) == hk_good_size(town.sizes[i]),
		     "%s: block %zu", when, i);
		must(test_holds(town.blocks[i], town.sizes[i], i), "%s: block %zu", when, i);
	}
}

static void town_close(void)
{
	size_t i;

	town_stands("at the end");
	cr_assert_eq(heap_live_blocks(&town.heap), COUNT(town.blocks));
	for (i = 0; i < COUNT(town.blocks); i++)
		hk_free(town.heap.cache, town.blocks[i]);
	heap_close(&town.heap, town.reports);
}

Test(misuse, foreign_pointers_are_refused_at_once)
{
	static char global[64];
	struct heap other;
	char local[64];
	void *pointers[9];
	size_t i;

	town_open();
	heap_open(&other, 0);
	pointers[0] = local;
	pointers[1] = global;
	pointers[2] = hk_alloc(other.cache, 64);
	pointers[3] = (char *)town.heap.arena - 64 * KIB;
	pointers[4] = (char *)town.heap.arena + ((size_t)1 << 30) + 64 * KIB;
	pointers[5] = town.blocks[0] + 512 * MIB;
	pointers[6] = town.heap.arena;
	pointers[7] = town.heap.cache;
	pointers[8] = (void *)16;
	for (i = 0; i < COUNT(pointers); i++) {
		hk_free(town.heap.cache, pointers[i]);
		reported(HK_FAULT_FOREIGN, pointers[i], "free");
		cr_assert_eq(town.heap.reports.last.size_class, 0);
		hk_free_fn(town.heap.cache, pointers[i]);
		reported(HK_FAULT_FOREIGN, pointers[i], "free_fn");
		hk_free_sized(town.heap.cache, pointers[i], 64);
		reported(HK_FAULT_FOREIGN, pointers[i], "free_sized");
		hk_free_sized(town.heap.cache, pointers[i], 100 * KIB);
		reported(HK_FAULT_FOREIGN, pointers[i], "free_sized, medium");
		hk_free_sized(town.heap.cache, pointers[i], MIB);
		reported(HK_FAULT_FOREIGN, pointers[i], "free_sized, large");
		hk_arena_free(town.heap.arena, pointers[i]);
		reported(HK_FAULT_FOREIGN, pointers[i], "arena_free");
		hk_free_bulk(town.heap.cache, 1, &pointers[i]);
		reported(HK_FAULT_FOREIGN, pointers[i], "free_bulk");
		cr_assert_null(hk_realloc(town.heap.cache, pointers[i], 10));
		reported(HK_FAULT_FOREIGN, pointers[i], "realloc");
		cr_assert_null(hk_realloc_aligned(town.heap.cache, pointers[i], 10, 64));
		reported(HK_FAULT_FOREIGN, pointers[i], "realloc_aligned");
		cr_assert_not(hk_expand(town.heap.cache, pointers[i], 10));
		reported(HK_FAULT_FOREIGN, pointers[i], "expand");
		cr_assert_eq(hk_usable_size(town.heap.arena, pointers[i]), 0);
	}
	town_stands("after foreign pointers");
	hk_free(other.cache, pointers[2]);
	heap_close(&other, 0);
	town_close();
}

/* Found at the latest when the magazine reaches the slab. */
Test(misuse, interior_pointers_through_a_cache)
{
	static const size_t offsets[] = { 1, 8, 15, 16, 40 };
	size_t i;
	size_t j;

	town_open();
	for (i = 1; i < 10; i++)
		for (j = 0; j < COUNT(offsets); j++) {
			hk_free(town.heap.cache, town.blocks[i] + offsets[j]);
			hk_cache_flush(town.heap.cache);
			reported_of_block(HK_FAULT_INTERIOR, town.blocks[i] + offsets[j],
					  town.sizes[i], "free");
			town_stands("after an interior pointer");
		}
	town_close();
}

Test(misuse, interior_pointers_through_the_arena)
{
	size_t i;

	town_open();
	for (i = 1; i < 10; i++) {
		unsigned char *inside = town.blocks[i] + 16;

		hk_arena_free(town.heap.arena, inside);
		reported_of_block(HK_FAULT_INTERIOR, inside, town.sizes[i], "arena_free");
		cr_assert_null(hk_realloc(town.heap.cache, inside, 10));
		reported_of_block(HK_FAULT_INTERIOR, inside, town.sizes[i], "realloc");
		cr_assert_null(hk_realloc(town.heap.cache, inside, 2 * MIB));
		reported_of_block(HK_FAULT_INTERIOR, inside, town.sizes[i], "realloc");
		cr_assert_not(hk_expand(town.heap.cache, inside, 10));
		reported_of_block(HK_FAULT_INTERIOR, inside, town.sizes[i], "expand");
		cr_assert_eq(hk_usable_size(town.heap.arena, inside), 0);
		town_stands("after an interior pointer");
	}
	town_close();
}

/* Blocks of more than a slab: each further slab says itself to which block it belongs. */
Test(misuse, interior_pointers_to_later_slabs)
{
	size_t i;

	town_open();
	for (i = 6; i < 10; i++) {
		unsigned char *inside = town.blocks[i] + 64 * KIB;

		hk_arena_free(town.heap.arena, inside);
		reported_of_block(HK_FAULT_INTERIOR, inside, town.sizes[i], "arena_free");
		hk_free(town.heap.cache, inside);
		hk_cache_flush(town.heap.cache);
		reported_of_block(HK_FAULT_INTERIOR, inside, town.sizes[i], "free");
		cr_assert_eq(hk_usable_size(town.heap.arena, inside), 0);
		town_stands("after an interior pointer");
	}
	town_close();
}

Test(misuse, double_free_within_a_magazine)
{
	static const size_t sizes[] = { 16, 64, 1000, 1500, 30000 };
	size_t i;

	town_open();
	for (i = 0; i < COUNT(sizes); i++) {
		void *block = hk_alloc(town.heap.cache, sizes[i]);

		hk_free(town.heap.cache, block);
		hk_free(town.heap.cache, block);
		hk_cache_flush(town.heap.cache);
		reported_of_block(HK_FAULT_DOUBLE_FREE, block, sizes[i], "flush");
		town_stands("after a double free");
	}
	town_close();
}

Test(misuse, double_free_across_two_caches)
{
	struct hk_cache *other;
	void *block;

	town_open();
	cr_assert_eq(hk_cache_create(town.heap.arena, &other), 0);
	block = hk_alloc(town.heap.cache, 64);
	hk_free(town.heap.cache, block);
	hk_free(other, block);
	hk_cache_flush(other);
	hk_cache_flush(town.heap.cache);
	reported_of_block(HK_FAULT_DOUBLE_FREE, block, 64, "flush");
	hk_free(other, block);
	hk_cache_destroy(other);
	reported_of_block(HK_FAULT_DOUBLE_FREE, block, 64, "a third time");
	town_close();
}

Test(misuse, double_free_through_the_arena_is_found_at_once)
{
	static const size_t sizes[] = { 16, 64, 1000, 1500, 30000, 70000, 500000 };
	size_t i;

	town_open();
	for (i = 0; i < COUNT(sizes); i++) {
		void *neighbour = hk_alloc(town.heap.cache, sizes[i]);
		void *block = hk_arena_alloc(town.heap.arena, sizes[i]);

		hk_arena_free(town.heap.arena, block);
		hk_arena_free(town.heap.arena, block);
		cr_assert(town.heap.reports.last.fault == HK_FAULT_DOUBLE_FREE ||
			  town.heap.reports.last.fault == HK_FAULT_FOREIGN);
		reported(town.heap.reports.last.fault, block, "arena_free");
		if (sizes[i] <= 1500)
			cr_assert_eq(town.heap.reports.last.fault, HK_FAULT_DOUBLE_FREE,
				     "the slab has other blocks");
		hk_free(town.heap.cache, neighbour);
		hk_cache_flush(town.heap.cache);
		town_stands("after a double free");
	}
	town_close();
}

/* Where the slabs hold no block any more it is a foreign pointer; refused at once it is. */
Test(misuse, double_free_of_a_large_block_is_found_at_once)
{
	size_t sizes[] = { 600000, MIB, 5 * MIB };
	size_t i;

	town_open();
	for (i = 0; i < COUNT(sizes); i++) {
		void *block = hk_alloc(town.heap.cache, sizes[i]);
		enum hk_fault fault;

		hk_free(town.heap.cache, block);
		cr_assert_eq(town.heap.reports.count, town.reports);
		hk_free(town.heap.cache, block);
		fault = town.heap.reports.last.fault;
		cr_assert(fault == HK_FAULT_DOUBLE_FREE || fault == HK_FAULT_FOREIGN);
		reported(fault, block, "free");
		cr_assert_null(hk_realloc(town.heap.cache, block, 10));
		fault = town.heap.reports.last.fault;
		cr_assert(fault == HK_FAULT_DOUBLE_FREE || fault == HK_FAULT_FOREIGN);
		reported(fault, block, "realloc");
		town_stands("after a double free");
	}
	town_close();
}

Test(misuse, double_free_after_the_slab_emptied)
{
	enum hk_fault fault;
	void *block;

	heap_open(&town.heap, 0);
	block = hk_alloc(town.heap.cache, 5000);
	hk_free(town.heap.cache, block);
	hk_cache_flush(town.heap.cache);
	hk_free(town.heap.cache, block);
	hk_cache_flush(town.heap.cache);
	fault = town.heap.reports.last.fault;
	cr_assert(fault == HK_FAULT_DOUBLE_FREE || fault == HK_FAULT_FOREIGN);
	reported(fault, block, "free");
	cr_assert_null(hk_realloc(town.heap.cache, block, 10));
	fault = town.heap.reports.last.fault;
	cr_assert(fault == HK_FAULT_DOUBLE_FREE || fault == HK_FAULT_FOREIGN);
	reported(fault, block, "realloc");
	cr_assert_eq(hk_usable_size(town.heap.arena, block), 0);
	heap_close(&town.heap, 2);
}

/* Many wrong entries among right ones, in magazines that pass the depot. */
Test(misuse, wrong_entries_are_dropped_and_the_rest_goes_on)
{
	static unsigned char *blocks[600];
	size_t i;

	town_open();
	for (i = 0; i < COUNT(blocks); i++)
		blocks[i] = hk_alloc(town.heap.cache, 48);
	for (i = 0; i < COUNT(blocks); i++) {
		if (i % 5 == 0)
			hk_free(town.heap.cache, blocks[i] + 16);
		hk_free(town.heap.cache, blocks[i]);
		if (i % 7 == 0)
			hk_free(town.heap.cache, blocks[i]);
	}
	hk_cache_flush(town.heap.cache);
	hk_arena_trim(town.heap.arena, 0, 0);
	cr_assert_eq(town.heap.reports.by_fault[HK_FAULT_INTERIOR] +
			     town.heap.reports.by_fault[HK_FAULT_DOUBLE_FREE] +
			     town.heap.reports.by_fault[HK_FAULT_FOREIGN],
		     town.heap.reports.count);
	cr_assert_eq(town.heap.reports.count, 120 + 86);
	town.reports = town.heap.reports.count;
	town_close();
}

static struct hk_report leaks[16];
static size_t leak_count;

static void on_leak(void *context, const struct hk_report *report)
{
	struct hk_stats stats;

	hk_arena_stats(report->arena, &stats);
	cr_assert_eq(hk_arena_used(report->arena), stats.committed_bytes);
	cr_assert_eq(context, leaks);
	if (leak_count < COUNT(leaks))
		leaks[leak_count] = *report;
	leak_count++;
}

static void leak_open(struct hk_arena **arena, struct hk_cache **cache)
{
	struct hk_arena_config config = {
		.name = "leaky",
		.address_space = 64 * MIB,
		.on_report = on_leak,
		.context = leaks,
	};

	cr_assert_eq(hk_arena_create(arena, &config), 0);
	cr_assert_eq(hk_cache_create(*arena, cache), 0);
}

Test(misuse, leaks_are_reported_in_sum_and_the_first_eight)
{
	static const size_t sizes[] = { 5000, 100, 5000, 16, 100, 100, 5000, 16, 100, 40000, 16 };
	struct hk_arena *arena;
	struct hk_cache *cache;
	size_t bytes = 0;
	void *block;
	size_t i;

	leak_open(&arena, &cache);
	for (i = 0; i < COUNT(sizes); i++) {
		block = hk_alloc(cache, sizes[i]);
		cr_assert_not_null(block);
		bytes += hk_good_size(sizes[i]);
		block = hk_alloc(cache, sizes[i]);
		hk_free(cache, block);
	}
	hk_arena_destroy(arena);
	cr_assert_eq(leak_count, 9, "%zu reports", leak_count);
	cr_assert_eq(leaks[0].fault, HK_FAULT_LEAK);
	cr_assert_eq(leaks[0].count, COUNT(sizes));
	cr_assert_eq(leaks[0].size, bytes);
	cr_assert_str_eq(leaks[0].arena_name, "leaky");
	for (i = 1; i < 9; i++) {
		size_t size = i <= 3 ? 16 : i <= 7 ? 100 : 5000;

		cr_assert_eq(leaks[i].fault, HK_FAULT_LEAK);
		cr_assert_eq(leaks[i].count, 1);
		cr_assert_eq(leaks[i].size, hk_good_size(size), "leak %zu", i);
		cr_assert_eq(leaks[i].size_class, class_of(size), "leak %zu", i);
		cr_assert_not_null(leaks[i].address);
		if (i > 1 && leaks[i].size_class == leaks[i - 1].size_class)
			cr_assert_gt((uintptr_t)leaks[i].address, (uintptr_t)leaks[i - 1].address);
	}
}

Test(misuse, leaks_of_large_and_medium_blocks)
{
	struct hk_arena *arena;
	struct hk_cache *cache;
	void *blocks[2];
	size_t i;

	leak_open(&arena, &cache);
	blocks[0] = hk_alloc(cache, 3 * MIB);
	blocks[1] = hk_arena_alloc(arena, 300000);
	hk_arena_destroy(arena);
	cr_assert_eq(leak_count, 3);
	cr_assert_eq(leaks[0].count, 2);
	cr_assert_eq(leaks[0].size, 3 * MIB + hk_good_size(300000));
	for (i = 1; i < 3; i++) {
		bool large = leaks[i].address == blocks[0];

		cr_assert(large || leaks[i].address == blocks[1]);
		cr_assert_eq(leaks[i].size, large ? 3 * MIB : hk_good_size(300000));
		cr_assert_eq(leaks[i].size_class, large ? 0 : hk_size_class(300000));
	}
	cr_assert_neq(leaks[1].address, leaks[2].address);
}

/* Free blocks in magazines, and blocks that a reset took, are nobody's loss. */
Test(misuse, what_is_cached_or_reset_is_no_leak)
{
	struct hk_arena *arena;
	struct hk_cache *cache;
	size_t i;

	leak_open(&arena, &cache);
	for (i = 0; i < 1000; i++)
		cr_assert_not_null(hk_alloc(cache, 10 * i));
	hk_arena_reset(arena);
	for (i = 0; i < 1000; i++)
		hk_free(cache, hk_alloc(cache, 10 * i));
	hk_arena_destroy(arena);
	cr_assert_eq(leak_count, 0);
}

/* The class table is the one piece of an arena's own that the public header shows. */
Test(misuse, a_broken_invariant_is_found_and_told)
{
	unsigned char *entry;
	unsigned char saved;
	size_t broken;

	town_open();
	entry = (unsigned char *)town.heap.cache->classes +
		(((uintptr_t)town.blocks[3] - town.heap.cache->base) >> HK_SLAB_SHIFT);
	cr_assert_eq(*entry, hk_size_class(1000));
	saved = *entry;
	*entry = (unsigned char)(saved + 1);
	broken = hk_arena_check(town.heap.arena);
	*entry = saved;
	cr_assert_gt(broken, 0);
	cr_assert_geq(town.heap.reports.by_fault[HK_FAULT_CORRUPT], 1);
	cr_assert_leq(town.heap.reports.by_fault[HK_FAULT_CORRUPT], broken);
	cr_assert_eq(town.heap.reports.by_fault[HK_FAULT_CORRUPT], town.heap.reports.count);
	town.reports = town.heap.reports.count;
	cr_assert_eq(hk_arena_check(town.heap.arena), 0);
	town_close();
}

/* Without a callback: the trap, for what would harm. */
static struct hk_cache *bare(struct hk_arena **arena)
{
	struct hk_cache *cache;

	*arena = test_arena(NULL, 0);
	cr_assert_eq(hk_cache_create(*arena, &cache), 0);
	return cache;
}

Test(misuse, foreign_traps, .signal = TRAP)
{
	struct hk_arena *arena;
	char local;

	hk_free(bare(&arena), &local);
}

Test(misuse, foreign_traps_through_the_arena, .signal = TRAP)
{
	struct hk_arena *arena;
	char local;

	bare(&arena);
	hk_arena_free(arena, &local);
}

Test(misuse, foreign_traps_in_realloc, .signal = TRAP)
{
	struct hk_arena *arena;
	char local;

	cr_assert_null(hk_realloc(bare(&arena), &local, 10));
}

Test(misuse, interior_traps, .signal = TRAP)
{
	struct hk_arena *arena;
	struct hk_cache *cache = bare(&arena);

	hk_arena_free(arena, (char *)hk_alloc(cache, 64) + 16);
}

Test(misuse, double_free_traps, .signal = TRAP)
{
	struct hk_arena *arena;
	struct hk_cache *cache = bare(&arena);
	void *neighbour = hk_alloc(cache, 64);
	void *block = hk_alloc(cache, 64);

	cr_assert_not_null(neighbour, "it keeps the slab from being given up");
	hk_free(cache, block);
	hk_free(cache, block);
	hk_cache_flush(cache);
}

Test(misuse, corruption_traps, .signal = TRAP)
{
	struct hk_arena *arena;
	struct hk_cache *cache = bare(&arena);
	uintptr_t block = (uintptr_t)hk_alloc(cache, 64);
	unsigned char *classes = (unsigned char *)cache->classes;

	classes[(block - cache->base) >> HK_SLAB_SHIFT]++;
	hk_arena_check(arena);
}

/* Arguments, exhaustion, a platform that fails and leaks never stop a program. */
Test(misuse, what_does_no_harm_is_silent)
{
	volatile size_t odd = 24;
	volatile size_t huge = SIZE_MAX;
	struct hk_arena *arena = test_arena(NULL, MIB);
	struct hk_cache *cache;
	void *volatile block;

	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	cr_assert_null(hk_alloc(cache, 2 * MIB));
	cr_assert_null(hk_alloc(cache, huge));
	block = hk_alloc_aligned(cache, 16, odd);
	cr_assert_null(block);
	cr_assert_not_null(hk_alloc(cache, 100));
	hk_arena_destroy(arena);
}
