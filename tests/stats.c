/* SPDX-License-Identifier: MIT */
/* What an arena says of itself: exact when quiet, and each counter for its own event alone. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static struct fault_platform fault;
static struct hk_arena *arena;
static struct hk_cache *cache;
static void *blocks[5000];

static bool refuse_oom(void *context, struct hk_arena *which, size_t size)
{
	(void)context;
	(void)which;
	(void)size;
	return false;
}

static void open_with(size_t limit)
{
	struct hk_arena_config config = {
		.platform = &fault.platform,
		.address_space = 256 * MIB,
		.limit = limit,
		.on_oom = refuse_oom,
		.on_report = test_on_report,
	};
	static struct test_reports reports;

	config.context = &reports;
	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
}

static void close_all(void)
{
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_reset(arena);
	hk_arena_destroy(arena);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* What must be so of any quiet arena. */
static void consistent(const struct hk_stats *stats)
{
	struct hk_counters sum = { 0 };
	size_t live_blocks = 0;
	size_t live_bytes = 0;
	size_t cached = 0;
	size_t free = 0;
	size_t size = 0;
	unsigned i;

	for (i = 0; i < HK_CLASSES; i++) {
		const struct hk_class_stats *class = &stats->classes[i];

		must(class->block_size == (i ? hk_good_size(size + 1) : 0), "class %u", i);
		size = class->block_size;
		if (i)
			must(class->live_bytes == class->live_blocks * size, "class %u", i);
		must((class->live_blocks + class->cached_blocks + class->free_blocks) * size <=
			     class->slabs * 64 * KIB,
		     "class %u has more blocks than slabs", i);
		live_blocks += class->live_blocks;
		live_bytes += class->live_bytes;
		cached += class->cached_blocks * size;
		free += class->free_blocks * size;
		sum.depot_swap += class->depot_swap;
		sum.slab_batch += class->slab_batch;
		sum.new_slab += class->new_slab;
		sum.magazine_to_depot += class->magazine_to_depot;
		sum.depot_to_slab += class->depot_to_slab;
		sum.slab_emptied += class->slab_emptied;
		sum.lock_acquired += class->lock_acquired;
	}
	must(stats->classes[0].live_bytes <= stats->classes[0].slabs * 64 * KIB, "large");
	must(live_blocks == stats->live_blocks, "%zu live blocks", live_blocks);
	must(live_bytes == stats->live_bytes, "%zu live bytes", live_bytes);
	must(cached == stats->cached_bytes, "%zu cached bytes", cached);
	must(free <= stats->free_bytes, "%zu free bytes", free);
	must(sum.depot_swap == stats->counters.depot_swap, "depot_swap");
	must(sum.slab_batch == stats->counters.slab_batch, "slab_batch");
	must(sum.new_slab == stats->counters.new_slab, "new_slab");
	must(sum.magazine_to_depot == stats->counters.magazine_to_depot, "magazine_to_depot");
	must(sum.depot_to_slab == stats->counters.depot_to_slab, "depot_to_slab");
	must(sum.slab_emptied == stats->counters.slab_emptied, "slab_emptied");
	must(sum.lock_acquired <= stats->counters.lock_acquired, "lock_acquired");
	must(stats->counters.lock_waited == 0, "one thread never waits");
	must(live_bytes + cached + stats->free_bytes + stats->metadata_bytes <=
		     stats->committed_bytes,
	     "more is said to be there than is committed");
	must(stats->metadata_bytes > 0, "metadata");
	must(stats->committed_bytes == fault.committed, "committed");
	must(stats->peak_committed_bytes == fault.peak, "peak");
	must(stats->reserved_bytes == fault.reserved, "reserved");
	must(stats->counters.platform_call == fault.calls, "%llu platform calls, %llu seen",
	     (unsigned long long)stats->counters.platform_call, (unsigned long long)fault.calls);
}

Test(stats, of_an_empty_arena)
{
	struct hk_stats stats;
	unsigned i;

	open_with(0);
	memset(&stats, 0xff, sizeof(stats));
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.live_blocks, 0);
	cr_assert_eq(stats.live_bytes, 0);
	cr_assert_eq(stats.cached_bytes, 0);
	cr_assert_eq(stats.free_bytes, 0);
	cr_assert_eq(stats.metadata_bytes, stats.committed_bytes);
	cr_assert_eq(stats.cache_count, 1);
	for (i = 0; i < HK_CLASSES; i++)
		cr_assert_eq(stats.classes[i].slabs, 0);
	consistent(&stats);
	close_all();
}

/* Random life against a count kept beside it, per class. */
Test(stats, exact_when_quiet)
{
	static size_t usable[COUNT(blocks)];
	static size_t live[HK_CLASSES];
	struct hk_cache *second;
	struct hk_stats stats;
	uint64_t seed = 21;
	size_t slot;
	size_t i;

	open_with(0);
	cr_assert_eq(hk_cache_create(arena, &second), 0);
	for (i = 0; i < 60000; i++) {
		size_t size = (size_t)(test_random(&seed) % 512) << test_random(&seed) % 12;
		struct hk_cache *either = test_random(&seed) % 2 ? cache : second;

		slot = (size_t)(test_random(&seed) % 800);
		if (blocks[slot]) {
			live[usable[slot] > HK_CLASS_MAX ? 0 : hk_size_class(usable[slot])]--;
			if (size % 5 == 0)
				hk_arena_free(arena, blocks[slot]);
			else
				hk_free(either, blocks[slot]);
			blocks[slot] = NULL;
		} else {
			blocks[slot] =
				size % 7 ? hk_alloc(either, size) : hk_arena_alloc(arena, size);
			must(blocks[slot], "size %zu", size);
			usable[slot] = hk_usable_size(arena, blocks[slot]);
			live[size > HK_CLASS_MAX ? 0 : hk_size_class(size ? size : 1)]++;
		}
		if (i % 500 == 0) {
			unsigned j;

			hk_arena_stats(arena, &stats);
			consistent(&stats);
			for (j = 0; j < HK_CLASSES; j++)
				must(stats.classes[j].live_blocks == live[j],
				     "step %zu: class %u has %zu, not %zu", i, j,
				     stats.classes[j].live_blocks, live[j]);
		}
		if (i % 10000 == 9999)
			hk_cache_flush(either);
	}
	close_all();
}

static struct hk_counters delta(const struct hk_counters *before)
{
	const uint64_t *old = (const uint64_t *)before;
	struct hk_counters counters;
	struct hk_stats stats;
	uint64_t *new = (uint64_t *)&counters;
	size_t i;

	hk_arena_stats(arena, &stats);
	consistent(&stats);
	counters = stats.counters;
	for (i = 0; i < sizeof(counters) / sizeof(*new); i++)
		new[i] -= old[i];
	return counters;
}

static struct hk_counters counters_now(void)
{
	struct hk_stats stats;

	hk_arena_stats(arena, &stats);
	return stats.counters;
}

/* To read the counters takes locks too; how many is found by reading twice. */
static uint64_t locks_to_read(void)
{
	struct hk_counters first = counters_now();

	return delta(&first).lock_acquired;
}

#define ONLY(delta_, ...)                                                                          \
	do {                                                                                       \
		struct hk_counters got = (delta_);                                                 \
		struct hk_counters want = { __VA_ARGS__ };                                         \
                                                                                                   \
		cr_assert_eq(memcmp(&got, &want, sizeof(got)), 0, "line %d: %s", __LINE__,         \
			     difference(&got, &want));                                             \
	} while (0)

static const char *difference(const struct hk_counters *got, const struct hk_counters *want)
{
	static const char *const names[] = {
		"spare_swap",	 "depot_swap",	 "slab_batch",	      "new_slab",
		"new_superslab", "large_alloc",	 "platform_call",     "magazine_to_depot",
		"depot_to_slab", "slab_emptied", "superslab_emptied", "large_free",
		"arena_alloc",	 "arena_free",	 "free_null",	      "refused",
		"exhausted",	 "oom_calls",	 "lock_acquired",     "lock_waited",
	};
	size_t i;

	_Static_assert(sizeof(*got) == COUNT(names) * sizeof(uint64_t), "a name for each");
	for (i = 0; i < COUNT(names); i++)
		if (((const uint64_t *)got)[i] != ((const uint64_t *)want)[i])
			return names[i];
	return "nothing";
}

Test(stats, hits_are_not_counted)
{
	struct hk_counters before;
	uint64_t locks;
	size_t i;

	open_with(0);
	for (i = 0; i < 20; i++)
		blocks[i] = hk_alloc(cache, 100);
	for (i = 0; i < 20; i++)
		hk_free(cache, blocks[i]);
	locks = locks_to_read();
	before = counters_now();
	for (i = 0; i < 1000; i++) {
		void *block = hk_alloc(cache, 100);

		hk_free(cache, block);
	}
	ONLY(delta(&before), .lock_acquired = locks);
	close_all();
}

Test(stats, calls_without_a_cache)
{
	struct hk_counters before;
	uint64_t locks;
	void *block;

	open_with(0);
	blocks[0] = hk_arena_alloc(arena, 100);
	blocks[1] = hk_arena_alloc(arena, 100);
	locks = locks_to_read();
	before = counters_now();
	block = hk_arena_alloc(arena, 100);
	ONLY(delta(&before), .arena_alloc = 1, .slab_batch = 1, .lock_acquired = locks + 1);
	before = counters_now();
	hk_arena_free(arena, block);
	ONLY(delta(&before), .arena_free = 1, .depot_to_slab = 1, .lock_acquired = locks + 1);
	close_all();
}

Test(stats, large_blocks)
{
	struct hk_counters got;
	struct hk_counters before;
	void *block;

	open_with(0);
	block = hk_alloc(cache, 3 * MIB);
	hk_free(cache, block);
	before = counters_now();
	block = hk_alloc(cache, 3 * MIB);
	got = delta(&before);
	cr_assert_eq(got.large_alloc, 1);
	cr_assert_eq(got.large_free, 0);
	cr_assert_eq(got.new_slab + got.slab_batch + got.new_superslab, 0);
	cr_assert_eq(got.platform_call, 0, "what was freed is used again");
	before = counters_now();
	hk_free(cache, block);
	got = delta(&before);
	cr_assert_eq(got.large_free, 1);
	cr_assert_eq(got.large_alloc + got.depot_to_slab + got.slab_emptied, 0);
	cr_assert_eq(got.superslab_emptied, 0, "the run is kept as it is");
	hk_arena_trim(arena, 0, 0);
	cr_assert_geq(delta(&before).superslab_emptied, 1);
	close_all();
}

/* One class from the first block to the last, far enough to pass every stage. */
Test(stats, every_stage_of_refill_and_return)
{
	struct hk_counters before;
	struct hk_counters got;
	struct hk_stats stats;
	size_t i;

	open_with(0);
	before = counters_now();
	blocks[0] = hk_alloc(cache, 2000);
	got = delta(&before);
	cr_assert_eq(got.slab_batch, 1);
	cr_assert_eq(got.new_slab, 1);
	cr_assert_eq(got.new_superslab, 1);
	cr_assert_geq(got.platform_call, 1);
	cr_assert_eq(got.spare_swap + got.depot_swap + got.magazine_to_depot, 0);
	for (i = 1; i < 3000; i++)
		blocks[i] = hk_alloc(cache, 2000);
	got = delta(&before);
	cr_assert_geq(got.slab_batch, 3000 / 32);
	cr_assert_leq(got.slab_batch, 3000 / 8);
	cr_assert_geq(got.new_slab, 3000 * 2000 / 65536);
	cr_assert_geq(got.new_superslab, 2);
	cr_assert_eq(got.spare_swap + got.depot_swap + got.depot_to_slab + got.slab_emptied, 0);

	before = counters_now();
	hk_free_bulk(cache, 3000, blocks);
	got = delta(&before);
	cr_assert_geq(got.magazine_to_depot, 1);
	cr_assert_eq(got.slab_batch + got.new_slab + got.new_superslab + got.depot_swap, 0);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.live_blocks, 0);

	before = counters_now();
	for (i = 0; i < 200; i++)
		blocks[i] = hk_alloc(cache, 2000);
	got = delta(&before);
	cr_assert_geq(got.spare_swap, 1);
	cr_assert_geq(got.depot_swap, 1);
	cr_assert_eq(got.new_superslab + got.platform_call, 0);
	hk_free_bulk(cache, 200, blocks);

	before = counters_now();
	hk_cache_flush(cache);
	got = delta(&before);
	cr_assert_geq(got.depot_to_slab, 1);
	cr_assert_eq(got.depot_swap + got.magazine_to_depot + got.slab_batch, 0);
	hk_arena_trim(arena, 0, 0);
	hk_arena_stats(arena, &stats);
	cr_assert_geq(stats.counters.slab_emptied, 3000 * 2000 / 65536);
	cr_assert_geq(stats.counters.superslab_emptied, 1);
	cr_assert_eq(stats.counters.slab_emptied, stats.counters.new_slab, "all came back");
	cr_assert_eq(stats.classes[hk_size_class(2000)].slabs, 0);
	close_all();
}

Test(stats, early_returns)
{
	struct hk_counters before;
	uint64_t locks;
	char local;

	open_with(2 * MIB);
	hk_free(cache, hk_alloc(cache, 10));
	locks = locks_to_read();
	before = counters_now();
	hk_free(cache, NULL);
	hk_free(cache, NULL);
	ONLY(delta(&before), .free_null = 2, .lock_acquired = locks);
	before = counters_now();
	hk_free(cache, &local);
	cr_assert_null(hk_realloc(cache, &local, 5));
	cr_assert_not(hk_expand(cache, &local, 5));
	hk_arena_free(arena, &local);
	cr_assert_eq(delta(&before).refused, 4);
	cr_assert_eq(delta(&before).arena_free, 0, "refused is not freed");
	before = counters_now();
	cr_assert_null(hk_alloc(cache, 4 * MIB));
	cr_assert_eq(delta(&before).exhausted, 1);
	cr_assert_eq(delta(&before).oom_calls, 1);
	cr_assert_null(hk_arena_alloc(arena, 4 * MIB));
	cr_assert_eq(delta(&before).exhausted, 2);
	cr_assert_eq(delta(&before).oom_calls, 2);
	close_all();
}

/* The stage of one call, by what it added to the counters. */
static enum hk_stage stage_of(const struct hk_counters *added)
{
	if (added->new_superslab)
		return HK_STAGE_NEW_SUPERSLAB;
	if (added->platform_call)
		return HK_STAGE_PLATFORM;
	if (added->large_alloc || added->large_free)
		return HK_STAGE_LARGE;
	if (added->new_slab)
		return HK_STAGE_NEW_SLAB;
	if (added->slab_batch || added->depot_to_slab)
		return HK_STAGE_SLAB;
	if (added->depot_swap || added->magazine_to_depot)
		return HK_STAGE_DEPOT;
	return added->spare_swap ? HK_STAGE_SPARE : HK_STAGE_HIT;
}

/* Allocates and frees at random; each call's stage is what the counters say of it. */
Test(stats, stages_are_what_the_counters_say)
{
	static const size_t sizes[] = { 16, 64, 300, 2000, 20000, 40000, 100000, 1100 * KIB };
	uint64_t random = 1, seen[HK_STAGE_NEW_SUPERSLAB + 1] = { 0 };
	struct hk_counters before, added;
	enum hk_stage stage, expected;
	size_t i, slot;
	bool fresh;

	open_with(0);
	memset(blocks, 0, 2000 * sizeof(*blocks));
	for (i = 0; i < 30000; i++) {
		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		/* stretches that allocate, and stretches that free, of all blocks or of a few */
		slot = (random >> 33) % (i / 5000 % 2 ? 100 : 1500);
		if (!blocks[slot] == (i / 1000 % 4 == 3))
			continue;
		before = counters_now();
		fresh = !blocks[slot];
		if (fresh) {
			blocks[slot] =
				hk_alloc(cache,
					 sizes[(random >> 20) % (i < 15000 ? COUNT(sizes) : 3)]);
		} else {
			hk_free(cache, blocks[slot]);
			blocks[slot] = NULL;
		}
		stage = hk_cache_stage(cache);
		added = delta(&before);
		expected = stage_of(&added);
		/* an empty magazine from the depot is in no counter */
		if (expected < HK_STAGE_DEPOT && stage == HK_STAGE_DEPOT)
			continue;
		must(stage == expected, "call %zu: %s, the counters say %s", i,
		     hk_stage_name(stage), hk_stage_name(expected));
		must(hk_cache_stage(cache) == HK_STAGE_HIT, "call %zu: told twice", i);
		seen[stage]++;
	}
	for (i = 0; i <= HK_STAGE_NEW_SUPERSLAB; i++)
		cr_assert(seen[i], "no %s", hk_stage_name((enum hk_stage)i));
	hk_free_bulk(cache, 2000, blocks);
	close_all();
}

Test(stats, stages_of_resizes_and_after_a_reset)
{
	void *block;

	open_with(0);
	block = hk_alloc(cache, MIB);
	cr_assert_eq(hk_cache_stage(cache), HK_STAGE_NEW_SUPERSLAB);
	cr_assert(hk_expand(cache, block, 3 * MIB));
	cr_assert_geq(hk_cache_stage(cache), HK_STAGE_PLATFORM);
	block = hk_realloc(cache, block, MIB);
	cr_assert_eq(hk_cache_stage(cache), HK_STAGE_LARGE);
	cr_assert(hk_expand(cache, block, 2 * MIB));
	cr_assert_eq(hk_cache_stage(cache), HK_STAGE_LARGE, "resized in place");
	hk_free(cache, block);
	cr_assert_eq(hk_cache_stage(cache), HK_STAGE_LARGE);
	hk_free(cache, hk_zalloc(cache, 100000));
	cr_assert_eq(hk_cache_stage(cache), HK_STAGE_NEW_SLAB, "from what is committed");
	hk_free(cache, hk_alloc(cache, 10));
	hk_arena_reset(arena);
	cr_assert_eq(hk_cache_stage(cache), HK_STAGE_HIT, "a reset forgets");
	close_all();
}

/* What a cache counted is not lost with it. */
Test(stats, counters_outlive_their_cache)
{
	struct hk_counters before;
	struct hk_cache *other;
	struct hk_stats stats;
	size_t i;

	open_with(0);
	cr_assert_eq(hk_cache_create(arena, &other), 0);
	for (i = 0; i < 3000; i++)
		blocks[i] = hk_alloc(other, 64);
	hk_free_bulk(other, 3000, blocks);
	for (i = 0; i < 200; i++)
		blocks[i] = hk_alloc(other, 64);
	hk_free_bulk(other, 200, blocks);
	hk_free(other, NULL);
	hk_cache_flush(other);
	before = counters_now();
	cr_assert_gt(before.spare_swap, 0);
	cr_assert_gt(before.depot_swap, 0);
	cr_assert_gt(before.magazine_to_depot, 0);
	hk_cache_destroy(other);
	hk_arena_stats(arena, &stats);
	consistent(&stats);
	cr_assert_eq(stats.counters.spare_swap, before.spare_swap);
	cr_assert_eq(stats.counters.depot_swap, before.depot_swap);
	cr_assert_eq(stats.counters.magazine_to_depot, before.magazine_to_depot);
	cr_assert_eq(stats.counters.free_null, 1);
	cr_assert_eq(hk_cache_create(arena, &other), 0);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.counters.spare_swap, before.spare_swap, "nor counted twice");
	cr_assert_eq(stats.counters.free_null, 1);
	hk_arena_reset(arena);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.counters.depot_swap, before.depot_swap, "counted since creation");
	close_all();
}

Test(stats, peak_stays_and_used_is_what_is_committed)
{
	struct hk_stats stats;
	size_t peak = 0;
	size_t i;

	open_with(0);
	for (i = 0; i < 40; i++) {
		blocks[i] = hk_alloc(cache, 700 * KIB);
		if (hk_arena_used(arena) > peak)
			peak = hk_arena_used(arena);
	}
	hk_free_bulk(cache, 40, blocks);
	hk_cache_flush(cache);
	hk_arena_trim(arena, 0, 0);
	hk_arena_stats(arena, &stats);
	consistent(&stats);
	cr_assert_eq(stats.peak_committed_bytes, peak);
	cr_assert_lt(stats.committed_bytes, MIB);
	cr_assert_eq(stats.committed_bytes, hk_arena_used(arena));
	close_all();
}
