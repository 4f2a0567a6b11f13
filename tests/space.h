/* SPDX-License-Identifier: MIT */
/*
 * What the tests of runs and of large blocks share: the superslabs of an arena that is used for
 * nothing else, over a platform that keeps books.
 */
#ifndef TESTS_SPACE_H
#define TESTS_SPACE_H

#include <hakmem/arena.h>

#include "fault_platform.h"
#include "heap.h"

#define SLAB HK_SLAB_SIZE

static struct fault_platform fault;
static struct hk_arena *arena; /* only for its layout: no call of it is made */
static struct hk_superslabs *space;

/* An arena over @platform, which stands in front of the one that keeps books, or is it. */
TEST_HELPER void open_space_over(const struct hk_platform *platform, uint32_t slabs_max)
{
	struct hk_arena_config config = { .platform = platform,
					  .address_space = (size_t)128 << 20 };

	if (config.address_space < slabs_max * HK_SLAB_SIZE)
		config.address_space = 2 * slabs_max * HK_SLAB_SIZE;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	space = &arena->space;
	cr_assert_geq(space->slabs_max, slabs_max);
	space->slabs_max = slabs_max;
	fault_platform_rewind(&fault);
}

TEST_HELPER void open_space(const struct fault_options *options, uint32_t slabs_max)
{
	cr_assert_eq(fault_platform_init(&fault, options), 0);
	open_space_over(&fault.platform, slabs_max);
}

TEST_HELPER void verify(void)
{
	must(hk_superslabs_check(space) == 0, "%zu", hk_superslabs_check(space));
	must(hk_memory_committed(&arena->memory) == fault.committed, "%zu, but %zu",
	     hk_memory_committed(&arena->memory), fault.committed);
	must(hk_memory_committed(&arena->memory) == arena->caches.committed +
							    hk_superslabs_metadata(space) +
							    space->committed * SLAB,
	     "other bytes are committed than are counted");
}

TEST_HELPER void close_space(void)
{
	verify();
	hk_arena_destroy(arena);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

TEST_HELPER int take(uint32_t count, size_t align, uint32_t *first)
{
	int error = hk_run_take(space, count, align, 0, first, NULL);

	if (!error)
		hk_classes_set(space, *first, count, 1);
	verify();
	return error;
}

/* A run that must be had. */
TEST_HELPER uint32_t taken(uint32_t count)
{
	uint32_t first = 0;
	int error = take(count, SLAB, &first);

	must(!error, "%u slabs: %s", count, hk_error_name(error));
	return first;
}

/* What is kept is in the maps again. */
TEST_HELPER void drop_kept(void)
{
	hk_superslabs_drop_kept(space);
	verify();
}

TEST_HELPER void give(uint32_t first, uint32_t count)
{
	hk_classes_set(space, first, count, 0);
	hk_run_give(space, first, count);
	verify();
}

TEST_HELPER int extend(uint32_t first, uint32_t count, uint32_t more)
{
	int error = hk_run_extend(space, first, count, more);

	if (!error)
		hk_classes_set(space, first + count, more, 1);
	verify();
	return error;
}

TEST_HELPER bool is_committed(uint32_t slab)
{
	return fault_platform_is_committed(&fault, hk_slab_address(space, slab), SLAB);
}

#endif /* TESTS_SPACE_H */
