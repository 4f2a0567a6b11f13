/* SPDX-License-Identifier: MIT */
/*
 * The depot: the arena's stock of magazines, filled ones per class and empty ones for all.
 *
 * A magazine is an array of HK_MAGAZINE_SLOTS pointers, aligned to its size; it is named by its
 * index, and lies in one of the depot's stacks or is held by a cache. Most filled ones are full;
 * what a cache held when it was flushed may be less.
 *
 * The depth of a stack bounds the bytes that the depot keeps. It follows use: a magazine turned
 * away, and then a refill from the slabs that it could have served, double the depth that a class
 * may have. Such excess is given up, a part at a time, before the arena commits more memory
 * (hk_depot_shrink()).
 *
 * Magazines are metadata, carved from their section as they are needed, kept until a reset.
 * Where none is to be had the caches work without. Since a free makes no platform call, some
 * are committed ahead whenever an allocation goes to the slabs anyway.
 */
#ifndef HK_DEPOT_H
#define HK_DEPOT_H

#include <hakmem/slab.h>
#include <hakmem/stack.h>

/* Bytes of free blocks that the depot keeps per class, at least one magazine, ... */
#define HK_DEPOT_BYTES ((size_t)128 << 10)

/*
 * ... and where use has shown that more serve, at most so much and so many magazines, and this
 * part of what the arena can ever have: free blocks stand in the way of large ones.
 */
#define HK_DEPOT_BYTES_MAX ((size_t)2 << 20)
#define HK_DEPOT_DEPTH_MAX 1024u
#define HK_DEPOT_PART 64u

/* Magazines drained at once by hk_depot_shrink(). */
#define HK_DEPOT_STEP 64u

/* Magazines to be committed and not yet carved, for frees to take: at least; twice as many. */
#define HK_MAGAZINES_AHEAD 16u

/* After memory was refused, so many refills pass before magazines are asked for again. */
#define HK_MAGAZINES_PAUSE 1024u

struct hk_depot {
	struct hk_slabs *slabs;
	struct hk_lock lock;	     /* of what follows, up to the stacks */
	struct hk_section magazines; /* see below */
	struct hk_section links;
	uint32_t count; /* magazines carved so far */
	uint32_t count_max;
	_Atomic uint32_t ahead;	   /* committed, not yet carved; changed with the lock held */
	_Atomic uint32_t pause;	   /* calls of hk_depot_reserve() until it tries again */
	uint64_t gets[HK_CLASSES]; /* exchanges, of caches that are gone; see hk_front_fold() */
	uint64_t puts[HK_CLASSES];
	_Atomic uint32_t depth_max[HK_CLASSES];	  /* magazines that a class may have */
	_Atomic uint32_t turned_away[HK_CLASSES]; /* since the last refill from slabs */
	_Atomic bool raised;			  /* some class may have more than at first */
	_Atomic uint32_t way;			  /* the class that makes way next */
	struct hk_stack empty;
	struct hk_stack filled[HK_CLASSES];
};

/* The magazine that a slot belongs to. */
static inline void **hk_magazine(void **slot)
{
	return (void **)((uintptr_t)slot & ~(uintptr_t)(HK_MAGAZINE_BYTES - 1));
}

/* The slot of a magazine where, for a class, its NULL lies. */
static inline void **hk_magazine_bottom(unsigned size_class, void **slot)
{
	return hk_magazine(slot) + HK_MAGAZINE_ROUNDS - hk_class_infos[size_class].capacity;
}

/* Rounds between the NULL at the bottom of a magazine of @capacity and @top. */
static inline size_t hk_magazine_rounds(void **top, unsigned capacity)
{
	return (size_t)(top - hk_magazine(top)) - (HK_MAGAZINE_ROUNDS - capacity);
}

/* Commits magazines ahead, as far as memory allows. Locks: depot. */
void hk_depot_grow(struct hk_depot *depot);

static inline void hk_depot_reserve(struct hk_depot *depot)
{
	uint32_t pause;

	if (HK_LIKELY(atomic_load_explicit(&depot->ahead, memory_order_relaxed) >=
		      HK_MAGAZINES_AHEAD))
		return;
	pause = atomic_load_explicit(&depot->pause, memory_order_relaxed);
	if (!pause)
		hk_depot_grow(depot);
	else
		atomic_store_explicit(&depot->pause, pause - 1, memory_order_relaxed);
}

/*
 * An empty magazine for a class: its bottom slot, or NULL when there is none. No platform call:
 * see hk_depot_reserve(). Locks: depot.
 */
void **hk_magazine_get(struct hk_depot *depot, unsigned size_class);

/* Gives an empty magazine back; any slot of it. */
void hk_magazine_put(struct hk_depot *depot, void **slot);

/* Takes a filled magazine: its topmost slot in use, or NULL. */
void **hk_depot_get(struct hk_depot *depot, unsigned size_class);

/* Gives a filled magazine, by its topmost slot in use: false when the depot has enough. */
bool hk_depot_put(struct hk_depot *depot, unsigned size_class, void **top);

/* A refill found nothing in the depot: was it because magazines had been turned away? */
void hk_depot_missed(struct hk_depot *depot, unsigned size_class);

/* Drains some of what the depot has in excess. Locks: class, space. */
void hk_depot_shrink(struct hk_depot *depot);

/* Returns the blocks of a magazine to their slabs: how many were refused, see @bad. */
size_t hk_magazine_drain(struct hk_depot *depot, unsigned size_class, void **top,
			 struct hk_bad *bad);

/* Returns all blocks in the depot to their slabs. */
void hk_depot_drain(struct hk_depot *depot);

/* Blocks of a class in the depot. */
size_t hk_depot_blocks(struct hk_depot *depot, unsigned size_class);

/* Adds how often the stacks' locks, where they have any, were taken and waited for. */
void hk_depot_add_locks(struct hk_depot *depot, uint64_t *acquired, uint64_t *waited);

/* All magazines back into their section; nothing else runs. */
void hk_depot_reset(struct hk_depot *depot);

/* Gives the section's pages beyond the magazines in use back. Returns bytes. */
size_t hk_depot_trim(struct hk_depot *depot);

/* Number of broken invariants; @held: magazines that caches hold. Nothing else runs. */
size_t hk_depot_check(struct hk_depot *depot, size_t held);

#endif /* HK_DEPOT_H */
