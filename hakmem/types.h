/* SPDX-License-Identifier: MIT */
/*
 * The types of hakmem.h, which includes this: errors, reports, configs, statistics. A host
 * includes hakmem.h.
 */
#ifndef HK_TYPES_H
#define HK_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef HK_API
#if defined(_WIN32) && defined(HK_SHARED)
#ifdef HK_BUILDING
#define HK_API __declspec(dllexport)
#else
#define HK_API __declspec(dllimport)
#endif
#elif defined(__GNUC__) && !defined(_WIN32)
#define HK_API __attribute__((visibility("default")))
#else
#define HK_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct hk_arena;
struct hk_budget; /* budget.h */
struct hk_cache;
struct hk_platform; /* platform/platform.h */

/**
 * enum hk_error - why a function failed
 * @HK_OK: it did not.
 * @HK_ERROR_ARGUMENT: an argument or a field of a config has an impossible value.
 * @HK_ERROR_MEMORY: the platform would not commit memory.
 * @HK_ERROR_ADDRESS_SPACE: the platform would not reserve the address range, or what it
 *	reserved is too small for an arena.
 * @HK_ERROR_LIMIT: a limit that the host set is reached (bytes, number of caches), or is too
 *	small to begin with.
 * @HK_ERROR_PLATFORM: the platform lacks a function, or its page size is impossible.
 * @HK_ERROR_STATE: the call is not allowed now.
 */
enum hk_error {
	HK_OK = 0,
	HK_ERROR_ARGUMENT = -1,
	HK_ERROR_MEMORY = -2,
	HK_ERROR_ADDRESS_SPACE = -3,
	HK_ERROR_LIMIT = -4,
	HK_ERROR_PLATFORM = -5,
	HK_ERROR_STATE = -6,
};

/**
 * enum hk_fault - what a report is about
 * @HK_FAULT_NONE: nothing; never reported.
 * @HK_FAULT_FOREIGN: a pointer that is none of the arena's: outside its range, or in a part of
 *	it that holds no block.
 * @HK_FAULT_INTERIOR: a pointer into a block, not to its start.
 * @HK_FAULT_DOUBLE_FREE: a block that is free already.
 * @HK_FAULT_ARGUMENT: an impossible argument (a size beyond PTRDIFF_MAX, an alignment that is
 *	no power of two, a size that is not the block's); the call did nothing.
 * @HK_FAULT_LEAK: blocks still live when the arena was destroyed.
 * @HK_FAULT_CORRUPT: a broken invariant, found by hk_arena_check().
 * @HK_FAULT_EXHAUSTED: an allocation returned NULL: the limit or the address range is used up.
 * @HK_FAULT_PLATFORM: a call of the platform failed; the arena coped.
 *
 * Without an on_report callback the program is stopped by a trap for FOREIGN, INTERIOR,
 * DOUBLE_FREE and CORRUPT, whose going on would harm; the others are silent.
 */
enum hk_fault {
	HK_FAULT_NONE = 0,
	HK_FAULT_FOREIGN,
	HK_FAULT_INTERIOR,
	HK_FAULT_DOUBLE_FREE,
	HK_FAULT_ARGUMENT,
	HK_FAULT_LEAK,
	HK_FAULT_CORRUPT,
	HK_FAULT_EXHAUSTED,
	HK_FAULT_PLATFORM,
};

/**
 * struct hk_report - what went wrong, handed to on_report
 * @fault: the kind.
 * @what: one sentence, static.
 * @arena: the arena.
 * @arena_name: its config's name, "" when it has none.
 * @address: the pointer or the block concerned, NULL where there is none.
 * @size: bytes: of the block; of the request for ARGUMENT and EXHAUSTED; of all live blocks for
 *	the first LEAK report. 0 where unknown.
 * @count: blocks concerned, for LEAK: all of them in the first report, 1 in those that follow
 *	for the first blocks by class and address.
 * @size_class: of the block, as in hk_stats.classes; 0 for large blocks, which those beyond 512 KiB
 *	become when they are resized, and where unknown.
 *
 * New fields are added at the end.
 */
struct hk_report {
	enum hk_fault fault;
	const char *what;
	const struct hk_arena *arena;
	const char *arena_name;
	const void *address;
	size_t size;
	size_t count;
	unsigned size_class;
};

/**
 * struct hk_arena_config - all choices about an arena; all zero is the default
 * @name: for reports; the string is the host's and must outlive the arena. NULL: "".
 * @address_space: bytes of address range to reserve, metadata included, at least 512 KiB;
 *	rounded up to the platform's granularity. 0: 16 GiB (128 MiB on 32-bit systems), or the
 *	platform's own maximum; where that is refused, halves of it are tried down to 64 MiB,
 *	and half of what is granted is left to the host. A size that is named is taken as it
 *	is or refused.
 * @limit: most bytes to take from the platform at any time, metadata included; 0: no limit.
 * @platform: copied at creation; its context must outlive the arena. NULL: the system's.
 * @context: handed to the callbacks.
 * @on_oom: An allocation of @size bytes finds no memory: a limit or the range is used up, or
 *	the platform refused; the reserve, where it could help, has just been given up. No lock is
 *	held, and any function may be called but reset and destroy (the cache at work among them):
 *	free something and return true to try again, return false and the allocation returns NULL.
 *	Within the callback an allocation that fails through the same cache or through the arena
 *	returns NULL at once. Threads that fail through caches of their own meanwhile call it too;
 *	those that fail through the arena don't, and get NULL.
 * @on_report: Told whatever goes wrong, after all locks are released; it may call
 *	hk_arena_stats() and hk_arena_used(), nothing else. NULL: see enum hk_fault.
 * @large_pages: ask the platform for large pages in the arena's range. They save TLB misses
 *	and can stall for milliseconds when the system must compact memory for them. Windows
 *	gives them for a whole range at once only, and to hosts that hold and have enabled the
 *	privilege SeLockMemoryPrivilege: there @address_space must be named, a multiple of the
 *	large page (2 MiB), and be no more than @limit, since all of it is taken when the arena is
 *	made, beside what the arena counts as committed, and given back when it is destroyed.
 *	Where any of that fails pages stay as they are.
 * @max_caches: most caches alive at once; 0: 1024, or fewer where the range is small.
 * @soft_limit: bytes from which on @on_pressure is called; at most @limit; 0: none.
 * @reserve: bytes to set aside, rounded up to 64 KiB, committed when the arena is made: when an
 *	allocation finds no memory otherwise, all of them become the arena's, so that what @on_oom
 *	does, and the host after it, has some. A reset sets them aside again, and so does a trim,
 *	where so much is free and committed. 0: none.
 * @budget: the budget that the arena lies in, which must outlive it; NULL: none. What the arena takes
 *	is charged to it, too, see budget.h.
 * @on_pressure: The bytes in use have come to the soft limit, see struct hk_budget_config, where
 *	budgets have one of their own.
 * @maintain_delay: calls of hk_arena_maintain() after which what was not used is given back;
 *	0: 256, some seconds of one call a frame.
 *
 * New fields are added at the end; zero means default.
 */
struct hk_arena_config {
	const char *name;
	size_t address_space;
	size_t limit;
	const struct hk_platform *platform;
	void *context;
	bool (*on_oom)(void *context, struct hk_arena *arena, size_t size);
	void (*on_report)(void *context, const struct hk_report *report);
	bool large_pages;
	unsigned max_caches;
	size_t soft_limit;
	size_t reserve;
	struct hk_budget *budget;
	void (*on_pressure)(void *context, struct hk_arena *arena, size_t used, size_t limit);
	unsigned maintain_delay;
};

/*
 * Size classes. Up to 1 KiB they step by 16 bytes, up to 32 KiB by an eighth of a power of two
 * (at most 12.5 % waste), up to 512 KiB by a quarter (20 %), up to 1 MiB by 64 KiB. What is larger
 * is a large block of its own, rounded up to 64 KiB, too.
 */
#define HK_SMALL_MAX 1024u
#define HK_EIGHTH_MAX 32768u
#define HK_QUARTER_MAX 524288u
#define HK_CLASS_MAX 1048576u
#define HK_CLASSES 129u	     /* classes 1 to 128 are sizes; 0 is a slab that holds no block */
#define HK_CLASS_LARGE 129u  /* a large block begins in this slab */
#define HK_CLASS_INSIDE 130u /* a large block that began before goes on in this slab */
#define HK_TOPS 131u
#define HK_SLAB_SHIFT 16

/*
 * Slots of a magazine; one of them is a magazine's bottom. Benchmarks build the library with other
 * powers of two, 8 to 128. It is part of the binary interface: a host defines it only for a
 * library built the same way.
 */
#ifndef HK_MAGAZINE_SLOTS
#define HK_MAGAZINE_SLOTS 64u
#endif

/**
 * enum hk_stage - how far down a call went, from the cheapest to the dearest
 * @HK_STAGE_HIT: the loaded magazine served.
 * @HK_STAGE_SPARE: the cache's own second magazine.
 * @HK_STAGE_DEPOT: a magazine from the depot, or to it.
 * @HK_STAGE_SLAB: a batch of blocks from slabs, or to them.
 * @HK_STAGE_NEW_SLAB: the class got a run of slabs.
 * @HK_STAGE_LARGE: a large block was made, resized or freed.
 * @HK_STAGE_PLATFORM: the platform was called.
 * @HK_STAGE_NEW_SUPERSLAB: a superslab was used for the first time.
 */
enum hk_stage {
	HK_STAGE_HIT = 0,
	HK_STAGE_SPARE,
	HK_STAGE_DEPOT,
	HK_STAGE_SLAB,
	HK_STAGE_NEW_SLAB,
	HK_STAGE_LARGE,
	HK_STAGE_PLATFORM,
	HK_STAGE_NEW_SUPERSLAB,
};

/**
 * struct hk_counters - what the arena did off the hit path, since it was created
 * @spare_swap: a miss that ended at the cache's own second magazine.
 * @depot_swap: a filled magazine taken from the depot.
 * @slab_batch: a batch of blocks taken from slabs.
 * @new_slab: a run of slabs given to a class.
 * @new_superslab: a superslab used for the first time.
 * @large_alloc: a large block allocated, or made of a block beyond 512 KiB that is resized.
 * @platform_call: calls of the platform, of whatever kind.
 * @magazine_to_depot: a filled magazine put into the depot.
 * @depot_to_slab: a magazine's blocks, or a single block, returned to slabs.
 * @slab_emptied: a run of slabs given back by its class, all blocks free, or made a large block.
 * @superslab_emptied: a superslab whose last slab became free.
 * @large_free: a large block freed.
 * @arena_alloc: allocations through the arena, without a cache.
 * @arena_free: frees through the arena, without a cache.
 * @free_null: hk_free() of NULL.
 * @refused: frees and resizes refused because of their pointer.
 * @exhausted: allocations that returned NULL.
 * @oom_calls: calls of on_oom.
 * @lock_acquired: locks taken, all layers.
 * @lock_waited: of these, how often the lock was held by another thread.
 */
struct hk_counters {
	uint64_t spare_swap;
	uint64_t depot_swap;
	uint64_t slab_batch;
	uint64_t new_slab;
	uint64_t new_superslab;
	uint64_t large_alloc;
	uint64_t platform_call;
	uint64_t magazine_to_depot;
	uint64_t depot_to_slab;
	uint64_t slab_emptied;
	uint64_t superslab_emptied;
	uint64_t large_free;
	uint64_t arena_alloc;
	uint64_t arena_free;
	uint64_t free_null;
	uint64_t refused;
	uint64_t exhausted;
	uint64_t oom_calls;
	uint64_t lock_acquired;
	uint64_t lock_waited;
};

/**
 * struct hk_class_stats - one size class
 * @block_size: bytes; 0 in entry 0, which stands for large blocks.
 * @live_blocks: blocks that the host holds.
 * @live_bytes: their bytes.
 * @cached_blocks: free blocks in magazines, of caches and of the depot.
 * @free_blocks: free blocks in the class's slabs.
 * @slabs: slabs of 64 KiB that the class holds.
 * @depot_swap: as in struct hk_counters, of this class; so are those that follow.
 * @slab_batch: "
 * @new_slab: "
 * @magazine_to_depot: "
 * @depot_to_slab: "
 * @slab_emptied: "
 * @lock_acquired: of the class's lock.
 */
struct hk_class_stats {
	size_t block_size;
	size_t live_blocks;
	size_t live_bytes;
	size_t cached_blocks;
	size_t free_blocks;
	size_t slabs;
	uint64_t depot_swap;
	uint64_t slab_batch;
	uint64_t new_slab;
	uint64_t magazine_to_depot;
	uint64_t depot_to_slab;
	uint64_t slab_emptied;
	uint64_t lock_acquired;
};

/**
 * struct hk_stats - what an arena holds; bytes are those of blocks, not of requests
 * @live_bytes: in blocks that the host holds.
 * @live_blocks: their number.
 * @cached_bytes: in free blocks in magazines.
 * @free_bytes: in free blocks in slabs, and in free slabs that are committed.
 * @committed_bytes: taken from the platform, metadata included.
 * @peak_committed_bytes: the most that was ever so.
 * @reserved_bytes: of address range.
 * @metadata_bytes: committed for the arena's own use.
 * @cache_count: caches alive.
 * @counters: see there.
 * @classes: by size class; entry 0 is large blocks.
 * @reserve_bytes: set aside, see struct hk_arena_config; neither live nor free.
 *
 * Exact while no other thread works on the arena. Otherwise each class's live and cached blocks
 * may be off by what is on its way between layers, about two magazines per cache, and are never
 * negative. (Where shrinking kept a larger block for want of a smaller one, and
 * hk_free_sized() then put it with the smaller ones, it counts as one of those until it
 * reaches its slab.)
 */
struct hk_stats {
	size_t live_bytes;
	size_t live_blocks;
	size_t cached_bytes;
	size_t free_bytes;
	size_t committed_bytes;
	size_t peak_committed_bytes;
	size_t reserved_bytes;
	size_t metadata_bytes;
	size_t cache_count;
	struct hk_counters counters;
	struct hk_class_stats classes[HK_CLASSES];
	size_t reserve_bytes;
};

#ifdef __cplusplus
}
#endif

#endif /* HK_TYPES_H */
