/* SPDX-License-Identifier: MIT */
/* Budgets and limits that change while arenas are at work. */
#include <hakmem/hakmem.h>

#include "selfcheck.h"

/* What on_pressure was told. */
struct pressure {
	unsigned calls;
	size_t limit;
};

static void on_pressure(void *context, struct hk_arena *arena, size_t used, size_t limit)
{
	struct pressure *pressure = context;

	CHECK(arena && used >= limit);
	pressure->calls++;
	pressure->limit = limit;
}

static void run_budget_init(const struct self_options *options)
{
	struct hk_budget outer, inner;
	struct self_arena first, second;
	struct hk_arena_config config = { .address_space = options->address_space };
	size_t used;

	CHECK(hk_budget_init(&outer, &(struct hk_budget_config){ .limit = 1, .soft_limit = 2 }) ==
	      HK_ERROR_ARGUMENT);
	CHECK(hk_budget_init(&outer, &(struct hk_budget_config){ .limit = 6 * SELF_MIB }) == HK_OK);
	CHECK(hk_budget_init(&inner, &(struct hk_budget_config){ .parent = &outer }) == HK_OK);
	config.budget = &inner;
	if (!self_open_config(&first, options, config))
		return;
	config.budget = &outer;
	if (!self_open_config(&second, options, config)) {
		self_close(&first);
		return;
	}
	CHECK(self_exhaust(&first, 64 * SELF_KIB, 6 * SELF_MIB) > 0);
	used = hk_budget_used(&outer);
	CHECK(used <= 6 * SELF_MIB);
	CHECK(hk_budget_used(&inner) == hk_arena_used(first.arena));
	CHECK(used == hk_arena_used(first.arena) + hk_arena_used(second.arena));
	CHECK(hk_budget_destroy(&outer) == HK_ERROR_STATE);
	self_close(&first);
	CHECK(hk_budget_used(&inner) == 0);
	CHECK(hk_budget_used(&outer) == hk_arena_used(second.arena));
	self_close(&second);
	CHECK(hk_budget_destroy(&inner) == HK_OK);
	CHECK(hk_budget_destroy(&outer) == HK_OK);
	CHECK(hk_budget_destroy(NULL) == HK_OK);
}

static void run_budget_used(const struct self_options *options)
{
	struct hk_budget budget;
	struct self_arena self;
	size_t empty;
	void *block;

	CHECK(hk_budget_init(&budget, NULL) == HK_OK);
	CHECK(hk_budget_used(&budget) == 0 && hk_budget_peak(&budget) == 0);
	if (!self_open_config(&self, options,
			      (struct hk_arena_config){ .address_space = options->address_space,
							.budget = &budget }))
		return;
	empty = hk_budget_used(&budget);
	CHECK(empty > 0);
	block = hk_alloc(self.cache, SELF_MIB);
	CHECK(hk_budget_used(&budget) >= empty + SELF_MIB);
	hk_free(self.cache, block);
	hk_arena_trim(self.arena, 0, 0);
	CHECK(hk_budget_used(&budget) < empty + SELF_MIB);
	CHECK(hk_budget_peak(&budget) >= empty + SELF_MIB);
	self_close(&self);
	CHECK(hk_budget_used(&budget) == 0);
	CHECK(hk_budget_destroy(&budget) == HK_OK);
}

static void run_set_limits(const struct self_options *options)
{
	struct pressure outer = { 0 };
	struct hk_budget budget;
	struct self_arena self;
	void *block;

	CHECK(hk_budget_init(&budget, &(struct hk_budget_config){ .context = &outer,
								  .on_pressure = on_pressure }) ==
	      HK_OK);
	if (!self_open_config(&self, options,
			      (struct hk_arena_config){ .address_space = options->address_space,
							.budget = &budget }))
		return;
	CHECK(hk_arena_set_limits(self.arena, 1, 2) == HK_ERROR_ARGUMENT);
	CHECK(hk_arena_set_limits(self.arena, 2 * SELF_MIB, 0) == HK_OK);
	block = hk_alloc(self.cache, 2 * SELF_MIB);
	CHECK(!block && self_reported(&self, HK_FAULT_EXHAUSTED, NULL));
	CHECK(hk_arena_set_limits(self.arena, 0, 0) == HK_OK);
	CHECK(hk_budget_set_limits(&budget, 2 * SELF_MIB, SELF_MIB) == HK_OK);
	block = hk_alloc(self.cache, 2 * SELF_MIB);
	CHECK(!block && self_reported(&self, HK_FAULT_EXHAUSTED, NULL));
	CHECK(hk_budget_set_limits(&budget, 4 * SELF_MIB, SELF_MIB) == HK_OK);
	block = hk_alloc(self.cache, 2 * SELF_MIB);
	CHECK(block);
	CHECK(outer.calls == 1 && outer.limit == SELF_MIB);
	hk_free(self.cache, block);
	self_close(&self);
	CHECK(hk_budget_destroy(&budget) == HK_OK);
}

static void run_reserve(const struct self_options *options)
{
	struct self_arena self;
	struct hk_stats stats;

	if (!self_open_config(&self, options,
			      (struct hk_arena_config){ .address_space = options->address_space,
							.limit = 8 * SELF_MIB,
							.reserve = SELF_MIB }))
		return;
	hk_arena_stats(self.arena, &stats);
	CHECK(stats.reserve_bytes == SELF_MIB);
	CHECK(self_exhaust(&self, 256 * SELF_KIB, 8 * SELF_MIB) > 0);
	hk_arena_stats(self.arena, &stats);
	CHECK(stats.reserve_bytes == 0);
	hk_cache_flush(self.cache);
	hk_arena_trim(self.arena, 0, 0);
	hk_arena_stats(self.arena, &stats);
	CHECK(stats.reserve_bytes == SELF_MIB);
	self_close(&self);
}

static void run_arena_set_limits(const struct self_options *options)
{
	run_set_limits(options);
	run_reserve(options);
}

const struct self_function self_budgets[] = {
	{ "hk_budget_init", false, run_budget_init },
	{ "hk_budget_destroy", false, run_budget_init },
	{ "hk_budget_used", false, run_budget_used },
	{ "hk_budget_peak", false, run_budget_used },
	{ "hk_budget_set_limits", false, run_set_limits },
	{ "hk_arena_set_limits", false, run_arena_set_limits },
	{ NULL, false, NULL },
};
