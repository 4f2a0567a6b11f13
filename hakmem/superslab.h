/* SPDX-License-Identifier: MIT */
/*
 * Superslabs: the address range of an arena, in slabs of 64 KiB and superslabs of 32.
 *
 * What is asked for here is a run, neighbouring slabs. Two maps say which slabs are free, and
 * which of these are committed ("ready"); the lowest run of the second is taken where one is
 * long enough, else the lowest of the first, and what is missing is committed. A short run goes
 * where a superslab is not all ready anyway, which keeps whole ones for large blocks: on the
 * Minetest trace that is worth as much memory as the caches hold. A run may span superslabs.
 * Slabs are numbered from the start of the range.
 *
 * States of a slab, and who may change them:
 *
 *	free, not committed	space lock
 *	free, committed		space lock
 *	used, not committed	its owner; "unbacked"
 *	used, committed		its owner
 *	kept, committed		space lock; marked used, its class byte 0: see kept.h
 *	reserve, committed	the same
 *
 * A long run that is given back is kept as it is for the next one. When much is kept while
 * others would use slabs for the first time, some of it is marked free; when nothing else is found,
 * all of it.
 *
 * A run is committed once hk_run_take() returns. Where the platform charges for what is
 * committed, a class's run, carved from its start, is backed slab by slab as it is used.
 *
 * Before a run is taken for which memory is to be committed, the layers above are asked to give
 * up what they keep although it is free (@shrink).
 *
 * Slabs are committed and decommitted with no lock of allocations held: those concerned are marked
 * used for the time, and an allocation that finds nothing while a trim is at work waits for its
 * step and tries again. Metadata, small and rare, is committed with the space lock held.
 *
 * The class table has a byte for each slab, written by the slab's owner and read by
 * everybody without a lock: it is stable while a block lives in the slab.
 */
#ifndef HK_SUPERSLAB_H
#define HK_SUPERSLAB_H

#include <hakmem/kept.h>
#include <hakmem/map.h>
#include <hakmem/memory.h>
#include <hakmem/size_class.h>

#define HK_SUPERSLAB_SLABS HK_MAP_LEAF_BITS
#define HK_SUPERSLAB_SIZE (HK_SLAB_SIZE * HK_SUPERSLAB_SLABS)
#define HK_BITMAP_BYTES ((size_t)512) /* of a run's blocks: at most 4096, of 16 bytes */
#define HK_SUPERSLAB_BITMAPS (HK_BITMAP_BYTES * HK_SUPERSLAB_SLABS)

/**
 * struct hk_slab - what is known of one slab; of a run, in its first slab
 * @next: in its class's list; slab number plus one, 0: none.
 * @prev: "
 * @length: slabs in the run, where a large block begins; also of a class's run.
 * @grow: in the list of its class's runs that are not wholly backed; slab number plus one, 0: none.
 * @usable: blocks that lie in slabs which are backed.
 * @free: blocks free, with those never handed out.
 * @fresh: blocks from this index on were never handed out; their bits are undefined.
 * @head: slabs from the run's first slab to this one.
 * @list: the list that the run is in, counted from 1; 0: full, in none.
 * @pinned: a thread is backing more of the run: it is not given back, though all blocks be free.
 * @zeroed: blocks known to be zero, never handed out; for classes of at most 8 blocks a run.
 * @was: the class byte of the last run that began here, to tell a double free.
 * @summary: the bitmap of up to 128 blocks; else which words of the bitmap have a bit set.
 *
 * Guarded by the class's lock, or the large block's owner.
 */
struct hk_slab {
	uint32_t next;
	uint32_t prev;
	uint32_t length;
	uint32_t grow;
	uint16_t usable;
	uint16_t free;
	uint16_t fresh;
	uint8_t head;
	uint8_t list;
	_Atomic uint8_t was;
	uint8_t zeroed;
	bool pinned;
	uint32_t summary[4];
};

_Static_assert(sizeof(struct hk_slab) == 44, "32 of them to a superslab");

struct hk_superslab {
	struct hk_map_leaf free;
	struct hk_map_leaf ready;
	_Atomic uint32_t committed; /* bit per slab; changed by who owns the slab */
	_Atomic uint32_t zero;	    /* committed, and zero since */
	_Atomic uint32_t moved;	    /* content that was moved to begins here; its pages lie apart */
	uint32_t bitmaps;	    /* whether the bitmaps of its group are committed */
	struct hk_slab slabs[HK_SUPERSLAB_SLABS];
};

struct hk_superslabs {
	struct hk_memory *memory;
	unsigned char *base; /* the first slab */
	unsigned char *bitmaps;
	uint32_t slabs_max;
	uint32_t high;	       /* no slab from this one on was used since the last reset */
	uint32_t ready_end;    /* no slab from this superslab on is ready */
	uint32_t cold_start;   /* no slab before this superslab is free and not committed */
	uint32_t swept;	       /* where trimming of metadata goes on, downwards; 0: the end */
	uint32_t bitmap_group; /* superslabs whose bitmaps share a page */
	struct hk_lock lock;
	struct hk_lock trim_lock;  /* held for a step of hk_superslabs_trim(); taken before @lock */
	_Atomic size_t trim_steps; /* begun and ended: odd while one is at work */
	uint32_t hidden;	   /* slabs marked used while a trim gives them back; @lock */
	struct hk_map free;
	struct hk_map ready;
	struct hk_kept kept;
	struct hk_kept_run
		reserve; /* set aside for when memory runs out; no slabs: it is given up */
	struct hk_section classes;
	struct hk_section headers;
	_Atomic size_t used;	       /* slabs, with those kept; changed with the lock held */
	size_t used_high;	       /* most in use, those kept not, since hk_space_use() */
	_Atomic size_t unbacked;       /* of these, not committed */
	size_t bitmap_bytes;	       /* committed */
	_Atomic size_t committed;      /* slabs */
	_Atomic size_t moved;	       /* slabs marked so */
	_Atomic size_t bound;	       /* slabs whose class byte may be read */
	_Atomic size_t new_superslabs; /* changed with the lock held */
	uint64_t superslabs_emptied;
	void (*shrink)(void *context); /* no lock held; gives back what other layers keep */
	void *shrink_context;
};

static inline struct hk_superslab *hk_superslab(const struct hk_superslabs *space, uint32_t index)
{
	return &((struct hk_superslab *)(void *)space->headers.base)[index];
}

static inline struct hk_slab *hk_slab(const struct hk_superslabs *space, uint32_t slab)
{
	return &hk_superslab(space, slab / HK_SUPERSLAB_SLABS)->slabs[slab % HK_SUPERSLAB_SLABS];
}

static inline unsigned char *hk_slab_address(const struct hk_superslabs *space, uint32_t slab)
{
	return space->base + (size_t)slab * HK_SLAB_SIZE;
}

/* The number of the slab that holds @ptr; at least the bound for pointers from elsewhere. */
static inline size_t hk_slab_number(const struct hk_superslabs *space, const void *ptr)
{
	return ((uintptr_t)ptr - (uintptr_t)space->base) >> HK_SLAB_SHIFT;
}

/* Slabs in use, or kept. */
static inline size_t hk_space_used(const struct hk_superslabs *space)
{
	return atomic_load_explicit(&((struct hk_superslabs *)space)->used, memory_order_relaxed);
}

static inline size_t hk_space_bound(const struct hk_superslabs *space)
{
	/* pairs with the release when the class table grows: what is read below it is zeroed */
	return atomic_load_explicit(&((struct hk_superslabs *)space)->bound, memory_order_acquire);
}

/* Slabs of the superslabs there are, as far as the class table goes; nothing else runs. */
static inline uint32_t hk_space_slabs(const struct hk_superslabs *space)
{
	size_t bound = hk_space_bound(space), slabs = (size_t)space->free.leaves * 32;

	return (uint32_t)(bound < slabs ? bound : slabs);
}

static inline _Atomic unsigned char *hk_class_byte(const struct hk_superslabs *space, size_t slab)
{
	return (_Atomic unsigned char *)space->classes.base + slab;
}

/* The class byte of the slab that holds @ptr, 0 for pointers from elsewhere. */
static inline unsigned hk_class_at(const struct hk_superslabs *space, const void *ptr)
{
	size_t slab = hk_slab_number(space, ptr);

	if (slab >= hk_space_bound(space))
		return 0;
	return atomic_load_explicit(hk_class_byte(space, slab), memory_order_relaxed);
}

/* The class that the slab of @ptr, which is not used, had last; 0: none. Locks: space. */
unsigned hk_last_class(struct hk_superslabs *space, const void *ptr);

/* Writes the class bytes of a run that the caller owns. */
void hk_classes_set(struct hk_superslabs *space, uint32_t first, uint32_t count, unsigned value);

/*
 * Takes a run of @count slabs at an address that is a multiple of @align (a power of two, at
 * least HK_SLAB_SIZE), committed, its first @zero_bytes zero. 0, or HK_ERROR_ADDRESS_SPACE,
 * HK_ERROR_LIMIT, HK_ERROR_MEMORY. @zeroed, unless NULL, tells whether all of it is zero as the
 * platform delivered it. Locks: space.
 */
int hk_run_take(struct hk_superslabs *space, uint32_t count, size_t align, size_t zero_bytes,
		uint32_t *first, bool *zeroed);

/*
 * The same for a class, whose run may be backed from its start as far as it is needed: @backed
 * slabs, which then says how many are. Locks: space.
 */
int hk_run_take_backed(struct hk_superslabs *space, uint32_t count, uint32_t *backed,
		       uint32_t *first, bool *zeroed);

/*
 * Commits @count slabs of a run that the caller owns: 0, or an error and some may be. @zeroed as
 * above. Takes no lock.
 */
int hk_run_back(struct hk_superslabs *space, uint32_t first, uint32_t count, bool *zeroed);

/* Slabs of a run that are not committed. The caller owns it. */
uint32_t hk_run_unbacked(const struct hk_superslabs *space, uint32_t first, uint32_t count);

/* Decommits what is committed of slabs that the caller owns and does not use: bytes. */
size_t hk_run_trim(struct hk_superslabs *space, uint32_t first, uint32_t count);

/* Whether the range, were it empty, had room for such a run. */
bool hk_run_is_possible(const struct hk_superslabs *space, size_t count, size_t align);

/* Gives slabs back, still committed; their class bytes are 0 by now. Locks: space. */
void hk_run_give(struct hk_superslabs *space, uint32_t first, uint32_t count);

/* Takes @more slabs behind a run: 0 or an error as above, and nothing has changed. */
int hk_run_extend(struct hk_superslabs *space, uint32_t first, uint32_t count, uint32_t more);

/*
 * Blocks from this size on are moved. Three calls of the system take 15 to 45 us whatever the
 * size; a copy takes 30 to 40 us for 128 KiB whose pages are there, and 150 to 220 where they are
 * touched for the first time (a shared machine, Xeon).
 */
#define HK_MOVE_MIN ((size_t)128 << 10)

/*
 * Moves the content of a block to a larger one by the platform; the caller owns both. False where
 * that cannot be done: nothing has changed, but what @to holds is undefined. Takes no lock.
 */
bool hk_space_move(struct hk_superslabs *space, void *from, size_t from_size, void *to,
		   size_t to_size);

/*
 * Sets @count slabs aside, if that is not so already: 0 or an error as above. With @ready only
 * slabs that are committed, so that the platform is not called. Locks: space.
 */
int hk_reserve_fill(struct hk_superslabs *space, uint32_t count, bool ready);

/* Gives up what is set aside: whether there was any. Locks: space. */
bool hk_reserve_give(struct hk_superslabs *space);

/* Makes the bitmap of a run accessible: 0 or an error. Locks: space. */
int hk_bitmap_commit(struct hk_superslabs *space, uint32_t slab);

/* Words of a bitmap that are neighbours: a cache line of them. */
#define HK_BITMAP_LINE 16u

/*
 * A word of a run's bitmap. The first lines of all bitmaps of a superslab come first, then their
 * second lines, and so on: most bitmaps are a line long, and so share pages.
 */
static inline uint32_t *hk_bitmap_word(const struct hk_superslabs *space, uint32_t slab,
				       uint32_t word)
{
	size_t line = word / HK_BITMAP_LINE * HK_SUPERSLAB_SLABS + slab % HK_SUPERSLAB_SLABS;
	size_t offset = slab / HK_SUPERSLAB_SLABS * HK_SUPERSLAB_BITMAPS + line * 64;

	return (uint32_t *)(void *)(space->bitmaps + offset) + word % HK_BITMAP_LINE;
}

/*
 * Marks the runs kept as free, for requests that found nothing else: all, or a part that is soon
 * done, and whether there was any. Locks: space.
 */
void hk_superslabs_drop_kept(struct hk_superslabs *space);
bool hk_superslabs_drop_some(struct hk_superslabs *space);

/* Every slab free, class table empty; nothing else runs. */
void hk_superslabs_reset(struct hk_superslabs *space);

/*
 * Gives free slabs back until @keep bytes are committed or time is over, at least one step; then
 * metadata. Returns bytes; 1: none, but time was over before all metadata was looked at.
 */
size_t hk_superslabs_trim(struct hk_superslabs *space, size_t keep, struct hk_deadline deadline);

/*
 * Commits and faults in free slabs that are not committed, the lowest, at most @most in a row: how
 * many; or 0 and an error, 0 where it only looked for some. HK_ERROR_ADDRESS_SPACE: all are
 * committed. Once time is over the rest of them is not faulted in. Locks: trim, space.
 */
uint32_t hk_space_warm(struct hk_superslabs *space, uint32_t most, struct hk_deadline deadline,
		       int *error);

/*
 * Commits the bitmaps of what is committed; faults all of it in: 0 or an error. Locks: trim,
 * space.
 */
int hk_superslabs_commit_bitmaps(struct hk_superslabs *space);
int hk_superslabs_populate(struct hk_superslabs *space);

/* Decommits free slabs at the end, one step: bytes, 0: there are none. Locks: trim, space. */
size_t hk_space_cool(struct hk_superslabs *space, uint32_t most);

/**
 * struct hk_space_use - how slabs are used
 * @committed: slabs.
 * @idle: of these free or kept.
 * @used: in use, committed or not; those kept not.
 * @high: the most that were so since the last call.
 */
struct hk_space_use {
	size_t committed;
	size_t idle;
	size_t used;
	size_t high;
};

/* Tells, and counts @high anew. Locks: space. */
struct hk_space_use hk_space_use(struct hk_superslabs *space);

/* Bytes committed for the sections and bitmaps of this layer. */
size_t hk_superslabs_metadata(const struct hk_superslabs *space);

/* Number of broken invariants; nothing else runs. */
size_t hk_superslabs_check(struct hk_superslabs *space);

/* What superslab.c, run.c, superslab_kept.c, superslab_trim.c and superslab_warm.c share. */

static inline bool hk_space_is_charged(const struct hk_superslabs *space)
{
	return space->memory->platform.flags & HK_PLATFORM_CHARGED;
}

static inline uint32_t hk_space_committed_bits(const struct hk_superslabs *space, uint32_t slab)
{
	return atomic_load_explicit(&hk_superslab(space, slab / 32)->committed,
				    memory_order_relaxed);
}

static inline bool hk_space_is_committed(const struct hk_superslabs *space, uint32_t slab)
{
	return hk_space_committed_bits(space, slab) >> slab % 32 & 1;
}

static inline void hk_space_lock(struct hk_superslabs *space)
{
	hk_lock_acquire(&space->lock, &space->memory->platform);
}

static inline void hk_space_unlock(struct hk_superslabs *space)
{
	hk_lock_release(&space->lock, &space->memory->platform);
}

/* The slabs that superslab @index has: fewer than 32 at the end of the range. */
static inline uint32_t hk_superslab_mask(const struct hk_superslabs *space, uint32_t index)
{
	uint32_t left = space->slabs_max - index * HK_SUPERSLAB_SLABS;

	return left < HK_SUPERSLAB_SLABS ? hk_mask(0, left) : UINT32_MAX;
}

/* A step that hides slabs from allocations, which wait for its end before they give up. */
void hk_space_step_begin(struct hk_superslabs *space);
void hk_space_step_end(struct hk_superslabs *space);

/* Marks free slabs as used; space lock held. */
void hk_space_mark_used(struct hk_superslabs *space, uint32_t first, uint32_t count);

/* The reverse, committed or not; space lock held. */
void hk_space_mark_free(struct hk_superslabs *space, uint32_t first, uint32_t count);

/* The same, and takes the lock. */
void hk_space_unmark(struct hk_superslabs *space, uint32_t first, uint32_t count);

/* Slabs that the caller owns are not known to be zero, or (@committed) not committed any more. */
void hk_space_clear_bits(struct hk_superslabs *space, uint32_t first, uint32_t count,
			 bool committed);

/* Adds superslabs until the first @slabs of the range belong to one: 0 or an error. Lock held. */
int hk_space_add(struct hk_superslabs *space, size_t slabs);

/* Makes the class table go so far: 0 or an error; space lock held. */
int hk_space_publish(struct hk_superslabs *space, uint32_t slabs);

/* Commits what is not committed of slabs that the caller owns: 0 or an error. */
int hk_space_commit(struct hk_superslabs *space, uint32_t first, uint32_t count);

/* Whether all of a run is zero as the platform delivered it. */
bool hk_space_is_zeroed(const struct hk_superslabs *space, uint32_t first, uint32_t count);

/*
 * Takes a run from those kept: one of just its length, else from a longer one, else from what these
 * are together with what is free. Space lock held.
 */
bool hk_space_take_kept(struct hk_superslabs *space, uint32_t count, uint32_t *first);

/* Keeps a committed run that its owner gives back: whether it is one to be kept; lock held. */
bool hk_space_keep(struct hk_superslabs *space, uint32_t first, uint32_t count);

/* Marks a run free that its owner gives back; space lock held. */
void hk_space_mark_given(struct hk_superslabs *space, uint32_t first, uint32_t count);

/*
 * Marks free what was kept: what is in no pile, some of what is in piles, of both a part that is
 * soon done; whether there was any. Space lock held.
 */
bool hk_space_drop_loose(struct hk_superslabs *space);
bool hk_space_drop_piled(struct hk_superslabs *space);
bool hk_space_drop_some(struct hk_superslabs *space);

#endif /* HK_SUPERSLAB_H */
