/* SPDX-License-Identifier: MIT */
/*
 * What is fixed about each size class: block size, the run of slabs that is carved into such
 * blocks, and how many of them a magazine holds. hk_size_class() in hakmem.h finds the class.
 */
#ifndef HK_SIZE_CLASS_H
#define HK_SIZE_CLASS_H

#include <hakmem/hakmem.h>

#define HK_SLAB_SIZE ((size_t)1 << HK_SLAB_SHIFT)
#define HK_MAGAZINE_BYTES (HK_MAGAZINE_SLOTS * sizeof(void *))
#define HK_MAGAZINE_ROUNDS (HK_MAGAZINE_SLOTS - 1)

/**
 * struct hk_class_info - one size class
 * @size: bytes of a block.
 * @reciprocal: of size / 16, scaled by 2^31: (offset / 16 * reciprocal) >> 31 is the index of
 *	the block at that offset; exact, as offset / 16 and size / 16 are at most 2^15. 0 of longer
 *	runs, which have one block.
 * @blocks: blocks in a run.
 * @slabs: slabs of a run, 1 to 16.
 * @capacity: rounds of a magazine, at first, 0 to HK_MAGAZINE_ROUNDS; 0: blocks of this class are
 *	cached only where many are in use, see hk_depot_fit().
 */
struct hk_class_info {
	uint32_t size;
	uint32_t reciprocal;
	uint16_t blocks;
	uint8_t slabs;
	uint8_t capacity;
};

extern const struct hk_class_info hk_class_infos[HK_CLASSES];

static inline size_t hk_class_size(unsigned size_class)
{
	return hk_class_infos[size_class].size;
}

/* The index of the block that holds the byte at @offset of a run. */
static inline uint32_t hk_class_index(const struct hk_class_info *info, size_t offset)
{
	return (uint32_t)(((uint64_t)(offset >> 4) * info->reciprocal) >> 31);
}

#endif /* HK_SIZE_CLASS_H */
