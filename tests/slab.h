/* SPDX-License-Identifier: MIT */
/* What slab.c and slab_faults.c share: an arena's slabs, checked after each step. */
#ifndef TESTS_SLAB_H
#define TESTS_SLAB_H

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct hk_slabs *slabs;
static struct hk_bad bad[HK_BATCH_MAX];

TEST_HELPER void agree(void)
{
	verify();
	must(hk_slab_check(slabs) == 0, "%zu", hk_slab_check(slabs));
}

TEST_HELPER void open_slabs(const struct fault_options *options)
{
	open_space(options, 1900);
	slabs = &arena->slabs;
}

TEST_HELPER void close_slabs(void)
{
	agree();
	close_space();
}

/* In the order in which they are taken. */
TEST_HELPER size_t take_blocks(unsigned size_class, void **blocks, size_t want)
{
	size_t count = hk_slab_take(slabs, size_class, blocks, want, NULL);

	size_t i;

	must(count && count <= want, "class %u: %zu of %zu", size_class, count, want);
	for (i = 0; i < count / 2; i++) {
		void *last = blocks[count - 1 - i];

		blocks[count - 1 - i] = blocks[i];
		blocks[i] = last;
	}
	agree();
	return count;
}

#endif /* TESTS_SLAB_H */
