/* SPDX-License-Identifier: MIT */
/*
 * Two arenas in one process, each with functions of the host's own: one over the system, one
 * over memory that the host has. The functions take their time and fail, while four threads
 * allocate, free, resize, trim and flush: content stays, the books of both sides agree, each
 * failure is told to the right host, and nothing is left behind.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>

#include "heap.h"
#include "host_platform.h"
#include "signed_block.h"

#define MIB ((size_t)1 << 20)
#define HOSTS 2
#define THREADS 4
#define OWN 200
#define SHELF 32
#define LARGE 33 /* replace() by a large block */

static struct host hosts[HOSTS];

/*
 * @told: reports of each fault; of HK_FAULT_PLATFORM their counts.
 * @refused: calls that returned NULL.
 * @empty: bytes committed with the caches and nothing else.
 * @failed_before: failures before there was an arena to tell of them.
 * @shelf: where threads leave blocks for each other.
 */
struct heap_of_host {
	struct hk_arena *arena;
	struct hk_cache *caches[THREADS];
	atomic_ullong told[HK_FAULT_PLATFORM + 1];
	atomic_ullong refused;
	size_t empty;
	unsigned long long failed_before;
	_Atomic(unsigned char *) shelf[SHELF];
};

static struct heap_of_host heaps[HOSTS];

static struct worker {
	pthread_t thread;
	unsigned number;
	uint64_t seed;
	size_t steps;
	unsigned char *blocks[HOSTS][OWN];
	const char *error;
} workers[THREADS];

static void on_report(void *context, const struct hk_report *report)
{
	struct heap_of_host *heap = context;

	atomic_fetch_add(&heap->told[report->fault],
			 report->fault == HK_FAULT_PLATFORM ? report->count : 1);
}

/* What fails while an arena is made is an error, and the next try finds nothing in its way. */
static void heap_make(struct heap_of_host *heap, struct host *host)
{
	struct hk_arena_config config = {
		.address_space = HOST_RANGE,
		.platform = &host->platform,
		.context = heap,
		.on_report = on_report,
	};
	unsigned long long failed;
	unsigned i;
	int error;

	memset(heap, 0, sizeof(*heap));
	do {
		host->calls = 0;
		failed = host_failures(host) + host->failed[FAULT_RESERVE];
		error = hk_arena_create(&heap->arena, &config);
		must(!error || host_failures(host) + host->failed[FAULT_RESERVE] > failed, "%s",
		     hk_error_name(error));
		must(!error || !host->base, "a reservation is left behind");
		heap->failed_before = host_failures(host);
	} while (error);
	for (i = 0; i < THREADS; i++) {
		do {
			failed = host_failures(host);
			error = hk_cache_create(heap->arena, &heap->caches[i]);
			must(!error || host_failures(host) > failed, "%s", hk_error_name(error));
		} while (error);
	}
	heap->empty = host->committed;
}

static size_t random_size(uint64_t *seed)
{
	uint64_t kind = test_random(seed) % 100;
	size_t most = kind < 80 ? 600 : kind < 95 ? 20000 : kind < 98 ? 300000 : 3 * MIB / 2;

	return sizeof(struct signature) + (size_t)(test_random(seed) % most);
}

/* Whether a block is of this host and has its content, of which @most bytes are left. */
static bool is_intact(unsigned number, const unsigned char *block, size_t most)
{
	size_t usable = hk_usable_size(heaps[number].arena, block);
	const unsigned char *base = hosts[number].base;

	return usable >= sizeof(struct signature) && block > base &&
	       block + usable <= base + hosts[number].size &&
	       block_holds(block, usable < most ? usable : most);
}

static void resize(struct worker *worker, unsigned number, unsigned char **slot, size_t size)
{
	struct heap_of_host *heap = &heaps[number];
	unsigned char *moved;
	size_t usable;

	if (!*slot)
		return;
	usable = hk_usable_size(heap->arena, *slot);
	moved = hk_realloc(heap->caches[worker->number], *slot, size);
	heap->refused += !moved;
	if (!moved && size <= usable)
		worker->error = "shrinking failed";
	if (!is_intact(number, moved ? moved : *slot, moved ? size : SIZE_MAX))
		worker->error = "resizing lost content";
	if (!moved)
		return;
	*slot = moved;
	block_sign(moved, size, test_random(&worker->seed));
}

static void replace(struct worker *worker, unsigned number, unsigned char **slot, uint64_t how)
{
	struct heap_of_host *heap = &heaps[number];
	struct hk_cache *cache = heap->caches[worker->number];
	size_t size = how == LARGE ? 600000 : random_size(&worker->seed), i;

	if (*slot && !is_intact(number, *slot, SIZE_MAX)) {
		worker->error = "content is lost";
		return;
	}
	if (how % 4)
		hk_free(cache, *slot);
	else
		hk_arena_free(heap->arena, *slot);
	*slot = how == 1       ? hk_zalloc(cache, size)
		: how == 2     ? hk_alloc_aligned(cache, size, 4096)
		: how % 8 == 0 ? hk_arena_alloc(heap->arena, size)
			       : hk_alloc(cache, size);
	heap->refused += !*slot;
	if (!*slot)
		return;
	for (i = 0; how == 1 && i < size; i++)
		if ((*slot)[i])
			worker->error = "not zero";
	block_sign(*slot, size, test_random(&worker->seed));
}

/* A large block that cannot grow where it is, since another lies behind: its pages move. */
static void move_large(struct worker *worker, unsigned number)
{
	unsigned char *blocks[2] = { NULL };

	replace(worker, number, &blocks[0], LARGE);
	replace(worker, number, &blocks[1], LARGE);
	if (blocks[0])
		resize(worker, number, &blocks[0], MIB);
	hk_free(heaps[number].caches[worker->number], blocks[0]);
	hk_free(heaps[number].caches[worker->number], blocks[1]);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	uint64_t *seed = &worker->seed;
	size_t i;

	for (i = 0; i < worker->steps && !worker->error; i++) {
		unsigned number = (unsigned)(test_random(seed) % HOSTS);
		struct heap_of_host *heap = &heaps[number];
		unsigned char **slot = &worker->blocks[number][test_random(seed) % OWN];
		uint64_t what = test_random(seed) % 128;

		if (what < 2)
			hk_cache_flush(heap->caches[worker->number]);
		else if (what < 4)
			hk_arena_trim(heap->arena, (size_t)(test_random(seed) % (4 * MIB)),
				      what % 2 * 100000);
		else if (what < 6)
			move_large(worker, number);
		else if (what < 16)
			resize(worker, number, slot, random_size(seed));
		else if (what < 40)
			*slot = atomic_exchange(&heap->shelf[test_random(seed) % SHELF], *slot);
		else
			replace(worker, number, slot, what % 32);
	}
	return NULL;
}

static unsigned char *_Atomic *held(unsigned number, size_t index)
{
	if (index < SHELF)
		return &heaps[number].shelf[index];
	index -= SHELF;
	/* the threads have ended */
	return (unsigned char *_Atomic *)&workers[index / OWN].blocks[number][index % OWN];
}

/* Everybody rests: what the host knows, what the arena says and what the test holds agree. */
static void take_stock(unsigned number)
{
	static struct hk_stats stats;
	struct heap_of_host *heap = &heaps[number];
	struct host *host = &hosts[number];
	size_t count = 0, i;

	for (i = 0; i < SHELF + THREADS * OWN; i++) {
		const unsigned char *block = *held(number, i);

		must(!block || is_intact(number, block, SIZE_MAX), "host %u: content is lost",
		     number);
		count += block != NULL;
	}
	must(!host->breach, "host %u: %s", number, host->breach);
	must(host->inside == 0, "host %u: %u calls have not ended", number, host->inside);
	must(hk_arena_check(heap->arena) == 0, "host %u: broken invariants", number);
	hk_arena_stats(heap->arena, &stats);
	must(stats.live_blocks == count, "host %u: %zu blocks are live, not %zu", number,
	     stats.live_blocks, count);
	must(stats.committed_bytes == host->committed, "host %u: %zu bytes committed, not %zu",
	     number, stats.committed_bytes, host->committed);
	must(stats.counters.platform_call ==
		     host->calls - host->counts[FAULT_PARK] - host->counts[FAULT_WAKE],
	     "host %u: the arena counts other calls", number);
	must(heap->told[HK_FAULT_EXHAUSTED] == heap->refused,
	     "host %u: %llu calls returned NULL, %llu were told", number, heap->refused,
	     heap->told[HK_FAULT_EXHAUSTED]);
	must(stats.counters.exhausted == heap->refused, "host %u: counted otherwise", number);
	must(heap->told[HK_FAULT_PLATFORM] == host_failures(host) - heap->failed_before,
	     "host %u: %llu failures, %llu were told", number,
	     host_failures(host) - heap->failed_before, heap->told[HK_FAULT_PLATFORM]);
	for (i = 0; i <= HK_FAULT_PLATFORM; i++)
		must(i == HK_FAULT_EXHAUSTED || i == HK_FAULT_PLATFORM || !heap->told[i],
		     "host %u: %s", number, hk_fault_name((enum hk_fault)i));
}

static void close_heap(unsigned number)
{
	struct heap_of_host *heap = &heaps[number];
	struct host *host = &hosts[number];
	size_t i;

	host_disarm(host);
	for (i = 0; i < SHELF + THREADS * OWN; i++) {
		hk_arena_free(heap->arena, *held(number, i));
		*held(number, i) = NULL;
	}
	for (i = 0; i < THREADS; i++)
		hk_cache_flush(heap->caches[i]);
	take_stock(number);
	hk_arena_reset(heap->arena);
	hk_arena_trim(heap->arena, 0, 0);
	take_stock(number);
	must(host->committed <= heap->empty, "host %u: a trim leaves %zu bytes, not %zu", number,
	     host->committed, heap->empty);
	hk_arena_destroy(heap->arena);
	must(!host->base && !host->committed && !host->breach, "host %u: %s", number,
	     host->breach ? host->breach : "something is left behind");
	must(host->counts[FAULT_RELEASE] ==
		     host->counts[FAULT_RESERVE] - host->failed[FAULT_RESERVE],
	     "host %u: reserved and released are not the same", number);
	must(heap->told[HK_FAULT_LEAK] == 0, "host %u: leaks", number);
}

struct plan {
	bool slow;
	unsigned nth;
	unsigned per_mille;
	unsigned long long at;
	unsigned only;
};

static void open_heap(unsigned number, const struct plan *plan, uint64_t seed)
{
	cr_assert_eq(host_make(&hosts[number], number == 1, seed), 0);
	hosts[number].slow = plan->slow;
	hosts[number].at = plan->at;
	hosts[number].only = plan->only;
	heap_make(&heaps[number], &hosts[number]);
	/* with every second call failing there might never be an arena */
	hosts[number].nth = plan->nth;
	hosts[number].per_mille = plan->per_mille;
}

static void run(struct plan first, struct plan second, uint64_t seed, size_t steps)
{
	unsigned i;

	memset(workers, 0, sizeof(workers));
	open_heap(0, &first, seed);
	open_heap(1, &second, seed + 1);
	for (i = 0; i < THREADS; i++) {
		workers[i].number = i;
		workers[i].seed = seed * THREADS + i + 1;
		workers[i].steps = steps;
		cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (i = 0; i < THREADS; i++)
		must(!workers[i].error, "seed %llu: %s", (unsigned long long)seed,
		     workers[i].error);
	for (i = 0; i < HOSTS; i++)
		take_stock(i);
	for (i = 0; i < HOSTS; i++)
		close_heap(i);
}

/* Nothing is refused where nothing fails; and the test is worth something only with overlaps. */
Test(host, threads_overlap_in_slow_functions, .timeout = 120)
{
	run((struct plan){ .slow = true }, (struct plan){ .slow = true }, 1, 8000);
	cr_assert_eq(heaps[0].refused + heaps[1].refused, 0);
	cr_assert_geq(hosts[0].most_inside, 2);
	cr_assert_geq(hosts[1].most_inside, 2);
}

Test(host, every_nth_call_fails, .timeout = 120)
{
	static const unsigned nth[] = { 2, 3, 5, 17 };
	size_t i;

	for (i = 0; i < sizeof(nth) / sizeof(nth[0]); i++)
		run((struct plan){ .slow = true, .nth = nth[i] }, (struct plan){ .nth = nth[i] },
		    100 + i, 3000);
	cr_assert_gt(host_failures(&hosts[0]), 0);
	cr_assert_gt(host_failures(&hosts[1]), 0);
}

Test(host, calls_fail_at_random, .timeout = 120)
{
	static const unsigned per_mille[] = { 20, 200, 600 };
	unsigned long long refused = 0;
	size_t i;

	for (i = 0; i < sizeof(per_mille) / sizeof(per_mille[0]); i++) {
		run((struct plan){ .slow = true, .per_mille = per_mille[i] },
		    (struct plan){ .slow = true, .per_mille = per_mille[i] }, 200 + i, 1500);
		refused += heaps[0].refused + heaps[1].refused;
	}
	cr_assert_gt(refused, 0);
}

/* The first calls of each function, one by one. */
Test(host, each_call_fails_once, .timeout = 120)
{
	static const struct {
		enum fault_function function;
		unsigned calls;
	} first[] = {
		{ FAULT_RESERVE, 1 }, { FAULT_COMMIT, 10 }, { FAULT_DECOMMIT, 6 }, { FAULT_MOVE, 4 }
	};
	struct plan plan = { .slow = true };
	unsigned long long failed;
	size_t i;

	for (i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
		failed = 0;
		plan.only = FAULT_BIT(first[i].function);
		for (plan.at = 1; plan.at <= first[i].calls; plan.at++) {
			run(plan, plan, 1000 * (i + 1) + plan.at, 400);
			failed += hosts[0].failed[first[i].function];
		}
		if (first[i].function != FAULT_MOVE || hosts[0].platform.move)
			cr_assert_gt(failed, 0, "%s never failed",
				     fault_function_name(first[i].function));
	}
}

/* What is done to one arena, and what fails there, is nothing to the other host. */
Test(host, two_hosts_do_not_mix, .timeout = 120)
{
	struct worker *worker = &workers[0];
	unsigned long long calls;
	unsigned i, number;
	size_t committed;

	open_heap(0, &(struct plan){ 0 }, 1);
	open_heap(1, &(struct plan){ 0 }, 2);
	for (number = 0; number < HOSTS; number++) {
		struct host *other = &hosts[!number];

		calls = other->calls;
		committed = other->committed;
		hosts[number].nth = 2;
		for (i = 0; i < 2000; i++) {
			uint64_t random = test_random(&worker->seed);

			replace(worker, number, &worker->blocks[number][i % OWN], random % 32);
			if (random % 64 == 0)
				hk_arena_trim(heaps[number].arena, 0, 0);
		}
		cr_assert_null(worker->error, "%s", worker->error);
		cr_assert_gt(heaps[number].refused, 0);
		cr_assert_eq(other->calls, calls);
		cr_assert_eq(other->committed, committed);
		host_disarm(&hosts[number]);
		take_stock(number);
	}
	close_heap(0);
	take_stock(1);
	close_heap(1);
}
