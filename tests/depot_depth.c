/* SPDX-License-Identifier: MIT */
/* How many magazines the depot has of a class: more where use shows that they serve. */
#include "depot.h"

static size_t depth_of(unsigned size_class, size_t bytes)
{
	size_t depth = bytes / (hk_class_size(size_class) * capacity_of(size_class));

	return depth < HK_DEPOT_DEPTH_MAX ? depth : HK_DEPOT_DEPTH_MAX;
}

/* Puts magazines of real blocks, so many or until one is turned away: how many it took. */
static size_t fill_up_to(unsigned size_class, size_t most)
{
	size_t count;
	void **slot;

	for (count = 0; count < most; count++) {
		size_t want = capacity_of(size_class);

		slot = empty_one(size_class);
		while (want) {
			size_t got = hk_slab_take(&arena->slabs, size_class, slot + 1, want, NULL);

			must(got, "no block");
			slot += got;
			want -= got;
		}
		if (put(size_class, slot))
			continue;
		cr_assert_eq(hk_slab_return(&arena->slabs, slot + 1 - capacity_of(size_class),
					    capacity_of(size_class), NULL),
			     0);
		hk_magazine_put(depot, slot);
		held--;
		break;
	}
	return count;
}

static size_t fill(unsigned size_class)
{
	return fill_up_to(size_class, SIZE_MAX);
}

/* Commits so many slabs and gives them back. */
static void make_ready(uint32_t slabs)
{
	uint32_t first;

	cr_assert_eq(hk_run_take(&arena->space, slabs, HK_SLAB_SIZE, 0, &first, NULL), 0);
	hk_run_give(&arena->space, first, slabs);
	agree();
}

/* Generous at first, to this bound. */
static void is_generous(unsigned size_class, size_t bytes_max)
{
	cr_assert_eq(fill(size_class), depth_of(size_class, bytes_max), "class %u", size_class);
}

/*
 * Once it was given up, a refill that a magazine turned away before could have served doubles the
 * depth, to the same bound.
 */
static void follow_use(unsigned size_class, size_t bytes_max)
{
	size_t depth = depth_of(size_class, HK_DEPOT_BYTES), have = fill(size_class);
	size_t most = depth_of(size_class, bytes_max);

	cr_assert_eq(have, depth);
	while (depth < most) {
		hk_depot_missed(depot, size_class);
		/* twice in a row is once: nothing was turned away between */
		hk_depot_missed(depot, size_class);
		depth = 2 * depth < most ? 2 * depth : most;
		have += fill(size_class);
		cr_assert_eq(have, depth, "class %u: %zu", size_class, have);
	}
	hk_depot_missed(depot, size_class);
	cr_assert_eq(fill(size_class), 0, "class %u: beyond the bound", size_class);
}

Test(depot, depth_follows_use)
{
	static const unsigned classes[] = { 1, 8, 64, 104 };
	size_t i;

	open_depot_on(0, (size_t)1 << 30, 0);
	make_ready(300);
	for (i = 0; i < COUNT(classes); i++)
		is_generous(classes[i], HK_DEPOT_BYTES_MAX);
	hk_depot_drain(depot);
	for (i = 0; i < COUNT(classes); i++)
		follow_use(classes[i], HK_DEPOT_BYTES_MAX);
	hk_depot_drain(depot);
	for (i = 0; i < COUNT(classes); i++) {
		cr_assert_eq(arena->slabs.classes[classes[i]].blocks_out, 0);
		cr_assert_eq(fill(classes[i]), depth_of(classes[i], HK_DEPOT_BYTES));
	}
	hk_depot_drain(depot);
	close_depot();
}

/* In a small range, or near a limit, less: what the depot has stands in the way of others. */
Test(depot, depth_is_bounded_by_what_the_arena_can_have)
{
	open_depot_on(0, (size_t)32 << 20, 0);
	make_ready(60);
	is_generous(8, (size_t)arena->space.slabs_max * HK_SLAB_SIZE / HK_DEPOT_PART);
	hk_depot_drain(depot);
	follow_use(8, (size_t)arena->space.slabs_max * HK_SLAB_SIZE / HK_DEPOT_PART);
	hk_depot_drain(depot);
	close_depot();
	open_depot_on(0, (size_t)1 << 30, (size_t)40 << 20);
	make_ready(60);
	is_generous(8, ((size_t)40 << 20) / HK_DEPOT_PART);
	hk_depot_drain(depot);
	follow_use(8, ((size_t)40 << 20) / HK_DEPOT_PART);
	hk_depot_drain(depot);
	close_depot();
	open_depot_on(0, (size_t)7 << 20, 0);
	make_ready(20);
	is_generous(8, HK_DEPOT_BYTES);
	hk_depot_drain(depot);
	follow_use(8, HK_DEPOT_BYTES);
	hk_depot_drain(depot);
	close_depot();
}

/* Of a class of which more is in use it follows use further, up to as much as that. */
static void follow_what_is_in_use(size_t range, size_t in_use, size_t most)
{
	static void *blocks[4096];
	const unsigned size_class = 64; /* 1 KiB */
	size_t want = in_use >> 10, have = 0, bytes = 0;
	int i;

	open_depot_on(0, range, 0);
	/* else excess makes way */
	make_ready((uint32_t)((in_use + most) / HK_SLAB_SIZE) + 16);
	for (; have < want; have += 32)
		cr_assert_eq(hk_slab_take(&arena->slabs, size_class, blocks + have, 32, NULL), 32);
	fill(size_class);
	for (i = 0; i < 20; i++) {
		hk_depot_missed(depot, size_class);
		fill(size_class);
		bytes = hk_depot_blocks(depot, size_class) << 10;
		must(bytes <= most, "%zu bytes of %zu", bytes, most);
	}
	cr_assert_geq(bytes, most - most / 16, "%zu bytes of %zu", bytes, most);
	hk_depot_drain(depot);
	cr_assert_eq(hk_slab_return(&arena->slabs, blocks, want, NULL), 0);
	close_depot();
}

Test(depot, depth_follows_what_is_in_use)
{
	const size_t mib = (size_t)1 << 20;

	follow_what_is_in_use((size_t)1 << 30, mib, 2 * mib);
	follow_what_is_in_use((size_t)1 << 30, 2 * mib, 2 * mib);
	follow_what_is_in_use((size_t)1 << 30, 3 * mib, 3 * mib);
	follow_what_is_in_use((size_t)1 << 30, 4 * mib, 4 * mib);
	/* where the range is small it stays at the little that each class may have */
	follow_what_is_in_use(8 * mib, 2 * mib, HK_DEPOT_BYTES);
}

static size_t depth(unsigned size_class)
{
	return hk_depot_blocks(depot, size_class) / capacity_of(size_class);
}

/* Takes a run; what this makes of the depot is checked. */
static void take_run(uint32_t slabs)
{
	uint32_t first;

	cr_assert_eq(hk_run_take(&arena->space, slabs, HK_SLAB_SIZE, 0, &first, NULL), 0);
	hk_classes_set(&arena->space, first, slabs, HK_CLASS_INSIDE);
	agree();
}

/*
 * Excess that is more than a third of what is committed goes, a step at a time, when memory is to
 * be committed; else it stays.
 */
static void make_way(unsigned flags)
{
	size_t first, most;

	open_depot_on(flags, (size_t)256 << 20, 0);
	make_ready(72);
	first = depth_of(2, HK_DEPOT_BYTES);
	cr_assert_eq(fill_up_to(2, first + 10), first + 10);
	most = fill(4);
	cr_assert_eq(fill(5), depth_of(5, HK_DEPOT_BYTES_MAX));

	/* something is ready: nothing happens */
	take_run(2);
	cr_assert_eq(depth(2), first + 10);
	cr_assert_eq(depth(4), most);

	take_run(40);
	cr_assert_eq(depth(2), first);
	cr_assert_eq(depth(4), most - (HK_DEPOT_STEP - 10));
	cr_assert_eq(fill(2), 0, "it may have no more from now on");
	take_run(40);
	cr_assert_eq(depth(2), first);
	cr_assert_eq(depth(4), most - (2 * HK_DEPOT_STEP - 10));
	/* it is less than a third by now */
	take_run(40);
	cr_assert_eq(depth(4), most - (2 * HK_DEPOT_STEP - 10));
	cr_assert_eq(depth(5), depth_of(5, HK_DEPOT_BYTES_MAX));
	hk_depot_drain(depot);
	close_depot();
}

Test(depot, excess_makes_way_for_a_commit)
{
	make_way(0);
}

Test(depot, excess_makes_way_where_commits_are_charged)
{
	make_way(HK_PLATFORM_CHARGED);
}

/* What can never be is no reason to give anything up. */
Test(depot, excess_stays_when_the_limit_forbids_the_run)
{
	uint32_t run;
	size_t have;

	open_depot_on(0, (size_t)256 << 20, (size_t)32 << 20);
	make_ready(20);
	fill(4);
	fill(5);
	have = depth(4);
	cr_assert_gt(have, depth_of(4, HK_DEPOT_BYTES));
	cr_assert_eq(hk_run_take(&arena->space, 600, HK_SLAB_SIZE, 0, &run, NULL), HK_ERROR_LIMIT);
	agree();
	cr_assert_eq(depth(4), have);
	/* one that may be is */
	take_run(40);
	cr_assert_lt(depth(4), have);
	hk_depot_drain(depot);
	close_depot();
}

/* A free makes no platform call; what it lacked is there when it happens again. */
Test(depot, magazines_follow_those_missed)
{
	uint32_t got, missed = 0;

	open_depot();
	hk_depot_reserve(depot);
	while (hk_magazine_get(depot, 1))
		held++;
	got = (uint32_t)held;
	cr_assert_leq(got, 4 * HK_MAGAZINES_AHEAD + 8);
	while (missed < 99)
		missed += !hk_magazine_get(depot, 1);
	hk_depot_reserve(depot);
	for (; hk_magazine_get(depot, 1); held++)
		;
	cr_assert_geq(held, got + 100 + HK_MAGAZINES_AHEAD);
	agree();
	hk_depot_reserve(depot);
	for (got = (uint32_t)held; hk_magazine_get(depot, 1); held++)
		;
	cr_assert_leq(held, got + 4 * HK_MAGAZINES_AHEAD, "one was missed since");
	close_depot();
}
