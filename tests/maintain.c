/* SPDX-License-Identifier: MIT */
/* What hk_arena_maintain() makes ready and gives back, in which steps; and caches that rest. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>

#include <hakmem/arena.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define DELAY 10

static struct fault_platform fault;
static struct heap heap;
static void *blocks[20000];

static void open_with(const struct fault_options *options, size_t limit)
{
	struct hk_arena_config config = {
		.address_space = 1024 * MIB,
		.limit = limit,
		.platform = &fault.platform,
		.context = &heap.reports,
		.on_report = test_on_report,
		.maintain_delay = DELAY,
	};

	memset(&heap, 0, sizeof(heap));
	cr_assert_eq(fault_platform_init(&fault, options), 0);
	cr_assert_eq(hk_arena_create(&heap.arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
}

static void close_all(void)
{
	heap_close(&heap, 0);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

static struct hk_class_stats class_of(size_t size)
{
	struct hk_stats stats;
	size_t i;

	hk_arena_stats(heap.arena, &stats);
	for (i = 1; i < HK_CLASSES && stats.classes[i].block_size < size; i++)
		;
	cr_assert_lt(i, HK_CLASSES);
	return stats.classes[i];
}

static void take(size_t size, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		blocks[i] = hk_alloc(heap.cache, size);
		must(blocks[i], "block %zu of %zu bytes", i, size);
	}
}

static void give(size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		hk_free(heap.cache, blocks[i]);
}

/* Calls until all is done: how many. */
static size_t maintain(uint64_t budget_ns)
{
	size_t calls = 1;

	while (hk_arena_maintain(heap.arena, budget_ns))
		must(++calls < 100000, "it has no end");
	return calls;
}

Test(maintain, where_nothing_was_done_nothing_is_to_do)
{
	uint64_t calls;
	size_t i;

	open_with(NULL, 0);
	calls = fault.calls;
	for (i = 0; i < 3 * DELAY; i++)
		cr_assert_eq(hk_arena_maintain(heap.arena, 0), false);
	cr_assert_eq(fault.calls, calls);
	close_all();
}

/* As many as refills found missing: the next time they come from the depot. */
Test(maintain, fills_the_depot_up)
{
	struct hk_class_stats before, after;

	open_with(NULL, 0);
	take(64, 1000);
	before = class_of(64);
	cr_assert_gt(before.slab_batch, 5);
	cr_assert_eq(before.depot_swap, 0);
	cr_assert_eq(maintain(0), 1);
	after = class_of(64);
	cr_assert_gt(after.cached_blocks, before.cached_blocks + 900, "%zu", after.cached_blocks);
	cr_assert_lt(after.cached_blocks, before.cached_blocks + 3000, "%zu", after.cached_blocks);
	before = after;
	for (size_t i = 1000; i < 1900; i++)
		blocks[i] = hk_alloc(heap.cache, 64);
	after = class_of(64);
	cr_assert_eq(after.slab_batch, before.slab_batch, "%llu",
		     (unsigned long long)(after.slab_batch - before.slab_batch));
	cr_assert_gt(after.depot_swap, before.depot_swap);
	give(1900);
	close_all();
}

/* And what is at hand and not needed goes back into the slabs, as time goes by. */
Test(maintain, empties_the_depot_again)
{
	size_t i;

	open_with(NULL, 0);
	take(64, 3000);
	maintain(0);
	give(3000);
	hk_cache_flush(heap.cache);
	for (i = 0; i < 30 * DELAY; i++)
		hk_arena_maintain(heap.arena, 0);
	cr_assert_eq(class_of(64).cached_blocks, 0);
	cr_assert_eq(class_of(64).slabs, 0);
	close_all();
}

/* What goes out and comes back is needed, though it all lies there at each call. */
Test(maintain, leaves_a_depot_in_use_alone)
{
	struct hk_class_stats before, after;
	size_t i;

	open_with(NULL, 0);
	for (i = 0; i < 10 * DELAY; i++) {
		take(64, 3000);
		give(3000);
		hk_arena_maintain(heap.arena, 0);
		if (i == 4 * DELAY)
			before = class_of(64);
	}
	after = class_of(64);
	cr_assert_eq(after.slab_batch, before.slab_batch);
	cr_assert_eq(after.depot_to_slab, before.depot_to_slab);
	cr_assert_gt(after.depot_swap, before.depot_swap + 100);
	close_all();
}

/* What allocations had to commit is committed before they ask for it the next time. */
Test(maintain, commits_ahead)
{
	struct hk_stats stats;
	uint64_t commits;
	size_t used, round, i;

	open_with(&(struct fault_options){ .forbid = true }, 0);
	take(60000, 400);
	for (round = 0; round < 5; round++) {
		used = hk_arena_used(heap.arena);
		maintain(0);
		hk_arena_stats(heap.arena, &stats);
		cr_assert_gt(stats.free_bytes, 2 * MIB, "%zu", stats.free_bytes);
		cr_assert_leq(hk_arena_used(heap.arena), used + used / 8 + 512 * KIB);
		commits = fault.counts[FAULT_COMMIT];
		for (i = 0; i < 30; i++) {
			blocks[400 + round * 30 + i] = hk_alloc(heap.cache, 60000);
			memset(blocks[400 + round * 30 + i], 1, 60000);
		}
		cr_assert_eq(fault.counts[FAULT_COMMIT], commits, "round %zu", round);
		cr_assert_eq(hk_arena_check(heap.arena), 0);
		/* the same need again */
		for (i = 0; i < 60; i++)
			blocks[550 + round * 60 + i] = hk_alloc(heap.cache, 60000);
	}
	give(850);
	close_all();
}

Test(maintain, commits_nothing_ahead_where_it_is_charged)
{
	size_t used;

	open_with(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED }, 0);
	take(60000, 400);
	used = hk_arena_used(heap.arena);
	maintain(0);
	cr_assert_eq(hk_arena_used(heap.arena), used);
	give(400);
	close_all();
}

/* Not before a window has passed in which it was not used, but then in full. */
Test(maintain, gives_back_after_the_delay)
{
	size_t empty, full, i;

	open_with(&(struct fault_options){ .forbid = true }, 0);
	maintain(0);
	empty = hk_arena_used(heap.arena);
	take(60000, 400);
	for (i = 1; i < DELAY; i++)
		hk_arena_maintain(heap.arena, 0);
	full = hk_arena_used(heap.arena);
	give(400);
	hk_cache_flush(heap.cache);
	/* in this window it was in use */
	for (i = 0; i < DELAY; i++) {
		hk_arena_maintain(heap.arena, 0);
		cr_assert_geq(hk_arena_used(heap.arena), full - 3 * MIB, "call %zu", i);
	}
	/* in that one it was not */
	for (i = 0; i < DELAY; i++)
		hk_arena_maintain(heap.arena, 0);
	cr_assert_lt(hk_arena_used(heap.arena), full / 4, "%zu of %zu", hk_arena_used(heap.arena),
		     full);
	/* what was ahead follows, a quarter a window */
	for (i = 0; i < 30 * DELAY; i++)
		hk_arena_maintain(heap.arena, 0);
	cr_assert_leq(hk_arena_used(heap.arena), empty + 256 * KIB, "%zu, not %zu",
		      hk_arena_used(heap.arena), empty);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	close_all();
}

/* What was asked for by prewarming stays, until less is. */
Test(maintain, leaves_what_is_to_be_warm)
{
	size_t i;

	open_with(NULL, 0);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 20 * MIB), 0);
	take(60000, 600);
	give(600);
	hk_cache_flush(heap.cache);
	for (i = 0; i < 20 * DELAY; i++)
		hk_arena_maintain(heap.arena, 0);
	cr_assert_geq(hk_arena_used(heap.arena), 20 * MIB);
	cr_assert_lt(hk_arena_used(heap.arena), 20 * MIB + 128 * KIB);
	cr_assert_eq(hk_arena_prewarm(heap.arena, 3 * MIB), 0);
	for (i = 0; i < 3 * DELAY; i++)
		hk_arena_maintain(heap.arena, 0);
	cr_assert_geq(hk_arena_used(heap.arena), 3 * MIB);
	cr_assert_lt(hk_arena_used(heap.arena), 3 * MIB + 128 * KIB);
	close_all();
}

/* Frames that use it up to the same mark, each between two calls, keep it. */
Test(maintain, leaves_what_is_used_now_and_then)
{
	uint64_t commits, decommits;
	size_t i;

	open_with(NULL, 0);
	for (i = 0; i < 4 * DELAY; i++) {
		if (i % (DELAY / 2) == 0) {
			take(60000, 200);
			give(200);
		}
		hk_arena_maintain(heap.arena, 0);
		if (i == 2 * DELAY) {
			commits = fault.counts[FAULT_COMMIT];
			decommits = fault.counts[FAULT_DECOMMIT];
		}
	}
	cr_assert_eq(fault.counts[FAULT_COMMIT], commits);
	cr_assert_eq(fault.counts[FAULT_DECOMMIT], decommits);
	close_all();
}

/* Large blocks that are kept for the next one of their size. */
Test(maintain, gives_kept_runs_back)
{
	size_t empty, i;

	open_with(NULL, 0);
	maintain(0);
	empty = hk_arena_used(heap.arena);
	for (i = 0; i < 8; i++)
		blocks[i] = hk_alloc(heap.cache, 5 * MIB);
	give(8);
	cr_assert_gt(hk_arena_used(heap.arena), 40 * MIB);
	for (i = 0; i < 30 * DELAY; i++)
		hk_arena_maintain(heap.arena, 0);
	cr_assert_leq(hk_arena_used(heap.arena), empty + 256 * KIB);
	close_all();
}

/* Most that one call did. */
struct most {
	uint64_t populates;
	uint64_t commits;
	uint64_t decommits;
	size_t up;
	size_t down;
	size_t calls;
};

static struct most most_of_a_call(uint64_t budget_ns, size_t calls)
{
	struct most most = { 0 };

	for (; most.calls < calls; most.calls++) {
		size_t before = fault.committed, up, down;

		fault_platform_rewind(&fault);
		hk_arena_maintain(heap.arena, budget_ns);
		up = fault.committed > before ? fault.committed - before : 0;
		down = fault.committed < before ? before - fault.committed : 0;
		if (fault.counts[FAULT_POPULATE] > most.populates)
			most.populates = fault.counts[FAULT_POPULATE];
		if (fault.counts[FAULT_COMMIT] > most.commits)
			most.commits = fault.counts[FAULT_COMMIT];
		if (fault.counts[FAULT_DECOMMIT] > most.decommits)
			most.decommits = fault.counts[FAULT_DECOMMIT];
		if (up > most.up)
			most.up = up;
		if (down > most.down)
			most.down = down;
	}
	return most;
}

/* The clock says that time is over at each look: a call does one step, and all gets done. */
Test(maintain, keeps_to_its_time)
{
	static const unsigned hide[] = { 0, FAULT_BIT(FAULT_NOW) };
	struct most most;
	size_t empty, k;

	for (k = 0; k < COUNT(hide); k++) {
		open_with(&(struct fault_options){ .fake_clock = true, .hide = hide[k] }, 0);
		fault.tick = 1000000;
		empty = hk_arena_used(heap.arena);
		take(60000, 3000);
		take(100, 20000);
		most = most_of_a_call(1000, 600);
		cr_assert_eq(most.populates, 1, "%llu", (unsigned long long)most.populates);
		/* a slab, its bitmaps; or magazines, their links, and slabs for their blocks */
		cr_assert_leq(most.commits, 4);
		cr_assert_leq(most.up, 2 * MIB + 128 * KIB, "%zu", most.up);
		give(20000);
		hk_arena_reset(heap.arena);
		most = most_of_a_call(1000, 4000);
		cr_assert_eq(most.decommits, 1, "%llu", (unsigned long long)most.decommits);
		cr_assert_eq(most.down, 256 * KIB, "%zu", most.down);
		cr_assert_lt(hk_arena_used(heap.arena), empty + 2 * MIB, "%zu",
			     hk_arena_used(heap.arena));
		close_all();
	}
}

/* A look at the clock costs 25 ns: no step does without. */
Test(maintain, looks_at_the_clock_after_each_step)
{
	size_t committed;

	open_with(&(struct fault_options){ .fake_clock = true }, 0);
	take(60000, 3000);
	committed = fault.committed;
	fault_platform_rewind(&fault);
	cr_assert_eq(hk_arena_maintain(heap.arena, 1000000000), false);
	committed = fault.committed - committed;
	cr_assert_gt(committed, 8 * MIB);
	cr_assert_geq(fault.counts[FAULT_NOW], committed / (64 * KIB));
	/* without a bound it is not asked */
	hk_arena_reset(heap.arena);
	fault_platform_rewind(&fault);
	hk_arena_maintain(heap.arena, 0);
	cr_assert_eq(fault.counts[FAULT_NOW], 0);
	close_all();
}

/* A slab is faulted in by quarters: what takes long ends when time is over. */
Test(maintain, looks_at_the_clock_within_a_slab)
{
	struct most most;

	open_with(&(struct fault_options){ .fake_clock = true }, 0);
	take(60000, 3000);
	/* a look takes 60 us: the third of those after 16 KiB each is beyond 200, less a margin */
	fault.tick = 60000;
	most = most_of_a_call(200000, 20);
	cr_assert_eq(most.populates, 3, "%llu", (unsigned long long)most.populates);
	fault.tick = 20000;
	most = most_of_a_call(200000, 20);
	cr_assert_geq(most.populates, 6, "%llu", (unsigned long long)most.populates);
	cr_assert_leq(most.populates, 8, "%llu", (unsigned long long)most.populates);
	give(3000);
	close_all();
}

/* Large blocks that are kept: up to 170 would take a while. */
Test(maintain, gives_up_what_is_kept_a_part_at_a_time)
{
	size_t piled, before, parts = 0;
	unsigned i;

	open_with(&(struct fault_options){ .fake_clock = true }, 0);
	fault.tick = 1000000;
	take(600000, 60);
	give(60);
	hk_cache_flush(heap.cache);
	hk_depot_drain(&heap.arena->depot);
	before = heap.arena->space.kept.piled;
	cr_assert_eq(before, 600);
	for (i = 0; i < 2000 && before; i++) {
		hk_arena_maintain(heap.arena, 1000);
		piled = heap.arena->space.kept.piled;
		cr_assert_leq(before - piled, 320, "32 of them at once");
		parts += piled < before;
		before = piled;
	}
	cr_assert_eq(parts, 2);
	close_all();
}

/* Whatever fails is told, and the work goes on. */
Test(maintain, each_platform_call_fails_in_turn, .timeout = 120)
{
	uint64_t n, steps = 1;
	size_t i;

	for (n = 0; n < steps; n++) {
		open_with(NULL, 0);
		take(60000, 300);
		fault_platform_rewind(&fault);
		fault.fail_at = n;
		maintain(0);
		give(300);
		hk_cache_flush(heap.cache);
		for (i = 0; i < 3 * DELAY; i++)
			hk_arena_maintain(heap.arena, 0);
		if (!n)
			steps = fault.steps + 1;
		cr_assert_gt(steps, 20);
		cr_assert_eq(fault.injected, n != 0);
		cr_assert_eq(heap.reports.by_fault[HK_FAULT_PLATFORM], n != 0);
		cr_assert_eq(hk_arena_check(heap.arena), 0, "call %llu", (unsigned long long)n);
		cr_assert_eq(hk_arena_used(heap.arena), fault.committed);
		cr_assert_lt(fault.committed, 6 * MIB, "%zu after call %llu", fault.committed,
			     (unsigned long long)n);
		take(60000, 300);
		give(300);
		heap_close(&heap, n != 0);
		cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
	}
}

Test(maintain, a_limit_is_not_passed)
{
	open_with(NULL, 24 * MIB);
	take(60000, 360);
	maintain(0);
	cr_assert_leq(fault.peak, 24 * MIB);
	give(360);
	close_all();
}
