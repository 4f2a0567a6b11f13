/* SPDX-License-Identifier: MIT */
/* Budgets: charges up the chain, soft limits, arenas that share one, the reserve. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include <hakmem/charge.h>

#include "heap.h"

#define MIB ((size_t)1 << 20)
#define KIB ((size_t)1 << 10)

/* What on_pressure was told. */
static struct told {
	unsigned calls;
	struct hk_arena *arena;
	size_t used;
	size_t limit;
} told;

static void on_pressure(void *context, struct hk_arena *arena, size_t used, size_t limit)
{
	struct told *of = context;

	of->calls++;
	of->arena = arena;
	of->used = used;
	of->limit = limit;
}

/* Three levels, 1000 bytes in 700 in 500 or as said. */
static struct hk_budget levels[3];

static void nest(size_t top, size_t middle, size_t low)
{
	const size_t limits[] = { top, middle, low };
	unsigned i;

	for (i = 0; i < 3; i++) {
		struct hk_budget_config config = { .parent = i ? &levels[i - 1] : NULL,
						   .limit = limits[i],
						   .context = &told,
						   .on_pressure = on_pressure };

		cr_assert_eq(hk_budget_init(&levels[i], &config), 0);
	}
}

static void expect_used(size_t top, size_t middle, size_t low)
{
	cr_assert_eq(hk_budget_used(&levels[0]), top);
	cr_assert_eq(hk_budget_used(&levels[1]), middle);
	cr_assert_eq(hk_budget_used(&levels[2]), low);
}

Test(budget, a_charge_goes_up_all_levels_or_none)
{
	uint32_t pressed;

	nest(1000, 700, 500);
	cr_assert_eq(hk_charge(&levels[2], 500, &pressed), 0);
	expect_used(500, 500, 500);
	cr_assert_eq(hk_charge(&levels[2], 1, &pressed), HK_ERROR_LIMIT);
	expect_used(500, 500, 500);
	hk_uncharge(&levels[2], 200);
	cr_assert_eq(hk_charge(&levels[1], 400, &pressed), 0);
	expect_used(700, 700, 300);
	cr_assert_eq(hk_charge(&levels[2], 1, &pressed), HK_ERROR_LIMIT, "the middle has none");
	expect_used(700, 700, 300);
	cr_assert_eq(hk_charge(&levels[0], 300, &pressed), 0);
	hk_uncharge(&levels[1], 100);
	cr_assert_eq(hk_charge(&levels[2], 101, &pressed), HK_ERROR_LIMIT, "the top has 100");
	expect_used(900, 600, 300);
	cr_assert_eq(hk_charge(&levels[2], SIZE_MAX, &pressed), HK_ERROR_LIMIT, "it wraps round");
	cr_assert_eq(hk_charge(&levels[2], 100, &pressed), 0);
	cr_assert_eq(hk_charge(&levels[2], 0, &pressed), 0);
	expect_used(1000, 700, 400);
	cr_assert_eq(pressed, 0, "there is no soft limit");
}

Test(budget, tells_the_least_limit_and_what_is_left)
{
	uint32_t pressed;

	nest(0, 700, 0);
	cr_assert_eq(hk_charge_limit(&levels[2]), 700);
	cr_assert_eq(hk_charge_limit(&levels[0]), SIZE_MAX);
	cr_assert_eq(hk_charge_left(&levels[0]), SIZE_MAX);
	cr_assert_eq(hk_charge(&levels[1], 600, &pressed), 0);
	cr_assert_eq(hk_charge_left(&levels[2]), 100);
	cr_assert_eq(hk_budget_set_limits(&levels[0], 650, 0), 0);
	cr_assert_eq(hk_charge_left(&levels[2]), 50);
	cr_assert_eq(hk_charge_limit(&levels[2]), 650);
	cr_assert_eq(hk_budget_set_limits(&levels[0], 600, 0), 0);
	cr_assert_eq(hk_charge_left(&levels[2]), 0);
	cr_assert_eq(hk_budget_set_limits(&levels[0], 500, 0), 0);
	cr_assert_eq(hk_charge_left(&levels[2]), 0, "it was lowered below what is in use");
	cr_assert_eq(hk_charge(&levels[2], 1, &pressed), HK_ERROR_LIMIT);
	hk_uncharge(&levels[1], 101);
	cr_assert_eq(hk_charge(&levels[2], 1, &pressed), 0);
	hk_charge_settled(&levels[2]);
	cr_assert_eq(hk_budget_peak(&levels[0]), 500);
	cr_assert_eq(hk_budget_peak(&levels[2]), 1);
}

Test(budget, what_makes_no_sense_is_refused)
{
	static struct hk_budget deep[HK_BUDGET_DEPTH + 1];
	struct hk_arena *arena = NULL;
	unsigned i;

	cr_assert_eq(hk_budget_init(&deep[0],
				    &(struct hk_budget_config){ .limit = 100, .soft_limit = 101 }),
		     HK_ERROR_ARGUMENT);
	for (i = 0; i <= HK_BUDGET_DEPTH; i++) {
		struct hk_budget_config config = { .parent = i ? &deep[i - 1] : NULL };
		int error = hk_budget_init(&deep[i], &config);

		must(error == (i < HK_BUDGET_DEPTH ? 0 : HK_ERROR_ARGUMENT), "%u levels", i + 1);
	}
	/* an arena is a level */
	cr_assert_eq(hk_arena_create(&arena,
				     &(struct hk_arena_config){
					     .budget = &deep[HK_BUDGET_DEPTH - 1] }),
		     HK_ERROR_ARGUMENT);
	cr_assert_null(arena);
	cr_assert_eq(hk_arena_create(&arena,
				     &(struct hk_arena_config){
					     .address_space = 4 * MIB,
					     .budget = &deep[HK_BUDGET_DEPTH - 2] }),
		     0);
	cr_assert_eq(hk_budget_destroy(&deep[HK_BUDGET_DEPTH - 2]), HK_ERROR_STATE);
	cr_assert_eq(hk_budget_set_limits(&deep[0], 5, 6), HK_ERROR_ARGUMENT);
	cr_assert_eq(hk_arena_set_limits(arena, 5, 6), HK_ERROR_ARGUMENT);
	hk_arena_destroy(arena);
	cr_assert_eq(hk_arena_create(&arena,
				     &(struct hk_arena_config){ .limit = 100, .soft_limit = 101 }),
		     HK_ERROR_ARGUMENT);
	for (i = HK_BUDGET_DEPTH; i-- > 0;) {
		must(hk_budget_used(&deep[i]) == 0, "level %u", i);
		if (i)
			must(hk_budget_destroy(&deep[i - 1]) == HK_ERROR_STATE, "level %u", i - 1);
		must(hk_budget_destroy(&deep[i]) == 0, "level %u", i);
	}
	cr_assert_eq(hk_budget_destroy(NULL), 0);
}

Test(budget, each_crossing_of_a_soft_limit_is_noted_once)
{
	uint32_t pressed;

	nest(1000, 700, 0);
	cr_assert_eq(hk_budget_set_limits(&levels[2], 0, 100), 0);
	cr_assert_eq(hk_budget_set_limits(&levels[0], 1000, 150), 0);
	cr_assert_eq(hk_charge(&levels[2], 99, &pressed), 0);
	cr_assert_eq(pressed, 0);
	cr_assert_eq(hk_charge(&levels[2], 1, &pressed), 0);
	cr_assert_eq(pressed, 1, "the lowest is at its soft limit");
	cr_assert_eq(hk_charge(&levels[2], 100, &pressed), 0);
	cr_assert_eq(pressed, 4, "the top is beyond its own");
	cr_assert_eq(hk_charge(&levels[2], 100, &pressed), 0);
	cr_assert_eq(pressed, 0);
	hk_uncharge(&levels[2], 201);
	cr_assert_eq(hk_charge(&levels[2], 401, &pressed), 0);
	cr_assert_eq(pressed, 5, "both at once, again");
	hk_uncharge(&levels[2], 499);
	cr_assert_eq(hk_charge(&levels[2], 700, &pressed), HK_ERROR_LIMIT);
	cr_assert_eq(pressed, 0, "nothing was charged");
	cr_assert_eq(hk_charge(&levels[2], 400, &pressed), 0);
	cr_assert_eq(pressed, 5);
	hk_uncharge(&levels[2], 400);
	levels[0].on_pressure = NULL;
	cr_assert_eq(hk_charge(&levels[2], 400, &pressed), 0);
	cr_assert_eq(pressed, 1, "nobody is to be told of the top");
}

static struct hk_arena *make(struct hk_arena_config config, struct hk_cache **cache)
{
	struct hk_arena *arena;

	if (!config.address_space)
		config.address_space = 64 * MIB;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, cache), 0);
	return arena;
}

/* As many blocks as there are, of a size; the last of them goes into *@last. */
static size_t fill(struct hk_cache *cache, size_t size, void **last)
{
	size_t count = 0;
	void *block;

	while ((block = hk_alloc(cache, size)) != NULL) {
		*last = block;
		count++;
	}
	return count;
}

Test(budget, arenas_share_one)
{
	struct hk_budget budget;
	struct hk_arena *arenas[2];
	struct hk_cache *caches[2];
	size_t more, used;
	void *last;

	cr_assert_eq(hk_budget_init(&budget, &(struct hk_budget_config){ .limit = 8 * MIB }), 0);
	arenas[0] = make((struct hk_arena_config){ .budget = &budget }, &caches[0]);
	arenas[1] =
		make((struct hk_arena_config){ .budget = &budget, .limit = 4 * MIB }, &caches[1]);
	cr_assert_geq(fill(caches[1], 100 * KIB, &last), 30);
	cr_assert_leq(hk_arena_used(arenas[1]), 4 * MIB);
	cr_assert_geq(fill(caches[0], 100 * KIB, &last), 30);
	cr_assert_leq(hk_budget_used(&budget), 8 * MIB);
	cr_assert_eq(hk_budget_used(&budget), hk_arena_used(arenas[0]) + hk_arena_used(arenas[1]));
	cr_assert_eq(hk_arena_check(arenas[0]) + hk_arena_check(arenas[1]), 0);
	used = hk_arena_used(arenas[0]);
	hk_arena_destroy(arenas[1]);
	cr_assert_eq(hk_budget_used(&budget), used, "what it had is the budget's again");
	more = fill(caches[0], 100 * KIB, &last);
	cr_assert_geq(more, 30);
	cr_assert_geq(hk_budget_peak(&budget), 8 * MIB - 256 * KIB);
	hk_arena_destroy(arenas[0]);
	cr_assert_eq(hk_budget_used(&budget), 0);
	cr_assert_eq(hk_budget_destroy(&budget), 0);
}

/* No room for an arena: nothing of it stays charged. */
Test(budget, an_arena_that_fails_to_be_made_gives_back)
{
	struct hk_budget budget;
	struct hk_arena *arena;

	cr_assert_eq(hk_budget_init(&budget, &(struct hk_budget_config){ .limit = 1 }), 0);
	cr_assert_eq(hk_arena_create(&arena, &(struct hk_arena_config){ .budget = &budget }),
		     HK_ERROR_LIMIT);
	cr_assert_eq(hk_budget_set_limits(&budget, MIB, 0), 0);
	cr_assert_eq(hk_arena_create(&arena, &(struct hk_arena_config){ .budget = &budget,
									.reserve = 2 * MIB }),
		     HK_ERROR_LIMIT);
	cr_assert_lt(hk_arena_create(&arena, &(struct hk_arena_config){ .budget = &budget,
									.address_space = 1 }),
		     0);
	cr_assert_null(arena);
	cr_assert_eq(hk_budget_used(&budget), 0);
	cr_assert_eq(hk_budget_destroy(&budget), 0);
}

Test(budget, pressure_is_told_with_no_lock_held)
{
	struct told below = { 0 };
	struct hk_budget budget;
	struct hk_arena *arena;
	struct hk_cache *cache;
	void *block;

	memset(&told, 0, sizeof(told));
	cr_assert_eq(hk_budget_init(&budget,
				    &(struct hk_budget_config){ .soft_limit = 6 * MIB,
								.context = &below,
								.on_pressure = on_pressure }),
		     0);
	arena = make((struct hk_arena_config){ .budget = &budget,
					       .soft_limit = 4 * MIB,
					       .context = &told,
					       .on_pressure = on_pressure },
		     &cache);
	block = hk_alloc(cache, 3 * MIB);
	cr_assert(block && !told.calls);
	block = hk_realloc(cache, block, 5 * MIB);
	cr_assert_not_null(block);
	cr_assert_eq(told.calls, 1);
	cr_assert_eq(told.arena, arena);
	cr_assert_eq(told.limit, 4 * MIB);
	cr_assert_geq(told.used, 4 * MIB);
	if (!below.calls)
		block = hk_realloc(cache, block, 7 * MIB);
	cr_assert_eq(below.calls, 1);
	cr_assert_eq(below.arena, arena);
	cr_assert_eq(below.limit, 6 * MIB);
	cr_assert_eq(told.calls, 1);
	hk_free(cache, block);
	cr_assert_eq(told.calls, 1, "what is free is in use as much as before");
	hk_arena_trim(arena, 0, 0);
	cr_assert_lt(hk_budget_used(&budget), 4 * MIB);
	block = hk_arena_alloc(arena, 8 * MIB);
	cr_assert_not_null(block);
	cr_assert_eq(told.calls, 2, "a crossing anew");
	cr_assert_eq(below.calls, 2);
	hk_arena_free(arena, block);
	hk_arena_destroy(arena);
	/* making one may be a crossing, too */
	told.calls = 0;
	arena = make((struct hk_arena_config){ .soft_limit = 1,
					       .context = &told,
					       .on_pressure = on_pressure },
		     &cache);
	cr_assert_eq(told.calls, 1);
	cr_assert_eq(told.arena, arena);
	hk_arena_destroy(arena);
	cr_assert_eq(hk_budget_destroy(&budget), 0);
}

/* A callback that does all it may, and crosses the soft limit once more. */
static struct busy {
	struct hk_cache *cache;
	unsigned calls;
	unsigned depth;
	unsigned deepest;
	void *blocks[3];
} busy;

static void on_pressure_busy(void *context, struct hk_arena *arena, size_t used, size_t limit)
{
	struct hk_stats stats;

	(void)context;
	cr_assert_geq(used, limit);
	busy.deepest = ++busy.depth > busy.deepest ? busy.depth : busy.deepest;
	if (busy.calls++ == 0) {
		hk_arena_stats(arena, &stats);
		cr_assert_geq(stats.committed_bytes, limit);
		hk_free(busy.cache, busy.blocks[0]);
		busy.blocks[0] = NULL;
		hk_arena_trim(arena, 0, 0);
		cr_assert_lt(hk_arena_used(arena), limit);
		busy.blocks[1] = hk_alloc(busy.cache, 5 * MIB);
		cr_assert_not_null(busy.blocks[1]);
	}
	busy.depth--;
}

Test(budget, on_pressure_may_allocate_free_and_trim)
{
	struct hk_arena *arena;

	memset(&busy, 0, sizeof(busy));
	arena = make((struct hk_arena_config){ .soft_limit = 4 * MIB,
					       .on_pressure = on_pressure_busy },
		     &busy.cache);
	busy.blocks[0] = hk_alloc(busy.cache, 3 * MIB);
	cr_assert_not_null(busy.blocks[0]);
	busy.blocks[2] = hk_alloc(busy.cache, 2 * MIB);
	cr_assert_not_null(busy.blocks[2]);
	cr_assert_eq(busy.calls, 2, "its own crossing is told, too");
	cr_assert_eq(busy.deepest, 1, "but not within itself");
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_free(busy.cache, busy.blocks[1]);
	hk_free(busy.cache, busy.blocks[2]);
	hk_arena_destroy(arena);
}

static struct hk_budget raised;
static unsigned raises;

static bool on_oom_raise(void *context, struct hk_arena *arena, size_t size)
{
	(void)context;
	(void)size;
	raises++;
	if (raises == 1)
		return hk_arena_set_limits(arena, 8 * MIB, 0) == 0;
	if (raises == 2)
		return hk_budget_set_limits(&raised, 16 * MIB, 0) == 0;
	return false;
}

Test(budget, on_oom_may_raise_the_limit)
{
	struct hk_arena *arena;
	struct hk_cache *cache;
	void *last = NULL;

	raises = 0;
	cr_assert_eq(hk_budget_init(&raised, &(struct hk_budget_config){ .limit = 6 * MIB }), 0);
	arena = make((struct hk_arena_config){ .budget = &raised,
					       .limit = 4 * MIB,
					       .on_oom = on_oom_raise },
		     &cache);
	cr_assert_geq(fill(cache, MIB / 2, &last), 2 * 7);
	cr_assert_eq(raises, 3);
	cr_assert_leq(hk_arena_used(arena), 8 * MIB);
	cr_assert_gt(hk_arena_used(arena), 6 * MIB);
	/* lowered: what is in use stays, nothing is added; a trim comes down to it */
	cr_assert_eq(hk_arena_set_limits(arena, 2 * MIB, 0), 0);
	hk_free(cache, last);
	cr_assert_eq(hk_arena_check(arena), 0);
	last = hk_alloc(cache, MIB / 2);
	cr_assert_not_null(last, "what was given back is there");
	cr_assert_null(hk_alloc(cache, MIB));
	hk_arena_reset(arena);
	hk_arena_trim(arena, 0, 0);
	cr_assert_not_null(hk_alloc(cache, MIB));
	cr_assert_null(hk_alloc(cache, 2 * MIB));
	hk_arena_destroy(arena);
	cr_assert_eq(hk_budget_destroy(&raised), 0);
}

static size_t reserve_of(const struct hk_arena *arena)
{
	struct hk_stats stats;

	hk_arena_stats(arena, &stats);
	return stats.reserve_bytes;
}

static struct hk_cache *reserve_cache;
static size_t had_in_oom;
static unsigned ooms;

static bool on_oom_use(void *context, struct hk_arena *arena, size_t size)
{
	void *block;

	(void)context;
	(void)size;
	ooms++;
	cr_assert_eq(reserve_of(arena), 0, "it is given up before");
	block = hk_alloc(reserve_cache, 900 * KIB);
	had_in_oom = block ? hk_usable_size(arena, block) : 0;
	hk_free(reserve_cache, block);
	return false;
}

Test(budget, the_reserve_is_there_when_nothing_else_is)
{
	struct hk_arena *arena;
	void *first, *last = NULL;
	size_t count, without;

	arena = make((struct hk_arena_config){ .limit = 8 * MIB }, &reserve_cache);
	without = fill(reserve_cache, 128 * KIB, &last);
	hk_arena_destroy(arena);

	ooms = 0;
	arena = make((struct hk_arena_config){ .limit = 8 * MIB,
					       .reserve = MIB - 1,
					       .on_oom = on_oom_use },
		     &reserve_cache);
	cr_assert_eq(reserve_of(arena), MIB, "rounded up to slabs");
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_trim(arena, 0, 0);
	cr_assert_eq(reserve_of(arena), MIB, "no trim takes it");
	first = hk_alloc(reserve_cache, 128 * KIB);
	count = 1 + fill(reserve_cache, 128 * KIB, &last);
	cr_assert_eq(ooms, 1);
	cr_assert_geq(had_in_oom, 900 * KIB);
	cr_assert_leq(without - count, 8, "so much is set aside, and no more");
	cr_assert_geq(without - count, 7);
	cr_assert_leq(hk_arena_used(arena), 8 * MIB);
	cr_assert_eq(hk_arena_check(arena), 0);
	/* the host goes on with it */
	cr_assert_not_null(hk_alloc(reserve_cache, 512 * KIB));
	hk_arena_trim(arena, 0, 0);
	cr_assert_eq(reserve_of(arena), 0, "nowhere is so much free");
	hk_free(reserve_cache, first);
	hk_arena_reset(arena);
	cr_assert_eq(reserve_of(arena), MIB);
	cr_assert_eq(hk_arena_check(arena), 0);
	cr_assert_geq(fill(reserve_cache, 128 * KIB, &last), count);
	/* and while it is set aside */
	hk_arena_reset(arena);
	hk_arena_reset(arena);
	cr_assert_eq(reserve_of(arena), MIB);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_destroy(arena);
}

/* Without on_oom it is simply used; what is freed by then a trim sets aside again. */
Test(budget, a_trim_sets_the_reserve_aside_again)
{
	struct hk_arena *arena;
	struct hk_cache *cache;
	void *blocks[64], *block = NULL;
	size_t count = 0;

	arena = make((struct hk_arena_config){ .limit = 8 * MIB,
					       .reserve = MIB,
					       .address_space = 1024 * MIB },
		     &cache);
	while ((blocks[count] = hk_alloc(cache, 256 * KIB)) != NULL)
		count++;
	cr_assert_geq(count, 7 * 4);
	cr_assert_eq(reserve_of(arena), 0);
	while (count)
		hk_free(cache, blocks[--count]);
	cr_assert_eq(reserve_of(arena), 0, "no free does it");
	hk_cache_flush(cache);
	hk_arena_trim(arena, 0, 0);
	cr_assert_eq(reserve_of(arena), MIB);
	cr_assert_leq(hk_arena_used(arena), MIB + 512 * KIB);
	cr_assert_eq(hk_arena_check(arena), 0);
	/* a request that no reserve could serve leaves it alone */
	cr_assert_null(hk_alloc(cache, 9 * MIB));
	cr_assert_eq(reserve_of(arena), MIB);
	/* also of what is kept for large blocks and blocks in the depot, where there is no other */
	block = hk_alloc(cache, 7 * MIB);
	cr_assert_not_null(block);
	cr_assert_eq(reserve_of(arena), 0);
	hk_free(cache, block);
	hk_arena_trim(arena, SIZE_MAX, 0);
	cr_assert_eq(reserve_of(arena), MIB);
	cr_assert_eq(fill(cache, MIB, &block) >= 6, true);
	hk_arena_destroy(arena);
}
