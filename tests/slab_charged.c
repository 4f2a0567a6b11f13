/* SPDX-License-Identifier: MIT */
/* Slabs over a platform that charges for what is committed: runs are backed slab by slab. */
#include <string.h>

#include "slab.h"

#define SLABS_MAX 1900

static int (*in_commit)(void); /* called once, within the next commit; not 0 fails it */

static int hooked_commit(void *context, void *ptr, size_t size)
{
	int (*hook)(void) = in_commit;

	in_commit = NULL;
	if (hook && hook())
		return -1;
	return fault.platform.commit(context, ptr, size);
}

static void open_charged(void)
{
	struct fault_options options = { .flags = HK_PLATFORM_CHARGED, .forbid = true };
	struct hk_platform charged;

	cr_assert_eq(fault_platform_init(&fault, &options), 0);
	charged = fault.platform;
	charged.commit = hooked_commit;
	open_space_over(&charged, SLABS_MAX);
	slabs = &arena->slabs;
}

/* Slabs that the first @blocks blocks of a class reach into. */
static size_t slabs_of(unsigned size_class, size_t blocks)
{
	return (blocks * hk_class_size(size_class) + SLAB - 1) / SLAB;
}

static void *take_one(unsigned size_class)
{
	void *block;

	take_blocks(size_class, &block, 1);
	return block;
}

static void return_one(void *block)
{
	cr_assert_eq(hk_slab_return(slabs, &block, 1, bad), 0);
	agree();
}

Test(slab_charged, a_run_is_backed_as_its_blocks_leave, .timeout = 60)
{
	static void *blocks[4096];
	unsigned size_class;

	open_charged();
	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		const struct hk_class_info *info = &hk_class_infos[size_class];
		size_t i, last = 0, before = space->committed;
		unsigned char *base;

		if (info->slabs == 1)
			continue;
		for (i = 0; i < info->blocks; i++) {
			blocks[i] = take_one(size_class);
			memset(blocks[i], 0x5a, info->size);
			/* as many slabs as the blocks out need, and they leave in order */
			must(space->committed - before == slabs_of(size_class, i + 1),
			     "class %u: %zu slabs for %zu blocks", size_class,
			     space->committed - before, i + 1);
			must(i == 0 || (unsigned char *)blocks[i] ==
					       (unsigned char *)blocks[0] + i * info->size,
			     "class %u, block %zu", size_class, i);
			must(slabs->classes[size_class].slabs == info->slabs, "another run");
			last = i;
		}
		cr_assert_eq(slabs->classes[size_class].growing, 0);
		cr_assert_eq(space->unbacked, info->slabs - slabs_of(size_class, last + 1));
		base = blocks[0];
		for (i = 0; i < info->blocks; i++)
			return_one(blocks[i]);
		cr_assert_eq(space->used, 0);
		cr_assert_eq(space->unbacked, 0);
		/* what is committed serves again, in the same order, without the platform */
		fault_platform_rewind(&fault);
		for (i = 0; i < info->blocks; i++) {
			blocks[i] = take_one(size_class);
			must(blocks[i] == base + i * info->size, "class %u, block %zu", size_class,
			     i);
		}
		cr_assert_eq(slabs->classes[size_class].growing, 0);
		cr_assert_eq(fault.counts[FAULT_COMMIT], 0);
		for (i = 0; i < info->blocks; i++)
			return_one(blocks[i]);
		hk_superslabs_trim(space, 0, (struct hk_deadline){ 0 });
		cr_assert_eq(space->committed, 0);
	}
	close_slabs();
}

/* Class 93: 13312 bytes; 24 blocks in 5 slabs, of which the first holds 4. */
#define GROWING 93u
#define IN_FIRST 4u

static void *first_blocks[IN_FIRST];

static void open_full_slab(void)
{
	open_charged();
	cr_assert_eq(hk_class_size(GROWING), 13312);
	cr_assert_eq(take_blocks(GROWING, first_blocks, IN_FIRST), IN_FIRST);
	cr_assert_eq(space->committed, 1);
	cr_assert_eq(hk_arena_used(arena), fault.committed);
}

static void return_first_blocks(void)
{
	cr_assert_eq(hk_slab_return(slabs, first_blocks, IN_FIRST, bad), 0);
}

static int return_and_go_on(void)
{
	return_first_blocks();
	return 0;
}

static int return_and_fail(void)
{
	return_first_blocks();
	cr_assert_eq(slabs->classes[GROWING].runs_emptied, 0, "somebody is at work on it");
	fault.fail_from = 1; /* the run that it would begin instead, too */
	return -1;
}

Test(slab_charged, a_batch_stops_where_the_backed_slabs_end)
{
	void *blocks[HK_BATCH_MAX];

	open_charged();
	cr_assert_eq(take_blocks(GROWING, blocks, HK_BATCH_MAX), IN_FIRST);
	/* the fifth block lies in the first and the second slab, which holds nine in all */
	cr_assert_eq(take_blocks(GROWING, blocks + IN_FIRST, HK_BATCH_MAX - IN_FIRST), 5);
	cr_assert_eq(space->committed, 2);
	cr_assert_eq(slabs->classes[GROWING].new_runs, 1);
	cr_assert_eq(slabs->classes[GROWING].batches, 2);
	/* what came back leaves first, and backs nothing */
	return_one(blocks[7]);
	cr_assert_eq(take_one(GROWING), blocks[7]);
	cr_assert_eq(space->committed, 2);
	cr_assert_eq(hk_slab_return(slabs, blocks, 9, bad), 0);
	close_slabs();
}

Test(slab_charged, a_run_that_cannot_grow_stays_as_it_is)
{
	void *block;

	open_full_slab();
	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	cr_assert_eq(hk_slab_take(slabs, GROWING, &block, 1, NULL), 0);
	cr_assert_gt(fault.injected, 0);
	agree();
	fault_platform_rewind(&fault);
	block = take_one(GROWING);
	cr_assert_eq(block, (unsigned char *)first_blocks[0] + IN_FIRST * 13312);
	cr_assert_eq(space->committed, 2);
	/* the same when only its last slab is missing */
	while (space->unbacked > 1)
		take_one(GROWING);
	while (slabs->classes[GROWING].blocks_free)
		take_one(GROWING);
	fault.fail_from = fault.steps + 1;
	cr_assert_eq(hk_slab_take(slabs, GROWING, &block, 1, NULL), 0);
	agree();
	fault_platform_rewind(&fault);
	block = take_one(GROWING);
	cr_assert_eq(slabs->classes[GROWING].new_runs, 1);
	cr_assert_eq(space->unbacked, 0);
	while (first_blocks[0] <= block) {
		return_one(block);
		block = (unsigned char *)block - 13312;
	}
	cr_assert_eq(space->used, 0);
	close_slabs();
}

static int return_one_and_fail(void)
{
	cr_assert_eq(hk_slab_return(slabs, &first_blocks[2], 1, bad), 0);
	fault.fail_from = 1;
	return -1;
}

Test(slab_charged, what_came_back_serves_where_there_is_no_memory)
{
	void *block;

	open_full_slab();
	in_commit = return_one_and_fail;
	cr_assert_eq(hk_slab_take(slabs, GROWING, &block, 1, NULL), 1);
	cr_assert_eq(block, first_blocks[2]);
	cr_assert_eq(slabs->classes[GROWING].new_runs, 1);
	cr_assert_eq(slabs->classes[GROWING].blocks_out, IN_FIRST);
	close_slabs();
}

Test(slab_charged, a_run_that_empties_while_it_grows_is_kept)
{
	void *block;

	open_full_slab();
	in_commit = return_and_go_on;
	block = take_one(GROWING);
	cr_assert_eq(slabs->classes[GROWING].new_runs, 1);
	cr_assert_eq(slabs->classes[GROWING].runs_emptied, 0);
	cr_assert_eq(slabs->classes[GROWING].blocks_out, 1);
	return_one(block);
	cr_assert_eq(slabs->classes[GROWING].runs_emptied, 1);
	cr_assert_eq(space->used, 0);
	close_slabs();
}

Test(slab_charged, a_run_that_empties_and_cannot_grow_is_given_back)
{
	void *block;

	open_full_slab();
	in_commit = return_and_fail;
	cr_assert_eq(hk_slab_take(slabs, GROWING, &block, 1, NULL), 1, "a run that is committed");
	cr_assert_eq(slabs->classes[GROWING].runs_emptied, 1);
	cr_assert_eq(slabs->classes[GROWING].new_runs, 2);
	agree();
	return_one(block);
	cr_assert_eq(space->used, 0);
	close_slabs();
}

static void *rival;

static int take_rival(void)
{
	cr_assert_eq(hk_slab_take(slabs, GROWING, &rival, 1, NULL), 1);
	return 0;
}

/* While one thread backs a run another has none to grow and begins a second. */
Test(slab_charged, two_runs_of_a_class_may_grow)
{
	void *blocks[64];
	size_t i;

	open_full_slab();
	in_commit = take_rival;
	blocks[0] = take_one(GROWING);
	cr_assert_eq(slabs->classes[GROWING].new_runs, 2);
	for (i = 1; i < 48 - IN_FIRST - 1; i++)
		blocks[i] = take_one(GROWING);
	/* both to their ends before a third begins */
	cr_assert_eq(slabs->classes[GROWING].new_runs, 2);
	cr_assert_eq(slabs->classes[GROWING].growing, 0);
	return_one(rival);
	return_first_blocks();
	agree();
	while (i-- > 0)
		return_one(blocks[i]);
	cr_assert_eq(space->used, 0);
	close_slabs();
}

Test(slab_charged, growing_runs_leave_their_list_when_they_empty)
{
	void *block;

	open_full_slab();
	in_commit = take_rival;
	block = take_one(GROWING);
	cr_assert_neq(slabs->classes[GROWING].growing, 0);
	return_one(rival);
	return_one(block);
	return_first_blocks();
	agree();
	cr_assert_eq(slabs->classes[GROWING].growing, 0);
	close_slabs();
}

/* Blocks of the largest classes are known to be zero, also those that are backed later. */
Test(slab_charged, what_is_backed_later_is_zero_if_it_was_never_used)
{
	void *blocks[8];
	bool zeroed;
	unsigned i;

	open_charged();
	for (i = 0; i < 4; i++) {
		cr_assert_eq(hk_slab_take(slabs, 113, &blocks[i], 1, &zeroed), 1);
		cr_assert(zeroed == true, "block %u", i);
		memset(blocks[i], 0xff, hk_class_size(113));
	}
	for (i = 0; i < 4; i++)
		return_one(blocks[i]);
	cr_assert_eq(space->used, 0);
	for (i = 0; i < 4; i++) {
		cr_assert_eq(hk_slab_take(slabs, 113, &blocks[i], 1, &zeroed), 1);
		cr_assert_not(zeroed, "block %u", i);
	}
	for (i = 0; i < 4; i++)
		return_one(blocks[i]);
	close_slabs();
}

/* A slab at the run's end was committed and used before; those before it are new. */
Test(slab_charged, what_is_backed_later_is_not_zero_if_it_was_used)
{
	uint32_t front, last;
	void *blocks[2];
	bool zeroed;

	open_charged();
	front = taken(4);
	last = taken(1);
	memset(hk_slab_address(space, last), 0xff, SLAB);
	give(front, 4);
	hk_superslabs_trim(space, 0, (struct hk_deadline){ 0 });
	cr_assert_eq(space->committed, 1);
	give(last, 1);
	/* class 113: two blocks in five slabs */
	cr_assert_eq(hk_slab_take(slabs, 113, &blocks[0], 1, &zeroed), 1);
	cr_assert(zeroed == true);
	cr_assert_eq(space->committed, 4);
	cr_assert_eq(space->unbacked, 1);
	cr_assert_eq(hk_slab_take(slabs, 113, &blocks[1], 1, &zeroed), 1);
	cr_assert_eq(blocks[1], (unsigned char *)blocks[0] + hk_class_size(113));
	cr_assert_not(zeroed);
	cr_assert_eq(space->committed, 5);
	return_one(blocks[0]);
	return_one(blocks[1]);
	close_slabs();
}

/* A growing run: slab 0 in use, slab 1 not committed, slabs 2 to 4 committed from before. */
static void open_strays(void)
{
	uint32_t front, last;

	open_charged();
	front = taken(2);
	last = taken(3);
	give(front, 2);
	hk_superslabs_trim(space, 0, (struct hk_deadline){ 0 });
	give(last, 3);
	cr_assert_eq(take_blocks(GROWING, first_blocks, IN_FIRST), IN_FIRST);
	cr_assert_eq(space->committed, 4);
	cr_assert_eq(space->unbacked, 1);
}

Test(slab_charged, what_a_run_does_not_use_yet_makes_room_at_the_limit)
{
	struct hk_stats stats;
	void *block, *large;

	open_strays();
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.free_bytes, 3 * SLAB);
	arena->memory.own.limit = hk_arena_used(arena);
	large = hk_arena_alloc(arena, HK_CLASS_MAX + 1);
	cr_assert_null(large);
	block = hk_arena_alloc(arena, 13312);
	cr_assert_eq(block, (unsigned char *)first_blocks[0] + IN_FIRST * 13312);
	agree();
	hk_arena_free(arena, block);
	return_first_blocks();
	close_slabs();
}

Test(slab_charged, a_trim_takes_what_a_run_does_not_use_yet)
{
	size_t used;

	open_strays();
	used = hk_arena_used(arena);
	cr_assert_eq(hk_arena_trim(arena, used, 0), 0, "there is no more than is to be kept");
	/* a step at a time where time is up */
	cr_assert_geq(hk_arena_trim(arena, 0, 1), 3 * SLAB);
	agree();
	cr_assert_eq(space->committed, 1);
	cr_assert_eq(space->unbacked, 4);
	return_first_blocks();
	close_slabs();
}

/* What is committed and free lies behind what is not, and no more is to be had. */
Test(slab_charged, a_run_that_is_committed_serves_when_a_commit_is_refused)
{
	uint32_t front, last, first;

	open_charged();
	front = taken(8);
	last = taken(8);
	taken(1);
	give(front, 8);
	hk_superslabs_trim(space, 0, (struct hk_deadline){ 0 });
	give(last, 8);
	arena->memory.own.limit = hk_arena_used(arena);
	cr_assert_eq(take(8, SLAB, &first), 0);
	cr_assert_eq(first, last);
	cr_assert_eq(take(8, SLAB, &first), HK_ERROR_LIMIT);
	give(last, 8);
	arena->memory.own.limit = SIZE_MAX;
	cr_assert_eq(taken(8), front, "the lowest");
	close_space(); /* its runs hold no blocks */
}

static int take_from_second_and_fail(void)
{
	size_t i;

	/* slab 5 is in use then, 6 to 9 are committed */
	for (i = 0; i < IN_FIRST; i++)
		take_rival();
	fault_platform_rewind(&fault);
	fault.fail_from = 1; /* the third run that it would begin, too */
	return -1;
}

Test(slab_charged, of_two_growing_runs_the_one_that_needs_no_commit_grows)
{
	uint32_t front, last;
	void *block;

	open_charged();
	front = taken(6);
	last = taken(4);
	give(front, 6);
	hk_superslabs_trim(space, 0, (struct hk_deadline){ 0 });
	give(last, 4);
	cr_assert_eq(take_blocks(GROWING, first_blocks, IN_FIRST), IN_FIRST);
	/* the first run cannot grow, and is the first in the list again */
	in_commit = take_from_second_and_fail;
	cr_assert_eq(hk_slab_take(slabs, GROWING, &block, 1, NULL), 0);
	cr_assert_eq(slabs->classes[GROWING].new_runs, 2);
	cr_assert_eq(slabs->classes[GROWING].growing, 1);
	fault_platform_rewind(&fault);
	arena->memory.own.limit = hk_arena_used(arena);
	while (hk_slab(space, 5)->usable < 24)
		take_one(GROWING);
	cr_assert_eq(hk_slab(space, 0)->usable, IN_FIRST);
	cr_assert_eq(hk_slab_take(slabs, GROWING, &block, 1, NULL), 1, "of the last slab");
	agree();
	hk_slab_reset(slabs);
	hk_superslabs_reset(space);
	close_slabs();
}

Test(slab_charged, statistics_count_what_is_backed)
{
	struct hk_stats stats;

	open_full_slab();
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.classes[GROWING].slabs, 5);
	cr_assert_eq(stats.classes[GROWING].live_blocks, IN_FIRST);
	cr_assert_eq(stats.free_bytes, 0, "%zu", stats.free_bytes);
	give(taken(1), 1);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.free_bytes, SLAB, "%zu", stats.free_bytes);
	return_first_blocks();
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.free_bytes, 2 * SLAB, "%zu", stats.free_bytes);
	close_slabs();
}
