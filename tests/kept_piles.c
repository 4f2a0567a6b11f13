/* SPDX-License-Identifier: MIT */
/* Runs kept in piles, one for each length of those that large blocks of up to a MiB leave. */
#include <stdint.h>

#include "space.h"

#define LOW HK_KEPT_SHORTEST
#define HIGH (HK_KEPT_SHORTEST + HK_KEPT_PILES - 1)
#define RANGE 1600u

/* So many runs of 10 slabs, one in each 40. */
static void give_many(uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		give(40 * i + 30, 10);
}

/* Runs of one length come back newest first, whole, though they are neighbours. */
Test(piles, the_newest_of_a_length_is_the_next_one)
{
	uint32_t count, all;

	for (count = LOW; count <= HIGH; count++) {
		open_space(NULL, RANGE);
		all = taken(4 * count);
		give(all + count, count);
		give(all, count);
		give(all + 2 * count, count);
		cr_assert_eq(space->kept.slabs, 3 * count);
		cr_assert_eq(space->kept.piled, 3 * count);
		cr_assert_eq(taken(count), all + 2 * count);
		cr_assert_eq(taken(count), all);
		cr_assert_eq(taken(count), all + count);
		cr_assert_eq(space->kept.slabs, 0);
		close_space();
	}
}

Test(piles, no_other_length_has_one)
{
	open_space(NULL, RANGE);
	cr_assert_eq(taken(200), 0);
	give(0, LOW - 1);
	cr_assert_eq(space->kept.slabs, 0);
	give(50, HIGH + 1);
	cr_assert_eq(space->kept.slabs, HIGH + 1);
	cr_assert_eq(space->kept.piled, 0);
	cr_assert_eq(space->kept.count, 1);
	close_space();
}

/* Another length is found elsewhere, in what is kept otherwise or free, and leaves it whole. */
Test(piles, a_run_serves_its_own_length_only)
{
	open_space(NULL, RANGE);
	cr_assert_eq(taken(200), 0);
	give(100, 12);
	give(0, 20);
	cr_assert_eq(taken(10), 0, "from a longer one that is in no pile");
	cr_assert_eq(taken(10), 10);
	cr_assert_eq(taken(10), 200);
	cr_assert_eq(taken(12), 100);
	close_space();
}

/* An aligned one is looked for in the maps. */
Test(piles, serve_no_alignment)
{
	uint32_t first;

	open_space(NULL, RANGE);
	cr_assert_eq(taken(200), 0);
	give(96, 12);
	cr_assert_eq(take(12, 2 * SLAB, &first), 0);
	cr_assert_eq(first, 200);
	close_space();
}

/* While little is used, as what is in no pile: an eighth stays in superslabs in use. */
Test(piles, make_way_for_what_is_new_while_little_is_used)
{
	uint32_t i, round;

	open_space(NULL, RANGE);
	/* again after a reset, with memory committed beyond, which makes no difference */
	for (round = 0; round < 2; round++) {
		cr_assert_eq(taken(150), 0);
		give(40, 9);
		give(60, 9);
		for (i = 150; i < 160; i++)
			cr_assert_eq(taken(1), i);
		cr_assert_eq(space->kept.piled, 18);
		for (i = 40; i < 49; i++)
			cr_assert_eq(taken(1), i);
		cr_assert_eq(space->kept.piled, 0, "for the superslab that is next");
		taken(RANGE / 2);
		hk_superslabs_reset(space);
		cr_assert_eq(space->kept.slabs, 0);
		cr_assert_eq(taken(150), 0);
		give(40, 9);
		give(60, 10);
		cr_assert_eq(taken(1), 40, "for a slab that is: it is more than an eighth");
		hk_superslabs_reset(space);
	}
	close_space();
}

/* Once much is used a quarter stays; of what is more, the longest 32 make way. */
Test(piles, are_worth_a_superslab_once_much_is_used)
{
	uint32_t i;

	open_space(NULL, 4800);
	cr_assert_eq(taken(1056), 0);
	for (i = 0; i < 24; i++)
		give(20 * i, 11);
	cr_assert_eq(space->kept.piled, 264);
	cr_assert_eq(taken(1), 1056, "a quarter, and a superslab that is new");
	/* a quarter of what is used by now, and more */
	give(20 * 24, 11);
	cr_assert_eq(space->kept.piled, 275);
	cr_assert_eq(taken(1), 0, "one of these, where the others are");
	cr_assert_eq(space->kept.piled, 0);
	close_space();

	open_space(NULL, 4800);
	cr_assert_eq(taken(1056), 0);
	for (i = 0; i < 33; i++)
		give(20 * i, i % 2 ? 9 : 10);
	cr_assert_eq(taken(1), 0, "the 17 longer ones made way, then 15 others");
	cr_assert_eq(space->kept.piled, 9);
	cr_assert_eq(taken(9), 20);
	close_space();
}

Test(piles, make_way_where_nothing_else_is_left)
{
	uint32_t first;

	open_space(NULL, RANGE);
	cr_assert_eq(taken(RANGE), 0);
	give_many(40);
	cr_assert_eq(space->kept.piled, 400);
	cr_assert_eq(taken(1), 350, "the newest 32 made way");
	cr_assert_eq(space->kept.piled, 80);
	cr_assert_eq(take(11, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(space->kept.piled, 0);
	close_space();
}

Test(piles, make_way_for_a_run_that_grows_into_one)
{
	open_space(NULL, RANGE);
	cr_assert_eq(taken(40), 0);
	cr_assert_eq(taken(10), 40);
	cr_assert_eq(taken(60), 50);
	give(40, 10);
	cr_assert_eq(extend(50, 60, 1), 0, "into what is free");
	cr_assert_eq(space->kept.piled, 10, "stays");
	cr_assert_eq(extend(0, 40, 10), 0);
	cr_assert_eq(space->kept.piled, 0);
	give(80, 10);
	cr_assert_eq(extend(0, 50, 1), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(space->kept.piled, 10, "a block is in the way, not this");
	give(50, 2);
	cr_assert_eq(extend(0, 50, 3), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(extend(0, 50, RANGE), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(space->kept.piled, 10,
		     "though two slabs before it are free; nor the range's end");
	close_space();

	/* of many those that came last first, until there is room */
	open_space(NULL, RANGE);
	cr_assert_eq(taken(RANGE), 0);
	give_many(40);
	cr_assert_eq(extend(30 * 40, 30, 10), 0);
	cr_assert_eq(space->kept.piled, 80);
	close_space();
	open_space(NULL, RANGE);
	cr_assert_eq(taken(RANGE), 0);
	give_many(40);
	cr_assert_eq(extend(0, 30, 10), 0);
	cr_assert_eq(space->kept.piled, 0);
	close_space();
}

/* Giving all of them up takes time: they are no more than so many. */
Test(piles, have_an_end)
{
	uint32_t i, most = HK_KEPT_PILED_MAX / 16;

	open_space(NULL, 6000);
	cr_assert_eq(taken(5000), 0);
	for (i = 0; i <= most; i++)
		give(17 * i, 16);
	cr_assert_eq(space->kept.piled, HK_KEPT_PILED_MAX);
	cr_assert_eq(space->kept.slabs, HK_KEPT_PILED_MAX + 16);
	cr_assert_eq(space->kept.count, 1);
	close_space();
}

Test(piles, are_trimmed)
{
	struct hk_deadline never = { 0 };

	open_space(NULL, RANGE);
	give(taken(10), 10);
	cr_assert_eq(space->kept.piled, 10);
	hk_superslabs_trim(space, 0, never);
	cr_assert_eq(space->committed, 0);
	close_space();
}

/* A trim whose time is over at each look. */
Test(piles, are_trimmed_a_part_at_a_time)
{
	struct hk_deadline deadline;

	open_space(&(struct fault_options){ .fake_clock = true }, RANGE);
	cr_assert_eq(taken(RANGE), 0);
	give_many(40);
	fault.tick = 10;
	deadline = hk_deadline_in(&arena->memory, 10);
	cr_assert_eq(hk_superslabs_trim(space, 0, deadline), 8 * SLAB, "a step in each call");
	cr_assert_eq(space->kept.piled, 80);
	/* what is kept anew does not keep it from going on */
	give(0, 10);
	cr_assert_eq(hk_superslabs_trim(space, 0, deadline), 2 * SLAB, "the rest of the highest");
	cr_assert_eq(space->kept.piled, 0);
	close_space();

	/* with time for all of them */
	open_space(&(struct fault_options){ .fake_clock = true }, RANGE);
	cr_assert_eq(taken(RANGE), 0);
	give_many(40);
	fault.tick = 10;
	deadline = hk_deadline_in(&arena->memory, 1000000000);
	cr_assert_eq(hk_superslabs_trim(space, 0, deadline), 320 * SLAB);
	cr_assert_eq(space->kept.piled, 0, "it is told that there is more");
	cr_assert_eq(hk_superslabs_trim(space, 0, deadline), 80 * SLAB);
	close_space();
}

/* Each thing that the check is there for. */
Test(piles, the_check_sees_what_is_wrong)
{
	struct hk_kept good;

	open_space(NULL, RANGE);
	cr_assert_eq(taken(100), 0);
	give(20, 10);
	give(40, 10);
	good = space->kept;
	cr_assert_eq(hk_superslabs_check(space), 0);
	space->kept.piled++;
	cr_assert_neq(hk_superslabs_check(space), 0, "other slabs than are counted");
	space->kept = good;
	space->kept.slabs++;
	cr_assert_neq(hk_superslabs_check(space), 0, "other slabs than are counted in all");
	space->kept = good;
	space->kept.piles[2] = space->kept.piles[1];
	cr_assert_neq(hk_superslabs_check(space), 0, "one twice");
	space->kept = good;
	hk_slab(space, 20)->next = 40 + 1;
	cr_assert_neq(hk_superslabs_check(space), 0, "a ring");
	hk_slab(space, 20)->next = 0;
	space->kept.piles[1] = 1600;
	cr_assert_neq(hk_superslabs_check(space), 0, "beyond the end");
	space->kept = good;
	space->kept.piles[1] = 41 + 1;
	hk_slab(space, 41)->next = 20 + 1;
	cr_assert_neq(hk_superslabs_check(space), 0, "its last slab is in use");
	space->kept = good;
	close_space();
}
