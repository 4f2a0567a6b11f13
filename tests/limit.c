/* SPDX-License-Identifier: MIT */
/* The budget: hard, told to the host in time, and never a reason for anything but NULL. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static struct fault_platform fault;
static struct test_reports reports;

/* What the on_oom of a test may use, and what it did. */
static struct {
	struct hk_cache *cache;
	void *blocks[4000];
	size_t count;
	size_t calls;
	size_t depth;
	size_t size;
	size_t give_back;
	bool give_up;
} oom;

static void fault_open(const struct fault_options *options)
{
	cr_assert_eq(fault_platform_init(&fault, options), 0);
}

static void fault_close(void)
{
	cr_assert_eq(fault.reserved, 0);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

static void on_report(void *context, const struct hk_report *report)
{
	(void)context;
	test_on_report(&reports, report);
}

static struct hk_arena *open_arena(size_t limit, bool (*on_oom)(void *, struct hk_arena *, size_t))
{
	struct hk_arena_config config = {
		.address_space = 256 * MIB,
		.limit = limit,
		.platform = &fault.platform,
		.on_oom = on_oom,
		.on_report = on_report,
		.context = &oom,
	};
	struct hk_arena *arena;

	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &oom.cache), 0);
	return arena;
}

/* Random sizes until NULL, then some are freed, and again: the platform counts. */
static void random_until_null(size_t page_size, size_t limit, unsigned shift)
{
	struct fault_options options = { .page_size = page_size, .forbid = true };
	static void *blocks[100000];
	uint64_t seed = page_size ^ limit ^ shift;
	struct hk_stats stats;
	struct hk_arena *arena;
	size_t count = 0;
	size_t i;
	int round;

	fault_open(&options);
	memset(&reports, 0, sizeof(reports));
	arena = open_arena(limit, NULL);
	for (round = 0; round < 6; round++) {
		while (count < COUNT(blocks)) {
			size_t size = (size_t)(test_random(&seed) % 512)
				      << test_random(&seed) % shift;
			unsigned char *block = hk_alloc(oom.cache, size);

			must(fault.committed <= limit, "%zu of %zu", fault.committed, limit);
			if (!block)
				break;
			if (size > 0)
				block[0] = block[size - 1] = 1;
			blocks[count++] = block;
		}
		must(reports.by_fault[HK_FAULT_EXHAUSTED] == (size_t)round + 1, "round %d", round);
		must(hk_arena_used(arena) == fault.committed, "%zu, not %zu", hk_arena_used(arena),
		     fault.committed);
		must(hk_arena_check(arena) == 0, "round %d", round);
		for (i = count / 2; i < count; i++)
			hk_free(oom.cache, blocks[i]);
		count /= 2;
	}
	hk_arena_stats(arena, &stats);
	cr_assert_leq(fault.peak, limit);
	cr_assert_eq(stats.peak_committed_bytes, fault.peak);
	cr_assert_eq(stats.counters.exhausted, 6);
	cr_assert_eq(reports.count, 6);
	hk_free_bulk(oom.cache, count, blocks);
	hk_cache_flush(oom.cache);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.live_blocks, 0);
	hk_arena_destroy(arena);
	fault_close();
}

Test(limit, is_never_exceeded)
{
	static const size_t pages[] = { 4 * KIB, 16 * KIB, 64 * KIB };
	static const size_t limits[] = { 512 * KIB, MIB, 3 * MIB + 12345, 9 * MIB };
	size_t i;
	size_t j;

	for (i = 0; i < COUNT(pages); i++)
		for (j = 0; j < COUNT(limits); j++) {
			random_until_null(pages[i], limits[j], 4);
			random_until_null(pages[i], limits[j], 11);
		}
}

/* Of a limit of 32 MiB most can be used: metadata and left-over slabs are few. */
Test(limit, is_reached)
{
	static const size_t sizes[] = { 16, 64, 1000, 5000, 65536, MIB };
	size_t i;

	for (i = 0; i < COUNT(sizes); i++) {
		struct hk_arena *arena;
		struct hk_stats stats;

		fault_open(NULL);
		arena = open_arena(32 * MIB, NULL);
		while (hk_alloc(oom.cache, sizes[i]))
			;
		hk_arena_stats(arena, &stats);
		cr_assert_geq(stats.live_bytes, 27 * MIB, "size %zu: %zu of %zu", sizes[i],
			      stats.live_bytes, stats.committed_bytes);
		hk_arena_reset(arena);
		hk_arena_destroy(arena);
		fault_close();
	}
}

/* What is free in the depot and in the calling cache is found before the host is asked. */
Test(limit, free_blocks_of_other_classes_are_found_first)
{
	struct hk_arena *arena;
	size_t count;
	size_t i;

	fault_open(NULL);
	arena = open_arena(4 * MIB, NULL);
	for (count = 0; count < COUNT(oom.blocks); count++) {
		oom.blocks[count] = hk_alloc(oom.cache, 2000);
		if (!oom.blocks[count])
			break;
	}
	cr_assert_lt(count, COUNT(oom.blocks));
	memset(&reports, 0, sizeof(reports));
	for (i = 0; i < count; i++)
		hk_free(oom.cache, oom.blocks[i]);
	for (i = 0; i < 3; i++) {
		oom.blocks[i] = hk_alloc(oom.cache, MIB);
		cr_assert_not_null(oom.blocks[i], "block %zu", i);
	}
	for (i = 0; i < 3; i++)
		hk_free(oom.cache, oom.blocks[i]);
	for (i = 0; i < 100; i++) {
		oom.blocks[i] = hk_alloc(oom.cache, 30000);
		cr_assert_not_null(oom.blocks[i], "block %zu", i);
	}
	hk_free_bulk(oom.cache, 100, oom.blocks);
	cr_assert_eq(reports.count, 0);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_destroy(arena);
	cr_assert_eq(reports.count, 0);
	fault_close();
}

static void *use_arena(void *argument)
{
	struct hk_arena *arena = argument;
	struct hk_cache *cache;
	struct hk_stats stats;

	hk_arena_stats(arena, &stats);
	hk_arena_free(arena, oom.blocks[--oom.count]);
	if (hk_cache_create(arena, &cache) == 0) {
		hk_free(cache, oom.blocks[--oom.count]);
		hk_cache_flush(cache);
		hk_cache_destroy(cache);
	}
	return NULL;
}

/* Does everything that is allowed there, from another thread too: a lock held would hang. */
static bool on_oom(void *context, struct hk_arena *arena, size_t size)
{
	static struct hk_stats stats;
	pthread_t thread;
	size_t i;

	oom.calls++;
	oom.depth++;
	oom.size = size;
	if (context != &oom || oom.depth > 1 || oom.give_up || oom.count < 2) {
		oom.depth--;
		return false;
	}
	if (hk_alloc(oom.cache, 128 * MIB) || hk_arena_alloc(arena, 128 * MIB))
		oom.depth += 100;
	hk_arena_stats(arena, &stats);
	if (pthread_create(&thread, NULL, use_arena, arena) || pthread_join(thread, NULL))
		oom.depth += 100;
	for (i = 0; i < oom.give_back && oom.count > 0; i++)
		hk_free(oom.cache, oom.blocks[--oom.count]);
	hk_cache_flush(oom.cache);
	hk_arena_trim(arena, 0, 0);
	oom.depth--;
	return true;
}

Test(limit, on_oom_frees_and_the_call_goes_on, .timeout = 60)
{
	static void *blocks[3000];
	struct hk_arena *arena;
	struct hk_stats stats;
	size_t calls_seen;
	size_t i;

	fault_open(NULL);
	arena = open_arena(4 * MIB, on_oom);
	oom.give_back = 100;
	for (i = 0; i < 2500; i++) {
		void *block = hk_alloc(oom.cache, 3000);

		must(block, "block %zu", i);
		test_fill(block, 3000, 1);
		oom.blocks[oom.count++] = block;
		must(fault.committed <= 4 * MIB, "%zu", fault.committed);
	}
	cr_assert_gt(oom.calls, 0);
	cr_assert_eq(oom.depth, 0, "called again within itself, or an allocation in it went well");
	cr_assert_geq(oom.size, 3000);
	for (i = 0; i < oom.count; i++)
		must(test_holds(oom.blocks[i], 3000, 1), "block %zu", i);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.counters.oom_calls, oom.calls);
	cr_assert_eq(stats.live_blocks, oom.count);
	calls_seen = oom.calls;
	oom.give_back = 1500;
	cr_assert(hk_alloc_bulk(oom.cache, 600, COUNT(blocks), blocks));
	cr_assert_gt(oom.calls, calls_seen);
	for (i = 0; i < COUNT(blocks); i++)
		test_fill(blocks[i], 600, i);
	for (i = 0; i < COUNT(blocks); i++)
		must(test_holds(blocks[i], 600, i), "block %zu", i);
	hk_free_bulk(oom.cache, COUNT(blocks), blocks);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_reset(arena);
	hk_arena_destroy(arena);
	fault_close();
}

/* Each function that allocates asks; what it had in hand is as it should be when it is asked. */
Test(limit, on_oom_is_asked_by_every_function, .timeout = 60)
{
	struct hk_arena *arena;
	void *block;
	void *bulk[4];
	size_t calls = 0;

	fault_open(NULL);
	arena = open_arena(4 * MIB, on_oom);
	oom.give_back = 1;
	while (oom.count < 5) {
		oom.blocks[oom.count] = hk_alloc(oom.cache, 512 * KIB);
		cr_assert_not_null(oom.blocks[oom.count]);
		oom.count++;
	}
	oom.give_up = true;
	cr_assert_null(hk_alloc(oom.cache, 3 * MIB));
	cr_assert_gt(oom.calls, calls);
	calls = oom.calls;
	cr_assert_null(hk_zalloc(oom.cache, 3 * MIB));
	cr_assert_gt(oom.calls, calls);
	calls = oom.calls;
	cr_assert_null(hk_arena_alloc(arena, 3 * MIB));
	cr_assert_gt(oom.calls, calls);
	calls = oom.calls;
	cr_assert_null(hk_alloc_aligned(oom.cache, 3 * MIB, 4096));
	cr_assert_gt(oom.calls, calls);
	calls = oom.calls;
	cr_assert_null(hk_realloc(oom.cache, oom.blocks[0], 3 * MIB));
	cr_assert_gt(oom.calls, calls);
	calls = oom.calls;
	cr_assert_null(hk_realloc_aligned(oom.cache, oom.blocks[0], 3 * MIB, 64));
	cr_assert_gt(oom.calls, calls);
	calls = oom.calls;
	cr_assert_not(hk_alloc_bulk(oom.cache, MIB, 4, bulk));
	cr_assert_gt(oom.calls, calls);
	cr_assert_eq(reports.by_fault[HK_FAULT_EXHAUSTED], 7);
	cr_assert_eq(reports.count, 7);
	cr_assert_eq(hk_arena_check(arena), 0);
	oom.give_up = false;
	oom.give_back = 3;
	block = hk_alloc(oom.cache, 3 * MIB);
	cr_assert_not_null(block, "after the callback freed five of five");
	hk_free(oom.cache, block);
	hk_arena_destroy(arena);
	fault_close();
}

Test(limit, giving_up_is_null_and_one_report)
{
	struct hk_arena *arena;

	fault_open(NULL);
	arena = open_arena(2 * MIB, on_oom);
	oom.give_up = true;
	cr_assert_null(hk_alloc(oom.cache, 5 * MIB));
	cr_assert_eq(oom.calls, 1);
	cr_assert_eq(oom.size, 5 * MIB);
	cr_assert_eq(reports.count, 1);
	cr_assert_eq(reports.last.fault, HK_FAULT_EXHAUSTED);
	cr_assert_eq(reports.last.size, 5 * MIB);
	cr_assert_eq(reports.last.arena, arena);
	cr_assert_str_eq(reports.last.arena_name, "");
	hk_arena_destroy(arena);
	fault_close();
}

/* A platform that has no more is no other thing than a limit, but it is told. */
Test(limit, refusing_platform_is_asked_again_after_on_oom)
{
	struct hk_arena *arena;
	size_t i;

	fault_open(NULL);
	fault.quota = 4 * MIB;
	arena = open_arena(0, on_oom);
	oom.give_back = 50;
	for (i = 0; i < 1000; i++) {
		void *block = hk_alloc(oom.cache, 8000);

		must(block, "block %zu", i);
		oom.blocks[oom.count++] = block;
	}
	cr_assert_gt(oom.calls, 0);
	cr_assert_gt(reports.by_fault[HK_FAULT_PLATFORM], 0);
	cr_assert_eq(reports.by_fault[HK_FAULT_PLATFORM] + reports.by_fault[HK_FAULT_EXHAUSTED],
		     reports.count);
	cr_assert_eq(hk_arena_used(arena), fault.committed);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_reset(arena);
	hk_arena_destroy(arena);
	fault_close();
}

/* The range is a limit too. */
Test(limit, of_the_range)
{
	struct hk_arena_config config = { .address_space = 4 * MIB, .on_report = on_report };
	static void *blocks[200];
	struct hk_cache *cache;
	struct hk_arena *arena;
	size_t count;
	int round;

	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	for (round = 1; round <= 3; round++) {
		for (count = 0; count < COUNT(blocks); count++) {
			blocks[count] = hk_alloc(cache, 60000);
			if (!blocks[count])
				break;
			memset(blocks[count], 1, 60000);
		}
		must(count > 20 && count < COUNT(blocks), "%zu blocks", count);
		cr_assert_eq(reports.count, (size_t)round);
		cr_assert_eq(reports.last.fault, HK_FAULT_EXHAUSTED);
		cr_assert_eq(hk_arena_check(arena), 0);
		hk_free_bulk(cache, count, blocks);
		hk_cache_flush(cache);
	}
	hk_arena_destroy(arena);
	cr_assert_eq(reports.count, 3);
}

static void count_pressure(void *context, struct hk_arena *arena, size_t used, size_t limit)
{
	(void)arena;
	(void)used;
	(void)limit;
	(*(size_t *)context)++;
}

/* An arena that could not be made is no arena that the host could be told of. */
Test(limit, of_an_arena_that_is_not_made_no_pressure_is_told)
{
	size_t told = 0;
	struct hk_arena_config config = {
		.soft_limit = 512 * KIB,
		.reserve = MIB,
		.platform = &fault.platform,
		.context = &told,
		.on_pressure = count_pressure,
	};
	struct hk_arena *arena;

	fault_open(NULL);
	fault.quota = 768 * KIB;
	cr_assert_eq(hk_arena_create(&arena, &config), HK_ERROR_MEMORY);
	cr_assert_null(arena);
	cr_assert_eq(told, 0);
	fault.quota = 0;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(told, 1);
	hk_arena_destroy(arena);
	fault_close();
}
