/* SPDX-License-Identifier: MIT */
/*
 * hakmem: a memory allocator that a game engine or language runtime embeds.
 *
 * This header is all that a host includes. An arena (struct hk_arena) is a heap of its own: one
 * reserved address range, one budget, one owner. A cache (struct hk_cache) is one worker's
 * private front of one arena; the host passes it to every call, so there is no thread-local
 * state, and a fiber that wakes on another worker simply uses that worker's cache.
 *
 *	struct hk_arena *arena;
 *	struct hk_cache *cache;
 *
 *	if (hk_arena_create(&arena, NULL) || hk_cache_create(arena, &cache))
 *		...
 *	void *block = hk_alloc(cache, 100);
 *	hk_free(cache, block);
 *	hk_arena_destroy(arena);
 *
 * Rules for every function:
 *
 * - Functions that can fail for more than one reason return 0 or a negative enum hk_error.
 *   Functions that return memory return NULL when there is none.
 * - A cache is used by one thread at a time; handing it to another thread needs whatever
 *   synchronisation the host hands its other data over with.
 * - An arena may be used by any thread at any time, but for hk_arena_reset(),
 *   hk_arena_destroy() and hk_arena_check(): while they run, nothing else may run on the arena
 *   or on its caches.
 * - Blocks are aligned to 16 bytes. A block may be freed through any cache of its arena, or
 *   through the arena, by any thread.
 * - What goes wrong is told to the arena's on_report, see struct hk_report.
 */
#ifndef HK_HAKMEM_H
#define HK_HAKMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

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

/* What the compiler may know of a function; each has a fallback that says nothing. */
#if defined(__GNUC__)
#define HK_LIKELY(x) __builtin_expect(!!(x), 1)
#define HK_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define HK_CONSTANT(x) __builtin_constant_p(x)
#define HK_INLINE static inline __attribute__((always_inline, unused))
#define HK_MALLOC __attribute__((malloc, warn_unused_result))
#define HK_MUST_USE __attribute__((warn_unused_result))
#define HK_ALLOC_SIZE(n) __attribute__((alloc_size(n)))
#define HK_ALLOC_ALIGN(n) __attribute__((alloc_align(n)))
#define HK_ALIGNED_16 __attribute__((assume_aligned(16)))
#define HK_LOAD_TOP(slot) __atomic_load_n((slot), __ATOMIC_RELAXED)
#define HK_STORE_TOP(slot, top) __atomic_store_n((slot), (top), __ATOMIC_RELAXED)
#define HK_LOG2(x) (63u - (unsigned)__builtin_clzll(x))
#else
#define HK_LIKELY(x) (x)
#define HK_UNLIKELY(x) (x)
#define HK_CONSTANT(x) 0
#define HK_INLINE static __inline
#define HK_MALLOC
#define HK_MUST_USE
#define HK_ALLOC_SIZE(n)
#define HK_ALLOC_ALIGN(n)
#define HK_ALIGNED_16
#define HK_LOAD_TOP(slot) (*(void **volatile *)(slot))
#define HK_STORE_TOP(slot, top) (*(void **volatile *)(slot) = (top))
#define HK_LOG2(x) hk_log2(x)
#endif

/* Set to 1 by a debug build of the host: hk_free_sized() then always checks the size. */
#ifndef HK_DEBUG
#define HK_DEBUG 0
#endif

#define HK_VERSION_MAJOR 0
#define HK_VERSION_MINOR 1
#define HK_VERSION_PATCH 0
/* major * 10000 + minor * 100 + patch; the library's own is hk_version() */
#define HK_VERSION (HK_VERSION_MAJOR * 10000 + HK_VERSION_MINOR * 100 + HK_VERSION_PATCH)

struct hk_arena;
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
 * @size_class: of the block, as in hk_stats.classes; 0 for large blocks and where unknown.
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
 * @on_oom: An allocation of @size bytes finds no memory: the limit or the range is used up, or
 *	the platform refused. No lock is held, and any function may be called but reset and
 *	destroy: free something and return true to try again, return false and the allocation
 *	returns NULL. Within the callback an allocation that fails returns NULL at once.
 * @on_report: Told whatever goes wrong, after all locks are released; it may call
 *	hk_arena_stats() and hk_arena_used(), nothing else. NULL: see enum hk_fault.
 * @large_pages: ask the platform for large pages in the arena's range. They save TLB misses
 *	and can stall for milliseconds when the system must compact memory for them.
 * @max_caches: most caches alive at once; 0: 1024, or fewer where the range is small.
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
};

/*
 * Size classes. Up to 1 KiB they step by 16 bytes, up to 32 KiB by an eighth of a power of two
 * (at most 12.5 % waste), up to 512 KiB by a quarter (20 %). What is larger is a large block of
 * its own, rounded up to 64 KiB.
 */
#define HK_SMALL_MAX 1024u
#define HK_EIGHTH_MAX 32768u
#define HK_CLASS_MAX 524288u
#define HK_CLASSES 121u	     /* classes 1 to 120 are sizes; 0 is a slab that holds no block */
#define HK_CLASS_LARGE 121u  /* a large block begins in this slab */
#define HK_CLASS_INSIDE 122u /* a large block that began before goes on in this slab */
#define HK_TOPS 123u
#define HK_SLAB_SHIFT 16
#define HK_MAGAZINE_SLOTS 32u

/**
 * struct hk_counters - what the arena did off the hit path, since it was created
 * @spare_swap: a miss that ended at the cache's own second magazine.
 * @depot_swap: a full magazine taken from the depot.
 * @slab_batch: a batch of blocks taken from slabs.
 * @new_slab: a run of slabs given to a class.
 * @new_superslab: a superslab used for the first time.
 * @large_alloc: a large block allocated.
 * @platform_call: calls of the platform, of whatever kind.
 * @magazine_to_depot: a full magazine put into the depot.
 * @depot_to_slab: a magazine's blocks, or a single block, returned to slabs.
 * @slab_emptied: a run of slabs given back by its class, all blocks free.
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
 *
 * Exact while no other thread works on the arena. Otherwise each class's live and cached
 * blocks may be off by at most two magazines per cache, and are never negative.
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
};

/**
 * hk_version() - the version of the library that is linked
 *
 * Return: as HK_VERSION. The inline functions make layouts part of the binary interface, so a
 * program must be compiled with the header of the very version that it runs with.
 */
HK_API unsigned hk_version(void);

/**
 * hk_error_name() - an error in words
 * @error: 0 or a negative enum hk_error.
 *
 * Return: a static string; "unknown error" for what is none.
 */
HK_API const char *hk_error_name(int error);

/**
 * hk_fault_name() - a fault in words
 * @fault: an enum hk_fault.
 *
 * Return: a static string; "unknown fault" for what is none.
 */
HK_API const char *hk_fault_name(enum hk_fault fault);

/**
 * hk_arena_create() - make an arena
 * @arena: receives it; NULL on failure.
 * @config: all choices; NULL for the defaults. Copied.
 *
 * Reserves the address range and commits a few pages of it. Everything that the arena will
 * ever use lies in that range, the struct itself too.
 *
 * Context: any thread; calls the platform. Return: 0, or HK_ERROR_ARGUMENT (a value that makes
 * no sense), HK_ERROR_PLATFORM (a platform without its functions or with an impossible page
 * size), HK_ERROR_ADDRESS_SPACE, HK_ERROR_MEMORY, HK_ERROR_LIMIT (limit below what an empty
 * arena needs, at most 64 KiB or two pages, whichever is more). On failure nothing is left.
 */
HK_API int hk_arena_create(struct hk_arena **arena, const struct hk_arena_config *config);

/**
 * hk_arena_reset() - free every block at once
 * @arena: the arena.
 *
 * The memory stays committed, ready for the next use; caches survive, empty. Takes time
 * proportional to the superslabs in use and to the caches, not to the blocks. Everything in a
 * magazine is forgotten, unchecked.
 *
 * Context: nothing else may run on the arena or its caches; makes no platform call.
 */
HK_API void hk_arena_reset(struct hk_arena *arena);

/**
 * hk_arena_destroy() - give everything back
 * @arena: the arena, or NULL. Its caches go with it.
 *
 * Blocks still live are reported: one HK_FAULT_LEAK with the number and the bytes of all, then
 * one for each of the first eight by class and address.
 *
 * Context: nothing else may run on the arena or its caches; calls the platform.
 */
HK_API void hk_arena_destroy(struct hk_arena *arena);

/**
 * hk_cache_create() - make a cache, a worker's private front of the arena
 * @arena: the arena.
 * @cache: receives it; NULL on failure.
 *
 * The struct takes less than 3 KiB of the arena; magazines are taken as classes are first
 * used, two for each.
 *
 * Context: any thread; takes a lock, may call the platform. Return: 0, HK_ERROR_LIMIT (too many
 * caches, or no byte left in the arena's limit) or HK_ERROR_MEMORY. The caller owns the cache
 * until hk_cache_destroy() or hk_arena_destroy().
 */
HK_API int hk_cache_create(struct hk_arena *arena, struct hk_cache **cache);

/**
 * hk_cache_flush() - return a cache's blocks to the arena
 * @cache: the cache.
 *
 * For a worker that goes idle: all blocks in its magazines go back to the slabs.
 *
 * Context: the cache's user; takes locks, makes no platform call.
 */
HK_API void hk_cache_flush(struct hk_cache *cache);

/**
 * hk_cache_destroy() - flush a cache and give it up
 * @cache: the cache, or NULL.
 *
 * Context: the cache's user; takes locks, makes no platform call.
 */
HK_API void hk_cache_destroy(struct hk_cache *cache);

/**
 * hk_arena_alloc() - allocate without a cache
 * @arena: the arena.
 * @size: bytes, 0 to PTRDIFF_MAX.
 *
 * For threads that own no cache. Takes a lock each time.
 *
 * Context: any thread; takes locks, may call the platform and on_oom. Return: a block, aligned
 * to 16 bytes, content undefined, the caller's until it is freed; or NULL.
 */
HK_API void *hk_arena_alloc(struct hk_arena *arena, size_t size) HK_MALLOC HK_ALLOC_SIZE(2);

/**
 * hk_arena_free() - free without a cache
 * @arena: the arena.
 * @ptr: a block of the arena, or NULL.
 *
 * Context: any thread; takes a lock, makes no platform call. A pointer that is no live block's
 * is reported and nothing is done.
 */
HK_API void hk_arena_free(struct hk_arena *arena, void *ptr);

/**
 * hk_arena_owns() - is this one of the arena's addresses?
 * @arena: the arena.
 * @ptr: any pointer.
 *
 * Context: any thread, lock-free. Return: true when @ptr points into slabs that hold blocks of
 * the arena, be the block live or free.
 */
HK_API bool hk_arena_owns(const struct hk_arena *arena, const void *ptr);

/**
 * hk_usable_size() - the bytes that a block really has
 * @arena: the block's arena.
 * @ptr: a live block, or NULL.
 *
 * Context: any thread, lock-free. Return: bytes, at least the size asked for; 0 for NULL and
 * for what is no block's start.
 */
HK_API size_t hk_usable_size(const struct hk_arena *arena, const void *ptr);

/**
 * hk_good_size() - what a request really gets
 * @size: bytes.
 *
 * Return: hk_usable_size() of a block of @size bytes; 0 when @size is beyond PTRDIFF_MAX.
 */
HK_API size_t hk_good_size(size_t size);

/**
 * hk_arena_stats() - what the arena holds
 * @arena: the arena.
 * @stats: filled in; about 13 KiB.
 *
 * Context: any thread; takes locks one after the other, makes no platform call.
 */
HK_API void hk_arena_stats(const struct hk_arena *arena, struct hk_stats *stats);

/**
 * hk_arena_used() - bytes taken from the platform, metadata included
 * @arena: the arena.
 *
 * Context: any thread; one load. Return: what hk_stats.committed_bytes says.
 */
HK_API size_t hk_arena_used(const struct hk_arena *arena);

/**
 * hk_arena_check() - check every invariant of every layer
 * @arena: the arena.
 *
 * Takes time proportional to the arena's size. Each broken invariant is reported as
 * HK_FAULT_CORRUPT.
 *
 * Context: nothing else may run on the arena or its caches; no platform call. Return: the
 * number of broken invariants.
 */
HK_API size_t hk_arena_check(struct hk_arena *arena);

/**
 * hk_arena_trim() - give free memory back to the platform
 * @arena: the arena.
 * @keep_bytes: stop when no more than this is committed.
 * @budget_ns: stop when this time is over, 0 for no bound; the clock is read after every
 *	512 KiB. Without a clock in the platform each call with a bound does one such step.
 *
 * Blocks in the depot go back to their slabs first; those in caches are their users' (see
 * hk_cache_flush()). Then free slabs are given back, from the end of the range. After a reset
 * or when nothing is in use, metadata too: an arena that was reset and trimmed to 0 keeps what
 * an arena never used has.
 *
 * Context: any thread, also while others allocate; calls the platform, no lock held meanwhile.
 * Return: bytes given back.
 */
HK_API size_t hk_arena_trim(struct hk_arena *arena, size_t keep_bytes, uint64_t budget_ns);

/**
 * hk_zalloc() - allocate bytes that are zero
 * @cache: the caller's cache.
 * @size: bytes, 0 to PTRDIFF_MAX.
 *
 * What the platform just delivered zeroed is not cleared again.
 *
 * Context, return: as hk_alloc().
 */
HK_API void *hk_zalloc(struct hk_cache *cache, size_t size) HK_MALLOC HK_ALLOC_SIZE(2);

/**
 * hk_alloc_aligned() - allocate at an aligned address
 * @cache: the caller's cache.
 * @size: bytes, 0 to PTRDIFF_MAX.
 * @align: a power of two, any; below 16 it is 16.
 *
 * The block is freed by hk_free(), not by hk_free_sized().
 *
 * Context: as hk_alloc(). Return: a block at a multiple of @align, or NULL: no memory, or no
 * room in the range for such an address, or @align is no power of two (HK_FAULT_ARGUMENT).
 */
HK_API void *hk_alloc_aligned(struct hk_cache *cache, size_t size, size_t align)
	HK_MALLOC HK_ALLOC_SIZE(2) HK_ALLOC_ALIGN(3);

/**
 * hk_realloc() - change a block's size
 * @cache: the caller's cache.
 * @ptr: a live block of the cache's arena; NULL allocates.
 * @size: bytes, 0 to PTRDIFF_MAX; 0 shrinks to the smallest block.
 *
 * In place where the size class stays, or where a large block shrinks or finds free slabs
 * behind it. Elsewhere a new block gets the content and the old one is freed. Shrinking never
 * fails. The result is aligned to 16 bytes; see hk_realloc_aligned().
 *
 * Context: as hk_alloc(). Return: the block, or NULL: the old one is then as it was.
 */
HK_API void *hk_realloc(struct hk_cache *cache, void *ptr, size_t size)
	HK_MUST_USE HK_ALLOC_SIZE(3);

/**
 * hk_realloc_aligned() - change a block's size and keep it aligned
 * @cache: the caller's cache.
 * @ptr: a live block of the cache's arena; NULL allocates.
 * @size: bytes, 0 to PTRDIFF_MAX.
 * @align: a power of two; the block need not have had that alignment before.
 *
 * Context, return: as hk_realloc().
 */
HK_API void *hk_realloc_aligned(struct hk_cache *cache, void *ptr, size_t size, size_t align)
	HK_MUST_USE HK_ALLOC_SIZE(3) HK_ALLOC_ALIGN(4);

/**
 * hk_expand() - change a block's size in place or not at all
 * @cache: the caller's cache.
 * @ptr: a live block of the cache's arena.
 * @size: bytes.
 *
 * Context: as hk_alloc(). Return: true when the block now holds @size bytes. A @size that the
 * block holds already is true and changes nothing.
 */
HK_API bool hk_expand(struct hk_cache *cache, void *ptr, size_t size);

/**
 * hk_alloc_bulk() - allocate many blocks of one size
 * @cache: the caller's cache.
 * @size: bytes of each.
 * @count: blocks.
 * @blocks: receives them; all NULL when the call fails.
 *
 * Context: as hk_alloc(). Return: true with all, or false with none.
 */
HK_API bool hk_alloc_bulk(struct hk_cache *cache, size_t size, size_t count, void **blocks)
	HK_MUST_USE;

/**
 * hk_free_bulk() - free many blocks
 * @cache: the caller's cache.
 * @count: blocks.
 * @blocks: the blocks, of whatever sizes; NULL among them is skipped.
 *
 * Context: as hk_free().
 */
HK_API void hk_free_bulk(struct hk_cache *cache, size_t count, void **blocks);

/* The inline functions below, as symbols for other languages. */
HK_API void *hk_alloc_fn(struct hk_cache *cache, size_t size) HK_MALLOC HK_ALLOC_SIZE(2);
HK_API void hk_free_fn(struct hk_cache *cache, void *ptr);
HK_API void hk_free_sized_fn(struct hk_cache *cache, void *ptr, size_t size);

/* Where the inline functions go when the magazine at hand cannot serve. Not for hosts. */
HK_API void *hk_alloc_slow(struct hk_cache *cache, size_t size);
HK_API void hk_free_slow(struct hk_cache *cache, void *ptr);
HK_API void hk_free_sized_slow(struct hk_cache *cache, void *ptr, size_t size);

/**
 * struct hk_cache - the part of a cache that the inline functions use; private to them
 * @base: address of the arena's first slab.
 * @bound: slabs whose entry in @classes may be read.
 * @classes: size class of each slab, one byte each.
 * @top: per class, the slot of the topmost block in the loaded magazine.
 *
 * A magazine is an array of HK_MAGAZINE_SLOTS pointers, aligned to its own size, with a NULL
 * below its first block: empty when *top is NULL, full when top + 1 is aligned to that size.
 * Where the NULL lies sets the capacity. Classes without a magazine share a constant one, empty
 * and full at once. The statistics of other threads read @top, hence the relaxed accesses.
 */
struct hk_cache {
	uintptr_t base;
	size_t bound;
	const unsigned char *classes;
	void **top[HK_TOPS];
};

#if !defined(__GNUC__)
HK_INLINE unsigned hk_log2(uint64_t x)
{
	unsigned n = 0;

	while (x >>= 1)
		n++;
	return n;
}
#endif

/**
 * hk_size_class() - the class of a size, 1 to 120
 * @size: bytes, 1 to HK_CLASS_MAX.
 *
 * Return: the class; folds to a constant for a constant size.
 */
HK_INLINE unsigned hk_size_class(size_t size)
{
	size_t last = size - 1;
	unsigned log;

	if (size <= HK_SMALL_MAX)
		return (unsigned)(last >> 4) + 1;
	log = HK_LOG2(last);
	if (size <= HK_EIGHTH_MAX)
		return 65u + (log - 10) * 8 + (unsigned)((last >> (log - 3)) & 7);
	return 105u + (log - 15) * 4 + (unsigned)((last >> (log - 2)) & 3);
}

/**
 * hk_alloc() - allocate
 * @cache: the caller's cache.
 * @size: bytes, 0 to PTRDIFF_MAX; 0 gives a block of its own all the same.
 *
 * Context: the cache's user. A hit takes no lock and makes no system call; a miss takes locks
 * and may call the platform and on_oom. Return: a block, aligned to 16 bytes, content
 * undefined, the caller's until it is freed; or NULL.
 */
HK_ALIGNED_16 HK_MALLOC HK_ALLOC_SIZE(2)
	HK_INLINE void *hk_alloc(struct hk_cache *cache, size_t size)
{
	size_t index = (size - 1) >> 4;
	void **top;
	void *block;

	if (HK_CONSTANT(size) && size > HK_SMALL_MAX && size <= HK_CLASS_MAX)
		index = hk_size_class(size) - 1;
	else if (HK_UNLIKELY(index >= HK_SMALL_MAX / 16))
		return hk_alloc_slow(cache, size);
	top = HK_LOAD_TOP(&cache->top[index + 1]);
	block = *top;
	if (HK_UNLIKELY(!block))
		return hk_alloc_slow(cache, size);
	HK_STORE_TOP(&cache->top[index + 1], top - 1);
	return block;
}

/**
 * hk_free() - free a block
 * @cache: the caller's cache, of the block's arena.
 * @ptr: a live block, whoever allocated it; or NULL.
 *
 * Context: the cache's user. A hit takes no lock; a miss takes locks and makes no platform
 * call. Never needs memory. A pointer outside the arena is reported at once, another misuse
 * when the block reaches its slab, see enum hk_fault.
 */
HK_INLINE void hk_free(struct hk_cache *cache, void *ptr)
{
	size_t slab = ((uintptr_t)ptr - cache->base) >> HK_SLAB_SHIFT;
	unsigned size_class;
	void **next;

	if (HK_UNLIKELY(slab >= cache->bound)) {
		hk_free_slow(cache, ptr);
		return;
	}
	size_class = cache->classes[slab];
	next = HK_LOAD_TOP(&cache->top[size_class]) + 1;
	if (HK_UNLIKELY(((uintptr_t)next & (HK_MAGAZINE_SLOTS * sizeof(void *) - 1)) == 0)) {
		hk_free_slow(cache, ptr);
		return;
	}
	*next = ptr;
	HK_STORE_TOP(&cache->top[size_class], next);
}

/**
 * hk_free_sized() - free a block whose size is known
 * @cache: the caller's cache, of the block's arena.
 * @ptr: a live block, or NULL; not one of hk_alloc_aligned() unless reallocated since.
 * @size: the size last given to the allocation or reallocation, or to an hk_expand() that made
 *	the block larger.
 *
 * Saves looking up the block's class. A hit checks the range only; a miss, and with HK_DEBUG
 * set to 1 every call, checks the size too: a wrong one is HK_FAULT_ARGUMENT, and the block
 * stays live.
 *
 * Context: as hk_free().
 */
HK_INLINE void hk_free_sized(struct hk_cache *cache, void *ptr, size_t size)
{
	size_t index = (size - 1) >> 4;
	void **next;

	if (HK_CONSTANT(size) && size > HK_SMALL_MAX && size <= HK_CLASS_MAX)
		index = hk_size_class(size) - 1;
	else if (HK_UNLIKELY(index >= HK_SMALL_MAX / 16)) {
		hk_free_sized_slow(cache, ptr, size);
		return;
	}
	if (HK_DEBUG ||
	    HK_UNLIKELY(((uintptr_t)ptr - cache->base) >> HK_SLAB_SHIFT >= cache->bound)) {
		hk_free_sized_slow(cache, ptr, size);
		return;
	}
	next = HK_LOAD_TOP(&cache->top[index + 1]) + 1;
	if (HK_UNLIKELY(((uintptr_t)next & (HK_MAGAZINE_SLOTS * sizeof(void *) - 1)) == 0)) {
		hk_free_sized_slow(cache, ptr, size);
		return;
	}
	*next = ptr;
	HK_STORE_TOP(&cache->top[index + 1], next);
}

#ifdef __cplusplus
}
#endif

#endif /* HK_HAKMEM_H */
