/* SPDX-License-Identifier: MIT */
/*
 * The arena: all layers, the callbacks, the caches, and where things lie in the reservation:
 *
 *	arena and caches | class table | superslab headers | links | magazines | bitmaps |
 *	gap | slabs | gap
 *
 * Each of the metadata sections has its full address range and is committed as far as it is
 * used. Nothing lies behind the slabs but inaccessible address space, and nothing before them:
 * an overrun of a block meets a fault or other blocks, never metadata. (A fixed region has no
 * gaps, since nothing in it is inaccessible.)
 */
#ifndef HK_ARENA_H
#define HK_ARENA_H

#include <hakmem/cache.h>

/**
 * struct hk_upkeep - where hk_arena_maintain() is
 * @busy: a thread is at it; the fields below but @calls and @warm are that thread's.
 * @calls: how many there were.
 * @warm: bytes that are to stay committed.
 * @delay: after so many a window ends: what was not used in it is given back.
 * @slot: the cache that is looked at next.
 * @looks: caches to be looked at in this call.
 * @used: slabs in use at the last call.
 * @high: most of them at once, since the window began.
 * @idle: that are committed and not in use.
 * @ahead: that should be.
 * @spare: to be given back.
 */
struct hk_upkeep {
	_Atomic uint32_t busy;
	_Atomic uint32_t calls;
	_Atomic size_t warm;
	uint32_t delay;
	uint32_t slot;
	uint32_t looks;
	size_t used;
	size_t high;
	size_t idle;
	size_t ahead;
	size_t spare;
};

struct hk_arena {
	struct hk_memory memory;
	struct hk_reporter reporter;
	struct hk_superslabs space;
	struct hk_large large;
	struct hk_depot depot;
	struct hk_slabs slabs;
	void *context;
	bool (*on_oom)(void *context, struct hk_arena *arena, size_t size);
	struct hk_section caches; /* begins with this struct */
	struct hk_lock lock;	  /* of the caches */
	struct hk_upkeep upkeep;
	uint32_t reserve_slabs; /* to be set aside */
	uint32_t cache_slots;	/* that were ever used */
	uint32_t cache_slots_max;
	uint32_t cache_free; /* a slot that is not alive, plus one */
	size_t cache_count;
	struct hk_counters gone; /* of caches destroyed */
	_Atomic size_t oom_running;
	_Atomic size_t oom_calls;
	_Atomic size_t allocs; /* without a cache */
	_Atomic size_t frees;
	_Atomic size_t refused;
	_Atomic size_t exhausted;
	_Atomic size_t kept; /* blocks that shrinking found no smaller one for */
};

/* Where a cache lies, from the arena on. */
static inline size_t hk_front_offset(uint32_t slot)
{
	return hk_round_up(sizeof(struct hk_arena), 64) +
	       slot * hk_round_up(sizeof(struct hk_front), 64);
}

static inline struct hk_front *hk_arena_front(const struct hk_arena *arena, uint32_t slot)
{
	return (struct hk_front *)(void *)(arena->caches.base + hk_front_offset(slot));
}

static inline void hk_caches_lock(struct hk_arena *arena)
{
	hk_lock_acquire(&arena->lock, &arena->memory.platform);
}

static inline void hk_caches_unlock(struct hk_arena *arena)
{
	hk_lock_release(&arena->lock, &arena->memory.platform);
}

/*
 * An allocation has failed with @error: makes room and says whether to try again. @front is NULL
 * for an allocation without a cache. @round counts the tries, from 0: the first two look for
 * memory that the arena has, the third asks the host. No lock is held.
 */
#define HK_ROUNDS 3
bool hk_arena_make_room(struct hk_arena *arena, struct hk_front *front, size_t size, int error,
			unsigned round);

#endif /* HK_ARENA_H */
