/* SPDX-License-Identifier: MIT */
/* The table of size classes against hk_size_class() and against what it promises. */
#include <stdint.h>

#include <hakmem/size_class.h>

#include "heap.h"

#define KIB ((size_t)1 << 10)
#define RUN_SLABS_MAX 8u
#define BLOCKS_MAX 4096u /* what a bitmap of 512 bytes holds */

Test(size_class, every_size_has_the_smallest_class_that_holds_it)
{
	unsigned smallest = 1;
	size_t size;

	for (size = 1; size <= HK_CLASS_MAX; size++) {
		if (size > hk_class_size(smallest))
			smallest++;
		must(smallest < HK_CLASSES, "no class holds %zu", size);
		must(hk_size_class(size) == smallest, "size %zu: class %u, not %u", size,
		     hk_size_class(size), smallest);
	}
	cr_assert_eq(smallest, HK_CLASSES - 1, "classes beyond %u are for no size", smallest);
	cr_assert_eq(hk_class_size(HK_CLASSES - 1), HK_CLASS_MAX);
}

Test(size_class, sizes_are_multiples_of_16_and_waste_what_the_header_says)
{
	unsigned i;

	for (i = 1; i < HK_CLASSES; i++) {
		size_t size = hk_class_size(i), smaller = hk_class_size(i - 1);

		cr_assert_gt(size, smaller, "class %u", i);
		cr_assert_eq(size % 16, 0, "class %u", i);
		if (size <= HK_SMALL_MAX)
			cr_assert_eq(size - smaller, 16, "class %u", i);
		else if (size <= HK_EIGHTH_MAX)
			cr_assert_leq((size - smaller) * 8, smaller, "class %u", i);
		else if (size <= HK_QUARTER_MAX)
			cr_assert_leq((size - smaller) * 4, smaller, "class %u", i);
		else
			cr_assert_eq(size - smaller, HK_SLAB_SIZE, "class %u", i);
		cr_assert_eq(hk_good_size(size), size);
		cr_assert_eq(hk_good_size(smaller + 1), size);
	}
	cr_assert_eq(hk_class_size(0), 0, "class 0 has no blocks");
	cr_assert_eq(hk_class_infos[0].capacity, 0);
}

/* Bytes at the end of a run that no block covers. */
static size_t tail(size_t size, size_t slabs)
{
	return slabs * HK_SLAB_SIZE % size;
}

static bool is_tight(size_t size, size_t slabs)
{
	return tail(size, slabs) * 32 <= slabs * HK_SLAB_SIZE;
}

Test(size_class, runs_are_the_shortest_that_waste_little)
{
	unsigned i, slabs;

	for (i = 1; i < HK_CLASSES; i++) {
		const struct hk_class_info *info = &hk_class_infos[i];
		bool found = false;

		cr_assert_geq(info->slabs, 1);
		if (info->size > HK_QUARTER_MAX) {
			cr_assert_eq(info->slabs * HK_SLAB_SIZE, info->size, "class %u", i);
			continue;
		}
		cr_assert_leq(info->slabs, RUN_SLABS_MAX);
		cr_assert_geq(info->blocks, 1);
		cr_assert_leq(info->blocks, BLOCKS_MAX, "class %u: no room in a bitmap", i);
		cr_assert_eq(info->blocks, info->slabs * HK_SLAB_SIZE / info->size, "class %u", i);
		for (slabs = 1; slabs <= RUN_SLABS_MAX && !found; slabs++) {
			found = is_tight(info->size, slabs);
			if (found)
				cr_assert_eq(info->slabs, slabs, "class %u", i);
		}
		/* where none is tight, no other run wastes a smaller part of itself */
		for (slabs = 1; slabs <= RUN_SLABS_MAX && !found; slabs++)
			if (info->size <= slabs * HK_SLAB_SIZE)
				cr_assert_leq(tail(info->size, info->slabs) * slabs,
					      tail(info->size, slabs) * info->slabs,
					      "class %u: %u slabs waste less than %u", i, slabs,
					      info->slabs);
	}
}

Test(size_class, the_reciprocal_finds_every_block)
{
	unsigned i;

	for (i = 1; i < HK_CLASSES; i++) {
		const struct hk_class_info *info = &hk_class_infos[i];
		size_t end = info->slabs * HK_SLAB_SIZE, offset, block = 0, next = info->size;

		for (offset = 0; offset < end; offset += 16) {
			if (offset == next) {
				block++;
				next += info->size;
			}
			must(hk_class_index(info, offset) == block,
			     "class %u, offset %zu: block %u, not %zu", i, offset,
			     hk_class_index(info, offset), block);
			/* offsets between belong to the same block */
			must(hk_class_index(info, offset + 15) == block, "class %u, offset %zu", i,
			     offset + 15);
		}
	}
}

/* At most 63 blocks and 32 KiB; fewer of the larger classes; none beyond 32 KiB. */
Test(size_class, magazines_hold_a_bounded_number_of_bytes)
{
	unsigned i;

	for (i = 1; i < HK_CLASSES; i++) {
		const struct hk_class_info *info = &hk_class_infos[i];

		cr_assert_leq(info->capacity, HK_MAGAZINE_ROUNDS, "class %u", i);
		cr_assert_leq(info->capacity * (size_t)info->size, 32 * KIB, "class %u", i);
		cr_assert_eq(info->capacity > 0, info->size <= 32 * KIB, "class %u", i);
		if (i > 1)
			cr_assert_leq(info->capacity, info[-1].capacity, "class %u", i);
		if (info->size <= 512)
			cr_assert_eq(info->capacity, HK_MAGAZINE_ROUNDS, "class %u", i);
	}
}
