/* SPDX-License-Identifier: MIT */
/* Runs of slabs: which ones are taken, when they are committed, what is known to be zero. */
#include <stdint.h>
#include <string.h>

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SHORT_RUN 8u /* up to so many slabs go where a superslab is in use already */

Test(superslab, ready_runs_come_before_lower_ones_that_are_not)
{
	struct hk_deadline never = { 0 };
	uint32_t low, wall, high;

	open_space(NULL, 400);
	low = taken(4);
	wall = taken(1);
	give(low, 4);
	hk_superslabs_trim(space, 0, never);
	cr_assert_not(is_committed(low));
	high = taken(6);
	give(high, 6);
	cr_assert_gt(high, wall);
	cr_assert_eq(taken(5), high, "the lowest that is long enough and ready");
	cr_assert_eq(taken(2), low, "one is ready still, too few");
	cr_assert_eq(taken(1), high + 5);
	close_space();
}

/* Four superslabs, all ready but for what is used of the second and the fourth. */
static void lay_out_four(void)
{
	cr_assert_eq(taken(128), 0);
	give(0, 32);
	give(40, 10);
	give(64, 32);
	give(100, 15);
	drop_kept();
}

/* Whole ones are for large blocks, as long as there is room for the small elsewhere. */
Test(superslab, a_short_run_leaves_whole_superslabs_whole)
{
	uint32_t range;

	open_space(NULL, 400);
	lay_out_four();
	cr_assert_eq(taken(1), 40);
	cr_assert_eq(taken(SHORT_RUN), 41);
	cr_assert_eq(taken(2), 100, "one is left in the second");
	cr_assert_eq(taken(1), 49);
	cr_assert_eq(taken(SHORT_RUN), 102);
	cr_assert_eq(taken(5), 110);
	cr_assert(hk_map_is_set(&space->ready, 0, 32) && hk_map_is_set(&space->ready, 64, 32));
	/* no room elsewhere: the lowest breaks, and only that one */
	cr_assert_eq(taken(3), 0);
	cr_assert_eq(taken(SHORT_RUN), 3);
	cr_assert_eq(taken(21), 11);
	cr_assert(hk_map_is_set(&space->ready, 64, 32));
	close_space();
	/* a longer run, and one that is aligned, takes the lowest there is, kept first or not */
	for (range = 200; range <= 400; range += 200) {
		open_space(NULL, range);
		lay_out_four();
		cr_assert_eq(taken(SHORT_RUN + 1), 0);
		cr_assert_eq(taken(32), 64);
		close_space();
	}
}

Test(superslab, alignment_beyond_superslabs)
{
	size_t align;
	uint32_t first, wall;

	open_space(NULL, 1400);
	/* a base that is no multiple of a superslab */
	space->base += 5 * SLAB;
	space->slabs_max -= 5;
	for (align = SLAB; align <= 8 * HK_SUPERSLAB_SIZE; align *= 2) {
		wall = taken(1);
		cr_assert_eq(take(3, align, &first), 0, "alignment %zu", align);
		cr_assert_eq((uintptr_t)hk_slab_address(space, first) % align, 0);
		give(first, 3);
		/* once more, now that it is there: no run of alignment and size is needed */
		cr_assert_eq(take(3, align, &first), 0, "alignment %zu", align);
		cr_assert_eq((uintptr_t)hk_slab_address(space, first) % align, 0);
		give(first, 3);
		give(wall, 1);
	}
	/* beyond what the range has, and beyond what addresses have */
	cr_assert_eq(take(1, (size_t)1 << 46, &first), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(take(1, SIZE_MAX / 2 + 1, &first), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(space->used, 0);
	close_space();
}

/* Where only one aligned place is left, it is found, though no longer run is. */
Test(superslab, alignment_that_just_fits)
{
	uint32_t first, all;

	open_space(NULL, 256);
	all = taken(256);
	cr_assert_eq(all, 0);
	give(131, 2);
	cr_assert_eq(take(2, 2 * SLAB, &first), HK_ERROR_ADDRESS_SPACE);
	give(192, 3);
	cr_assert_eq(take(4, 4 * SLAB, &first), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(take(3, HK_SUPERSLAB_SIZE, &first), 0);
	cr_assert_eq(first, 192);
	close_space();
}

Test(superslab, the_whole_range_can_be_used)
{
	static const uint32_t sizes[] = { 1, 31, 32, 33, 45, 64, 70 };
	uint32_t first, count;
	size_t i;

	for (i = 0; i < COUNT(sizes); i++) {
		open_space(&(struct fault_options){ .forbid = true }, sizes[i]);
		cr_assert_eq(take(sizes[i] + 1, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(taken(sizes[i]), 0);
		cr_assert_eq(take(1, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(extend(0, sizes[i], 1), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(space->used, sizes[i]);
		cr_assert_eq(space->new_superslabs, (sizes[i] + 31) / 32);
		give(0, sizes[i]);
		drop_kept();
		cr_assert_eq(space->superslabs_emptied, (sizes[i] + 31) / 32);
		/* a last superslab that is cut short is never whole: its slabs go first */
		for (count = 0; take(1, SLAB, &first) == 0; count++)
			cr_assert_eq(first, (sizes[i] / 32 * 32 + count) % sizes[i]);
		cr_assert_eq(count, sizes[i]);
		give(sizes[i] / 2, 1);
		cr_assert_eq(take(2, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(taken(1), sizes[i] / 2);
		close_space();
	}
}

Test(superslab, extends_where_what_follows_is_free)
{
	uint32_t wall;

	open_space(&(struct fault_options){ .forbid = true }, 109);
	cr_assert_eq(taken(10), 0);
	cr_assert_eq(extend(0, 10, 5), 0);
	cr_assert(is_committed(14));
	cr_assert_eq(extend(0, 15, 33), 0, "into a superslab that was not there");
	cr_assert_eq(space->free.leaves, 2);
	wall = taken(1);
	cr_assert_eq(wall, 48);
	cr_assert_eq(extend(0, 48, 1), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(extend(0, 48, 40), HK_ERROR_ADDRESS_SPACE, "a used slab is in between");
	cr_assert_eq(space->free.leaves, 2, "superslabs were added for nothing");
	give(wall, 1);
	cr_assert_eq(extend(0, 48, 62), HK_ERROR_ADDRESS_SPACE, "beyond the range");
	cr_assert_eq(extend(0, 48, UINT32_MAX - 20), HK_ERROR_ADDRESS_SPACE, "wraps round");
	cr_assert_eq(extend(0, 48, 61), 0, "up to the last slab");
	cr_assert_eq(space->used, 109);
	close_space();
}

/* The free map, slab by slab: as it must be after a failure. */
static void only_the_first_are_used(uint32_t count)
{
	uint32_t slab;

	cr_assert_eq(space->used, count);
	for (slab = 0; slab < space->free.leaves * 32 && slab < space->slabs_max; slab++)
		cr_assert_eq(hk_map_is_set(&space->free, slab, 1), slab >= count, "slab %u", slab);
}

Test(superslab, a_take_that_fails_takes_nothing)
{
	static const enum hk_error errors[] = { HK_ERROR_MEMORY, HK_ERROR_LIMIT };
	uint64_t failing;
	uint32_t first;
	size_t i;

	/* headers, class table, the slabs: three commits */
	for (failing = 1; failing <= 3; failing++) {
		for (i = 0; i < COUNT(errors); i++) {
			open_space(&(struct fault_options){ .forbid = true }, 400);
			if (errors[i] == HK_ERROR_MEMORY)
				fault.fail_at = failing;
			else
				arena->memory.own.limit = fault.committed + (failing - 1) * 4096;
			cr_assert_eq(take(1, SLAB, &first), errors[i], "commit %llu",
				     (unsigned long long)failing);
			only_the_first_are_used(0);
			cr_assert_eq(space->committed, 0);
			arena->memory.own.limit = SIZE_MAX;
			cr_assert_eq(taken(1), 0);
			close_space();
		}
	}
	open_space(NULL, 400);
	taken(1);
	cr_assert_eq(fault.counts[FAULT_COMMIT], 3, "the first take commits otherwise");
	close_space();
}

Test(superslab, an_extend_that_fails_extends_nothing)
{
	uint64_t failing;
	int error;

	for (failing = 1;; failing++) {
		open_space(&(struct fault_options){ .forbid = true }, 1400);
		cr_assert_eq(taken(20), 0);
		fault_platform_rewind(&fault);
		fault.fail_at = failing;
		error = extend(0, 20, 1000);
		if (!error)
			break;
		cr_assert_eq(error, HK_ERROR_MEMORY);
		only_the_first_are_used(20);
		cr_assert_eq(extend(0, 20, 1000), 0);
		close_space();
	}
	cr_assert_geq(failing, 3, "headers and slabs are two commits");
	close_space();
}
