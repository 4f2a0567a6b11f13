/* SPDX-License-Identifier: MIT */
/*
 * selfcheck: arenas and caches, budgets, statistics, what is reported.
 */
#include <string.h>

#include <platform/platform.h>

#include "selfcheck.h"

#define TOO_LARGE ((size_t)PTRDIFF_MAX + 1)

static void run_version(const struct self_options *options)
{
	(void)options;
	CHECK(hk_version() == HK_VERSION);
}

static void run_error_name(const struct self_options *options)
{
	int i, j;

	(void)options;
	for (i = HK_ERROR_STATE; i <= HK_OK; i++) {
		CHECK(hk_error_name(i) && hk_error_name(i)[0]);
		CHECK(strcmp(hk_error_name(i), "unknown error") != 0);
		for (j = HK_ERROR_STATE; j < i; j++)
			CHECK(strcmp(hk_error_name(i), hk_error_name(j)) != 0);
	}
	CHECK(strcmp(hk_error_name(1), "unknown error") == 0);
	CHECK(strcmp(hk_error_name(HK_ERROR_STATE - 1), "unknown error") == 0);
	CHECK(strcmp(hk_error_name(INT32_MIN), "unknown error") == 0);
}

static void run_fault_name(const struct self_options *options)
{
	int i, j;

	(void)options;
	for (i = HK_FAULT_NONE; i <= HK_FAULT_PLATFORM; i++) {
		CHECK(hk_fault_name((enum hk_fault)i) && hk_fault_name((enum hk_fault)i)[0]);
		CHECK(strcmp(hk_fault_name((enum hk_fault)i), "unknown fault") != 0);
		for (j = HK_FAULT_NONE; j < i; j++)
			CHECK(strcmp(hk_fault_name((enum hk_fault)i),
				     hk_fault_name((enum hk_fault)j)) != 0);
	}
	CHECK(strcmp(hk_fault_name((enum hk_fault)i), "unknown fault") == 0);
}

static void run_stage_name(const struct self_options *options)
{
	int i, j;

	(void)options;
	for (i = HK_STAGE_HIT; i <= HK_STAGE_NEW_SUPERSLAB; i++) {
		CHECK(hk_stage_name((enum hk_stage)i) && hk_stage_name((enum hk_stage)i)[0]);
		for (j = HK_STAGE_HIT; j < i; j++)
			CHECK(strcmp(hk_stage_name((enum hk_stage)i),
				     hk_stage_name((enum hk_stage)j)) != 0);
	}
	CHECK(strcmp(hk_stage_name((enum hk_stage)i), "unknown stage") == 0);
}

/* Creates an arena that must not come to be. */
static int refusal(struct hk_arena_config config)
{
	struct hk_arena *arena = (struct hk_arena *)&config;
	int error = hk_arena_create(&arena, &config);

	CHECK(error == HK_OK || !arena);
	if (error == HK_OK)
		hk_arena_destroy(arena);
	return error;
}

/**
 * struct hoard - what an on_oom callback gives up
 * @blocks: freed from the last on.
 * @calls: of the callback.
 * @nested: allocations within it that did return memory.
 */
struct hoard {
	void *blocks[4];
	size_t count;
	size_t calls;
	size_t nested;
};

static bool on_oom(void *context, struct hk_arena *arena, size_t size)
{
	struct hoard *hoard = context;
	void *block;

	hoard->calls++;
	block = hk_arena_alloc(arena, size);
	if (block) {
		hoard->nested++;
		hk_arena_free(arena, block);
	}
	if (!hoard->count)
		return false;
	hk_arena_free(arena, hoard->blocks[--hoard->count]);
	return true;
}

static void check_oom(const struct self_options *options)
{
	struct hoard hoard = { .count = 0 };
	struct hk_arena_config config = {
		.address_space = options->address_space,
		.limit = 8 * SELF_MIB,
		.context = &hoard,
		.on_oom = on_oom,
	};
	struct hk_arena *arena;
	struct hk_stats stats;
	void *blocks[3], *none;
	size_t i;

	if (!CHECK(hk_arena_create(&arena, &config) == HK_OK))
		return;
	for (i = 0; i < 4; i++) {
		hoard.blocks[i] = hk_arena_alloc(arena, SELF_MIB);
		hoard.count += hoard.blocks[i] != NULL;
	}
	CHECK(hoard.count == 4);
	for (i = 0; i < 3; i++)
		blocks[i] = hk_arena_alloc(arena, 2 * SELF_MIB);
	CHECK(blocks[0] && blocks[1] && blocks[2]);
	CHECK(hoard.count < 4);
	CHECK(hoard.calls == 4 - hoard.count);
	CHECK(hoard.nested == 0);
	none = hk_arena_alloc(arena, 7 * SELF_MIB);
	CHECK(!none);
	CHECK(hoard.count == 0);
	CHECK(hoard.calls == 5);
	hk_arena_stats(arena, &stats);
	CHECK(stats.counters.oom_calls == hoard.calls);
	CHECK(stats.counters.exhausted >= 1);
	CHECK(stats.peak_committed_bytes <= config.limit);
	CHECK(stats.live_blocks == 3);
	for (i = 0; i < 3; i++)
		hk_arena_free(arena, blocks[i]);
	CHECK(hk_arena_check(arena) == 0);
	hk_arena_destroy(arena);
}

static void run_arena_create(const struct self_options *options)
{
	struct hk_platform system;
	struct hk_arena *arena;
	struct self_arena self;
	struct hk_stats stats;
	size_t first, second;
	void *block;
	int error;

	if (CHECK(hk_arena_create(&arena, NULL) == HK_OK)) {
		hk_arena_stats(arena, &stats);
		/* where the range is short, half of the least that is tried is the host's */
		CHECK(stats.reserved_bytes >= 32 * SELF_MIB);
		block = hk_arena_alloc(arena, 100);
		CHECK(block);
		hk_arena_free(arena, block);
		hk_arena_destroy(arena);
	}

	CHECK(hk_platform_system(&system) == HK_OK);
	CHECK(refusal((struct hk_arena_config){ .address_space = 4096 }) == HK_ERROR_ARGUMENT);
	error = refusal((struct hk_arena_config){ .address_space = SIZE_MAX / 4 * 3 });
	CHECK(error == HK_ERROR_ARGUMENT || error == HK_ERROR_ADDRESS_SPACE);
	/* Where addresses have 32 bits, a system may grant three quarters of this. */
	if (sizeof(size_t) > 4)
		CHECK(refusal((struct hk_arena_config){ .address_space = SIZE_MAX / 4 }) ==
		      HK_ERROR_ADDRESS_SPACE);
	CHECK(refusal((struct hk_arena_config){ .limit = 1 }) == HK_ERROR_LIMIT);
	CHECK(refusal((struct hk_arena_config){
		      .address_space = options->address_space,
		      .limit = SELF_EMPTY_MAX(system.page_size),
	      }) == HK_OK);

	/* The limit holds at every moment, and all of it can be had again. */
	if (self_open_config(&self, options, (struct hk_arena_config){ .limit = SELF_MIB })) {
		first = self_exhaust(&self, 1000, SELF_MIB);
		second = self_exhaust(&self, 1000, SELF_MIB);
		CHECK(first > 500);
		CHECK(second >= first);
		hk_arena_stats(self.arena, &stats);
		CHECK(stats.peak_committed_bytes <= SELF_MIB);
		CHECK(stats.counters.exhausted == 2);
		/* What lies free in magazines is no loss to other classes. */
		first = self_exhaust(&self, 40, SELF_MIB);
		CHECK(first > 10000);
		first = self_exhaust(&self, 1000, SELF_MIB);
		CHECK(first + 16 + system.page_size / 1000 >= second);
		self_close(&self);
	}
	if (self_open_config(&self, options,
			     (struct hk_arena_config){ .address_space = 16 * SELF_MIB })) {
		first = self_exhaust(&self, SELF_MIB, 16 * SELF_MIB);
		second = self_exhaust(&self, SELF_MIB, 16 * SELF_MIB);
		CHECK(first >= 8 && second == first);
		self_close(&self);
	}
	if (self_open_config(&self, options, (struct hk_arena_config){ .large_pages = true })) {
		block = hk_zalloc(self.cache, 3 * SELF_MIB);
		CHECK(block && self_is_zero(block, 3 * SELF_MIB));
		hk_free(self.cache, block);
		self_close(&self);
	}
	check_oom(options);
}

static void run_arena_reset(const struct self_options *options)
{
	struct hk_counters before, after;
	struct self_arena self;
	struct hk_cache *second;
	struct hk_stats stats;
	size_t i, round, used;
	void *blocks[SELF_EDGES];

	if (!self_open(&self, options))
		return;
	CHECK(hk_cache_create(self.arena, &second) == HK_OK);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < SELF_EDGES; i++) {
			blocks[i] = hk_alloc(i % 2 ? self.cache : second, self_edges[i]);
			if (CHECK(blocks[i]))
				self_fill(blocks[i], self_edges[i], i);
		}
		/* Some rest in magazines: a reset forgets those too. */
		for (i = 0; i < SELF_EDGES; i += 3)
			hk_free(second, blocks[i]);
		used = hk_arena_used(self.arena);
		before = self_counters(&self);
		hk_arena_reset(self.arena);
		after = self_counters(&self);
		CHECK(after.platform_call == before.platform_call);
		hk_arena_stats(self.arena, &stats);
		CHECK(stats.live_blocks == 0 && stats.live_bytes == 0);
		CHECK(stats.cached_bytes == 0);
		CHECK(stats.cache_count == 2);
		CHECK(hk_arena_used(self.arena) == used);
		CHECK(hk_arena_check(self.arena) == 0);
	}
	hk_cache_destroy(second);
	self_close(&self);
}

/* Records the leak reports, which end with the arena. */
struct leaks {
	struct hk_report reports[16];
	size_t count;
};

static void on_leak(void *context, const struct hk_report *report)
{
	struct leaks *leaks = context;

	if (leaks->count < 16)
		leaks->reports[leaks->count] = *report;
	leaks->count++;
}

static void run_arena_destroy(const struct self_options *options)
{
	static const size_t sizes[] = {
		5000, 16, 600000, 48, 48, 100, 100, 100, 2000, 2000, 40000,
	};
	enum {
		COUNT = 11
	};
	struct leaks leaks = { .count = 0 };
	struct hk_arena_config config = {
		.name = "leaky",
		.address_space = options->address_space,
		.context = &leaks,
		.on_report = on_leak,
	};
	struct hk_arena *arena;
	struct hk_cache *cache;
	size_t i, bytes = 0;
	void *block;

	hk_arena_destroy(NULL);
	if (!CHECK(hk_arena_create(&arena, &config) == HK_OK))
		return;
	CHECK(hk_cache_create(arena, &cache) == HK_OK);
	for (i = 0; i < COUNT; i++) {
		/* One more of each, freed: what lies in a magazine is no leak. */
		block = hk_alloc(cache, sizes[i]);
		CHECK(hk_alloc(cache, sizes[i]) != NULL);
		hk_free(cache, block);
		bytes += hk_good_size(sizes[i]);
	}
	CHECK(leaks.count == 0);
	hk_arena_destroy(arena);
	CHECK(leaks.count == 1 + 8);
	CHECK(leaks.reports[0].fault == HK_FAULT_LEAK);
	CHECK(leaks.reports[0].count == COUNT);
	CHECK(leaks.reports[0].size == bytes);
	CHECK(strcmp(leaks.reports[0].arena_name, "leaky") == 0);
	CHECK(leaks.reports[1].size == 16 && leaks.reports[2].size == 48);
	for (i = 1; i < 9 && i < leaks.count; i++) {
		CHECK(leaks.reports[i].fault == HK_FAULT_LEAK);
		CHECK(leaks.reports[i].count == 1);
		CHECK(leaks.reports[i].address != NULL);
		CHECK(leaks.reports[i].size_class == hk_size_class(leaks.reports[i].size));
		CHECK(i == 1 || leaks.reports[i].size >= leaks.reports[i - 1].size);
	}
}

static void run_cache_create(const struct self_options *options)
{
	struct hk_cache *second, *third;
	struct self_arena self;
	struct hk_stats stats;
	void *block;

	if (!self_open_config(&self, options, (struct hk_arena_config){ .max_caches = 2 }))
		return;
	CHECK(hk_cache_create(self.arena, &second) == HK_OK);
	third = self.cache;
	CHECK(hk_cache_create(self.arena, &third) == HK_ERROR_LIMIT);
	CHECK(!third);
	hk_arena_stats(self.arena, &stats);
	CHECK(stats.cache_count == 2);
	block = hk_alloc(self.cache, 64);
	hk_free(second, block);
	CHECK(self_live(&self) == 0);
	hk_cache_destroy(second);
	CHECK(hk_cache_create(self.arena, &third) == HK_OK);
	block = hk_alloc(third, 64);
	CHECK(block);
	hk_free(third, block);
	hk_cache_destroy(third);
	self_close(&self);
}

static void run_cache_flush(const struct self_options *options)
{
	struct self_arena self;
	void *blocks[SELF_EDGES];
	size_t i;

	if (!self_open(&self, options))
		return;
	hk_cache_flush(self.cache);
	for (i = 0; i < SELF_EDGES; i++)
		blocks[i] = hk_alloc(self.cache, self_edges[i]);
	for (i = 0; i < SELF_EDGES; i++)
		hk_free(self.cache, blocks[i]);
	CHECK(self_cached(&self) > 0);
	hk_cache_flush(self.cache);
	CHECK(self_cached(&self) == 0);
	CHECK(self_live(&self) == 0);
	CHECK(hk_arena_check(self.arena) == 0);
	self_close(&self);
}

static void run_cache_stage(const struct self_options *options)
{
	struct self_arena self;
	void *block;

	if (!self_open(&self, options))
		return;
	CHECK(hk_cache_stage(self.cache) == HK_STAGE_HIT);
	block = hk_alloc(self.cache, 100);
	CHECK(hk_cache_stage(self.cache) >= HK_STAGE_SLAB);
	CHECK(hk_cache_stage(self.cache) == HK_STAGE_HIT);
	hk_free(self.cache, block);
	CHECK(hk_cache_stage(self.cache) == HK_STAGE_SLAB);
	block = hk_alloc(self.cache, (size_t)1200 << 10);
	CHECK(hk_cache_stage(self.cache) >= HK_STAGE_LARGE);
	hk_free(self.cache, block);
	CHECK(hk_cache_stage(self.cache) == HK_STAGE_LARGE);
	self_close(&self);
}

static void run_cache_destroy(const struct self_options *options)
{
	struct self_arena self;
	struct hk_cache *cache;
	struct hk_stats stats;
	size_t i, used = 0;
	void *block;

	if (!self_open(&self, options))
		return;
	hk_cache_destroy(NULL);
	for (i = 0; i < 100; i++) {
		if (!CHECK(hk_cache_create(self.arena, &cache) == HK_OK))
			break;
		block = hk_alloc(cache, 500);
		CHECK(block);
		hk_free(cache, block);
		hk_cache_destroy(cache);
		hk_arena_stats(self.arena, &stats);
		CHECK(stats.cached_bytes == 0 && stats.live_blocks == 0);
		CHECK(stats.cache_count == 1);
		/* The next cache lives where this one did. */
		if (i == 0)
			used = hk_arena_used(self.arena);
	}
	CHECK(hk_arena_used(self.arena) == used);
	self_close(&self);
}

static void run_arena_alloc(const struct self_options *options)
{
	struct hk_counters before;
	struct self_arena self;
	void *blocks[SELF_EDGES];
	size_t i;

	if (!self_open(&self, options))
		return;
	before = self_counters(&self);
	for (i = 0; i < SELF_EDGES; i++) {
		blocks[i] = hk_arena_alloc(self.arena, self_edges[i]);
		if (!CHECK(blocks[i]))
			continue;
		CHECK(self_aligned(blocks[i], 16));
		CHECK(hk_usable_size(self.arena, blocks[i]) == hk_good_size(self_edges[i]));
		self_fill(blocks[i], self_edges[i], i);
	}
	CHECK(self_live(&self) == SELF_EDGES);
	CHECK(self_counters(&self).arena_alloc == before.arena_alloc + SELF_EDGES);
	for (i = 0; i < SELF_EDGES; i++) {
		CHECK(blocks[i] && self_holds(blocks[i], self_edges[i], i));
		hk_free(self.cache, blocks[i]);
	}
	CHECK(!hk_arena_alloc(self.arena, self_hidden(TOO_LARGE)));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	CHECK(!hk_arena_alloc(self.arena, self_hidden(PTRDIFF_MAX)));
	CHECK(self_reported(&self, HK_FAULT_EXHAUSTED, NULL));
	self_close(&self);
}

/* Without a cache between, every misuse is found at once. */
static void run_arena_free(const struct self_options *options)
{
	struct hk_counters before, after;
	struct self_arena self;
	unsigned char *block;
	int local = 0;
	size_t i;

	if (!self_open(&self, options))
		return;
	hk_arena_free(self.arena, NULL);
	for (i = 0; i < SELF_EDGES; i++) {
		block = hk_alloc(self.cache, self_edges[i]);
		if (!CHECK(block))
			continue;
		before = self_counters(&self);
		hk_arena_free(self.arena, self_hidden_pointer(block + 8));
		CHECK(self_reported(&self, HK_FAULT_INTERIOR, block + 8));
		CHECK(self_live(&self) == 1);
		hk_arena_free(self.arena, self_hidden_pointer(block));
		CHECK(self.count == 0 && self_live(&self) == 0);
		hk_arena_free(self.arena, self_hidden_pointer(block));
		CHECK(self.count == 1 && self.last.address == block);
		/* The slabs of a freed large block hold no block at all any more. */
		CHECK(self.last.fault == HK_FAULT_DOUBLE_FREE ||
		      self.last.fault == HK_FAULT_FOREIGN);
		self.count = 0;
		after = self_counters(&self);
		CHECK(after.arena_free >= before.arena_free + 1);
		CHECK(after.refused == before.refused + 2);
		CHECK(self_live(&self) == 0);
	}
	hk_arena_free(self.arena, self_hidden_pointer(&local));
	CHECK(self_reported(&self, HK_FAULT_FOREIGN, &local));
	CHECK(hk_arena_check(self.arena) == 0);
	self_close(&self);
}

const struct self_function self_arenas[] = {
	{ "hk_version", false, run_version },
	{ "hk_error_name", false, run_error_name },
	{ "hk_fault_name", false, run_fault_name },
	{ "hk_stage_name", false, run_stage_name },
	{ "hk_arena_create", false, run_arena_create },
	{ "hk_arena_reset", false, run_arena_reset },
	{ "hk_arena_destroy", false, run_arena_destroy },
	{ "hk_cache_create", false, run_cache_create },
	{ "hk_cache_flush", false, run_cache_flush },
	{ "hk_cache_stage", false, run_cache_stage },
	{ "hk_cache_destroy", false, run_cache_destroy },
	{ "hk_arena_alloc", false, run_arena_alloc },
	{ "hk_arena_free", false, run_arena_free },
	{ NULL, false, NULL },
};
