/* SPDX-License-Identifier: MIT */
/* Kept runs: which one serves, how they merge, when they are given up. */
#include <stdint.h>
#include <string.h>

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)
#define SHORT 8u    /* the longest that is not */
#define LONG 17u    /* the shortest run that is kept in no pile */
#define RANGE 1600u /* up to a 32nd of that */

static struct hk_kept kept;

static void keep(uint32_t first, uint32_t count)
{
	cr_assert(hk_kept_give(&kept, first, count));
}

static uint32_t served(uint32_t count)
{
	uint32_t first = UINT32_MAX;

	cr_assert_eq(hk_kept_take(&kept, count, &first), first != UINT32_MAX);
	return first;
}

Test(kept, the_shortest_that_is_long_enough_serves_the_lowest_of_these)
{
	keep(500, 20);
	keep(300, 30);
	keep(100, 20);
	keep(200, 10);
	cr_assert_eq(kept.slabs, 80);
	cr_assert_eq(served(31), UINT32_MAX);
	cr_assert_eq(served(11), 100);
	cr_assert_eq(served(9), 111, "what was left of it");
	cr_assert_eq(served(10), 200);
	cr_assert_eq(served(10), 500);
	cr_assert_eq(served(10), 510);
	cr_assert_eq(kept.slabs, 30);
	cr_assert_eq(kept.count, 1, "nothing is left of those");
	cr_assert_eq(served(30), 300);
	cr_assert_eq(served(1), UINT32_MAX);
	cr_assert_eq(kept.count + kept.slabs, 0);
}

/* 9, 17, 33: each twice the one before, which is given back when it is copied. */
Test(kept, what_grows_comes_back_to_where_it_was)
{
	keep(100, 50);
	cr_assert_eq(served(9), 100);
	cr_assert_eq(served(17), 133, "not right behind it");
	keep(100, 9);
	cr_assert_eq(served(33), 100);
	keep(133, 17);
	keep(100, 33);
	cr_assert_eq(served(10), 100);
	cr_assert_eq(served(14), 110, "not half as long again");
	cr_assert_eq(served(9), 124, "shorter");
	keep(300, 16);
	cr_assert_eq(served(14), 300, "longer, but elsewhere");
	cr_assert_eq(served(17), 133);
	cr_assert_eq(kept.slabs, 2);
}

Test(kept, neighbours_are_merged)
{
	keep(100, 10);
	keep(120, 10);
	keep(200, 10);
	keep(130, 10);
	cr_assert_eq(kept.count, 3, "behind one");
	keep(190, 10);
	cr_assert_eq(kept.count, 3, "before one");
	keep(110, 10);
	cr_assert_eq(kept.count, 2, "between two");
	cr_assert_eq(kept.slabs, 60);
	cr_assert_eq(served(40), 100);
	cr_assert_eq(served(20), 190);
	cr_assert_eq(kept.count, 0);
}

Test(kept, so_many_and_no_more)
{
	uint32_t i, first;

	for (i = 0; i < HK_KEPT_MAX; i++)
		keep(20 * i, 10);
	cr_assert_not(hk_kept_give(&kept, 20 * HK_KEPT_MAX, 10));
	cr_assert_eq(kept.slabs, 10 * HK_KEPT_MAX);
	keep(20 * HK_KEPT_MAX - 10, 10);
	cr_assert_eq(kept.count, HK_KEPT_MAX, "one that has a neighbour has room");
	for (i = 0; i < HK_KEPT_MAX - 1; i++)
		cr_assert_eq(served(10), 20 * i);
	cr_assert(hk_kept_take(&kept, 20, &first));
	cr_assert_eq(kept.count + kept.slabs, 0);
}

/* The maps know nothing of it, and no platform call is made. */
Test(kept, a_long_run_that_was_given_back_is_the_next_one)
{
	uint32_t first, wall;
	size_t calls;

	open_space(NULL, RANGE);
	first = taken(LONG);
	wall = taken(10 * LONG);
	cr_assert_eq(wall, first + LONG);
	give(first, LONG);
	cr_assert_eq(space->kept.slabs, LONG);
	calls = fault.calls;
	cr_assert_eq(taken(LONG), first);
	cr_assert_eq(fault.calls, calls);
	cr_assert_eq(space->kept.slabs, 0);
	give(first, LONG);
	cr_assert_neq(taken(1), first, "a short one is looked for in the maps");
	close_space();
}

Test(kept, a_short_run_is_not_kept)
{
	uint32_t first;

	open_space(NULL, RANGE);
	first = taken(SHORT);
	give(first, SHORT);
	cr_assert_eq(space->kept.slabs, 0);
	close_space();
}

/* What is kept, and what is free beside it, are one run for those who need it. */
Test(kept, is_merged_with_what_is_free_before_a_longer_run_goes_elsewhere)
{
	uint32_t all;

	open_space(NULL, RANGE);
	all = taken(65);
	taken(1);
	give(all + 8, 4);
	give(all + 12, 20);
	give(all + 32, 4);
	give(all + 40, 8);
	give(all + 48, 17);
	cr_assert_eq(space->kept.slabs, 37);
	cr_assert_eq(taken(24), all + 8);
	cr_assert_eq(space->kept.slabs, 4, "what was left of it");
	cr_assert_eq(taken(25), all + 40);
	close_space();
}

/* The next ones need no search: what lies behind a run that was found is kept with it. */
Test(kept, what_is_free_behind_a_run_is_kept_with_it)
{
	uint32_t all;

	open_space(NULL, RANGE);
	all = taken(100);
	taken(1);
	give(all, 50);
	give(all + 60, 40);
	drop_kept();
	cr_assert_eq(taken(20), all);
	cr_assert_eq(space->kept.slabs, 30);
	cr_assert_eq(taken(10), all + 20);
	close_space();
}

/* The shortest waits in a pile, which makes way for the longest. */
Test(kept, what_grows_touches_nothing_new)
{
	uint32_t round;

	open_space(NULL, RANGE);
	give(taken(50), 50);
	for (round = 0; round < 3; round++) {
		cr_assert_eq(taken(9), 0);
		cr_assert_eq(taken(17), 33);
		give(0, 9);
		cr_assert_eq(taken(33), 0);
		give(33, 17);
		give(0, 33);
	}
	/* one from a pile is then the last, too, and not that of 12 */
	cr_assert_eq(taken(10), 0);
	give(0, 10);
	cr_assert_eq(taken(12), 10);
	give(10, 12);
	cr_assert_eq(taken(10), 0);
	cr_assert_eq(taken(20), 22);
	close_space();
}

/* An eighth of what is used, and less, stays while there is room in superslabs in use. */
Test(kept, makes_way_before_a_superslab_is_used_for_the_first_time)
{
	uint32_t i, round;

	open_space(NULL, RANGE);
	/* again after a reset, with memory committed beyond, which makes no difference */
	for (round = 0; round < 2; round++) {
		cr_assert_eq(taken(150), 0);
		give(40, 18);
		for (i = 150; i < 160; i++)
			cr_assert_eq(taken(1), i);
		cr_assert_eq(space->kept.slabs, 18);
		for (i = 40; i < 58; i++)
			cr_assert_eq(taken(1), i);
		cr_assert_eq(taken(1), 160);
		taken(RANGE / 2);
		hk_superslabs_reset(space);
	}
	close_space();
}

Test(kept, makes_way_before_slabs_are_used_for_the_first_time_when_it_is_much)
{
	uint32_t i;

	open_space(NULL, RANGE);
	cr_assert_eq(taken(150), 0);
	give(40, 19);
	for (i = 40; i < 59; i++)
		cr_assert_eq(taken(1), i);
	cr_assert_eq(taken(1), 150);
	close_space();
}

Test(kept, makes_way_where_nothing_else_is_left)
{
	uint32_t first, i;

	open_space(NULL, RANGE);
	cr_assert_eq(taken(RANGE), 0);
	give(100, LONG);
	cr_assert_eq(space->kept.slabs, LONG);
	for (i = 0; i < LONG; i++)
		cr_assert_eq(taken(1), 100 + i);
	cr_assert_eq(take(1, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
	close_space();
}

Test(kept, makes_way_for_a_run_that_grows)
{
	open_space(NULL, RANGE);
	cr_assert_eq(taken(40), 0);
	cr_assert_eq(taken(20), 40);
	cr_assert_eq(taken(1), 60);
	give(40, 20);
	cr_assert_eq(extend(0, 40, 20), 0);
	cr_assert_eq(space->kept.slabs, 0);
	close_space();
}

Test(kept, is_trimmed)
{
	struct hk_deadline never = { 0 };

	open_space(NULL, RANGE);
	give(taken(40), 40);
	cr_assert_eq(space->kept.slabs, 40);
	hk_superslabs_trim(space, 0, never);
	cr_assert_eq(space->committed, 0);
	close_space();
}

/* When there are too many, all are given up but the last. */
Test(kept, the_many_are_given_up)
{
	uint32_t i;

	open_space(NULL, RANGE);
	cr_assert_eq(taken(1400), 0);
	for (i = 0; i <= HK_KEPT_MAX; i++)
		give(20 * i, 17);
	cr_assert_eq(space->kept.count, 1);
	cr_assert_eq(space->kept.slabs, 17);
	cr_assert_eq(taken(17), 20 * HK_KEPT_MAX);
	cr_assert_eq(taken(17), 0);
	close_space();
}

Test(kept, a_large_part_of_the_range_is_not_kept)
{
	open_space(NULL, RANGE);
	give(taken(RANGE / 32), RANGE / 32);
	cr_assert_eq(space->kept.slabs, RANGE / 32);
	close_space();
	open_space(NULL, RANGE);
	give(taken(RANGE / 32 + 1), RANGE / 32 + 1);
	cr_assert_eq(space->kept.slabs, 0);
	close_space();
	open_space(NULL, 32 * LONG - 1);
	give(taken(LONG), LONG);
	cr_assert_eq(space->kept.slabs, 0);
	close_space();
}

Test(kept, nothing_is_kept_where_commits_are_charged)
{
	open_space(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED }, RANGE);
	give(taken(40), 40);
	cr_assert_eq(space->kept.slabs, 0);
	close_space();
}

/* At the limit no other memory can be had: what is kept serves, as it is. */
Test(kept, serves_small_blocks_at_the_limit)
{
	struct hk_arena_config config = { .address_space = 64 * MIB,
					  .limit = 20 * MIB,
					  .platform = &fault.platform };
	static void *blocks[320];
	struct hk_cache *cache;
	struct hk_stats stats;
	void *large;
	size_t count;

	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	large = hk_alloc(cache, MIB);
	/* so many that the limit is reached in the last superslab in use */
	for (count = 0; count < 276; count++)
		cr_assert_not_null(blocks[count] = hk_alloc(cache, HK_SLAB_SIZE));
	hk_free(cache, large);
	cr_assert_eq(arena->space.kept.slabs, MIB / HK_SLAB_SIZE);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.live_bytes, count * HK_SLAB_SIZE);
	cr_assert_eq(stats.live_bytes + stats.free_bytes + stats.metadata_bytes,
		     stats.committed_bytes, "what is kept is free");
	while (hk_arena_used(arena) + HK_SLAB_SIZE <= config.limit) {
		cr_assert_not_null(blocks[count] = hk_alloc(cache, HK_SLAB_SIZE));
		count++;
	}
	cr_assert_eq(arena->space.kept.slabs, MIB / HK_SLAB_SIZE, "not yet");
	hk_arena_stats(arena, &stats);
	for (; stats.free_bytes; stats.free_bytes -= HK_SLAB_SIZE)
		cr_assert_not_null(blocks[count++] = hk_alloc(cache, HK_SLAB_SIZE));
	cr_assert_eq(fault.counts[FAULT_DECOMMIT], 0, "it is used as it is");
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_free_bulk(cache, count, blocks);
	hk_arena_destroy(arena);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* Each thing that the check is there for. */
Test(kept, the_check_sees_what_is_wrong)
{
	struct hk_kept good;

	open_space(NULL, RANGE);
	cr_assert_eq(taken(100), 0);
	give(20, 20);
	good = space->kept;
	cr_assert_eq(hk_superslabs_check(space), 0);
	space->kept.slabs++;
	cr_assert_neq(hk_superslabs_check(space), 0, "other slabs than are counted");
	space->kept = good;
	space->kept.runs[0].first = 21;
	cr_assert_neq(hk_superslabs_check(space), 0, "a slab in use");
	space->kept = good;
	space->kept.runs[0].first = 390;
	cr_assert_neq(hk_superslabs_check(space), 0, "beyond the end");
	space->kept = good;
	space->kept.runs[1] = good.runs[0];
	space->kept.count = 2;
	space->kept.slabs = 40;
	cr_assert_neq(hk_superslabs_check(space), 0, "one twice");
	space->kept = good;
	space->kept.count = HK_KEPT_MAX + 1;
	cr_assert_neq(hk_superslabs_check(space), 0, "too many");
	space->kept = good;
	close_space();
}
