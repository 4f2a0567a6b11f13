/* SPDX-License-Identifier: MIT */
/*
 * Bugs that other allocators had, each tried on this one. What went wrong there is told in a
 * few words before each test, with the project and the number of its issue.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static struct fault_platform fault;

static void use(struct hk_cache *cache, uint64_t seed)
{
	void *blocks[200];
	size_t i;

	for (i = 0; i < COUNT(blocks); i++) {
		size_t size = (size_t)(test_random(&seed) % 1000) << test_random(&seed) % 10;

		blocks[i] = hk_alloc(cache, size);
		must(blocks[i], "size %zu", size);
		memset(blocks[i], 0xee, size);
	}
	for (i = 0; i < COUNT(blocks); i += 2)
		hk_free(cache, blocks[i]);
}

/*
 * rpmalloc 2.0.1: 64 rounds of acquiring a heap, freeing all of it and releasing it left 64
 * heaps behind, since a heap freed at once was not found again.
 */
Test(immune, rounds_of_create_reset_destroy_leave_nothing)
{
	struct hk_arena_config config = { .platform = &fault.platform, .address_space = 64 * MIB };
	size_t first_peak = 0;
	int round;

	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	for (round = 0; round < 64; round++) {
		struct hk_arena *arena;
		struct hk_cache *cache;

		cr_assert_eq(hk_arena_create(&arena, &config), 0);
		cr_assert_eq(hk_cache_create(arena, &cache), 0);
		use(cache, 1);
		hk_arena_reset(arena);
		hk_cache_destroy(cache);
		hk_arena_destroy(arena);
		cr_assert_eq(fault.reserved, 0);
		cr_assert_eq(fault.committed, 0);
		if (round == 0)
			first_peak = fault.peak;
	}
	cr_assert_eq(fault.peak, first_peak);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* The same with caches in an arena that goes on. */
Test(immune, rounds_of_cache_create_reset_destroy_leave_nothing)
{
	struct hk_arena *arena = test_arena(NULL, 0);
	struct hk_stats stats;
	size_t used = 0;
	int round;

	for (round = 0; round < 64; round++) {
		struct hk_cache *cache;

		cr_assert_eq(hk_cache_create(arena, &cache), 0);
		use(cache, 1);
		hk_arena_reset(arena);
		hk_cache_destroy(cache);
		cr_assert_eq(hk_arena_check(arena), 0);
		if (round == 0)
			used = hk_arena_used(arena);
		cr_assert_eq(hk_arena_used(arena), used, "round %d", round);
	}
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.cache_count, 0);
	hk_arena_destroy(arena);
}

/*
 * rpmalloc 2.0.1: freeing a block of 64 MiB and then everything at once crashed; with one of
 * 4 MiB the heap's next use crashed. The freed block was still on a list that the great free
 * walked, or was put there by it.
 */
static void free_large_then_reset(size_t size)
{
	struct heap heap;
	unsigned char *block;
	int round;

	heap_open(&heap, 0);
	for (round = 0; round < 4; round++) {
		block = hk_alloc(heap.cache, size);
		cr_assert_not_null(block);
		block[0] = block[size - 1] = 1;
		hk_free(heap.cache, block);
		hk_arena_reset(heap.arena);
		cr_assert_eq(hk_arena_check(heap.arena), 0);
		use(heap.cache, 2);
		block = hk_alloc(heap.cache, size);
		cr_assert_not_null(block);
		block[0] = block[size - 1] = 1;
		hk_arena_reset(heap.arena);
		use(heap.cache, 3);
		hk_arena_reset(heap.arena);
	}
	heap_close(&heap, 0);
}

Test(immune, large_block_freed_before_a_reset)
{
	free_large_then_reset(64 * MIB);
	free_large_then_reset(4 * MIB);
	free_large_then_reset(512 * KIB + 1);
}

/*
 * bun 27786: blocks of one heap landed in pages of another, so that destroying the one took
 * live blocks of the other. Arenas of all ages, one thread and one shared region of time.
 */
Test(immune, destroying_an_arena_takes_no_block_of_another)
{
	static unsigned char *blocks[8][300];
	struct hk_arena *arenas[8];
	struct hk_cache *caches[8];
	uint64_t seed = 17;
	size_t i;
	size_t j;
	int round;

	memset(arenas, 0, sizeof(arenas));
	for (round = 0; round < 40; round++) {
		size_t victim = (size_t)(test_random(&seed) % COUNT(arenas));

		for (i = 0; i < COUNT(arenas); i++) {
			if (arenas[i])
				continue;
			arenas[i] = test_arena(NULL, 0);
			cr_assert_eq(hk_cache_create(arenas[i], &caches[i]), 0);
			memset(blocks[i], 0, sizeof(blocks[i]));
		}
		for (j = 0; j < 300; j++)
			for (i = 0; i < COUNT(arenas); i++) {
				if (blocks[i][j])
					continue;
				blocks[i][j] = hk_alloc(caches[i], 8 * j + 24);
				must(blocks[i][j], "arena %zu", i);
				test_fill(blocks[i][j], 8 * j + 24, i * 1000 + j);
			}
		for (j = 0; j < 300; j += 3) {
			hk_free(caches[victim], blocks[victim][j]);
			blocks[victim][j] = NULL;
		}
		if (round % 2) {
			hk_arena_reset(arenas[victim]);
			hk_arena_destroy(arenas[victim]);
			arenas[victim] = NULL;
		}
		for (i = 0; i < COUNT(arenas); i++)
			for (j = 0; arenas[i] && j < 300; j++)
				must(!blocks[i][j] ||
					     test_holds(blocks[i][j], 8 * j + 24, i * 1000 + j),
				     "round %d: arena %zu block %zu", round, i, j);
	}
	for (i = 0; i < COUNT(arenas); i++) {
		if (!arenas[i])
			continue;
		cr_assert_eq(hk_arena_check(arenas[i]), 0);
		hk_arena_reset(arenas[i]);
		hk_arena_destroy(arenas[i]);
	}
}

/* A platform that has one place for a reservation, so that each arena lies where the last did. */
static unsigned char *place;

static void *reserve_place(void *context, size_t size, size_t align)
{
	(void)context;
	(void)size;
	return (uintptr_t)place % align ? NULL : place;
}

static int commit_place(void *context, void *ptr, size_t size)
{
	(void)context;
	(void)ptr;
	(void)size;
	return 0;
}

static void release_place(void *context, void *ptr, size_t size)
{
	(void)context;
	(void)ptr;
	(void)size;
}

/*
 * bun 40101: a pointer to an arena, kept beside the arena's life, matched a new arena at the
 * same address, and its blocks were taken for the new one's. Nothing of the old arena may be
 * seen in the new one, though the memory is the same and as it was left.
 */
Test(immune, arena_at_the_address_of_a_dead_one_is_new)
{
	struct hk_platform platform = {
		.page_size = 4096,
		.granularity = 65536,
		.flags = HK_PLATFORM_OPEN,
		.reserve = reserve_place,
		.commit = commit_place,
		.decommit = commit_place,
		.release = release_place,
	};
	struct hk_arena_config config = { .address_space = 32 * MIB, .platform = &platform };
	struct test_reports reports = { 0 };
	struct hk_arena *first;
	struct hk_arena *second;
	struct hk_cache *cache;
	struct hk_stats stats;
	unsigned char *zeroed;
	void *old[3];

	place = aligned_alloc(2 * MIB, 32 * MIB);
	cr_assert_not_null(place);
	memset(place, 0x5a, 32 * MIB);
	config.context = &reports;
	config.on_report = test_on_report;
	cr_assert_eq(hk_arena_create(&first, &config), 0);
	cr_assert_eq(hk_cache_create(first, &cache), 0);
	use(cache, 5);
	old[0] = hk_alloc(cache, 100);
	old[1] = hk_alloc(cache, 5000);
	old[2] = hk_alloc(cache, 4 * MIB);
	hk_arena_reset(first);
	hk_arena_destroy(first);
	cr_assert_eq(reports.count, 0);

	cr_assert_eq(hk_arena_create(&second, &config), 0);
	cr_assert_eq(second, first, "the same place");
	cr_assert_eq(hk_arena_check(second), 0);
	hk_arena_stats(second, &stats);
	cr_assert_eq(stats.live_blocks + stats.cached_bytes + stats.free_bytes, 0);
	cr_assert_eq(stats.cache_count, 0);
	cr_assert_eq(stats.counters.slab_batch + stats.counters.large_alloc, 0);
	cr_assert_eq(hk_cache_create(second, &cache), 0);
	cr_assert_not(hk_arena_owns(second, old[0]));
	cr_assert_eq(hk_usable_size(second, old[2]), 0);
	hk_free(cache, old[0]);
	hk_arena_free(second, old[1]);
	hk_free(cache, old[2]);
	cr_assert_eq(reports.by_fault[HK_FAULT_FOREIGN], 3, "%zu", reports.count);
	zeroed = hk_zalloc(cache, MIB);
	cr_assert_not_null(zeroed);
	cr_assert(zeroed[0] == 0 && memcmp(zeroed, zeroed + 1, MIB - 1) == 0);
	hk_free(cache, zeroed);
	hk_arena_destroy(second);
	cr_assert_eq(reports.count, 3);
	free(place);
}

/*
 * mimalloc-pprof 137: tables of the allocator's own came from a heap of the user's, and were
 * gone when he destroyed it. All that an arena has, it has from its own platform.
 */
Test(immune, no_arena_keeps_its_tables_in_another)
{
	static struct fault_platform faults[3];
	struct hk_arena *arenas[3];
	struct hk_cache *caches[3];
	struct hk_stats stats;
	size_t i;
	size_t j;

	for (i = 0; i < 3; i++) {
		struct hk_arena_config config = { .address_space = 64 * MIB };

		cr_assert_eq(fault_platform_init(&faults[i],
						 &(struct fault_options){ .forbid = true }),
			     0);
		config.platform = &faults[i].platform;
		cr_assert_eq(hk_arena_create(&arenas[i], &config), 0);
		cr_assert_eq(hk_cache_create(arenas[i], &caches[i]), 0);
		use(caches[i], i + 1);
	}
	for (i = 0; i < 3; i++) {
		hk_arena_reset(arenas[i]);
		hk_arena_destroy(arenas[i]);
		cr_assert_eq(fault_platform_end(&faults[i]), 0, "%s", faults[i].violation);
		for (j = i + 1; j < 3; j++) {
			use(caches[j], i + 1);
			cr_assert_eq(hk_arena_check(arenas[j]), 0);
			hk_arena_stats(arenas[j], &stats);
			cr_assert_eq(stats.committed_bytes, faults[j].committed);
		}
	}
}

/*
 * Threads that pass blocks on through one shelf: whoever takes a block from it checks what its
 * owner wrote, and frees it through his own cache. A block given to two owners shows as a
 * changed stamp. Small sizes of few classes make slabs empty and change their class all the
 * while.
 */
#define SHELF 256
#define SHELF_THREADS 8

static struct {
	struct hk_arena *arena;
	pthread_mutex_t lock;
	uint64_t *blocks[SHELF];
	size_t rounds;
	size_t errors;
} shelf;

static size_t stamp_words(const uint64_t *block)
{
	return (size_t)(block[0] % 5 == 0 ? 2 : block[0] % 5 * 30);
}

static bool shelf_check(const uint64_t *block)
{
	size_t words = stamp_words(block);

	return block[1] == ~block[0] && block[words - 1] == ~block[0];
}

static void *shelf_thread(void *argument)
{
	uint64_t seed = (uint64_t)(uintptr_t)argument * 77 + 1;
	struct hk_cache *cache;
	size_t errors = 0;
	size_t i;

	if (hk_cache_create(shelf.arena, &cache))
		return argument;
	for (i = 0; i < shelf.rounds; i++) {
		uint64_t mark = test_random(&seed);
		size_t place_on_it = (size_t)(test_random(&seed) % SHELF);
		uint64_t *block;
		uint64_t *old;

		block = hk_alloc(cache, mark % 5 == 0 ? 16 : (size_t)(mark % 5) * 240);
		if (!block) {
			errors++;
			break;
		}
		block[0] = mark;
		block[stamp_words(block) - 1] = ~mark;
		block[1] = ~mark;
		pthread_mutex_lock(&shelf.lock);
		old = shelf.blocks[place_on_it];
		shelf.blocks[place_on_it] = block;
		pthread_mutex_unlock(&shelf.lock);
		if (!old)
			continue;
		errors += !shelf_check(old);
		/* written to the last moment: a slab recycled too early would show it */
		old[0] = old[1] = 0;
		if (mark % 64 == 0)
			hk_arena_free(shelf.arena, old);
		else
			hk_free(cache, old);
		if (mark % 512 == 0)
			hk_cache_flush(cache);
	}
	hk_cache_destroy(cache);
	pthread_mutex_lock(&shelf.lock);
	shelf.errors += errors;
	pthread_mutex_unlock(&shelf.lock);
	return NULL;
}

static void run_threads(void *(*thread)(void *), size_t rounds)
{
	struct test_reports reports = { 0 };
	pthread_t threads[SHELF_THREADS];
	struct hk_stats stats;
	size_t i;

	memset(&shelf, 0, sizeof(shelf));
	pthread_mutex_init(&shelf.lock, NULL);
	shelf.arena = test_arena(&reports, 0);
	shelf.rounds = rounds;
	for (i = 0; i < SHELF_THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, thread, (void *)(i + 1)), 0);
	for (i = 0; i < SHELF_THREADS; i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		cr_assert_null(failed);
	}
	cr_assert_eq(shelf.errors, 0, "%zu blocks changed in other hands", shelf.errors);
	for (i = 0; i < SHELF; i++) {
		if (!shelf.blocks[i])
			continue;
		cr_assert(shelf_check(shelf.blocks[i]));
		hk_arena_free(shelf.arena, shelf.blocks[i]);
	}
	cr_assert_eq(hk_arena_check(shelf.arena), 0, "%s", reports.last.what);
	hk_arena_stats(shelf.arena, &stats);
	cr_assert_eq(stats.live_blocks, 0, "%zu live", stats.live_blocks);
	cr_assert_leq(stats.counters.lock_waited, stats.counters.lock_acquired);
	cr_assert_eq(reports.count, 0, "%s", reports.last.what);
	hk_arena_destroy(shelf.arena);
	cr_assert_eq(reports.count, 0);
}

/*
 * rpmalloc 280 to 282: a span was recycled for another size while the thread that had freed its
 * last block from afar was still storing to it.
 */
Test(immune, slab_recycled_while_others_free_into_it, .timeout = 120)
{
	run_threads(shelf_thread, 20000);
}

/*
 * rpmalloc 32: the list of orphaned heaps suffered from ABA; a head read before two pops and a
 * push looked unchanged. The depot's stacks of magazines are such lists. Here magazines are
 * popped and pushed without pause by more threads than there are processors, so that many are
 * preempted between the two halves of a pop; a magazine that two caches got gives out blocks
 * twice.
 */
static void *swap_magazines(void *argument)
{
	uint64_t mine = (uint64_t)(uintptr_t)argument;
	uint64_t *blocks[4];
	struct hk_cache *cache;
	size_t errors = 0;
	size_t i;
	size_t j;

	if (hk_cache_create(shelf.arena, &cache))
		return argument;
	for (i = 0; i < shelf.rounds && !errors; i++) {
		/* so large that a magazine holds one: each call goes to the depot */
		for (j = 0; j < COUNT(blocks); j++) {
			blocks[j] = hk_alloc(cache, 20000);
			if (!blocks[j])
				return argument;
			*blocks[j] = mine << 32 | i;
		}
		for (j = 0; j < COUNT(blocks); j++) {
			errors += *blocks[j] != (mine << 32 | i);
			hk_free(cache, blocks[j]);
		}
	}
	hk_cache_destroy(cache);
	pthread_mutex_lock(&shelf.lock);
	shelf.errors += errors;
	pthread_mutex_unlock(&shelf.lock);
	return NULL;
}

Test(immune, stacks_of_magazines_survive_aba, .timeout = 120)
{
	run_threads(swap_magazines, 800000);
}

/* snmalloc 876: a thread that only ever freed what others had allocated leaked it all. */
static void *free_only(void *argument)
{
	void **blocks = argument;
	struct hk_cache *cache;

	if (hk_cache_create(shelf.arena, &cache))
		return argument;
	hk_free_bulk(cache, 3000, blocks);
	hk_cache_destroy(cache);
	return NULL;
}

Test(immune, blocks_freed_by_others_only_come_back, .timeout = 60)
{
	static void *blocks[3000];
	struct heap heap;
	size_t used = 0;
	int round;
	size_t i;

	heap_open(&heap, 0);
	shelf.arena = heap.arena;
	for (round = 0; round < 100; round++) {
		pthread_t thread;
		void *failed;

		for (i = 0; i < COUNT(blocks); i++) {
			blocks[i] = hk_alloc(heap.cache, 16 + i % 1000);
			must(blocks[i], "round %d", round);
		}
		cr_assert_eq(pthread_create(&thread, NULL, free_only, blocks), 0);
		pthread_join(thread, &failed);
		cr_assert_null(failed);
		if (round == 10)
			used = hk_arena_used(heap.arena);
	}
	cr_assert_leq(hk_arena_used(heap.arena), used + MIB, "%zu after ten rounds, %zu after all",
		      used, hk_arena_used(heap.arena));
	heap_close(&heap, 0);
}

/*
 * mimalloc 630: a thread preempted in the middle of a free from afar made the owner spin until
 * it ran again. Here one thread is stopped for good within the platform, in the midst of a
 * trim, until the other has done all its work; a lock held meanwhile would stop both.
 */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopped;
	bool go_on;
} gate = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false };

static int decommit_at_the_gate(void *context, void *ptr, size_t size)
{
	pthread_mutex_lock(&gate.lock);
	gate.stopped = true;
	pthread_cond_broadcast(&gate.changed);
	while (!gate.go_on)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
	return fault.platform.decommit(context, ptr, size);
}

static void *trim_thread(void *argument)
{
	hk_arena_trim(argument, 0, 0);
	return NULL;
}

Test(immune, thread_stopped_within_a_trim_stops_no_other, .timeout = 60)
{
	struct hk_arena_config config = { .address_space = 256 * MIB };
	struct hk_platform platform;
	struct hk_arena *arena;
	struct hk_cache *cache;
	struct hk_stats stats;
	pthread_t thread;
	void *block;

	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	platform = fault.platform;
	platform.decommit = decommit_at_the_gate;
	config.platform = &platform;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	block = hk_alloc(cache, 16 * MIB);
	hk_free(cache, block);
	cr_assert_eq(pthread_create(&thread, NULL, trim_thread, arena), 0);
	pthread_mutex_lock(&gate.lock);
	while (!gate.stopped)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);

	use(cache, 4);
	hk_cache_flush(cache);
	block = hk_alloc(cache, 32 * MIB);
	cr_assert_not_null(block);
	hk_arena_free(arena, block);
	hk_arena_stats(arena, &stats);
	block = hk_arena_alloc(arena, 100);
	cr_assert_not_null(block);
	hk_cache_destroy(cache);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);

	pthread_mutex_lock(&gate.lock);
	gate.go_on = true;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
	pthread_join(thread, NULL);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_reset(arena);
	hk_arena_destroy(arena);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}
