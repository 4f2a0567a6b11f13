/* SPDX-License-Identifier: MIT */
/*
 * The model with threads: four of them on two arenas, each with blocks of its own, all passing
 * blocks through a shelf, caches going from thread to thread between the rounds. While they
 * run each block's content tells whether it was given twice; when they rest, the list of all
 * blocks, the statistics and the invariants do.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)
#define ARENAS 2
#define THREADS 4
#define OWN 300
#define SHELF 64
#define ROUNDS 8
#define STEPS 3000
#define REGION (96 * MIB)

struct held {
	unsigned char *ptr;
	size_t size;
	size_t usable;
	uint64_t seed;
	unsigned arena;
};

static struct {
	struct fault_platform faults[ARENAS];
	struct test_reports reports[ARENAS];
	struct hk_arena *arenas[ARENAS];
	struct hk_cache *caches[ARENAS][THREADS];
	bool limited[ARENAS];
	pthread_mutex_t lock;
	struct held shelf[SHELF];
} town;

static struct worker {
	pthread_t thread;
	unsigned number;
	uint64_t seed;
	struct held blocks[OWN];
	struct hk_cache *caches[ARENAS];
	char error[120];
} workers[THREADS];

/* Only the test's own thread may fail it: a worker keeps its first error. */
static void complain(struct worker *worker, const char *what, const struct held *held)
{
	if (!worker->error[0])
		snprintf(worker->error, sizeof(worker->error), "worker %u: %s, %zu bytes at %p",
			 worker->number, what, held->size, (void *)held->ptr);
}

static size_t random_size(uint64_t *seed)
{
	uint64_t kind = test_random(seed) % 100;

	return (size_t)(test_random(seed) % (kind < 80	 ? 600
					     : kind < 95 ? 20000
					     : kind < 99 ? 300000
							 : 2 * MIB));
}

static void enter(struct worker *worker, struct held *held, void *ptr, size_t size, unsigned arena)
{
	memset(held, 0, sizeof(*held));
	if (!ptr) {
		held->size = size;
		if (!town.limited[arena])
			complain(worker, "no memory", held);
		return;
	}
	held->ptr = ptr;
	held->size = size;
	held->usable = hk_usable_size(town.arenas[arena], ptr);
	held->seed = test_random(&worker->seed);
	held->arena = arena;
	if (held->usable < size || (uintptr_t)ptr % 16)
		complain(worker, "too small or not aligned", held);
	model_stamp(ptr, size, held->seed);
}

static bool intact(struct worker *worker, const struct held *held)
{
	if (model_holds(held->ptr, held->size, held->size, held->seed))
		return true;
	complain(worker, "content is lost", held);
	return false;
}

static void let_go(struct worker *worker, struct held *held)
{
	if (held->ptr && intact(worker, held)) {
		memset(held->ptr, 0xdb, held->size < 64 ? held->size : 64);
		if (test_random(&worker->seed) % 16 == 0)
			hk_arena_free(town.arenas[held->arena], held->ptr);
		else
			hk_free(worker->caches[held->arena], held->ptr);
	}
	memset(held, 0, sizeof(*held));
}

static void resize(struct worker *worker, struct held *held)
{
	size_t size = random_size(&worker->seed);
	struct held old = *held;
	void *moved;

	if (!old.ptr || !intact(worker, held))
		return;
	moved = hk_realloc(worker->caches[old.arena], old.ptr, size);
	if (!moved) {
		if (!town.limited[old.arena] || size <= old.usable)
			complain(worker, "resizing failed", held);
		return;
	}
	if (!model_holds(moved, old.size, old.size < size ? old.size : size, old.seed))
		complain(worker, "content is lost in resizing", held);
	enter(worker, held, moved, size, old.arena);
}

/* What is on the shelf was checked by nobody since its owner wrote it. */
static void swap_on_shelf(struct worker *worker, struct held *held)
{
	size_t slot = (size_t)(test_random(&worker->seed) % SHELF);
	struct held taken;

	pthread_mutex_lock(&town.lock);
	taken = town.shelf[slot];
	town.shelf[slot] = *held;
	pthread_mutex_unlock(&town.lock);
	*held = taken;
}

static void rarities(struct worker *worker, unsigned arena)
{
	struct hk_stats stats;

	switch (test_random(&worker->seed) % 12) {
	case 0:
		hk_cache_destroy(worker->caches[arena]);
		/* another's failed creation may have kept none free, but not this one */
		if (hk_cache_create(town.arenas[arena], &worker->caches[arena]))
			complain(worker, "no cache", &worker->blocks[0]);
		break;
	case 1:
		hk_arena_trim(town.arenas[arena], (size_t)(test_random(&worker->seed) % (8 * MIB)),
			      test_random(&worker->seed) % 2 * 100000);
		break;
	case 2:
		hk_arena_stats(town.arenas[arena], &stats);
		if (stats.live_blocks > (size_t)1 << 40 || stats.cached_bytes > (size_t)1 << 40)
			complain(worker, "statistics below zero", &worker->blocks[0]);
		break;
	case 3:
	case 4:
		hk_cache_rest(worker->caches[arena]);
		break;
	case 5:
	case 6:
		hk_arena_maintain(town.arenas[arena], test_random(&worker->seed) % 2 * 100000);
		break;
	case 7:
		if (hk_arena_prewarm(town.arenas[arena],
				     hk_arena_used(town.arenas[arena]) +
					     (size_t)(test_random(&worker->seed) % MIB)) &&
		    !town.limited[arena])
			complain(worker, "no prewarming", &worker->blocks[0]);
		break;
	default:
		hk_cache_flush(worker->caches[arena]);
	}
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	size_t i;

	for (i = 0; i < STEPS && !worker->error[0]; i++) {
		size_t slot = (size_t)(test_random(&worker->seed) % OWN);
		struct held *held = &worker->blocks[slot];
		unsigned arena = (unsigned)(test_random(&worker->seed) % ARENAS);
		size_t size = random_size(&worker->seed);
		struct hk_cache *cache = worker->caches[arena];
		size_t align = (size_t)1 << test_random(&worker->seed) % 14;

		switch (test_random(&worker->seed) % 32) {
		case 0:
		case 1:
			resize(worker, held);
			break;
		case 2:
			let_go(worker, held);
			enter(worker, held, hk_arena_alloc(town.arenas[arena], size), size, arena);
			break;
		case 3:
			let_go(worker, held);
			enter(worker, held, hk_alloc_aligned(cache, size, align), size, arena);
			break;
		case 4:
			let_go(worker, held);
			enter(worker, held, hk_zalloc(cache, size), size, arena);
			break;
		case 5:
			if (i % 6 == 0)
				rarities(worker, arena);
			break;
		case 6:
		case 7:
		case 8:
		case 9:
		case 10:
		case 11:
			swap_on_shelf(worker, held);
			break;
		default:
			let_go(worker, held);
			enter(worker, held, hk_alloc(cache, size), size, arena);
		}
	}
	return NULL;
}

static int by_address(const void *a, const void *b)
{
	const struct held *first = a;
	const struct held *second = b;

	return first->ptr < second->ptr ? -1 : first->ptr > second->ptr;
}

/* Everybody rests: one list of all blocks, and what each arena says it has. */
static void take_stock(int round)
{
	static struct held all[THREADS * OWN + SHELF];
	size_t blocks[ARENAS] = { 0 };
	size_t bytes[ARENAS] = { 0 };
	struct hk_stats stats;
	size_t count = 0;
	size_t i;

	for (i = 0; i < THREADS * OWN + SHELF; i++) {
		const struct held *held =
			i < SHELF ? &town.shelf[i]
				  : &workers[(i - SHELF) / OWN].blocks[(i - SHELF) % OWN];

		if (!held->ptr)
			continue;
		all[count++] = *held;
		blocks[held->arena]++;
		bytes[held->arena] += held->usable;
		must(model_holds(held->ptr, held->size, held->size, held->seed), "round %d", round);
	}
	qsort(all, count, sizeof(all[0]), by_address);
	for (i = 1; i < count; i++)
		must(all[i - 1].ptr + all[i - 1].usable <= all[i].ptr, "round %d: overlap at %p",
		     round, (void *)all[i].ptr);
	for (i = 0; i < ARENAS; i++) {
		must(hk_arena_check(town.arenas[i]) == 0, "round %d: %s", round,
		     town.reports[i].last.what);
		hk_arena_stats(town.arenas[i], &stats);
		must(stats.live_blocks == blocks[i], "round %d: %zu live, not %zu", round,
		     stats.live_blocks, blocks[i]);
		must(stats.live_bytes == bytes[i], "round %d: %zu bytes live, not %zu", round,
		     stats.live_bytes, bytes[i]);
		must(stats.committed_bytes == town.faults[i].committed, "round %d", round);
		must(stats.counters.lock_waited <= stats.counters.lock_acquired, "round %d", round);
		must(town.reports[i].count == town.reports[i].by_fault[HK_FAULT_EXHAUSTED],
		     "round %d: %s", round, town.reports[i].last.what);
		must(town.limited[i] || town.reports[i].count == 0, "round %d", round);
		must(town.faults[i].violations == 0, "round %d: %s", round,
		     town.faults[i].violation);
	}
}

/* A report may come from any thread. */
static void on_report(void *context, const struct hk_report *report)
{
	pthread_mutex_lock(&town.lock);
	test_on_report(context, report);
	pthread_mutex_unlock(&town.lock);
}

static void run(uint64_t seed, struct model_platform platform, struct fault_options options,
		size_t limit)
{
	struct hk_fixed_region regions[ARENAS] = { 0 };
	unsigned i;
	unsigned j;
	int round;

	memset(&town, 0, sizeof(town));
	memset(workers, 0, sizeof(workers));
	pthread_mutex_init(&town.lock, NULL);
	for (i = 0; i < ARENAS; i++) {
		struct hk_arena_config config = {
			.address_space = platform.open ? 0 : 512 * MIB,
			.limit = i ? limit : 0,
			.platform = &town.faults[i].platform,
			.context = &town.reports[i],
			.on_report = on_report,
			.maintain_delay = 5,
		};

		town.limited[i] = config.limit != 0;
		if (platform.open) {
			regions[i].size = REGION;
			regions[i].memory = malloc(REGION);
			cr_assert_not_null(regions[i].memory);
		}
		model_platform_init(&town.faults[i], &platform, options, &regions[i]);
		cr_assert_eq(hk_arena_create(&town.arenas[i], &config), 0);
		for (j = 0; j < THREADS; j++)
			cr_assert_eq(hk_cache_create(town.arenas[i], &town.caches[i][j]), 0);
	}
	for (round = 0; round < ROUNDS; round++) {
		for (j = 0; j < THREADS; j++) {
			workers[j].number = j;
			workers[j].seed = seed + (uint64_t)round * THREADS + j + 1;
			for (i = 0; i < ARENAS; i++)
				workers[j].caches[i] =
					town.caches[i][(j + (unsigned)round) % THREADS];
			cr_assert_eq(pthread_create(&workers[j].thread, NULL, work, &workers[j]),
				     0);
		}
		for (j = 0; j < THREADS; j++) {
			pthread_join(workers[j].thread, NULL);
			for (i = 0; i < ARENAS; i++)
				town.caches[i][(j + (unsigned)round) % THREADS] =
					workers[j].caches[i];
		}
		for (j = 0; j < THREADS; j++)
			cr_assert_str_eq(workers[j].error, "", "seed %llu, round %d: %s",
					 (unsigned long long)seed, round, workers[j].error);
		take_stock(round);
	}
	for (i = 0; i < ARENAS; i++) {
		hk_arena_reset(town.arenas[i]);
		hk_arena_destroy(town.arenas[i]);
		cr_assert_eq(town.reports[i].by_fault[HK_FAULT_LEAK], 0);
		cr_assert_eq(fault_platform_end(&town.faults[i]), 0, "%s",
			     town.faults[i].violation);
		free(regions[i].memory);
	}
}

#define RUN(name, ...)                                                                             \
	Test(model_threads, name, .timeout = 300)                                                  \
	{                                                                                          \
		run(sizeof(#name), (struct model_platform){ __VA_ARGS__ },                         \
		    (struct fault_options){ .forbid = true }, 12 * MIB);                           \
	}

MODEL_PLATFORMS(RUN)

Test(model_threads, without_parking, .timeout = 300)
{
	run(1000, (struct model_platform){ .page_size = 4096 },
	    (struct fault_options){ .hide = FAULT_BIT(FAULT_PARK) }, 0);
}
