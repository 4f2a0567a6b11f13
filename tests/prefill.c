/* SPDX-License-Identifier: MIT */
/* Blocks set aside for a cache: they are there when nothing else is, and no platform is called. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define MOST 300

/* each of another class */
static const size_t sizes[] = { 0, 32, 100, 1000, 4000, 33000, 300000, 600000, 1100000, 2000000 };

static struct fault_platform fault;
static unsigned char *blocks[MOST];

static void open_arena(struct heap *heap, size_t limit)
{
	struct hk_arena_config config = {
		.address_space = 512 * MIB,
		.limit = limit,
		.platform = &fault.platform,
		.context = &heap->reports,
		.on_report = test_on_report,
	};

	memset(heap, 0, sizeof(*heap));
	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	cr_assert_eq(hk_arena_create(&heap->arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap->arena, &heap->cache), 0);
}

static void close_arena(struct heap *heap)
{
	heap_close(heap, 0);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

static struct hk_stats stats_of(const struct heap *heap)
{
	struct hk_stats stats;

	hk_arena_stats(heap->arena, &stats);
	return stats;
}

/* So many allocations succeed though the platform has nothing any more, and is not asked. */
static void take_without_platform(struct heap *heap, size_t size, size_t count)
{
	uint64_t calls = fault.calls;
	size_t i;

	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	calls = fault.calls;
	for (i = 0; i < count; i++) {
		blocks[i] = i % 3 == 2 ? hk_zalloc(heap->cache, size) : hk_alloc(heap->cache, size);
		must(blocks[i], "%zu of %zu blocks of %zu bytes", i, count, size);
		must(hk_usable_size(heap->arena, blocks[i]) == hk_good_size(size), "%zu bytes: %zu",
		     size, hk_usable_size(heap->arena, blocks[i]));
		must(i % 3 != 2 || !size || (!blocks[i][0] && !blocks[i][size - 1]), "not zero");
		memset(blocks[i], (int)i, size);
	}
	must(fault.calls == calls, "%zu bytes: the platform was called", size);
	fault_platform_rewind(&fault);
	for (i = 0; i < count; i++) {
		must(!size || blocks[i][size - 1] == (unsigned char)i, "two have the same block");
		hk_free(heap->cache, blocks[i]);
	}
}

/* Flushes this very cache, drains the depot, trims, and finds nothing. */
static void use_up(struct heap *heap)
{
	while (hk_alloc(heap->cache, 50000))
		;
	while (hk_alloc(heap->cache, 48))
		;
	cr_assert_geq(heap->reports.count, 2);
	heap->reports.count = 0;
}

Test(prefill, as_many_as_were_asked_for_are_there, .timeout = 60)
{
	static const size_t counts[] = { 0, 1, 2, 5, 70, 200 };
	struct heap heap;
	struct hk_stats before, after;
	size_t i, j;

	for (i = 0; i < COUNT(sizes); i++) {
		for (j = 0; j < COUNT(counts); j++) {
			open_arena(&heap, 0);
			before = stats_of(&heap);
			cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], counts[j]), 0);
			after = stats_of(&heap);
			must(after.live_blocks == 0 && after.live_bytes == 0, "%zu bytes are live",
			     after.live_bytes);
			must(after.cached_bytes - before.cached_bytes ==
				     counts[j] * hk_good_size(sizes[i]),
			     "%zu of %zu bytes: %zu are cached", counts[j], sizes[i],
			     after.cached_bytes);
			must(hk_arena_check(heap.arena) == 0, "%s", heap.reports.last.what);
			take_without_platform(&heap, sizes[i], counts[j]);
			must(hk_arena_check(heap.arena) == 0, "%s", heap.reports.last.what);
			close_arena(&heap);
		}
	}
}

/* What was at hand before does not count, since frees may pass it on. */
Test(prefill, frees_in_between_take_none_away)
{
	struct heap heap;
	size_t i;

	open_arena(&heap, 0);
	for (i = 0; i < 250; i++)
		blocks[i] = hk_alloc(heap.cache, 1000);
	for (i = 0; i < 60; i++)
		hk_free(heap.cache, blocks[i]);
	cr_assert_eq(hk_cache_prefill(heap.cache, 1000, 100), 0);
	for (; i < 250; i++)
		hk_free(heap.cache, blocks[i]);
	hk_arena_trim(heap.arena, 0, 0);
	take_without_platform(&heap, 1000, 100);
	close_arena(&heap);
}

Test(prefill, is_there_when_all_else_is_used_up)
{
	struct heap heap;
	size_t i;

	for (i = 0; i < COUNT(sizes); i++) {
		open_arena(&heap, 48 * MIB);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 20), 0);
		use_up(&heap);
		take_without_platform(&heap, sizes[i], 20);
		hk_arena_reset(heap.arena);
		close_arena(&heap);
	}
}

/* After some were used, too: what is left is not in a magazine that others could empty. */
Test(prefill, what_is_left_stays_set_aside)
{
	struct heap heap;
	size_t i, j;

	for (i = 0; i < COUNT(sizes); i++) {
		open_arena(&heap, 48 * MIB);
		for (j = 0; j < 60; j++)
			blocks[20 + j] = sizes[i] < 100000 ? hk_alloc(heap.cache, sizes[i]) : NULL;
		hk_cache_flush(heap.cache);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 20), 0);
		blocks[0] = hk_alloc(heap.cache, sizes[i]);
		/* fills the magazines and overflows them */
		for (j = 0; j < 60; j++)
			hk_free(heap.cache, blocks[20 + j]);
		use_up(&heap);
		take_without_platform(&heap, sizes[i], 19);
		hk_arena_reset(heap.arena);
		close_arena(&heap);
	}
}

/* Several at once, in any order of setting aside and of use. */
Test(prefill, sizes_do_not_get_in_each_others_way)
{
	static unsigned char *taken[COUNT(sizes)][300];
	size_t want[COUNT(sizes)] = { 0 }, i, round, count;
	uint64_t seed = 5;
	struct heap heap;

	open_arena(&heap, 0);
	for (round = 0; round < 60; round++) {
		i = test_random(&seed) % COUNT(sizes);
		count = 1 + test_random(&seed) % 60;
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], count), 0);
		want[i] = want[i] < count ? count : want[i];
		cr_assert_eq(hk_arena_check(heap.arena), 0);
		if (round % 6 != 5)
			continue;
		i = test_random(&seed) % COUNT(sizes);
		take_without_platform(&heap, sizes[i], want[i]);
		want[i] = 0;
		cr_assert_eq(hk_arena_check(heap.arena), 0);
	}
	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	/* a large block serves its own size: from small to large shows it */
	for (i = 0; i < COUNT(sizes); i++)
		for (count = 0; count < want[i]; count++) {
			taken[i][count] = hk_alloc(heap.cache, sizes[i]);
			must(taken[i][count], "%zu of %zu blocks of %zu bytes", count, want[i],
			     sizes[i]);
		}
	fault_platform_rewind(&fault);
	for (i = 0; i < COUNT(sizes); i++)
		for (count = 0; count < want[i]; count++)
			hk_free(heap.cache, taken[i][count]);
	close_arena(&heap);
}

/* The last ones set aside are looked at first, and are too long. */
Test(prefill, a_large_block_serves_its_own_size)
{
	static const size_t two[] = { 1100000, 2000000 };
	void *block;
	struct heap heap;
	size_t i;

	open_arena(&heap, 0);
	for (i = 0; i < 2; i++)
		cr_assert_eq(hk_cache_prefill(heap.cache, two[i], 1), 0);
	for (i = 0; i < 2; i++) {
		block = hk_alloc(heap.cache, two[i]);
		cr_assert_eq(hk_usable_size(heap.arena, block), hk_good_size(two[i]));
		hk_free(heap.cache, block);
	}
	close_arena(&heap);
}

Test(prefill, is_topped_up_and_given_back)
{
	struct heap heap;
	size_t i, j, used;

	for (i = 0; i < COUNT(sizes); i++) {
		size_t size = hk_good_size(sizes[i]);

		open_arena(&heap, 0);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 10), 0);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 10), 0);
		must(stats_of(&heap).cached_bytes == 10 * size, "%zu", sizes[i]);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 25), 0);
		must(stats_of(&heap).cached_bytes == 25 * size, "%zu", sizes[i]);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 5), 0);
		must(stats_of(&heap).cached_bytes == 25 * size, "%zu", sizes[i]);
		take_without_platform(&heap, sizes[i], 25);
		hk_cache_flush(heap.cache);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 12), 0);
		/* of blocks that were written to */
		take_without_platform(&heap, sizes[i], 12);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 12), 0);
		hk_cache_flush(heap.cache);
		hk_arena_trim(heap.arena, 0, 0);
		must(stats_of(&heap).cached_bytes == 0, "%zu", sizes[i]);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 12), 0);
		used = hk_arena_used(heap.arena);
		hk_arena_reset(heap.arena);
		must(stats_of(&heap).cached_bytes == 0, "%zu", sizes[i]);
		cr_assert_eq(hk_arena_check(heap.arena), 0);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 12), 0);
		must(hk_arena_used(heap.arena) == used, "%zu, not %zu", hk_arena_used(heap.arena),
		     used);
		hk_arena_reset(heap.arena);
		for (j = 0; j < 20; j++)
			blocks[j] = hk_arena_alloc(heap.arena, sizes[i]);
		must(stats_of(&heap).live_blocks == 20, "%zu, not 20", stats_of(&heap).live_blocks);
		while (j)
			hk_arena_free(heap.arena, blocks[--j]);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 12), 0);
		/* what is left goes with the cache, and is no leak */
		hk_cache_destroy(heap.cache);
		must(stats_of(&heap).live_blocks == 0, "%zu", sizes[i]);
		cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 7), 0);
		close_arena(&heap);
	}
}

Test(prefill, what_cannot_be_had_leaves_what_was)
{
	struct heap heap;
	size_t i, cached;

	for (i = 0; i < COUNT(sizes); i++) {
		open_arena(&heap, 16 * MIB);
		cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 4), 0);
		cached = stats_of(&heap).cached_bytes;
		must(hk_cache_prefill(heap.cache, sizes[i], 2 * MIB) < 0, "%zu", sizes[i]);
		cr_assert_eq(heap.reports.count, 1);
		cr_assert_eq(heap.reports.last.fault, HK_FAULT_EXHAUSTED);
		heap.reports.count = 0;
		must(stats_of(&heap).cached_bytes == cached, "%zu, not %zu",
		     stats_of(&heap).cached_bytes, cached);
		cr_assert_eq(hk_arena_check(heap.arena), 0);
		take_without_platform(&heap, sizes[i], 4);
		close_arena(&heap);
	}
	open_arena(&heap, 0);
	cr_assert_eq(hk_cache_prefill(heap.cache, (size_t)PTRDIFF_MAX + 1, 1), HK_ERROR_ARGUMENT);
	cr_assert_eq(heap.reports.last.fault, HK_FAULT_ARGUMENT);
	cr_assert_eq(hk_cache_prefill(heap.cache, 10, SIZE_MAX), HK_ERROR_ARGUMENT);
	heap.reports.count = 0;
	close_arena(&heap);
}

/* Whichever call of the platform fails: none is there, or all. */
Test(prefill, each_call_of_the_platform_fails)
{
	struct heap heap;
	uint64_t failing;
	size_t i;
	bool failed;

	for (i = 0; i < COUNT(sizes); i++) {
		for (failing = 1, failed = true; failed && failing < 50; failing++) {
			open_arena(&heap, 0);
			fault_platform_rewind(&fault);
			fault.fail_at = failing;
			hk_cache_prefill(heap.cache, sizes[i], 30);
			failed = fault.failed != 0;
			heap.reports.count = 0;
			cr_assert_eq(hk_arena_check(heap.arena), 0);
			fault_platform_rewind(&fault);
			cr_assert_eq(hk_cache_prefill(heap.cache, sizes[i], 30), 0);
			take_without_platform(&heap, sizes[i], 30);
			close_arena(&heap);
		}
		must(failing > 2, "%zu bytes: no call was made", sizes[i]);
	}
}
