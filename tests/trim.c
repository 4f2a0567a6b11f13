/* SPDX-License-Identifier: MIT */
/* Memory goes back to the platform when the host asks, as far as it asks, and never else. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define STEP (512 * KIB)

static struct fault_platform fault;
static struct hk_arena *arena;
static struct hk_cache *cache;
static size_t empty; /* what the arena took when it was new, without the cache */
static void *blocks[4000];

static void open_with(const struct fault_options *options)
{
	struct hk_arena_config config = { .platform = &fault.platform, .address_space = 256 * MIB };

	cr_assert_eq(fault_platform_init(&fault, options), 0);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	empty = hk_arena_used(arena);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
}

static void close_all(void)
{
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_destroy(arena);
	cr_assert_eq(fault.reserved, 0);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* Some 40 MiB. */
static void fill(uint64_t seed)
{
	size_t i;

	for (i = 0; i < COUNT(blocks); i++) {
		size_t size = (size_t)(test_random(&seed) % 1024) << test_random(&seed) % 8;

		blocks[i] = hk_alloc(cache, size);
		must(blocks[i], "size %zu", size);
		memset(blocks[i], 1, size);
	}
}

static void clear(void)
{
	hk_free_bulk(cache, COUNT(blocks), blocks);
	hk_cache_flush(cache);
}

Test(trim, to_nothing_leaves_what_a_new_arena_has)
{
	static const size_t pages[] = { 4 * KIB, 16 * KIB, 64 * KIB };
	size_t i;
	int round;

	for (i = 0; i < COUNT(pages); i++) {
		open_with(&(struct fault_options){ .page_size = pages[i], .forbid = true });
		for (round = 0; round < 4; round++) {
			size_t before;
			size_t given;

			fill((uint64_t)round + 1);
			if (round % 2)
				clear();
			else
				hk_arena_reset(arena);
			hk_cache_destroy(cache);
			before = hk_arena_used(arena);
			given = hk_arena_trim(arena, 0, 0);
			if (round % 2) {
				/* other threads may look at the class table and magazines */
				cr_assert_leq(hk_arena_used(arena),
					      empty + 64 * KIB + 3 * pages[i]);
				hk_arena_reset(arena);
				given += hk_arena_trim(arena, 0, 0);
			}
			cr_assert_eq(hk_arena_used(arena), empty,
				     "page size %zu, round %d: %zu, not %zu", pages[i], round,
				     hk_arena_used(arena), empty);
			cr_assert_eq(given, before - empty);
			cr_assert_eq(fault.committed, empty);
			cr_assert_eq(hk_arena_trim(arena, 0, 0), 0);
			cr_assert_eq(hk_cache_create(arena, &cache), 0);
			cr_assert_eq(hk_arena_check(arena), 0);
		}
		fill(9);
		hk_arena_reset(arena);
		close_all();
	}
}

/* Caches survive a reset, and what they take then is no more than when they were new. */
Test(trim, after_a_reset_leaves_caches_that_work)
{
	size_t fresh;
	int round;

	open_with(&(struct fault_options){ .forbid = true });
	fresh = hk_arena_used(arena);
	for (round = 0; round < 3; round++) {
		fill((uint64_t)round + 1);
		hk_arena_reset(arena);
		hk_arena_trim(arena, 0, 0);
		cr_assert_leq(hk_arena_used(arena), fresh, "%zu, not %zu", hk_arena_used(arena),
			      fresh);
		cr_assert_eq(hk_arena_check(arena), 0);
	}
	fill(7);
	clear();
	close_all();
}

Test(trim, leaves_live_blocks_alone)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	size_t before;
	size_t i;

	open_with(&(struct fault_options){ .forbid = true });
	for (i = 0; i < count; i++) {
		blocks[i] = hk_alloc(cache, sizes[i]);
		test_fill(blocks[i], sizes[i], i);
	}
	for (i = 0; i < count; i++)
		if (i % 4)
			hk_free(cache, blocks[i]);
	hk_cache_flush(cache);
	before = hk_arena_used(arena);
	cr_assert_gt(hk_arena_trim(arena, 0, 0), MIB);
	cr_assert_lt(hk_arena_used(arena), before);
	cr_assert_eq(hk_arena_used(arena), fault.committed);
	cr_assert_eq(hk_arena_check(arena), 0);
	for (i = 0; i < count; i += 4) {
		must(test_holds(blocks[i], sizes[i], i), "size %zu", sizes[i]);
		hk_free(cache, blocks[i]);
	}
	for (i = 0; i < count; i++) {
		blocks[i] = hk_zalloc(cache, sizes[i]);
		must(blocks[i], "size %zu", sizes[i]);
		must(sizes[i] == 0 || ((char *)blocks[i])[sizes[i] - 1] == 0, "size %zu", sizes[i]);
	}
	hk_free_bulk(cache, count, blocks);
	close_all();
}

Test(trim, stops_at_what_is_to_be_kept)
{
	size_t keep;

	open_with(NULL);
	for (keep = 20 * MIB; keep >= 2 * MIB; keep -= 3 * MIB + 4096) {
		size_t before;
		size_t given;

		fill(keep);
		clear();
		before = hk_arena_used(arena);
		cr_assert_gt(before, keep + STEP);
		given = hk_arena_trim(arena, keep, 0);
		cr_assert_eq(given, before - hk_arena_used(arena));
		cr_assert_leq(hk_arena_used(arena), keep);
		cr_assert_gt(hk_arena_used(arena), keep - 2 * STEP, "%zu kept, %zu asked for",
			     hk_arena_used(arena), keep);
		cr_assert_eq(hk_arena_trim(arena, keep, 0), 0);
	}
	close_all();
}

Test(trim, takes_blocks_from_the_depot_but_not_from_caches)
{
	struct hk_stats before;
	struct hk_stats after;

	open_with(NULL);
	fill(1);
	hk_free_bulk(cache, COUNT(blocks), blocks);
	hk_arena_stats(arena, &before);
	cr_assert_gt(before.counters.magazine_to_depot, 0);
	hk_arena_trim(arena, 0, 0);
	hk_arena_stats(arena, &after);
	cr_assert_lt(after.cached_bytes, before.cached_bytes);
	cr_assert_gt(after.cached_bytes, 0, "the cache's own are not the arena's");
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_cache_flush(cache);
	hk_arena_stats(arena, &after);
	cr_assert_eq(after.cached_bytes, 0);
	hk_arena_trim(arena, 0, 0);
	hk_arena_stats(arena, &after);
	cr_assert_eq(after.free_bytes, 0);
	close_all();
}

/* Slice by slice until nothing comes: then a trim without a bound finds nothing either. */
static void in_slices(const struct fault_options *options, uint64_t budget_ns)
{
	size_t start;
	size_t slices;
	size_t given;

	open_with(options);
	fault.tick = 1000;
	fill(1);
	clear();
	start = hk_arena_used(arena);
	for (slices = 0; slices < 1000; slices++) {
		size_t before = hk_arena_used(arena);

		given = hk_arena_trim(arena, 0, budget_ns);
		must(before - hk_arena_used(arena) == given, "slice %zu", slices);
		must(given <= STEP + 64 * KIB, "slice %zu gave %zu", slices, given);
		must(hk_arena_check(arena) == 0, "slice %zu", slices);
		if (given == 0)
			break;
	}
	cr_assert_lt(slices, 1000, "no end: %zu left", hk_arena_used(arena));
	cr_assert_geq(slices, 8);
	cr_assert_lt(hk_arena_used(arena), MIB, "%zu left of %zu", hk_arena_used(arena), start);
	cr_assert_eq(hk_arena_trim(arena, 0, 0), 0, "the slices ended too soon");
	close_all();
}

Test(trim, with_a_budget_goes_on_in_slices)
{
	in_slices(&(struct fault_options){ .fake_clock = true }, 1);
}

Test(trim, without_a_clock_does_one_step_a_call)
{
	in_slices(&(struct fault_options){ .hide = FAULT_BIT(FAULT_NOW) }, 1000000000);
}

/* So do blocks in the depot: four magazines a call, and a call that came to no more says so. */
Test(trim, drains_the_depot_in_slices)
{
	struct hk_stats before, after;
	size_t i, given = 1, calls, nothing = 0;
	int round;

	open_with(&(struct fault_options){ .fake_clock = true });
	fault.tick = 1000;
	cr_assert_eq(hk_arena_prewarm(arena, 16 * MIB), 0, "with magazines for all of them");
	for (round = 0; round < 2; round++) {
		for (i = 0; i < COUNT(blocks); i++)
			blocks[i] = hk_alloc(cache, 48);
		/* magazines that were filled once stay; no slab is free when they are again */
		if (round)
			hk_arena_trim(arena, 0, 0);
		for (i = 0; i < COUNT(blocks); i++)
			hk_free(cache, blocks[i]);
	}
	hk_cache_flush(cache);
	hk_arena_stats(arena, &before);
	cr_assert_gt(before.cached_bytes, 40000, "%zu", before.cached_bytes);
	for (calls = 0; given; calls++) {
		given = hk_arena_trim(arena, 0, 1);
		hk_arena_stats(arena, &after);
		must(before.cached_bytes - after.cached_bytes <= 4 * 127 * hk_good_size(48),
		     "call %zu", calls);
		nothing += given == 1;
		before = after;
		must(calls < 100, "no end");
	}
	cr_assert_eq(after.cached_bytes, 0);
	cr_assert_geq(calls, 5, "%zu", calls);
	cr_assert_geq(nothing, 2, "%zu calls came to nothing", nothing);
	cr_assert_eq(hk_arena_trim(arena, 0, 0), 0);
	close_all();
}

/* And metadata of what was once in use: bitmaps and headers of 256 MiB, magazines. */
Test(trim, gives_metadata_back_in_slices)
{
	size_t given = 1, calls, most = 0;
	uint64_t decommits;

	open_with(&(struct fault_options){ .fake_clock = true });
	cr_assert_eq(hk_arena_prewarm(arena, 200 * MIB), 0);
	hk_arena_reset(arena);
	hk_cache_destroy(cache);
	fault.tick = 1000;
	for (calls = 0; given; calls++) {
		size_t before = fault.committed;

		decommits = fault.counts[FAULT_DECOMMIT];
		given = hk_arena_trim(arena, 0, 1);
		must(before - fault.committed <= STEP + 64 * KIB, "call %zu: %zu", calls, given);
		decommits = fault.counts[FAULT_DECOMMIT] - decommits;
		most = decommits > most ? decommits : most;
		must(calls < 1000, "no end");
	}
	cr_assert_eq(hk_arena_used(arena), empty, "%zu, not %zu", hk_arena_used(arena), empty);
	/* slabs; or the ends of the sections, which are looked at together */
	cr_assert_leq(most, 5, "%zu", most);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	close_all();
}

Test(trim, with_time_enough_does_all)
{
	open_with(&(struct fault_options){ .fake_clock = true });
	fault.tick = 1;
	fill(1);
	clear();
	cr_assert_gt(hk_arena_trim(arena, 0, 1000000000), 8 * STEP);
	cr_assert_eq(hk_arena_trim(arena, 0, 0), 0);
	close_all();
}

/* A refusing platform costs the memory, not the arena. */
Test(trim, survives_a_platform_that_takes_nothing_back)
{
	struct hk_stats stats;
	size_t before;

	open_with(&(struct fault_options){ .forbid = true });
	fill(1);
	clear();
	before = hk_arena_used(arena);
	fault.fail_from = 1;
	fault.fail_only = FAULT_BIT(FAULT_DECOMMIT);
	cr_assert_eq(hk_arena_trim(arena, 0, 0), 0);
	cr_assert_gt(fault.injected, 0);
	cr_assert_eq(hk_arena_used(arena), before);
	cr_assert_eq(fault.committed, before);
	fault_platform_rewind(&fault);
	fill(2);
	clear();
	cr_assert_gt(hk_arena_trim(arena, 0, 0), MIB);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.live_blocks, 0);
	close_all();
}

/* Nothing but trim gives memory back, whatever happens to the blocks. */
static void live_without_trim(const struct fault_options *options)
{
	uint64_t seed = 11;
	int i;

	open_with(options);
	for (i = 0; i < 20000; i++) {
		size_t slot = (size_t)(test_random(&seed) % 256);
		size_t size = (size_t)(test_random(&seed) % 1024) << test_random(&seed) % 12;
		struct hk_cache *other;

		switch (test_random(&seed) % 10) {
		case 0:
			blocks[slot] = hk_realloc(cache, blocks[slot], size);
			break;
		case 1:
			hk_arena_free(arena, blocks[slot]);
			blocks[slot] = hk_arena_alloc(arena, size);
			break;
		case 2:
			if (i % 16 == 0) {
				must(hk_cache_create(arena, &other) == 0, "step %d", i);
				hk_free(other, blocks[slot]);
				blocks[slot] = hk_alloc(other, size);
				hk_cache_destroy(other);
			}
			break;
		case 3:
			if (i % 256 == 0) {
				hk_arena_reset(arena);
				memset(blocks, 0, sizeof(blocks));
			}
			hk_cache_flush(cache);
			break;
		default:
			hk_free(cache, blocks[slot]);
			blocks[slot] = hk_alloc(cache, size);
			must(blocks[slot], "step %d, size %zu", i, size);
		}
	}
	hk_free_bulk(cache, 256, blocks);
	hk_cache_flush(cache);
	hk_cache_destroy(cache);
	cr_assert_eq(fault.counts[FAULT_DECOMMIT], 0);
	cr_assert_eq(fault.counts[FAULT_RELEASE], 0);
}

Test(trim, nothing_else_gives_memory_back)
{
	live_without_trim(&(struct fault_options){ .hide = FAULT_BIT(FAULT_MOVE) });
	cr_assert_eq(fault.committed, fault.peak);
	close_all();
}

/* Growing by moving pages gives back what lay where they were; that is not a decommit. */
Test(trim, nothing_else_gives_memory_back_where_pages_can_move)
{
	live_without_trim(&(struct fault_options){ .copy_move = true, .forbid = true });
	cr_assert_gt(fault.counts[FAULT_MOVE], 0);
	cr_assert_eq(hk_arena_used(arena), fault.committed);
	close_all();
}

/* To give memory back would not lengthen the range. */
Test(trim, a_full_range_gives_nothing_back)
{
	size_t i;

	open_with(NULL);
	for (i = 0; i < COUNT(blocks); i++) {
		blocks[i] = hk_alloc(cache, MIB);
		if (!blocks[i])
			break;
	}
	cr_assert_lt(i, COUNT(blocks));
	while (i > 3)
		hk_free(cache, blocks[i -= 3]);
	cr_assert_null(hk_alloc(cache, 100 * MIB));
	cr_assert_eq(fault.counts[FAULT_DECOMMIT], 0);
	hk_arena_reset(arena);
	close_all();
}

/* The header's word for each of them: no platform call. */
Test(trim, what_only_frees_calls_no_platform)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct hk_cache *other;
	struct hk_stats stats;
	uint64_t calls;
	size_t i;

	open_with(NULL);
	cr_assert_eq(hk_cache_create(arena, &other), 0);
	for (i = 0; i < 4 * count; i++) {
		blocks[i] = hk_arena_alloc(arena, sizes[i % count]);
		must(blocks[i], "size %zu", sizes[i % count]);
	}
	calls = fault.calls;
	for (i = 0; i < count; i++) {
		hk_arena_free(arena, blocks[i]);
		must(fault.calls == calls, "arena_free, size %zu", sizes[i]);
	}
	for (; i < 2 * count; i++) {
		hk_free(cache, blocks[i]);
		must(fault.calls == calls, "free, size %zu", sizes[i % count]);
	}
	for (; i < 3 * count; i++) {
		hk_free_sized(other, blocks[i], sizes[i % count]);
		must(fault.calls == calls, "free_sized, size %zu", sizes[i % count]);
	}
	hk_free_bulk(other, count, blocks + i);
	hk_cache_flush(cache);
	hk_cache_destroy(other);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.live_blocks, 0);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_reset(arena);
	cr_assert_eq(fault.calls, calls);
	close_all();
}

/* Blocks of 32 KiB to 4 MiB, random ones replaced: once warm, the platform hears nothing. */
Test(trim, warm_churn_calls_no_platform)
{
	uint64_t seed = 3;
	uint64_t calls = 0;
	int i;

	open_with(NULL);
	for (i = 0; i < 30000; i++) {
		size_t slot = (size_t)(test_random(&seed) % 16);
		size_t size = 32 * KIB << test_random(&seed) % 7;

		size += (size_t)(test_random(&seed) % size);
		hk_free(cache, blocks[slot]);
		blocks[slot] = hk_alloc(cache, size);
		must(blocks[slot], "size %zu", size);
		if (i == 20000)
			calls = fault.calls;
	}
	cr_assert_eq(fault.calls, calls, "%llu calls", (unsigned long long)(fault.calls - calls));
	hk_free_bulk(cache, 16, blocks);
	close_all();
}
