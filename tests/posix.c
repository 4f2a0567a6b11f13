/* SPDX-License-Identifier: MIT */
/*
 * What the POSIX platform promises beyond the contract: how it treats the system, on kernels of
 * today and of yesterday. Linux only, as it looks at /proc and makes system calls fail by seccomp.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <hakmem/hakmem.h>
#include <platform/platform.h>
#include <tests/contract.h>
#include <tests/helper.h>

#define MIB ((size_t)1 << 20)

/* Values of the system platform's context, see platform/posix.c. */
#define CONTEXT_ADVISE ((void *)0)
#define CONTEXT_REMAP ((void *)1)

#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, kernel 5.14 */
#define DONTUNMAP 4	  /* MREMAP_DONTUNMAP, kernel 5.7 */

#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + (n) * sizeof(uint64_t))

/*
 * From now on system call @number fails with @error where the lower half of argument @n, masked,
 * is @value. For this process only: each test is a process.
 */
static void refuse(unsigned number, unsigned n, uint32_t mask, uint32_t value, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)ARGUMENT(n)),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* The system platform as it is under the given way to decommit, whatever this machine's is. */
static struct hk_platform system_platform(void *context)
{
	struct hk_platform platform;

	cr_assert_eq(hk_platform_system(&platform), 0);
	if (platform.context != context)
		platform.move = NULL;
	platform.context = context;
	return platform;
}

static unsigned char *reserve(const struct hk_platform *platform, size_t size, size_t align)
{
	unsigned char *ptr = platform->reserve(platform->context, size, align);

	cr_assert_not_null(ptr);
	return ptr;
}

static void commit(const struct hk_platform *platform, void *ptr, size_t size)
{
	cr_assert_eq(platform->commit(platform->context, ptr, size), 0);
}

static size_t count_mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	size_t count = 0;
	int c;

	cr_assert_not_null(file);
	while ((c = fgetc(file)) != EOF)
		count += c == '\n';
	fclose(file);
	return count;
}

/* Does the mapping that holds @ptr bear the flag, two letters as in /proc/self/smaps? */
static bool has_flag(const void *ptr, const char *flag)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	uintptr_t address = (uintptr_t)ptr;
	unsigned long long start, end;
	bool inside = false, found = false;
	char line[512];

	cr_assert_not_null(file);
	while (!found && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			inside = address >= start && address < end;
		else if (inside && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, flag) != NULL;
	}
	fclose(file);
	return found;
}

static size_t count_resident(const struct hk_platform *platform, void *ptr, size_t size)
{
	size_t pages = size / platform->page_size, count = 0, i;
	unsigned char vector[1024];

	cr_assert_leq(pages, sizeof(vector));
	cr_assert_eq(mincore(ptr, size, vector), 0);
	for (i = 0; i < pages; i++)
		count += vector[i] & 1;
	return count;
}

static void assert_mode(int mode)
{
	struct hk_platform platform;

	cr_assert_eq(hk_platform_system(&platform), 0);
	cr_assert_eq(platform.context, mode == 2 ? CONTEXT_REMAP : CONTEXT_ADVISE);
	cr_assert_eq(!platform.move, mode == 2);
}

/* The mode is the machine's; a file of ours in its place is for this process alone. */
Test(posix, decommit_follows_the_overcommit_mode)
{
	const char *path = "/proc/sys/vm/overcommit_memory";
	FILE *file = fopen(path, "r");
	char name[] = "/tmp/hakmem-overcommit-XXXXXX";
	int mode = 0, fd;
	bool mounted;

	if (file) {
		cr_assert_eq(fscanf(file, "%d", &mode), 1);
		fclose(file);
	}
	assert_mode(mode);

	if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
		cr_skip_test("not allowed to have mounts of its own");
	fd = mkstemp(name);
	cr_assert_geq(fd, 0);
	mounted = !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
		  !mount(name, path, NULL, MS_BIND, NULL);
	unlink(name);
	if (!mounted)
		cr_skip_test("not allowed to mount");
	for (mode = 0; mode <= 2; mode++) {
		cr_assert_eq(pwrite(fd, mode == 0 ? "0" : mode == 1 ? "1" : "2", 1, 0), 1);
		assert_mode(mode);
	}
	close(fd);
}

Test(posix, keeps_the_contract_under_overcommit_mode_2, .timeout = 60)
{
	struct hk_platform platform = system_platform(CONTEXT_REMAP);

	platform.move = NULL;
	contract_run(&platform);
}

Test(posix, decommit_under_mode_2_ends_the_charge)
{
	struct hk_platform platform = system_platform(CONTEXT_REMAP);
	unsigned char *ptr = reserve(&platform, 4 * MIB, 2 * MIB);
	size_t before = count_mappings();

	commit(&platform, ptr, 2 * MIB);
	cr_assert_eq(platform.decommit(platform.context, ptr, MIB), 0);
	cr_assert_not(contract_can_read(ptr), "what is accessible is charged");
	cr_assert(contract_can_read(ptr + MIB));
	cr_assert_eq(platform.decommit(platform.context, ptr + MIB, MIB), 0);
	cr_assert_eq(count_mappings(), before, "the reservation is in pieces");
}

Test(posix, keeps_the_contract_on_an_old_kernel, .timeout = 60)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *ptr;

	refuse(SYS_madvise, 2, UINT32_MAX, POPULATE_WRITE, EINVAL);
	refuse(SYS_mremap, 3, DONTUNMAP, DONTUNMAP, EINVAL);
	contract_run(&platform);

	ptr = reserve(&platform, MIB, MIB);
	commit(&platform, ptr, MIB);
	cr_assert_eq(platform.populate(platform.context, ptr, MIB), 0);
	cr_assert_eq(count_resident(&platform, ptr, MIB), MIB / platform.page_size);
	if (platform.move)
		cr_assert_neq(platform.move(platform.context, ptr, MIB / 2, ptr + MIB / 2, MIB / 2),
			      0);
}

/* What the host locks in memory, MADV_DONTNEED refuses to give back. */
Test(posix, decommits_where_advice_is_refused)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *ptr = reserve(&platform, MIB, MIB);

	refuse(SYS_madvise, 2, UINT32_MAX, MADV_DONTNEED, EINVAL);
	commit(&platform, ptr, MIB);
	memset(ptr, 1, MIB);
	cr_assert_eq(platform.decommit(platform.context, ptr, MIB / 2), 0);
	cr_assert_eq(count_resident(&platform, ptr, MIB), MIB / 2 / platform.page_size);
	commit(&platform, ptr, MIB);
	cr_assert_eq(ptr[0], 0);
	cr_assert_eq(ptr[MIB / 2], 1);
}

Test(posix, memory_comes_with_populate_and_goes_with_decommit)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	size_t pages = MIB / platform.page_size;
	unsigned char *ptr = reserve(&platform, MIB, MIB);

	commit(&platform, ptr, MIB);
	cr_assert_eq(count_resident(&platform, ptr, MIB), 0, "commit alone costs memory");
	cr_assert_eq(platform.populate(platform.context, ptr, MIB), 0);
	cr_assert_eq(count_resident(&platform, ptr, MIB), pages);
	cr_assert_eq(platform.decommit(platform.context, ptr, MIB), 0);
	cr_assert_eq(count_resident(&platform, ptr, MIB), 0, "decommit gives nothing back");
	cr_assert(contract_can_read(ptr), "without mode 2 decommit leaves the mapping alone");
}

#define LARGE (131 * MIB) /* more than goes by one call */

/* Of a byte in each 64 KiB a decommit takes those it should, and no other. */
static void decommit_large(const struct hk_platform *platform, unsigned char *ptr)
{
	unsigned char *from = ptr + platform->page_size;
	size_t i;

	commit(platform, ptr, LARGE + 2 * platform->page_size);
	for (i = 0; i < LARGE; i += 65536)
		from[i] = 1;
	ptr[0] = from[LARGE - 1] = from[LARGE] = 1;
	errno = 77;
	cr_assert_eq(platform->decommit(platform->context, from, LARGE), 0);
	cr_assert_eq(errno, 77);
	commit(platform, ptr, LARGE + 2 * platform->page_size);
	for (i = 0; i < LARGE; i += 65536)
		cr_assert_eq(from[i], 0, "at %zu", i);
	cr_assert(ptr[0] == 1 && from[LARGE - 1] == 0 && from[LARGE] == 1);
}

Test(posix, decommits_large_ranges_on_any_kernel, .timeout = 60)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *ptr = reserve(&platform, LARGE + 2 * MIB, 2 * MIB);

	decommit_large(&platform, ptr);
	/* what is locked is refused half way */
	cr_assert_eq(mlock(ptr + 64 * MIB, platform.page_size), 0);
	decommit_large(&platform, ptr);
	refuse(SYS_process_madvise, 0, 0, 0, EBADF);
	decommit_large(&platform, ptr);
}

/* KiB of page tables. */
static size_t count_tables(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	unsigned long tables = 0;
	char line[256];

	cr_assert_not_null(file);
	while (!tables && fgets(line, sizeof(line), file))
		sscanf(line, "VmPTE: %lu", &tables);
	fclose(file);
	return tables;
}

Test(posix, page_tables_outlive_a_decommit)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *ptr = reserve(&platform, 64 * MIB, 2 * MIB);
	struct iovec none = { ptr, platform.page_size };
	size_t before, i;

	commit(&platform, ptr, 64 * MIB);
	if (syscall(SYS_process_madvise, -10000, &none, 1, MADV_DONTNEED, 0) < 0)
		cr_skip_test("this kernel frees them, or never did");
	for (i = 0; i < 64 * MIB; i += platform.page_size)
		ptr[i] = 1;
	before = count_tables();
	cr_assert_eq(platform.decommit(platform.context, ptr, 64 * MIB), 0);
	cr_assert_geq(count_tables(), before);
}

/* KiB in large pages, of the mapping that holds @ptr. */
static size_t count_large(const void *ptr)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	uintptr_t address = (uintptr_t)ptr;
	unsigned long long start, end;
	unsigned long large = 0;
	bool inside = false;
	char line[512];

	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			inside = address >= start && address < end;
		else if (inside && sscanf(line, "AnonHugePages: %lu", &large) == 1)
			break;
	}
	fclose(file);
	return large;
}

/* Parts would split them, and leave page tables in their places. */
Test(posix, large_pages_come_again_after_a_decommit)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *ptr = reserve(&platform, 16 * MIB, 2 * MIB);
	size_t large;

	commit(&platform, ptr, 16 * MIB);
	if (platform.large_pages(platform.context, ptr, 16 * MIB, true))
		cr_skip_test("this kernel has no large pages");
	memset(ptr, 1, 16 * MIB);
	large = count_large(ptr);
	if (!large)
		cr_skip_test("this system has no large page to give");
	cr_assert_eq(platform.decommit_large(platform.context, ptr, 8 * MIB), 0);
	commit(&platform, ptr, 8 * MIB);
	memset(ptr, 1, 8 * MIB);
	cr_assert_eq(count_large(ptr), large);
}

Test(posix, release_leaves_no_mapping_behind)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	size_t before = count_mappings(), align;
	unsigned char *ptr;

	for (align = platform.granularity; align <= 64 * MIB; align *= 2) {
		ptr = reserve(&platform, 5 * platform.granularity, align);
		commit(&platform, ptr + platform.page_size, platform.page_size);
		platform.release(platform.context, ptr, 5 * platform.granularity);
		cr_assert_eq(count_mappings(), before, "alignment %zu", align);
	}
	cr_assert_null(platform.reserve(platform.context, (size_t)1 << 62, platform.granularity));
	cr_assert_null(platform.reserve(platform.context, SIZE_MAX - 65535, 65536));
	cr_assert_null(platform.reserve(platform.context, 65536, (size_t)1 << 63));
	cr_assert_eq(count_mappings(), before);
}

/* Side by side, powers of two would all begin at addresses whose lower 28 bits are the same. */
Test(posix, reservations_do_not_lie_a_power_of_two_apart)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	size_t sizes[] = { 126 * MIB, 254 * MIB, 256 * MIB, 16384 * MIB }, before, i, j, k;
	uintptr_t ranges[4];

	if (sizeof(void *) < 8)
		cr_skip_test("address spaces of 32 bits are short of room");
	before = count_mappings();
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (j = 0; j < 4; j++) {
			ranges[j] = (uintptr_t)reserve(&platform, sizes[i], 2 * MIB);
			for (k = 0; k < j; k++)
				cr_assert_neq((ranges[j] ^ ranges[k]) % (256 * MIB), 0,
					      "%zu MiB: ranges %zu and %zu", sizes[i] / MIB, k, j);
		}
		for (j = 0; j < 4; j++)
			platform.release(platform.context, (void *)ranges[j], sizes[i]);
		cr_assert_eq(count_mappings(), before);
	}
}

Test(posix, reserves_where_there_is_no_room_beside)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	size_t before = count_mappings(), beside = 260 * MIB;
	unsigned char *ptr;

#if defined(SYS_mmap)
	refuse(SYS_mmap, 1, UINT32_MAX, (uint32_t)beside, ENOMEM);
#endif
	if (mmap(NULL, beside, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		cr_skip_test("this system call cannot be refused here");
	ptr = reserve(&platform, 256 * MIB, platform.granularity);
	platform.release(platform.context, ptr, 256 * MIB);
	cr_assert_eq(count_mappings(), before);
}

Test(posix, rules_large_pages_out_until_they_are_asked_for)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *ptr = reserve(&platform, 8 * MIB, 2 * MIB);

	if (madvise(ptr, MIB, MADV_NOHUGEPAGE))
		cr_skip_test("this kernel has no large pages");
	commit(&platform, ptr, 8 * MIB);
	cr_assert(has_flag(ptr, " nh"));
	cr_assert(has_flag(ptr + 8 * MIB - 1, " nh"));
	cr_assert_eq(platform.large_pages(platform.context, ptr, 2 * MIB, true), 0);
	cr_assert(has_flag(ptr, " hg"));
	cr_assert(has_flag(ptr + 2 * MIB, " nh"));
	cr_assert_eq(platform.large_pages(platform.context, ptr, 2 * MIB, false), 0);
	cr_assert(has_flag(ptr, " nh"));

	platform.context = CONTEXT_REMAP;
	cr_assert_eq(platform.decommit(platform.context, ptr, 2 * MIB), 0);
	cr_assert(has_flag(ptr, " nh"), "a mapping put in the place of another");
}

/* Or the test says that this kernel cannot move. */
static void assume_move(const struct hk_platform *platform)
{
	unsigned char *ptr = reserve(platform, 2 * MIB, MIB);
	int error = -1;

	commit(platform, ptr, 2 * MIB);
	if (platform->move)
		error = platform->move(platform->context, ptr, MIB, ptr + MIB, MIB);
	platform->release(platform->context, ptr, 2 * MIB);
	if (error)
		cr_skip_test("this kernel cannot move pages");
}

Test(posix, moves_what_moved_and_grew)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *from, *to;
	size_t size = MIB, more;

	assume_move(&platform);
	from = reserve(&platform, 128 * MIB, 2 * MIB);
	commit(&platform, from, MIB);
	test_fill(from, MIB, 1);
	while (size < 16 * MIB) {
		/* no power of two; a page behind each end that must stay where it is */
		more = (size * 3 / 7) & ~(size_t)65535;
		to = from + size + 65536;
		commit(&platform, from + size, 65536);
		from[size] = 0x11;
		commit(&platform, to, size + more);
		to[size] = 0x22;
		cr_assert_eq(platform.move(platform.context, from, size, to, size), 0, "%zu", size);
		memset(from, 0x33, size);
		cr_assert_eq(from[size], 0x11);
		cr_assert_eq(to[size], 0x22);
		test_fill(to + size, more, 1 + size / 8);
		size += more;
		from = to;
	}
	cr_assert(test_holds(from, size, 1));
}

/* Left to itself the kernel keeps a mapping for each piece that ever moved. */
Test(posix, moves_without_end_leave_few_mappings, .timeout = 60)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	size_t slots = 256, size = 65536, slot = 0, next, i, before;
	unsigned char *base;
	uint64_t random = 1;

	assume_move(&platform);
	before = count_mappings();
	base = reserve(&platform, slots * size, 2 * MIB);
	commit(&platform, base, slots * size);
	for (i = 0; i < 2000; i++) {
		base[slot * size] = (unsigned char)i;
		next = test_random(&random) % slots;
		if (next == slot)
			continue;
		cr_assert_eq(platform.move(platform.context, base + slot * size, size,
					   base + next * size, size),
			     0);
		cr_assert_eq(base[next * size], (unsigned char)i);
		slot = next;
	}
	cr_assert_leq(count_mappings(), before + 4);
}

/* Pages of address space that the process has, the first number in the file. */
static size_t count_address_space(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	cr_assert_not_null(file);
	cr_assert_eq(fscanf(file, "%lu", &pages), 1);
	fclose(file);
	return pages;
}

Test(posix, a_move_that_fails_half_way_changes_nothing)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	unsigned char *base;
	size_t space;

	assume_move(&platform);
	base = reserve(&platform, 16 * MIB, 2 * MIB);
	commit(&platform, base, 16 * MIB);
	test_fill(base, MIB, 1);
	cr_assert_eq(platform.move(platform.context, base, MIB, base + 4 * MIB, MIB), 0);
	test_fill(base + 5 * MIB, MIB, 1 + MIB / 8);

	/* Two mappings by now, and the second does not get where it should. */
	space = count_address_space();
	refuse(SYS_mremap, 4, UINT32_MAX, (uint32_t)(uintptr_t)(base + 9 * MIB), ENOMEM);
	cr_assert_neq(platform.move(platform.context, base + 4 * MIB, 2 * MIB, base + 8 * MIB,
				    2 * MIB),
		      0);
	cr_assert(test_holds(base + 4 * MIB, 2 * MIB, 1), "content is lost");
	cr_assert_eq(count_address_space(), space, "a mapping is left behind");
	cr_assert_eq(base[8 * MIB], 0, "the target is not as good as new");
	cr_assert_eq(base[9 * MIB], 0);
	test_fill(base + 4 * MIB, 2 * MIB, 2);
	test_fill(base + 8 * MIB, 2 * MIB, 3);
	cr_assert(test_holds(base + 4 * MIB, 2 * MIB, 2));
}

Test(posix, the_clock_counts_nanoseconds)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	struct timespec before, after;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &before);
	now = platform.now_ns(platform.context);
	clock_gettime(CLOCK_MONOTONIC, &after);
	cr_assert_geq(now, (uint64_t)before.tv_sec * 1000000000 + (uint64_t)before.tv_nsec);
	cr_assert_leq(now, (uint64_t)after.tv_sec * 1000000000 + (uint64_t)after.tv_nsec);
}

Test(posix, park_and_wake_leave_errno_alone)
{
	struct hk_platform platform = system_platform(CONTEXT_ADVISE);
	uint32_t word = 1;

	errno = 77;
	platform.park(platform.context, &word, 2);
	cr_assert_eq(errno, 77);
	platform.wake(platform.context, (uint32_t *)((uintptr_t)&word + 1));
	cr_assert_eq(errno, 77);
}
