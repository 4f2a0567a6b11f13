/* SPDX-License-Identifier: MIT */
/*
 * The depot: the arena's stock of magazines, filled ones per class and empty ones for all.
 *
 * A magazine is an array of HK_MAGAZINE_SLOTS pointers, aligned to its size; it is named by its
 * index, and lies in one of the depot's stacks or is held by a cache. Most filled ones are full;
 * what a cache held when it was flushed may be less.
 *
 * The depth of a stack bounds the bytes that the depot keeps. It is generous until memory runs
 * short: before the arena commits more, while the classes together have much, what they have
 * beyond a little is given up, a part at a time (hk_depot_shrink()). Such a class may have but a
 * little from then on; a magazine turned away, and then a refill from the slabs that it could have
 * served, double that, also beyond what a class may have at first: up to what it has in use.
 *
 * Magazines are metadata, carved from their section as they are needed, kept until a reset.
 * Where none is to be had the caches work without. Since a free makes no platform call, some
 * are committed ahead whenever an allocation goes to the slabs anyway.
 */
#ifndef HK_DEPOT_H
#define HK_DEPOT_H

#include <hakmem/slab.h>
#include <hakmem/stack.h>

/* Bytes of free blocks that the depot keeps per class in any case, at least one magazine; ... */
#define HK_DEPOT_BYTES ((size_t)128 << 10)

/*
 * ... while there is memory at most so much and so many magazines, and this part of what the arena
 * can ever have: free blocks stand in the way of large ones.
 */
#define HK_DEPOT_BYTES_MAX ((size_t)2 << 20)
#define HK_DEPOT_DEPTH_MAX 1024u
#define HK_DEPOT_PART 64u

/*
 * A magazine may hold this part of the blocks in use of its class, or of all memory in use, as far
 * as that is more than the class has at first, and at most so many bytes.
 */
#define HK_MAGAZINE_PART 64u
#define HK_MAGAZINE_PART_ALL 4096u
#define HK_MAGAZINE_BYTES_MAX ((size_t)512 << 10)

/*
 * Classes that have none at first: this part, of the blocks in use alone, divided by the caches
 * alive; and at most so many bytes as the depot has of a class, where the range is large. An
 * exchange with the depot is dear where blocks are large: its locked instructions wait until what
 * was written to these is in the cache.
 */
#define HK_MAGAZINE_PART_MEDIUM 8u

/* Magazines drained at once by hk_depot_shrink(), if this part of what is committed is excess. */
#define HK_DEPOT_STEP 64u
#define HK_DEPOT_SHARE 3u

/* Magazines to be committed and not yet carved, for frees to take: at least; twice as many. */
#define HK_MAGAZINES_AHEAD 8u

/* Beyond that as many as frees have asked for in vain, at most. */
#define HK_MAGAZINES_SHORT 1024u

/* After memory was refused, so many refills pass before magazines are asked for again. */
#define HK_MAGAZINES_PAUSE 1024u

/*
 * What the depot's stock is made to follow by hk_depot_look() and the steps after it; used by one
 * thread at a time.
 */
struct hk_stock {
	uint8_t want[HK_CLASSES];   /* magazines that a class should have */
	uint8_t excess[HK_CLASSES]; /* that it has and has not needed */
	unsigned next;		    /* the class that is looked at next */
};

struct hk_depot {
	struct hk_slabs *slabs;
	struct hk_lock lock;	     /* of what follows, up to the stacks */
	struct hk_section magazines; /* see below */
	struct hk_section links;
	uint32_t count; /* magazines carved so far */
	uint32_t count_max;
	_Atomic uint32_t ahead;	   /* committed, not yet carved; the lock guards changes */
	_Atomic uint32_t missed;   /* asked for in vain since some were committed, about */
	_Atomic uint32_t pause;	   /* calls of hk_depot_reserve() until it tries again */
	uint64_t gets[HK_CLASSES]; /* exchanges, of caches that are gone; see hk_front_fold() */
	uint64_t puts[HK_CLASSES];
	_Atomic uint16_t depth_max[HK_CLASSES];	  /* magazines that a class may have */
	_Atomic uint16_t turned_away[HK_CLASSES]; /* since the last refill from slabs, about */
	_Atomic uint8_t capacity[HK_CLASSES];	  /* of magazines handed out from now on */
	_Atomic uint32_t stashed[HK_CLASSES];  /* blocks, by all caches; and of those that rest */
	_Atomic uint16_t low[HK_CLASSES];      /* fewest magazines since the last look, about */
	_Atomic uint16_t refilled[HK_CLASSES]; /* blocks from the slabs since then, about */
	struct hk_stock stock;
	_Atomic uint32_t way;	 /* the class that makes way next */
	_Atomic uint32_t caches; /* alive */
	struct hk_stack empty;
	struct hk_stack filled[HK_CLASSES];
};

/* The magazine that a slot belongs to. */
static inline void **hk_magazine(void **slot)
{
	return (void **)((uintptr_t)slot & ~(uintptr_t)(HK_MAGAZINE_BYTES - 1));
}

/* The index of the magazine that a slot belongs to. */
static inline uint32_t hk_magazine_index(const struct hk_depot *depot, void **slot)
{
	return (uint32_t)((size_t)((unsigned char *)slot - depot->magazines.base) /
			  HK_MAGAZINE_BYTES);
}

/* Rounds that the magazine of a slot may have. */
static inline unsigned hk_magazine_capacity(const struct hk_depot *depot, void **slot)
{
	struct hk_link *links = (struct hk_link *)(void *)depot->links.base;

	return atomic_load_explicit(&links[hk_magazine_index(depot, slot)].capacity,
				    memory_order_relaxed);
}

/* The slot of a magazine where its NULL lies. */
static inline void **hk_magazine_bottom(const struct hk_depot *depot, void **slot)
{
	return hk_magazine(slot) + HK_MAGAZINE_ROUNDS - hk_magazine_capacity(depot, slot);
}

/* Rounds between the NULL at the bottom of a magazine and @top, one of its slots. */
static inline size_t hk_magazine_rounds(const struct hk_depot *depot, void **top)
{
	void **bottom = hk_magazine_bottom(depot, top);

	/* of a magazine that is another's by now, for who looks on, it may be any slot */
	return top > bottom ? (size_t)(top - bottom) : 0;
}

/* Rounds of the magazines of a class that are handed out now. */
static inline unsigned hk_depot_capacity(const struct hk_depot *depot, unsigned size_class)
{
	return atomic_load_explicit(&((struct hk_depot *)depot)->capacity[size_class],
				    memory_order_relaxed);
}

/* Makes that follow how many blocks of the class are in use. */
void hk_depot_fit(struct hk_depot *depot, unsigned size_class);

/* Commits magazines ahead, as far as memory allows. Locks: depot. */
void hk_depot_grow(struct hk_depot *depot);

static inline void hk_depot_reserve(struct hk_depot *depot)
{
	uint32_t pause;

	if (HK_LIKELY(atomic_load_explicit(&depot->ahead, memory_order_relaxed) >=
		      HK_MAGAZINES_AHEAD) &&
	    !atomic_load_explicit(&depot->missed, memory_order_relaxed))
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

/* Makes an empty magazine, by any slot, hold as much as the class's do now: its bottom slot. */
void **hk_magazine_empty(struct hk_depot *depot, unsigned size_class, void **slot);

/* Makes an empty magazine hold as much as there is room for: its bottom slot. */
void **hk_magazine_whole(struct hk_depot *depot, void **slot);

/* Gives an empty magazine back; any slot of it. */
void hk_magazine_put(struct hk_depot *depot, void **slot);

/*
 * A stash: filled magazines that a cache keeps for itself, a pile for each class. It is named by
 * the topmost magazine of its first pile, index plus one, 0: empty. Of a magazine on top the
 * link's @next is the next pile's, and @blocks are those of its pile; @depth is the magazine
 * below.
 *
 * Adds a magazine by its topmost slot in use; takes one, NULL: there is none of the class; takes a
 * block; blocks of a class. The cache's user only.
 */
void hk_stash_push(struct hk_depot *depot, uint32_t *stash, unsigned size_class, void **top);
void **hk_stash_pop(struct hk_depot *depot, uint32_t *stash, unsigned size_class);
void *hk_stash_take(struct hk_depot *depot, uint32_t *stash, unsigned size_class);
size_t hk_stash_blocks(struct hk_depot *depot, uint32_t stash, unsigned size_class);

/*
 * Magazines that a cache has laid down to rest, a list named by index plus one: a magazine is added
 * by its topmost slot in use, with a mark; the first is taken, @mark is what it had.
 */
void hk_rest_push(struct hk_depot *depot, uint32_t *list, uint32_t mark, void **top);
void **hk_rest_pop(struct hk_depot *depot, uint32_t *list, uint32_t *mark);

/* How many there are; what is broken of them is added. Nothing else runs. */
size_t hk_rest_check(struct hk_depot *depot, uint32_t list, size_t *broken);

/* The class of a stash's first pile. */
unsigned hk_stash_class(struct hk_depot *depot, uint32_t stash);

/* How many magazines there are; what is broken of them is added. Nothing else runs. */
size_t hk_stash_check(struct hk_depot *depot, uint32_t stash, size_t *broken);

/* Takes a filled magazine: its topmost slot in use, or NULL. */
void **hk_depot_get(struct hk_depot *depot, unsigned size_class);

/* Gives a filled magazine, by its topmost slot in use: false when the depot has enough. */
bool hk_depot_put(struct hk_depot *depot, unsigned size_class, void **top);

/* A refill found nothing in the depot: was it because magazines had been turned away? */
void hk_depot_missed(struct hk_depot *depot, unsigned size_class);

/* So many blocks came from the slabs instead. */
static inline void hk_depot_refilled(struct hk_depot *depot, unsigned size_class, size_t count)
{
	_Atomic uint16_t *refilled = &depot->refilled[size_class];
	size_t sum = atomic_load_explicit(refilled, memory_order_relaxed) + count;

	if (sum <= UINT16_MAX)
		atomic_store_explicit(refilled, (uint16_t)sum, memory_order_relaxed);
}

/* Whether the classes have much more, together, than each may have in any case. */
bool hk_depot_is_excess(struct hk_depot *depot);

/* Drains some of what the depot has in excess. Locks: class, space. */
void hk_depot_shrink(struct hk_depot *depot);

/* Returns the blocks of a magazine to their slabs: how many were refused, see @bad. */
size_t hk_magazine_drain(struct hk_depot *depot, void **top, struct hk_bad *bad);

/* Gives a filled magazine to the depot, or its blocks to their slabs. Locks: class, space. */
void hk_depot_take_back(struct hk_depot *depot, unsigned size_class, void **top);

/* Returns all blocks in the depot to their slabs. */
void hk_depot_drain(struct hk_depot *depot);

/* The same, until time is over, at least a few magazines: whether all are. */
bool hk_depot_drain_in(struct hk_depot *depot, struct hk_deadline deadline);

/*
 * How the stock was used since the last look: of a class as many magazines are wanted as have the
 * blocks that came from the slabs. With @window, the end of some time, fewer again; and what was
 * not needed since the last one is excess.
 */
void hk_depot_look(struct hk_depot *depot, bool window);

/* Fills one magazine that is wanted; drains one that is excess: whether there was one. */
bool hk_depot_fill_one(struct hk_depot *depot);
bool hk_depot_drain_one(struct hk_depot *depot);

/* Commits so many magazines ahead; faults all in: 0 or an error. Locks: depot. */
int hk_depot_warm(struct hk_depot *depot, size_t ahead);
int hk_depot_populate(struct hk_depot *depot);

/* Blocks of a class in the depot. */
size_t hk_depot_blocks(struct hk_depot *depot, unsigned size_class);

/* Adds how often the stacks' locks, where they have any, were taken and waited for. */
void hk_depot_add_locks(struct hk_depot *depot, uint64_t *acquired, uint64_t *waited);

/* All magazines back into their section; nothing else runs. */
void hk_depot_reset(struct hk_depot *depot);

/* Gives pages beyond the magazines in use back until time is over, at least a step: bytes. */
size_t hk_depot_trim(struct hk_depot *depot, struct hk_deadline deadline);

/* Number of broken invariants; @held: magazines that caches hold. Nothing else runs. */
size_t hk_depot_check(struct hk_depot *depot, size_t held);

/* What depot.c, stash.c and stock.c share. */

static inline const struct hk_platform *hk_depot_platform(const struct hk_depot *depot)
{
	return &depot->slabs->space->memory->platform;
}

static inline struct hk_stacks hk_depot_stacks(const struct hk_depot *depot)
{
	struct hk_stacks stacks = { (struct hk_link *)(void *)depot->links.base,
				    hk_depot_platform(depot) };

	return stacks;
}

static inline struct hk_link *hk_depot_link(const struct hk_depot *depot, uint32_t index)
{
	return &hk_depot_stacks(depot).links[index];
}

static inline void **hk_magazine_at(const struct hk_depot *depot, uint32_t index)
{
	return (void **)(void *)(depot->magazines.base + index * HK_MAGAZINE_BYTES);
}

/* The topmost slot in use of a magazine whose link says how many there are. */
static inline void **hk_magazine_filled(const struct hk_depot *depot, uint32_t index)
{
	return hk_magazine_bottom(depot, hk_magazine_at(depot, index)) +
	       hk_depot_link(depot, index)->rounds;
}

static inline void hk_depot_lock(struct hk_depot *depot)
{
	hk_lock_acquire(&depot->lock, hk_depot_platform(depot));
}

static inline void hk_depot_unlock(struct hk_depot *depot)
{
	hk_lock_release(&depot->lock, hk_depot_platform(depot));
}

#endif /* HK_DEPOT_H */
