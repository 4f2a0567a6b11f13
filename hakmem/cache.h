/* SPDX-License-Identifier: MIT */
/*
 * Caches: two magazines per class, the loaded one that the inline functions pop and push, and a
 * spare. Whole magazines are exchanged with the depot, so that a worker at the edge of a
 * magazine does not go back and forth (Bonwick and Adams, 2001).
 *
 * Everything here belongs to the cache's user, without a lock or an atomic read-modify-write.
 * The statistics of other threads read @top, @spare and the counters, hence relaxed accesses.
 * A spare is full or empty, but for what a flush of a refused block may leave.
 *
 * What hk_cache_prefill() set aside is a stash of the cache's own that nothing but an
 * allocation, a flush that the host asks for and a reset touch: so it is there when it is needed,
 * whatever is freed in between and whoever else runs out of memory.
 */
#ifndef HK_CACHE_H
#define HK_CACHE_H

#include <hakmem/depot.h>

/**
 * struct hk_front - a cache, as the library knows it
 * @hot: what the inline functions use; a struct hk_cache * points here.
 * @depot: where magazines come from and go to.
 * @arena: for the callbacks.
 * @slot: which of the arena's caches it is.
 * @next_free: while not alive: the next such slot, plus one.
 * @alive: created and not destroyed.
 * @in_oom: on_oom runs for this cache.
 * @stage: the deepest enum hk_stage since hk_cache_stage() was last asked.
 * @spare_swap: as in struct hk_counters; so are the others.
 * @spare: per class, the topmost slot in use of the spare magazine.
 * @gets: magazines got from the depot; small, see hk_front_fold().
 * @puts: magazines put there.
 * @stash: what hk_cache_prefill() set aside of classes and was not used yet, see hk_stash_push().
 * @large: the first large block set aside, its first slab plus one; the next is in its header.
 * @rest: the magazines that were laid down, see hk_rest_push(); guarded by the depot's lock.
 * @rested: of hk_arena_maintain()'s calls, the one after which they were.
 * @resting: whether they are; the owner's.
 * @batch: blocks that the next refill takes from the slabs; while small, how often the class was
 *	used without a magazine.
 */
struct hk_front {
	struct hk_cache hot;
	struct hk_depot *depot;
	struct hk_arena *arena;
	uint32_t slot;
	uint32_t next_free;
	bool alive;
	bool in_oom;
	uint8_t stage;
	_Atomic size_t spare_swap;
	_Atomic size_t free_null;
	_Atomic size_t refused;
	_Atomic size_t exhausted;
	void **spare[HK_CLASSES];
	_Atomic uint16_t gets[HK_CLASSES];
	_Atomic uint16_t puts[HK_CLASSES];
	uint32_t stash;
	uint32_t large;
	uint32_t rest;
	uint32_t rested;
	bool resting;
	uint8_t batch[HK_CLASSES];
};

_Static_assert(sizeof(struct hk_front) <= 3072, "a cache's own struct is at most 3 KiB");
_Static_assert(offsetof(struct hk_front, hot) == 0, "a cache is its front");

static inline struct hk_front *hk_front(struct hk_cache *cache)
{
	return (struct hk_front *)(void *)cache;
}

/* Counters of the owner, read by others: a load and a store, no locked instruction. */
static inline void hk_count(_Atomic size_t *counter)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* Notes how far down a call went. */
static inline void hk_front_note(struct hk_front *front, enum hk_stage stage)
{
	if (stage > front->stage)
		front->stage = (uint8_t)stage;
}

/* Makes a cache without magazines. */
void hk_front_init(struct hk_front *front, struct hk_depot *depot, struct hk_arena *arena);

/* A block of a class; NULL: no memory. Locks: class, depot, space. */
void *hk_front_alloc(struct hk_front *front, unsigned size_class);

/* The same, its first @size bytes zero. */
void *hk_front_zalloc(struct hk_front *front, unsigned size_class, size_t size);

/* Puts a block into the magazine of a class. Never fails. Locks: class, depot, space. */
void hk_front_push(struct hk_front *front, unsigned size_class, void *ptr);

/*
 * Gives all magazines back and returns their blocks to their slabs. With @to_depot those that
 * are filled to a quarter go to the depot as they are, while it has room. Locks: class, space.
 */
void hk_front_flush(struct hk_front *front, bool to_depot);

/*
 * Sets blocks of a class aside until there are @count: false where there is no memory, and as many
 * as before are. They serve when both magazines are empty, before the depot does. Locks: class,
 * depot, space.
 */
bool hk_front_prefill(struct hk_front *front, unsigned size_class, size_t count);

/* Returns what was set aside of classes to its slabs. Locks: class, space. */
void hk_front_drop_stash(struct hk_front *front);

/*
 * Lays all magazines down, where others may take them: @now is what hk_front_rested() gives
 * back. The next miss takes up what is left of them. The cache's user only. Locks: depot.
 */
void hk_front_rest(struct hk_front *front, uint32_t now);

/* Whether magazines lie down, and since when; any thread. Locks: depot. */
bool hk_front_rested(struct hk_front *front, uint32_t *since);

/*
 * Takes one of the magazines that were laid down: its topmost slot in use, NULL: there is none.
 * Any thread. Locks: depot.
 */
void **hk_front_take_rest(struct hk_front *front, unsigned *size_class);

/* Forgets all magazines, after a reset, but not how the classes were used. */
void hk_front_reset(struct hk_front *front);

/* Adds the counts of exchanges to the depot's. Locks: depot. */
void hk_front_fold(struct hk_front *front);

/* Learns how far the class table goes now. */
void hk_front_refresh(struct hk_front *front);

/* Returns blocks to their slabs past the magazines, and reports those refused. */
void hk_front_return(struct hk_front *front, void *const *blocks, size_t count);

/* Blocks of a class in both magazines; any thread. */
size_t hk_front_blocks(struct hk_front *front, unsigned size_class);

/* Whether a block lies in one of a class's magazines; the cache's user only. */
bool hk_front_holds(struct hk_front *front, unsigned size_class, const void *block);

/* Magazines held; with @broken, which is added to, their shape is checked. */
size_t hk_front_magazines(struct hk_front *front, size_t *broken);

#endif /* HK_CACHE_H */
