/* SPDX-License-Identifier: MIT */
/*
 * Work on the host's time: what an arena makes ready ahead of need, and what it gives back. Part of
 * hakmem.h, which includes it.
 *
 * Nothing of this happens by itself. A host that wants frames without hitches calls, at load time,
 * hk_arena_prewarm() and hk_cache_prefill(), and between frames hk_arena_maintain().
 */
#ifndef HK_MAINTAIN_H
#define HK_MAINTAIN_H

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * hk_cache_prefill() - set blocks aside that later allocations are sure to get
 * @cache: the cache.
 * @size: bytes of each, 0 to PTRDIFF_MAX.
 * @count: blocks to be set aside by then, for all sizes of its class.
 *
 * The next @count hk_alloc() or hk_zalloc() of @size through this cache succeed without the
 * platform, whatever is used up, is freed, or others do. A flush and a reset end it.
 *
 * Context: the cache's user; takes locks, may call the platform and on_oom. Return: 0,
 * HK_ERROR_ARGUMENT, or another error: no memory, and no more is set aside than was before.
 */
HK_API int hk_cache_prefill(struct hk_cache *cache, size_t size, size_t count);

/**
 * hk_arena_prewarm() - have memory committed and faulted in
 * @arena: the arena.
 * @bytes: what the arena is to have committed in all, as hk_arena_used() tells; with less, or 0,
 *	nothing is added; SIZE_MAX: as much as range and limits allow.
 *
 * Commits free slabs, the lowest, with their metadata and some magazines, until @bytes are
 * committed, then faults in all that the arena has committed, used or not. As long as the arena
 * needs no more, allocations make no platform call and the first touch of a page is no fault.
 * (Where the platform has no populate, pages are committed and not faulted in.) A limit that
 * leaves less than a slab of 64 KiB open may be asked for. From then on hk_arena_maintain() leaves
 * the arena that many bytes; hk_arena_trim() does not.
 *
 * Context: any thread, also while others allocate; for load time: takes as long as the system takes
 * for the pages, and who needs a magazine or a cache meanwhile may wait for it. Return: 0;
 * HK_ERROR_LIMIT, HK_ERROR_MEMORY or HK_ERROR_ADDRESS_SPACE: what was committed by then stays so.
 * HK_ERROR_MEMORY also where pages could not be faulted in.
 */
HK_API int hk_arena_prewarm(struct hk_arena *arena, size_t bytes);

/**
 * hk_arena_maintain() - do some of the arena's housekeeping
 * @arena: the arena.
 * @budget_ns: stop when this time is over, 0 for no bound; the clock is read after every 16 KiB
 *	(or page) faulted in, 256 KiB given back or magazine moved, and no step begins in the last
 *	50 us, or quarter of the time. At least one step is done. Without a
 *	clock in the platform a call with a bound does one step.
 *
 * For a thread that has time, once a frame or so. In this order, as far as there is need:
 *
 * - magazines are filled for the depot, as many as would have had the blocks that came from the
 *	slabs since the last call;
 * - slabs are committed and faulted in, until as many are free as were taken into use between two
 *	calls, an eighth of all at most (none where the platform charges for commits);
 * - of caches that rest (hk_cache_rest()) since hk_arena_config.maintain_delay calls, the
 *	magazines go to the depot or their blocks to the slabs;
 * - once in so many calls it is seen what the depot and the slabs had at hand and was never needed
 *	since the last time: that goes back, magazines to the slabs, slabs to the platform. So
 *	memory that is emptied is given back after one to two times that many calls.
 *
 * Context: any thread, also while others allocate; one at a time, a second one returns at once.
 * Takes locks, each for a step at most, calls the platform and may call the callbacks. Return:
 * true when time was over before the work was.
 */
HK_API bool hk_arena_maintain(struct hk_arena *arena, uint64_t budget_ns);

/**
 * hk_cache_rest() - a worker goes idle, perhaps for long
 * @cache: its cache.
 *
 * From now on hk_arena_maintain() may take the cache's magazines, once it rests for long. Until
 * then they are as they were: the next call that needs one takes them all up again, which costs
 * some 20 ns for each and a lock. What hk_cache_prefill() set aside stays.
 *
 * Context: the cache's user; takes a lock, makes no platform call.
 */
HK_API void hk_cache_rest(struct hk_cache *cache);

/**
 * hk_arena_trim() - give free memory back to the platform
 * @arena: the arena.
 * @keep_bytes: stop when no more than this is committed.
 * @budget_ns: stop when this time is over, 0 for no bound; the clock is read after every
 *	512 KiB. Without a clock in the platform each call with a bound does one such step.
 *
 * Each call of the platform interrupts the processors that run other threads: a call without a
 * bound makes a sixteenth of the calls, 8 MiB at once. So a host that gives much back over several
 * frames is better off with @keep_bytes some 32 MiB below hk_arena_used() in each, and no bound.
 *
 * Blocks in the depot go back to their slabs first; those in caches are their users' (see
 * hk_cache_flush()). Then free slabs are given back, from the end of the range, and metadata
 * with them. The class table and the magazines stay until a reset, since other threads may look
 * at them: an arena that was reset and trimmed to 0 keeps what an arena never used has.
 *
 * Context: any thread, also while others allocate; calls the platform. While slabs are given
 * back no lock is held that an allocation needs; for metadata, a few calls at the end, one is,
 * and where the platform charges for commits a class's, for slabs that its runs do not use yet.
 * Return: bytes given back; 0: there is no more to give; 1: a call with a bound came to nothing
 * yet, since blocks of the depot, or metadata, took its time: there may be more.
 */
HK_API size_t hk_arena_trim(struct hk_arena *arena, size_t keep_bytes, uint64_t budget_ns);

#ifdef __cplusplus
}
#endif

#endif /* HK_MAINTAIN_H */
