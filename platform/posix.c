/* SPDX-License-Identifier: MIT */
/*
 * The platform for POSIX systems with anonymous mmap: Linux, macOS, the BSDs.
 *
 * A reservation is one inaccessible mapping. Commit makes a part of it accessible. Decommit
 * gives the pages back and leaves the part accessible, so that the next commit of it finds
 * nothing to do and the mapping is not split; except
 *
 * - under overcommit mode 2 of Linux, where what is accessible is charged, touched or not, and
 *   only an inaccessible mapping put in its place ends the charge;
 * - on other systems, where MADV_DONTNEED may keep the content.
 *
 * Which of the two is in the platform's context, as a number: there is no other state.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <sys/uio.h>
#endif

#include <hakmem/hakmem.h>
#include <platform/platform.h>

#define PAGE_SIZE_MIN 4096u
#define PAGE_SIZE_MAX 65536u

#define CONTEXT_ADVISE ((void *)0) /* decommit advises the system */
#define CONTEXT_REMAP ((void *)1)  /* decommit puts an inaccessible mapping in the place */

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif

#define MAP_RESERVE (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

/* Kernels have them before C libraries do. */
#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif

#if defined(__linux__) && !defined(MREMAP_DONTUNMAP)
#define MREMAP_DONTUNMAP 4 /* 5.7 */
#endif

#if defined(__linux__) && !defined(SYS_futex)
#define SYS_futex SYS_futex_time64 /* 32-bit systems that never had another */
#endif

/* As in linux/futex.h, which is not everywhere where Linux is. */
#define FUTEX_WAIT_PRIVATE (0 | 128)
#define FUTEX_WAKE_PRIVATE (1 | 128)

/*
 * Where a range of 2 MiB or more goes by one advice, newer kernels (PT_RECLAIM, 6.14) free its page
 * tables with it, some of them later, in an interrupt of whoever runs then: 80 to 130 us in the
 * middle of any call, twice after each level that `workload frames --latency` unloads. The tables
 * of smaller ranges stay, 4 KiB for 2 MiB. As parts of one call these interrupt other processors
 * once, not once each (6.18; not the first kernels that take them). An older one does not know the
 * thread's name for itself, and says EBADF. Large pages would be split by parts.
 */
#define ADVISE_SELF (-10000) /* PIDFD_SELF_THREAD, 6.15 */
#define ADVISE_PART (((size_t)2 << 20) - PAGE_SIZE_MAX)
#define ADVISE_PARTS 64

#if defined(__linux__)

static int posix_large_pages(void *context, void *ptr, size_t size, bool enable)
{
	(void)context;
	return madvise(ptr, size, enable ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

/*
 * Where large pages are on for all, one touched byte would cost 2 MiB that no budget knows of.
 * A kernel without large pages refuses the advice, rightly.
 */
static void advise_small_pages(void *ptr, size_t size)
{
	madvise(ptr, size, MADV_NOHUGEPAGE);
}

#if defined(SYS_process_madvise)

/* Return: whether all is given back; not where the kernel is older, or refuses. */
static bool advise_parts(unsigned char *ptr, size_t size)
{
	struct iovec parts[ADVISE_PARTS];
	unsigned long count;
	size_t asked, part;

	for (; size; ptr += asked, size -= asked) {
		asked = 0;
		for (count = 0; count < ADVISE_PARTS && asked < size; count++) {
			part = size - asked < ADVISE_PART ? size - asked : ADVISE_PART;
			parts[count].iov_base = ptr + asked;
			parts[count].iov_len = part;
			asked += part;
		}
		if (syscall(SYS_process_madvise, ADVISE_SELF, parts, count, MADV_DONTNEED, 0) !=
		    (long)asked)
			return false;
	}
	return true;
}

#else

/* Headers before Linux 5.10. */
static bool advise_parts(unsigned char *ptr, size_t size)
{
	(void)ptr;
	(void)size;
	return false;
}

#endif

/* Return: 0 or an errno. */
static int advise_decommit(void *ptr, size_t size, bool large)
{
	if (!large && size > ADVISE_PART && advise_parts(ptr, size))
		return 0;
	return madvise(ptr, size, MADV_DONTNEED) ? errno : 0;
}

/* Return: 0 or an errno; EINVAL says that this kernel does not know how. */
static int advise_populate(void *ptr, size_t size)
{
	return madvise(ptr, size, MADV_POPULATE_WRITE) ? errno : 0;
}

/*
 * Without the file, as in some containers, mode 2 is taken to be off: decommit then gives
 * memory back all the same, only the charge stays.
 */
static void *decommit_context(void)
{
	void *context = CONTEXT_ADVISE;
	char mode = 0;
	int fd;

	fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return context;
	if (read(fd, &mode, 1) == 1 && mode == '2')
		context = CONTEXT_REMAP;
	close(fd);
	return context;
}

#else

static void advise_small_pages(void *ptr, size_t size)
{
	(void)ptr;
	(void)size;
}

static int advise_decommit(void *ptr, size_t size, bool large)
{
	(void)ptr;
	(void)size;
	(void)large;
	return EINVAL;
}

static int advise_populate(void *ptr, size_t size)
{
	(void)ptr;
	(void)size;
	return EINVAL;
}

static void *decommit_context(void)
{
	return CONTEXT_REMAP;
}

#endif

static void *map_inaccessible(void *where, size_t size, int flags)
{
	void *ptr;

	ptr = mmap(where, size, PROT_NONE, MAP_RESERVE | flags, -1, 0);
	if (ptr == MAP_FAILED)
		return NULL;
	advise_small_pages(ptr, size);
	return ptr;
}

#if defined(__linux__)

/*
 * Moves pages by way of an address that the kernel chooses. Straight to @to is one call, but
 * where @from is not one mapping in the kernel's books, kernels before 6.17 have unmapped @to
 * when they notice, and later ones may move a part and fail. The first step here moves all or
 * nothing, and leaves @from accessible and empty. The second step moves what is known to be
 * one mapping; it fails only where the kernel itself has no memory. It lets the mapping grow, so
 * that what is moved once more is one mapping still.
 *
 * Return: 0, or an errno; EFAULT says that the range is not one mapping.
 */
static int move_mapping(unsigned char *from, size_t size, unsigned char *to, size_t to_size)
{
	void *between;

	/* The kernel reads an address; some C libraries pass on whatever stands in its place. */
	between = mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (between == MAP_FAILED)
		return errno;
	if (mremap(between, size, to_size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
		return 0;
	memcpy(from, between, size);
	munmap(between, size);
	/* The kernel may have unmapped @to; the reservation must not have a hole. */
	mmap(to, to_size, PROT_READ | PROT_WRITE, MAP_RESERVE | MAP_FIXED, -1, 0);
	return ENOMEM;
}

/*
 * A range that was moved before and grew in place since is several mappings. Where they meet cannot
 * be asked for, so it is found by halving. Pieces already moved are copied back when a later one
 * fails: @from is still accessible.
 *
 * Moved pages keep a mapping of their own. What they left behind is mapped anew, so that the
 * kernel joins it to its neighbours again; else a heap that moves much would reach the most
 * mappings that a process may have, and the host with it. Where that is refused, it is accessible
 * all the same.
 */
static int posix_move(void *context, void *from, size_t from_size, void *to, size_t to_size)
{
	unsigned char *source = from, *target = to;
	size_t done = 0, piece = from_size;
	int error;

	(void)context;
	while (done < from_size) {
		error = move_mapping(source + done, piece, target + done,
				     done + piece < from_size ? piece : to_size - done);
		if (!error) {
			done += piece;
			piece = from_size - done;
		} else if (error == EFAULT && piece >= 2 * PAGE_SIZE_MAX) {
			piece = piece / 2 & ~(size_t)(PAGE_SIZE_MAX - 1);
		} else {
			goto out_back;
		}
	}
	if (mmap(source, from_size, PROT_READ | PROT_WRITE, MAP_RESERVE | MAP_FIXED, -1, 0) !=
	    MAP_FAILED)
		advise_small_pages(source, from_size);
	return 0;

out_back:
	memcpy(source, target, done);
	advise_decommit(target, done, false);
	return -1;
}

static void posix_park(void *context, uint32_t *word, uint32_t value)
{
	int saved = errno;

	(void)context;
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
	errno = saved;
}

static void posix_wake(void *context, uint32_t *word)
{
	int saved = errno;

	(void)context;
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	errno = saved;
}

/*
 * Under mode 2 a move would be charged twice while it lasts, and @from ever after: there the
 * arena copies.
 */
static void add_optional(struct hk_platform *platform)
{
	platform->large_pages = posix_large_pages;
	if (platform->context == CONTEXT_ADVISE)
		platform->move = posix_move;
	else
		platform->flags |= HK_PLATFORM_CHARGED;
}

#else

/* A sleep that may end at any time may end at once. */
static void posix_park(void *context, uint32_t *word, uint32_t value)
{
	(void)context;
	if (__atomic_load_n(word, __ATOMIC_RELAXED) == value)
		sched_yield();
}

static void posix_wake(void *context, uint32_t *word)
{
	(void)context;
	(void)word;
}

static void add_optional(struct hk_platform *platform)
{
	(void)platform;
}

#endif

/*
 * Maps a range with so much on either side, whichever way the system goes, which does not stay
 * mapped. The first try is without the surplus for alignment, which would be refused where the
 * range alone fits a limit on address space.
 */
static unsigned char *reserve_with(size_t size, size_t align, size_t apart)
{
	size_t more = 2 * apart, before;
	unsigned char *ptr = NULL;

	/* beyond that, differences of pointers into one mapping would overflow */
	if (size <= PTRDIFF_MAX - more)
		ptr = map_inaccessible(NULL, size + more, 0);
	if (ptr && (uintptr_t)(ptr + apart) & (align - 1)) {
		munmap(ptr, size + more);
		if (align > PTRDIFF_MAX || size + more > PTRDIFF_MAX - align)
			return NULL;
		more += align;
		ptr = map_inaccessible(NULL, size + more, 0);
	}
	if (!ptr)
		return NULL;
	before = apart + (size_t)(-(uintptr_t)(ptr + apart) & (align - 1));
	if (before)
		munmap(ptr, before);
	if (more > before)
		munmap(ptr + before + size, more - before);
	return ptr + before;
}

static void *posix_reserve(void *context, size_t size, size_t align)
{
	size_t apart = hk_platform_distance(size);
	void *ptr = reserve_with(size, align, apart);

	(void)context;
	/* where address space is short, they lie as they may */
	return ptr || !apart ? ptr : reserve_with(size, align, 0);
}

static int posix_commit(void *context, void *ptr, size_t size)
{
	(void)context;
	return mprotect(ptr, size, PROT_READ | PROT_WRITE);
}

/* Pages that the host locked in memory cannot be given back by advice, but by remapping. */
static int decommit_pages(void *context, void *ptr, size_t size, bool large)
{
	int saved = errno;

	if ((context != CONTEXT_ADVISE || advise_decommit(ptr, size, large)) &&
	    !map_inaccessible(ptr, size, MAP_FIXED))
		return -1;
	errno = saved;
	return 0;
}

static int posix_decommit(void *context, void *ptr, size_t size)
{
	return decommit_pages(context, ptr, size, false);
}

static int posix_decommit_large(void *context, void *ptr, size_t size)
{
	return decommit_pages(context, ptr, size, true);
}

static void posix_release(void *context, void *ptr, size_t size)
{
	(void)context;
	munmap(ptr, size);
}

static uint64_t posix_now_ns(void *context)
{
	struct timespec now;

	(void)context;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * Where the system cannot do it, each page gets one byte swapped for itself: a store that
 * faults the page in, keeps the content and races with no other thread.
 */
static int posix_populate(void *context, void *ptr, size_t size)
{
	unsigned char *byte = ptr, *end = byte + size, value;
	int error;

	(void)context;
	error = advise_populate(ptr, size);
	if (error != EINVAL)
		return error;
	for (; byte < end; byte += PAGE_SIZE_MIN) {
		value = 0;
		while (!__atomic_compare_exchange_n(byte, &value, value, false, __ATOMIC_RELAXED,
						    __ATOMIC_RELAXED))
			;
	}
	return 0;
}

int hk_platform_system(struct hk_platform *platform)
{
	long page_size = sysconf(_SC_PAGESIZE);

	if (page_size < (long)PAGE_SIZE_MIN || page_size > (long)PAGE_SIZE_MAX ||
	    (page_size & (page_size - 1)))
		return HK_ERROR_PLATFORM;
	*platform = (struct hk_platform){
		.context = decommit_context(),
		.page_size = (size_t)page_size,
		.granularity = (size_t)page_size,
		.flags = HK_PLATFORM_ZEROED,
		.reserve = posix_reserve,
		.commit = posix_commit,
		.decommit = posix_decommit,
		.decommit_large = posix_decommit_large,
		.release = posix_release,
		.now_ns = posix_now_ns,
		.populate = posix_populate,
		.park = posix_park,
		.wake = posix_wake,
	};
	add_optional(platform);
	return 0;
}
