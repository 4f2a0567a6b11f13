/* SPDX-License-Identifier: MIT */
/*
 * The platform: the only way from hakmem to the operating system.
 *
 * An arena reaches memory, time and sleep through one struct of functions and through nothing
 * else. A host that brings its own memory fills the struct itself; hk_platform_system() and
 * hk_platform_fixed() fill it for the two platforms that come with the library.
 *
 * The contract, for whoever writes one (tests/contract.c runs it against any platform):
 *
 * - Every function may be called from any thread, for disjoint ranges at the same time, and
 *   must not call back into the arena.
 * - A range handed to commit, decommit, populate, move or large_pages lies inside one
 *   reservation; its address and size are multiples of page_size.
 * - A function that fails has changed nothing that matters: see each for what may be left.
 * - What a platform cannot do at all it leaves NULL, where the field says optional.
 */
#ifndef HK_PLATFORM_H
#define HK_PLATFORM_H

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

/**
 * enum hk_platform_flag - what a platform can promise
 * @HK_PLATFORM_ZEROED: memory reads as zero after its first commit, and after a commit that
 *	follows a decommit. Without it the arena clears what it needs cleared.
 * @HK_PLATFORM_OPEN: memory can be accessed whether committed or not, and commit neither
 *	fails nor costs anything (a fixed region). The arena then leaves no inaccessible gaps.
 * @HK_PLATFORM_CHARGED: what is committed counts against what the system has, touched or not
 *	(Windows; Linux under overcommit mode 2). The arena then commits no more than it needs,
 *	in smaller steps and more calls.
 */
enum hk_platform_flag {
	HK_PLATFORM_ZEROED = 1,
	HK_PLATFORM_OPEN = 2,
	HK_PLATFORM_CHARGED = 4,
};

/**
 * struct hk_platform - the functions through which an arena reaches the system
 * @context: handed to every function, never looked at.
 * @page_size: bytes; unit of commit and decommit: a power of two, 4 KiB to 64 KiB.
 * @granularity: bytes; unit of reserve: a power of two, at least @page_size.
 * @flags: enum hk_platform_flag, or'ed.
 * @reserve: Takes @size bytes of address space (a multiple of granularity) at an address that
 *	is a multiple of @align (a power of two, at least granularity). Returns NULL when
 *	there is none; nothing is then left behind. Touching the range before commit is a
 *	fault, unless HK_PLATFORM_OPEN. Ranges that begin a multiple of 256 MiB apart slow
 *	down a worker that uses several arenas: see hk_platform_distance().
 * @commit: Makes the range readable and writable. Committing what is committed already is
 *	allowed and keeps its content. Returns 0, or non-zero when memory is short: the range
 *	is then as good as before, though a part of it may be accessible.
 * @decommit: Gives the range's memory back, the address space stays reserved. Returns 0, or
 *	non-zero on failure: the range is then still committed, its content undefined.
 *	Reading a decommitted range may fault or return anything.
 * @release: Gives a whole reservation back: the address and size that reserve was called
 *	with. Whatever of it is still committed goes with it. Cannot fail.
 * @now_ns: A monotonic clock in nanoseconds. Optional: without it, work that is bounded by
 *	time does one small step a call.
 * @populate: Optional. Faults a committed range in, so that the first touch of a page is no
 *	page fault. Content is kept, whatever other threads write there, also while @move moves
 *	pages of the range. Returns 0 or non-zero, having done what it could.
 * @move: Optional. Moves the pages of @from to the start of @to, which is as large or larger; two
 *	disjoint ranges of one reservation, both committed before and after. @to then begins with
 *	the content of @from; what else it has, and what @from has, is undefined, so that
 *	exchanging pages will do. Returns 0, or non-zero: nothing moved, and what @to has is
 *	undefined.
 * @large_pages: Optional. Asks for large pages in the range (@enable) or rules them out.
 *	Advice: returns 0 or non-zero, and non-zero is no failure.
 * @park: Optional, with @wake: sleeps while *@word equals @value, as a futex does; may return
 *	at any time. Without them a waiting thread spins.
 *	With fixed priorities on one core that never ends: such a host supplies both.
 * @wake: Wakes one thread that parks on @word.
 * @address_space: Optional; bytes: the most that reserve can ever grant. An arena whose config
 *	names no size takes this much where it is less than the default.
 * @reserve_large: Optional: as @reserve, but all of the range is made of large pages and
 *	committed for as long as it is reserved. For systems that cannot do with large pages what
 *	@large_pages asks for. Its content is undefined. Of the functions above, only @release is
 *	called for the range and @populate for parts of it. Returns NULL where the system has none
 *	or the host may not have them: the arena then calls @reserve.
 * @decommit_large: Optional: as @decommit, for ranges in which @large_pages was asked for, so that
 *	what is committed again may have large pages again. Without it @decommit is called.
 *
 * Fields are added at the end; zero means absent.
 */
struct hk_platform {
	void *context;
	size_t page_size;
	size_t granularity;
	unsigned flags;
	void *(*reserve)(void *context, size_t size, size_t align);
	int (*commit)(void *context, void *ptr, size_t size);
	int (*decommit)(void *context, void *ptr, size_t size);
	void (*release)(void *context, void *ptr, size_t size);
	uint64_t (*now_ns)(void *context);
	int (*populate)(void *context, void *ptr, size_t size);
	int (*move)(void *context, void *from, size_t from_size, void *to, size_t to_size);
	int (*large_pages)(void *context, void *ptr, size_t size, bool enable);
	void (*park)(void *context, uint32_t *word, uint32_t value);
	void (*wake)(void *context, uint32_t *word);
	size_t address_space;
	void *(*reserve_large)(void *context, size_t size, size_t align);
	int (*decommit_large)(void *context, void *ptr, size_t size);
};

/**
 * hk_platform_distance() - what a reserve should leave free between two ranges of @size bytes
 * @size: bytes of each.
 *
 * Systems put mappings side by side, so that arenas of 16 GiB would lie just that far apart, and
 * whatever they have at one offset would agree in the lower bits of its address. On an AMD EPYC a
 * worker that used two of them in turn was 0.6 times as fast so; that fits what is published of
 * its first cache, which guesses by bits 12 to 27 where a line is. (Lipp and others, "Take A Way",
 * 2020.) With this much between them ranges of one size begin an odd multiple of 2 MiB apart.
 *
 * Context: any. Return: bytes, 2 or 4 MiB; 0 where addresses have 32 bits, which are too few.
 */
static inline size_t hk_platform_distance(size_t size)
{
	const size_t unit = (size_t)2 << 20;
	size_t units = size / unit + (size % unit != 0);

	return sizeof(void *) == 8 ? unit << units % 2 : 0;
}

/**
 * hk_platform_system() - the operating system this library was built for
 * @platform: filled in; the caller owns it. Nothing is allocated, nothing need be released.
 *
 * What an arena uses when its config names no platform. Reads the page size and how the
 * system accounts for memory; makes a few system calls, takes no lock.
 *
 * Context: any thread. Return: 0, or HK_ERROR_PLATFORM when the system's page size is none
 * that the library can work with.
 */
HK_API int hk_platform_system(struct hk_platform *platform);

/**
 * struct hk_fixed_region - memory that the host already has, for hk_platform_fixed()
 * @memory: first byte; any alignment (up to 64 KiB is lost to alignment).
 * @size: bytes.
 * @taken: private: whether an arena has the region; zero to begin with.
 *
 * The host owns the struct and the memory, and keeps both until the arena is destroyed.
 */
struct hk_fixed_region {
	void *memory;
	size_t size;
	uint32_t taken;
};

/**
 * hk_platform_fixed() - a platform that is one given region and makes no system call
 * @platform: filled in; the caller owns it.
 * @region: what the arena may use, and all that it will ever use.
 *
 * Serves one reservation at a time: a second arena over a region that is taken gets
 * HK_ERROR_ADDRESS_SPACE. With such a platform, set hk_arena_config.address_space to 0
 * (all of the region) or to what is to be used of it. There is no clock, no protection and
 * no parking: a thread that waits for a lock spins. Fill in now_ns, park and wake afterwards
 * where the host has them.
 *
 * Context: any thread. Return: 0, or HK_ERROR_ARGUMENT when the region is NULL or empty.
 */
HK_API int hk_platform_fixed(struct hk_platform *platform, struct hk_fixed_region *region);

#ifdef __cplusplus
}
#endif

#endif /* HK_PLATFORM_H */
