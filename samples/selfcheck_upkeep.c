/* SPDX-License-Identifier: MIT */
/* selfcheck: what an arena makes ready ahead of need, and gives back when it is not needed. */
#include "selfcheck.h"

#define COUNT 300

static void run_arena_prewarm(const struct self_options *options)
{
	struct self_arena self;
	struct hk_counters before, after;
	void *blocks[COUNT];
	size_t i, bad = 0;

	if (!self_open(&self, options))
		return;
	CHECK(hk_arena_prewarm(self.arena, 8 * SELF_MIB) == HK_OK);
	CHECK(hk_arena_used(self.arena) >= 8 * SELF_MIB);
	before = self_counters(&self);
	for (i = 0; i < COUNT; i++) {
		blocks[i] = hk_alloc(self.cache, i * 97 % 20000);
		bad += !blocks[i];
	}
	after = self_counters(&self);
	CHECK(bad == 0);
	CHECK(after.platform_call == before.platform_call);
	hk_free_bulk(self.cache, COUNT, blocks);
	CHECK(hk_arena_prewarm(self.arena, self_hidden(SIZE_MAX / 2)) < 0);
	/* where the system refused, that was told */
	CHECK(self.count == 0 || self.last.fault == HK_FAULT_PLATFORM);
	self.count = 0;
	CHECK(hk_arena_check(self.arena) == 0);
	self_close(&self);
}

static void run_arena_maintain(const struct self_options *options)
{
	struct self_arena self;
	void *blocks[COUNT];
	size_t i, bad = 0, used;

	if (!self_open_config(&self, options, (struct hk_arena_config){ .maintain_delay = 3 }))
		return;
	CHECK(!hk_arena_maintain(self.arena, 0));
	for (i = 0; i < COUNT; i++) {
		blocks[i] = hk_alloc(self.cache, 30000);
		bad += !blocks[i];
	}
	CHECK(bad == 0);
	used = self_cached(&self);
	for (i = 0; i < 1000 && hk_arena_maintain(self.arena, 1); i++)
		;
	CHECK(i < 1000);
	CHECK(self_cached(&self) >= used);
	used = hk_arena_used(self.arena);
	hk_free_bulk(self.cache, COUNT, blocks);
	hk_cache_flush(self.cache);
	for (i = 0; i < 200; i++)
		hk_arena_maintain(self.arena, 0);
	CHECK(hk_arena_used(self.arena) < used / 2);
	CHECK(self_cached(&self) == 0);
	self_close(&self);
}

static void run_cache_rest(const struct self_options *options)
{
	struct self_arena self;
	void *block;
	size_t i, cached;

	if (!self_open_config(&self, options, (struct hk_arena_config){ .maintain_delay = 3 }))
		return;
	block = hk_alloc(self.cache, 100);
	hk_free(self.cache, block);
	cached = self_cached(&self);
	hk_cache_rest(self.cache);
	CHECK(self_cached(&self) == cached);
	CHECK(hk_alloc(self.cache, 100) == block);
	hk_free(self.cache, block);
	hk_cache_rest(self.cache);
	for (i = 0; i < 200; i++)
		hk_arena_maintain(self.arena, 0);
	CHECK(self_cached(&self) == 0);
	block = hk_alloc(self.cache, 100);
	CHECK(block);
	hk_free(self.cache, block);
	self_close(&self);
}

const struct self_function self_upkeep[] = {
	{ "hk_arena_prewarm", false, run_arena_prewarm },
	{ "hk_arena_maintain", false, run_arena_maintain },
	{ "hk_cache_rest", false, run_cache_rest },
	{ NULL, false, NULL },
};
