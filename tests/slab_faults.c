/* SPDX-License-Identifier: MIT */
/* Slabs when something is wrong: bad pointers, no memory; and what is known without a lock. */
#include <stdint.h>
#include <string.h>

#include "slab.h"

static void is_refused(size_t index, const void *block, enum hk_fault fault_kind,
		       unsigned size_class)
{
	cr_assert_eq(bad[index].block, block, "number %zu", index);
	cr_assert_eq(bad[index].fault, fault_kind, "number %zu: %s", index,
		     hk_fault_name(bad[index].fault));
	cr_assert_eq(bad[index].size_class, size_class, "number %zu: class %u", index,
		     bad[index].size_class);
}

/* One batch with a bad pointer of each kind between good ones of several classes. */
Test(slab_faults, bad_pointers_are_left_out_and_the_others_return)
{
	unsigned char *small[32], *middle[4], *tail;
	void *large, *batch[HK_BATCH_MAX];
	size_t count = 0;

	open_slabs(NULL);
	take_blocks(20, (void **)small, 32);
	take_blocks(70, (void **)middle, 4);
	cr_assert_eq(hk_large_alloc(&arena->large, 3 * SLAB, SLAB, 0, &large), 0);
	tail = hk_slab_address(space, (uint32_t)hk_slab_number(space, small[0])) +
	       (size_t)hk_class_infos[20].blocks * hk_class_size(20);
	cr_assert_lt((size_t)(tail - small[0]), SLAB, "class 20 has no tail");

	batch[count++] = small[0];
	batch[count++] = small[1] + 16; /* 0: inside */
	batch[count++] = small[1];
	batch[count++] = small[0]; /* 1: twice in this batch */
	batch[count++] = middle[0];
	batch[count++] = &count;	/* 2: foreign */
	batch[count++] = middle[1] + 8; /* 3: inside */
	batch[count++] = middle[1];
	batch[count++] = small[31] + hk_class_size(20); /* 4: never handed out */
	batch[count++] = tail;				/* 5: the run's rest */
	batch[count++] = large;
	batch[count++] = (unsigned char *)large + SLAB; /* 6: freed by now */
	batch[count++] = large;				/* 7: twice */
	batch[count++] = NULL;				/* 8: foreign */
	batch[count++] = hk_slab_address(space, 31);	/* 9: a slab never used */
	batch[count++] = hk_slab_address(space, 0) - 1; /* 10: foreign */
	batch[count++] = small[2];
	cr_assert_eq(hk_slab_return(slabs, batch, count, bad), 11);
	agree();
	is_refused(0, small[1] + 16, HK_FAULT_INTERIOR, 20);
	is_refused(1, small[0], HK_FAULT_DOUBLE_FREE, 20);
	is_refused(2, &count, HK_FAULT_FOREIGN, 0);
	is_refused(3, middle[1] + 8, HK_FAULT_INTERIOR, 70);
	is_refused(4, small[31] + hk_class_size(20), HK_FAULT_FOREIGN, 20);
	is_refused(5, tail, HK_FAULT_INTERIOR, 20);
	cr_assert_eq(bad[6].block, (unsigned char *)large + SLAB);
	cr_assert_eq(bad[7].fault, HK_FAULT_DOUBLE_FREE);
	is_refused(8, NULL, HK_FAULT_FOREIGN, 0);
	is_refused(9, hk_slab_address(space, 31), HK_FAULT_FOREIGN, 0);
	is_refused(10, hk_slab_address(space, 0) - 1, HK_FAULT_FOREIGN, 0);
	cr_assert_eq(slabs->classes[20].blocks_out, 29);
	cr_assert_eq(slabs->classes[70].blocks_out, 2);
	cr_assert_eq(arena->large.blocks, 0);
	cr_assert_eq(hk_slab_return(slabs, (void **)small + 3, 29, bad), 0);
	cr_assert_eq(hk_slab_return(slabs, (void **)middle + 2, 2, bad), 0);
	cr_assert_eq(space->used, 0);
	close_slabs();
}

/* Blocks that follow each other go back together, up to one that is bad, or the end of a word. */
Test(slab_faults, bad_pointers_among_neighbours_are_left_out)
{
	unsigned char *blocks[64];
	void *batch[10];
	size_t i;

	open_slabs(NULL);
	take_blocks(20, (void **)blocks, 64);
	for (i = 0; i < 6; i++)
		batch[i] = blocks[30 + i];
	batch[6] = blocks[35];	    /* 0: twice */
	batch[7] = blocks[36] + 16; /* 1: inside */
	batch[8] = blocks[36];
	batch[9] = blocks[31]; /* 2: twice, of the word before */
	cr_assert_eq(hk_slab_return(slabs, batch, COUNT(batch), bad), 3);
	agree();
	is_refused(0, blocks[35], HK_FAULT_DOUBLE_FREE, 20);
	is_refused(1, blocks[36] + 16, HK_FAULT_INTERIOR, 20);
	is_refused(2, blocks[31], HK_FAULT_DOUBLE_FREE, 20);
	cr_assert_eq(slabs->classes[20].blocks_out, 57);
	cr_assert_eq(hk_slab_return(slabs, (void **)blocks, 30, bad), 0);
	cr_assert_eq(hk_slab_return(slabs, (void **)blocks + 37, 27, bad), 0);
	cr_assert_eq(space->used, 0);
	close_slabs();
	/* a run that is not backed to its end: what follows was never handed out */
	open_slabs(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED });
	take_blocks(84, (void **)blocks, 10);
	batch[0] = blocks[8];
	batch[1] = blocks[9];
	batch[2] = blocks[9] + hk_class_size(84);
	cr_assert_eq(hk_slab_return(slabs, batch, 3, bad), 1);
	agree();
	is_refused(0, batch[2], HK_FAULT_FOREIGN, 84);
	cr_assert_eq(hk_slab_return(slabs, (void **)blocks, 8, bad), 0);
	close_slabs();
}

/* The last block empties its run; a second time it is told by what its slab was. */
Test(slab_faults, a_double_free_is_told_after_its_run_has_gone)
{
	static const unsigned classes[] = { 1, 20, 70, 110, 120 };
	void *block, *twice[2];
	size_t i;

	open_slabs(NULL);
	for (i = 0; i < COUNT(classes); i++) {
		take_blocks(classes[i], &block, 1);
		twice[0] = twice[1] = block;
		cr_assert_eq(hk_slab_return(slabs, twice, 2, bad), 1);
		agree();
		is_refused(0, block, HK_FAULT_DOUBLE_FREE, classes[i]);
		cr_assert_eq(hk_slab_return(slabs, &block, 1, bad), 1);
		is_refused(0, block, HK_FAULT_DOUBLE_FREE, classes[i]);
		cr_assert_eq(space->used, 0);
		cr_assert_eq(hk_slab_fault(slabs, block), HK_FAULT_DOUBLE_FREE);
	}
	close_slabs();
}

/* Every commit that the first block needs may fail, by the platform or by the limit. */
Test(slab_faults, no_memory_means_no_block_and_no_change)
{
	static const unsigned classes[] = { 1, 20, 40, 120 };
	static const uint64_t commits[] = { 4, 4, 3, 3 }; /* with bitmaps out of line, or not */
	void *blocks[HK_BATCH_MAX];
	uint64_t failing;
	size_t i;

	for (i = 0; i < COUNT(classes); i++) {
		for (failing = 1; failing <= commits[i]; failing++) {
			open_slabs(&(struct fault_options){ .forbid = true });
			fault.fail_at = failing;
			cr_assert_eq(hk_slab_take(slabs, classes[i], blocks, 32, NULL), 0,
				     "class %u, commit %llu", classes[i],
				     (unsigned long long)failing);
			agree();
			cr_assert_eq(space->used, 0);
			cr_assert_eq(slabs->classes[classes[i]].slabs, 0);
			cr_assert_eq(slabs->classes[classes[i]].new_runs, 0);
			cr_assert_eq(slabs->classes[classes[i]].blocks_free, 0);
			arena->memory.own.limit = fault.committed;
			hk_slab_take(slabs, 119, blocks, 1, NULL);
			agree();
			arena->memory.own.limit = SIZE_MAX;
			take_blocks(classes[i], blocks, 32);
			cr_assert_eq(blocks[0], space->base);
			close_slabs();
		}
		open_slabs(NULL);
		take_blocks(classes[i], blocks, 32);
		cr_assert_eq(fault.counts[FAULT_COMMIT], commits[i], "class %u", classes[i]);
		close_slabs();
	}
}

/* A partial run serves when no new one can be had, though not as much as was asked for. */
Test(slab_faults, what_there_is_comes_without_the_platform)
{
	const size_t all = hk_class_infos[105].blocks;
	void *blocks[HK_BATCH_MAX];

	open_slabs(NULL);
	take_blocks(105, blocks, 1);
	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	cr_assert_eq(take_blocks(105, blocks, HK_BATCH_MAX), all - 1);
	cr_assert_eq(fault.injected, 0, "a batch need not be full");
	cr_assert_eq(hk_slab_take(slabs, 105, blocks, 1, NULL), 0);
	agree();
	close_slabs();
}

Test(slab_faults, sizes_and_faults_of_pointers)
{
	static const unsigned classes[] = { 1, 20, 64, 65, 90, 104, 110, 120 };
	void *blocks[HK_BATCH_MAX], *large;
	size_t i, n;

	open_slabs(NULL);
	for (i = 0; i < COUNT(classes); i++) {
		size_t size = hk_class_size(classes[i]);
		size_t count = take_blocks(classes[i], blocks, 7);

		for (n = 0; n < count; n++) {
			unsigned char *block = blocks[n];

			cr_assert_eq(hk_slab_block_size(slabs, block), size);
			cr_assert_eq(hk_slab_fault(slabs, block), HK_FAULT_NONE);
			cr_assert_eq(hk_slab_block_size(slabs, block + 1), 0);
			cr_assert_eq(hk_slab_block_size(slabs, block + size - 1), 0);
			cr_assert_eq(hk_slab_fault(slabs, block + 15), HK_FAULT_INTERIOR);
			cr_assert_eq(hk_slab_fault(slabs, block + size - 1), HK_FAULT_INTERIOR);
		}
	}
	cr_assert_eq(hk_large_alloc(&arena->large, 2 * SLAB, SLAB, 0, &large), 0);
	cr_assert_eq(hk_slab_block_size(slabs, large), 2 * SLAB);
	cr_assert_eq(hk_slab_fault(slabs, large), HK_FAULT_NONE);
	cr_assert_eq(hk_slab_block_size(slabs, (char *)large + SLAB), 0);
	cr_assert_eq(hk_slab_fault(slabs, (char *)large + SLAB), HK_FAULT_INTERIOR);
	cr_assert_eq(hk_slab_block_size(slabs, NULL), 0);
	cr_assert_eq(hk_slab_fault(slabs, &large), HK_FAULT_FOREIGN);
	cr_assert_eq(hk_slab_block_size(slabs, &large), 0);
	close_slabs();
}

static struct {
	size_t count;
	size_t stop_after;
	unsigned classes[64];
	void *blocks[64];
	size_t sizes[64];
} walked;

static bool note(void *context, void *block, size_t size, unsigned size_class)
{
	must(context == &walked, "not my context");
	walked.classes[walked.count] = size_class;
	walked.blocks[walked.count] = block;
	walked.sizes[walked.count] = size;
	return ++walked.count < walked.stop_after;
}

/* By class, then by address; large ones last. */
Test(slab_faults, a_walk_goes_by_class_and_address)
{
	void *high[5], *low[5], *large[2];
	size_t i;

	open_slabs(NULL);
	cr_assert_eq(hk_large_alloc(&arena->large, 2 * SLAB, SLAB, 0, &large[0]), 0);
	take_blocks(80, high, 5);
	take_blocks(3, low, 5);
	cr_assert_eq(hk_large_alloc(&arena->large, SLAB, SLAB, 0, &large[1]), 0);
	cr_assert_eq(hk_slab_return(slabs, &high[2], 1, bad), 0);
	memset(&walked, 0, sizeof(walked));
	walked.stop_after = 64;
	hk_slab_walk(slabs, note, &walked);
	cr_assert_eq(walked.count, 11);
	for (i = 0; i < 5; i++) {
		cr_assert_eq(walked.blocks[i], low[i]);
		cr_assert_eq(walked.classes[i], 3);
		cr_assert_eq(walked.sizes[i], hk_class_size(3));
	}
	cr_assert_eq(walked.blocks[5], high[0]);
	cr_assert_eq(walked.blocks[7], high[3]);
	cr_assert_eq(walked.classes[8], 80);
	cr_assert_eq(walked.blocks[9], large[0]);
	cr_assert_eq(walked.sizes[9], 2 * SLAB);
	cr_assert_eq(walked.classes[9], 0);
	cr_assert_eq(walked.blocks[10], large[1]);
	/* it ends where it is told to: in a class, and among large blocks */
	for (i = 1; i <= 11; i++) {
		walked.count = 0;
		walked.stop_after = i;
		hk_slab_walk(slabs, note, &walked);
		cr_assert_eq(walked.count, i);
	}
	close_slabs();
}

static bool take_one(unsigned size_class, void **block)
{
	bool zeroed = true;

	cr_assert_eq(hk_slab_take(slabs, size_class, block, 1, &zeroed), 1);
	agree();
	return zeroed;
}

Test(slab_faults, only_untouched_blocks_of_the_largest_classes_are_zero)
{
	void *blocks[8], *again[8];
	unsigned i, known = 0;
	size_t n;
	bool zeroed;

	for (i = 1; i < HK_CLASSES; i++) {
		size_t all = hk_class_infos[i].blocks;
		bool expected = all <= 8;

		known += expected;
		open_slabs(NULL);
		for (n = 0; n < all && n < 8; n++)
			must(take_one(i, &blocks[n]) == expected, "class %u, block %zu", i, n);
		if (all > 8) {
			close_slabs();
			continue;
		}
		/* one comes back: not zero; nor is a batch that it is part of */
		if (all > 1) {
			cr_assert_eq(hk_slab_return(slabs, &blocks[0], 1, bad), 0);
			must(!take_one(i, &again[0]), "class %u", i);
			must(again[0] == blocks[0], "class %u", i);
		}
		cr_assert_eq(hk_slab_return(slabs, blocks, all, bad), 0);
		must(!take_one(i, &blocks[0]), "class %u, after its run was used", i);
		close_slabs();
		if (all < 3)
			continue;
		open_slabs(NULL);
		must(take_one(i, &blocks[0]), "class %u", i);
		must(take_one(i, &blocks[1]), "class %u", i);
		cr_assert_eq(hk_slab_return(slabs, blocks, 1, bad), 0);
		zeroed = true;
		hk_slab_take(slabs, i, blocks, all - 1, &zeroed);
		agree();
		must(!zeroed, "class %u: a batch with a used block", i);
		close_slabs();
		open_slabs(&(struct fault_options){ .garbage = true });
		must(!take_one(i, &blocks[0]), "class %u, garbage", i);
		close_slabs();
	}
	cr_assert_gt(known, 4, "%u classes", known);
}

Test(slab_faults, after_a_reset_all_begins_anew)
{
	static const unsigned classes[] = { 1, 20, 70, 120 };
	void *blocks[HK_BATCH_MAX];
	size_t i;
	int round;

	open_slabs(NULL);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < COUNT(classes); i++) {
			take_blocks(classes[i], blocks, 32);
			if (!i)
				cr_assert_eq(blocks[0], space->base);
			hk_slab_return(slabs, blocks, 1, bad);
			agree();
		}
		hk_slab_reset(slabs);
		hk_large_reset(&arena->large);
		hk_superslabs_reset(space);
		agree();
		for (i = 0; i < COUNT(classes); i++) {
			cr_assert_eq(slabs->classes[classes[i]].blocks_out, 0);
			cr_assert_eq(slabs->classes[classes[i]].slabs, 0);
		}
		walked.count = 0;
		hk_slab_walk(slabs, note, &walked);
		cr_assert_eq(walked.count, 0);
	}
	close_slabs();
}
