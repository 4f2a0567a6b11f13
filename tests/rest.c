/* SPDX-License-Identifier: MIT */
/* Caches that rest: as they were when they wake soon, drained by maintenance when they do not. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include <hakmem/cache.h>

#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)
#define DELAY 4

static struct heap heap;
static struct hk_cache *other;
static void *blocks[3000];

static void open_arena(void)
{
	struct hk_arena_config config = {
		.context = &heap.reports,
		.on_report = test_on_report,
		.maintain_delay = DELAY,
	};

	memset(&heap, 0, sizeof(heap));
	cr_assert_eq(hk_arena_create(&heap.arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
	cr_assert_eq(hk_cache_create(heap.arena, &other), 0);
}

static void close_arena(void)
{
	heap_close(&heap, 0);
}

static struct hk_stats stats(void)
{
	struct hk_stats stats;

	cr_assert_eq(hk_arena_check(heap.arena), 0, "%s", heap.reports.last.what);
	hk_arena_stats(heap.arena, &stats);
	return stats;
}

/* So that it has magazines of many classes, with a spare one or without. */
static void use(struct hk_cache *cache)
{
	size_t i;

	for (i = 0; i < COUNT(blocks); i++)
		blocks[i] = hk_alloc(cache, i * 7 % 2000);
	for (i = 0; i < COUNT(blocks); i++)
		hk_free(cache, blocks[i]);
}

static void maintain(size_t calls)
{
	while (calls--)
		hk_arena_maintain(heap.arena, 0);
}

Test(rest, a_cache_that_wakes_has_what_it_had)
{
	struct hk_stats before, after;
	void *first, *second;

	open_arena();
	use(heap.cache);
	first = hk_alloc(heap.cache, 100);
	hk_free(heap.cache, first);
	before = stats();
	hk_cache_rest(heap.cache);
	hk_cache_rest(heap.cache);
	after = stats();
	cr_assert_eq(after.cached_bytes, before.cached_bytes, "%zu, not %zu", after.cached_bytes,
		     before.cached_bytes);
	cr_assert_eq(after.live_bytes, 0);
	maintain(DELAY - 1);
	second = hk_alloc(heap.cache, 100);
	cr_assert_eq(second, first);
	/* all classes are up again, without a refill */
	before = stats();
	hk_free(heap.cache, hk_alloc(heap.cache, 500));
	hk_free(heap.cache, second);
	after = stats();
	cr_assert_eq(after.counters.slab_batch, before.counters.slab_batch);
	cr_assert_eq(after.counters.depot_swap, before.counters.depot_swap);
	close_arena();
}

Test(rest, what_wakes_it)
{
	void *block, *lot[3];
	size_t i;

	open_arena();
	for (i = 0; i < 8; i++) {
		use(heap.cache);
		block = hk_alloc(heap.cache, 48);
		hk_cache_rest(heap.cache);
		switch (i) {
		case 0:
			hk_free(heap.cache, block);
			block = hk_alloc(heap.cache, 48);
			break;
		case 1:
			hk_free_sized(heap.cache, block, 48);
			block = hk_alloc(heap.cache, 48);
			break;
		case 2:
			hk_cache_flush(heap.cache);
			break;
		case 3:
			cr_assert(hk_alloc_bulk(heap.cache, 48, COUNT(lot), lot));
			hk_free_bulk(heap.cache, COUNT(lot), lot);
			break;
		case 4:
			block = hk_realloc(heap.cache, block, 700);
			break;
		case 5:
			cr_assert_eq(hk_cache_prefill(heap.cache, 48, 10), 0);
			break;
		case 6:
			hk_cache_destroy(heap.cache);
			stats();
			cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
			break;
		default:
			hk_arena_reset(heap.arena);
			block = hk_alloc(heap.cache, 48);
		}
		stats();
		memset(block, 1, 48);
		hk_free(heap.cache, block);
		cr_assert_eq(stats().live_blocks, 0);
	}
	close_arena();
}

/* Its blocks come to others, by way of the depot; and at last back to the platform. */
Test(rest, a_cache_that_rests_for_long_is_drained)
{
	struct hk_stats before;
	size_t i, committed;

	open_arena();
	use(heap.cache);
	use(other);
	hk_arena_trim(heap.arena, 0, 0);
	before = stats();
	cr_assert_gt(before.cached_bytes, 100000);
	hk_cache_rest(heap.cache);
	hk_cache_rest(other);
	maintain(DELAY - 1);
	cr_assert_geq(stats().cached_bytes, before.cached_bytes, "not yet");
	committed = before.committed_bytes;
	for (i = 0; i < 40; i++)
		maintain(DELAY);
	cr_assert_eq(stats().cached_bytes, 0, "%zu", stats().cached_bytes);
	cr_assert_eq(stats().live_bytes, 0);
	cr_assert_lt(hk_arena_used(heap.arena), committed);
	/* and works on */
	use(heap.cache);
	hk_cache_rest(heap.cache);
	use(other);
	cr_assert_eq(stats().live_blocks, 0);
	close_arena();
}

/* One step at a time, while its user may wake it between any two. */
Test(rest, waking_in_the_middle_of_it, .timeout = 60)
{
	size_t steps, i;
	bool more;

	for (steps = 0, more = true; more; steps++) {
		open_arena();
		use(heap.cache);
		hk_cache_rest(heap.cache);
		maintain(DELAY - 1);
		for (i = 0; i < steps; i++)
			more = hk_arena_maintain(heap.arena, 1);
		stats();
		use(heap.cache);
		cr_assert_eq(stats().live_blocks, 0);
		close_arena();
		must(steps < 500, "no end");
	}
	cr_assert_gt(steps, 20);
}

/* What was promised stays promised. */
Test(rest, what_was_set_aside_stays)
{
	size_t i;

	open_arena();
	use(heap.cache);
	cr_assert_eq(hk_cache_prefill(heap.cache, 1000, 50), 0);
	hk_cache_rest(heap.cache);
	for (i = 0; i < 20; i++)
		maintain(DELAY);
	cr_assert_eq(stats().cached_bytes, 50 * hk_good_size(1000));
	close_arena();
}

/* Resting and waking, over and over, keeps the books. */
Test(rest, over_and_over)
{
	size_t i;

	open_arena();
	for (i = 0; i < 2000; i++) {
		blocks[i] = hk_alloc(i % 3 ? heap.cache : other, i * 13 % 3000);
		if (i % 5 == 0)
			hk_cache_rest(i % 2 ? heap.cache : other);
		if (i % 7 == 0)
			maintain(i % 3);
		if (i % 4 == 0) {
			hk_free(i % 8 ? heap.cache : other, blocks[i]);
			blocks[i] = NULL;
		}
		if (i % 100 == 0)
			stats();
	}
	hk_free_bulk(heap.cache, 2000, blocks);
	cr_assert_eq(stats().live_blocks, 0);
	close_arena();
}

/* More than a step looks at: each call looks at all. */
Test(rest, of_many_caches_all_are_drained)
{
	struct hk_cache *caches[150];
	size_t i;

	open_arena();
	for (i = 0; i < COUNT(caches); i++) {
		cr_assert_eq(hk_cache_create(heap.arena, &caches[i]), 0);
		hk_free(caches[i], hk_alloc(caches[i], 40));
	}
	/* the first and the last rest */
	hk_cache_rest(caches[0]);
	hk_cache_rest(caches[--i]);
	cr_assert_neq(((const struct hk_front *)(const void *)caches[i])->rest, 0);
	maintain(DELAY);
	cr_assert_eq(((const struct hk_front *)(const void *)caches[0])->rest, 0);
	cr_assert_eq(((const struct hk_front *)(const void *)caches[i])->rest, 0);
	close_arena();
}

static void on_report_looks(void *context, const struct hk_report *report)
{
	struct hk_stats stats;

	test_on_report(context, report);
	hk_arena_stats(report->arena, &stats);
	hk_arena_trim(heap.arena, SIZE_MAX, 0);
}

/* A block that was freed twice is found when the magazine of a resting cache is drained. */
Test(rest, misuse_is_told_with_no_lock_held, .timeout = 30)
{
	struct hk_arena_config config = {
		.context = &heap.reports,
		.on_report = on_report_looks,
		.maintain_delay = DELAY,
	};
	size_t i;

	memset(&heap, 0, sizeof(heap));
	cr_assert_eq(hk_arena_create(&heap.arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
	/* the depot has as little as can be, and that it has */
	hk_arena_trim(heap.arena, 0, 0);
	for (i = 0; i < 600; i++)
		blocks[i] = hk_alloc(heap.cache, 1000);
	for (i = 0; i < 600; i++)
		hk_free(heap.cache, blocks[i]);
	hk_free(heap.cache, blocks[599]);
	cr_assert_eq(heap.reports.count, 0);
	hk_cache_rest(heap.cache);
	maintain(40 * DELAY);
	cr_assert_eq(heap.reports.by_fault[HK_FAULT_DOUBLE_FREE], 1);
	cr_assert_eq(stats().live_blocks, 0);
	heap_close(&heap, 1);
}
