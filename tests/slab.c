/* SPDX-License-Identifier: MIT */
/* Batches of blocks: which blocks leave, where they return to, and which are refused. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "slab.h"

static uint64_t seed;

static void give_blocks(void *const *blocks, size_t count)
{
	size_t refused = hk_slab_return(slabs, blocks, count, bad);

	must(!refused, "%zu of %zu: %s", refused, count, hk_fault_name(bad[0].fault));
	agree();
}

static void *block_at(uint32_t slab, unsigned size_class, size_t index)
{
	return hk_slab_address(space, slab) + index * hk_class_size(size_class);
}

/* Takes whole runs, of which the first @count blocks are then in the host's hands. */
static void take_run(unsigned size_class, void **blocks)
{
	size_t taken = 0, all = hk_class_infos[size_class].blocks;

	while (taken < all)
		taken += take_blocks(size_class, blocks + taken,
				     all - taken < HK_BATCH_MAX ? all - taken : HK_BATCH_MAX);
}

/* Three runs of a class and which of their blocks are out, by address. */
#define RUNS 3

static unsigned char out[RUNS * 4096];
static void *pool[RUNS * 4096];
static size_t pool_count;

static size_t index_of(unsigned size_class, void *block)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	size_t offset = (size_t)((unsigned char *)block - space->base);
	size_t run = offset / (info->slabs * SLAB), within = offset % (info->slabs * SLAB);

	must(run < RUNS && within % info->size == 0 && within / info->size < info->blocks,
	     "class %u: offset %zu is no block", size_class, offset);
	return run * info->blocks + within / info->size;
}

static void take_into_pool(unsigned size_class, size_t want)
{
	size_t count = take_blocks(size_class, pool + pool_count, want), i;

	for (i = 0; i < count; i++, pool_count++) {
		size_t index = index_of(size_class, pool[pool_count]);

		must(!out[index], "class %u, block %zu is out already", size_class, index);
		must(i == 0 || pool[pool_count - 1] < pool[pool_count] ||
			     index / hk_class_infos[size_class].blocks !=
				     index_of(size_class, pool[pool_count - 1]) /
					     hk_class_infos[size_class].blocks,
		     "class %u: descending within a run", size_class);
		out[index] = 1;
	}
}

static void give_from_pool(unsigned size_class, size_t count)
{
	void *batch[HK_BATCH_MAX];
	size_t i;

	for (i = 0; i < count; i++) {
		size_t pick = (size_t)test_random(&seed) % pool_count;

		batch[i] = pool[pick];
		pool[pick] = pool[--pool_count];
		out[index_of(size_class, batch[i])] = 0;
	}
	give_blocks(batch, count);
}

struct comparison {
	unsigned size_class;
	size_t seen;
	unsigned char *before;
};

static bool compare_block(void *context, void *block, size_t size, unsigned size_class)
{
	struct comparison *comparison = context;

	must(size_class == comparison->size_class && size == hk_class_size(size_class),
	     "class %u, %zu bytes", size_class, size);
	must((unsigned char *)block > comparison->before, "walk: not ascending");
	must(out[index_of(size_class, block)], "walk: a block that is not out");
	comparison->before = block;
	comparison->seen++;
	return true;
}

/* The bitmaps, as a walk sees them, are the model's. */
static void compare_with_model(unsigned size_class)
{
	struct comparison comparison = { .size_class = size_class };
	const struct hk_slab_class *class = &slabs->classes[size_class];

	hk_slab_walk(slabs, compare_block, &comparison);
	must(comparison.seen == pool_count, "class %u: %zu seen, %zu out", size_class,
	     comparison.seen, pool_count);
	must(class->blocks_out == pool_count, "class %u: %zu counted", size_class,
	     class->blocks_out);
}

static void model_of_class(unsigned size_class)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	const struct hk_slab_class *class = &slabs->classes[size_class];
	size_t all = RUNS * (size_t)info->blocks, step = 0;
	bool filling = true;

	memset(out, 0, sizeof(out));
	pool_count = 0;
	/* up to three full runs, not straight there, then down to none */
	while (filling || pool_count) {
		size_t n = 1 + (size_t)test_random(&seed) % HK_BATCH_MAX;

		if (filling && (!pool_count || test_random(&seed) % 8)) {
			take_into_pool(size_class, n < all - pool_count ? n : all - pool_count);
			filling = pool_count < all;
		} else {
			give_from_pool(size_class, n < pool_count ? n : pool_count);
		}
		if (step++ % (1 + all / 512) == 0)
			compare_with_model(size_class);
		must(class->slabs <= RUNS * info->slabs, "class %u: a fourth run", size_class);
	}
	compare_with_model(size_class);
	cr_assert_eq(class->slabs, 0);
	cr_assert_eq(class->runs_emptied, class->new_runs);
	cr_assert_eq(space->used, space->kept.slabs);
}

Test(slab, every_class_agrees_with_a_plain_model, .timeout = 120)
{
	unsigned i;

	open_slabs(NULL);
	seed = 1;
	for (i = 1; i < HK_CLASSES; i++)
		model_of_class(i);
	close_slabs();
}

Test(slab, every_class_agrees_where_commits_are_charged, .timeout = 120)
{
	unsigned i;

	open_slabs(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED, .forbid = true });
	seed = 2;
	for (i = 1; i < HK_CLASSES; i++) {
		model_of_class(i);
		hk_superslabs_trim(space, 0, (struct hk_deadline){ 0 });
	}
	close_slabs();
}

/* Classes of all kinds and large blocks, returned in batches of whatever is at hand. */
Test(slab, batches_may_mix_classes_and_large_blocks, .timeout = 60)
{
	static const unsigned classes[] = { 0, 1, 2, 16, 40, 64, 70, 90, 104, 105, 117, 120 };
	size_t out_of[HK_CLASSES] = { 0 };
	int step;

	open_slabs(&(struct fault_options){ .forbid = true });
	seed = 2;
	pool_count = 0;
	for (step = 0; step < 4000 || pool_count; step++) {
		unsigned size_class = classes[test_random(&seed) % COUNT(classes)];
		size_t n = 1 + (size_t)test_random(&seed) % HK_BATCH_MAX, i;

		if (step < 4000 && pool_count < 2000 && test_random(&seed) % 2) {
			if (size_class > 90)
				n = 1 + n % 3;
			if (size_class) {
				n = take_blocks(size_class, pool + pool_count, n);
			} else {
				n = hk_large_alloc(&arena->large, n * SLAB, SLAB, 0,
						   pool + pool_count) == 0;
				must(n == 1, "no large block");
			}
			out_of[size_class] += n;
			pool_count += n;
			continue;
		}
		if (n > pool_count)
			n = pool_count;
		for (i = 0; i < n; i++) {
			size_t pick = (size_t)test_random(&seed) % (pool_count - i);
			void *block = pool[pick];

			pool[pick] = pool[pool_count - 1 - i];
			pool[pool_count - 1 - i] = block;
			size_class = hk_class_at(space, block);
			out_of[size_class < HK_CLASSES ? size_class : 0]--;
		}
		pool_count -= n;
		give_blocks(pool + pool_count, n);
		for (i = 1; i < COUNT(classes); i++)
			must(slabs->classes[classes[i]].blocks_out == out_of[classes[i]],
			     "step %d, class %u", step, classes[i]);
		must(arena->large.blocks == out_of[0], "step %d", step);
	}
	cr_assert_eq(space->used, space->kept.slabs);
	close_slabs();
}

Test(slab, a_fresh_run_leaves_in_aligned_groups)
{
	void *blocks[HK_BATCH_MAX];
	unsigned i, batch;
	size_t n;

	open_slabs(NULL);
	for (i = 1; i < HK_CLASSES; i++) {
		const struct hk_class_info *info = &hk_class_infos[i];
		uint32_t run = 0;

		for (batch = 0; batch * 32u < info->blocks; batch++) {
			size_t left = info->blocks - batch * 32u;
			size_t count = take_blocks(i, blocks, 32);

			if (!batch)
				run = (uint32_t)hk_slab_number(space, blocks[0]);
			/* what is less than half a batch is filled up from the next run */
			must(left < 32 ? count >= left : count == 32, "class %u: %zu of %zu", i,
			     count, left);
			for (n = 0; n < count && n < left; n++)
				must(blocks[n] == block_at(run, i, batch * 32 + n),
				     "class %u, batch %u, block %zu", i, batch, n);
			give_blocks(blocks + n, count - n);
		}
		hk_slab_reset(slabs);
		hk_superslabs_reset(space);
	}
	close_slabs();
}

/* Behind the words of one run's bitmap that share a cache line come those of the next run's. */
Test(slab, a_batch_may_go_beyond_a_line_of_the_bitmap)
{
	static void *blocks[4096];
	void *others[HK_BATCH_MAX];
	uint32_t run;
	size_t n;

	open_slabs(NULL);
	cr_assert_eq(hk_class_infos[1].blocks, COUNT(blocks));
	take_run(1, blocks);
	run = (uint32_t)hk_slab_number(space, blocks[0]);
	cr_assert_eq(take_blocks(2, others, HK_BATCH_MAX), HK_BATCH_MAX);
	cr_assert_eq(hk_slab_number(space, others[0]), run + 1);
	give_blocks(others, 32);
	/* each bit of the run's bitmap is set when it is used again */
	for (n = 0; n < COUNT(blocks); n += HK_BATCH_MAX)
		give_blocks(blocks + n, HK_BATCH_MAX);
	cr_assert_eq(slabs->classes[1].slabs, 0);
	cr_assert_eq(take_blocks(1, blocks, 32), 32);
	for (n = 32; n < 2 * 32 * HK_BITMAP_LINE; n += HK_BATCH_MAX) {
		cr_assert_eq(take_blocks(1, blocks, HK_BATCH_MAX), HK_BATCH_MAX);
		cr_assert_eq(blocks[0], block_at(run, 1, n));
	}
	cr_assert_eq(slabs->classes[2].blocks_out, HK_BATCH_MAX - 32);
	close_slabs();
}

Test(slab, what_came_back_leaves_before_what_never_left)
{
	static const unsigned classes[] = { 2, 10, 40 };
	void *blocks[2 * HK_BATCH_MAX], *again[HK_BATCH_MAX];
	size_t i, n;

	open_slabs(NULL);
	for (i = 0; i < COUNT(classes); i++) {
		unsigned size_class = classes[i];

		cr_assert_eq(take_blocks(size_class, blocks, 32), 32);
		cr_assert_eq(take_blocks(size_class, blocks + 32, 32), 32);
		/* every third of both groups, so two words of the bitmap */
		for (n = 1; n < 22; n++)
			give_blocks(&blocks[3 * n], 1);
		/* a group is not split where half a batch is to be had otherwise */
		cr_assert_eq(take_blocks(size_class, again, 32), 21, "class %u", size_class);
		for (n = 1; n < 22; n++)
			must(again[n - 1] == blocks[3 * n], "class %u, block %zu", size_class, n);
		give_blocks(again, 10);
		cr_assert_eq(take_blocks(size_class, again, 32), 32, "class %u", size_class);
		for (n = 1; n < 11; n++)
			must(again[n - 1] == blocks[3 * n], "class %u, block %zu", size_class, n);
		must(again[10] == (unsigned char *)blocks[63] + hk_class_size(size_class),
		     "class %u: not the next group", size_class);
		/* of that group ten are left, and they are next */
		cr_assert_eq(take_blocks(size_class, again, 5), 5);
		must(again[0] == (unsigned char *)blocks[63] + 23 * hk_class_size(size_class),
		     "class %u: the rest of the group", size_class);
	}
	close_slabs();
}

Test(slab, the_fullest_run_serves_first)
{
	const unsigned size_class = 16; /* 256 bytes, 256 blocks a run */
	const size_t all = hk_class_infos[size_class].blocks;
	static const size_t freed[] = { 250, 20, 100, 180 }; /* one to each list */
	static const uint32_t order[] = { 1, 2, 3, 0 };
	static void *blocks[4][256];
	void *got[HK_BATCH_MAX];
	size_t run, n;

	open_slabs(NULL);
	cr_assert_eq(all, 256);
	for (run = 0; run < 4; run++)
		take_run(size_class, blocks[run]);
	for (run = 0; run < 4; run++)
		for (n = 0; n < freed[run]; n++)
			give_blocks(&blocks[run][n], 1);
	for (run = 0; run < 4; run++) {
		cr_assert_eq(take_blocks(size_class, got, 10), 10);
		cr_assert_eq(hk_slab_number(space, got[0]), order[run], "as number %zu", run);
		/* that run is full from here on */
		for (n = 10; n < freed[order[run]]; n++)
			take_blocks(size_class, got, 1);
		cr_assert_eq(hk_slab(space, order[run])->list, 0);
		cr_assert_eq(hk_slab_number(space, got[0]), order[run]);
	}
	cr_assert_eq(slabs->classes[size_class].blocks_free, 0);
	close_slabs();
}

Test(slab, a_batch_is_filled_up_from_the_next_run)
{
	const unsigned size_class = 16;
	static void *blocks[2][256];
	void *got[HK_BATCH_MAX];
	size_t n;

	open_slabs(NULL);
	take_run(size_class, blocks[0]);
	take_run(size_class, blocks[1]);
	give_blocks(&blocks[1][7], 5);
	for (n = 100; n < 200; n += 20)
		give_blocks(&blocks[0][n], 20);
	cr_assert_eq(take_blocks(size_class, got, 32), 32);
	cr_assert_eq(hk_slab_number(space, got[4]), 1);
	cr_assert_eq(got[5], blocks[0][100]);
	cr_assert_eq(got[31], blocks[0][126]);
	cr_assert_eq(slabs->classes[size_class].blocks_free, 73);
	close_slabs();
}

Test(slab, an_empty_run_goes_back_at_once)
{
	static const unsigned classes[] = { 1, 40, 70, 120 };
	static void *blocks[4096];
	size_t i, all, n;

	open_slabs(NULL);
	for (i = 0; i < COUNT(classes); i++) {
		const struct hk_class_info *info = &hk_class_infos[classes[i]];
		uint64_t calls;

		all = info->blocks;
		take_run(classes[i], blocks);
		calls = fault.calls;
		for (n = 0; n + 1 < all; n += 31)
			give_blocks(blocks + n, all - 1 - n < 31 ? all - 1 - n : 31);
		cr_assert_eq(space->used, info->slabs);
		cr_assert_eq(slabs->classes[classes[i]].slabs, info->slabs);
		give_blocks(&blocks[all - 1], 1);
		cr_assert_eq(space->used, 0);
		cr_assert_eq(slabs->classes[classes[i]].slabs, 0);
		cr_assert_eq(slabs->classes[classes[i]].blocks_free, 0);
		cr_assert_eq(hk_class_at(space, blocks[0]), 0);
		cr_assert_eq(fault.calls, calls, "a free called the platform");
	}
	close_slabs();
}

Test(slab, counts_what_it_did)
{
	struct hk_slab_class *class;
	void *blocks[HK_BATCH_MAX], *others[2];

	open_slabs(NULL);
	class = &slabs->classes[20];
	cr_assert_eq(take_blocks(20, blocks, 20), 20);
	take_blocks(20, others, 1);
	take_blocks(30, others + 1, 1);
	cr_assert_eq(class->batches, 2);
	cr_assert_eq(class->new_runs, 1);
	cr_assert_eq(class->blocks_out, 21);
	cr_assert_eq(class->blocks_free, hk_class_infos[20].blocks - 21u);
	give_blocks(blocks, 20);
	cr_assert_eq(class->returns, 1);
	give_blocks(others, 2);
	cr_assert_eq(class->returns, 2);
	cr_assert_eq(slabs->classes[30].returns, 1);
	cr_assert_eq(class->runs_emptied, 1);
	cr_assert_eq(class->blocks_out, 0);
	close_slabs();
}
