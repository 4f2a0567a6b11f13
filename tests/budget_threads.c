/* SPDX-License-Identifier: MIT */
/* Random budgets within each other, under threads: the platform counts, and no limit is passed. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include <platform/platform.h>

#include "heap.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define BUDGETS 1000
#define ARENAS 48
#define WORKERS 8
#define BLOCKS 64
#define STEPS 3000

/* What the platforms of all arenas within a budget have committed. */
static struct counted {
	struct hk_budget budget;
	struct counted *parent;
	size_t limit;
	unsigned depth;
	_Atomic size_t committed;
} counted[BUDGETS];

static struct place {
	struct hk_platform inner;
	struct counted *counted;
	_Atomic size_t committed;
	struct hk_arena *arena;
	struct hk_cache *caches[WORKERS];
} places[ARENAS];

static _Atomic size_t beyond, refused, pressed;

static void count(struct place *place, size_t more)
{
	struct counted *level;

	atomic_fetch_add(&place->committed, more);
	for (level = place->counted; level; level = level->parent)
		if (atomic_fetch_add(&level->committed, more) + more > level->limit)
			atomic_fetch_add(&beyond, 1);
}

static void count_off(struct place *place, size_t less)
{
	struct counted *level;

	atomic_fetch_sub(&place->committed, less);
	for (level = place->counted; level; level = level->parent)
		atomic_fetch_sub(&level->committed, less);
}

static void *place_reserve(void *context, size_t size, size_t align)
{
	struct place *place = context;

	return place->inner.reserve(place->inner.context, size, align);
}

static int place_commit(void *context, void *ptr, size_t size)
{
	struct place *place = context;
	int error = place->inner.commit(place->inner.context, ptr, size);

	if (!error)
		count(place, size);
	return error;
}

static int place_decommit(void *context, void *ptr, size_t size)
{
	struct place *place = context;
	int error = place->inner.decommit(place->inner.context, ptr, size);

	if (!error)
		count_off(place, size);
	return error;
}

static void place_release(void *context, void *ptr, size_t size)
{
	struct place *place = context;

	place->inner.release(place->inner.context, ptr, size);
	count_off(place, atomic_load(&place->committed));
}

static void on_pressure(void *context, struct hk_arena *arena, size_t used, size_t limit)
{
	(void)context;
	(void)used;
	(void)limit;
	atomic_fetch_add(&pressed, 1);
	hk_arena_trim(arena, 0, 0);
}

static bool on_oom(void *context, struct hk_arena *arena, size_t size)
{
	(void)context;
	(void)arena;
	(void)size;
	atomic_fetch_add(&refused, 1);
	return false;
}

static void open_budgets(uint64_t *seed)
{
	unsigned i;

	for (i = 0; i < BUDGETS; i++) {
		struct counted *parent =
			i && test_random(seed) % 8 ? &counted[test_random(seed) % i] : NULL;
		struct hk_budget_config config = { .on_pressure = on_pressure };

		while (parent && parent->depth + 2 >= HK_BUDGET_DEPTH)
			parent = parent->parent;
		config.parent = parent ? &parent->budget : NULL;
		config.limit = (1 + test_random(seed) % 96) * 64 * KIB + test_random(seed) % 3;
		config.soft_limit = test_random(seed) % 2 ? config.limit / 2 : 0;
		counted[i] = (struct counted){ .parent = parent,
					       .limit = config.limit,
					       .depth = parent ? parent->depth + 1 : 1 };
		cr_assert_eq(hk_budget_init(&counted[i].budget, &config), 0);
	}
}

/* Whether there is room for an arena. */
static bool open_place(struct place *place, uint64_t *seed)
{
	struct hk_platform platform;
	struct hk_arena_config config = { .address_space = 4 * MIB,
					  .platform = &platform,
					  .on_oom = on_oom,
					  .reserve = test_random(seed) % 4 ? 0 : 64 * KIB };
	unsigned i;

	memset(place, 0, sizeof(*place));
	place->counted = &counted[test_random(seed) % BUDGETS];
	config.budget = &place->counted->budget;
	cr_assert_eq(hk_platform_system(&place->inner), 0);
	platform = place->inner;
	platform.context = place;
	platform.reserve = place_reserve;
	platform.commit = place_commit;
	platform.decommit = place_decommit;
	platform.release = place_release;
	platform.populate = NULL;
	platform.move = NULL;
	platform.large_pages = NULL;
	platform.now_ns = NULL;
	platform.park = NULL;
	platform.wake = NULL;
	if (hk_arena_create(&place->arena, &config))
		return false;
	for (i = 0; i < WORKERS; i++)
		if (hk_cache_create(place->arena, &place->caches[i])) {
			hk_arena_destroy(place->arena);
			return false;
		}
	return true;
}

static void *work(void *argument)
{
	static unsigned char *blocks[WORKERS][ARENAS][BLOCKS];
	uintptr_t number = (uintptr_t)argument;
	uint64_t seed = 77 + number;
	unsigned step;

	for (step = 0; step < STEPS; step++) {
		unsigned at = (unsigned)(test_random(&seed) % ARENAS);
		struct place *place = &places[at];
		unsigned char **block = &blocks[number][at][test_random(&seed) % BLOCKS];
		size_t size = (size_t)1 << test_random(&seed) % 21;

		if (test_random(&seed) % 32 == 0)
			hk_arena_trim(place->arena, test_random(&seed) % MIB, 0);
		hk_free(place->caches[number], *block);
		*block = hk_alloc(place->caches[number], size);
		if (*block)
			(*block)[0] = (*block)[size - 1] = 1;
	}
	return NULL;
}

Test(budget, a_thousand_random_ones_under_eight_workers, .timeout = 120)
{
	pthread_t threads[WORKERS];
	uint64_t seed = 4711;
	uintptr_t i;
	unsigned tries = 0;
	struct counted *level;

	open_budgets(&seed);
	for (i = 0; i < ARENAS; i++)
		while (!open_place(&places[i], &seed))
			cr_assert_lt(tries++, 10000);
	for (i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	for (i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_assert_eq(beyond, 0, "%zu times beyond a limit", (size_t)beyond);
	cr_assert_gt(refused, 100, "no limit was ever reached");
	cr_assert_gt(pressed, 0);
	for (level = counted; level < counted + BUDGETS; level++)
		must(hk_budget_used(&level->budget) == level->committed, "%zu, but %zu",
		     hk_budget_used(&level->budget), (size_t)level->committed);
	for (i = 0; i < ARENAS; i++) {
		must(hk_arena_check(places[i].arena) == 0, "arena %zu", (size_t)i);
		hk_arena_destroy(places[i].arena);
	}
	for (level = counted + BUDGETS; level-- > counted;) {
		must(hk_budget_used(&level->budget) == 0, "something stays charged");
		must(hk_budget_peak(&level->budget) <= level->limit, "the peak is beyond");
		must(hk_budget_destroy(&level->budget) == 0, "somebody is within");
	}
}
