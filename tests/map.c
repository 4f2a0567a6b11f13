/* SPDX-License-Identifier: MIT */
/* The map of slabs and its tree, against an array with a byte for each bit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <hakmem/map.h>

#include "heap.h"

#define LEAVES_MAX 300u
#define BITS_MAX (LEAVES_MAX * HK_MAP_LEAF_BITS)

/* Leaves lie in larger structs, as they do in superslab headers. */
struct holder {
	uint64_t before;
	struct hk_map_leaf leaf;
	uint32_t behind[3];
};

static struct holder holders[LEAVES_MAX];
static unsigned char plain[BITS_MAX];
static struct hk_map map;
static uint64_t seed;

/* An empty map over leaves full of rubbish: a leaf that is added must be cleared. */
static void open_map(uint64_t new_seed)
{
	memset(holders, 0x5a, sizeof(holders));
	memset(plain, 0, sizeof(plain));
	map.first = (unsigned char *)&holders[0].leaf;
	map.stride = sizeof(holders[0]);
	map.leaves = 0;
	seed = new_seed;
}

static void grow(uint32_t leaves)
{
	while (leaves--)
		hk_map_grow(&map);
}

static uint32_t bits(void)
{
	return map.leaves * HK_MAP_LEAF_BITS;
}

static void paint(uint32_t from, uint32_t count, bool set)
{
	if (set)
		hk_map_set(&map, from, count);
	else
		hk_map_clear(&map, from, count);
	memset(plain + from, set, count);
}

static uint32_t plain_find(uint32_t count)
{
	uint32_t run = 0, bit;

	for (bit = 0; bit < bits(); bit++) {
		run = plain[bit] ? run + 1 : 0;
		if (run == count)
			return bit + 1 - count;
	}
	return HK_MAP_NONE;
}

/* The same within one leaf that is not all set; @best: the longest such. */
static uint32_t plain_find_broken(uint32_t count, uint32_t *best)
{
	uint32_t leaf, bit, found = HK_MAP_NONE;

	*best = 0;
	for (leaf = 0; leaf < bits(); leaf += 32) {
		uint32_t run = 0;

		if (!memchr(plain + leaf, 0, 32))
			continue;
		for (bit = leaf; bit < leaf + 32; bit++) {
			run = plain[bit] ? run + 1 : 0;
			if (*best < run)
				*best = run;
			if (run == count && found == HK_MAP_NONE)
				found = bit + 1 - count;
		}
	}
	return found;
}

/* The longest run there is: no other count lies as near to a wrong answer. */
static uint32_t plain_best(void)
{
	uint32_t run = 0, best = 0, bit;

	for (bit = 0; bit < bits(); bit++) {
		run = plain[bit] ? run + 1 : 0;
		if (best < run)
			best = run;
	}
	return best;
}

static void compare_find(uint32_t count)
{
	must(hk_map_find(&map, count) == plain_find(count), "%u leaves, %u bits: %u, not %u",
	     map.leaves, count, hk_map_find(&map, count), plain_find(count));
}

static void compare_find_broken(uint32_t count)
{
	uint32_t best, found = plain_find_broken(count, &best);

	must(hk_map_find_broken(&map, count) == found, "%u leaves, %u bits: %u, not %u", map.leaves,
	     count, hk_map_find_broken(&map, count), found);
}

static void compare(void)
{
	uint32_t from, count, bit, end = 0, broken;

	while (end < bits() && plain[bits() - 1 - end])
		end++;
	must(hk_map_end(&map) == end, "end %u, not %u", hk_map_end(&map), end);
	compare_find(1);
	compare_find(1 + (uint32_t)test_random(&seed) % 100);
	if (plain_best())
		compare_find(plain_best());
	compare_find(plain_best() + 1);
	compare_find_broken(1);
	compare_find_broken(1 + (uint32_t)test_random(&seed) % HK_MAP_SHORT);
	plain_find_broken(1, &broken);
	if (broken && broken <= HK_MAP_SHORT)
		compare_find_broken(broken);
	if (broken < HK_MAP_SHORT)
		compare_find_broken(broken + 1);
	from = (uint32_t)(test_random(&seed) % (bits() + 40));
	count = 1 + (uint32_t)(test_random(&seed) % 70);
	for (bit = from; bit < from + count && bit < bits() && plain[bit]; bit++)
		;
	must(hk_map_is_set(&map, from, count) == (bit == from + count), "%u from %u", count, from);
	must(hk_map_is_set(&map, 0, bits() + 1) == false, "beyond the end");
	/* last, since it makes the tree know all */
	if (test_random(&seed) % 4 == 0)
		must(hk_map_check(&map) == 0, "%u leaves: %zu", map.leaves, hk_map_check(&map));
}

/* One random change; runs are short and long, so that all levels of the tree take part. */
static void change_something(uint32_t leaves_max)
{
	uint32_t leaf, count, from;

	switch (test_random(&seed) % 16) {
	case 0:
	case 1:
		if (map.leaves < leaves_max) {
			hk_map_grow(&map);
			memset(plain + bits() - HK_MAP_LEAF_BITS, 0, HK_MAP_LEAF_BITS);
		}
		return;
	case 2:
		if (map.leaves > 1)
			hk_map_shrink(&map);
		return;
	case 3:
		for (leaf = 0; leaf < map.leaves; leaf++) {
			uint32_t value = (uint32_t)test_random(&seed), bit;

			if (test_random(&seed) % 4)
				value = test_random(&seed) % 8 ? UINT32_MAX : 0;
			hk_map_store(&map, leaf, value);
			for (bit = 0; bit < 32; bit++)
				plain[leaf * 32 + bit] = value >> bit & 1;
		}
		hk_map_rebuild(&map);
		return;
	default:
		count = 1 + (uint32_t)(test_random(&seed) % (1u << test_random(&seed) % 10));
		if (count > bits())
			count = bits();
		from = (uint32_t)(test_random(&seed) % (bits() - count + 1));
		paint(from, count, test_random(&seed) % 8 < 5);
	}
}

static void random_changes(uint32_t leaves_max, int steps, uint64_t new_seed)
{
	int step;

	open_map(new_seed);
	grow(1);
	for (step = 0; step < steps; step++) {
		change_something(leaves_max);
		compare();
	}
}

Test(map, small_ones_agree_with_an_array)
{
	uint32_t leaves;

	for (leaves = 1; leaves <= 20; leaves++)
		random_changes(leaves, 2000, leaves);
}

Test(map, a_large_one_agrees_with_an_array)
{
	random_changes(LEAVES_MAX, 4000, 99);
	cr_assert_gt(map.leaves, 128, "it stayed small: %u leaves", map.leaves);
}

Test(map, without_leaves_has_nothing)
{
	open_map(1);
	cr_assert_eq(hk_map_find(&map, 1), HK_MAP_NONE);
	cr_assert_eq(hk_map_find_broken(&map, 1), HK_MAP_NONE);
	cr_assert_not(hk_map_is_set(&map, 0, 1));
	cr_assert_eq(hk_map_end(&map), 0);
	cr_assert_eq(hk_map_check(&map), 0);
	grow(1);
	cr_assert_eq(hk_map_find(&map, 1), HK_MAP_NONE, "a new leaf is clear");
	hk_map_shrink(&map);
	cr_assert_eq(map.leaves, 0);
	cr_assert_eq(hk_map_find(&map, 1), HK_MAP_NONE);
}

/* One run at every place, of every length: found where it is, and not one bit longer. */
Test(map, finds_a_run_across_every_seam)
{
	uint32_t from, count;

	open_map(1);
	grow(5);
	for (from = 0; from < bits(); from++) {
		for (count = 1; from + count <= bits(); count++) {
			paint(from, count, true);
			must(hk_map_find(&map, count) == from, "%u from %u", count, from);
			must(hk_map_find(&map, count + 1) == HK_MAP_NONE, "%u from %u", count,
			     from);
			must(hk_map_is_set(&map, from, count), "%u from %u", count, from);
			paint(from, count, false);
		}
	}
	cr_assert_eq(hk_map_check(&map), 0);
}

/* Of equal runs the lowest, even where a longer one lies higher. */
Test(map, takes_the_lowest_of_many)
{
	open_map(1);
	grow(64);
	paint(1000, 500, true);
	paint(70, 40, true);
	paint(8, 3, true);
	cr_assert_eq(hk_map_find(&map, 3), 8);
	cr_assert_eq(hk_map_find(&map, 4), 70);
	cr_assert_eq(hk_map_find(&map, 40), 70);
	cr_assert_eq(hk_map_find(&map, 41), 1000);
	cr_assert_eq(hk_map_find(&map, 501), HK_MAP_NONE);
	paint(0, bits(), true);
	cr_assert_eq(hk_map_find(&map, bits()), 0);
	cr_assert_eq(hk_map_end(&map), bits());
	cr_assert_eq(hk_map_find(&map, bits() + 1), HK_MAP_NONE);
}

/* Leaves that are all set, and runs across two leaves, are left for those that need them. */
Test(map, finds_short_runs_where_a_leaf_is_broken_already)
{
	uint32_t leaf, count;

	open_map(1);
	grow(11);
	paint(0, bits(), true);
	cr_assert_eq(hk_map_find_broken(&map, 1), HK_MAP_NONE, "all leaves are whole");
	for (leaf = map.leaves; leaf-- > 0;) {
		paint(32 * leaf + 13, 6, false);
		for (count = 1; count <= 13; count++)
			must(hk_map_find_broken(&map, count) == 32 * leaf, "%u of leaf %u", count,
			     leaf);
		must(hk_map_find_broken(&map, 14) == HK_MAP_NONE, "leaf %u", leaf);
		/* 11 at its end, and longer with what follows */
		paint(32 * leaf, 21, false);
		must(hk_map_find_broken(&map, 11) == 32 * leaf + 21, "leaf %u", leaf);
		must(hk_map_find_broken(&map, 12) == HK_MAP_NONE, "leaf %u", leaf);
		paint(32 * leaf, 32, true);
	}
	/* the lowest that is long enough, even where a longer one lies higher */
	paint(32 * 2, 29, false);
	paint(32 * 5 + 9, 20, false);
	paint(32 * 9, 1, false);
	cr_assert_eq(hk_map_find_broken(&map, 3), 32 * 2 + 29);
	cr_assert_eq(hk_map_find_broken(&map, 4), 32 * 5);
	cr_assert_eq(hk_map_find_broken(&map, 9), 32 * 5);
	cr_assert_eq(hk_map_find_broken(&map, 10), 32 * 9 + 1);
	cr_assert_eq(hk_map_find_broken(&map, HK_MAP_SHORT), 32 * 9 + 1);
	cr_assert_eq(hk_map_check(&map), 0);
}

/* Neither a neighbour in the struct that holds the leaf nor a leaf beyond is written. */
Test(map, keeps_to_its_leaves)
{
	struct holder untouched;
	uint32_t i;

	memset(&untouched, 0x5a, sizeof(untouched));
	open_map(7);
	grow(1);
	for (i = 0; i < 500; i++)
		change_something(9);
	for (i = 0; i < LEAVES_MAX; i++) {
		must(holders[i].before == untouched.before, "leaf %u", i);
		must(!memcmp(holders[i].behind, untouched.behind, sizeof(untouched.behind)),
		     "leaf %u", i);
		must(i < 9 || !memcmp(&holders[i], &untouched, sizeof(untouched)), "leaf %u", i);
	}
}

Test(map, check_finds_every_damaged_node_and_bit)
{
	uint32_t leaf, which, i;

	open_map(5);
	grow(13);
	for (i = 0; i < 40; i++)
		paint((uint32_t)test_random(&seed) % 400, 1 + (uint32_t)test_random(&seed) % 16,
		      i % 3 != 0);
	cr_assert_eq(hk_map_check(&map), 0);
	map.group[1]++;
	cr_assert_gt(hk_map_check(&map), 0, "a group that is passed by");
	map.group[1]--;
	for (leaf = 0; leaf < map.leaves; leaf++) {
		struct hk_map_leaf *at = hk_map_leaf(&map, leaf);

		uint32_t *const fields[] = {
			&at->node[0].start, &at->node[0].best, &at->node[0].end,
			&at->node[1].start, &at->node[1].best, &at->node[1].end,
		};

		for (which = 0; which < 6; which++) {
			*fields[which] += 1;
			must(hk_map_check(&map) > 0, "leaf %u, field %u", leaf, which);
			*fields[which] -= 1;
		}
		hk_map_leaf(&map, 0)->longest[leaf] ^= 1;
		must(hk_map_check(&map) > 0, "leaf %u: the longest run", leaf);
		hk_map_leaf(&map, 0)->longest[leaf] ^= 1;
		for (i = 0; i < 32; i++) {
			uint32_t before = at->bits, end = at->node[0].end;
			uint32_t start = at->node[0].start, best = at->node[0].best;
			bool same;

			/* a bit within a short run may leave the leaf's node as it was */
			at->bits ^= 1u << i;
			same = hk_map_check(&map) == 0;
			hk_map_rebuild(&map);
			must(same == (at->node[0].end == end && at->node[0].start == start &&
				      at->node[0].best == best),
			     "leaf %u, bit %u", leaf, i);
			at->bits = before;
			hk_map_rebuild(&map);
		}
	}
	cr_assert_eq(hk_map_check(&map), 0);
}
