/* SPDX-License-Identifier: MIT */
/*
 * Slabs: runs carved into the equal blocks of a size class, their free blocks a bitmap.
 *
 * Blocks leave and return in batches, arrays of pointers. A run's blocks in groups of 32 share
 * a word of its bitmap; a group is handed out for the first time by arithmetic alone, whole and
 * untouched, so that two caches share no cache line of a fresh run.
 *
 * States of a run, changed under its class's lock:
 *
 *	partial		in one of the class's lists, by how many of its blocks are free
 *	full		no block free, in no list
 *	(empty)		all blocks free: given back to the superslabs at once
 *
 * Blocks are those in slabs that are backed. A run that is backed in part is in the list of
 * growing runs besides; who has taken it out of there backs more of it, with no lock held.
 *
 * Batches are taken from the fullest partial runs, so that the emptiest can empty.
 */
#ifndef HK_SLAB_H
#define HK_SLAB_H

#include <hakmem/large.h>

#define HK_SLAB_LISTS 4
#define HK_BATCH_MAX HK_MAGAZINE_SLOTS

/* One class: its lock, its partial runs, its counts. */
struct hk_slab_class {
	struct hk_lock lock;
	uint32_t list[HK_SLAB_LISTS]; /* slab number plus one */
	uint32_t growing;	      /* " */
	uint32_t slabs;
	_Atomic size_t blocks_out; /* not in slabs; changed with the lock held */
	size_t blocks_free;	   /* in slabs */
	uint64_t batches;
	_Atomic size_t new_runs; /* changed with the lock held */
	uint64_t returns;
	uint64_t runs_emptied;
};

struct hk_slabs {
	struct hk_superslabs *space;
	struct hk_large *large;
	struct hk_slab_class classes[HK_CLASSES];
};

/*
 * Takes up to @want blocks (1 to HK_BATCH_MAX) of a class into @blocks, the first one last, so that
 * who takes them from the end has them ascending within a run. Uses all @want slots. Returns how
 * many, 0 when there is no memory. @zeroed, unless NULL, tells whether all of them
 * are known to be zero. Locks: class, space.
 */
size_t hk_slab_take(struct hk_slabs *slabs, unsigned size_class, void **blocks, size_t want,
		    bool *zeroed);

/*
 * Returns blocks, of whatever classes and large ones too, to where they came from. At most
 * HK_BATCH_MAX. A pointer that can't be freed is left out and described in @bad; returns how
 * many were. Locks: class, space.
 */
size_t hk_slab_return(struct hk_slabs *slabs, void *const *blocks, size_t count,
		      struct hk_bad *bad);

/* What only grows when something costly is done: for hk_slab_stage(). */
struct hk_slab_marks {
	size_t calls;
	size_t superslabs;
	size_t runs;
};

/* Before work for a class; 0 for a large block. */
static inline struct hk_slab_marks hk_slab_marks(struct hk_slabs *slabs, unsigned size_class)
{
	struct hk_superslabs *space = slabs->space;
	struct hk_slab_marks marks = {
		atomic_load_explicit(&space->memory->calls, memory_order_relaxed),
		atomic_load_explicit(&space->new_superslabs, memory_order_relaxed),
		atomic_load_explicit(&slabs->classes[size_class].new_runs, memory_order_relaxed),
	};

	return marks;
}

/* After it: how far down it went, by what has grown meanwhile, whoever did it. */
static inline enum hk_stage hk_slab_stage(struct hk_slabs *slabs, unsigned size_class,
					  struct hk_slab_marks before)
{
	struct hk_slab_marks after = hk_slab_marks(slabs, size_class);

	if (after.superslabs != before.superslabs)
		return HK_STAGE_NEW_SUPERSLAB;
	if (after.calls != before.calls)
		return HK_STAGE_PLATFORM;
	if (!size_class)
		return HK_STAGE_LARGE;
	return after.runs != before.runs ? HK_STAGE_NEW_SLAB : HK_STAGE_SLAB;
}

/*
 * A live block that has a run of its own, of more than HK_QUARTER_MAX bytes, becomes a large block
 * where it is, so that it can be resized: false where it has none. Locks: class.
 */
bool hk_slab_make_large(struct hk_slabs *slabs, const void *ptr);

/* What is wrong with @ptr as a block's start, be the block live or free. */
enum hk_fault hk_slab_fault(const struct hk_slabs *slabs, const void *ptr);

/*
 * Gives back what runs that grow have committed beyond their blocks, until @keep bytes are
 * committed or time is over. Returns bytes. Locks: class.
 */
size_t hk_slab_trim(struct hk_slabs *slabs, size_t keep, struct hk_deadline deadline);

/* Slabs that a class's growing runs have committed beyond their blocks. Class lock held. */
size_t hk_slab_idle(const struct hk_slabs *slabs, unsigned size_class);

/* Every run given back by a reset. */
void hk_slab_reset(struct hk_slabs *slabs);

/* Calls @visit for blocks that are out, by class and address, until it returns false. */
void hk_slab_walk(struct hk_slabs *slabs,
		  bool (*visit)(void *context, void *block, size_t size, unsigned size_class),
		  void *context);

/* Number of broken invariants; nothing else runs. */
size_t hk_slab_check(struct hk_slabs *slabs);

static inline bool hk_is_block_class(unsigned byte)
{
	return byte && byte < HK_CLASSES;
}

/* Whether a block, live or free, begins at @offset of a run: which. */
static inline bool hk_is_block(const struct hk_class_info *info, size_t offset, uint32_t *block)
{
	*block = hk_class_index(info, offset);
	return offset == (size_t)*block * info->size && *block < info->blocks;
}

/* The same for an address, where the class's byte stands. */
static inline bool hk_is_start(const struct hk_superslabs *space, unsigned size_class,
			       const void *ptr)
{
	uint32_t slab = (uint32_t)hk_slab_number(space, ptr), block;
	size_t offset = (size_t)hk_slab(space, slab)->head << HK_SLAB_SHIFT;

	/* slabs begin at multiples of their size */
	offset += (uintptr_t)ptr & (HK_SLAB_SIZE - 1);
	return hk_is_block(&hk_class_infos[size_class], offset, &block);
}

/*
 * Bytes of the block that begins at @ptr, 0 for what is none's start; lock-free. @byte is what
 * hk_class_at() says of it.
 */
static inline size_t hk_slab_size_of(const struct hk_slabs *slabs, unsigned byte, const void *ptr)
{
	if (HK_LIKELY(hk_is_block_class(byte)))
		return hk_is_start(slabs->space, byte, ptr) ? hk_class_size(byte) : 0;
	return byte ? hk_large_size(slabs->large, ptr) : 0;
}

static inline size_t hk_slab_block_size(const struct hk_slabs *slabs, const void *ptr)
{
	return hk_slab_size_of(slabs, hk_class_at(slabs->space, ptr), ptr);
}

/* What slab.c and slab_check.c share. */

/* The list for a run with @free of @blocks free: 1 holds the fullest; 0 is none. */
static inline unsigned hk_slab_list(uint32_t free, uint32_t blocks)
{
	_Static_assert(HK_SLAB_LISTS == 4, "a quarter of the blocks each");
	free *= HK_SLAB_LISTS;
	return 0u + (free > 0) + (free > blocks) + (free > 2 * blocks) + (free > 3 * blocks);
}

/* The slabs of a run that hold its first @blocks blocks. */
static inline uint32_t hk_run_slabs(const struct hk_class_info *info, uint32_t blocks)
{
	return (uint32_t)(((size_t)blocks * info->size + HK_SLAB_SIZE - 1) >> HK_SLAB_SHIFT);
}

/* The blocks that the first @backed slabs of a run hold. */
static inline uint16_t hk_run_blocks(const struct hk_class_info *info, uint32_t backed)
{
	size_t blocks = ((size_t)backed << HK_SLAB_SHIFT) / info->size;

	return blocks < info->blocks ? (uint16_t)blocks : info->blocks;
}

/*
 * Up to 128 blocks a run's bitmap is its summary itself, in its header; smaller blocks have one
 * out of line, and the summary says which of its words have a bit set.
 */
static inline bool hk_run_has_bitmap(const struct hk_class_info *info)
{
	return info->blocks > 128;
}

/* The word of a run's bitmap that has the bits of blocks 32 * @word and on. */
static inline uint32_t *hk_run_word(const struct hk_slabs *slabs, uint32_t number,
				    const struct hk_class_info *info, uint32_t word)
{
	return hk_run_has_bitmap(info) ? hk_bitmap_word(slabs->space, number, word)
				       : &hk_slab(slabs->space, number)->summary[word];
}

#endif /* HK_SLAB_H */
