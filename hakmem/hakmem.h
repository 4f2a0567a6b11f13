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

#include "budget.h"
#include "maintain.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What the compiler may know of a function; each has a fallback that says nothing.
 *
 * HK_ALLOC_SIZE tells it the size that was asked for. A host that writes beyond that, as
 * hk_usable_size() and hk_expand() allow, while its compiler checks object sizes
 * (_FORTIFY_SOURCE), defines HK_ALLOC_SIZE(n) as nothing before it includes this header.
 */
#if !defined(HK_ALLOC_SIZE) && defined(__GNUC__)
#define HK_ALLOC_SIZE(n) __attribute__((alloc_size(n)))
#elif !defined(HK_ALLOC_SIZE)
#define HK_ALLOC_SIZE(n)
#endif

#if defined(__GNUC__)
#define HK_LIKELY(x) __builtin_expect(!!(x), 1)
#define HK_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define HK_CONSTANT(x) __builtin_constant_p(x)
#define HK_INLINE static inline __attribute__((always_inline, unused))
#define HK_NOINLINE __attribute__((noinline))
#define HK_MALLOC __attribute__((malloc, warn_unused_result))
#define HK_MUST_USE __attribute__((warn_unused_result))
#define HK_ALLOC_ALIGN(n) __attribute__((alloc_align(n)))
#define HK_ALIGNED_16 __attribute__((assume_aligned(16)))
#define HK_LOAD_TOP(slot) __atomic_load_n((slot), __ATOMIC_RELAXED)
#define HK_STORE_TOP(slot, top) __atomic_store_n((slot), (top), __ATOMIC_RELAXED)
#define HK_LOG2(x) (63u - (unsigned)__builtin_clzll(x))
/* What the compiler knows of a variable's value ends here; no instruction. See hk_alloc(). */
#define HK_FORGET(variable) __asm__("" : "+r"(variable))
#else
#define HK_LIKELY(x) (x)
#define HK_UNLIKELY(x) (x)
#define HK_CONSTANT(x) 0
#define HK_NOINLINE
#define HK_MALLOC
#define HK_MUST_USE
#define HK_ALLOC_ALIGN(n)
#define HK_ALIGNED_16
#define HK_LOAD_TOP(slot) (*(void **volatile *)(slot))
#define HK_STORE_TOP(slot, top) (*(void **volatile *)(slot) = (top))
#define HK_LOG2(x) hk_log2(x)
#define HK_FORGET(variable) ((void)0)
#endif

#if !defined(HK_INLINE) && defined(_MSC_VER) && !defined(__clang__)
#define HK_INLINE static __forceinline
#elif !defined(HK_INLINE)
#define HK_INLINE static inline
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
 * hk_stage_name() - a stage in words
 * @stage: an enum hk_stage.
 *
 * Return: a static string; "unknown stage" for what is none.
 */
HK_API const char *hk_stage_name(enum hk_stage stage);

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
 * hk_arena_set_limits() - change an arena's own limits
 * @arena: the arena.
 * @limit: bytes, 0: none; as hk_budget_set_limits(). Its budget's limits stay what they are.
 * @soft_limit: bytes, at most @limit; 0: none.
 *
 * Context: any thread, the callbacks too; takes no lock. Return: 0 or HK_ERROR_ARGUMENT.
 */
HK_API int hk_arena_set_limits(struct hk_arena *arena, size_t limit, size_t soft_limit);

/**
 * hk_arena_reset() - free every block at once
 * @arena: the arena.
 *
 * The memory stays committed, ready for the next use; caches survive, empty, and still know how
 * the classes were used: once they do, the same calls after each reset give the same blocks. Takes
 * time proportional to the superslabs in use and to the caches, not to the blocks. Everything in a
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
 * used, two for each. A magazine holds back at most 32 KiB of free blocks, of those beyond 2 KiB
 * 8 KiB or one block; where many blocks of a class are in use a 64th of these; where much memory is
 * in use a 4096th of it; and never more than 512 KiB. Blocks beyond 32 KiB are held back only where
 * many of their class are in use: all caches of the arena together hold about a quarter of these,
 * and none more than two magazines of 2 MiB; half as many, and of 512 KiB, where the range or the
 * limit is about 128 MiB or less.
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
 * hk_cache_destroy() - give a cache up
 * @cache: the cache, or NULL.
 *
 * Its magazines go to the depot, as far as that has room, for the next cache to begin with; the
 * blocks of the others to the slabs. After hk_cache_flush() there are none.
 *
 * Context: the cache's user; takes locks, makes no platform call.
 */
HK_API void hk_cache_destroy(struct hk_cache *cache);

/**
 * hk_cache_stage() - how far down the cache's calls went since this was last asked
 * @cache: the cache.
 *
 * For a host that times its calls: what did the slow one do? Hits leave no trace, so that
 * asking after each call costs them nothing. Of calls that several threads make in the arena at
 * the same time and that go to the slabs, one may be told the deeper stage of another; it is
 * never told a shallower one than its own.
 *
 * Context: the cache's user; lock-free. Return: the deepest stage; HK_STAGE_HIT when all calls
 * hit, and until the next that does not.
 */
HK_API enum hk_stage hk_cache_stage(struct hk_cache *cache);

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
 * All of it may be used; a compiler that checks object sizes must be told, see HK_ALLOC_SIZE.
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
 * Takes time proportional to the arena's size. A layer that has broken ones is reported as
 * HK_FAULT_CORRUPT, with their number in the report's count.
 *
 * Context: nothing else may run on the arena or its caches; no platform call. Return: the
 * number of broken invariants.
 */
HK_API size_t hk_arena_check(struct hk_arena *arena);

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
 * In place where the size class stays, or where a block of more than 512 KiB shrinks, to no less
 * than that, or finds free slabs behind it. Elsewhere a new block gets the content and the old one
 * is freed. Shrinking never fails. The result is aligned to 16 bytes; see hk_realloc_aligned().
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
 * The block is freed by hk_free(), not by hk_free_sized().
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
 * A compiler that checks object sizes must not know the old one: see HK_ALLOC_SIZE.
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
 * @top: per class, the slot of the topmost block in the loaded magazine. First, so that a class
 *	addresses its entry without a sum: hk_free() has one instruction less.
 * @base: address of the arena's first slab.
 * @bound: slabs whose entry in @classes may be read.
 * @classes: size class of each slab, one byte each.
 *
 * A magazine is an array of HK_MAGAZINE_SLOTS pointers, aligned to its own size, with a NULL
 * below its first block: empty when *top is NULL, full when top + 1 is aligned to that size.
 * Where the NULL lies sets the capacity. Classes without a magazine share a constant one, empty
 * and full at once. The statistics of other threads read @top, hence the relaxed accesses.
 */
struct hk_cache {
	void **top[HK_TOPS];
	uintptr_t base;
	size_t bound;
	const unsigned char *classes;
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
 * hk_size_class() - the class of a size, 1 to 128
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
	if (size <= HK_QUARTER_MAX)
		return 105u + (log - 15) * 4 + (unsigned)((last >> (log - 2)) & 3);
	return 113u + (unsigned)(last >> HK_SLAB_SHIFT);
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
	/* else gcc 12 loads @top into the register of the result, and moves the block there */
	HK_FORGET(block);
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
	size_t size_class;
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
	/* else gcc 12 keeps the entry's address, which takes an instruction to form */
	HK_FORGET(size_class);
	*next = ptr;
	HK_STORE_TOP(&cache->top[size_class], next);
}

/**
 * hk_free_sized() - free a block whose size is known
 * @cache: the caller's cache, of the block's arena.
 * @ptr: a live block, or NULL; not one of hk_alloc_aligned() or hk_realloc_aligned(), unless
 *	hk_realloc() changed it since.
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

	/* larger ones may have been resized where they are */
	if (HK_CONSTANT(size) && size > HK_SMALL_MAX && size <= HK_QUARTER_MAX)
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
