/* SPDX-License-Identifier: MIT */
/* Large blocks: runs of their own, known by their class bytes alone. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct hk_large *large;

static void open_large(const struct fault_options *options, uint32_t slabs_max)
{
	open_space(options, slabs_max);
	large = &arena->large;
}

static void agree(void)
{
	verify();
	must(hk_large_check(large) == 0, "%zu", hk_large_check(large));
}

static unsigned char *allocated(size_t size, size_t align)
{
	void *block = NULL;
	int error = hk_large_alloc(large, size, align, 0, &block);

	must(!error, "%zu bytes: %s", size, hk_error_name(error));
	must(!((uintptr_t)block & (align - 1)), "%p", block);
	agree();
	return block;
}

static void freed(void *block)
{
	enum hk_fault found = hk_large_free(large, block);

	must(!found, "%s", hk_fault_name(found));
	agree();
}

Test(large, sizes_are_whole_slabs)
{
	static const size_t sizes[] = { 1, SLAB - 1, SLAB, SLAB + 1, 9 * SLAB, 40 * SLAB - 5 };
	size_t i, slab, slabs, all = 0;
	unsigned char *block;

	open_large(NULL, 400);
	for (i = 0; i < COUNT(sizes); i++) {
		slabs = (sizes[i] + SLAB - 1) / SLAB;
		all += slabs;
		block = allocated(sizes[i], 16);
		cr_assert_eq(hk_large_size(large, block), slabs * SLAB);
		cr_assert_eq(hk_large_fault(large, block), HK_FAULT_NONE);
		for (slab = 0; slab < slabs; slab++)
			cr_assert_eq(hk_class_at(space, block + slab * SLAB),
				     slab ? HK_CLASS_INSIDE : HK_CLASS_LARGE);
		cr_assert_eq(large->blocks, i + 1);
		cr_assert_eq(large->slabs, all);
	}
	cr_assert_eq(large->allocs, COUNT(sizes));
	close_space();
}

Test(large, more_than_the_range_is_refused)
{
	void *block, *other;

	open_large(NULL, 100);
	cr_assert_eq(hk_large_alloc(large, 100 * SLAB + 1, 16, 0, &block), HK_ERROR_ARGUMENT);
	cr_assert_eq(hk_large_alloc(large, SIZE_MAX, 16, 0, &block), HK_ERROR_ARGUMENT);
	cr_assert_eq(hk_large_alloc(large, SIZE_MAX - SLAB + 1, 16, 0, &block), HK_ERROR_ARGUMENT);
	cr_assert_eq(hk_large_alloc(large, 1, SIZE_MAX / 2 + 1, 0, &block), HK_ERROR_ARGUMENT);
	cr_assert_eq(hk_large_alloc(large, 100 * SLAB, HK_SUPERSLAB_SIZE, 0, &block), 0);
	cr_assert_eq(hk_large_free(large, block), HK_FAULT_NONE);
	cr_assert_eq(large->allocs, 1);
	agree();
	block = allocated(100 * SLAB, 16);
	cr_assert_eq(hk_large_alloc(large, 100 * SLAB, 16, 0, &other), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(hk_large_resize(large, block, SIZE_MAX), HK_ERROR_ARGUMENT);
	cr_assert_eq(hk_large_resize(large, block, 100 * SLAB + 1), HK_ERROR_ARGUMENT);
	freed(block);
	close_space();
}

Test(large, clears_what_it_is_told_to)
{
	size_t size = 5 * SLAB + 100;
	unsigned char *block;
	void *again;

	open_large(&(struct fault_options){ .garbage = true }, 100);
	block = allocated(size, 16);
	memset(block, 7, size);
	freed(block);
	cr_assert_eq(hk_large_alloc(large, size, 16, size, &again), 0);
	cr_assert_eq(again, block);
	while (size && !block[size - 1])
		size--;
	cr_assert_eq(size, 0, "byte %zu", size - 1);
	close_space();
}

Test(large, a_wrong_pointer_is_told_from_a_block)
{
	unsigned char *block, *other;

	open_large(NULL, 400);
	cr_assert_eq(hk_large_free(large, space->base), HK_FAULT_FOREIGN, "never used");
	block = allocated(3 * SLAB, 16);
	other = allocated(SLAB, 16);
	cr_assert_eq(hk_large_free(large, block + 16), HK_FAULT_INTERIOR);
	cr_assert_eq(hk_large_free(large, block + SLAB), HK_FAULT_INTERIOR);
	cr_assert_eq(hk_large_free(large, block + 3 * SLAB - 1), HK_FAULT_INTERIOR);
	cr_assert_eq(hk_large_free(large, other + 10 * SLAB), HK_FAULT_FOREIGN);
	cr_assert_eq(hk_large_free(large, space->base - 1), HK_FAULT_FOREIGN);
	cr_assert_eq(hk_large_free(large, &block), HK_FAULT_FOREIGN);
	cr_assert_eq(hk_large_free(large, NULL), HK_FAULT_FOREIGN);
	cr_assert_eq(hk_large_size(large, block + 16), 0);
	cr_assert_eq(hk_large_size(large, block + SLAB), 0);
	cr_assert_eq(hk_large_size(large, NULL), 0);
	cr_assert_eq(large->frees, 0);
	agree();
	freed(block);
	cr_assert_eq(hk_large_free(large, block), HK_FAULT_DOUBLE_FREE);
	cr_assert_eq(hk_large_size(large, block), 0);
	cr_assert_eq(hk_large_size(large, other), SLAB);
	agree();
	freed(other);
	cr_assert_eq(large->frees, 2);
	cr_assert_eq(large->blocks, 0);
	cr_assert_eq(space->used, 0);
	close_space();
}

static struct {
	pthread_barrier_t barrier;
	void *volatile block;
	_Atomic unsigned done;
	_Atomic unsigned refused;
} race;

static void *free_it_too(void *rounds)
{
	uintptr_t i;

	for (i = 0; i < (uintptr_t)rounds; i++) {
		pthread_barrier_wait(&race.barrier);
		if (hk_large_free(large, race.block))
			race.refused++;
		else
			race.done++;
		pthread_barrier_wait(&race.barrier);
	}
	return NULL;
}

/* Of two threads that free one block at the same time, one is told so. */
Test(large, is_freed_once, .timeout = 60)
{
	uintptr_t rounds = 2000, i;
	pthread_t thread;

	open_large(NULL, 400);
	memset(&race, 0, sizeof(race));
	cr_assert_eq(pthread_barrier_init(&race.barrier, NULL, 2), 0);
	cr_assert_eq(pthread_create(&thread, NULL, free_it_too, (void *)rounds), 0);
	for (i = 0; i < rounds; i++) {
		race.block = allocated(3 * SLAB, 16);
		pthread_barrier_wait(&race.barrier);
		if (hk_large_free(large, race.block))
			race.refused++;
		else
			race.done++;
		pthread_barrier_wait(&race.barrier);
		must(race.done == i + 1 && race.refused == i + 1, "round %zu: %u times", (size_t)i,
		     (unsigned)race.done);
		agree();
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
	pthread_barrier_destroy(&race.barrier);
	close_space();
}

Test(large, resizes_in_place_as_far_as_its_neighbours_allow)
{
	unsigned char *block, *wall;

	open_large(&(struct fault_options){ .forbid = true }, 400);
	block = allocated(2 * SLAB, 16);
	test_fill(block, 2 * SLAB, 1);
	cr_assert_eq(hk_large_resize(large, block, 5 * SLAB - 3), 0);
	agree();
	cr_assert_eq(hk_large_size(large, block), 5 * SLAB);
	cr_assert_eq(large->slabs, 5);
	cr_assert_eq(hk_class_at(space, block + 4 * SLAB), HK_CLASS_INSIDE);
	block[5 * SLAB - 1] = 1;
	wall = allocated(SLAB, 16);
	cr_assert_eq(wall, block + 5 * SLAB);
	cr_assert_eq(hk_large_resize(large, block, 5 * SLAB + 1), HK_ERROR_ADDRESS_SPACE);
	agree();
	cr_assert_eq(hk_large_resize(large, block, 5 * SLAB), 0, "it has that much");
	cr_assert_eq(hk_large_resize(large, block, 4 * SLAB + 1), 0);
	cr_assert_eq(hk_large_size(large, block), 5 * SLAB, "of the last slab a byte is used");
	cr_assert_eq(hk_large_resize(large, block, 1), 0);
	agree();
	cr_assert_eq(hk_large_size(large, block), SLAB);
	cr_assert_eq(hk_class_at(space, block + SLAB), 0);
	cr_assert(test_holds(block, SLAB, 1));
	/* what it gave up is there for others, and for itself */
	cr_assert_eq(allocated(SLAB, 16), block + SLAB);
	cr_assert_eq(hk_large_resize(large, block, 2 * SLAB), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(large->slabs, 3);
	/* memory for more there is not */
	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	cr_assert_eq(hk_large_resize(large, wall, 300 * SLAB), HK_ERROR_MEMORY);
	agree();
	cr_assert_eq(hk_large_size(large, wall), SLAB);
	cr_assert_eq(large->slabs, 3);
	cr_assert_eq(large->blocks, 3);
	close_space();
}

Test(large, an_allocation_that_fails_leaves_no_trace)
{
	uint64_t failing;
	void *block = NULL;

	for (failing = 1; failing <= 3; failing++) {
		open_large(NULL, 400);
		fault.fail_at = failing;
		cr_assert_eq(hk_large_alloc(large, 3 * SLAB, 16, 0, &block), HK_ERROR_MEMORY);
		agree();
		cr_assert_eq(large->blocks + large->slabs + large->allocs, 0);
		cr_assert_eq(space->used, 0);
		cr_assert_eq(allocated(3 * SLAB, 16), space->base);
		close_space();
	}
}

Test(large, check_finds_what_is_damaged)
{
	unsigned char *block, *other;
	uint32_t slab;

	open_large(NULL, 400);
	block = allocated(5 * SLAB, 16);
	other = allocated(SLAB, 16);
	for (slab = 0; slab < 6; slab++) {
		unsigned before = *hk_class_byte(space, slab);

		hk_classes_set(space, slab, 1, before ^ HK_CLASS_LARGE ^ HK_CLASS_INSIDE);
		cr_assert_gt(hk_large_check(large), 0, "slab %u", slab);
		hk_classes_set(space, slab, 1, before);
		cr_assert_eq(hk_large_check(large), 0);
	}
	hk_slab(space, 0)->length++;
	cr_assert_gt(hk_large_check(large), 0);
	hk_slab(space, 0)->length -= 2;
	cr_assert_gt(hk_large_check(large), 0);
	hk_slab(space, 0)->length++;
	large->blocks++;
	cr_assert_gt(hk_large_check(large), 0);
	large->blocks--;
	large->slabs--;
	cr_assert_gt(hk_large_check(large), 0);
	large->slabs++;
	freed(block);
	freed(other);
	close_space();
}

Test(large, reset_forgets_blocks_but_not_how_many_there_were)
{
	unsigned char *block;

	open_large(NULL, 400);
	block = allocated(5 * SLAB, 16);
	allocated(SLAB, 16);
	hk_large_reset(large);
	hk_superslabs_reset(space);
	agree();
	cr_assert_eq(large->blocks + large->slabs, 0);
	cr_assert_eq(large->allocs, 2);
	cr_assert_eq(large->frees, 0);
	cr_assert_eq(hk_large_size(large, block), 0);
	cr_assert_eq(allocated(5 * SLAB, 16), block);
	close_space();
}
