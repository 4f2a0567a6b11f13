/* SPDX-License-Identifier: MIT */
/* Slabs that are committed ahead of need: how many, and where there are none. */
#include <stdint.h>

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)

/* Steps grow with the arena: half of it up to a superslab, an eighth up to 16 MiB. */
Test(superslab_ahead, commits_ahead_as_the_arena_grows)
{
	size_t before, have, largest = 0;
	uint32_t slab;

	open_space(NULL, 8192);
	for (slab = 0; slab < 4000; slab++) {
		have = space->committed;
		cr_assert_eq(taken(1), slab);
		before = space->committed - have;
		must(before <= 1 + have / 2, "%zu slabs at once, %zu before", before, have);
		must(before <= 32 || before <= 1 + have / 8, "%zu slabs at once, %zu before",
		     before, have);
		must(before <= 256, "%zu slabs at once", before);
		if (largest < before)
			largest = before;
		if (slab == 250)
			cr_assert_eq(largest, 32);
		if (slab == 1000)
			cr_assert_lt(fault.counts[FAULT_COMMIT], 100, "1000 slabs in %llu steps",
				     (unsigned long long)fault.counts[FAULT_COMMIT]);
	}
	cr_assert_eq(largest, 256);
	cr_assert_lt(fault.counts[FAULT_COMMIT], 120, "4000 slabs in %llu steps",
		     (unsigned long long)fault.counts[FAULT_COMMIT]);
	/* each commit is a whole step, each superslab but as many as that needs */
	before = fault.counts[FAULT_COMMIT];
	for (; slab < 6000; slab++) {
		cr_assert_eq(taken(1), slab);
		must(space->free.leaves * 32 <= slab + 1 + 256, "%u superslabs for slab %u",
		     space->free.leaves, slab);
	}
	cr_assert_lt(fault.counts[FAULT_COMMIT] - before, 20, "2000 slabs in %llu steps",
		     (unsigned long long)(fault.counts[FAULT_COMMIT] - before));
	close_space();
}

/* What is committed ahead is in nobody's way: at the limit every slab committed is used. */
Test(superslab_ahead, commits_no_more_ahead_near_the_limit)
{
	static const size_t limits[] = { MIB, 5 * MIB + 12345, 31 * MIB };
	uint32_t first;
	size_t i;
	int error;

	for (i = 0; i < COUNT(limits); i++) {
		open_space(NULL, 1400);
		arena->memory.own.limit = limits[i];
		do {
			size_t left = limits[i] - fault.committed, have = space->committed;

			error = take(1, SLAB, &first);
			must(fault.committed <= limits[i], "%zu", fault.committed);
			must(space->committed - have <= 1 + left / 4 / SLAB,
			     "%zu slabs at once, %zu left", space->committed - have, left / SLAB);
		} while (!error);
		cr_assert_eq(error, HK_ERROR_LIMIT);
		cr_assert_eq(space->committed, space->used);
		cr_assert_lt(limits[i] - fault.committed, SLAB + 4096);
		give(3, 1);
		cr_assert_eq(taken(1), 3);
		close_space();
	}
}

/* A platform that has a slab left, but no more. */
Test(superslab_ahead, does_without_what_it_cannot_commit_ahead)
{
	uint32_t first;

	open_space(NULL, 400);
	while (space->committed < 40 || space->committed != space->used)
		taken(1);
	fault.quota = fault.committed + SLAB;
	first = taken(1);
	cr_assert_gt(fault.injected, 0, "nothing was tried ahead");
	cr_assert_not(is_committed(first + 1));
	cr_assert_eq(take(1, SLAB, &first), HK_ERROR_MEMORY);
	fault.quota = 0;
	cr_assert_eq(taken(1), space->used - 1);
	close_space();
}
