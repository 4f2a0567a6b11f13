/* SPDX-License-Identifier: MIT */
/* Memory committed and faulted in at load time: later the platform is not asked, nothing faults. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#if defined(__unix__)
#include <sys/resource.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SLAB (64 * KIB)
#define SPACE (256 * MIB)

static struct fault_platform fault;
static struct heap heap;
static void *blocks[6000];

static void open_with(const struct fault_options *options, size_t limit)
{
	struct hk_arena_config config = {
		.address_space = SPACE,
		.limit = limit,
		.platform = &fault.platform,
		.context = &heap.reports,
		.on_report = test_on_report,
	};

	memset(&heap, 0, sizeof(heap));
	cr_assert_eq(fault_platform_init(&fault, options), 0);
	cr_assert_eq(hk_arena_create(&heap.arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
}

static void close_all(void)
{
	heap_close(&heap, 0);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* Some 20 MiB of all sizes up to 1 MiB. */
static size_t fill(uint64_t seed)
{
	size_t bytes = 0, i;

	for (i = 0; i < COUNT(blocks); i++) {
		size_t size = (size_t)(test_random(&seed) % (i % 8 ? 1024 : 8192));

		if (i % 256 == 0)
			size = (size_t)(test_random(&seed) % MIB);
		blocks[i] = hk_alloc(heap.cache, size);
		must(blocks[i], "block %zu of %zu bytes", i, size);
		memset(blocks[i], 1, size);
		bytes += hk_good_size(size);
	}
	return bytes;
}

static void clear(void)
{
	hk_free_bulk(heap.cache, COUNT(blocks), blocks);
}

Test(prewarm, commits_what_was_asked_for_and_no_more)
{
	static const size_t asked[] = { 0, 1, MIB, MIB + 1, 40 * MIB, 3 * MIB };
	static const size_t pages[] = { 4 * KIB, 16 * KIB, 64 * KIB };
	size_t i, j, before, least = 0;

	for (j = 0; j < COUNT(pages); j++, least = 0) {
		open_with(&(struct fault_options){ .page_size = pages[j], .forbid = true }, 0);
		for (i = 0; i < COUNT(asked); i++) {
			before = hk_arena_used(heap.arena);
			cr_assert_eq(hk_arena_prewarm(heap.arena, asked[i]), 0);
			least = asked[i] > before ? asked[i] : before;
			cr_assert_geq(hk_arena_used(heap.arena), least);
			/* bitmaps and magazines come with it */
			cr_assert_leq(hk_arena_used(heap.arena),
				      least + SLAB + asked[i] / 16 + 8 * pages[j], "%zu for %zu",
				      hk_arena_used(heap.arena), asked[i]);
			cr_assert_eq(hk_arena_check(heap.arena), 0);
		}
		close_all();
	}
}

/* Nor is the platform called, whatever the sizes are. */
Test(prewarm, later_allocations_do_not_need_the_platform)
{
	static const unsigned flags[] = { 0, HK_PLATFORM_CHARGED };
	uint64_t calls;
	size_t i, seed, bytes;

	for (i = 0; i < COUNT(flags); i++) {
		for (seed = 1; seed <= 5; seed++) {
			open_with(&(struct fault_options){ .flags = flags[i], .forbid = true }, 0);
			cr_assert_eq(hk_arena_prewarm(heap.arena, 40 * MIB), 0);
			calls = fault.calls;
			bytes = fill(seed);
			cr_assert_gt(bytes, 12 * MIB);
			clear();
			fill(seed + 5);
			clear();
			cr_assert_eq(fault.calls, calls, "the platform was called");
			close_all();
			/* which it is else */
			open_with(&(struct fault_options){ .flags = flags[i] }, 0);
			calls = fault.calls;
			fill(seed);
			cr_assert_gt(fault.calls, calls + 20);
			clear();
			close_all();
		}
	}
}

/* Slabs that were given back between those in use are made ready too, the lowest first. */
Test(prewarm, fills_the_gaps)
{
	uint64_t calls;
	size_t i;

	open_with(&(struct fault_options){ .forbid = true }, 0);
	for (i = 0; i < 200; i++)
		blocks[i] = hk_alloc(heap.cache, 60000);
	for (i = 0; i < 200; i++)
		if (i % 4)
			hk_free(heap.cache, blocks[i]);
	hk_cache_flush(heap.cache);
	hk_arena_trim(heap.arena, 0, 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 14 * MIB), 0);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	calls = fault.calls;
	for (i = 0; i < 200; i++)
		if (i % 4)
			blocks[i] = hk_alloc(heap.cache, 60000);
	cr_assert_eq(fault.calls, calls);
	hk_free_bulk(heap.cache, 200, blocks);
	close_all();
}

#if defined(__unix__)
static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* Faults of 8 MiB touched for the first time. */
static long faults_of_first_touch(size_t warmed)
{
	long before;
	size_t i;

	heap_open(&heap, 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, warmed), 0);
	memset(blocks, 0, sizeof(blocks));
	before = faults();
	for (i = 0; i < 512; i++) {
		blocks[i] = hk_alloc(heap.cache, 16000);
		must(blocks[i], "block %zu", i);
		memset(blocks[i], 1, 16000);
	}
	before = faults() - before;
	hk_free_bulk(heap.cache, 512, blocks);
	heap_close(&heap, 0);
	return before;
}

/* AddressSanitizer keeps notes of each block, in pages of its own. */
#if defined(__SANITIZE_ADDRESS__)
#define FAULTS_OF_OTHERS 500
#else
#define FAULTS_OF_OTHERS 0
#endif

Test(prewarm, nothing_faults_that_was_faulted_in)
{
	long cold, warm;

	/* the test's own pages first */
	faults_of_first_touch(0);
	cold = faults_of_first_touch(0);
	warm = faults_of_first_touch(12 * MIB);
	cr_assert_leq(warm, FAULTS_OF_OTHERS, "%ld faults, cold %ld", warm, cold);
	/* 8 MiB, in pages of up to 64 KiB */
	cr_assert_gt(cold, 100 + 2 * FAULTS_OF_OTHERS, "%ld faults", cold);
}
#endif

Test(prewarm, stays_within_limit_and_range)
{
	size_t used, i;

	open_with(NULL, 8 * MIB);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 9 * MIB), HK_ERROR_LIMIT);
	used = hk_arena_used(heap.arena);
	cr_assert_leq(used, 8 * MIB);
	cr_assert_gt(used, 8 * MIB - SLAB, "as much as there may be");
	cr_assert_eq(hk_arena_prewarm(heap.arena, SIZE_MAX), 0, "as much as there may be");
	cr_assert_eq(hk_arena_used(heap.arena), used);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 8 * MIB), 0, "that is no slab more");
	close_all();

	/* again, with magazines in use, and where a large block has the limit nearly used up */
	open_with(NULL, 8 * MIB);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 8 * MIB), 0);
	for (i = 0; i < 4000; i++)
		blocks[i] = hk_alloc(heap.cache, i % 1000);
	for (i = 0; i < 4000; i++)
		hk_free(heap.cache, blocks[i]);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 8 * MIB), 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, SIZE_MAX), 0);
	close_all();
	for (i = 0; i < 20; i++) {
		open_with(NULL, 32 * MIB);
		blocks[0] = hk_alloc(heap.cache, 31 * MIB + i * 40 * KIB);
		cr_assert_not_null(blocks[0]);
		cr_assert_eq(hk_arena_prewarm(heap.arena, SIZE_MAX), 0, "%zu", i);
		cr_assert_eq(hk_arena_prewarm(heap.arena, 32 * MIB), 0, "%zu", i);
		hk_free(heap.cache, blocks[0]);
		close_all();
	}

	open_with(NULL, 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 2 * SPACE), HK_ERROR_ADDRESS_SPACE);
	cr_assert_leq(hk_arena_used(heap.arena), fault.reserved);
	cr_assert_geq(hk_arena_used(heap.arena), SPACE - SPACE / 32);
	cr_assert_eq(hk_arena_prewarm(heap.arena, SIZE_MAX), 0);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	fill(1);
	clear();
	cr_assert_gt(hk_arena_trim(heap.arena, 0, 0), SPACE / 2);
	close_all();
}

Test(prewarm, asking_for_less_adds_nothing)
{
	size_t used;

	open_with(NULL, 0);
	fill(1);
	hk_free(heap.cache, hk_alloc(heap.cache, 9 * MIB));
	used = hk_arena_used(heap.arena);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 0), 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, used), 0);
	cr_assert_eq(hk_arena_used(heap.arena), used);
	clear();
	close_all();
}

/* Whose range is all ready asks the platform for nothing, even when there is no room any more. */
Test(prewarm, all_of_a_range)
{
	struct hk_arena_config config = {
		.address_space = 8 * MIB,
		.limit = 12 * MIB,
		.platform = &fault.platform,
		.context = &heap.reports,
		.on_report = test_on_report,
	};
	uint64_t calls;
	size_t count = 0, i;

	memset(&heap, 0, sizeof(heap));
	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	cr_assert_eq(hk_arena_create(&heap.arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, SIZE_MAX), 0);
	cr_assert_leq(hk_arena_used(heap.arena), 12 * MIB);
	calls = fault.calls;
	for (i = 0; i < 3; i++) {
		while ((blocks[count] = hk_alloc(heap.cache, 100000 + count * 1000)) != NULL)
			count++;
		cr_assert_gt(count, 40);
		while (count)
			hk_free(heap.cache, blocks[--count]);
		hk_arena_reset(heap.arena);
	}
	cr_assert_eq(fault.calls, calls);
	cr_assert_eq(heap.reports.by_fault[HK_FAULT_EXHAUSTED], 3);
	heap_close(&heap, 3);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

Test(prewarm, without_populate_it_commits)
{
	uint64_t commits;

	open_with(&(struct fault_options){ .hide = FAULT_BIT(FAULT_POPULATE) }, 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 40 * MIB), 0);
	cr_assert_geq(hk_arena_used(heap.arena), 40 * MIB);
	commits = fault.counts[FAULT_COMMIT];
	fill(1);
	cr_assert_eq(fault.counts[FAULT_COMMIT], commits);
	clear();
	close_all();
}

/* Whatever call fails: an error, books that are right, and the next try does it. */
Test(prewarm, each_platform_call_fails_in_turn, .timeout = 120)
{
	uint64_t n, steps = 1;
	size_t used, i;
	int error;

	for (n = 0; n < steps; n++) {
		open_with(NULL, 0);
		for (i = 0; i < 100; i++)
			blocks[i] = hk_alloc(heap.cache, 50000);
		fault_platform_rewind(&fault);
		fault.fail_at = n;
		error = hk_arena_prewarm(heap.arena, 9 * MIB);
		if (n) {
			cr_assert_eq(fault.injected, 1, "call %llu", (unsigned long long)n);
			cr_assert_eq(error, HK_ERROR_MEMORY, "call %llu: %s", (unsigned long long)n,
				     hk_error_name(error));
		} else {
			cr_assert_eq(error, 0);
			steps = fault.steps + 1;
			cr_assert_gt(steps, 10);
		}
		cr_assert_eq(hk_arena_check(heap.arena), 0, "call %llu", (unsigned long long)n);
		used = hk_arena_used(heap.arena);
		cr_assert_eq(used, fault.committed);
		fault_platform_rewind(&fault);
		cr_assert_eq(hk_arena_prewarm(heap.arena, 9 * MIB), 0);
		cr_assert_geq(hk_arena_used(heap.arena), 9 * MIB);
		hk_free_bulk(heap.cache, 100, blocks);
		cr_assert_eq(heap.reports.by_fault[HK_FAULT_PLATFORM], n != 0, "the host is told");
		heap_close(&heap, n != 0);
		cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
	}
}
