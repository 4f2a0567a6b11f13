/* SPDX-License-Identifier: MIT */
/*
 * selfcheck: what an arena tells of itself, and giving memory back.
 */
#include <platform/platform.h>

#include "selfcheck.h"

static void run_arena_owns(const struct self_options *options)
{
	struct self_arena self, other;
	unsigned char *block;
	int local = 0;
	size_t i, usable;

	if (!self_open(&self, options))
		return;
	if (!self_open(&other, options))
		goto out_close;
	for (i = 0; i < SELF_EDGES; i++) {
		block = hk_alloc(self.cache, self_edges[i]);
		if (!CHECK(block))
			continue;
		usable = hk_usable_size(self.arena, block);
		CHECK(hk_arena_owns(self.arena, block));
		CHECK(hk_arena_owns(self.arena, block + usable / 2));
		CHECK(hk_arena_owns(self.arena, block + usable - 1));
		CHECK(!hk_arena_owns(other.arena, block));
		hk_free(self.cache, block);
	}
	CHECK(!hk_arena_owns(self.arena, NULL));
	CHECK(!hk_arena_owns(self.arena, &local));
	/* Its own structs are none of its blocks. */
	CHECK(!hk_arena_owns(self.arena, self.arena));
	CHECK(!hk_arena_owns(self.arena, self.cache));
	self_close(&other);
out_close:
	self_close(&self);
}

/* Recounted from what was allocated: exact, in sum and by class. */
static void run_arena_stats(const struct self_options *options)
{
	size_t blocks_of[HK_CLASSES] = { 0 };
	size_t bytes_of[HK_CLASSES] = { 0 };
	struct self_arena self;
	struct hk_stats stats;
	uint64_t random = 3;
	void *blocks[600];
	size_t i, size, bytes = 0, live = 0, cached = 0, free = 0, wrong = 0;
	unsigned size_class;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < 600; i++) {
		size = (size_t)(self_random(&random) % (i % 100 ? 3000 : 900000));
		blocks[i] = hk_alloc(self.cache, size);
		if (!CHECK(blocks[i]))
			continue;
		if (i % 3 == 0) {
			hk_free(self.cache, blocks[i]);
			blocks[i] = NULL;
			continue;
		}
		size_class = size > HK_CLASS_MAX ? 0 : hk_size_class(size ? size : 1);
		blocks_of[size_class]++;
		bytes_of[size_class] += hk_good_size(size);
		bytes += hk_good_size(size);
		live++;
	}
	hk_arena_stats(self.arena, &stats);
	CHECK(stats.live_blocks == live);
	CHECK(stats.live_bytes == bytes);
	for (i = 0; i < HK_CLASSES; i++) {
		const struct hk_class_stats *class = &stats.classes[i];

		wrong += class->live_blocks != blocks_of[i];
		wrong += class->live_bytes != bytes_of[i];
		wrong += class->block_size != (i ? hk_good_size(class->block_size) : 0);
		wrong += i && hk_size_class(class->block_size) != i;
		cached += class->cached_blocks * class->block_size;
		free += class->free_blocks * class->block_size;
	}
	CHECK(wrong == 0);
	CHECK(stats.cached_bytes == cached && cached > 0);
	CHECK(stats.free_bytes >= free);
	CHECK(stats.cache_count == 1);
	CHECK(stats.committed_bytes == hk_arena_used(self.arena));
	CHECK(stats.peak_committed_bytes >= stats.committed_bytes);
	CHECK(stats.reserved_bytes >= options->address_space);
	CHECK(stats.metadata_bytes > 0 && stats.metadata_bytes < stats.committed_bytes);
	CHECK(stats.live_bytes + stats.cached_bytes + stats.metadata_bytes <=
	      stats.committed_bytes);
	CHECK(stats.counters.platform_call > 0 && stats.counters.lock_acquired > 0);
	CHECK(stats.counters.new_slab > 0 && stats.counters.new_superslab > 0);
	hk_free_bulk(self.cache, 600, blocks);
	hk_arena_stats(self.arena, &stats);
	CHECK(stats.live_blocks == 0 && stats.live_bytes == 0);
	self_close(&self);
}

static void run_arena_used(const struct self_options *options)
{
	struct hk_arena_config config = { .address_space = options->address_space };
	struct hk_platform system;
	struct hk_arena *arena;
	struct self_arena self;
	struct hk_stats stats;
	size_t empty, used;
	void *block;

	CHECK(hk_platform_system(&system) == HK_OK);
	/* Without a cache: its struct and its magazines lie in pages of their own. */
	if (!CHECK(hk_arena_create(&arena, &config) == HK_OK))
		return;
	empty = hk_arena_used(arena);
	CHECK(empty > 0 && empty <= SELF_EMPTY_MAX(system.page_size));
	hk_arena_destroy(arena);
	if (!self_open(&self, options))
		return;
	used = hk_arena_used(self.arena);
	CHECK(used >= empty);
	block = hk_alloc(self.cache, 5 * SELF_MIB);
	CHECK(hk_arena_used(self.arena) >= used + 5 * SELF_MIB);
	hk_arena_stats(self.arena, &stats);
	CHECK(hk_arena_used(self.arena) == stats.committed_bytes);
	hk_free(self.cache, block);
	/* Nothing goes back unless the host asks. */
	CHECK(hk_arena_used(self.arena) == stats.committed_bytes);
	self_close(&self);
}

static void run_arena_check(const struct self_options *options)
{
	struct self_arena self;
	void *blocks[SELF_EDGES];
	size_t i;

	if (!self_open(&self, options))
		return;
	CHECK(hk_arena_check(self.arena) == 0);
	for (i = 0; i < SELF_EDGES; i++) {
		blocks[i] = hk_alloc(self.cache, self_edges[i]);
		CHECK(hk_arena_check(self.arena) == 0);
	}
	for (i = 0; i < SELF_EDGES; i++) {
		hk_free(self.cache, blocks[i]);
		CHECK(hk_arena_check(self.arena) == 0);
	}
	hk_cache_flush(self.cache);
	CHECK(hk_arena_check(self.arena) == 0);
	hk_arena_trim(self.arena, 0, 0);
	CHECK(hk_arena_check(self.arena) == 0);
	self_close(&self);
}

static void run_arena_trim(const struct self_options *options)
{
	struct self_arena self;
	size_t empty, used, given, total, i;
	struct hk_platform platform;
	void *blocks[8];
	void *kept;

	if (!self_open(&self, options))
		return;
	empty = hk_arena_used(self.arena);
	for (i = 0; i < 8; i++) {
		blocks[i] = hk_alloc(self.cache, SELF_MIB);
		if (CHECK(blocks[i]))
			self_fill(blocks[i], SELF_MIB, i);
	}
	kept = hk_alloc(self.cache, 100);
	used = hk_arena_used(self.arena);
	hk_free_bulk(self.cache, 8, blocks);
	given = hk_arena_trim(self.arena, used - 2 * SELF_MIB, 0);
	CHECK(given >= 2 * SELF_MIB && given < 8 * SELF_MIB);
	CHECK(hk_arena_used(self.arena) + given == used);
	used = hk_arena_used(self.arena);
	given = hk_arena_trim(self.arena, 0, 0);
	CHECK(given > 0);
	CHECK(hk_arena_used(self.arena) + given == used);
	CHECK(hk_arena_used(self.arena) < 2 * SELF_MIB);
	CHECK(hk_arena_check(self.arena) == 0);
	CHECK(self_live(&self) == 1);
	hk_free(self.cache, kept);
	hk_arena_reset(self.arena);
	hk_arena_trim(self.arena, 0, 0);
	CHECK(hk_arena_used(self.arena) <= empty);
	CHECK(hk_arena_trim(self.arena, 0, 0) == 0);
	blocks[0] = hk_zalloc(self.cache, SELF_MIB);
	CHECK(blocks[0] && self_is_zero(blocks[0], SELF_MIB));
	hk_free(self.cache, blocks[0]);
	self_close(&self);

	/* Without a clock, a call with a bound gives back one step. */
	CHECK(hk_platform_system(&platform) == HK_OK);
	platform.now_ns = NULL;
	if (!self_open_config(&self, options,
			      (struct hk_arena_config){ .address_space = options->address_space,
							.platform = &platform }))
		return;
	blocks[0] = hk_alloc(self.cache, 4 * SELF_MIB);
	CHECK(blocks[0]);
	used = hk_arena_used(self.arena);
	hk_free(self.cache, blocks[0]);
	for (total = 0, i = 0; i < 100; i++) {
		given = hk_arena_trim(self.arena, 0, 1);
		CHECK(given <= 512 * SELF_KIB);
		total += given;
		if (!given)
			break;
	}
	CHECK(total >= 4 * SELF_MIB);
	CHECK(hk_arena_used(self.arena) + total == used);
	self_close(&self);
}

static void run_cache_prefill(const struct self_options *options)
{
	static const size_t sizes[] = { 1, 100, 3000, 40000, SELF_MIB };
	struct self_arena self;
	void *blocks[20];
	size_t i, j;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct hk_counters before, after;

		if (!self_open(&self, options))
			return;
		CHECK(hk_cache_prefill(self.cache, sizes[i], 20) == HK_OK);
		CHECK(self_live(&self) == 0);
		CHECK(self_cached(&self) == 20 * hk_good_size(sizes[i]));
		before = self_counters(&self);
		for (j = 0; j < 20; j++) {
			blocks[j] = hk_alloc(self.cache, sizes[i]);
			CHECK(blocks[j]);
		}
		after = self_counters(&self);
		CHECK(after.platform_call == before.platform_call);
		CHECK(self_live(&self) == 20);
		hk_free_bulk(self.cache, 20, blocks);
		CHECK(hk_cache_prefill(self.cache, sizes[i], 3) == HK_OK);
		self_close(&self);
	}
	if (!self_open(&self, options))
		return;
	CHECK(hk_cache_prefill(self.cache, self_hidden(SIZE_MAX), 1) == HK_ERROR_ARGUMENT);
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	self_close(&self);
}

const struct self_function self_states[] = {
	{ "hk_arena_owns", false, run_arena_owns },
	{ "hk_arena_stats", false, run_arena_stats },
	{ "hk_arena_used", false, run_arena_used },
	{ "hk_arena_check", false, run_arena_check },
	{ "hk_arena_trim", false, run_arena_trim },
	{ "hk_cache_prefill", false, run_cache_prefill },
	{ NULL, false, NULL },
};
